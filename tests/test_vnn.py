"""The VNN, against a forward pass unit by unit, and its loss."""

import dataclasses
import itertools

from compiled import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.agents import vnn
from enn_ensembles.training import index_bootstrap
from enn_ensembles.training import loop
from enn_ensembles.training import losses

RNG = np.random.default_rng(0)
KEY = jax.random.PRNGKey(0)
X = RNG.standard_normal((5, 2))
SMALL = vnn.VnnConfig(hidden_sizes=(4, 3), num_index_samples=6)
SLOW_ACTIVATIONS = {'relu': lambda a: a if a > 0. else 0.,
                    'leaky_relu': lambda a: a if a > 0. else 0.01 * a,
                    'tanh': np.tanh}


def make_network(num_points=5, num_indices=4, input_dim=2, **settings):
  """A config, its network, random float64 parameters, x and indices."""
  config = dataclasses.replace(SMALL, **settings)
  network = compiled(vnn.make_network(config))
  x = RNG.standard_normal((num_points, input_dim))
  params, _ = jax.eval_shape(network.init, KEY, x, jax.eval_shape(
      network.indexer, KEY))
  params = jax.tree.map(lambda p: RNG.standard_normal(p.shape), params)
  indices = RNG.standard_normal((num_indices, sum(config.hidden_sizes) + 1))
  return config, network, params, x, indices


def slow_forward(config, params, x, indices):
  """[J, B]: one unit after another, in plain Python."""
  activation = SLOW_ACTIVATIONS[config.activation]
  targets = config.activation_mode.split('+')
  layers = [np.asarray(w) for w in params['variational_layers'].values()]
  out = np.zeros((len(indices), len(x)))
  for j, b in np.ndindex(out.shape):
    h, unit = [float(a) for a in x[b]], 0
    for layer, w in enumerate(layers):
      hidden, new = layer < len(layers) - 1, []
      for k in range(w.shape[1]):
        mean = sum(v * a for v, a in zip(w[0, k], h)) + w[0, k, -1]
        if hidden and 'mean' in targets:
          mean = activation(mean)
        if config.global_std_mode == 'replace':
          std = config.global_std
        else:
          std = sum(v * a for v, a in zip(w[1, k], h)) + w[1, k, -1]
          if hidden and 'std' in targets:
            std = activation(std)
          if config.global_std_mode == 'multiply':
            std = std * config.global_std
        value = mean + std * float(indices[j, unit])
        if hidden and 'end' in targets:
          value = activation(value)
        new.append(value)
        unit += 1
      h = new
    (out[j, b],) = h
  return out


def modes_and_activations():
  """Every mode of one kind with every activation, but not all triples.

  An activation is a function that both kinds of modes call.
  """
  assert len(vnn.ACTIVATIONS) == len(vnn.GLOBAL_STD_MODES)
  for i, mode in enumerate(vnn.ACTIVATION_MODES):
    for j, global_std_mode in enumerate(vnn.GLOBAL_STD_MODES):
      yield mode, global_std_mode, vnn.ACTIVATIONS[
          (i + j) % len(vnn.ACTIVATIONS)]


@pytest.mark.parametrize('mode, global_std_mode, activation',
                         modes_and_activations())
def test_the_network_is_the_forward_unit_by_unit(mode, global_std_mode,
                                                 activation):
  config, network, params, x, indices = make_network(
      activation=activation, activation_mode=mode,
      global_std_mode=global_std_mode, global_std=1.7)
  expected = slow_forward(config, params, x, indices)[..., None]

  @jax.jit
  def run(params, x, indices):
    plain, _ = network.apply_indices(params, {}, x, indices)
    shared = base.get_shared(network, params, {}, x)
    assert (shared is None) == (mode == 'none')
    shared, _ = base.apply_indices(network, params, {}, x, indices, shared)
    one_by_one = jax.lax.map(lambda z: network.apply(params, {}, x, z)[0],
                             indices)
    return plain, shared, one_by_one

  for found in run(params, x, indices):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize('hidden_sizes', [(), (4,)])
@pytest.mark.parametrize('mode', ['none', 'mean+std+end'])
@pytest.mark.parametrize('global_std_mode', vnn.GLOBAL_STD_MODES)
def test_few_layers(hidden_sizes, mode, global_std_mode):
  config, network, params, x, indices = make_network(
      hidden_sizes=hidden_sizes, global_std_mode=global_std_mode,
      activation_mode=mode)
  out, _ = network.apply_indices(params, {}, x, indices)
  np.testing.assert_allclose(
      out[..., 0], slow_forward(config, params, x, indices), rtol=1e-10,
      atol=1e-11)


