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

# Indices forwarded at once: they bound the memory of a draw. On a CPU they are
# fewer where there are many points: the activations of so many (index, point)
# pairs stay in a core's cache. Those of an image are larger.
_INDEX_BLOCK = 100
_BLOCK_PAIRS = 5000
_IMAGE_PAIRS = 128
_FEWEST_IMAGES = 8  # At once, however many indices there are.
# Numbers in one block of points, counted once per index: points are forwarded
# in blocks of at most so many, so that many images need no more memory than
# few.
_BLOCK_NUMBERS = 20_000_000
# What a point counts at least. One of few inputs has activations too, 50 per
# hidden layer by default, which the size of its input does not show.
_FEWEST_POINT_NUMBERS = 64


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
  num_draws, block_size = len(keys), _INDEX_BLOCK
  if jax.default_backend() == 'cpu':
    pairs = _IMAGE_PAIRS if x.ndim > 2 else _BLOCK_PAIRS
    block_size = min(block_size, max(1, pairs // len(x)))
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


def limit_images(num_points: int, num_axes: int, num_indices: int) -> int:
  """So many points at once, or fewer where they are images, on a CPU.

  Args:
    num_points: how many there would be.
    num_axes: of the points, [N, ...]; images have four.
    num_indices: indices that are forwarded side by side for each point.
  """
  if num_axes <= 2 or jax.default_backend() != 'cpu':
    return num_points
  return min(num_points, max(_FEWEST_IMAGES, _IMAGE_PAIRS // num_indices))


def points_per_block(network: base.EpistemicNetwork, shape: tuple[int, ...],
                     num_draws: int | None) -> int:
  """How many points are forwarded at once: equal blocks, as few as fit.

  Args:
    network: what is forwarded.
    shape: of the points, [N, ...].
    num_draws: draws of the index, which `forward_draws` puts in blocks of its
      own; None for all members of a finite set, side by side.
  """
  support = base.get_support(network.indexer)
  num_members = len(support) if num_draws is None and support is not None else 1
  per_point = (min(num_draws or _INDEX_BLOCK, _INDEX_BLOCK)
               * max(_FEWEST_POINT_NUMBERS, int(np.prod(shape[1:]))))
  most = limit_images(max(1, _BLOCK_NUMBERS // per_point), len(shape),
                      num_members)
  num_blocks = -(-shape[0] // most)
  return -(-shape[0] // num_blocks)


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
    dtype: precision of the forward.
  """
  network: base.EpistemicNetwork
  params: base.Params
  state: base.State
  dtype: Any = jnp.float32

  def __call__(self, x: base.Array, key: chex.PRNGKey) -> base.Array:
    """One draw at x [N, ...], [N, out]; traceable in both arguments."""
    return self._draw(self.params, self.state, jnp.asarray(x, self.dtype), key)

  def draws(self, x: np.ndarray, keys: chex.PRNGKey) -> np.ndarray:
    """A draw per key [J] at x [N, ...], [J, N, out]."""
    x = np.asarray(x, self.dtype)
    return in_blocks(
        lambda block, _: self._draws(self.params, self.state, block, keys),
        x, points_per_block(self.network, x.shape, len(keys)))

  def __getattr__(self, name: str) -> Any:
    if base.get_support(self.network.indexer) is not None:
      if name == 'members':
        return lambda x: self._all_members(x)[0]
      if name == 'members_with_noise':
        return self._all_members
    raise AttributeError(
        f'{type(self).__name__!r} has no attribute {name!r}.')

  def _all_members(self, x: np.ndarray
                   ) -> tuple[np.ndarray, np.ndarray | None]:
    x = np.asarray(x, self.dtype)
    return in_blocks(
        lambda block, _: self._members(self.params, self.state, block),
        x, points_per_block(self.network, x.shape, None))

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


def in_blocks(forward: Callable[[np.ndarray, int], Any], x: np.ndarray,
              size: int) -> Any:
  """forward(block, first) for blocks of points of equal size, put together.

  Args:
    forward: of a block of points and the number of points before it; returns
      arrays [..., points, out]. The last block is filled with its last point,
      so that one program serves all.
    x: the points, [N, ...].
    size: points of a block, see `points_per_block`.
  """
  blocks = []
  for first in range(0, len(x), size):
    block = x[first:first + size]
    num = len(block)
    if num < size:
      block = np.concatenate([block, block[-1:].repeat(size - num, axis=0)])
    blocks.append(jax.tree.map(
        lambda a, num=num: np.asarray(a)[..., :num, :], forward(block, first)))
  return jax.tree.map(lambda *parts: parts[0] if len(parts) == 1 else
                      np.concatenate(parts, axis=-2), *blocks)
