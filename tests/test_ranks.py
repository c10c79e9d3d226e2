"""Ranks, their intervals, and which agents are told apart."""

import math

import numpy as np
import pytest
from scipy import stats

from enn_ensembles.report import ranks


def make_scores(levels, spread, num_cells=3, num_seeds=10, seed=0):
  """Scores [A, C, S]: a level, the seed's share, and the agent's own noise."""
  rng = np.random.default_rng(seed)
  shared = rng.normal(size=(1, num_cells, num_seeds))
  own = rng.normal(size=(len(levels), num_cells, num_seeds))
  return np.array(levels)[:, None, None] * np.exp(shared + spread * own)


def test_summaries_by_hand():
  values = np.array([[[1., 3.], [8., 8.]], [[2., 2.], [0., 0.]]])
  np.testing.assert_allclose(ranks.summaries(values),
                             [math.log(4.), -math.inf])
  np.testing.assert_allclose(ranks.summaries(values, positive=False), [5., 1.])


def test_ranks_share_and_may_be_turned_around():
  values = np.array([3., 1., 1., 2.])
  assert ranks.competition_ranks(values).tolist() == [4, 1, 1, 3]
  assert ranks.competition_ranks(values, higher=True).tolist() == [1, 3, 3, 2]


@pytest.mark.parametrize('random_cells', [False, True])
def test_rank_intervals_agree_with_a_slow_bootstrap(random_cells):
  values = make_scores([1., 1.1, 1.3, 5.], spread=0.5)
  low, high = ranks.rank_intervals(values, random_cells=random_cells,
                                   num_resamples=4000)
  rng = np.random.default_rng(99)
  drawn = []
  for _ in range(4000):
    seeds = rng.integers(10, size=10)
    cells = rng.integers(3, size=3) if random_cells else np.arange(3)
    means = np.log(values[:, cells][:, :, seeds].mean(axis=2)).mean(axis=1)
    drawn.append(stats.rankdata(means, method='min'))
  want = np.quantile(drawn, [0.025, 0.975], axis=0, method='inverted_cdf')
  np.testing.assert_array_equal([low, high], want)
  assert low[0] == 1 and high[1] > low[1] and (low[3], high[3]) == (4, 4)


def test_rank_intervals_are_paired_and_need_two_seeds():
  # The same scatter in both: which is better never changes.
  values = make_scores([1., 1.01], spread=0.)
  low, high = ranks.rank_intervals(values)
  assert low.tolist() == high.tolist() == [1, 2]
  assert ranks.rank_intervals(values[:, :, :1]) is None
  # An exact 0 beats everybody, and two of them share.
  low, high = ranks.rank_intervals(np.concatenate([0 * values, values]))
  assert low.tolist() == high.tolist() == [1, 1, 3, 4]


def test_pair_p_values_are_scipys_paired_t():
  values = make_scores([1., 1.2, 2.], spread=0.3, num_seeds=7)
  found = ranks.pair_p_values(values)
  logs = np.log(values).mean(axis=1)
  for i in range(3):
    for j in range(3):
      want = 1. if i == j else stats.ttest_rel(logs[i], logs[j]).pvalue
      assert found[i, j] == pytest.approx(want, rel=1e-9)
  means = values.mean(axis=1)
  assert ranks.pair_p_values(values, positive=False)[0, 2] == pytest.approx(
      stats.ttest_rel(means[0], means[2]).pvalue)


def test_pair_p_values_of_exact_zeros():
  values = make_scores([1., 1.], spread=0.5)
  values = np.concatenate([values, 0. * values])
  found = ranks.pair_p_values(values)
  assert found[2, 3] == 1. and found[0, 2] == found[2, 0] == 0.


def test_holm_by_hand():
  # 3 * 0.01, then 2 * 0.03, then 0.04, which may not fall below 0.06.
  np.testing.assert_allclose(ranks.holm([0.04, 0.01, 0.03]),
                             [0.06, 0.03, 0.06])
  np.testing.assert_allclose(ranks.holm([0.5, 0.9]), [1., 1.])


def test_told_apart_keeps_its_level():
  """Six equal agents: any pair is told apart in at most 5 % of the boards."""
  wrong = sum(bool(ranks.told_apart(
      make_scores([1.] * 6, spread=0.4, seed=seed)).any())
              for seed in range(400))
  # The 99.9 % end of a binomial with 400 draws of 0.05.
  assert wrong <= stats.binom.ppf(0.999, 400, 0.05)
  assert wrong > 0  # It does look.


def test_told_apart_sees_what_is_there():
  apart = ranks.told_apart(make_scores([1., 1., 3.], spread=0.2))
  assert not apart[0, 1] and apart[0, 2] and apart[1, 2]
  np.testing.assert_array_equal(apart, apart.T)
  assert ranks.told_apart(make_scores([1., 3.], 0.2, num_seeds=1)) is None


def test_ranges_text():
  assert ranks.ranges_text([]) == ''
  assert ranks.ranges_text({7, 1, 3, 4, 5, 8}) == '1, 3 to 5, 7, 8'
