"""Files of arrays that are what they say, or not used: the one format for them.

  enn_ensembles arrays
  {"identity": "...", "info": {...}, "sha256": "..."}
  <npz>

The first line is the same in all files. The identity is a text that says what
the arrays are of, as `canonical.canonical_json` writes it; whoever reads a file
knows it beforehand. `info` is any JSON object, in which numbers need not be
finite. The checksum is of the header without it and of the npz. Files are
written whole or not at all, and may be larger than what is free of the memory.

The ground-truth cache, the checkpoints of units and the steps of the
matrix-free solver are such files.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import hashlib
import json
from typing import Any
from typing import BinaryIO
from typing import NamedTuple

import numpy as np

from enn_ensembles.machine import files

_MAGIC = b'enn_ensembles arrays\n'
_LONGEST_HEADER = 2**26
_CHUNK = 2**20


class Contents(NamedTuple):
  """What a file holds.

  Attributes:
    info: JSON; numbers that are not finite are allowed.
    arrays: numpy arrays by name.
  """
  info: Mapping[str, Any]
  arrays: Mapping[str, np.ndarray]


class StaleError(Exception):
  """A file is there and cannot be used; the message says why.

  Attributes:
    identity: the text that the file has instead of the one that was asked for;
      None where that is not what is wrong.
  """

  def __init__(self, reason: str, identity: str | None = None):
    super().__init__(reason)
    self.identity = identity


def write(path: files.PathLike, identity: str,
          arrays: Mapping[str, np.ndarray],
          info: Mapping[str, Any] | None = None) -> None:
  """Writes a file at once or not at all; whoever comes last wins.

  Args:
    path: the file.
    identity: what the arrays are of.
    arrays: by name; names are valid identifiers, but for dots.
    info: see `Contents`; None is empty.

  Raises:
    FileError: the folder or the disk refuses.
  """
  header = {'identity': identity, 'info': dict(info or {})}

  def write_to(stream: BinaryIO) -> None:
    # The header comes first and holds a checksum of what follows: its place is
    # kept by another one of the same length.
    stream.write(_MAGIC + _header_line(header, '0' * 64))
    summing = _SummingStream(stream, _first_sum(header))
    # Typed for paths only, and content with anything that has `write`.
    np.savez(summing, **arrays)  # type: ignore[arg-type]
    stream.seek(len(_MAGIC))
    stream.write(_header_line(header, summing.sha.hexdigest()))

  files.write_atomically(path, write_to)


def is_array_file(path: files.PathLike) -> bool:
  """Whether a file begins as `write` begins it, or is empty.

  A machine that loses its power may leave an empty file.

  Raises:
    OSError: it is not there, or cannot be read.
  """
  with files.open_regular(path) as stream:
    return stream.read(len(_MAGIC)) in (_MAGIC, b'')


def read(path: files.PathLike, identity: str) -> Contents:
  """Reads a file and checks that it is what was written.

  Raises:
    StaleError: it is something else.
    OSError: it is not there, or cannot be read.
  """
  with files.open_regular(path) as stream:
    header = _read_header(stream)
    if header['identity'] != identity:
      raise StaleError('it is of something else', header['identity'])
    expected = header.pop('sha256')
    sha, start = _first_sum(header), stream.tell()
    while chunk := stream.read(_CHUNK):
      sha.update(chunk)
    if sha.hexdigest() != expected:
      raise StaleError('its contents do not match their checksum')
    # The checksum holds: these are the arrays that were written.
    stream.seek(start)
    with _load(stream) as arrays:
      return Contents(header['info'], dict(arrays))


def read_or_say_why(path: files.PathLike, identity: str, inputs: str,
                    label: str, difference: Callable[[str], str]
                    ) -> Contents | str | None:
  """Reads a file that was made from certain draws, if it is the one wanted.

  Args:
    path: the file.
    identity: what its arrays must be of.
    inputs: the checksum of the draws that they must be made from, which
      `info['inputs']` holds.
    label: what an error calls the file.
    difference: what a file's other identity differs in, as a clause.

  Returns:
    The contents; a clause that says why the file is not used; None where there
    is no file.

  Raises:
    ValueError: the file exists and cannot be read.
  """
  try:
    contents = read(path, identity)
  except FileNotFoundError:
    return None
  except OSError as error:
    raise ValueError(f'{label} cannot be read: {error.strerror}.') from error
  except StaleError as error:
    return str(error) if error.identity is None else difference(error.identity)
  if contents.info.get('inputs') != inputs:
    return 'it was made from other draws'
  return contents


@contextlib.contextmanager
def _load(stream: BinaryIO) -> Iterator[Mapping[str, np.ndarray]]:
  with np.load(stream, allow_pickle=False) as arrays:
    yield arrays


def _read_header(stream: BinaryIO) -> dict[str, Any]:
  """The header line; StaleError unless it is one."""
  if stream.read(len(_MAGIC)) != _MAGIC:
    raise StaleError('it is no file of arrays of this project')
  try:
    header = json.loads(stream.readline(_LONGEST_HEADER))
  except (ValueError, RecursionError):
    raise StaleError('its header is damaged') from None
  if (not isinstance(header, dict)
      or set(header) != {'identity', 'info', 'sha256'}
      or not isinstance(header['identity'], str)
      or not isinstance(header['info'], dict)):
    raise StaleError('its header is damaged')
  return header


def _header_line(header: Mapping[str, Any], sha256: str) -> bytes:
  return json.dumps({**header, 'sha256': sha256}).encode() + b'\n'


def _first_sum(header: Mapping[str, Any]) -> Any:
  """SHA-256 of the header without its checksum, to be continued."""
  return hashlib.sha256(json.dumps(header, sort_keys=True).encode())


class _SummingStream:
  """A stream for `np.savez` that only goes on, and sums what goes through.

  Without `seek` the archive is written in one piece, without going back.
  """

  def __init__(self, stream: BinaryIO, sha: Any):
    self._stream = stream
    self.sha = sha

  def write(self, data: Any) -> int:
    self.sha.update(data)
    return self._stream.write(data)

  def flush(self) -> None:
    self._stream.flush()

  def read(self, size: int = -1) -> bytes:
    """Numpy takes what has no such method for a path."""
    raise OSError('this stream is only written to')
