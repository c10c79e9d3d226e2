"""Units of agents that train networks: one program for all their problems."""

from collections.abc import Sequence
import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import problems as problems_lib
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import progress
from enn_ensembles.scoring import degradation
from enn_ensembles.scoring import selection as selection_lib
from enn_ensembles.sweeps import agent_scores as agent_scores_lib
from enn_ensembles.sweeps import cost_model
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units
from enn_ensembles.training import likelihoods
from enn_ensembles.training import loop
from enn_ensembles.training import network_agent
from enn_ensembles.training import prediction

# How much faster than a core of the cost model's an accelerator may be.
_ACCELERATOR_SPEED = 100.
# A training that takes fewer seconds is not cut into calls; of others the first
# call takes half as many.
_UNCUT_SECONDS = 10.
# The share of the steps in the first call of a training of unknown length.
_FIRST_SHARE = 0.05


def num_index_draws(agent: network_agent.NetworkAgent,
                    unit: work_units.WorkUnit,
                    prior: base.PriorKnowledge) -> int | None:
  """As `prediction.num_index_draws`, for a unit's settings."""
  return prediction.num_index_draws(
      agent.make_network(prior), unit.num_enn_samples, unit.enumerate_indices)


def run_network(
    agent: network_agent.NetworkAgent, unit: work_units.WorkUnit,
    groups: unit_results.Groups, options: unit_results.RunOptions,
    checkpoint: checkpoints.Checkpoint | None) -> unit_results.Results:
  """Trains and scores all problems of a unit together.

  Selections that take labels out of the training set have a training of their
  own; all others share one.
  """
  by_share: dict[float, list[str]] = {}
  for selection in unit.selections:
    share = selection_lib.RULES[selection].label_share
    by_share.setdefault(share, []).append(selection)
  found: unit_results.Results = {}
  for share, selections in by_share.items():
    for seeds in _seeds_by_augmentation(groups):
      chosen = {seed: [_reserve(problem, share) for problem in groups[seed]]
                for seed in seeds}
      found.update(_train_and_score(
          agent.for_problem(groups[seeds[0]][0]), unit, chosen, selections,
          options, checkpoint))
  return found


def _augmentation(group: Sequence[Any]) -> Any:
  """How training inputs of a seed's problems are changed; None for not."""
  return getattr(group[0], 'augmentation', None)


def _seeds_by_augmentation(groups: unit_results.Groups) -> list[list[int]]:
  """Seeds whose problems share it: it is compiled into their program."""
  found: dict[Any, list[int]] = {}
  for seed, group in groups.items():
    found.setdefault(_augmentation(group), []).append(seed)
  return list(found.values())


def _reserve(problem: Any, share: float) -> Any:
  """The problem with a share of its training set as validation data."""
  if not share:
    return problem
  return _WithReservedLabels(problem, *selection_lib.reserve_labels(problem,
                                                                    share))


class _WithReservedLabels:
  """A problem that gives an agent fewer data and keeps the rest as labels."""

  def __init__(self, problem: Any, data: base.Data, validation: base.Data):
    self._problem = problem
    self.data = data
    self.validation = validation
    self.prior = dataclasses.replace(problem.prior, num_train=len(data.y))

  def __getattr__(self, name: str) -> Any:
    return getattr(self._problem, name)


