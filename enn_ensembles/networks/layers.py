"""Kinds of layers, as frozen dataclasses.

Layouts. Vectors are columns, [features, N], and images rows, [N, height, width,
channels], where N counts examples, or the examples of several prefixes side by
side.
"""

import dataclasses
from typing import Any
from typing import ClassVar
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.networks import mlp
from enn_ensembles.networks import parameters

Shape = tuple[int, ...]  # Of an example: (features,), or (height, width, ch.).

ACTIVATIONS = {'relu': jax.nn.relu, 'tanh': jnp.tanh, 'none': lambda h: h}
PADDINGS = ('SAME', 'VALID')


class Layer(Protocol):
  """A kind of layer. Frozen dataclasses, so that they can be static arguments.

  One without options (pooling, flattening) has only `output_shape`,
  `apply_one` and `apply_all`, and is given w = None.

  Attributes:
    has_options: whether it has weights, and so options.
  """
  has_options: ClassVar[bool]

  def output_shape(self, shape: Shape) -> Shape:
    """Shape of an example after the layer; ValueError if it does not fit."""

  def parameter_shape(self, shape: Shape, num_options: int) -> Shape:
    """Shape of the one array that holds the weights of all options."""

  def scales(self, shape: Shape) -> np.ndarray:
    """Stds of the initial weights, broadcast to `parameter_shape`."""

  def pick(self, w: base.Array, option: Any) -> base.Array:
    """The weights of one option, which may be traced."""

  def apply_one(self, w: base.Array, h: base.Array, shape: Shape) -> base.Array:
    """One option on all prefixes in h, [features, prefixes * B] or
    [prefixes * B, height, width, channels]."""

  def apply_all(self, w: base.Array, h: base.Array, shape: Shape) -> base.Array:
    """All options on all prefixes in h.

    The result is [..., options * prefixes * B] for vectors. For images the
    options lie beside the channels, [prefixes * B, ..., options * channels]:
    they move to the front once pooling has made the images small.
    """


def _check_activation(activation: str) -> None:
  checks.check_choice('activation', activation, ACTIVATIONS)


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
  """(height, width) of a field that is one number or two."""
  pair = value if isinstance(value, tuple) else (value, value)
  checks.check_sizes(name, pair)
  if len(pair) != 2:
    raise ValueError(
        f'{name} must be an integer or two of them, got {value!r}.')
  return pair


def _check_image(layer: Any, shape: Shape) -> None:
  if len(shape) != 3:
    raise ValueError(f'{layer} needs images [height, width, channels], got '
                     f'examples of shape {shape}.')


