"""What a row says of costs: times, and what stands in its field `cost`."""

from collections.abc import Mapping
import math
from typing import Any

from enn_ensembles.machine import files

# What `cost` may have, with its meaning.
COST_FIELDS: Mapping[str, str] = {
    'predict_seconds_per_1000': 'predictions by all members or draws, s per '
                                '1000 points',
    'peak_memory_mb': 'the most that the process held while it trained and '
                      'scored the unit, MB, what it held before included'}


def check_cost(cost: Mapping[str, Any], name: str) -> None:
  """FileError unless every cost is known and a finite float >= 0."""
  if not set(cost) <= set(COST_FIELDS) or not all(
      isinstance(value, float) and 0. <= value < math.inf
      for value in cost.values()):
    raise files.FileError(f'{name} must have finite numbers >= 0 of '
                          f'{list(COST_FIELDS)} by name, got {cost!r}.')


def cost_of(row: Mapping[str, Any], name: str) -> float | None:
  """A time of a row, or one of COST_FIELDS; None where it has none."""
  return (row['cost'] or {}).get(name) if name in COST_FIELDS else row[name]
