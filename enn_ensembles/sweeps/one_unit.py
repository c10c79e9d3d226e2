"""One work unit: problems -> agent -> training -> predictions -> rows.

Only the agent's own mistakes become rows. A problem that cannot be made or a
row that cannot be written stops the sweep: the next unit would fare no better.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import datetime
import functools
import importlib.metadata
import itertools
import math
import os
import platform
import time
import traceback
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import problems as problems_lib
from enn_ensembles import results
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import devices
from enn_ensembles.machine import preemption
from enn_ensembles.problems import kinds
from enn_ensembles.scoring import degradation
from enn_ensembles.scoring import selection as selection_lib
from enn_ensembles.scoring import table
from enn_ensembles.sweeps import agent_scores as agent_scores_lib
from enn_ensembles.sweeps import cost_model
from enn_ensembles.sweeps import sweep_config
from enn_ensembles.sweeps import work_units
from enn_ensembles.training import loop
from enn_ensembles.training import network_agent
from enn_ensembles.training import prediction

_PACKAGES = ('enn_ensembles', 'jax', 'jaxlib', 'dm-haiku', 'optax', 'numpy')
_LONGEST_MESSAGE = 500


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """How to run; nothing here changes a score.

  Attributes:
    results_dir: the results folder, which exists.
    agent_modules: files of user-defined agents.
    problem_settings: what making problems takes.
    compilation_cache_dir: folder of compiled programs; None for none.
    memory_budget_mb: memory that training may take per device; see
      `training.loop.train`.
    grace_seconds: how long a process that is told to stop may go on to where
      it can keep what it has.
    checkpoint_seconds: how often what there is of a unit is kept.
  """
  results_dir: str
  agent_modules: tuple[str, ...] = ()
  problem_settings: kinds.ProblemSettings = kinds.ProblemSettings()
  compilation_cache_dir: str | None = None
  memory_budget_mb: float | None = None
  grace_seconds: float = 10.
  checkpoint_seconds: float = checkpoints.SECONDS_BETWEEN


class _Result(NamedTuple):
  """One agent on one problem: the fields of a row that are not known before."""
  status: str
  message: str = ''
  scores: Mapping[str, float] | None = None
  num_samples: int | None = None
  depends_on_draws: bool = True  # Whether num_enn_samples made a difference.
  curve: Mapping[str, Any] | None = None
  by_set: Mapping[str, Mapping[str, float]] | None = None
  rank_seconds: float | None = None
  num_params: int | None = None
  train_seconds: float | None = None
  evaluate_seconds: float | None = None
  compile_seconds: float | None = None
  details: str = ''


# Results of a unit by (seed, position of the cell, selection).
_Results = dict[tuple[int, int, str], _Result]
# The problems of each seed, one per cell.
_Groups = Mapping[int, Sequence[Any]]


def check_units(units: Sequence[work_units.WorkUnit],
                options: RunOptions) -> None:
  """Checks, before any work, that all units can be computed.

  Raises:
    ValueError: a problem cannot be made, or an agent has no members to select
      from.
  """
  for family in {unit.family.name: unit.family for unit in units}.values():
    family.check(options.problem_settings)
  for unit in units:
    if unit.selections != ('none',):
      _check_selectable(unit, options)


def _check_selectable(unit: work_units.WorkUnit, options: RunOptions) -> None:
  """ValueError unless the agent has a finite index set."""
  agent = _make_agent(unit, options)
  if not isinstance(agent, network_agent.NetworkAgent) or (
      _num_index_draws(agent, unit, bare_prior(unit)) is not None):
    raise ValueError(
        f'selection {unit.selections[-1]!r} needs an agent with a finite index '
        f'set that is enumerated; agent {unit.agent_label!r} has none.')


def bare_prior(unit: work_units.WorkUnit) -> base.PriorKnowledge:
  """What is known of a unit's problems before they are made."""
  family = unit.family
  likelihood = (base.Categorical(family.num_outputs)
                if family.score_set == 'classification'
                else base.Gaussian(1., family.num_outputs))
  return base.PriorKnowledge(tuple(family.input_shape), family.num_train,
                             likelihood)


