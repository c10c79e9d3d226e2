"""Files of the ground-truth cache: arrays that are what they say, or not used.

A file has a magic line, a header line of JSON and an npz. Its name holds a hash
of what the arrays are of (the identity); the header holds that identity, a
checksum of the draws they were made from and one of the arrays. Files are
written whole or not at all; whatever does not fit is not used, and one warning
says why.
"""

from collections.abc import Mapping
import hashlib
import io
import json
import pathlib
from typing import Any

from absl import logging
import numpy as np

from enn_ensembles.machine import canonical
from enn_ensembles.machine import files

# Of cache files and of what is in them; a change of any draw or formula of
# `problems` or `nngp` raises it.
FORMAT_VERSION = 3
_MAGIC = b'enn_ensembles ground truth\n'


class CacheEntry:
  """One cache file: magic line, header line of JSON, arrays as npz.

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
    self._header = {
        'identity': canonical.canonical_json(identity),
        'inputs': inputs
    }

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the file at once or not at all; whoever comes last wins."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    payload = stream.getvalue()
    header = {**self._header, 'sha256': hashlib.sha256(payload).hexdigest()}
    files.write_atomically(
        self._path,
        _MAGIC + json.dumps(header).encode() + b'\n' + payload)

  def read(self, stale: set[pathlib.Path]
           ) -> dict[str, np.ndarray] | None:
    """The arrays by name; None if they must be made (again).

    Says in one warning why a file that exists is not used, and adds it to
    `stale`; of what is there already it says nothing.
    """
    try:
      content = self._path.read_bytes()
    except FileNotFoundError:
      return None
    except OSError as error:
      raise ValueError(f'cache_dir holds {self._path}, which cannot be read: '
                       f'{error.strerror}.') from error
    try:
      return self._parse(content)
    except _StaleError as error:
      if self._path not in stale:
        logging.warning('%s is not used: %s.', self._path, error)
      stale.add(self._path)
      return None

  def _parse(self, content: bytes) -> dict[str, np.ndarray]:
    if not content.startswith(_MAGIC):
      raise _StaleError('it is not a ground-truth file')
    line, _, payload = content[len(_MAGIC):].partition(b'\n')
    try:
      header = json.loads(line)
    except ValueError as error:
      raise _StaleError('its header is damaged') from error
    if not isinstance(header, dict):
      raise _StaleError('its header is damaged')
    if header.get('identity') != self._header['identity']:
      raise _StaleError(_difference(header.get('identity')))
    if header.get('inputs') != self._header['inputs']:
      raise _StaleError('it was made from other draws')
    if header.get('sha256') != hashlib.sha256(payload).hexdigest():
      raise _StaleError('its contents do not match their checksum')
    # The checksum holds: these are the arrays that were written.
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
      return dict(file)


def _difference(identity: Any) -> str:
  """Why a file is of something else."""
  try:
    version = json.loads(identity)['format_version']
  except (KeyError, TypeError, ValueError):
    return 'its header is damaged'
  if version != FORMAT_VERSION:
    return (f'it has format version {version}, this program reads and writes '
            f'{FORMAT_VERSION}')
  return 'it is of another problem'


class _StaleError(Exception):
  """Why a cache file is not used."""
