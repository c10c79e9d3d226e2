"""Draws of one trained network: what a trained agent gives back."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.training import forward_blocks


def read_noise(output: base.Output) -> tuple[base.Array, base.Array | None]:
  """Predictions, and the noise variances that the network says, if it does."""
  log_variance = base.get_log_variance(output)
  return (base.get_predictions(output),
          None if log_variance is None else jnp.exp(log_variance))


def forward_draws(network: base.EpistemicNetwork, params: base.Params,
                  state: base.State, x: base.Array, keys: chex.PRNGKey,
                  read: Callable[[base.Output], Any] = base.get_predictions
                  ) -> Any:
  """Predictions at x [N, ...] of an index per key [J], as [J, N, out].

  Indices are forwarded in blocks; the last key fills the last block. `read`
  says what is taken from an output: arrays of that shape.
  """
  num_draws = len(keys)
  block_size = forward_blocks.indices_per_block(len(x), x.ndim)
  num_blocks = -(-num_draws // block_size)
  rows = jnp.minimum(jnp.arange(num_blocks * block_size), num_draws - 1)
  indices = jax.vmap(network.indexer)(keys[rows])
  blocks = jax.tree.map(
      lambda z: z.reshape(num_blocks, block_size, *z.shape[1:]), indices)
  shared = base.get_shared(network, params, state, x)

  def forward(block):
    out, _ = base.apply_indices(network, params, state, x, block, shared)
    return read(out)

  return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:num_draws],
                      jax.lax.map(forward, blocks))


def forward_support(network: base.EpistemicNetwork, params: base.Params,
                    state: base.State, x: base.Array,
                    read: Callable[[base.Output], Any] = base.get_predictions
                    ) -> Any:
  """Predictions at x [N, ...] of every member of a finite set, [K, N, out].

  `read` says what is taken from an output: arrays of that shape.
  """
  out, _ = base.apply_indices(network, params, state, x, None)
  return read(out)


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkSampler:
  """Draws f(., z) of one trained network, one index z per key.

  `members(x) -> [K, N, out]` is there where the index set is finite: all its
  members, in the order of the indexer's support. `members_with_noise(x)` is
  beside it: the same, and the noise variances that they say, or None.

  Attributes:
    network: the network.
    params: its trained parameters.
    state: its state, an untrained prior function for instance.
    input_shape: of one point.
    dtype: precision of the forward.
  """
  network: base.EpistemicNetwork
  params: base.Params
  state: base.State
  input_shape: tuple[int, ...]
  dtype: Any = jnp.float32

  def __call__(self, x: base.Array, key: chex.PRNGKey) -> base.Array:
    """One draw at x [N, ...], [N, out]; traceable in both arguments."""
    x = jnp.asarray(x, self.dtype)
    checks.check_points(x.shape, self.input_shape)
    return self._draw(self.params, self.state, x, key)

  def draws(self, x: np.ndarray, keys: chex.PRNGKey) -> np.ndarray:
    """A draw per key [J] at x [N, ...], [J, N, out]."""
    x = np.asarray(x, self.dtype)
    checks.check_points(x.shape, self.input_shape)
    return forward_blocks.in_blocks(
        lambda block, _: self._draws(self.params, self.state, block, keys),
        x, forward_blocks.points_per_block(self.network, x.shape, len(keys)))

  def __getattr__(self, name: str) -> Any:
    # Not made yet, when it is copied.
    if ('network' in vars(self)
        and base.get_support(self.network.indexer) is not None):
      if name == 'members':
        return lambda x: self._all_members(x)[0]
      if name == 'members_with_noise':
        return self._all_members
    raise AttributeError(
        f'{type(self).__name__!r} has no attribute {name!r}.')

  def _all_members(self, x: np.ndarray
                   ) -> tuple[np.ndarray, np.ndarray | None]:
    x = np.asarray(x, self.dtype)
    checks.check_points(x.shape, self.input_shape)
    return forward_blocks.in_blocks(
        lambda block, _: self._members(self.params, self.state, block),
        x, forward_blocks.points_per_block(self.network, x.shape, None))

  @functools.cached_property
  def _draw(self) -> Callable[..., base.Array]:
    def draw(params, state, x, key):
      out, _ = self.network.apply(params, state, x, self.network.indexer(key))
      return base.get_predictions(out)

    return jax.jit(draw)

  @functools.cached_property
  def _draws(self) -> Callable[..., base.Array]:
    return jax.jit(functools.partial(forward_draws, self.network))

  @functools.cached_property
  def _members(self) -> Callable[..., base.Array]:
    return jax.jit(functools.partial(forward_support, self.network,
                                     read=read_noise))
