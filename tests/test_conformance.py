"""The conformance kit: every broken agent gets a message of its own."""

from collections.abc import Callable
import dataclasses
import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_ensembles import agents
from enn_ensembles import base
from enn_ensembles import conformance
from enn_ensembles.networks import indexers
from enn_ensembles.training import network_agent
from enn_ensembles.training import regression


def draw(x, key):
  return np.asarray(x).sum(1, keepdims=True) * jax.random.normal(key)


def wrong_shape(data, prior, key):
  return lambda x, key: draw(x, key)[:, 0]


def returns_none(data, prior, key):
  pass


def draws_none(data, prior, key):
  return lambda x, key: None


def draws_nan(data, prior, key):
  return lambda x, key: np.full((len(x), 1), np.nan)


def ignores_the_key(data, prior, key):
  return lambda x, key: x.sum(1, keepdims=True)


def draws_of_its_own(data, prior, key):
  random = np.random.default_rng()
  return lambda x, key: random.standard_normal((len(x), 1))


def raises(data, prior, key):
  raise KeyError('no such\nthing')


def sampler_raises(data, prior, key):
  return lambda x, key: 1 / 0


def changes_data(data, prior, key):
  data.y[0] = 0.
  return draw


def sampler_changes_x(data, prior, key):
  def sampler(x, key):
    x += 1.
    return draw(x, key)
  return sampler


def wrong_signature(data):
  return draw


def wrong_sampler_signature(data, prior, key):
  return lambda x: draw(x, key)


def complex_numbers(data, prior, key):
  return lambda x, key: draw(x, key) * 1j


@dataclasses.dataclass
class Analytic:
  """A sampler of exact moments, whose std is made from zeros [N]."""
  make_std: Callable[[np.ndarray], np.ndarray]
  analytic = True

  def __call__(self, x, key):
    return draw(x, key)

  def moments(self, x):
    return np.zeros(len(x)), self.make_std(np.zeros(len(x)))


def bad_moments(data, prior, key):
  return Analytic(lambda zeros: zeros[:, None])


def nan_moments(data, prior, key):
  return Analytic(lambda zeros: zeros + np.nan)


class Members:
  """A sampler with two members, whose other methods are given."""

  def __init__(self, **methods):
    vars(self).update(methods)

  def __call__(self, x, key):
    return x[:, :1] * (-1) ** int(key[-1])

  def members(self, x):
    return np.stack([x[:, :1], -x[:, :1]])


def draws_ignore_their_keys(data, prior, key):
  return Members(draws=lambda x, keys: np.ones((len(keys), len(x), 1)))


def draws_of_one_key(data, prior, key):
  return Members(draws=lambda x, keys: x[:, :1])


def negative_variances(data, prior, key):
  return Members(members_with_noise=lambda x: (
      np.ones((2, len(x), 1)), np.full((2, len(x), 1), -1.)))


def nan_variances(data, prior, key):
  return Members(members_with_noise=lambda x: (
      np.ones((2, len(x), 1)), np.full((2, len(x), 1), np.nan)))


def no_members(data, prior, key):
  return Members(members=lambda x: np.ones((0, len(x), 1)))


def not_mappable(data, prior, key):
  return Members(mappable=True)


def no_moments(data, prior, key):
  return Members(analytic=True)


def wrong_covariance(data, prior, key):
  sampler = Analytic(np.ones_like)
  sampler.joint_covariance = lambda x: np.ones(len(x))
  return sampler


def odd_covariance(data, prior, key):
  sampler = Analytic(np.ones_like)
  sampler.joint_covariance = lambda x: np.eye(len(x)) + np.triu(
      np.ones((len(x), len(x))), 1)
  return sampler


def other_draws(data, prior, key):
  def draws(x, keys):
    return 100. + np.stack([draw(x, key) for key in keys])
  sampler = lambda x, key: draw(x, key)
  sampler.draws = draws
  return sampler


def other_members(data, prior, key):
  return Members(members=lambda x: np.stack([3. * x[:, :1], x[:, 1:2]]))


def members_change_x(data, prior, key):
  def members(x):
    x *= 2.
    return np.stack([x[:, :1], -x[:, :1]])
  return Members(members=members)


BROKEN = {
    odd_covariance: 'covariances must be symmetric, got entries that differ',
    other_draws: 'draws(x, keys) has the draw of each key, got one that',
    other_members: 'a draw is one of members(x), got one that differs by',
    members_change_x: 'the sampler changed x: it must change a copy',
    draws_ignore_their_keys: 'got the same for 16 keys by draws(x, keys)',
    draws_of_one_key: 'draws must return shape (16, 7, 1) for 16 keys',
    negative_variances: 'must return variances >= 0, got -1',
    nan_variances: 'the variances of members_with_noise(x) is finite, got 14',
    no_members: 'members must return shape [K, 7, 1] at 7 points with K >= 1',
    not_mappable: 'the sampler raised ConcretizationTypeError',
    no_moments: 'must have moments(x), got a Members without',
    wrong_covariance: 'joint_covariance must return shape (7, 7)',
    wrong_shape: 'a draw has shape (7, 1) at 7 points, got (7,).',
    returns_none: 'an agent returns a sampler, a function of (x, key), got '
                  'None.',
    draws_none: 'a draw has shape (7, 1), got None.',
    draws_nan: 'a draw is finite, got 7 NaN or infinite of 7 values.',
    ignores_the_key: 'different keys give different functions, got the same '
                     'for 16 keys',
    draws_of_its_own: 'the same key gives the same function, got draws that '
                      'differ by',
    raises: "the agent raised KeyError: 'no such\\nthing'",
    sampler_raises: 'the sampler raised ZeroDivisionError: division by zero',
    changes_data: 'the agent changed data.y, which other agents learn from '
                  'too',
    sampler_changes_x: 'the sampler changed x',
    wrong_signature: 'an agent is called with (data, prior, key), got a '
                     'function of (data).',
    wrong_sampler_signature: 'a sampler is called with (x, key), got a '
                             'function of (x).',
    complex_numbers: 'a draw holds real numbers, got dtype complex',
    bad_moments: 'moments must return shape (7,) for mean and std at 7 points, '
                 'got (7,) and (7, 1).',
    nan_moments: 'the std of moments(x) is finite, got 7 NaN or infinite of 7 '
                 'values.',
}


