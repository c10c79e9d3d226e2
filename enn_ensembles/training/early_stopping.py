"""Early stopping: the best parameters by held-out data, in compiled code."""

import dataclasses

import chex
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.training import forward_blocks
from enn_ensembles.training import losses

METRICS = ('nll', 'error')

# (validation point, index) pairs that are forwarded at once.
_VALIDATE_PAIRS = 2**13


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
  """When training stops, and which parameters are kept.

  The network is scored every so many steps on held-out data. The parameters
  with the best score are the trained ones; before the first score, and where
  no score is a number, the initial ones.

  Attributes:
    every: steps between two scores; those after the last one are lost.
    patience: training stops after so many scores in a row without improvement.
    min_delta: a score is an improvement if it is lower than the best one by
      more than this.
    metric: 'nll', the mean negative log probability of the labels, in nats:
      under the mean of the members' class probabilities, or under the Gaussian
      of the members' mean and variance plus the noise variance. 'error', the
      share of labels missed by the mean of the members' probabilities, or the
      mean squared error of the members' mean.
    num_index_samples: indices drawn for each score where a network has
      infinitely many; the same at every score.
  """
  every: int
  patience: int = 10
  min_delta: float = 0.
  metric: str = 'nll'
  num_index_samples: int = 20

  def __post_init__(self):
    checks.check_count('every', self.every)
    checks.check_count('patience', self.patience)
    checks.check_scale('min_delta', self.min_delta)
    checks.check_choice('metric', self.metric, METRICS)
    checks.check_count('num_index_samples', self.num_index_samples)


def score(settings: EarlyStopping, network: base.EpistemicNetwork,
          likelihood: base.Likelihood, params: base.Params, state: base.State,
          data: base.Data, key: chex.PRNGKey) -> base.Array:
  """The metric of a network on held-out data, a scalar; lower is better.

  Args:
    settings: which metric.
    network: the network.
    likelihood: of the problem.
    params: its parameters.
    state: its state.
    data: held-out data, x [N, ...] and y [N, ...].
    key: what indices are drawn from.

  Raises:
    ValueError: 'nll' is asked of regression without a known noise level.
  """
  num_indices = base.count_support(network.indexer)
  indices = None
  if num_indices is None:
    indices = losses.sample_indices(network, key, settings.num_index_samples)
    num_indices = settings.num_index_samples

  def forward(x):
    out, _ = base.apply_indices(network, params, state, x, indices)
    return jnp.swapaxes(base.get_predictions(out), 0, 1)

  out = forward_blocks.map_points(forward, data.x, _VALIDATE_PAIRS, num_indices)
  if isinstance(likelihood, base.Categorical):
    return classification_score(settings.metric, out, data.y)
  return regression_score(settings.metric, out, data.y, likelihood.noise_std)


def classification_score(metric: str, logits: base.Array,
                         labels: base.Array) -> base.Array:
  """See `EarlyStopping.metric`.

  Args:
    metric: one of METRICS.
    logits: [N, J, C].
    labels: int [N].
  """
  log_probs = jax.nn.logsumexp(
      jax.nn.log_softmax(logits), axis=1) - jnp.log(logits.shape[1])
  if metric == 'error':
    return jnp.mean(jnp.argmax(log_probs, axis=-1) != labels,
                    dtype=log_probs.dtype)
  return -jnp.mean(jnp.take_along_axis(log_probs, labels[:, None], axis=1))


def regression_score(metric: str, f: base.Array, y: base.Array,
                     noise_std: base.Array | None) -> base.Array:
  """See `EarlyStopping.metric`.

  Args:
    metric: one of METRICS.
    f: predictions [N, J, out].
    y: [N, out].
    noise_std: scalar; None where it is not known.

  Raises:
    ValueError: the metric needs a noise_std that is not known.
  """
  squares = jnp.square(y - jnp.mean(f, axis=1))
  if metric == 'error':
    return jnp.mean(squares)
  if noise_std is None:
    raise ValueError("metric must be 'error' where noise_std is not known, got "
                     f'{metric!r}.')
  variance = jnp.var(f, axis=1) + noise_std ** 2
  return 0.5 * jnp.mean(squares / variance + jnp.log(2. * jnp.pi * variance))
