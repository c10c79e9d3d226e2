"""Kinds of layers, as frozen dataclasses.

Activations lie features first and examples last: vectors are [features, N] and
images [channels, height, width, N], where N counts examples, or the examples of
several prefixes side by side. Members that do not share them stack theirs on a
first axis; every layer takes activations, and weights, with it and without.
The weights of a layer are arrays [out, columns], see `parameters.LayerShape`.
Shapes of one example are written as users know them: (features,), or (height,
width, channels).
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math
from typing import Any
from typing import ClassVar
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.networks import parameters
from enn_ensembles.networks import products

Shape = tuple[int, ...]  # Of an example: (features,), or (height, width, ch.).
Weights = Sequence[base.Array]

ACTIVATIONS = {'relu': jax.nn.relu, 'tanh': jnp.tanh, 'none': lambda h: h}
PADDINGS = ('SAME', 'VALID')
NORMS = ('batch', 'group', 'none')


class ForwardPass:
  """What one forward pass has besides weights and activations.

  Attributes:
    is_training: whether batch norms use the batch's statistics, and update the
      running ones.
    updated: the running statistics after the pass, in the order of the norms.
  """

  def __init__(self, statistics: Sequence[base.Array] = (),
               is_training: bool = False,
               drop: Callable[[base.Array, Shape], base.Array] | None = None):
    """Args as follows.

    Args:
      statistics: running mean and variance of every batch norm, in the order
        of the layers, [2, channels] each, or [J, 2, channels].
      is_training: see above.
      drop: (activations, shape of an example) -> activations, what dropout
        places do; None: nothing.
    """
    self.is_training = is_training
    self.updated: list[base.Array] = []
    self._statistics = list(statistics)
    self._drop = drop

  def next_statistics(self) -> base.Array:
    """Running mean and variance of the next batch norm."""
    return self._statistics.pop(0)

  def drop(self, h: base.Array, shape: Shape) -> base.Array:
    """What a dropout place does."""
    return h if self._drop is None else self._drop(h, shape)


INFERENCE = ForwardPass()  # Of layers without statistics or dropout.


class Layer(Protocol):
  """A kind of layer. Frozen dataclasses, so that they can be static arguments.

  Attributes:
    has_options: whether a layer ensemble gives it options of its own. A norm
      has weights but goes with the layer before it.
  """
  has_options: ClassVar[bool]

  def output_shape(self, shape: Shape) -> Shape:
    """Shape of an example after the layer; ValueError if it does not fit."""

  def weight_shapes(self, shape: Shape) -> list[parameters.LayerShape]:
    """The weight arrays of the layer for examples of this shape."""

  def statistics_shapes(self, shape: Shape) -> list[int]:
    """Channels of every batch norm in the layer."""

  def apply(self, weights: Weights, h: base.Array, shape: Shape,
            run: ForwardPass) -> base.Array:
    """The layer's output; `weights` has the arrays of `weight_shapes`."""


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


def first_layout(x: base.Array) -> base.Array:
  """x [B, features] or [B, height, width, channels] as layers take it."""
  return x.T if x.ndim == 2 else x.transpose(3, 1, 2, 0)


class _WithoutWeights:
  """What layers without weights have in common."""
  has_options: ClassVar[bool] = False

  def weight_shapes(self, shape: Shape) -> list[parameters.LayerShape]:
    del shape
    return []

  statistics_shapes = weight_shapes


