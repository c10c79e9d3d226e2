"""One work unit: problems -> agent -> training -> predictions -> rows.

Only the agent's own mistakes become rows. A problem that cannot be made or a
row that cannot be written stops the sweep: the next unit would fare no better.
"""

from collections.abc import Sequence
import datetime
import functools
import importlib.metadata
import itertools
import math
import os
import platform
import time
from typing import Any

import jax

from enn_ensembles import agents as agents_lib
from enn_ensembles import problems as problems_lib
from enn_ensembles import results
from enn_ensembles.machine import canonical
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import devices
from enn_ensembles.machine import peak_memory
from enn_ensembles.machine import preemption
from enn_ensembles.machine import progress
from enn_ensembles.problems import kinds
from enn_ensembles.scoring import selection as selection_lib
from enn_ensembles.scoring import table
from enn_ensembles.sweeps import network_units
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units
from enn_ensembles.training import network_agent
from enn_ensembles.training import sampler_predictions

_PACKAGES = ('enn_ensembles', 'jax', 'jaxlib', 'dm-haiku', 'optax', 'numpy')


def check_units(units: Sequence[work_units.WorkUnit],
                options: unit_results.RunOptions) -> None:
  """Checks, before any work, that all units can be computed.

  Raises:
    ValueError: a problem cannot be made, an agent of the package cannot serve
      it or has no members to select from, or it needs what the problems do not
      have.
  """
  families = {unit.family.name: unit.family for unit in units}
  for family in families.values():
    family.check(options.problem_settings)
  without_validation = {name for name, family in families.items()
                        if family.facts().get('num_val') == 0}
  for unit in units:
    _check_prior(unit)
    if unit.selections != ('none',):
      _check_selectable(unit, options)
    if unit.agent_config.get('degrade') and unit.family.score_set != 'nngp':
      raise ValueError('degrade needs problems with an exact posterior, got '
                       f'{unit.family.name}.')
    if unit.family.name in without_validation:
      _check_without_validation(unit, options)


def _check_prior(unit: work_units.WorkUnit) -> None:
  """ValueError where an agent of the package says that it cannot serve."""
  if unit.agent in agents_lib.agent_names():
    check = agents_lib.load_agent(unit.agent).check_prior
    if check is not None:
      try:
        check(unit.family.prior())
      except ValueError as error:
        raise ValueError(f'{unit.family.name}: {error}') from None


def _check_without_validation(unit: work_units.WorkUnit,
                              options: unit_results.RunOptions) -> None:
  """ValueError where training or a selection reads validation labels."""
  stops = getattr(make_agent(unit, options), 'early_stopping', None)
  reading = [rule for rule in unit.selections
             if rule in table.PRIVILEGED_SELECTIONS]
  if stops is not None or reading:
    what = f'selection {reading[0]!r}' if reading else 'early stopping'
    raise ValueError(f'{what} of agent {unit.agent_label!r} needs validation '
                     f'data, which {unit.family.name} does not have.')


def _check_selectable(unit: work_units.WorkUnit,
                      options: unit_results.RunOptions) -> None:
  """ValueError unless the agent has a finite index set, and rules fit."""
  prior = unit.family.prior()
  for rule in unit.selections:
    selection_lib.check_rule(rule, prior)
  agent = make_agent(unit, options)
  if not isinstance(agent, network_agent.NetworkAgent) or (
      network_units.num_index_draws(agent, unit, prior) is not None):
    raise ValueError(
        f'selection {unit.selections[-1]!r} needs an agent with a finite index '
        f'set that is enumerated; agent {unit.agent_label!r} has none.')


