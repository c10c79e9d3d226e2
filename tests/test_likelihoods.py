"""Losses by likelihood: cross-entropy, weight decay, bootstrap, prior."""

import dataclasses
import itertools

from compiled import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.training import classification
from enn_ensembles.training import forward_blocks
from enn_ensembles.training import index_losses
from enn_ensembles.training import likelihoods
from enn_ensembles.training import losses
from enn_ensembles.training import penalties
from enn_ensembles.training import regression

KEY = jax.random.PRNGKey(0)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((9, 2)))
LABELS = RNG.integers(3, size=9).astype(np.int32)
ROWS = np.array([4, 0, 4, 8])
CLASSES = base.PriorKnowledge((2,), 9, base.Categorical(3))
REGRESSION = base.PriorKnowledge((2,), 9, base.Gaussian(0.3))


def make_batch(y):
  return base.Batch(X[ROWS], y[ROWS], jnp.asarray(ROWS))


def evaluate(loss, network, params, state, y, key=KEY, augmented=False):
  prepare = loss.prepare_augmented if augmented else loss.prepare

  @jax.jit
  def run(params, state):
    context = prepare(network, params, state, base.Data(X, y), key)
    return loss.evaluate(network, params, state, context, make_batch(y), key)[0]

  return float(run(params, state))


@pytest.fixture(name='classifier', scope='module')
def make_classifier():
  """Three members with a prior on their logits."""
  members = lambda: networks.make_member_network((4, 3), 3)
  network = compiled(networks.with_additive_prior(members(), members(), 2.))
  return network, *network.init(KEY, X[:1], 0)


def slow_cross_entropy(network, params, state, member, row):
  out, _ = network.apply(params, state, X[row][None], member)
  logits = np.asarray(out.train + out.prior)[0]  # The prior counts.
  return -scipy.special.log_softmax(logits)[int(LABELS[row])]


@pytest.mark.parametrize('augmented', [False, True])
def test_cross_entropy_over_members_and_data(classifier, augmented):
  expected = np.mean([slow_cross_entropy(*classifier, member, row)
                      for member in range(3) for row in ROWS])
  found = evaluate(likelihoods.make_loss_for(CLASSES), *classifier, LABELS,
                   augmented=augmented)
  np.testing.assert_allclose(found, expected, rtol=1e-10)
  # Class labels have no target noise.
  noisy = likelihoods.make_loss_for(CLASSES, noise_scale=1.)
  np.testing.assert_allclose(evaluate(noisy, *classifier, LABELS), expected,
                             rtol=1e-10)


def test_the_prior_of_blocks_is_that_of_all_points(classifier, monkeypatch):
  loss = likelihoods.make_loss_for(CLASSES)
  prepare = lambda: jax.jit(lambda *start: loss.prepare(
      classifier[0], *start, base.Data(X, LABELS), KEY))(*classifier[1:])
  whole = prepare()
  assert whole.offsets.shape == (9, 3, 3)
  # Four points at a time.
  monkeypatch.setattr(index_losses, '_PREPARE_PAIRS', 12)
  blocks = prepare()
  np.testing.assert_allclose(blocks.offsets, whole.offsets, rtol=1e-12)
  # The largest array is that of a block, not of all points.
  jaxpr = jax.make_jaxpr(lambda x: forward_blocks.map_points(
      lambda x: jnp.tile(x, (1, 100))[:, 0], x, 4))(X)
  sizes = [v.aval.size for e in all_equations(jaxpr) for v in e.outvars]
  assert max(sizes) == 3 * 200


def all_equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(list(equation.params.values()),
                                 is_leaf=lambda v: hasattr(v, 'eqns')):
      if hasattr(value, 'eqns'):
        yield from all_equations(value)


@pytest.mark.parametrize('num', [1, 4, 5, 9, 10])
def test_points_in_blocks_are_points(num):
  found = forward_blocks.map_points(lambda x: {'a': x * 2, 'b': x[:, 0]}, X,
                                    num)
  np.testing.assert_array_equal(found['a'], 2 * X)


# Bootstrap. ----------------------------------------------------------------


def test_bootstrap_counts_are_of_draws_with_replacement():
  weights = np.asarray(jax.jit(lambda: losses.bootstrap_counts(
      KEY, 50, 400, jnp.float64))())
  assert weights.shape == (50, 400) and set(np.unique(weights)) <= set(range(9))
  np.testing.assert_array_equal(weights.sum(axis=0), 50.)
  # Binomial(50, 1/50): variance 0.98, and 0.3642 of the points left out.
  np.testing.assert_allclose(np.var(weights), 0.98, atol=0.04)
  np.testing.assert_allclose(np.mean(weights == 0), 0.98 ** 50, atol=0.015)
  assert len({column.tobytes() for column in weights.T}) == 400


