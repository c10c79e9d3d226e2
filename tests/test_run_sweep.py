"""The command run_sweep: flags, exit codes, what is skipped, what is said."""

import os
import pathlib
import subprocess
import sys

import commands
import pytest

from enn_ensembles import results
from enn_ensembles.report import tables as tables_lib

ROOT = pathlib.Path(__file__).parents[1]

CONFIG = '''
INPUT_DIM = [3]
DATA_RATIO = [1, 2]
NOISE_STD = [0.1, 2.0]
SEED = [0, 1]
AGENTS = [{'agent': 'my_agent', 'level': [0., 1.]},
          {'agent': 'prior_only'}]
'''

# A file next to it makes it fail, but not on the problem that agents are
# checked on before a sweep starts, whose noise_std is 1.
MY_AGENT = '''
import dataclasses
import pathlib
import numpy as np

@dataclasses.dataclass(frozen=True)
class MyConfig:
  level: float = 0.

def make_agent(config: MyConfig):
  def agent(data, prior, key):
    if (prior.noise_std > 1.5 and config.level > 0.5
        and pathlib.Path(__file__).with_name('broken').exists()):
      raise ArithmeticError('too noisy')
    return lambda x, key: np.full(
        [len(x), 1], config.level + np.asarray(key)[-1] % 7)
  return agent
'''


@pytest.fixture(name='folder')
def make_folder(tmp_path):
  (tmp_path / 'config.py').write_text(CONFIG)
  (tmp_path / 'my_agent.py').write_text(MY_AGENT)
  return tmp_path


def make_flags(folder, **changes):
  """Flags of a whole sweep in this folder; a change to None drops one."""
  values = {
      'config': folder / 'config.py', 'results_dir': folder / 'results',
      'agent_module': folder / 'my_agent.py', 'agents': 'my_agent,prior_only',
      'num_workers': 1, 'num_enn_samples': 4, 'timing_seconds': commands.HANG,
      'cache_dir': commands.shared_problems(), 'compilation_cache_dir': '',
      **changes}
  return [f'--{name}={value}' for name, value in values.items()
          if value is not None]


def run_commands(*flags):
  """(exit code, stdout, stderr) of each, one after the other."""
  return commands.run_commands('run_sweep', *flags)


def snapshot(folder):
  """Every file below a folder, with its content and time."""
  return {str(path): (path.read_bytes(), path.stat().st_mtime_ns)
          for path in folder.rglob('*') if path.is_file()}


