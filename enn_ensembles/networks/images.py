"""Layers of images: convolutions, pools, and the way to vectors."""

import dataclasses
import math
from typing import Any
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.networks import convolutions
from enn_ensembles.networks import layers
from enn_ensembles.networks import parameters

PADDINGS = ('SAME', 'VALID')


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
  """(height, width) of a field that is one number or two."""
  pair = value if isinstance(value, tuple) else (value, value)
  checks.check_sizes(name, pair)
  if len(pair) != 2:
    raise ValueError(
        f'{name} must be an integer or two of them, got {value!r}.')
  return pair


def _check_image(layer: Any, shape: layers.Shape) -> None:
  if len(shape) != 3:
    raise ValueError(f'{layer} needs images [height, width, channels], got '
                     f'examples of shape {shape}.')


def _slide(layer: Any, shape: layers.Shape, window: tuple[int, int],
           strides: tuple[int, int], padding: str) -> tuple[int, int]:
  """Height and width of what a sliding window leaves."""
  _check_image(layer, shape)
  if padding == 'SAME':
    return tuple(-(-size // step) for size, step in zip(shape, strides))
  if any(size < w for size, w in zip(shape, window)):
    raise ValueError(f'{layer} needs images of at least {window}, got examples '
                     f'of shape {shape}.')
  return tuple((size - w) // step + 1
               for size, w, step in zip(shape, window, strides))


@dataclasses.dataclass(frozen=True)
class Conv2D:
  """activation(convolution + bias) of images.

  Attributes:
    channels: of the result.
    window: height and width of the window, or one number for both.
    strides: steps of the window, or one number for both.
    padding: 'SAME' (zeros around the image) or 'VALID'.
    activation: a name in `ACTIVATIONS`.
    bias_std: std of the initial bias; that of the weights is 1/sqrt(inputs of
      one output).
    with_bias: whether there is a bias; a norm that follows has an offset.
  """
  has_options: ClassVar[bool] = True
  channels: int
  window: int | tuple[int, int] = 3
  strides: int | tuple[int, int] = 1
  padding: str = 'SAME'
  activation: str = 'relu'
  bias_std: float = 0.
  with_bias: bool = True

  def __post_init__(self):
    checks.check_count('channels', self.channels)
    _pair('window', self.window)
    _pair('strides', self.strides)
    checks.check_choice('padding', self.padding, PADDINGS)
    checks.check_choice('activation', self.activation, layers.ACTIVATIONS)
    checks.check_scale('bias_std', self.bias_std)
    checks.check_flag('with_bias', self.with_bias)

  def output_shape(self, shape: layers.Shape) -> layers.Shape:
    return (*_slide(self, shape, _pair('window', self.window),
                    _pair('strides', self.strides), self.padding),
            self.channels)

  def weight_shapes(self, shape):
    positions = math.prod(_pair('window', self.window))
    fan_in = positions * shape[-1]
    return [parameters.LayerShape(self.channels, fan_in, fan_in ** -0.5,
                                  self.bias_std, positions, self.with_bias)]

  def statistics_shapes(self, shape):
    del shape
    return []

  def apply(self, weights, h, shape, run):
    return layers.ACTIVATIONS[self.activation](
        self.product(weights[0], h, shape))

  def product(self, w: base.Array, h: base.Array,
              shape: layers.Shape) -> base.Array:
    """The layer without its activation."""
    del shape
    return convolutions.convolve(
        w, h, _pair('window', self.window), _pair('strides', self.strides),
        self.padding, self.with_bias)


@dataclasses.dataclass(frozen=True)
class _Pool(layers.WithoutWeights):
  """A statistic of each window of each channel; no weights.

  Attributes:
    window: height and width, or one number for both.
    strides: steps of the window; None: windows side by side.
  """
  window: int | tuple[int, int] = 2
  strides: int | tuple[int, int] | None = None

  def __post_init__(self):
    self._sizes()

  def _sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
    window = _pair('window', self.window)
    return window, (window if self.strides is None else
                    _pair('strides', self.strides))

  def output_shape(self, shape: layers.Shape) -> layers.Shape:
    return (*_slide(self, shape, *self._sizes(), 'VALID'), shape[-1])

  def _reduce(self, h, reduce, start, combine):
    """Side by side, windows are axes of their own: that is much faster."""
    window, strides = self._sizes()
    height, width = h.shape[-3:-1]
    if window == strides:
      height, width = height // window[0], width // window[1]
      h = h[..., :height * window[0], :width * window[1], :]
      return reduce(h.reshape(*h.shape[:-3], height, window[0], width,
                              window[1], h.shape[-1]), axis=(-4, -2))
    around = (1,) * (h.ndim - 3)
    return jax.lax.reduce_window(h, start, combine, (*around, *window, 1),
                                 (*around, *strides, 1), 'VALID')


@dataclasses.dataclass(frozen=True)
class MaxPool(_Pool):
  """The largest value in each window of each channel.

  Attributes:
    window: height and width, or one number for both.
    strides: steps of the window; None: windows side by side.
  """

  def apply(self, weights, h, shape, run):
    # The start is a Python float: it takes the dtype of h.
    return self._reduce(h, jnp.max, -np.inf, jax.lax.max)


@dataclasses.dataclass(frozen=True)
class AveragePool(_Pool):
  """The mean of each window of each channel.

  Attributes:
    window: height and width, or one number for both.
    strides: steps of the window; None: windows side by side.
  """

  def apply(self, weights, h, shape, run):
    window, strides = self._sizes()
    mean = self._reduce(h, jnp.mean, 0., jax.lax.add)
    return mean if window == strides else mean / math.prod(window)


@dataclasses.dataclass(frozen=True)
class GlobalAveragePool(layers.WithoutWeights):
  """The mean of every channel: images to vectors."""

  def output_shape(self, shape: layers.Shape) -> layers.Shape:
    _check_image(self, shape)
    return (shape[-1],)

  def apply(self, weights, h, shape, run):
    return jnp.mean(h, axis=(-3, -2))


@dataclasses.dataclass(frozen=True)
class Flatten(layers.WithoutWeights):
  """Images [height, width, channels] to vectors, in that order.

  Vectors stay as they are.
  """

  def output_shape(self, shape: layers.Shape) -> layers.Shape:
    if len(shape) != 1:
      _check_image(self, shape)
    return (math.prod(shape),)

  def apply(self, weights, h, shape, run):
    if len(shape) == 1:
      return h
    h = jnp.moveaxis(h, -4, -2)  # [..., height, width, channels, N]
    return h.reshape(*h.shape[:-4], math.prod(shape), h.shape[-1])
