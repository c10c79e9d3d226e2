"""The only place where a seed becomes keys, and keys become normals.

Draws must be the same on every machine and with every version and flag of jax,
since results of months are compared. So a problem's seed becomes a key by
`jax.random.fold_in`, which no flag changes; the key seeds numpy's Philox
generator, whose raw bits are a published standard; and the bits become normals
by the inverse of the normal distribution function. (`jax.random.normal` depends
on jax_threefry_partitionable, its last digits on the device, and it compiles
for a second per shape.)
"""

import hashlib
import numbers
from typing import Any
from typing import NamedTuple

import chex
import jax
import numpy as np
import scipy.special

from enn_ensembles import checks

# A change of any draw raises it.
VERSION = 1

# Seeds are 32-bit: the same key with and without x64.
_MAX_SEED = 2**32 - 1


class Use(NamedTuple):
  """One use of a seed: what its key is folded with.

  Attributes:
    constant: what names the use.
    num_counts: how many counts are folded in after it. Keys that differ there
      are different keys, whatever the constant.
  """
  constant: int
  num_counts: int


# All uses; no two are equal, so that no key is used twice. Two counts are
# (input_dim, num_train) of a regression problem, one is a number of images or
# pixels, three are a corruption's number, its severity and a block of images.
X_TRAIN_KEY = Use(1, 2)
X_TEST_KEY = Use(2, 2)
X_VAL_KEY = Use(3, 2)
FUNCTION_KEY = Use(4, 2)
NOISE_KEY = Use(5, 2)
_AGENT_KEY = Use(6, 0)
_EVALUATION_KEY = Use(7, 0)
VAL_FUNCTION_KEY = Use(8, 2)
VAL_NOISE_KEY = Use(9, 2)
VAL_SPLIT_KEY = Use(10, 1)
CORRUPTION_KEY = Use(11, 3)
PIXEL_ORDER_KEY = Use(12, 1)
TEST_SET_KEY = Use(13, 1)
X_DYADIC_KEY = Use(13, 2)
TEST_FUNCTION_KEY = Use(14, 2)
TEST_NOISE_KEY = Use(15, 2)


def check_seed(name: str, value: Any) -> None:
  """`value` is a seed: an integer from 0 to 2**32 - 1."""
  if isinstance(value, numbers.Integral) and value > _MAX_SEED:
    raise ValueError(f'{name} must be at most 2**32 - 1, got {value}.')
  checks.check_count(name, value, minimum=0)


def agent_key(seed: int) -> chex.PRNGKey:
  """The key of what an agent draws on the problems of a seed, [2] uint32.

  Raises:
    ValueError: seed is no integer from 0 to 2**32 - 1.
  """
  check_seed('seed', seed)
  return jax.random.key_data(_fold(seed, _AGENT_KEY))


def evaluation_key(seed: int) -> chex.PRNGKey:
  """The key of what evaluation draws on the problems of a seed, [2] uint32.

  Raises:
    ValueError: seed is no integer from 0 to 2**32 - 1.
  """
  check_seed('seed', seed)
  return jax.random.key_data(_fold(seed, _EVALUATION_KEY))


def _fold(seed: int, use: Use, *counts: int) -> jax.Array:
  """The key of one use of a seed."""
  assert len(counts) == use.num_counts, (use, counts)
  # The generator is named: jax's default can be changed by a flag.
  key = jax.random.key(np.uint32(seed), impl='threefry2x32')
  for data in (use.constant, *counts):
    key = jax.random.fold_in(key, data)
  return key


def draw_uniforms(seed: int, use: Use, cell: tuple[int, ...],
                  shape: tuple[int, ...]) -> np.ndarray:
  """Uniforms in (0, 1) of one use, float64; a longer draw starts the same.

  Args:
    seed: the problem's seed.
    use: one of the uses above.
    cell: counts that are folded in, which makes cells independent: (input_dim,
      num_train) of regression, for instance.
    shape: how many are drawn.
  """
  bits = _draw_bits(seed, use, cell, int(np.prod(shape)))
  # 52 bits and a half: both tails end at 2^-53, and no rounding happens.
  return (((bits >> np.uint64(12)) + 0.5) * 2.**-52).reshape(shape)


def draw_normals(seed: int, use: Use, cell: tuple[int, ...],
                 shape: tuple[int, ...]) -> np.ndarray:
  """Standard normals of one use, float64; see `draw_uniforms`."""
  uniforms = draw_uniforms(seed, use, cell, shape)
  return scipy.special.ndtri(uniforms, out=uniforms)


def draw_permutation(seed: int, use: Use, num: int) -> np.ndarray:
  """A permutation of 0, ..., num - 1 of one use, int64 [num]."""
  return np.argsort(_draw_bits(seed, use, (num,), num), kind='stable')


def _draw_bits(seed: int, use: Use, cell: tuple[int, ...],
               num: int) -> np.ndarray:
  key = _fold(seed, use, *cell)
  high, low = (int(word) for word in jax.random.key_data(key))
  return np.random.Philox(key=high << 32 | low).random_raw(num)


def digest(*arrays: np.ndarray) -> str:
  """SHA-256 of the numbers in float64 arrays, and of their shapes."""
  sha = hashlib.sha256()
  for array in arrays:
    sha.update(repr(array.shape).encode())
    sha.update(np.ascontiguousarray(array, dtype='<f8'))
  return sha.hexdigest()
