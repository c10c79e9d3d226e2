"""MAP: one network without prior function and target noise, the baseline.

  loss = mean over t of (g(x_t; theta) - y_t)^2
         + weight_decay * (penalty of the kernel's Gaussian prior on theta)

With weight_decay = 1 its minimum is the mode of a finite network's posterior,
with 0, the default, the maximum of the likelihood. It says nothing about what
it does not know: its std is 0, and only the ridge on the stds keeps its score
finite.
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
      `penalties.add_gaussian_weight_decay`; 1 is the kernel's own, 0 is none.
    body: the network, a name in `networks.BODIES`, or a `networks.Body`.
    norm: 'batch', 'group' or 'none', of residual networks.
    hidden_sizes: units of each hidden layer of the bodies 'mlp' and
      'mlp_dropout'.
    first_bias_std: std of the first layer's initial bias in the same bodies.
  """
  weight_decay: float = 0.
  body: str | networks.Body = 'mlp'
  norm: str = 'batch'
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.

  def __post_init__(self):
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    networks.check_body(self)


def make_network(config: MapConfig, input_shape: networks.Shape | None = None,
                 num_outputs: int = 1) -> base.EpistemicNetwork:
  """One network; its only index is 0.

  Args:
    config: the settings.
    input_shape: of one example; None leaves unchecked that the body takes it.
    num_outputs: components of f(x).
  """
  return networks.make_member_network(
      networks.choose_body(config, input_shape, num_outputs), num_members=1)


def make_agent(config: MapConfig) -> base.Agent:
  """A single network trained on the squared error."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    return likelihoods.make_loss_for(
        prior, weight_decay=config.weight_decay,
        mean_squares=networks.member_mean_squares,
        shapes=networks.body_shapes(config, prior))

  return network_agent.make_network_agent(
      config, lambda prior: make_network(
          config, prior.input_shape, prior.num_outputs), make_loss)
