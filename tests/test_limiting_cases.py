"""Agents that are one another in a limit compute the same, trained or not."""

import functools

from haiku_mlps import check_equal
from haiku_mlps import haiku_mlp
from haiku_mlps import HIDDEN
from haiku_mlps import make_stack
from haiku_mlps import name_layers
from haiku_mlps import random_mlp
from haiku_mlps import RNG
from haiku_mlps import to_stack
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_agents import DATA_X
from tiny_agents import DATA_Y
from tiny_agents import KEY
from tiny_agents import KEYS
from tiny_agents import make_agent
from tiny_agents import NOISE_STDS
from tiny_agents import predict
from tiny_agents import PRIOR
from tiny_agents import X

from enn_ensembles import base
from enn_ensembles.agents import batch_ensemble
from enn_ensembles.agents import deep_sub_ensemble
from enn_ensembles.agents import ensemble
from enn_ensembles.agents import map as map_agent
from enn_ensembles.training import loop


def test_map_is_an_mlp():
  layers = random_mlp()
  network = map_agent.make_network(map_agent.MapConfig(hidden_sizes=HIDDEN))
  check_equal(network, name_layers('stacked_mlp', layers), {}, None,
              [haiku_mlp(layers)])


def test_layer_ensemble_of_one_option_is_an_mlp():
  layers = random_mlp()
  network = make_stack(1)
  assert network.indexer.support().tolist() == [[0, 0, 0]]
  check_equal(network, to_stack(layers), {}, None, [haiku_mlp(layers)])
  prior = random_mlp()
  check_equal(make_stack(1, prior_scale=2.), to_stack(layers),
              {'network': {}, 'prior_params': to_stack(prior),
               'prior_state': {}}, None,
              [haiku_mlp(layers) + 2. * haiku_mlp(prior)])


def make_members(num, num_shared_layers=None, prior_scale=0.):
  if num_shared_layers is None:
    return ensemble.make_network(ensemble.EnsembleConfig(
        num_ensemble=num, hidden_sizes=HIDDEN, prior_scale=prior_scale), PRIOR)
  return deep_sub_ensemble.make_network(
      deep_sub_ensemble.DeepSubEnsembleConfig(
          num_ensemble=num, num_shared_layers=num_shared_layers,
          hidden_sizes=HIDDEN, prior_scale=prior_scale))


def test_ensemble_is_its_mlps_and_a_sub_ensemble_without_trunk_is_one():
  layers, prior = random_mlp(3), random_mlp(3)
  state = {'network': {}, 'prior_params': name_layers('stacked_mlp', prior),
           'prior_state': {}}
  expected = [haiku_mlp(layers, k) + 1.5 * haiku_mlp(prior, k)
              for k in range(3)]
  for network in (make_members(3, prior_scale=1.5),
                  make_members(3, 0, prior_scale=1.5)):
    check_equal(network, name_layers('stacked_mlp', layers), state, None,
                expected)


def test_layer_ensemble_on_the_diagonal_is_a_deep_ensemble():
  layers = random_mlp(3)
  members = [haiku_mlp(layers, k) for k in range(3)]
  diagonal = np.arange(3)[:, None].repeat(3, 1)
  check_equal(make_stack(3), to_stack(layers), {}, diagonal, members)
  check_equal(make_members(3), name_layers('stacked_mlp', layers), {}, None,
              members)


@pytest.mark.parametrize('num_shared_layers', [1, 2])
def test_sub_ensemble_is_a_layer_ensemble_with_one_option_in_its_trunk(
    num_shared_layers):
  layers = [w[:1] if i < num_shared_layers else w
            for i, w in enumerate(random_mlp(3))]
  options = tuple(len(w) for w in layers)
  tails = np.minimum(np.arange(3)[:, None], np.array(options) - 1)
  stack = predict(make_stack(options), to_stack(layers), {}, tails)
  check_equal(make_members(3, num_shared_layers),
              name_layers('stacked_mlp', layers), {}, None, stack)
  whole = [np.broadcast_to(w, (3, *w.shape[1:])) for w in layers]
  check_equal(make_members(3), name_layers('stacked_mlp', whole), {}, None,
              stack)


def test_batch_ensemble_with_unit_fast_weights_is_an_mlp():
  layers = random_mlp()
  config = batch_ensemble.BatchEnsembleConfig(
      num_ensemble=2, hidden_sizes=HIDDEN, prior_scale=0.)
  network = batch_ensemble.make_network(config)
  params, _ = jax.jit(lambda: network.init(KEY, X[:1], 0))()
  (module, parts), = params.items()
  for i, w in enumerate(layers):
    parts.update({
        f'w_{i}': w[0, :, :-1], f'r_{i}': np.ones(parts[f'r_{i}'].shape),
        f's_{i}': np.ones(parts[f's_{i}'].shape),
        f'b_{i}': np.stack([w[0, :, -1:]] * 2)})
  check_equal(network, {module: parts}, {}, None, [haiku_mlp(layers)] * 2)
  # With a member's own fast weights, that is W o (r s^T).
  parts['r_1'] = RNG.standard_normal(parts['r_1'].shape)
  parts['s_1'] = RNG.standard_normal(parts['s_1'].shape)
  members = []
  for k in range(2):
    mask = np.outer(parts['r_1'][k], parts['s_1'][k])
    own = layers[1].copy()
    own[0, :, :-1] *= mask
    members.append(haiku_mlp([layers[0], own, layers[2]]))
  check_equal(network, {module: parts}, {}, None, members)


@functools.lru_cache(None)
def train_limit(name, **settings):
  """Trained float64 parameters of one problem, layers as [K, out, in + 1]."""
  agent = make_agent(name, num_batches=20, **settings)
  trained = loop.train(agent, DATA_X[:1], DATA_Y[:1, :1],
                       base.Gaussian(NOISE_STDS[:1]), KEYS[:1],
                       dtype=jnp.float64)
  (layers,) = jax.tree.map(lambda a: a[0, 0], trained.params).values()
  return [np.swapaxes(w, 0, 1) if name == 'layer_ensemble' else np.asarray(w)
          for w in layers.values()]


@pytest.mark.parametrize('name, settings', [
    ('ensemble', (('num_ensemble', 1), ('prior_scale', 0.),
                  ('noise_scale', 0.))),
    ('layer_ensemble', (('num_options', 1), ('prior_scale', 0.),
                        ('noise_scale', 0.))),
    ('mc_dropout', (('dropout_rate', 0.), ('weight_decay_scale', 0.),
                    ('first_bias_std', 1.)))])
def test_one_member_without_prior_or_noise_trains_to_map(name, settings):
  for a, b in zip(train_limit(name, **dict(settings)), train_limit('map'),
                  strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_sub_ensemble_without_trunk_trains_to_the_deep_ensemble():
  for a, b in zip(train_limit('deep_sub_ensemble', num_shared_layers=0),
                  train_limit('ensemble'), strict=True):
    assert len(a) == 3
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_layer_ensemble_of_one_option_trains_to_the_deep_ensemble_of_one():
  # With prior and target noise, from the same draws.
  for a, b in zip(train_limit('layer_ensemble', num_options=1),
                  train_limit('ensemble', num_ensemble=1),
                  strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