def _slide(layer: Any, shape: Shape, window: tuple[int, int],
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
class Dense:
  """activation(w h), the bias being the last column of w.

  Its weights are [size, K, in + 1]: all options times all prefixes,
  [size * K, in + 1] by [in + 1, prefixes * B], is one matrix product whose
  result is in the order that the next layer reads.

  Attributes:
    size: units.
    activation: a name in `ACTIVATIONS`.
    bias_std: std of the initial bias; that of the weights is 1/sqrt(in).
  """
  has_options: ClassVar[bool] = True
  size: int
  activation: str = 'relu'
  bias_std: float = 0.

  def __post_init__(self):
    checks.check_count('size', self.size)
    _check_activation(self.activation)
    checks.check_scale('bias_std', self.bias_std)

  def output_shape(self, shape: Shape) -> Shape:
    if len(shape) != 1:
      raise ValueError(f'{self} needs vectors, got examples of shape {shape}: '
                       'put Flatten() before it.')
    return (self.size,)

  def parameter_shape(self, shape: Shape, num_options: int) -> Shape:
    return (self.size, num_options, shape[0] + 1)

  def scales(self, shape: Shape) -> np.ndarray:
    return parameters.column_scales(parameters.LayerShape(
        self.size, shape[0], shape[0] ** -0.5, self.bias_std))

  def pick(self, w, option):
    return jnp.asarray(w)[:, option]

  def apply_one(self, w, h, shape):
    del shape
    return ACTIVATIONS[self.activation](mlp.affine(w, h))

  def apply_all(self, w, h, shape):
    out, options, columns = w.shape
    h = self.apply_one(w.reshape(out * options, columns), h, shape)
    return h.reshape(out, -1)


@dataclasses.dataclass(frozen=True)
class Conv2D:
  """activation(convolution + bias) of images, channels last.

  Its weights are [height * width * channels in + 1, K, channels], the bias
  being the last row: all options at once are one convolution with K times as
  many channels.

  Attributes:
    channels: of the result.
    window: height and width of the window, or one number for both.
    strides: steps of the window, or one number for both.
    padding: 'SAME' (zeros around the image) or 'VALID'.
    activation: a name in `ACTIVATIONS`.
    bias_std: std of the initial bias; that of the weights is 1/sqrt(inputs of
      one output).
  """
  has_options: ClassVar[bool] = True
  channels: int
  window: int | tuple[int, int] = 3
  strides: int | tuple[int, int] = 1
  padding: str = 'SAME'
  activation: str = 'relu'
  bias_std: float = 0.

  def __post_init__(self):
    checks.check_count('channels', self.channels)
    _pair('window', self.window)
    _pair('strides', self.strides)
    checks.check_choice('padding', self.padding, PADDINGS)
    _check_activation(self.activation)
    checks.check_scale('bias_std', self.bias_std)

  def output_shape(self, shape: Shape) -> Shape:
    return (*_slide(self, shape, _pair('window', self.window),
                    _pair('strides', self.strides), self.padding),
            self.channels)

  def _fan_in(self, shape: Shape) -> int:
    height, width = _pair('window', self.window)
    return height * width * shape[-1]

  def parameter_shape(self, shape: Shape, num_options: int) -> Shape:
    return (self._fan_in(shape) + 1, num_options, self.channels)

  def scales(self, shape: Shape) -> np.ndarray:
    fan_in = self._fan_in(shape)
    return parameters.column_scales(parameters.LayerShape(
        self.channels, fan_in, fan_in ** -0.5, self.bias_std))[:, None, None]

  def pick(self, w, option):
    return jnp.asarray(w)[:, option]

  def apply_one(self, w, h, shape):
    window = w[:-1].reshape(*_pair('window', self.window), shape[-1], -1)
    h = jax.lax.conv_general_dilated(
        h, window, _pair('strides', self.strides), self.padding,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return ACTIVATIONS[self.activation](h + w[-1])

  def apply_all(self, w, h, shape):
    return self.apply_one(w.reshape(len(w), -1), h, shape)


@dataclasses.dataclass(frozen=True)
class MaxPool:
  """The largest value in each window of each channel; no options.

  Attributes:
    window: height and width, or one number for both.
    strides: steps of the window; None: windows side by side.
  """
  has_options: ClassVar[bool] = False
  window: int | tuple[int, int] = 2
  strides: int | tuple[int, int] | None = None

  def __post_init__(self):
    self._sizes()

  def _sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
    window = _pair('window', self.window)
    return window, (window if self.strides is None else
                    _pair('strides', self.strides))

  def output_shape(self, shape: Shape) -> Shape:
    return (*_slide(self, shape, *self._sizes(), 'VALID'), shape[-1])

  def apply_one(self, w, h, shape):
    del w, shape
    window, strides = self._sizes()
    # The start is a Python float: it takes the dtype of h.
    return jax.lax.reduce_window(h, -np.inf, jax.lax.max, (1, *window, 1),
                                 (1, *strides, 1), 'VALID')

  apply_all = apply_one


@dataclasses.dataclass(frozen=True)
class Flatten:
  """Images [height, width, channels] to vectors, in that order; no options."""
  has_options: ClassVar[bool] = False

  def output_shape(self, shape: Shape) -> Shape:
    _check_image(self, shape)
    return (int(np.prod(shape)),)

  def apply_one(self, w, h, shape):
    del w
    # [rest, H W, options, C] -> [H W C, options * rest].
    h = h.reshape(h.shape[0], shape[0] * shape[1], -1, shape[2])
    return h.transpose(1, 3, 2, 0).reshape(int(np.prod(shape)), -1)

  apply_all = apply_one
