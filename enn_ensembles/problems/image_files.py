"""Image data sets by name, from files that the user has.

Nothing is downloaded. A data set lies in its own folder of a folder that the
user names: by an argument, or by the environment variable
ENN_ENSEMBLES_DATA. 'npz:NAME' is the user's own file, NAME.npz.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
from typing import NamedTuple

import numpy as np

from enn_ensembles import checks
from enn_ensembles.problems import image_data
from enn_ensembles.problems import image_formats

ENVIRONMENT_VARIABLE = 'ENN_ENSEMBLES_DATA'
NPZ_PREFIX = 'npz:'

_MAX_CLASSES = 10_000  # Of users' own files: larger labels are a mistake.
_SEVERITIES = 5  # Of CIFAR-10-C: each file has all of them, one by one.

Arrays = tuple[np.ndarray, np.ndarray]


class _Place(NamedTuple):
  """One way in which a data set may lie in a folder.

  Attributes:
    files: what must be there, relative to the folder of the user.
    read: the paths of these files -> images and labels.
  """
  files: tuple[str, ...]
  read: Callable[[Sequence[pathlib.Path]], Arrays]


class _ImageSet(NamedTuple):
  """A published data set.

  Attributes:
    places: split -> the ways in which it may lie there.
    shape: of its images, (H, W, C).
    num_classes: of its labels.
    page: where it comes from.
  """
  places: Callable[[str], Sequence[_Place]]
  shape: tuple[int, int, int]
  num_classes: int
  page: str


def _idx_places(*folders: str) -> Callable[[str], Sequence[_Place]]:
  """MNIST's four files, compressed or not, in one of some folders."""

  def read(paths: Sequence[pathlib.Path]) -> Arrays:
    images, labels = (image_formats.read_idx(path) for path in paths)
    return images[..., None], labels

  def places(split: str) -> Sequence[_Place]:
    start = {'train': 'train', 'test': 't10k'}[split]
    return [
        _Place((f'{folder}/{start}-images-idx3-ubyte{end}',
                f'{folder}/{start}-labels-idx1-ubyte{end}'), read)
        for folder in folders for end in ('.gz', '')]

  return places


def _cifar_places(binary: str, binary_files: Mapping[str, Sequence[str]],
                  num_label_bytes: int, python: str,
                  python_files: Mapping[str, Sequence[str]],
                  labels_key: bytes) -> Callable[[str], Sequence[_Place]]:
  """CIFAR's binary or python version."""

  def joined(parts: Sequence[Arrays]) -> Arrays:
    images, labels = zip(*parts)
    return np.concatenate(images), np.concatenate(labels)

  def read_binary(paths: Sequence[pathlib.Path]) -> Arrays:
    return joined([image_formats.read_cifar_binary(path, num_label_bytes)
                   for path in paths])

  def read_python(paths: Sequence[pathlib.Path]) -> Arrays:
    return joined([image_formats.read_cifar_python(path, labels_key)
                   for path in paths])

  def places(split: str) -> Sequence[_Place]:
    return [
        _Place(tuple(f'{binary}/{name}' for name in binary_files[split]),
               read_binary),
        _Place(tuple(f'{python}/{name}' for name in python_files[split]),
               read_python)]

  return places


def _svhn_places(split: str) -> Sequence[_Place]:
  return [_Place((f'{folder}/{split}_32x32.mat',),
                 lambda paths: image_formats.read_svhn(paths[0]))
          for folder in ('svhn', 'SVHN', '.')]


_IMAGE_SETS: Mapping[str, _ImageSet] = {
    'mnist': _ImageSet(
        _idx_places('mnist', 'MNIST', 'MNIST/raw'), (28, 28, 1), 10,
        'http://yann.lecun.com/exdb/mnist/'),
    'fashion_mnist': _ImageSet(
        _idx_places('fashion_mnist', 'fashion-mnist', 'FashionMNIST/raw'),
        (28, 28, 1), 10, 'https://github.com/zalandoresearch/fashion-mnist'),
    'kmnist': _ImageSet(
        _idx_places('kmnist', 'KMNIST', 'KMNIST/raw'), (28, 28, 1), 10,
        'http://codh.rois.ac.jp/kmnist/'),
    'notmnist': _ImageSet(
        _idx_places('notmnist', 'notMNIST'), (28, 28, 1), 10,
        'https://github.com/davidflanagan/notMNIST-to-MNIST'),
    'cifar10': _ImageSet(
        _cifar_places(
            'cifar-10-batches-bin',
            {'train': [f'data_batch_{i}.bin' for i in range(1, 6)],
             'test': ['test_batch.bin']}, 1,
            'cifar-10-batches-py',
            {'train': [f'data_batch_{i}' for i in range(1, 6)],
             'test': ['test_batch']}, b'labels'),
        (32, 32, 3), 10, 'https://www.cs.toronto.edu/~kriz/cifar.html'),
    'cifar100': _ImageSet(
        _cifar_places(
            'cifar-100-binary', {'train': ['train.bin'], 'test': ['test.bin']},
            2, 'cifar-100-python', {'train': ['train'], 'test': ['test']},
            b'fine_labels'),
        (32, 32, 3), 100, 'https://www.cs.toronto.edu/~kriz/cifar.html'),
    'svhn': _ImageSet(_svhn_places, (32, 32, 3), 10,
                      'http://ufldl.stanford.edu/housenumbers/'),
}


