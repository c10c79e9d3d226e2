"""Trained last layer: random features whose last layer Adam trains.

The networks are those of `random_features`: hidden layers of the prior's shape
that stay at their own random draw, K of them. There the last layer is solved
for; here it is trained as all other agents are, by minibatches, towards the
same minimum:

  f(x, z) = h_z(x) (w0_z + w_z),  h_z the last hidden layer of member z
  loss    = mean over z of (f(x_t, z) - y_t - eps * n_{t,z})^2
            + weight_decay * eps^2 / T * mean over z of width * |w_z|^2

w0_z is the random start, drawn with variance 1 / width, and w_z starts at 0: at
weight_decay 1 the penalty anchors the last layer to its start as the prior
does, and the minimum is an exact draw of the posterior given the features. What
this agent scores beyond `random_features` is what optimisation costs; what an
ensemble scores beyond it, what training all layers costs. Its hidden layers
have the shape of the testbed's kernel, which other agents are not told.

Matthews, Hron, Turner & Ghahramani 2017, "Sample-then-optimize posterior
sampling for Bayesian linear models".
"""

import dataclasses

import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import outputs
from enn_ensembles.networks import indexers
from enn_ensembles.networks import parameters
from enn_ensembles.nngp import kernels
from enn_ensembles.training import likelihoods
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import optimizers

_KERNEL = kernels.KernelConfig()
_NAME = 'last_layer'
# fold_in constants of the key of a network's start.
_HIDDEN_KEY, _START_KEY = 0, 1


@dataclasses.dataclass(frozen=True)
class TrainedLastLayerConfig(optimizers.TrainingConfig):
  """Settings of an ensemble of trained last layers.

  Those of training, from learning_rate on, are `TrainingConfig`'s.

  Attributes:
    num_ensemble: K, networks.
    width: units of every hidden layer.
    noise_scale: std of the target noise, in units of the problem's noise_std.
    weight_decay: strength of the anchor; 1 is the prior's own, 0 is none.
  """
  num_ensemble: int = 10
  width: int = 512
  noise_scale: float = 1.
  weight_decay: float = 1.

  def __post_init__(self):
    checks.check_count('num_ensemble', self.num_ensemble)
    checks.check_count('width', self.width)
    checks.check_scale('noise_scale', self.noise_scale)
    checks.check_scale('weight_decay', self.weight_decay)
    super().__post_init__()


def make_network(config: TrainedLastLayerConfig,
                 kernel: kernels.KernelConfig = _KERNEL
                 ) -> base.EpistemicNetwork:
  """K networks of the kernel's shape; z is an int32 member.

  Args:
    config: the settings.
    kernel: the prior whose shape the hidden layers have.

  Returns:
    A network whose output is an `OutputWithPrior`: the trained part and that of
    the random start.
  """
  num, width = config.num_ensemble, config.width
  activate = {'relu': jax.nn.relu,
              'erf': jax.scipy.special.erf}[kernel.activation]

  def init(key, x, z):
    del z  # All members at once.
    sizes = [x.shape[1]] + [width] * (kernel.num_hidden_layers - 1)
    hidden = []
    for layer, size in enumerate(sizes):
      w = jax.random.normal(
          jax.random.fold_in(jax.random.fold_in(key, _HIDDEN_KEY), layer),
          (num, size + (layer == 0), width), x.dtype)
      scale = jnp.full((w.shape[1], 1), kernel.weight_std / size**0.5, x.dtype)
      if layer == 0:  # The last row is the bias.
        scale = scale.at[-1].set(kernel.first_bias / size**0.5)
      hidden.append(scale * w)
    start = kernel.weight_std * width**-0.5 * jax.random.normal(
        jax.random.fold_in(key, _START_KEY), (num, width, 1), x.dtype)
    return ({_NAME: {'w': jnp.zeros((num, width, 1), x.dtype)}},
            {'hidden': tuple(hidden), 'start': start})

  def apply_indices(params, state, x, indices):
    picked = (state, params[_NAME]['w'])
    if indices is not None:
      picked = jax.tree.map(lambda a: a[indices], picked)
    state_of, w = picked
    h = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
    for layer in state_of['hidden']:
      h = activate(h @ layer)  # [J, B, width].
    return outputs.make_output(h @ (kernel.weight_std * w),
                               h @ state_of['start']), state

  def apply(params, state, x, z):
    out, state = apply_indices(params, state, x, jnp.asarray(z)[None])
    return jax.tree.map(lambda a: a[0], out), state

  return base.EpistemicNetwork(
      apply=apply, init=init, indexer=indexers.EnsembleIndexer(num),
      apply_indices=apply_indices)


def mean_squares(params: base.Params) -> list[base.Array]:
  """The mean over members of the squares of the trained weights, [1, width]."""
  return [jnp.mean(jnp.square(params[_NAME]['w']), axis=0).T]


def make_agent(config: TrainedLastLayerConfig) -> base.Agent:
  """Trains the last layers of all networks at every step."""

  def make_loss(prior: base.PriorKnowledge) -> losses.Loss:
    shape = parameters.LayerShape(1, config.width, config.width**-0.5, 0.,
                                  has_bias=False)
    return likelihoods.make_loss_for(
        prior, noise_scale=config.noise_scale,
        weight_decay=config.weight_decay, mean_squares=mean_squares,
        shapes=[shape])

  return network_agent.make_network_agent(
      config, lambda prior: make_network(config), make_loss)