def test_bad_input_is_one_line_and_nothing_is_written(folder):
  (folder / 'foreign').mkdir()
  (folder / 'foreign' / 'thesis.txt').write_text('mine')
  old = results.open_store(folder / 'old', create=True).results_dir
  (old / 'STORE.json').write_text(
      '{"project": "enn_ensembles", "schema_version": 99}')
  (folder / 'broken_agent.py').write_text('make_agent = None')
  (folder / 'empty.py').write_text('')
  (folder / 'leaves.py').write_text('import sys\nsys.exit(0)\n')
  (folder / 'open').mkdir()
  (folder / 'open').chmod(0o777)
  damaged = results.open_store(folder / 'damaged', create=True).results_dir
  (damaged / 'units' / 'a.json').write_text('{"rows": [')
  before = snapshot(folder)

  cases = [
      ({'config': 'nowhere.py'}, "'nowhere.py', which does not exist"),
      ({'config': folder / 'empty.py'}, 'must define INPUT_DIM'),
      ({'agents': 'esemble', 'agent_module': None}, "got 'esemble'"),
      ({'agents': 'prior_only'}, "my_agent.py' is not used: agents must name "
       'my_agent, got prior_only'),
      ({'agent_module': f'{folder / "my_agent.py"},{folder / "my_agent.py"}'},
       "must name every value once, got 'my_agent' twice"),
      ({'agents': ''}, '--agents must be a list of at least one value'),
      ({'agent_module': folder / 'none.py', 'agents': None}, 'does not exist'),
      ({'agent_module': folder / 'broken_agent.py', 'agents': None},
       'must define make_agent'),
      ({'input_dim': '3,ten'}, "--input_dim must be integers with commas "
       "between, got '3,ten'"),
      ({'input_dim': '-3'}, '--input_dim must be an integer >= 1, got -3'),
      ({'data_ratio': '0'}, '--data_ratio must be a finite number > 0'),
      ({'data_ratio': '0.1'}, 'at least one training point'),
      ({'noise_std': '0.1,0'}, '--noise_std must be a finite number > 0'),
      ({'noise_std': 'nan'}, '--noise_std must be a finite number > 0'),
      ({'seed': '1,1'}, '--seed must name every value once, got 1 twice'),
      ({'reference': 'bays'}, "got 'bays'"),
      ({'kernel': 'gelu2'}, "got 'gelu2'"),
      ({'num_enn_samples': 0}, '--num_enn_samples must be an integer >= 1'),
      ({'dtype': 'int8'}, "got 'int8'"),
      ({'task_index': 2, 'num_tasks': 2}, 'below num_tasks = 2, got 2'),
      ({'num_tasks': 0}, 'num_tasks must be an integer >= 1, got 0'),
      ({'num_tasks': 2}, 'num_tasks 2 was given without task_index'),
      ({'task_index': 1}, 'task_index 1 was given without num_tasks'),
      ({'grace_seconds': -1}, 'grace_seconds must be >= 0 and at most 86'),
      ({'num_workers': 0}, '--num_workers must be an integer >= 1, got 0'),
      ({'timing_seconds': -1}, '--timing_seconds must be >= 0 and at most'),
      ({'timing_seconds': 'inf'}, 'must be >= 0 and at most 86400, got inf'),
      ({'memory_budget_mb': 0}, '--memory_budget_mb must be a finite number > '
       '0, got 0'),
      ({'solver_memory_mb': 0}, '--solver_memory_mb must be a finite number > '
       '0, got 0'),
      ({'seed': -1}, 'every value of --seed must be an integer >= 0, got -1'),
      ({'data_ratio': '1e308'}, '--data_ratio must be at most 1e+06, got 1e'),
      ({'input_dim': '1' + '0' * 400}, '--input_dim must be at most 2**32'),
      ({'config': 'c' * 300}, 'which does not exist'),
      ({'agent_module': 'c' * 300, 'agents': None}, 'must be a Python file'),
      ({'agent_module': 'c' * 300 + '.py', 'agents': None},
       'which does not exist'),
      ({'config': folder / 'leaves.py'}, 'cannot be read: SystemExit: 0'),
      ({'agent_module': folder / 'leaves.py', 'agents': None},
       'cannot be imported: SystemExit: 0'),
      ({'num_tasks': 10**8, 'task_index': 0}, 'must be at most 10000000'),
      ({'num_workers': 'two'}, "--num_workers must be an integer, got 'two'"),
      ({'sede': 1}, "Unknown command line flag 'sede'"),
      ({'config': None}, '--config must be given'),
      ({'compilation_cache_dir': folder / 'open'}, 'can be written to by other '
       'users'),
      ({'data_ratio': '1,10000', 'solver': 'dense'}, 'must be enough for '
       'num_train = input_dim * data_ratio = 30000 points'),
      ({'solver': 'lu'}, '--solver must be one of'),
      ({'config': folder}, 'which is no file'),
      ({'dry_run': 'maybe'}, "--dry_run must be true or false, got 'maybe'"),
      ({'results_dir': ''}, 'results_dir must name a folder, got nothing'),
      ({'max_num_train': 2}, 'no problem has at most max_num_train = 2'),
      ({'results_dir': None}, '--results_dir must be given'),
      ({'results_dir': folder / 'config.py'}, 'not a folder that can be writ'),
      ({'results_dir': '/proc/results'}, 'not a folder that can be written to'),
      ({'results_dir': folder / 'foreign'}, 'is not empty and no results stor'),
      ({'results_dir': folder / 'old'}, 'has schema_version 99'),
      ({'results_dir': folder / 'damaged'}, 'a.json is damaged'),
      ({'cache_dir': folder / 'config.py'}, "config.py' is not a folder that "
       'can be written to: Not a directory'),
  ]
  commands.check_refused('run_sweep', [
      (make_flags(folder, **{'cache_dir': folder / 'cache', **changes}),
       message) for changes, message in cases])
  # Nothing half-written: not even the folders that were named.
  after = snapshot(folder)
  assert {path: content for path, (content, _) in after.items()} == {
      path: content for path, (content, _) in before.items()}
  assert not (folder / 'cache').exists() and not (folder / 'results').exists()


