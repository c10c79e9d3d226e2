"""One work unit: problems -> agent -> training -> evaluation -> rows.

Only the agent's own mistakes become rows. A problem that cannot be made or a
row that cannot be written stops the sweep: the next unit would fare no better.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import importlib.util
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
from enn_ensembles import problems as problems_lib
from enn_ensembles import results
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import devices
from enn_ensembles.machine import preemption
from enn_ensembles.scoring import evaluation
from enn_ensembles.sweeps import cost_model
from enn_ensembles.sweeps import work_units
from enn_ensembles.training import loop

_PACKAGES = ('enn_ensembles', 'jax', 'jaxlib', 'dm-haiku', 'optax', 'numpy')
_LONGEST_MESSAGE = 500


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """How to run; nothing here changes a score.

  Attributes:
    results_dir: the results folder, which exists.
    agent_module: file of an agent of one's own.
    cache_dir: folder of the ground-truth cache; None for none.
    compilation_cache_dir: folder of compiled programs; None for none.
    memory_budget_mb: memory that training may take per device; see
      `training.train`.
    solver_memory_mb: memory that a solver may take.
    grace_seconds: how long a process that is told to stop may go on to where
      it can keep what it has.
    checkpoint_seconds: how often what there is of a unit is kept.
  """
  results_dir: str
  agent_module: str | None = None
  cache_dir: str | None = None
  compilation_cache_dir: str | None = None
  memory_budget_mb: float | None = None
  solver_memory_mb: float = problems_lib.SOLVER_MEMORY_MB
  grace_seconds: float = 10.
  checkpoint_seconds: float = checkpoints.SECONDS_BETWEEN


class _Result(NamedTuple):
  """One agent on one problem: the fields of a row that are not known before."""
  status: str
  message: str = ''
  scores: Mapping[str, float] | None = None
  num_samples: int | None = None
  depends_on_draws: bool = True  # Whether num_enn_samples made a difference.
  path: Mapping[str, Any] | None = None
  rank_seconds: float | None = None
  num_params: int | None = None
  train_seconds: float | None = None
  evaluate_seconds: float | None = None
  compile_seconds: float | None = None
  details: str = ''


def check_units(units: Sequence[work_units.WorkUnit],
                agent_module: str | None = None,
                solver_memory_mb: float = problems_lib.SOLVER_MEMORY_MB
                ) -> None:
  """Checks, before any work, that all units can be computed.

  Args:
    units: the units.
    agent_module: file of an agent of one's own.
    solver_memory_mb: memory that a solver may take.

  Raises:
    ValueError: a problem is not allowed, a cell has more training points than
      a solver has memory for, or an agent has no members to select from.
  """
  for unit in units:
    if unit.selections != ('none',):
      _check_selectable(unit, agent_module)
  cells = {}
  for unit in units:
    for noise_std in unit.noise_stds:
      for seed in unit.seeds:
        config = unit.problem_config(noise_std, seed)
        cells.setdefault((unit.input_dim, unit.data_ratio, unit.solver), config)
  for (_, _, solver), config in cells.items():
    try:
      problems_lib.choose_solver(config, solver, solver_memory_mb)
    except ValueError as error:
      raise ValueError(f'{error} --max_num_train={config.num_train - 1} leaves '
                       'such cells out.') from error


def _check_selectable(unit: work_units.WorkUnit,
                      agent_module: str | None) -> None:
  """ValueError unless the agent has a finite index set."""
  agent = _make_agent(unit, agent_module)
  if not isinstance(agent, loop.NetworkAgent) or (
      evaluation.num_index_draws(agent, unit.input_dim, unit.num_enn_samples,
                                 unit.enumerate_indices) is not None):
    raise ValueError(
        f'selection {unit.selections[-1]!r} needs an agent with a finite index '
        f'set that is enumerated; agent {unit.agent_id!r} has none.')


def run_unit(unit: work_units.WorkUnit, options: RunOptions,
             checkpoint: checkpoints.Checkpoint | None = None
             ) -> tuple[list[results.Row], str]:
  """Computes all rows of a unit; writes nothing but caches and checkpoints.

  Args:
    unit: the unit.
    options: how.
    checkpoint: where parts of it are kept and taken from; None keeps nothing.

  Returns:
    Rows in the order of seeds, noise levels and selections; and the traceback
    of the first that failed, empty if none did.

  Raises:
    ValueError: a problem cannot be made.
    preemption.Preempted: the process was told to stop.
  """
  start = time.perf_counter()
  groups = []
  for seed in unit.seeds:
    preemption.stop_if_requested()
    groups.append(_make_group(unit, seed, options))
  problem_seconds = (time.perf_counter() - start) / unit.num_problems

  try:
    agent = _make_agent(unit, options.agent_module)
    if isinstance(agent, loop.NetworkAgent):
      found = _run_network(agent, unit, groups, options, checkpoint)
    else:
      found = _run_plain_agent(agent, unit, groups, checkpoint)
  except Exception as error:  # pylint: disable=broad-except
    # Any method in any framework is an agent, and may raise anything. Its
    # failure is a result of the sweep, told in its rows.
    found = [[[_failure(error)] * len(unit.selections)]
             * len(unit.noise_stds)] * len(unit.seeds)

  shared = {
      'schema_version': results.SCHEMA_VERSION, 'run_id': unit.run_id,
      'agent': unit.agent, 'agent_id': unit.agent_id,
      'agent_config': unit.agent_config, 'input_dim': unit.input_dim,
      'data_ratio': unit.data_ratio, 'reference': unit.reference,
      'kernel': unit.kernel,
      'num_train': unit.num_train, 'enumerate_indices': unit.enumerate_indices,
      'dtype': unit.dtype,
      'problem_seconds': problem_seconds, 'versions': versions(),
      'device': devices.device_name(),
      'created': datetime.datetime.now(datetime.UTC).isoformat(
          timespec='seconds')}
  rows, details = [], []
  for (s, seed), (e, noise_std), (c, selection) in itertools.product(
      *map(enumerate, (unit.seeds, unit.noise_stds, unit.selections))):
    result = found[s][e][c]
    scores = result.scores or dict.fromkeys(
        (*results.SCORE_FIELDS, 'kl_floor'))
    rows.append({
        **shared, **scores,
        'row_id': work_units.row_id(unit, noise_std, seed, selection),
        'problem_id': groups[s][e].problem_id, 'noise_std': noise_std,
        'seed': seed, 'selection': selection,
        'num_enn_samples': (unit.num_enn_samples if result.depends_on_draws
                            else None),
        'num_samples_used': result.num_samples, 'status': result.status,
        'message': result.message, 'path': result.path,
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


def _make_group(unit: work_units.WorkUnit, seed: int, options: RunOptions
                ) -> Sequence[problems_lib.Problem]:
  """The problems of one of the unit's seeds, per noise level."""
  num_points = (unit.num_train + problems_lib.ProblemConfig.num_test
                + problems_lib.ProblemConfig.num_val)
  small = num_points * unit.input_dim <= _SMALL_PROBLEM
  make = _make_small_group if small else problems_lib.make_problems
  return make(unit.problem_configs(seed), options.cache_dir, unit.solver,
              options.solver_memory_mb)


