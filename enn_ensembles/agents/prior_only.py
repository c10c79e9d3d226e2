"""The prior itself, which ignores the data: what learning has to beat.

  f ~ N(0, k(x, x)),  k the kernel that made the data

An agent that scores worse than this would better have learned nothing.
"""

import dataclasses

import chex

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.nngp import function_draws
from enn_ensembles.nngp import posterior
from enn_ensembles.training import likelihoods


@dataclasses.dataclass(frozen=True)
class PriorOnlyConfig:
  """Settings of the prior.

  Attributes:
    analytic: whether it is scored on its exact moments, not on samples.
  """
  analytic: bool = True

  def __post_init__(self):
    checks.check_flag('analytic', self.analytic)


def check_prior(prior: base.PriorKnowledge) -> None:
  """ValueError where the kernel is unknown."""
  likelihoods.known_kernel(prior, 'prior_only')


def make_agent(config: PriorOnlyConfig) -> base.Agent:
  """Ignores the data.

  Raises:
    ValueError: by the agent, where a problem's kernel is unknown.
  """

  def agent(data: base.Data, prior: base.PriorKnowledge,
            key: chex.PRNGKey) -> base.EpistemicSampler:
    del data, key  # It does not learn.
    kernel = likelihoods.known_kernel(prior, 'prior_only')
    # Functions of the testbed are drawn with the same jitter.
    return function_draws.ProcessSampler(
        function_draws.Prior(kernel), config.analytic, prior.input_dim,
        ridge=posterior.SAMPLE_JITTER)

  return agent