@dataclasses.dataclass(frozen=True)
class Dense:
  """activation(w h), the bias being the last column of w.

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
    checks.check_choice('activation', self.activation, ACTIVATIONS)
    checks.check_scale('bias_std', self.bias_std)

  def output_shape(self, shape: Shape) -> Shape:
    if len(shape) != 1:
      raise ValueError(f'{self} needs vectors, got examples of shape {shape}: '
                       'put Flatten() before it.')
    return (self.size,)

  def weight_shapes(self, shape):
    return [parameters.LayerShape(self.size, shape[0], shape[0] ** -0.5,
                                  self.bias_std)]

  def statistics_shapes(self, shape):
    del shape
    return []

  def apply(self, weights, h, shape, run):
    return ACTIVATIONS[self.activation](self.product(weights[0], h, shape))

  def product(self, w: base.Array, h: base.Array, shape: Shape) -> base.Array:
    """The layer without its activation."""
    del shape
    return products.over_members(products.affine, w, h, rank=1)


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
    checks.check_choice('activation', self.activation, ACTIVATIONS)
    checks.check_scale('bias_std', self.bias_std)
    checks.check_flag('with_bias', self.with_bias)

  def output_shape(self, shape: Shape) -> Shape:
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
    return ACTIVATIONS[self.activation](self.product(weights[0], h, shape))

  def product(self, w: base.Array, h: base.Array, shape: Shape) -> base.Array:
    """The layer without its activation."""
    del shape
    return products.convolve(
        w, h, _pair('window', self.window), _pair('strides', self.strides),
        self.padding, self.with_bias)


@dataclasses.dataclass(frozen=True)
class _Pool(_WithoutWeights):
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

  def output_shape(self, shape: Shape) -> Shape:
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
class GlobalAveragePool(_WithoutWeights):
  """The mean of every channel: images to vectors."""

  def output_shape(self, shape: Shape) -> Shape:
    _check_image(self, shape)
    return (shape[-1],)

  def apply(self, weights, h, shape, run):
    return jnp.mean(h, axis=(-3, -2))


@dataclasses.dataclass(frozen=True)
class Flatten(_WithoutWeights):
  """Images [height, width, channels] to vectors, in that order.

  Vectors stay as they are.
  """

  def output_shape(self, shape: Shape) -> Shape:
    if len(shape) != 1:
      _check_image(self, shape)
    return (math.prod(shape),)

  def apply(self, weights, h, shape, run):
    if len(shape) == 1:
      return h
    h = jnp.moveaxis(h, -4, -2)  # [..., height, width, channels, N]
    return h.reshape(*h.shape[:-4], math.prod(shape), h.shape[-1])


@dataclasses.dataclass(frozen=True)
class Dropout(_WithoutWeights):
  """A place where units may be switched off; what happens is the method's.

  Attributes:
    of_input: whether the units are the network's inputs.
  """
  of_input: bool = False

  def output_shape(self, shape: Shape) -> Shape:
    return shape

  def apply(self, weights, h, shape, run):
    return run.drop(h, shape)


@dataclasses.dataclass(frozen=True)
class Norm:
  """activation(scale * normalised h + offset), scale and offset per channel.

  'batch' normalises every channel over a training batch, and by running
  statistics afterwards (Ioffe & Szegedy 2015, "Batch normalization",
  arXiv 1502.03167); each member has its own. 'group' normalises every example
  over groups of channels and needs no statistics (Wu & He 2018, "Group
  normalization", arXiv 1803.08494). 'none' is the activation alone.

  Attributes:
    kind: a name in `NORMS`.
    activation: a name in `ACTIVATIONS`.
    num_groups: of channels, with 'group'; the largest common divisor with the
      number of channels is used.
    momentum: share of the running statistics that a training step keeps.
    epsilon: added to variances.
  """
  has_options: ClassVar[bool] = False
  kind: str = 'batch'
  activation: str = 'none'
  num_groups: int = 8
  momentum: float = 0.9
  epsilon: float = 1e-5

  def __post_init__(self):
    checks.check_choice('norm', self.kind, NORMS)
    checks.check_choice('activation', self.activation, ACTIVATIONS)
    checks.check_count('num_groups', self.num_groups)
    checks.check_rate('momentum', self.momentum)
    checks.check_positive('epsilon', self.epsilon)

  def output_shape(self, shape: Shape) -> Shape:
    return shape

  def weight_shapes(self, shape):
    return [] if self.kind == 'none' else [parameters.norm_shape(shape[-1])]

  def statistics_shapes(self, shape):
    return [shape[-1]] if self.kind == 'batch' else []

  def apply(self, weights, h, shape, run):
    if self.kind != 'none':
      rank = len(shape)
      normalise = (self._by_batch if self.kind == 'batch' else self._by_group)
      w = weights[0]
      h = (normalise(h, rank, run) * _spread(w[..., 0], rank)
           + _spread(w[..., 1], rank))
    return ACTIVATIONS[self.activation](h)

  def _by_batch(self, h, rank, run):
    statistics = run.next_statistics()
    if run.is_training:
      axes = tuple(range(-rank, 0))  # All behind the channels.
      mean, variance = jnp.mean(h, axes), jnp.var(h, axes)
      found = jax.lax.stop_gradient(jnp.stack([mean, variance], axis=-2))
      run.updated.append(self.momentum * statistics
                         + (1. - self.momentum) * found)
    else:
      mean, variance = statistics[..., 0, :], statistics[..., 1, :]
      run.updated.append(statistics)
    scale = jax.lax.rsqrt(variance + self.epsilon)
    return (h - _spread(mean, rank)) * _spread(scale, rank)

  def _by_group(self, h, rank, run):
    del run
    channels = h.shape[-rank - 1]
    groups = math.gcd(self.num_groups, channels)
    grouped = h.reshape(*h.shape[:-rank - 1], groups, channels // groups,
                        *h.shape[-rank:])
    axes = tuple(range(-rank - 1, -1))
    mean = jnp.mean(grouped, axes, keepdims=True)
    variance = jnp.var(grouped, axes, keepdims=True)
    grouped = (grouped - mean) * jax.lax.rsqrt(variance + self.epsilon)
    return grouped.reshape(h.shape)


def _spread(values: base.Array, rank: int) -> base.Array:
  """[..., channels] over the axes that lie behind the channels."""
  return values.reshape(*values.shape, *(1,) * rank)


@dataclasses.dataclass(frozen=True)
class Residual:
  """activation(layers(h) + shortcut(h)); it has options as a whole.

  He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition"
  (arXiv 1512.03385).

  Attributes:
    layers: the main branch.
    shortcut: the other; empty: h itself.
    activation: a name in `ACTIVATIONS`.
  """
  has_options: ClassVar[bool] = True
  layers: tuple[Layer, ...]
  shortcut: tuple[Layer, ...] = ()
  activation: str = 'relu'

  def __post_init__(self):
    checks.check_choice('activation', self.activation, ACTIVATIONS)

  def output_shape(self, shape: Shape) -> Shape:
    main, side = (shapes_along(branch, shape)[-1]
                  for branch in (self.layers, self.shortcut))
    if main != side:
      raise ValueError(f'a residual block adds examples of shape {main} to '
                       f'{side}, from examples of shape {shape}.')
    return main

  def weight_shapes(self, shape):
    return [found for branch in (self.layers, self.shortcut)
            for found in weight_shapes(branch, shape)]

  def statistics_shapes(self, shape):
    return [found for branch in (self.layers, self.shortcut)
            for found in statistics_shapes(branch, shape)]

  def apply(self, weights, h, shape, run):
    num = len(weight_shapes(self.layers, shape))
    main = apply_layers(self.layers, weights[:num], h, shape, run)
    side = apply_layers(self.shortcut, weights[num:], h, shape, run)
    return ACTIVATIONS[self.activation](main + side)


def shapes_along(layers: Sequence[Layer], shape: Shape) -> list[Shape]:
  """Shape of an example before each layer and after the last.

  Raises:
    ValueError: a layer does not fit what comes before it.
  """
  shapes = [tuple(shape)]
  for layer in layers:
    shapes.append(layer.output_shape(shapes[-1]))
  return shapes


def weight_shapes(layers: Sequence[Layer],
                  shape: Shape) -> list[parameters.LayerShape]:
  """All weight arrays of layers in order, for examples of this shape."""
  return [found for layer, here in zip(layers, shapes_along(layers, shape))
          for found in layer.weight_shapes(here)]


def statistics_shapes(layers: Sequence[Layer], shape: Shape) -> list[int]:
  """Channels of all batch norms of layers in order."""
  return [found for layer, here in zip(layers, shapes_along(layers, shape))
          for found in layer.statistics_shapes(here)]


def dropout_shapes(layers: Sequence[Layer], shape: Shape) -> list[Shape]:
  """Shape of an example at every dropout place, in the order of a pass."""
  found = []
  for layer, here in zip(layers, shapes_along(layers, shape)):
    if isinstance(layer, Dropout):
      found.append(here)
    elif isinstance(layer, Residual):
      found += dropout_shapes(layer.layers, here)
      found += dropout_shapes(layer.shortcut, here)
  return found


def apply_layers(layers: Sequence[Layer], weights: Weights, h: base.Array,
                 shape: Shape, run: ForwardPass = INFERENCE) -> base.Array:
  """Layers one after the other.

  Args:
    layers: in order.
    weights: their weight arrays in order, [out, columns] or [J, out, columns].
    h: [*features first, N], or with members [J, *features first, N].
    shape: of one example.
    run: statistics and dropout of this pass.
  """
  left = list(weights)
  for layer, here in zip(layers, shapes_along(layers, shape)):
    num = len(layer.weight_shapes(here))
    h = layer.apply(left[:num], h, here, run)
    left = left[num:]
  if left:
    raise ValueError(f'{len(weights)} weight arrays were given, the layers '
                     f'have {len(weights) - len(left)}.')
  return h
