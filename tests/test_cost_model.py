"""Estimated costs of work units, against what was measured."""

import dataclasses

import pytest
import tiny_sweeps

from enn_ensembles import agents as agents_lib
from enn_ensembles import sweeps
from enn_ensembles.sweeps import cost_model
from enn_ensembles.training import flops


def make_unit(folder, input_dim=10, data_ratio=10., agent='ensemble',
              noise_std=(0.1, 1.), seed=(0, 1), **settings):
  config = tiny_sweeps.make_config(
      folder, AGENTS=[{'agent': agent, **settings}], INPUT_DIM=[input_dim],
      DATA_RATIO=[data_ratio], NOISE_STD=list(noise_std), SEED=list(seed))
  unit, = sweeps.expand(config)
  return unit


def test_estimated_costs_are_in_the_right_order(tmp_path):
  def cost(*args, **settings):
    return sweeps.estimate_seconds(make_unit(tmp_path, *args, **settings))

  start = cost_model.START_SECONDS
  assert cost(1000, 10.) - start > 5 * (cost(10, 10.) - start)
  assert cost(num_ensemble=30) > cost(num_ensemble=3) > cost(agent='map')
  assert cost(agent='layer_ensemble', num_options=10) > cost(
      agent='layer_ensemble', num_options=3)
  assert cost(agent='hypermodel') > cost()
  assert cost(agent='exact_posterior') < cost()
  # Measured: 0.36 and 1.57 s per problem on two cores, four problems here.
  vnn = cost(1000, agent='vnn') - cost(1000, agent='prior_only')
  assert 4 < vnn < 30
  # Its samples pass through activations one by one.
  assert cost(1000, agent='vnn', activation_mode='end') > 10 * cost(
      1000, agent='vnn')


def test_training_is_estimated_from_its_operations(tmp_path):
  unit = make_unit(tmp_path, 2, num_ensemble=3, hidden_sizes=(4, 3),
                   num_batches=7, batch_size=5)
  # 2 inputs, 4 and 3 hidden units: forward, where the first layer adds its
  # biases and the others multiply them with ones, gradients of the weights with
  # biases, and from the second layer on of the input, which has no ones.
  forward = 4 * 2 + 3 * 5 + 1 * 4
  weights = 4 * 3 + 3 * 5 + 1 * 4
  inputs = 3 * 4 + 1 * 3
  flops = 7 * 2 * 3 * 5 * (forward + weights + inputs)
  assert sweeps.estimate_training_seconds(unit) == pytest.approx(flops / 6e10)
  plain = make_unit(tmp_path, agent='exact_posterior')
  assert sweeps.estimate_training_seconds(plain) == 0


@pytest.mark.parametrize('agent', [
    name for name in agents_lib.agent_names()
    if name not in ('exact_posterior', 'prior_only', 'random_features')])
def test_values_of_floats_change_no_operations(tmp_path, agent, monkeypatch):
  unit = make_unit(tmp_path, agent=agent)
  other = dataclasses.replace(unit, agent_config={
      name: 0.75 * value if isinstance(value, float) else value
      for name, value in unit.agent_config.items()})
  assert other.agent_config != unit.agent_config
  monkeypatch.setattr(cost_model, '_counts', {})
  expected = sweeps.estimate_seconds(unit)
  # Counted anew, not remembered.
  cost_model._counts.clear()
  assert sweeps.estimate_seconds(other) == expected


def test_settings_that_differ_in_floats_are_traced_once(tmp_path, monkeypatch):
  calls = []
  count = flops.step_flops
  monkeypatch.setattr(cost_model, '_counts', {})
  monkeypatch.setattr(flops, 'step_flops',
                      lambda *args: calls.append(args) or count(*args))
  costs = {sweeps.estimate_seconds(make_unit(
      tmp_path, num_ensemble=3, learning_rate=rate))
           for rate in (1e-4, 2e-4, 5e-4, 1e-3)}
  assert len(costs) == len(calls) == 1
  # What is switched off may cost less, and numbers of members count.
  sweeps.estimate_seconds(make_unit(tmp_path, num_ensemble=3, prior_scale=0.))
  sweeps.estimate_seconds(make_unit(tmp_path, num_ensemble=4))
  assert len(calls) == 3


