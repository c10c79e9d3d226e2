"""Files of the ground-truth cache: what they are of, and why one is not used.

A file is one of `machine.array_files`. Its name holds a hash of what its arrays
are of (the identity); it also holds a checksum of the draws that they were made
from. Of a file that does not fit, one warning says why, and it is made again.
"""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

from absl import logging
import numpy as np

from enn_ensembles.machine import array_files
from enn_ensembles.machine import canonical
from enn_ensembles.machine import file_locks
from enn_ensembles.machine import files
from enn_ensembles.nngp import step_files
from enn_ensembles.problems import solvers

# Of cache files and of what is in them; a change of any draw or formula of
# `problems` or `nngp` raises it.
FORMAT_VERSION = 3

# What the names of all files of one function begin with ends with this.
FUNCTION = '_function'
_STALE_DAYS = 14.  # Of steps that a killed solver left.


def remove_leftovers(cache_dir: pathlib.Path) -> None:
  """Removes what killed processes left in the cache; it harms nobody.

  Steps of the last two weeks may be taken up: they stay. So does every file of
  anybody else, since the folder is the user's choice.

  Args:
    cache_dir: the folder; one that is missing holds nothing.
  """
  files.remove_stale_files(cache_dir)
  steps = solvers.find_steps(cache_dir, f'.+{FUNCTION}')
  for folder in files.old_ones(steps, cache_dir, _STALE_DAYS):
    step_files.remove(folder)
  file_locks.remove_all_abandoned(cache_dir, f'{FUNCTION}.lock')


class CacheEntry:
  """One file of the cache.

  Args:
    cache_dir: the folder, which exists.
    name: the readable part of the file's name.
    identity: what the arrays are of, any canonical config.
    inputs: a checksum of the draws that they were made from.
  """

  def __init__(self, cache_dir: pathlib.Path, name: str,
               identity: Mapping[str, Any], inputs: str):
    identity = {**identity, 'format_version': FORMAT_VERSION}
    self._path = cache_dir / f'{name}_{canonical.config_hash(identity)}.cache'
    self._identity = canonical.canonical_json(identity)
    self._inputs = inputs

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the file at once or not at all; whoever comes last wins.

    Args:
      arrays: numpy arrays of any shape, by name.

    Raises:
      FileError: the folder or the disk refuses.
    """
    array_files.write(self._path, self._identity, arrays,
                      {'inputs': self._inputs})

  def read(self, stale: set[pathlib.Path]) -> Mapping[str, np.ndarray] | None:
    """The arrays by name; None if they must be made (again).

    Says in one warning why a file that exists is not used, and adds it to
    `stale`; says nothing of files that are there already.

    Raises:
      ValueError: the file exists and cannot be read.
    """
    found = array_files.read_or_say_why(
        self._path, self._identity, self._inputs,
        f'cache_dir holds {self._path}, which', _difference)
    if found is None:
      return None
    if isinstance(found, array_files.Contents):
      return found.arrays
    if self._path not in stale:
      logging.warning('%s is not used: %s.', self._path, found)
    stale.add(self._path)
    return None


def _difference(identity: str) -> str:
  """Why a file is of something else."""
  try:
    version = json.loads(identity)['format_version']
  except (KeyError, TypeError, ValueError, RecursionError):
    return 'its header is damaged'
  if version != FORMAT_VERSION:
    return (f'it has format version {version}, this program reads and writes '
            f'{FORMAT_VERSION}')
  return 'it is of another problem'
