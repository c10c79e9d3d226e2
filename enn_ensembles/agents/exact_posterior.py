"""The exact posterior itself: the audit of the whole pipeline.

It conditions the Gaussian process that made the data on that data, by itself,
from what every agent is told: x, y, the noise level and the kernel.

  f ~ N(k*^T (K + s^2 I)^-1 y, k** - k*^T (K + s^2 I)^-1 k*)

Scored on its exact moments it must get 0; scored on samples, the finite-sample
floor. Anything else is a mistake in problems, keys, evaluation or scores.

`reference` says what noise variance s^2 it assumes, whatever it is scored
against: 'bayes' is the posterior of its own data. Scored against the 'enn2021'
ground truth of the published testbeds it gets about 0.16 at (D_x, lambda, eps)
= (10, 10, 1): that ground truth is not the posterior of those data.

Where the kernel matrix does not fit into memory, the matrix-free solver runs
for every set of points that the sampler is asked at: minutes at 100,000
training points.
"""

import dataclasses

import chex
import jax
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.nngp import function_draws
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free_posterior
from enn_ensembles.nngp import posterior

# MB for the kernel matrix and its factor; more training points are matrix-free.
_DENSE_MEMORY_MB = 14_000.


@dataclasses.dataclass(frozen=True)
class ExactPosteriorConfig:
  """Settings of the audit.

  Attributes:
    analytic: whether it is scored on its exact moments, not on samples.
    reference: the noise variance that it assumes, 'bayes' or 'enn2021'.
  """
  analytic: bool = True
  reference: str = 'bayes'

  def __post_init__(self):
    checks.check_flag('analytic', self.analytic)
    checks.check_choice('reference', self.reference, posterior.REFERENCES)


@dataclasses.dataclass(frozen=True)
class PosteriorSampler:
  """Draws of a Gaussian process posterior, jointly over all points asked."""
  process: (posterior.GPPosterior
            | matrix_free_posterior.MatrixFreePosterior)
  functions: function_draws.FunctionDraws
  analytic: bool
  mappable = True

  def __call__(self, x: np.ndarray, key: chex.PRNGKey) -> jax.Array:
    """The function of the key at x [n, D], [n, 1] float64."""
    return self.functions.sample(x, key)

  def moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean [n] and std [n]."""
    return self.process.moments(x)

  def joint_covariance(self, x: np.ndarray) -> np.ndarray:
    """Exact covariance [n, n]."""
    return self.process.joint(x)[1]


def make_agent(config: ExactPosteriorConfig) -> base.Agent:
  """Conditions the kernel of `prior` on the data."""

  def agent(data: base.Data, prior: base.PriorKnowledge,
            key: chex.PRNGKey) -> base.EpistemicSampler:
    del key  # Nothing is random before sampling.
    if 16e-6 * len(data.x)**2 > _DENSE_MEMORY_MB:
      process = matrix_free_posterior.MatrixFreePosterior(
          prior.kernel, data.x, data.y, prior.noise_std, config.reference)
    else:
      variance = posterior.noise_variance(
          prior.noise_std, kernels.nngp_diag(prior.kernel, data.x),
          config.reference)
      process = posterior.GPPosterior.fit(prior.kernel, data.x, data.y,
                                          variance)
    return PosteriorSampler(process, function_draws.FunctionDraws(process),
                            config.analytic)

  return agent
