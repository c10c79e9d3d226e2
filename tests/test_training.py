"""The training loop, against a plain one, and what must not matter to it."""

import dataclasses
import logging
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.agents import ensemble
from enn_ensembles.agents import map as map_agent
from enn_ensembles.training import loop
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers
from enn_ensembles.training import program

RNG = np.random.default_rng(0)
NUM_SEEDS, NOISE_STDS = 3, np.array([0.1, 1.])
X = RNG.standard_normal((NUM_SEEDS, 8, 2))
Y = RNG.standard_normal((NUM_SEEDS, 2, 8, 1))
KEYS = jnp.stack([jax.random.PRNGKey(seed) for seed in (11, 12, 13)])
CONFIG = ensemble.EnsembleConfig(
    num_ensemble=2, hidden_sizes=(4,), num_batches=15, batch_size=5,
    learning_rate=0.01)


class CompileCounter(logging.Handler):
  """Counts the compilations of the training program, and its traces."""

  def __init__(self):
    super().__init__()
    self.num_compiles = 0
    self.num_traces = 0

  def emit(self, record):
    text = record.getMessage()
    self.num_compiles += (text.startswith('Finished XLA compilation')
                          and 'train_seeds' in text)

  def count_traces(self, agent):
    def make_loss(prior):
      self.num_traces += 1
      return agent.make_loss(prior)
    return dataclasses.replace(agent, make_loss=make_loss)

  def __enter__(self):
    logging.getLogger('jax').addHandler(self)
    self.config = jax.log_compiles()
    self.config.__enter__()
    return self

  def __exit__(self, *args):
    self.config.__exit__(*args)
    logging.getLogger('jax').removeHandler(self)


def train(x=X, y=Y, noise_stds=NOISE_STDS, keys=KEYS, **options):
  """Trains the small ensemble in float64; also says how often it compiled."""
  with CompileCounter() as counter:
    agent = counter.count_traces(ensemble.make_agent(CONFIG))
    trained = loop.train(agent, x, y, base.Gaussian(noise_stds), keys,
                         dtype=jnp.float64, **options)
  return trained, counter


@pytest.fixture(name='together', scope='module')
def train_together():
  return train(seeds_per_chunk=NUM_SEEDS)


