"""Files that are whole or not there, and folders that take files.

Whatever the project keeps is written by `write_atomically`: a process that is
killed leaves the old file or none, and a hidden temporary file that nobody
reads. This module does not import jax.
"""

import os
import pathlib
import secrets
import threading

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


def write_atomically(path: PathLike, content: bytes) -> None:
  """Writes a file whole or not at all, whatever happens meanwhile.

  The content goes to a hidden temporary file in the same folder, to the disk,
  and takes its name by one rename. A process that dies in between leaves the
  old file (or none) and a hidden `.tmp` file that no reader looks at.

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
          stream.write(content)
          stream.flush()
          os.fsync(stream.fileno())
        os.replace(temporary, path)
      finally:
        temporary.unlink(missing_ok=True)
      # The rename is on the disk only when its folder is.
      folder = os.open(path.parent, os.O_RDONLY)
      try:
        os.fsync(folder)
      finally:
        os.close(folder)
    except OSError as error:
      raise FileError(f'cannot write {path}: {error.strerror}.') from error


def make_folder(path: PathLike, name: str) -> pathlib.Path:
  """Makes a folder, parents included, and checks that it takes files.

  Args:
    path: the folder; it may exist.
    name: what to call it in an error, e.g. 'results_dir'.

  Raises:
    FileError: it cannot be made or written to.
  """
  folder = pathlib.Path(path)
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


_STALE_DAYS = {'.tmp': 1., '.checkpoint': 14.}


def remove_stale_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Removes what killed processes left in a folder and its own folders.

  Temporary files of the last day may be about to get their name, and
  checkpoints of the last two weeks may be taken up: they stay.

  Returns:
    What was removed. Files that cannot be are left.
  """
  removed = []
  try:
    probe = folder / f'.clock.{os.getpid()}.{secrets.token_hex(4)}.tmp'
    with open(probe, 'xb'):
      pass
    now = probe.stat().st_mtime  # The clock that stamps the other files.
    probe.unlink()
    found = [path for pattern in ('.*.tmp', '*/.*.tmp', '*/*.checkpoint')
             for path in folder.glob(pattern)]
  except OSError:
    return []
  for path in found:
    try:
      age_days = (now - path.stat().st_mtime) / 86400
      if age_days > _STALE_DAYS[path.suffix]:
        path.unlink()
        removed.append(path)
    except OSError:
      continue  # Another process was faster.
  return removed