def _num_index_draws(agent: network_agent.NetworkAgent,
                     unit: work_units.WorkUnit,
                     prior: base.PriorKnowledge) -> int | None:
  return prediction.num_index_draws(
      agent.make_network(prior), unit.num_enn_samples, unit.enumerate_indices)


def run_unit(unit: work_units.WorkUnit, options: RunOptions,
             checkpoint: checkpoints.Checkpoint | None = None
             ) -> tuple[list[results.Row], str]:
  """Computes all rows of a unit; writes nothing but caches and checkpoints.

  Args:
    unit: the unit.
    options: how.
    checkpoint: where parts of it are kept and taken from; None keeps nothing.

  Returns:
    Rows in the order of seeds, cells and selections; and the traceback of the
    first that failed, empty if none did.

  Raises:
    ValueError: a problem cannot be made.
    preemption.Preempted: the process was told to stop.
  """
  start = time.perf_counter()
  groups = {}
  for seed in unit.seeds:
    preemption.stop_if_requested()
    groups[seed] = _make_group(unit, seed, options)
  problem_seconds = (time.perf_counter() - start) / unit.num_problems

  try:
    agent = _make_agent(unit, options)
    if isinstance(agent, network_agent.NetworkAgent):
      found = _run_network(agent, unit, groups, options, checkpoint)
    else:
      found = _run_plain_agent(agent, unit, groups, checkpoint)
  except Exception as error:  # pylint: disable=broad-except
    # Any method in any framework is an agent, and may raise anything. Its
    # failure is a result of the sweep, told in its rows.
    failure = _failure(error)
    found = {(seed, i, selection): failure
             for seed in unit.seeds for i in range(len(unit.family.cells))
             for selection in unit.selections}

  shared = {
      'schema_version': results.SCHEMA_VERSION, 'run_id': unit.run_id,
      'problem_seconds': problem_seconds, 'versions': versions(),
      'device': devices.device_name(),
      'numerics': {**devices.numerics(),
                   'cells_together': len(unit.family.cells)},
      'created': datetime.datetime.now(datetime.UTC).isoformat(
          timespec='seconds')}
  rows, details = [], []
  for seed, (i, cell), selection in itertools.product(
      unit.seeds, enumerate(unit.family.cells), unit.selections):
    result = found[seed, i, selection]
    rows.append({
        **shared, **unit.row_fields(cell, seed, selection),
        'problem_id': groups[seed][i].problem_id,
        'num_enn_samples': (unit.num_enn_samples if result.depends_on_draws
                            else None),
        'num_samples_used': result.num_samples, 'status': result.status,
        'message': result.message, 'scores': result.scores,
        'curve': result.curve, 'by_set': result.by_set,
        'num_params': result.num_params,
        'train_seconds': result.train_seconds,
        'evaluate_seconds': result.evaluate_seconds,
        'rank_seconds': result.rank_seconds,
        'compile_seconds': result.compile_seconds})
    details += [result.details] if result.details else []
  return rows, details[0] if details else ''


# Problems of at most so many numbers, 2 MB, stay in memory for the units to
# come: a sweep has many agents on one problem.
_SMALL_PROBLEM = 250_000
_NUM_KEPT_GROUPS = 32


def _make_group(unit: work_units.WorkUnit, seed: int,
                options: RunOptions) -> Sequence[Any]:
  """The problems of one of the unit's seeds, one per cell."""
  numbers = (unit.family.num_train + 2000) * math.prod(unit.family.input_shape)
  make = _make_small_group if numbers <= _SMALL_PROBLEM else _make_any_group
  return make(unit.family, seed, options.problem_settings)


