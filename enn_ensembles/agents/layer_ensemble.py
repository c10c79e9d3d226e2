"""Layer ensemble: an ensemble of every layer, members are paths through it.

Each of the N weight layers has K_l options, and the index z = (z_1, ..., z_N)
picks one option per layer: K_1 K_2 ... K_N networks for the parameters of
K_1 + ... + K_N layers.

  f(x, z) = g(x; W^1_{z_1}, ..., W^N_{z_N}) + prior_scale * (same, untrained)
  loss    = mean over z of (f(x_t, z) - y_t - noise_scale * eps * n_{t,z})^2

Paths that begin alike share their first layers, so all K^N outputs cost
K + K^2 + ... + K^N layer evaluations, not N K^N: the optimised layer ensemble
(OLE, Algorithm 1 of the paper), here for any set of indices known when the
program is compiled.

Oleksiienko & Iosifidis 2022, "Layer Ensembles" (arXiv 2210.04882).
"""

import dataclasses
import itertools
from typing import Optional, Sequence, Union

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import config_checks as checks
from enn_ensembles import losses
from enn_ensembles import networks
from enn_ensembles import training

NOISE_RULES = ('combination', 'first_option')


@dataclasses.dataclass(frozen=True)
class LayerEnsembleConfig:
  """Settings of a layer ensemble; the defaults are the paper's.

  Attributes:
    num_options: options of each layer; one number for all layers, or a tuple
      with one entry per weight layer (hidden layers and the output).
    prior_scale: weight of the untrained layer ensemble on the same index.
    noise_scale: std of the target noise, in units of the problem's noise_std.
    noise_by: what has its own draw of target noise: every 'combination', or
      every 'first_option', which all paths through that option share (as the
      paper's published code has it).
    num_index_samples: combinations drawn per step; None trains all of them.
    hidden_sizes: units of each hidden layer.
    first_bias_std: std of the first layer's initial bias.
    learning_rate: of Adam.
    num_batches: SGD steps.
    batch_size: data points per step, drawn with replacement.
  """
  num_options: Union[int, tuple[int, ...]] = 3
  prior_scale: float = 1.
  noise_scale: float = 1.
  noise_by: str = 'combination'
  num_index_samples: Optional[int] = None
  hidden_sizes: tuple[int, ...] = (50, 50)
  first_bias_std: float = 1.
  learning_rate: float = 1e-3
  num_batches: int = 1000
  batch_size: int = 100

  def __post_init__(self):
    checks.check_training(self)
    if not isinstance(self.num_options, tuple):
      checks.check_count('num_options', self.num_options)
    checks.check_sizes('num_options', self.options)
    if len(self.options) != len(self.hidden_sizes) + 1:
      raise ValueError(
          f'num_options must have {len(self.hidden_sizes) + 1} entries, one per '
          f'weight layer, got {self.num_options!r}.')
    checks.check_scale('prior_scale', self.prior_scale)
    checks.check_scale('noise_scale', self.noise_scale)
    checks.check_choice('noise_by', self.noise_by, NOISE_RULES)
    checks.check_scale('first_bias_std', self.first_bias_std)
    if self.num_index_samples is not None:
      checks.check_count('num_index_samples', self.num_index_samples)

  @property
  def options(self) -> tuple[int, ...]:
    """Options of each weight layer."""
    if isinstance(self.num_options, tuple):
      return self.num_options
    return (self.num_options,) * (len(self.hidden_sizes) + 1)


@dataclasses.dataclass(frozen=True)
class LayerEnsembleIndexer:
  """z = one option per layer, int32 [N], each uniform and independent."""
  num_options: tuple[int, ...]
  noise_by: str = 'combination'

  def __call__(self, key: chex.PRNGKey) -> base.Index:
    maxima = jnp.asarray(self.num_options, jnp.int32)
    return jax.random.randint(key, maxima.shape, 0, maxima, dtype=jnp.int32)

  def support(self) -> np.ndarray:
    """All combinations, [K_1 ... K_N, N] int32, the last layer fastest."""
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


class LayerStack(hk.Module):
  """The options of every layer, [out, K, in + 1] each, the bias last.

  The options lie between out and in, so that the product of all options with
  all paths so far, [out * K, in + 1] by [in + 1, paths * B], is one matrix
  product whose result is already in the order that the next layer reads.
  """

  def __init__(self, output_sizes: Sequence[int], num_options: Sequence[int],
               first_bias_std: float, name: str = 'layer_stack'):
    super().__init__(name=name)
    self._output_sizes = tuple(output_sizes)
    self._num_options = tuple(num_options)
    self._first_bias_std = first_bias_std

  def __call__(self, input_dim: int, dtype: jnp.dtype) -> networks.Layers:
    shapes = networks.mlp_shapes(input_dim, self._output_sizes,
                                 self._first_bias_std)
    return list(networks.draw_parameters(
        {f'w_{layer}': ((shape.out, options, shape.size + 1),
                        networks.column_scales(shape))
         for layer, (shape, options) in enumerate(zip(
             shapes, self._num_options))}, dtype).values())


def forward_one(layers: networks.Layers, x: base.Array,
                z: base.Index) -> base.Array:
  """One path: x [B, D], z int32 [N] -> [B, out]."""
  h = x.T
  for layer, w in enumerate(layers):
    h = networks.affine(w[:, z[layer]], h)
    h = jax.nn.relu(h) if layer < len(layers) - 1 else h
  return h.T