def test_modes_differ():
  """The reference would not notice a mode that both leave out."""
  outputs, z = [], RNG.standard_normal((4, 8))
  for mode, global_std_mode in itertools.product(vnn.ACTIVATION_MODES,
                                                 ('none', 'multiply')):
    _, network, _, _, _ = make_network(activation_mode=mode,
                                       global_std_mode=global_std_mode)
    layers = np.random.default_rng(1)
    params = {'variational_layers': {
        f'w_{i}': layers.standard_normal(shape) for i, shape in enumerate(
            [(2, 4, 3), (2, 3, 5), (2, 1, 4)])}}
    out, _ = network.apply_indices(params, {}, X, z)
    outputs.append(np.ravel(out).round(9).tobytes())
  assert len(set(outputs)) == len(outputs) == 16


def test_without_activation_samples_are_affine_in_x():
  for mode, affine in (('none', True), ('end', False)):
    _, network, params, x, indices = make_network(activation_mode=mode)

    def f(x, network=network, params=params, indices=indices):
      return network.apply_indices(params, {}, x, indices)[0]

    mixed = 0.3 * x + 0.7 * x[::-1]
    same = np.allclose(f(mixed), 0.3 * f(x) + 0.7 * f(x[::-1]), rtol=1e-10)
    assert same == affine


@pytest.mark.parametrize('global_std_mode', vnn.GLOBAL_STD_MODES)
def test_parameters_and_where_they_start(global_std_mode):
  config = vnn.VnnConfig(global_std_mode=global_std_mode)
  network = compiled(vnn.make_network(config))
  z = network.indexer(KEY)
  assert z.shape == (301,)
  params, state = network.init(KEY, jnp.zeros((1, 10)), z)
  maps = 1 if global_std_mode == 'replace' else 2
  assert sum(p.size for p in jax.tree.leaves(params)) == maps * (
      100 * 11 + 100 * 101 + 100 * 101 + 101)
  assert not jax.tree.leaves(state)
  layers = list(params['variational_layers'].values())
  assert [w.shape for w in layers] == [
      (maps, 100, 11), (maps, 100, 101), (maps, 100, 101), (maps, 1, 101)]
  truncated_std = scipy.stats.truncnorm(-2., 2.).std()
  for w in layers:
    assert w.dtype == jnp.float64
    np.testing.assert_array_equal(w[..., -1], 0.)
  for w, size in zip(layers[:3], (10, 100, 100)):
    for part in w:
      scaled = np.std(part[:, :-1]) * size ** 0.5 / truncated_std
      assert abs(scaled - 1.) < 4. / (2. * part.size) ** 0.5 + 0.01


def test_indices_are_standard_normal():
  z = jax.vmap(vnn.make_network(SMALL).indexer)(jax.random.split(KEY, 2000))
  assert z.shape == (2000, 8)
  assert scipy.stats.kstest(np.ravel(z), 'norm').pvalue > 1e-3


# Losses. -------------------------------------------------------------------

BATCH = base.Batch(jnp.asarray(X), jnp.asarray(RNG.standard_normal((5, 1))),
                   jnp.array([3, 0, 3, 7, 11], jnp.int32))


def test_bootstrap_weights_are_exponential_and_linked_by_the_index():
  # Unit vectors at a known angle: correlation cos^2 of the weights.
  cos = 0.8
  embedding = np.zeros((3, 6))
  embedding[0, 1], embedding[1, 1:3] = 1., (cos, 0.6)
  embedding[2, 4] = 1.5
  num = 20000
  weights = np.asarray(jax.jit(index_bootstrap.bootstrap_weights)(
      KEY, np.arange(num), embedding))
  assert weights.shape == (3, num)
  for w, mean in zip(weights, (1., 1., 2.25)):
    assert scipy.stats.kstest(w / mean, 'expon').pvalue > 1e-3
  correlation = np.corrcoef(weights)
  assert abs(correlation[0, 1] - cos ** 2) < 0.03
  assert abs(correlation[0, 2]) < 0.03
  # Neighbouring data points are independent.
  assert abs(np.corrcoef(weights[0, :-1], weights[0, 1:])[0, 1]) < 0.03


def test_bootstrap_weights_belong_to_the_data_point():
  embedding = RNG.standard_normal((4, 6))
  bootstrap_weights = jax.jit(index_bootstrap.bootstrap_weights)
  draw = lambda key, rows: np.asarray(bootstrap_weights(
      key, np.array(rows, np.int32), embedding))
  weights = draw(KEY, [3, 0, 3])
  np.testing.assert_allclose(weights[:, 0], weights[:, 2], rtol=1e-12)
  np.testing.assert_allclose(weights[:, [1, 0]], draw(KEY, [0, 3]), rtol=1e-12)
  other = draw(jax.random.PRNGKey(1), [3, 0, 3])
  assert not np.any(np.isclose(weights, other, rtol=1e-6))


