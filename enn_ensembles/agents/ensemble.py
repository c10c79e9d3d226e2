"""Deep ensemble, with or without randomized prior functions.

K networks of the same shape are trained on the same minibatches from different
initial weights; the index z picks one of them:

  f(x, z) = g(x; theta_z) + prior_scale * g(x; theta0_z)
  loss    = mean over z of (f(x_t, z) - y_t - noise_scale * eps * n_{t,z})^2

theta0_z is drawn once and never trained (the randomized prior), n_{t,z} is one
fixed standard normal for each (data point, member). With both, and infinitely
wide networks, each member is a draw of the posterior; without, the members
differ by their initial weights alone.

Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty
estimation using deep ensembles" (arXiv 1612.01474); Osband et al. 2018,
"Randomized prior functions for deep reinforcement learning" (arXiv 1806.03335);
Lu & Van Roy 2017, "Ensemble sampling" (arXiv 1705.07347).
"""

import dataclasses

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.training import loop
from enn_ensembles.training import losses


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
  """Settings of a deep ensemble; the defaults are the testbed paper's.

  Attributes:
    num_ensemble: K, members.
    prior_scale: weight of each member's untrained prior network; 0 is none.
    noise_scale: std of the target noise, in units of the problem's noise_std.
    hidden_sizes: units of each hidden layer.
    first_bias_std: std of the first layer's initial bias.
    learning_rate: of Adam.
    num_batches: SGD steps.
    batch_size: data points per step, drawn with replacement.
  """
  num_ensemble: int = 10
  prior_scale: float = 1.
  noise_scale: float = 1.
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.
  learning_rate: float = 1e-3
  num_batches: int = 1000
  batch_size: int = 100

  def __post_init__(self):
    checks.check_count('num_ensemble', self.num_ensemble)
    checks.check_scale('prior_scale', self.prior_scale)
    checks.check_scale('noise_scale', self.noise_scale)
    checks.check_scale('first_bias_std', self.first_bias_std)
    checks.check_training(self)


def make_network(config: EnsembleConfig) -> base.EpistemicNetwork:
  """The ensemble's network; z is an int32 member."""
  def members() -> base.EpistemicNetwork:
    return networks.make_member_network(
        (*config.hidden_sizes, 1), config.num_ensemble,
        first_bias_std=config.first_bias_std)

  return networks.with_additive_prior(members(), members(), config.prior_scale)


def make_agent(config: EnsembleConfig) -> base.Agent:
  """A deep ensemble trained on all its members at every step."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    noise_std = config.noise_scale and config.noise_scale * prior.noise_std
    return losses.make_regression_loss(noise_std)

  return loop.NetworkAgent(
      make_network=lambda prior: make_network(config), make_loss=make_loss,
      learning_rate=config.learning_rate, num_batches=config.num_batches,
      batch_size=config.batch_size)
