"""The loss that averages any pointwise error over data points and indices.

Regression gives it the squared error, classification the cross-entropy.

A network with a finite index set has a table, made by `prepare`, of what is
added to its trained part at each (training point, member): the output of the
prior function minus the target noise. The steps then run no forward pass of the
prior. Indices of an infinite set are drawn anew in every step, and forwarded in
blocks.
"""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.training import forward_blocks
from enn_ensembles.training import losses

# (training point, member) pairs that `prepare` forwards at once: it bounds the
# memory of their activations.
_PREPARE_PAIRS = 2**16


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


def make_index_loss(error: losses.PointError, *, noise_std: Any = 0.,
                    num_index_samples: int | None = None,
                    bootstrap: bool = False) -> losses.Loss:
  """An error averaged over the data points of a batch and over indices.

  `prepare` of the loss raises a ValueError where an infinite indexer has no
  num_index_samples or is to be bootstrapped, and where target noise is asked of
  an indexer without `noise_embedding`.

  Args:
    error: the error of predictions [J, B, out] for labels [B, ...], [J, B].
    noise_std: std of the target noise, see `regression.make_loss`; may be
      traced. A Python 0 is none.
    num_index_samples: indices drawn per step; None takes all of a finite
      indexer at every step.
    bootstrap: whether each index of a finite indexer has weights of the data
      points of its own, see `losses.bootstrap_counts`.

  Returns:
    The loss.
  """
  loss = _IndexLoss(error, noise_std, num_index_samples, bootstrap)
  return losses.Loss(
      functools.partial(loss.prepare, False), loss.evaluate,
      prepare_augmented=functools.partial(loss.prepare, True))


