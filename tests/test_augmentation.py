"""Augmentation of training images, against slices of numpy."""

import jax
import numpy as np
import pytest

from enn_ensembles.training import augmentation

X = np.random.default_rng(0).normal(size=(300, 5, 4, 2)).astype(np.float32)
KEY = jax.random.PRNGKey(0)
BLACK, WHITE = (-2., 3.), (4., 5.)


def changed(x=X, key=KEY, **settings):
  augment = augmentation.Augmentation(black=BLACK, white=WHITE, **settings)
  return np.asarray(jax.jit(augment)(key, x))


def test_nothing_is_changed_by_default():
  np.testing.assert_array_equal(changed(), X)
  assert changed(X.astype(np.float16), flip=True, pad=1,
                 brightness=0.1).dtype == np.float16


def test_crops_are_crops_of_the_padded_image():
  pad = 2
  found = changed(pad=pad)
  padded = np.empty((300, 9, 8, 2), np.float32)
  padded[...] = BLACK
  padded[:, pad:-pad, pad:-pad] = X
  places = []
  for image, whole in zip(found, padded):
    matches = [(i, j) for i in range(5) for j in range(5)
               if np.array_equal(whole[i:i + 5, j:j + 4], image)]
    assert len(matches) == 1
    places += matches
  # All 25 places, evenly: 12 each on average.
  assert len(set(places)) == 25
  for axis in (0, 1):
    shares = np.bincount([place[axis] for place in places]) / 300
    assert np.all((0.12 < shares) & (shares < 0.28))


def test_half_of_the_images_are_flipped():
  found = changed(flip=True)
  flipped = np.array([np.array_equal(image, x[:, ::-1])
                      for image, x in zip(found, X)])
  np.testing.assert_array_equal(found[~flipped], X[~flipped])
  assert 0.4 < flipped.mean() < 0.6


def test_brightness_is_in_the_units_of_the_image():
  x = np.broadcast_to(np.array([1., 4.], np.float32), X.shape)  # Half way.
  share = (changed(x, brightness=0.3) - BLACK) / (np.array(WHITE) - BLACK)
  added = share[:, 0, 0, 0] - 0.5
  # One number per image, for all pixels and channels.
  np.testing.assert_allclose(share - 0.5,
                             np.broadcast_to(added[:, None, None, None],
                                             X.shape), atol=1e-6)
  assert added.min() < -0.28 and added.max() > 0.28
  assert np.abs(added).max() <= 0.3
  assert added.std() == pytest.approx(0.6 / np.sqrt(12), rel=0.1)
  extreme = changed(brightness=50.)
  assert np.all(extreme >= BLACK) and np.all(extreme <= WHITE)


def test_keys_decide():
  settings = dict(pad=1, flip=True, brightness=0.2)
  np.testing.assert_array_equal(changed(**settings), changed(**settings))
  other = changed(key=jax.random.PRNGKey(1), **settings)
  assert not np.array_equal(other, changed(**settings))
  # Each change has its own draws, whatever else is done.
  moved = augmentation.Augmentation(pad=1)(KEY, X)
  both = changed(np.asarray(moved), flip=True)
  plain = changed(flip=True)
  np.testing.assert_array_equal((both == np.asarray(moved)).all((1, 2, 3)),
                                (plain == X).all((1, 2, 3)))


def test_equal_settings_are_one_program():
  one = augmentation.Augmentation(pad=4, flip=True)
  assert one == augmentation.Augmentation(4, True)
  assert hash(one) == hash(augmentation.Augmentation(4, True))


def test_bad_settings():
  for settings, pattern in [
      (dict(pad=-1), 'pad must be an integer >= 0, got -1'),
      (dict(flip=1), 'flip must be True or False'),
      (dict(brightness=-0.1), 'brightness must be a finite number >= 0'),
      (dict(black=(0., 0.)), 'the same length')]:
    with pytest.raises(ValueError, match=pattern):
      augmentation.Augmentation(**settings)
  with pytest.raises(ValueError, match=r'got shape \[300, 5, 4, 2\]'):
    augmentation.Augmentation(black=(0.,) * 3, white=(1.,) * 3)(KEY, X)
  with pytest.raises(ValueError, match=r'got shape \[5, 4, 2\]'):
    augmentation.Augmentation()(KEY, X[0])
