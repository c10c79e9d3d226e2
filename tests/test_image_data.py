"""Images in memory: digits, classes, permutations, turns, checksums."""

import numpy as np
import pytest
from sklearn import datasets
from small_image_files import GREY
from small_image_files import LABELS

from enn_ensembles.problems import image_data

DIGITS = image_data.load_digits('test')


def test_digits_are_scikit_learns():
  pixels, labels = datasets.load_digits(return_X_y=True)
  train = image_data.load_digits('train')
  assert (len(train), len(DIGITS)) == (1198, 599)
  assert train.shape == (8, 8, 1) and train.num_classes == 10
  # Every image is in one of the two parts, and no grey level is lost.
  together = np.concatenate([train.images, DIGITS.images]).reshape(-1, 64)
  levels = np.round(together / 255. * 16.)
  order = np.lexsort(levels.T)
  np.testing.assert_array_equal(levels[order],
                                pixels[np.lexsort(pixels.T)])
  both = np.concatenate([train.labels, DIGITS.labels])
  np.testing.assert_array_equal(both[order], labels[np.lexsort(pixels.T)])
  for part in (train, DIGITS):
    shares = np.bincount(part.labels) / len(part)
    assert np.all((0.085 < shares) & (shares < 0.115))


def test_keep_classes_numbers_anew():
  kept = DIGITS.keep_classes([7, 1, 3])
  assert kept.num_classes == 3
  for number, label in enumerate((1, 3, 7)):
    np.testing.assert_array_equal(kept.images[kept.labels == number],
                                  DIGITS.images[DIGITS.labels == label])
  with pytest.raises(ValueError, match='digits has no image of class 10'):
    DIGITS.keep_classes([1, 10])
  assert kept.sha256 != DIGITS.sha256


def test_permuted_pixels():
  found = image_data.permute_pixels(DIGITS, 0)
  assert found.name == 'digits_permuted' and found.shape == DIGITS.shape
  pixels = DIGITS.images.reshape(len(DIGITS), -1)
  order = [int(np.flatnonzero((pixels == column[:, None]).all(axis=0))[0])
           for column in found.images.reshape(len(DIGITS), -1).T]
  # Columns that are never inked are alike; all others are found once.
  inked = np.flatnonzero(pixels.any(axis=0))
  assert sorted(set(order) & set(inked)) == inked.tolist()
  assert order != sorted(order)
  again = image_data.permute_pixels(DIGITS, 0)
  assert again.sha256 == found.sha256
  assert image_data.permute_pixels(DIGITS, 1).sha256 != found.sha256
  # The colours of a pixel stay together.
  colour = image_data.ImageData(
      'c', np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3),
      np.zeros(1, np.int32), 2)
  found = image_data.permute_pixels(colour, 3).images.reshape(-1, 3)
  np.testing.assert_array_equal(found - found[:, :1], [[0, 1, 2]] * 16)


def test_quarter_turn():
  found = image_data.quarter_turn(DIGITS)
  np.testing.assert_array_equal(found.images[5, ..., 0],
                                np.rot90(DIGITS.images[5, ..., 0]))
  np.testing.assert_array_equal(found.labels, DIGITS.labels)
  wide = image_data.ImageData('wide', np.zeros((1, 2, 3, 1), np.uint8),
                              np.zeros(1, np.int32), 2)
  with pytest.raises(ValueError, match='wide has 2 x 3'):
    image_data.quarter_turn(wide)


def test_bad_images_are_refused():
  images, labels = np.zeros((2, 3, 3, 1), np.uint8), np.zeros(2, np.int32)
  for changed, pattern in [
      (dict(images=images[0]), r'\[N, H, W, C\]'),
      (dict(images=images[:0], labels=labels[:0]), 'without zeros'),
      (dict(images=images.astype(np.float64)), 'got float64'),
      (dict(images=images.astype(np.float32) + 2), 'got 2 to 2'),
      (dict(labels=labels[:1]), 'of shape'),
      (dict(labels=labels.astype(np.int64)), 'must be int32'),
      (dict(labels=labels - 1), 'from 0 to 4, got -1'),
      (dict(labels=labels + 5), 'from 0 to 4, got 5')]:
    arguments = dict(name='x', images=images, labels=labels, num_classes=5)
    with pytest.raises(ValueError, match=pattern):
      image_data.ImageData(**{**arguments, **changed})


def test_checksum_is_of_the_data():
  data = image_data.ImageData('a', GREY[..., None], LABELS.astype(np.int32), 10)
  same = image_data.ImageData('b', GREY[..., None].copy(),
                              LABELS.astype(np.int32), 10)
  assert data.sha256 == same.sha256 and len(data.sha256) == 64
  other = GREY[..., None].copy()
  other[5, 27, 27] ^= 1
  changed = [
      image_data.ImageData('a', other, same.labels, 10),
      image_data.ImageData('a', same.images, same.labels[::-1].copy(), 10),
      image_data.ImageData('a', same.images.reshape(6, 14, 56, 1), same.labels,
                           10)]
  assert len({data.sha256, *(one.sha256 for one in changed)}) == 4
  with pytest.raises(ValueError, match='read-only'):
    data.images[0] = 0
