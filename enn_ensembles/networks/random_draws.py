"""The numbers of `jax.random`, made in one pass over an array.

On a CPU JAX compiles its generator, Threefry-2x32 (Salmon, Moraes, Dror & Shaw
2011, "Parallel random numbers: as easy as 1, 2, 3"), as a loop that goes over
the whole array once per four of the twenty rounds. That takes long to run, and
each draw is one more loop to compile. A step of training that draws as many
numbers as it has weights would spend most of its time there. Here all rounds
stand in one expression, which XLA makes one pass over the array: the same bits,
for the same keys.

Keys of another generator than Threefry, and a process with
`jax_threefry_partitionable` off, get what `jax.random` says.
"""

from collections.abc import Callable
from collections.abc import Sequence
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_SQRT_2 = np.float32(np.sqrt(2.))


def _has_own_bits(key: chex.PRNGKey, size: int) -> bool:
  """Whether `_threefry` makes what `jax.random` does."""
  return (jax.random.key_impl(key) == 'threefry2x32' and size < 2 ** 32
          and jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]
          )


def _threefry(key: chex.PRNGKey, counters: base.Array
              ) -> tuple[base.Array, base.Array]:
  """Threefry-2x32 of 20 rounds of (0, counters), counters uint32."""
  k0, k1 = jax.random.key_data(key)
  keys = (k0, k1, k0 ^ k1 ^ _PARITY)
  x0, x1 = k0, counters + k1
  for i in range(5):
    for distance in _ROTATIONS[i % 2]:
      x0 = x0 + x1
      x1 = x0 ^ ((x1 << np.uint32(distance))
                 | (x1 >> np.uint32(32 - distance)))
    x0 = x0 + keys[(i + 1) % 3]
    x1 = x1 + keys[(i + 2) % 3] + np.uint32(i + 1)
  return x0, x1


def fold_in_many(key: chex.PRNGKey, num: int) -> chex.PRNGKey:
  """`jax.random.fold_in(key, i)` for i = 0, ..., num - 1, [num] keys."""
  numbers = jax.lax.iota(jnp.uint32, num)
  if not _has_own_bits(key, num):
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)
  data = jnp.stack(_threefry(key, numbers), axis=-1)
  if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    return jax.random.wrap_key_data(data, impl='threefry2x32')
  return data


def draw_bits(key: chex.PRNGKey, shape: Sequence[int]) -> base.Array:
  """`jax.random.bits(key, shape, uint32)`, bit for bit."""
  size = math.prod(shape)
  if not _has_own_bits(key, size):
    return jax.random.bits(key, shape, jnp.uint32)
  first, second = _threefry(key, jax.lax.iota(jnp.uint32, size))
  return (first ^ second).reshape(shape)


def _to_uniform(drawn: base.Array) -> base.Array:
  # 23 random bits are the mantissa of a number in [1, 2).
  ones = np.float32(1.).view(np.uint32)
  return jax.lax.bitcast_convert_type(
      (drawn >> np.uint32(9)) | ones, jnp.float32) - np.float32(1.)


def draw_uniform(key: chex.PRNGKey, shape: Sequence[int]) -> base.Array:
  """`jax.random.uniform(key, shape, float32)`, bit for bit."""
  return _to_uniform(draw_bits(key, shape))


def uniform_at(key: chex.PRNGKey, places: base.Array, num: int) -> base.Array:
  """`draw_uniform(key, [num])` at some places, uint32 [...]."""
  if not _has_own_bits(key, num):
    return jax.random.uniform(key, [num], jnp.float32)[places]
  first, second = _threefry(key, places)
  return _to_uniform(first ^ second)


def _to_normal(uniform: base.Array, low: np.float32,
               high: np.float32) -> base.Array:
  """Standard normals whose erf(x / sqrt(2)) lies in [low, high)."""
  return _SQRT_2 * jax.lax.erf_inv(
      jnp.maximum(low, uniform * (high - low) + low))


def draw_normal(key: chex.PRNGKey, shape: Sequence[int]) -> base.Array:
  """`jax.random.normal(key, shape, float32)`, up to rounding."""
  return _to_normal(draw_uniform(key, shape),
                    np.nextafter(np.float32(-1.), np.float32(0.)),
                    np.float32(1.))


def draw_truncated_normal(key: chex.PRNGKey, num: int,
                          dtype: Any) -> base.Array:
  """`jax.random.truncated_normal(key, -2, 2, [num], dtype)`, up to rounding."""
  if jnp.dtype(dtype) != jnp.float32:
    return jax.random.truncated_normal(key, -2., 2., [num], dtype)
  bound = np.float32(math.erf(2. / math.sqrt(2.)))
  largest = np.nextafter(np.float32(2.), np.float32(0.))
  return in_halves(lambda places: jnp.clip(
      _to_normal(uniform_at(key, places, num), -bound, bound),
      -largest, largest), num)


def in_halves(draw: Callable[[base.Array], Any], num: int) -> Any:
  """draw(0, ..., num - 1), by a loop over two halves.

  What a loop has made lies in memory. Everything else XLA may compile, and
  compute, anew for every reader, which costs more than a read where there are
  random numbers to draw.

  Args:
    draw: places, uint32 [n] -> arrays [n, ...].
    num: how many places.

  Returns:
    Arrays [num, ...].
  """
  half = -(-num // 2)
  places = jax.lax.iota(jnp.uint32, 2 * half).reshape(2, half)
  return jax.tree.map(
      lambda halves: halves.reshape(2 * half, *halves.shape[2:])[:num],
      jax.lax.map(draw, places))