def test_bootstrap_weighs_the_errors_of_each_member(classifier):
  loss = likelihoods.make_loss_for(CLASSES, bootstrap=True)
  weights = np.asarray(jax.jit(lambda *start: loss.prepare(
      classifier[0], *start, base.Data(X, LABELS), KEY).weights)(
          *classifier[1:]))
  expected = np.mean([
      weights[row, member] * slow_cross_entropy(*classifier, member, row)
      for member in range(3) for row in ROWS])
  np.testing.assert_allclose(evaluate(loss, *classifier, LABELS), expected,
                             rtol=1e-10)
  assert np.ptp(weights) > 0
  infinite = base.EpistemicNetwork(None, None, networks.GaussianIndexer(2))
  with pytest.raises(ValueError, match='bootstrap needs finitely many'):
    likelihoods.make_loss_for(
        REGRESSION, bootstrap=True, num_index_samples=2).prepare(
            infinite, None, None, base.Data(X, X[:, :1]), KEY)


# ELBO. ---------------------------------------------------------------------


def test_the_categorical_elbo_is_likelihood_and_divergence():
  network = base.EpistemicNetwork(
      lambda params, state, x, z: (x @ (params * z), state), None,
      networks.GaussianIndexer(3))
  params = RNG.standard_normal((2, 3))
  loss = likelihoods.make_elbo_loss_for(
      CLASSES, lambda params: jnp.sum(params ** 4), 5)
  indices = np.asarray(losses.sample_indices(network, KEY, 5), np.float64)
  nll = [-scipy.special.log_softmax(np.asarray(X[row] @ (params * z)))[
      int(LABELS[row])] for z in indices for row in ROWS]
  np.testing.assert_allclose(
      evaluate(loss, network, params, (), LABELS),
      np.mean(nll) + np.sum(params ** 4) / 9, rtol=1e-6)


# Weight decay. -------------------------------------------------------------


def effective_layers(name, params, config):
  """Weights [out, in + 1] of every layer of members or drawn indices.

  Loops over members; for infinite index sets, over indices whose second moment
  is exactly that of the index.
  """
  (layers,) = params.values()
  num = len(config.hidden_sizes) + 1
  arrays = {key: np.asarray(value) for key, value in layers.items()}
  w = [arrays[f'w_{i}'] for i in range(num)]
  if name in ('ensemble', 'map', 'mc_dropout', 'deep_sub_ensemble'):
    for member in range(max(len(a) for a in w)):
      yield [a[member % len(a)] for a in w]
  elif name == 'layer_ensemble':
    for options in itertools.product(*(range(a.shape[1]) for a in w)):
      yield [a[:, option] for a, option in zip(w, options)]
  elif name == 'batch_ensemble':
    for k in range(config.num_ensemble):
      yield [np.concatenate([
          a * np.outer(arrays[f'r_{i}'][k], arrays[f's_{i}'][k]),
          arrays[f'b_{i}'][k]], axis=1) for i, a in enumerate(w)]
  elif name == 'hypermodel':
    d = config.index_dim
    for k, sign in itertools.product(range(d), (-1., 1.)):
      # z = +-e_k, k uniform: E[z z^T] = I / d.
      yield [sign * a[k] + a[-1] for a in w]
  elif name == 'vnn':
    for sign in (-1., 1.):  # E[z^2] = 1.
      yield [a[0] + sign * config.global_std * a[1] for a in w]


@pytest.mark.parametrize('name', [
    'ensemble', 'map', 'mc_dropout', 'deep_sub_ensemble', 'layer_ensemble',
    'batch_ensemble', 'hypermodel', 'vnn'])
def test_weight_decay_is_the_slow_sum(name):
  settings = {
      'ensemble': {'num_ensemble': 3}, 'deep_sub_ensemble': {'num_ensemble': 3},
      'batch_ensemble': {'num_ensemble': 3, 'fast_init': 'normal'},
      'layer_ensemble': {'num_options': (2, 3, 2)},
      'hypermodel': {'index_dim': 3, 'samples_per_dim': 1},
      'vnn': {'num_index_samples': 2}}.get(name, {})
  module = agents_lib.load_agent(name)
  config = agents_lib.make_config(
      module, {'hidden_sizes': (4, 3), 'weight_decay': 0.7, **settings})
  plain = agents_lib.make_agent(
      module, dataclasses.replace(config, weight_decay=0.))
  agent = agents_lib.make_agent(module, config)
  network = compiled(agent.make_network(REGRESSION))
  params, state = network.init(KEY, X[:1], network.indexer(KEY))
  # Biases that start at 0 would hide that the others do not count.
  params = jax.tree.map(lambda p: p + 0.1 * RNG.standard_normal(p.shape),
                        params)
  decays = [evaluate(a.make_loss(REGRESSION), network, params, state, X[:, :1])
            for a in (agent, plain)]
  members = list(effective_layers(name, params, config))
  expected = 0.
  for layers in members:
    total = 2 * np.sum(layers[0][:, -1] ** 2)  # D = 2.
    for layer in layers:
      total += (layer.shape[1] - 1) * np.sum(layer[:, :-1] ** 2)
    expected += total / len(members)
  expected *= 0.7 * 0.3 ** 2 / 9  # decay eps^2 / T.
  np.testing.assert_allclose(decays[0] - decays[1], expected, rtol=1e-7)