def forward_all(layers: networks.Layers, x: base.Array) -> base.Array:
  """All paths, in the indexer's order: x [B, D] -> [K_1 ... K_N, B, out]."""
  h = x.T  # [in, paths * B]; the options of the newest layer lie first.
  for layer, w in enumerate(layers):
    out, options, columns = w.shape
    h = networks.affine(w.reshape(out * options, columns), h).reshape(out, -1)
    h = jax.nn.relu(h) if layer < len(layers) - 1 else h
  num_options = [w.shape[1] for w in layers]
  h = h.reshape(-1, *reversed(num_options), len(x))
  # [out, K_N, ..., K_1, B] -> [K_1, ..., K_N, B, out]
  order = [*range(len(layers), 0, -1), len(layers) + 1, 0]
  return h.transpose(order).reshape(-1, len(x), h.shape[0])


def forward_subset(layers: networks.Layers, x: base.Array,
                   indices: np.ndarray) -> base.Array:
  """Chosen paths, every shared beginning computed once (OLE).

  Args:
    layers: the options of every layer.
    x: inputs [B, D].
    indices: concrete (not traced) int [J, N], J >= 1, in any order, repeats
      allowed.

  Returns:
    [J, B, out] in the order of `indices`.
  """
  h = x.T[None]  # [paths, in, B], one empty path.
  path = np.zeros(len(indices), np.int64)  # Each index's row of h.
  for layer, w in enumerate(layers):
    prefixes, path = np.unique(
        np.stack([path, indices[:, layer]], 1), axis=0, return_inverse=True)
    path = path.reshape(-1)
    outputs, order = [], []
    for option in np.unique(prefixes[:, 1]):
      rows = np.flatnonzero(prefixes[:, 1] == option)
      parents = h[prefixes[rows, 0]]
      weights = jnp.broadcast_to(w[:, option],
                                 (len(rows), w.shape[0], w.shape[2]))
      outputs.append(networks.affine(weights, parents))
      order.append(rows)
    h = jnp.concatenate(outputs)[np.argsort(np.concatenate(order))]
    h = jax.nn.relu(h) if layer < len(layers) - 1 else h
  return jnp.swapaxes(h[path], 1, 2)


def check_indices(indices: np.ndarray, num_options: Sequence[int]) -> None:
  """Raises ValueError unless `indices` [J, N] are options of the layers."""
  if indices.ndim != 2 or indices.shape[1] != len(num_options):
    raise ValueError(f'indices must be [J, {len(num_options)}], one option per '
                     f'layer, got shape {indices.shape}.')
  if len(indices) == 0:
    raise ValueError('indices must name at least one sample, got none.')
  bad = np.argwhere((indices < 0) | (indices >= np.asarray(num_options)))
  if len(bad):
    row, layer = bad[0]
    raise ValueError(
        f'index {indices[row].tolist()} asks for option {indices[row, layer]} '
        f'of layer {layer}, which has options 0 to {num_options[layer] - 1}.')


def make_layer_stack_network(output_sizes: Sequence[int],
                             num_options: tuple[int, ...],
                             first_bias_std: float = 1.,
                             noise_by: str = 'combination'
                             ) -> base.EpistemicNetwork:
  """A layer ensemble without a prior.

  Its `apply_indices` shares beginnings where the indices are concrete (None or
  numpy); traced ones run path by path.
  """
  def get_layers(x: base.Array) -> networks.Layers:
    module = LayerStack(output_sizes, num_options, first_bias_std)
    return module(x.shape[-1], x.dtype)

  transformed = hk.transform_with_state(get_layers)

  def apply(params, state, x, z):
    layers, state = transformed.apply(params, state, None, x)
    return forward_one(layers, x, z), state

  def apply_indices(params, state, x, indices):
    layers, state = transformed.apply(params, state, None, x)
    if indices is None:
      out = forward_all(layers, x)
    elif isinstance(indices, jax.core.Tracer):
      out = jax.vmap(lambda z: forward_one(layers, x, z))(indices)
    else:
      indices = np.asarray(indices)
      check_indices(indices, num_options)
      out = forward_subset(layers, x, indices)
    return out, state

  return base.EpistemicNetwork(
      apply=apply, init=lambda key, x, z: transformed.init(key, x),
      indexer=LayerEnsembleIndexer(num_options, noise_by),
      apply_indices=apply_indices)


def make_network(config: LayerEnsembleConfig) -> base.EpistemicNetwork:
  """The layer ensemble's network; z is int32 [N], one option per layer."""
  def options() -> base.EpistemicNetwork:
    return make_layer_stack_network(
        (*config.hidden_sizes, 1), config.options, config.first_bias_std,
        config.noise_by)

  return networks.with_additive_prior(options(), options(), config.prior_scale)


def make_agent(config: LayerEnsembleConfig) -> base.Agent:
  """A layer ensemble trained on all combinations, or on a random subset."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    noise_std = config.noise_scale and config.noise_scale * prior.noise_std
    return losses.make_regression_loss(
        noise_std, num_index_samples=config.num_index_samples)

  return training.NetworkAgent(
      make_network=lambda prior: make_network(config), make_loss=make_loss,
      learning_rate=config.learning_rate, num_batches=config.num_batches,
      batch_size=config.batch_size)
