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

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.nngp import function_draws
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free_posterior
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import solver_memory
from enn_ensembles.training import data_checks
from enn_ensembles.training import flops
from enn_ensembles.training import likelihoods

# Operations in whose time one core maps an element of the kernel through a
# hidden layer, and draws a normal number of float64 by `jax.random`.
_MAP, _DRAW = 600, 2000


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


def _is_dense(num_train: int) -> bool:
  """Whether the kernel matrix and its factor, in float64, may be held."""
  return 16e-6 * num_train**2 <= solver_memory.DEFAULT_BUDGET_MB


def count_operations(config: ExactPosteriorConfig,
                     workload: flops.Workload) -> float:
  """Operations on the problems of one seed; see `agents`."""
  prior, num_levels = workload.prior, workload.num_levels
  t, dim = prior.num_train, prior.input_dim
  element = 2. * dim + _MAP * prior.kernel.num_hidden_layers
  total = t**2 / 2. * element + t**3 / 3. if _is_dense(t) else 0.
  num_before = 0
  for num in workload.num_points:
    # A function that is drawn is drawn jointly at all points so far.
    n = num if config.analytic else num_before + num
    num_before += num
    if _is_dense(t):
      whiten = n * t * element + n * t**2
      total += whiten + n**2 * t + n**2 / 2. * element
      if config.analytic:  # Moments, and then covariances.
        total += whiten
    else:
      total += 0.5 * matrix_free_posterior.count_operations(t, dim, n)
    if not config.analytic:
      total += n**3 / 3. + workload.num_draws * (2. * num * n + _DRAW * n)
  return num_levels * total


def check_prior(prior: base.PriorKnowledge) -> None:
  """ValueError where the kernel or the noise is unknown."""
  likelihoods.known_kernel(prior, 'exact_posterior')
  likelihoods.known_noise_std(prior, 'exact_posterior')


def make_agent(config: ExactPosteriorConfig) -> base.Agent:
  """Conditions the kernel of `prior` on the data.

  Raises:
    ValueError: by the agent, where a problem's kernel is unknown, its noise_std
      is no known number, or data have other shapes than `prior` says.
  """

  def agent(data: base.Data, prior: base.PriorKnowledge,
            key: chex.PRNGKey) -> base.EpistemicSampler:
    del key  # Nothing is random before sampling.
    kernel = likelihoods.known_kernel(prior, 'exact_posterior')
    noise_std = likelihoods.known_noise_std(prior, 'exact_posterior')
    data_checks.check_data(data, prior)
    if not _is_dense(len(data.x)):
      process = matrix_free_posterior.MatrixFreePosterior(
          kernel, data.x, data.y, noise_std, config.reference)
    else:
      variance = posterior.noise_variance(
          noise_std, kernels.nngp_diag(kernel, data.x), config.reference)
      process = posterior.GPPosterior.fit(kernel, data.x, data.y, variance)
    return function_draws.ProcessSampler(process, config.analytic,
                                          prior.input_dim)

  return agent
