"""The kernel against quadrature, closed forms, wide networks and an oracle."""

import itertools
import pathlib

import jax
import numpy as np
import pytest
import references

from enn_ensembles.nngp import kernels

_ORACLE = pathlib.Path(__file__).parent / 'data' / 'neural_tangents.npz'


def _points(num: int, input_dim: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal((num, input_dim))


@pytest.mark.parametrize('activation', ['relu', 'erf'])
@pytest.mark.parametrize('num_hidden_layers', [1, 2, 3])
@pytest.mark.parametrize('weight_std, first_bias', [(1., 1.), (1.3, 0.4)])
def test_matches_quadrature(activation, num_hidden_layers, weight_std,
                            first_bias):
  config = kernels.KernelConfig(num_hidden_layers, activation, weight_std,
                                first_bias)
  x = _points(4, 3)
  kernel = kernels.nngp(config, x)
  for i, j in itertools.combinations(range(4), 2):
    truth = references.nngp_entry(x[i], x[j], num_hidden_layers, activation,
                                  weight_std, first_bias)
    np.testing.assert_allclose(kernel[i, j], truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize('activation', ['relu', 'erf'])
@pytest.mark.parametrize('num_hidden_layers', [1, 2, 3])
@pytest.mark.parametrize('input_dim', [1, 10, 100])
def test_matches_neural_tangents(activation, num_hidden_layers, input_dim):
  """Kernels that scripts/kernel_oracle.sh has made, in another environment."""
  with np.load(_ORACLE) as stored:
    name = f'{activation}{num_hidden_layers}_D{input_dim}'
    x1, x2, cross, own = (stored[f'{name}.{part}']
                          for part in ('x1', 'x2', 'cross', 'own'))
    config = kernels.KernelConfig(num_hidden_layers, activation,
                                  float(stored['weight_std']))
  for ours, theirs in ((kernels.nngp(config, x1, x2), cross),
                       (kernels.nngp(config, x1), own),
                       (kernels.nngp_diag(config, x1), np.diag(own))):
    assert theirs.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_matches_wide_random_networks():
  """The covariance of outputs of random MLPs, biases included."""
  x = _points(3, 4)
  config = kernels.KernelConfig(weight_std=1.1, first_bias=1.5)
  outputs = references.random_mlp_outputs(
      x, num_networks=2000, width=256, weight_std=1.1, first_bias=1.5,
      rng=np.random.default_rng(0))
  products = outputs[:, :, None] * outputs[:, None, :]
  standard_error = products.std(axis=0) / np.sqrt(len(products))
  errors = np.abs(products.mean(axis=0) - kernels.nngp(config, x))
  assert np.all(errors < 4 * standard_error)
  # The test can tell: without the bias it would fail.
  no_bias = kernels.KernelConfig(weight_std=1.1, first_bias=0.)
  errors = np.abs(products.mean(axis=0) - kernels.nngp(no_bias, x))
  assert np.any(errors > 4 * standard_error)


@pytest.mark.parametrize(
    'angle', [1e-9, 1e-7, 1e-4, 1e-2, 1., np.pi / 2, 3., np.pi - 1e-2,
              np.pi - 1e-4, np.pi - 1e-7, np.pi])
def test_relu_where_the_cosine_is_near_one(angle):
  """Unit vectors at a known angle; Cho & Saul's formula in the angle itself."""
  x = np.array([[1., 0.], [np.cos(angle), np.sin(angle)]])
  config = kernels.KernelConfig(num_hidden_layers=1, first_bias=0.)
  truth = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi) / 2
  np.testing.assert_allclose(kernels.nngp(config, x)[0, 1], truth, rtol=0,
                             atol=2e-16)


def test_relu_of_scaled_points():
  """Without a bias the kernel is homogeneous: k(x, 3 x) = 3 k(x, x)."""
  x = _points(200, 7)
  config = kernels.KernelConfig(num_hidden_layers=3, first_bias=0.)
  cross = np.diagonal(kernels.nngp(config, x, 3 * x))
  np.testing.assert_allclose(cross, 3 * kernels.nngp_diag(config, x),
                             rtol=1e-14)


@pytest.mark.parametrize('activation', ['relu', 'erf'])
@pytest.mark.parametrize('num', [1, 5, 128, 129, 300])
def test_symmetric_with_exact_diagonal(activation, num):
  config = kernels.KernelConfig(activation=activation)
  x = _points(num, 10)
  kernel = kernels.nngp(config, x)
  np.testing.assert_array_equal(kernel, kernel.T)
  np.testing.assert_array_equal(np.diagonal(kernel),
                                kernels.nngp_diag(config, x))
  # The same formula without the mirror, and without tiles.
  np.testing.assert_allclose(kernel, kernels.nngp(config, x, x), rtol=0,
                             atol=1e-15)
  np.testing.assert_allclose(kernel[:2], kernels.nngp(config, x[:2], x),
                             rtol=0, atol=1e-15)


@pytest.mark.parametrize('activation', ['relu', 'erf'])
def test_origin_without_bias_is_zero(activation):
  config = kernels.KernelConfig(activation=activation, first_bias=0.)
  x = np.array([[0., 0.], [1., 2.]])
  np.testing.assert_array_equal(kernels.nngp(config, x)[0], 0.)
  np.testing.assert_allclose(kernels.nngp(config, x, x)[0], 0., atol=1e-150)


@pytest.mark.parametrize('activation', ['relu', 'erf'])
def test_positive_definite_with_repeated_points(activation):
  x = _points(60, 3)
  x[30:] = x[:30]
  config = kernels.KernelConfig(activation=activation)
  eigenvalues = np.linalg.eigvalsh(kernels.nngp(config, x))
  assert eigenvalues[0] > -1e-13


@pytest.mark.parametrize('field, value', [
    ('num_hidden_layers', 0), ('num_hidden_layers', 1.5),
    ('activation', 'tanh'), ('weight_std', 0.), ('weight_std', np.nan),
    ('first_bias', -1.)])
def test_refuses_bad_settings(field, value):
  with pytest.raises(ValueError, match=f'{field} must be .* got'):
    kernels.KernelConfig(**{field: value})


def test_refuses_bad_shapes():
  config = kernels.KernelConfig()
  with pytest.raises(ValueError, match=r'x1 must have shape .* got \[3\]'):
    kernels.nngp(config, np.zeros(3))
  with pytest.raises(ValueError, match='columns, got 2 and 3'):
    kernels.nngp(config, np.zeros((4, 2)), np.zeros((4, 3)))


def test_refuses_float32():
  jax.config.update('jax_enable_x64', False)
  try:
    for function in (kernels.nngp, kernels.nngp_diag):
      with pytest.raises(ValueError, match='jax_enable_x64 must be True'):
        function(kernels.KernelConfig(), np.zeros((2, 2)))
  finally:
    jax.config.update('jax_enable_x64', True)