def test_a_sweep_from_the_first_row_to_a_retry(folder):
  (folder / 'broken').touch()
  dry, share, half_dry, rest, again, more = run_commands(
      make_flags(folder, dry_run=True, results_dir=None),
      make_flags(folder, num_tasks=2, task_index=0),
      make_flags(folder, dry_run=True),
      make_flags(folder),
      make_flags(folder),
      make_flags(folder, seed='0,1,2'))

  assert dry[0] == 0
  # A busy machine says that agents are still being checked.
  lines = [line for line in dry[1].splitlines()
           if not line.startswith('  checking agent ')]
  assert lines[-1].startswith(
      '6 work units, 24 rows (of 6 and 24 in the sweep)')
  assert [line.split()[:2] for line in lines[:6]] == [['4', 'rows']] * 6
  # Of the agent that fails where it is timed nobody knows what it takes.
  assert lines[6].startswith('cost: at least ')
  assert 'unknown in 2 of 6' in lines[6]
  assert [line.rpartition(' ')[2] for line in lines[7:]
          if 'my_agent,level=' in line] == ['(timed)', '(unknown)']
  # Before the first unit: of a share nobody has timed anything. Where an agent
  # setting has rows on a cell, they say it.
  assert 'unknown' in share[1].partition('] ')[0]
  for out in (share[1], rest[1]):
    assert 0 < out.index('\ncost: ') < out.index('] ')
  assert lines[0].split()[2].startswith('my_agent,level=0-')

  # Where there are rows, a dry run names what is left.
  assert half_dry[0] == 0
  assert len([line for line in half_dry[1].splitlines()
              if line.split()[1:2] == ['rows'] and '-' in line]) == 3
  assert half_dry[1].splitlines()[-1].startswith(
      '3 work units, 12 rows (of 6 and 24 in the sweep; 12 rows done before)')

  # A share does its part; the whole does the rest, and fails where it fails.
  assert '12 rows in 3 work units to run, 0 done before' in share[1]
  assert '12 rows in 3 work units to run, 12 done before' in rest[1]
  for code, out, err in (share, rest):
    failed = out.count('2 ok, 2 failed')
    assert code == (1 if failed else 0)
    assert err.count('ArithmeticError: too noisy') == failed
  assert (share[1] + rest[1]).count('2 ok, 2 failed') == 2
  assert 'ArithmeticError: too noisy' in share[1] + rest[1]
  # Plain timed lines, which count rows.
  assert '] 12/12 rows; ' in rest[1]

  assert again[0] == 1 and '0 rows in 0 work units to run' in again[1]
  assert '4 of those done before failed; --retry_failed' in again[1]
  assert '(rows' in more[1].partition('] ')[0]
  # One more seed: that seed alone.
  assert '12 rows in 6 work units to run, 24 done before' in more[1]

  (folder / 'broken').unlink()
  before = snapshot(folder / 'results' / 'units')
  retry, last = run_commands(
      make_flags(folder, seed='0,1,2', retry_failed=True),
      make_flags(folder, seed='0,1,2'))
  assert retry[0] == 0 and '6 rows in ' in retry[1]
  assert last[0] == 0 and '0 rows in 0 work units to run' in last[1]
  after = snapshot(folder / 'results' / 'units')
  # What was finished was not touched.
  assert all(after[path] == old for path, old in before.items()
             if b'"failed"' not in old[0])

  store = results.ResultsStore(folder / 'results')
  rows = store.read_rows()
  assert len(rows) == 36 and {row['status'] for row in rows} == {'ok'}
  # The manifest is that of the sweep, whatever the share.
  expected = store.read_manifests()
  key = lambda row: (row['agent_id'], results.problem_of(row))
  assert {key(row) for row in expected} == {key(row) for row in rows}


def test_several_files_of_user_defined_agents(folder):
  other = (folder / 'my_agent.py').read_text().replace('[len(x), 1]',
                                                       '(len(x), 1)')
  (folder / 'other_agent.py').write_text(other)
  modules = f'{folder / "my_agent.py"},{folder / "other_agent.py"}'
  # The config names one of them; the other is added to it.
  (code, out, err), = run_commands(make_flags(
      folder, agent_module=modules, agents=None, seed=0, data_ratio=1))
  assert code == 0, (out, err)
  rows = results.ResultsStore(folder / 'results').read_rows()
  assert {row['agent']: row['status'] for row in rows} == dict.fromkeys(
      ('my_agent', 'other_agent', 'prior_only'), 'ok')
  assert len(rows) == 4 * 2


