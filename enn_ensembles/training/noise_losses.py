"""Losses of networks that say what the noise of a label is."""

import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles.training import losses


def gaussian_nll(mean: base.Array, log_variance: base.Array, y: base.Array,
                 beta: float = 0.) -> base.Array:
  """The beta-NLL of labels, summed over outputs.

  variance^beta (log variance + (y - mean)^2 / variance) / 2, no gradient
  through the first factor. beta = 0 is the negative log density less log(2 pi)
  / 2, which learns little where it once predicted a large variance; beta = 1
  gives means the gradient of the squared error. Seitzer et al. 2022, "On the
  pitfalls of heteroscedastic uncertainty estimation with probabilistic neural
  networks" (arXiv 2203.09168).

  Args:
    mean: [J, B, out].
    log_variance: [J, B, out].
    y: [B, out].
    beta: from 0 to 1.

  Returns:
    [J, B].
  """
  nll = 0.5 * (log_variance + jnp.square(y - mean) * jnp.exp(-log_variance))
  if beta:
    nll *= jax.lax.stop_gradient(jnp.exp(beta * log_variance))
  return jnp.sum(nll, axis=-1)


def make_noise_loss(beta: float = 0., bootstrap: bool = False) -> losses.Loss:
  """The beta-NLL, averaged over data points and all members.

  Args:
    beta: see `gaussian_nll`.
    bootstrap: whether each member has bootstrap weights of the data points.
  """
  def prepare(network, params, state, data, key):
    del params, state
    if not bootstrap:
      return None
    num_members = base.count_support(network.indexer)
    return losses.bootstrap_counts(key, len(data.x), num_members, data.x.dtype)

  def evaluate(network, params, state, context, batch, key):
    out, state = losses.forward_train(network, params, state, batch.x, None,
                                      key)
    errors = gaussian_nll(base.get_predictions(out), base.get_log_variance(out),
                          batch.y, beta)
    if context is not None:
      errors = context[batch.data_index].T * errors
    return jnp.mean(errors), (state, {})

  return losses.Loss(prepare, evaluate)
