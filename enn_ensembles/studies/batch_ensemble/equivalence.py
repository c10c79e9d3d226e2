"""Does BatchEnsemble behave like one network? Two one-sided tests.

"Like one network" must allow a margin, or no data could ever show it. The
margin is a third of what a deep ensemble of as many members gains over one
network, or loses (it may be less calibrated), on the same score: whoever takes
less than a third of the way to the deep ensemble is nearer to one network, by
far. With d = BatchEnsemble - one and g = deep ensemble - one, paired by seed,
it is shown where both

  d - g / 3  and  d + g / 3

are decided to lie on both sides of 0, each by a one-sided t-test at 5 %
(Schuirmann 1987), so that the uncertainty of the margin itself counts. It is
refuted where d is decided, by a two-sided test at 5 %, to lie outside. Where
the 95 % interval of g holds 0 there is no margin, and nothing can be decided.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from enn_ensembles.report import statistics

MARGIN = 1. / 3.
LEVEL = 0.05

REPRODUCED = 'reproduced'
NOT_REPRODUCED = 'not reproduced'
INCONCLUSIVE = 'inconclusive'


class Equivalence(NamedTuple):
  """The verdict on one score.

  Attributes:
    verdict: one of the three.
    reason: a sentence.
    difference: mean of BatchEnsemble - one network.
    difference_low: lower end of its 95 % interval.
    difference_high: upper end.
    gain: mean of deep ensemble - one network.
    gain_low: lower end of its 95 % interval.
    gain_high: upper end.
    share: difference / gain, how far it goes.
    num_seeds: seeds that are compared.
  """
  verdict: str
  reason: str
  difference: float
  difference_low: float
  difference_high: float
  gain: float
  gain_low: float
  gain_high: float
  share: float
  num_seeds: int


def judge(one: np.ndarray, batch_ensemble: np.ndarray,
          deep_ensemble: np.ndarray) -> Equivalence:
  """The verdict on "BatchEnsemble behaves like one network".

  Args:
    one: a score of one network per seed, [S].
    batch_ensemble: of BatchEnsemble on the same seeds, [S].
    deep_ensemble: of the deep ensemble, [S].

  Raises:
    ValueError: there are fewer than two seeds, or not equally many.
  """
  one, batch, deep = (np.asarray(a, np.float64)
                      for a in (one, batch_ensemble, deep_ensemble))
  if not one.shape == batch.shape == deep.shape or one.ndim != 1 or (
      len(one) < 2):
    raise ValueError('scores must be of the same two or more seeds, got shapes '
                     f'{one.shape}, {batch.shape} and {deep.shape}.')
  difference, gain = batch - one, deep - one
  d, g = _interval(difference), _interval(gain)

  def result(verdict: str, reason: str) -> Equivalence:
    with np.errstate(divide='ignore', invalid='ignore'):
      share = float(np.float64(d[0]) / g[0])
    return Equivalence(verdict, reason, *d, *g, share, len(one))

  if g[1] <= 0. <= g[2]:
    return result(INCONCLUSIVE, "the deep ensemble's own difference is not "
                  'decided')
  # As if more were better: both are measured along the gain.
  sign = np.sign(g[0])
  below = sign * (difference - MARGIN * gain)  # To be < 0.
  above = sign * (difference + MARGIN * gain)  # To be > 0.
  if max(_p_value(below, 'less'), _p_value(above, 'greater')) <= LEVEL:
    return result(REPRODUCED, "within a third of the deep ensemble's "
                  'difference')
  if min(_p_value(below, 'greater'), _p_value(above, 'less')) <= LEVEL / 2:
    way = ("goes the deep ensemble's way" if np.mean(below) > 0 else
           'goes away from the deep ensemble')
    return result(NOT_REPRODUCED,
                  f'{way}, by more than a third of its difference')
  return result(INCONCLUSIVE, 'the seeds do not decide it')


def _interval(values: np.ndarray) -> tuple[float, float, float]:
  """Mean and ends of its 95 % interval."""
  value, low, high = statistics.seed_interval(values)
  return float(value), float(low), float(high)


def _p_value(values: np.ndarray, alternative: str) -> float:
  """Of the one-sided t-test that the mean is not on that side of 0."""
  if np.ptp(values) == 0.:  # No spread: t is infinite, or 0 / 0.
    right = values[0] < 0 if alternative == 'less' else values[0] > 0
    return 0. if right else 1.
  _, p_value = stats.ttest_1samp(values, 0., alternative=alternative)
  return float(p_value)
