"""What a layer is, and the kinds that know no images; frozen dataclasses.

Convolutions and pools are in `images.py`, normalisations in `norms.py`.

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
from typing import ClassVar
from typing import Protocol

import chex
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


class ForwardPass:
  """What one forward pass has besides weights and activations.

  Args:
    statistics: running mean and variance of every batch norm, in the order of
      the layers, [2, channels] each, or [J, 2, channels].
    is_training: whether batch norms use the batch's statistics, and update the
      running ones.
    drop: (activations, shape of an example) -> activations, what dropout places
      do; None: what their own rates say.
    dropout_key: what the units that are switched off are drawn from; None
      switches off none, as after training.

  Attributes:
    is_training: as given.
    updated: the running statistics after the pass, in the order of the norms.
  """

  def __init__(self, statistics: Sequence[base.Array] = (),
               is_training: bool = False,
               drop: Callable[[base.Array, Shape], base.Array] | None = None,
               dropout_key: chex.PRNGKey | None = None):
    self.is_training = is_training
    self.updated: list[base.Array] = []
    self._statistics = list(statistics)
    self._drop = drop
    self._dropout_key = dropout_key
    self._num_drops = 0

  def next_statistics(self) -> base.Array:
    """Running mean and variance of the next batch norm."""
    return self._statistics.pop(0)

  def drop(self, h: base.Array, shape: Shape, rate: float) -> base.Array:
    """What a dropout place with this rate does."""
    if self._drop is not None:
      return self._drop(h, shape)
    if self._dropout_key is None or not rate:
      return h
    self._num_drops += 1
    bits = jax.random.bits(
        jax.random.fold_in(self._dropout_key, self._num_drops), h.shape,
        jnp.uint32)
    return jnp.where(bits >= np.uint32(rate * 2.**32), h / (1. - rate), 0.)


# The pass of layers that have no running statistics and switch off no units.
INFERENCE = ForwardPass()


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


def first_layout(x: base.Array) -> base.Array:
  """x [B, features] or [B, height, width, channels] as layers take it."""
  return x.T if x.ndim == 2 else x.transpose(3, 1, 2, 0)


class WithoutWeights:
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
    return self.activate(self.product(weights[0], h, shape))

  def activate(self, h: base.Array) -> base.Array:
    """The layer's activation alone."""
    return ACTIVATIONS[self.activation](h)

  def product(self, w: base.Array, h: base.Array, shape: Shape) -> base.Array:
    """The layer without its activation."""
    del shape
    return products.over_members(products.affine, w, h, rank=1)


@dataclasses.dataclass(frozen=True)
class Dropout(WithoutWeights):
  """A place where units may be switched off; what happens is the method's.

  Attributes:
    of_input: whether the units are the network's inputs.
    rate: share of units that training switches off, for each member and example
      anew, where the index picks a member. Methods that draw weights or units
      have no use for it; MC dropout has a rate of its own.
  """
  of_input: bool = False
  rate: float = 0.

  def __post_init__(self):
    checks.check_rate('rate', self.rate)

  def output_shape(self, shape: Shape) -> Shape:
    return shape

  def apply(self, weights, h, shape, run):
    return run.drop(h, shape, self.rate)


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


def has_dropout(layers: Sequence[Layer]) -> bool:
  """Whether training switches units off, whatever the method."""
  return any(
      isinstance(layer, Dropout) and layer.rate > 0
      or isinstance(layer, Residual) and has_dropout(
          (*layer.layers, *layer.shortcut)) for layer in layers)


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
