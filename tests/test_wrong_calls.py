"""Calls of the API with what does not fit: one line, and no wrong numbers."""

import copy
import dataclasses
import sys

import numpy as np
import pytest

import enn_ensembles as ee
from enn_ensembles import agents
from enn_ensembles import base
from enn_ensembles import sweeps
from enn_ensembles.machine import float64
from enn_ensembles.problems import problem_export


@pytest.fixture(name='problem', scope='module')
def _problem():
  return ee.load_problem('D3_l2_e0.3_s1')


@pytest.mark.parametrize('name', ['exact_posterior', 'prior_only', 'map',
                                  'random_features', 'bbb'])
def test_samplers_refuse_points_of_another_shape(problem, name):
  # Random features of other columns were those of other functions.
  settings = ({'num_ensemble': 2, 'width': 8} if name == 'random_features' else
              {'num_batches': 1} if name in ('map', 'bbb') else {})
  sampler = ee.train(ee.make_agent(name, **settings), problem)
  key, x = ee.evaluation_key(0), problem.x_test[:4]
  dim = x.shape[1]
  calls = [lambda x: sampler(x, key)]
  calls += [getattr(sampler, other) for other in ('members', 'moments')
            if hasattr(sampler, other)]
  for call in calls:
    for wrong in (x[:, :1], x[0], x[:0], np.ones((4, dim + 1))):
      with pytest.raises(ValueError, match=rf'x must have shape \[N, {dim}\] '
                         'with N >= 1, got'):
        call(wrong)


@pytest.mark.parametrize('name, settings', [
    ('map', {'num_batches': 1}), ('exact_posterior', {}),
    ('random_features', {'width': 4, 'num_ensemble': 2})])
def test_agents_refuse_data_of_another_shape(problem, name, settings):
  x, y = problem.x_train, problem.y_train
  wide, key = np.ones((len(x), x.shape[1] + 1)), ee.agent_key(0)
  agent = ee.make_agent(name, **settings)
  for data, message in ((base.Data(wide, y), 'x must have shape .* as prior'),
                        (base.Data(x, wide), 'y must have shape'),
                        (base.Data(x, y[:, 0]), 'y must have shape'),
                        (base.Data(x, y[1:]), 'y must have shape')):
    with pytest.raises(ValueError, match=message):
      agent(data, problem.prior, key)


def test_an_agent_that_returns_nothing_is_told_so(problem):
  with pytest.raises(ValueError, match='agent must return a sampler.*got None'):
    ee.score(lambda data, prior, key: None, problem)


def test_the_largest_seed_is_said_as_it_is():
  for seed in (2**32, 10**30):
    with pytest.raises(ValueError, match=r'at most 2\*\*32 - 1'):
      ee.load_problem(f'D2_l1_e1_s{seed}')


def test_noise_of_too_much_contrast_is_named():
  with pytest.raises(ValueError, match='noise_contrast must be at most 5'):
    ee.load_problem('D5_l1_e1_c30_s0')


@pytest.mark.parametrize('field, value', [
    ('snapshots', ('a',)), ('snapshots', (1.5,)), ('augment', 3),
    ('early_stopping', 3), ('make_network', 'mlp'), ('make_loss', 5)])
def test_fields_of_network_agents_are_checked(field, value):
  agent = float64.unwrap(ee.make_agent('map', num_batches=4))
  with pytest.raises(ValueError, match=f'{field} must be'):
    dataclasses.replace(agent, **{field: value})


def test_samplers_can_be_copied(problem):
  sampler = ee.train(ee.make_agent('map', num_batches=1), problem)
  x = problem.x_test[:3]
  for same in (copy.copy(sampler), copy.deepcopy(float64.unwrap(sampler))):
    np.testing.assert_array_equal(same.members(x), sampler.members(x))


def test_exported_problems_have_one_noise_level(tmp_path):
  problem = ee.load_problem('D2_l2_e0.1_c1_s0')
  with pytest.raises(ValueError, match='must have one noise_std, got one per'):
    problem_export.export_problem(problem, tmp_path)
  assert not list(tmp_path.iterdir())


def test_ctrl_c_in_a_config_is_no_mistake_of_the_config(tmp_path):
  path = tmp_path / 'config.py'
  path.write_text('raise KeyboardInterrupt')
  with pytest.raises(KeyboardInterrupt):
    sweeps.load_config(path)


def test_a_file_that_cannot_be_imported_leaves_no_module(tmp_path):
  path = tmp_path / 'half_made.py'
  path.write_text('x = 1\nraise TypeError')
  with pytest.raises(ValueError, match='cannot be imported: TypeError'):
    agents.load_agent(str(path))
  assert not [name for name in sys.modules if 'half_made' in name]
