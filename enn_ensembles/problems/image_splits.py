"""Which of the images that were read a problem has, and in which split."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator

import numpy as np

from enn_ensembles.problems import draws
from enn_ensembles.problems import image_data

TEST_SEED = 0  # All seeds of problems are scored on the same images.
_VAL_SHARE = 10  # One image of so many is validation data by default.


def keep_classes(images: image_data.ImageData, classes: Collection[int],
                 split: str) -> image_data.ImageData:
  """`ImageData.keep_classes`, whose error names the split."""
  try:
    return images.keep_classes(classes)
  except ValueError as error:
    raise ValueError(f'{split} images: {error}') from error


def of_same_classes(sets: Iterable[image_data.ImageData], dataset: str,
                    num_classes: int) -> Iterator[image_data.ImageData]:
  """The sets, whose labels are compared with predictions for a data set.

  Raises:
    ValueError: a set has a class that the data set has not, or cannot have
      all of its classes.
  """
  for one in sets:
    largest = int(one.labels.max(initial=0))
    if largest >= num_classes or num_classes > one.num_classes:
      raise ValueError(f'{one.name} has labels up to {largest} of '
                       f'{one.num_classes} classes, which are not the '
                       f'{num_classes} of {dataset}.')
    yield one


def draw_validation(
    images: image_data.ImageData, num_train: int | None, num_val: int | None,
    seed: int) -> tuple[image_data.ImageData, image_data.ImageData | None]:
  """Training and validation images, in a random order.

  The order matters to whoever takes the last part for something else.

  Args:
    images: the training images that were read.
    num_train: None for all that validation leaves.
    num_val: None for a tenth.
    seed: of the draw.

  Raises:
    ValueError: there are fewer images.
  """
  if num_val is None:
    num_val = len(images) // _VAL_SHARE
  left = len(images) - num_val
  wanted = left if num_train is None else num_train
  if not 0 < wanted <= left:
    raise ValueError(
        f'num_train + num_val must be at most the {len(images)} training '
        f'images of {images.name}, with num_train >= 1, got {num_train} and '
        f'{num_val}.')
  order = draws.draw_permutation(seed, draws.VAL_SPLIT_KEY, len(images))
  train = images.take(order[num_val:num_val + wanted])
  return train, images.take(order[:num_val]) if num_val else None


def take_some(images: image_data.ImageData,
              most: int | None) -> image_data.ImageData:
  """At most so many, drawn evenly from all: files may be sorted by class."""
  if most is None or len(images) <= most:
    return images
  order = draws.draw_permutation(TEST_SEED, draws.TEST_SET_KEY, len(images))
  return images.take(np.sort(order[:most]))
