"""Steps of the matrix-free solver on the disk, from which it goes on."""

import dataclasses
import itertools
import os
import shutil
import time
import types

from matrix_free_cases import make_inputs
from matrix_free_cases import NOISE_STDS
from matrix_free_cases import RELU
import numpy as np
import pytest

from enn_ensembles.nngp import matrix_free
from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import solver_passes
from enn_ensembles.problems import solvers


class _Killed(Exception):
  pass


@pytest.mark.parametrize('max_full_precision', [1000, 10])
def test_killed_computation_goes_on(tmp_path, monkeypatch, max_full_precision):
  """Killed after every step: no pass is repeated, and the end is the same."""
  monkeypatch.setattr(remainder, '_MAX_FULL_PRECISION', max_full_precision)
  x_train, x_eval, normals = make_inputs(300, 70, 30, num_val=5)
  steps = []
  whole = matrix_free.solve(RELU, x_train, x_eval, NOISE_STDS, **normals,
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
      matrix_free.solve(RELU, x_train, x_eval, NOISE_STDS, **normals,
                        checkpoint_path=tmp_path / 'new', progress=kill)
  assert [(step.phase, step.step) for step in killed] == [
      (step.phase, step.step) for step in steps]
  assert np.all(np.diff([step.seconds for step in killed]) > 0)
  resumed = matrix_free.solve(RELU, x_train, x_eval, NOISE_STDS, **normals,
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
  x_train, x_eval, normals = make_inputs(60, 40, 5)
  solve = lambda **changes: matrix_free.solve(
      RELU, x_train, x_eval, [0.1],
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
  x_train, x_eval, normals = make_inputs(60, 40, 5)
  solve = lambda: matrix_free.solve(RELU, x_train, x_eval, [0.1], **normals,
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
  x_train, x_eval, normals = make_inputs(60, 40, 5)
  folder = tmp_path / 'steps'

  def remove(_):
    shutil.rmtree(folder)
    folder.write_text('and nobody makes it again')
    told.append(1)

  told = []
  solution = matrix_free.solve(
      RELU, x_train, x_eval, [0.1], **normals, checkpoint_path=folder,
      progress=lambda step: told or remove(step))
  assert solution.converged and told
  assert 'goes on without' in caplog.text


def test_only_who_is_alone_removes_young_steps_of_others(tmp_path):
  points = solvers.Points(RELU, *(np.zeros((2, 2)) for _ in range(3)))
  solver = solvers.MatrixFreeSolver(points, 1000., tmp_path / 'D2')
  def make(digest, days):
    folder = tmp_path / f'D2.{digest}.steps'
    folder.mkdir(exist_ok=True)
    (folder / 'step_0.arrays').touch()
    for path in (folder / 'step_0.arrays', folder):
      os.utime(path, (time.time() - 86_400 * days,) * 2)
    return folder

  young, old = make('0123456789', 0.9), make('abcdef0123', 1.1)
  solver.clear(claimed=False)
  assert young.exists() and not old.exists()
  (young / 'notes.txt').touch()
  theirs = make('mine', 99.)
  solver.clear(claimed=True)
  assert theirs.exists()
  assert [path.name for path in young.iterdir()] == ['notes.txt']


def test_checkpoint_folder_that_cannot_be(tmp_path):
  x_train, x_eval, normals = make_inputs(20, 10, 5)
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='checkpoint_path cannot be used'):
    matrix_free.solve(RELU, x_train, x_eval, [0.1], **normals,
                      checkpoint_path=tmp_path / 'file')
