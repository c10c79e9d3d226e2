"""Losses of regression agents: squared error over indices, target noise, ELBO.

A loss has two parts. `prepare` runs once per problem, before the first step,
and makes the arrays that every step reads: the target of each (data point,
index) with its noise added and the prior function's output taken off, which
spares the steps the forward pass of the prior. `evaluate` is the loss of one
minibatch. Losses add up by wrapping: see `add_l2_weight_decay`.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from enn_ensembles import base

Context = Any  # What `prepare` hands to `evaluate`.

# Drawn indices that are forwarded at once: few enough for their activations to
# stay in a core's cache, enough to make up for the start of each block.
_INDEX_BLOCK = 20


@dataclasses.dataclass(frozen=True)
class Loss:
  """A loss of one problem.

  Attributes:
    prepare: (network, params, state, data, key) -> context.
    evaluate: (network, params, state, context, batch, key) ->
      (loss, (state, metrics)).
  """
  prepare: Callable[..., Context]
  evaluate: Callable[..., tuple[base.Array, tuple[base.State, dict]]]


def sample_indices(network: base.EpistemicNetwork, key: chex.PRNGKey,
                   num: int) -> base.Index:
  """`num` independent indices, stacked on a first axis."""
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num))
  return jax.vmap(network.indexer)(keys)


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
    first, rest = (jax.tree.map(lambda b: b[0], blocks),
                   jax.tree.map(lambda b: b[1:], blocks))

    def add_block(total, block):
      part = block_grad(params, shared, block)
      return jax.tree.map(jnp.add, total, part), None

    (value, grads), _ = jax.lax.scan(
        add_block, block_grad(params, shared, first), rest)
    return value / num_blocks, grads

  def backward(grads, cotangent):
    scale = cotangent / num_blocks
    # In the dtype of the parameters, also where the loss has a wider one.
    return (jax.tree.map(lambda g: (scale * g).astype(g.dtype), grads),
            None, None)

  mean_loss.defvjp(forward, backward)
  return mean_loss(params, shared, blocks)


def make_regression_loss(noise_std: Any = 0., *,
                         num_index_samples: int | None = None) -> Loss:
  """Squared error, averaged over data points and indices, on noisy targets.

  The target of data point t under index z is y_t + noise_std * c_t . e(z),
  with c_t ~ N(0, I) drawn once per data point, and e(z) the indexer's
  `noise_embedding`, a vector of mean square norm 1. With a one-hot e(z) that is
  an independent fixed draw for each (data point, member), the target noise of
  ensembles (Lu & Van Roy 2017, arXiv 1705.07347); with e(z) = z that of
  hypermodels (Dwaracherla et al. 2020, arXiv 2006.07464).

  Args:
    noise_std: std of the target noise; may be traced. A Python 0 is none.
    num_index_samples: indices drawn per step; None takes all of a finite
      indexer at every step.

  Returns:
    The loss. A finite indexer's targets are tabulated as [T, J].
  """
  with_noise = not (isinstance(noise_std, (int, float)) and noise_std == 0)

  def target_noise(indexer, features, indices) -> base.Array:
    """[rows, J] from c [rows, noise_dim]."""
    embedding = indexer.noise_embedding(indices).astype(features.dtype)
    return noise_std * (features @ embedding.T)

  def draw_features(indexer, key, data) -> base.Array:
    if not hasattr(indexer, 'noise_embedding'):
      raise ValueError(
          f'target noise needs an indexer with noise_embedding, got {indexer};'
          ' set noise_scale to 0.')
    shape = [data.y.shape[0], indexer.noise_dim]
    return jax.random.normal(key, shape, data.y.dtype)

  def prepare(network, params, state, data, key):
    support = base.get_support(network.indexer)
    features = (draw_features(network.indexer, key, data) if with_noise
                else None)
    if support is None:
      if num_index_samples is None:
        raise ValueError(f'num_index_samples must be given: {network.indexer} '
                         'has no finite support.')
      return features
    out, _ = base.apply_indices(network, params, state, data.x, None)
    _, prior = base.split_output(out)  # Only the prior: XLA drops the rest.
    targets = data.y - prior[..., 0].T
    if with_noise:
      targets += target_noise(network.indexer, features, support)
    return targets

  def evaluate(network, params, state, context, batch, key):
    support = base.get_support(network.indexer)
    rows = batch.data_index
    if support is None:
      indices = sample_indices(network, key, num_index_samples)
      data = (batch.x, batch.y, context[rows] if with_noise else ())
      # What all blocks need of the network is computed once and differentiated
      # once: it stands beside the parameters.
      shared = base.get_shared(network, params, state, batch.x)

      def block_loss(params_and_images, data, block):
        params, shared = params_and_images
        x, targets, features = data
        out, _ = base.apply_indices(network, params, state, x, block, shared)
        if with_noise:
          targets = targets + target_noise(network.indexer, features, block)
        error = base.get_predictions(out)[..., 0] - targets.T
        return jnp.mean(jnp.square(error))

      block_size = max(n for n in range(1, _INDEX_BLOCK + 1)
                       if num_index_samples % n == 0)
      blocks = jax.tree.map(
          lambda z: z.reshape(-1, block_size, *z.shape[1:]), indices)
      value = mean_over_blocks(block_loss, (params, shared), data, blocks)
      return value, (state, {})
    targets, indices = context[rows], None
    if num_index_samples is not None:
      num_support = jax.tree.leaves(support)[0].shape[0]
      chosen = (jax.random.bits(key, [num_index_samples], jnp.uint32)
                % jnp.uint32(num_support))
      indices = jax.tree.map(lambda s: jnp.asarray(s)[chosen], support)
      targets = targets[:, chosen]
    out, state = base.apply_indices(network, params, state, batch.x, indices)
    error = base.split_output(out)[0][..., 0] - targets.T
    chex.assert_rank(error, 2)
    return jnp.mean(jnp.square(error)), (state, {})

  return Loss(prepare, evaluate)


def make_per_example_loss() -> Loss:
  """Squared error with an index of its own for every data point of a batch.

  For networks that draw inside (MC dropout): a mask per example, as everyone
  trains them, while `apply` keeps one mask for all data points of an index.
  """

  def prepare(network, params, state, data, key):
    del network, params, state, data, key  # Nothing to make beforehand.

  def evaluate(network, params, state, context, batch, key):
    del context
    indices = sample_indices(network, key, len(batch.data_index))

    def forward(x, z):
      out, _ = network.apply(params, state, x[None], z)
      return base.get_predictions(out)[0]

    error = jax.vmap(forward)(batch.x, indices) - batch.y
    return jnp.mean(jnp.square(error)), (state, {})

  return Loss(prepare, evaluate)


def add_l2_weight_decay(loss: Loss, scale: Any) -> Loss:
  """Adds scale * sum of squares of all parameters."""

  def evaluate(network, params, state, context, batch, key):
    value, aux = loss.evaluate(network, params, state, context, batch, key)
    squares = sum(jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params))
    return value + scale * squares, aux

  return Loss(loss.prepare, evaluate)


def make_elbo_loss(noise_std: Any, num_train: int,
                   divergence: Callable[[base.Params], base.Array],
                   num_index_samples: int) -> Loss:
  """The negative ELBO per data point, for Gaussian observation noise.

  mean over indices and batch of (f(x, z) - y)^2 / (2 noise_std^2)
  + divergence(params) / num_train. Blundell et al. 2015 (arXiv 1505.05424).

  Args:
    noise_std: std of the observation noise.
    num_train: T; the divergence is shared out among the data points.
    divergence: params -> KL(q || prior) of the weights, in nats.
    num_index_samples: indices drawn per step.
  """
  squared_error = make_regression_loss(num_index_samples=num_index_samples)

  def evaluate(network, params, state, context, batch, key):
    value, aux = squared_error.evaluate(
        network, params, state, context, batch, key)
    return (0.5 * value / noise_std ** 2 + divergence(params) / num_train, aux)

  return Loss(squared_error.prepare, evaluate)
