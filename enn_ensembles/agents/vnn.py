"""Variational neural network (VNN): every layer draws its output.

The index z ~ N(0, I) has an entry for every unit, the output included, and all
data points share it. A unit of a convolution is a channel, whose positions
share the entry too: a sample is a network with weights M + diag(g z) S. With
the input h of layer l and its part z_l of the index,

  mean  = M_l h + m_l,   std = S_l h + s_l
  h_l+1 = mean + g(std) * z_l

where g(std) is std ('none'), a constant times std ('multiply'), or the constant
alone ('replace': then there is no S). An activation a is applied in the
hidden layers where the mode says: to the mean, to the std (before the constant
multiplies it), to the result ('end'), joined by '+', or nowhere ('none'). With
'none' every sample f(., z) is affine in x. The loss is

  mean over t, z of w_t(z) (f(x_t, z) - y_t)^2,
  w_t(z) = ((b_t . z)^2 + (c_t . z)^2) / (2 dim z)

with fixed b_t, c_t ~ N(0, I) for every data point: for each index the data have
exponential weights, about 1 on average. With loss_function='target_noise' it is
the squared error on noisy targets.

The weights M, S are the same for all indices, so that all indices are one
matrix product per layer, mean and std together, [2 out, in + 1] by [in + 1,
J B]; the first layer's maps do not depend on z and are computed once. For J
indices, B data points and m_l inputs to layer l with n_l units, a step takes

  12 J B sum_{l > 1} n_l (m_l + 1) + 8 B n_1 (D + 1)

operations in products (half of that with 'replace'): 2.4e9 for three layers of
100. With 'none' every sample is one affine map of x, found by multiplying the
layers together from the output on, a row vector per index: the first term loses
its factor B, and a step takes 3e7 operations.

The published testbed code of the Layer Ensembles paper differs. Its selected
setting names three hidden layers, but its sweep builds two: hidden_sizes=(100,
100) here. It activates the output layer too, which cuts predictions off at 0
with 'relu' in all modes but 'none' and 'std'; here the output is linear. Its
weights are dim z times as large, which Adam does not notice; so is the variance
of its target noise, which is noise_scale^2 eps^2 here.

Oleksiienko, Tran & Iosifidis 2022, "Variational Neural Networks"
(arXiv 2207.01524). Oleksiienko & Iosifidis 2022, "Layer Ensembles"
(arXiv 2210.04882): the settings.
"""

import dataclasses
import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import networks
from enn_ensembles.training import index_bootstrap
from enn_ensembles.training import likelihoods
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers

ACTIVATIONS = ('relu', 'leaky_relu', 'tanh')
ACTIVATION_MODES = ('none', 'mean', 'std', 'end', 'mean+std', 'mean+end',
                    'std+end', 'mean+std+end')
GLOBAL_STD_MODES = ('none', 'multiply', 'replace')
LOSS_FUNCTIONS = ('bootstrap', 'target_noise')


@dataclasses.dataclass(frozen=True)
class VnnConfig(optimizers.TrainingConfig):
  """Settings of a VNN; the defaults are those the paper selected.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    activation: 'relu', 'leaky_relu' (slope 0.01) or 'tanh'.
    activation_mode: what hidden layers apply it to: 'none', or some of 'mean',
      'std' and 'end', in this order and joined by '+'.
    global_std_mode: 'none', 'multiply' or 'replace': g above.
    global_std: the constant of 'multiply' and 'replace'; it is not trained.
    loss_function: 'bootstrap' (exponential weights) or 'target_noise'.
    noise_scale: std of the target noise, in units of the problem's noise_std;
      only 'target_noise' reads it.
    weight_decay: strength of the Gaussian prior on the trained weights, see
      `penalties.add_gaussian_weight_decay`; 1 is the kernel's own, 0 is none.
    num_index_samples: indices drawn per step.
    body: the network, a name in `networks.BODIES`, or a `networks.Body`; those
      with residual blocks cannot be served.
    norm: not read, because no body with norms can be served; agents that take
      a `body` have the field.
    hidden_sizes: units of each hidden layer of the bodies 'mlp' and
      'mlp_dropout'.
    final_learning_rate: what half a cosine over num_batches takes the learning
      rate down to; None keeps it constant.
  """
  activation: str = 'relu'
  activation_mode: str = 'none'
  global_std_mode: str = 'multiply'
  global_std: float = 2.
  loss_function: str = 'bootstrap'
  noise_scale: float = 1.
  weight_decay: float = 0.
  num_index_samples: int = 100
  body: str | networks.Body = 'mlp'
  norm: str = 'group'
  hidden_sizes: tuple[int, ...] = (100, 100, 100)
  final_learning_rate: float | None = 1e-6

  def __post_init__(self):
    checks.check_choice('activation', self.activation, ACTIVATIONS)
    checks.check_choice('activation_mode', self.activation_mode,
                        ACTIVATION_MODES)
    checks.check_choice('global_std_mode', self.global_std_mode,
                        GLOBAL_STD_MODES)
    checks.check_scale('global_std', self.global_std)
    checks.check_choice('loss_function', self.loss_function, LOSS_FUNCTIONS)
    checks.check_scale('noise_scale', self.noise_scale)
    checks.check_size('num_index_samples', self.num_index_samples)
    super().__post_init__()
    checks.check_scale('weight_decay', self.weight_decay)
    networks.check_body(self)


