"""Mixture of experts: one function, divided among networks by a gate.

It has K expert networks and a gate with their weights at each input:

  f(x) = sum_k g_k(x) e_k(x; theta_k),   g(x) = softmax of the gate's outputs

with the `num_active` largest weights kept and normalised again. In
classification probabilities are mixed, not logits. It is a contrast to
ensembles: it has as many networks as one of K members, and it is a single
network, trained by the loss of the mixture. Experts are made to differ, so that
their spread is no uncertainty about f and stands for no posterior; the index
has one value, and the std of this agent is 0.

Jacobs, Jordan, Nowlan & Hinton 1991, "Adaptive mixtures of local experts";
Shazeer et al. 2017, "Outrageously large neural networks: the sparsely-gated
mixture-of-experts layer" (arXiv 1701.06538) for the choice of the largest. All
experts are computed here, and no loss balances how often they are used.
"""

import dataclasses

import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.training import likelihoods
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers

_EXPERTS_KEY, _GATE_KEY = 0, 1  # fold_in constants of the key of `init`.


@dataclasses.dataclass(frozen=True)
class MixtureOfExpertsConfig(optimizers.TrainingConfig):
  """Settings of a mixture of experts.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    num_experts: K.
    num_active: experts that count at an input, from 1 to K; None for all (a
      soft gate).
    gate_sizes: units of each hidden layer of the gate, an MLP of the flattened
      input; () makes it linear.
    body: an expert, a name in `networks.BODIES`, or a `networks.Body`.
    norm: 'batch', 'group' or 'none', of residual networks.
    hidden_sizes: units of each hidden layer of the bodies 'mlp' and
      'mlp_dropout'.
    first_bias_std: std of the first layer's initial bias in the same bodies.
  """
  num_experts: int = 10
  num_active: int | None = None
  gate_sizes: tuple[int, ...] = ()
  body: str | networks.Body = 'mlp'
  norm: str = 'batch'
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.

  def __post_init__(self):
    checks.check_size('num_experts', self.num_experts)
    if self.num_active is not None:
      checks.check_size('num_active', self.num_active)
      if self.num_active > self.num_experts:
        raise ValueError(f'num_active must be at most num_experts '
                         f'{self.num_experts}, got {self.num_active}.')
    checks.check_sizes('gate_sizes', self.gate_sizes)
    super().__post_init__()
    networks.check_body(self)


def log_gate(outputs: base.Array, num_active: int | None) -> base.Array:
  """Logarithms of how much each expert counts, [B, K].

  Args:
    outputs: of the gate, [B, K].
    num_active: how many count, of equal ones the first; the others have -inf.
      None for all.
  """
  num_experts = outputs.shape[-1]
  if num_active is not None and num_active < num_experts:
    active = jax.lax.top_k(outputs, num_active)[1]
    is_active = jnp.any(active[..., None] == jnp.arange(num_experts), axis=-2)
    outputs = jnp.where(is_active, outputs, -jnp.inf)
  return jax.nn.log_softmax(outputs, axis=-1)


def mix(log_weights: base.Array, outputs: base.Array,
        is_categorical: bool) -> base.Array:
  """What the experts say together, [B, out].

  Args:
    log_weights: of each expert, [B, K].
    outputs: of each expert, [K, B, out].
    is_categorical: whether outputs are logits; then the result is the logarithm
      of the mixed probabilities.
  """
  log_weights = log_weights.T[..., None]
  if not is_categorical:
    return jnp.sum(jnp.exp(log_weights) * outputs, axis=0)
  return jax.nn.logsumexp(
      log_weights + jax.nn.log_softmax(outputs, axis=-1), axis=0)


def make_parts(config: MixtureOfExpertsConfig, prior: base.PriorKnowledge
               ) -> tuple[base.EpistemicNetwork, base.EpistemicNetwork]:
  """Experts, whose index picks one, and the gate, whose index is 0."""
  body = networks.choose_body(config, prior.input_shape, prior.num_outputs)
  gate = networks.make_mlp(config.gate_sizes, config.num_experts)
  return (networks.make_member_network(body, config.num_experts),
          networks.make_member_network(gate, 1))


def make_network(config: MixtureOfExpertsConfig,
                 prior: base.PriorKnowledge) -> base.EpistemicNetwork:
  """The mixture as one network; its only index is 0."""
  experts, gate = make_parts(config, prior)
  is_categorical = isinstance(prior.likelihood, base.Categorical)

  def init(key, x):
    params, state = experts.init(jax.random.fold_in(key, _EXPERTS_KEY), x, 0)
    gate_params, _ = gate.init(jax.random.fold_in(key, _GATE_KEY), x, 0)
    return {'experts': params, 'gate': gate_params}, state

  def combine(params, x, outputs, indices):
    of_gate, _ = base.apply_indices(gate, params['gate'], {}, x, None)
    out = mix(log_gate(of_gate[0], config.num_active), outputs, is_categorical)
    return jnp.broadcast_to(
        out, (1 if indices is None else len(indices), *out.shape))

  def apply_indices(params, state, x, indices):
    outputs, _ = base.apply_indices(experts, params['experts'], state, x, None)
    return combine(params, x, outputs, indices), state

  def apply_train(params, state, x, indices, key):
    assert experts.apply_train is not None
    outputs, state = experts.apply_train(params['experts'], state, x, None, key)
    return combine(params, x, outputs, indices), state

  return networks.network_from_indices(
      init=init, apply_indices=apply_indices,
      indexer=networks.EnsembleIndexer(1),
      apply_train=None if experts.apply_train is None else apply_train)


def make_agent(config: MixtureOfExpertsConfig) -> base.Agent:
  """A mixture trained by the error of what its experts say together."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    return likelihoods.make_loss_for(prior)

  return network_agent.make_network_agent(
      config, lambda prior: make_network(config, prior), make_loss)