@dataclasses.dataclass(frozen=True, eq=False)  # noise_std may be traced.
class _IndexLoss:
  """What `make_index_loss` was given, and the parts of its loss."""
  error: losses.PointError
  noise_std: Any
  num_index_samples: int | None
  bootstrap: bool

  @property
  def with_noise(self) -> bool:
    """Whether targets have noise; a traced std may be 0, and has it."""
    return not (isinstance(self.noise_std, (int, float))
                and self.noise_std == 0)

  def prepare(self, augmented: bool, network: base.EpistemicNetwork,
              params: base.Params, state: base.State, data: base.Data,
              key: chex.PRNGKey) -> IndexContext:
    """What all steps read; with augmented inputs no table of the prior."""
    support = base.get_support(network.indexer)
    num, dtype = len(data.x), data.x.dtype
    features = (_draw_features(network.indexer, key, num, dtype)
                if self.with_noise else None)
    if support is None:
      self._check_infinite(network.indexer)
      return IndexContext(features=features)
    num_support = _num_indices(support)
    offsets = None if augmented else _tabulate_prior(
        network, params, state, data.x, num_support)
    has_prior = offsets is not None
    if self.with_noise:
      noise = self._target_noise(network.indexer, features,
                                 support).T[..., None]
      offsets = -noise if offsets is None else offsets - noise
    weights = (losses.bootstrap_counts(key, num, num_support, dtype)
               if self.bootstrap else None)
    return IndexContext(offsets, weights, has_prior=has_prior)

  def _check_infinite(self, indexer: Any) -> None:
    """ValueError for what an infinite indexer cannot have."""
    if self.num_index_samples is None:
      raise ValueError(f'num_index_samples must be given: {indexer} has no '
                       'finite support.')
    if self.bootstrap:
      raise ValueError(f'bootstrap needs finitely many indices, got {indexer}.')

  def _target_noise(self, indexer: Any, features: base.Array,
                    indices: base.Index) -> base.Array:
    """[J, rows] from the standard normals [rows, noise_dim]."""
    embedding = networks.noise_indexer(indexer).noise_embedding(
        indices).astype(features.dtype)
    return self.noise_std * (embedding @ features.T)

  def evaluate(self, network: base.EpistemicNetwork, params: base.Params,
               state: base.State, context: IndexContext, batch: base.Batch,
               key: chex.PRNGKey) -> tuple[base.Array, tuple[base.State, dict]]:
    """The loss of one minibatch, as `losses.Loss` has it."""
    average = (self._average_drawn
               if base.get_support(network.indexer) is None
               else self._average_listed)
    value, state = average(network, params, state, context, batch, key)
    return value, (state, {})

  def _average_listed(
      self, network: base.EpistemicNetwork, params: base.Params,
      state: base.State, context: IndexContext, batch: base.Batch,
      key: chex.PRNGKey) -> tuple[base.Array, base.State]:
    """The loss with a finite indexer, at all of its indices or some of them."""
    tables = (context.offsets, context.weights)
    tables, indices = jax.tree.map(lambda a: a[batch.data_index], tables), None
    if self.num_index_samples is not None:
      support = base.get_support(network.indexer)
      chosen = (jax.random.bits(key, [self.num_index_samples], jnp.uint32)
                % jnp.uint32(_num_indices(support)))
      indices = jax.tree.map(lambda s: jnp.asarray(s)[chosen], support)
      tables = jax.tree.map(lambda a: a[:, chosen], tables)
    out, state = losses.forward_train(network, params, state, batch.x, indices,
                                      key)
    predictions = (base.split_output(out)[0] if context.has_prior
                   else base.get_predictions(out))
    offsets, weights = tables
    if offsets is not None:
      predictions = predictions + jnp.swapaxes(offsets, 0, 1)
    errors = self.error(predictions, batch.y)
    chex.assert_rank(errors, 2)
    if weights is not None:
      errors = weights.T * errors
    return jnp.mean(errors), state

  def _average_drawn(
      self, network: base.EpistemicNetwork, params: base.Params,
      state: base.State, context: IndexContext, batch: base.Batch,
      key: chex.PRNGKey) -> tuple[base.Array, base.State]:
    """The loss with an infinite indexer, at indices drawn anew, in blocks."""
    assert self.num_index_samples is not None  # `prepare` has seen to it.
    indices = losses.sample_indices(network, key, self.num_index_samples)
    features = (() if context.features is None
                else context.features[batch.data_index])
    if getattr(network, 'apply_train', None) is not None:
      # One state comes out of one forward: no blocks.
      out, state = losses.forward_train(network, params, state, batch.x,
                                        indices, key)
      return self._mean_error(network.indexer, out, batch.y, features,
                              indices), state
    # What all blocks need of the network is computed once and differentiated
    # once: it stands beside the parameters.
    shared = base.get_shared(network, params, state, batch.x)

    def block_loss(params_and_shared, data, block):
      params, shared = params_and_shared
      x, y, features = data
      out, _ = base.apply_indices(network, params, state, x, block, shared)
      return self._mean_error(network.indexer, out, jnp.moveaxis(y, -1, 0),
                              features, block)

    # Labels with points last lie as the predictions that they are taken off.
    value = losses.mean_over_blocks(
        block_loss, (params, shared),
        (batch.x, jnp.moveaxis(batch.y, 0, -1), features),
        losses.cut_blocks(indices))
    return value, state

  def _mean_error(self, indexer: Any, out: base.Output, y: base.Array,
                  features: Any, indices: base.Index) -> base.Array:
    """The error at drawn indices, whose targets have their own noise."""
    predictions = base.get_predictions(out)
    if self.with_noise:
      predictions = predictions - self._target_noise(
          indexer, features, indices)[..., None]
    return jnp.mean(self.error(predictions, y))


def _num_indices(indices: base.Index) -> int:
  """J, of indices that are arrays [J, ...]."""
  return jax.tree.leaves(indices)[0].shape[0]


def _draw_features(indexer: Any, key: chex.PRNGKey,
                   num: int, dtype: Any) -> base.Array:
  """The standard normals of the target noise, [T, noise_dim].

  Raises:
    ValueError: the indexer has no `noise_embedding`.
  """
  noise = networks.noise_indexer(indexer)
  if noise is None:
    raise ValueError(
        f'target noise needs an indexer with noise_embedding, got {indexer};'
        ' set noise_scale to 0.')
  return jax.random.normal(key, [num, noise.noise_dim], dtype)


def _tabulate_prior(network: base.EpistemicNetwork, params: base.Params,
                    state: base.State, x: base.Array,
                    num_support: int) -> base.Array | None:
  """The prior function at all training points and members, [T, J, out].

  None where the network has none.
  """
  if not _has_prior(network, params, state, x):
    return None

  def prior(x):
    # Only the prior: XLA drops the rest.
    out, _ = base.apply_indices(network, params, state, x, None)
    return jnp.swapaxes(base.split_output(out)[1], 0, 1)

  return forward_blocks.map_points(prior, x, _PREPARE_PAIRS, num_support)


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
