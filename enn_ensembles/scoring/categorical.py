"""Pure formulas for scores of classifiers: numpy, float64, no random numbers.

Members (or draws) m = 1..J give logits [J, N, C] at N points with C classes.
All formulas take logarithms of probabilities, so that nothing is lost where a
probability is near 0 or 1; `log_softmax` makes them. The prediction of the
members together is the mean of their probabilities, `mean_log_probs`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from enn_ensembles.scoring import weighting

NUM_BINS = 15  # Of calibration errors, as most papers have it.


class Uncertainties(NamedTuple):
  """How uncertain members are at each point, in nats, [N] each.

  Attributes:
    total: entropy of the mean probabilities.
    aleatoric: mean over members of the entropy of their own probabilities.
    epistemic: their difference: the mutual information of label and member,
      which is the Jensen-Shannon divergence of the members' predictions, from 0
      to log J.
  """
  total: np.ndarray
  aleatoric: np.ndarray
  epistemic: np.ndarray


@dataclasses.dataclass(frozen=True)
class ConfidenceBins:
  """Points by their confidence, the highest probability; [B] each.

  Attributes:
    count: points of each bin, integers.
    confidence: sum of their confidences.
    correct: how many have the label as their most probable class, integers.
  """
  count: np.ndarray
  confidence: np.ndarray
  correct: np.ndarray


def log_softmax(logits: np.ndarray) -> np.ndarray:
  """Logarithms of softmax(logits), float64, of logits [..., C].

  That of the highest logit keeps its digits where its probability rounds to 1:
  -exp(-60) is told from -exp(-100).
  """
  logits = np.asarray(logits, np.float64)
  highest = logits.argmax(axis=-1)[..., None]
  shifted = logits - np.take_along_axis(logits, highest, axis=-1)
  others = np.exp(shifted)
  np.put_along_axis(others, highest, 0., axis=-1)
  return shifted - np.log1p(others.sum(axis=-1, keepdims=True))


def mean_log_probs(log_probs: np.ndarray,
                   weights: np.ndarray | None = None) -> np.ndarray:
  """Logarithm of the mean over members of their probabilities.

  Args:
    log_probs: [J, ...].
    weights: how much each member counts, [J], of sum 1; None for all alike.

  Returns:
    [...]; of one member exactly what it was.
  """
  if weights is not None:
    return weighting.mixture_log_densities(log_probs, weights)
  if len(log_probs) == 1:
    return log_probs[0]
  highest = log_probs.max(axis=0)
  return highest + np.log1p(np.expm1(log_probs - highest).mean(axis=0))


def accuracy(log_probs: np.ndarray, labels: np.ndarray) -> float:
  """Share of points whose most probable class is the label.

  Args:
    log_probs: [N, C]. Among equal probabilities the first class is taken.
    labels: integers [N].
  """
  return float(np.mean(log_probs.argmax(axis=-1) == labels))


def nll(log_probs: np.ndarray, labels: np.ndarray) -> float:
  """Mean over points of -log p(label), in nats, of log_probs [N, C]."""
  return float(-label_log_probs(log_probs, labels).mean())


def label_log_probs(log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """log p(label): [..., N, C] and labels [N] -> [..., N]."""
  return log_probs[..., np.arange(len(labels)), labels]


def brier(log_probs: np.ndarray, labels: np.ndarray) -> float:
  """Mean over points of sum_c (p_c - [c is the label])^2, from 0 to 2.

  The sum over classes, as Brier 1950 has it; some divide it by C.
  """
  probs = np.exp(log_probs)
  # sum_c p_c^2 - 2 p_label + 1.
  return float(np.mean((probs ** 2).sum(axis=-1)
                       - 2. * label_log_probs(probs, labels) + 1.))


def calibration_error(log_probs: np.ndarray, labels: np.ndarray,
                      num_bins: int = NUM_BINS) -> float:
  """Expected calibration error (ECE) with bins of equal width.

  sum_b (n_b / N) |accuracy_b - confidence_b|, bins ((b - 1) / B, b / B] of the
  confidence, the highest probability (Guo et al. 2017, "On Calibration of
  Modern Neural Networks", arXiv 1706.04599).

  Args:
    log_probs: [N, C].
    labels: integers [N].
    num_bins: B.
  """
  bins = confidence_bins(log_probs, labels, num_bins)
  return float(np.abs(bins.correct - bins.confidence).sum() / len(labels))


def confidence_bins(log_probs: np.ndarray, labels: np.ndarray,
                    num_bins: int) -> ConfidenceBins:
  """Counts of the bins ((b - 1) / B, b / B] of the confidence.

  Args:
    log_probs: [N, C].
    labels: integers [N].
    num_bins: B.
  """
  confidence, correct = _confidence(log_probs, labels)
  edges = np.linspace(0., 1., num_bins + 1)[1:-1]
  bins = np.searchsorted(edges, confidence, side='left')
  count, hits = (np.bincount(some, minlength=num_bins)
                 for some in (bins, bins[correct == 1.]))
  return ConfidenceBins(count, np.bincount(bins, weights=confidence,
                                           minlength=num_bins), hits)


def adaptive_calibration_error(log_probs: np.ndarray, labels: np.ndarray,
                               num_bins: int = NUM_BINS) -> float:
  """The calibration error with bins of equally many points.

  Points in the order of their confidence are cut into B parts whose sizes
  differ by one at most (Nguyen & O'Connor 2015, arXiv 1508.05154). With fewer
  points than bins each point is a bin.

  Args:
    log_probs: [N, C].
    labels: integers [N].
    num_bins: B.
  """
  confidence, correct = _confidence(log_probs, labels)
  order = np.argsort(confidence, kind='stable')
  confidence = confidence[order]
  gaps = _mean_over_ties(confidence, correct[order]) - confidence
  num_bins = min(num_bins, len(gaps))
  size, larger = divmod(len(gaps), num_bins)  # The first bins are larger.
  starts = np.arange(num_bins) * size + np.minimum(np.arange(num_bins), larger)
  return float(np.abs(np.add.reduceat(gaps, starts)).sum() / len(gaps))


def entropy(log_probs: np.ndarray) -> np.ndarray:
  """-sum_c p_c log p_c in nats, [..., C] -> [...]."""
  return -(np.exp(log_probs) * log_probs).sum(axis=-1)


def uncertainties(log_probs: np.ndarray,
                  weights: np.ndarray | None = None) -> Uncertainties:
  """Total, aleatoric and epistemic uncertainty of members [J, N, C].

  The decomposition of Depeweg et al. 2018 (arXiv 1710.07283). The epistemic
  part is computed as the mean over members of KL(p_m || mean p), which keeps
  its digits where members are nearly equal, and is 0 for one member.

  Args:
    log_probs: of the members.
    weights: as in `mean_log_probs`.
  """
  mean = mean_log_probs(log_probs, weights)
  divergences = (np.exp(log_probs) * (log_probs - mean)).sum(axis=-1)
  # Only rounding makes it negative.
  epistemic = np.maximum(np.average(divergences, axis=0, weights=weights), 0.)
  aleatoric = np.average(entropy(log_probs), axis=0, weights=weights)
  return Uncertainties(entropy(mean), aleatoric, epistemic)


def risk_coverage_area(log_probs: np.ndarray, labels: np.ndarray) -> float:
  """AURC: the error of selective prediction, averaged over coverages.

  The n most confident points are predicted and the others are refused; the
  share of errors among the n is averaged over n = 1..N (Geifman & El-Yaniv
  2017, arXiv 1705.08500). The confidence is the highest probability; points
  with equal confidence count as in a random order.

  Args:
    log_probs: [N, C].
    labels: integers [N].
  """
  confidence, correct = _confidence(log_probs, labels)
  order = np.argsort(-confidence, kind='stable')
  errors = 1. - _mean_over_ties(confidence[order], correct[order])
  return float(np.mean(np.cumsum(errors) / np.arange(1, len(errors) + 1)))


def joint_nll(log_likelihoods: np.ndarray, blocks: np.ndarray,
              weights: np.ndarray | None = None) -> float:
  """Mean over blocks of -log of the joint probability of tau labels, in nats.

  The joint probability of a block is the mean over members of the product of
  its labels' probabilities: members that differ together on several inputs are
  told from noise (Osband et al. 2021, arXiv 2107.08924). It is not divided by
  tau.

  Args:
    log_likelihoods: log p_m(label), [J, N]; see `label_log_probs`.
    blocks: rows of points, integers [num_blocks, tau].
    weights: as in `mean_log_probs`.
  """
  together = log_likelihoods[:, blocks].sum(axis=-1)
  return float(-mean_log_probs(together, weights).mean())


def dyadic_nll(log_likelihoods: np.ndarray, pairs: np.ndarray,
               tau: int, weights: np.ndarray | None = None) -> float:
  """The joint NLL of tau inputs that are all at one of two points, in nats.

  Dyadic sampling (Osband et al. 2022, "Evaluating High-Order Predictive
  Distributions in Deep Learning", arXiv 2202.13509): two points are drawn, and
  tau inputs from these two with replacement. In high dimension tau different
  points are nearly unrelated; repeated ones are not. The number of inputs at
  the first point is Binomial(tau, 1/2), and its expectation is taken exactly.

  Args:
    log_likelihoods: log p_m(label), [J, N].
    pairs: rows of two points, integers [num_pairs, 2].
    tau: inputs, >= 1.
    weights: as in `mean_log_probs`.
  """
  first, second = (log_likelihoods[:, pairs[:, i]] for i in (0, 1))
  expected, ways = 0., 1.
  for count in range(tau + 1):
    together = count * first + (tau - count) * second
    expected -= ways * 0.5 ** tau * mean_log_probs(together, weights).mean()
    ways = ways * (tau - count) / (count + 1)
  return float(expected)


def _confidence(log_probs: np.ndarray,
                labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The highest probability, and 1. where its class is the label, [N] each."""
  correct = log_probs.argmax(axis=-1) == labels
  return np.exp(log_probs.max(axis=-1)), correct.astype(np.float64)


def _mean_over_ties(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Values with those of equal neighbours in `ordered` averaged, [N]."""
  groups = np.cumsum(np.concatenate([[False], ordered[1:] != ordered[:-1]]))
  return (np.bincount(groups, weights=values) / np.bincount(groups))[groups]
