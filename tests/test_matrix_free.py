"""The matrix-free posterior against dense linear algebra.

Truth is numpy and scipy on the full kernel matrix, at sizes where it fits.
"""

import dataclasses
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import time
import types

import commands
import numpy as np
import pytest
import references
import scipy.linalg

from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free
from enn_ensembles.nngp import matrix_free_solver
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import solver_passes
from enn_ensembles.nngp import tall
from enn_ensembles.nngp import tiles
from enn_ensembles.problems import solvers

solver_errors = commands.load_command('solver_errors')

_RELU = kernels.KernelConfig()
_ERF = kernels.KernelConfig(activation='erf')
_DEEP = kernels.KernelConfig(num_hidden_layers=3, weight_std=1.3,
                             first_bias=0.5)
_NOISE_STDS = (0.01, 0.1, 1.)
_JITTER = 1e-6


def _inputs(num_train, input_dim, num_eval, num_val=None, kernel=_RELU):
  """(x_train, x_eval, and the normals by the names of `solve`)."""
  rng = np.random.default_rng(0)
  x_train = rng.standard_normal((num_train, input_dim))
  x_eval = rng.standard_normal((num_eval, input_dim))
  num = num_train + remainder.num_features(kernel, input_dim)
  normals = dict(normals_train=rng.standard_normal(num),
                 noise=rng.standard_normal(num_train))
  if num_val is not None:
    normals['normals_eval'] = rng.standard_normal(num_val)
  return x_train, x_eval, normals


def _dense_errors(kernel, x_train, x_eval, solution):
  """Largest relative error of the stds, and of the means in stds: [E], [E]."""
  matrix = kernels.nngp(kernel, x_train)
  cross = kernels.nngp(kernel, x_train, x_eval)
  prior = kernels.nngp_diag(kernel, x_eval)
  std_errors, mean_errors = [], []
  for moments, y, variance in zip(solution.moments, solution.targets,
                                  solution.noise_variances, strict=True):
    solved = np.linalg.solve(matrix + variance * np.eye(len(y)), cross)
    std = np.sqrt(prior - np.sum(cross * solved, axis=0) + 1e-6)
    std_errors.append(np.max(np.abs(moments.std / std - 1)))
    mean_errors.append(np.max(np.abs(moments.mean - solved.T @ y) / std))
  return np.array(std_errors), np.array(mean_errors)


@pytest.mark.parametrize('kernel, input_dim, dtype', [
    (_RELU, 100, 'float32'), (_RELU, 4, 'float64'), (_DEEP, 100, 'float32'),
    (_DEEP, 3, 'float64'), (_ERF, 50, 'float64'),
    (dataclasses.replace(_DEEP, activation='erf'), 7, 'float64')])
def test_split_is_the_kernel(kernel, input_dim, dtype, monkeypatch):
  """U U^T + R = K, R >= diag(mu) >= 0; with panels that do not fit evenly."""
  monkeypatch.setattr(tiles, '_CPU_TILE', 64)
  monkeypatch.setattr(tall, 'PANEL', 50)
  x_train, x_eval, _ = _inputs(150, input_dim, 20)
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


