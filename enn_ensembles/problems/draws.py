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

import chex
import jax
import numpy as np
import scipy.special

# A change of any draw raises it.
VERSION = 1

# What a seed's keys are folded with: one constant per use, never reused.
X_TRAIN_KEY = 1
X_TEST_KEY = 2
X_VAL_KEY = 3
FUNCTION_KEY = 4
NOISE_KEY = 5
_AGENT_KEY = 6
_EVALUATION_KEY = 7
VAL_FUNCTION_KEY = 8
VAL_NOISE_KEY = 9
VAL_SPLIT_KEY = 10
CORRUPTION_KEY = 11
PIXEL_ORDER_KEY = 12
# Images fold one count into a key, NNGP problems two: no key is used twice.
TEST_SET_KEY = 13
X_DYADIC_KEY = 13
TEST_FUNCTION_KEY = 14
TEST_NOISE_KEY = 15


def agent_key(seed: int) -> chex.PRNGKey:
  """The key of what an agent draws on the problems of a seed, [2] uint32."""
  return jax.random.key_data(_fold(seed, _AGENT_KEY))


def evaluation_key(seed: int) -> chex.PRNGKey:
  """The key of what evaluation draws on the problems of a seed, [2] uint32."""
  return jax.random.key_data(_fold(seed, _EVALUATION_KEY))


def _fold(seed: int, constant: int, *counts: int) -> jax.Array:
  """The key of one use of a seed."""
  # The generator is named: jax's default can be changed by a flag.
  key = jax.random.key(np.uint32(seed), impl='threefry2x32')
  for data in (constant, *counts):
    key = jax.random.fold_in(key, data)
  return key


def draw_uniforms(seed: int, constant: int, cell: tuple[int, ...],
                  shape: tuple[int, ...]) -> np.ndarray:
  """Uniforms in (0, 1) of one use, float64; a longer draw starts the same.

  Args:
    seed: the problem's seed.
    constant: one of the constants above, which names the use.
    cell: counts that are folded in, which makes cells independent: (input_dim,
      num_train) of regression, for instance.
    shape: how many are drawn.
  """
  bits = _draw_bits(seed, constant, cell, int(np.prod(shape)))
  # 52 bits and a half: both tails end at 2^-53, and no rounding happens.
  return (((bits >> np.uint64(12)) + 0.5) * 2.**-52).reshape(shape)


def draw_normals(seed: int, constant: int, cell: tuple[int, ...],
                 shape: tuple[int, ...]) -> np.ndarray:
  """Standard normals of one use, float64; see `draw_uniforms`."""
  uniforms = draw_uniforms(seed, constant, cell, shape)
  return scipy.special.ndtri(uniforms, out=uniforms)


def draw_permutation(seed: int, constant: int, num: int) -> np.ndarray:
  """A permutation of 0, ..., num - 1 of one use, int64 [num]."""
  return np.argsort(_draw_bits(seed, constant, (num,), num), kind='stable')


def _draw_bits(seed: int, constant: int, cell: tuple[int, ...],
               num: int) -> np.ndarray:
  key = _fold(seed, constant, *cell)
  high, low = (int(word) for word in jax.random.key_data(key))
  return np.random.Philox(key=high << 32 | low).random_raw(num)


def digest(*arrays: np.ndarray) -> str:
  """SHA-256 of the numbers in float64 arrays, and of their shapes."""
  sha = hashlib.sha256()
  for array in arrays:
    sha.update(repr(array.shape).encode())
    sha.update(np.ascontiguousarray(array, dtype='<f8'))
  return sha.hexdigest()
