"""When two rows of one computation are one result: the one place that says so.

A row names what decides its last digits: versions, device and `numerics`
(instruction set, XLA flags, threads, problems that were trained together).
Where all of these are equal, so are the scores but for the order of some sums.
Where they are not, a training of a thousand steps carries the difference of the
last digit into the scores: up to 1.5 % was seen between a problem that was
trained alone and together with others. What is beyond the tolerance is a
contradiction.
"""

from collections.abc import Mapping
import math
from typing import Any
from typing import NamedTuple

from enn_ensembles.results import schema
from enn_ensembles.scoring import table


class Tolerance(NamedTuple):
  """What two values of a score may differ by.

  Attributes:
    relative: as a share of the larger one.
    absolute: or, if that is more, by so much: scores near 0 are all rounding.
  """
  relative: float
  absolute: float


# Of every score, on equal terms.
EQUAL_NUMERICS = Tolerance(1e-9, 1e-12)
# Of a score, on other terms: of a KL and whatever else is not named here.
OTHER_NUMERICS = Tolerance(2e-2, 1e-6)
OTHER_NUMERICS_BY_SCORE: Mapping[str, Tolerance] = {
    # It follows from the number of members, not from a training.
    'kl_floor': EQUAL_NUMERICS,
}

# What decides the last digits.
_NUMERICS_FIELDS = ('numerics', 'versions', 'device')
# Where the last digits decide, another number of members may be selected.
_SELECTED_FIELDS = ('num_samples_used', 'status')
# Sweeps call one setting by what their configs wrote out of it.
_NOT_COMPARED = {*schema.TIMING_FIELDS, 'run_id', 'message', 'agent_label',
                 'scores', 'curve', 'by_set', 'counts'}


class ContradictionError(Exception):
  """Two rows say different things about one computation.

  Attributes:
    field: which field or score.
    value: what the first says.
    other: what the second says.
  """

  def __init__(self, field: str, value: Any, other: Any):
    super().__init__(field, value, other)
    self.field, self.value, self.other = field, value, other


def difference(row: schema.Row, other: schema.Row) -> float:
  """How far the scores of two rows with one row_id differ, relatively.

  Args:
    row: a row with scores.
    other: another.

  Returns:
    The largest relative difference of a score that both have; 0 where all are
    equal. A score that the table does not require is no contradiction where
    one of them lacks it: it is of another version of the program.

  Raises:
    ContradictionError: a score differs by more than its tolerance, or something
      else differs than what `TIMING_FIELDS` names.
  """
  # Rows of older programs do not say what they were computed with.
  equal = bool(row['numerics']) and all(
      schema.same_value(row[name], other[name]) for name in _NUMERICS_FIELDS)
  for name in schema.ROW_SCHEMA:
    if name in _NOT_COMPARED or (
        not equal and row['selection'] != 'none'
        and name in _SELECTED_FIELDS):
      continue
    if not schema.same_value(row[name], other[name]):
      raise ContradictionError(name, row[name], other[name])
  largest = 0.
  _check_missing('scores', row['scores'], other['scores'], row['score_set'])
  # A selection among members is not continuous: a curve, or the number of
  # members, may turn out otherwise where the last digits are others.
  for name, value in row['scores'].items():
    if name not in other['scores']:
      continue
    allowed = EQUAL_NUMERICS if equal else OTHER_NUMERICS_BY_SCORE.get(
        name, OTHER_NUMERICS)
    relative = _relative(value, other['scores'][name], allowed)
    if relative is None:
      raise ContradictionError(name, value, other['scores'][name])
    largest = max(largest, relative)
  if equal:
    largest = max(largest, _curve_difference(row['curve'], other['curve'],
                                             row['score_set']))
  return largest


def _check_missing(field: str, values: Mapping[str, Any],
                   others: Mapping[str, Any], score_set: str) -> None:
  """ContradictionError where one lacks what every row must have."""
  known = table.scores_of(score_set)
  if any(name not in known or known[name].required
         for name in values.keys() ^ others.keys()):
    raise ContradictionError(field, sorted(values), sorted(others))


def _curve_difference(curve: Mapping[str, Any] | None,
                      other: Mapping[str, Any] | None,
                      score_set: str) -> float:
  """The same of the lists of two curves, on equal terms."""
  if curve is None and other is None:
    return 0.
  if curve is None or other is None:
    raise ContradictionError('curve', curve, other)
  _check_missing('curve', curve, other, score_set)
  largest = 0.
  for name, values in curve.items():
    if name not in other:
      continue
    others = other[name]
    if len(values) != len(others):
      raise ContradictionError(f'curve {name}', values, others)
    for value, another in zip(values, others, strict=True):
      relative = _relative(value, another, EQUAL_NUMERICS)
      if relative is None:
        raise ContradictionError(f'curve {name}', values, others)
      largest = max(largest, relative)
  return largest


def _relative(value: float, other: float,
              allowed: Tolerance) -> float | None:
  """The relative difference; None where it is more than is allowed."""
  if schema.same_value(value, other):
    return 0.
  if not (math.isfinite(value) and math.isfinite(other)):
    return None
  gap, size = abs(value - other), max(abs(value), abs(other))
  # Not `gap <= relative * size`: a gap may overflow.
  if gap > allowed.absolute and not gap / size <= allowed.relative:
    return None
  return gap / size
