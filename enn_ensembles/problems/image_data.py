"""Labelled images in memory, and the set of digits that needs no file."""

from collections.abc import Collection
from collections.abc import Iterable
import dataclasses
import functools
import hashlib
from typing import NamedTuple

import numpy as np

from enn_ensembles import checks
from enn_ensembles.problems import draws

SPLITS = ('train', 'test')

# Of every three digits one is a test image. The digits come as 0, 1, ..., 9,
# 0, 1, ..., so a period that shares no factor with 10 keeps classes balanced.
_DIGITS_PERIOD = 3
_DIGITS_MAX = 16  # Grey levels of scikit-learn's digits are 0..16.


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
  """Labelled images.

  Attributes:
    name: what tables call them, such as 'mnist'.
    images: [N, H, W, C], uint8, or float32 in [0, 1]; read-only.
    labels: int32 [N], from 0 to num_classes - 1; read-only.
    num_classes: how many classes the labels distinguish.
  """
  name: str
  images: np.ndarray
  labels: np.ndarray
  num_classes: int

  def __post_init__(self):
    images, labels = self.images, self.labels
    if images.ndim != 4 or 0 in images.shape:
      raise ValueError(f'images of {self.name} must have shape [N, H, W, C] '
                       f'without zeros, got {list(images.shape)}.')
    if images.dtype not in (np.uint8, np.float32):
      raise ValueError(f'images of {self.name} must be uint8 or float32, got '
                       f'{images.dtype}.')
    # A NaN is not inside either.
    if images.dtype == np.float32 and not (images.min() >= 0.
                                           and images.max() <= 1.):
      raise ValueError(f'float images of {self.name} must be in [0, 1], got '
                       f'{images.min():g} to {images.max():g}.')
    if labels.shape != images.shape[:1] or labels.dtype != np.int32:
      raise ValueError(f'labels of {self.name} must be int32 of shape '
                       f'[{len(images)}] like its images, got {labels.dtype} '
                       f'of shape {list(labels.shape)}.')
    if labels.min() < 0 or labels.max() >= self.num_classes:
      raise ValueError(f'labels of {self.name} must be from 0 to '
                       f'{self.num_classes - 1}, got {labels.min()} to '
                       f'{labels.max()}.')
    images.flags.writeable = False
    labels.flags.writeable = False

  def __len__(self) -> int:
    return len(self.images)

  @property
  def shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return self.images.shape[1:]

  @functools.cached_property
  def sha256(self) -> str:
    """Of the images, the labels and their shapes; not of the name."""
    sha = hashlib.sha256()
    for array in (self.images, self.labels):
      array = np.ascontiguousarray(array, array.dtype.newbyteorder('<'))
      sha.update(f'{array.dtype.str}{array.shape}'.encode())
      sha.update(array)
    return sha.hexdigest()

  def take(self, rows: np.ndarray | slice) -> 'ImageData':
    """The images at some rows, integers or booleans [N], or a slice."""
    return dataclasses.replace(self, images=self.images[rows],
                               labels=self.labels[rows])

  def keep_classes(self, classes: Collection[int],
                   all_there: bool = True) -> 'ImageData':
    """The images of some classes, numbered anew in ascending order.

    Args:
      classes: which.
      all_there: whether each of them must have an image.

    Raises:
      ValueError: a class has no image, but must have one.
    """
    kept = sorted(set(classes))
    for label in kept if all_there else ():
      if label not in self.labels:
        raise ValueError(f'{self.name} has no image of class {label}.')
    numbers = np.full(self.num_classes, -1, np.int32)
    numbers[kept] = np.arange(len(kept), dtype=np.int32)
    rows = np.flatnonzero(numbers[self.labels] >= 0)
    return dataclasses.replace(self, images=self.images[rows],
                               labels=numbers[self.labels[rows]],
                               num_classes=len(kept))


