"""From logits to the scores of classification problems, by their names.

The names are those of the score set 'classification' in `scoring.table`.
Logits [J, N, C] are of J members, or draws of the index, at N points. Logits
that are not finite give scores that are nan.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import functools

import numpy as np

from enn_ensembles.scoring import aggregation as aggregation_lib
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import diversity
from enn_ensembles.scoring import out_of_distribution
from enn_ensembles.scoring import prediction_counts

JOINT_TAU = 10  # Inputs whose labels are predicted together.

# Scores of probabilities [N, C] and labels, for the mean and for each member.
_LABEL_SCORES = {
    'accuracy': categorical.accuracy,
    'nll': categorical.nll,
    'brier': categorical.brier,
    'ece': categorical.calibration_error,
    'adaptive_ece': categorical.adaptive_calibration_error,
}
_UNCERTAINTIES = tuple(f'{kind}_uncertainty'
                       for kind in categorical.Uncertainties._fields)
CURVE_SCORES = ('accuracy', 'nll', 'brier', 'ece')


class Points:
  """Members' predictions at some points, and what several scores need of them.

  Attributes:
    logits: [J, N, C].
    aggregation: how members are made one prediction.
  """

  def __init__(self, logits: np.ndarray,
               aggregation: aggregation_lib.Aggregation = aggregation_lib.MEAN):
    self.logits = logits
    self.aggregation = aggregation

  @functools.cached_property
  def is_finite(self) -> bool:
    """Whether all logits are."""
    return bool(np.isfinite(self.logits).all())

  @functools.cached_property
  def log_probs(self) -> np.ndarray:
    """Of every member, [J, N, C]."""
    return categorical.log_softmax(self.logits)

  @functools.cached_property
  def together(self) -> np.ndarray:
    """Of what members predict together, [N, C]."""
    return self.aggregation.classes(self.log_probs)

  @functools.cached_property
  def uncertainties(self) -> categorical.Uncertainties:
    """In nats, [N] each."""
    return categorical.uncertainties(self.log_probs, self.aggregation.weights)

  @functools.cached_property
  def signals(self) -> dict[str, np.ndarray]:
    """Numbers [N] that are high where a point seems out of distribution."""
    return {
        # -log of the maximum orders points as 1 - the maximum does, and still
        # tells apart those where the latter rounds to 0.
        'msp': -self.together.max(axis=-1),
        'entropy': categorical.entropy(self.together),
        'mi': out_of_distribution.without_rounding(
            self.uncertainties.epistemic),
    }

  def compare(self) -> prediction_counts.Counts:
    """How different members are."""
    if not self.is_finite:
      return {}
    return prediction_counts.compare_members(self.log_probs)

  def count(self, labels: np.ndarray | None = None) -> prediction_counts.Counts:
    """What a row keeps of the points; with labels [N] also bins."""
    if not self.is_finite:
      return {}
    found = prediction_counts.count_information(self.uncertainties.epistemic)
    if labels is not None:
      found.update(prediction_counts.count_bins(self.together, labels))
    return found


def as_points(logits: np.ndarray | Points,
              aggregation: aggregation_lib.Aggregation = aggregation_lib.MEAN
              ) -> Points:
  """Points as they are, or those of logits [J, N, C]."""
  return logits if isinstance(logits, Points) else Points(logits, aggregation)


def score_test(logits: np.ndarray | Points, labels: np.ndarray,
               aggregation: aggregation_lib.Aggregation = aggregation_lib.MEAN
               ) -> dict[str, float]:
  """Scores on test points of the distribution that was trained on.

  Args:
    logits: [J, N, C], or points of them with their own aggregation.
    labels: integers [N].
    aggregation: how members are made one prediction. Joint scores are of the
      mixture of members, whatever the rule.

  Returns:
    Scores by name. Those of pairs of members are left out for J = 1, joint
    ones where there are fewer points than they need, and the correlation of
    logits where no two members have one.
  """
  points = as_points(logits, aggregation)
  if not points.is_finite:
    return _nans(score_test(_some_logits(points), labels))
  log_probs = points.log_probs
  scores = _score_points(points, labels)
  members = [[score(member, labels) for score in _LABEL_SCORES.values()]
             for member in log_probs]
  for name, value in zip(_LABEL_SCORES, np.mean(members, axis=0)):
    scores[f'member_{name}'] = float(value)
  scores['aurc'] = categorical.risk_coverage_area(points.together, labels)
  scores.update(_score_jointly(log_probs, labels, points.aggregation.weights))
  if len(log_probs) > 1:
    scores['variation_ratio'] = float(
        aggregation_lib.variation_ratio(log_probs).mean())
    pairs = diversity.member_pairs(len(log_probs), diversity.MAX_PAIRS)
    scores['member_kl'] = float(diversity.mean_member_kl(log_probs).mean())
    correlations = diversity.logit_correlation(points.logits, pairs)
    # A member that predicts 1/C everywhere has none.
    correlations = correlations[np.isfinite(correlations)]
    if len(correlations):
      scores['logit_correlation'] = float(correlations.mean())
  return scores


def score_shifted(logits: np.ndarray | Points, labels: np.ndarray,
                  aggregation: aggregation_lib.Aggregation = (
                      aggregation_lib.MEAN)) -> dict[str, float]:
  """Scores on test points of a shifted distribution with the same labels.

  Args:
    logits: [J, N, C], or points of them with their own aggregation.
    labels: integers [N].
    aggregation: how members are made one prediction.

  Returns:
    Scores by name, all of which begin with 'shift_'.
  """
  points = as_points(logits, aggregation)
  if not points.is_finite:
    return _nans(score_shifted(_some_logits(points), labels))
  scores = _score_points(points, labels)
  return {f'shift_{name}': value for name, value in scores.items()}


def score_outside(logits_inside: np.ndarray | Points,
                  logits_outside: np.ndarray | Points,
                  aggregation: aggregation_lib.Aggregation = (
                      aggregation_lib.MEAN)) -> dict[str, float]:
  """Scores of telling points out of distribution from test points.

  By 1 - the maximum softmax probability ('msp'; Hendrycks & Gimpel 2017, arXiv
  1610.02136), by the entropy, both of the mean probabilities, and by the
  epistemic uncertainty, the mutual information ('mi').

  Args:
    logits_inside: at test points, [J, N, C], or points of them with their own
      aggregation.
    logits_outside: at points out of distribution, the same with [J, M, C].
    aggregation: how members are made one prediction.

  Returns:
    Scores by name, all of which begin with 'ood_'.
  """
  inside, outside = (as_points(logits, aggregation)
                     for logits in (logits_inside, logits_outside))
  if not (inside.is_finite and outside.is_finite):
    return _nans(score_outside(_some_logits(inside), _some_logits(outside)))
  scores = {f'ood_{name}': value
            for name, value in _describe_points(outside).items()}
  for name, values in inside.signals.items():
    found = out_of_distribution.detection(values, outside.signals[name])
    for part in ('auroc', 'aupr', 'fpr95', 'fpr95_in'):
      scores[f'ood_{part}_{name}'] = getattr(found, part)
    scores['ood_base_rate'] = found.base_rate
  return scores


def score_sets(test: Points, labels: np.ndarray,
               shifted: Iterable[tuple[str, Points, np.ndarray]],
               outside: Iterable[tuple[str, Points]],
               counts: dict[str, prediction_counts.Counts]
               ) -> dict[str, dict[str, float]]:
  """Scores of each set: 'test', then shifted sets, then other points.

  Args:
    test: the test points.
    labels: of the test points, integers [N].
    shifted: names, points and labels, one set after the other: together they
      may be larger than the memory.
    outside: names and points of sets out of distribution, likewise.
    counts: takes what rows keep of the predictions, by set: 'test', 'shift' for
      all shifted sets together, and those out of distribution.
  """
  found = {'test': score_test(test, labels)}
  counts['test'] = {**test.count(labels), **test.compare()}
  of_shifts = []
  for name, points, own_labels in shifted:
    found[name] = score_shifted(points, own_labels)
    of_shifts.append(points.count(own_labels))
  counts['shift'] = prediction_counts.add(of_shifts)
  for name, points in outside:
    found[name] = score_outside(test, points)
    counts[name] = points.count()
  return found


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """The mean of each score over several sets; of no set nothing."""
  if not scores:
    return {}
  return {name: float(np.mean([one[name] for one in scores]))
          for name in scores[0]}


def score_curve(logits: np.ndarray, labels: np.ndarray,
                order: np.ndarray) -> dict[str, np.ndarray]:
  """CURVE_SCORES of the first 1, 2, ..., P members of an order.

  Args:
    logits: of all members, [J, N, C].
    labels: integers [N].
    order: positions of members, [P].

  Returns:
    Scores by name, float64 [P] each.
  """
  found: dict[str, list[float]] = {name: [] for name in CURVE_SCORES}
  total = None
  for count, member in enumerate(order, start=1):
    log_probs = categorical.log_softmax(logits[member])
    total = log_probs if total is None else np.logaddexp(total, log_probs)
    mean = total - np.log(count)
    for name in CURVE_SCORES:
      found[name].append(_LABEL_SCORES[name](mean, labels))
  return {name: np.asarray(values) for name, values in found.items()}


def _some_logits(points: Points) -> np.ndarray:
  """Numbers in the shape of the logits, of which every score is one."""
  num_classes = points.logits.shape[-1]
  return np.broadcast_to(np.arange(num_classes, dtype=np.float64),
                         points.logits.shape)


def _nans(scores: dict[str, float]) -> dict[str, float]:
  """The same names, for predictions that are no numbers."""
  return dict.fromkeys(scores, float('nan'))


def _score_points(points: Points, labels: np.ndarray) -> dict[str, float]:
  """Scores that any labelled set has."""
  scores = {name: score(points.together, labels)
            for name, score in _LABEL_SCORES.items()}
  return {**scores, **_describe_points(points)}


def _describe_points(points: Points) -> dict[str, float]:
  """What needs no labels: mean uncertainties, and disagreement for J > 1."""
  log_probs = points.log_probs
  scores = {name: float(values.mean())
            for name, values in zip(_UNCERTAINTIES, points.uncertainties)}
  if len(log_probs) > 1:
    scores['disagreement'] = float(diversity.class_disagreement(
        log_probs.argmax(axis=-1), log_probs.shape[-1]).mean())
  return scores


def _score_jointly(log_probs: np.ndarray, labels: np.ndarray,
                   weights: np.ndarray | None) -> dict[str, float]:
  """Joint scores over blocks and pairs of points in a fixed random order."""
  scores, num_points = {}, len(labels)
  likelihoods = categorical.label_log_probs(log_probs, labels)
  # Data sets may be sorted. Philox's bits are the same in every numpy.
  order = np.argsort(np.random.Philox(key=0).random_raw(num_points),
                     kind='stable')
  if num_points >= JOINT_TAU:
    num_blocks = num_points // JOINT_TAU
    blocks = order[:num_blocks * JOINT_TAU].reshape(num_blocks, JOINT_TAU)
    scores['joint_nll'] = categorical.joint_nll(likelihoods, blocks,
                                                weights)
  if num_points >= 2:
    pairs = order[:num_points // 2 * 2].reshape(-1, 2)
    scores['dyadic_nll'] = categorical.dyadic_nll(likelihoods, pairs,
                                                  JOINT_TAU, weights)
  return scores
