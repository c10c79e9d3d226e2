"""Keys and draws of problems: no key has two uses."""

import itertools

import jax
import numpy as np
import pytest

from enn_ensembles.problems import draws

USES = {name: use for name, use in vars(draws).items()
        if isinstance(use, draws.Use)}


def test_no_key_is_used_twice():
  assert len(USES) >= 16
  assert all(name.endswith('_KEY') for name in USES)
  for (name, use), (other, used) in itertools.combinations(USES.items(), 2):
    assert use != used, f'{name} and {other} are one use'
  # Equal constants with other numbers of counts are other keys.
  keys = {
      tuple(np.asarray(jax.random.key_data(
          draws._fold(3, use, *range(1, use.num_counts + 1)))))
      for use in USES.values()}
  assert len(keys) == len(USES)


def test_a_use_has_its_number_of_counts():
  with pytest.raises(AssertionError):
    draws.draw_normals(0, draws.NOISE_KEY, (10,), (3,))
  with pytest.raises(AssertionError):
    draws.draw_permutation(0, draws.NOISE_KEY, 10)


def test_two_uses_of_one_number_are_independent():
  images = draws.draw_permutation(5, draws.TEST_SET_KEY, 64)
  points = draws.draw_uniforms(5, draws.X_DYADIC_KEY, (64, 64), (64,))
  assert sorted(images) == list(range(64))
  assert (images != np.argsort(points, kind='stable')).sum() > 50
