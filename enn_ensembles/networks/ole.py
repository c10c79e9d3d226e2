"""Optimised layer ensembles: shared beginnings of paths are computed once.

A layer ensemble has K_l options of each layer l with weights; a sample is a
path z = (z_1, ..., z_N) through them. Paths that begin alike share their first
layers (Algorithm 1 of the paper): all K^N outputs cost K + K^2 + ... + K^N
layer evaluations, not N K^N. Here for any dense and convolutional layers, and

* all paths (`forward_all`): per depth, every option on every path so far is one
  matrix product or one convolution with K_l times as many outputs;
* any set of paths (`forward_set` with a `Plan`): known when the program is
  compiled, exactly its distinct beginnings; known when it runs, a plan of
  static shapes is an argument, and one program serves all sets of one size
  (`make_predict_set`); traced indices too, without a plan from the host;
* mean and std over all paths without the last layer's outputs
  (`forward_moments`).

Layouts. Between layers vectors are columns, [features, paths * B], and images
rows, [paths * B, height, width, channels]. Among the paths the option of the
newest layer varies slowest: the position of a path is
z_l (K_1 ... K_(l-1)) + the position of its parent. The weights lie so that this
is the order in which products come out.

Oleksiienko & Iosifidis 2022, "Layer Ensembles" (arXiv 2210.04882).
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any
from typing import ClassVar
from typing import Protocol

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.networks import mlp
from enn_ensembles.networks import parameters

Shape = tuple[int, ...]  # Of an example: (features,), or (height, width, ch.).
Weights = Sequence[base.Array]  # One array per layer that has options.

ACTIVATIONS = {'relu': jax.nn.relu, 'tanh': jnp.tanh, 'none': lambda h: h}
PADDINGS = ('SAME', 'VALID')

_MODULE = 'layer_stack'  # Haiku's name for the parameters.

# One product of all options with all parents is preferred to a product per
# path as long as it is at most this many times the arithmetic. Not where the
# indices are traced: that is training, and picking is slow to differentiate.
_SURPLUS = 2
# Layers with more weights than this are not copied for every path, but run
# path by path.
_MAX_COPIED_WEIGHTS = 30_000


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
    """One option on all paths in h: [..., paths * B] or [paths * B, ...]."""

  def apply_all(self, w: base.Array, h: base.Array, shape: Shape) -> base.Array:
    """All options on all paths in h.

    The result is [..., options * paths * B] for vectors; for images the
    options lie beside the channels, [paths * B, ..., options * channels]: they
    move to the front once pooling has made the images small.
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

  Its weights are [size, K, in + 1]: all options times all paths so far,
  [size * K, in + 1] by [in + 1, paths * B], is one matrix product whose result
  is in the order that the next layer reads.

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
    kernel: height and width of the window, or one number for both.
    strides: steps of the window, or one number for both.
    padding: 'SAME' (zeros around the image) or 'VALID'.
    activation: a name in `ACTIVATIONS`.
    bias_std: std of the initial bias; that of the weights is 1/sqrt(inputs of
      one output).
  """
  has_options: ClassVar[bool] = True
  channels: int
  kernel: int | tuple[int, int] = 3
  strides: int | tuple[int, int] = 1
  padding: str = 'SAME'
  activation: str = 'relu'
  bias_std: float = 0.

  def __post_init__(self):
    checks.check_count('channels', self.channels)
    _pair('kernel', self.kernel)
    _pair('strides', self.strides)
    checks.check_choice('padding', self.padding, PADDINGS)
    _check_activation(self.activation)
    checks.check_scale('bias_std', self.bias_std)

  def output_shape(self, shape: Shape) -> Shape:
    return (*_slide(self, shape, _pair('kernel', self.kernel),
                    _pair('strides', self.strides), self.padding),
            self.channels)

  def _fan_in(self, shape: Shape) -> int:
    height, width = _pair('kernel', self.kernel)
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
    kernel = w[:-1].reshape(*_pair('kernel', self.kernel), shape[-1], -1)
    h = jax.lax.conv_general_dilated(
        h, kernel, _pair('strides', self.strides), self.padding,
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


@dataclasses.dataclass(frozen=True)
class _Segment:
  """A layer with options and the layers without that follow it."""
  layers: tuple[Layer, ...]
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
  layers: tuple[Layer, ...]
  num_options: tuple[int, ...]

  def __post_init__(self):
    checks.check_sizes('num_options', self.num_options)
    if not self.layers or not isinstance(self.layers[-1], Dense) or (
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

  def split(self, input_shape: Shape) -> tuple[_Segment, list[_Segment]]:
    """Layers before the first with options, and the segments."""
    shapes = self.shapes(input_shape)
    starts = [i for i, layer in enumerate(self.layers) if layer.has_options]
    bounds = [0, *starts, len(self.layers)]
    before, *segments = [
        _Segment(self.layers[a:b], tuple(shapes[a:b + 1]))
        for a, b in zip(bounds[:-1], bounds[1:])]
    return before, segments

  def start(self, x: base.Array) -> tuple[base.Array, list[_Segment]]:
    """What the first layer with options reads, one path, and the segments.

    Args:
      x: [B, D] or [B, height, width, channels].
    """
    before, segments = self.split(x.shape[1:])
    h = x.T if x.ndim == 2 else x
    return before.run('apply_one', None, h), segments


def forward_one(stack: LayerStack, weights: Weights, x: base.Array,
                z: base.Index) -> base.Array:
  """One path: z int [N], may be traced -> [B, out]."""
  h, segments = stack.start(x)
  for segment, w, option in zip(segments, weights, z, strict=True):
    h = segment.apply_one(option, w, h)
  return h.T


def forward_all(stack: LayerStack, weights: Weights,
                x: base.Array) -> base.Array:
  """All paths, the last layer's option fastest: [K_1 ... K_N, B, out]."""
  h, segments = stack.start(x)
  for segment, w in zip(segments, weights, strict=True):
    h = segment.apply_all(w, h)
  h = h.reshape(-1, *reversed(stack.num_options), len(x))
  # [out, K_N, ..., K_1, B] -> [K_1, ..., K_N, B, out]
  num = len(stack.num_options)
  return h.transpose([*range(num, 0, -1), num + 1, 0]).reshape(
      -1, len(x), h.shape[0])


