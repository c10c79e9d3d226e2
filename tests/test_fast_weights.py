"""BatchEnsemble's fast weights have their own start and learning rate."""

import dataclasses

import jax
import numpy as np
import pytest

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.agents import batch_ensemble
from enn_ensembles.training import program

KEY = jax.random.PRNGKey(3)
X = np.random.default_rng(0).normal(size=(6, 2))
Y = np.random.default_rng(1).normal(size=(6, 1))
PRIOR = base.PriorKnowledge((2,), 6, base.Gaussian(0.1))
RATE, FAST = 0.01, 0.03


def make_config(**settings):
  """Two members, two steps, each on all the data, and nothing random."""
  return batch_ensemble.BatchEnsembleConfig(**{
      'num_ensemble': 2, 'hidden_sizes': (3,), 'prior_scale': 0.,
      'noise_scale': 0., 'num_batches': 2, 'batch_size': 6, 'learning_rate':
          RATE, 'fast_init': 'normal', 'sampling': 'epochs', **settings})


def train(config):
  """The parameters before and after training."""
  agent = batch_ensemble.make_agent(config)
  key = networks.fold_in_many(KEY, 7)[program.INIT_KEY]
  start, _ = agent.make_network(PRIOR).init(key, X[:1].astype(np.float32), 0)
  end = agent(base.Data(X, Y), PRIOR, KEY).params
  return [{name: np.array(value, np.float64)
           for name, value in next(iter(params.values())).items()}
          for params in (start, end)]


def loss(params):
  """The mean over members and points of the squared error."""
  errors = []
  for k in range(2):
    h = X.T
    for i in range(2):
      h = params[f'r_{i}'][k][:, None] * (
          params[f'w_{i}'] @ (params[f's_{i}'][k][:, None] * h)
      ) + params[f'b_{i}'][k]
      h = np.maximum(h, 0.) if i == 0 else h
    errors.append((h[0] - Y[:, 0]) ** 2)
  return np.mean(errors)


def gradient(params, name, step=1e-5):
  """By central differences, a number at a time."""
  found = np.zeros_like(params[name])
  for place in np.ndindex(found.shape):
    ends = []
    for sign in (1., -1.):
      moved = {**params, name: params[name].copy()}
      moved[name][place] += sign * step
      ends.append(loss(moved))
    found[place] = (ends[0] - ends[1]) / (2. * step)
  return found


def slow_training(params, optimizer, l2, shares):
  """Two steps of Adam (Kingma & Ba 2015) or of plain gradient descent.

  `shares` are what the schedule leaves of each learning rate at the two steps.
  """
  first = second = dict.fromkeys(params, 0.)
  for t in (1, 2):
    grads = {name: gradient(params, name) + l2 * params[name]
             for name in params}
    first = {name: 0.9 * first[name] + 0.1 * grads[name] for name in params}
    second = {name: 0.999 * second[name] + 0.001 * grads[name] ** 2
              for name in params}
    updates = grads if optimizer == 'sgd' else {
        name: first[name] / (1 - 0.9 ** t) / (
            np.sqrt(second[name] / (1 - 0.999 ** t)) + 1e-8)
        for name in params}
    rates = {name: FAST if name[0] in 'rs' else RATE for name in params}
    params = {name: params[name] - shares[t - 1] * rates[name] * updates[name]
              for name in params}
  return params


def test_fast_weights_start_as_signs_or_around_one():
  for settings, values in (({'fast_init': 'sign'}, {-1., 1.}),
                           ({'fast_init': 'normal', 'fast_std': 0.}, {1.})):
    network = batch_ensemble.make_network(batch_ensemble.BatchEnsembleConfig(
        hidden_sizes=(4, 3), **settings))
    params, _ = jax.jit(lambda: network.init(KEY, X[:1], 0))()
    (parts,) = params.values()
    fast = np.concatenate([np.ravel(v) for k, v in parts.items()
                           if k[0] in 'rs'])
    assert set(np.unique(fast)) == values


@pytest.mark.parametrize('settings, shares', [
    ({'optimizer': 'adam', 'l2': 0.1}, (1., 1.)),
    # Half a cosine from 1 to 0.2 over two steps: 0.6 in the middle.
    ({'optimizer': 'sgd', 'momentum': 0., 'final_learning_rate': 0.2 * RATE},
     (1., 0.6)),
    ({'optimizer': 'sgd', 'momentum': 0., 'decay_at': (0.5,),
      'decay_factor': 0.3}, (1., 0.3))])
def test_two_steps_are_those_of_a_slow_computation(settings, shares):
  start, end = train(make_config(fast_learning_rate=FAST, **settings))
  assert {name[0] for name in start} == set('wrsb')
  expected = slow_training(start, settings['optimizer'],
                           settings.get('l2', 0.), shares)
  for name, value in expected.items():
    np.testing.assert_allclose(end[name] - start[name], value - start[name],
                               rtol=2e-3, atol=2e-6, err_msg=name)


def test_without_it_all_weights_have_one_learning_rate():
  config = make_config()
  same = make_config(fast_learning_rate=RATE)
  plain, found = train(config)[1], train(same)[1]
  for name, value in plain.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6)
  # Agents of equal configs share their compiled programs.
  make = batch_ensemble.make_optimizer
  assert make(same) is make(dataclasses.replace(same))
