"""Files that are whole or not there, and folders that take files.

Whatever the project keeps is written by `write_atomically`: a process that is
killed leaves the old file or none, and a hidden temporary file that nobody
reads. This module does not import jax.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import errno
import os
import pathlib
import re
import secrets
import stat
import threading
import time
from typing import BinaryIO

from absl import logging

PathLike = str | os.PathLike


class FileError(ValueError):
  """A file or a folder is not as it must be."""


# Held while a file is written: whoever ends the process from another thread can
# wait for it (`finish_writing`), so that no temporary file stays.
_writing = threading.Lock()


def finish_writing(timeout_seconds: float) -> None:
  """Waits until no file is half written, and keeps further ones from starting.

  For a process that is about to end; the lock is never given back.
  """
  _writing.acquire(timeout=timeout_seconds)


def write_atomically(path: PathLike,
                     content: bytes | Callable[[BinaryIO], object],
                     durable: bool = True) -> None:
  """Writes a file whole or not at all, whatever happens meanwhile.

  The content goes to a hidden temporary file in the same folder, to the disk,
  and takes its name by one rename. A process that dies in between leaves the
  old file (or none) and a hidden `.tmp` file that no reader looks at.

  Args:
    path: the file.
    content: what goes there, or what writes it to the stream that it is given,
      where it should not be in the memory as a whole.
    durable: wait until it is on the disk. Without, a machine that loses its
      power may keep an empty file, for readers who know what they expect.

  Raises:
    FileError: the folder or the disk refuses, with its reason.
  """
  path = pathlib.Path(path)
  # Not tempfile.mkstemp: its files are closed to the other users of a folder.
  temporary = path.parent / (
      f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp')
  with _writing:
    try:
      try:
        with open(temporary, 'xb') as stream:
          if callable(content):
            content(stream)
          else:
            stream.write(content)
          if durable:
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
      except BaseException:
        temporary.unlink(missing_ok=True)
        raise
      if not durable:
        return
      # The rename is on the disk only when its folder is.
      folder = os.open(path.parent, os.O_RDONLY)
      try:
        os.fsync(folder)
      finally:
        os.close(folder)
    except OSError as error:
      raise FileError(f'cannot write {path}: {error.strerror}.') from error


def as_folder(path: PathLike, name: str) -> pathlib.Path:
  """The path of a folder; FileError where it is empty or no path at all."""
  if not isinstance(path, PathLike) or not str(path):
    got = repr(path) if str(path) else 'nothing'
    raise FileError(f'{name} must name a folder, got {got}.')
  return pathlib.Path(path)


def make_folder(path: PathLike, name: str) -> pathlib.Path:
  """Makes a folder, parents included, and checks that it takes files.

  Args:
    path: the folder; it may exist.
    name: what to call it in an error, e.g. 'results_dir'.

  Raises:
    FileError: it cannot be made or written to.
  """
  folder = as_folder(path, name)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f'.probe.{os.getpid()}.{secrets.token_hex(4)}.tmp'
    with open(probe, 'xb'):
      pass
    probe.unlink()
  except OSError as error:
    raise FileError(f'{name} {str(path)!r} is not a folder that can be '
                    f'written to: {error.strerror}.') from error
  return folder


def _is_there(path: pathlib.Path) -> bool:
  """Whether something has this name; OSError where nothing can."""
  try:
    os.lstat(path)
    return True
  except FileNotFoundError:
    return False


def check_folder(path: PathLike, name: str) -> None:
  """Checks, without making anything, that `make_folder` has a chance.

  Raises:
    FileError: what is there already, the folder or one above, is no folder that
      can be written to.
  """
  folder = as_folder(path, name).absolute()
  try:
    while not _is_there(folder):
      folder = folder.parent
    if not stat.S_ISDIR(os.stat(folder).st_mode):
      raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
  except OSError as error:
    raise FileError(f'{name} {str(path)!r} is not a folder that can be '
                    f'written to: {error.strerror}.') from error


def check_file(path: PathLike, name: str) -> None:
  """Checks, without making anything, that `write_atomically` has a chance.

  Raises:
    FileError: there is a folder of this name, or the folder above is none that
      can be written to.
  """
  path = pathlib.Path(path)
  if not path.name or path.is_dir():
    raise FileError(f'{name} must name a file, got {str(path)!r}, which is a '
                    'folder.')
  if not path.parent.is_dir():
    raise FileError(f'{name} {str(path)!r} must be in a folder that exists.')
  check_folder(path.parent, f'the folder of {name}')


def why_no_file(path: PathLike) -> str:
  """'which does not exist', for a path that `is_file` denies."""
  try:
    os.stat(path)
  except PermissionError as error:
    return f'which cannot be looked at: {error.strerror}'
  except (OSError, ValueError):
    return 'which does not exist'
  return 'which is no file'


def make_private_folder(path: PathLike, name: str) -> pathlib.Path:
  """As `make_folder`, for a folder whose content is trusted or run.

  It is made for its owner alone (mode 0700). One that exists is taken only if
  it is this user's and nobody else may write to it.

  Raises:
    FileError: it cannot be made or written to, or others may.
  """
  folder = pathlib.Path(path)
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
  except OSError as error:
    raise FileError(f'{name} {str(path)!r} is not a folder that can be '
                    f'written to: {error.strerror}.') from error
  if hasattr(os, 'getuid') and found.st_uid != os.getuid():
    raise FileError(f'{name} {str(path)!r} belongs to another user, and what '
                    'lies there is trusted: name a folder of your own.')
  if hasattr(os, 'getuid') and found.st_mode & 0o022:
    raise FileError(
        f'{name} {str(path)!r} can be written to by other users, and what lies '
        'there is trusted: remove it, or chmod 700 it if all of it is yours.')
  return make_folder(folder, name)


def list_files(folder: pathlib.Path, suffix: str) -> list[pathlib.Path]:
  """The regular files of a folder with a suffix, hidden ones left out, sorted.

  Pipes, sockets and devices, which may take for ever to open, and symbolic
  links that lead nowhere are skipped with a warning. A folder that is missing
  has no files.

  Raises:
    FileError: the folder, or where a link leads, cannot be looked at: nobody
      knows what is there.
  """
  found = []
  try:
    with os.scandir(folder) as entries:
      for entry in entries:
        if entry.name.startswith('.') or not entry.name.endswith(suffix):
          continue
        if _is_regular(entry):
          found.append(entry.name)
        else:
          logging.warning('%s is skipped: it is no regular file%s.', entry.path,
                          ', or leads to none' if entry.is_symlink() else '')
  except FileNotFoundError:
    if folder.is_symlink():
      raise FileError(f'cannot list {folder}: it is a symbolic link that leads '
                      'nowhere.') from None
    return []
  except OSError as error:
    raise FileError(f'cannot list {folder}: {error.strerror}.') from error
  return [folder / name for name in sorted(found)]


def _is_regular(entry: os.DirEntry[str]) -> bool:
  """Whether it is, or leads to, a regular file."""
  try:
    return entry.is_file()
  except OSError as error:
    if error.errno == errno.ELOOP:
      return False
    raise FileError(f'cannot read {entry.path}: {error.strerror}.') from error


def is_file(path: PathLike) -> bool:
  """Whether there is a regular file; False for what cannot be a name."""
  try:
    return pathlib.Path(path).is_file()
  except (OSError, ValueError):  # Too long, or with a NUL.
    return False


def open_regular(path: PathLike) -> BinaryIO:
  """Opens a regular file for reading; never waits for a pipe.

  Raises:
    OSError: as `open`, or it is no regular file.
  """
  descriptor = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0)
                       | getattr(os, 'O_BINARY', 0))
  if not stat.S_ISREG(os.fstat(descriptor).st_mode):
    os.close(descriptor)
    raise OSError(errno.EINVAL, 'it is no regular file', str(path))
  return open(descriptor, 'rb')


def read_bytes(path: PathLike) -> bytes:
  """The content of a regular file; see `open_regular`."""
  with open_regular(path) as stream:
    return stream.read()


# The names that temporary files get here, and in `heartbeats`.
_TEMPORARY = re.compile(r'\..*(\.[0-9]+\.[0-9a-f]{8}|-[0-9]+-[0-9a-f]{8}\.json)'
                        r'\.tmp', re.DOTALL)
_TEMPORARY_DAYS = 1.


def is_temporary(name: str) -> bool:
  """Whether this project names its temporary files so."""
  return _TEMPORARY.fullmatch(name) is not None


def remove_stale_files(folder: pathlib.Path, subfolders: Sequence[str] = ()
                       ) -> list[pathlib.Path]:
  """Removes the temporary files that killed processes left.

  Those of the last day may be about to get their name: they stay, and so does
  whatever has another name than `write_atomically` gives.

  Args:
    folder: the folder; it may hold anybody's files.
    subfolders: names of folders in it where the same is done.

  Returns:
    What was removed. Files that cannot be are left.
  """
  found = []
  for place in (folder, *(folder / name for name in subfolders)):
    with contextlib.suppress(OSError):
      found += [path for path in place.iterdir() if is_temporary(path.name)]
  return [path for path in old_ones(found, folder, _TEMPORARY_DAYS)
          if _remove(path)]


def old_ones(paths: Iterable[pathlib.Path], folder: pathlib.Path, days: float
             ) -> Iterator[pathlib.Path]:
  """Those that nobody has written to for so long, by the clock of a folder."""
  now = None
  for path in paths:
    now = file_system_time(folder) if now is None else now
    try:
      if now - newest_change(path) > 86400 * days:
        yield path
    except OSError:
      continue  # Another process was faster.


def _remove(path: pathlib.Path) -> bool:
  """Whether this process has removed the file."""
  try:
    path.unlink()
    return True
  except OSError:
    return False


def file_system_time(folder: pathlib.Path) -> float:
  """The clock that stamps files there; this machine's where it cannot be asked.

  A server's clock and ours may be minutes apart.
  """
  probe = folder / f'.clock.{os.getpid()}.{secrets.token_hex(4)}.tmp'
  try:
    with open(probe, 'xb'):
      pass
    try:
      return probe.stat().st_mtime
    finally:
      probe.unlink()
  except OSError:
    return time.time()


def newest_change(path: pathlib.Path) -> float:
  """When a file, or a folder or any file in it, was last written to."""
  return max([path.stat().st_mtime, *(
      file.stat().st_mtime for file in (path.iterdir() if path.is_dir() else ())
  )])
