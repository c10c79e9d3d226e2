"""The agent that trains an epistemic network by minibatch gradient steps."""

from collections.abc import Callable
import dataclasses

import chex
import jax
import numpy as np

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

  def __call__(self, data: base.Data, prior: base.PriorKnowledge,
               key: chex.PRNGKey) -> base.EpistemicSampler:
    """Trains on one problem: the plain `base.Agent` contract.

    Raises:
      ValueError: the agent stops early, which needs validation data
        (`loop.train` takes them).
    """
    likelihood = jax.tree.map(lambda leaf: np.asarray(leaf)[None],
                              prior.likelihood)
    trained = loop.train(self, np.asarray(data.x)[None],
                         np.asarray(data.y)[None, None], likelihood, key[None])
    params, state = jax.tree.map(lambda a: a[0, 0],
                                 (trained.params, trained.state))
    return network_sampler.NetworkSampler(self.make_network(prior), params,
                                          state, trained.dtype)


def make_network_agent(
    config: optimizers.TrainingConfig,
    make_network: Callable[[base.PriorKnowledge], base.EpistemicNetwork],
    make_loss: Callable[[base.PriorKnowledge], losses.Loss]) -> NetworkAgent:
  """An agent with the optimizer and the minibatches of its config."""
  return NetworkAgent(
      make_network, make_loss, optimizers.make_optimizer(config),
      num_batches=config.num_batches, batch_size=config.batch_size,
      sampling=config.sampling,
      early_stopping=optimizers.make_early_stopping(config))
