"""Indexers, and how those of DeepMind's enn are known by their class."""

import dataclasses
import sys
import types

import jax
import numpy as np
import pytest

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.agents import layer_ensemble
from enn_ensembles.training import regression


@dataclasses.dataclass
class EnsembleIndexer:
  """The fields of theirs."""
  num_ensemble: int


@dataclasses.dataclass
class GaussianIndexer:
  index_dim: int


@dataclasses.dataclass
class ScaledGaussianIndexer:
  index_dim: int
  index_scale: float = 1.


@dataclasses.dataclass
class GaussianWithUnitIndexer:
  index_dim: int


@dataclasses.dataclass
class PrngIndexer:
  pass


@pytest.fixture(name='theirs')
def load_theirs(monkeypatch):
  """As if DeepMind's enn were loaded."""
  module = types.ModuleType('enn.networks.indexers')
  for indexer in (EnsembleIndexer, GaussianIndexer, ScaledGaussianIndexer,
                  GaussianWithUnitIndexer, PrngIndexer):
    setattr(module, indexer.__name__, indexer)
  monkeypatch.setitem(sys.modules, 'enn.networks.indexers', module)


OURS = [(networks.EnsembleIndexer(3), EnsembleIndexer(3)),
        (networks.GaussianIndexer(4), GaussianIndexer(4)),
        (networks.GaussianIndexer(4, 0.5), ScaledGaussianIndexer(4)),
        (networks.GaussianIndexer(4, 0.7), None),  # Theirs has no such noise.
        (networks.PrngIndexer(), PrngIndexer()),
        (layer_ensemble.LayerEnsembleIndexer((2, 3)), None)]


@pytest.mark.parametrize('ours, expected', OURS)
def test_ours_have_theirs_where_theirs_is_loaded(theirs, ours, expected):
  assert getattr(ours, 'indexer', None) == expected


def test_where_theirs_is_not_loaded_ours_have_none(monkeypatch):
  monkeypatch.delitem(sys.modules, 'enn.networks.indexers', raising=False)
  assert not any(hasattr(ours, 'indexer') for ours, _ in OURS)
  assert base.get_support(EnsembleIndexer(3)) is None
  assert networks.noise_indexer(EnsembleIndexer(3)) is None


def test_their_ensembles_are_listed(theirs):
  np.testing.assert_array_equal(base.get_support(EnsembleIndexer(3)),
                                [0, 1, 2])
  for indexer in (GaussianIndexer(3), PrngIndexer()):
    assert base.get_support(indexer) is None


@pytest.mark.parametrize('indexer, std', [
    (GaussianIndexer(6), 1.), (ScaledGaussianIndexer(6, 2.), 2 / 6**0.5),
    (GaussianWithUnitIndexer(7), 6**-0.5)])
def test_noise_of_their_indices_has_mean_square_norm_1(theirs, indexer, std):
  z = std * np.random.default_rng(0).standard_normal((20000, 6))
  if isinstance(indexer, GaussianWithUnitIndexer):
    z = np.concatenate([np.ones((len(z), 1)), z], axis=1)
  noise = networks.noise_indexer(indexer)
  embedding = noise.noise_embedding(z)
  assert embedding.shape == (20000, noise.noise_dim) == (20000, 6)
  np.testing.assert_allclose(np.mean(np.sum(embedding**2, axis=1)), 1.,
                             rtol=0.02)


def test_noise_of_their_members_is_one_hot(theirs):
  noise = networks.noise_indexer(EnsembleIndexer(3))
  np.testing.assert_array_equal(noise.noise_embedding(np.array([2, 0])),
                                [[0, 0, 1], [1, 0, 0]])
  assert networks.noise_indexer(PrngIndexer()) is None


def test_their_network_takes_target_noise(theirs):
  network = networks.make_member_network([1], 3)
  network = dataclasses.replace(network, indexer=EnsembleIndexer(3),
                                apply_indices=None)
  x, y = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
  params, state = network.init(jax.random.PRNGKey(0), x, 0)
  loss = regression.make_loss(noise_std=10.)
  context = loss.prepare(network, params, state, base.Data(x, y),
                         jax.random.PRNGKey(1))
  value, _ = loss.evaluate(network, params, state, context,
                           base.Batch(x, y, np.arange(4)),
                           jax.random.PRNGKey(2))
  assert context.offsets.shape == (4, 3, 1)  # A draw per point and member.
  outputs, _ = base.apply_indices(network, params, state, x, None)
  outputs = np.asarray(base.get_predictions(outputs))
  expected = np.mean((np.swapaxes(outputs, 0, 1) + context.offsets)**2)
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_numbers_of_indices_are_indices():
  network = layer_ensemble.make_network(layer_ensemble.LayerEnsembleConfig(
      num_options=2, hidden_sizes=(3,)))
  numbered = networks.number_indices(network)
  x = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
  params, state = numbered.init(jax.random.PRNGKey(0), x, 1)
  expected, _ = base.apply_indices(network, params, state, x, None)
  expected = np.asarray(base.get_predictions(expected))
  assert len(expected) == 4
  assert numbered.indexer == networks.EnsembleIndexer(4)
  for number in range(4):
    out, _ = numbered.apply(params, state, x, number)
    np.testing.assert_allclose(base.get_predictions(out), expected[number],
                               rtol=1e-6, atol=1e-6)
  out, _ = base.apply_indices(numbered, params, state, x, np.array([3, 1]))
  np.testing.assert_allclose(base.get_predictions(out), expected[[3, 1]],
                             rtol=1e-6, atol=1e-6)
  with pytest.raises(ValueError, match='finitely many indices'):
    networks.number_indices(dataclasses.replace(
        network, indexer=networks.PrngIndexer()))


@pytest.mark.parametrize('arguments, message', [
    ((0,), 'index_dim must be an integer >= 1, got 0'),
    ((1.5,), 'index_dim must be an integer >= 1, got 1.5'),
    ((2, 0.), 'std must be a finite number > 0, got 0.0')])
def test_indices_that_cannot_be_drawn_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    networks.GaussianIndexer(*arguments)


def test_indices_of_any_form_are_counted():
  class Pairs:
    """Seven indices, each a dict of two."""

    def __call__(self, key):
      raise NotImplementedError

    def support(self):
      return {'a': np.arange(7), 'b': np.ones((7, 2))}

  assert base.count_support(Pairs()) == 7
  assert base.count_support(networks.EnsembleIndexer(5)) == 5
  assert base.count_support(networks.GaussianIndexer(3)) is None
