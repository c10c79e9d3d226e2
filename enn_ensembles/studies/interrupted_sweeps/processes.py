"""Sessions of processes: how sweeps are started, watched and waited for."""

from collections.abc import Sequence
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from enn_ensembles.machine import process_table


class Launcher:
  """Starts commands in sessions of their own, and waits for them.

  Another process does so, which imports once and forks for every command:
  starting jax takes seconds.

  Args:
    source: the program of that process. A line on its stdin is a command,
      {'flags': [...], 'log': path} or {'wait': pid} as JSON, answered by a line
      on stdout: the pid, or the exit code.
    log: where the commands write.
  """

  def __init__(self, source: str, log: pathlib.Path):
    self._log = str(log)
    self._process = subprocess.Popen(
        [sys.executable, '-c', source], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True)

  def _ask(self, command: dict[str, Any]) -> int:
    stdin, stdout = self._process.stdin, self._process.stdout
    assert stdin is not None and stdout is not None  # They are pipes.
    stdin.write(json.dumps(command) + '\n')
    stdin.flush()
    return int(stdout.readline())

  def start(self, arguments: Sequence[str]) -> int:
    """The pid, which is that of a session too."""
    return self._ask({'flags': list(arguments), 'log': self._log})

  def wait(self, pid: int) -> int:
    """The exit code; minus the number of the signal that ended it."""
    return self._ask({'wait': pid})

  def close(self) -> None:
    """Ends it."""
    if self._process.stdin is not None:
      self._process.stdin.close()
    self._process.wait()


def _session_of(pid: int | str) -> int | None:
  """The session of a process, by /proc; None if it has ended."""
  fields = process_table.fields_of(pid)
  return None if fields is None else int(fields[3])


def is_running(pid: int) -> bool:
  """Whether a process has not ended; asking costs a tenth of a millisecond."""
  return _session_of(pid) is not None


def processes_of(session: int) -> list[int]:
  """Pids of a session; this looks at every process of the machine."""
  return [int(name) for name in os.listdir('/proc')
          if name.isdecimal() and _session_of(name) == session]


def wait_until_gone(session: int) -> None:
  """Waits for the end of all processes of a session.

  Raises:
    TimeoutError: some are left after half a minute.
  """
  deadline = time.monotonic() + 30
  while processes_of(session):
    if time.monotonic() > deadline:
      raise TimeoutError(f'processes {processes_of(session)} are left')
    time.sleep(0.02)
