"""Scores of the first 1, 2, ... members of an order."""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles.scoring import array_checks
from enn_ensembles.scoring import gaussian


class CurveScores(NamedTuple):
  """Scores of the first 1, 2, ..., P members of an order, each [P], in nats.

  Attributes:
    kl_estimate: mean over inputs of KL(N_nngp || N_agent).
    kl_reverse: mean over inputs of KL(N_agent || N_nngp).
  """
  kl_estimate: np.ndarray
  kl_reverse: np.ndarray


def evaluate_curve(predictions: base.Array,
                   order: base.Array,
                   mean: base.Array,
                   std: base.Array,
                   *,
                   std_ridge: float = 1e-3,
                   dtype: Any = None) -> CurveScores:
  """Scores the first 1, 2, ..., P of an order, on inputs of no part in it.

  Args:
    predictions: what each of the J members predicts at x_test, [J, num_x].
    order: distinct members, [P] integers in 0..J-1; any order, ranked or not.
    mean: posterior mean at x_test, [num_x].
    std: posterior std at x_test without ridge, [num_x].
    std_ridge: added to both stds; > 0.
    dtype: as in `ranking.rank_samples`.

  Returns:
    kl_estimate [P] and kl_reverse [P].

  Raises:
    ValueError: a shape or a value is not as above.
  """
  predictions = array_checks.as_finite('predictions', predictions, ndim=2)
  num_samples, num_x = predictions.shape
  if num_samples < 1 or num_x < 1:
    raise ValueError('predictions must hold at least one member and one '
                     f'input, got shape {predictions.shape}.')
  mean = array_checks.as_finite('mean', mean, shape=(num_x,))
  std = array_checks.as_std(std, shape=(num_x,))
  array_checks.check_std_ridge(std_ridge)
  order = np.asarray(order)
  if order.ndim != 1 or not order.size or order.dtype.kind not in 'iu':
    raise ValueError('order must be a non-empty list of integers, got shape '
                     f'{order.shape} and dtype {order.dtype}.')
  if order.min() < 0 or order.max() >= num_samples:
    raise ValueError(f'order must lie in 0..{num_samples - 1}, got '
                     f'{order.min()}..{order.max()}.')
  if np.unique(order).size != order.size:
    raise ValueError('order must not repeat a member, got '
                     f'{order.size - np.unique(order).size} repeats.')
  dtype = array_checks.get_dtype(dtype)
  scores = _evaluate((predictions[order] - mean).astype(dtype),
                     (std + std_ridge).astype(dtype),
                     jnp.asarray(std_ridge, dtype))
  return CurveScores(*map(np.asarray, scores))


@jax.jit
def _evaluate(errors: base.Array, posterior_std: base.Array,
              std_ridge: base.Array) -> tuple[base.Array, base.Array]:
  """KL both ways for errors [P, num_x] in order, by Welford's update."""

  def step(carry, step_input):
    mean, square_sum = carry
    error, count = step_input
    delta = error - mean
    mean = mean + delta / count
    square_sum = square_sum + delta * (error - mean)
    std = jnp.sqrt(square_sum / count) + std_ridge
    kl_estimate = gaussian.gaussian_kl(0., posterior_std, mean, std)
    kl_reverse = gaussian.gaussian_kl(mean, std, 0., posterior_std)
    return (mean, square_sum), (kl_estimate.mean(), kl_reverse.mean())

  start = (jnp.zeros_like(posterior_std), jnp.zeros_like(posterior_std))
  counts = jnp.arange(1, len(errors) + 1, dtype=errors.dtype)
  return jax.lax.scan(step, start, (errors, counts))[1]