@pytest.mark.parametrize('cosine, dtype', [(0.6, 'float32'), (1., 'float64')])
def test_points_that_are_closer_than_was_guessed(cosine, dtype, tmp_path):
  """Two of 2100 points, both not among those that are sampled."""
  x_train, x_eval, normals = _inputs(2100, 150, 20)
  sampled = np.linspace(0, 2099, 1000).astype(int)
  first, second = np.setdiff1d(np.arange(2100), sampled)[[3, 500]]
  assert remainder.Split(_RELU, x_train).largest_cosine < 0.59
  away = x_train[second] - x_train[first] * (
      x_train[second] @ x_train[first] / np.sum(x_train[first]**2))
  away *= np.linalg.norm(x_train[first]) / np.linalg.norm(away)
  x_train[second] = cosine * x_train[first] + np.sqrt(1 - cosine**2) * away
  rho = remainder.Split(_RELU, x_train).points(x_train[[first, second]])[0]
  assert rho[0] @ rho[1] == pytest.approx(cosine, abs=0.01)
  steps = []
  solution = matrix_free.solve(_RELU, x_train, x_eval, (0.1,), **normals,
                               checkpoint_path=tmp_path / 'c',
                               progress=steps.append)
  assert solution.tile_dtype == dtype and solution.converged
  std_errors, mean_errors = _dense_errors(_RELU, x_train, x_eval, solution)
  assert np.all(std_errors <= solution.std_error_bounds)
  assert np.all(mean_errors <= solution.mean_error_bounds)
  # What was found is kept: nothing is done again.
  again = matrix_free.solve(_RELU, x_train, x_eval, (0.1,), **normals,
                            checkpoint_path=tmp_path / 'c')
  np.testing.assert_array_equal(again.moments[0].std, solution.moments[0].std)
  assert again.num_passes == solution.num_passes


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


@pytest.mark.parametrize('kernel, num_train, input_dim, num_eval', [
    (_RELU, 900, 100, 60), (_RELU, 400, 10, 150), (_RELU, 60, 80, 40),
    (_RELU, 5, 3, 4), (_RELU, 1, 1, 1), (_ERF, 400, 30, 50),
    (_DEEP, 300, 60, 30)])
def test_matches_dense(kernel, num_train, input_dim, num_eval):
  """Within the tolerances, and within the bounds that it computes."""
  x_train, x_eval, normals = _inputs(num_train, input_dim, num_eval, 1, kernel)
  solution = matrix_free.solve(kernel, x_train, x_eval, _NOISE_STDS, **normals)
  std_errors, mean_errors = _dense_errors(kernel, x_train, x_eval, solution)
  assert solution.converged
  assert np.all(solution.std_error_bounds <= 1e-4)
  assert np.all(solution.mean_error_bounds <= 1e-3)
  # What numpy rounds itself is no error of ours.
  assert np.all(std_errors <= solution.std_error_bounds + 1e-9)
  assert np.all(mean_errors <= solution.mean_error_bounds + 1e-9)
  np.testing.assert_array_equal(
      solution.targets, solution.function
      + np.array(_NOISE_STDS)[:, None] * normals['noise'])


def test_tiles_in_float16_are_one_operator(monkeypatch):
  """However many are kept: R within half a unit, symmetric, exact diagonal."""
  monkeypatch.setattr(tiles, '_CPU_TILE', 64)
  monkeypatch.setattr(remainder, '_MAX_FULL_PRECISION', 100)
  x_train, _, _ = _inputs(150, 60, 1)
  split = remainder.Split(_RELU, x_train)
  assert (split.dtype, split.kept_dtype) == ('float32', 'float16')
  features = split.features(x_train)
  rest = kernels.nngp(_RELU, x_train) - features @ features.T
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
  x_train, _, _ = _inputs(150, 12, 1)
  split = remainder.Split(_RELU, x_train)
  assert split.kept_dtype == split.dtype


def test_bounds_know_of_tiles_in_float16(monkeypatch):
  """The rounded operator's answers are as exact as their bounds say."""
  monkeypatch.setattr(remainder, '_MAX_FULL_PRECISION', 100)
  x_train, x_eval, normals = _inputs(900, 100, 60, 1)
  solution = matrix_free.solve(_RELU, x_train, x_eval, _NOISE_STDS, **normals,
                               strict=False, std_tolerance=1e-9)
  assert not solution.converged  # Rounding is in the way.
  assert solution.tile_error > 1e-7
  std_errors, mean_errors = _dense_errors(_RELU, x_train, x_eval, solution)
  assert np.all(std_errors <= solution.std_error_bounds)
  assert np.all(mean_errors <= solution.mean_error_bounds)
  assert np.all(solution.mean_error_bounds <= 1e-3)
  assert np.max(solution.std_error_bounds) < 1e-4
  error = solution.function - _true_function(x_train, normals)
  rms = np.sqrt(np.mean(error**2))
  assert 1e-8 < rms <= solution.function_error <= 1e-4
  # The posterior is that of the function that was drawn, not of another.
  lengths = np.linalg.norm(solution.targets, axis=1)
  assert np.max(solution.residual_norms / lengths) < 5e-3


