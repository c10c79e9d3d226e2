"""Which agent settings come before which, and how surely: pure numbers.

A rank is by the mean over cells of log(mean over seeds of the score): cells of
any scale count alike, and dividing by a baseline changes no rank. Scores that
may be negative are averaged as they are.

How sure a rank is, is told in two ways, both paired: all agent settings are on
the same problems.
  * The interval of a rank: seeds are drawn anew with replacement, 1000 times,
    the same for all agent settings and cells; 95 % of the ranks lie in it.
    Cells are fixed, or drawn anew too.
  * Told apart: a paired t test on the mean over cells of each seed's log ratio,
    over all pairs, with Holm's correction (Holm 1979, "A simple sequentially
    rejective multiple test procedure").
"""

from collections.abc import Iterable

import numpy as np
from scipy import stats

from enn_ensembles.report import statistics

NUM_RESAMPLES = 1000
_RESAMPLING_SEED = 20221022  # Any; the same rows give the same intervals.


def summaries(values: np.ndarray, positive: bool = True,
              cells: np.ndarray | None = None) -> np.ndarray:
  """What agent settings are ranked by, [A, C, S] -> [A]; low or high is best.

  Args:
    values: scores.
    positive: whether the score is never negative: logarithms are averaged.
    cells: weights of cells [C] that sum to 1; None for equal ones.
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    means = np.mean(values, axis=2)
    means = statistics.log_of_means(means) if positive else means
    return np.mean(means, axis=1) if cells is None else means @ cells


def competition_ranks(values: np.ndarray, higher: bool = False) -> np.ndarray:
  """1 + the number of better values along the first axis; equal ones share.

  What is no number is worse than all numbers.
  """
  values = -np.asarray(values) if higher else np.asarray(values)
  return stats.rankdata(np.where(np.isnan(values), np.inf, values),
                        method='min', axis=0).astype(int)


def rank_intervals(values: np.ndarray, positive: bool = True,
                   higher: bool = False, random_cells: bool = False,
                   num_resamples: int = NUM_RESAMPLES
                   ) -> tuple[np.ndarray, np.ndarray] | None:
  """The 95 % intervals of ranks by the paired bootstrap.

  Args:
    values: scores [A, C, S], all finite.
    positive: as in `summaries`.
    higher: whether high scores are good.
    random_cells: draw cells anew too: what the ranks would be on other cells
      like these.
    num_resamples: how often seeds are drawn.

  Returns:
    Lowest and highest ranks, int [A] each; None where there is one seed.
  """
  num_agents, num_cells, num_seeds = values.shape
  if num_seeds < 2:
    return None
  generator = np.random.default_rng(_RESAMPLING_SEED)
  seeds = generator.multinomial(
      num_seeds, np.full(num_seeds, 1 / num_seeds), num_resamples) / num_seeds
  cells = np.full((num_resamples, num_cells), 1 / num_cells)
  if random_cells:
    cells = generator.multinomial(num_cells, cells[0],
                                  num_resamples) / num_cells
  ranks = np.empty((num_agents, num_resamples), int)
  for i in range(num_resamples):
    # einsum sums equal agents equally, so that they keep sharing a rank.
    with np.errstate(divide='ignore', invalid='ignore'):
      means = np.einsum('acs,s->ac', values, seeds[i])
      means = statistics.log_of_means(means) if positive else means
      used = cells[i] > 0  # A cell that is not drawn takes no part: 0 * -inf.
      found = np.einsum('ac,c->a', means[:, used], cells[i][used])
    ranks[:, i] = competition_ranks(found, higher)
  low, high = np.quantile(ranks, [0.025, 0.975], axis=1,
                          method='inverted_cdf')
  return low.astype(int), high.astype(int)


def pair_p_values(values: np.ndarray, positive: bool = True) -> np.ndarray:
  """Two-sided p values of the paired t tests of all pairs, [A, C, S] -> [A, A].

  Per seed, the mean over cells of the log ratio (of the difference where scores
  may be negative). Agent settings that never differ have p = 1; those that
  differ by the same finite or infinite amount at every seed have p = 0.
  """
  num_seeds = values.shape[2]
  with np.errstate(all='ignore'):
    per_seed = np.mean(
        statistics.log_of_means(values) if positive else values, axis=1)
    p_values = np.ones((len(values), len(values)))
    for i, own in enumerate(per_seed):
      differences = per_seed - own  # [A, S]
      mean = np.mean(differences, axis=1)
      error = np.std(differences, axis=1, ddof=1) / np.sqrt(num_seeds)
      p_values[i] = 2 * stats.t.sf(np.abs(mean / error), num_seeds - 1)
      # Exact zeros: log(0) on one side, or on both.
      same = np.all(per_seed == own, axis=1)
      apart = np.all(np.isneginf(per_seed), axis=1) != np.all(np.isneginf(own))
      p_values[i, apart] = 0.
      p_values[i, same] = 1.
      p_values[i] = np.where(np.isnan(p_values[i]), 1., p_values[i])
  return np.maximum(p_values, p_values.T)


def holm(p_values: np.ndarray) -> np.ndarray:
  """Holm's adjusted p values [m]: reject where they are at most the level."""
  p_values = np.asarray(p_values, np.float64)
  order = np.argsort(p_values, kind='stable')
  factors = len(p_values) - np.arange(len(p_values))
  adjusted = np.empty_like(p_values)
  adjusted[order] = np.minimum(
      1., np.maximum.accumulate(factors * p_values[order]))
  return adjusted


def told_apart(values: np.ndarray, positive: bool = True,
               level: float = 0.05) -> np.ndarray | None:
  """Which pairs of agent settings differ, [A, C, S] -> bool [A, A].

  None where there is one seed, which tells nothing.
  """
  if values.shape[2] < 2:
    return None
  p_values = pair_p_values(values, positive)
  pairs = np.triu_indices(len(values), 1)
  apart = np.zeros(p_values.shape, bool)
  apart[pairs] = holm(p_values[pairs]) <= level
  return apart | apart.T


def ranges_text(numbers: Iterable[int]) -> str:
  """Numbers as text, neighbours together: '1, 3 to 5'."""
  ranges: list[list[int]] = []
  for number in sorted(set(numbers)):
    if ranges and number == ranges[-1][1] + 1:
      ranges[-1][1] = number
    else:
      ranges.append([number, number])
  return ', '.join(f'{low}' if low == high else
                   f'{low}, {high}' if high == low + 1 else f'{low} to {high}'
                   for low, high in ranges)