def test_weight_decay_may_be_of_the_distance_from_the_start():
  module = agents_lib.load_agent('ensemble')
  config = agents_lib.make_config(module, {
      'hidden_sizes': (4, 3), 'num_ensemble': 3, 'prior_scale': 0.,
      'weight_decay': 0.7, 'decay_from_start': True})
  agents = [agents_lib.make_agent(module, dataclasses.replace(
      config, weight_decay=decay)) for decay in (0.7, 0.)]
  network = compiled(agents[0].make_network(REGRESSION))
  start, state = network.init(KEY, X[:1], network.indexer(KEY))
  steps = jax.tree.map(lambda p: 0.1 * RNG.standard_normal(p.shape), start)
  batch = make_batch(X[:, :1])
  values = []
  for agent in agents:
    loss = agent.make_loss(REGRESSION)
    context = loss.prepare(network, start, state, base.Data(X, X[:, :1]), KEY)
    values.append(float(loss.evaluate(
        network, jax.tree.map(np.add, start, steps), state, context, batch,
        KEY)[0]))
  members = list(effective_layers('ensemble', steps, config))
  expected = np.mean([2 * np.sum(layers[0][:, -1] ** 2) + sum(
      (layer.shape[1] - 1) * np.sum(layer[:, :-1] ** 2) for layer in layers)
                      for layers in members])
  np.testing.assert_allclose(values[0] - values[1],
                             expected * 0.7 * 0.3 ** 2 / 9, rtol=1e-6)


def test_weight_decay_is_the_log_density_of_the_prior(classifier):
  """Up to the constant, per data point, of one member's first layer."""
  network, params, state = classifier
  decayed = likelihoods.make_loss_for(
      CLASSES, weight_decay=1., mean_squares=networks.member_mean_squares)
  plain = likelihoods.make_loss_for(CLASSES)

  def decay(scale):
    (name, layers), = params.items()
    # Member 1's weights and first biases alone.
    scales = np.array([1., scale, 1.])[:, None, None]
    moved = {key: w * scales for key, w in layers.items()}
    return evaluate(decayed, network, {name: moved}, state, LABELS) - evaluate(
        plain, network, {name: moved}, state, LABELS)

  w0, w1 = (np.asarray(params['stacked_mlp'][f'w_{i}'])[1] for i in (0, 1))
  norm = scipy.stats.norm

  def log_density(scale):
    return (norm(0, 2 ** -0.5).logpdf(scale * w0).sum()
            + norm(0, 4 ** -0.5).logpdf(scale * w1[:, :-1]).sum())

  np.testing.assert_allclose(
      decay(1.5) - decay(1.), -(log_density(1.5) - log_density(1.)) / (3 * 9),
      rtol=1e-7)


def test_norms_and_missing_biases_are_no_part_of_the_prior():
  shapes = [networks.LayerShape(2, 3, 1., 0., has_bias=False),
            networks.LayerShape(2, 1, 0., 0., is_norm=True),
            networks.LayerShape(1, 2, 1., 0.)]
  squares = [jnp.full((2, 3), 1.), jnp.full((2, 2), 10.),
             jnp.asarray([[1., 2., 100.]])]
  assert penalties.gaussian_penalty(squares, shapes) == 3 * 6 + 2 * (1 + 2)


@pytest.mark.parametrize('prior, options, message', [
    (REGRESSION, {'weight_decay': 1.}, 'weight_decay must be 0 for a network'),
    (base.PriorKnowledge((2,), 9, base.Gaussian(None)), {'noise_scale': 1.},
     'noise_scale other than 0 needs a problem whose noise_std is a known'),
    (REGRESSION, {'noise_scale': -1.}, 'noise_scale must be a finite number'),
    (REGRESSION, {'weight_decay': -1.}, 'weight_decay must be a finite numb'),
    (REGRESSION, {'num_index_samples': 0}, 'num_index_samples must be an int'),
    (base.PriorKnowledge((2,), 9, 'Poisson'), {},
     "likelihood must be base.Gaussian or base.Categorical, got 'Poisson'")])
def test_what_a_likelihood_cannot_do_is_said(prior, options, message):
  with pytest.raises(ValueError, match=message):
    likelihoods.make_loss_for(prior, **options)


def test_point_errors_are_chosen_by_the_likelihood():
  assert likelihoods.point_error(REGRESSION) is regression.squared_error
  assert likelihoods.point_error(CLASSES) is classification.cross_entropy
