"""The prior itself, blind to the data: what learning has to beat.

  f ~ N(0, k(x, x)),  k the kernel that made the data

An agent that scores worse than this would better have learned nothing.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
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
  """Independent draws of N(0, k(x, x)) at every point."""
  kernel: kernels.KernelConfig
  analytic: bool
  mappable = True

  def __call__(self, x: np.ndarray, key: chex.PRNGKey) -> jax.Array:
    """One draw at x [n, D], [n, 1] float64; only its marginals are right."""
    _, std = self.moments(x)
    return (std * jax.random.normal(key, std.shape, jnp.float64))[:, None]

  def moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean [n] and std [n]."""
    variances = kernels.nngp_diag(self.kernel, x)
    return np.zeros_like(variances), np.sqrt(variances)


def make_agent(config: PriorOnlyConfig) -> base.Agent:
  """Ignores the data."""

  def agent(data: base.Data, prior: base.PriorKnowledge,
            key: chex.PRNGKey) -> base.EpistemicSampler:
    del data, key  # It does not learn.
    return PriorSampler(prior.kernel, config.analytic)

  return agent
