"""How well a number per point tells points of other data from those at hand.

The number is high where the point seems to be from elsewhere. "Positive" is
what a detector looks for: here points out of distribution.
"""

from typing import NamedTuple

import numpy as np

# Logits are float32: below this many nats an epistemic uncertainty says only
# how they were rounded, and points must not be ranked by it.
RESOLUTION = 1e-12


class Detection(NamedTuple):
  """How well points out of distribution are told from points in distribution.

  Attributes:
    auroc: area under the ROC curve: the probability that a point out of
      distribution gets the higher number, ties counting one half.
    aupr: average precision with points out of distribution as positive; a
      detector that knows nothing has `base_rate`.
    fpr95: share of points in distribution taken for others at the threshold
      that finds at least 95 % of the points out of distribution.
    fpr95_in: the other convention (Liang et al. 2018, ODIN, arXiv 1706.02690):
      share of points out of distribution that pass at the threshold that lets
      at least 95 % of the points in distribution pass.
    base_rate: share of points that are out of distribution.
  """
  auroc: float
  aupr: float
  fpr95: float
  fpr95_in: float
  base_rate: float


def detection(inside: np.ndarray, outside: np.ndarray) -> Detection:
  """How well a number tells points apart.

  Args:
    inside: the number at points in distribution, [N].
    outside: at points out of distribution, [M].

  Returns:
    All nan, base_rate apart, where a number is nan.

  Raises:
    ValueError: one of the two has no point.
  """
  # Here, since most sweeps are of regression, and it takes long to import.
  from sklearn import metrics

  for name, values in (('inside', inside), ('outside', outside)):
    if np.ndim(values) != 1 or len(values) == 0:
      raise ValueError(f'{name} must be [at least one], got shape '
                       f'{np.shape(values)}.')
  values = np.concatenate([inside, outside]).astype(np.float64)
  is_outside = np.arange(len(values)) >= len(inside)
  base_rate = len(outside) / len(values)
  if np.isnan(values).any():
    return Detection(np.nan, np.nan, np.nan, np.nan, base_rate)
  return Detection(
      auroc=float(metrics.roc_auc_score(is_outside, values)),
      aupr=float(metrics.average_precision_score(is_outside, values)),
      fpr95=_false_positives(is_outside, values),
      fpr95_in=_false_positives(~is_outside, -values), base_rate=base_rate)


def _false_positives(is_positive: np.ndarray, values: np.ndarray) -> float:
  """The lowest rate of false positives where 95 % of positives are found."""
  from sklearn import metrics

  false, true, _ = metrics.roc_curve(is_positive, values,
                                     drop_intermediate=False)
  return float(false[true >= 0.95][0])


def without_rounding(epistemic: np.ndarray) -> np.ndarray:
  """Epistemic uncertainties [N], nats; those below RESOLUTION are 0: ties."""
  return np.where(epistemic < RESOLUTION, 0., epistemic)
