"""The training program: cuts, minibatches, state, early stopping, classes."""

import dataclasses
import functools

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.agents import ensemble
from enn_ensembles.agents import hypermodel
from enn_ensembles.training import early_stopping
from enn_ensembles.training import likelihoods
from enn_ensembles.training import loop
from enn_ensembles.training import losses
from enn_ensembles.training import minibatches
from enn_ensembles.training import network_agent
from enn_ensembles.training import program

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 8, 2))
Y = RNG.standard_normal((2, 2, 8, 1))
LIKELIHOOD = base.Gaussian(np.array([0.1, 1.]))
KEYS = jnp.stack([jax.random.PRNGKey(seed) for seed in (11, 12)])
NUM_BATCHES = 12


def run_cut(run, agent, traced, inputs, cuts):
  """The progress of a compiled program after each cut, through the host."""
  progress = jax.tree.map(
      lambda a: np.full((2, 2, *a.shape), 77, a.dtype), traced.progress)
  for first, last in zip((0, *cuts), (*cuts, agent.num_batches)):
    progress, constants = run(inputs, progress, np.int32(first),
                              np.int32(last))
    progress = jax.tree.map(np.asarray, progress)
  return progress, constants


def check_equal(ours, theirs):
  for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
    np.testing.assert_array_equal(a, b)  # Bit for bit.


SMALL = {'hidden_sizes': (4,), 'num_batches': NUM_BATCHES, 'batch_size': 5}
STOPPING = early_stopping.EarlyStopping(every=5, patience=1, metric='error')


@functools.cache
def make_agents(name):
  """Agents of which other parts change from step to step."""
  if name == 'prior and noise':
    return ensemble.make_agent(ensemble.EnsembleConfig(
        num_ensemble=2, **SMALL))
  if name == 'drawn indices':
    return hypermodel.make_agent(hypermodel.HypermodelConfig(
        index_dim=3, samples_per_dim=2, final_learning_rate=1e-5, **SMALL))
  if name == 'epochs of sgd':
    return ensemble.make_agent(ensemble.EnsembleConfig(
        num_ensemble=2, sampling='epochs', optimizer='sgd', bootstrap=True,
        **SMALL))
  assert name == 'early stopping'
  return network_agent.NetworkAgent(
      lambda prior: networks.make_member_network((4, 1), 2),
      likelihoods.make_loss_for, optax.adam(0.05), num_batches=NUM_BATCHES,
      batch_size=5, early_stopping=STOPPING)


VALIDATION = base.Data(RNG.standard_normal((2, 6, 2)),
                       RNG.standard_normal((2, 2, 6, 1)))


@pytest.mark.parametrize('name', ['prior and noise', 'drawn indices',
                                  'epochs of sgd', 'early stopping'])
def test_training_may_be_cut_anywhere(name, monkeypatch):
  # By the usual compiler: bits are compared.
  monkeypatch.setattr(loop, '_CPU_COMPILER_OPTIONS', {
      **loop._CPU_COMPILER_OPTIONS, **compiled.USUAL_COMPILER})
  programs, compile_program = [], loop.compile_program
  monkeypatch.setattr(loop, 'compile_program', lambda *arguments: (
      programs.append(compile_program(*arguments)) or programs[-1]))
  agent = make_agents(name)
  validation = VALIDATION if name == 'early stopping' else None
  trained = loop.train(agent, X, Y, LIKELIHOOD, KEYS, validation=validation,
                       seeds_per_chunk=2)
  traced = loop._trace(agent, X, Y, LIKELIHOOD, KEYS, validation, jnp.float32)
  inputs = program.Inputs(*jax.tree.map(
      lambda a: jnp.asarray(a, jnp.float32), (X, Y, LIKELIHOOD)), KEYS,
                          jax.tree.map(lambda a: jnp.asarray(a, jnp.float32),
                                       validation))
  cut = functools.partial(run_cut, *programs, agent, traced, inputs)
  whole = cut(())
  assert np.all(whole[0].losses != 77) and np.all(whole[0].losses != 0)
  for cuts in ((1,), (5,), (7, 10), tuple(range(1, NUM_BATCHES))):
    check_equal(cut(cuts), whole)
  best = whole[0] if validation is None else whole[0].best
  check_equal(trained.params, best.params)


def test_the_prior_is_no_part_of_the_progress():
  traced = loop._trace(make_agents('prior and noise'), X, Y, LIKELIHOOD, KEYS,
                       None, jnp.float32)
  assert not any(traced.changes) and len(traced.changes) == 2
  assert traced.progress.state == [] and len(traced.constants) == 2


# Minibatches. --------------------------------------------------------------


