"""MAP: one network, no prior, no target noise: the single-model baseline.

  loss = (g(x_t; theta) - y_t)^2

It says nothing about what it does not know: its std is 0, and only the ridge on
the stds keeps its score finite.
"""

import dataclasses

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.training import loop
from enn_ensembles.training import losses


@dataclasses.dataclass(frozen=True)
class MapConfig:
  """Settings of a single network.

  Attributes:
    hidden_sizes: units of each hidden layer.
    first_bias_std: std of the first layer's initial bias.
    learning_rate: of Adam.
    num_batches: SGD steps.
    batch_size: data points per step, drawn with replacement.
  """
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.
  learning_rate: float = 1e-3
  num_batches: int = 1000
  batch_size: int = 100

  def __post_init__(self):
    checks.check_training(self)
    checks.check_scale('first_bias_std', self.first_bias_std)


def make_network(config: MapConfig) -> base.EpistemicNetwork:
  """One MLP; its only index is 0."""
  return networks.make_member_network(
      (*config.hidden_sizes, 1), num_members=1,
      first_bias_std=config.first_bias_std)


def make_agent(config: MapConfig) -> base.Agent:
  """A single network trained on the squared error."""
  return loop.NetworkAgent(
      make_network=lambda prior: make_network(config),
      make_loss=lambda prior: losses.make_regression_loss(),
      learning_rate=config.learning_rate, num_batches=config.num_batches,
      batch_size=config.batch_size)
