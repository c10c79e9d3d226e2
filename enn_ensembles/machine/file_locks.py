"""Locks between processes that share a folder, or a machine.

They are the kernel's own (flock): a lock ends with its process, whatever ends
that. Where the file system or the system has none, nobody waits: whatever is
locked here is also safe, if wasteful, without.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import tempfile

try:
  import fcntl
except ImportError:  # Not on this system.
  fcntl = None

from absl import logging

# What all solvers of this machine's user that are large share.
_MACHINE_LOCK = 'enn_ensembles_large_solver_{user}.lock'
# Of the machine's memory; the rest is for whatever else runs.
_SHARE_OF_MEMORY = 0.75


@contextlib.contextmanager
def claim(path: pathlib.Path) -> Iterator[None]:
  """Waits until no other process has the claim, then has it.

  Args:
    path: a file that exists while somebody has the claim; what is in it does
      not matter.
  """
  file = None
  try:
    while fcntl is not None:
      file = open(path, 'a')
      fcntl.flock(file, fcntl.LOCK_EX)
      if _is_at(file, path):
        break
      file.close()  # The one before removed it: it locks nothing.
  except OSError as error:
    logging.info('%s cannot be locked: %s.', path, error.strerror)
  try:
    yield
  finally:
    if file is not None:
      with contextlib.suppress(OSError):
        os.unlink(path)
      file.close()


def remove_abandoned(path: pathlib.Path) -> None:
  """Removes the file of a claim whose process was killed; else nothing."""
  if fcntl is None:
    return
  with contextlib.suppress(OSError), open(path, 'r+') as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if _is_at(file, path):
      os.unlink(path)


def _is_at(file, path: pathlib.Path) -> bool:
  """Whether the path still leads to this open file."""
  try:
    return os.fstat(file.fileno()).st_ino == os.stat(path).st_ino
  except FileNotFoundError:
    return False


def claim_memory(memory_mb: float) -> contextlib.AbstractContextManager[None]:
  """Waits for other large work of this user on this machine.

  Work is large if it would not fit into the machine's memory as often as there
  are processes that have as many cores as this one, and twice: that is done one
  at a time, all other at once.

  Args:
    memory_mb: what the work needs, MB of 10^6 bytes.
  """
  memory = _machine_memory_mb()
  num_processes = max(2, _machine_cores() // _own_cores())
  if memory is None or memory_mb * num_processes <= _SHARE_OF_MEMORY * memory:
    return contextlib.nullcontext()
  user = os.getuid() if hasattr(os, 'getuid') else 'all'
  return claim(pathlib.Path(tempfile.gettempdir(),
                            _MACHINE_LOCK.format(user=user)))


def _machine_cores() -> int:
  return os.cpu_count() or 1


def _own_cores() -> int:
  """Cores that this process may use: a worker's, or a cluster job's."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return _machine_cores()


def _machine_memory_mb() -> float | None:
  """Memory of this machine; None where it does not say."""
  try:
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e6
  except (AttributeError, OSError, ValueError):
    return None