def test_means_have_room_for_what_tiles_round(monkeypatch):
  """Residuals just as short as is allowed, and rounding, were too much."""
  monkeypatch.setattr(remainder, '_MAX_FULL_PRECISION', 100)
  x_train, x_eval, normals = _inputs(300, 70, 30)
  steps = []
  matrix_free.solve(_RELU, x_train, x_eval, (0.01,), **normals,
                    progress=steps.append)
  # What the last step would just have been allowed.
  last = [step.error for step in steps if step.phase == 'means'][-1]
  tolerance = 1.0001 * last * matrix_free.MEAN_TOLERANCE
  solution = matrix_free.solve(_RELU, x_train, x_eval, (0.01,), **normals,
                               strict=False, mean_tolerance=tolerance)
  assert np.all(solution.mean_error_bounds <= tolerance)


def test_calibration_finds_what_variances_lack(monkeypatch):
  """Of a sample for all points: ten times narrower, and still right."""
  monkeypatch.setattr(remainder, '_MAX_FULL_PRECISION', 100)
  x_train, x_eval, normals = _inputs(1000, 110, 300, 20)
  matrix = kernels.nngp(_RELU, x_train) + 1e-4 * np.eye(1000)
  cross = kernels.nngp(_RELU, x_train, x_eval[:20])
  priors = np.stack([kernels.nngp(_RELU, x_eval[:10]),
                     kernels.nngp(_RELU, x_eval[10:20])])
  truth = kernels.nngp(_RELU, x_eval[:20]) - cross.T @ np.linalg.solve(
      matrix, cross)
  found, off = [], []
  for most in (0., 1e9):
    monkeypatch.setattr(matrix_free_solver, '_MAX_CALIBRATED', most)
    solution = matrix_free.solve(
        _RELU, x_train, x_eval, (0.01, 0.1), **normals, max_block_steps=2,
        strict=False, block_priors=priors)
    std_errors, _ = _dense_errors(_RELU, x_train, x_eval, solution)
    assert np.all(std_errors <= solution.std_error_bounds)
    assert np.all(std_errors > 1e-7)  # There is something to be bounded.
    found.append(solution)
    rows, columns = np.triu_indices(10, 1)
    off.append(max(np.max(np.abs(
        solution.moments[0].covariances[i] - truth[own, own])[rows, columns])
                   for i, own in enumerate((slice(0, 10), slice(10, 20)))))
  strict, calibrated = found
  assert np.all(calibrated.std_error_bounds < 0.1 * strict.std_error_bounds)
  assert off[1] < 0.5 * off[0]


def test_bounds_hold_at_every_step():
  """Also where the answer is still poor; steps make it better."""
  x_train, x_eval, normals = _inputs(900, 100, 40)
  largest = []
  for num_steps in (1, 2, 3, 4):
    solution = matrix_free.solve(_RELU, x_train, x_eval, _NOISE_STDS, **normals,
                                 max_block_steps=num_steps, strict=False,
                                 std_tolerance=1e-9)
    assert solution.num_block_steps == num_steps and not solution.converged
    std_errors, mean_errors = _dense_errors(_RELU, x_train, x_eval, solution)
    assert np.all(std_errors <= solution.std_error_bounds)
    assert np.all(mean_errors <= solution.mean_error_bounds)
    largest.append(std_errors.max())
  assert np.all(np.diff(np.log(largest)) < -1)
  # Nor are the bounds far from the truth.
  assert solution.std_error_bounds.max() < 30 * largest[-1]