class _CorruptedSet(NamedTuple):
  """A published set of corrupted test images, one corruption a file.

  Attributes:
    folders: where it may lie.
    images: name of the file of a corruption's images.
    labels: name of the file of its labels.
    num_severities: parts of equal size in a file, from severity 1 on.
    shape: of its images.
    page: where it comes from.
  """
  folders: tuple[str, ...]
  images: str
  labels: str
  num_severities: int
  shape: tuple[int, int, int]
  page: str


_CORRUPTED_SETS: Mapping[str, _CorruptedSet] = {
    'cifar10_c': _CorruptedSet(
        ('CIFAR-10-C', 'cifar10_c'), '{}.npy', 'labels.npy', _SEVERITIES,
        (32, 32, 3), 'https://zenodo.org/records/2535967'),
    'mnist_c': _CorruptedSet(
        ('mnist_c', 'MNIST-C'), '{}/test_images.npy', '{}/test_labels.npy', 1,
        (28, 28, 1), 'https://zenodo.org/records/3239543'),
}

FILE_SETS = tuple(_IMAGE_SETS)
CORRUPTED_SETS = tuple(_CORRUPTED_SETS)


def data_folder(data_dir: str | os.PathLike | None) -> pathlib.Path:
  """The folder of data sets: the argument, or the environment variable's.

  Raises:
    ValueError: neither is given, or there is no such folder.
  """
  named = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
  if not named:
    raise ValueError('data_dir must name the folder of the data sets; set it, '
                     f'or the environment variable {ENVIRONMENT_VARIABLE}.')
  folder = pathlib.Path(os.path.expanduser(named))
  if not folder.is_dir():
    raise ValueError(f'data_dir must be a folder, there is none at {folder}.')
  return folder


def read_images(name: str, split: str,
                data_dir: str | os.PathLike | None = None
                ) -> image_data.ImageData:
  """Reads one split of a data set.

  Args:
    name: 'digits', which needs no file; one of FILE_SETS; or 'npz:NAME', for
      NAME_SPLIT.npz with x and y, or NAME.npz with x_SPLIT and y_SPLIT. A
      NAME.npz with x and y has no split: it is all test images. x is uint8, or
      floats in [0, 1], [N, H, W] or [N, H, W, C].
    split: 'train' or 'test'.
    data_dir: see `data_folder`.

  Raises:
    ValueError: there is no such data set, a file is missing (the message says
      which, where it is looked for, and where it comes from) or damaged.
  """
  checks.check_choice('split', split, image_data.SPLITS)
  if name == 'digits':
    return image_data.load_digits(split)
  if name.startswith(NPZ_PREFIX):
    return _read_npz(name, split, data_folder(data_dir))
  check_name('data set', name)
  known, folder = _IMAGE_SETS[name], data_folder(data_dir)
  places = known.places(split)
  for place in places:
    paths = [folder / file for file in place.files]
    # What is there and no regular file is refused by the reader.
    if all(map(os.path.lexists, paths)):
      return _checked(name, *place.read(paths), known.num_classes, known.shape,
                      paths[0].parent)
  # The place that has most of its files is the one that is meant.
  counts = [sum(os.path.lexists(folder / file) for file in place.files)
            for place in places]
  meant = places[int(np.argmax(counts))]
  missing = next(file for file in meant.files
                 if not os.path.lexists(folder / file))
  others = sorted({place.files[0].rsplit('/', 1)[0] for place in places}
                  - {'.'})
  raise ValueError(
      f'{name} has no file {missing} in {folder} (its folder may be called '
      f'{" or ".join(others)}); it comes from {known.page}.')


def check_name(what: str, name: str) -> None:
  """`name` is one that `read_images` knows.

  Raises:
    ValueError: it is none; the message calls it `what`.
  """
  if not isinstance(name, str):
    raise ValueError(f'{what} must be a text, got {name!r}.')
  if name.startswith(NPZ_PREFIX) and name != NPZ_PREFIX:
    if name.endswith('.npz'):  # One data set has one name.
      raise ValueError(f'{what} must be {NPZ_PREFIX}NAME without the ending of '
                       f'the file, got {name!r}.')
    if pathlib.PurePath(name).name != name or '\\' in name:
      raise ValueError(f'{what} {NPZ_PREFIX}NAME must name a file in data_dir '
                       f'without folders, got {name!r}.')
    return
  checks.check_choice(what, name, ('digits', *FILE_SETS, f'{NPZ_PREFIX}NAME'))


def corruptions_in(name: str, data_dir: str | os.PathLike | None = None
                   ) -> list[str]:
  """The corruptions that a folder of CIFAR-10-C or MNIST-C has, sorted.

  Raises:
    ValueError: there is no such folder, or nothing in it.
  """
  known, folder = _corrupted_folder(name, data_dir)
  pattern = known.images.format('*')
  depth = pattern.count('/')
  found = sorted((path if depth == 0 else path.parent).name
                 .removesuffix('.npy') for path in folder.glob(pattern)
                 if path.name != known.labels)
  if not found:
    raise ValueError(f'{name} has no file {pattern} in {folder}; it comes from '
                     f'{known.page}.')
  return found


