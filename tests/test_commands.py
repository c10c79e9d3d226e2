"""The command enn-ensembles, in the clone and as a wheel has it."""

import os
import pathlib
import subprocess
import sys

from commands import run_module
import pytest

import enn_ensembles
from enn_ensembles import commands
from enn_ensembles import results
from enn_ensembles import sweeps

ROOT = pathlib.Path(__file__).parents[1]


def run(*argv, folder=ROOT, **environment):
  return subprocess.run(
      [sys.executable, '-m', 'enn_ensembles', *argv], cwd=folder, text=True,
      capture_output=True, timeout=600, env={**os.environ, **environment})


def test_it_says_what_there_is():
  done = run()
  assert not done.returncode and not done.stderr
  for name in ('run', 'board', 'status', 'quickstart', 'make_problems'):
    assert name in commands.available()
    assert f'\n  {name} ' in done.stdout
  assert run('--version').stdout.strip() == enn_ensembles.__version__


def test_an_unknown_command_is_refused():
  done = run('shoot')
  assert done.returncode == 2 and not done.stdout
  assert done.stderr.startswith('error: command must be one of quickstart, run')


@pytest.mark.parametrize('name', sorted(commands.available()))
def test_help_lists_flags_and_starts_nothing(tmp_path, name):
  done = run_module('enn_ensembles', name, '--help', folder=tmp_path)
  assert '\n  --' in done.stdout and 'Traceback' not in done.stderr
  assert not list(tmp_path.iterdir())


def test_configs_have_names():
  assert {'paper', 'quickstart'} <= set(sweeps.config_names())
  assert sweeps.find_config('paper') == sweeps.find_config(
      ROOT / 'testbed_configs' / 'paper.py')
  with pytest.raises(ValueError, match='Python file or one of .*paper.*papr'):
    sweeps.load_config('papr')


@pytest.fixture(name='installed', scope='module')
def make_installed(tmp_path_factory):
  """What a wheel puts into site-packages."""
  pytest.importorskip('setuptools')
  folder = tmp_path_factory.mktemp('build')
  done = subprocess.run(
      [sys.executable, 'setup.py', '-q', 'build', f'--build-base={folder}',
       f'--build-lib={folder / "site"}'], cwd=ROOT, check=False,
      capture_output=True, text=True)
  assert not done.returncode, done.stderr
  return folder / 'site'


def test_nothing_else_comes_to_lie_beside_the_package(installed):
  assert [path.name for path in installed.iterdir()] == ['enn_ensembles']
  there = {str(path.relative_to(installed))
           for path in installed.rglob('*') if path.is_file()}
  assert {'enn_ensembles/py.typed', 'enn_ensembles/experiments/run_sweep.py',
          'enn_ensembles/testbed_configs/paper.py'} <= there
  for path in (ROOT / 'enn_ensembles').rglob('*'):
    if path.is_file() and '__pycache__' not in path.parts:
      assert str(path.relative_to(ROOT)) in there, f'{path} is left out'


@pytest.mark.slow
def test_an_installed_package_runs_anywhere(installed, tmp_path):
  # Somebody's own folder of the name of the commands' is not taken for it.
  (tmp_path / 'experiments').mkdir()
  (tmp_path / 'experiments' / '__init__.py').write_text('raise ValueError')
  done = run('run', '--config=quickstart', '--agents=prior_only',
             '--results_dir=results', '--num_workers=2', '--cache_dir=',
             '--compilation_cache_dir=', folder=tmp_path,
             PYTHONPATH=str(installed))
  assert not done.returncode, done.stderr
  rows = results.open_store(tmp_path / 'results').read_rows()
  assert len(rows) == 6 and {row['status'] for row in rows} == {'ok'}
  done = run('status', '--config=quickstart', '--agents=prior_only',
             '--results_dir=results', folder=tmp_path,
             PYTHONPATH=str(installed))
  assert not done.returncode and '6 of 6 rows are done' in done.stdout
