"""What a loss is, and what all losses share.

A loss has two parts. `prepare` runs once per problem, before the first step,
and makes the arrays that every step reads; `evaluate` is the loss of one
minibatch. Losses add up by wrapping: see `penalties.py`.

Losses of an epistemic network average an error over data points and epistemic
indices. `make_index_loss` is that average for any pointwise error; regression
gives it the squared error, classification the cross-entropy. A network with a
finite index set has a table, made by `prepare`, of what is added to its trained
part at each (training point, member): the output of the prior function minus
the target noise. The steps then run no forward pass of the prior.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.training import network_sampler

Context = Any  # What `prepare` hands to `evaluate`.
# (predictions [J, B, out], labels [B, ...]) -> error of each, [J, B].
PointError = Callable[[base.Array, base.Array], base.Array]

# Drawn indices that are forwarded at once: few enough for their activations to
# stay in a core's cache, enough to make up for the start of each block.
INDEX_BLOCK = 20
# (training point, member) pairs that `prepare` forwards at once: it bounds the
# memory of their activations.
_PREPARE_PAIRS = 2**16
# fold_in constants of the keys of a step and of `prepare`. Indices are drawn
# from 0, 1, ..., so the one of a step lies far above them.
_TRAIN_KEY, _BOOTSTRAP_KEY = 2**31 - 1, 1


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


@functools.partial(jax.tree_util.register_dataclass,
                   data_fields=('offsets', 'weights', 'features'),
                   meta_fields=('has_prior',))
@dataclasses.dataclass(frozen=True)
class IndexContext:
  """What `make_index_loss` prepares.

  Attributes:
    offsets: what is added to the output, [T, J, out], for a finite indexer of J
      indices; None where that is nothing.
    weights: bootstrap weights [T, J]; None without bootstrap.
    features: standard normals of the target noise, [T, noise_dim], for an
      infinite indexer; None without target noise.
    has_prior: whether the prior function is part of the offsets; otherwise
      every step forwards it.
  """
  offsets: base.Array | None = None
  weights: base.Array | None = None
  features: base.Array | None = None
  has_prior: bool = False


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


def map_points(function: Callable[[base.Array], Any], x: base.Array,
               num_pairs: int, num_indices: int = 1) -> Any:
  """function(x) for a function that treats all points alike, block by block.

  Args:
    function: x [n, ...] -> a pytree of arrays [n, ...].
    x: [N, ...].
    num_pairs: the most (point, index) pairs that are forwarded at once; of
      images fewer, see `network_sampler.limit_images`.
    num_indices: indices that the function forwards for each point.

  Returns:
    The same pytree, of arrays [N, ...].
  """
  num = len(x)
  block_size = network_sampler.limit_images(
      max(1, num_pairs // num_indices), x.ndim, num_indices)
  num_blocks = -(-num // block_size)
  if num_blocks == 1:
    return function(x)
  size = -(-num // num_blocks)
  x = jnp.asarray(x)  # A traced row of numpy's is none.
  # The last point repeated fills the last block.
  rows = jnp.minimum(jnp.arange(num_blocks * size), num - 1)
  out = jax.lax.map(lambda rows: function(x[rows]),
                    rows.reshape(num_blocks, size))
  return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:num], out)


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


def bootstrap_weights(key: chex.PRNGKey, num_points: int, num_members: int,
                      dtype: Any) -> base.Array:
  """How often each point is in each member's bootstrap sample, [T, K].

  Every member draws T of the T points with replacement, so each column sums to
  T. Breiman 1996, "Bagging predictors"; Lakshminarayanan et al. 2017
  (arXiv 1612.01474) found it to be of no use for networks.
  """
  rows = jax.random.bits(key, [num_points, num_members],
                         jnp.uint32) % jnp.uint32(num_points)
  members = jnp.broadcast_to(jnp.arange(num_members), rows.shape)
  return jnp.zeros([num_points, num_members], dtype).at[
      rows.astype(jnp.int32), members].add(1.)


def _draw_features(indexer: Any, key: chex.PRNGKey,
                   num: int, dtype: Any) -> base.Array:
  """The standard normals of the target noise, [T, noise_dim]."""
  noise = networks.noise_indexer(indexer)
  if noise is None:
    raise ValueError(
        f'target noise needs an indexer with noise_embedding, got {indexer};'
        ' set noise_scale to 0.')
  return jax.random.normal(key, [num, noise.noise_dim], dtype)


def make_index_loss(error: PointError, *, noise_std: Any = 0.,
                    num_index_samples: int | None = None,
                    bootstrap: bool = False) -> Loss:
  """An error averaged over the data points of a batch and over indices.

  Args:
    error: the error of predictions [J, B, out] for labels [B, ...], [J, B].
    noise_std: std of the target noise, see `regression.make_loss`; may be
      traced. A Python 0 is none.
    num_index_samples: indices drawn per step; None takes all of a finite
      indexer at every step.
    bootstrap: whether each index of a finite indexer has weights of the data
      points of its own, see `bootstrap_weights`.

  Returns:
    The loss.
  """
  with_noise = not (isinstance(noise_std, (int, float)) and noise_std == 0)

  def target_noise(indexer, features, indices) -> base.Array:
    """[J, rows] from c [rows, noise_dim]."""
    embedding = networks.noise_indexer(indexer).noise_embedding(
        indices).astype(features.dtype)
    return noise_std * (embedding @ features.T)

  def tabulate(network, params, state, x, num_support) -> base.Array | None:
    """The prior function at all training points and members, [T, J, out]."""
    if not _has_prior(network, params, state, x):
      return None

    def prior(x):
      # Only the prior: XLA drops the rest.
      out, _ = base.apply_indices(network, params, state, x, None)
      return jnp.swapaxes(base.split_output(out)[1], 0, 1)

    return map_points(prior, x, _PREPARE_PAIRS, num_support)

  def prepare(augmented, network, params, state, data, key):
    support = base.get_support(network.indexer)
    num, dtype = len(data.x), data.x.dtype
    features = (_draw_features(network.indexer, key, num, dtype) if with_noise
                else None)
    if support is None:
      if num_index_samples is None:
        raise ValueError(f'num_index_samples must be given: {network.indexer} '
                         'has no finite support.')
      if bootstrap:
        raise ValueError('bootstrap needs finitely many indices, got '
                         f'{network.indexer}.')
      return IndexContext(features=features)
    num_support = jax.tree.leaves(support)[0].shape[0]
    offsets = (None if augmented else
               tabulate(network, params, state, data.x, num_support))
    has_prior = offsets is not None
    if with_noise:
      noise = target_noise(network.indexer, features, support).T[..., None]
      offsets = -noise if offsets is None else offsets - noise
    weights = bootstrap_weights(
        jax.random.fold_in(key, _BOOTSTRAP_KEY), num, num_support,
        dtype) if bootstrap else None
    return IndexContext(offsets, weights, has_prior=has_prior)

  def evaluate(network, params, state, context, batch, key):
    if base.get_support(network.indexer) is None:
      return drawn_indices(network, params, state, context, batch, key)
    return listed_indices(network, params, state, context, batch, key)

  def listed_indices(network, params, state, context, batch, key):
    """The loss with a finite indexer, at all of its indices or some of them."""
    tables = (context.offsets, context.weights)
    tables, indices = jax.tree.map(lambda a: a[batch.data_index], tables), None
    if num_index_samples is not None:
      support = base.get_support(network.indexer)
      num_support = jax.tree.leaves(support)[0].shape[0]
      chosen = (jax.random.bits(key, [num_index_samples], jnp.uint32)
                % jnp.uint32(num_support))
      indices = jax.tree.map(lambda s: jnp.asarray(s)[chosen], support)
      tables = jax.tree.map(lambda a: a[:, chosen], tables)
    out, state = forward_train(network, params, state, batch.x, indices, key)
    predictions = (base.split_output(out)[0] if context.has_prior
                   else base.get_predictions(out))
    offsets, weights = tables
    if offsets is not None:
      predictions = predictions + jnp.swapaxes(offsets, 0, 1)
    errors = error(predictions, batch.y)
    chex.assert_rank(errors, 2)
    if weights is not None:
      errors = weights.T * errors
    return jnp.mean(errors), (state, {})

  def drawn_indices(network, params, state, context, batch, key):
    """The loss with an infinite indexer, at indices drawn anew, in blocks."""
    assert num_index_samples is not None  # `prepare` has seen to it.
    indices = sample_indices(network, key, num_index_samples)
    features = context.features[batch.data_index] if with_noise else ()

    def errors(out, y, features, indices):
      predictions = base.get_predictions(out)
      if with_noise:
        predictions = predictions - target_noise(
            network.indexer, features, indices)[..., None]
      return jnp.mean(error(predictions, y))

    if getattr(network, 'apply_train', None) is not None:
      # One state comes out of one forward: no blocks.
      out, state = forward_train(network, params, state, batch.x, indices, key)
      return errors(out, batch.y, features, indices), (state, {})
    # What all blocks need of the network is computed once and differentiated
    # once: it stands beside the parameters.
    shared = base.get_shared(network, params, state, batch.x)

    def block_loss(params_and_shared, data, block):
      params, shared = params_and_shared
      x, y, features = data
      out, _ = base.apply_indices(network, params, state, x, block, shared)
      return errors(out, jnp.moveaxis(y, -1, 0), features, block)

    # Labels with points last lie as the predictions that they are taken off.
    value = mean_over_blocks(block_loss, (params, shared),
                             (batch.x, jnp.moveaxis(batch.y, 0, -1), features),
                             cut_blocks(indices))
    return value, (state, {})

  return Loss(functools.partial(prepare, False), evaluate,
              prepare_augmented=functools.partial(prepare, True))


def _has_prior(network: base.EpistemicNetwork, params: base.Params,
               state: base.State, x: base.Array) -> bool:
  """Whether the network's output has a prior part; nothing is computed."""
  found = []

  def forward(x):
    out, _ = base.apply_indices(network, params, state, x, None)
    found.append(hasattr(out, 'preds'))
    return base.get_predictions(out)

  jax.eval_shape(forward, x[:1])
  return found[0]


def make_per_example_loss(error: PointError) -> Loss:
  """The error with an index of its own for every data point of a batch.

  For networks that draw inside (MC dropout): a mask per example, as everyone
  trains them, while `apply` keeps one mask for all data points of an index. A
  network with an `apply_train` does the same there, in one forward.

  Args:
    error: as in `make_index_loss`.
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