def read_corrupted(name: str, corruption: str,
                   data_dir: str | os.PathLike | None = None
                   ) -> list[image_data.ImageData]:
  """Reads one corruption of CIFAR-10-C or MNIST-C, one set per severity.

  Args:
    name: one of CORRUPTED_SETS.
    corruption: such as 'fog', see `corruptions_in`.
    data_dir: see `data_folder`.

  Returns:
    Sets of severity 1, 2, ...; MNIST-C has one.

  Raises:
    ValueError: there is no such file, or it is damaged.
  """
  known, folder = _corrupted_folder(name, data_dir)
  arrays = {}
  for file in (known.images, known.labels):
    path = folder / file.format(corruption)
    if not os.path.lexists(path):
      raise ValueError(f'{name} has no file {file.format(corruption)} in '
                       f'{folder}; it comes from {known.page}.')
    arrays[file] = image_formats.read_npy(path)
  path = folder / known.images.format(corruption)
  whole = _checked(f'{name}/{corruption}', arrays[known.images],
                   arrays[known.labels], 10, known.shape, path)
  size, rest = divmod(len(whole), known.num_severities)
  if rest:
    raise ValueError(f'{path} must hold {known.num_severities} severities of '
                     f'equal size, got {len(whole)} images.')
  if known.num_severities == 1:
    return [whole]
  return [image_data.ImageData(f'{whole.name}/{level + 1}', part.images,
                               part.labels, part.num_classes)
          for level in range(known.num_severities)
          for part in [whole.take(slice(level * size, (level + 1) * size))]]


def _corrupted_folder(name: str, data_dir: str | os.PathLike | None
                      ) -> tuple[_CorruptedSet, pathlib.Path]:
  checks.check_choice('corrupted data set', name, CORRUPTED_SETS)
  known, folder = _CORRUPTED_SETS[name], data_folder(data_dir)
  for called in known.folders:
    if (folder / called).is_dir():
      return known, folder / called
  raise ValueError(f'{name} has no folder {" or ".join(known.folders)} in '
                   f'{folder}; it comes from {known.page}.')


def _read_npz(name: str, split: str,
              folder: pathlib.Path) -> image_data.ImageData:
  check_name('data set', name)
  stem = name.removeprefix(NPZ_PREFIX)
  of_split, whole = folder / f'{stem}_{split}.npz', folder / f'{stem}.npz'
  named, unnamed = (f'x_{split}', f'y_{split}'), ('x', 'y')
  # What has no split can only be tested on: training images that are also
  # test images would go unnoticed.
  if os.path.lexists(of_split):
    path, names = of_split, [unnamed]
  elif os.path.lexists(whole):
    path = whole
    has_split = split == 'train' or os.path.lexists(
        folder / f'{stem}_train.npz')
    names = [named] if has_split else [named, unnamed]
  else:
    raise ValueError(f'{name} has no file {whole.name} or {of_split.name} in '
                     f'{folder}.')
  images, labels = image_formats.read_npz(path, names)
  if images.dtype == np.uint8 and images.size and images.max() == 1:
    raise ValueError(f'{path}: uint8 images are from 0 to 255, got 0 and 1 '
                     'alone: give float32 for values from 0 to 1.')
  num_classes = _MAX_CLASSES
  if labels.dtype.kind in 'iuf' and labels.size and labels.max() < num_classes:
    num_classes = max(2, int(labels.max()) + 1)
  return _checked(name, images, labels, num_classes, None, path)


def _checked(name: str, images: np.ndarray, labels: np.ndarray,
             num_classes: int, shape: tuple[int, int, int] | None,
             path: pathlib.Path) -> image_data.ImageData:
  """Images and labels of files as `ImageData`.

  Raises:
    ValueError: they are not what the data set has; the message names `path`.
  """
  if shape is not None and (images.ndim != 4 or images.shape[1:] != shape
                            or images.dtype != np.uint8):
    raise ValueError(f'{path}: images of {name} must be uint8 [N, '
                     f'{", ".join(map(str, shape))}], got {images.dtype} '
                     f'{list(images.shape)}.')
  if labels.ndim != 1 or len(labels) != len(images):
    raise ValueError(f'{path}: there must be one label per image, got labels '
                     f'{list(labels.shape)} for images {list(images.shape)}.')
  numbers = labels.dtype.kind in 'iuf' and np.isfinite(labels).all()
  if not numbers or (labels % 1 != 0).any():
    raise ValueError(f'{path}: labels must be whole numbers, got '
                     f'{labels.dtype}.')
  if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
    raise ValueError(f'{path}: labels must be from 0 to {num_classes - 1}, got '
                     f'{labels.min()} to {labels.max()}.')
  if images.dtype.kind == 'f':
    images = images.astype(np.float32)
  try:
    return image_data.ImageData(name, images, labels.astype(np.int32),
                                num_classes)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
