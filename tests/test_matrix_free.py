"""The matrix-free posterior against dense linear algebra.

Truth is numpy and scipy on the full kernel matrix, at sizes where it fits.
"""

import dataclasses

from matrix_free_cases import DEEP
from matrix_free_cases import dense_errors
from matrix_free_cases import ERF
from matrix_free_cases import make_inputs
from matrix_free_cases import NOISE_STDS
from matrix_free_cases import RELU
import numpy as np
import pytest
import references
import scipy.linalg

from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free
from enn_ensembles.nngp import matrix_free_solver
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder

_JITTER = 1e-6


@pytest.mark.parametrize('cosine, dtype', [(0.6, 'float32'), (1., 'float64')])
def test_points_that_are_closer_than_was_guessed(cosine, dtype, tmp_path):
  """Two of 2100 points, both not among those that are sampled."""
  x_train, x_eval, normals = make_inputs(2100, 150, 20)
  sampled = np.linspace(0, 2099, 1000).astype(int)
  first, second = np.setdiff1d(np.arange(2100), sampled)[[3, 500]]
  assert remainder.Split(RELU, x_train).largest_cosine < 0.59
  away = x_train[second] - x_train[first] * (
      x_train[second] @ x_train[first] / np.sum(x_train[first]**2))
  away *= np.linalg.norm(x_train[first]) / np.linalg.norm(away)
  x_train[second] = cosine * x_train[first] + np.sqrt(1 - cosine**2) * away
  rho = remainder.Split(RELU, x_train).points(x_train[[first, second]])[0]
  assert rho[0] @ rho[1] == pytest.approx(cosine, abs=0.01)
  steps = []
  solution = matrix_free.solve(RELU, x_train, x_eval, (0.1,), **normals,
                               checkpoint_path=tmp_path / 'c',
                               progress=steps.append)
  assert solution.tile_dtype == dtype and solution.converged
  std_errors, mean_errors = dense_errors(RELU, x_train, x_eval, solution)
  assert np.all(std_errors <= solution.std_error_bounds)
  assert np.all(mean_errors <= solution.mean_error_bounds)
  # What was found is kept: nothing is done again.
  again = matrix_free.solve(RELU, x_train, x_eval, (0.1,), **normals,
                            checkpoint_path=tmp_path / 'c')
  np.testing.assert_array_equal(again.moments[0].std, solution.moments[0].std)
  assert again.num_passes == solution.num_passes


@pytest.mark.parametrize('kernel, num_train, input_dim, num_eval', [
    (RELU, 900, 100, 60), (RELU, 400, 10, 150), (RELU, 60, 80, 40),
    (RELU, 5, 3, 4), (RELU, 1, 1, 1), (ERF, 400, 30, 50),
    (DEEP, 300, 60, 30)])
def test_matches_dense(kernel, num_train, input_dim, num_eval):
  """Within the tolerances, and within the bounds that it computes."""
  x_train, x_eval, normals = make_inputs(num_train, input_dim, num_eval, 1,
                                         kernel)
  solution = matrix_free.solve(kernel, x_train, x_eval, NOISE_STDS, **normals)
  std_errors, mean_errors = dense_errors(kernel, x_train, x_eval, solution)
  assert solution.converged
  assert np.all(solution.std_error_bounds <= 1e-4)
  assert np.all(solution.mean_error_bounds <= 1e-3)
  # What numpy rounds itself is no error of ours.
  assert np.all(std_errors <= solution.std_error_bounds + 1e-9)
  assert np.all(mean_errors <= solution.mean_error_bounds + 1e-9)
  np.testing.assert_array_equal(
      solution.targets, solution.function
      + np.array(NOISE_STDS)[:, None] * normals['noise'])


def test_bounds_know_of_tiles_in_float16(monkeypatch):
  """The rounded operator's answers are as exact as their bounds say."""
  monkeypatch.setattr(remainder, '_MAX_FULL_PRECISION', 100)
  x_train, x_eval, normals = make_inputs(900, 100, 60, 1)
  solution = matrix_free.solve(RELU, x_train, x_eval, NOISE_STDS, **normals,
                               strict=False, std_tolerance=1e-9)
  assert not solution.converged  # Rounding is in the way.
  assert solution.tile_error > 1e-7
  std_errors, mean_errors = dense_errors(RELU, x_train, x_eval, solution)
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
  x_train, x_eval, normals = make_inputs(300, 70, 30)
  steps = []
  matrix_free.solve(RELU, x_train, x_eval, (0.01,), **normals,
                    progress=steps.append)
  # What the last step would just have been allowed.
  last = [step.error for step in steps if step.phase == 'means'][-1]
  tolerance = 1.0001 * last * matrix_free.MEAN_TOLERANCE
  solution = matrix_free.solve(RELU, x_train, x_eval, (0.01,), **normals,
                               strict=False, mean_tolerance=tolerance)
  assert np.all(solution.mean_error_bounds <= tolerance)


