"""Functions of a Gaussian process: jointly right, the same at every call."""

import jax
import numpy as np
import pytest

from enn_ensembles.nngp import function_draws
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior

_CONFIG = kernels.KernelConfig()
_KEYS = jax.random.split(jax.random.PRNGKey(0), 20_000)


def _make(conditioned=True):
  """Draws, five points, and the mean and covariance there."""
  rng = np.random.default_rng(0)
  x_train, x = rng.standard_normal((40, 5)), rng.standard_normal((5, 5))
  if not conditioned:
    return (function_draws.FunctionDraws(function_draws.Prior(_CONFIG),
                                         posterior.SAMPLE_JITTER), x,
            np.zeros(5), kernels.nngp(_CONFIG, x))
  process = posterior.GPPosterior.fit(_CONFIG, x_train,
                                      rng.standard_normal(40), 0.01)
  return function_draws.FunctionDraws(process), x, *process.joint(x)


def _sample_all(draws, x):
  return np.asarray(jax.vmap(lambda key: draws.sample(x, key))(_KEYS))[..., 0]


@pytest.mark.parametrize('conditioned', [True, False])
@pytest.mark.parametrize('parts', [[[0, 1, 2, 3, 4]], [[3, 1], [0], [4, 2]]])
def test_draws_have_the_joint_moments(conditioned, parts):
  """Whether points are asked for at once or one part after another."""
  draws, x, mean, covariance = _make(conditioned)
  found = np.empty([len(_KEYS), 5])
  for part in parts:
    found[:, part] = _sample_all(draws, x[part])
  standard_error = np.sqrt(np.diag(covariance) / len(found))
  assert np.all(np.abs(found.mean(0) - mean) < 4.5 * standard_error)
  # An entry of a sample covariance has variance (C_ij^2 + C_ii C_jj) / S.
  variances = np.diag(covariance)
  standard_error = np.sqrt(
      (covariance**2 + np.outer(variances, variances)) / len(found))
  assert np.all(np.abs(np.cov(found.T) - covariance) < 4.5 * standard_error)
  # Correlated: independent draws per point would not pass.
  assert np.abs(covariance / np.sqrt(np.outer(variances, variances))
                - np.eye(5)).max() > 0.05


def test_a_key_is_one_function():
  draws, x, _, _ = _make()
  key = _KEYS[0]
  first = np.asarray(draws.sample(x[:3], key))
  assert first.shape == (3, 1) and first.dtype == np.float64
  # Known and unknown points, in any order, some twice.
  mixed = np.asarray(draws.sample(x[[4, 1, 4, 0, 3]], key))
  np.testing.assert_array_equal(mixed[[1, 3]], first[[1, 0]])
  assert mixed[0] == mixed[2]
  np.testing.assert_array_equal(draws.sample(x[:3], key), first)
  np.testing.assert_array_equal(draws.sample(x[[3, 4]], key), mixed[[4, 0]])
  np.testing.assert_array_equal(
      draws.sample(x, key), np.concatenate([first, mixed[[4, 0]]]))
  assert np.all(np.asarray(draws.sample(x[:3], _KEYS[1])) != first)


def test_points_that_change_in_place_are_others():
  draws, x, _, _ = _make()
  first = np.asarray(draws.sample(x, _KEYS[0]))
  x[0] += 1
  second = np.asarray(draws.sample(x, _KEYS[0]))
  assert second[0] != first[0]
  np.testing.assert_array_equal(second[1:], first[1:])


def test_refuses_more_points_than_it_may_remember(monkeypatch):
  draws, x, _, _ = _make()
  monkeypatch.setattr(function_draws, 'MAX_POINTS', 4)
  draws.sample(x[:3], _KEYS[0])
  draws.sample(x[[2, 0]], _KEYS[0])
  with pytest.raises(ValueError, match='4 points in all, got 2 after 3'):
    draws.sample(x, _KEYS[0])
