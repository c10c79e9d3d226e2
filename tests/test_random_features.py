"""Random features: their kernel, their last layer, and their distribution."""

import jax
import numpy as np
import pytest
import references

from enn_ensembles import base
from enn_ensembles import problems
from enn_ensembles.agents import random_features
from enn_ensembles.machine import bounded_cache
from enn_ensembles.nngp import kernels
from enn_ensembles.training import sampler_predictions

_KEY = jax.random.PRNGKey(0)
_RELU = kernels.KernelConfig()


def _data(num=12, input_dim=3):
  rng = np.random.default_rng(0)
  return base.Data(rng.standard_normal((num, input_dim)),
                   rng.standard_normal((num, 1)))


def _sampler(data, kernel=_RELU, noise_std=0.1, key=_KEY,
             **settings):
  agent = random_features.make_agent(
      random_features.RandomFeaturesConfig(**settings))
  return agent(data, base.PriorKnowledge(
      data.x.shape[1:], len(data.x), base.Gaussian(noise_std), kernel), key)


@pytest.mark.parametrize('kernel', [
    kernels.KernelConfig(),
    kernels.KernelConfig(num_hidden_layers=1, first_bias=0.),
    kernels.KernelConfig(3, 'erf', 1.4, 0.7)])
def test_features_have_the_kernel(kernel):
  x = _data(6).x
  grams = []
  for seed in range(60):
    phi = np.concatenate(list(
        random_features.Network(kernel, 512, (seed,)).features(x)))
    grams.append(phi @ phi.T)
  standard_error = np.std(grams, axis=0) / np.sqrt(60)
  # The mean over networks of a finite width is off by about 1 / width.
  np.testing.assert_array_less(
      np.abs(np.mean(grams, axis=0) - kernels.nngp(kernel, x)),
      4.5 * standard_error + 0.01)


@pytest.mark.parametrize('width, block', [(40, 4096), (8, 4096), (8, 5)])
def test_last_layer_is_ridge_regression(width, block, monkeypatch):
  """More units than points, fewer, and in blocks; a gradient of zero."""
  data = _data()
  rng = np.random.default_rng(1)
  start, noise = rng.standard_normal(width), rng.standard_normal(12)
  network = random_features.Network(kernels.KernelConfig(), width, (0,))
  phi = np.concatenate(list(network.features(data.x)))
  monkeypatch.setattr(random_features, '_BLOCK', block)
  w = random_features.fit_last_layer(network, data, 0.3, start, noise)
  misfit = data.y[:, 0] + 0.3 * noise - phi @ w
  gradient = -phi.T @ misfit / 0.3**2 + (w - start)
  np.testing.assert_allclose(gradient, 0., atol=1e-5)


def test_members_are_draws_of_the_posterior_of_their_features():
  """Over starts and noises, for one network: mean and covariance."""
  data, x = _data(), _data(5).x[:3] + 1.
  network = random_features.Network(kernels.KernelConfig(), 50, (0,))
  phi, phi_x = (np.concatenate(list(network.features(points)))
                for points in (data.x, x))
  mean, covariance = references.gp_posterior(
      phi @ phi.T, phi_x @ phi.T, phi_x @ phi_x.T, data.y[:, 0], 0.3**2)
  rng = np.random.default_rng(0)
  draws = np.array([
      phi_x @ random_features.fit_last_layer(
          network, data, 0.3, rng.standard_normal(50), rng.standard_normal(12))
      for _ in range(2000)])
  variances = np.diag(covariance)
  assert np.all(np.abs(draws.mean(0) - mean) < 4 * np.sqrt(variances / 2000))
  standard_error = np.sqrt(
      (covariance**2 + np.outer(variances, variances)) / 2000)
  assert np.all(np.abs(np.cov(draws.T) - covariance) < 4 * standard_error)


def test_wide_ensembles_score_near_their_floor():
  problem, = problems.make_problems([problems.ProblemConfig(
      10, 1, 0.1, 0, num_test=300, num_val=2)])
  sampler = _sampler(problem.data, num_ensemble=30, width=512)
  scores = problem.score(lambda x: sampler_predictions.predict(
      sampler, x, _KEY, 1000))
  # All 30 members, each once: the floor is that of 30 draws, 0.040.
  assert scores['kl_floor'] == pytest.approx(0.040, abs=5e-4)
  assert scores['kl_estimate'] < 0.09
  assert scores['joint_kl_dyadic_tau10'] < (
      3 * scores['joint_kl_dyadic_tau10_floor'])