def _make_any_group(family: kinds.Family, seed: int,
                    settings: kinds.ProblemSettings) -> Sequence[Any]:
  return family.make(seed, settings)


# Arrays of problems are read-only, so that they can be shared.
_make_small_group = functools.lru_cache(maxsize=_NUM_KEPT_GROUPS)(
    _make_any_group)


def _make_agent(unit: work_units.WorkUnit, options: RunOptions) -> Any:
  """The agent of a unit."""
  module = work_units.load_agent(unit.agent, options.agent_modules)
  settings = {name: value for name, value in unit.agent_config.items()
              if name != work_units.SOURCE_FILE
              and name not in sweep_config.TREATMENTS}
  return agents_lib.make_agent(module, agents_lib.make_config(module, settings))


def _run_network(agent: network_agent.NetworkAgent, unit: work_units.WorkUnit,
                 groups: _Groups, options: RunOptions,
                 checkpoint: checkpoints.Checkpoint | None) -> _Results:
  """Trains and scores all problems of a unit together.

  Selections that take labels out of the training set have a training of their
  own; all others share one.
  """
  by_share: dict[float, list[str]] = {}
  for selection in unit.selections:
    share = selection_lib.RULES[selection].label_share
    by_share.setdefault(share, []).append(selection)
  found: _Results = {}
  for share, selections in by_share.items():
    for seeds in _seeds_by_augmentation(groups):
      chosen = {seed: [_reserve(problem, share) for problem in groups[seed]]
                for seed in seeds}
      augmentation = _augmentation(groups[seeds[0]])
      changed = (agent if augmentation is None else
                 dataclasses.replace(agent, augment=augmentation))
      found.update(_train_and_score(changed, unit, chosen, selections, options,
                                    checkpoint))
  return found


def _augmentation(group: Sequence[Any]) -> Any:
  """How training inputs of a seed's problems are changed; None for not."""
  return getattr(group[0], 'augmentation', None)


def _seeds_by_augmentation(groups: _Groups) -> list[list[int]]:
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


def _train_and_score(agent: network_agent.NetworkAgent,
                     unit: work_units.WorkUnit,
                     groups: _Groups, selections: Sequence[str],
                     options: RunOptions,
                     checkpoint: checkpoints.Checkpoint | None) -> _Results:
  """Trains on the problems of these seeds in one program, and scores them."""
  seeds = tuple(groups)
  prior = groups[seeds[0]][0].prior
  num_problems = len(seeds) * len(unit.family.cells)
  trained = loop.train(
      agent, _stack([groups[seed][0].data.x for seed in seeds]),
      np.stack([[problem.data.y for problem in groups[seed]] for seed in seeds
               ]),
      jax.tree.map(lambda *leaves: np.stack(leaves),
                   *(problem.prior.likelihood for problem in groups[seeds[0]])),
      jnp.stack([_agent_key(unit, seed) for seed in seeds]),
      validation=_validation(agent, groups), dtype=jnp.dtype(unit.dtype),
      memory_budget_mb=options.memory_budget_mb, checkpoint=checkpoint,
      steps_between_checkpoints=_steps_between_checkpoints(unit, options))
  keys = jnp.stack([problems_lib.evaluation_key(seed) for seed in seeds])
  num_draws = _num_index_draws(agent, unit, prior)
  predictor = prediction.Predictor(agent, trained, prior, keys, num_draws)
  finite = np.logical_and.reduce([
      np.isfinite(np.asarray(leaf)).all(axis=tuple(range(2, leaf.ndim)))
      for leaf in jax.tree.leaves(trained.params)])  # [S, E]
  num_members = None
  if num_draws is None:
    support = base.get_support(agent.make_network(prior).indexer)
    num_members = len(jax.tree.leaves(support)[0])

  network = agent.make_network(prior)

  def agent_scores(s: int, i: int) -> dict[str, float]:
    params = jax.tree.map(lambda leaf: leaf[s, i], trained.params)
    return agent_scores_lib.score_members(network, params, prior.input_shape)

  found: _Results = {}
  for (s, seed), i in itertools.product(enumerate(seeds),
                                        range(len(unit.family.cells))):
    problem = groups[seed][i]
    predict = _treated(unit, problem, predictor.for_problem(s, i), keys[s])
    for selection in selections:
      selected = selection_lib.Selected(predict, num_draws, None, None)
      if num_members is not None:
        selected = selection_lib.select_members(selection, problem, predict,
                                                num_members, keys[s])
      found[seed, i, selection] = _scored(
          problem, selected.predict, finite_params=bool(finite[s, i]),
          depends_on_draws=num_draws is not None, curve=selected.curve,
          agent_scores=agent_scores(s, i) if selection == 'none' else {},
          num_params=trained.num_params,
          train_seconds=trained.train_seconds / num_problems,
          rank_seconds=selected.rank_seconds)
  timings = {
      'evaluate_seconds': predictor.evaluate_seconds / num_problems,
      'compile_seconds': trained.compile_seconds + predictor.compile_seconds}
  return {key: result._replace(**timings) for key, result in found.items()}


