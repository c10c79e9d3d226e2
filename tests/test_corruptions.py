"""Corruptions, against scipy, Pillow and the distributions they draw from."""

import colorsys
import io

import numpy as np
from PIL import Image
import pytest
from scipy import ndimage
from scipy import stats

from enn_ensembles.problems import corruptions
from enn_ensembles.problems import image_data

RNG = np.random.default_rng(0)


def image_set(images):
  labels = np.zeros(len(images), np.int32)
  return image_data.ImageData('some', images, labels, 2)


COLOUR = image_set(RNG.integers(0, 256, (4, 12, 12, 3), np.uint8))
GREY = image_set(RNG.integers(0, 256, (4, 9, 9, 1), np.uint8))


def flat(value, num=40, size=16):
  return image_set(np.full((num, size, size, 1), value, np.uint8))


@pytest.mark.parametrize('corruption', corruptions.SEVERITIES)
@pytest.mark.parametrize('data', [COLOUR, GREY], ids=['colour', 'grey'])
def test_every_corruption(corruption, data):
  num = len(corruptions.SEVERITIES[corruption])
  found = [corruptions.corrupt(data, corruption, severity, seed=1)
           for severity in range(1, num + 1)]
  for severity, one in enumerate(found, start=1):
    assert one.images.dtype == np.uint8 and one.shape == data.shape
    assert one.name == f'some/our {corruption}/{severity}'
    np.testing.assert_array_equal(one.labels, data.labels)
  again = corruptions.corrupt(data, corruption, num, seed=1)
  np.testing.assert_array_equal(again.images, found[-1].images)
  other = corruptions.corrupt(data, corruption, num, seed=2)
  is_noise = corruption.endswith('noise')
  assert np.array_equal(other.images, again.images) != is_noise
  # The first images do not depend on how many there are.
  first = corruptions.corrupt(data.take(slice(2)), corruption, num, seed=1)
  np.testing.assert_array_equal(first.images, again.images[:2])
  distance = [np.mean(np.abs(one.images - data.images.astype(float)))
              for one in found]
  assert distance[0] > 0.
  if corruption != 'rotation':
    assert distance[-1] > distance[0]


def test_first_images_stay_beyond_a_block(monkeypatch):
  whole = corruptions.corrupt(flat(100, 5), 'gaussian_noise', 3, 0).images
  monkeypatch.setattr(corruptions, '_BLOCK', 2)
  data = flat(100, 5)
  cut = corruptions.corrupt(data, 'gaussian_noise', 3, 0).images
  np.testing.assert_array_equal(cut[:2], whole[:2])
  # Blocks are independent draws.
  assert not np.array_equal(cut[2:4], cut[:2])
  np.testing.assert_array_equal(
      corruptions.corrupt(data.take(slice(3)), 'gaussian_noise', 3, 0).images,
      cut[:3])


def test_gaussian_and_speckle_noise():
  for severity, std in ((1, 0.04), (5, 0.10)):
    noise = (corruptions.corrupt(flat(128), 'gaussian_noise', severity, 0)
             .images / 255. - 128 / 255.).reshape(-1)
    assert noise.std() == pytest.approx(std, rel=0.03)
    assert abs(noise.mean()) < 4 * std / np.sqrt(noise.size)
  for value in (40, 120):
    noise = (corruptions.corrupt(flat(value), 'speckle_noise', 3, 0).images
             / value - 1.)
    assert noise.std() == pytest.approx(0.12, rel=0.03)


@pytest.mark.parametrize('value', [0, 1, 90, 160])
def test_shot_noise_is_poisson(value):
  uniforms = RNG.uniform(size=(500, 3, 3, 1))
  images = np.full(uniforms.shape, value, np.uint8)
  found = corruptions._shot_noise(images, 50, lambda shape: uniforms)
  expected = stats.poisson.ppf(uniforms, value / 255. * 50) if value else 0.
  np.testing.assert_allclose(found, expected / 50)


def test_shot_noise_of_mixed_levels():
  found = corruptions.corrupt(COLOUR, 'shot_noise', 1, 0).images / 255.
  z = (found - COLOUR.images / 255.) / np.sqrt(
      np.maximum(COLOUR.images, 1) / 255. / 500)
  inside = (COLOUR.images > 20) & (COLOUR.images < 230)
  assert z[inside].std() == pytest.approx(1., abs=0.06)