def test_tolerance_is_not_exceeded_silently():
  x_train, x_eval, normals = _inputs(300, 60, 20)
  with pytest.raises(ValueError, match=r'not exact enough after 1 block steps'):
    matrix_free.solve(_RELU, x_train, x_eval, [0.01], **normals,
                      max_block_steps=1)


@pytest.mark.parametrize('reference', ['bayes', 'enn2021'])
def test_given_targets(reference):
  x_train, x_eval, _ = _inputs(300, 60, 20)
  y = 3. + x_train[:, 0] + np.sin(x_train[:, 1])
  solution = matrix_free.solve(_RELU, x_train, x_eval, [0.1, 1.],
                               targets=[y, 2 * y], reference=reference)
  scale = 1. if reference == 'bayes' else np.mean(
      kernels.nngp_diag(_RELU, x_train))
  np.testing.assert_allclose(solution.noise_variances, [0.01 * scale, scale],
                             rtol=1e-14)
  assert solution.function is None
  std_errors, mean_errors = _dense_errors(_RELU, x_train, x_eval, solution)
  assert np.all(std_errors <= solution.std_error_bounds)
  assert np.all(mean_errors <= solution.mean_error_bounds)


def _true_function(x_train, normals):
  """U a + (R + jitter I)^1/2 z by scipy."""
  num_train = len(x_train)
  features = remainder.Split(_RELU, x_train).features(x_train)
  rest = kernels.nngp(_RELU, x_train) - features @ features.T
  root = scipy.linalg.sqrtm(rest + _JITTER * np.eye(num_train)).real
  return (features @ normals['normals_train'][num_train:]
          + root @ normals['normals_train'][:num_train])


@pytest.mark.parametrize('tolerance', [1e-2, 1e-4, 1e-7])
def test_function_is_the_draw(tolerance):
  """Of covariance U U^T + R + jitter I = K + jitter I; its error is bounded."""
  x_train, x_eval, normals = _inputs(300, 60, 20)
  solution = matrix_free.solve(_RELU, x_train, x_eval, [1.], **normals,
                               function_tolerance=tolerance)
  error = solution.function - _true_function(x_train, normals)
  # Float32 tiles move it by 1e-8.
  assert np.sqrt(np.mean(error**2)) <= solution.function_error + 1e-8
  assert solution.function_error <= tolerance


def test_function_elsewhere_given_the_function():
  """Mean and covariance given f at x_train, the last points of x_eval only."""
  x_train, x_eval, normals = _inputs(200, 60, 30, num_val=12)
  solution = matrix_free.solve(_RELU, x_train, x_eval, [0.1], **normals)
  x_val = x_eval[-12:]
  matrix = kernels.nngp(_RELU, x_train) + _JITTER * np.eye(200)
  cross = kernels.nngp(_RELU, x_train, x_val)
  mean = cross.T @ np.linalg.solve(matrix, solution.function)
  covariance = (kernels.nngp(_RELU, x_val) + _JITTER * np.eye(12)
                - cross.T @ np.linalg.solve(matrix, cross))
  truth = mean + np.linalg.cholesky(covariance) @ normals['normals_eval']
  np.testing.assert_allclose(solution.eval_function, truth, rtol=0, atol=2e-4)
  # And at the other points given all these; not a bit of them changes.
  assert solution.rest_function is None
  rest = np.random.default_rng(1).standard_normal(len(x_eval) - 12)
  both = matrix_free.solve(_RELU, x_train, x_eval, [0.1], **normals,
                           normals_rest=rest)
  np.testing.assert_array_equal(both.eval_function, solution.eval_function)
  np.testing.assert_array_equal(both.function, solution.function)
  points = np.concatenate([x_eval[-12:], x_eval[:-12]])
  mean, covariance = references.gp_posterior(
      kernels.nngp(_RELU, x_train), kernels.nngp(_RELU, points, x_train),
      kernels.nngp(_RELU, points), solution.function, 1e-6)
  truth = mean + np.linalg.cholesky(
      covariance + 1e-6 * np.eye(len(points))) @ (
          np.concatenate([normals['normals_eval'], rest]))
  np.testing.assert_allclose(both.rest_function, truth[12:], rtol=0, atol=5e-4)
  assert np.std(truth - mean) > 0.05


