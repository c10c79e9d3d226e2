"""Means of scores and their intervals: pure numbers. Ranks are in `ranks`.

Scores of an agent setting are an array [C, S] over cells and seeds. The cells
of a seed share their draws, so the seed is what is independent: a mean is taken
over the seeds of each cell and then over cells, and its interval is Student's
t, 95 %, over seeds. What is no mean over seeds (a ratio of means, a spread) has
the interval of the jackknife, which for a mean is the same one. Cells are
fixed: no interval says what other cells would give, unless it says so.

The page, the CSV files and the pictures all take their numbers from here.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
  """A number and its 95 % interval; numbers, or arrays of one shape.

  Attributes:
    value: the number.
    low: lower end; None where there is one seed.
    high: upper end; None as above.
  """
  value: Any
  low: Any = None
  high: Any = None

  @property
  def is_known(self) -> bool:
    """Whether it has an interval, and a finite one."""
    return self.low is not None and bool(
        np.all(np.isfinite([self.value, self.low, self.high])))


@dataclasses.dataclass(frozen=True)
class CellMean:
  """A mean over seeds and cells, and how well it is known.

  Attributes:
    mean: mean over cells of the mean over seeds.
    standard_error: of `mean`, over seeds; None where a cell has one seed.
    low: lower end of the 95 % interval; None as above.
    high: upper end.
    method: 'paired_seeds', 'independent_cells' or 'none'.
  """
  mean: float
  standard_error: float | None = None
  low: float | None = None
  high: float | None = None
  method: str = 'none'


@functools.cache
def student_t(degrees: float) -> float:
  """How many standard errors half a 95 % interval has."""
  return float(stats.t.ppf(0.5 + LEVEL / 2, degrees))


def _present(values: np.ndarray, present: np.ndarray | None) -> np.ndarray:
  return np.ones(np.shape(values), bool) if present is None else present


def seed_means(values: np.ndarray,
               present: np.ndarray | None = None) -> np.ndarray:
  """Mean over the seeds of each cell, of the cells that have any.

  Args:
    values: scores [C, S].
    present: bool [C, S], which of them there are; None for all.

  Returns:
    Means [<= C]. A score that is not finite makes its mean not finite.
  """
  present = _present(values, present)
  with np.errstate(invalid='ignore', over='ignore'):
    return np.array([np.mean(cell[here]) for cell, here in zip(values, present)
                     if here.any()])


def mean_over_cells(values: np.ndarray,
                    present: np.ndarray | None = None) -> CellMean | None:
  """Mean of scores over seeds and then over cells, and its standard error.

  With the same n >= 2 seeds s in all C cells c, the per-seed means
  m_s = (1/C) sum_c x_cs give se = std(m_s, ddof=1) / sqrt(n), t with n - 1
  degrees of freedom ('paired_seeds'). With other seeds in other cells, at least
  two in each, se² = sum_c se_c² / C² with the Welch-Satterthwaite degrees of
  freedom, (sum_c se_c²)² / sum_c (se_c⁴ / (n_c - 1)) ('independent_cells').

  Args:
    values: scores [C, S]. Scores that are not finite give what arithmetic
      gives: a mean of inf or nan and a standard error of nan.
    present: as in `seed_means`. Cells without scores are left out.

  Returns:
    The mean, or None where there are no scores.
  """
  present = _present(values, present)
  kept = present.any(axis=1)
  if not kept.any():
    return None
  values, present = np.asarray(values, np.float64)[kept], present[kept]
  cells = [cell[here] for cell, here in zip(values, present)]
  with np.errstate(invalid='ignore', over='ignore'):
    mean = float(np.mean([np.mean(cell) for cell in cells]))
    if min(map(len, cells)) < 2:
      return CellMean(mean)
    if (present == present[0]).all():
      per_seed = np.mean(cells, axis=0)
      error = (float(np.std(per_seed, ddof=1) / math.sqrt(len(per_seed)))
               if np.isfinite(mean) else math.nan)
      degrees, method = len(per_seed) - 1, 'paired_seeds'
    else:
      squares = np.array([np.var(c, ddof=1) / len(c) for c in cells])
      error = float(np.sqrt(np.sum(squares)) / len(cells))
      weights = np.sum(squares**2 / np.array([len(c) - 1 for c in cells]))
      degrees = np.sum(squares)**2 / weights if weights > 0 else math.inf
      method = 'independent_cells'
    half = student_t(float(degrees)) * error
  return CellMean(mean, error, mean - half, mean + half, method)


def geometric_mean_over_cells(values: np.ndarray,
                              present: np.ndarray | None = None
                              ) -> float | None:
  """exp of the mean over cells of the mean over seeds of log(score).

  0 where a score is 0; nan where one is negative (rounding below an exact 0).
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    means = seed_means(np.log(values), present)
    return float(np.exp(np.mean(means))) if len(means) else None


def log_of_means(means: np.ndarray) -> np.ndarray:
  """Logarithms of means of scores that are never negative; -inf for 0.

  A mean that rounding has put just below an exact 0 counts as 0.
  """
  means = np.asarray(means, np.float64)
  with np.errstate(divide='ignore', invalid='ignore'):
    return np.log(np.where((means < 0) & (means > -1e-12), 0., means))