def check_same(ours, theirs, pick=lambda a: a):
  for a, b in zip(*map(jax.tree.leaves, ((ours.params, ours.state),
                                         (theirs.params, theirs.state)))):
    np.testing.assert_allclose(a, pick(b), rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(ours.final_loss, pick(theirs.final_loss),
                             rtol=1e-9)


def test_training_is_the_plain_loop(together):
  """A Python loop over steps and members, one problem, optax as it comes."""
  trained, _ = together
  s, e = 1, 1
  fold_in = lambda constant: jax.random.fold_in(KEYS[s], constant)
  network = ensemble.make_network(
      CONFIG, base.PriorKnowledge(X[s].shape[1:], 8, base.Gaussian(1.)))
  params, state = network.init(fold_in(program.INIT_KEY), X[s][:1], 0)
  noise = jax.random.normal(fold_in(program.PREPARE_KEY), (8, 2))
  rows_of_steps = jax.random.bits(fold_in(program.MINIBATCH_KEY), (15, 5),
                                  jnp.uint32) % 8
  assert len(np.unique(rows_of_steps)) == 8

  def mlp(layers, x, member):
    w0, w1 = (w[member] for w in layers.values())
    hidden = jnp.maximum(x @ w0[:, :-1].T + w0[:, -1], 0.)
    return hidden @ w1[:, :-1].T + w1[:, -1]

  def loss(params, x, y, noise):
    total = 0.
    for k in range(2):
      f = mlp(params['stacked_mlp'], x, k) + mlp(
          state['prior_params']['stacked_mlp'], x, k)
      total += jnp.mean((f - y - NOISE_STDS[e] * noise[:, k, None]) ** 2)
    return total / 2

  optimizer = optax.adam(0.01)
  opt_state = optimizer.init(params)

  @jax.jit
  def step(params, opt_state, *batch):
    value, gradient = jax.value_and_grad(loss)(params, *batch)
    updates, opt_state = optimizer.update(gradient, opt_state)
    return optax.apply_updates(params, updates), opt_state, value

  values = []
  for rows in np.asarray(rows_of_steps):
    params, opt_state, value = step(params, opt_state, X[s][rows],
                                    Y[s, e][rows], noise[rows])
    values.append(value)
  for ours, plain in zip(jax.tree.leaves(trained.params),
                         jax.tree.leaves(params)):
    np.testing.assert_allclose(ours[s, e], plain, rtol=1e-8, atol=1e-11)
  np.testing.assert_allclose(trained.final_loss[s, e], np.mean(values),
                             rtol=1e-8)
  assert trained.num_params == sum(p.size for p in jax.tree.leaves(params))


def test_seeds_in_chunks_train_to_the_same(together):
  # Two chunks of two: the last is padded.
  chunked, counter = train(seeds_per_chunk=2)
  check_same(chunked, together[0])
  assert counter.num_traces == 1 and counter.num_compiles == 1


def test_a_seed_and_a_noise_level_train_alone_to_the_same(together):
  alone, _ = train(X[2:], Y[2:, 1:], NOISE_STDS[1:], KEYS[2:])
  check_same(alone, together[0], lambda a: a[2:, 1:])


def test_one_seed_per_chunk_and_any_order_of_seeds(together):
  order = np.array([2, 0, 1])
  reordered, counter = train(X[order], Y[order], NOISE_STDS, KEYS[order],
                             seeds_per_chunk=1)
  check_same(reordered, together[0], lambda a: a[order])
  assert counter.num_traces == 1 and counter.num_compiles == 1


def test_all_problems_are_one_compilation(together):
  _, counter = together
  # jax 0.6 compiles a program of its own beside it.
  assert counter.num_traces == 1 and counter.num_compiles <= 2


def test_keys_and_noise_levels_make_a_difference(together):
  trained, _ = together
  for leaf in jax.tree.leaves(trained.params):
    assert leaf.shape[:2] == (3, 2)
    assert not np.any(leaf[0] == leaf[1]) and not np.any(leaf[1] == leaf[2])
    assert not np.array_equal(leaf[:, 0], leaf[:, 1])
  for leaf in jax.tree.leaves(trained.state):  # The prior: shared.
    np.testing.assert_array_equal(leaf[:, 0], leaf[:, 1])
    assert not np.array_equal(leaf[0], leaf[1])


def test_linear_regression_has_its_solution():
  # No hidden layer and noise-free targets: every minibatch agrees.
  agent = map_agent.make_agent(map_agent.MapConfig(
      hidden_sizes=(), num_batches=2000, batch_size=8, learning_rate=0.02))
  solution = np.array([0.7, -1.3, 0.4])  # Two weights and the bias.
  y = X[:1] @ solution[:2, None] + solution[2]
  trained = loop.train(agent, X[:1], y[:, None], base.Gaussian(np.ones(1)),
                       KEYS[:1], dtype=jnp.float64)
  (w,) = jax.tree.leaves(trained.params)
  np.testing.assert_allclose(np.ravel(w), solution, atol=1e-5)
  assert trained.final_loss.shape == (1, 1)
  assert trained.final_loss[0, 0] < 1e-9


def test_the_final_loss_is_of_the_last_hundred_steps():
  """A parameter that moves by one learning rate per step, as Adam does."""
  constant = losses.Loss(
      prepare=lambda *args: (),
      evaluate=lambda network, params, state, *rest: (params, (state, {})))
  network = base.EpistemicNetwork(
      apply=None, init=lambda key, x, z: (jnp.zeros((), x.dtype), ()),
      indexer=networks.EnsembleIndexer(1))
  agent = network_agent.NetworkAgent(
      make_network=lambda prior: network, make_loss=lambda prior: constant,
      optimizer=optax.adam(0.5), num_batches=150, batch_size=1)
  trained = loop.train(agent, X[:1], Y[:1], base.Gaussian(NOISE_STDS),
                       KEYS[:1], dtype=jnp.float64)
  np.testing.assert_allclose(trained.params, [[-75., -75.]], rtol=1e-6)
  expected = np.mean([-0.5 * step for step in range(50, 150)])
  np.testing.assert_allclose(trained.final_loss, [[expected] * 2], rtol=1e-6)


def train_on_a_slope(num_batches, dtype=jnp.float64, **rates):
  """The updates of a parameter whose gradient is 1: Adam's learning rates.

  The state keeps the parameter of every step.
  """
  def evaluate(network, params, state, *rest):
    del network, rest
    return params, (jnp.concatenate([state[1:], params[None]]), {})

  network = base.EpistemicNetwork(
      apply=None, indexer=networks.EnsembleIndexer(1),
      init=lambda key, x, z: (jnp.zeros((), x.dtype),
                              jnp.zeros(num_batches, x.dtype)))
  config = optimizers.TrainingConfig(
      num_batches=num_batches, batch_size=1, **rates)
  agent = network_agent.make_network_agent(
      config, lambda prior: network,
      lambda prior: losses.Loss(lambda *args: (), evaluate))
  trained = loop.train(agent, X[:1], Y[:1, :1],
                       base.Gaussian(NOISE_STDS[:1]),
                       KEYS[:1], dtype=dtype)
  assert trained.params.dtype == dtype
  history = np.append(trained.state[0, 0], trained.params[0, 0])
  return -np.diff(history)


@pytest.mark.parametrize('num_batches, final', [(40, 1e-3), (7, 0.), (1, 0.1)])
def test_a_final_learning_rate_is_the_end_of_half_a_cosine(num_batches, final):
  rates = train_on_a_slope(num_batches, learning_rate=0.5,
                           final_learning_rate=final)
  expected = [final + 0.5 * (0.5 - final) * (1. + math.cos(
      math.pi * step / num_batches)) for step in range(num_batches)]
  np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-12)
  np.testing.assert_allclose(rates[0], 0.5, rtol=1e-6)
  if num_batches == 40:
    np.testing.assert_allclose(rates[20], 0.5 * (0.5 + final), rtol=1e-6)
    assert final < rates[-1] < 0.004
  single = train_on_a_slope(num_batches, jnp.float32, learning_rate=0.5,
                            final_learning_rate=final)
  np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-5)


