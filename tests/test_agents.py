"""Every agent keeps to the contract, and so do many seeds of it at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_agents import DATA
from tiny_agents import DATA_X
from tiny_agents import DATA_Y
from tiny_agents import KEY
from tiny_agents import KEYS
from tiny_agents import make_agent
from tiny_agents import NAMES
from tiny_agents import NETWORKS
from tiny_agents import NOISE_STDS
from tiny_agents import predict
from tiny_agents import PRIOR
from tiny_agents import X

from enn_ensembles import base
from enn_ensembles.training import loop
from enn_ensembles.training import program


@functools.lru_cache(None)
def make_network(name, **settings):
  """The agent's network, float64 parameters, and five of its indices."""
  network = make_agent(name, **settings).make_network(
      base.PriorKnowledge((2,), 8, base.Gaussian(0.1)))

  @jax.jit
  def start():
    params, state = network.init(KEY, X[:1], network.indexer(KEY))
    return params, state, jax.vmap(network.indexer)(jax.random.split(KEY, 5))

  return network, *jax.tree.map(np.asarray, start())


@functools.lru_cache(None)
def make_sampler(name):
  """The plain path: one problem in, a sampler out."""
  return make_agent(name)(DATA, PRIOR, KEYS[1])


def test_all_agents_are_found():
  assert NAMES == ['batch_ensemble', 'bbb', 'deep_sub_ensemble', 'ensemble',
                   'exact_posterior', 'hypermodel', 'layer_ensemble', 'map',
                   'mc_dropout', 'mean_variance_ensemble', 'mixture_of_experts',
                   'prior_only', 'random_features', 'vnn']


@pytest.mark.parametrize('name', NAMES)
def test_samples_are_functions_of_their_key(name):
  sampler = make_sampler(name)
  x = np.asarray(X)
  draws = [np.asarray(sampler(x, key)) for key in jax.random.split(KEY, 6)]
  for draw in draws:
    assert draw.shape == (5, 1) and np.all(np.isfinite(draw))
  again = np.asarray(sampler(x, jax.random.split(KEY, 6)[3]))
  np.testing.assert_array_equal(again, draws[3])
  num_different = len({draw.tobytes() for draw in draws})
  has_one = name in ('map', 'mixture_of_experts')
  assert num_different == 1 if has_one else num_different > 1
  np.testing.assert_allclose(sampler(x[:3], KEY), sampler(x, KEY)[:3],
                             rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', NETWORKS)
def test_the_batched_path_trains_what_the_plain_path_trains(name):
  agent = make_agent(name)
  trained = loop.train(agent, DATA_X, DATA_Y, base.Gaussian(NOISE_STDS),
                       KEYS)
  network = agent.make_network(PRIOR)
  params, state = jax.tree.map(lambda a: a[1, 1],
                               (trained.params, trained.state))
  sampler, x = make_sampler(name), X.astype(jnp.float32)
  predict = jax.jit(lambda key: base.get_predictions(
      network.apply(params, state, x, network.indexer(key))[0]))
  for key in jax.random.split(KEY, 4):
    np.testing.assert_allclose(sampler(X, key), predict(key), rtol=1e-4,
                               atol=1e-4)
  assert trained.num_params == sum(p.size for p in jax.tree.leaves(params))
  for leaf in jax.tree.leaves((trained.params, trained.state)):
    assert leaf.dtype == jnp.float32 and np.all(np.isfinite(leaf))
  # Training changed something, and the seeds differ.
  initial, _ = jax.jit(lambda: network.init(
      jax.random.fold_in(KEYS[1], program.INIT_KEY), x[:1],
      network.indexer(KEY)))()
  changed = [np.any(np.asarray(a) != b) for a, b in zip(
      jax.tree.leaves(params), jax.tree.leaves(initial))]
  assert all(changed)
  assert all(not np.array_equal(p[0, 0], p[1, 0])
             for p in jax.tree.leaves(trained.params))


def walk_equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(list(equation.params.values()),
                                 is_leaf=lambda v: hasattr(v, 'eqns')):
      if hasattr(value, 'eqns'):
        yield from walk_equations(value)


@pytest.mark.parametrize('name', NETWORKS)
def test_steps_in_float32_compute_no_array_in_float64(name):
  shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  traced = program.trace_problem(make_agent(name), program.Inputs(
      shape((8, 2)), shape((8, 1)), base.Gaussian(shape(())),
      jax.eval_shape(lambda: KEY)))
  progress = traced.progress
  assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(
      (progress.params, progress.state, progress.losses, traced.constants)))
  double = [v.aval for equation in walk_equations(traced.step)
            for v in equation.outvars
            if getattr(v.aval, 'dtype', None) == jnp.float64 and v.aval.shape]
  assert not double


@pytest.mark.parametrize('name', NETWORKS)
def test_one_index_is_a_row_of_many(name):
  network, params, state, indices = make_network(name)
  many, _ = base.apply_indices(network, params, state, X, indices)
  compiled, _ = jax.jit(functools.partial(base.apply_indices, network))(
      params, state, X, indices)
  many, compiled = (np.asarray(base.get_predictions(out))
                    for out in (many, compiled))
  assert many.shape == (5, 5, 1)
  np.testing.assert_allclose(compiled, many, rtol=1e-10, atol=1e-12)
  apply = jax.jit(network.apply)
  for j in range(5):
    z = jax.tree.map(lambda a, j=j: a[j], indices)
    one, _ = apply(params, state, X, z)
    np.testing.assert_allclose(base.get_predictions(one), many[j], rtol=1e-9,
                               atol=1e-11)


@pytest.mark.parametrize('name', NETWORKS)
def test_all_indices_come_in_the_order_of_the_support(name):
  network, params, state, _ = make_network(name)
  support = base.get_support(network.indexer)
  if name in ('bbb', 'hypermodel', 'mc_dropout', 'vnn'):
    assert support is None
    return
  np.testing.assert_allclose(
      *(predict(network, params, state, indices)
        for indices in (None, support)), rtol=1e-10, atol=1e-12)