def test_sampler_contract():
  data = _data()
  x = _data(5).x
  sampler = _sampler(data, num_ensemble=4, width=20)
  members = sampler.members(x)
  assert members.shape == (4, 5, 1) and members.dtype == np.float64
  assert len(np.unique(members)) == 20
  # A key picks one of them, the same wherever it is asked.
  seen = set()
  for key in jax.random.split(_KEY, 40):
    draw = sampler(x, key)
    k, = np.flatnonzero((members == draw).all((1, 2)))
    seen.add(int(k))
    np.testing.assert_allclose(sampler(x[2:4], key), draw[2:4], rtol=1e-4,
                               atol=1e-5)
  assert seen == {0, 1, 2, 3}
  again = _sampler(data, num_ensemble=4, width=20)
  np.testing.assert_array_equal(again.members(x), members)
  other = _sampler(data, num_ensemble=4, width=20, key=jax.random.PRNGKey(1))
  assert np.all(other.members(x) != members)
  # More members do not change the first.
  more = _sampler(data, num_ensemble=5, width=20)
  np.testing.assert_array_equal(more.members(x)[:4], members)


def _count_drawn(monkeypatch):
  """A list that grows by one whenever hidden layers are drawn."""
  drawn, philox = [], np.random.Philox
  monkeypatch.setattr(np.random, 'Philox',
                      lambda seed: drawn.append(seed) or philox(seed))
  return drawn


def _own_members(sampler, x):
  """Members from features that nobody keeps, [K, n, 1]."""
  return np.stack([np.concatenate(list(random_features.Network(
      network.kernel, network.width, network.seed).features(x))) @ w[:, None]
                   for network, w in zip(sampler.networks,
                                         sampler.last_layers)])


def test_noise_levels_and_calls_share_features(monkeypatch):
  data, x = _data(), _data(5).x
  agent = random_features.make_agent(
      random_features.RandomFeaturesConfig(3, 20))

  def train(noise_std=0.1, kernel=_RELU, key=_KEY):
    return agent(data, base.PriorKnowledge(
        (3,), 12, base.Gaussian(noise_std), kernel), key)

  drawn = _count_drawn(monkeypatch)
  first = train()
  members = first.members(x)
  assert len(drawn) == 6  # Three networks at training points and at x.
  np.testing.assert_array_equal(first.members(x.copy()), members)
  second = train(1.)
  others = second.members(x)
  assert len(drawn) == 6
  for key in jax.random.split(_KEY, 4):
    first(x, key)
  assert len(drawn) == 6
  first.members(x[:2])
  assert len(drawn) == 9  # Points that nobody asked for before.
  assert np.all(others != members)
  np.testing.assert_array_equal(others, _own_members(second, x))
  # A sampler stays what it was when its agent learns from another key, or with
  # another kernel and the same key.
  third = train(key=jax.random.PRNGKey(1))
  np.testing.assert_array_equal(first.members(x), members)
  fourth = train(kernel=kernels.KernelConfig(1))
  for sampler in (third, fourth):
    np.testing.assert_array_equal(sampler.members(x),
                                  _own_members(sampler, x))
  np.testing.assert_array_equal(first.members(x), members)


def test_features_are_kept_up_to_a_bound(monkeypatch):
  """Two networks at x fit, the third is drawn whenever it is needed."""
  x = _data(5).x
  drawn = _count_drawn(monkeypatch)
  kept = bounded_cache.BoundedCache(2 * 5 * 20 * 4)
  networks = [random_features.Network(_RELU, 20, (seed,), kept)
              for seed in range(3)]
  for times in (3, 4, 5):
    for network in networks:
      list(network.features(x))
    assert len(drawn) == times
  kept.use_for('something else')
  list(networks[2].features(x))
  list(networks[2].features(x))
  assert len(drawn) == 6


def test_layers_are_drawn_once_for_all_blocks(monkeypatch):
  x = _data().x
  network = random_features.Network(_RELU, 20, (0,))
  whole, = network.features(x)
  monkeypatch.setattr(random_features, '_BLOCK', 5)
  drawn = _count_drawn(monkeypatch)
  np.testing.assert_allclose(np.concatenate(list(network.features(x))), whole,
                             rtol=1e-5, atol=1e-6)
  assert len(drawn) == 1


@pytest.mark.parametrize('prior, message', [
    (dict(kernel=None), 'kernel is known, got kernel None'),
    (dict(noise_std=None), 'noise_std is a known number, got None'),
    (dict(noise_std=lambda x: x), 'noise_std is a known number, got <fun')])
def test_refuses_a_prior_that_says_too_little(prior, message):
  with pytest.raises(ValueError,
                     match=f'random_features needs a problem whose {message}'):
    _sampler(_data(), **prior)


@pytest.mark.parametrize('kernel, message', [
    (None, 'kernel is known'), (_RELU, 'noise_std is a known number')])
def test_refuses_classes(kernel, message):
  prior = base.PriorKnowledge((3,), 4, base.Categorical(2), kernel)
  agent = random_features.make_agent(random_features.RandomFeaturesConfig())
  with pytest.raises(ValueError,
                     match=f'random_features needs a problem whose {message}'):
    agent(_data(), prior, jax.random.PRNGKey(0))


@pytest.mark.parametrize('field', ['num_ensemble', 'width'])
def test_refuses_bad_settings(field):
  with pytest.raises(ValueError, match=field):
    random_features.RandomFeaturesConfig(**{field: 0})
