"""Bayes by backprop: an independent Gaussian for every weight.

With the index z ~ N(0, I), one entry per weight and bias, the u-parametrised
weights are u = mu + sigma_0 * s * z / c, s = softplus(rho), and a weight of a
layer with n inputs is u / sqrt(n), a bias is u, the scale and offset of a norm
are 1 + u and u. The loss is the negative ELBO

  mean over t, z of (f(x_t, z) - y_t)^2 / (2 eps^2)  +  KL(q || p) / T,
  KL(q || p) = 1/2 sum (s^2 + mu^2 / sigma_0^2 - 1 - 2 log s),

exact for c = 1 and the prior p: u ~ N(0, sigma_0^2). `kl_weight` multiplies the
second term; below 1 it is a cold posterior (Wenzel et al. 2020, "How good is
the Bayes posterior in deep neural networks really?", arXiv 2002.02405).

By default training starts at mu = 0 and s = 0.69, where all weights are noise,
and the gradients of mu nearly cancel over z in a network of several layers: on
images it stays there. With `initial_std` training starts at a network with
random weights and that std of every u around them.

The published testbed code draws its index with c = sqrt(number of weights), but
keeps the KL of c = 1, which is least at s = 1. At D_x = 10, a network of 3,151
weights, sigma_0 = 100 therefore pulls the std of u towards 1.8 and starts it at
1.2. `index_scale='enn2021'` does the same; the paper's sigma_0 grid was
selected with it. 'unit' is the consistent one, and the default: with sigma_0 =
1 its prior is that of the testbed's kernel, but for the biases.

Blundell et al. 2015, "Weight uncertainty in neural networks"
(arXiv 1505.05424).
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import haiku as hk
import jax
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

INDEX_SCALES = ('unit', 'enn2021')


@dataclasses.dataclass(frozen=True)
class BbbConfig(optimizers.TrainingConfig):
  """Settings of Bayes by backprop; the defaults are a prior that fits its loss.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    sigma_0: std of the prior of every (unscaled) weight.
    index_scale: c above: 'unit' is 1, 'enn2021' is sqrt(number of weights).
    num_index_samples: indices drawn per step.
    initial_std: std of every u at the start, whatever sigma_0 and c are; the
      means are then drawn like a network's initial weights. None starts with
      means of 0 and s = 0.69.
    kl_weight: what the divergence is multiplied by; 1 is the ELBO, below 1 is a
      cold posterior (Wenzel et al. 2020, arXiv 2002.02405).
    body: the network, a name in `networks.BODIES`, or a `networks.Body`.
    norm: 'group' or 'none', of residual networks; this method cannot serve
      'batch'.
    hidden_sizes: units of each hidden layer of the bodies 'mlp' and
      'mlp_dropout'.
  """
  sigma_0: float = 1.
  index_scale: str = 'unit'
  num_index_samples: int = 64
  body: str | networks.Body = 'mlp'
  norm: str = 'group'
  hidden_sizes: tuple[int, ...] = (50, 50)
  initial_std: float | None = canonical.later_field(None)
  kl_weight: float = canonical.later_field(1.)

  def __post_init__(self):
    checks.check_positive('sigma_0', self.sigma_0)
    checks.check_choice('index_scale', self.index_scale, INDEX_SCALES)
    checks.check_size('num_index_samples', self.num_index_samples)
    if self.initial_std is not None:
      checks.check_positive('initial_std', self.initial_std)
    checks.check_scale('kl_weight', self.kl_weight)
    super().__post_init__()
    networks.check_body(self)


class GaussianWeights(hk.Module):
  """(mu, rho) of all weights, flat [num_weights] each.

  Args:
    num_weights: how many.
    initial: of mu and rho, as `networks.draw_parameters` takes stds.
    name: of the module.
  """

  def __init__(self, num_weights: int, initial: Mapping[str, Any],
               name: str = 'gaussian_weights'):
    super().__init__(name=name)
    self._specs = {part: ((num_weights,), initial[part])
                   for part in ('mu', 'rho')}

  def __call__(self, dtype: jnp.dtype) -> tuple[base.Array, base.Array]:
    drawn = networks.draw_parameters(self._specs, dtype)
    return drawn['mu'], drawn['rho']


def initial_values(initial_std: float | None, u_scale: float,
                   shapes: Sequence[networks.LayerShape],
                   u_shapes: Sequence[networks.LayerShape]) -> dict[str, Any]:
  """What (mu, rho) are drawn with at the start, see `GaussianWeights`.

  Args:
    initial_std: as in `BbbConfig`.
    u_scale: sigma_0 / c, what s z is multiplied by in u.
    shapes: the weight arrays of the network.
    u_shapes: the same, with the stds that u is multiplied by.
  """
  if initial_std is None:
    num_weights = sum(shape.out * shape.columns for shape in shapes)
    return {'mu': 0., 'rho': num_weights ** -0.5}
  mu_stds = np.concatenate([
      np.tile(networks.column_scales(shape) / networks.column_scales(u_shape),
              shape.out) for shape, u_shape in zip(shapes, u_shapes)])
  s = initial_std / u_scale
  rho = s + np.log(-np.expm1(-s))  # softplus(rho) = s.
  return {'mu': mu_stds, 'rho': lambda draw: jnp.full_like(draw, rho)}


def make_network(config: BbbConfig, input_shape: networks.Shape,
                 num_outputs: int = 1) -> base.EpistemicNetwork:
  """The BBB network; z ~ N(0, I) [num_weights].

  Args:
    config: the settings.
    input_shape: of one example.
    num_outputs: components of f(x).
  """
  body = networks.choose_body(config, input_shape, num_outputs)
  body.check_no_batch_norm('bbb')
  # Only weights are scaled: biases, and what norms add to 1 and 0, are u.
  weight_shapes = body.weight_shapes(input_shape)
  shapes = [shape._replace(bias_std=1., **(
      {'weight_std': 1.} if shape.is_norm else {}))
            for shape in weight_shapes]
  ends = np.cumsum([shape.out * shape.columns for shape in shapes])
  num_weights = int(ends[-1])
  u_scale = config.sigma_0
  if config.index_scale == 'enn2021':
    u_scale *= num_weights ** -0.5

  initial = initial_values(config.initial_std, u_scale, weight_shapes, shapes)
  transformed = hk.transform_with_state(
      lambda x: GaussianWeights(num_weights, initial)(x.dtype))

  def apply_indices(params, state, x, indices):
    (mu, rho), state = transformed.apply(params, state, None, x)
    z = jnp.asarray(indices, x.dtype) * u_scale
    flat = mu + jax.nn.softplus(rho) * z  # [J, num_weights]
    weights = [
        networks.column_means(shape) + networks.column_scales(shape)
        * part.reshape(-1, shape.out, shape.columns)
        for part, shape in zip(jnp.split(flat, ends[:-1], axis=1), shapes)]
    return networks.forward(body, weights, x), state

  return networks.network_from_indices(
      init=transformed.init, apply_indices=apply_indices,
      indexer=networks.GaussianIndexer(num_weights))


def weight_divergence(params: base.Params, sigma_0: float) -> base.Array:
  """KL(q || N(0, sigma_0^2)) of all weights in nats, a scalar; c = 1."""
  weights = params['gaussian_weights']
  s = jax.nn.softplus(weights['rho'])
  return 0.5 * jnp.sum(s ** 2 + (weights['mu'] / sigma_0) ** 2 - 1.
                       - 2. * jnp.log(s))


def make_agent(config: BbbConfig) -> base.Agent:
  """Bayes by backprop on the negative ELBO."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    return likelihoods.make_elbo_loss_for(
        prior, lambda params: config.kl_weight * weight_divergence(
            params, config.sigma_0), config.num_index_samples)

  return network_agent.make_network_agent(
      config, lambda prior: make_network(
          config, prior.input_shape, prior.num_outputs), make_loss)
