"""What predictions must be before they are scored."""

import numpy as np

from enn_ensembles import base
from enn_ensembles.scoring import aggregation

_ROUNDING = 1e-6  # Of a sum of weights in float32.


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