@pytest.mark.parametrize('num_index_samples', [7, 22])
def test_the_bootstrap_loss_is_the_weighted_mean(num_index_samples):
  """One block of indices, and two."""
  config, network, params, _, _ = make_network(activation_mode='mean+std')
  loss = index_bootstrap.make_bootstrap_loss(num_index_samples)
  step_key = jax.random.PRNGKey(5)

  @jax.jit
  def evaluate(params):
    context = loss.prepare(network, params, {}, base.Data(X, X[:, :1]), KEY)
    return loss.evaluate(network, params, {}, context, BATCH, step_key)

  value, (state, _) = evaluate(params)
  indices = np.asarray(losses.sample_indices(network, step_key,
                                             num_index_samples), np.float64)
  f = slow_forward(config, params, X, indices)
  total = 0.
  for b, row in enumerate(BATCH.data_index):
    draws = np.asarray(jax.random.normal(
        jax.random.fold_in(KEY, row), (2, 8), jnp.float64))
    for j, z in enumerate(indices):
      weight = ((draws[0] @ z) ** 2 + (draws[1] @ z) ** 2) / (2 * 8)
      total += weight * (f[j, b] - BATCH.y[b, 0]) ** 2
  np.testing.assert_allclose(value, total / f.size, rtol=1e-6)
  assert state == {}


@pytest.mark.parametrize('global_std_mode, loss_function', [
    ('multiply', 'bootstrap'), ('replace', 'bootstrap'),
    ('none', 'target_noise')])
def test_gradients_are_those_of_finite_differences(global_std_mode,
                                                   loss_function):
  config, network, params, _, _ = make_network(
      activation='tanh', activation_mode='mean+std+end',
      global_std_mode=global_std_mode, loss_function=loss_function,
      num_index_samples=22)  # Two blocks.
  agent = vnn.make_agent(config)
  loss = agent.make_loss(base.PriorKnowledge((2,), 12, base.Gaussian(0.3)))
  data = base.Data(jnp.zeros((12, 2)), jnp.zeros((12, 1)))
  context = loss.prepare(network, params, {}, data, KEY)
  value = jax.jit(jax.value_and_grad(lambda p: loss.evaluate(
      network, p, {}, context, BATCH, KEY)[0]))
  _, gradient = value(params)
  for leaf in jax.tree.leaves(gradient):
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)
  direction = jax.tree.map(lambda p: RNG.standard_normal(p.shape), params)
  move = lambda step: jax.tree.map(lambda p, d: p + step * d, params, direction)
  slope = (value(move(1e-5))[0] - value(move(-1e-5))[0]) / 2e-5
  inner = sum(np.sum(g * d) for g, d in zip(
      jax.tree.leaves(gradient), jax.tree.leaves(direction)))
  np.testing.assert_allclose(inner, slope, rtol=1e-6)


@pytest.mark.parametrize('body', [
    'mlp_dropout', networks.Body('mine', (
        networks.Dense(4, 'tanh'), networks.Dense(3), networks.Dense(1)))])
@pytest.mark.parametrize('activation_mode', ['none', 'end'])
def test_every_mlp_of_these_sizes_is_trained_by_the_same_program(
    body, activation_mode):
  def program(body):  # Draws have the config's activation, and no dropout.
    agent = vnn.make_agent(dataclasses.replace(
        SMALL, body=body, activation_mode=activation_mode,
        num_index_samples=22))  # Blocks of 11, or one of 22.
    prior = base.PriorKnowledge((2,), 12, base.Gaussian(0.3))
    network, loss = agent.make_network(prior), agent.make_loss(prior)
    params, _ = jax.eval_shape(
        lambda: network.init(KEY, X[:1], network.indexer(KEY)))
    return str(jax.make_jaxpr(jax.grad(lambda params: loss.evaluate(
        network, params, {}, KEY, BATCH, KEY)[0]))(params))

  assert program(body) == program('mlp')


@pytest.mark.parametrize('noise_scale', [0., 2.])
def test_target_noise_is_as_large_as_asked(noise_scale):
  config, network, params, _, _ = make_network(
      loss_function='target_noise', noise_scale=noise_scale,
      num_index_samples=100)
  loss = vnn.make_agent(config).make_loss(
      base.PriorKnowledge((2,), 400, base.Gaussian(0.3)))
  params = jax.tree.map(np.zeros_like, params)  # f = 0.
  y = jnp.full((400, 1), 0.5)
  x = jnp.zeros((400, 2))

  @jax.jit
  def evaluate(params):
    context = loss.prepare(network, params, {}, base.Data(x, y), KEY)
    return loss.evaluate(network, params, {}, context,
                         base.Batch(x, y, jnp.arange(400)), KEY)

  value, _ = evaluate(params)
  np.testing.assert_allclose(value, 0.25 + (noise_scale * 0.3) ** 2, rtol=0.1)


