"""BatchEnsemble: one set of weights, K rank-one masks.

Each layer has shared weights W and, for each member, two fast-weight vectors:
member z uses W o (r_z s_z^T) and a bias of its own,

  layer(h, z) = r_z o (W (s_z o h)) + b_z,

so K members are one batched product. The index z picks the member; prior and
target noise as in a deep ensemble:

  f(x, z) = g(x; W, r_z, s_z, b_z) + prior_scale * (same, untrained)
  loss    = mean over z of (f(x_t, z) - y_t - noise_scale * eps * n_{t,z})^2

Wen, Tran & Ba 2020, "BatchEnsemble: an alternative approach to efficient
ensemble and lifelong learning" (arXiv 2002.06715).
"""

from collections.abc import Sequence
import dataclasses

import haiku as hk
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.training import likelihoods
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers

FAST_INITS = ('sign', 'normal')


@dataclasses.dataclass(frozen=True)
class BatchEnsembleConfig(optimizers.TrainingConfig):
  """Settings of a BatchEnsemble.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    num_ensemble: K, members.
    fast_init: initial fast weights: random 'sign's, or 'normal' N(1,
      fast_std^2) truncated at two standard deviations.
    fast_std: std of the 'normal' fast weights; 0 makes all members start equal.
    prior_scale: weight of the untrained BatchEnsemble on the same index.
    noise_scale: std of the target noise, in units of the problem's noise_std.
    bootstrap: whether each member has its own n of n data points, drawn with
      replacement.
    weight_decay: strength of the Gaussian prior on the trained weights, see
      `losses.add_gaussian_weight_decay`; 1 is the kernel's own, 0 is none.
    hidden_sizes: units of each hidden layer.
    first_bias_std: std of the first layer's initial bias.
  """
  num_ensemble: int = 10
  fast_init: str = 'sign'
  fast_std: float = 0.5
  prior_scale: float = 1.
  noise_scale: float = 1.
  bootstrap: bool = False
  weight_decay: float = 0.
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.

  def __post_init__(self):
    checks.check_count('num_ensemble', self.num_ensemble)
    checks.check_choice('fast_init', self.fast_init, FAST_INITS)
    checks.check_scale('fast_std', self.fast_std)
    checks.check_scale('prior_scale', self.prior_scale)
    checks.check_scale('noise_scale', self.noise_scale)
    checks.check_scale('first_bias_std', self.first_bias_std)
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    checks.check_flag('bootstrap', self.bootstrap)
    checks.check_sizes('hidden_sizes', self.hidden_sizes)


class BatchEnsembleMLP(hk.Module):
  """Shared weights and fast weights of every layer.

  Layers are (w [out, in], r [K, out], s [K, in], b [K, out, 1]).
  """

  def __init__(self, config: BatchEnsembleConfig,
               name: str = 'batch_ensemble_mlp'):
    super().__init__(name=name)
    self._config = config

  def __call__(self, input_dim: int, dtype: jnp.dtype) -> list[tuple]:
    config = self._config
    num = config.num_ensemble
    specs = {}
    for layer, shape in enumerate(networks.mlp_shapes(
        input_dim, (*config.hidden_sizes, 1), config.first_bias_std)):
      specs[f'w_{layer}'] = ((shape.out, shape.size), shape.weight_std)
      specs[f'r_{layer}'] = ((num, shape.out), self._init_fast)
      specs[f's_{layer}'] = ((num, shape.size), self._init_fast)
      specs[f'b_{layer}'] = ((num, shape.out, 1), shape.bias_std)
    drawn = networks.draw_parameters(specs, dtype)
    return [tuple(drawn[f'{part}_{layer}'] for part in 'wrsb')
            for layer in range(len(config.hidden_sizes) + 1)]

  def _init_fast(self, draw: base.Array) -> base.Array:
    """Fast weights from truncated standard normals."""
    if self._config.fast_init == 'sign':
      return jnp.where(draw < 0, -1., 1.).astype(draw.dtype)
    return 1. + self._config.fast_std * draw


def member_layers(layers: Sequence[tuple],
                  indices: base.Index | None) -> networks.Layers:
  """The layers of members, all (None) or some: [J, out, in + 1] each.

  W o (r s^T) is made once per step: it has fewer entries than the activations
  that the fast weights would otherwise scale, so its gradient is cheaper too.
  """
  if indices is not None:
    layers = [(w, r[indices], s[indices], b[indices]) for w, r, s, b in layers]
  return [jnp.concatenate([w * (r[:, :, None] * s[:, None, :]), b], axis=-1)
          for w, r, s, b in layers]


def make_network(config: BatchEnsembleConfig) -> base.EpistemicNetwork:
  """The BatchEnsemble's network; z is an int32 member."""

  transformed = hk.transform_with_state(
      lambda x: BatchEnsembleMLP(config)(x.shape[-1], x.dtype))

  def apply_indices(params, state, x, indices):
    layers, state = transformed.apply(params, state, None, x)
    return networks.stacked_forward(member_layers(layers, indices), x), state

  network = networks.network_from_indices(
      init=transformed.init, apply_indices=apply_indices,
      indexer=networks.EnsembleIndexer(config.num_ensemble))
  return networks.with_additive_prior(network, network, config.prior_scale)


def mean_squares(params: base.Params) -> list[base.Array]:
  """The mean over members of the squared weights W o (r s^T), b, per layer."""
  (parts,) = params.values()
  layers = [tuple(parts[f'{part}_{layer}'] for part in 'wrsb')
            for layer in range(len(parts) // 4)]
  return [jnp.mean(jnp.square(w), axis=0)
          for w in member_layers(layers, None)]


def make_agent(config: BatchEnsembleConfig) -> base.Agent:
  """A BatchEnsemble trained on all its members at every step."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    return likelihoods.make_loss_for(
        prior, noise_scale=config.noise_scale, bootstrap=config.bootstrap,
        weight_decay=config.weight_decay, mean_squares=mean_squares)

  return network_agent.make_network_agent(
      config, lambda prior: make_network(config), make_loss)