def test_epochs_go_through_all_points_in_new_orders():
  agent = network_agent.NetworkAgent(None, None, num_batches=10, batch_size=3,
                                     sampling='epochs')
  rows = np.asarray(minibatches.draw_rows(agent, 11, KEYS[0]))
  assert rows.shape == (10, 3) and rows.max() < 11
  epochs = [rows[first:first + 3].ravel() for first in (0, 3, 6)]
  for epoch in epochs:
    assert len(set(epoch)) == 9  # Each point at most once; two are left out.
  assert len({tuple(epoch) for epoch in epochs}) == 3
  # A batch is no larger than the data: then each is all of them.
  few = np.asarray(minibatches.draw_rows(agent, 2, KEYS[0]))
  np.testing.assert_array_equal(np.sort(few, axis=1), [[0, 1]] * 10)


def test_orders_are_drawn_of_the_epochs_that_are_asked_for():
  agent = network_agent.NetworkAgent(None, None, num_batches=10, batch_size=3,
                                     sampling='epochs')
  whole = np.asarray(minibatches.draw_rows(agent, 11, KEYS[0]))
  some = np.asarray(minibatches.draw_rows(agent, 11, KEYS[0], 4, 7))
  np.testing.assert_array_equal(some[4:7], whole[4:7])
  # Three steps make an epoch: those of the first and the last are not drawn.
  assert not some[:3].any() and not some[9:].any()


def test_every_point_is_left_out_as_often_as_any():
  agent = network_agent.NetworkAgent(None, None, num_batches=3000, batch_size=2,
                                     sampling='epochs')
  rows = np.asarray(minibatches.draw_rows(agent, 5, KEYS[0]))
  counts = np.bincount(rows.ravel(), minlength=5)
  # 1500 epochs, each with one of five points left out.
  assert np.max(np.abs(counts - 1200)) < 5 * np.sqrt(1500 * 0.2 * 0.8)


# Networks and losses of one parameter. -------------------------------------


def probe_network(**fields):
  """f(x, z) = theta + x, one parameter that starts at 0, one member."""
  def apply_indices(params, state, x, indices):
    del indices
    return (params + x)[None], state

  return base.EpistemicNetwork(
      apply=None, indexer=networks.EnsembleIndexer(1),
      **{'init': lambda key, x, z: (jnp.zeros((), x.dtype), ()),
         'apply_indices': apply_indices, **fields})


def train_probe(network, loss=likelihoods.make_loss_for, likelihood=None,
                validation=None, x=X[:1, :, :1], y=Y[:1, :1],
                dtype=jnp.float64, **fields):
  fields = {'num_batches': 4, 'batch_size': 8, 'sampling': 'epochs',
            'optimizer': optax.sgd(0.1), **fields}
  agent = network_agent.NetworkAgent(
      lambda prior: network, loss, **fields)
  return loop.train(agent, x, y, likelihood or base.Gaussian(np.ones(1)),
                    KEYS[:1], dtype=dtype, validation=validation)


def gradient_descent(x, y, num_steps, rate=0.1):
  """theta after full-batch steps on the mean of (theta + x - y)^2."""
  thetas = [0.]
  for _ in range(num_steps):
    thetas.append(thetas[-1] - 2 * rate * np.mean(thetas[-1] + x - y))
  return np.array(thetas)


def test_any_optimizer_and_one_that_knows_the_problem():
  expected = gradient_descent(X[0, :, :1], Y[0, 0], 4)
  trained = train_probe(probe_network())
  np.testing.assert_allclose(trained.params, [[expected[-1]]], rtol=1e-12)
  asked = []

  def optimizer(prior):
    asked.append(prior)
    return optax.sgd(0.025 * prior.noise_std)

  trained = train_probe(probe_network(), optimizer=optimizer,
                        likelihood=base.Gaussian(np.array([4.])))
  np.testing.assert_allclose(trained.params, [[expected[-1]]], rtol=1e-12)
  assert asked[0].num_train == 8 and asked[0].input_shape == (1,)


def test_the_parameters_of_chosen_steps_are_kept():
  expected = gradient_descent(X[0, :, :1], Y[0, 0], 4)
  trained = train_probe(probe_network(), snapshots=(0, 1, 3, 4))
  assert list(trained.snapshots) == [0, 1, 3, 4]
  for step, params in trained.snapshots.items():
    np.testing.assert_allclose(params, [[expected[step]]], rtol=1e-12)
  np.testing.assert_array_equal(trained.snapshots[4], trained.params)


