"""Deep ensemble, with or without randomized prior functions.

K networks of the same shape are trained on the same minibatches from different
initial weights; the index z picks one of them:

  f(x, z) = g(x; theta_z) + prior_scale * g(x; theta0_z)
  loss    = mean over z of (f(x_t, z) - y_t - noise_scale * eps * n_{t,z})^2

theta0_z is drawn once and never trained (the randomized prior), n_{t,z} is one
fixed standard normal for each (data point, member). With both, the members are
meant as draws of the posterior; without, they differ by their initial weights
alone. They are not draws: training moves all layers, and the prior networks are
not the testbed's prior. Their std is 0.95, 0.96 and 0.98 of the kernel's at
D_x = 10, 100 and 1000 (mean over 50 points, 2000 networks of two layers of 50),
because two things nearly cancel: initial values are normals truncated at two
stds, which alone makes it 0.68, and the first bias has std 1 where the kernel's
has 1 / sqrt(D_x). `first_bias_std='kernel'` mends both.

Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty
estimation using deep ensembles" (arXiv 1612.01474); Osband et al. 2018,
"Randomized prior functions for deep reinforcement learning" (arXiv 1806.03335);
Lu & Van Roy 2017, "Ensemble sampling" (arXiv 1705.07347).
"""

import dataclasses

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.machine import canonical
from enn_ensembles.networks import parameters
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
    first_bias_std: std of the first layer's initial bias in the same bodies. In
      the body 'mlp' also 'kernel' for 1 / sqrt(D_x), that of the testbed's
      kernel, with prior networks scaled such that their std is the kernel's at
      any input.
    decay_from_start: whether weight_decay is of the distance from each member's
      initial weights, not from 0: anchored ensembles (Pearce et al. 2020, arXiv
      1810.05546). Needs prior_scale 0, because a prior network and anchors
      would count the prior twice.
  """
  num_ensemble: int = 10
  prior_scale: float = 1.
  noise_scale: float = 1.
  bootstrap: bool = False
  weight_decay: float = 0.
  body: str | networks.Body = 'mlp'
  norm: str = 'batch'
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float | str = 1.
  decay_from_start: bool = canonical.later_field(False)

  def __post_init__(self):
    checks.check_size('num_ensemble', self.num_ensemble)
    checks.check_scale('prior_scale', self.prior_scale)
    checks.check_scale('noise_scale', self.noise_scale)
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    checks.check_flag('bootstrap', self.bootstrap)
    checks.check_flag('decay_from_start', self.decay_from_start)
    if self.decay_from_start and self.prior_scale:
      raise ValueError('decay_from_start needs prior_scale 0, got '
                       f'{self.prior_scale!r}.')
    networks.check_body(self, bias_rules=('kernel',))
    if self.first_bias_std == 'kernel' and self.body != 'mlp':
      raise ValueError("first_bias_std 'kernel' needs the body 'mlp', got body "
                       f'{self.body!r}.')


def make_body(config: EnsembleConfig,
              prior: base.PriorKnowledge) -> networks.Body:
  """One member."""
  if config.first_bias_std == 'kernel':
    config = dataclasses.replace(config,
                                 first_bias_std=prior.input_dim ** -0.5)
  return networks.choose_body(config, prior.input_shape, prior.num_outputs)


def make_network(config: EnsembleConfig,
                 prior: base.PriorKnowledge) -> base.EpistemicNetwork:
  """The ensemble's network; z is an int32 member."""
  body, prior_scale = make_body(config, prior), config.prior_scale
  if config.first_bias_std == 'kernel':
    # Initial weights are truncated normals: each layer makes the output of a
    # ReLU network smaller by the factor TRUNCATED_STD.
    prior_scale /= parameters.TRUNCATED_STD ** body.num_weight_layers

  def members(body: networks.Body) -> base.EpistemicNetwork:
    return networks.make_member_network(body, config.num_ensemble)

  return networks.with_body_prior(members, body, prior_scale)


def make_agent(config: EnsembleConfig) -> base.Agent:
  """A deep ensemble trained on all its members at every step."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    return likelihoods.make_loss_for(
        prior, noise_scale=config.noise_scale, bootstrap=config.bootstrap,
        weight_decay=config.weight_decay,
        mean_squares=networks.member_mean_squares,
        decay_from_start=config.decay_from_start,
        shapes=make_body(config, prior).weight_shapes(prior.input_shape))

  return network_agent.make_network_agent(
      config, lambda prior: make_network(config, prior), make_loss)