def test_check_rows_recomputes_the_residual():
  x_train, x_eval, normals = _inputs(300, 60, 20)
  solution = matrix_free.solve(_RELU, x_train, x_eval, _NOISE_STDS, **normals)
  matrix = kernels.nngp(_RELU, x_train)
  rows = np.array([299, 0, 7, 7])
  for level, noise_std in enumerate(_NOISE_STDS):
    truth = (solution.targets[level] - matrix @ solution.weights[level]
             - noise_std**2 * solution.weights[level])
    got = matrix_free.check_rows(_RELU, x_train, solution, noise_std, rows)
    np.testing.assert_allclose(got, truth[rows], rtol=0, atol=1e-10)
    # Estimated at 256 of the 300 rows.
    assert np.linalg.norm(truth) <= 1.1 * solution.residual_norms[level]
  damaged = dataclasses.replace(solution, weights=1.01 * solution.weights)
  residuals = matrix_free.check_rows(_RELU, x_train, damaged, 0.1, range(300))
  assert np.linalg.norm(residuals) > 10 * solution.residual_norms[1]
  with pytest.raises(ValueError, match='noise_std must be one of'):
    matrix_free.check_rows(_RELU, x_train, solution, 0.2, rows)
  with pytest.raises(ValueError, match=r'rows must be indices in \[0, 300\)'):
    matrix_free.check_rows(_RELU, x_train, solution, 0.1, [300])


def test_points_that_repeat():
  """Cosine 1 off the diagonal: the polynomial would be wrong there."""
  x_train, x_eval, normals = _inputs(120, 60, 20)
  x_train[60:] = x_train[:60]
  solution = matrix_free.solve(_RELU, x_train, x_eval, _NOISE_STDS, **normals)
  assert solution.tile_dtype == 'float64' and solution.eigenvalue_bound == 0
  std_errors, mean_errors = _dense_errors(_RELU, x_train, x_eval, solution)
  assert np.all(std_errors <= solution.std_error_bounds + 1e-9)
  assert np.all(mean_errors <= solution.mean_error_bounds + 1e-9)


class _Killed(Exception):
  pass


@pytest.mark.parametrize('max_full_precision', [1000, 10])
def test_killed_computation_goes_on(tmp_path, monkeypatch, max_full_precision):
  """Killed after every step: no pass is repeated, and the end is the same."""
  monkeypatch.setattr(remainder, '_MAX_FULL_PRECISION', max_full_precision)
  x_train, x_eval, normals = _inputs(300, 70, 30, num_val=5)
  steps = []
  whole = matrix_free.solve(_RELU, x_train, x_eval, _NOISE_STDS, **normals,
                            progress=steps.append)
  # With calibration, f is drawn within the passes of the variances.
  assert {step.phase for step in steps} - {'function'} == {'variances', 'means'}
  assert ('function' in {step.phase for step in steps}) == (
      max_full_precision > 300)

  def kill(progress):
    killed.append(progress)
    raise _Killed

  killed = []
  # Every look at the clock takes a second, and nothing else does.
  monkeypatch.setattr(solver_passes, 'time', types.SimpleNamespace(
      monotonic=itertools.count().__next__))
  for _ in steps:
    with pytest.raises(_Killed):
      matrix_free.solve(_RELU, x_train, x_eval, _NOISE_STDS, **normals,
                        checkpoint_path=tmp_path / 'new', progress=kill)
  assert [(step.phase, step.step) for step in killed] == [
      (step.phase, step.step) for step in steps]
  assert np.all(np.diff([step.seconds for step in killed]) > 0)
  resumed = matrix_free.solve(_RELU, x_train, x_eval, _NOISE_STDS, **normals,
                              checkpoint_path=tmp_path / 'new', progress=kill)
  for field in dataclasses.fields(matrix_free.Solution):
    if field.name not in ('seconds', 'moments', 'memory_mb'):
      np.testing.assert_array_equal(getattr(resumed, field.name),
                                    getattr(whole, field.name), field.name)
  for got, expected in zip(resumed.moments, whole.moments, strict=True):
    np.testing.assert_array_equal(got.mean, expected.mean)
    np.testing.assert_array_equal(got.std, expected.std)
  assert not list((tmp_path / 'new').glob('.*'))


