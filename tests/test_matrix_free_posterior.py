"""The posterior without a kernel matrix, and the agent that uses it."""

import jax
import numpy as np
import pytest

from enn_ensembles import problems
from enn_ensembles.agents import exact_posterior
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free
from enn_ensembles.nngp import matrix_free_posterior
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import solver_memory
from enn_ensembles.training import sampler_predictions

_CONFIG = kernels.KernelConfig()
_KEY = jax.random.PRNGKey(0)


@pytest.mark.parametrize('reference', ['bayes', 'enn2021'])
def test_answers_are_those_of_the_dense_posterior(reference, monkeypatch):
  rng = np.random.default_rng(0)
  x_train, x = rng.standard_normal((120, 5)), rng.standard_normal((12, 5))
  y_train = rng.standard_normal((120, 1))
  runs = []
  solve = matrix_free.solve
  monkeypatch.setattr(matrix_free, 'solve', lambda *args, **kwargs: (
      runs.append(1), solve(*args, **kwargs))[1])
  found = matrix_free_posterior.MatrixFreePosterior(
      _CONFIG, x_train, y_train, 0.3, reference)
  truth = posterior.GPPosterior.fit(
      _CONFIG, x_train, y_train, posterior.noise_variance(
          0.3, kernels.nngp_diag(_CONFIG, x_train), reference))
  (mean, std), (true_mean, true_std) = found.moments(x), truth.moments(x)
  assert np.max(np.abs(mean - true_mean) / true_std) < 1e-3
  np.testing.assert_allclose(std, true_std, rtol=1e-4)
  joint_mean, covariance = found.joint(x)
  np.testing.assert_array_equal(joint_mean, mean)
  np.testing.assert_allclose(covariance, truth.joint(x)[1],
                             atol=1e-4 * true_std.max()**2)
  assert len(runs) == 1  # Both answers come from one run.


def test_the_exact_posterior_scores_zero_without_a_kernel_matrix(monkeypatch):
  problem, = problems.make_problems(
      [problems.ProblemConfig(5, 12, 0.3, 0, num_test=20, num_val=15)],
      solver='matrix_free')
  monkeypatch.setattr(solver_memory, 'DEFAULT_BUDGET_MB', 16e-6 * 59**2)
  monkeypatch.setattr(posterior, 'GPPosterior', None)
  for analytic in (True, False):
    sampler = exact_posterior.make_agent(
        exact_posterior.ExactPosteriorConfig(analytic))(
            problem.data, problem.prior, _KEY)
    scores = problem.score(lambda x: sampler_predictions.predict(
        sampler, x, _KEY, 2000))
    if analytic:
      assert abs(scores['kl_estimate']) < 1e-6
      assert abs(scores['joint_kl_tau10']) < 1e-5
    else:
      for name in ('kl_estimate', 'joint_kl_tau10'):
        floor = scores['kl_floor' if name == 'kl_estimate'
                       else f'{name}_floor']
        assert 0.2 * floor < scores[name] < 3 * floor
      # A key is one function, whatever it is asked at.
      some = np.asarray(sampler(problem.x_test[:3], _KEY))
      np.testing.assert_array_equal(
          np.asarray(sampler(problem.x_val[:2], _KEY)).shape, (2, 1))
      np.testing.assert_array_equal(
          np.asarray(sampler(problem.x_test, _KEY))[:3], some)
