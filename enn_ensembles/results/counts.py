"""What a row's field `counts` may hold: `scoring.prediction_counts` of sets."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from enn_ensembles.machine import files
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import prediction_counts

# How many numbers a list has; none of them is negative.
_LENGTHS = {
    **dict.fromkeys(('bin_count', 'bin_confidence', 'bin_correct'),
                    categorical.NUM_BINS),
    'mi_count': len(prediction_counts.MI_EDGES) + 1,
    'pit_count': prediction_counts.NUM_PIT_BINS}


def check_counts(counts: Mapping[str, Any], name: str) -> None:
  """FileError unless every set has counts by name, in the form they have."""
  known = [*_LENGTHS, *prediction_counts.MATRICES]
  for set_name, own in counts.items():
    if not isinstance(own, Mapping) or not set(own) <= set(known):
      raise files.FileError(f'{name}: {set_name!r} must have {known} by name, '
                            f'got {own!r}.')
    for key, values in own.items():
      if not _is_sound(key, values):
        form = (f'a list of {_LENGTHS[key]} numbers >= 0' if key in _LENGTHS
                else 'a square matrix of finite numbers')
        raise files.FileError(f'{name}: {key} of {set_name!r} must be {form}, '
                              f'got {values!r}.')


def _is_sound(key: str, values: Any) -> bool:
  """Whether counts have the length and the numbers that their name asks for.
  """
  try:
    array = np.asarray(values)
  except ValueError:  # Lists of several lengths.
    return False
  if array.dtype.kind not in 'iuf' or not np.all(np.isfinite(array)):
    return False
  if key in _LENGTHS:
    return array.shape == (_LENGTHS[key],) and bool(np.all(array >= 0))
  return array.ndim == 2 and array.shape[0] == array.shape[1] > 0
