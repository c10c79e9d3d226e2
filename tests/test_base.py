"""The contracts: outputs with a prior, forwards over indices, config hashes."""

import dataclasses
import hashlib
import json
import sys
import types
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_ensembles import base
from enn_ensembles import outputs
from enn_ensembles.machine import canonical


@dataclasses.dataclass(frozen=True)
class Config:
  rate: float = 0.5
  sizes: tuple = (50, 50)
  inner: object = None


class ThreeIndexer:

  def __call__(self, key):
    return jax.random.randint(key, [], 0, 3)

  def support(self):
    return np.arange(3)


def make_network(indexer, **fields):
  """f(x, z) = theta[z] x, with the prior 10 z."""

  def apply(params, state, x, z):
    prior = jnp.full_like(x, 10.) * z
    return outputs.OutputWithPrior(params[z] * x, prior), state

  return base.EpistemicNetwork(apply, None, indexer, **fields)


def test_predictions_add_the_prior_and_stop_its_gradient():
  def f(theta, function):
    return function(outputs.OutputWithPrior(train=2. * theta, prior=3. * theta))

  for function in (base.get_predictions,
                   lambda out: sum(base.split_output(out))):
    value, gradient = jax.value_and_grad(f)(7., function)
    assert value == 35.
    assert gradient == 2.


def test_plain_outputs_have_no_prior():
  out = jnp.arange(3.)
  train, prior = base.split_output(out)
  np.testing.assert_array_equal(base.get_predictions(out), out)
  np.testing.assert_array_equal(train, out)
  np.testing.assert_array_equal(prior, np.zeros(3))


def test_make_output_takes_the_class_of_deepminds_enn_where_it_is_loaded(
    monkeypatch):
  assert type(outputs.make_output(1., 2.)) is outputs.OutputWithPrior

  class Theirs(NamedTuple):
    train: Any
    prior: Any
    extra: Any = None

  module = types.ModuleType('enn.networks.base')
  monkeypatch.setitem(sys.modules, 'enn.networks.base', module)
  # A module without such a class is somebody else's.
  assert type(outputs.make_output(1., 2.)) is outputs.OutputWithPrior
  module.OutputWithPrior = Theirs
  assert outputs.make_output(1., 2.) == Theirs(train=1., prior=2.)


def test_apply_indices_maps_apply_over_given_or_all_indices():
  network = make_network(ThreeIndexer())
  theta, x = jnp.array([1., 2., 3.]), jnp.array([[1.], [5.]])
  indices = np.array([2, 0])
  out, state = base.apply_indices(network, theta, {'a': 1}, x, indices)
  assert state == {'a': 1}
  np.testing.assert_array_equal(out.train, [[[3.], [15.]], [[1.], [5.]]])
  np.testing.assert_array_equal(out.prior, [[[20.], [20.]], [[0.], [0.]]])
  out, _ = base.apply_indices(network, theta, {}, x, None)
  np.testing.assert_array_equal(out.train[:, 0, 0], theta)


def test_apply_indices_prefers_the_networks_own():
  network = make_network(ThreeIndexer(), apply_indices=lambda *args: args)
  assert base.apply_indices(network, 1, 2, 3, 4) == (1, 2, 3, 4)


def test_apply_indices_needs_indices_where_there_is_no_support():
  network = make_network(lambda key: 0)
  with pytest.raises(ValueError, match='indices must be given'):
    base.apply_indices(network, jnp.ones(3), (), jnp.ones((2, 1)), None)


def test_support_is_optional():
  assert base.get_support(lambda key: 0) is None
  np.testing.assert_array_equal(base.get_support(ThreeIndexer()), [0, 1, 2])


@pytest.mark.parametrize('one, other', [
    (Config(), {'inner': None, 'sizes': [50, 50], 'rate': 0.5}),
    (Config(rate=1), Config(rate=1.)),
    (Config(rate=np.float64(0.1)), Config(rate=0.1)),
    (Config(sizes=(np.int32(3),)), Config(sizes=(3,))),
    (Config(inner=Config()), Config(inner=dataclasses.asdict(Config()))),
])
def test_one_setting_has_one_hash(one, other):
  assert canonical.config_hash(one) == canonical.config_hash(other)


@pytest.mark.parametrize('other', [
    Config(rate=0.5000001), Config(sizes=(50,)), Config(sizes=(50, 51)),
    Config(inner=''), Config(inner=0), Config(inner=False)])
def test_different_settings_have_different_hashes(other):
  assert canonical.config_hash(Config()) != canonical.config_hash(other)


def test_hash_is_sha256_of_sorted_json():
  config = {'b': (1, 2.5), 'a': {'y': True, 'x': None}}
  text = '{"a":{"x":null,"y":true},"b":[1,2.5]}'
  assert canonical.canonical_json(config) == text
  assert json.loads(text) == {'a': {'x': None, 'y': True}, 'b': [1, 2.5]}
  assert (canonical.config_hash(config)
          == hashlib.sha256(text.encode()).hexdigest()[:10])


@dataclasses.dataclass(frozen=True)
class LaterConfig(Config):
  weight: float = canonical.later_field(1.)


def test_a_later_field_is_named_where_it_has_another_value():
  fields = {'inner': None, 'sizes': (50, 50), 'rate': 0.5}
  assert canonical.named_fields(LaterConfig()) == fields
  assert canonical.named_fields(LaterConfig(weight=1)) == fields
  assert canonical.named_fields(LaterConfig(weight=2.)) == {
      **fields, 'weight': 2.}
  assert canonical.named_fields(LaterConfig(weight=2.), ('rate',)) == {
      'inner': None, 'sizes': (50, 50), 'weight': 2.}
  # Also within other configs; a field that was always there is always named.
  for one, other in ((LaterConfig(), Config()),
                     (Config(inner=LaterConfig()), Config(inner=Config()))):
    assert canonical.canonical_json(one) == canonical.canonical_json(other)
  assert json.loads(canonical.canonical_json(
      {'config': [LaterConfig(weight=0.5)]}))['config'][0]['weight'] == 0.5


@pytest.mark.parametrize('value', [
    float('nan'), float('inf'), len, np.zeros(2), 1j, Config])
def test_a_config_holds_plain_values_only(value):
  with pytest.raises(ValueError):
    canonical.canonical_json({'field': value})
