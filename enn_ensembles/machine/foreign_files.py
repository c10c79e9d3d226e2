"""Files that anybody may have written: every fault is one line that names them.

`array_files` are this project's own.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import pathlib

import numpy as np

from enn_ensembles import checks
from enn_ensembles.machine import files


@contextlib.contextmanager
def open_npz(path: pathlib.Path) -> Iterator[Mapping[str, np.ndarray]]:
  """The arrays of an npz file by name, each read when it is asked for.

  No code of the file is run, and a pipe is not waited for.

  Raises:
    ValueError: in the `with` block too: the file cannot be read, is no npz
      file, or an array in it is damaged, of objects, or no array.
  """
  try:
    with files.open_regular(path) as stream:
      loaded = np.load(stream, allow_pickle=False)
      if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise ValueError('it is one array, an .npy file')
      with loaded:
        yield _Arrays(loaded)
  # zipfile, zlib and numpy each have their own, and a header may ask for more
  # than the memory.
  except Exception as error:
    raise unreadable(path, error) from error


class _Arrays(Mapping[str, np.ndarray]):
  """What numpy gives, where a member that is no array is an error."""

  def __init__(self, loaded: Mapping[str, np.ndarray]):
    self._loaded = loaded

  def __getitem__(self, name: str) -> np.ndarray:
    value = self._loaded[name]
    if not isinstance(value, np.ndarray):
      raise ValueError(f'{name!r} is no array')
    return value

  def __iter__(self) -> Iterator[str]:
    return iter(self._loaded)

  def __len__(self) -> int:
    return len(self._loaded)


def unreadable(path: pathlib.Path, error: Exception) -> ValueError:
  """The error that says in one line why a file cannot be read."""
  reason = getattr(error, 'strerror', None)
  if reason:  # Of the system: the file itself may be sound.
    return ValueError(f'{path} cannot be read: {reason}.')
  return ValueError(f'{path} cannot be read, it is damaged or truncated: '
                    f'{one_line(error)}')


def one_line(error: Exception) -> str:
  """What an exception says, in one line that ends with a full stop."""
  return checks.error_reason(error).rstrip('.') + '.'
