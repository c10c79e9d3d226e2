"""Layer ensemble: options of every layer, members are their combinations.

Each of the L weight layers has K_l options, and the index z = (z_1, ..., z_L)
picks one option per layer: K_1 K_2 ... K_L networks for the parameters of
K_1 + ... + K_L layers.

  f(x, z) = g(x; W^1_{z_1}, ..., W^L_{z_L}) + prior_scale * (same, untrained)
  loss    = mean over z of (f(x_t, z) - y_t - noise_scale * eps * n_{t,z})^2

Combinations that share a prefix share their first layers, so all K^L outputs
cost K + K^2 + ... + K^L layer evaluations, not L K^L: the optimised layer
ensemble (OLE, Algorithm 1 of the paper; `networks/layer_stack.py`).

Every combination has target noise n_{t,z} of its own. In the published code all
combinations with the same option in the first layer share it, which makes a
difference at K = 2 (docs/studies.md); `noise_by='first_option'` does the same.

Oleksiienko & Iosifidis 2022, "Layer Ensembles" (arXiv 2210.04882).
"""

import dataclasses
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import stack_network
from enn_ensembles.training import likelihoods
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers

NOISE_RULES = ('combination', 'first_option')

# All of them are listed, and each has its own target noise.
_MOST_COMBINATIONS = 2**20


@dataclasses.dataclass(frozen=True)
class LayerEnsembleConfig(optimizers.TrainingConfig):
  """Settings of a layer ensemble; the defaults are the paper's.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    num_options: options of each layer; one number for all layers, or a tuple
      with one entry per weight layer (hidden layers and the output); a residual
      block is one layer.
    prior_scale: weight of the untrained layer ensemble on the same index; 0 is
      none.
    noise_scale: std of the target noise, in units of the problem's noise_std; 0
      is none.
    bootstrap: whether each member has its own T of the T data points, drawn
      with replacement.
    weight_decay: strength of the Gaussian prior on the trained weights, see
      `penalties.add_gaussian_weight_decay`; 1 is the kernel's own, 0 is none.
    noise_by: what has its own draw of target noise: every 'combination', or
      every 'first_option', which all combinations with it share (as the
      paper's published code has it).
    num_index_samples: combinations drawn per step; None trains all of them.
    body: the network, a name in `networks.BODIES`, or a `networks.Body`.
    norm: 'group' or 'none', of residual networks; this method cannot serve
      'batch'.
    hidden_sizes: units of each hidden layer of the bodies 'mlp' and
      'mlp_dropout'.
    first_bias_std: std of the first layer's initial bias in the same bodies.
  """
  num_options: int | tuple[int, ...] = 3
  prior_scale: float = 1.
  noise_scale: float = 1.
  bootstrap: bool = False
  weight_decay: float = 0.
  noise_by: str = 'combination'
  num_index_samples: int | None = None
  body: str | networks.Body = 'mlp'
  norm: str = 'group'
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.

  def __post_init__(self):
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    checks.check_flag('bootstrap', self.bootstrap)
    networks.check_body(self)
    if not isinstance(self.num_options, tuple):
      checks.check_size('num_options', self.num_options)
    checks.check_sizes('num_options', self.options)
    num_layers = networks.choose_body(self).num_weight_layers
    if len(self.options) != num_layers:
      raise ValueError(f'num_options must have {num_layers} entries, one per '
                       f'weight layer, got {self.num_options!r}.')
    if math.prod(self.options) > _MOST_COMBINATIONS:
      raise ValueError(f'num_options must have at most {_MOST_COMBINATIONS} '
                       f'combinations, got {math.prod(self.options)} of '
                       f'{self.options}.')
    checks.check_scale('prior_scale', self.prior_scale)
    checks.check_scale('noise_scale', self.noise_scale)
    checks.check_choice('noise_by', self.noise_by, NOISE_RULES)
    if self.num_index_samples is not None:
      checks.check_size('num_index_samples', self.num_index_samples)

  @property
  def options(self) -> tuple[int, ...]:
    """Options of each weight layer."""
    if isinstance(self.num_options, tuple):
      return self.num_options
    return (self.num_options,) * networks.choose_body(self).num_weight_layers


