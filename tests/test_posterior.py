"""The posterior against the textbook formula and published ground truth."""

import pathlib

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
  """f at all sets = chol(joint K + 1e-6 I) z, by numpy."""
  x_train, x, z = _regression()
  normals = np.random.default_rng(1).standard_normal(len(x))
  points = np.concatenate([x_train, x])
  joint = kernels.nngp(_CONFIG, points)
  truth = np.linalg.cholesky(joint + 1e-6 * np.eye(len(points))) @ (
      np.concatenate([z, normals]))
  drawn = {}
  for cuts in ([], [2], [2, 5]):  # One set, two, three.
    sets, before = [], []
    for part in np.split(np.arange(len(x)), cuts):
      before.append(x[part])
      sets.append(posterior.PriorPoints(
          kernels.nngp(_CONFIG, x[part], x_train),
          [kernels.nngp(_CONFIG, x[part], other) for other in before[:-1]]
          + [kernels.nngp(_CONFIG, x[part])], normals[part]))
    drawn[len(sets)] = posterior.sample_prior(
        kernels.nngp(_CONFIG, x_train), z, sets)
    np.testing.assert_allclose(np.concatenate(drawn[len(sets)]), truth, rtol=0,
                               atol=1e-11)
  # Not a bit depends on what is drawn afterwards.
  for a, b in zip(drawn[2][:2], drawn[3][:2], strict=True):
    np.testing.assert_array_equal(a, b)


def test_joint_moments_of_further_points():
  x_train, x, y = _regression()
  mean, covariance = _truth(x_train, x, y, 0.01)
  kernel, cross = (kernels.nngp(_CONFIG, x_train),
                   kernels.nngp(_CONFIG, x, x_train))
  num = len(x) // 2
  priors = np.stack([kernels.nngp(_CONFIG, part)
                     for part in (x[:num], x[num:2 * num])])
  moments = [posterior.posterior_moments(
      kernel, cross, kernels.nngp_diag(_CONFIG, x), [y], [0.01], joint=joint)[0]
             for joint in (None, posterior.JointPoints(cross[:2 * num],
                                                       priors))]
  found = moments[1].joint
  np.testing.assert_allclose(found.mean.ravel(), mean[:2 * num], rtol=0,
                             atol=1e-12)
  for i, block in enumerate(found.covariances):
    own = slice(i * num, (i + 1) * num)
    np.testing.assert_allclose(
        block, covariance[own, own] + 1e-6 * np.eye(num), rtol=0, atol=1e-12)
  assert moments[0].joint is None
  for name in ('mean', 'std', 'weights'):
    np.testing.assert_array_equal(getattr(moments[0], name),
                                  getattr(moments[1], name))


def test_process_matches_the_formula():
  x_train, x, y = _regression()
  mean, covariance = _truth(x_train, x, y, 0.01)
  for targets in (y, y[:, None]):
    process = posterior.GPPosterior.fit(_CONFIG, x_train, targets, 0.01)
    got_mean, got_std = process.moments(x)
    np.testing.assert_allclose(got_mean, mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got_std, np.sqrt(np.diag(covariance) + 1e-6),
                               rtol=0, atol=1e-12)
    joint_mean, joint = process.joint(x)
    np.testing.assert_array_equal(joint_mean, got_mean)
    np.testing.assert_allclose(joint, covariance + 1e-6 * np.eye(len(x)),
                               rtol=0, atol=1e-12)


def test_process_refuses_targets_of_another_shape():
  x_train, _, y = _regression()
  with pytest.raises(ValueError, match=r'\[40, 1\], got \[39\]'):
    posterior.GPPosterior.fit(_CONFIG, x_train, y[:39], 0.01)
