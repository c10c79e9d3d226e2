"""Random changes of training images, as compiled code inside the training.

An `Augmentation` is a pure function (key, x [B, H, W, C]) -> x. Every image of
the minibatch gets its own draw. It knows how images were normalised, since
black, what comes from outside an image, is not 0 then.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import checks

# fold_in constants of the key of a minibatch: one per change.
_CROP_KEY = 0
_FLIP_KEY = 1
_BRIGHTNESS_KEY = 2


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Pads and crops, flips, and changes the brightness of images.

  What is 0 or False is not done. It can be hashed and compared, so a program
  compiled for one serves all that are equal.

  Attributes:
    pad: pixels added on each side before a crop of the old size at a random
      place: images move by up to so many pixels.
    flip: whether half of the images are mirrored, left and right.
    brightness: largest number that is added to all values of an image, where
      black is 0 and white is 1; results outside are cut.
    black: what a value of 0 became by normalisation, one per channel or one
      for all.
    white: what a value of 1 became.
  """
  pad: int = 0
  flip: bool = False
  brightness: float = 0.
  black: tuple[float, ...] = (0.,)
  white: tuple[float, ...] = (1.,)

  def __post_init__(self):
    checks.check_count('pad', self.pad, minimum=0)
    checks.check_flag('flip', self.flip)
    checks.check_scale('brightness', self.brightness)
    if len(self.black) != len(self.white):
      raise ValueError('black and white must have the same length, got '
                       f'{self.black} and {self.white}.')

  def __call__(self, key: chex.PRNGKey, x: base.Array) -> base.Array:
    """Changed images.

    Args:
      key: of the minibatch.
      x: normalised images [B, H, W, C].

    Returns:
      The same shape and dtype.

    Raises:
      ValueError: x has another number of axes or of channels.
    """
    if x.ndim != 4 or len(self.black) not in (1, x.shape[-1]):
      raise ValueError('augmentation needs images [B, H, W, C] with channels '
                       f'as in black = {self.black}, got shape '
                       f'{list(x.shape)}.')
    black, white = (jnp.asarray(value, x.dtype)
                    for value in (self.black, self.white))
    if self.pad:
      x = _pad_and_crop(jax.random.fold_in(key, _CROP_KEY), x, self.pad, black)
    if self.flip:
      is_flipped = jax.random.bernoulli(jax.random.fold_in(key, _FLIP_KEY),
                                        shape=(len(x), 1, 1, 1))
      x = jnp.where(is_flipped, x[:, :, ::-1], x)
    if self.brightness:
      added = jax.random.uniform(
          jax.random.fold_in(key, _BRIGHTNESS_KEY), (len(x), 1, 1, 1),
          jnp.float32, -self.brightness, self.brightness).astype(x.dtype)
      x = jnp.clip(x + added * (white - black), black, white)
    return x


def _pad_and_crop(key: chex.PRNGKey, x: base.Array, pad: int,
                  black: base.Array) -> base.Array:
  batch, height, width, channels = x.shape
  padded = jnp.broadcast_to(
      black, (batch, height + 2 * pad, width + 2 * pad, channels))
  padded = padded.at[:, pad:pad + height, pad:pad + width].set(x)
  corners = jax.random.randint(key, (batch, 2), 0, 2 * pad + 1)
  return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(
      image, (corner[0], corner[1], 0), (height, width, channels)))(padded,
                                                                    corners)
