"""Trained last layers: their features, their minimum, and Adam's way there."""

import jax
import numpy as np
import pytest
import references

from enn_ensembles import base
from enn_ensembles.nngp import kernels
from enn_ensembles.studies.random_features import trained_last_layer

_KEY = jax.random.PRNGKey(0)


def _data(num=6, input_dim=3):
  rng = np.random.default_rng(0)
  return base.Data(rng.standard_normal((num, input_dim)),
                   rng.standard_normal((num, 1)))


def _prior(data, noise_std=0.3):
  return base.PriorKnowledge(data.x.shape[1:], len(data.x),
                             base.Gaussian(noise_std))


@pytest.mark.parametrize('kernel', [
    kernels.KernelConfig(), kernels.KernelConfig(1, 'erf', 1.4, 0.7)])
def test_untrained_members_are_draws_of_the_prior(kernel):
  x = _data().x
  config = trained_last_layer.TrainedLastLayerConfig(num_ensemble=3000,
                                                     width=30)
  network = trained_last_layer.make_network(config, kernel)
  params, state = network.init(_KEY, x, 0)
  out, _ = network.apply_indices(params, state, x, None)
  draws = np.asarray(base.get_predictions(out), np.float64)[..., 0]
  expected = np.asarray(kernels.nngp(kernel, x))
  found = draws.T @ draws / 3000
  variances = np.diag(expected)
  # Wide tails of finite networks: twice the error of Gaussian draws.
  error = 2 * np.sqrt((expected**2 + np.outer(variances, variances)) / 3000)
  assert np.all(np.abs(found - expected) < 4 * error)
  np.testing.assert_array_equal(base.split_output(out)[0], 0.)
  one, _ = network.apply(params, state, x, 7)
  np.testing.assert_allclose(base.get_predictions(one)[:, 0], draws[7],
                             rtol=1e-5, atol=1e-5)


def test_adam_comes_to_the_solution():
  """Trained long enough, members solve the ridge regression towards start."""
  data = _data()
  config = trained_last_layer.TrainedLastLayerConfig(
      num_ensemble=300, width=40, num_batches=3000, learning_rate=0.01,
      final_learning_rate=0.)
  x = _data(5).x[:3] + 1.
  sampler = trained_last_layer.make_agent(config)(data, _prior(data), _KEY)
  draws = np.asarray(sampler.members(x), np.float64)[..., 0]
  # The kernel's posterior, which 40 units approximate: means and variances.
  kernel = kernels.KernelConfig()
  points = np.concatenate([data.x, x])
  gram = np.asarray(kernels.nngp(kernel, points))
  mean, covariance = references.gp_posterior(
      gram[:6, :6], gram[6:, :6], gram[6:, 6:], data.y[:, 0], 0.3**2)
  error = np.sqrt(np.diag(covariance))
  assert np.all(np.abs(draws.mean(0) - mean) < 0.3 * error)
  np.testing.assert_allclose(draws.std(0) / error, 1., atol=0.25)


@pytest.mark.parametrize('field', ['num_ensemble', 'width', 'num_batches'])
def test_refuses_bad_settings(field):
  with pytest.raises(ValueError, match=field):
    trained_last_layer.TrainedLastLayerConfig(**{field: 0})
