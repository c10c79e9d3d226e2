"""Losses of regression: squared error over indices, target noise, ELBO."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles.training import index_losses
from enn_ensembles.training import losses


def squared_error(predictions: base.Array, y: base.Array) -> base.Array:
  """Squared errors, summed over outputs.

  Args:
    predictions: [J, B, out].
    y: [B, out].

  Returns:
    [J, B].
  """
  return jnp.sum(jnp.square(predictions - y), axis=-1)


def make_loss(noise_std: Any = 0., **options: Any) -> losses.Loss:
  """Squared error, averaged over data points and indices, on noisy targets.

  The target of data point t under index z is y_t + noise_std * c_t . e(z),
  with c_t ~ N(0, I) drawn once per data point, and e(z) the indexer's
  `noise_embedding`, a vector of mean square norm 1. With a one-hot e(z) that is
  an independent fixed draw for each (data point, member), the target noise of
  ensembles (Lu & Van Roy 2017, "Ensemble sampling", arXiv 1705.07347); with
  e(z) = z that of hypermodels (Dwaracherla et al. 2020, "Hypermodels for
  exploration", arXiv 2006.07464). All outputs of a data point share the draw.

  Args:
    noise_std: std of the target noise; may be traced. A Python 0 is none.
    **options: num_index_samples and bootstrap, as in
      `index_losses.make_index_loss`.
  """
  return index_losses.make_index_loss(squared_error, noise_std=noise_std,
                                      **options)


def make_per_example_loss() -> losses.Loss:
  """Squared error with an index of its own for every data point of a batch."""
  return losses.make_per_example_loss(squared_error)


def make_elbo_loss(noise_std: Any, num_train: int,
                   divergence: Callable[[base.Params], base.Array],
                   num_index_samples: int) -> losses.Loss:
  """The negative ELBO per data point, for Gaussian observation noise.

  mean over indices and batch of (f(x, z) - y)^2 / (2 noise_std^2)
  + divergence(params) / num_train. Blundell et al. 2015, "Weight uncertainty in
  neural networks" (arXiv 1505.05424).

  Args:
    noise_std: std of the observation noise.
    num_train: T; the divergence is shared out among the data points.
    divergence: params -> KL(q || prior) of the weights, in nats.
    num_index_samples: indices drawn per step.
  """
  error = make_loss(num_index_samples=num_index_samples)

  def evaluate(network, params, state, context, batch, key):
    value, aux = error.evaluate(network, params, state, context, batch, key)
    return 0.5 * value / noise_std ** 2 + divergence(params) / num_train, aux

  return dataclasses.replace(error, evaluate=evaluate)
