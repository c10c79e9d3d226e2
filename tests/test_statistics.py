"""Means and intervals that can be checked by hand, or against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from enn_ensembles.report import statistics

NAN = math.nan


def mean_over_cells(*cells):
  """Of cells with any number of seeds; first scores are seeds 0, 1, ..."""
  num = max(map(len, cells))
  values = np.array([[*cell, *[NAN] * (num - len(cell))] for cell in cells])
  present = np.array([[s < len(cell) for s in range(num)] for cell in cells])
  return statistics.mean_over_cells(values, present)


def test_paired_mean_and_error_by_hand():
  # Per-seed means over the two cells: (1+5)/2, (2+6)/2, (6+10)/2 = 3, 4, 8;
  # mean 5, std sqrt((4+1+9)/2) = sqrt(7), standard error sqrt(7/3).
  mean = mean_over_cells((1., 2., 6.), (5., 6., 10.))
  assert mean.mean == 5.
  assert mean.method == 'paired_seeds'
  assert mean.standard_error == pytest.approx(1.5275252316519468, rel=1e-14)
  # Student's t with 2 degrees of freedom, 97.5 %: 4.302652729696142 (tables).
  assert mean.low == pytest.approx(5 - 4.302652729696142 * 1.5275252316519468)
  assert mean.high == pytest.approx(5 + 4.302652729696142 * 1.5275252316519468)


def test_seeds_are_paired_and_not_pooled():
  # Perfectly opposed cells: their mean does not move with the seed.
  mean = mean_over_cells((1., 3.), (3., 1.))
  assert (mean.mean, mean.standard_error) == (2., 0.)
  assert (mean.low, mean.high) == (2., 2.)


def test_independent_mean_and_error_by_hand():
  # Cell a: 1, 3: mean 2, se² = 2/2 = 1. Cell b: 2, 4, 6: mean 4, se² = 4/3.
  # Together: mean 3, se = sqrt(7/3)/2; degrees of freedom
  # (7/3)² / (1²/1 + (4/3)²/2) = (49/9) / (17/9) = 49/17.
  mean = mean_over_cells((1., 3.), (2., 4., 6.))
  assert mean.mean == 3.
  assert mean.method == 'independent_cells'
  assert mean.standard_error == pytest.approx(math.sqrt(7 / 3) / 2, rel=1e-14)
  low, high = stats.t.interval(0.95, 49 / 17, 3., math.sqrt(7 / 3) / 2)
  assert (mean.low, mean.high) == (pytest.approx(low), pytest.approx(high))


def test_independent_interval_of_two_cells_is_welch():
  rng = np.random.default_rng(1)
  a, b = rng.normal(size=5), rng.normal(size=8)
  mean = mean_over_cells(a, b)
  # The mean of a and b is half the difference of a and -b.
  interval = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)
  assert mean.low == pytest.approx(interval.low / 2)
  assert mean.high == pytest.approx(interval.high / 2)


def test_one_cell_is_scipys_sem_and_t_interval():
  values = np.random.default_rng(0).lognormal(size=10)
  mean = mean_over_cells(values)
  assert mean.mean == pytest.approx(np.mean(values), rel=1e-15)
  assert mean.standard_error == pytest.approx(stats.sem(values), rel=1e-14)
  interval = stats.ttest_1samp(values, 0.).confidence_interval(0.95)
  assert (mean.low, mean.high) == (pytest.approx(interval.low),
                                   pytest.approx(interval.high))


def test_interval_covers_the_mean_in_95_percent_of_samples():
  rng = np.random.default_rng(0)
  hits = 0
  for draw in rng.normal(size=(2000, 3, 5)) + rng.normal(size=(2000, 1, 5)):
    mean = statistics.mean_over_cells(draw)
    hits += mean.low <= 0. <= mean.high
  # Three binomial standard deviations.
  assert abs(hits / 2000 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 2000)


def test_a_cell_counts_once_however_many_seeds_it_has():
  assert mean_over_cells((1.,) * 8, (3., 3.)).mean == 2.


def test_one_seed_has_no_error():
  assert mean_over_cells((2.,)) == statistics.CellMean(2.)
  assert statistics.mean_over_cells(
      np.full((2, 3), NAN), np.zeros((2, 3), bool)) is None


def test_non_finite_scores_stay_in_the_mean():
  mean = mean_over_cells((1., math.inf))
  assert mean.mean == math.inf and math.isnan(mean.standard_error)
  mean = mean_over_cells((NAN, math.inf))
  assert math.isnan(mean.mean) and math.isnan(mean.high)


def test_geometric_mean_by_hand():
  # Cells: sqrt(1 * 100) = 10 and sqrt(10 * 1000) = 100; together sqrt(1000).
  geometric = statistics.geometric_mean_over_cells
  assert geometric(np.array([[1., 100.], [10., 1000.]])) == pytest.approx(
      math.sqrt(1000.))
  values = np.random.default_rng(0).lognormal(size=7)
  assert geometric(values[None]) == pytest.approx(stats.gmean(values))
  assert geometric(np.array([[0., 5.]])) == 0.
  assert math.isnan(geometric(np.array([[-1e-17, 5.]])))
  assert geometric(np.ones((1, 2)), np.zeros((1, 2), bool)) is None


# The headline.


def test_relative_mean_by_hand():
  # Cells: mean 2 of 4 is 1/2, mean 30 of 10 is 3: sqrt(1/2 * 3).
  values = np.array([[1., 3.], [20., 40.]])
  baseline = np.array([[4., 4.], [5., 15.]])
  found = statistics.relative_mean(values, baseline)
  assert found.value == pytest.approx(math.sqrt(1.5))
  assert statistics.relative_mean(baseline, baseline) == (1., 1., 1.)
  one = statistics.relative_mean(values[:, :1], baseline[:, :1])
  assert one == (pytest.approx(1.), None, None)
  with pytest.raises(ValueError, match='must be on the same problems'):
    statistics.relative_mean(values, baseline[:1])


def test_relative_mean_does_not_see_the_scale_of_a_cell():
  rng = np.random.default_rng(0)
  values, baseline = rng.gamma(3., size=(2, 4, 6))
  scale = np.array([[1e-3], [1.], [10.], [1e4]])
  np.testing.assert_allclose(
      statistics.relative_mean(scale * values, scale * baseline),
      statistics.relative_mean(values, baseline), rtol=1e-12)


def test_relative_interval_is_that_of_the_general_jackknife():
  values, baseline = np.random.default_rng(1).gamma(3., size=(2, 4, 6))

  def slowly(seeds):
    ratios = [np.mean(x[seeds]) / np.mean(b[seeds])
              for x, b in zip(values, baseline)]
    return math.exp(np.mean(np.log(ratios)))

  np.testing.assert_allclose(
      statistics.relative_mean(values, baseline),
      statistics.jackknife_interval(slowly, 6, log=True), rtol=1e-12)


def test_an_exact_zero_is_zero_and_a_bad_cell_is_not_finite():
  baseline = np.ones((2, 3))
  zero = np.array([[0., 0., 0.], [1., 1., 1.]])
  assert statistics.relative_mean(zero, baseline) == (0., 0., 0.)
  # Rounding just below an exact 0 is 0 too; a negative score is not.
  assert statistics.relative_mean(zero - 1e-17, baseline).value == 0.
  assert math.isnan(statistics.relative_mean(zero - 0.5, baseline).value)
  for bad in (math.inf, NAN):
    values = np.array([[1., bad, 1.], [1., 1., 1.]])
    assert not math.isfinite(statistics.relative_mean(values, baseline).value)


def test_mean_interval_is_that_of_the_board():
  values = np.random.default_rng(0).gamma(2., size=(5, 7))
  expected = statistics.mean_over_cells(values)
  found = statistics.mean_interval(values)
  np.testing.assert_allclose(
      found, (expected.mean, expected.low, expected.high), rtol=1e-12)
  low, high = stats.t.interval(0.95, 6, np.log(values).mean(),
                               stats.sem(np.log(values).mean(0)))
  np.testing.assert_allclose(
      statistics.geometric_interval(values),
      np.exp([np.log(values).mean(), low, high]), rtol=1e-12)
  one = statistics.mean_interval(values[:, :1])
  assert one.low is None and not one.is_known


def test_jackknife_of_a_mean_is_its_t_interval():
  values = np.random.default_rng(1).normal(size=9)
  found = statistics.jackknife_interval(lambda s: values[s].mean(), 9)
  np.testing.assert_allclose(
      found[1:], stats.t.interval(0.95, 8, values.mean(), stats.sem(values)),
      rtol=1e-10)


def test_ratio_interval_covers_the_true_ratio():
  """Pairs of correlated means with a known ratio: 95 % of the intervals."""
  rng, hits = np.random.default_rng(2), 0
  for _ in range(400):
    shared = rng.gamma(20., size=(3, 10))
    above = 3. * shared * np.exp(0.1 * rng.normal(size=(3, 10)))
    below = 2. * shared * np.exp(0.1 * rng.normal(size=(3, 10)))
    found = statistics.ratio_interval(above, below)
    assert found.low < found.value < found.high
    hits += found.low < 1.5 < found.high
  assert 0.91 < hits / 400 < 0.985
  with pytest.raises(ValueError, match='shapes'):
    statistics.ratio_interval(np.ones((2, 3)), np.ones((3, 3)))


def test_best_num_samples():
  curve = np.array([[[5., 1., 2.], [5., 3., 1.]]])  # One cell, two seeds.
  curve[0, :, 2] += 0.2
  assert statistics.best_num_samples(curve) == 3
  found = statistics.best_num_samples_interval(curve)
  half = stats.t.ppf(0.975, 1) * np.std([2, 3], ddof=1) / np.sqrt(2)
  np.testing.assert_allclose(found, (3, 2.5 - half, 2.5 + half))
  curve[0, 0, 2] = np.nan
  assert statistics.best_num_samples(curve) == 2
