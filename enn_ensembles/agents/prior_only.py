"""The prior itself, which ignores the data: what learning has to beat.

  f ~ N(0, k(x, x)),  k the kernel that made the data

An agent that scores worse than this would better have learned nothing.
"""

import dataclasses

import chex
import jax
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.nngp import function_draws
from enn_ensembles.nngp import kernels


@dataclasses.dataclass(frozen=True)
class PriorOnlyConfig:
  """Settings of the prior.

  Attributes:
    analytic: whether it is scored on its exact moments, not on samples.
  """
  analytic: bool = True

  def __post_init__(self):
    checks.check_flag('analytic', self.analytic)


@dataclasses.dataclass(frozen=True)
class PriorSampler:
  """Draws of the Gaussian process prior, jointly over all points asked."""
  kernel: kernels.KernelConfig
  functions: function_draws.FunctionDraws
  analytic: bool
  mappable = True

  def __call__(self, x: np.ndarray, key: chex.PRNGKey) -> jax.Array:
    """The function of the key at x [n, D], [n, 1] float64."""
    return self.functions.sample(x, key)

  def moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean [n] and std [n]."""
    variances = kernels.nngp_diag(self.kernel, x)
    return np.zeros_like(variances), np.sqrt(variances)

  def joint_covariance(self, x: np.ndarray) -> np.ndarray:
    """Exact covariance [n, n]."""
    return kernels.nngp(self.kernel, x)


def make_agent(config: PriorOnlyConfig) -> base.Agent:
  """Ignores the data."""

  def agent(data: base.Data, prior: base.PriorKnowledge,
            key: chex.PRNGKey) -> base.EpistemicSampler:
    del data, key  # It does not learn.
    if prior.kernel is None:
      raise ValueError('prior_only needs a problem whose kernel is known, got '
                       'kernel None.')
    functions = function_draws.FunctionDraws(
        function_draws.Prior(prior.kernel))
    return PriorSampler(prior.kernel, functions, config.analytic)

  return agent
