"""Layer ensembles of any layers: every layer with weights has options.

A layer ensemble has K_l options of each layer l with weights; a member is a
combination z = (z_1, ..., z_N) of one option per layer. Combinations that share
a prefix, the options of the first layers, share the outputs of those layers
(Algorithm 1 of the paper): all K^N outputs cost K + K^2 + ... + K^N layer
evaluations, not N K^N. In `forward_all` each depth applies every option to
every prefix in one matrix product or one convolution with K_l times as many
outputs. `prefix_plans.py` computes any set of combinations, `moments.py` mean
and std over all of them.

Layouts. Between layers vectors are columns, [features, prefixes * B], and
images rows, [prefixes * B, height, width, channels]. Among the prefixes the
option of the newest layer varies slowest: the position of a prefix is
z_l (K_1 ... K_(l-1)) + the position of its parent, the prefix without its last
option. The weights lie so that products come out in this order.

Oleksiienko & Iosifidis 2022, "Layer Ensembles" (arXiv 2210.04882).
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.networks import layers as layers_lib

Shape = layers_lib.Shape
Weights = Sequence[base.Array]  # One array per layer that has options.


@dataclasses.dataclass(frozen=True)
class Segment:
  """A layer with options and the layers without that follow it."""
  layers: tuple[layers_lib.Layer, ...]
  shapes: tuple[Shape, ...]  # At the input of each, and at the end.

  def run(self, method: str, w: Any, h: base.Array) -> base.Array:
    for layer, shape in zip(self.layers, self.shapes):
      h, w = getattr(layer, method)(w, h, shape), None
    if len(self.shapes[-1]) == 3:
      h = _spread_options(h, self.shapes[-1][-1])
    return h

  def apply_one(self, option: Any, w: Any, h: base.Array) -> base.Array:
    return self.run('apply_one', self.layers[0].pick(w, option), h)

  def apply_all(self, w: Any, h: base.Array) -> base.Array:
    return self.run('apply_all', w, h)


def _spread_options(h: base.Array, channels: int) -> base.Array:
  """[rest, H, W, options * C] -> [options * rest, H, W, C]."""
  if h.shape[-1] == channels:
    return h
  h = h.reshape(*h.shape[:-1], -1, channels)
  return h.transpose(3, 0, 1, 2, 4).reshape(-1, *h.shape[1:3], channels)


@dataclasses.dataclass(frozen=True)
class LayerStack:
  """The layers of a layer ensemble and the number of options of each.

  Attributes:
    layers: in order; the last is a `Dense` without activation.
    num_options: (K_1, ..., K_N), one entry per layer that has weights.
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
    """J = K_1 ... K_N."""
    return int(np.prod(self.num_options))

  def shapes(self, input_shape: Shape) -> list[Shape]:
    """Shape of an example before each layer and after the last.

    Raises:
      ValueError: a layer does not fit what comes before it.
    """
    shapes = [tuple(input_shape)]
    for layer in self.layers:
      shapes.append(layer.output_shape(shapes[-1]))
    return shapes

  def parameter_shapes(self, input_shape: Shape) -> list[Shape]:
    """Shape of the weights of each layer that has options."""
    return [segment.layers[0].parameter_shape(segment.shapes[0], options)
            for segment, options in zip(
                self.split(input_shape)[1], self.num_options)]

  def split(self, input_shape: Shape) -> tuple[Segment, list[Segment]]:
    """Layers before the first with options, and the segments."""
    shapes = self.shapes(input_shape)
    starts = [i for i, layer in enumerate(self.layers) if layer.has_options]
    bounds = [0, *starts, len(self.layers)]
    before, *segments = [
        Segment(self.layers[a:b], tuple(shapes[a:b + 1]))
        for a, b in zip(bounds[:-1], bounds[1:])]
    return before, segments

  def start(self, x: base.Array) -> tuple[base.Array, list[Segment]]:
    """What the first layer with options reads, and the segments.

    Args:
      x: [B, D] or [B, height, width, channels].
    """
    before, segments = self.split(x.shape[1:])
    h = x.T if x.ndim == 2 else x
    return before.run('apply_one', None, h), segments


def forward_one(stack: LayerStack, weights: Weights, x: base.Array,
                z: base.Index) -> base.Array:
  """One combination: z int [N], may be traced -> [B, out]."""
  h, segments = stack.start(x)
  for segment, w, option in zip(segments, weights, z, strict=True):
    h = segment.apply_one(option, w, h)
  return h.T


def forward_all(stack: LayerStack, weights: Weights,
                x: base.Array) -> base.Array:
  """All combinations, the last layer's option fastest:
  [K_1 ... K_N, B, out]."""
  h, segments = stack.start(x)
  for segment, w in zip(segments, weights, strict=True):
    h = segment.apply_all(w, h)
  h = h.reshape(-1, *reversed(stack.num_options), len(x))
  # [out, K_N, ..., K_1, B] -> [K_1, ..., K_N, B, out]
  num = len(stack.num_options)
  return h.transpose([*range(num, 0, -1), num + 1, 0]).reshape(
      -1, len(x), h.shape[0])
