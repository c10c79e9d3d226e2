"""What a loss is, and what all losses share.

A loss has two parts. `prepare` runs once per problem, before the first step,
and makes the arrays that every step reads; `evaluate` is the loss of one
minibatch. Losses add up by wrapping: see `penalties.py`.

Losses of an epistemic network average an error over data points and epistemic
indices: `index_losses.make_index_loss` with the same indices for all points of
a batch, `make_per_example_loss` with one for each.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import networks

Context = Any  # What `prepare` hands to `evaluate`.
# (predictions [J, B, out], labels [B, ...]) -> error of each, [J, B].
PointError = Callable[[base.Array, base.Array], base.Array]

# Drawn indices that are forwarded at once: few enough for their activations to
# stay in a core's cache, enough to make up for the start of each block.
INDEX_BLOCK = 20
# fold_in constant of the key of a step. Indices are drawn from 0, 1, ..., so it
# lies far above them.
_TRAIN_KEY = 2**31 - 1
# fold_in constant of the key of `prepare`, from which losses draw noise, too.
_BOOTSTRAP_KEY = 1


@dataclasses.dataclass(frozen=True)
class Loss:
  """A loss of one problem.

  Attributes:
    prepare: (network, params, state, data, key) -> context, any pytree.
    evaluate: (network, params, state, context, batch, key) ->
      (loss, (state, metrics)). The state that it returns is the one of the next
      step.
    prepare_augmented: like `prepare`, for training whose steps see augmented
      inputs instead of `data.x`; None where `prepare` serves both.
  """
  prepare: Callable[..., Context]
  evaluate: Callable[..., tuple[base.Array, tuple[base.State, dict]]]
  prepare_augmented: Callable[..., Context] | None = None


def sample_indices(network: base.EpistemicNetwork, key: chex.PRNGKey,
                   num: int) -> base.Index:
  """`num` independent indices, stacked on a first axis, each drawn once."""
  keys = networks.fold_in_many(key, num)
  return networks.in_halves(
      lambda places: jax.vmap(network.indexer)(keys[places]), num)


def mean_over_blocks(block_loss: Callable[..., base.Array],
                     params: base.Params, shared: Any,
                     blocks: Any) -> base.Array:
  """mean over i of block_loss(params, shared, blocks[i]), block by block.

  The gradient of each block is taken with its value, so that no block's
  activations outlive it: the memory of one block, and nothing computed twice.

  Args:
    block_loss: (params, shared, block) -> scalar.
    params: what the loss is differentiated by.
    shared: arrays that all blocks read; no gradient reaches them.
    blocks: a pytree of arrays [num_blocks, ...]; no gradient reaches it.
  """
  num_blocks = jax.tree.leaves(blocks)[0].shape[0]
  block_grad = jax.value_and_grad(block_loss)

  @jax.custom_vjp
  def mean_loss(params, shared, blocks):
    return jnp.mean(
        jax.lax.map(lambda block: block_loss(params, shared, block), blocks))

  def forward(params, shared, blocks):
    shapes = jax.eval_shape(block_grad, params, shared,
                            jax.tree.map(lambda b: b[0], blocks))

    # Sums are flat: XLA adds up arrays of other shapes number by number.
    def add_block(total, block):
      part = block_grad(params, shared, block)
      return jax.tree.map(lambda a, b: a + b.ravel(), total, part), None

    # From zeros: a first block by itself would be compiled by itself.
    zeros = jax.tree.map(lambda a: jnp.zeros(a.size, a.dtype), shapes)
    sums, _ = jax.lax.scan(add_block, zeros, blocks)
    value, grads = jax.tree.map(lambda a, b: a.reshape(b.shape), sums, shapes)
    return value / num_blocks, grads

  def backward(grads, cotangent):
    scale = cotangent / num_blocks
    # In the dtype of the parameters, also where the loss has a wider one.
    return (jax.tree.map(lambda g: (scale * g).astype(g.dtype), grads),
            None, None)

  mean_loss.defvjp(forward, backward)
  return mean_loss(params, shared, blocks)


def cut_blocks(arrays: Any, largest: int = INDEX_BLOCK) -> Any:
  """A pytree of arrays [num, ...] in blocks [num_blocks, size, ...].

  Args:
    arrays: the pytree.
    largest: the size is the largest divisor of `num` up to this one.
  """
  num = jax.tree.leaves(arrays)[0].shape[0]
  size = max(n for n in range(1, largest + 1) if num % n == 0)
  return jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), arrays)


def forward_train(network: base.EpistemicNetwork, params: base.Params,
                  state: base.State, x: base.Array,
                  indices: base.Index | None, key: chex.PRNGKey
                  ) -> tuple[base.Output, base.State]:
  """The forward of a training step: `apply_train` where a network has one."""
  apply_train = getattr(network, 'apply_train', None)
  if apply_train is None:
    return base.apply_indices(network, params, state, x, indices)
  return apply_train(params, state, x, indices,
                     jax.random.fold_in(key, _TRAIN_KEY))


def bootstrap_counts(key: chex.PRNGKey, num_points: int, num_members: int,
                     dtype: Any) -> base.Array:
  """How often each point is in each member's bootstrap sample, [T, K].

  Every member draws T of the T points with replacement, so each column sums to
  T. Breiman 1996, "Bagging predictors"; Lakshminarayanan et al. 2017
  (arXiv 1612.01474) found it to be of no use for networks.

  Args:
    key: that of `prepare`.
    num_points: T.
    num_members: K.
    dtype: of the counts.
  """
  bits = jax.random.bits(jax.random.fold_in(key, _BOOTSTRAP_KEY),
                         [num_points, num_members], jnp.uint32)
  rows = bits % jnp.uint32(num_points)
  members = jnp.broadcast_to(jnp.arange(num_members), rows.shape)
  return jnp.zeros([num_points, num_members], dtype).at[
      rows.astype(jnp.int32), members].add(1.)


def make_per_example_loss(error: PointError) -> Loss:
  """The error with an index of its own for every data point of a batch.

  For networks that draw inside (MC dropout): a mask per example, as everyone
  trains them, while `apply` keeps one mask for all data points of an index. A
  network with an `apply_train` does the same there, in one forward.

  Args:
    error: as in `index_losses.make_index_loss`.
  """

  def prepare(network, params, state, data, key):
    del network, params, state, data, key  # Nothing to make beforehand.

  def evaluate(network, params, state, context, batch, key):
    del context
    indices = sample_indices(network, key, len(batch.data_index))
    if getattr(network, 'apply_train', None) is not None:
      out, state = forward_train(network, params, state, batch.x, indices, key)
      predictions = base.get_predictions(out)
    else:
      def forward(x, z):
        out, _ = network.apply(params, state, x[None], z)
        return base.get_predictions(out)[0]

      predictions = jax.vmap(forward)(batch.x, indices)[None]
    return jnp.mean(error(predictions, batch.y)), (state, {})

  return Loss(prepare, evaluate)