def test_augmentation_changes_the_inputs_of_every_step():
  def augment(key, x):
    shift = jax.random.normal(key, (), x.dtype)
    return x + shift

  trained = train_probe(probe_network(), augment=augment)
  keys = [jax.random.fold_in(
      jax.random.fold_in(KEYS[0], program.AUGMENT_KEY), i) for i in range(4)]
  theta = 0.
  for key in keys:
    x = X[0, :, :1] + float(jax.random.normal(key, (), jnp.float64))
    theta = gradient_descent(x - (-theta), Y[0, 0], 1)[1] + theta
  np.testing.assert_allclose(trained.params, [[theta]], rtol=1e-10)


def test_with_augmentation_the_prior_sees_the_augmented_inputs():
  """prior(x) = x: the target of every step is y - 3 x, not y - x."""
  prior = probe_network(apply_indices=lambda params, state, x, indices: (
      x[None], state))
  network = networks.with_additive_prior(
      probe_network(apply_indices=lambda params, state, x, indices: (
          jnp.zeros_like(x)[None] + params, state)), prior, 1.)
  for scale, options in ((1., {}), (3., {'augment': lambda key, x: 3. * x})):
    trained = train_probe(network, **options)
    expected = gradient_descent(scale * X[0, :, :1], Y[0, 0], 4)
    np.testing.assert_allclose(trained.params, [[expected[-1]]], rtol=1e-10)


def test_state_changes_in_training_and_stays_otherwise():
  """A running mean of x, and a counter: what batch norm keeps."""
  def init(key, x, z):
    del key, z
    return jnp.zeros((), x.dtype), {
        'mean': jnp.zeros((), x.dtype), 'fixed': jnp.ones(3, x.dtype)}

  def apply_train(params, state, x, indices, key):
    del indices, key
    mean = 0.9 * state['mean'] + 0.1 * jnp.mean(x)
    return (params + x)[None], {**state, 'mean': mean}

  network = probe_network(init=init, apply_train=apply_train)
  trained = train_probe(network)
  expected = 0.
  for _ in range(4):
    expected = 0.9 * expected + 0.1 * np.mean(X[0, :, 0])
  np.testing.assert_allclose(trained.state['mean'], [[expected]], rtol=1e-12)
  np.testing.assert_array_equal(trained.state['fixed'], np.ones((1, 1, 3)))


def test_a_step_that_changes_shapes_is_named():
  loss = losses.Loss(
      lambda *args: (), lambda network, params, state, *rest: (
          params, (jnp.zeros(3), {})))
  with pytest.raises(ValueError, match='shapes and dtypes of state'):
    train_probe(probe_network(), loss=lambda prior: loss)


# Early stopping. -----------------------------------------------------------


def stop_probe(y_val, num_batches=12, **settings):
  """Trains theta towards 1; validation would have it at y_val."""
  validation = base.Data(np.zeros((1, 2, 1)), np.full((1, 1, 2, 1), y_val))
  return train_probe(
      probe_network(), x=np.zeros((1, 8, 1)), y=np.ones((1, 1, 8, 1)),
      num_batches=num_batches, validation=validation,
      early_stopping=early_stopping.EarlyStopping(
          **{'every': 1, 'patience': 2, 'metric': 'error', **settings}))


def test_the_best_parameters_by_validation_are_kept():
  thetas = gradient_descent(0., 1., 12)  # 0, 0.2, 0.36, 0.488, 0.59, ...
  trained = stop_probe(y_val=0.45)
  best = 1 + np.argmin((thetas[1:] - 0.45) ** 2)
  assert best == 3
  np.testing.assert_array_equal(trained.num_steps, [[best]])
  np.testing.assert_allclose(trained.params, [[thetas[best]]], rtol=1e-12)
  # The mean loss of the steps that led there.
  np.testing.assert_allclose(trained.final_loss,
                             [[np.mean((thetas[:best] - 1.) ** 2)]])


def test_without_a_best_step_in_between_all_steps_are_trained():
  thetas = gradient_descent(0., 1., 12)
  trained = stop_probe(y_val=1.)
  np.testing.assert_array_equal(trained.num_steps, [[12]])
  np.testing.assert_allclose(trained.params, [[thetas[-1]]], rtol=1e-12)
  # Scores only every five steps; the last two steps are lost.
  np.testing.assert_array_equal(stop_probe(1., every=5).num_steps, [[10]])
  # The first improvement is 0.04, the second 0.03, and so on.
  trained = stop_probe(y_val=1., min_delta=0.5)
  np.testing.assert_array_equal(trained.num_steps, [[1]])


