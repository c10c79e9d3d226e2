"""When two rows of one computation are one result: the one place that says so.

A row names what decides its last digits: versions, device and `numerics`
(instruction set, XLA flags, threads, problems that were trained together).
Where all of these are equal, so are the scores but for the order of some sums.
Where they are not, training carries the difference of the last digit into the
scores. How far it gets there depends on the score: `classes_of` says by class
what two values may differ by, as measured between two instruction sets
(docs/clusters.md), with a margin. What is beyond is a contradiction.

Some scores are decided by rounding, and two machines' values of them are not
compared:

- The KL of a sample covariance that is nearly singular. With tau points of a
  block and tau + 4 samples or fewer the KL of exact draws has no variance: few
  points, of std close to the ridge, decide its mean. One sample has no std at
  all, and its KL is as any score.
- What an agent says of the noise of labels: exponentials of network outputs,
  which few data determine.
- All scores of regression where a selection kept other members: the best
  validation score is compared in their place.
- All scores of a classifier but its accuracies where most of them differ, or
  where a selection kept other members: two trainings have parted, as those of
  two seeds do. A score that is wrong differs alone.

Such a score must still be what the row's own `curve` says, where that has it.
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


class ScoreClass(NamedTuple):
  """Scores that rounding changes alike.

  Attributes:
    meaning: which scores.
    tolerance: what they may differ by on other numerics; None: by anything.
  """
  meaning: str
  tolerance: Tolerance | None


# Of every score, on equal terms.
EQUAL_NUMERICS = Tolerance(1e-9, 1e-12)

# Of scores on other terms.
_OTHER = ScoreClass('other scores', Tolerance(2e-2, 1e-6))
_REGRESSION = ScoreClass('other scores of regression', Tolerance(5e-2, 1e-6))
# Squared errors of means over variances that are small at few points.
_MEAN_ERRORS = ScoreClass('errors of means and joint KL of dyadic points',
                          Tolerance(1.5e-1, 1e-6))
_FLOORS = ScoreClass('floors that follow from the number of samples',
                     EQUAL_NUMERICS)
_FEW_SAMPLES = ScoreClass('KL of tau points from 2 to tau + 4 samples, joint '
                          'KL from weighted ones', None)
_ACCURACIES = ScoreClass('accuracies', Tolerance(0., 1.5e-2))
_COVERAGES = ScoreClass('coverages and accuracy under shift',
                        Tolerance(0., 3e-2))
_SHARES = ScoreClass('other shares', Tolerance(2e-2, 1e-2))
_COSINES = ScoreClass('cosines of weights', Tolerance(0., 5e-3))
_CRPS = ScoreClass('CRPS excess', Tolerance(5e-2, 5e-3))
_LOG_SCORE = ScoreClass('log score excess', Tolerance(5e-2, 1e-2))
_LOG_SCORE_FEW_SAMPLES = ScoreClass('log score excesses of 2 to 5 samples',
                                    Tolerance(2e-1, 1e-2))
_OTHER_MEMBERS = ScoreClass('regression whose selection kept other members',
                            None)
_PARTED = ScoreClass('classifiers whose training or selection has parted, '
                     'accuracies apart', None)
# Of agents that say what the noise of a label is.
_OWN_NOISE = ScoreClass('what an agent says of the noise', None)
_EPISTEMIC_CORRELATION = ScoreClass('epistemic correlation',
                                    Tolerance(0., 3e-2))
_LOG_SCORE_OWN_NOISE = ScoreClass(
    'log score excesses of agents with a noise of their own',
    Tolerance(3e-1, 1e-2))
_REGRESSION_OWN_NOISE = ScoreClass(
    'other scores of agents with a noise of their own', Tolerance(1e-1, 1e-6))

_BY_SCORE: Mapping[str, ScoreClass] = {
    **dict.fromkeys(('kl_floor', 'joint_kl_tau2_floor', 'joint_kl_tau10_floor',
                     'wasserstein_floor', 'epistemic_error_floor'), _FLOORS),
    # These follow from the exact posterior, not from a training.
    **dict.fromkeys(('joint_kl_dyadic_tau10_floor', 'split_correlation_exact'),
                    _OTHER),
    **dict.fromkeys(('accuracy', 'member_accuracy'), _ACCURACIES),
    **dict.fromkeys(('coverage_50', 'coverage_90', 'coverage_99',
                     'shift_accuracy'), _COVERAGES),
    **dict.fromkeys(('weight_cosine', 'weight_cosine_biases'), _COSINES),
    **dict.fromkeys(('aleatoric_error', 'aleatoric_ratio',
                     'aleatoric_correlation', 'split_correlation',
                     'mixture_nll'), _OWN_NOISE),
    **dict.fromkeys(('mean_error', 'joint_kl_dyadic_tau10'), _MEAN_ERRORS),
    'epistemic_correlation': _EPISTEMIC_CORRELATION,
    'crps_excess': _CRPS,
}
_LOG_SCORES = ('log_score_excess', 'log_score_excess_expected')
# With no more samples than points and so many, the KL of exact draws has no
# variance.
_SAMPLES_BEYOND_POINTS = 4

# Of the best validation score of a selection.
_VAL_SCORE = Tolerance(5e-2, 1e-2)

# Trainings have parted where more than half of the scores differ by more.
_PARTED_BEYOND = 1e-3
_SCORES_OF_PARTED = ('accuracy', 'member_accuracy', 'shift_accuracy')

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
  _check_missing('scores', row['scores'], other['scores'], row['score_set'])
  classes = classes_of(row, other)
  if not equal and _OTHER_MEMBERS in classes.values():
    _check_best_val_scores(row, other)
  largest = 0.
  for name, score_class in classes.items():
    value, another = row['scores'][name], other['scores'][name]
    allowed = EQUAL_NUMERICS if equal else score_class.tolerance
    if (not (_fits_own_curve(row, name) and _fits_own_curve(other, name))
        if allowed is None else not _agree(value, another, allowed)):
      raise ContradictionError(name, value, another)
    largest = max(largest, relative_difference(value, another))
  # Where the last digits are others, a curve may have another order.
  if equal:
    largest = max(largest, _curve_difference(row['curve'], other['curve'],
                                             row['score_set']))
  return largest


def classes_of(row: schema.Row, other: schema.Row) -> dict[str, ScoreClass]:
  """What rounding does to the scores that two rows of one row_id have."""
  names = [name for name in row['scores'] if name in other['scores']]
  classes = {name: _class_of(name, row) for name in names}
  same_members = _kept_members(row) == _kept_members(other)
  if 'accuracy' not in names:
    return classes if same_members else dict.fromkeys(names, _OTHER_MEMBERS)
  num_beyond = sum(
      relative_difference(row['scores'][name], other['scores'][name])
      > _PARTED_BEYOND for name in names)
  if same_members and num_beyond <= len(names) / 2:
    return classes
  return {name: score_class if name in _SCORES_OF_PARTED else _PARTED
          for name, score_class in classes.items()}


def _class_of(name: str, row: schema.Row) -> ScoreClass:
  """The class of a score of a row, whatever the other row says."""
  score = table.SCORES[name]
  num_samples = row['num_samples_used']
  points = score.inverted_points
  if points and num_samples is not None and (
      1 < num_samples <= points + _SAMPLES_BEYOND_POINTS
      # Weights may leave few of the samples.
      or points > 1 and row['selection'].startswith('weights_')):
    return _FEW_SAMPLES
  says_noise = 'aleatoric_ratio' in row['scores']
  if name in _LOG_SCORES and says_noise:
    return _LOG_SCORE_OWN_NOISE
  # Where the noise is small, few points whose samples agree by chance decide
  # their mean.
  if name in _LOG_SCORES and num_samples is not None and (
      1 < num_samples <= 1 + _SAMPLES_BEYOND_POINTS):
    return _LOG_SCORE_FEW_SAMPLES
  if name in _BY_SCORE:
    return _BY_SCORE[name]
  if name == 'log_score_excess':
    return _LOG_SCORE
  if score.unit == 'share':
    return _SHARES
  if 'nngp' not in score.score_sets:
    return _OTHER
  return _REGRESSION_OWN_NOISE if says_noise else _REGRESSION


def _kept_members(row: schema.Row) -> set[int] | None:
  """The members that a ranking kept; None where there was none."""
  curve = row['curve']
  if curve is None or 'val_score' not in curve:
    return None
  return set(curve['order'][:row['num_samples_used']])


def _check_best_val_scores(row: schema.Row, other: schema.Row) -> None:
  """ContradictionError where two rankings found scores that do not agree."""
  best, another = (min(one['curve']['val_score']) for one in (row, other))
  if not _agree(best, another, _VAL_SCORE):
    raise ContradictionError('best val_score', best, another)


def _fits_own_curve(row: schema.Row, name: str) -> bool:
  """Whether a score is that of its row's curve, if the curve has it."""
  curve = row['curve']
  if curve is None or name not in curve:
    return True
  of_kept = curve[name][:row['num_samples_used']][-1:]
  return all(_agree(row['scores'][name], value, EQUAL_NUMERICS)
             for value in of_kept)


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
  """The largest relative difference of two curves, computed alike.

  Raises:
    ContradictionError: they differ by more than `EQUAL_NUMERICS`, in length, or
      one lacks what every curve has.
  """
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
      if not _agree(value, another, EQUAL_NUMERICS):
        raise ContradictionError(f'curve {name}', values, others)
      largest = max(largest, relative_difference(value, another))
  return largest


def relative_difference(value: float, other: float) -> float:
  """The difference of two values as a share of the larger one."""
  if schema.same_value(value, other):
    return 0.
  if not (math.isfinite(value) and math.isfinite(other)):
    return math.inf
  return abs(value - other) / max(abs(value), abs(other))


def _agree(value: float, other: float, allowed: Tolerance) -> bool:
  """Whether two values differ by no more than is allowed."""
  # Not `gap <= relative * size`: a gap may overflow.
  return (relative_difference(value, other) <= allowed.relative
          or abs(value - other) <= allowed.absolute)
