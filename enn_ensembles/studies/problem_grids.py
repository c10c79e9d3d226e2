"""Trains one agent on several problems at once, and asks what it says.

Problems are laid out as in sweeps: seeds, and for each seed levels that share
its inputs (noise levels of labels).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles.problems import draws
from enn_ensembles.training import loop
from enn_ensembles.training import prediction

Grid = Sequence[Sequence[Any]]


def train(agent: Any, seeds: Sequence[int], problems: Grid,
          dtype: str = 'float32') -> loop.Trained:
  """Trains an agent on all problems in one compiled program.

  Args:
    agent: a `NetworkAgent`.
    seeds: S of them; each has an agent's key of its own.
    problems: [S][E], each with `data` and `prior`; those of a seed share their
      inputs, and those of a level their likelihood.
    dtype: of training.

  Returns:
    Networks in which every leaf is [S, E, ...].
  """
  likelihoods = [problem.prior.likelihood for problem in problems[0]]
  return loop.train(
      agent, np.stack([np.asarray(group[0].data.x) for group in problems]),
      np.stack([[problem.data.y for problem in group] for group in problems]),
      jax.tree.map(lambda *leaves: np.stack(leaves), *likelihoods),
      jnp.stack([draws.agent_key(seed) for seed in seeds]),
      dtype=jnp.dtype(dtype))


def make_predictor(agent: Any, trained: loop.Trained, seeds: Sequence[int],
                   problems: Grid, num_draws: int | None
                   ) -> prediction.Predictor:
  """Predictions of what `train` has trained, with an evaluation key per seed.

  Args:
    agent: as of `train`.
    trained: what it returned.
    seeds: as there.
    problems: as there.
    num_draws: of the index; None for all members of a finite index set.
  """
  return prediction.Predictor(
      agent, trained, problems[0][0].prior,
      jnp.stack([draws.evaluation_key(seed) for seed in seeds]), num_draws)