def run_unit(unit: work_units.WorkUnit, options: unit_results.RunOptions,
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
    ValueError: a problem cannot be made, or the agent's file was changed since
      the sweep began.
    preemption.Preempted: the process was told to stop.
  """
  start = time.perf_counter()
  work_units.check_source(unit, options.agent_modules)
  groups = _make_groups(unit, options)
  problem_seconds = (time.perf_counter() - start) / unit.num_problems
  # What making problems takes is no cost of the agent.
  is_counted = peak_memory.reset()
  found = _run_agent(unit, groups, options, checkpoint)
  peak_mb = peak_memory.read_mb() if is_counted else None
  work_units.check_source(unit, options.agent_modules)
  shared = {
      'schema_version': results.SCHEMA_VERSION, 'run_id': unit.run_id,
      'problem_seconds': problem_seconds, 'versions': versions(),
      'device': devices.device_name(),
      'numerics': {**devices.numerics(),
                   'cells_together': len(unit.family.cells)},
      'created': datetime.datetime.now(datetime.UTC).isoformat(
          timespec='seconds')}
  rows, details = [], ''
  for seed, (i, cell), selection in itertools.product(
      unit.seeds, enumerate(unit.family.cells), unit.selections):
    result = found[seed, i, selection]
    rows.append({
        **shared, **unit.row_fields(cell, seed, selection),
        'problem_id': groups[seed][i].problem_id,
        **_result_fields(unit, result, peak_mb)})
    details = details or result.details
  return rows, details


def _run_agent(unit: work_units.WorkUnit, groups: unit_results.Groups,
               options: unit_results.RunOptions,
               checkpoint: checkpoints.Checkpoint | None
               ) -> unit_results.Results:
  """The results of a unit, also where its agent cannot be made or fails."""
  try:
    agent = make_agent(unit, options)
    if isinstance(agent, network_agent.NetworkAgent):
      return network_units.run_network(agent, unit, groups, options, checkpoint)
    return _run_plain_agent(agent, unit, groups, checkpoint)
  except Exception as error:  # pylint: disable=broad-except
    # Any method in any framework is an agent, and may raise anything. Its
    # failure is a result of the sweep, told in its rows.
    failure = unit_results.failure(error)
    return {(seed, i, selection): failure
            for seed in unit.seeds for i in range(len(unit.family.cells))
            for selection in unit.selections}


def _result_fields(unit: work_units.WorkUnit, result: unit_results.Result,
                   peak_mb: float | None) -> dict[str, Any]:
  """The fields of a row that come from its result."""
  cost = {'peak_memory_mb': peak_mb,
          'predict_seconds_per_1000': result.predict_seconds_per_1000}
  return {
      'num_enn_samples': (unit.num_enn_samples if result.depends_on_draws
                          else None),
      'num_samples_used': result.num_samples,
      'cost': {name: value for name, value in cost.items()
               if value is not None} or None,
      **{name: getattr(result, name) for name in (
          'status', 'message', 'scores', 'curve', 'by_set', 'counts',
          'num_params', 'train_seconds', 'evaluate_seconds', 'rank_seconds',
          'compile_seconds')}}


_NUM_OTHER_POINTS = 2000  # About as many test and validation points.

# Problems of at most so many numbers, 2 MB, stay in memory for the units to
# come: a sweep has many agents on one problem.
_SMALL_PROBLEM = 250_000

_NUM_KEPT_GROUPS = 32


def _make_groups(unit: work_units.WorkUnit,
                 options: unit_results.RunOptions) -> unit_results.Groups:
  """The problems of a unit, read or made, one seed after the other.

  Raises:
    ValueError: a problem cannot be made.
    preemption.Preempted: the process was told to stop.
  """
  groups = {}
  for i, seed in enumerate(unit.seeds):
    preemption.stop_if_requested()
    with progress.part('seed', i, len(unit.seeds)):
      progress.report('making problems')
      groups[seed] = _make_group(unit, seed, options)
  return groups


def _make_group(unit: work_units.WorkUnit, seed: int,
                options: unit_results.RunOptions) -> Sequence[Any]:
  """The problems of one of the unit's seeds, one per cell."""
  num_points = unit.family.num_train + _NUM_OTHER_POINTS
  numbers = num_points * math.prod(unit.family.input_shape)
  make = _make_small_group if numbers <= _SMALL_PROBLEM else _make_any_group
  return make(unit.family, seed, options.problem_settings)


def _make_any_group(family: kinds.Family, seed: int,
                    settings: kinds.ProblemSettings) -> Sequence[Any]:
  return family.make(seed, settings)


# Arrays of problems are read-only, so that they can be shared.
_make_small_group = functools.lru_cache(maxsize=_NUM_KEPT_GROUPS)(
    _make_any_group)


def make_agent(unit: work_units.WorkUnit,
               options: unit_results.RunOptions) -> Any:
  """The agent of a unit.

  Raises:
    ValueError: its file is no agent, or a setting is not allowed.
  """
  return agents_lib.from_settings(
      work_units.load_agent(unit.agent, options.agent_modules),
      unit.agent_settings())


def _run_plain_agent(
    agent: Any, unit: work_units.WorkUnit, groups: unit_results.Groups,
    checkpoint: checkpoints.Checkpoint | None) -> unit_results.Results:
  """Runs any agent on all problems of a unit, one by one."""
  key = canonical.named_fields(unit, without=('agent_label', 'family'))
  key['problems'] = [list(unit.family.cells), unit.family.ranking]
  kept = None if checkpoint is None else checkpoint.restore(key)
  done = [] if kept is None else [unit_results.Result(**result)
                                  for result in kept.info['results']]
  todo = [(seed, i) for seed in unit.seeds
          for i in range(len(unit.family.cells))]
  for seed, i in todo[len(done):]:
    with progress.part('problem', len(done), len(todo)):
      done.append(_run_plain(agent, unit, groups[seed][i], seed))
    if checkpoint is not None:
      checkpoint.offer(key, lambda: checkpoints.Part(
          {'results': [result._asdict() for result in done]}))
  return {(seed, i, 'none'): result
          for (seed, i), result in zip(todo, done, strict=True)}


def _run_plain(agent: Any, unit: work_units.WorkUnit, problem: Any,
               seed: int) -> unit_results.Result:
  """Runs any agent on one problem, whose failure is that problem's alone."""
  try:
    start = time.perf_counter()
    progress.report('training')
    sampler = agent(problem.data, problem.prior,
                    network_units.agent_key(unit, seed))
    trained = time.perf_counter()
    key = problems_lib.evaluation_key(seed)
    draws_used, seconds, num_points = [], [], []

    def predict(x):
      before = time.perf_counter()
      found = sampler_predictions.predict(
          sampler, x, key, unit.num_enn_samples, unit.enumerate_indices,
          problem.prior.num_outputs)
      draws_used.append(
          found.num_samples is not None
          and not sampler_predictions.takes_members(sampler,
                                                    unit.enumerate_indices))
      seconds.append(time.perf_counter() - before)
      num_points.append(len(x))
      return found

    result = unit_results.scored(
        problem, network_units.treated(unit, problem, predict, key),
        train_seconds=trained - start)
    return result._replace(
        depends_on_draws=any(draws_used),
        evaluate_seconds=time.perf_counter() - trained,
        predict_seconds_per_1000=1000 * sum(seconds) / sum(num_points))
  except Exception as error:  # pylint: disable=broad-except
    return unit_results.failure(error)  # As in `_run_agent`.


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


def configure_jax(options: unit_results.RunOptions) -> None:
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
