"""Parts of a work unit that are kept while it is computed.

  results_dir/checkpoints/<name>-<hash>.checkpoint

A unit's rows are written when all are there. Units that take long offer what
they have so far: it is written once a minute, and when the process is told to
stop, and taken up by whoever computes the same thing next. What is restored is
bit for bit what was offered; a file that is not what was written, or is of
another program or device, is not used. When the unit is written, its files are
removed.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import hashlib
import pathlib
import re
import time
from typing import Any
from typing import NamedTuple

from absl import logging
import numpy as np

from enn_ensembles.machine import array_files
from enn_ensembles.machine import canonical
from enn_ensembles.machine import files
from enn_ensembles.machine import preemption

SECONDS_BETWEEN = 60.
_FOLDER = 'checkpoints'
_NAME = re.compile(r'.*-[0-9a-f]{16}\.checkpoint')
_STALE_DAYS = 14.


class Part(NamedTuple):
  """What is kept of one part of a unit.

  Attributes:
    info: JSON; numbers that are not finite are allowed.
    arrays: numpy arrays.
  """
  info: Mapping[str, Any]
  arrays: Sequence[np.ndarray] = ()


class Checkpoint:
  """The checkpoints of one unit.

  Args:
    results_dir: a results folder that exists.
    name: readable beginning of the files' names.
    identity: what is computed and on what, any canonical config. Versions and
      the text of this package are added: another program's numbers are never
      taken up.
    seconds_between: how often parts are written.

  Attributes:
    seconds_between: as given.
  """

  def __init__(self, results_dir: files.PathLike, name: str,
               identity: Mapping[str, Any],
               seconds_between: float = SECONDS_BETWEEN):
    self._folder = pathlib.Path(results_dir) / _FOLDER
    self._name = re.sub(r'[^A-Za-z0-9._,=+-]', '_', name)[:120]
    self._identity = {**identity, 'source': _source_digest()}
    self.seconds_between = seconds_between
    self._waiting: dict[str, tuple[Any, Callable[[], Part]]] = {}
    self._files: set[pathlib.Path] = set()
    self._last_write = time.monotonic()

  def restore(self, key: Any) -> Part | None:
    """A part that was kept, or None.

    Args:
      key: which part, any canonical config.
    """
    path, identity = self._locate(key)
    try:
      info, arrays = array_files.read(path, identity)
    except FileNotFoundError:
      return None  # As a rule there is none.
    except (OSError, array_files.StaleError) as error:
      self._files.add(path)
      logging.warning('%s is not used: %s.', path, error)
      return None
    self._files.add(path)
    return Part(info, [arrays[f'a{i}'] for i in range(len(arrays))])

  def offer(self, key: Any, make: Callable[[], Part]) -> None:
    """Says what there is of a part, at a point where nothing is half done.

    Args:
      key: which part; a later offer of it replaces an earlier one.
      make: makes what is to be kept; not called where nothing is written.

    Raises:
      preemption.Preempted: the process was told to stop; all that was offered
        is written.
    """
    self._waiting[canonical.canonical_json(key)] = (key, make)
    stop = preemption.stop_requested()
    if stop or time.monotonic() - self._last_write >= self.seconds_between:
      self.write()
    preemption.stop_if_requested()

  def write(self) -> None:
    """Writes what was offered and not written yet; a full disk is no error."""
    for key, make in self._waiting.values():
      path, identity = self._locate(key)
      part = make()
      try:
        path.parent.mkdir(exist_ok=True)
        array_files.write(
            path, identity, {f'a{i}': a for i, a in enumerate(part.arrays)},
            part.info)
        self._files.add(path)
      except (files.FileError, OSError) as error:
        # It saves time, no more: the sweep goes on without.
        logging.warning('no checkpoint: %s', error)
    self._waiting.clear()
    self._last_write = time.monotonic()

  def clear(self) -> None:
    """Removes the files: the unit's rows are written."""
    for path in self._files:
      try:
        path.unlink(missing_ok=True)
      except OSError as error:
        logging.warning('cannot remove %s: %s.', path, error.strerror)
    self._files.clear()
    self._waiting.clear()

  def _locate(self, key: Any) -> tuple[pathlib.Path, str]:
    """The file of a part, and the text of what it is of."""
    identity = canonical.canonical_json({**self._identity, 'part': key})
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return self._folder / f'{self._name}-{digest}.checkpoint', identity


def remove_stale(results_dir: pathlib.Path) -> list[pathlib.Path]:
  """Removes checkpoints that nobody has taken up for two weeks.

  What this module has not written, by its name or by how it begins, stays.

  Returns:
    What was removed. Files that cannot be are left.
  """
  folder, found, removed = results_dir / _FOLDER, [], []
  with contextlib.suppress(OSError):  # As a rule there is no folder.
    found += [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
  for path in files.old_ones(found, folder, _STALE_DAYS):
    with contextlib.suppress(OSError):  # Another process was faster.
      if array_files.is_array_file(path):
        path.unlink()
        removed.append(path)
  return removed


@functools.cache
def _source_digest() -> str:
  """A hash of this package: its version does not change with every edit."""
  sha = hashlib.sha256()
  folder = pathlib.Path(__file__).parents[1]
  for path in sorted(folder.rglob('*.py')):
    sha.update(str(path.relative_to(folder)).encode())
    sha.update(path.read_bytes())
  return sha.hexdigest()[:16]
