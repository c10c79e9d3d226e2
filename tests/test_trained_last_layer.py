"""Trained last layers: their features, their minimum, and Adam's way there."""

import jax
import numpy as np
import pytest

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


@pytest.mark.parametrize('weight_decay', [0.5, 1.])
def test_adam_comes_to_the_solution(weight_decay):
  """Each member solves its own ridge regression towards its start."""
  data, width, noise_std = _data(), 40, 0.3
  config = trained_last_layer.TrainedLastLayerConfig(
      num_ensemble=5, width=width, noise_scale=0., weight_decay=weight_decay,
      num_batches=3000, learning_rate=0.01, final_learning_rate=0.,
      sampling='epochs', batch_size=len(data.x))
  sampler = trained_last_layer.make_agent(config)(data, _prior(data), _KEY)
  (params,) = sampler.params.values()
  h = np.append(data.x, np.ones((len(data.x), 1)), axis=1)
  for layer in sampler.state['hidden']:
    h = np.maximum(h @ np.asarray(layer, np.float64), 0.)  # [K, T, width].
  scale = kernels.KernelConfig().weight_std
  transposed = scale * h.swapaxes(1, 2)
  anchor = weight_decay * noise_std**2 * width * np.eye(width)
  residuals = data.y - h @ np.asarray(sampler.state['start'])
  expected = np.linalg.solve(scale * transposed @ h + anchor,
                             transposed @ residuals)
  np.testing.assert_allclose(params['w'], expected,
                             atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize('field', ['num_ensemble', 'width', 'num_batches'])
def test_refuses_bad_settings(field):
  with pytest.raises(ValueError, match=field):
    trained_last_layer.TrainedLastLayerConfig(**{field: 0})
