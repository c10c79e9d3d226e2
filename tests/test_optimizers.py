"""Optimizers and schedules from settings, against the published formulas."""

import numpy as np
import optax
import pytest

from enn_ensembles.training import optimizers

GRADIENTS = np.array([[1., -2.], [0.5, 0.1], [-3., 1.], [2., 2.], [0.3, -1.]])
START = np.array([0.7, -0.4])


def run(config):
  """The parameters after each of the gradients."""
  optimizer = optimizers.make_optimizer(config)
  params = START
  state, found = optimizer.init(params), []
  for gradient in GRADIENTS:
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    found.append(np.asarray(params))
  return found


def adam(rate, l2=0., decoupled=0.):
  """Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2."""
  params, m, v, found = START, 0., 0., []
  for t, gradient in enumerate(GRADIENTS, 1):
    g = gradient + l2 * params
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g ** 2
    step = m / (1 - 0.9 ** t) / (np.sqrt(v / (1 - 0.999 ** t)) + 1e-8)
    params = params - rate * (step + decoupled * params)
    found.append(params)
  return found


def sgd(rates, momentum, nesterov, l2=0.):
  """Sutskever et al. 2013, in the form in which libraries have it."""
  params, velocity, found = START, 0., []
  for rate, gradient in zip(rates, GRADIENTS):
    g = gradient + l2 * params
    velocity = momentum * velocity + g
    params = params - rate * (g + momentum * velocity if nesterov else velocity)
    found.append(params)
  return found


@pytest.mark.parametrize('settings, expected', [
    ({}, adam(0.1)),
    ({'l2': 0.3}, adam(0.1, l2=0.3)),
    ({'optimizer': 'adamw', 'l2': 0.3}, adam(0.1, decoupled=0.3)),
    ({'optimizer': 'sgd', 'momentum': 0.}, sgd([0.1] * 5, 0., False)),
    ({'optimizer': 'sgd', 'nesterov': False}, sgd([0.1] * 5, 0.9, False)),
    ({'optimizer': 'sgd', 'l2': 0.3}, sgd([0.1] * 5, 0.9, True, 0.3)),
    ({'optimizer': 'sgd', 'num_batches': 5, 'decay_at': (0.4, 0.8),
      'decay_factor': 0.5, 'momentum': 0.8},
     sgd([0.1, 0.1, 0.05, 0.05, 0.025], 0.8, True)),
    ({'optimizer': 'sgd', 'num_batches': 5, 'final_learning_rate': 0.02,
      'momentum': 0.},
     sgd([0.02 + 0.04 * (1 + np.cos(np.pi * i / 5)) for i in range(5)], 0.,
         False))])
def test_optimizers_are_their_formulas(settings, expected):
  config = optimizers.TrainingConfig(**{'learning_rate': 0.1, **settings})
  np.testing.assert_allclose(run(config), expected, rtol=2e-6)


@pytest.mark.parametrize('num_batches, decay_at, rates', [
    (10, (0.5, 0.52), [1.] * 5 + [0.01] * 5),  # Both are step 5.
    (4, (0.1, 0.5), [1., 0.1, 0.01, 0.01])])  # The first would be step 0.
def test_every_decay_counts_and_none_comes_before_the_first_step(
    num_batches, decay_at, rates):
  schedule = optimizers.make_schedule(optimizers.TrainingConfig(
      learning_rate=1., num_batches=num_batches, decay_at=decay_at))
  np.testing.assert_allclose([schedule(i) for i in range(num_batches)], rates,
                             rtol=1e-6)


@pytest.mark.parametrize('settings, message', [
    ({'optimizer': 'rmsprop'}, "one of 'adam', 'adamw', 'sgd'; got 'rmsprop'"),
    ({'momentum': 1.}, r'momentum must be in \[0, 1\), got 1'),
    ({'decay_at': (0.5, 0.5)}, 'decay_at must be increasing and below 1'),
    ({'decay_at': (0.5,), 'final_learning_rate': 0.},
     'decay_at must be () where final_learning_rate is given'),
    ({'l2': -1.}, 'l2 must be a finite number >= 0, got -1')])
def test_bad_settings_are_named(settings, message):
  with pytest.raises(ValueError, match=message.replace('()', r'\(\)')):
    optimizers.TrainingConfig(**settings)


def test_early_stopping_is_a_setting():
  config = optimizers.TrainingConfig(patience=3, validate_every=7,
                                     min_delta=0.01, validate_by='error')
  made = optimizers.make_early_stopping(config)
  assert (made.patience, made.every, made.min_delta, made.metric) == (
      3, 7, 0.01, 'error')
  assert optimizers.make_early_stopping(optimizers.TrainingConfig()) is None


@pytest.mark.parametrize('settings, message', [
    ({'patience': -1}, 'patience must be an integer >= 0, got -1'),
    ({'validate_every': 0}, 'validate_every must be an integer >= 1'),
    ({'patience': 1, 'num_batches': 20},
     'validate_every must be at most num_batches 20 where patience is given'),
    ({'validate_by': 'luck'}, "validate_by must be one of 'nll', 'error'"),
])
def test_bad_early_stopping_is_named(settings, message):
  with pytest.raises(ValueError, match=message):
    optimizers.TrainingConfig(**settings)


def test_rounding_makes_no_setting_an_error():
  config = optimizers.TrainingConfig(learning_rate=0.057,
                                     final_learning_rate=0.057)
  found = optimizers.at_learning_rate(config, 0.0036)
  assert found.final_learning_rate == found.learning_rate == 0.0036