def test_patience_ends_what_would_improve_again():
  """Validation error falls, rises for three scores, and falls lower."""
  curve = np.array([9., 5., 4., 6., 7., 8., 1., 1., 1., 1., 1., 1.])

  def loss(prior):
    del prior
    return losses.Loss(lambda *args: (), lambda network, params, state, *_: (
        -params, (state, {})))  # theta moves by one each step.

  def apply_indices(params, state, x, indices):
    del indices
    at = jnp.asarray(np.sqrt(curve))[jnp.round(params).astype(int) - 1]
    return jnp.zeros_like(x)[None] + at, state

  data = base.Data(np.zeros((1, 2, 1)), np.zeros((1, 1, 2, 1)))
  for patience, best in ((1, 3), (3, 3), (4, 7), (20, 7)):
    trained = train_probe(
        probe_network(apply_indices=apply_indices), loss=loss,
        optimizer=optax.sgd(1.), num_batches=12, validation=data,
        early_stopping=early_stopping.EarlyStopping(1, patience,
                                                    metric='error'))
    np.testing.assert_array_equal(trained.num_steps, [[best]])
    np.testing.assert_allclose(trained.params, [[best]])


def test_scores_are_the_definitions():
  logits = RNG.standard_normal((7, 3, 4))
  labels = np.array([0, 3, 1, 1, 2, 0, 3])
  probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  mean = probs.mean(1)
  score = functools.partial(early_stopping.classification_score,
                            logits=logits, labels=jnp.asarray(labels))
  np.testing.assert_allclose(
      score('nll'), -np.mean(np.log(mean[np.arange(7), labels])), rtol=1e-6)
  np.testing.assert_allclose(score('error'),
                             np.mean(mean.argmax(-1) != labels))
  f, y = RNG.standard_normal((7, 3, 1)), RNG.standard_normal((7, 1))
  nll = 0.
  for t in range(7):
    m, v = np.mean(f[t]), np.var(f[t]) + 0.3 ** 2
    nll += 0.5 * ((y[t, 0] - m) ** 2 / v + np.log(2 * np.pi * v)) / 7
  np.testing.assert_allclose(
      early_stopping.regression_score('nll', f, y, 0.3), nll)
  np.testing.assert_allclose(
      early_stopping.regression_score('error', f, y, None),
      np.mean((f.mean(1) - y) ** 2))


# Classes. ------------------------------------------------------------------


def test_classification_trains_by_the_same_code():
  """Logistic regression of one member, against scikit-learn's optimum."""
  linear_model = pytest.importorskip('sklearn.linear_model')
  rng = np.random.default_rng(3)
  x = rng.standard_normal((1, 60, 2))
  labels = (x[0] @ [1., -1.] + rng.standard_normal(60) > 0).astype(int)
  labels[rng.random(60) < 0.2] = 2
  agent = network_agent.NetworkAgent(
      lambda prior: networks.make_member_network((prior.num_outputs,), 1),
      likelihoods.make_loss_for, optax.adam(0.05), num_batches=2000,
      batch_size=60, sampling='epochs')
  trained = loop.train(agent, x, labels[None, None], base.Categorical(3),
                       KEYS[:1], dtype=jnp.float64)
  (w,) = jax.tree.leaves(trained.params)
  logits = x[0] @ w[0, 0, 0, :, :-1].T + w[0, 0, 0, :, -1]
  model = linear_model.LogisticRegression(C=1e8, tol=1e-10, max_iter=5000)
  expected = model.fit(x[0], labels).predict_proba(x[0])
  np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-4)


@pytest.mark.parametrize('x, y, likelihood, message', [
    (X, Y[0], LIKELIHOOD, r'y must have shape \(2, 8, 8, 1\)'),
    (X, Y, base.Gaussian(np.ones(3)), 'noise_std must be 2 numbers'),
    (X, Y[..., 0], base.Categorical(3), 'y must be int class labels, got'),
    (X, Y, np.ones(2), 'likelihood must be base.Gaussian or base.Categorical')])
def test_problems_that_do_not_fit_together_are_named(x, y, likelihood, message):
  agent = make_agents('prior and noise')
  with pytest.raises(ValueError, match=message):
    loop.train(agent, x, y, likelihood, KEYS)


@pytest.mark.parametrize('fields, message', [
    ({'optimizer': 'adam'}, 'optimizer must be an optax'),
    ({'sampling': 'shuffle'}, 'sampling must be one of'),
    ({'snapshots': (3, 1)}, 'snapshots must be increasing'),
    ({'snapshots': (5000,)}, 'from 0 to num_batches 1000'),
    ({'snapshots': (1,), 'early_stopping': STOPPING}, 'snapshots must be ()')])
def test_bad_agents_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    network_agent.NetworkAgent(None, None, **fields)


def test_early_stopping_and_validation_data_go_together():
  with pytest.raises(ValueError, match='needs validation data, got none'):
    train_probe(probe_network(), early_stopping=dataclasses.replace(
        STOPPING, every=1))
  with pytest.raises(ValueError, match='without early_stopping'):
    train_probe(probe_network(), validation=base.Data(X[:1, :, :1], Y[:1, :1]))
