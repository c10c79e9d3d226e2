"""Deep ensemble whose members predict the noise of a label.

K networks with two outputs per label, a mean and a log variance; the index z
picks one of them:

  mu(x, z)          = g_1(x; theta_z) + prior_scale * g_1(x; theta0_z)
  log sigma^2(x, z) = g_2(x; theta_z)
  loss = sigma^(2 beta) (log sigma^2 + (y_t - mu)^2 / sigma^2) / 2

averaged over z, without gradient through sigma^(2 beta). The noise need not be
known, and may depend on the input. The ensemble's predictive distribution of a
label is the mixture of its members'; its variance has an aleatoric part, the
mean of sigma^2(x, z) over members, and an epistemic one, the variance of
mu(x, z).

Nix & Weigend 1994, "Estimating the mean and variance of the target probability
distribution"; Lakshminarayanan et al. 2017, "Simple and scalable predictive
uncertainty estimation using deep ensembles" (arXiv 1612.01474); Seitzer et al.
2022 for beta (arXiv 2203.09168).
"""

import dataclasses

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import noise_losses
from enn_ensembles.training import optimizers
from enn_ensembles.training import penalties


@dataclasses.dataclass(frozen=True)
class MeanVarianceEnsembleConfig(optimizers.TrainingConfig):
  """Settings of an ensemble of mean-variance networks.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    num_ensemble: K, members.
    beta: of the beta-NLL, from 0 (the likelihood) to 1 (means learn as by the
      squared error); Seitzer et al. 2022 (arXiv 2203.09168) choose 0.5.
    prior_scale: weight of each member's untrained prior network, which is added
      to its mean; 0 is none.
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
  beta: float = 0.5
  prior_scale: float = 0.
  bootstrap: bool = False
  weight_decay: float = 0.
  body: str | networks.Body = 'mlp'
  norm: str = 'batch'
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.

  def __post_init__(self):
    checks.check_size('num_ensemble', self.num_ensemble)
    checks.check_scale('beta', self.beta)
    if self.beta > 1:
      raise ValueError(f'beta must be from 0 to 1, got {self.beta!r}.')
    checks.check_scale('prior_scale', self.prior_scale)
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    checks.check_flag('bootstrap', self.bootstrap)
    networks.check_body(self)


def make_body(config: MeanVarianceEnsembleConfig,
              prior: base.PriorKnowledge) -> networks.Body:
  """One member, with two outputs per label.

  Raises:
    ValueError: labels are not numbers.
  """
  if not isinstance(prior.likelihood, base.Gaussian):
    raise ValueError('mean_variance_ensemble needs a Gaussian likelihood, got '
                     f'{prior.likelihood!r}.')
  return networks.choose_body(config, prior.input_shape, 2 * prior.num_outputs)


def make_network(config: MeanVarianceEnsembleConfig,
                 prior: base.PriorKnowledge) -> base.EpistemicNetwork:
  """The ensemble's network; z is an int32 member."""
  body = make_body(config, prior)

  def members(body: networks.Body) -> base.EpistemicNetwork:
    return networks.make_member_network(body, config.num_ensemble)

  both = networks.with_body_prior(members, body, config.prior_scale)
  return networks.with_variance_head(both, prior.num_outputs)


def make_agent(config: MeanVarianceEnsembleConfig) -> base.Agent:
  """An ensemble trained on all its members at every step."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    loss = noise_losses.make_noise_loss(config.beta, config.bootstrap)
    if not config.weight_decay:
      return loss
    # The loss is a mean of half squares in units of the noise.
    return penalties.add_gaussian_weight_decay(
        loss, config.weight_decay / (2. * prior.num_train),
        networks.member_mean_squares,
        make_body(config, prior).weight_shapes(prior.input_shape))

  return network_agent.make_network_agent(
      config, lambda prior: make_network(config, prior), make_loss)
