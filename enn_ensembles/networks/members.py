"""Networks of which the index picks a member: batched, the first layers shared.

The members' weights are stacked, so that all members are one matrix product per
layer. Batch norms have running statistics for each member; they live in the
network's state and `EpistemicNetwork.apply_train` updates them.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.networks import bodies
from enn_ensembles.networks import indexers
from enn_ensembles.networks import layers
from enn_ensembles.networks import parameters

Layers = Sequence[base.Array]  # Weight arrays [J, out, columns].


class StackedBody(hk.Module):
  """The weights of several copies of a body side by side.

  Args:
    body: the network.
    num_members: K, copies of every layer that is not shared.
    num_shared_layers: the first layers with weights that all members share.
  """

  def __init__(self, body: bodies.Body, num_members: int,
               num_shared_layers: int = 0):
    super().__init__(name=f'stacked_{body.name}')
    self._body = body
    self._num_members = num_members
    self._num_shared_layers = num_shared_layers

  def __call__(self, input_shape: layers.Shape, dtype: jnp.dtype) -> Layers:
    """The weight arrays, [K or 1, out, columns] each."""
    specs = {}
    for i, (layer, shape) in enumerate(zip(
        self._body.weight_layers(input_shape),
        self._body.weight_shapes(input_shape))):
      copies = 1 if layer < self._num_shared_layers else self._num_members
      specs[f'w_{i}'] = ((copies, shape.out, shape.columns),
                         parameters.initializer(shape))
    return list(parameters.draw_parameters(specs, dtype).values())


def start_statistics(body: bodies.Body, x: base.Array, num_members: int,
                     num_shared_layers: int = 0) -> base.State:
  """State of a network before training: every variance 1, every mean 0.

  Returns:
    {'statistics': ([K or 1, 2, channels] of every batch norm)}; {} without.
  """
  input_shape = x.shape[1:]
  found = []
  for layer, channels in zip(body.statistics_layers(input_shape),
                             body.statistics_shapes(input_shape)):
    copies = 1 if layer < num_shared_layers else num_members
    found.append(jnp.broadcast_to(
        jnp.array([0., 1.], x.dtype)[:, None], (copies, 2, channels)))
  return {'statistics': tuple(found)} if found else {}


def pick_members(arrays: Layers, indices: base.Array | None) -> Layers:
  """The arrays of members [J], or all; what all share stays [1, ...]."""
  if indices is None:
    return list(arrays)
  return [a if len(a) == 1 else a[indices] for a in arrays]


def forward_members(body: bodies.Body, weights: Layers, state: base.State,
                    x: base.Array, indices: base.Array | None, *,
                    is_training: bool = False,
                    drop: Callable[..., base.Array] | None = None,
                    dropout_key: chex.PRNGKey | None = None,
                    ) -> tuple[base.Array, base.State]:
  """Outputs of members with their own batch statistics, and the state.

  Args:
    body: the network.
    weights: those of the members at `indices`.
    state: of `start_statistics`.
    x: [B, ...].
    indices: members [J]; None: all.
    is_training: whether batch norms use, and learn, the batch's statistics.
    drop: what dropout places do, see `layers.ForwardPass`.
    dropout_key: likewise.

  Returns:
    [J, B, out] and the state after the pass.
  """
  statistics = state.get('statistics', ())
  run = layers.ForwardPass(
      [s[0] if len(s) == 1 else s
       for s in pick_members(statistics, indices)], is_training, drop,
      dropout_key)
  out = bodies.forward(body, weights, x, run)
  if is_training and statistics:
    state = {'statistics': tuple(
        _put(old, found, indices)
        for old, found in zip(statistics, run.updated, strict=True))}
  return out, state


def _put(old: jax.Array, found: jax.Array,
         indices: base.Array | None) -> base.Array:
  """Statistics [K, 2, C] with those of some members replaced."""
  if indices is None or len(old) == 1:
    return found.reshape(old.shape)
  return old.at[indices].set(found)


def network_from_indices(
    init: Callable[[chex.PRNGKey, base.Array], tuple[base.Params, base.State]],
    apply_indices: Callable[..., tuple[base.Array, base.State]],
    indexer: base.EpistemicIndexer,
    shared: Callable[..., Any] | None = None,
    apply_train: Callable[..., tuple[base.Array, base.State]] | None = None,
    member_weights: Callable[..., tuple[base.Array, base.Array]] | None = None
) -> base.EpistemicNetwork:
  """A network from its forward over many indices; one index is one row of it.

  Args:
    init: (key, x) -> (params, state).
    apply_indices: see `base.EpistemicNetwork`; its output is a plain array.
    indexer: key -> z.
    shared: see `base.EpistemicNetwork`.
    apply_train: see `base.EpistemicNetwork`.
    member_weights: see `base.EpistemicNetwork`.
  """
  def apply(params, state, x, z):
    out, state = apply_indices(params, state, x, jnp.asarray(z)[None])
    return out[0], state

  return base.EpistemicNetwork(
      apply=apply, init=lambda key, x, z: init(key, x), indexer=indexer,
      apply_indices=apply_indices, shared=shared, apply_train=apply_train,
      member_weights=member_weights)


def make_member_network(body: bodies.Body | Sequence[int], num_members: int,
                        num_shared_layers: int = 0,
                        first_bias_std: float = 1.) -> base.EpistemicNetwork:
  """An ENN whose index picks one of num_members bodies, without a prior.

  Args:
    body: the network of one member; or the units of each layer of an MLP, the
      output included.
    num_members: K.
    num_shared_layers: the first layers that all members share (0: none).
    first_bias_std: std of the first layer's initial bias, of an MLP given by
      its sizes.

  Returns:
    The network; `apply_indices` runs all members in batched products.

  Raises:
    ValueError: the body has fewer layers than are to be shared.
  """
  if not isinstance(body, bodies.Body):
    *hidden, outputs = body
    body = bodies.make_mlp(hidden, outputs, first_bias_std)
  if num_shared_layers > body.num_weight_layers:
    raise ValueError(
        f'num_shared_layers must be at most {body.num_weight_layers}, the '
        f'layers of body {body.name!r}, got {num_shared_layers}.')
  checks.check_count('num_members', num_members)
  drawn = hk.transform(lambda x: StackedBody(
      body, num_members, num_shared_layers)(x.shape[1:], x.dtype))

  def weights(params, x, indices):
    return pick_members(drawn.apply(params, None, x), indices)

  return network_of_members(body, num_members, drawn.init, weights, get_weights,
                            num_shared_layers)


def network_of_members(
    body: bodies.Body, num_members: int,
    init_params: Callable[[chex.PRNGKey, base.Array], base.Params],
    weights: Callable[[base.Params, base.Array, base.Array | None], Layers],
    all_weights: Callable[[base.Params], Layers],
    num_shared_layers: int = 0) -> base.EpistemicNetwork:
  """An ENN whose index picks the weights of one of num_members bodies.

  Args:
    body: the network of one member.
    num_members: K.
    init_params: (key, x [B, ...]) -> params.
    weights: (params, x, indices [J] or None for all) -> the weight arrays of
      these members, [J, out, columns] each, or [1, ...] where members share.
    all_weights: params -> the same of all members.
    num_shared_layers: the first layers whose statistics all members share.

  Returns:
    The network; `apply_indices` runs all members in batched products.
  """
  def init(key, x):
    return init_params(key, x), start_statistics(
        body, x, num_members, num_shared_layers)

  def forward(params, state, x, indices, is_training, key=None):
    out, state = forward_members(
        body, weights(params, x, indices), state, x, indices,
        is_training=is_training, dropout_key=key)
    num = num_members if indices is None else len(indices)
    return jnp.broadcast_to(out, (num, *out.shape[1:])), state

  def apply_indices(params, state, x, indices):
    return forward(params, state, x, indices, is_training=False)

  def apply_train(params, state, x, indices, key):
    return forward(params, state, x, indices, is_training=True, key=key)

  def member_weights(params, input_shape):
    return flatten_members(all_weights(params), body.weight_shapes(input_shape),
                           num_members)

  return network_from_indices(
      init=init, apply_indices=apply_indices,
      apply_train=apply_train if body.differs_in_training else None,
      indexer=indexers.EnsembleIndexer(num_members),
      member_weights=member_weights)


def flatten_members(arrays: Layers, shapes: Sequence[parameters.LayerShape],
                    num_members: int) -> tuple[base.Array, base.Array]:
  """The weights and the biases of each member, side by side.

  Args:
    arrays: [K, out, columns] each, or [1, out, columns] where members share.
    shapes: of the arrays.
    num_members: K.

  Returns:
    (weights [K, M], biases [K, L]), see `base.EpistemicNetwork`.
  """
  found: tuple[list[base.Array], list[base.Array]] = ([], [])
  for array, shape in zip(arrays, shapes, strict=True):
    size = 0 if shape.is_norm else shape.size
    for parts, part in zip(found, (array[..., :size], array[..., size:])):
      parts.append(jnp.broadcast_to(part, (num_members, *part.shape[1:])
                                    ).reshape(num_members, -1))
  weights, biases = (jnp.concatenate(parts, axis=1) for parts in found)
  return weights, biases


def get_weights(params: base.Params) -> list[base.Array]:
  """The weight arrays 'w_0', 'w_1', ... of a network's module, in order."""
  (named,) = params.values()
  return [named[f'w_{i}'] for i in range(len(named))]


def member_mean_squares(params: base.Params) -> list[base.Array]:
  """The mean over members of the squares of each weight array of `get_weights`.

  Returns:
    [out, columns] of each array, from the input on.
  """
  return [jnp.mean(jnp.square(w), axis=0) for w in get_weights(params)]
