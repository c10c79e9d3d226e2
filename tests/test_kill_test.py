"""The command kill_test: a short one, what it finds, and wrong commands."""

import copy
import re

import commands
import pytest

from enn_ensembles.studies.interrupted_sweeps import kill_test


@pytest.mark.slow
@commands.needs_proc
def test_the_kill_test(tmp_path, monkeypatch):
  # A short one. What it compares with, and how, is in the command.
  # It starts ten sweeps, each as long as a command may be.
  done = commands.start_module(
      'tests.kill_test_command', '--quick', '--num_kills=2', '--num_workers=1',
      '--num_processes=3', f'--output_dir={tmp_path / "out"}').wait(
          10 * commands.HANG)
  log = tmp_path / 'out' / 'log'
  assert done.returncode == 0, (done.stderr, log.exists() and log.read_text())
  assert 'SIGKILL: 2 kills' in done.stdout and 'SIGTERM: 2 kills' in done.stdout
  assert '3 processes on one folder and one cache: equal' in done.stdout

  # It finds what it looks for: a plain run that differs in one digit. The
  # command has compared this sweep with the plain one; it is read once here.
  tables = kill_test.read_tables(tmp_path / 'out' / 'SIGTERM0',
                                 tmp_path / 'out' / 'SIGTERM0.board')
  monkeypatch.setattr(kill_test, 'read_tables', lambda *_: tables)
  test = kill_test.KillTest.__new__(kill_test.KillTest)
  test._folder = tmp_path / 'out'
  test._problems = test._folder / 'problems'
  plain = copy.deepcopy(tables)
  test._plain = {'1': plain}
  test._compare('SIGTERM0', '1')
  assert 'kl_estimate' in plain['scores.csv'][0]
  assert 'train_seconds' not in plain['scores.csv'][0]
  plain['scores.csv'][0]['kl_estimate'] += '1'
  with pytest.raises(kill_test.FailureError, match='scores.csv is not that of'):
    test._compare('SIGTERM0', '1')
  plain['scores.csv'][0]['kl_estimate'] = (
      plain['scores.csv'][0]['kl_estimate'][:-1])
  (test._problems / 'D2_l1_s0_function.lock').touch()
  with pytest.raises(kill_test.FailureError, match='function.lock.* are left'):
    test._compare('SIGTERM0', '1')


@pytest.mark.parametrize('arguments, message', [
    (['--signals=SIGHUP'], "signals must be one of 'SIGKILL', .* got 'SIGHUP'"),
    (['--num_kills=0'], '--num_kills must be an integer >= 1, got 0'),
    (['--num_workers=0'], '--num_workers must be an integer >= 1, got 0'),
    ([], 'is not empty and was not made by a kill test')])
def test_bad_kill_tests(tmp_path, arguments, message):
  (tmp_path / 'thesis.txt').write_text('mine')
  done = commands.run_module('experiments.kill_test', *arguments,
                             f'--output_dir={tmp_path}')
  assert done.returncode == 2 and re.search(message, done.stderr), done.stderr
  assert done.stderr.count('\n') == 1
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']
