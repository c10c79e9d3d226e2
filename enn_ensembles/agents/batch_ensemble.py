"""BatchEnsemble: one set of weights, K rank-one masks.

Each layer has shared weights W and, for each member, two fast-weight vectors:
member z uses W o (r_z s_z^T) and a bias of its own,

  layer(h, z) = r_z o (W (s_z o h)) + b_z,

so K members are one batched product. In a convolution r has an entry per
output channel and s one per input channel. Norms are shared, but for the
statistics of batch norms, of which every member has its own. The index z picks
the member; prior and target noise are those of the testbed's deep ensembles,
the paper has neither:

  f(x, z) = g(x; W, r_z, s_z, b_z) + prior_scale * (same, untrained)
  loss    = mean over z of (f(x_t, z) - y_t - noise_scale * eps * n_{t,z})^2

Wen, Tran & Ba 2020, "BatchEnsemble: an alternative approach to efficient
ensemble and lifelong learning" (arXiv 2002.06715).
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.machine import canonical
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
    plain_member: whether member 0 has all fast weights 1, untrained, as in the
      public code of Zamyatin et al. 2026 (arXiv 2601.16936).
    train_shared_by_plain: whether W learns from member 0 alone, as there.
    fast_learning_rate: of the fast weights r and s at the first step, whose
      schedule is that of learning_rate, scaled; None is learning_rate. Shared
      weights, biases and norms have learning_rate.
    prior_scale: weight of the untrained BatchEnsemble on the same index; 0 is
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
  fast_init: str = 'sign'
  fast_std: float = 0.5
  plain_member: bool = False
  train_shared_by_plain: bool = False
  prior_scale: float = 1.
  noise_scale: float = 1.
  bootstrap: bool = False
  weight_decay: float = 0.
  body: str | networks.Body = 'mlp'
  norm: str = 'batch'
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.
  fast_learning_rate: float | None = canonical.later_field(None)

  def __post_init__(self):
    checks.check_size('num_ensemble', self.num_ensemble)
    checks.check_choice('fast_init', self.fast_init, FAST_INITS)
    checks.check_scale('fast_std', self.fast_std)
    checks.check_flag('plain_member', self.plain_member)
    checks.check_flag('train_shared_by_plain', self.train_shared_by_plain)
    checks.check_scale('prior_scale', self.prior_scale)
    checks.check_scale('noise_scale', self.noise_scale)
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    checks.check_flag('bootstrap', self.bootstrap)
    if self.fast_learning_rate is not None:
      checks.check_positive('fast_learning_rate', self.fast_learning_rate)
    networks.check_body(self)


class LayerWeights(NamedTuple):
  """The weights of one layer of all members; or of a norm, which they share.

  Attributes:
    w: [out, in], or a norm's [out, 2].
    r: [K, out]; None in a norm.
    s: [K, channels in]; every position of a window has the same.
    b: [K, out, 1]; None without a bias.
  """
  w: base.Array
  r: base.Array | None = None
  s: base.Array | None = None
  b: base.Array | None = None


def name_weights(named: Mapping[str, base.Array]) -> list[LayerWeights]:
  """The weights of every layer, from the input on.

  Args:
    named: 'w_i', 'r_i', 's_i', 'b_i' of layer i; shapes as in `LayerWeights`.
  """
  num = 1 + max(int(name[2:]) for name in named)
  return [LayerWeights(*(named.get(f'{part}_{layer}') for part in 'wrsb'))
          for layer in range(num)]


class BatchEnsembleBody(hk.Module):
  """Shared weights and fast weights of every layer of a body."""

  def __init__(self, config: BatchEnsembleConfig, body: networks.Body):
    super().__init__(name=f'batch_ensemble_{body.name}')
    self._config = config
    self._body = body

  def __call__(self, input_shape: networks.Shape,
               dtype: jnp.dtype) -> list[LayerWeights]:
    num = self._config.num_ensemble
    specs = {}
    for i, shape in enumerate(self._body.weight_shapes(input_shape)):
      if shape.is_norm:
        specs[f'w_{i}'] = ((shape.out, shape.columns),
                           networks.initializer(shape))
        continue
      channels = shape.size // shape.positions
      specs[f'w_{i}'] = ((shape.out, shape.size), shape.weight_std)
      specs[f'r_{i}'] = ((num, shape.out), self._init_fast)
      specs[f's_{i}'] = ((num, channels), self._init_fast)
      if shape.has_bias:
        specs[f'b_{i}'] = ((num, shape.out, 1), shape.bias_std)
    return name_weights(networks.draw_parameters(specs, dtype))

  def _init_fast(self, draw: base.Array) -> base.Array:
    """Fast weights from truncated standard normals."""
    if self._config.fast_init == 'sign':
      return jnp.where(draw < 0, -1., 1.).astype(draw.dtype)
    return 1. + self._config.fast_std * draw


def member_layers(layers: Sequence[LayerWeights],
                  indices: base.Index | None,
                  plain_member: bool = False,
                  train_shared_by_plain: bool = False) -> networks.Layers:
  """The weights of members, all (None) or some: [J, out, columns] each.

  W o (r s^T) is made once per step: it has fewer entries than the activations
  that the fast weights would otherwise scale, so its gradient is cheaper too.

  Args:
    layers: the weights of every layer, from the input on.
    indices: members, int [J]; None for all.
    plain_member: see `BatchEnsembleConfig`.
    train_shared_by_plain: see `BatchEnsembleConfig`.
  """
  found = []
  for w, r, s, b in layers:
    if r is None or s is None:  # They come together.
      found.append(w[None])
      continue
    if plain_member:
      r, s = (jnp.asarray(fast).at[0].set(1.) for fast in (r, s))
    if train_shared_by_plain:
      fixed = jnp.broadcast_to(jax.lax.stop_gradient(w),
                               (len(r) - 1, *w.shape))
      w = jnp.concatenate([w[None], fixed])
    if indices is not None:
      r, s = r[indices], s[indices]
      b = None if b is None else b[indices]
      w = w[indices] if w.ndim == 3 else w
    s = jnp.tile(s, (1, w.shape[-1] // s.shape[-1]))
    member = w * (r[:, :, None] * s[:, None, :])
    found.append(member if b is None else
                 jnp.concatenate([member, b], axis=-1))
  return found


def all_members(params: base.Params, plain_member: bool = False,
                train_shared_by_plain: bool = False) -> networks.Layers:
  """`member_layers` of all members from Haiku's parameters."""
  (named,) = params.values()
  return member_layers(name_weights(named), None, plain_member,
                       train_shared_by_plain)