def test_a_full_disk_ends_a_sweep_that_goes_on_later(folder):
  with commands.small_disk(folder / 'disk', '1m') as disk:
    (disk / 'ballast').write_bytes(bytes(2**20 - 48 * 1024))
    flags = make_flags(folder, results_dir=disk / 'results')
    (code, out, err), = run_commands(flags)
    assert code == 2 and len(commands.said(err)) == 1, err
    assert 'error: cannot write ' in err and 'No space left on device' in err
    store = results.ResultsStore(disk / 'results')
    written = len(store.read_rows())
    assert 0 < written < 24
    assert not [p for p in disk.rglob('*') if p.suffix == '.tmp']
    (disk / 'ballast').unlink()
    (code, out, err), = run_commands(flags)
    assert code == 0, err
    assert f'{24 - written} rows in ' in out and len(store.read_rows()) == 24


@pytest.mark.slow
def test_a_job_array_does_all_of_a_sweep(folder):
  array = [{'AWS_BATCH_JOB_ARRAY_INDEX': str(i),
            'AWS_BATCH_JOB_ARRAY_SIZE': '3'} for i in range(3)]
  *tasks, rest, pbs = run_commands(
      *[[make_flags(folder), environment] for environment in array],
      make_flags(folder),
      [make_flags(folder), {'PBS_ARRAY_INDEX': '1'}])
  for i, (code, out, err) in enumerate(tasks):
    assert code == 0, err
    assert f'task {i} of 3, from AWS_BATCH_JOB_ARRAY_INDEX' in out
  assert ' in 0 work units to run, 24 done before' in rest[1]
  assert pbs[0] == 2 and 'such arrays do not say how many tasks' in pbs[2]
  assert not list((folder / 'results' / 'running').iterdir())


@pytest.mark.slow
def test_the_command_with_workers(folder):
  command = [sys.executable, '-m', 'experiments.run_sweep',
             *make_flags(folder, num_workers=2, seed='0', max_num_train=3)]
  # As a user's: with XLA's usual compiler.
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                        check=False, env={**os.environ, 'XLA_FLAGS': ''})
  assert done.returncode == 0, done.stderr
  assert 'left out by --max_num_train=3: D3_l2' in (
      done.stdout)
  assert '] 6/6 rows; ' in done.stdout and not commands.said(done.stderr)
  assert len(results.ResultsStore(folder / 'results').read_rows()) == 6


@pytest.mark.slow
def test_every_kernel_passes_its_audit_and_has_a_ranking_of_its_own(folder):
  """The exact posterior under a prior scores 0 under it, and under no other."""
  flags = dict(agents='exact_posterior,prior_only', agent_module=None)
  answers = run_commands(*[
      make_flags(folder, kernel=kernel, data_ratio=1, **flags)
      for kernel in (None, 'relu3', 'erf1', 'erf')])
  assert [code for code, _, _ in answers] == [0, 0, 0, 2]
  assert 'kernel must be an activation and a number' in answers[-1][2]
  rows = results.ResultsStore(folder / 'results').read_rows()
  kernel = lambda row: row['problem']['ranking']['kernel']
  assert {kernel(row) for row in rows} == {'relu2', 'relu3', 'erf1'}
  assert len({row['problem_id'] for row in rows}) == 3 * 4
  for row in rows:
    if row['agent'] == 'exact_posterior':
      assert row['scores']['kl_estimate'] < 1e-12
  by_problem = {(kernel(row), results.problem_of(row)):
                row['scores']['kl_estimate'] for row in rows
                if row['agent'] == 'prior_only'}
  assert len(set(by_problem.values())) == len(by_problem) == 3 * 4
  tables = tables_lib.make_tables(rows)
  labels = set(tables.leaderboard['ranking'])
  assert len(labels) == 3
  assert sorted('kernel' in label for label in labels) == [False, True, True]


def test_a_sweep_whose_agent_diverges_does_not_end_well(folder):
  (folder / 'my_agent.py').write_text(MY_AGENT.replace(
      'config.level +', '(np.nan if prior.noise_std > 1.5 else 0.) +'))
  flags = make_flags(folder, agents='my_agent', seed=0, data_ratio=1)
  first, again = run_commands(flags, flags)
  for code, out, err in (first, again):
    assert code == 1, (out, err)
    assert '2 rows diverged: their training or a score is not finite' in out
  rows = results.ResultsStore(folder / 'results').read_rows()
  assert sorted(row['status'] for row in rows) == [
      'diverged', 'diverged', 'ok', 'ok']