def _train_and_score(
    agent: network_agent.NetworkAgent, unit: work_units.WorkUnit,
    groups: unit_results.Groups, selections: Sequence[str],
    options: unit_results.RunOptions,
    checkpoint: checkpoints.Checkpoint | None) -> unit_results.Results:
  """Trains on the problems of these seeds in one program, and scores them."""
  seeds = tuple(groups)
  prior = groups[seeds[0]][0].prior
  num_cells = len(unit.family.cells)
  num_problems = len(seeds) * num_cells
  trained = _train(agent, unit, groups, options, checkpoint)
  keys = jnp.stack([problems_lib.evaluation_key(seed) for seed in seeds])
  num_draws = num_index_draws(agent, unit, prior)
  predictor = prediction.Predictor(agent, trained, prior, keys, num_draws)
  finite = np.logical_and.reduce([
      np.isfinite(np.asarray(leaf)).all(axis=tuple(range(2, leaf.ndim)))
      for leaf in jax.tree.leaves(trained.params)])  # [S, E]
  network = agent.make_network(prior)
  num_members = None
  if num_draws is None:
    num_members = base.count_support(network.indexer)

  def of_members(s: int, i: int) -> dict[str, Any]:
    params = jax.tree.map(lambda leaf: leaf[s, i], trained.params)
    return {
        'agent_scores': agent_scores_lib.score_members(
            network, params, prior.input_shape),
        'member_matrices': agent_scores_lib.compare_members(
            network, params, prior.input_shape)}

  found: unit_results.Results = {}
  for (s, seed), i in itertools.product(enumerate(seeds), range(num_cells)):
    problem = groups[seed][i]
    predict = treated(unit, problem, predictor.for_problem(s, i), keys[s])
    for k, selection in enumerate(selections):
      part = (s * num_cells + i) * len(selections) + k
      with progress.part('scoring', part, num_problems * len(selections)):
        progress.report('predictions')
        selected = selection_lib.Selected(predict, num_draws, None, None)
        if num_members is not None:
          selected = selection_lib.select_members(selection, problem, predict,
                                                  num_members, keys[s])
        found[seed, i, selection] = unit_results.scored(
            problem, selected.predict, finite_params=bool(finite[s, i]),
            depends_on_draws=num_draws is not None, curve=selected.curve,
            **(of_members(s, i) if selection == 'none' else {}),
            num_params=trained.num_params,
            train_seconds=trained.train_seconds / num_problems,
            rank_seconds=selected.rank_seconds)
  timings = {
      'evaluate_seconds': predictor.evaluate_seconds / num_problems,
      'predict_seconds_per_1000': predictor.seconds_per_1000,
      'compile_seconds': trained.compile_seconds + predictor.compile_seconds}
  return {key: result._replace(**timings) for key, result in found.items()}


def _train(agent: network_agent.NetworkAgent, unit: work_units.WorkUnit,
           groups: unit_results.Groups, options: unit_results.RunOptions,
           checkpoint: checkpoints.Checkpoint | None) -> Any:
  """Trains on all problems: inputs [S, T, ...], labels [S, E, T, ...]."""
  first = next(iter(groups.values()))
  return loop.train(
      agent, _stack([group[0].data.x for group in groups.values()]),
      np.stack([[problem.data.y for problem in group]
                for group in groups.values()]),
      jax.tree.map(lambda *leaves: np.stack(leaves),
                   *(likelihoods.as_arrays(problem.prior.likelihood)
                     for problem in first)),
      jnp.stack([agent_key(unit, seed) for seed in groups]),
      validation=_validation(agent, groups), dtype=jnp.dtype(unit.dtype),
      memory_budget_mb=options.memory_budget_mb, checkpoint=checkpoint,
      steps_between_checkpoints=_steps_between_checkpoints(
          unit, agent.num_batches, options))


def _validation(agent: network_agent.NetworkAgent,
                groups: unit_results.Groups) -> base.Data | None:
  """Held-out data of all problems, where the agent stops by them.

  Raises:
    ValueError: a problem has none.
  """
  if agent.early_stopping is None:
    return None
  found = [[problem.validation for problem in group]
           for group in groups.values()]
  if any(data is None for of_seed in found for data in of_seed):
    raise ValueError('early stopping needs validation data, which these '
                     'problems do not have.')
  return base.Data(_stack([of_seed[0].x for of_seed in found]),
                   np.stack([[data.y for data in of_seed]
                             for of_seed in found]))


def agent_key(unit: work_units.WorkUnit, seed: int) -> jax.Array:
  """The key of what an agent draws; each replica has its own."""
  key = problems_lib.agent_key(seed)
  replica = unit.agent_config.get('replica', 0)
  return jax.random.fold_in(key, replica) if replica else key


def treated(unit: work_units.WorkUnit, problem: Any, predict: base.Predict,
            key: jax.Array) -> base.Predict:
  """Predictions made worse, where the unit asks for that."""
  share = unit.agent_config.get('degrade', 0)
  return degradation.degrade(predict, problem, share, key) if share else predict


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
  """np.stack, without a copy of a single one: x may be 800 MB."""
  return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def _steps_between_checkpoints(unit: work_units.WorkUnit, num_batches: int,
                               options: unit_results.RunOptions) -> int | None:
  """Steps of the first call; None where training is too short to be cut."""
  seconds = (cost_model.estimate_training_seconds(unit)
             * len(unit.family.cells))
  if not seconds:  # Of a user-defined agent nothing is known.
    return math.ceil(_FIRST_SHARE * num_batches)
  if jax.default_backend() != 'cpu':  # All seeds at once.
    seconds *= len(unit.seeds) / _ACCELERATOR_SPEED
  if seconds < min(_UNCUT_SECONDS, 2 * options.checkpoint_seconds):
    return None
  return math.ceil(num_batches * min(0.5 * _UNCUT_SECONDS,
                                     options.checkpoint_seconds) / seconds)