def test_without_a_final_learning_rate_it_stays():
  rates = train_on_a_slope(10, learning_rate=0.5)
  np.testing.assert_allclose(rates, 0.5, rtol=1e-6)
  np.testing.assert_allclose(
      train_on_a_slope(10, learning_rate=0.5, final_learning_rate=0.5), rates,
      rtol=1e-12)


def test_nan_in_the_data_spoils_its_own_problem_only():
  agent = map_agent.make_agent(map_agent.MapConfig(
      hidden_sizes=(), num_batches=20, batch_size=8))
  y = Y[:2].copy()
  y[0, 1, 3] = np.nan
  trained = loop.train(agent, X[:2], y, base.Gaussian(NOISE_STDS), KEYS[:2])
  (w,) = jax.tree.leaves(trained.params)
  assert w.dtype == jnp.float32
  finite = np.isfinite(w).all(axis=tuple(range(2, w.ndim)))
  np.testing.assert_array_equal(finite, [[True, False], [True, True]])
  np.testing.assert_array_equal(np.isfinite(trained.final_loss), finite)


@pytest.mark.parametrize('options, message', [
    ({'seeds_per_chunk': 0}, 'seeds_per_chunk must be >= 1, got 0'),
    ({'seeds_per_chunk': -2}, 'seeds_per_chunk must be >= 1, got -2'),
    ({'memory_budget_mb': 0.}, 'memory_budget_mb must be > 0, got 0'),
    ({'memory_budget_mb': float('nan')}, 'memory_budget_mb must be > 0')])