@pytest.mark.parametrize('agent', BROKEN)
def test_a_broken_agent_is_named_with_its_rule(agent):
  with pytest.raises(ValueError) as error:
    conformance.check_agent(agent)
  text = str(error.value)
  assert text.startswith('agent test_conformance.py: ')
  assert BROKEN[agent] in text and '\n' not in text


def test_moments_are_of_one_real_output():
  for likelihood in (base.Gaussian(0.1, 3), base.Categorical(4)):
    with pytest.raises(ValueError, match='analytic = True is for one real'):
      conformance.check_agent(lambda *_: Analytic(np.ones_like),
                              base.PriorKnowledge((3,), 8, likelihood))


def test_the_prior_has_a_likelihood():
  with pytest.raises(ValueError, match="likelihood must be .* got 'gaussian'"):
    conformance.check_agent(returns_none,
                            base.PriorKnowledge((3,), 5, 'gaussian'))


def test_a_partial_is_named_by_its_functions_file():
  with pytest.raises(ValueError, match='^agent test_conformance.py: an agent'):
    conformance.check_agent(functools.partial(returns_none))
  with pytest.raises(ValueError, match=r'^agent array\(\[\[0') as error:
    conformance.check_agent(np.zeros((2, 2)))
  assert '\n' not in str(error.value)


def test_samplers_are_called_in_64_bit_mode(restore_jax_flags):
  jax.config.update('jax_enable_x64', False)
  seen = []

  def sampler(x, key):
    seen.append(jnp.asarray(x).dtype)
    return draw(x, key)
  conformance.check_agent(lambda *_: sampler)
  assert set(seen) == {jnp.dtype('float64')}


def test_messages_differ():
  assert len(set(BROKEN.values())) == len(BROKEN)


def forward(x, z):
  return hk.nets.MLP([5, 1])(x) + z[0] * hk.Linear(1)(x)


def agent_of(transformed):
  """An agent of a Haiku function that somebody has transformed."""
  transformed = hk.without_apply_rng(transformed)
  network = base.EpistemicNetwork(
      apply=transformed.apply, init=transformed.init,
      indexer=indexers.GaussianIndexer(2))
  return network_agent.NetworkAgent(
      make_network=lambda prior: network,
      make_loss=lambda prior: regression.make_loss(num_index_samples=2))


def test_a_network_without_state_is_told_what_it_needs():
  with pytest.raises(ValueError, match='init returns .params, state., as that '
                     'of hk.transform_with_state, got a dict'):
    conformance.check_agent(agent_of(hk.transform(forward)))


def test_a_network_that_wants_an_rng_is_told_so():
  agent = agent_of(hk.transform_with_state(forward))
  network = agent.make_network(None)
  stateful = hk.transform_with_state(forward)
  agent = dataclasses.replace(
      agent, make_network=lambda prior: dataclasses.replace(
          network, apply=stateful.apply))
  with pytest.raises(ValueError, match='without its rng'):
    conformance.check_agent(agent)


def test_a_haiku_network_passes():
  conformance.check_agent(agent_of(hk.transform_with_state(forward)))


@pytest.mark.parametrize('name', ['ensemble', 'exact_posterior', 'map'])
def test_agents_of_the_package_pass(name):
  conformance.check_agent(agents.from_settings(name, {}))


def test_the_problem_is_the_sweeps_own():
  seen = []

  def agent(data, prior, key):
    seen.append((data.x.shape, data.y.shape, prior.num_train))
    return lambda x, key: np.asarray(
        jax.random.normal(key, (len(x), 4)), np.float32)

  conformance.check_agent(
      agent, base.PriorKnowledge((6, 6, 1), 1000, base.Categorical(4)))
  assert seen == [((20, 6, 6, 1), (20,), 20)]


def test_float64_draws_are_fine():
  conformance.check_agent(
      lambda data, prior, key:
      lambda x, key: jnp.asarray(x[:, :1]) * jax.random.normal(key))


def test_training_that_few_points_do_not_fit_is_no_mistake():
  """Early stopping, an epoch of large batches, snapshots after steps."""
  for settings in ({'validate_every': 5, 'patience': 1, 'num_batches': 40},
                   {'sampling': 'epochs', 'batch_size': 128}):
    made = agents.from_settings('map', settings)
    conformance.check_agent(made)
  conformance.check_agent(dataclasses.replace(made, snapshots=(0, 500)))
