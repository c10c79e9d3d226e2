"""How many points and indices a network forwards at once.

Blocks bound the memory of activations, and on a CPU keep them in a core's
cache. `map_points` cuts points within a compiled program, `in_blocks` between
calls of one.
"""

from collections.abc import Callable
from typing import Any

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


def indices_per_block(num_points: int, num_axes: int) -> int:
  """How many drawn indices are forwarded at once.

  Args:
    num_points: that each of them is forwarded at.
    num_axes: of the points, [N, ...]; images have four.
  """
  if jax.default_backend() != 'cpu':
    return _INDEX_BLOCK
  pairs = _IMAGE_PAIRS if num_axes > 2 else _BLOCK_PAIRS
  return min(_INDEX_BLOCK, max(1, pairs // num_points))


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
    num_draws: draws of the index, which `network_sampler.forward_draws` puts in
      blocks of its own; None for all members of a finite set, side by side.
  """
  num_members = 1
  if num_draws is None:
    num_members = base.count_support(network.indexer) or 1
  per_point = (min(num_draws or _INDEX_BLOCK, _INDEX_BLOCK)
               * max(_FEWEST_POINT_NUMBERS, int(np.prod(shape[1:]))))
  most = limit_images(max(1, _BLOCK_NUMBERS // per_point), len(shape),
                      num_members)
  num_blocks = -(-shape[0] // most)
  return -(-shape[0] // num_blocks)


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


def map_points(function: Callable[[base.Array], Any], x: base.Array,
               num_pairs: int, num_indices: int = 1) -> Any:
  """function(x) for a function that treats all points alike, block by block.

  Args:
    function: x [n, ...] -> a pytree of arrays [n, ...].
    x: [N, ...].
    num_pairs: the most (point, index) pairs that are forwarded at once; of
      images fewer, see `limit_images`.
    num_indices: indices that the function forwards for each point.

  Returns:
    The same pytree, of arrays [N, ...].
  """
  num = len(x)
  block_size = limit_images(max(1, num_pairs // num_indices), x.ndim,
                            num_indices)
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
