"""Joint scores against scipy, high-precision formulas, and simulation."""

import numpy as np
import pytest
import scipy.stats

from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import joint


def _random_blocks(shape, tau, rng):
  root = rng.standard_normal([*shape, tau, tau + 2])
  return rng.standard_normal([*shape, tau]), root @ np.swapaxes(root, -1, -2)


def _textbook_kl(mean_p, cov_p, mean_q, cov_q):
  inverse = np.linalg.inv(cov_q)
  shift = mean_q - mean_p
  return 0.5 * (np.trace(inverse @ cov_p) + shift @ inverse @ shift
                - len(mean_p) + np.log(np.linalg.det(cov_q))
                - np.log(np.linalg.det(cov_p)))


@pytest.mark.parametrize('tau', [1, 2, 10])
def test_kl_is_the_textbooks(tau):
  rng = np.random.default_rng(tau)
  p, q = (_random_blocks((3, 2), tau, rng) for _ in range(2))
  found = joint.kl(*p, *q)
  for i in np.ndindex(3, 2):
    expected = _textbook_kl(p[0][i], p[1][i], q[0][i], q[1][i])
    np.testing.assert_allclose(found[i], expected, rtol=1e-9)


def test_kl_is_the_expected_difference_of_log_densities():
  rng = np.random.default_rng(0)
  (mean_p, cov_p), (mean_q, cov_q) = (_random_blocks((), 3, rng)
                                      for _ in range(2))
  p = scipy.stats.multivariate_normal(mean_p, cov_p)
  q = scipy.stats.multivariate_normal(mean_q, cov_q)
  x = p.rvs(200_000, random_state=0)
  difference = p.logpdf(x) - q.logpdf(x)
  standard_error = difference.std() / np.sqrt(len(x))
  assert abs(joint.kl(mean_p, cov_p, mean_q, cov_q)
             - difference.mean()) < 4 * standard_error


def test_kl_of_one_point_is_the_marginal_one():
  rng = np.random.default_rng(0)
  mean_p, mean_q = rng.standard_normal((2, 50))
  std_p, std_q = np.exp(rng.standard_normal((2, 50)))
  found = joint.kl(mean_p[:, None], std_p[:, None, None]**2, mean_q[:, None],
                   std_q[:, None, None]**2)
  np.testing.assert_allclose(
      found, gaussian.gaussian_kl(mean_p, std_p, mean_q, std_q), rtol=1e-9)


def test_kl_of_equal_blocks_is_zero():
  mean, covariance = _random_blocks((100,), 10, np.random.default_rng(0))
  np.testing.assert_allclose(joint.kl(mean, covariance, mean, covariance), 0.,
                             atol=1e-20)


def test_kl_of_an_agent_that_is_far_too_wide_or_narrow():
  # Closed form: scaling the covariance by c costs tau (1/c - 1 + log c) / 2.
  mean, covariance = _random_blocks((3,), 4, np.random.default_rng(0))
  for scale in (1e-150, 1e-9, 1e9, 1e150):
    np.testing.assert_allclose(
        joint.kl(mean, covariance, mean, scale * covariance),
        2. * (1. / scale - 1. + np.log(scale)), rtol=1e-9)


def test_kl_of_a_singular_block_is_infinite_and_touches_no_other():
  mean, covariance = _random_blocks((4,), 2, np.random.default_rng(0))
  other = covariance.copy()
  other[1] = 1.  # Of rank 1.
  other[2] = 0.
  other[3, 0, 0] = np.nan
  found = joint.kl(mean, covariance, mean, other)
  assert found[0] == pytest.approx(0., abs=1e-15)
  assert found[1] == found[2] == np.inf
  assert np.isnan(found[3])


@pytest.mark.parametrize('tau', [1, 2, 10])
@pytest.mark.parametrize('extra', [3, 20, 90])
def test_floor_is_what_exact_draws_score(tau, extra):
  num_samples = tau + 2 + extra
  _, covariance = _random_blocks((), tau, np.random.default_rng(tau))
  factor = np.linalg.cholesky(covariance)
  rng = np.random.default_rng(0)
  draws = rng.standard_normal([num_samples, 4000 * tau])
  draws = (draws.reshape(-1, 4000, tau) @ factor.T).reshape(num_samples, -1)
  mean, found = joint.sample_blocks(draws, tau)
  kl = joint.kl(np.zeros_like(mean), np.broadcast_to(covariance, found.shape),
                mean, found)
  assert abs(kl.mean() - joint.finite_sample_floor(num_samples, tau)) < (
      4 * kl.std() / np.sqrt(len(kl)))


