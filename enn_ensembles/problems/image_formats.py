"""File formats of image data sets: idx, CIFAR, npy, mat, npz.

Every reader returns images [N, H, W, C] and labels [N] as they are in the
file. Every fault of a file is a ValueError with one line that names the file.
No reader runs code from a file: pickles are read by an unpickler that knows
arrays, dicts, lists, strings and numbers only. No reader waits for a pipe: what
is no regular file is refused.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import gzip
import io
import math
import pathlib
import pickle
import struct
from typing import Any
import zlib

import numpy as np
import scipy.io

from enn_ensembles.machine import files
from enn_ensembles.machine import foreign_files

# More than any data set of small images; a damaged header may ask for more.
_MAX_BYTES = 1 << 32
_UINT8 = 8  # The only type code of idx files that images and labels have.

_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_BYTES = math.prod(_CIFAR_SHAPE)


def read_idx(path: pathlib.Path) -> np.ndarray:
  """An idx file of bytes, compressed if its name ends with .gz, uint8.

  The format of MNIST: two zeros, the type code, the number of axes, their
  sizes as big-endian integers of 32 bits, and the numbers.

  Raises:
    ValueError: the file cannot be read, or is no whole idx file of bytes.
  """
  try:
    with files.open_regular(path) as stream, (
        gzip.open(stream) if path.suffix == '.gz' else stream) as file:
      start = file.read(4)
      if len(start) < 4 or start[:2] != b'\0\0' or start[2] != _UINT8:
        raise ValueError(f'{path} is no idx file of bytes: it begins with '
                         f'{start.hex()!r}, not 000008.')
      header = file.read(4 * start[3])
      if len(header) < 4 * start[3]:
        raise ValueError(f'{path} is truncated: its header ends early.')
      shape = struct.unpack(f'>{start[3]}I', header)
      expected = math.prod(shape)
      if expected > _MAX_BYTES:
        raise ValueError(f'{path} is damaged: its header says {expected} '
                         'bytes.')
      content = file.read(expected + 1)
  except (OSError, EOFError, zlib.error) as error:
    raise foreign_files.unreadable(path, error) from error
  if len(content) != expected:
    more = 'fewer' if len(content) < expected else 'more'
    raise ValueError(f'{path} holds {more} than the {expected} bytes that its '
                     f'header says: shape {list(shape)}.')
  return np.frombuffer(content, np.uint8).reshape(shape)


def read_cifar_binary(path: pathlib.Path, num_label_bytes: int
                      ) -> tuple[np.ndarray, np.ndarray]:
  """A file of CIFAR's binary version: images uint8, labels uint8.

  Args:
    path: the file.
    num_label_bytes: 1 for CIFAR-10; 2 for CIFAR-100, where the coarse class
      comes before the fine one, which is returned.

  Raises:
    ValueError: the file cannot be read or holds no whole number of records.
  """
  content = _read_bytes(path)
  record = num_label_bytes + _CIFAR_BYTES
  if not content or len(content) % record:
    raise ValueError(f'{path} has {len(content)} bytes, which is no whole '
                     f'number of records of {record} bytes.')
  rows = np.frombuffer(content, np.uint8).reshape(-1, record)
  return (_cifar_images(rows[:, num_label_bytes:]),
          rows[:, num_label_bytes - 1])


def read_cifar_python(path: pathlib.Path, labels_key: bytes
                      ) -> tuple[np.ndarray, np.ndarray]:
  """A file of CIFAR's python version, a pickle: images uint8, labels int64.

  Args:
    path: the file.
    labels_key: b'labels' of CIFAR-10, b'fine_labels' of CIFAR-100.

  Raises:
    ValueError: the file cannot be read, holds anything but arrays and plain
      values, or not what a file of CIFAR does.
  """
  content = _read_bytes(path)
  try:
    loaded = _PlainUnpickler(io.BytesIO(content), encoding='bytes').load()
  except Exception as error:  # Damaged pickles raise nearly everything.
    raise ValueError(f'{path} is no pickle of CIFAR: '
                     f'{foreign_files.one_line(error)}') from error
  if not isinstance(loaded, Mapping):
    raise ValueError(f'{path} must hold a dict, got {type(loaded).__name__}.')
  # Written again by Python 3, its keys are str.
  loaded = {key.encode() if isinstance(key, str) else key: value
            for key, value in loaded.items()}
  missing = {b'data', labels_key} - set(loaded)
  if missing:
    names = ' and '.join(sorted(key.decode() for key in missing))
    raise ValueError(f'{path} has no {names}.')
  images, labels = loaded[b'data'], loaded[labels_key]
  if isinstance(images, _PickledArray):
    images = images.value
  if (not isinstance(images, np.ndarray) or images.dtype != np.uint8
      or images.ndim != 2 or images.shape[1] != _CIFAR_BYTES):
    raise ValueError(f'{path}: data must be uint8 [N, {_CIFAR_BYTES}].')
  if isinstance(labels, _PickledArray):
    labels = labels.value
  try:
    labels = np.asarray(labels, np.int64)
  except (TypeError, ValueError, OverflowError) as error:
    raise ValueError(f'{path}: {labels_key.decode()} must be a list of '
                     'integers.') from error
  return _cifar_images(images), labels


def read_npy(path: pathlib.Path) -> np.ndarray:
  """An .npy file of numbers.

  Raises:
    ValueError: the file cannot be read, or holds objects.
  """
  try:
    with files.open_regular(path) as stream:
      loaded = np.load(stream, allow_pickle=False)
  except Exception as error:  # A header may ask for more than the memory.
    raise foreign_files.unreadable(path, error) from error
  if not isinstance(loaded, np.ndarray):
    raise ValueError(f'{path} must hold one array, it is an .npz file.')
  return loaded


def read_npz(path: pathlib.Path, names: Sequence[tuple[str, str]]
             ) -> tuple[np.ndarray, np.ndarray]:
  """Images and labels of an .npz file.

  Args:
    path: the file.
    names: what images and labels may be called; the first pair that the file
      has is taken.

  Returns:
    Images [N, H, W, C], where [N, H, W] gets one channel, and labels [N].

  Raises:
    ValueError: the file cannot be read, holds objects, or none of the pairs.
  """
  with foreign_files.open_npz(path) as loaded:
    held = list(loaded)
    for x, y in names:
      if x in held and y in held:
        return _with_channels(loaded[x]), loaded[y]
  wanted = ', or '.join(f'{x} and {y}' for x, y in names)
  raise ValueError(f'{path} must hold {wanted}; it holds '
                   f'{", ".join(held) or "nothing"}.')


def read_svhn(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """A .mat file of SVHN's cropped digits: images uint8, labels from 0.

  In the file images are [H, W, C, N], and the label of the digit 0 is 10.

  Raises:
    ValueError: the file cannot be read, or has no X and y of such shapes.
  """
  try:
    with files.open_regular(path) as stream:
      loaded = scipy.io.loadmat(stream, variable_names=('X', 'y'))
  except Exception as error:  # Damaged files raise nearly everything.
    raise foreign_files.unreadable(path, error) from error
  missing = {'X', 'y'} - set(loaded)
  if missing:
    raise ValueError(f'{path} has no {" and ".join(sorted(missing))}.')
  images, labels = loaded['X'], loaded['y'].reshape(-1)
  if images.ndim != 4:
    raise ValueError(f'{path}: X must be [H, W, C, N], got shape '
                     f'{list(images.shape)}.')
  if labels.dtype.kind not in 'iuf':
    raise ValueError(f'{path}: y must be numbers, got {labels.dtype}.')
  images = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
  return images, np.where(labels == 10, 0, labels)


def _with_channels(images: np.ndarray) -> np.ndarray:
  return images[..., None] if images.ndim == 3 else images


def _cifar_images(rows: np.ndarray) -> np.ndarray:
  """[N, 3072], channel after channel, as [N, 32, 32, 3]."""
  return np.ascontiguousarray(
      rows.reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1))


def _read_bytes(path: pathlib.Path) -> bytes:
  try:
    return files.read_bytes(path)
  except OSError as error:
    raise foreign_files.unreadable(path, error) from error


class _PickledType:
  """Stands for numpy.dtype: only types of integers and floats."""

  def __init__(self, code: Any, *flags: Any):
    del flags
    code = code.decode() if isinstance(code, bytes) else code
    if not isinstance(code, str) or code[:1] not in ('u', 'i', 'f'):
      raise pickle.UnpicklingError(f'arrays of {code!r} are not read')
    self.dtype = np.dtype(code)

  def __setstate__(self, state: Any):
    order = state[1].decode() if isinstance(state[1], bytes) else state[1]
    self.dtype = self.dtype.newbyteorder(order)


class _PickledArray:
  """Stands for numpy's array: made from its bytes, by numpy's own checks."""

  value = None

  def __init__(self, *ignored: Any):
    del ignored  # The true shape and type come with the state.

  def __setstate__(self, state: Any):
    _, shape, kind, is_fortran, content = state
    array = np.frombuffer(content, kind.dtype)
    self.value = array.reshape(shape, order='F' if is_fortran else 'C')


def _encode(text: str, encoding: str) -> bytes:
  """Stands for _codecs.encode, by which Python 3 pickles bytes for Python 2."""
  if encoding != 'latin1':
    raise pickle.UnpicklingError(f'text in {encoding} is not read')
  return text.encode('latin1')


class _PlainUnpickler(pickle.Unpickler):
  """Makes arrays of numbers and plain values; nothing else is looked up."""

  _known: Mapping[tuple[str, str], Any] = {
      ('numpy', 'dtype'): _PickledType,
      ('numpy', 'ndarray'): _PickledArray,
      ('numpy.core.multiarray', '_reconstruct'): _PickledArray,
      ('numpy._core.multiarray', '_reconstruct'): _PickledArray,
      ('_codecs', 'encode'): _encode,
  }

  def find_class(self, module: str, name: str) -> Any:
    """The stand-in of a name; no other name is allowed."""
    if (module, name) not in self._known:
      raise pickle.UnpicklingError(f'it asks for {module}.{name}, which data '
                                   'do not need')
    return self._known[module, name]
