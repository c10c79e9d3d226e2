"""Scores against quadrature, 60-digit arithmetic, and simulation."""

import decimal
import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from enn_ensembles import base
from enn_ensembles.scoring import gaussian

RATIOS = [1e-9, 1e-4, 0.3, 0.7, 0.8, 1. - 1e-5, 1. + 1e-5, 1.2, 1.3, 40., 1e9]


def textbook_kl(mean_p, std_p, mean_q, std_q):
  """log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2, 60 digits."""
  with decimal.localcontext() as context:
    context.prec = 60
    mean_p, std_p, mean_q, std_q = map(
        decimal.Decimal, map(float, (mean_p, std_p, mean_q, std_q)))
    return float((std_q / std_p).ln()
                 + (std_p ** 2 + (mean_p - mean_q) ** 2) / (2 * std_q ** 2)
                 - decimal.Decimal('0.5'))


@pytest.mark.parametrize('mean_p, std_p, mean_q, std_q', [
    (0., 1., 0., 2.), (1., 2., -1., 0.7), (0.3, 0.05, 0.35, 0.06),
    (-5., 3., 4., 3.), (0., 0.1, 0.2, 1.5)])
def test_kl_is_the_integral(mean_p, std_p, mean_q, std_q):
  for a, b in (((mean_p, std_p), (mean_q, std_q)),
               ((mean_q, std_q), (mean_p, std_p))):
    p, q = scipy.stats.norm(*a), scipy.stats.norm(*b)
    expected, _ = scipy.integrate.quad(
        lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)),
        a[0] - 12 * a[1], a[0] + 12 * a[1], epsabs=1e-13, limit=200)
    np.testing.assert_allclose(gaussian.gaussian_kl(*a, *b), expected,
                               rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('module', [np, jnp])
@pytest.mark.parametrize('ratio', RATIOS)
@pytest.mark.parametrize('shift', [0., 1e-3, 10.])
def test_kl_is_the_textbooks_at_any_ratio(module, ratio, shift):
  args = [shift, 0.37 * ratio, 0., 0.37]
  result = gaussian.gaussian_kl(*(module.asarray([a]) for a in args))
  assert result.dtype == np.float64
  # A rounding of the ratio itself costs digits where the KL is tiny.
  np.testing.assert_allclose(result[0], textbook_kl(*args), rtol=1e-10)


def test_kl_keeps_its_digits_where_gaussians_are_nearly_equal():
  # The textbook's form cancels to nothing here: KL = d^2 - 5/3 d^3 + ...
  d = 1e-7
  value = gaussian.gaussian_kl(np.array(0.), np.array(1. + d), np.array(0.),
                              np.array(1.))
  np.testing.assert_allclose(value, d ** 2, rtol=1e-5)


@pytest.mark.parametrize('module', [np, jnp])
def test_kl_of_equal_gaussians_is_exactly_zero(module):
  rng = np.random.default_rng(0)
  mean = module.asarray(rng.standard_normal(1000))
  std = module.asarray(np.exp(5. * rng.standard_normal(1000)))
  np.testing.assert_array_equal(
      gaussian.gaussian_kl(mean, std, mean, std), np.zeros(1000))


def test_kl_is_never_negative_and_tells_its_direction():
  rng = np.random.default_rng(0)
  mean_p, mean_q = rng.standard_normal((2, 1000))
  std_p, std_q = np.exp(rng.standard_normal((2, 1000)))
  forward = gaussian.gaussian_kl(mean_p, std_p, mean_q, std_q)
  reverse = gaussian.gaussian_kl(mean_q, std_q, mean_p, std_p)
  assert np.min(forward) >= 0. and np.min(reverse) >= 0.
  # Too narrow an agent costs more forward than in reverse.
  assert (gaussian.gaussian_kl(0., 1., 0., 0.1)
          > 10. * gaussian.gaussian_kl(0., 0.1, 0., 1.))
  assert not np.allclose(forward, reverse)


@pytest.mark.parametrize('num_samples, expected', [
    (100, 0.0105), (30, 0.040), (10, 0.175), (5, 0.753)])
def test_floor_has_the_known_values(num_samples, expected):
  digits = len(str(expected).split('.')[1])
  assert round(gaussian.finite_sample_floor(num_samples), digits) == expected


@pytest.mark.parametrize('num_samples', [4, 5, 10, 100])
def test_floor_is_the_expectation_over_chi_squares(num_samples):
  # q is N(m, V / S) with m ~ N(0, 1/S) and V ~ chi2 of S - 1.
  s = num_samples
  chi2 = scipy.stats.chi2(s - 1)
  expect = lambda f: scipy.integrate.quad(
      lambda v: f(v) * chi2.pdf(v), 0., np.inf, limit=500)[0]
  expected = 0.5 * (expect(lambda v: np.log(v / s))
                    + (1. + 1. / s) * s * expect(lambda v: 1. / v) - 1.)
  np.testing.assert_allclose(gaussian.finite_sample_floor(s), expected,
                             rtol=1e-5)


@pytest.mark.parametrize('num_samples', [10, 30, 100])
def test_floor_is_what_exact_draws_score(num_samples):
  draws = np.random.default_rng(0).standard_normal((100_000, num_samples))
  kl = gaussian.gaussian_kl(0., 1., draws.mean(1), draws.std(1))
  standard_error = kl.std() / np.sqrt(len(kl))
  assert abs(kl.mean() - gaussian.finite_sample_floor(num_samples)) < (
      4 * standard_error)


@pytest.mark.parametrize('num_samples', [1, 2, 3])
def test_floor_of_three_samples_or_fewer_is_infinite(num_samples):
  assert gaussian.finite_sample_floor(num_samples) == np.inf


@pytest.mark.parametrize('module', [np, jnp])
def test_errors_are_the_plain_loops(module):
  rng = np.random.default_rng(0)
  truth, estimate = rng.standard_normal((2, 50))
  relative = sum(abs((t - e) / t) for t, e in zip(truth, estimate)) / 50
  square = sum((t - e) ** 2 for t, e in zip(truth, estimate)) / 50
  truth, estimate = module.asarray(truth), module.asarray(estimate)
  np.testing.assert_allclose(gaussian.relative_error(truth, estimate), relative,
                             rtol=1e-12)
  np.testing.assert_allclose(gaussian.root_mean_square_error(truth, estimate),
                             square ** 0.5, rtol=1e-12)


# Moments and scores of one problem.

RNG = np.random.default_rng(0)


def test_moments_are_accumulated_in_float64():
  samples = (1e4 + RNG.standard_normal((1000, 3))).astype(np.float32)
  mean, std = gaussian.sample_moments(samples, axis=0)
  exact = samples.astype(np.longdouble)
  np.testing.assert_allclose(mean, exact.mean(0).astype(float), rtol=1e-14)
  np.testing.assert_allclose(std, exact.std(0).astype(float), rtol=1e-9)


def test_moments_of_diverged_samples_are_not_finite():
  samples = np.array([[1., np.nan, np.inf], [1., 2., 3.]], np.float32)
  mean, std = gaussian.sample_moments(samples, axis=0)
  np.testing.assert_array_equal(np.isfinite(mean), [True, False, False])
  np.testing.assert_array_equal(np.isfinite(std), [True, False, False])


def test_scores_are_the_direct_formulas():
  mean, true_mean = RNG.standard_normal((2, 40))
  std, true_std = np.exp(RNG.standard_normal((2, 40)))
  scores = gaussian.posterior_scores(mean, std, true_mean, true_std,
                                     num_samples=30)
  forward = reverse = mean_error = std_error = square = ratio = 0.
  for m, s, tm, ts in zip(mean, std + 1e-3, true_mean, true_std + 1e-3):
    forward += math.log(s / ts) + (ts ** 2 + (tm - m) ** 2) / (2 * s ** 2) - 0.5
    reverse += math.log(ts / s) + (s ** 2 + (m - tm) ** 2) / (2 * ts ** 2) - 0.5
    mean_error += abs((tm - m) / tm)
    std_error += abs((ts - s) / ts)
    square += (tm - m) ** 2
    ratio += s / ts
  expected = {
      'kl_estimate': forward / 40, 'kl_reverse': reverse / 40,
      'mean_error': mean_error / 40, 'std_error': std_error / 40,
      'mean_rmse': math.sqrt(square / 40), 'std_ratio': ratio / 40,
      'kl_floor': gaussian.finite_sample_floor(30)}
  assert scores.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(scores[name], value, rtol=1e-10, err_msg=name)
    assert type(scores[name]) is float


def test_the_ridge_bounds_the_score_of_an_agent_without_spread():
  scores = gaussian.posterior_scores(
      np.zeros(5), np.zeros(5), np.zeros(5), np.ones(5), num_samples=1)
  ratio = 1.001 / 0.001
  np.testing.assert_allclose(scores['kl_estimate'],
                             0.5 * ratio ** 2 - 0.5 - math.log(ratio))
  assert scores['kl_floor'] == np.inf


def test_scores_of_a_diverged_agent_are_not_finite():
  mean = np.array([np.nan, 1., 1.])
  scores = gaussian.posterior_scores(mean, np.ones(3), np.ones(3), np.ones(3),
                            num_samples=10)
  assert np.isnan(scores['kl_estimate']) and np.isnan(scores['mean_rmse'])


def test_moments_of_predictions_are_of_one_output():
  samples = RNG.standard_normal((7, 5, 1))
  mean, std = gaussian.prediction_moments(base.Predictions(samples))
  np.testing.assert_allclose(mean, samples[..., 0].mean(0))
  np.testing.assert_allclose(std, samples[..., 0].std(0))
  exact = base.Predictions(None, mean=np.ones((5, 1)), std=np.full((5, 1), 2.))
  mean, std = gaussian.prediction_moments(exact)
  np.testing.assert_array_equal([mean, std], [[1.] * 5, [2.] * 5])
  with pytest.raises(ValueError, match='one output per point, got 2'):
    gaussian.prediction_moments(base.Predictions(np.zeros((7, 5, 2))))