def test_checkpoint_of_something_else_is_refused(tmp_path):
  x_train, x_eval, normals = _inputs(60, 40, 5)
  solve = lambda **changes: matrix_free.solve(
      _RELU, x_train, x_eval, [0.1],
      **{**normals, **changes, 'checkpoint_path': tmp_path})
  solve()
  with pytest.raises(ValueError, match='of another computation'):
    solve(noise=2 * normals['noise'])


@pytest.mark.parametrize('name, damage', [
    ('step_0', lambda path: path.unlink()),
    ('step_1', lambda path: path.write_bytes(path.read_bytes()[:-1])),
    ('means', lambda path: path.write_bytes(b'')),
    ('step_1', lambda path: (path.unlink(), path.mkdir()))])
def test_a_lost_or_damaged_step_is_computed_again(tmp_path, caplog, name,
                                                  damage):
  x_train, x_eval, normals = _inputs(60, 40, 5)
  solve = lambda: matrix_free.solve(_RELU, x_train, x_eval, [0.1], **normals,
                                    checkpoint_path=tmp_path)
  whole = solve()
  damage(tmp_path / f'{name}.arrays')
  again = solve()
  np.testing.assert_array_equal(again.weights, whole.weights)
  np.testing.assert_array_equal(again.moments[0].std, whole.moments[0].std)
  if name != 'step_0':
    assert f'{name}.arrays' in caplog.text


def test_a_checkpoint_that_another_process_removes_is_a_warning(tmp_path,
                                                                caplog):
  x_train, x_eval, normals = _inputs(60, 40, 5)
  folder = tmp_path / 'steps'

  def remove(_):
    shutil.rmtree(folder)
    folder.write_text('and nobody makes it again')
    told.append(1)

  told = []
  solution = matrix_free.solve(
      _RELU, x_train, x_eval, [0.1], **normals, checkpoint_path=folder,
      progress=lambda step: told or remove(step))
  assert solution.converged and told
  assert 'goes on without' in caplog.text


def test_only_who_is_alone_removes_young_steps_of_others(tmp_path):
  points = solvers.Points(_RELU, *(np.zeros((2, 2)) for _ in range(3)))
  solver = solvers.MatrixFreeSolver(points, 1000., tmp_path / 'D2')
  def make(name, days):
    folder = tmp_path / f'D2.{name}.steps'
    folder.mkdir(exist_ok=True)
    (folder / 'step_0.arrays').touch()
    for path in (folder / 'step_0.arrays', folder):
      os.utime(path, (time.time() - 86_400 * days,) * 2)
    return folder

  young, old = make('young', 0.9), make('old', 1.1)
  solver.clear(claimed=False)
  assert young.exists() and not old.exists()
  solver.clear(claimed=True)
  assert not young.exists()


def test_checkpoint_folder_that_cannot_be(tmp_path):
  x_train, x_eval, normals = _inputs(20, 10, 5)
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='checkpoint_path cannot be used'):
    matrix_free.solve(_RELU, x_train, x_eval, [0.1], **normals,
                      checkpoint_path=tmp_path / 'file')


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


