"""Runs commands of `experiments` as a user would, many in one process tree."""

import contextlib
import importlib
import json
import pathlib
import shutil
import subprocess
import sys

from absl import flags
import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Imports once and forks for every command: starting jax takes a second.
_DRIVER = '''
import importlib, json, os, sys, tempfile
from experiments import cli
name, commands = json.load(sys.stdin)
module = importlib.import_module(f'experiments.{name}')
answers = []
for argv, environment in commands:
  files = [tempfile.TemporaryFile() for _ in range(2)]
  child = os.fork()
  if not child:
    os.dup2(files[0].fileno(), 1)
    os.dup2(files[1].fileno(), 2)
    sys.argv = [name, *argv]
    os.environ.update(environment)
    try:
      cli.run_main(module.main)
    except SystemExit as end:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(end.code or 0)  # Clearing up takes half a second.
  _, status = os.waitpid(child, 0)
  for file in files:
    file.seek(0)
  answers.append([os.waitstatus_to_exitcode(status),
                  *[file.read().decode() for file in files]])
json.dump(answers, sys.stdout)
'''


@contextlib.contextmanager
def small_disk(folder, size):
  """A folder that is a disk of its own, e.g. of '1m'; skips where none is."""
  folder.mkdir()
  if not shutil.which('mount') or subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)],
      check=False, capture_output=True).returncode:
    pytest.skip('this needs the right to mount a tmpfs')
  try:
    yield folder
  finally:
    subprocess.run(['umount', str(folder)], check=True)


def load_command(name):
  """A module of `experiments`, for tests of its functions.

  Its flags are taken out again: commands have flags of the same names, and a
  test process loads several.
  """
  before = set(flags.FLAGS)
  module = importlib.import_module(f'experiments.{name}')
  for flag in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, flag)
  return module


def run_commands(name, *commands):
  """(exit code, stdout, stderr) of each, one after the other.

  Args:
    name: module of `experiments`.
    *commands: their flags, a list each; or (flags, environment variables).
  """
  commands = [command if command and isinstance(command[-1], dict)
              else (command, {})
              for command in commands]
  done = subprocess.run(
      [sys.executable, '-c', _DRIVER], cwd=ROOT, check=True, text=True,
      input=json.dumps([name, commands]), capture_output=True)
  return json.loads(done.stdout)


def check_refused(name, cases):
  """Every case is refused in one line that says why, before anything is done.

  Args:
    name: module of `experiments`.
    cases: (flags, part of the message) each.
  """
  answers = run_commands(name, *(argv for argv, _ in cases))
  for (argv, message), (code, out, err) in zip(cases, answers, strict=True):
    assert code == 2 and message in err and err.count('\n') == 1, (argv, err)
    assert err.startswith('error: ') and not out, argv