class Normalisation(NamedTuple):
  """Turns images into inputs: (value - mean) / std, values from 0 to 1.

  Attributes:
    mean: of each channel over the training set, float64 [C].
    std: the same; 1 for a channel that is constant.
  """
  mean: np.ndarray
  std: np.ndarray

  def apply(self, images: np.ndarray) -> np.ndarray:
    """Inputs float32 [N, H, W, C] from images uint8, or float32 in [0, 1]."""
    scale = 255. if images.dtype == np.uint8 else 1.
    factor = (1. / (scale * self.std)).astype(np.float32)
    found = images * factor
    found -= (self.mean / self.std).astype(np.float32)
    return found

  @property
  def black(self) -> tuple[float, ...]:
    """What the value 0 becomes, per channel; augmentation pads with it."""
    return tuple((-self.mean / self.std).tolist())

  @property
  def white(self) -> tuple[float, ...]:
    """What the value 1 becomes, per channel."""
    return tuple(((1. - self.mean) / self.std).tolist())


def normalisation(images: np.ndarray) -> Normalisation:
  """That of a training set, uint8 or float32 in [0, 1], [N, H, W, C]."""
  scale = 255. if images.dtype == np.uint8 else 1.
  count = images[..., 0].size
  mean = images.sum(axis=(0, 1, 2), dtype=np.float64) / count / scale
  # One pass in small pieces: no copy of the images in float64.
  squares = sum(
      np.square(part, dtype=np.float64).sum(axis=(0, 1, 2))
      for part in np.array_split(images, max(1, len(images) // 1000)))
  variance = np.maximum(squares / count / scale ** 2 - mean ** 2, 0.)
  return Normalisation(mean, np.where(variance > 1e-12, np.sqrt(variance), 1.))


def no_normalisation(num_channels: int) -> Normalisation:
  """One that leaves values from 0 to 1 as they are."""
  return Normalisation(np.zeros(num_channels), np.ones(num_channels))


def checksum(test: ImageData, sets: Iterable[ImageData]) -> str:
  """Of several sets, in this order.

  Raises:
    ValueError: a set has images of another shape than the test set.
  """
  sha = hashlib.sha256()
  for one in sets:
    if one.shape != test.shape:
      raise ValueError(f'{one.name} must have images of shape '
                       f'{list(test.shape)} like the test images of '
                       f'{test.name}, got {list(one.shape)}.')
    sha.update(one.sha256.encode())
  return sha.hexdigest()


def load_digits(split: str) -> ImageData:
  """scikit-learn's handwritten digits: 1,797 images of 8 x 8 grey levels.

  They have no split of their own. Every third image is a test image, so both
  parts have all classes and all writers: 1,198 training and 599 test images.

  Args:
    split: 'train' or 'test'.

  Returns:
    Images uint8 [N, 8, 8, 1]; the 17 grey levels are spread over 0..255.
  """
  # Here, since most sweeps have no digits, and it takes long to import.
  from sklearn import datasets

  checks.check_choice('split', split, SPLITS)
  pixels, labels = datasets.load_digits(return_X_y=True)
  rows = np.arange(len(labels)) % _DIGITS_PERIOD == _DIGITS_PERIOD - 1
  if split == 'train':
    rows = ~rows
  images = np.round(pixels[rows] * (255. / _DIGITS_MAX)).astype(np.uint8)
  return ImageData('digits', images.reshape(-1, 8, 8, 1),
                   labels[rows].astype(np.int32), 10)


def permute_pixels(data: ImageData, seed: int) -> ImageData:
  """The same images with one permutation of places for all.

  Grey levels keep their histogram and pixels their colour; only the places
  are lost.
  """
  num_images, height, width, channels = data.images.shape
  order = draws.draw_permutation(seed, draws.PIXEL_ORDER_KEY, height * width)
  flat = data.images.reshape(num_images, height * width, channels)
  return dataclasses.replace(data, name=f'{data.name}_permuted',
                             images=flat[:, order].reshape(data.images.shape))


def quarter_turn(data: ImageData) -> ImageData:
  """The same images turned by 90 degrees, without interpolation.

  Raises:
    ValueError: they are not square.
  """
  if data.shape[0] != data.shape[1]:
    raise ValueError(f'quarter turns need square images, {data.name} has '
                     f'{data.shape[0]} x {data.shape[1]}.')
  turned = np.ascontiguousarray(np.rot90(data.images, axes=(1, 2)))
  return dataclasses.replace(data, name=f'{data.name}_quarter_turn',
                             images=turned)
