"""The command make_problems, exported problems, and the audit of the cache."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import time

import commands
import numpy as np
import pytest

from enn_ensembles import problems
from enn_ensembles.problems import audit
from enn_ensembles.problems import problem_export
from enn_ensembles.problems import solvers
from enn_ensembles.scoring import gaussian

CONFIG = '''
INPUT_DIM = [3, 5]
DATA_RATIO = [4]
NOISE_STD = [0.1, 1.0]
SEED = [0, 1]
AGENTS = [{'agent': 'map'}]
'''


def make_flags(folder, **changes):
  (folder / 'config.py').write_text(CONFIG)
  values = {'config': folder / 'config.py', 'cache_dir': folder / 'cache',
            **changes}
  return [f'--{name}={value}' for name, value in values.items()
          if value is not None]


def test_fills_verifies_and_exports(tmp_path):
  export = tmp_path / 'export'
  nothing, first, second, again, verified = commands.run_commands(
      'make_problems',
      make_flags(tmp_path, verify=True),
      make_flags(tmp_path, num_tasks=2, task_index=0),
      make_flags(tmp_path, num_tasks=2, task_index=1),
      make_flags(tmp_path, export_dir=export),
      make_flags(tmp_path, verify=True, num_rows=5))
  assert nothing[0] == 1 and nothing[1].count('missing: D') == 8
  assert '0 problems passed, 0 failed, 8 are missing.' in nothing[1]
  for share in (first, second):
    assert share[0] == 0 and share[2] == ''
    assert '4 problems of 2 kernels' in share[1] and '] 2/2 D' in share[1]
    assert 'dense, std within ' in share[1] and 's left' in share[1]
  assert again[0] == 0 and '8 problems of 4 kernels' in again[1]
  memory, = re.findall(r'done; ([0-9,]+) MB of memory at most', again[1])
  assert 50 < int(memory.replace(',', '')) < 5000
  assert verified[0] == 0
  assert '8 problems passed, 0 failed, 0 are missing.' in verified[1]
  # Two kernels have one file of f and two posteriors each; no lock is left.
  assert len(list((tmp_path / 'cache').iterdir())) == 4 * 3
  assert len(list(export.glob('*.npz'))) == 8
  arrays, metadata = problem_export.read_export(
      export / 'D3_l4_e0.1_s1_bayes.npz')
  problem, = problems.make_problems([problems.ProblemConfig(3, 4, 0.1, 1)])
  for name in problem_export.ARRAYS:
    np.testing.assert_array_equal(arrays[name], getattr(problem, name), name)
  assert metadata['noise_std'] == 0.1 and metadata['num_train'] == 12
  assert metadata['ground_truth']['solver'] == 'dense'


def test_verify_finds_what_is_wrong(tmp_path):
  """A file that is whole, but of a wrong posterior."""
  config = problems.ProblemConfig(3, 4, 0.1, 0)
  solve = solvers.DenseSolver.solve

  def wrong(self, *args):
    return [solved._replace(moments=dataclasses.replace(
        solved.moments, weights=1.01 * solved.moments.weights))
            for solved in solve(self, *args)]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(solvers.DenseSolver, 'solve', wrong)
    problems.make_problems([config], tmp_path / 'cache')
  found, = commands.run_commands('make_problems', make_flags(
      tmp_path, verify=True, input_dim=3, seed=0))
  assert found[0] == 1
  assert 'FAILED: D3_l4_e0.1_s0_bayes, dense: equations' in found[1]
  assert '0 problems passed, 1 failed, 1 are missing.' in found[1]


def test_what_killed_processes_left_is_removed(tmp_path):
  folders = tmp_path / 'cache', tmp_path / 'export'
  old = time.time() - 2 * 86400
  for folder in folders:
    folder.mkdir()
    for name in ('.a.npz.12.0123abcd.tmp', '.mine.tmp', 'a.lock',
                 'a_function.lock'):
      (folder / name).touch()
      os.utime(folder / name, (old, old))
    (folder / '.new.npz.12.0123abcd.tmp').touch()
  (code, _, _), = commands.run_commands('make_problems', make_flags(
      tmp_path, export_dir=folders[1], input_dim=3, seed=0))
  assert code == 0
  made = '.cache', '.npz', '.json'
  left = [{path.name for path in folder.iterdir() if path.suffix not in made}
          for folder in folders]
  # Files of anybody else stay in both; the lock of a function is the cache's.
  stay = {'.new.npz.12.0123abcd.tmp', '.mine.tmp', 'a.lock'}
  assert left == [stay, {*stay, 'a_function.lock'}]


def test_bad_input_is_one_line(tmp_path):
  (tmp_path / 'file').touch()
  cases = {
      'cache_dir must not be empty': dict(cache_dir=''),
      'task_index must be below num_tasks = 1, got 1': dict(
          task_index=1, num_tasks=1),
      'no problem has at most max_num_train = 2': dict(max_num_train=2),
      'input_dim must be integers': dict(input_dim='x'),
      'solver_memory_mb must be enough for': dict(solver_memory_mb=0.0001),
      'solver_memory_mb must be a finite number > 0': dict(solver_memory_mb=0),
      "--solver must be one of .* got 'quick'": dict(solver='quick'),
      'export_dir': dict(export_dir=tmp_path / 'file'),
      '--num_rows must be an integer >= 1, got 0': dict(num_rows=0),
      'config must be a Python file': dict(config='nowhere.py')}
  answers = commands.run_commands(
      'make_problems', *(make_flags(tmp_path, **changes)
                         for changes in cases.values()))

  for message, (code, _, error) in zip(cases, answers):
    assert code == 2, message
    assert error.count('\n') == 1 and re.search(message, error), error


@pytest.mark.parametrize('solver', [
    'dense', pytest.param('matrix_free', marks=pytest.mark.slow)])
def test_a_full_disk_loses_nothing_that_was_complete(tmp_path, solver):
  with commands.small_disk(tmp_path / 'disk', '96k') as disk:
    flags = make_flags(tmp_path, cache_dir=disk, solver=solver, seed=0,
                       input_dim=5)
    (code, _, error), = commands.run_commands('make_problems', flags)
    # A checkpoint that cannot be written is a warning; what is made, an error.
    failed = [line for line in error.splitlines() if not line.startswith('W')]
    assert code == 2 and len(failed) == 1, error
    assert 'error: cannot write ' in error
    assert 'No space left on device' in error
    assert not list(disk.glob('**/*.tmp'))
    before = {path: path.stat().st_mtime_ns for path in disk.glob('*.cache')}
    subprocess.run(['mount', '-o', 'remount,size=300m', str(disk)], check=True)
    done, verified = commands.run_commands(
        'make_problems', flags, [*flags, '--verify'])
    assert done[0] == 0 and verified[0] == 0, (done, verified)
    assert len(list(disk.iterdir())) == 3  # f and two posteriors.
    for path, time in before.items():
      assert path.stat().st_mtime_ns == time, path


def test_a_read_only_cache_is_one_line(tmp_path):
  with commands.small_disk(tmp_path / 'disk', '1m') as disk:
    subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
    (code, _, error), = commands.run_commands(
        'make_problems', make_flags(tmp_path, cache_dir=disk))
  assert code == 2 and error.count('\n') == 1
  assert f'cache_dir {str(disk)!r} is not a folder that can be written' in error


@pytest.mark.parametrize('change, said', [
    ((b'format_version\\":3', b'format_version\\":1'),
     'it has format version 1, this program reads and writes 3'),
    ((b'noise_std\\":0.1', b'noise_std\\":0.3'), 'it is of another problem'),
    ((b'PK', b'KP'), 'its contents do not match their checksum'),
    ((b'enn_', b'ann_'), 'it is no file of arrays of this project')])
def test_a_file_that_cannot_be_used_is_named_and_made_again(tmp_path, change,
                                                            said):
  flags = make_flags(tmp_path, seed=0, input_dim=5, noise_std=0.1)
  assert commands.run_commands('make_problems', flags)[0][0] == 0
  path, = (tmp_path / 'cache').glob('*_bayes_*.cache')
  whole = path.read_bytes()
  path.write_bytes(whole.replace(*change, 1))
  verified, made, again = commands.run_commands(
      'make_problems', [*flags, '--verify'], flags, flags)
  for _, _, error in (verified, made):
    assert error.count('\n') == 1, error
    assert f'{path} is not used: {said}.' in error
  assert (verified[0], made[0], again[0], again[2]) == (1, 0, 0, '')
  assert path.read_bytes().startswith(whole[:200])


def make_problem(**fields):
  problem, = problems.make_problems([problems.ProblemConfig(5, 8, 0.1, 2)])
  return dataclasses.replace(problem, **fields)


@pytest.mark.parametrize('changes, failing', [
    ({}, set()),
    ({'weights': 1.01}, {'equations', 'means', 'dyadic means'}),
    ({'y_train': 1.01}, {'equations', 'dense mean', 'dense joint'}),
    ({'test_mean': 1.01}, {'means', 'dense mean'}),
    ({'test_std': 1.001}, {'dense std'}),
    ({'val_std': 0.1}, {'labels'}), ({'val_mean': -1.}, {'labels'}),
    ({'y_test': -1.}, {'test labels'}),
    ({'dyadic_mean': 1.01}, {'dyadic means', 'dense joint'}),
    ({'dyadic_covariances': 1.001}, {'dense joint'}),
])
def test_every_check_can_fail(changes, failing):
  problem = make_problem()
  problem = dataclasses.replace(problem, **{
      name: factor * getattr(problem, name)
      for name, factor in changes.items()})
  checks = audit.check_problem(problem, num_rows=30)
  assert {check.name for check in checks if not check.passed} == failing
  assert len(checks) == 8


def test_a_number_that_is_none_does_not_pass():
  assert not audit.Check('means', float('nan'), 1.).passed


def test_exported_blocks_are_joint_covariances(tmp_path):
  problem = make_problem()
  path = problem_export.export_problem(problem, tmp_path)
  arrays, metadata = problem_export.read_export(path)
  tau = metadata['tau']
  assert arrays['test_covariances'].shape == (1000 // tau, tau, tau)
  np.testing.assert_allclose(
      np.sqrt(np.einsum('bii->bi', arrays['test_covariances'])).ravel(),
      arrays['test_std'], rtol=1e-9)
  ridge = metadata['std_ridge']
  assert np.mean(gaussian.gaussian_kl(
      arrays['test_mean'], arrays['test_std'] + ridge, problem.test_mean,
      problem.test_std + ridge)) == 0.
  # Checksums as anybody computes them.
  assert metadata['npz_sha256'] == hashlib.sha256(path.read_bytes()).hexdigest()
  assert metadata['arrays']['x_test']['sha256'] == hashlib.sha256(
      arrays['x_test'].tobytes()).hexdigest()


def test_a_damaged_export_is_named(tmp_path):
  path = problem_export.export_problem(make_problem(), tmp_path)
  content = path.read_bytes()
  path.write_bytes(content[:-9] + b'\0' + content[-8:])
  with pytest.raises(ValueError, match='npz does not match its checksum'):
    problem_export.read_export(path)
  path.write_bytes(content)
  metadata = path.with_suffix('.json')
  changed = {**json.loads(metadata.read_text()), 'format_version': 9}
  metadata.write_text(json.dumps(changed))
  with pytest.raises(ValueError, match='format_version 9, this program reads'):
    problem_export.read_export(path)
  metadata.unlink()
  with pytest.raises(ValueError, match='cannot be read'):
    problem_export.read_export(path)
