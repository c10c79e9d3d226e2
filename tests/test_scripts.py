"""Scripts: help, interpreters, and what must not reach a job's script."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Those next to them are sourced.
SCRIPTS = sorted(path.name for path in (ROOT / 'scripts').glob('*.sh')
                 if path.read_text().startswith('#!'))
# Programs in Python, but for those that a shell script runs elsewhere.
PROGRAMS = sorted({
    str(path.relative_to(ROOT)) for folder in ('scripts', 'docs/examples')
    for path in (ROOT / folder).glob('*.py')} - {
        'scripts/kernel_oracle.py', 'scripts/pytorch_cases.py',
        'scripts/torchmetrics_values.py'}) + [
            'tests/count_file_calls.py', 'tests/many_rows.py',
            'tests/record_seconds.py']


@pytest.fixture(name='clone')
def make_clone(tmp_path):
  """The scripts and setup.py without anything that they could run."""
  shutil.copytree(ROOT / 'scripts', tmp_path / 'scripts')
  shutil.copy(ROOT / 'setup.py', tmp_path)
  return tmp_path


def run(folder, script, *arguments, **environment):
  kept = {name: value for name, value in os.environ.items()
          if name not in ('PYTHON', 'VENV')}
  return subprocess.run(
      [folder / 'scripts' / script, *arguments], capture_output=True, text=True,
      check=False, cwd='/', env={**kept, **environment}, timeout=600)


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help_helps_and_starts_nothing(clone, script, flag):
  before = sorted(clone.rglob('*'))
  done = run(clone, script, flag, PYTHON='nope')
  assert done.returncode == 0 and not done.stderr
  first = (clone / 'scripts' / script).read_text().splitlines()[1]
  assert done.stdout.startswith(first.removeprefix('# '))
  assert 'set -euo' not in done.stdout
  assert sorted(clone.rglob('*')) == before


@pytest.mark.parametrize('program', PROGRAMS)
def test_help_of_programs_starts_nothing(tmp_path, program):
  done = subprocess.run(
      [sys.executable, ROOT / program, '--help'], capture_output=True,
      text=True, check=False, cwd=tmp_path, timeout=600,
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(
          [str(ROOT), str(ROOT / 'tests')])})
  assert done.returncode == 0 and not done.stderr
  assert done.stdout.startswith('usage: ')
  first = (ROOT / program).read_text().splitlines()[0]
  assert f'\n{first.removeprefix(chr(34) * 3)}\n' in done.stdout
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('script', ['quickstart.sh', 'test.sh'])
@pytest.mark.parametrize('made', [False, True])
def test_an_interpreter_that_is_not_there_is_not_ignored(clone, script, made):
  if made:  # An environment that would do anything.
    (clone / '.venv' / 'bin').mkdir(parents=True)
    for name in ('pip', 'python'):
      (clone / '.venv' / 'bin' / name).symlink_to(shutil.which('true'))
  done = run(clone, script, PYTHON='nope')
  assert (done.returncode, done.stderr) == (
      2, 'error: there is no nope; name one with PYTHON=...\n')


def test_an_environment_of_another_python_is_not_taken(clone):
  (clone / '.venv' / 'bin').mkdir(parents=True)
  for folder, version in ((clone / '.venv' / 'bin', '3.11'), (clone, '3.13')):
    (folder / 'python').write_text(f'#!/bin/sh\necho {version}\n')
    (folder / 'python').chmod(0o755)
  (clone / '.venv' / 'bin' / 'pip').symlink_to(shutil.which('true'))
  done = run(clone, 'quickstart.sh', PYTHON=str(clone / 'python'))
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert '.venv is of Python 3.11' in done.stderr and 'is 3.13' in done.stderr


def test_the_quickstart_takes_no_arguments(clone):
  done = run(clone, 'quickstart.sh', '--fast')
  assert (done.returncode, done.stderr) == (
      2, "error: unknown argument '--fast'\n")