def _validation(agent: network_agent.NetworkAgent,
                groups: _Groups) -> base.Data | None:
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


def _agent_key(unit: work_units.WorkUnit, seed: int) -> jax.Array:
  """The key of what an agent draws; each replica has its own."""
  key = problems_lib.agent_key(seed)
  replica = unit.agent_config.get('replica', 0)
  return jax.random.fold_in(key, replica) if replica else key


def _treated(unit: work_units.WorkUnit, problem: Any, predict: base.Predict,
             key: jax.Array) -> base.Predict:
  """Predictions made worse, where the unit asks for that."""
  share = unit.agent_config.get('degrade', 0)
  return degradation.degrade(predict, problem, share, key) if share else predict


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
  """np.stack, without a copy of a single one: x may be 800 MB."""
  return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


# How much faster than a core of the cost model's an accelerator may be.
_ACCELERATOR_SPEED = 100.


def _steps_between_checkpoints(unit: work_units.WorkUnit, options: RunOptions
                               ) -> int | None:
  """Steps that may be lost; None where training is too short to be cut."""
  seconds = (cost_model.estimate_training_seconds(unit)
             * len(unit.family.cells))
  if jax.default_backend() != 'cpu':  # All seeds at once.
    seconds *= len(unit.seeds) / _ACCELERATOR_SPEED
  if seconds < 2 * options.checkpoint_seconds:
    return None
  return math.ceil(unit.agent_config['num_batches']
                   * options.checkpoint_seconds / seconds)


def _run_plain_agent(agent: Any, unit: work_units.WorkUnit, groups: _Groups,
                     checkpoint: checkpoints.Checkpoint | None) -> _Results:
  """Runs any agent on all problems of a unit, one by one."""
  key = {f.name: getattr(unit, f.name)
         for f in dataclasses.fields(work_units.WorkUnit)
         if f.name not in ('agent_label', 'family')}
  key['problems'] = [list(unit.family.cells), unit.family.ranking]
  kept = None if checkpoint is None else checkpoint.restore(key)
  done = [] if kept is None else [_Result(**result)
                                  for result in kept.info['results']]
  todo = [(seed, i) for seed in unit.seeds
          for i in range(len(unit.family.cells))]
  for seed, i in todo[len(done):]:
    done.append(_run_plain(agent, unit, groups[seed][i], seed))
    if checkpoint is not None:
      checkpoint.offer(key, lambda: checkpoints.Part(
          {'results': [result._asdict() for result in done]}))
  return {(seed, i, 'none'): result
          for (seed, i), result in zip(todo, done, strict=True)}


