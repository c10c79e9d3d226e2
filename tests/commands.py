"""Runs commands of `experiments` as a user would, forked off one process.

That process is `command_server`.
"""

import contextlib
import functools
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from absl import flags
import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Seconds after which something hangs; no machine is so busy.
HANG = 600.

needs_proc = pytest.mark.skipif(not pathlib.Path('/proc/self/stat').exists(),
                                reason='this needs /proc')


class _Server:
  """A process that has imported everything and forks."""

  def __init__(self):
    self._process = subprocess.Popen(
        [sys.executable, ROOT / 'tests' / 'command_server.py'], cwd=ROOT,
        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

  def ask(self, **request):
    self._process.stdin.write(json.dumps(request) + '\n')
    self._process.stdin.flush()
    answer = self._process.stdout.readline()
    assert answer, f'the server ended with {self._process.wait()}'
    return json.loads(answer)


@functools.cache
def _server(environment):
  """The server for these variables, which are read while jax is imported."""
  del environment
  return _Server()


def shared_problems():
  """The cache of problems that all tests of this run share."""
  return pathlib.Path(os.environ['ENN_ENSEMBLES_TESTS'], 'problems')


class Done(NamedTuple):
  """What has ended: as `subprocess.CompletedProcess` has it."""
  returncode: int
  stdout: str
  stderr: str


class Started:
  """A process that runs; its pid is that of a session if it has its own."""

  def __init__(self, server, pid, files):
    self.pid = pid
    self.returncode = None
    self._server = server
    self._files = files

  def poll(self):
    """The exit code, minus the number of the signal; None while it runs."""
    if self.returncode is None:
      self.returncode = self._server.ask(pid=self.pid)
    return self.returncode

  def wait(self, seconds=HANG):
    """Waits for its end; what hangs is killed and fails the test."""
    deadline, pause = time.monotonic() + seconds, 0.001
    while self.poll() is None:
      if time.monotonic() > deadline:
        os.kill(self.pid, signal.SIGKILL)
        pytest.fail(f'a command hangs; it has said: {self._read()}')
      time.sleep(pause)
      pause = min(2 * pause, 0.05)
    out, err = self._read()
    for file in self._files:
      file.close()
    return Done(self.returncode, out, err)

  def _read(self):
    return [pathlib.Path(file.name).read_text(encoding='utf-8')
            for file in self._files]


def _num_spares(module, argv):
  """How many processes a command may start: see `command_server`."""
  if module != 'experiments.run_sweep' or not sys.platform.startswith('linux'):
    return 0
  workers = [flag.rpartition('=')[2] for flag in map(str, argv)
             if flag.startswith('--num_workers=')]
  # One checks user-defined agents.
  return 1 + sum(int(number) for number in workers if number.isdecimal())


def start_module(module, *argv, folder=ROOT, new_session=False,
                 num_spares=None, **environment):
  """Starts `python -m module *argv` in a folder, without its imports.

  Args:
    module: e.g. 'experiments.run_sweep'.
    *argv: its flags.
    folder: where it runs.
    new_session: whether it leads a session, and so a group, of its own.
    num_spares: processes that are kept for those it starts, see
      `command_server`; None for what it may need.
    **environment: variables besides those of this process.
  """
  environment = {**os.environ, **environment}
  server = _server(tuple(sorted(
      (name, value) for name, value in environment.items()
      if name.startswith(('JAX_', 'XLA_', 'PYTHON')))))
  files = [tempfile.NamedTemporaryFile() for _ in range(2)]
  pid = server.ask(
      module=module, argv=[module.rpartition('.')[2], *map(str, argv)],
      environment=environment, folder=str(folder), new_session=new_session,
      num_spares=(_num_spares(module, argv) if num_spares is None
                  else num_spares),
      out=files[0].name, err=files[1].name)
  return Started(server, pid, files)


def run_module(module, *argv, **options):
  """`start_module`, and waits: an exit code and what was written."""
  return start_module(module, *argv, **options).wait()


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


def run_commands(name, *commands, **options):
  """(exit code, stdout, stderr) of each, one after the other.

  Args:
    name: module of `experiments`.
    *commands: their flags, a list each; or (flags, environment variables).
    **options: of `start_module`.
  """
  answers = []
  for command in commands:
    argv, environment = command if command and isinstance(
        command[-1], dict) else (command, {})
    answers.append(run_module(f'experiments.{name}', *argv, **options,
                              **environment))
  return answers


def wait_for(condition):
  """Waits until condition() holds; what never does fails the test."""
  deadline = time.monotonic() + HANG
  while not condition():
    assert time.monotonic() < deadline, 'it never happened'
    time.sleep(0.02)


def said(err):
  """Lines of a sweep's stderr, but for those that only busy machines make."""
  return [line for line in err.splitlines()
          if ' gives back ' not in line and ': running for ' not in line]


def check_refused(name, cases):
  """Every case is refused in one line that says why, before anything is done.

  Args:
    name: module of `experiments`.
    cases: (flags, part of the message) each.
  """
  answers = run_commands(name, *(argv for argv, _ in cases), num_spares=0)
  for (argv, message), (code, out, err) in zip(cases, answers, strict=True):
    assert code == 2 and message in err and err.count('\n') == 1, (argv, err)
    assert err.startswith('error: ') and not out, argv