@dataclasses.dataclass(frozen=True)
class LayerEnsembleIndexer:
  """z = one option per layer, int32 [L], each uniform and independent."""
  num_options: tuple[int, ...]
  noise_by: str = 'combination'

  def __call__(self, key: chex.PRNGKey) -> base.Index:
    maxima = jnp.asarray(self.num_options, jnp.int32)
    return jax.random.randint(key, maxima.shape, 0, maxima, dtype=jnp.int32)

  def support(self) -> np.ndarray:
    """All combinations, [K_1 ... K_L, L] int32, the last layer fastest."""
    return np.array(list(itertools.product(*map(range, self.num_options))),
                    np.int32)

  @property
  def noise_dim(self) -> int:
    """Independent draws of target noise per data point."""
    if self.noise_by == 'first_option':
      return self.num_options[0]
    return int(np.prod(self.num_options))

  def noise_embedding(self, indices: base.Index) -> base.Array:
    """Which draw belongs to each index, one-hot [J, noise_dim]."""
    flat = 0
    for layer, options in enumerate(self.num_options):
      if layer > 0 and self.noise_by == 'first_option':
        break
      flat = flat * options + indices[..., layer]
    return jax.nn.one_hot(flat, self.noise_dim)


def make_stack(config: LayerEnsembleConfig,
               input_shape: networks.Shape | None = None,
               num_outputs: int = 1) -> layer_stack.LayerStack:
  """The body's layers and their options."""
  body = networks.choose_body(config, input_shape, num_outputs)
  body.check_no_batch_norm('layer_ensemble')
  return layer_stack.LayerStack(body.layers, config.options)


def make_stack_network(stack: layer_stack.LayerStack, prior_scale: float = 1.,
                       noise_by: str = 'combination') -> base.EpistemicNetwork:
  """A layer ensemble of any layers; z is int32 [L], an option per layer.

  For images x is [B, height, width, channels]:

    stack = layer_stack.LayerStack(
        (images.Conv2D(32, window=5), images.MaxPool(), images.Flatten(),
         layers.Dense(10, 'none')), num_options=(3, 3))

  Args:
    stack: layers and numbers of options.
    prior_scale: weight of the untrained layer ensemble on the same index; with
      0 there is none.
    noise_by: see `LayerEnsembleConfig`.
  """
  checks.check_scale('prior_scale', prior_scale)
  checks.check_choice('noise_by', noise_by, NOISE_RULES)

  def options() -> base.EpistemicNetwork:
    return stack_network.make_network(
        stack, LayerEnsembleIndexer(stack.num_options, noise_by))

  return networks.with_additive_prior(options(), options(), prior_scale)


def make_network(config: LayerEnsembleConfig,
                 input_shape: networks.Shape | None = None,
                 num_outputs: int = 1) -> base.EpistemicNetwork:
  """The layer ensemble's network; z is int32 [L], one option per layer.

  Args:
    config: the settings.
    input_shape: of one example; None leaves unchecked that the body takes it.
    num_outputs: components of f(x).
  """
  return make_stack_network(make_stack(config, input_shape, num_outputs),
                            config.prior_scale, config.noise_by)


def mean_squares(params: base.Params) -> list[base.Array]:
  """The mean over all combinations of the squared weights, per layer."""
  return [jnp.mean(jnp.square(w), axis=1)
          for w in stack_network.get_weights(params)]


def make_agent(config: LayerEnsembleConfig) -> base.Agent:
  """A layer ensemble trained on all combinations, or on a random subset."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    return likelihoods.make_loss_for(
        prior, noise_scale=config.noise_scale,
        num_index_samples=config.num_index_samples,
        bootstrap=config.bootstrap, weight_decay=config.weight_decay,
        mean_squares=mean_squares,
        shapes=networks.body_shapes(config, prior))

  return network_agent.make_network_agent(
      config, lambda prior: make_network(
          config, prior.input_shape, prior.num_outputs), make_loss)
