"""A hypermodel is linear in its index, and its prior reads a part per layer."""

import dataclasses

from haiku_mlps import check_equal
from haiku_mlps import haiku_mlp
from haiku_mlps import HIDDEN
from haiku_mlps import name_layers
from haiku_mlps import random_mlp
from haiku_mlps import RNG
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tiny_agents import KEY
from tiny_agents import predict
from tiny_agents import X

from enn_ensembles import networks
from enn_ensembles.agents import hypermodel


def test_hypermodel_without_columns_is_an_mlp():
  layers = random_mlp()
  config = hypermodel.HypermodelConfig(index_dim=3, hidden_sizes=HIDDEN,
                                       prior_scale=0.)
  network = hypermodel.make_network(config)
  # [d + 1, out, in + 1]: A = 0, and c last.
  params = name_layers('hyper_mlp', [
      np.concatenate([np.zeros((3, *w.shape[1:])), w]) for w in layers])
  indices = jax.vmap(network.indexer)(jax.random.split(KEY, 4))
  check_equal(network, params, {}, indices, [haiku_mlp(layers)] * 4)
  # init_scale = 0 starts there: all indices alike.
  network = hypermodel.make_network(dataclasses.replace(config, init_scale=0.))
  params, state = jax.jit(lambda: network.init(KEY, X[:1], indices[0]))()
  out = predict(network, params, state, indices)
  np.testing.assert_array_equal(out, np.broadcast_to(out[:1], out.shape))


@pytest.mark.parametrize('num_points', [2, 40])
def test_hypermodel_is_linear_in_its_index(num_points):
  # Few and many points: both ways of forwarding the first layer.
  x = jnp.asarray(RNG.standard_normal((num_points, 2)))
  network = hypermodel.make_network(hypermodel.HypermodelConfig(
      index_dim=3, hidden_sizes=HIDDEN, prior_scale=0.))
  columns = [random_mlp() for _ in range(4)]  # Three of A, then c.
  params = name_layers('hyper_mlp', [np.concatenate(w)
                                     for w in zip(*columns)])
  indices = np.asarray(jax.vmap(network.indexer)(jax.random.split(KEY, 5)),
                       np.float64)
  out = predict(network, params, {}, indices, x)
  for z, row in zip(indices, out):
    layers = [sum(z[k] * columns[k][i] for k in range(3)) + columns[3][i]
              for i in range(3)]
    np.testing.assert_allclose(row, haiku_mlp(layers, x=x), rtol=1e-9,
                               atol=1e-10)


@pytest.mark.parametrize('name', ['mlp', 'two_layers'])
@pytest.mark.parametrize('activation, slow', [
    ('tanh', np.tanh), ('relu', lambda h: np.maximum(h, 0.))])
@pytest.mark.parametrize('num_points', [2, 40])
def test_hypermodel_has_the_activations_of_its_body(name, activation, slow,
                                                    num_points):
  # Few and many points: both ways of forwarding the first layer.
  x = jnp.asarray(RNG.standard_normal((num_points, 2)))
  body = networks.Body(name, (networks.Dense(3, activation),
                              networks.Dense(1, 'none')))
  network = hypermodel.make_network(hypermodel.HypermodelConfig(
      index_dim=3, body=body, prior_scale=0.))
  columns = [RNG.standard_normal(shape) for shape in ((4, 3, 3), (4, 1, 4))]
  params = name_layers(f'hyper_{name}', columns)
  z = np.asarray(network.indexer(KEY), np.float64)
  first, last = (np.tensordot([*z, 1.], w, 1) for w in columns)
  hidden = slow(x @ first[:, :-1].T + first[:, -1])
  np.testing.assert_allclose(
      predict(network, params, {}, z[None], x)[0],
      hidden @ last[:, :-1].T + last[:, -1], rtol=1e-9, atol=1e-10)


def test_hypermodel_prior_reads_a_part_of_the_index_per_layer():
  config = hypermodel.HypermodelConfig(index_dim=7, hidden_sizes=HIDDEN,
                                       prior_scale=2.)
  network = hypermodel.make_network(config)
  z = np.asarray(network.indexer(KEY), np.float64)
  params, state = jax.jit(lambda: network.init(KEY, X[:1], z))()
  layers, parts = [], (z[:3], z[3:5], z[5:])
  for w, part in zip(state['prior_params']['independent_layers_prior']
                     .values(), parts):
    assert len(w) == len(part)
    layer = np.zeros((1, *w.shape[1:]))
    for out, column in np.ndindex(w.shape[1:]):
      row = np.asarray(w[:, out, column])
      row = row / np.sqrt(np.sum(row ** 2))
      if column < w.shape[2] - 1:
        row = row / np.sqrt(w.shape[2] - 1)
      layer[0, out, column] = row @ part
    layers.append(layer)
  out, _ = jax.jit(network.apply)(params, state, X, z)
  np.testing.assert_allclose(out.prior, 2. * haiku_mlp(layers), rtol=1e-6,
                             atol=1e-7)
  assert [list(p) for p in hypermodel.index_parts(2, 3)] == [[0, 1]] * 3


def test_training_may_start_at_a_network():
  """c is then drawn as an MLP's weights are, and A at their scale."""
  config = hypermodel.HypermodelConfig(
      index_dim=4, init_scale=0.5, prior_scale=0., hidden_sizes=(300, 200),
      start_at_network=True)
  x = jnp.zeros((1, 400))
  drawn = stats.truncnorm(-2., 2.).std()  # As Haiku draws.

  def start(config):
    network = hypermodel.make_network(config)
    params, _ = network.init(KEY, x, network.indexer(KEY))
    return [np.asarray(w) for w in jax.tree.leaves(params)]

  def stds(layer):  # Of A and of c, without biases.
    return np.std(layer[:-1, :, :-1]), np.std(layer[-1, :, :-1])

  for layer, published in zip(
      start(config),
      start(dataclasses.replace(config, start_at_network=False)), strict=True):
    of_network = drawn * (layer.shape[2] - 1) ** -0.5
    # The std of n draws has a relative error of about 1 / sqrt(2 n).
    tolerance = 4 / np.sqrt(2 * layer[-1, :, :-1].size)
    np.testing.assert_allclose(
        stds(layer), [0.5 / 2 * of_network, of_network], rtol=tolerance)
    np.testing.assert_allclose(stds(published), [drawn * 0.5 / 2, 0.],
                               rtol=tolerance)
