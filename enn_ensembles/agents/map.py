"""MAP: one network, no prior, no target noise: the single-model baseline.

  loss = (g(x_t; theta) - y_t)^2

It says nothing about what it does not know: its std is 0, and only the ridge on
the stds keeps its score finite.
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
class MapConfig(optimizers.TrainingConfig):
  """Settings of a single network.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    weight_decay: strength of the Gaussian prior on the trained weights, see
      `losses.add_gaussian_weight_decay`; 1 is the kernel's own, 0 is none.
    hidden_sizes: units of each hidden layer.
    first_bias_std: std of the first layer's initial bias.
  """
  weight_decay: float = 0.
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.

  def __post_init__(self):
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    checks.check_sizes('hidden_sizes', self.hidden_sizes)
    checks.check_scale('first_bias_std', self.first_bias_std)


def make_network(config: MapConfig) -> base.EpistemicNetwork:
  """One MLP; its only index is 0."""
  return networks.make_member_network(
      (*config.hidden_sizes, 1), num_members=1,
      first_bias_std=config.first_bias_std)


def make_agent(config: MapConfig) -> base.Agent:
  """A single network trained on the squared error."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    return likelihoods.make_loss_for(
        prior, weight_decay=config.weight_decay,
        mean_squares=networks.member_mean_squares)

  return network_agent.make_network_agent(
      config, lambda prior: make_network(config), make_loss)