def test_calibration_finds_what_variances_lack(monkeypatch):
  """Of a sample for all points: ten times narrower, and still right."""
  monkeypatch.setattr(remainder, '_MAX_FULL_PRECISION', 100)
  x_train, x_eval, normals = make_inputs(1000, 110, 300, 20)
  matrix = kernels.nngp(RELU, x_train) + 1e-4 * np.eye(1000)
  cross = kernels.nngp(RELU, x_train, x_eval[:20])
  priors = np.stack([kernels.nngp(RELU, x_eval[:10]),
                     kernels.nngp(RELU, x_eval[10:20])])
  truth = kernels.nngp(RELU, x_eval[:20]) - cross.T @ np.linalg.solve(
      matrix, cross)
  found, off = [], []
  for most in (0., 1e9):
    monkeypatch.setattr(matrix_free_solver, '_MAX_CALIBRATED', most)
    solution = matrix_free.solve(
        RELU, x_train, x_eval, (0.01, 0.1), **normals, max_block_steps=2,
        strict=False, block_priors=priors)
    std_errors, _ = dense_errors(RELU, x_train, x_eval, solution)
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
  x_train, x_eval, normals = make_inputs(900, 100, 40)
  largest = []
  for num_steps in (1, 2, 3, 4):
    solution = matrix_free.solve(RELU, x_train, x_eval, NOISE_STDS, **normals,
                                 max_block_steps=num_steps, strict=False,
                                 std_tolerance=1e-9)
    assert solution.num_block_steps == num_steps and not solution.converged
    std_errors, mean_errors = dense_errors(RELU, x_train, x_eval, solution)
    assert np.all(std_errors <= solution.std_error_bounds)
    assert np.all(mean_errors <= solution.mean_error_bounds)
    largest.append(std_errors.max())
  assert np.all(np.diff(np.log(largest)) < -1)
  # Nor are the bounds far from the truth.
  assert solution.std_error_bounds.max() < 30 * largest[-1]


def test_tolerance_is_not_exceeded_silently():
  x_train, x_eval, normals = make_inputs(300, 60, 20)
  with pytest.raises(ValueError, match=r'not exact enough after 1 block steps'):
    matrix_free.solve(RELU, x_train, x_eval, [0.01], **normals,
                      max_block_steps=1)


@pytest.mark.parametrize('reference', ['bayes', 'enn2021'])
def test_given_targets(reference):
  x_train, x_eval, _ = make_inputs(300, 60, 20)
  y = 3. + x_train[:, 0] + np.sin(x_train[:, 1])
  solution = matrix_free.solve(RELU, x_train, x_eval, [0.1, 1.],
                               targets=[y, 2 * y], reference=reference)
  scale = 1. if reference == 'bayes' else np.mean(
      kernels.nngp_diag(RELU, x_train))
  np.testing.assert_allclose(solution.noise_variances, [0.01 * scale, scale],
                             rtol=1e-14)
  assert solution.function is None
  std_errors, mean_errors = dense_errors(RELU, x_train, x_eval, solution)
  assert np.all(std_errors <= solution.std_error_bounds)
  assert np.all(mean_errors <= solution.mean_error_bounds)


def _true_function(x_train, normals):
  """U a + (R + jitter I)^1/2 z by scipy."""
  num_train = len(x_train)
  features = remainder.Split(RELU, x_train).features(x_train)
  rest = kernels.nngp(RELU, x_train) - features @ features.T
  root = scipy.linalg.sqrtm(rest + _JITTER * np.eye(num_train)).real
  return (features @ normals['normals_train'][num_train:]
          + root @ normals['normals_train'][:num_train])


@pytest.mark.parametrize('tolerance', [1e-2, 1e-4, 1e-7])
def test_function_is_the_draw(tolerance):
  """Of covariance U U^T + R + jitter I = K + jitter I; its error is bounded."""
  x_train, x_eval, normals = make_inputs(300, 60, 20)
  solution = matrix_free.solve(RELU, x_train, x_eval, [1.], **normals,
                               function_tolerance=tolerance)
  error = solution.function - _true_function(x_train, normals)
  # Float32 tiles move it by 1e-8.
  assert np.sqrt(np.mean(error**2)) <= solution.function_error + 1e-8
  assert solution.function_error <= tolerance


