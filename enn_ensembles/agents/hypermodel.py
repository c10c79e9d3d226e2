"""Linear hypermodel: the weights of one network, linear in the index.

With z ~ N(0, I/d) in R^d, all weights and biases of the base network are
A z + c, and the additive prior is a network whose layers read parts of z of
their own:

  f(x, z) = g(x; A z + c) + prior_scale * p(x, z)
  loss    = mean over z of (f(x_t, z) - y_t - noise_scale * eps * n_t . z)^2

with a fixed n_t ~ N(0, I) for every data point. In the prior, layer l has the
weights w_l z_l / sqrt(inputs) and the biases b_l z_l, where z_l is its part of
the index and every row of w_l, b_l has norm 1.

Because the weights are linear in z, the first layer needs no weights per index:
it is applied to x once per column of A and c, and each index mixes these d + 1
outputs. That is the cheaper way for many inputs. Deeper layers need weights per
index: their inputs differ.

Dwaracherla et al. 2020, "Hypermodels for exploration" (arXiv 2006.07464).
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import haiku as hk
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.machine import canonical
from enn_ensembles.training import likelihoods
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers


@dataclasses.dataclass(frozen=True)
class HypermodelConfig(optimizers.TrainingConfig):
  """Settings of a linear hypermodel; the defaults are the testbed paper's.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    index_dim: d, entries of the index.
    prior_scale: weight of the untrained hypermodel on the same index; 0 is
      none.
    noise_scale: std of the target noise, in units of the problem's noise_std; 0
      is none.
    weight_decay: strength of the Gaussian prior on the trained weights, see
      `penalties.add_gaussian_weight_decay`; 1 is the kernel's own, 0 is none.
    samples_per_dim: indices drawn per step, per index dimension.
    init_scale: std of the initial columns of A, in units of 1/sqrt(d); 0 starts
      with one network for all indices.
    body: the network, a name in `networks.BODIES`, or a `networks.Body`.
    norm: 'group' or 'none', of residual networks; this method cannot serve
      'batch'.
    hidden_sizes: units of each hidden layer of the bodies 'mlp' and
      'mlp_dropout'.
    start_at_network: whether training starts at a random network: c drawn like
      a network's initial weights, A at their scale. Bodies that are no MLP
      always do. False draws A of an MLP as the published testbed does, with a
      std of init_scale / sqrt(d) whatever a layer's inputs, and c as 0. With
      few index dimensions and several layers a classifier's logits then start
      in the hundreds, and it may stay at chance.
  """
  index_dim: int = 20
  prior_scale: float = 5.
  noise_scale: float = 1.
  weight_decay: float = 0.
  samples_per_dim: int = 20
  init_scale: float = 1.
  body: str | networks.Body = 'mlp'
  norm: str = 'group'
  hidden_sizes: tuple[int, ...] = (50, 50)
  start_at_network: bool = canonical.later_field(False)

  def __post_init__(self):
    checks.check_size('index_dim', self.index_dim)
    checks.check_scale('prior_scale', self.prior_scale)
    checks.check_scale('noise_scale', self.noise_scale)
    checks.check_size('samples_per_dim', self.samples_per_dim)
    checks.check_scale('init_scale', self.init_scale)
    checks.check_flag('start_at_network', self.start_at_network)
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    networks.check_body(self)


class HyperWeights(hk.Module):
  """A and c of every layer: [d + 1, out, columns], c last, biases last.

  They start as `HypermodelConfig.start_at_network` says.
  """

  def __init__(self, body: networks.Body, config: HypermodelConfig):
    super().__init__(name=f'hyper_{body.name}')
    self._body = body
    self._index_dim = config.index_dim
    self._init_std = config.init_scale * config.index_dim ** -0.5
    self._at_network = config.start_at_network or not body.is_mlp

  def __call__(self, input_shape: networks.Shape,
               dtype: jnp.dtype) -> networks.Layers:
    return list(networks.draw_parameters(
        {f'w_{layer}': ((self._index_dim + 1, shape.out, shape.columns),
                        self._initializer(shape))
         for layer, shape in enumerate(self._body.weight_shapes(input_shape))},
        dtype).values())

  def _initializer(self, shape: networks.LayerShape) -> Any:
    d = self._index_dim
    if not self._at_network:
      return np.array([self._init_std] * d + [0.])[:, None, None]
    scales, means = networks.column_scales(shape), networks.column_means(shape)
    stds = np.array([self._init_std] * d + [1.])[:, None, None] * scales
    only_c = np.array([0.] * d + [1.])[:, None, None]
    return lambda draw: (jnp.asarray(stds, draw.dtype) * draw
                         + jnp.asarray(only_c * means, draw.dtype))


class IndependentLayersPrior(hk.Module):
  """w_l, b_l of the prior: [d_l, out, columns], the bias being the last column.

  The index is cut into one part per layer, the first parts one longer where it
  does not divide; an index shorter than the layers goes whole to each.
  """

  def __init__(self, body: networks.Body, index_dim: int,
               name: str = 'independent_layers_prior'):
    super().__init__(name=name)
    self._body = body
    self._index_dim = index_dim

  def __call__(self, input_shape: networks.Shape,
               dtype: jnp.dtype) -> networks.Layers:
    shapes = self._body.weight_shapes(input_shape)
    parts = index_parts(self._index_dim, len(shapes))
    drawn = networks.draw_parameters(
        {f'w_{layer}': ((len(part), shape.out, shape.columns), 1.)
         for layer, (part, shape) in enumerate(zip(parts, shapes))},
        dtype)
    return [networks.column_scales(shape._replace(bias_std=1.))
            * w / jnp.linalg.norm(w, axis=0, keepdims=True)
            for shape, w in zip(shapes, drawn.values())]


def index_parts(index_dim: int, num_layers: int) -> list[np.ndarray]:
  """The entries of z that each layer of the prior reads."""
  if index_dim < num_layers:
    return [np.arange(index_dim)] * num_layers
  return np.array_split(np.arange(index_dim), num_layers)


def mix_columns(z: base.Array, w: base.Array) -> base.Array:
  """sum_k z[j, k] w[k, ...]: z [J, d], w [d, ...] -> [J, ...]."""
  return networks.mix(z, w.reshape(len(w), -1)).reshape(-1, *w.shape[1:])


def first_outputs(body: networks.Body, layers: networks.Layers,
                  x: base.Array) -> base.Array | None:
  """An MLP's first layer's output for each column at x [B, ...]: [d, out, B].

  None where it is cheaper to give every index weights of its own, and where the
  body is no MLP.
  """
  d, out, columns = layers[0].shape
  # Multiply-adds per index and unit, by its own weights or by mixed outputs.
  if not body.is_mlp or columns * (d + len(x)) < d * len(x):
    return None
  return networks.affine(layers[0].reshape(-1, columns),
                         x.reshape(len(x), -1).T).reshape(d, out, len(x))


def hyper_forward(body: networks.Body, layers: networks.Layers, x: base.Array,
                  parts: list[base.Array],
                  shared: base.Array | None) -> base.Array:
  """A body whose weights are linear in the index, for many indices.

  Args:
    body: the base network.
    layers: [d_l, out, columns] each.
    x: inputs [B, ...].
    parts: what each layer reads of the indices, [J, d_l].
    shared: of `first_outputs`.

  Returns:
    [J, B, out].
  """
  if shared is None:
    return networks.forward(
        body, [mix_columns(z, w) for w, z in zip(layers, parts)], x)
  first, *others = [layer for layer in body.layers
                    if isinstance(layer, networks.Dense)]
  h = first.activate(mix_columns(parts[0], shared))
  h = networks.apply_layers(
      others, [mix_columns(z, w) for w, z in zip(layers[1:], parts[1:])], h,
      (first.size,))
  return jnp.swapaxes(h, 1, 2)


def _make_part(body: networks.Body, transformed: hk.TransformedWithState,
               indexer: Any,
               get_parts: Callable[[base.Array, int], list[base.Array]]
               ) -> base.EpistemicNetwork:
  """The trained part or the prior: they differ in what a layer reads of z."""

  def shared(params, state, x):
    layers, _ = transformed.apply(params, state, None, x)
    return first_outputs(body, layers, x)

  def apply_indices(params, state, x, indices, shared=None):
    layers, state = transformed.apply(params, state, None, x)
    if shared is None:
      shared = first_outputs(body, layers, x)
    parts = get_parts(jnp.asarray(indices, x.dtype), len(layers))
    return hyper_forward(body, layers, x, parts, shared), state

  return networks.network_from_indices(transformed.init, apply_indices, indexer,
                                       shared)


def make_network(config: HypermodelConfig,
                 input_shape: networks.Shape | None = None,
                 num_outputs: int = 1) -> base.EpistemicNetwork:
  """The hypermodel's network; z ~ N(0, I/d) [d].

  Args:
    config: the settings.
    input_shape: of one example; None leaves unchecked that the body takes it.
    num_outputs: components of f(x).
  """
  body = networks.choose_body(config, input_shape, num_outputs)
  body.check_no_batch_norm('hypermodel')
  # A norm's scale of mean 0 would extinguish the prior function.
  prior_body = networks.without_norms(body)
  indexer = networks.GaussianIndexer(config.index_dim,
                                     std=config.index_dim ** -0.5)
  hyper = hk.transform_with_state(
      lambda x: HyperWeights(body, config)(x.shape[1:], x.dtype))
  prior = hk.transform_with_state(
      lambda x: IndependentLayersPrior(prior_body, config.index_dim)(
          x.shape[1:], x.dtype))

  def whole_index(z, num_layers):
    # c is the column of an extra index entry that is always 1.
    return [jnp.concatenate([z, jnp.ones_like(z[:, :1])], axis=1)] * num_layers

  def index_part(z, num_layers):
    return [z[:, part] for part in index_parts(config.index_dim, num_layers)]

  return networks.with_additive_prior(
      _make_part(body, hyper, indexer, whole_index),
      _make_part(prior_body, prior, indexer, index_part), config.prior_scale)


def mean_squares(params: base.Params) -> list[base.Array]:
  """E[(A z + c)^2] = |A|^2 / d + c^2 of the trained weights, per layer."""
  return [jnp.mean(jnp.square(w[:-1]), axis=0) + jnp.square(w[-1])
          for w in networks.get_weights(params)]


def make_agent(config: HypermodelConfig) -> base.Agent:
  """A linear hypermodel trained on fresh indices at every step."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    return likelihoods.make_loss_for(
        prior, noise_scale=config.noise_scale,
        num_index_samples=config.samples_per_dim * config.index_dim,
        weight_decay=config.weight_decay, mean_squares=mean_squares,
        shapes=networks.body_shapes(config, prior))

  return network_agent.make_network_agent(
      config, lambda prior: make_network(
          config, prior.input_shape, prior.num_outputs), make_loss)