@functools.lru_cache(maxsize=_NUM_KEPT_GROUPS)
def _make_small_group(*args: Any) -> Sequence[problems_lib.Problem]:
  return problems_lib.make_problems(*args)  # Its arrays are read-only.


def _make_agent(unit: work_units.WorkUnit, agent_module: str | None) -> Any:
  """The agent of a unit."""
  module = work_units.load_agent(unit.agent, agent_module)
  settings = {name: value for name, value in unit.agent_config.items()
              if name != work_units.SOURCE_FILE}
  return agents_lib.make_agent(module, agents_lib.make_config(module, settings))


def _run_network(agent: loop.NetworkAgent, unit: work_units.WorkUnit,
                 groups: Sequence[Sequence[problems_lib.Problem]],
                 options: RunOptions,
                 checkpoint: checkpoints.Checkpoint | None
                 ) -> list[list[list[_Result]]]:
  """Trains and scores all problems of a unit together: [S][E][selections]."""
  trained = loop.train(
      agent,
      _stack([group[0].x_train for group in groups]),
      np.stack([[problem.y_train for problem in group] for group in groups]),
      np.asarray(unit.noise_stds),
      jnp.stack([problems_lib.agent_key(seed) for seed in unit.seeds]),
      dtype=jnp.dtype(unit.dtype), memory_budget_mb=options.memory_budget_mb,
      checkpoint=checkpoint,
      steps_between_checkpoints=_steps_between_checkpoints(unit, options))
  keys = jnp.stack([problems_lib.evaluation_key(seed) for seed in unit.seeds])
  num_draws = evaluation.num_index_draws(
      agent, unit.input_dim, unit.num_enn_samples, unit.enumerate_indices)
  x_test = np.stack([group[0].x_test for group in groups])
  predictions, evaluate_seconds, compile_seconds = evaluation.predict(
      agent, trained, x_test, keys, num_draws)
  val_predictions = None
  if unit.selections != ('none',):
    x_val = np.stack([group[0].x_val for group in groups])
    val_predictions = evaluation.predict(agent, trained, x_val, keys,
                                         num_draws)[0]
  finite = np.logical_and.reduce([
      np.isfinite(np.asarray(leaf)).all(axis=tuple(range(2, leaf.ndim)))
      for leaf in jax.tree.leaves(trained.params)])  # [S, E]

  def result(s: int, e: int, selection: str) -> _Result:
    problem = groups[s][e]
    if num_draws is None:
      selected = evaluation.select_members(
          selection, predictions[s, e],
          None if val_predictions is None else val_predictions[s, e],
          true_moments=(problem.test_mean, problem.test_std),
          val_moments=(problem.val_mean, problem.val_std), y_val=problem.y_val,
          noise_std=problem.noise_std, key=keys[s])
    else:
      selected = evaluation.Selected(
          *evaluation.sample_moments(predictions[s, e], axis=0), num_draws,
          path=None, rank_seconds=None)
    return _scored(
        selected.mean, selected.std, problem, selected.num_samples,
        finite_params=bool(finite[s, e]),
        depends_on_draws=num_draws is not None, path=selected.path,
        num_params=trained.num_params,
        train_seconds=trained.train_seconds / unit.num_problems,
        evaluate_seconds=evaluate_seconds / unit.num_problems,
        rank_seconds=selected.rank_seconds,
        compile_seconds=trained.compile_seconds + compile_seconds)

  return [[[result(s, e, selection) for selection in unit.selections]
           for e in range(len(unit.noise_stds))]
          for s in range(len(unit.seeds))]


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
  """np.stack, without a copy of a single one: x may be 800 MB."""
  return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


