"""Each combination of a layer ensemble computes what it computes by itself."""

import itertools

from haiku_mlps import check_equal
from haiku_mlps import haiku_mlp
from haiku_mlps import make_stack
from haiku_mlps import random_mlp
from haiku_mlps import RNG
from haiku_mlps import to_stack
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_agents import KEY
from tiny_agents import X

from enn_ensembles.agents import layer_ensemble

OPTIONS = (2, 3, 2)


@pytest.fixture(name='stack', scope='module')
def make_random_stack():
  """A stack with unequal options, and each combination's output by itself."""
  layers = [w[:options] for w, options in zip(random_mlp(3), OPTIONS)]
  outputs = {z: np.asarray(haiku_mlp(
      [w[k:k + 1] for w, k in zip(layers, z)]))
             for z in itertools.product(*map(range, OPTIONS))}
  return make_stack(OPTIONS), to_stack(layers), outputs


def test_all_combinations_are_each_by_itself(stack):
  network, params, outputs = stack
  np.testing.assert_array_equal(network.indexer.support(), list(outputs))
  check_equal(network, params, {}, None, list(outputs.values()))


@pytest.mark.parametrize('combinations', [
    [(1, 2, 0)], [(0, 0, 0), (0, 0, 1)], [(1, 0, 0), (0, 0, 0), (1, 0, 0)],
    [(0, 2, 1), (0, 1, 1), (1, 1, 0), (0, 2, 0), (1, 1, 0)],
    list(itertools.product(*map(range, OPTIONS)))[::-1]])
def test_chosen_combinations_come_in_their_order(stack, combinations):
  network, params, outputs = stack
  expected = [outputs[z] for z in combinations]
  check_equal(network, params, {}, np.array(combinations), expected)
  check_equal(network, params, {}, jnp.array(combinations, jnp.int32), expected)


def test_random_subsets_are_each_by_itself(stack):
  network, params, outputs = stack
  rng = np.random.default_rng(0)
  for num in (3, 6, 11):
    indices = rng.integers(0, OPTIONS, (num, 3))
    check_equal(network, params, {}, indices,
                [outputs[tuple(z)] for z in indices.tolist()])


def test_gradients_through_shared_prefixes(stack):
  network, params, _ = stack
  indices = np.array([(0, 2, 1), (0, 1, 1), (1, 1, 0), (0, 2, 1)])
  weights = jnp.asarray(RNG.standard_normal((4, 5, 1)))

  def shared(params):
    return jnp.sum(weights * network.apply_indices(params, {}, X, indices)[0])

  def one_by_one(params):
    return sum(jnp.sum(w * network.apply(params, {}, X, z)[0])
               for w, z in zip(weights, indices))

  for a, b in zip(*map(jax.tree.leaves, (
      jax.jit(jax.grad(shared))(params),
      jax.jit(jax.grad(one_by_one))(params)))):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('indices, message', [
    ([[0, 0]], r'must be \[J, 3\]'), ([0, 0, 0], r'must be \[J, 3\]'),
    (np.zeros((0, 3), int), 'at least one'),
    ([[0, 0, 0], [0, 3, 0]], 'asks for option 3 of layer 1'),
    ([[-1, 0, 0]], 'asks for option -1 of layer 0')])
def test_indices_that_do_not_exist_are_refused(stack, indices, message):
  network, params, _ = stack
  with pytest.raises(ValueError, match=message):
    network.apply_indices(params, {}, X, np.array(indices))


def test_layer_ensemble_draws_every_option_of_every_layer():
  draws = jax.vmap(layer_ensemble.LayerEnsembleIndexer(OPTIONS))(
      jax.random.split(KEY, 3000))
  counts = np.zeros(OPTIONS)
  np.add.at(counts, tuple(np.asarray(draws).T), 1)
  assert np.max(np.abs(counts - 250.)) < 5 * np.sqrt(250.)
