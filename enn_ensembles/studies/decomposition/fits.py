"""An agent trained on a grid of problems: a `predict` of each; flipped labels.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
from scipy import special

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles.studies import problem_grids
from enn_ensembles.training import loop
from enn_ensembles.training import prediction

# Draws of an agent whose index has no finite set.
NUM_DRAWS = 100


class Fitted(NamedTuple):
  """An agent on all problems.

  Attributes:
    agent: the agent.
    trained: its networks, every leaf [S, E, ...].
    prior: what it was told, of any of the problems.
    predictor: what it says.
    num_members: K; None for an index set that is not finite.
  """
  agent: Any
  trained: loop.Trained
  prior: base.PriorKnowledge
  predictor: prediction.Predictor
  num_members: int | None

  def predict(self, seed: int, level: int) -> base.Predict:
    """Predictions of one problem's network, by the positions of both."""
    return self.predictor.for_problem(seed, level)

  def weights(self, seed: int, level: int) -> tuple[base.Params, base.State]:
    """Parameters and state of one problem's network."""
    return jax.tree.map(lambda a: a[seed, level],
                        (self.trained.params, self.trained.state))


def fit(name: str, settings: dict[str, Any], seeds: Sequence[int],
        problems: Sequence[Sequence[Any]]) -> Fitted:
  """Trains an agent of the package.

  Args:
    name: of the agent.
    settings: of its config; what is left out has its default.
    seeds: S of them; each has keys of its own.
    problems: [S][E], as `problem_grids.train` takes them.

  Raises:
    ValueError: training diverged.
  """
  agent = agents_lib.from_settings(name, settings)
  prior = problems[0][0].prior
  trained = problem_grids.train(agent, seeds, problems)
  if not all(np.isfinite(np.asarray(leaf)).all()
             for leaf in jax.tree.leaves(trained.params)):
    raise ValueError(f'training of agent {name!r} with {settings} diverged.')
  network = agent.make_network(prior)
  num_draws = prediction.num_index_draws(network, NUM_DRAWS, True)
  predictor = problem_grids.make_predictor(agent, trained, seeds, problems,
                                           num_draws)
  return Fitted(agent, trained, prior, predictor,
                base.count_support(network.indexer))


def flip_labels(labels: np.ndarray, share: float, num_classes: int,
                seed: int) -> np.ndarray:
  """Labels of which a share is another class, any of them alike.

  What is flipped at one share is flipped at all larger ones, to the same class.

  Args:
    labels: int [N].
    share: of labels, 0 to 1.
    num_classes: C.
    seed: of the draw.
  """
  rng = np.random.default_rng([seed, len(labels)])
  flipped = rng.uniform(size=len(labels)) < share
  others = (labels + rng.integers(1, num_classes, len(labels))) % num_classes
  return np.where(flipped, others, labels).astype(labels.dtype)


def flipped_nll(log_probs: np.ndarray, labels: np.ndarray,
                share: float) -> float:
  """Expected NLL of labels that are flipped with this probability, in nats.

  Args:
    log_probs: [N, C].
    labels: int [N], none of them flipped.
    share: as `flip_labels` takes it.
  """
  classes = np.arange(log_probs.shape[1])
  chances = np.where(labels[:, None] == classes, 1. - share,
                     share / (len(classes) - 1))
  # A class that never occurs may have a probability of 0.
  terms = np.multiply(chances, log_probs, where=chances > 0.,
                      out=np.zeros_like(log_probs))
  return float(-np.mean(terms.sum(axis=1)))


def noise_entropy(share: float, num_classes: int) -> float:
  """Entropy in nats of a label that is flipped with this probability."""
  return float(special.entr(1. - share) + special.entr(share)
               + share * np.log(num_classes - 1))


def with_label_noise(problem: Any, share: float) -> Any:
  """An image problem whose training and validation labels are flipped."""
  def flip(images, seed):
    return dataclasses.replace(images, labels=flip_labels(
        images.labels, share, images.num_classes, seed))

  seed = problem.config.seed
  return dataclasses.replace(problem, train=flip(problem.train, 2 * seed),
                             val=flip(problem.val, 2 * seed + 1))