def test_function_elsewhere_given_the_function():
  """Mean and covariance given f at x_train, the last points of x_eval only."""
  x_train, x_eval, normals = make_inputs(200, 60, 30, num_val=12)
  solution = matrix_free.solve(RELU, x_train, x_eval, [0.1], **normals)
  x_val = x_eval[-12:]
  matrix = kernels.nngp(RELU, x_train) + _JITTER * np.eye(200)
  cross = kernels.nngp(RELU, x_train, x_val)
  mean = cross.T @ np.linalg.solve(matrix, solution.function)
  covariance = (kernels.nngp(RELU, x_val) + _JITTER * np.eye(12)
                - cross.T @ np.linalg.solve(matrix, cross))
  truth = mean + np.linalg.cholesky(covariance) @ normals['normals_eval']
  np.testing.assert_allclose(solution.eval_function, truth, rtol=0, atol=2e-4)
  # And at the other points given all these; not a bit of them changes.
  assert solution.rest_function is None
  rest = np.random.default_rng(1).standard_normal(len(x_eval) - 12)
  both = matrix_free.solve(RELU, x_train, x_eval, [0.1], **normals,
                           normals_rest=rest)
  np.testing.assert_array_equal(both.eval_function, solution.eval_function)
  np.testing.assert_array_equal(both.function, solution.function)
  points = np.concatenate([x_eval[-12:], x_eval[:-12]])
  mean, covariance = references.gp_posterior(
      kernels.nngp(RELU, x_train), kernels.nngp(RELU, points, x_train),
      kernels.nngp(RELU, points), solution.function, 1e-6)
  truth = mean + np.linalg.cholesky(
      covariance + 1e-6 * np.eye(len(points))) @ (
          np.concatenate([normals['normals_eval'], rest]))
  np.testing.assert_allclose(both.rest_function, truth[12:], rtol=0, atol=5e-4)
  assert np.std(truth - mean) > 0.05


def test_check_rows_recomputes_the_residual():
  x_train, x_eval, normals = make_inputs(300, 60, 20)
  solution = matrix_free.solve(RELU, x_train, x_eval, NOISE_STDS, **normals)
  matrix = kernels.nngp(RELU, x_train)
  rows = np.array([299, 0, 7, 7])
  for level, noise_std in enumerate(NOISE_STDS):
    truth = (solution.targets[level] - matrix @ solution.weights[level]
             - noise_std**2 * solution.weights[level])
    got = matrix_free.check_rows(RELU, x_train, solution, noise_std, rows)
    np.testing.assert_allclose(got, truth[rows], rtol=0, atol=1e-10)
    # Estimated at 256 of the 300 rows.
    assert np.linalg.norm(truth) <= 1.1 * solution.residual_norms[level]
  damaged = dataclasses.replace(solution, weights=1.01 * solution.weights)
  residuals = matrix_free.check_rows(RELU, x_train, damaged, 0.1, range(300))
  assert np.linalg.norm(residuals) > 10 * solution.residual_norms[1]
  with pytest.raises(ValueError, match='noise_std must be one of'):
    matrix_free.check_rows(RELU, x_train, solution, 0.2, rows)
  with pytest.raises(ValueError, match=r'rows must be indices in \[0, 300\)'):
    matrix_free.check_rows(RELU, x_train, solution, 0.1, [300])


def test_points_that_repeat():
  """Cosine 1 off the diagonal: the polynomial would be wrong there."""
  x_train, x_eval, normals = make_inputs(120, 60, 20)
  x_train[60:] = x_train[:60]
  solution = matrix_free.solve(RELU, x_train, x_eval, NOISE_STDS, **normals)
  assert solution.tile_dtype == 'float64' and solution.eigenvalue_bound == 0
  std_errors, mean_errors = dense_errors(RELU, x_train, x_eval, solution)
  assert np.all(std_errors <= solution.std_error_bounds + 1e-9)
  assert np.all(mean_errors <= solution.mean_error_bounds + 1e-9)


def test_memory():
  """The paper's largest cell fits into 5 GB; too little is said at once."""
  assert 4_000 < matrix_free.estimate_memory_mb(100_000, 1000, 2300, 2) < 5_000
  x_train, x_eval, normals = make_inputs(300, 60, 20)
  with pytest.raises(ValueError, match='memory_budget_mb must be at least'):
    matrix_free.solve(RELU, x_train, x_eval, [0.1], **normals,
                      memory_budget_mb=1.)
  # Room for one block step, but not for the accuracy that is asked for.
  budget = matrix_free.estimate_memory_mb(300, 60, 20, num_block_steps=1)
  with pytest.raises(ValueError, match='after 1 block steps'):
    matrix_free.solve(RELU, x_train, x_eval, [0.01], **normals,
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
  x_train, x_eval, normals = make_inputs(20, 10, 5)
  arguments = {**dict(kernel=RELU, x_train=x_train, x_eval=x_eval,
                      noise_stds=[0.1]), **normals, **changes}
  with pytest.raises(ValueError, match=message):
    matrix_free.solve(**arguments)


def test_moments_are_those_of_the_dense_solver():
  """The two solvers of this room, with each other."""
  x_train, x_eval, normals = make_inputs(400, 100, 30)
  solution = matrix_free.solve(RELU, x_train, x_eval, [0.1], **normals)
  moments = posterior.posterior_moments(
      kernels.nngp(RELU, x_train), kernels.nngp(RELU, x_eval, x_train),
      kernels.nngp_diag(RELU, x_eval), solution.targets, [0.01])[0]
  np.testing.assert_allclose(solution.moments[0].std, moments.std, rtol=1e-4)
  np.testing.assert_allclose(solution.moments[0].mean, moments.mean, rtol=0,
                             atol=1e-3 * moments.std.min())