@pytest.mark.parametrize('agent,settings,size,num_levels,measured', [
    # CPU seconds of one seed on an AMD EPYC with AVX-512, compiling apart.
    ('random_features', {}, (10, 10.), 3, 7.2),
    ('exact_posterior', {}, (10, 10.), 2, 0.06),
    ('random_features', {'num_ensemble': 10}, (100, 10.), 2, 4.4),
    ('random_features', {'num_ensemble': 3}, (100, 100.), 1, 6.4),
    ('exact_posterior', {}, (100, 10.), 1, 0.15),
    ('exact_posterior', {}, (100, 100.), 1, 14.),
    ('exact_posterior', {'analytic': False}, (10, 10.), 1, 0.17),
])
def test_what_agents_count_themselves(tmp_path, agent, settings, size,
                                      num_levels, measured):
  unit = dataclasses.replace(
      make_unit(tmp_path, size[0], size[1], agent,
                (0.01, 0.1, 1.)[:num_levels], (0,), **settings),
      num_enn_samples=1000)
  assert cost_model.is_counted(unit)
  assert sweeps.estimate_training_seconds(unit) == 0
  found = sweeps.estimate_seconds(unit) - cost_model.START_SECONDS
  assert measured / 2 < found < 2 * measured
  # Seeds share nothing.
  seeds = dataclasses.replace(unit, seeds=(0, 1, 2))
  assert (sweeps.estimate_seconds(seeds) - cost_model.START_SECONDS
          == pytest.approx(3 * found))


def test_noise_levels_share_features_as_far_as_they_are_kept(tmp_path):
  def cost(**settings):
    return [sweeps.estimate_seconds(make_unit(
        tmp_path, 10, 10., 'random_features', noise_std, (0,), **settings))
            - cost_model.START_SECONDS for noise_std in ((1.,), (0.1, 1.))]

  one, two = cost()
  assert one < two < 1.1 * one
  # Features of 300 networks are too many to keep.
  one, two = cost(num_ensemble=300)
  assert 1.5 * one < two < 2 * one


def test_agents_that_count_nothing_only_read(tmp_path):
  unit = make_unit(tmp_path, agent='prior_only')
  assert not cost_model.is_counted(unit)
  assert cost_model.is_counted(make_unit(tmp_path))


def test_predictions_of_draws_are_estimated(tmp_path):
  def per_problem(**settings):
    unit = make_unit(tmp_path, 1000, 1., **settings)
    return (sweeps.estimate_seconds(unit)
            - cost_model.START_SECONDS) / unit.num_problems

  # docs/speed.md: two cores train in 0.23 and predict in 1 s.
  assert 0.5 < per_problem(agent='mc_dropout') / (2 * (0.23 + 1)) < 2
  # All members are few draws.
  unit = make_unit(tmp_path, 1000, 1., num_ensemble=3)
  assert per_problem(num_ensemble=3) == pytest.approx(
      sweeps.estimate_training_seconds(unit), rel=0.05)


@pytest.mark.parametrize('data_ratio,measured', [(10., 42.), (100., 3000.)])
def test_estimated_cost_of_ground_truth(tmp_path, data_ratio, measured):
  # Measured at D_x = 1000 on two cores: CPU seconds of one seed with three
  # noise levels, dense and matrix-free.
  unit = make_unit(tmp_path, 1000, data_ratio, 'map', (0.01, 0.1, 1.), (0,))
  assert measured / 2 < sweeps.estimate_ground_truth_seconds(unit) < (
      2 * measured)
  # The training of a unit does not pay for what all agents share.
  assert sweeps.estimate_seconds(unit) < measured