# How much faster than a core of the cost model's an accelerator may be.
_ACCELERATOR_SPEED = 100.


def _steps_between_checkpoints(unit: work_units.WorkUnit, options: RunOptions
                               ) -> int | None:
  """Steps that may be lost; None where training is too short to be cut.

  It depends on the unit and the kind of device alone: whether a training is
  cut decides which program runs it, and so, perhaps, its last digits.
  """
  seconds = cost_model.estimate_training_seconds(unit) * len(unit.noise_stds)
  if jax.default_backend() != 'cpu':  # All seeds at once.
    seconds *= len(unit.seeds) / _ACCELERATOR_SPEED
  if seconds < 2 * options.checkpoint_seconds:
    return None
  return math.ceil(unit.agent_config['num_batches']
                   * options.checkpoint_seconds / seconds)


def _run_plain_agent(agent: Any, unit: work_units.WorkUnit,
                     groups: Sequence[Sequence[problems_lib.Problem]],
                     checkpoint: checkpoints.Checkpoint | None
                     ) -> list[list[list[_Result]]]:
  """Runs any agent on all problems of a unit, one by one: [S][E][1]."""
  key = {
      f.name: getattr(unit, f.name)
      for f in dataclasses.fields(work_units.WorkUnit) if f.name != 'agent_id'
  }
  kept = None if checkpoint is None else checkpoint.restore(key)
  done = [] if kept is None else [_Result(**result)
                                  for result in kept.info['results']]
  for i, (group, seed) in enumerate(zip(groups, unit.seeds)):
    for problem in group[max(0, len(done) - i * len(group)):]:
      done.append(_run_plain(agent, unit, problem, seed))
      if checkpoint is not None:
        checkpoint.offer(key, lambda: checkpoints.Part(
            {'results': [result._asdict() for result in done]}))
  rows = iter(done)
  return [[[next(rows)] for _ in group] for group in groups]


def _run_plain(agent: Any, unit: work_units.WorkUnit,
               problem: problems_lib.Problem, seed: int) -> _Result:
  """Runs any agent on one problem, whose failure is that problem's alone."""
  try:
    start = time.perf_counter()
    sampler = agent(problem.data, problem.prior, problems_lib.agent_key(seed))
    train_seconds = time.perf_counter() - start
    moments = evaluation.sampler_moments(
        sampler, problem.x_test, problems_lib.evaluation_key(seed),
        num_enn_samples=unit.num_enn_samples)
    return _scored(
        moments.mean, moments.std, problem, moments.num_samples,
        depends_on_draws=moments.num_samples is not None,
        train_seconds=train_seconds, evaluate_seconds=moments.evaluate_seconds)
  except Exception as error:  # pylint: disable=broad-except
    return _failure(error)  # As in `run_unit`.


def _scored(mean: np.ndarray, std: np.ndarray, problem: problems_lib.Problem,
            num_samples: int | None, finite_params: bool = True,
            **fields: Any) -> _Result:
  """Scores of one problem, raw; diverged if anything is not finite."""
  scores = evaluation.score(mean, std, problem.test_mean, problem.test_std,
                            num_samples=num_samples)
  bad = [] if finite_params else ['parameters']
  if not (np.isfinite(mean).all() and np.isfinite(std).all()):
    bad.append('predictions')
  bad += [name for name in results.SCORE_FIELDS
          if not np.isfinite(scores[name])]
  return _Result(
      status='diverged' if bad else 'ok', scores=scores,
      message=f'not finite: {", ".join(bad)}' if bad else '',
      num_samples=num_samples, **fields)


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
    info = devices.cpu_info()
    kind = f'{platform.machine()} {info.get("model name")} {info.get("flags")}'
    folder = hashlib.sha256(kind.encode()).hexdigest()[:10]
    jax.config.update('jax_compilation_cache_dir',
                      os.path.join(options.compilation_cache_dir, folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
