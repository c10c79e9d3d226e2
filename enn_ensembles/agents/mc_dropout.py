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
import math

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.training import likelihoods
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers
from enn_ensembles.training import penalties


@dataclasses.dataclass(frozen=True)
class McDropoutConfig(optimizers.TrainingConfig):
  """Settings of MC dropout; the defaults are the testbed paper's.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    dropout_rate: probability that a unit is switched off, in [0, 1).
    dropout_input: whether inputs are switched off as well.
    weight_decay_scale: the length scale l of the paper; the loss has
      l^2 (1 - rate) / (2 T) times the sum of the squares of all parameters, so
      1e-6 is practically none.
    weight_decay: strength of the Gaussian prior on the trained weights, see
      `penalties.add_gaussian_weight_decay`; 1 is the kernel's own, 0 is none.
    body: the network, a name in `networks.BODIES`, or a `networks.Body`.
    norm: 'batch', 'group' or 'none', of residual networks.
    hidden_sizes: units of each hidden layer of the bodies 'mlp' and
      'mlp_dropout'.
    first_bias_std: std of the first layer's initial bias in the same bodies.
  """
  dropout_rate: float = 0.05
  dropout_input: bool = True
  weight_decay_scale: float = 1e-6
  weight_decay: float = 0.
  body: str | networks.Body = 'mlp'
  norm: str = 'batch'
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 0.

  def __post_init__(self):
    checks.check_rate('dropout_rate', self.dropout_rate)
    checks.check_flag('dropout_input', self.dropout_input)
    checks.check_scale('weight_decay_scale', self.weight_decay_scale)
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    networks.check_body(self)


def draw_masks(keys: base.Index, sizes: list[int], rate: float,
               dtype: jnp.dtype) -> list[base.Array]:
  """Masks of every dropout place: 0, or 1 / (1 - rate) where kept.

  Args:
    keys: random keys [J].
    sizes: units of each place.
    rate: probability of 0.
    dtype: of the masks.

  Returns:
    [size, J] of each place.
  """
  num = sum(sizes)

  def draw(places):
    uniform = jax.vmap(lambda key: networks.uniform_at(key, places, num),
                       out_axes=1)(keys)
    return (uniform >= rate).astype(dtype) / (1. - rate)

  masks = networks.in_halves(draw, num)
  return jnp.split(masks, np.cumsum(sizes)[:-1])


def make_body(config: McDropoutConfig, input_shape: networks.Shape | None,
              num_outputs: int) -> networks.Body:
  """The network's layers, with the dropout places that are in use."""
  body = networks.choose_body(config, input_shape, num_outputs)
  if config.dropout_input:
    return body
  return networks.without_input_dropout(body)


def make_network(config: McDropoutConfig,
                 input_shape: networks.Shape | None = None,
                 num_outputs: int = 1) -> base.EpistemicNetwork:
  """The dropout network; z is a random key.

  Args:
    config: the settings.
    input_shape: of one example; None leaves unchecked that the body takes it.
    num_outputs: components of f(x).
  """
  body = make_body(config, input_shape, num_outputs)
  drawn = hk.transform(lambda x: networks.StackedBody(
      body, num_members=1)(x.shape[1:], x.dtype))

  def init(key, x):
    return drawn.init(key, x), networks.start_statistics(body, x, 1)

  def forward(params, state, x, keys, num_repeats, is_training):
    """Outputs [B, out] at x [B, ...], the masks of a key for each stretch."""
    shapes = networks.dropout_shapes(body.layers, x.shape[1:])
    masks = draw_masks(keys, [math.prod(shape) for shape in shapes],
                       config.dropout_rate, x.dtype)

    def drop(h, shape):
      mask = jnp.repeat(masks.pop(0), num_repeats, axis=1)
      # Features first: channels before height and width.
      return h * mask.reshape(*shape[-1:], *shape[:-1], -1)

    out, state = networks.forward_members(
        body, drawn.apply(params, None, x), state, x, None,
        is_training=is_training, drop=drop)
    return out[0], state

  def apply_indices(params, state, x, indices):
    num = len(indices)
    many = jnp.tile(x, (num, *(1,) * (x.ndim - 1)))
    out, state = forward(params, state, many, indices, len(x),
                         is_training=False)
    return out.reshape(num, len(x), -1), state

  def apply_train(params, state, x, indices, key):
    del key  # Every example has masks of its own, from its own index.
    out, state = forward(params, state, x, indices, 1, is_training=True)
    return out[None], state

  return networks.network_from_indices(
      init=init, apply_indices=apply_indices, indexer=networks.PrngIndexer(),
      apply_train=apply_train)


def make_agent(config: McDropoutConfig) -> base.Agent:
  """A dropout network trained with a mask per example."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    loss = likelihoods.make_loss_for(
        prior, per_example=True, weight_decay=config.weight_decay,
        mean_squares=networks.member_mean_squares,
        shapes=networks.body_shapes(config, prior))
    decay = (config.weight_decay_scale ** 2 * (1. - config.dropout_rate)
             / (2. * prior.num_train))
    return penalties.add_l2_weight_decay(loss, decay)

  return network_agent.make_network_agent(
      config, lambda prior: make_network(
          config, prior.input_shape, prior.num_outputs), make_loss)
