"""The agent that trains an epistemic network by minibatch gradient steps."""

from collections.abc import Callable
import dataclasses

import chex
import jax
import numpy as np
import optax

from enn_ensembles import base
from enn_ensembles.training import loop
from enn_ensembles.training import losses
from enn_ensembles.training import network_sampler
from enn_ensembles.training import network_training
from enn_ensembles.training import optimizers


@dataclasses.dataclass(frozen=True)
class NetworkAgent(network_training.NetworkTraining):
  """An agent that trains a network; its fields are `NetworkTraining`'s.

  Sweeps train its networks on many problems at once, by `loop.train`. Called by
  itself it learns from one problem.
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
      data: x [T, ...] and y [T, 1] or [T].
      prior: what is known besides.
      key: of all that is drawn.
      validation: held-out data, where the agent stops early.

    Raises:
      ValueError: the agent stops early and validation is None.
    """
    if self.early_stopping is None:
      held_out = None
    elif validation is None:
      raise ValueError(
          'early stopping (validate_every, patience) needs validation data, '
          'got none: train(agent, problem) takes those of a problem.')
    else:
      held_out = base.Data(np.asarray(validation.x)[None],
                           np.asarray(validation.y)[None, None])
    likelihood = jax.tree.map(lambda leaf: np.asarray(leaf)[None],
                              prior.likelihood)
    trained = loop.train(self, np.asarray(data.x)[None],
                         np.asarray(data.y)[None, None], likelihood, key[None],
                         validation=held_out)
    params, state = jax.tree.map(lambda a: a[0, 0],
                                 (trained.params, trained.state))
    return network_sampler.NetworkSampler(self.make_network(prior), params,
                                          state, trained.dtype)


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
