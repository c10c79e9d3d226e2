"""Parts that three or more agents share: indexers, stacked MLPs, priors.

Layout. A layer of J members is one array [J, out, in + 1], the bias its last
column, and activations are [J, features, B]: the batch lies last. Then every
layer is one row-major matrix product forward and two backward, without a
transposition and without a sum over the batch for the bias: on a CPU those
cost as much as the products.

Initialisation. All parameters of a network come from one draw that is cut into
pieces: XLA compiles a draw per parameter for seconds, one draw in half a
second.
"""

import dataclasses
from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base

Layers = Sequence[base.Array]  # [J, out, in + 1] each.

_NETWORK_KEY, _PRIOR_KEY = 0, 1  # fold_in constants of `with_additive_prior`.


@dataclasses.dataclass(frozen=True)
class EnsembleIndexer:
  """z = a member, an int32 in 0..num_ensemble-1, all equally likely."""
  num_ensemble: int

  def __call__(self, key: chex.PRNGKey) -> base.Index:
    return jax.random.randint(key, [], 0, self.num_ensemble, dtype=jnp.int32)

  def support(self) -> np.ndarray:
    """All members, [K] int32."""
    return np.arange(self.num_ensemble, dtype=np.int32)

  @property
  def noise_dim(self) -> int:
    """Target noise is drawn for each (data point, member)."""
    return self.num_ensemble

  def noise_embedding(self, indices: base.Index) -> base.Array:
    """One-hot members, [J, K]: see `losses.make_regression_loss`."""
    return jax.nn.one_hot(indices, self.num_ensemble)


@dataclasses.dataclass(frozen=True)
class GaussianIndexer:
  """z ~ N(0, std^2 I) in R^index_dim."""
  index_dim: int
  std: float = 1.

  def __call__(self, key: chex.PRNGKey) -> base.Index:
    return self.std * jax.random.normal(key, [self.index_dim], jnp.float32)

  @property
  def noise_dim(self) -> int:
    """Target noise of a data point is linear in z."""
    return self.index_dim

  def noise_embedding(self, indices: base.Index) -> base.Array:
    """z scaled to unit mean square norm, [J, index_dim]."""
    return indices / (self.std * self.index_dim ** 0.5)


@dataclasses.dataclass(frozen=True)
class PrngIndexer:
  """z = a random key (two uint32), for networks that draw inside."""

  def __call__(self, key: chex.PRNGKey) -> base.Index:
    return key


def draw_parameters(
    specs: Mapping[str, tuple[Sequence[int], Any]],
    dtype: jnp.dtype) -> dict[str, base.Array]:
  """Haiku parameters of the current module, initialised from one draw.

  Args:
    specs: parameter name -> (shape, stddev). The initial values are stddev (a
      number, or an array that broadcasts) times a standard normal truncated
      to [-2, 2], Haiku's default; or stddev(draw), where it is a function.
    dtype: of all parameters.

  Returns:
    name -> array. While Haiku initialises they are drawn, otherwise looked up.
  """
  offsets = np.cumsum([0] + [int(np.prod(s)) for s, _ in specs.values()])
  draw = None
  if hk.running_init():
    draw = jax.random.truncated_normal(
        hk.next_rng_key(), -2., 2., [int(offsets[-1])], dtype)

  def cut(start: int, stddev: Any) -> Callable[..., base.Array]:
    def init(shape, dtype):
      values = draw[start:start + int(np.prod(shape))].reshape(shape)
      return stddev(values) if callable(stddev) else (
          jnp.asarray(stddev, dtype) * values)
    return init

  return {
      name: hk.get_parameter(name, shape, dtype, init=cut(start, stddev))
      for start, (name, (shape, stddev)) in zip(offsets, specs.items())}


class LayerShape(NamedTuple):
  """One layer of an MLP: its size, and the stds of its initial parameters."""
  out: int
  size: int  # Inputs.
  weight_std: float
  bias_std: float


