"""Haiku parameters of several layers, initialised from one draw.

All parameters of a network come from one draw that is cut into pieces: XLA
compiles a draw per parameter for seconds, one draw in half a second.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles.networks import random_draws

# Std of a standard normal truncated to [-2, 2]: what parameters are drawn from.
TRUNCATED_STD = 0.8796256610342398


def draw_parameters(
    specs: Mapping[str, tuple[Sequence[int], Any]],
    dtype: jnp.dtype) -> dict[str, base.Array]:
  """Haiku parameters of the current module, initialised from one draw.

  Args:
    specs: parameter name -> (shape, stddev). The initial values are stddev (a
      number, or an array that broadcasts) times a standard normal truncated
      to [-2, 2], Haiku's default; or stddev(draw), where it is a function.
    dtype: of all parameters.

  Returns:
    name -> array. While Haiku initialises they are drawn, otherwise looked up.
  """
  offsets = np.cumsum([0] + [int(np.prod(s)) for s, _ in specs.values()])
  draw = jnp.zeros(0, dtype)  # Parameters are looked up.
  if hk.running_init():
    draw = random_draws.draw_truncated_normal(
        hk.next_rng_key(), int(offsets[-1]), dtype)

  def cut(start: int, stddev: Any) -> Callable[..., base.Array]:
    def init(shape, dtype):
      values = draw[start:start + int(np.prod(shape))].reshape(shape)
      return stddev(values) if callable(stddev) else (
          jnp.asarray(stddev, dtype) * values)
    return init

  return {
      name: hk.get_parameter(name, shape, dtype, init=cut(start, stddev))
      for start, (name, (shape, stddev)) in zip(offsets, specs.items())}


class LayerShape(NamedTuple):
  """One weight array [out, columns], and how its initial values are drawn.

  The columns are the inputs of one output, a window's positions one after the
  other with all channels of each, and the bias if there is one. A norm has the
  columns scale and offset.

  Attributes:
    out: units, or channels of the result.
    size: inputs of one output, the bias apart.
    weight_std: what the truncated normals of the initial weights are multiplied
      by; their std is TRUNCATED_STD times that.
    bias_std: the same of the initial bias.
    positions: positions of a convolution's window; 1 for a dense layer.
    has_bias: whether there is a bias column.
    is_norm: whether this is the scale and offset of a norm, which start at 1
      and 0.
  """
  out: int
  size: int
  weight_std: float
  bias_std: float
  positions: int = 1
  has_bias: bool = True
  is_norm: bool = False

  @property
  def columns(self) -> int:
    """Length of a row of the weight array."""
    return self.size + self.has_bias


def norm_shape(channels: int) -> LayerShape:
  """Scale and offset of a norm over `channels`."""
  return LayerShape(channels, 1, 0., 0., is_norm=True)


def column_scales(shape: LayerShape) -> np.ndarray:
  """`weight_std` or `bias_std` of every column, float32 [columns]."""
  return np.array([shape.weight_std] * shape.size
                  + [shape.bias_std] * shape.has_bias, np.float32)


def column_means(shape: LayerShape) -> np.ndarray:
  """Means of the last axis of initial weights, float32 [columns]."""
  means = np.zeros(shape.columns, np.float32)
  means[0] = shape.is_norm
  return means


def initializer(shape: LayerShape) -> Any:
  """What `draw_parameters` takes for weights [..., columns] of this shape."""
  if not shape.is_norm:
    return column_scales(shape)
  return lambda draw: jnp.broadcast_to(
      jnp.asarray(column_means(shape), draw.dtype), draw.shape)