class VariationalLayers(hk.Module):
  """(M, S) of every layer: [2, out, columns], or (M) [1, out, columns]."""

  def __init__(self, body: networks.Body, with_std: bool,
               name: str = 'variational_layers'):
    super().__init__(name=name)
    self._body = body
    self._num_maps = 2 if with_std else 1

  def __call__(self, input_shape: networks.Shape,
               dtype: jnp.dtype) -> networks.Layers:
    return list(networks.draw_parameters(
        {f'w_{layer}': ((self._num_maps, shape.out, shape.columns),
                        networks.column_scales(shape))
         for layer, shape in enumerate(self._body.weight_shapes(input_shape))},
        dtype).values())


def count_units(body: networks.Body) -> list[int]:
  """Units of every layer that draws its output: channels of a convolution.

  Raises:
    ValueError: the body has norms or residual blocks.
  """
  found = []
  for layer in body.layers:
    if isinstance(layer, networks.Dense):
      found.append(layer.size)
    elif isinstance(layer, networks.Conv2D):
      found.append(layer.channels)
    elif isinstance(layer, (networks.Norm, networks.Residual)):
      raise ValueError(f'vnn cannot serve body {body.name!r}: it has '
                       f'{type(layer).__name__} layers, of which it is not '
                       'defined.')
  return found


def is_affine(config: VnnConfig, body: networks.Body) -> bool:
  """Whether every sample is computed as one affine map of x."""
  return body.is_mlp and config.activation_mode == 'none'


def _activate(config: VnnConfig, target: str, h: base.Array,
              is_output: bool) -> base.Array:
  """The activation, if this target of a layer has one."""
  if is_output or target not in config.activation_mode.split('+'):
    return h
  return getattr(jax.nn, config.activation)(h)


def mean_and_std(config: VnnConfig, layer: networks.Dense | networks.Conv2D,
                 w: base.Array, h: base.Array, shape: networks.Shape,
                 is_output: bool) -> tuple[base.Array, base.Array | None]:
  """What z is added to and multiplied by in one layer.

  Args:
    config: the settings.
    layer: whose product it is; its activation gives way to the config's.
    w: [2 or 1, out, columns].
    h: the layer's input [*features first, N].
    shape: of one example of the input.
    is_output: whether it is the last layer.

  Returns:
    mean [out, *positions, N], and g(std) of the same shape, or None where it is
    the constant.
  """
  num_maps, out, columns = w.shape
  maps = layer.product(w.reshape(num_maps * out, columns), h, shape)
  maps = maps.reshape(num_maps, out, *maps.shape[1:])
  mean = _activate(config, 'mean', maps[0], is_output)
  if config.global_std_mode == 'replace':
    return mean, None
  std = _activate(config, 'std', maps[1], is_output)
  if config.global_std_mode == 'multiply':
    std = config.global_std * std
  return mean, std


def vnn_forward(config: VnnConfig, body: networks.Body, layers: networks.Layers,
                z: base.Array, x: base.Array,
                shared: tuple[base.Array, base.Array | None] | None = None
                ) -> base.Array:
  """The network for many indices.

  Activations are [*features first, J B] here: the weights are shared by all
  indices, which are so many more columns of one product.

  Args:
    config: the settings.
    body: the network.
    layers: (M, S) of every layer that draws.
    z: the indices [J, units].
    x: inputs [B, ...].
    shared: `mean_and_std` of the first layer that draws; None computes it.

  Returns:
    [J, B, out].
  """
  left = list(layers)
  parts = jnp.split(z, np.cumsum([w.shape[1] for w in layers])[:-1], axis=1)
  maps = shared
  h = networks.first_layout(x)  # [..., B], and [..., J B] once a layer drew.
  for layer, shape in zip(body.layers, networks.shapes_along(
      body.layers, x.shape[1:])):
    if not isinstance(layer, (networks.Dense, networks.Conv2D)):
      h = layer.apply([], h, shape, networks.ForwardPass())
      continue
    w, part = left.pop(0), parts.pop(0)
    is_output = not left
    if maps is None:
      maps = mean_and_std(config, layer, w, h, shape, is_output)
    # Beside the examples an axis for the indices, of length 1 at first.
    mean, std = jax.tree.map(
        lambda m: m.reshape(*m.shape[:-1], -1, len(x)), maps)
    std = config.global_std if std is None else std
    draws = part.T.reshape(len(mean), *(1,) * (mean.ndim - 3), len(z), 1)
    h = _activate(config, 'end', mean + std * draws, is_output)
    h, maps = h.reshape(*h.shape[:-2], -1), None
  return h.reshape(-1, len(z), len(x)).transpose(1, 2, 0)