def test_floor_of_one_point_is_the_marginal_one():
  for num_samples in (1, 3, 4, 5, 30, 100):
    assert joint.finite_sample_floor(num_samples, 1) == pytest.approx(
        gaussian.finite_sample_floor(num_samples), rel=1e-12)


@pytest.mark.parametrize('tau', [1, 2, 10])
def test_floor_is_infinite_up_to_tau_plus_two(tau):
  assert joint.finite_sample_floor(tau + 2, tau) == np.inf
  assert np.isfinite(joint.finite_sample_floor(tau + 3, tau))


@pytest.mark.parametrize('num_samples', [1, 2, 5, 30])
def test_floor_of_labels_is_what_exact_draws_score(num_samples):
  rng = np.random.default_rng(1)
  _, covariances = _random_blocks((3,), 4, rng)
  noise = 0.5**2 * np.eye(4)
  scores = []
  for covariance in covariances:
    factor = np.linalg.cholesky(covariance)
    draws = rng.standard_normal([num_samples, 2000, 4]) @ factor.T
    mean, found = joint.sample_blocks(draws.reshape(num_samples, -1), 4)
    scores.append(joint.kl(
        np.zeros_like(mean), np.broadcast_to(covariance + noise, found.shape),
        mean, found + noise))
  standard_error = np.std(scores) / np.sqrt(np.size(scores))
  # Both are simulated: that is the difference of two such means.
  assert abs(np.mean(scores) - joint.label_floor(
      covariances, 0.5, num_samples)) < 4 * np.sqrt(2) * standard_error


def test_floor_of_labels_is_the_same_at_every_call():
  _, covariances = _random_blocks((3,), 4, np.random.default_rng(1))
  first = joint.label_floor(covariances, 0.5, 7)
  for cache in (joint._label_floor, joint._simulated_moments):
    cache.cache_clear()
  assert joint.label_floor(covariances, 0.5, 7) == first


def test_ridge_widens_stds_and_keeps_correlations():
  _, covariances = _random_blocks((5,), 3, np.random.default_rng(0))
  found = joint.add_std_ridge(covariances, 0.1)
  for before, after in zip(covariances, found):
    np.testing.assert_allclose(np.sqrt(np.diag(after)),
                               np.sqrt(np.diag(before)) + 0.1, rtol=1e-14)
    stds = np.sqrt(np.diag(before))
    np.testing.assert_allclose(
        after / np.outer(stds + 0.1, stds + 0.1),
        before / np.outer(stds, stds), rtol=1e-12)


def test_ridge_of_a_std_of_zero():
  found = joint.add_std_ridge(np.array([[0., 0.], [0., 4.]]), 0.5)
  np.testing.assert_allclose(found, [[0.25, 0.], [0., 6.25]])


def test_sample_blocks_are_numpys():
  samples = np.random.default_rng(0).standard_normal([20, 7])
  mean, covariances = joint.sample_blocks(samples, 3)
  for block in range(2):
    part = samples[:, 3 * block:3 * block + 3]
    np.testing.assert_allclose(mean[block], part.mean(0), atol=1e-15)
    np.testing.assert_allclose(covariances[block],
                               np.cov(part.T, ddof=0), rtol=1e-12)
  assert mean.shape == (2, 3)


def test_smaller_blocks_are_cut_from_larger_ones():
  covariances = np.arange(2 * 36.).reshape(2, 6, 6)
  found = joint.cut_blocks(covariances, 2)
  assert found.shape == (6, 2, 2)
  for i in range(6):
    start = 2 * (i % 3)
    np.testing.assert_array_equal(
        found[i], covariances[i // 3, start:start + 2, start:start + 2])
  with pytest.raises(ValueError, match='tau must divide the 6'):
    joint.cut_blocks(covariances, 4)