def make_network(config: BatchEnsembleConfig,
                 input_shape: networks.Shape | None = None,
                 num_outputs: int = 1) -> base.EpistemicNetwork:
  """The BatchEnsemble's network; z is an int32 member.

  Args:
    config: the settings.
    input_shape: of one example; None leaves unchecked that the body takes it.
    num_outputs: components of f(x).
  """
  body = networks.choose_body(config, input_shape, num_outputs)

  def members(body: networks.Body) -> base.EpistemicNetwork:
    drawn = hk.transform(lambda x: BatchEnsembleBody(config, body)(
        x.shape[1:], x.dtype))

    def weights(params, x, indices):
      return member_layers(drawn.apply(params, None, x), indices,
                           config.plain_member, config.train_shared_by_plain)

    return networks.network_of_members(
        body, config.num_ensemble, drawn.init, weights,
        functools.partial(all_members, plain_member=config.plain_member))

  return networks.with_body_prior(members, body, config.prior_scale)


def mean_squares(params: base.Params, plain_member: bool = False,
                 train_shared_by_plain: bool = False) -> list[base.Array]:
  """The mean over members of the squared weights W o (r s^T), b, per layer."""
  return [jnp.mean(jnp.square(w), axis=0) for w in all_members(
      params, plain_member, train_shared_by_plain)]


@functools.cache
def make_optimizer(config: BatchEnsembleConfig
                   ) -> optax.GradientTransformation:
  """The optimizer of a config; equal configs have the same."""
  slow = optimizers.make_optimizer(config)
  if config.fast_learning_rate is None:
    return slow
  fast = optimizers.make_optimizer(optimizers.at_learning_rate(
      config, config.fast_learning_rate))

  def label(params: base.Params) -> dict[str, dict[str, str]]:
    return {module: {name: 'fast' if name[0] in 'rs' else 'slow'
                     for name in named} for module, named in params.items()}

  return optax.multi_transform({'fast': fast, 'slow': slow}, label)


def make_agent(config: BatchEnsembleConfig) -> base.Agent:
  """A BatchEnsemble trained on all its members at every step."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    return likelihoods.make_loss_for(
        prior, noise_scale=config.noise_scale, bootstrap=config.bootstrap,
        weight_decay=config.weight_decay, mean_squares=functools.partial(
            mean_squares, plain_member=config.plain_member,
            train_shared_by_plain=config.train_shared_by_plain),
        shapes=networks.body_shapes(config, prior))

  return network_agent.make_network_agent(
      config, lambda prior: make_network(
          config, prior.input_shape, prior.num_outputs), make_loss,
      make_optimizer(config))
