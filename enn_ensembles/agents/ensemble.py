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
from enn_ensembles.training import likelihoods
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers


@dataclasses.dataclass(frozen=True)
class EnsembleConfig(optimizers.TrainingConfig):
  """Settings of a deep ensemble; the defaults are the testbed paper's.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    num_ensemble: K, members.
    prior_scale: weight of each member's untrained prior network; 0 is none.
    noise_scale: std of the target noise, in units of the problem's noise_std.
    bootstrap: whether each member has its own n of n data points, drawn with
      replacement.
    weight_decay: strength of the Gaussian prior on the trained weights, see
      `losses.add_gaussian_weight_decay`; 1 is the kernel's own, 0 is none.
    hidden_sizes: units of each hidden layer.
    first_bias_std: std of the first layer's initial bias.
  """
  num_ensemble: int = 10
  prior_scale: float = 1.
  noise_scale: float = 1.
  bootstrap: bool = False
  weight_decay: float = 0.
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.

  def __post_init__(self):
    checks.check_count('num_ensemble', self.num_ensemble)
    checks.check_scale('prior_scale', self.prior_scale)
    checks.check_scale('noise_scale', self.noise_scale)
    checks.check_scale('first_bias_std', self.first_bias_std)
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    checks.check_flag('bootstrap', self.bootstrap)
    checks.check_sizes('hidden_sizes', self.hidden_sizes)


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
    return likelihoods.make_loss_for(
        prior, noise_scale=config.noise_scale, bootstrap=config.bootstrap,
        weight_decay=config.weight_decay,
        mean_squares=networks.member_mean_squares)

  return network_agent.make_network_agent(
      config, lambda prior: make_network(config), make_loss)