def count_flops(input_dim, num_indices, mode='end'):
  """XLA's operations of a loss and its gradient, all indices in one block."""
  config = vnn.VnnConfig(num_index_samples=num_indices, activation_mode=mode)
  network = vnn.make_network(config)
  loss = index_bootstrap.make_bootstrap_loss(num_indices)
  shape = jax.ShapeDtypeStruct
  x = shape((100, input_dim), jnp.float32)
  params, _ = jax.eval_shape(
      lambda key, x: network.init(key, x, network.indexer(key)), KEY, x)

  def value(params, x, y, rows, key):
    return loss.evaluate(network, params, {}, key, base.Batch(x, y, rows),
                         key)[0]

  compiled = jax.jit(jax.value_and_grad(value)).lower(
      params, x, shape((100, 1), jnp.float32), shape((100,), jnp.int32),
      KEY).compile()
  cost = compiled.cost_analysis()
  return (cost[0] if isinstance(cost, list) else cost)['flops']


def test_the_first_layer_is_computed_once_for_all_indices():
  flops = {(d, j): count_flops(d, j) for d, j in ((10, 5), (10, 20),
                                                  (1000, 20))}
  # Two products (forward, weights' gradient) of [200, D] with 100 points.
  first = 2 * 2 * 200 * 990 * 100
  assert abs((flops[1000, 20] - flops[10, 20]) / first - 1.) < 0.05
  # The docstring's count of the rest, and little besides products.
  products = 12 * 100 * (2 * 100 * 101 + 101)
  per_index = (flops[10, 20] - flops[10, 5]) / 15
  assert products < per_index < 1.1 * products
  # Affine samples spare the hidden layers all of the 100 points but one; the
  # generator's integers, which XLA counts too, are as many.
  affine = (count_flops(10, 20, 'none') - count_flops(10, 5, 'none')) / 15
  assert affine < 0.05 * products


# Training. -----------------------------------------------------------------

TRAIN_X = RNG.standard_normal((1, 20, 2))
TRAIN_Y = (TRAIN_X[..., :1] - 0.5 * TRAIN_X[..., 1:] + 1.)[:, None]


def train(dtype, **settings):
  agent = vnn.make_agent(dataclasses.replace(
      SMALL, hidden_sizes=(8, 8), num_index_samples=10, learning_rate=0.02,
      num_batches=1000, **settings))
  return loop.train(agent, TRAIN_X, TRAIN_Y, base.Gaussian(np.array([0.1])),
                    KEY[None], dtype=dtype)


def check_learned(trained, dtype):
  # The best constant's squared error, of which noise and chance leave little.
  assert trained.final_loss < 0.1 * np.var(TRAIN_Y)
  for leaf in jax.tree.leaves(trained.params):
    assert leaf.dtype == dtype


@pytest.mark.parametrize('dtype, settings', [
    (jnp.float64, {}),
    (jnp.float32, {'activation_mode': 'mean+end', 'global_std': 0.1,
                   'global_std_mode': 'replace'})])
def test_training_learns(dtype, settings):
  check_learned(train(dtype, **settings), dtype)


def test_training_repeats():
  trained, again = (train(
      jnp.float32, activation_mode='end', activation='tanh',
      global_std_mode='none', loss_function='target_noise',
      final_learning_rate=None) for _ in range(2))
  check_learned(trained, jnp.float32)
  jax.tree.map(np.testing.assert_array_equal, trained.params, again.params)


@pytest.mark.parametrize('settings, message', [
    ({'activation': 'gelu'}, 'activation must be one of'),
    ({'activation_mode': 'end+mean'}, 'activation_mode must be one of'),
    ({'global_std_mode': 'add'}, 'global_std_mode must be one of'),
    ({'global_std': -1.}, 'global_std must be a finite number >= 0'),
    ({'loss_function': 'elbo'}, 'loss_function must be one of'),
    ({'noise_scale': float('nan')}, 'noise_scale must be a finite number'),
    ({'num_index_samples': 0}, 'num_index_samples must be an integer >= 1'),
    ({'hidden_sizes': (0,)}, 'hidden_sizes must be an integer >= 1'),
    ({'final_learning_rate': -1.}, 'final_learning_rate must be a finite'),
    ({'final_learning_rate': 2e-3},
     'final_learning_rate must be at most learning_rate 0.001, got 0.002')])
def test_bad_settings_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    vnn.VnnConfig(**settings)
