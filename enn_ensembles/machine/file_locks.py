"""Locks between processes that share a folder, or a machine.

They are the kernel's own (flock): a lock ends with its process, whatever ends
that. Where the file system or the system has none, nobody waits: whatever is
locked here is also safe, if wasteful, without.
"""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import socket
import stat
import tempfile
import time

try:
  import fcntl
except ImportError:  # Not on this system.
  fcntl = None

from absl import logging

from enn_ensembles.machine import files
from enn_ensembles.machine import preemption
from enn_ensembles.machine import process_table
from enn_ensembles.machine import strict_json

# What processes of one user on one machine share.
_MACHINE_FOLDER = 'enn_ensembles-{user}'
_MACHINE_LOCK = 'large_solver.lock'
# Of the machine's memory; the rest is for whatever else runs.
_SHARE_OF_MEMORY = 0.75

# How often who waits looks again, at first and later, and says that it waits.
_FIRST_POLL_SECONDS = 0.01
_LAST_POLL_SECONDS = 0.5
_SECONDS_BEFORE_LINE = 5.
_SECONDS_BETWEEN_LINES = 30.


class ClaimedError(Exception):
  """Another process has the claim; the message says which."""


@contextlib.contextmanager
def claim(path: pathlib.Path, wait: bool = True) -> Iterator[bool]:
  """Has a claim that no other process has at the same time.

  Whoever waits says whom for, after 5 seconds and then every 30, and stops
  waiting where this process is told to stop.

  Args:
    path: a file that exists while somebody has the claim; it says who.
    wait: wait until no other process has it.

  Yields:
    Whether the claim is had; False where there are no locks, so that others may
    be at the same work.

  Raises:
    ClaimedError: another process has it, and not `wait`.
    preemption.Preempted: this process was told to stop while it waited.
  """
  descriptor = _lock(path, wait)
  try:
    yield descriptor is not None
  finally:
    if descriptor is not None:
      with contextlib.suppress(OSError):
        os.unlink(path)
      os.close(descriptor)


def _lock(path: pathlib.Path, wait: bool) -> int | None:
  """The descriptor of the locked file; None where there are no locks."""
  start, pause = time.monotonic(), _FIRST_POLL_SECONDS
  next_line = start + _SECONDS_BEFORE_LINE
  while fcntl is not None:
    try:
      descriptor = _open(path)
    except OSError as error:
      logging.info('%s cannot be locked: %s.', path, error.strerror)
      return None
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if _is_at(descriptor, path):
        _write_owner(descriptor)
        return descriptor
      os.close(descriptor)  # The one before removed it: it locks nothing.
      continue
    except BlockingIOError:
      owner = _owner(descriptor)
      os.close(descriptor)
    except OSError as error:
      os.close(descriptor)
      logging.warning('%s cannot be locked: %s; other processes may do the '
                      'same work.', path, error.strerror)
      return None
    if not wait:
      raise ClaimedError(f'{path} is claimed by {owner}.')
    preemption.stop_if_requested()
    now = time.monotonic()
    if now >= next_line:
      logging.warning('waiting, for %.0f s by now, until %s gives back %s or '
                      'ends.', now - start, owner, path)
      next_line = now + _SECONDS_BETWEEN_LINES
    time.sleep(pause)
    pause = min(2 * pause, _LAST_POLL_SECONDS)
  return None


def _open(path: pathlib.Path) -> int:
  """The lock's file, made if missing; never another one by a symbolic link."""
  careful = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
  try:
    return os.open(path, os.O_RDWR | os.O_CREAT | careful, 0o666)
  except PermissionError:  # Another user's, which can be locked all the same.
    return os.open(path, os.O_RDONLY | careful)


def _write_owner(descriptor: int) -> None:
  """Says in the file who has the claim; that is for messages only."""
  owner = {'host': socket.gethostname(), 'pid': os.getpid()}
  with contextlib.suppress(OSError):  # A full disk.
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _owner(descriptor: int) -> str:
  """Who has a claim, as far as its file says."""
  try:
    owner = strict_json.parse(os.pread(descriptor, 1000, 0))
    host, pid = str(owner['host']), int(owner['pid'])
  except (OSError, ValueError, KeyError, TypeError):
    return 'another process'
  stopped = ''
  if host == socket.gethostname():
    fields = process_table.fields_of(pid)
    if fields is not None and fields[0] in 'Tt':
      stopped = f', which is stopped (kill -CONT {pid} lets it go on)'
  return f'process {pid} on {host}{stopped}'


def _is_of_a_claim(descriptor: int) -> bool:
  """Whether a file says what `_write_owner` does, or nothing yet."""
  text = os.pread(descriptor, 1000, 0)
  try:
    return not text or set(strict_json.parse(text)) == {'host', 'pid'}
  except (ValueError, TypeError):
    return False


def remove_abandoned(path: pathlib.Path) -> None:
  """Removes the file of a claim whose process was killed; else nothing.

  A file that is no claim's, whoever wrote it, stays.
  """
  if fcntl is None or not path.is_file():
    return
  with contextlib.suppress(OSError):
    descriptor = _open(path)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if _is_at(descriptor, path) and _is_of_a_claim(descriptor):
        os.unlink(path)
    finally:
      os.close(descriptor)


def remove_all_abandoned(folder: pathlib.Path, suffix: str = '.lock') -> None:
  """`remove_abandoned` for every file of a claim in a folder.

  Args:
    folder: the folder; one that is missing has none.
    suffix: what names of claims end with there. Where the folder holds
      anybody's files, it is one that nobody else uses: other programs' locks
      may be empty, too.

  Raises:
    files.FileError: the folder cannot be looked at.
  """
  for path in files.list_files(folder, suffix):
    remove_abandoned(path)


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
  """Whether the path still leads to this open file."""
  try:
    found = os.lstat(path)
  except FileNotFoundError:
    return False
  ours = os.fstat(descriptor)
  return (ours.st_ino, ours.st_dev) == (found.st_ino, found.st_dev)


def claim_memory(memory_mb: float) -> contextlib.AbstractContextManager[object]:
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
  folder = machine_folder()
  if folder is None:
    return contextlib.nullcontext()
  return claim(folder / _MACHINE_LOCK)


def machine_folder() -> pathlib.Path | None:
  """A folder of this user alone in the temporary folder that all users share.

  None, and a warning, where another user was there first: what lies there may
  be a link to anywhere.
  """
  user = os.getuid() if hasattr(os, 'getuid') else 'all'
  folder = pathlib.Path(tempfile.gettempdir(),
                        _MACHINE_FOLDER.format(user=user))
  try:
    with contextlib.suppress(FileExistsError):
      folder.mkdir(mode=0o700)
    found = os.lstat(folder)
  except OSError as error:
    logging.warning('%s cannot be made: %s; other large work may run at the '
                    'same time.', folder, error.strerror)
    return None
  safe = stat.S_ISDIR(found.st_mode) and (
      user == 'all' or (found.st_uid == user and not found.st_mode & 0o077))
  if not safe:
    logging.warning('%s is not a folder of this user alone and is not used; '
                    'other large work may run at the same time.', folder)
    return None
  return folder


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
