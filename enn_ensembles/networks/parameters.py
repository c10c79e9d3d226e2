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
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base


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
  draw = None
  if hk.running_init():
    draw = jax.random.truncated_normal(
        hk.next_rng_key(), -2., 2., [int(offsets[-1])], dtype)

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
  """One layer of an MLP: its size, and the stds of its initial parameters."""
  out: int
  size: int  # Inputs.
  weight_std: float
  bias_std: float


def mlp_shapes(input_dim: int, output_sizes: Sequence[int],
               first_bias_std: float = 0.) -> list[LayerShape]:
  """Layers with weights of std 1/sqrt(in); only the first bias is not 0."""
  sizes = [input_dim, *output_sizes[:-1]]
  return [LayerShape(out, size, size ** -0.5, 0. if layer else first_bias_std)
          for layer, (size, out) in enumerate(zip(sizes, output_sizes))]


def column_scales(shape: LayerShape) -> np.ndarray:
  """Stds of the last axis of weights [..., in + 1], float32 [in + 1]."""
  return np.array([shape.weight_std] * shape.size + [shape.bias_std],
                  np.float32)
