"""Wasserstein, CRPS, log score, coverage against quadrature and scipy."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from enn_ensembles.scoring import distribution_scores

_CASES = [(0., 1., 0., 1.), (0.3, 1., -0.2, 0.4), (0., 0.1, 0.2, 1.5),
          (-5., 3., 4., 0.5)]


@pytest.mark.parametrize('mean_p, std_p, mean_q, std_q', _CASES)
def test_wasserstein_is_the_distance_of_quantiles(mean_p, std_p, mean_q, std_q):
  p, q = scipy.stats.norm(mean_p, std_p), scipy.stats.norm(mean_q, std_q)
  expected, _ = scipy.integrate.quad(lambda u: (p.ppf(u) - q.ppf(u))**2, 0., 1.,
                                     limit=500)
  np.testing.assert_allclose(
      distribution_scores.wasserstein(mean_p, std_p, mean_q, std_q),
      expected / std_p**2, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize('num_samples', [1, 2, 5, 100])
def test_wasserstein_floor_is_what_exact_draws_score(num_samples):
  draws = 2. + 3. * np.random.default_rng(0).standard_normal(
      [20_000, num_samples])
  found = distribution_scores.wasserstein(2., 3., draws.mean(1), draws.std(1))
  assert abs(found.mean() - distribution_scores.wasserstein_floor(
      num_samples)) < 4 * found.std() / np.sqrt(len(found))


@pytest.mark.parametrize('label, mean, std', [
    (0., 0., 1.), (0.7, -0.2, 0.3), (-8., 1., 0.5)])
def test_crps_is_the_integral_of_squared_differences(label, mean, std):
  q = scipy.stats.norm(mean, std)
  below, _ = scipy.integrate.quad(lambda x: q.cdf(x)**2,
                                  min(label, mean) - 12, label, points=[mean]
                                  if mean < label else None, limit=200)
  above, _ = scipy.integrate.quad(lambda x: q.sf(x)**2, label,
                                  max(label, mean) + 12, points=[mean]
                                  if mean > label else None, limit=200)
  np.testing.assert_allclose(distribution_scores.crps(label, mean, std),
                             below + above, rtol=1e-7)


@pytest.mark.parametrize('mean_p, std_p, mean_q, std_q', _CASES)
def test_expected_crps_is_the_integral_over_labels(mean_p, std_p, mean_q,
                                                   std_q):
  p = scipy.stats.norm(mean_p, std_p)
  expected, _ = scipy.integrate.quad(
      lambda y: p.pdf(y) * distribution_scores.crps(y, mean_q, std_q),
      mean_p - 10 * std_p, mean_p + 10 * std_p, limit=200)
  np.testing.assert_allclose(
      distribution_scores.expected_crps(mean_p, std_p, mean_q, std_q), expected,
      rtol=1e-7)


def test_expected_crps_is_lowest_for_the_truth():
  # A proper scoring rule.
  rng = np.random.default_rng(0)
  mean, std = rng.standard_normal(500), np.exp(rng.standard_normal(500))
  own = distribution_scores.expected_crps(0.3, 0.8, 0.3, 0.8)
  assert np.all(distribution_scores.expected_crps(0.3, 0.8, mean, std) > own)


def test_log_score_is_scipys():
  y, mean = np.random.default_rng(0).standard_normal((2, 20))
  np.testing.assert_allclose(
      distribution_scores.log_score(y, mean, 0.3),
      -scipy.stats.norm(mean, 0.3).logpdf(y), rtol=1e-12)


@pytest.mark.parametrize('level', [0.5, 0.9, 0.99])
def test_coverage_is_nominal_for_the_truth_and_counts(level):
  rng = np.random.default_rng(0)
  mean, std = rng.standard_normal(20_000), np.exp(rng.standard_normal(20_000))
  values = mean + std * rng.standard_normal(20_000)
  found = distribution_scores.interval_coverage(values, mean, std, level)
  assert abs(found - level) < 4 * np.sqrt(level * (1 - level) / 20_000)
  low, high = scipy.stats.norm(mean, std).interval(level)
  assert found == np.mean((low <= values) & (values <= high))
  # Half the std covers less.
  assert distribution_scores.interval_coverage(
      values, mean, std / 2, level) < level - 0.05


def test_coverage_without_a_std_and_with_a_bad_level():
  zeros = np.zeros(3)
  assert distribution_scores.interval_coverage(zeros + 1, zeros, zeros,
                                               0.9) == 0.
  assert np.isnan(distribution_scores.interval_coverage(
      zeros, zeros, np.array([1., np.nan, 1.]), 0.9))
  with pytest.raises(ValueError, match='level must be in'):
    distribution_scores.interval_coverage(zeros, zeros, zeros, 90)


def test_pit_is_uniform_for_the_truth():
  rng = np.random.default_rng(0)
  values = 2. + 3. * rng.standard_normal(5000)
  pit = distribution_scores.probability_integral_transform(values, 2., 3.)
  assert scipy.stats.kstest(pit, 'uniform').pvalue > 1e-3
  counts = distribution_scores.pit_counts(values, 2., 3., 20)
  expected = scipy.stats.norm(2., 3.).cdf(values)
  np.testing.assert_array_equal(
      counts, [np.sum((low <= expected) & (expected < low + 0.05))
               for low in np.arange(20) / 20])
  # Too large a std: a hump.
  wide = distribution_scores.pit_counts(values, 2., 9., 10)
  assert wide[4] > 2 * wide[0]


def test_pit_without_a_std():
  found = distribution_scores.probability_integral_transform(
      np.array([-1., 0., 1.]), np.zeros(3), np.zeros(3))
  np.testing.assert_array_equal(found, [0., 0.5, 1.])
  np.testing.assert_array_equal(distribution_scores.pit_counts(
      np.array([-1., 0., 1.]), np.zeros(3), np.zeros(3), 4), [1, 0, 1, 1])
