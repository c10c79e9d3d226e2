"""Parts that three or more agents share: indexers, stacked MLPs, priors.

Layout. A layer of J members is one array [J, out, in + 1], the bias its last
column, and activations are [J, features, B]: the batch lies last. Then every
layer is one row-major matrix product forward and two backward, without a
transposition and without a sum over the batch for the bias: on a CPU those
cost as much as the products.

Initialisation. All parameters of a network come from one draw that is cut into
pieces: XLA compiles a draw per parameter for seconds, one draw in half a
second.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles.networks import indexers
from enn_ensembles.networks import parameters
from enn_ensembles.networks import products

Layers = Sequence[base.Array]  # [J, out, in + 1] each.


class StackedMLP(hk.Module):
  """The layers of several MLPs side by side; the first ones may be shared."""

  def __init__(self, output_sizes: Sequence[int], num_members: int,
               num_shared_layers: int = 0, first_bias_std: float = 1.,
               name: str = 'stacked_mlp'):
    """Args as follows.

    Args:
      output_sizes: units of each layer, the output included.
      num_members: K, copies of every layer that is not shared.
      num_shared_layers: the first layers that all members share.
      first_bias_std: stddev of the first layer's initial bias; the other
        biases start at 0.
      name: Haiku's module name.
    """
    super().__init__(name=name)
    self._output_sizes = tuple(output_sizes)
    self._num_members = num_members
    self._num_shared_layers = num_shared_layers
    self._first_bias_std = first_bias_std

  def __call__(self, input_dim: int, dtype: jnp.dtype) -> Layers:
    """The layers, [K or 1, out, in + 1] each."""
    specs = {}
    for layer, shape in enumerate(parameters.mlp_shapes(
        input_dim, self._output_sizes, self._first_bias_std)):
      copies = 1 if layer < self._num_shared_layers else self._num_members
      specs[f'w_{layer}'] = ((copies, shape.out, shape.size + 1),
                             parameters.column_scales(shape))
    return list(parameters.draw_parameters(specs, dtype).values())


def stacked_forward(layers: Layers, x: base.Array) -> base.Array:
  """ReLU MLPs side by side.

  Args:
    layers: [J, out, in + 1] each; J = 1 in a layer that all share.
    x: the input of all of them, [B, D].

  Returns:
    [J, B, out], J of the last layer.
  """
  h = x.T  # [in, B] as long as all members share it, then [J, in, B].
  for layer, w in enumerate(layers):
    num, out, columns = w.shape
    if h.ndim == 2:
      h = products.affine(w.reshape(num * out, columns), h).reshape(num, out, -1)
    else:
      h = products.affine(w, h)
    if layer < len(layers) - 1:
      h = jax.nn.relu(h)
      h = h[0] if num == 1 else h
  return jnp.swapaxes(h, 1, 2)


def network_from_indices(
    init: Callable[[chex.PRNGKey, base.Array], tuple[base.Params, base.State]],
    apply_indices: Callable[..., tuple[base.Array, base.State]],
    indexer: base.EpistemicIndexer,
    shared: Callable[..., Any] | None = None) -> base.EpistemicNetwork:
  """A network from its forward over many indices; one index is one row of it.

  Args:
    init: (key, x) -> (params, state).
    apply_indices: see `base.EpistemicNetwork`; its output is a plain array.
    indexer: key -> z.
    shared: see `base.EpistemicNetwork`.
  """
  def apply(params, state, x, z):
    out, state = apply_indices(params, state, x, jnp.asarray(z)[None])
    return out[0], state

  return base.EpistemicNetwork(
      apply=apply, init=lambda key, x, z: init(key, x), indexer=indexer,
      apply_indices=apply_indices, shared=shared)


def make_member_network(output_sizes: Sequence[int], num_members: int,
                        num_shared_layers: int = 0,
                        first_bias_std: float = 1.) -> base.EpistemicNetwork:
  """An ENN whose index picks one of num_members MLPs, without a prior.

  Args:
    output_sizes: units of each layer, the output included.
    num_members: K.
    num_shared_layers: the first layers that all members share (0: none).
    first_bias_std: stddev of the first layer's initial bias.

  Returns:
    The network; `apply_indices` runs all members in batched products.
  """
  def get_layers(x: base.Array) -> Layers:
    module = StackedMLP(output_sizes, num_members, num_shared_layers,
                        first_bias_std)
    return module(x.shape[-1], x.dtype)

  def pick(layers: Layers, indices: base.Array) -> Layers:
    return [w if layer < num_shared_layers else w[indices]
            for layer, w in enumerate(layers)]

  transformed = hk.transform_with_state(get_layers)

  def apply_indices(params, state, x, indices):
    layers, state = transformed.apply(params, state, None, x)
    if indices is not None:
      layers = pick(layers, indices)
    out = stacked_forward(layers, x)
    num = num_members if indices is None else len(indices)
    return jnp.broadcast_to(out, (num, *out.shape[1:])), state

  return network_from_indices(init=transformed.init,
                              apply_indices=apply_indices,
                              indexer=indexers.EnsembleIndexer(num_members))