def relative_mean(values: np.ndarray, baseline: np.ndarray) -> Interval:
  """exp(mean over cells of log(mean_s values / mean_s baseline)).

  Cells of any scale count alike: 1 is as far from the truth as the baseline.
  An exact 0 in a cell makes it 0. The interval is the jackknife's over seeds,
  of the logarithm.

  Args:
    values: scores [C, S] >= 0.
    baseline: scores of the baseline on the same problems, [C, S].
  """
  values, baseline = (np.asarray(a, np.float64) for a in (values, baseline))
  if values.shape != baseline.shape:
    raise ValueError('values and baseline must be on the same problems, got '
                     f'shapes {values.shape} and {baseline.shape}.')
  num_seeds = values.shape[1]
  with np.errstate(all='ignore'):
    log = np.mean(log_of_means(values.mean(axis=1))
                  - log_of_means(baseline.mean(axis=1)))
    if num_seeds < 2:
      return Interval(float(np.exp(log)))
    # All seeds but one, [C, S].
    left_out = [(array.sum(axis=1, keepdims=True) - array) / (num_seeds - 1)
                for array in (values, baseline)]
    return _pseudo_interval(
        log, np.mean(log_of_means(left_out[0]) - log_of_means(left_out[1]),
                     axis=0), np.exp)


def _pseudo_interval(value: float, left_out: np.ndarray,
                     back: Callable[[float], float]) -> Interval:
  """The jackknife's interval from the values without each of n seeds, [n]."""
  num = len(left_out)
  if np.all(left_out == value):  # An exact 0 has the logarithm -inf.
    return Interval(*[float(back(value))] * 3)
  pseudo = num * value - (num - 1) * left_out
  half = student_t(num - 1) * (
      np.std(pseudo, ddof=1) / np.sqrt(num))
  return Interval(float(back(value)), float(back(value - half)),
                  float(back(value + half)))


def seed_interval(per_seed: np.ndarray) -> Interval:
  """Mean over seeds and its interval; [S, ...] -> arrays [...]."""
  per_seed = np.asarray(per_seed, np.float64)
  with np.errstate(invalid='ignore', over='ignore'):
    mean = per_seed.mean(axis=0)
    if len(per_seed) < 2:
      return Interval(mean)
    half = student_t(len(per_seed) - 1) * (
        per_seed.std(axis=0, ddof=1) / np.sqrt(len(per_seed)))
  return Interval(mean, mean - half, mean + half)


def mean_interval(values: np.ndarray) -> Interval:
  """Mean over cells, then over seeds, [C, S, ...] -> [...]."""
  with np.errstate(invalid='ignore', over='ignore'):
    return seed_interval(np.mean(values, axis=0))


def geometric_interval(values: np.ndarray) -> Interval:
  """exp of the mean of logs, and of its interval, [C, S, ...] -> [...]."""
  with np.errstate(divide='ignore', invalid='ignore'):
    return Interval(*(None if part is None else np.exp(part)
                      for part in mean_interval(np.log(values))))


def jackknife_interval(statistic: Callable[[np.ndarray], float],
                       num_seeds: int, log: bool = False) -> Interval:
  """A statistic of the seeds, and its interval by leaving out one at a time.

  With v on all n seeds and v_i without seed i, the pseudo-values
  p_i = n v - (n - 1) v_i have the standard error std(p, ddof=1) / sqrt(n), and
  the interval is v +- t_{n-1} times that (Tukey 1958). For a mean over seeds
  p_i is the value of seed i, and the interval that of `seed_interval`.

  Args:
    statistic: positions of seeds [n] -> a number.
    num_seeds: n.
    log: take the interval of log(statistic), as for a ratio.
  """
  forward, back = (np.log, np.exp) if log else (lambda v: v, lambda v: v)
  seeds = np.arange(num_seeds)
  with np.errstate(all='ignore'):
    value = float(statistic(seeds))
    if num_seeds < 2:
      return Interval(value)
    left_out = forward(np.array(
        [statistic(np.delete(seeds, seed)) for seed in seeds], np.float64))
    found = _pseudo_interval(forward(value), left_out, back)
    return found._replace(value=value)


def ratio_interval(numerator: np.ndarray,
                   denominator: np.ndarray) -> Interval:
  """Ratio of two means over the same problems [C, S], paired by seed."""
  shapes = (np.shape(numerator), np.shape(denominator))
  if shapes[0] != shapes[1]:
    raise ValueError('numerator and denominator must be on the same problems, '
                     f'got shapes {shapes[0]} and {shapes[1]}.')
  return jackknife_interval(
      lambda seeds: numerator[:, seeds].mean() / denominator[:, seeds].mean(),
      np.shape(numerator)[1], log=True)


def geometric_ratio(numerator: np.ndarray, denominator: np.ndarray) -> Interval:
  """Ratio of two geometric means over the same problems [C, S]."""
  with np.errstate(all='ignore'):
    return geometric_interval(np.asarray(numerator) / np.asarray(denominator))


def best_num_samples(curve: np.ndarray) -> int:
  """The P with the lowest mean over cells and seeds, curve [C, S, J]."""
  means = np.mean(curve, axis=(0, 1))
  return 1 + int(np.argmin(np.where(np.isnan(means), np.inf, means)))


def best_num_samples_interval(curve: np.ndarray) -> Interval:
  """`best_num_samples`, with the interval of the seeds' own best P.

  An argmin is not smooth enough for the jackknife: the interval is around the
  mean of the P that is best for each seed alone, and need not hold the P that
  is best on their mean.
  """
  own = [best_num_samples(curve[:, [seed]]) for seed in range(curve.shape[1])]
  interval = seed_interval(np.array(own, np.float64))
  low, high = (None if end is None else float(end) for end in interval[1:])
  return Interval(best_num_samples(curve), low, high)
