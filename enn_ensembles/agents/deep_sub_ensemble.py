"""Deep sub-ensemble: a shared trunk and K tails.

The first layers are one network's, the others are K networks'; the index z
picks a tail:

  f(x, z) = tail(trunk(x; theta); theta_z)
            + prior_scale * (same, untrained, with a trunk of its own)
  loss    = mean over z of (f(x_t, z) - y_t - noise_scale * eps * n_{t,z})^2

With no shared layer it is a deep ensemble; in general it is the layer ensemble
with one option in the trunk, restricted to combinations that have the same
option in every layer of the tail. The paper trains one network, freezes its
trunk and trains further tails on it; here trunk and tails are trained together,
on the loss of the testbed's ensembles with its prior function and target noise.

Valdenegro-Toro 2019, "Deep sub-ensembles for fast uncertainty estimation in
image classification" (arXiv 1910.08168).
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
class DeepSubEnsembleConfig(optimizers.TrainingConfig):
  """Settings of a deep sub-ensemble.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    num_ensemble: K, tails.
    num_shared_layers: weight layers in the trunk, a residual block being one;
      from 0 (a deep ensemble) to all but the output layer.
    prior_scale: weight of the untrained sub-ensemble on the same index; 0 is
      none.
    noise_scale: std of the target noise, in units of the problem's noise_std; 0
      is none.
    bootstrap: whether each member has its own T of the T data points, drawn
      with replacement.
    weight_decay: strength of the Gaussian prior on the trained weights, see
      `penalties.add_gaussian_weight_decay`; 1 is the kernel's own, 0 is none.
    body: the network, a name in `networks.BODIES`, or a `networks.Body`.
    norm: 'batch', 'group' or 'none', of residual networks.
    hidden_sizes: units of each hidden layer of the bodies 'mlp' and
      'mlp_dropout'.
    first_bias_std: std of the first layer's initial bias in the same bodies.
  """
  num_ensemble: int = 10
  num_shared_layers: int = 1
  prior_scale: float = 1.
  noise_scale: float = 1.
  bootstrap: bool = False
  weight_decay: float = 0.
  body: str | networks.Body = 'mlp'
  norm: str = 'batch'
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.

  def __post_init__(self):
    checks.check_size('num_ensemble', self.num_ensemble)
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    checks.check_flag('bootstrap', self.bootstrap)
    networks.check_body(self)
    checks.check_choice('num_shared_layers', self.num_shared_layers,
                        range(networks.choose_body(self).num_weight_layers))
    checks.check_scale('prior_scale', self.prior_scale)
    checks.check_scale('noise_scale', self.noise_scale)


def make_network(config: DeepSubEnsembleConfig,
                 input_shape: networks.Shape | None = None,
                 num_outputs: int = 1) -> base.EpistemicNetwork:
  """The sub-ensemble's network; z is an int32 tail.

  Args:
    config: the settings.
    input_shape: of one example; None leaves unchecked that the body takes it.
    num_outputs: components of f(x).
  """
  body = networks.choose_body(config, input_shape, num_outputs)

  def tails(body: networks.Body) -> base.EpistemicNetwork:
    return networks.make_member_network(body, config.num_ensemble,
                                        config.num_shared_layers)

  return networks.with_body_prior(tails, body, config.prior_scale)


def make_agent(config: DeepSubEnsembleConfig) -> base.Agent:
  """A sub-ensemble trained on all its tails at every step."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    return likelihoods.make_loss_for(
        prior, noise_scale=config.noise_scale, bootstrap=config.bootstrap,
        weight_decay=config.weight_decay,
        mean_squares=networks.member_mean_squares,
        shapes=networks.body_shapes(config, prior))

  return network_agent.make_network_agent(
      config, lambda prior: make_network(
          config, prior.input_shape, prior.num_outputs), make_loss)