def test_impulse_noise():
  images = corruptions.corrupt(flat(100, 100), 'impulse_noise', 5, 0).images
  assert set(np.unique(images)) == {0, 100, 255}
  for value in (0, 255):
    assert np.mean(images == value) == pytest.approx(0.035, abs=0.004)


def test_blur_contrast_brightness():
  x = COLOUR.images / 255.
  found = corruptions.corrupt(COLOUR, 'gaussian_blur', 5, 0).images
  for row in range(2):
    for channel in range(3):
      expected = ndimage.gaussian_filter(x[row, ..., channel], 1.,
                                         mode='nearest')
      np.testing.assert_allclose(found[row, ..., channel] / 255., expected,
                                 atol=0.51 / 255)
  found = corruptions.corrupt(COLOUR, 'contrast', 2, 0).images / 255.
  np.testing.assert_allclose(found.mean(axis=(1, 2)), x.mean(axis=(1, 2)),
                             atol=1e-3)
  np.testing.assert_allclose(found.std(axis=(1, 2)), 0.5 * x.std(axis=(1, 2)),
                             rtol=0.01)
  found = corruptions.corrupt(COLOUR, 'brightness', 4, 0).images / 255.
  for place in np.ndindex(4, 12, 12):
    hue, saturation, value = colorsys.rgb_to_hsv(*x[place])
    expected = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1.))
    np.testing.assert_allclose(found[place], expected, atol=0.51 / 255)
  black = corruptions.corrupt(flat(0, 1), 'brightness', 2, 0).images
  assert set(np.unique(black)) == {26}  # 0.1 of 255, rounded.


def test_jpeg_and_pixelate():
  stream = io.BytesIO()
  Image.fromarray(COLOUR.images[1]).save(stream, 'JPEG', quality=58)
  found = corruptions.corrupt(COLOUR, 'jpeg', 3, 0).images[1]
  np.testing.assert_array_equal(found, np.asarray(Image.open(stream)))
  # 12 * 0.75 = 9 pixels; then back to 12: some neighbours are equal.
  found = corruptions.corrupt(COLOUR, 'pixelate', 4, 0).images[0, ..., 0]
  assert len({row.tobytes() for row in found}) < 12
  assert found.mean() == pytest.approx(COLOUR.images[0, ..., 0].mean(), rel=.05)


@pytest.mark.parametrize('severity, degrees', list(enumerate(
    corruptions.SEVERITIES['rotation'], start=1)))
def test_rotation_is_scipys(severity, degrees):
  found = corruptions.corrupt(COLOUR, 'rotation', severity, 0).images / 255.
  expected = ndimage.rotate(COLOUR.images / 255., degrees, axes=(2, 1),
                            reshape=False, order=1, mode='grid-constant')
  np.testing.assert_allclose(found, expected, atol=0.51 / 255)


def test_quarter_turn_keeps_every_pixel():
  found = corruptions.corrupt(GREY, 'rotation', 6, 0).images
  assert any(np.array_equal(found, np.rot90(GREY.images, turns, axes=(1, 2)))
             for turns in (1, 3))


def test_bad_input():
  for arguments, pattern in [
      (('fog', 1), "corruption must be one of .*; got 'fog'"),
      (('jpeg', 6), 'severity of jpeg must be one of 1, 2, 3, 4, 5; got 6'),
      (('jpeg', 0), 'got 0'), (('rotation', 7), 'got 7')]:
    with pytest.raises(ValueError, match=pattern):
      corruptions.corrupt(COLOUR, *arguments, seed=0)
  two = image_set(np.zeros((1, 4, 4, 2), np.uint8))
  with pytest.raises(ValueError, match='needs images with 1 or 3 channels'):
    corruptions.corrupt(two, 'pixelate', 1, 0)


def test_floats_become_bytes():
  floats = image_set((COLOUR.images / np.float32(255.)).astype(np.float32))
  for corruption in ('shot_noise', 'jpeg', 'contrast'):
    np.testing.assert_array_equal(
        corruptions.corrupt(floats, corruption, 2, 3).images,
        corruptions.corrupt(COLOUR, corruption, 2, 3).images)