# Sets of paths. ----------------------------------------------------------

# What a depth does. All options on all paths so far, all kept; the same and
# then those of the plan picked out; a product per path; a product per option.
_KEEP, _PICK, _EACH, _GROUP = 'keep', 'pick', 'each', 'group'


@functools.partial(jax.tree_util.register_dataclass,
                   data_fields=('parents', 'options', 'rows'),
                   meta_fields=('num_options', 'modes'))
@dataclasses.dataclass(frozen=True)
class Plan:
  """The distinct beginnings of a set of paths, depth by depth.

  Arrays are numpy or traced; the other fields are static. Plans of as many
  paths of the same stack have the same shapes, unless they are exact.

  Attributes:
    num_options: K_1, ..., K_N.
    modes: what each depth does, a constant of this module.
    parents: per depth the position of each path's parent among the paths one
      depth before, int32 [n]; None where they are the same in the same order,
      and where all are kept.
    options: per depth the option of each path, int32 [n]; None where all are
      kept.
    rows: the position of every sample among the paths at the end, int32 [J], in
      the order that the caller gave; None where it is the same.
  """
  num_options: tuple[int, ...]
  modes: tuple[str, ...]
  parents: tuple[base.Array | None, ...]
  options: tuple[base.Array | None, ...]
  rows: base.Array | None

  @property
  def num_evaluations(self) -> tuple[int, ...]:
    """Evaluations of a layer on one path's batch, per depth."""
    found, paths = [], 1
    for num, mode, options in zip(self.num_options, self.modes, self.options):
      everything = paths * num
      paths = everything if mode == _KEEP else len(options)
      found.append(everything if mode == _PICK else paths)
    return tuple(found)