def test_memory():
  """The paper's largest cell fits into 5 GB; too little is said at once."""
  assert 4_000 < matrix_free.estimate_memory_mb(100_000, 1000, 2300, 2) < 5_000
  x_train, x_eval, normals = _inputs(300, 60, 20)
  with pytest.raises(ValueError, match='memory_budget_mb must be at least'):
    matrix_free.solve(_RELU, x_train, x_eval, [0.1], **normals,
                      memory_budget_mb=1.)
  # Room for one block step, but not for the accuracy that is asked for.
  budget = matrix_free.estimate_memory_mb(300, 60, 20, num_block_steps=1)
  with pytest.raises(ValueError, match='after 1 block steps'):
    matrix_free.solve(_RELU, x_train, x_eval, [0.01], **normals,
                      memory_budget_mb=budget)


@pytest.mark.parametrize('changes, message', [
    (dict(noise_stds=[]), 'at least one noise level'),
    (dict(noise_stds=[-1.]), 'noise_stds must be a finite number > 0'),
    (dict(x_eval=np.zeros((3, 2))), r'got \[20, 10\] and \[3, 2\]'),
    (dict(noise=np.zeros(3)), r'noise must have shape \[20\]'),
    (dict(normals_train=np.zeros(20)), r'must have shape \[32\]'),
    (dict(normals_eval=np.zeros(6)), r'must have shape \[1..5\]'),
    (dict(normals_rest=np.zeros(3)), 'must come with normals_eval'),
    (dict(normals_eval=np.zeros(2), normals_rest=np.zeros(4)),
     r'normals_rest must have shape \[1..3\]'),
    (dict(noise=np.full(20, np.nan)), 'noise must be finite'),
    (dict(noise=None), 'give either targets'),
    (dict(targets=[np.zeros(20)]), 'no normals'),
    (dict(targets=[], noise=None, normals_train=None), 'must hold 1 arrays'),
    (dict(reference='exact'), 'reference must be'),
    (dict(max_block_steps=0), 'max_block_steps must be'),
    (dict(std_tolerance=0.), 'std_tolerance must be')])
def test_refuses_bad_input(changes, message):
  x_train, x_eval, normals = _inputs(20, 10, 5)
  arguments = {**dict(kernel=_RELU, x_train=x_train, x_eval=x_eval,
                      noise_stds=[0.1]), **normals, **changes}
  with pytest.raises(ValueError, match=message):
    matrix_free.solve(**arguments)


def test_moments_are_those_of_the_dense_solver():
  """The two solvers of this room, with each other."""
  x_train, x_eval, normals = _inputs(400, 100, 30)
  solution = matrix_free.solve(_RELU, x_train, x_eval, [0.1], **normals)
  moments = posterior.posterior_moments(
      kernels.nngp(_RELU, x_train), kernels.nngp(_RELU, x_eval, x_train),
      kernels.nngp_diag(_RELU, x_eval), solution.targets, [0.01])[0]
  np.testing.assert_allclose(solution.moments[0].std, moments.std, rtol=1e-4)
  np.testing.assert_allclose(solution.moments[0].mean, moments.mean, rtol=0,
                             atol=1e-3 * moments.std.min())


def test_solver_errors_command():
  """Rows for every number of block steps, dense or not, and their plot."""
  rows = []
  for dense in (True, False):
    rows = solver_errors.measure(60, 5., 0, [0.01, 1.], 20, dense, 1000., None,
                                 num_rows=10)
    last = max(row['num_block_steps'] for row in rows)
    assert last >= 3
    assert sorted((row['num_block_steps'], row['noise_std']) for row in rows
                  ) == [(step, noise_std) for step in range(1, last + 1)
                        for noise_std in (0.01, 1.)]
    for row in rows:
      assert ('std_error' in row) == dense
      if dense:
        assert row['std_error'] <= row['std_error_bound']
      assert ('mean_error_bound' in row) == (row['num_block_steps'] == last)
      if 'mean_error' in row:
        assert row['mean_error'] <= row['mean_error_bound']
    assert sum('mean_error' in row for row in rows) == (2 if dense else 0)
    assert solver_errors.plot(rows).startswith(b'\x89PNG')
