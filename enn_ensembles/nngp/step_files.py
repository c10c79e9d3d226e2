"""Steps of a long computation on the disk: killed, it goes on from there."""

from collections.abc import Mapping
import contextlib
import os
import pathlib
from typing import Any

from absl import logging
import numpy as np

from enn_ensembles.machine import array_files
from enn_ensembles.machine import files

PathLike = str | os.PathLike

_SUFFIX = '.arrays'


class StepFiles:
  """Named sets of arrays in a folder, each written whole or not at all.

  Each belongs to all that were saved before it. So what lies there is taken up
  to the first that is missing or damaged: once a step is computed again, the
  later ones are of no use.
  """

  def __init__(self, path: PathLike | None, identity: str):
    self._folder = None if path is None else pathlib.Path(path)
    self._identity = identity
    self._resuming = True
    if self._folder is None:
      return
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise ValueError(f'checkpoint_path cannot be used: {path}: '
                       f'{error.strerror}.') from error

  def save(self, name: str, arrays: Mapping[str, Any]) -> None:
    """Keeps a set; that it cannot be kept is a warning, not an error."""
    self._resuming = False
    if self._folder is None:
      return
    try:
      # Where processes cannot claim it, another may have removed it.
      self._folder.mkdir(parents=True, exist_ok=True)
      array_files.write(self._path(name), self._identity, {
          key: np.asarray(value) for key, value in arrays.items()})
    except (OSError, files.FileError) as error:
      logging.warning('no checkpoint, the computation goes on without: %s',
                      error)

  def load(self, name: str) -> dict[str, np.ndarray] | None:
    """A set that was kept; None if it must be computed.

    Raises:
      ValueError: it is of another computation.
    """
    if self._folder is None or not self._resuming:
      return None
    path = self._path(name)
    try:
      return dict(array_files.read(path, self._identity).arrays)
    except FileNotFoundError:
      return None
    except array_files.StaleError as error:
      if error.identity is not None:
        raise ValueError(f'the checkpoint {path} is of another computation: '
                         'remove its folder or name another.') from None
      logging.warning('the checkpoint %s is not used: %s.', path, error)
    except OSError as error:
      logging.warning('the checkpoint %s is not used: %s.', path,
                      error.strerror)
    return None

  def _path(self, name: str) -> pathlib.Path:
    assert self._folder is not None
    return self._folder / f'{name}{_SUFFIX}'


def remove(folder: pathlib.Path) -> None:
  """Removes the files of steps in a folder, and the folder if it is empty then.

  Files that `StepFiles` has not written stay, and so does what cannot be
  removed.
  """
  with contextlib.suppress(OSError):  # Another process is at the same.
    for path in folder.iterdir():
      if files.is_temporary(path.name) or (
          path.suffix == _SUFFIX and array_files.is_array_file(path)):
        path.unlink()
    folder.rmdir()