def mlp_shapes(input_dim: int, output_sizes: Sequence[int],
               first_bias_std: float = 0.) -> list[LayerShape]:
  """Layers with weights of std 1/sqrt(in); only the first bias is not 0."""
  sizes = [input_dim, *output_sizes[:-1]]
  return [LayerShape(out, size, size ** -0.5, 0. if layer else first_bias_std)
          for layer, (size, out) in enumerate(zip(sizes, output_sizes))]


def column_scales(shape: LayerShape) -> np.ndarray:
  """What standard draws of [..., in + 1] are multiplied by, float32 [in + 1]."""
  return np.array([shape.weight_std] * shape.size + [shape.bias_std],
                  np.float32)


@jax.custom_vjp
def affine(w: base.Array, h: base.Array) -> base.Array:
  """w [..., out, in + 1] applied to h [..., in, B]: [..., out, B].

  The last column of w is the bias. Its gradient is written out because the
  derived one puts its products in an order that has to be transposed.
  """
  return _affine_forward(w, h)[0]


def _affine_forward(w, h):
  ones = jnp.ones((*h.shape[:-2], 1, h.shape[-1]), h.dtype)
  h = jnp.concatenate([h, ones], axis=-2)
  return w @ h, (w, h)


def _affine_backward(residuals, d):
  w, h = residuals
  batch = tuple(range(d.ndim - 2))
  row, column = d.ndim - 2, d.ndim - 1
  dw = jax.lax.dot_general(d, h, (((column,), (column,)), (batch, batch)))
  dh = jax.lax.dot_general(w, d, (((row,), (row,)), (batch, batch)))
  return dw, dh[..., :-1, :]


affine.defvjp(_affine_forward, _affine_backward)


class StackedMLP(hk.Module):
  """The layers of several MLPs side by side; the first ones may be shared."""

  def __init__(self, output_sizes: Sequence[int], num_members: int,
               num_shared_layers: int = 0, first_bias_std: float = 1.,
               name: str = 'stacked_mlp'):
    """Args as follows.

    Args:
      output_sizes: units of each layer, the output included.
      num_members: K, copies of every layer that is not shared.
      num_shared_layers: the first layers that all members share.
      first_bias_std: stddev of the first layer's initial bias; the other
        biases start at 0.
      name: Haiku's module name.
    """
    super().__init__(name=name)
    self._output_sizes = tuple(output_sizes)
    self._num_members = num_members
    self._num_shared_layers = num_shared_layers
    self._first_bias_std = first_bias_std

  def __call__(self, input_dim: int, dtype: jnp.dtype) -> Layers:
    """The layers, [K or 1, out, in + 1] each."""
    specs = {}
    for layer, shape in enumerate(mlp_shapes(
        input_dim, self._output_sizes, self._first_bias_std)):
      copies = 1 if layer < self._num_shared_layers else self._num_members
      specs[f'w_{layer}'] = ((copies, shape.out, shape.size + 1),
                             column_scales(shape))
    return list(draw_parameters(specs, dtype).values())


def stacked_forward(layers: Layers, x: base.Array) -> base.Array:
  """ReLU MLPs side by side.

  Args:
    layers: [J, out, in + 1] each; J = 1 in a layer that all share.
    x: the input of all of them, [B, D].

  Returns:
    [J, B, out], J of the last layer.
  """
  h = x.T  # [in, B] as long as all members share it, then [J, in, B].
  for layer, w in enumerate(layers):
    num, out, columns = w.shape
    if h.ndim == 2:
      h = affine(w.reshape(num * out, columns), h).reshape(num, out, -1)
    else:
      h = affine(w, h)
    if layer < len(layers) - 1:
      h = jax.nn.relu(h)
      h = h[0] if num == 1 else h
  return jnp.swapaxes(h, 1, 2)