def _run_plain(agent: Any, unit: work_units.WorkUnit, problem: Any,
               seed: int) -> _Result:
  """Runs any agent on one problem, whose failure is that problem's alone."""
  try:
    start = time.perf_counter()
    sampler = agent(problem.data, problem.prior, _agent_key(unit, seed))
    trained = time.perf_counter()
    key = problems_lib.evaluation_key(seed)
    draws_used = []

    def predict(x):
      found = prediction.sampler_predictions(
          sampler, x, key, unit.num_enn_samples, unit.enumerate_indices,
          problem.prior.num_outputs)
      draws_used.append(found.num_samples == unit.num_enn_samples
                        and not hasattr(sampler, 'members'))
      return found

    result = _scored(problem, _treated(unit, problem, predict, key),
                     train_seconds=trained - start)
    return result._replace(depends_on_draws=any(draws_used),
                           evaluate_seconds=time.perf_counter() - trained)
  except Exception as error:  # pylint: disable=broad-except
    return _failure(error)  # As in `run_unit`.


def _scored(problem: Any, predict: base.Predict, finite_params: bool = True,
            agent_scores: Mapping[str, float] | None = None,
            **fields: Any) -> _Result:
  """Scores of one problem, raw; diverged if anything is not finite.

  Args:
    problem: the problem.
    predict: what the agent predicts.
    finite_params: whether its parameters are.
    agent_scores: scores of the agent itself.
    **fields: other fields of the result.
  """
  num_samples = []

  def counted(x):
    found = predict(x)
    num_samples.append(found.num_samples)
    return found

  by_set = None
  if hasattr(problem, 'score_by_set'):
    by_set = problem.score_by_set(counted)
    scores = dict(problem.combine_sets(by_set))
    by_set = {name: found for name, found in by_set.items() if name != 'test'}
    if not by_set or not all(np.isfinite(list(found.values())).all()
                             for found in by_set.values()):
      by_set = None
  else:
    scores = dict(problem.score(counted))
  bad = [] if finite_params else ['parameters']
  known = table.scores_of(problem.score_set)
  bad += [name for name, value in scores.items() if not np.isfinite(value)
          and not (known[name].may_be_infinite and value == math.inf)]
  return _Result(
      status='diverged' if bad else 'ok', by_set=by_set,
      scores={**scores, **(agent_scores or {})},
      message=f'not finite: {", ".join(bad)}' if bad else '',
      num_samples=num_samples[0], **fields)


def score_brought(problem: Any, predict: base.Predict
                  ) -> tuple[Mapping[str, float], int | None]:
  """Scores of predictions from outside, and how many draws they come from.

  Args:
    problem: an NNGP problem.
    predict: of `brought_predictions.read_predictions`.

  Raises:
    ValueError: a score is not finite, which finite predictions do not give.
  """
  if not predict.has_dyadic:
    problem = dataclasses.replace(problem, x_dyadic=None)
  result = _scored(problem, predict)
  if result.status != 'ok':
    raise ValueError(f'predictions for {problem.problem_id}: {result.message}.')
  return result.scores, result.num_samples


def _failure(error: Exception) -> _Result:
  text = ' '.join(f'{type(error).__name__}: {error}'.split())
  return _Result('failed', text[:_LONGEST_MESSAGE],
                 details=''.join(traceback.format_exception(error)))


@functools.cache
def versions() -> dict[str, str]:
  """Versions of what the scores depend on."""
  found = {'python': platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = 'not installed'  # Run from its folder.
  return found


def configure_jax(options: RunOptions) -> None:
  """What every process that runs units tells jax, before anything else.

  float64 for the ground truth (training states its own dtype), and compiled
  programs kept on the disk, also those that compile fast: a sweep has many.
  """
  jax.config.update('jax_enable_x64', True)
  if options.compilation_cache_dir is not None:
    # XLA may load a program made for a CPU with other instructions and crash:
    # every kind of CPU has its own folder, since homes are often shared.
    jax.config.update('jax_compilation_cache_dir', os.path.join(
        options.compilation_cache_dir, devices.cpu_kind()))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
