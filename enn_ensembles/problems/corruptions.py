"""Shifted versions of any image set: corruptions and rotations.

Corruptions are ours: some of those of Hendrycks & Dietterich 2019,
"Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (arXiv 1903.12261), with the severities that its CIFAR-10-C has,
written anew for images of any size. They are not CIFAR-10-C, and scores on
them are not scores on CIFAR-10-C: other noise is drawn, results are rounded to
bytes rather than cut, and several of its corruptions are missing.

Everything is deterministic: the noise comes from a seed, and the first images
of a set are corrupted in the same way whatever comes after them. Compressed
images may differ between versions of libjpeg.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import io
import zlib

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy import special

from enn_ensembles import checks
from enn_ensembles.problems import draws
from enn_ensembles.problems import image_data

# What each corruption is told at severity 1, 2, 3, 4, 5: CIFAR-10-C's numbers.
SEVERITIES: Mapping[str, tuple[float, ...]] = {
    'gaussian_noise': (0.04, 0.06, 0.08, 0.09, 0.10),  # std
    'shot_noise': (500, 250, 100, 75, 50),  # photons at full brightness
    'impulse_noise': (0.01, 0.02, 0.03, 0.05, 0.07),  # share of values
    'speckle_noise': (0.06, 0.1, 0.12, 0.16, 0.2),  # std over the value
    'gaussian_blur': (0.4, 0.6, 0.7, 0.8, 1.),  # std in pixels
    'contrast': (0.75, 0.5, 0.4, 0.3, 0.15),  # factor
    'brightness': (0.05, 0.1, 0.15, 0.2, 0.3),  # added to the value of HSV
    'jpeg': (80, 65, 58, 50, 40),  # quality
    'pixelate': (0.95, 0.9, 0.85, 0.75, 0.65),  # size of the smaller image
    'rotation': (15, 30, 45, 60, 75, 90),  # degrees against the clock
}

_BLOCK = 1000  # Images corrupted at once: bounds the memory.

# Draws uniforms in (0, 1) of a given shape for a block of images.
_Draw = Callable[[tuple[int, ...]], np.ndarray]


def recompress(data: image_data.ImageData,
               quality: int | None) -> image_data.ImageData:
  """The images after JPEG of a quality from 1 to 100; None: as they are."""
  if quality is None:
    return data
  return dataclasses.replace(
      data, images=compress(to_bytes(data.images), quality))


def corrupt(data: image_data.ImageData, corruption: str, severity: int,
            seed: int) -> image_data.ImageData:
  """A corrupted image set, named 'NAME/our CORRUPTION/SEVERITY'.

  Args:
    data: any images; floats become bytes first.
    corruption: one of SEVERITIES.
    severity: from 1, the weakest, to how many SEVERITIES has of it.
    seed: of the noise.

  Returns:
    Images uint8 of the same shape, with the same labels.

  Raises:
    ValueError: there is no such corruption or severity, or it is jpeg or
      pixelate and images have neither one channel nor three.
  """
  check_applies(data, corruption, severity)
  amount = SEVERITIES[corruption][severity - 1]
  images = to_bytes(data.images)
  # A name's number never changes, whatever is added to the table.
  cell = (zlib.crc32(corruption.encode()), severity)
  parts = []
  for block, first in enumerate(range(0, len(images), _BLOCK)):
    part = images[first:first + _BLOCK]
    if corruption in _OF_BYTES:
      parts.append(_OF_BYTES[corruption](part, amount))
      continue
    def draw(shape: tuple[int, ...], block: int = block) -> np.ndarray:
      return draws.draw_uniforms(seed, draws.CORRUPTION_KEY, (*cell, block),
                                 shape)
    parts.append(to_bytes(_OF_FLOATS[corruption](part, amount, draw)))
  return dataclasses.replace(
      data, images=np.concatenate(parts),
      name=f'{data.name}/our {corruption}/{severity}')


def check_applies(data: image_data.ImageData, corruption: str,
                  severity: int) -> None:
  """`corrupt` can do this to these images.

  Raises:
    ValueError: it cannot.
  """
  checks.check_choice('corruption', corruption, SEVERITIES)
  checks.check_choice(f'severity of {corruption}', severity,
                      range(1, len(SEVERITIES[corruption]) + 1))
  if corruption in _OF_BYTES:
    _check_channels(corruption, data.images)


def compress(images: np.ndarray, quality: int) -> np.ndarray:
  """Images after compression by JPEG and back.

  Args:
    images: uint8 [N, H, W, C], C = 1 or 3.
    quality: of JPEG, 1..100; colours are stored at half the resolution (4:2:0).

  Returns:
    uint8 [N, H, W, C].

  Raises:
    ValueError: images have neither one channel nor three.
  """
  _check_channels('jpeg', images)
  found = np.empty_like(images)
  for row, image in enumerate(images):
    stream = io.BytesIO()
    _as_picture(image).save(stream, 'JPEG', quality=int(quality))
    stream.seek(0)
    found[row] = np.asarray(Image.open(stream)).reshape(image.shape)
  return found


def to_bytes(images: np.ndarray) -> np.ndarray:
  """Images in [0, 1] as uint8, rounded; uint8 images as they are."""
  if images.dtype == np.uint8:
    return images
  return np.round(np.clip(images, 0., 1.) * 255.).astype(np.uint8)


def _check_channels(corruption: str, images: np.ndarray) -> None:
  if images.shape[-1] not in (1, 3):
    raise ValueError(f'corruption {corruption} needs images with 1 or 3 '
                     f'channels, got {images.shape[-1]}.')


def _as_picture(image: np.ndarray) -> Image.Image:
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _pixelate(images: np.ndarray, share: float) -> np.ndarray:
  found = np.empty_like(images)
  height, width = images.shape[1:3]
  small = max(1, int(width * share)), max(1, int(height * share))
  for row, image in enumerate(images):
    picture = _as_picture(image).resize(small, Image.Resampling.BOX)
    picture = picture.resize((width, height), Image.Resampling.BOX)
    found[row] = np.asarray(picture).reshape(image.shape)
  return found


def _unit(images: np.ndarray) -> np.ndarray:
  return images / 255.


def _gaussian_noise(images: np.ndarray, std: float, draw: _Draw) -> np.ndarray:
  return _unit(images) + std * special.ndtri(draw(images.shape))


def _speckle_noise(images: np.ndarray, std: float, draw: _Draw) -> np.ndarray:
  return _unit(images) * (1. + std * special.ndtri(draw(images.shape)))


def _shot_noise(images: np.ndarray, photons: float,
                draw: _Draw) -> np.ndarray:
  """Poisson counts with mean x photons, over photons.

  A byte has 256 levels, so counts are looked up: the distribution functions of
  all levels stand in one ascending table, level + P(count <= k), and the place
  of level + uniform in it is the start of the level's part plus the count.
  """
  uniforms = draw(images.shape)
  means = np.arange(256) / 255. * photons
  # Nine standard deviations: what lies beyond is rarer than 2^-53.
  sizes = np.ceil(means + 9. * np.sqrt(means) + 20.).astype(int)
  starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
  counts = np.arange(sizes.sum()) - np.repeat(starts, sizes)
  table = np.repeat(np.arange(256), sizes) + special.pdtr(
      counts, np.repeat(means, sizes))
  found = np.searchsorted(table, images + uniforms, side='left')
  return (found - starts[images]) / photons


def _impulse_noise(images: np.ndarray, share: float,
                   draw: _Draw) -> np.ndarray:
  """Each value becomes 0 or 1 with probability share / 2 each."""
  uniforms = draw(images.shape)
  found = np.where(uniforms < share / 2., 0., _unit(images))
  return np.where(uniforms > 1. - share / 2., 1., found)


def _gaussian_blur(images: np.ndarray, std: float, draw: _Draw) -> np.ndarray:
  del draw
  return ndimage.gaussian_filter(_unit(images), (0., std, std, 0.),
                                 mode='nearest')


def _contrast(images: np.ndarray, factor: float, draw: _Draw) -> np.ndarray:
  """Distances from the mean of each image's channel shrink."""
  del draw
  x = _unit(images)
  means = x.mean(axis=(1, 2), keepdims=True)
  return means + factor * (x - means)


