"""Layer ensembles of any layers: every layer with weights has options.

A layer ensemble has K_l options of each layer l with weights; a member is a
combination z = (z_1, ..., z_L) of one option per layer. Combinations that share
a prefix, the options of the first layers, share the outputs of those layers
(Algorithm 1 of the paper): all K^L outputs cost K + K^2 + ... + K^L layer
evaluations, not L K^L. In `forward_all` each depth applies every option to
every prefix in one matrix product or one convolution with K_l times as many
outputs. `prefix_plans.py` computes any set of combinations, `moments.py` mean
and std over all of them.

Layouts. Activations are those of `layers.py`, the prefixes beside the examples:
[*features first, prefixes * B]. Among the prefixes the option of the newest
layer varies slowest: the position of a prefix is z_l (K_1 ... K_(l-1)) + the
position of its parent, the prefix without its last option. Weights are [out,
K, columns]: all options times all prefixes, [out * K, columns] by [columns,
prefixes * B], is one matrix product whose result is in this order.

Oleksiienko & Iosifidis 2022, "Layer Ensembles" (arXiv 2210.04882).
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.networks import images
from enn_ensembles.networks import layers as layers_lib
from enn_ensembles.networks import parameters
from enn_ensembles.networks import products

Shape = layers_lib.Shape
Weights = Sequence[base.Array]  # Every weight array as [out, K_l, columns].


@dataclasses.dataclass(frozen=True)
class Segment:
  """A layer with options and those that follow it up to the next."""
  layers: tuple[layers_lib.Layer, ...]
  input_shape: Shape

  @property
  def shapes(self) -> list[Shape]:
    """Shape of an example before each layer and after the last."""
    return layers_lib.shapes_along(self.layers, self.input_shape)

  @property
  def weight_shapes(self) -> list[parameters.LayerShape]:
    """The weight arrays of one option; a residual block has several."""
    return layers_lib.weight_shapes(self.layers, self.input_shape)

  def apply_one(self, option: Any, weights: Weights,
                h: base.Array) -> base.Array:
    """One option, which may be traced, on the activations in h."""
    picked = [jnp.asarray(w)[:, option] for w in weights]
    return layers_lib.apply_layers(self.layers, picked, h, self.input_shape)

  def apply_each(self, options: base.Array, weights: Weights,
                 h: base.Array) -> base.Array:
    """Some options on activations of their own, or the same.

    Args:
      options: int [J].
      weights: [out, K, columns] each.
      h: [J, *features first, N], or [*features first, N].

    Returns:
      [J, *features first, N].
    """
    picked = [jnp.moveaxis(jnp.asarray(w)[:, options], 1, 0) for w in weights]
    return layers_lib.apply_layers(self.layers, picked, h, self.input_shape)

  def apply_all(self, weights: Weights, h: base.Array,
                run: layers_lib.ForwardPass = layers_lib.INFERENCE
                ) -> base.Array:
    """All options on all prefixes in h: [*features first, options * N]."""
    num_options = weights[0].shape[1]
    shapes = self.shapes
    if len(weights) > 1:  # Only one array's options can be rows of a product.
      members = [jnp.moveaxis(jnp.asarray(w), 1, 0) for w in weights]
      h = layers_lib.apply_layers(self.layers, members, h, self.input_shape,
                                  run)
      return products.join_first(h)
    (w,), layer = weights, self.layers[0]
    h = layer.apply([w.reshape(-1, w.shape[-1])], h, shapes[0], run)
    h = h.reshape(w.shape[0], num_options, *h.shape[1:])
    # The options move beside the examples once pooling has made images small.
    num = 1
    while num < len(self.layers) and isinstance(
        self.layers[num], (images.MaxPool, images.AveragePool)):
      h = self.layers[num].apply([], h, shapes[num], run)
      num += 1
    h = products.join_first(jnp.moveaxis(h, 1, 0))
    return layers_lib.apply_layers(self.layers[num:], [], h, shapes[num], run)


@dataclasses.dataclass(frozen=True)
class LayerStack:
  """The layers of a layer ensemble and the number of options of each.

  Attributes:
    layers: in order; the last is a `Dense` without activation. A residual block
      has options as a whole; a norm goes with the layer before it.
    num_options: (K_1, ..., K_L), one entry per layer that has options.
  """
  layers: tuple[layers_lib.Layer, ...]
  num_options: tuple[int, ...]

  def __post_init__(self):
    checks.check_sizes('num_options', self.num_options)
    if not self.layers or not isinstance(self.layers[-1], layers_lib.Dense) or (
        self.layers[-1].activation != 'none'):
      last = self.layers[-1] if self.layers else None
      raise ValueError('the last of the layers must be a Dense with activation '
                       f"'none', got {last!r}.")
    num_layers = sum(layer.has_options for layer in self.layers)
    if len(self.num_options) != num_layers:
      raise ValueError(
          f'num_options must have {num_layers} entries, one per layer with '
          f'weights, got {self.num_options!r}.')

  @property
  def num_samples(self) -> int:
    """J = K_1 ... K_L."""
    return int(np.prod(self.num_options))

  def shapes(self, input_shape: Shape) -> list[Shape]:
    """Shape of an example before each layer and after the last.

    Raises:
      ValueError: a layer does not fit what comes before it.
    """
    return layers_lib.shapes_along(self.layers, input_shape)

  def parameter_shapes(self, input_shape: Shape) -> list[Shape]:
    """Shape of all weight arrays, [out, K_l, columns] each."""
    return [(shape.out, options, shape.columns)
            for segment, options in zip(self.split(input_shape)[1],
                                        self.num_options)
            for shape in segment.weight_shapes]

  def split(self, input_shape: Shape) -> tuple[tuple[layers_lib.Layer, ...],
                                               list[Segment]]:
    """Layers before the first with options, and the segments.

    Raises:
      ValueError: there is a batch norm: its statistics would be of no single
        combination.
    """
    shapes = self.shapes(input_shape)
    if layers_lib.statistics_shapes(self.layers, input_shape):
      raise ValueError("a layer ensemble cannot have norm 'batch', whose "
                       'statistics belong to one combination: use norm '
                       "'group'.")
    starts = [i for i, layer in enumerate(self.layers) if layer.has_options]
    bounds = [*starts, len(self.layers)]
    segments = [Segment(self.layers[a:b], shapes[a])
                for a, b in zip(bounds[:-1], bounds[1:])]
    return self.layers[:starts[0]], segments

  def start(self, x: base.Array) -> tuple[base.Array, list[Segment]]:
    """What the first layer with options reads, and the segments.

    Args:
      x: [B, D] or [B, height, width, channels].
    """
    before, segments = self.split(x.shape[1:])
    h = layers_lib.apply_layers(before, [], layers_lib.first_layout(x),
                                x.shape[1:])
    return h, segments


def group_weights(segments: Sequence[Segment],
                  weights: Weights) -> list[list[base.Array]]:
  """The weight arrays of each segment."""
  left, groups = list(weights), []
  for segment in segments:
    num = len(segment.weight_shapes)
    groups.append(left[:num])
    left = left[num:]
  if left:
    raise ValueError(f'{len(weights)} weight arrays were given, the layers '
                     f'have {len(weights) - len(left)}.')
  return groups


def forward_one(stack: LayerStack, weights: Weights, x: base.Array,
                z: base.Index) -> base.Array:
  """One combination: z int [L], may be traced -> [B, out]."""
  h, segments = stack.start(x)
  for segment, w, option in zip(segments, group_weights(segments, weights), z,
                                strict=True):
    h = segment.apply_one(option, w, h)
  return h.T


def forward_all(stack: LayerStack, weights: Weights, x: base.Array,
                run: layers_lib.ForwardPass = layers_lib.INFERENCE
                ) -> base.Array:
  """All combinations, the last layer's option fastest:
  [K_1 ... K_L, B, out]."""
  h, segments = stack.start(x)
  for segment, w in zip(segments, group_weights(segments, weights)):
    h = segment.apply_all(w, h, run)
  h = h.reshape(-1, *reversed(stack.num_options), len(x))
  # [out, K_L, ..., K_1, B] -> [K_1, ..., K_L, B, out]
  num = len(stack.num_options)
  return h.transpose([*range(num, 0, -1), num + 1, 0]).reshape(
      -1, len(x), h.shape[0])