def network_from_indices(
    init: Callable[[chex.PRNGKey, base.Array], tuple[base.Params, base.State]],
    apply_indices: Callable[..., tuple[base.Array, base.State]],
    indexer: base.EpistemicIndexer,
    images: Optional[Callable[..., Any]] = None) -> base.EpistemicNetwork:
  """A network from its forward over many indices; one index is one row of it.

  Args:
    init: (key, x) -> (params, state).
    apply_indices: see `base.EpistemicNetwork`; its output is a plain array.
    indexer: key -> z.
    images: see `base.EpistemicNetwork`.
  """
  def apply(params, state, x, z):
    out, state = apply_indices(params, state, x, jnp.asarray(z)[None])
    return out[0], state

  return base.EpistemicNetwork(
      apply=apply, init=lambda key, x, z: init(key, x), indexer=indexer,
      apply_indices=apply_indices, images=images)


def make_member_network(output_sizes: Sequence[int], num_members: int,
                        num_shared_layers: int = 0,
                        first_bias_std: float = 1.) -> base.EpistemicNetwork:
  """An ENN whose index picks one of num_members MLPs, without a prior.

  Args:
    output_sizes: units of each layer, the output included.
    num_members: K.
    num_shared_layers: the first layers that all members share (0: none).
    first_bias_std: stddev of the first layer's initial bias.

  Returns:
    The network; `apply_indices` runs all members in batched products.
  """
  def get_layers(x: base.Array) -> Layers:
    module = StackedMLP(output_sizes, num_members, num_shared_layers,
                        first_bias_std)
    return module(x.shape[-1], x.dtype)

  def pick(layers: Layers, indices: base.Array) -> Layers:
    return [w if layer < num_shared_layers else w[indices]
            for layer, w in enumerate(layers)]

  transformed = hk.transform_with_state(get_layers)

  def apply_indices(params, state, x, indices):
    layers, state = transformed.apply(params, state, None, x)
    if indices is not None:
      layers = pick(layers, indices)
    out = stacked_forward(layers, x)
    num = num_members if indices is None else len(indices)
    return jnp.broadcast_to(out, (num, *out.shape[1:])), state

  return network_from_indices(init=transformed.init,
                              apply_indices=apply_indices,
                              indexer=EnsembleIndexer(num_members))


def with_additive_prior(network: base.EpistemicNetwork,
                        prior_network: base.EpistemicNetwork,
                        prior_scale: float) -> base.EpistemicNetwork:
  """f(x, z) + prior_scale * p(x, z): randomized prior functions.

  p is drawn when the network is initialised and never trained; its parameters
  live in the state. Osband et al. 2018, "Randomized prior functions for deep
  reinforcement learning" (arXiv 1806.03335).

  Args:
    network: the trained part; its output is a plain array.
    prior_network: the untrained part, on the same index.
    prior_scale: weight of the prior; 0 gives the network back as it is.

  Returns:
    A network whose output is an `OutputWithPrior`.
  """
  if prior_scale == 0:
    return network

  def init(key, x, z):
    params, state = network.init(jax.random.fold_in(key, _NETWORK_KEY), x, z)
    prior_params, prior_state = prior_network.init(
        jax.random.fold_in(key, _PRIOR_KEY), x, z)
    return params, {'network': state, 'prior_params': prior_params,
                    'prior_state': prior_state}

  def add(state, train, network_state, prior):
    out = base.make_output(train, prior_scale * jax.lax.stop_gradient(prior))
    return out, {**state, 'network': network_state}

  def apply(params, state, x, z):
    train, network_state = network.apply(params, state['network'], x, z)
    prior, _ = prior_network.apply(state['prior_params'], state['prior_state'],
                                   x, z)
    return add(state, train, network_state, prior)

  def images(params, state, x):
    return (base.get_images(network, params, state['network'], x),
            base.get_images(prior_network, state['prior_params'],
                            state['prior_state'], x))

  def apply_indices(params, state, x, indices, images=(None, None)):
    train, network_state = base.apply_indices(
        network, params, state['network'], x, indices, images[0])
    prior, _ = base.apply_indices(
        prior_network, state['prior_params'], state['prior_state'], x, indices,
        images[1])
    return add(state, train, network_state, prior)

  return base.EpistemicNetwork(
      apply=apply, init=init, indexer=network.indexer,
      apply_indices=apply_indices, images=images)