def test_bad_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    train(**options)


def test_the_memory_budget_sets_the_chunk():
  agent, device = ensemble.make_agent(CONFIG), jax.devices()[0]

  def trace(data_shape, dtype):
    shape = lambda *s: jax.ShapeDtypeStruct(s, dtype)
    return program.trace_problem(agent, program.Inputs(
        shape(*data_shape), shape(data_shape[0], 1), base.Gaussian(shape()),
        jax.eval_shape(lambda: KEYS[0])))

  def seed_bytes(data_shape, num_levels, dtype):
    return num_levels * program.traced_bytes(trace(data_shape, dtype))

  one = seed_bytes((8, 2), 2, jnp.float32) / 1e6
  choose = lambda budget: loop.choose_seeds_per_chunk(
      trace((8, 2), jnp.float32), 2, budget, device)
  assert [choose(b * one) for b in (0.5, 1.01, 2.5, 10.01)] == [1, 1, 2, 10]
  if device.platform == 'cpu':
    assert choose(None) == 1
  # It grows with the data and the dtype, and holds at least the data.
  larger = seed_bytes((800, 200), 2, jnp.float32) / 1e6
  assert larger > max(one, 800 * 200 * 4 / 1e6)
  assert seed_bytes((8, 2), 2, jnp.float64) / 1e6 > one


def test_train_asks_for_the_chunk_that_fits(monkeypatch):
  class Asked(Exception):
    pass

  def choose(traced, num_levels, budget, device):
    losses = traced.progress.losses
    raise Asked(losses.shape, num_levels, losses.dtype, budget)

  monkeypatch.setattr(loop, 'choose_seeds_per_chunk', choose)
  with pytest.raises(Asked) as info:
    train(memory_budget_mb=7.)
  assert info.value.args == ((CONFIG.num_batches,), 2, jnp.float64, 7.)


EIGHT_DEVICES = '''
import jax
jax.config.update('jax_enable_x64', True)
import numpy as np
import test_training as t
from enn_ensembles import base
from enn_ensembles.training import loop as training
from enn_ensembles.agents import map as map_agent
assert len(jax.devices()) == 8
rng = np.random.default_rng(0)
x = rng.standard_normal((10, 8, 2))
y = rng.standard_normal((10, 2, 8, 1))
keys = jax.vmap(jax.random.PRNGKey)(np.arange(10))
agent = map_agent.make_agent(map_agent.MapConfig(
    hidden_sizes=(3,), num_batches=15, batch_size=5))
def train(num_seeds, num_devices, **options):
  trained = training.train(
      agent, x[:num_seeds], y[:num_seeds], base.Gaussian(t.NOISE_STDS),
      keys[:num_seeds], dtype=np.float64, devices=jax.devices()[:num_devices],
      **options)
  return trained
one = train(10, 1, seeds_per_chunk=10)
# Padded to 16; in two chunks of 8; fewer seeds than devices.
for num_seeds, options in ((10, {}), (10, {'seeds_per_chunk': 2}), (3, {})):
  eight = train(num_seeds, 8, **options)
  t.check_same(eight, one, lambda a: a[:num_seeds])
assert training.default_devices() == jax.devices()
print('same')
'''


@pytest.mark.slow
def test_eight_devices_train_to_the_same():
  tests = pathlib.Path(__file__).parent
  paths = [str(tests), str(tests.parent), os.environ.get('PYTHONPATH', '')]
  result = subprocess.run(
      [sys.executable, '-c', EIGHT_DEVICES], capture_output=True, text=True,
      check=False, env={
          **os.environ, 'JAX_PLATFORMS': 'cpu',
          'XLA_FLAGS': os.environ['XLA_FLAGS']
                       + ' --xla_force_host_platform_device_count=8',
          'PYTHONPATH': os.pathsep.join(filter(None, paths))})
  assert result.stdout == 'same\n', result.stderr
