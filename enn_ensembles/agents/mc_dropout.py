"""MC dropout: one network, random units switched off at test time too.

The index z is a random key; it draws which units are kept, each with
probability 1 - rate:

  f(x, z) = g(x o m_0; theta, masks m_1, ..., m_N drawn from z) / keep rates
  loss    = mean over t of (f(x_t, z_t) - y_t)^2
            + (weight_decay_scale^2) (1 - rate) / (2 T) * |theta|^2

with a z_t of its own for each example of a minibatch, as dropout is always
trained. For one index all data points share the masks, so f(., z) is a
function, which joint scores need.

Gal & Ghahramani 2016, "Dropout as a Bayesian approximation: representing model
uncertainty in deep learning" (arXiv 1506.02142).
"""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.training import likelihoods
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers


@dataclasses.dataclass(frozen=True)
class McDropoutConfig(optimizers.TrainingConfig):
  """Settings of MC dropout; the defaults are the testbed paper's.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    dropout_rate: probability that a unit is switched off.
    dropout_input: whether inputs are switched off as well.
    weight_decay_scale: the length scale l of the paper; the weight decay is
      l^2 (1 - rate) / (2 T), so 1e-6 is practically none.
    weight_decay: strength of the Gaussian prior on the trained weights, see
      `losses.add_gaussian_weight_decay`; 1 is the kernel's own, 0 is none.
    hidden_sizes: units of each hidden layer.
    first_bias_std: std of the first layer's initial bias.
  """
  dropout_rate: float = 0.05
  dropout_input: bool = True
  weight_decay_scale: float = 1e-6
  weight_decay: float = 0.
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 0.

  def __post_init__(self):
    checks.check_rate('dropout_rate', self.dropout_rate)
    checks.check_flag('dropout_input', self.dropout_input)
    checks.check_scale('weight_decay_scale', self.weight_decay_scale)
    checks.check_scale('first_bias_std', self.first_bias_std)
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    checks.check_sizes('hidden_sizes', self.hidden_sizes)


def draw_masks(key: base.Index, sizes: list[int], rate: float,
               dtype: jnp.dtype) -> list[base.Array]:
  """Masks [size] for every layer's input: 0, or 1 / (1 - rate) where kept."""
  uniform = jax.random.uniform(key, [sum(sizes)], jnp.float32)
  mask = (uniform >= rate).astype(dtype) / (1. - rate)
  ends = [sum(sizes[:i + 1]) for i in range(len(sizes))]
  return [mask[end - size:end] for size, end in zip(sizes, ends)]


def make_network(config: McDropoutConfig) -> base.EpistemicNetwork:
  """The dropout network; z is a random key."""
  def get_layers(x: base.Array) -> networks.Layers:
    module = networks.StackedBody(networks.make_mlp(
        config.hidden_sizes, 1, config.first_bias_std), num_members=1)
    return module(x.shape[1:], x.dtype)

  transformed = hk.transform_with_state(get_layers)

  def apply(params, state, x, z):
    layers, state = transformed.apply(params, state, None, x)
    sizes = [w.shape[-1] - 1 for w in layers]
    if not config.dropout_input:
      sizes = sizes[1:]
    masks = draw_masks(z, sizes, config.dropout_rate, x.dtype)
    h = x * masks.pop(0) if config.dropout_input else x
    for layer, w in enumerate(layers):
      h = h @ w[0, :, :-1].T + w[0, :, -1]
      if layer < len(layers) - 1:
        h = jax.nn.relu(h) * masks[layer]
    return h, state

  return base.EpistemicNetwork(
      apply=apply, init=lambda key, x, z: transformed.init(key, x),
      indexer=networks.PrngIndexer())


def make_agent(config: McDropoutConfig) -> base.Agent:
  """A dropout network trained with a mask per example."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    loss = likelihoods.make_loss_for(
        prior, per_example=True, weight_decay=config.weight_decay,
        mean_squares=networks.member_mean_squares)
    decay = (config.weight_decay_scale ** 2 * (1. - config.dropout_rate)
             / (2. * prior.num_train))
    return losses.add_l2_weight_decay(loss, decay)

  return network_agent.make_network_agent(
      config, lambda prior: make_network(config), make_loss)