def affine_forward(config: VnnConfig, layers: networks.Layers, z: base.Array,
                   x: base.Array) -> base.Array:
  """An MLP with activation_mode 'none': one affine map of x per index.

  From the outputs on, the row vectors that multiply a layer's output times
  M_l + diag(g z_l) S_l are those that multiply its input.

  Args:
    config: the settings.
    layers: (M, S) of every layer.
    z: the indices [J, units].
    x: inputs [B, D].

  Returns:
    [J, B, out].
  """
  sizes = [w.shape[1] for w in layers]
  outputs = sizes[-1]
  parts = jnp.split(z, np.cumsum(sizes)[:-1], axis=1)
  scale = 1. if config.global_std_mode == 'none' else config.global_std
  rows = jnp.tile(jnp.eye(outputs, dtype=x.dtype), (len(z), 1))  # [J out, out]
  constant = jnp.zeros([len(rows), 1], x.dtype)
  for w, part in zip(reversed(layers), reversed(parts)):
    noisy = scale * rows * jnp.repeat(part, outputs, axis=0)
    if config.global_std_mode == 'replace':
      constant = constant + jnp.sum(noisy, axis=1, keepdims=True)
      rows = rows @ w[0]
    else:
      rows = rows @ w[0] + noisy @ w[1]
    constant = constant + rows[:, -1:]  # The biases.
    rows = rows[:, :-1]
  return jnp.swapaxes((rows @ x.T + constant).reshape(-1, outputs, len(x)),
                      1, 2)


def make_network(config: VnnConfig, input_shape: networks.Shape | None = None,
                 num_outputs: int = 1) -> base.EpistemicNetwork:
  """The VNN's network; z ~ N(0, I) [units of all layers, outputs included].

  Args:
    config: the settings.
    input_shape: of one example; None leaves unchecked that the body takes it.
    num_outputs: components of f(x).
  """
  body = networks.choose_body(config, input_shape, num_outputs)
  indexer = networks.GaussianIndexer(sum(count_units(body)))
  transformed = hk.transform_with_state(
      lambda x: VariationalLayers(
          body, with_std=config.global_std_mode != 'replace')(
              x.shape[1:], x.dtype))

  def shared(params, state, x):
    layers, _ = transformed.apply(params, state, None, x)
    first = next(layer for layer in body.layers
                 if isinstance(layer, networks.Dense))
    x = x.reshape(len(x), -1)
    return mean_and_std(config, first, layers[0], x.T, x.shape[1:],
                        is_output=len(layers) == 1)

  def apply_indices(params, state, x, indices, shared=None):
    layers, state = transformed.apply(params, state, None, x)
    z = jnp.asarray(indices, x.dtype)
    if body.is_mlp:
      x = x.reshape(len(x), -1)
    if is_affine(config, body):
      return affine_forward(config, layers, z, x), state
    return vnn_forward(config, body, layers, z, x, shared), state

  has_shared = body.is_mlp and not is_affine(config, body)
  return networks.network_from_indices(
      init=transformed.init, apply_indices=apply_indices, indexer=indexer,
      shared=shared if has_shared else None)


def mean_squares(config: VnnConfig, params: base.Params) -> list[base.Array]:
  """E[(M + diag(g z) S)^2] = M^2 + g^2 S^2 of the weights of each layer."""
  scale = config.global_std if config.global_std_mode == 'multiply' else 1.
  stds = jnp.asarray([1., scale])
  return [jnp.sum(jnp.square(stds[:len(w), None, None].astype(w.dtype) * w),
                  axis=0)
          for w in networks.get_weights(params)]


def make_agent(config: VnnConfig) -> base.Agent:
  """A VNN trained on fresh indices at every step."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    body = networks.choose_body(config, prior.input_shape, prior.num_outputs)
    bootstrap = None
    if config.loss_function == 'bootstrap':
      # Affine samples have no activations to keep in the cache.
      largest_block = (config.num_index_samples if is_affine(config, body)
                       else losses.INDEX_BLOCK)
      bootstrap = index_bootstrap.make_bootstrap_loss(
          config.num_index_samples, largest_block,
          likelihoods.point_error(prior))
    return likelihoods.make_loss_for(
        prior, noise_scale=config.noise_scale,
        num_index_samples=config.num_index_samples,
        weight_decay=config.weight_decay,
        mean_squares=functools.partial(mean_squares, config),
        shapes=body.weight_shapes(prior.input_shape), loss=bootstrap)

  return network_agent.make_network_agent(
      config, lambda prior: make_network(
          config, prior.input_shape, prior.num_outputs), make_loss)
