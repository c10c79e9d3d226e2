"""What predictions must be before they are scored."""

import numpy as np

from enn_ensembles import base
from enn_ensembles.scoring import aggregation

_ROUNDING = 1e-6  # Of a sum of weights in float32.

# Of covariances, as shares of the largest variance of a block: computed in
# float32, or by a solver that stops at a tolerance.
_ASYMMETRY, _NEGATIVE, _SMALL_VARIANCE = 1e-4, 1e-4, 1e-4
_OF_VARIANCE = 1e-2  # A share of the variance itself.


def check(predictions: base.Predictions, num_points: int,
          num_outputs: int) -> None:
  """Predictions are those at so many points; values may be nan or infinite.

  Raises:
    ValueError: they are neither draws nor moments, or have another shape.
  """
  points = (num_points, num_outputs)
  if predictions.samples is None:
    _check_moments(predictions, points)
  else:
    _check_draws(predictions, points)


def _check_moments(predictions: base.Predictions,
                   points: tuple[int, int]) -> None:
  if predictions.mean is None or predictions.std is None:
    raise ValueError('predictions must have samples, or mean and std; got '
                     'neither.')
  for name in ('mean', 'std'):
    found = np.shape(getattr(predictions, name))
    if found != points:
      raise ValueError(f'predictions must have a {name} of shape {points}, got '
                       f'{found}.')
  if np.any(np.asarray(predictions.std) < 0):
    raise ValueError('predictions must have a std >= 0, got '
                     f'{np.nanmin(np.asarray(predictions.std, np.float64))}.')
  for name in ('observation_variances', 'weights'):
    if getattr(predictions, name) is not None:
      raise ValueError(f'predictions must have no {name} without samples.')
  if predictions.covariances is not None:
    check_covariances(np.asarray(predictions.covariances),
                      np.asarray(predictions.std)[:, 0])


def check_covariances(covariances: np.ndarray, std: np.ndarray) -> None:
  """Joint covariances fit the stds, and could be covariances.

  Args:
    covariances: of B blocks of neighbouring points, [B, n, n].
    std: of each point, [N] with N >= B n.

  Raises:
    ValueError: they are not symmetric, have other variances, or are not
      positive semidefinite; where they are finite.
  """
  num_blocks, size = covariances.shape[:2]
  variances = np.square(std[:num_blocks * size], dtype=np.float64)
  if not (np.isfinite(covariances).all() and np.isfinite(variances).all()):
    return  # A score that is not finite says so.
  covariances = np.asarray(covariances, np.float64)
  variances = variances.reshape(num_blocks, size)
  scale = np.maximum(variances.max(axis=1), np.finfo(np.float64).tiny)
  difference = np.abs(covariances - covariances.swapaxes(1, 2)).max(axis=(1, 2))
  if (difference > _ASYMMETRY * scale).any():
    raise ValueError('covariances must be symmetric, got entries that differ '
                     f'from their mirror images by {difference.max():.3g}.')
  own = np.diagonal(covariances, axis1=1, axis2=2)
  far = np.abs(own - variances) > (_OF_VARIANCE * variances
                                   + _SMALL_VARIANCE * scale[:, None])
  if far.any():
    raise ValueError(
        'covariances must have std^2 on their diagonals, got '
        f'{own[far][0]:.3g} where std^2 is {variances[far][0]:.3g}.')
  ridge = _NEGATIVE * scale[:, None, None] * np.eye(size)
  try:
    np.linalg.cholesky(covariances + ridge)
  except np.linalg.LinAlgError:
    raise ValueError('covariances must be positive semidefinite, got a '
                     'negative eigenvalue.') from None


def _check_draws(predictions: base.Predictions,
                 points: tuple[int, int]) -> None:
  assert predictions.samples is not None
  shape = np.shape(predictions.samples)
  if len(shape) != 3 or shape[1:] != points or not shape[0]:
    raise ValueError(f'predictions must have samples of shape [J, {points[0]}, '
                     f'{points[1]}] with J >= 1, got {list(shape)}.')
  variances = predictions.observation_variances
  if variances is not None and np.shape(variances) != shape:
    raise ValueError('predictions must have observation_variances of the shape '
                     f'of the samples, {shape}, got {np.shape(variances)}.')
  if predictions.aggregation not in aggregation.RULES:
    raise ValueError(f'aggregation must be one of '
                     f'{", ".join(aggregation.RULES)}; got '
                     f'{predictions.aggregation!r}.')
  weights = aggregation.Aggregation.of(predictions).weights
  if weights is not None and not (
      weights.min() >= 0 and abs(weights.sum() - 1.) <= _ROUNDING):
    raise ValueError('weights must be >= 0 and of sum 1, got a minimum of '
                     f'{weights.min():g} and a sum of {weights.sum():g}.')
