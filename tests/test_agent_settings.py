"""Settings that agents cannot have, and what they must know, are named."""

import dataclasses

import numpy as np
import pytest
from tiny_agents import KEY
from tiny_agents import make_agent
from tiny_agents import make_config
from tiny_agents import NAMES
from tiny_agents import X

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles.nngp import kernels

BAD_VALUES = {
    'num_ensemble': [0, -1, 2.5, True, None, '3', 2**31],
    'num_options': [0, (2, 2), (2, 0, 2), 1.5, [2, 2, 2], 2**31],
    'num_shared_layers': [-1, 3, 'all'],
    'num_index_samples': [0, 1.5, 2**31],
    'samples_per_dim': [0, 2**31], 'index_dim': [0, None, 2**31],
    'width': [0, 2.5, '8', 2**31],
    'prior_scale': [-1., float('nan'), float('inf'), None, '1'],
    'noise_scale': [-1., float('nan'), '1'],
    'init_scale': [-0.1], 'initial_std': [0., -1., float('nan'), '1'],
    'kl_weight': [-0.1, float('inf'), None],
    'first_bias_std': [-1., None, 'nngp'],
    'fast_std': [-0.5], 'beta': [-0.1, 1.1, None],
    'num_experts': [0, 1.5, 2**31], 'num_active': [0, 11, 2.5, '1'],
    'gate_sizes': [50, [50], (0,), (5.,)],
    'fast_learning_rate': [0., -1e-3, float('nan'), '1e-3'],
    'fast_init': ['uniform', None], 'index_scale': ['c', None],
    'body': ['lenet', None, ('mlp',)], 'norm': ['layer', None],
    'plain_member': [1, None], 'train_shared_by_plain': [1, None],
    'noise_by': ['last_option'], 'sigma_0': [0., -1., float('nan')],
    'dropout_rate': [1., -0.1, float('nan'), None], 'dropout_input': [1, None],
    'weight_decay_scale': [-1.], 'analytic': [0, 'yes'],
    'reference': ['posterior'],
    'hidden_sizes': [50, [50], (0,), (5.,)],
    'learning_rate': [0., -1e-3, float('nan'), '1e-3'],
    'final_learning_rate': [-1e-6, 0.1, float('nan'), '1e-6'],
    'activation': ['gelu', None], 'activation_mode': ['end+mean', '', None],
    'global_std_mode': ['add', None],
    'global_std': [-1., float('nan'), float('inf'), None, '2'],
    'loss_function': ['elbo', None],
    'num_batches': [0, 1.5], 'batch_size': [0, None],
    'sampling': ['shuffle', None], 'optimizer': ['rmsprop', None],
    'momentum': [1., -0.1, None], 'nesterov': [1, None],
    'l2': [-1., float('nan'), None], 'decay_factor': [-0.1, float('inf')],
    'patience': [-1, 0.5], 'validate_every': [0, None],
    'min_delta': [-1., None], 'validate_by': ['luck'],
    'decay_at': [0.5, (0.5, 0.2), (0., 0.5), (0.5, 1.), ('0.5',)],
    'weight_decay': [-1., float('nan'), None], 'bootstrap': [1, None],
    'decay_from_start': [1, None, True],  # True beside a prior network.
    'start_at_network': [1, None],
}


@pytest.mark.parametrize('name', NAMES)
def test_bad_settings_are_named_with_their_agent(name):
  module = agents_lib.load_agent(name)
  fields = [f.name for f in dataclasses.fields(module.config_class)]
  assert set(fields) <= set(BAD_VALUES)  # A new setting is tested too.
  agents_lib.make_config(module, {})
  for field, value in ((f, v) for f in fields for v in BAD_VALUES[f]):
    with pytest.raises(ValueError, match=field) as info:
      agents_lib.make_config(module, {field: value})
    assert str(info.value).startswith(f"agent '{name}': ")
    assert 'got' in str(info.value) and '\n' not in str(info.value)


@pytest.mark.parametrize('name', NAMES)
def test_configs_are_frozen_and_hashable(name):
  config = make_config(name)
  assert hash(config) == hash(make_config(name)) and config == make_config(name)
  field = dataclasses.fields(config)[0].name
  with pytest.raises(dataclasses.FrozenInstanceError):
    setattr(config, field, 1)


def test_more_combinations_than_can_be_listed_are_refused():
  with pytest.raises(ValueError, match='num_options must have at most 1048576 '
                                       'combinations, got 21870000000 of'):
    make_agent('layer_ensemble', num_options=30, hidden_sizes=(50,) * 6)


@pytest.mark.parametrize('name, known, missing', [
    ('exact_posterior', {'kernel': None}, 'exact_posterior needs .* kernel'),
    ('prior_only', {'kernel': None}, 'prior_only needs .* kernel'),
    ('exact_posterior', {'likelihood': base.Gaussian(None)},
     'exact_posterior needs .* noise_std is a known number, got None'),
    ('exact_posterior', {'likelihood': base.Gaussian(np.ones_like)},
     'exact_posterior needs .* noise_std is a known number'),
    ('ensemble', {'likelihood': base.Gaussian(np.ones_like)},
     'noise_scale .* noise_std is a known number')])
def test_what_an_agent_must_know_is_named(name, known, missing):
  prior = base.PriorKnowledge(**{
      'input_shape': (2,), 'num_train': 5, 'likelihood': base.Gaussian(0.1),
      'kernel': kernels.KernelConfig(), **known})
  with pytest.raises(ValueError, match=missing):
    make_agent(name)(base.Data(X, X[:, :1]), prior, KEY)


def test_unknown_settings_and_agents_are_named_with_what_is_allowed():
  with pytest.raises(ValueError, match="no setting 'dropout'.*hidden_sizes"):
    agents_lib.make_config(agents_lib.load_agent('map'), {'dropout': 0.1})
  with pytest.raises(ValueError, match="one of batch_ensemble,.*'vgg'"):
    agents_lib.load_agent('vgg')
