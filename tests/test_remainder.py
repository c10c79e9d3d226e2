"""The kernel as features and a remainder, and the tiles of the remainder."""

import dataclasses
import os
import pathlib
import subprocess
import sys

from matrix_free_cases import DEEP
from matrix_free_cases import ERF
from matrix_free_cases import make_inputs
from matrix_free_cases import RELU
import numpy as np
import pytest

from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import tall
from enn_ensembles.nngp import tiles


@pytest.mark.parametrize('kernel, input_dim, dtype', [
    (RELU, 100, 'float32'), (RELU, 4, 'float64'), (DEEP, 100, 'float32'),
    (DEEP, 3, 'float64'), (ERF, 50, 'float64'),
    (dataclasses.replace(DEEP, activation='erf'), 7, 'float64')])
def test_split_is_the_kernel(kernel, input_dim, dtype, monkeypatch):
  """U U^T + R = K, R >= diag(mu) >= 0; with panels that do not fit evenly."""
  monkeypatch.setattr(tiles, '_CPU_TILE', 64)
  monkeypatch.setattr(tall, 'PANEL', 50)
  x_train, x_eval, _ = make_inputs(150, input_dim, 20)
  split = remainder.Split(kernel, x_train)
  assert split.dtype == dtype
  features = split.features(x_train)
  rest = kernels.nngp(kernel, x_train) - features @ features.T
  operator = tiles.Remainder(split, x_train)
  products, survey = operator.apply_and_survey(np.eye(150)[:, :40],
                                               np.eye(150)[:, 40:])
  product = np.concatenate(products, 1)
  np.testing.assert_allclose(product, *operator.apply(np.eye(150)), rtol=0,
                             atol=1e-8 if dtype == 'float32' else 1e-15)
  np.testing.assert_allclose(product, rest, rtol=0,
                             atol=2e-8 if dtype == 'float32' else 1e-13)
  np.testing.assert_allclose(np.diag(product), np.diag(rest), rtol=0,
                             atol=1e-14)
  assert (survey is not None) == (dtype == 'float32')
  if survey is not None:
    z, sigma = split.points(x_train)
    rho = z @ z.T - np.eye(150)
    assert 0 <= survey.largest - np.abs(rho).max() < 2e-5
    for power, sums in zip((4, 6), survey.power_sums, strict=True):
      exact = np.sum(rho**power * sigma, axis=1)
      assert np.all((exact <= sums) & (sums <= 1.002 * exact))
    assert split.accept(survey)
    assert not split.accept(survey._replace(largest=0.69))
  bounds = split.eigenvalue_bounds
  assert np.min(bounds) >= 0
  assert np.linalg.eigvalsh(rest - np.diag(bounds))[0] > -1e-13
  if dtype == 'float32':  # The bound is of use, and not far from the truth.
    assert np.min(bounds) > 0.1 * np.linalg.eigvalsh(rest)[0]
  # The same U serves points elsewhere.
  cross = kernels.nngp(kernel, x_train, x_eval)
  outside = cross - features @ split.features(x_eval).T
  assert np.abs(outside).max() < 0.3 * np.abs(cross).max()


def test_series_is_the_kernel_of_the_cosine():
  """sum_j c_j rho^j against the closed form, for one to three layers."""
  rho = np.linspace(-0.7, 0.7, 29)
  for num_layers in (1, 2, 3):
    value = rho
    for _ in range(num_layers):
      value = (np.sqrt(1 - value**2) + (np.pi - np.arccos(value)) * value
               ) / np.pi
    series = np.polynomial.polynomial.polyval(
        rho, remainder.relu_series(num_layers))
    np.testing.assert_allclose(series, value, rtol=0, atol=1e-14)


def test_tiles_in_float16_are_one_operator(monkeypatch):
  """However many are kept: R within half a unit, symmetric, exact diagonal."""
  monkeypatch.setattr(tiles, '_CPU_TILE', 64)
  monkeypatch.setattr(remainder, '_MAX_FULL_PRECISION', 100)
  x_train, _, _ = make_inputs(150, 60, 1)
  split = remainder.Split(RELU, x_train)
  assert (split.dtype, split.kept_dtype) == ('float32', 'float16')
  features = split.features(x_train)
  rest = kernels.nngp(RELU, x_train) - features @ features.T
  operator = tiles.Remainder(split, x_train)
  none_kept, = operator.apply(np.eye(150))
  assert operator.rounds and not operator.kept_mb
  np.testing.assert_array_equal(none_kept, none_kept.T)
  np.testing.assert_allclose(np.diag(none_kept), np.diag(rest), rtol=1e-14)
  error = np.abs(none_kept - rest)
  assert np.all(error <= 2.**-11 * np.abs(rest) + 1e-8)
  assert np.max(error) > 1e-6
  np.testing.assert_allclose(*operator.apply_exactly(np.eye(150)), rest, rtol=0,
                             atol=2e-8)
  tile_mb = 2 * 50**2 / 1e6  # Six tiles of three panels.
  for room, kept in ((2.5, 2), (100., 6), (1., 1)):
    operator.keep(room * tile_mb)
    for _ in range(2):
      np.testing.assert_array_equal(*operator.apply(np.eye(150)), none_kept)
    assert operator.kept_mb == pytest.approx(kept * tile_mb)
  # Many points for few dimensions: their eigenvalues would not stand it.
  x_train, _, _ = make_inputs(150, 12, 1)
  split = remainder.Split(RELU, x_train)
  assert split.kept_dtype == split.dtype


_DEVICES = '''
import sys
import jax
jax.config.update('jax_enable_x64', True)
import numpy as np
from enn_ensembles.nngp import kernels, matrix_free, tiles
tiles._CPU_TILE = 64  # Seven panels: more than devices.
rng = np.random.default_rng(0)
x_train = rng.standard_normal((400, 80))
x_eval = rng.standard_normal((30, 80))
normals = rng.standard_normal(482)
noise = rng.standard_normal(400)
devices = jax.local_devices()
assert len(devices) == 3
for count in (1, 3):
  jax.local_devices = lambda: devices[:count]
  solution = matrix_free.solve(
      kernels.KernelConfig(), x_train, x_eval, [0.1, 1.],
      normals_train=normals, noise=noise)
  assert solution.tile_dtype == 'float32' and solution.eigenvalue_bound > 0
  np.savez(f'{sys.argv[1]}/{count}.npz', weights=solution.weights,
           function=solution.function,
           stds=[m.std for m in solution.moments],
           bound=solution.eigenvalue_bound, passes=solution.num_passes)
'''


def test_tiles_are_spread_over_devices(tmp_path):
  """Three devices find what one does, up to the order of float32 sums."""
  done = subprocess.run(
      [sys.executable, '-c', _DEVICES, str(tmp_path)], check=False,
      capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[1],
      env={**os.environ, 'JAX_PLATFORMS': 'cpu',
           'XLA_FLAGS': os.environ['XLA_FLAGS']
                        + ' --xla_force_host_platform_device_count=3'})
  assert done.returncode == 0, done.stderr
  one, three = (np.load(tmp_path / f'{count}.npz') for count in (1, 3))
  assert one['passes'] == three['passes']
  for name in ('stds', 'function', 'bound'):
    np.testing.assert_allclose(three[name], one[name], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(three['weights'], one['weights'], rtol=0,
                             atol=1e-4 * np.abs(one['weights']).max())
