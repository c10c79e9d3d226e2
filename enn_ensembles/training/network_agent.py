"""The agent that trains an epistemic network by minibatch gradient steps."""

from collections.abc import Callable
import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from enn_ensembles import base
from enn_ensembles.training import data_checks
from enn_ensembles.training import likelihoods
from enn_ensembles.training import loop
from enn_ensembles.training import losses
from enn_ensembles.training import network_sampler
from enn_ensembles.training import network_training
from enn_ensembles.training import optimizers


@dataclasses.dataclass(frozen=True)
class NetworkAgent(network_training.NetworkTraining):
  """An agent that trains an epistemic network by minibatch gradient steps.

  Called with (data, prior, key), as any agent, it learns from one problem, in
  float32. Sweeps train its networks on many problems at once, by one compiled
  program: there make_network, make_loss and a function for the optimizer see
  traced noise levels, and no kernel.

  Attributes:
    make_network: PriorKnowledge -> EpistemicNetwork, which must not depend on
      num_train, a noise level or the kernel.
    make_loss: PriorKnowledge -> `training.losses.Loss`; `make_loss_for` makes
      one from the likelihood.
    optimizer: any optax transformation, or PriorKnowledge -> one; Adam (Kingma
      & Ba 2015, arXiv 1412.6980) with learning rate 1e-3 unless given.
    num_batches: steps; 1000 unless given.
    batch_size: data points per step; 100 unless given.
    sampling: how minibatches are made: 'replacement', the default, draws every
      point independently; 'epochs' goes through the data in a new random order
      again and again, leaving out the points that do not fill a batch, which
      has no more points than there are.
    augment: (key, x [B, ...]) -> x of the same shape and dtype: random changes
      of the inputs of a step, compiled into it; None, the default, is none. A
      problem that has an augmentation of its own is trained on with that one.
    early_stopping: when training stops by validation data, as a
      `training.early_stopping.EarlyStopping`; None, the default, trains all
      steps.
    snapshots: steps after which the parameters are kept as well, increasing; 0
      is before the first step; () by default. Not with early_stopping.

  Raises:
    ValueError: num_batches or batch_size is no integer >= 1, sampling or
      optimizer is none of these, or the snapshots do not fit.
  """

  def for_problem(self, problem: base.Problem) -> 'NetworkAgent':
    """The same agent, with the problem's augmentation of inputs if it has one.
    """
    augment = getattr(problem, 'augmentation', None)
    return (self if augment is None
            else dataclasses.replace(self, augment=augment))

  def __call__(self, data: base.Data, prior: base.PriorKnowledge,
               key: chex.PRNGKey, validation: base.Data | None = None
               ) -> base.EpistemicSampler:
    """Trains on one problem: `base.Agent`.

    Args:
      data: x [T, ...] and y [T, out], or int32 class labels [T].
      prior: what is known besides.
      key: of all that is drawn, [2] uint32, or as jax.random.key makes it.
      validation: held-out data, where the agent stops early; read nowhere else.

    Returns:
      The sampler of the trained network: draws [N, out] float32. Where the
      index set is finite, it has `members`.

    Raises:
      ValueError: the agent stops early and validation is None, x and y do not
        fit together, or the network or the loss cannot serve the problem.
    """
    if self.early_stopping is None:
      held_out = None
    elif validation is None:
      raise ValueError(
          'early stopping (validate_every, patience) needs validation data, '
          'got none: train(agent, problem) takes those of a problem.')
    else:
      held_out = _of_one_problem(validation, prior, 'validation ')
    x, y = _of_one_problem(data, prior)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
      key = jax.random.key_data(key)
    likelihood = jax.tree.map(lambda leaf: np.asarray(leaf)[None],
                              likelihoods.as_arrays(prior.likelihood))
    trained = loop.train(self, x, y, likelihood, key[None],
                         validation=held_out)
    params, state = jax.tree.map(lambda a: a[0, 0],
                                 (trained.params, trained.state))
    return network_sampler.NetworkSampler(
        self.make_network(prior), params, state, tuple(prior.input_shape),
        trained.dtype)


def _of_one_problem(data: base.Data, prior: base.PriorKnowledge,
                    name: str = '') -> base.Data:
  """x [1, T, ...] and y [1, 1, T, ...], checked where the user's shapes are.
  """
  data_checks.check_data(data, prior, name)
  return base.Data(np.asarray(data.x)[None], np.asarray(data.y)[None, None])


def make_network_agent(
    config: optimizers.TrainingConfig,
    make_network: Callable[[base.PriorKnowledge], base.EpistemicNetwork],
    make_loss: Callable[[base.PriorKnowledge], losses.Loss],
    optimizer: optax.GradientTransformation | None = None) -> NetworkAgent:
  """An agent with the optimizer and the minibatches of its config.

  Args:
    config: the settings.
    make_network: its network.
    make_loss: its loss.
    optimizer: another one than the config's, the same for equal configs.
  """
  return NetworkAgent(
      make_network, make_loss,
      optimizers.make_optimizer(config) if optimizer is None else optimizer,
      num_batches=config.num_batches, batch_size=config.batch_size,
      sampling=config.sampling,
      early_stopping=optimizers.make_early_stopping(config))