def check_indices(indices: np.ndarray, num_options: Sequence[int]) -> None:
  """Raises ValueError unless `indices` [J, N] are options of the layers."""
  if indices.ndim != 2 or indices.shape[1] != len(num_options):
    raise ValueError(f'indices must be [J, {len(num_options)}], one option per '
                     f'layer, got shape {indices.shape}.')
  if len(indices) == 0:
    raise ValueError('indices must name at least one sample, got none.')
  if not np.issubdtype(indices.dtype, np.integer):
    raise ValueError(f'indices must be integers, got {indices.dtype}.')
  bad = np.argwhere((indices < 0) | (indices >= np.asarray(num_options)))
  if len(bad):
    row, layer = bad[0]
    raise ValueError(
        f'index {indices[row].tolist()} asks for option {indices[row, layer]} '
        f'of layer {layer}, which has options 0 to {num_options[layer] - 1}.')


def _choose_modes(num_options: Sequence[int], num: int,
                  surplus: int) -> tuple[str, ...]:
  """What each depth does for any set of `num` paths."""
  modes, paths = [], 1
  for depth, options in enumerate(num_options):
    everything = paths * options
    last = depth == len(num_options) - 1
    if everything <= (surplus * num if last else num):
      modes.append(_KEEP)  # At the end the rows pick.
    elif everything <= surplus * num:
      modes.append(_PICK)
    else:
      modes.append(_EACH)
    paths = everything if modes[-1] == _KEEP else num
  return tuple(modes)


