"""The numbers of jax.random, which are the truth here, made in one pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_ensembles.networks import random_draws

KEYS = [jax.random.PRNGKey(0), jax.random.PRNGKey(2 ** 31 + 7),
        jax.random.fold_in(jax.random.PRNGKey(3), 5), jax.random.key(11)]


@pytest.mark.parametrize('key', KEYS, ids=range(len(KEYS)))
def test_numbers_are_those_of_jax_random(key):
  for shape in ((), (1,), (3, 5)):
    found = [draw(key, shape) for draw in (
        random_draws.draw_bits, random_draws.draw_uniform,
        random_draws.draw_normal)]
    np.testing.assert_array_equal(
        found[0], jax.random.bits(key, shape, jnp.uint32))
    np.testing.assert_array_equal(
        found[1], jax.random.uniform(key, shape, jnp.float32))
    np.testing.assert_allclose(
        found[2], jax.random.normal(key, shape, jnp.float32), rtol=2e-6)


def test_compiled_and_mapped_over_keys_the_numbers_are_the_same():
  keys = jax.random.split(jax.random.PRNGKey(1), 4)
  found = jax.jit(jax.vmap(lambda key: random_draws.draw_normal(key, (7,))))(
      keys)
  expected = jax.vmap(lambda key: jax.random.normal(key, (7,), jnp.float32))(
      keys)
  np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_a_key_of_another_generator_gets_its_own_numbers():
  key = jax.random.key(4, impl='rbg')
  np.testing.assert_array_equal(random_draws.draw_bits(key, (6,)),
                                jax.random.bits(key, (6,), jnp.uint32))


def test_keys_of_numbers_are_those_of_jax_random():
  for key in (KEYS[1], KEYS[3]):
    found = random_draws.fold_in_many(key, 3)
    expected = [jax.random.fold_in(key, i) for i in range(3)]
    for a, b in zip(found, expected, strict=True):
      np.testing.assert_array_equal(jax.random.key_data(a),
                                    jax.random.key_data(b))


def test_initial_draws_are_those_of_jax_random():
  for num in (1, 6):
    np.testing.assert_allclose(
        random_draws.draw_truncated_normal(KEYS[0], num, jnp.float32),
        jax.random.truncated_normal(KEYS[0], -2., 2., [num], jnp.float32),
        rtol=2e-6)


def test_halves_put_together_are_the_whole():
  for num in (1, 2, 5):
    found, negative = random_draws.in_halves(
        lambda places: (jnp.stack([places, 2 * places], axis=-1),
                        -places.astype(int)), num)
    np.testing.assert_array_equal(
        found, np.arange(num)[:, None] * np.array([1, 2]))
    np.testing.assert_array_equal(negative, -np.arange(num))
