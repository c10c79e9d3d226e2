"""A layer stack as an epistemic network, and its any-time predictions."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import haiku as hk
import jax
from jax import core
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import layers
from enn_ensembles.networks import members
from enn_ensembles.networks import parameters
from enn_ensembles.networks import prefix_plans

_MODULE = 'layer_stack'  # Haiku's name for the parameters.


class _StackParameters(hk.Module):
  """All options of all layers, from one draw."""

  def __init__(self, stack: layer_stack.LayerStack):
    super().__init__(name=_MODULE)
    self._stack = stack

  def __call__(self, x: base.Array) -> None:
    _, segments = self._stack.split(x.shape[1:])
    arrays = [(options, shape) for segment, options in zip(
        segments, self._stack.num_options) for shape in segment.weight_shapes]
    specs = {
        f'w_{i}': ((shape.out, options, shape.columns),
                   parameters.initializer(shape))
        for i, (options, shape) in enumerate(arrays)}
    parameters.draw_parameters(specs, x.dtype)


get_weights = members.get_weights  # [out, K_l, columns] each.


def make_network(stack: layer_stack.LayerStack,
                 indexer: base.EpistemicIndexer) -> base.EpistemicNetwork:
  """A layer ensemble without a prior; z is int [L], an option per layer.

  Its `apply_indices` takes all combinations (None), a `Plan`, concrete indices,
  whose prefixes are shared exactly, or traced ones (`plan_traced`).

  Args:
    stack: layers and numbers of options; x is [B, D] or
      [B, height, width, channels].
    indexer: draws options of this stack; its support is all combinations, the
      last layer's option fastest.
  """
  init = hk.transform_with_state(lambda x: _StackParameters(stack)(x)).init

  def apply(params, state, x, z):
    return layer_stack.forward_one(stack, get_weights(params), x, z), state

  def apply_indices(params, state, x, indices):
    weights = get_weights(params)
    if indices is None:
      return layer_stack.forward_all(stack, weights, x), state
    if isinstance(indices, core.Tracer):
      indices = prefix_plans.plan_traced(indices, stack.num_options)
    elif not isinstance(indices, prefix_plans.Plan):
      indices = prefix_plans.plan_combinations(indices, stack.num_options,
                                               exact=True)
    return prefix_plans.forward_set(stack, weights, x, indices), state

  def apply_train(params, state, x, indices, key):
    if indices is not None:
      raise ValueError('a layer ensemble with dropout is trained on all its '
                       'combinations: num_index_samples must be None.')
    run = layers.ForwardPass(dropout_key=key)
    return layer_stack.forward_all(stack, get_weights(params), x, run), state

  def member_weights(params, input_shape):
    _, segments = stack.split(input_shape)
    combinations = np.asarray(base.get_support(indexer))
    shapes = [(layer, shape) for layer, segment in enumerate(segments)
              for shape in segment.weight_shapes]
    arrays = [jnp.swapaxes(w, 0, 1)[combinations[:, layer]]
              for w, (layer, _) in zip(get_weights(params), shapes)]
    return members.flatten_members(arrays, [shape for _, shape in shapes],
                                   len(combinations))

  return base.EpistemicNetwork(
      apply=apply, init=lambda key, x, z: init(key, x), indexer=indexer,
      apply_indices=apply_indices, member_weights=member_weights,
      apply_train=apply_train if layers.has_dropout(stack.layers) else None)


def make_predict_set(
    network: base.EpistemicNetwork, num_options: Sequence[int]
) -> Callable[[base.Params, base.State, base.Array, Any], base.Array]:
  """Predictions at sets of samples that are known only when they are asked for.

  Any-time inference: with `order` from `ranking.rank_samples` and P from
  `budget.choose_num_samples`, the P best samples are

    predict_set(params, state, x, network.indexer.support()[order[:P]])

  Args:
    network: a layer ensemble, with or without a prior, whose `apply_indices`
      takes a `Plan`.
    num_options: K_1, ..., K_L.

  Returns:
    predict_set(params, state, x, indices [P, L]) -> predictions [P, B, out]. It
    plans on the host and runs one compiled program per P (and shape of x),
    whatever the samples are. ValueErrors as `plan_combinations`.
  """
  @jax.jit
  def run(params, state, x, plan):
    output, _ = base.apply_indices(network, params, state, x, plan)
    return base.get_predictions(output)

  def predict_set(params, state, x, indices):
    plan = prefix_plans.plan_combinations(indices, num_options)
    return run(params, state, x, plan)

  return predict_set