def plan_paths(indices: Any, num_options: Sequence[int], *,
               exact: bool = False) -> Plan:
  """Plans on the host how a set of paths is computed.

  Args:
    indices: int [J, N], J >= 1, in any order, repeats allowed.
    num_options: K_1, ..., K_N.
    exact: whether exactly the distinct beginnings are computed: for programs
      in which the plan is a constant. Otherwise shapes depend on J alone, depth
      l having min(J, K_1 ... K_l) paths or all options of its parents, and the
      plan may be a traced argument.

  Raises:
    ValueError: `indices` has another width, names no sample, or an option that
      its layer has not.
  """
  indices = np.asarray(indices)
  check_indices(indices, num_options)
  indices, num_options = indices.astype(np.int64), tuple(num_options)
  modes = list(_choose_modes(num_options, len(indices), _SURPLUS))
  paths, position = 1, np.zeros(len(indices), np.int64)
  all_parents, all_options = [], []
  for depth, num in enumerate(num_options):
    position = indices[:, depth] * paths + position
    if exact or modes[depth] != _KEEP:
      distinct, rank = np.unique(position, return_inverse=True)
    if exact:
      modes[depth] = _KEEP if len(distinct) == paths * num else _GROUP
    if modes[depth] == _KEEP:
      paths *= num
      all_parents.append(None)
      all_options.append(None)
      continue
    if not exact:  # Padded with the first path.
      distinct = np.append(distinct, np.repeat(
          distinct[0], len(indices) - len(distinct)))
    all_parents.append((distinct % paths).astype(np.int32))
    all_options.append((distinct // paths).astype(np.int32))
    paths, position = len(distinct), rank.reshape(-1)
  return Plan(num_options, tuple(modes), tuple(all_parents),
              tuple(all_options), position.astype(np.int32))


def plan_traced(indices: base.Array, num_options: Sequence[int]) -> Plan:
  """A plan inside a compiled program, for traced int [J, N].

  Depths of at most J paths are computed in full and so shared, deeper ones for
  every sample. The values cannot be checked: an option that its layer has not
  gives the output of some other path.

  Raises:
    ValueError: `indices` has another width or names no sample.
  """
  if indices.ndim != 2 or indices.shape[1] != len(num_options) or (
      not len(indices)):
    check_indices(np.zeros(indices.shape, int), num_options)
  num_options = tuple(num_options)
  modes = _choose_modes(num_options, len(indices), surplus=1)
  paths, position = 1, jnp.zeros(len(indices), jnp.int32)
  all_parents, all_options = [], []
  for depth, (num, mode) in enumerate(zip(num_options, modes)):
    option = indices[:, depth].astype(jnp.int32)
    if mode == _KEEP:
      all_parents.append(None)
      all_options.append(None)
      position = option * paths + (
          jnp.arange(paths, dtype=jnp.int32) if position is None else position)
      paths *= num
    else:
      all_parents.append(position)
      all_options.append(option)
      position, paths = None, len(indices)
  return Plan(num_options, modes, tuple(all_parents), tuple(all_options),
              position)


class _Paths:
  """Activations of several paths, in the layout that was last asked for."""

  def __init__(self, h: base.Array, num: int, num_x: int,
               stacked: bool = False):
    self.num = num
    self._h, self._num_x, self._stacked = h, num_x, stacked

  def joined(self) -> base.Array:
    """[features, num * B] or [num * B, height, width, channels]."""
    if not self._stacked:
      return self._h
    if self._h.ndim == 3:
      return self._h.transpose(1, 0, 2).reshape(self._h.shape[1], -1)
    return self._h.reshape(-1, *self._h.shape[2:])

  def stacked(self) -> base.Array:
    """[num, features, B] or [num, B, height, width, channels]."""
    if self._stacked:
      return self._h
    if self._h.ndim == 2:
      return self._h.reshape(-1, self.num, self._num_x).transpose(1, 0, 2)
    return self._h.reshape(self.num, self._num_x, *self._h.shape[1:])

  def pick(self, positions: base.Array | None) -> '_Paths':
    """The paths at these positions, in their order; None: all as they are."""
    if positions is None:
      return self
    num, h = len(positions), self._h
    if self._stacked:
      return _Paths(h[positions], num, self._num_x, stacked=True)
    if h.ndim == 2:
      h = h.reshape(-1, self.num, self._num_x)[:, positions]
      return _Paths(h.reshape(len(h), -1), num, self._num_x)
    h = self.stacked()[positions]
    return _Paths(h.reshape(-1, *h.shape[2:]), num, self._num_x)


def _apply_each(segment: _Segment, w: base.Array, paths: _Paths,
                parents: base.Array | None,
                options: base.Array) -> base.Array:
  """An option on the activations of a parent, path by path: stacked."""
  if (len(segment.shapes[0]) == 1
      and w.size // w.shape[1] <= _MAX_COPIED_WEIGHTS):
    # A batched product. All paths have the same first parent.
    h, axis = ((paths.stacked()[0], None) if paths.num == 1 else
               (paths.pick(parents).stacked(), 0))
    return jax.vmap(segment.apply_one, in_axes=(0, None, axis))(options, w, h)
  # Neither weights nor images are copied; and a convolution mapped by vmap
  # would be one with groups, which is slow.
  h = paths.stacked()
  if parents is None:
    return jax.lax.map(lambda path: segment.apply_one(path[1], w, path[0]),
                       (h, options))
  return jax.lax.map(lambda path: segment.apply_one(path[1], w, h[path[0]]),
                     (parents, options))


def _apply_groups(segment: _Segment, w: base.Array, paths: _Paths,
                  parents: base.Array, options: base.Array) -> base.Array:
  """One product per option; options ascend, as in plans: joined."""
  if not isinstance(parents, np.ndarray):
    raise ValueError('an exact plan must be a constant of the program, got a '
                     'traced one: plan with exact=False.')
  outputs = [
      segment.apply_one(option, w, paths.pick(parents[options == option])
                        .joined())
      for option in np.unique(options).tolist()]
  return jnp.concatenate(outputs, axis=1 if outputs[0].ndim == 2 else 0)


def forward_set(stack: LayerStack, weights: Weights, x: base.Array,
                plan: Plan) -> base.Array:
  """The paths of a plan, every shared beginning computed once.

  Args:
    stack: layers and numbers of options.
    weights: one array per layer that has options.
    x: inputs, [B, D] or [B, height, width, channels].
    plan: from `plan_paths` or `plan_traced` for this stack's options.

  Returns:
    [J, B, out] in the order of the planned indices.

  Raises:
    ValueError: the plan is of other options, or exact and traced.
  """
  if plan.num_options != stack.num_options:
    raise ValueError(f'the plan is for the options {plan.num_options}, the '
                     f'layers have {stack.num_options}.')
  num_x = len(x)
  h, segments = stack.start(x)
  paths = _Paths(h, 1, num_x)
  for segment, w, num, mode, parents, options in zip(
      segments, weights, plan.num_options, plan.modes, plan.parents,
      plan.options, strict=True):
    if mode in (_KEEP, _PICK):
      here = paths.num
      paths = _Paths(segment.apply_all(w, paths.joined()), here * num, num_x)
      if mode == _PICK:
        parents = jnp.arange(here) if parents is None else parents
        paths = paths.pick(options * here + parents)
    elif mode == _EACH:
      h = _apply_each(segment, w, paths, parents, options)
      paths = _Paths(h, len(options), num_x, stacked=True)
    else:
      h = _apply_groups(segment, w, paths, parents, options)
      paths = _Paths(h, len(options), num_x)
  out = jnp.swapaxes(paths.pick(plan.rows).stacked(), 1, 2)
  chex.assert_shape(out, (None, num_x, None))
  return out


# Moments over all paths. -------------------------------------------------


def forward_features(stack: LayerStack, weights: Weights,
                     x: base.Array) -> base.Array:
  """What the last layer reads, [features, K_1 ... K_(N-1) B]: its columns are
  ordered as in `forward_all` before its transposition."""
  h, segments = stack.start(x)
  for segment, w in zip(segments[:-1], weights[:-1], strict=True):
    h = segment.apply_all(w, h)
  return h


def contrasts(num: int) -> np.ndarray:
  """Orthonormal rows that are orthogonal to the constant, [num - 1, num]."""
  rows = np.tril(np.ones((num, num)), -1)[1:]
  np.fill_diagonal(rows[:, 1:], -np.arange(1., num))
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def forward_moments(parts: Sequence[tuple[LayerStack, Weights, Any]],
                    x: base.Array) -> tuple[base.Array, base.Array]:
  """Mean and std over all paths, the last layer's options not enumerated.

  Given the features h_p of a path p through the other layers, the output is
  W_k h_p, and by the law of total variance over k and p

    mean = Wbar mean_p(h_p),
    var  = var_p(Wbar h_p) + mean_p |A h_p|^2,

  where Wbar is the mean of the options' weights and A^T A their covariance. A
  has min(K - 1, features) rows per output: orthonormal contrasts of the
  weights, or the triangular factor of those where there are more options than
  features. Nothing is a difference of large squares: float32 will do.

  Args:
    parts: (stack, weights, scale); the ensemble is the sum of the parts times
      their scales, all on the same index: a trained part and its prior. Their
      numbers of options and outputs are the same.
    x: inputs, [B, D] or [B, height, width, channels].

  Returns:
    Mean [B, out] and std [B, out] (ddof 0) of the K_1 ... K_N outputs.

  Raises:
    ValueError: the parts have different options.
  """
  stacks, part_weights, scales = zip(*parts)
  for stack in stacks:
    if stack.num_options != stacks[0].num_options:
      raise ValueError('parts must have the same options, got '
                       f'{stacks[0].num_options} and {stack.num_options}.')
  num_options = stacks[0].num_options[-1]
  # Side by side: [out, K, sum of features + 1].
  w = jnp.concatenate([scale * weights[-1] for weights, scale in zip(
      part_weights, scales)], axis=-1)
  rows = [jnp.mean(w, axis=1, keepdims=True)]
  if num_options > 1:
    spread = jnp.asarray(contrasts(num_options) / num_options ** 0.5, w.dtype)
    factor = jnp.einsum('ck,oki->oci', spread, w,
                        precision=jax.lax.Precision.HIGHEST)
    if factor.shape[1] > factor.shape[2]:
      factor = jnp.linalg.qr(factor, mode='r')
    rows.append(factor)
  rows = jnp.concatenate(rows, axis=1)
  out, num_rows, _ = rows.shape
  ends = np.cumsum([weights[-1].shape[-1] for weights in part_weights])
  values = 0.
  for stack, weights, columns in zip(
      stacks, part_weights, jnp.split(rows, ends[:-1], axis=-1)):
    features = forward_features(stack, weights, x)
    values += mlp.affine(columns.reshape(out * num_rows, -1), features)
  values = values.reshape(out, num_rows, -1, len(x))  # [.., paths, B]
  means = values[:, 0]
  variance = jnp.var(means, axis=1) + jnp.mean(
      jnp.sum(jnp.square(values[:, 1:]), axis=1), axis=1)
  return jnp.mean(means, axis=1).T, jnp.sqrt(variance).T


# Networks. ---------------------------------------------------------------


class _StackParameters(hk.Module):
  """All options of all layers, from one draw."""

  def __init__(self, stack: LayerStack):
    super().__init__(name=_MODULE)
    self._stack = stack

  def __call__(self, x: base.Array) -> None:
    _, segments = self._stack.split(x.shape[1:])
    specs = {}
    for i, (segment, options) in enumerate(zip(
        segments, self._stack.num_options)):
      layer, shape = segment.layers[0], segment.shapes[0]
      specs[f'w_{i}'] = (layer.parameter_shape(shape, options),
                         layer.scales(shape))
    parameters.draw_parameters(specs, x.dtype)


def get_weights(params: base.Params) -> list[base.Array]:
  """The weights in the parameters of `make_network`, in the layers' order."""
  (named,) = params.values()
  return [named[f'w_{i}'] for i in range(len(named))]


def make_network(stack: LayerStack,
                 indexer: base.EpistemicIndexer) -> base.EpistemicNetwork:
  """A layer ensemble without a prior; z is int [N], an option per layer.

  Its `apply_indices` takes all paths (None), a `Plan`, concrete indices, whose
  beginnings are shared exactly, or traced ones (`plan_traced`).

  Args:
    stack: layers and numbers of options; x is [B, D] or
      [B, height, width, channels].
    indexer: draws options of this stack; its support is all paths, the last
      layer's option fastest.
  """
  init = hk.transform_with_state(lambda x: _StackParameters(stack)(x)).init

  def apply(params, state, x, z):
    return forward_one(stack, get_weights(params), x, z), state

  def apply_indices(params, state, x, indices):
    weights = get_weights(params)
    if indices is None:
      return forward_all(stack, weights, x), state
    if isinstance(indices, jax.core.Tracer):
      indices = plan_traced(indices, stack.num_options)
    elif not isinstance(indices, Plan):
      indices = plan_paths(indices, stack.num_options, exact=True)
    return forward_set(stack, weights, x, indices), state

  return base.EpistemicNetwork(
      apply=apply, init=lambda key, x, z: init(key, x), indexer=indexer,
      apply_indices=apply_indices)


def make_predict_set(
    network: base.EpistemicNetwork, num_options: Sequence[int]
) -> Callable[[base.Params, base.State, base.Array, Any], base.Array]:
  """Predictions at sets of samples that are known only when they are asked for.

  Any-time inference: with `order` from `ranking.rank_samples` and P from
  `ranking.choose_num_samples`, the P best samples are

    predict_set(params, state, x, network.indexer.support()[order[:P]])

  Args:
    network: a layer ensemble, with or without a prior, whose `apply_indices`
      takes a `Plan`.
    num_options: K_1, ..., K_N.

  Returns:
    predict_set(params, state, x, indices [P, N]) -> predictions [P, B, out]. It
    plans on the host and runs one compiled program per P (and shape of x),
    whatever the samples are. ValueErrors as `plan_paths`.
  """
  @jax.jit
  def run(params, state, x, plan):
    output, _ = base.apply_indices(network, params, state, x, plan)
    return base.get_predictions(output)

  def predict_set(params, state, x, indices):
    return run(params, state, x, plan_paths(indices, num_options))

  return predict_set
