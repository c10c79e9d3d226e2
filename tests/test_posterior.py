"""The posterior against the textbook formula and published ground truth."""

import pathlib

import jax
import numpy as np
import pytest
import references
import scipy.linalg

from enn_ensembles import problems
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior

_DATA = pathlib.Path(__file__).parent / 'data'
# Complete files of the same problems, where this checkout has them beside it.
_STORED = (pathlib.Path(__file__).parents[2] / 'shared' / 'reference'
           / 'problems')
_CONFIG = kernels.KernelConfig()


def _regression(num_train: int = 40, num: int = 30, input_dim: int = 5):
  rng = np.random.default_rng(0)
  x_train = rng.standard_normal((num_train, input_dim))
  x = rng.standard_normal((num, input_dim))
  return x_train, x, rng.standard_normal(num_train)


def _truth(x_train, x, y, noise_variance):
  """Mean [n] and covariance [n, n] without the ridge."""
  return references.gp_posterior(
      kernels.nngp(_CONFIG, x_train), kernels.nngp(_CONFIG, x, x_train),
      kernels.nngp(_CONFIG, x), y, noise_variance)


def test_moments_match_the_formula():
  """Three noise levels, each with targets of its own, share one kernel."""
  x_train, x, y = _regression()
  kernel = kernels.nngp(_CONFIG, x_train)
  before = kernel.copy()
  variances = [1e-4, 1e-2, 1.]
  targets = [y, y + 1, 2 * y]
  prior = kernels.nngp(_CONFIG, x)
  moments = posterior.posterior_moments(
      kernel, kernels.nngp(_CONFIG, x, x_train), kernels.nngp_diag(_CONFIG, x),
      targets, variances, block_priors=np.stack([prior[:4, :4],
                                                 prior[4:8, 4:8]]))
  np.testing.assert_array_equal(kernel, before)
  for got, target, variance in zip(moments, targets, variances, strict=True):
    mean, covariance = _truth(x_train, x, target, variance)
    np.testing.assert_allclose(got.mean, mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(got.std, np.sqrt(np.diag(covariance) + 1e-6),
                               rtol=0, atol=1e-11)
    for block, covariances in enumerate(got.covariances):
      part = slice(4 * block, 4 * block + 4)
      np.testing.assert_allclose(
          covariances, covariance[part, part] + 1e-6 * np.eye(4), rtol=0,
          atol=1e-11)
    np.testing.assert_allclose(
        (kernel + variance * np.eye(40)) @ got.weights, target, atol=1e-10)
    # Rounding alone, and bounded from above.
    assert np.max(np.abs(got.mean - mean) / got.std) <= got.mean_error < 1e-9
    assert 0 < got.std_error < 1e-9 and 0 < got.residual < 1e-12


def test_errors_say_when_a_solution_is_wrong(monkeypatch):
  x_train, x, y = _regression()
  kernel = kernels.nngp(_CONFIG, x_train)
  cholesky = posterior.cholesky
  monkeypatch.setattr(  # The factor of a matrix that is 1 % off.
      posterior, 'cholesky', lambda matrix, shift, work: cholesky(
          1.01 * matrix, shift, work))
  got, = posterior.posterior_moments(
      kernel, kernels.nngp(_CONFIG, x, x_train), kernels.nngp_diag(_CONFIG, x),
      [y], [0.01])
  mean, covariance = _truth(x_train, x, y, 0.01)
  error = np.max(np.abs(got.mean - mean) / got.std)
  assert 1e-3 < error < got.mean_error < 100 * error
  std = np.sqrt(np.diag(covariance) + 1e-6)
  error = np.max(np.abs(got.std - std) / std)
  assert error / 5 < got.std_error < 5 * error


def _check_published(path: pathlib.Path) -> None:
  """Our posterior is the published code's, in its own terms (enn2021)."""
  stored = np.load(path)
  noise_std = float(path.stem.split('_e')[1].split('_')[0])
  inputs = [stored[name] for name in ('x_train', 'y_train', 'x_test', 'x_val')]
  problem = problems.problem_from_data(*inputs, noise_std, 'enn2021')
  for name in ('test_mean', 'test_std', 'val_mean', 'val_std'):
    np.testing.assert_allclose(getattr(problem, name), stored[name], rtol=0,
                               atol=1e-6)
  if noise_std == 1:  # The references differ by far more than the tolerance.
    bayes = problems.problem_from_data(*inputs, noise_std, 'bayes')
    assert np.abs(bayes.test_std - stored['test_std']).max() > 1e-2


@pytest.mark.parametrize('name', ['D10_l1_e0.1_s0', 'D10_l10_e0.01_s0',
                                  'D10_l10_e1_s0', 'D100_l1_e0.1_s0'])
def test_matches_published_ground_truth(name):
  _check_published(_DATA / f'published_{name}.npz')


def test_matches_all_of_the_published_ground_truth():
  paths = sorted(_STORED.glob('*.npz'))
  if not paths:
    pytest.skip('needs the complete reference problems in '
                '../shared/reference/problems; excerpts are tested above')
  for path in paths:
    _check_published(path)


def test_noise_variance():
  variances = np.array([0.2, 0.4])
  assert posterior.noise_variance(0.5, variances, 'bayes') == 0.25
  assert posterior.noise_variance(0.5, variances, 'enn2021') == (
      pytest.approx(0.25 * 0.3, rel=1e-15))
  with pytest.raises(ValueError, match="reference must be .* got 'exact'"):
    posterior.noise_variance(0.5, variances, 'exact')


def test_cholesky_matches_scipy_and_keeps_its_input():
  x_train, _, _ = _regression()
  kernel = kernels.nngp(_CONFIG, x_train)
  before = kernel.copy()
  truth = scipy.linalg.cholesky(kernel + 0.3 * np.eye(40), lower=True)
  for work in (None, np.full((40, 40), np.nan, order='F')):
    factor = posterior.cholesky(kernel, 0.3, work)
    np.testing.assert_allclose(np.tril(factor), truth, rtol=0, atol=1e-14)
    # In place: no copy is hidden in a layout that LAPACK does not like.
    assert work is None or factor is work
  np.testing.assert_array_equal(kernel, before)


@pytest.mark.parametrize('position', [(0, 0), (3, 1), (4, 4)])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_cholesky_refuses_what_is_not_finite(position, value):
  matrix = np.eye(5)
  matrix[position] = matrix[position[::-1]] = value
  with pytest.raises(ValueError, match='positive definite'):
    posterior.cholesky(matrix)


def test_cholesky_refuses_what_is_not_positive_definite():
  with pytest.raises(ValueError, match=r'\[3, 3\] \+ 0.5 I must be finite'):
    posterior.cholesky(-np.eye(3), 0.5)


def test_refuses_a_variance_that_is_not_positive():
  with pytest.raises(ValueError, match='variances must be > 0'):
    posterior.posterior_moments(np.eye(2), np.full((1, 2), 2.), np.ones(1),
                                [np.zeros(2)], [0.1])


def test_prior_sample():
  """(f, f elsewhere) = chol(joint K + 1e-6 I) (z, z'), by numpy."""
  x_train, x, z = _regression()
  elsewhere = np.random.default_rng(1).standard_normal(len(x))
  points = np.concatenate([x_train, x])
  joint = kernels.nngp(_CONFIG, points)
  truth = np.linalg.cholesky(joint + 1e-6 * np.eye(len(points))) @ (
      np.concatenate([z, elsewhere]))
  drawn = posterior.sample_prior(
      kernels.nngp(_CONFIG, x_train), kernels.nngp(_CONFIG, x, x_train),
      kernels.nngp(_CONFIG, x), z, elsewhere)
  np.testing.assert_allclose(np.concatenate(drawn), truth, rtol=0, atol=1e-11)


def test_process_matches_the_formula():
  x_train, x, y = _regression()
  mean, covariance = _truth(x_train, x, y, 0.01)
  for targets in (y, y[:, None]):
    process = posterior.GPPosterior.fit(_CONFIG, x_train, targets, 0.01)
    got_mean, got_std = process.moments(x)
    np.testing.assert_allclose(got_mean, mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got_std, np.sqrt(np.diag(covariance) + 1e-6),
                               rtol=0, atol=1e-12)
    np.testing.assert_allclose(process.joint_covariance(x),
                               covariance + 1e-6 * np.eye(len(x)), rtol=0,
                               atol=1e-12)


def test_process_samples_have_the_joint_moments():
  x_train, x, y = _regression(num=4)
  process = posterior.GPPosterior.fit(_CONFIG, x_train, y, 0.01)
  mean, covariance = _truth(x_train, x, y, 0.01)
  keys = jax.random.split(jax.random.PRNGKey(0), 40_000)
  draws = jax.vmap(lambda key: process.sample(x, key))(keys)
  assert draws.shape == (40_000, 4, 1) and draws.dtype == np.float64
  draws = np.asarray(draws)[..., 0]
  standard_error = np.sqrt(np.diag(covariance) / len(draws))
  assert np.all(np.abs(draws.mean(axis=0) - mean) < 4 * standard_error)
  # An entry of a sample covariance has variance (C_ij^2 + C_ii C_jj) / S.
  variances = np.diag(covariance)
  standard_error = np.sqrt(
      (covariance**2 + np.outer(variances, variances)) / len(draws))
  assert np.all(np.abs(np.cov(draws.T) - covariance) < 4 * standard_error)
  # Correlated: independent draws per point would not pass.
  assert np.abs(covariance / np.sqrt(np.outer(variances, variances))
                - np.eye(4)).max() > 0.05


def test_process_samples_follow_key_and_points():
  x_train, x, y = _regression()
  process = posterior.GPPosterior.fit(_CONFIG, x_train, y, 0.01)
  keys = jax.random.split(jax.random.PRNGKey(0), 2)
  first = process.sample(x, keys[0])
  other_points = process.sample(x[:7], keys[0])
  assert other_points.shape == (7, 1)
  np.testing.assert_array_equal(first, process.sample(x, keys[0]))
  assert np.all(np.asarray(first) != np.asarray(process.sample(x, keys[1])))
  # What is remembered of points is not confused when they change in place.
  x[0] += 1
  fresh = posterior.GPPosterior.fit(_CONFIG, x_train, y, 0.01)
  np.testing.assert_array_equal(process.sample(x, keys[0]),
                                fresh.sample(x, keys[0]))


def test_process_samples_where_points_repeat():
  """The covariance is singular but for its ridge."""
  x_train, x, y = _regression()
  process = posterior.GPPosterior.fit(_CONFIG, x_train, y, 0.01)
  draw = np.asarray(process.sample(np.concatenate([x, x]),
                                   jax.random.PRNGKey(0)))[:, 0]
  # Equal points differ by two independent ridges, of std 1e-3 each.
  assert np.abs(draw[:30] - draw[30:]).max() < 6 * np.sqrt(2) * 1e-3


def test_process_refuses_targets_of_another_shape():
  x_train, _, y = _regression()
  with pytest.raises(ValueError, match=r'\[40, 1\], got \[39\]'):
    posterior.GPPosterior.fit(_CONFIG, x_train, y[:39], 0.01)