def _brightness(images: np.ndarray, added: float, draw: _Draw) -> np.ndarray:
  """The value of HSV, max(R, G, B), grows; hue and saturation stay."""
  del draw
  x = _unit(images)
  value = x.max(axis=-1, keepdims=True)
  brighter = np.minimum(value + added, 1.)
  # Black has no hue: it becomes grey.
  return np.where(value > 0., x * (brighter / np.where(value > 0., value, 1.)),
                  brighter)


def _rotation(images: np.ndarray, degrees: float, draw: _Draw) -> np.ndarray:
  """Turned about the centre, bilinear; what comes from outside is black."""
  del draw
  num_images, height, width, channels = images.shape
  padded = np.zeros((num_images, height + 2, width + 2, channels))
  padded[:, 1:-1, 1:-1] = _unit(images)
  angle = np.deg2rad(degrees)
  rows, columns = np.meshgrid(np.arange(height) - (height - 1) / 2.,
                              np.arange(width) - (width - 1) / 2.,
                              indexing='ij')
  # Where each pixel comes from, in padded coordinates; rounded, since a
  # quarter turn must hit pixels and not their borders.
  source_rows = np.round(rows * np.cos(angle) + columns * np.sin(angle)
                         + (height - 1) / 2., 9) + 1.
  source_columns = np.round(columns * np.cos(angle) - rows * np.sin(angle)
                            + (width - 1) / 2., 9) + 1.
  found = np.zeros(images.shape)
  low_rows = np.floor(source_rows).astype(int)
  low_columns = np.floor(source_columns).astype(int)
  for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
    at_rows, at_columns = low_rows + row, low_columns + column
    weights = ((1. - np.abs(source_rows - at_rows))
               * (1. - np.abs(source_columns - at_columns)))
    inside = ((at_rows >= 0) & (at_rows < height + 2)
              & (at_columns >= 0) & (at_columns < width + 2))
    found += (weights * inside)[..., None] * padded[
        :, np.clip(at_rows, 0, height + 1), np.clip(at_columns, 0, width + 1)]
  return found


_OF_FLOATS: Mapping[str, Callable[[np.ndarray, float, _Draw], np.ndarray]] = {
    'gaussian_noise': _gaussian_noise, 'shot_noise': _shot_noise,
    'impulse_noise': _impulse_noise, 'speckle_noise': _speckle_noise,
    'gaussian_blur': _gaussian_blur, 'contrast': _contrast,
    'brightness': _brightness, 'rotation': _rotation,
}
_OF_BYTES: Mapping[str, Callable[[np.ndarray, float], np.ndarray]] = {
    'jpeg': compress, 'pixelate': _pixelate,
}
