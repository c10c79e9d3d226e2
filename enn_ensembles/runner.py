"""Runs work units: problems -> agent -> training -> evaluation -> rows.

`run_unit` is one unit; `run` is many, in this process or in worker processes
that are each pinned to their share of the cores. XLA's CPU loops keep one core
busy whatever it has, so workers are what uses a machine; a worker that dies
takes one unit with it and is replaced.

Only the agent's own mistakes become rows. A problem that cannot be made or a
row that cannot be written stops the sweep: the next unit would fare no better.

Told to stop (`preemption`), a process keeps what it has of its units
(`checkpoints`) and ends: after the seed that is being trained (on an
accelerator, after all seeds that are trained together), or after a minute's
steps where that takes minutes, or, where the grace period ends first, at once;
what was kept before is kept.
"""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import math
import multiprocessing
from multiprocessing import connection as connection_lib
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
import traceback
from typing import (Any, Callable, Iterator, Mapping, NamedTuple, Optional,
                    Sequence)

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import agents as agents_lib
from enn_ensembles import checkpoints
from enn_ensembles import evaluation
from enn_ensembles import preemption
from enn_ensembles import problems as problems_lib
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles import training

_PACKAGES = ('enn_ensembles', 'jax', 'jaxlib', 'dm-haiku', 'optax', 'numpy')
_LONGEST_MESSAGE = 500

# A worker keeps to its cores: more threads than cores only wait for each other.
_THREAD_VARIABLES = ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS',
                     'MKL_NUM_THREADS')


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
  agent_module: Optional[str] = None
  cache_dir: Optional[str] = None
  compilation_cache_dir: Optional[str] = None
  memory_budget_mb: Optional[float] = None
  solver_memory_mb: float = problems_lib.SOLVER_MEMORY_MB
  grace_seconds: float = 10.
  checkpoint_seconds: float = checkpoints.SECONDS_BETWEEN


class Outcome(NamedTuple):
  """What became of a unit.

  Attributes:
    unit: the unit.
    num_ok: rows with this status, and so on.
    num_diverged: scored, but not finite.
    num_failed: the agent raised.
    num_missing: rows that were not written, since the worker died.
    seconds: wall time.
    message: what went wrong, one line; empty if nothing.
    details: the traceback of the first failed row; empty if there is none.
  """
  unit: sweeps.WorkUnit
  num_ok: int
  num_diverged: int
  num_failed: int
  num_missing: int
  seconds: float
  message: str = ''
  details: str = ''

  @property
  def succeeded(self) -> bool:
    """Whether every row was computed; a diverged one was."""
    return not self.num_failed and not self.num_missing


class _Result(NamedTuple):
  """One agent on one problem: the fields of a row that are not known before."""
  status: str
  message: str = ''
  scores: Optional[Mapping[str, float]] = None
  num_samples: Optional[int] = None
  depends_on_draws: bool = True  # Whether num_enn_samples made a difference.
  path: Optional[Mapping[str, Any]] = None
  rank_seconds: Optional[float] = None
  num_params: Optional[int] = None
  train_seconds: Optional[float] = None
  evaluate_seconds: Optional[float] = None
  compile_seconds: Optional[float] = None
  details: str = ''


def check_units(units: Sequence[sweeps.WorkUnit],
                agent_module: Optional[str] = None,
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


def _check_selectable(unit: sweeps.WorkUnit,
                      agent_module: Optional[str]) -> None:
  """ValueError unless the agent has a finite index set."""
  agent = _make_agent(unit, agent_module)
  if not isinstance(agent, training.NetworkAgent) or (
      evaluation.num_index_draws(agent, unit.input_dim, unit.num_enn_samples,
                                 unit.enumerate_indices) is not None):
    raise ValueError(
        f'selection {unit.selections[-1]!r} needs an agent with a finite index '
        f'set that is enumerated; agent {unit.agent_id!r} has none.')


def run_unit(unit: sweeps.WorkUnit, options: RunOptions,
             checkpoint: Optional[checkpoints.Checkpoint] = None
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
    if isinstance(agent, training.NetworkAgent):
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
      'problem_seconds': problem_seconds, 'versions': _versions(),
      'device': device_name(),
      'created': datetime.datetime.now(datetime.timezone.utc).isoformat(
          timespec='seconds')}
  rows, details = [], []
  for (s, seed), (e, noise_std), (c, selection) in itertools.product(
      *map(enumerate, (unit.seeds, unit.noise_stds, unit.selections))):
    result = found[s][e][c]
    scores = result.scores or dict.fromkeys(
        (*results.SCORE_FIELDS, 'kl_floor'))
    rows.append({
        **shared, **scores,
        'row_id': sweeps.row_id(unit, noise_std, seed, selection),
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


def _make_group(unit: sweeps.WorkUnit, seed: int, options: RunOptions
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


def _make_agent(unit: sweeps.WorkUnit, agent_module: Optional[str]) -> Any:
  """The agent of a unit."""
  module = sweeps.load_agent(unit.agent, agent_module)
  settings = {name: value for name, value in unit.agent_config.items()
              if name != sweeps.SOURCE_FILE}
  return agents_lib.make_agent(module, agents_lib.make_config(module, settings))


def _run_network(agent: training.NetworkAgent, unit: sweeps.WorkUnit,
                 groups: Sequence[Sequence[problems_lib.Problem]],
                 options: RunOptions,
                 checkpoint: Optional[checkpoints.Checkpoint]
                 ) -> list[list[list[_Result]]]:
  """Trains and scores all problems of a unit together: [S][E][selections]."""
  trained = training.train(
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


def _steps_between_checkpoints(unit: sweeps.WorkUnit, options: RunOptions
                               ) -> Optional[int]:
  """Steps that may be lost; None where training is too short to be cut.

  It depends on the unit and the kind of device alone: whether a training is
  cut decides which program runs it, and so, perhaps, its last digits.
  """
  seconds = sweeps.estimate_training_seconds(unit) * len(unit.noise_stds)
  if jax.default_backend() != 'cpu':  # All seeds at once.
    seconds *= len(unit.seeds) / _ACCELERATOR_SPEED
  if seconds < 2 * options.checkpoint_seconds:
    return None
  return math.ceil(unit.agent_config['num_batches']
                   * options.checkpoint_seconds / seconds)


def _run_plain_agent(agent: Any, unit: sweeps.WorkUnit,
                     groups: Sequence[Sequence[problems_lib.Problem]],
                     checkpoint: Optional[checkpoints.Checkpoint]
                     ) -> list[list[list[_Result]]]:
  """Runs any agent on all problems of a unit, one by one: [S][E][1]."""
  key = {f.name: getattr(unit, f.name)
         for f in dataclasses.fields(sweeps.WorkUnit) if f.name != 'agent_id'}
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


def _run_plain(agent: Any, unit: sweeps.WorkUnit,
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
            num_samples: Optional[int], finite_params: bool = True,
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
def _versions() -> dict[str, str]:
  """Versions of what the scores depend on."""
  found = {'python': platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = 'not installed'  # Run from its folder.
  return found


def device_name() -> str:
  """The kind of device, and of CPU where that is the device."""
  devices = jax.local_devices()
  name = f'{devices[0].platform} {devices[0].device_kind}'
  if devices[0].platform == 'cpu':
    name = f'cpu {_cpu_info().get("model name", platform.machine())}'
  return name if len(devices) == 1 else f'{len(devices)} x {name}'


def _cpu_info() -> dict[str, str]:
  """What Linux says of the first core; empty on other systems."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return {}
  pairs = (line.split(':', 1) for line in text.split('\n\n')[0].splitlines()
           if ':' in line)
  return {key.strip(): value.strip() for key, value in pairs}


def configure_jax(options: RunOptions) -> None:
  """What every process that runs units tells jax, before anything else.

  float64 for the ground truth (training states its own dtype), and compiled
  programs kept on the disk, also those that compile fast: a sweep has many.
  """
  jax.config.update('jax_enable_x64', True)
  if options.compilation_cache_dir is not None:
    # XLA may load a program made for a CPU with other instructions and crash:
    # every kind of CPU has its own folder, since homes are often shared.
    info = _cpu_info()
    kind = f'{platform.machine()} {info.get("model name")} {info.get("flags")}'
    folder = hashlib.sha256(kind.encode()).hexdigest()[:10]
    jax.config.update('jax_compilation_cache_dir',
                      os.path.join(options.compilation_cache_dir, folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def available_cores() -> list[int]:
  """The cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def default_num_workers() -> int:
  """A worker per core on a CPU; one where jax would use an accelerator.

  JAX_PLATFORMS decides where it is set. Otherwise jax itself is asked, in a
  process of its own (it would take the accelerator), but only where a plugin
  for one is installed: that costs seconds.
  """
  platforms = os.environ.get('JAX_PLATFORMS', '')
  if platforms:
    on_cpu = platforms.split(',')[0].strip() == 'cpu'
  elif any(importlib.util.find_spec(name)
           for name in ('jax_plugins', 'libtpu')):
    asked = subprocess.run(
        [sys.executable, '-c', 'import jax; print(jax.default_backend())'],
        capture_output=True, text=True, check=False)
    on_cpu = asked.stdout.split()[-1:] == ['cpu']
  else:
    on_cpu = True
  return len(available_cores()) if on_cpu else 1


def run(units: Sequence[sweeps.WorkUnit], options: RunOptions,
        num_workers: int,
        announce: Callable[[Sequence[sweeps.WorkUnit]], None] = lambda _: None
        ) -> Iterator[Outcome]:
  """Runs units and writes their rows, the longest first.

  Args:
    units: what to run; none may be done (`sweeps.narrow`).
    options: how.
    num_workers: processes; 1 runs in this one, which must not have used jax
      before and keeps what `configure_jax` sets.
    announce: called with the units that are in hand, whenever that changes.

  Yields:
    The outcome of each unit when it is done, in the order of that.

  Raises:
    ValueError: num_workers < 1, a problem cannot be made or a row cannot be
      written.
    RuntimeError: a worker met a bug; the message has its traceback.
    preemption.Preempted: this process was told to stop, or a worker was. What
      is done is written; no worker is left.
  """
  if num_workers < 1:
    raise ValueError(f'num_workers must be >= 1, got {num_workers}.')
  units = sweeps.longest_first(sweeps.limit_inputs(units))
  num_workers = min(num_workers, len(units))
  if num_workers > 1:
    yield from _run_in_workers(units, options, num_workers, announce)
  elif units:
    configure_jax(options)
    for unit in units:
      preemption.stop_if_requested()
      announce([unit])
      yield _run_and_write(unit, options)
    announce([])


def _run_and_write(unit: sweeps.WorkUnit, options: RunOptions) -> Outcome:
  """Runs a unit and writes its rows."""
  start = time.perf_counter()
  checkpoint = checkpoints.Checkpoint(
      options.results_dir, f'{unit.agent_id}-D{unit.input_dim}',
      {'agent': unit.agent, 'agent_config': unit.agent_config,
       'input_dim': unit.input_dim, 'data_ratio': unit.data_ratio,
       'noise_stds': unit.noise_stds, 'dtype': unit.dtype,
       'kernel': unit.kernel, 'solver': unit.solver,
       'versions': _versions(), 'device': device_name()},
      options.checkpoint_seconds)
  rows, details = run_unit(unit, options, checkpoint)
  results.ResultsStore(options.results_dir).write_unit(unit.run_id, rows)
  checkpoint.clear()
  statuses = [row['status'] for row in rows]
  messages = [row['message'] for row in rows if row['message']]
  return Outcome(
      unit, statuses.count('ok'), statuses.count('diverged'),
      statuses.count('failed'), num_missing=0,
      seconds=time.perf_counter() - start,
      message=messages[0] if messages else '', details=details)


class _Worker(NamedTuple):
  """A worker process, as its parent sees it."""
  process: Any
  connection: connection_lib.Connection
  cores: Sequence[int]
  environment: Mapping[str, str]


class _Job(NamedTuple):
  """A unit that a worker has in hand."""
  unit: sweeps.WorkUnit
  start: float


# How often the parent looks whether it was told to stop.
_POLL_SECONDS = 0.5


def _run_in_workers(units: Sequence[sweeps.WorkUnit], options: RunOptions,
                    num_workers: int,
                    announce: Callable[[Sequence[sweeps.WorkUnit]], None]
                    ) -> Iterator[Outcome]:
  """Hands units out to workers, one at a time, each to the first that is free.

  A unit is tried once: whatever kills workers, this ends. A worker that is told
  to stop stops them all.
  """
  waiting = list(reversed(units))
  cores = available_cores()
  environments = worker_environments(num_workers, os.environ, visible_gpus())
  busy: dict[connection_lib.Connection, tuple[_Worker, _Job]] = {}
  stopping = False

  def give(worker: _Worker) -> None:
    unit = waiting.pop()
    busy[worker.connection] = (worker, _Job(unit, time.perf_counter()))
    try:
      worker.connection.send(unit)
    except BrokenPipeError:
      pass  # It is dead, which reading from it will tell.

  try:
    for i in range(num_workers):
      # Neighbours share caches; with more workers than cores they share cores.
      share = cores[i * len(cores) // num_workers:
                    (i + 1) * len(cores) // num_workers]
      give(_start_worker(share or [cores[i % len(cores)]], environments[i],
                         options))
    while busy:
      announce([job.unit for _, job in busy.values()])
      if preemption.stop_requested() and not stopping:
        stopping = True
        waiting.clear()
        for worker, _ in busy.values():
          worker.process.terminate()  # By SIGTERM, which it hears of as we did.
      for ready in connection_lib.wait(list(busy), _POLL_SECONDS):
        worker, job = busy.pop(ready)
        try:
          answer = ready.recv()
        except (EOFError, OSError):
          worker.process.join()
          if worker.process.exitcode == preemption.EXIT_CODE or stopping:
            answer = preemption.Preempted()
          else:
            answer = _dead_worker_outcome(worker, job)
            if waiting:
              worker = _start_worker(worker.cores, worker.environment, options)
        if isinstance(answer, preemption.Preempted):
          preemption.request_stop()
          worker.connection.close()
          continue
        if isinstance(answer, BaseException):
          raise answer
        if waiting:
          give(worker)
        else:
          worker.connection.close()  # Which ends it.
        yield answer
    announce([])
    if stopping:
      raise preemption.Preempted('told to stop')
  finally:
    for worker, _ in busy.values():
      worker.process.kill()  # What is on the disk is whole at any moment.
      worker.process.join()


def visible_gpus() -> list[str]:
  """The GPUs that workers can be given, as CUDA_VISIBLE_DEVICES names them.

  None where jax is told to use something else.
  """
  platforms = os.environ.get('JAX_PLATFORMS', '')
  if platforms and platforms.split(',')[0].strip() not in ('cuda', 'gpu'):
    return []
  named = os.environ.get('CUDA_VISIBLE_DEVICES')
  if named is not None:
    return [name.strip() for name in named.split(',') if name.strip()]
  gpus = list(pathlib.Path('/proc/driver/nvidia/gpus').glob('*'))
  return [str(i) for i in range(len(gpus))]


def worker_environments(num_workers: int, environment: Mapping[str, str],
                        gpus: Sequence[str]) -> list[dict[str, str]]:
  """Environment variables that give each worker a GPU of its own.

  With more workers than GPUs they share memory too, which jax would otherwise
  take whole; XLA_PYTHON_CLIENT_MEM_FRACTION stays where it is set.
  """
  if not gpus:
    return [{} for _ in range(num_workers)]
  environments = []
  for i in range(num_workers):
    # As many as i, i + len(gpus), ... below num_workers.
    sharing = len(range(i % len(gpus), num_workers, len(gpus)))
    settings = {'CUDA_VISIBLE_DEVICES': gpus[i % len(gpus)]}
    if sharing > 1 and 'XLA_PYTHON_CLIENT_MEM_FRACTION' not in environment:
      settings['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{0.9 / sharing:.3f}'
    environments.append(settings)
  return environments


def _start_worker(cores: Sequence[int], environment: Mapping[str, str],
                  options: RunOptions) -> _Worker:
  """Starts a worker on its cores and its GPU."""
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  # A daemon: it ends with its parent, whatever ends that.
  process = context.Process(target=_work, args=(theirs, options), daemon=True)
  with inherited_settings(cores, environment):
    process.start()
  theirs.close()  # The worker alone holds it: its death closes the pipe.
  return _Worker(process, ours, cores, environment)


@contextlib.contextmanager
def inherited_settings(cores: Sequence[int],
                       environment: Optional[Mapping[str, str]] = None
                       ) -> Iterator[None]:
  """Cores and environment for processes that are started inside.

  Numpy and jax count cores when they are loaded, before a worker could say
  anything: it must be born on its cores.
  """
  settings = dict.fromkeys(_THREAD_VARIABLES, str(len(cores)))
  info = _cpu_info()
  if info.get('vendor_id') == 'AuthenticAMD' and (
      'avx512f' in info.get('flags', '').split()):
    # OpenBLAS takes AMD processors that it does not know for Haswell, which is
    # half as fast.
    settings['OPENBLAS_CORETYPE'] = 'SkylakeX'
  settings = {name: value for name, value in settings.items()
              if name not in os.environ}
  settings.update(environment or {})
  before = {name: os.environ.get(name) for name in settings}
  affinity = (os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity')
              else None)
  os.environ.update(settings)
  try:
    if affinity is not None:
      os.sched_setaffinity(0, cores)
    yield
  finally:
    if affinity is not None:
      os.sched_setaffinity(0, affinity)
    for name, value in before.items():
      if value is None:
        del os.environ[name]
      else:
        os.environ[name] = value


def _work(connection: connection_lib.Connection, options: RunOptions) -> None:
  """The main function of a worker: runs what comes until the pipe is closed."""
  # Ctrl-C reaches the whole process group; the parent ends its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with preemption.SignalHandlers(
      options.grace_seconds, before_exit=lambda: results.finish_writing(5.),
      parent_pid=multiprocessing.parent_process().pid):
    configure_jax(options)
    while True:
      try:
        unit = connection.recv()
      except (EOFError, OSError):
        return
      try:
        preemption.stop_if_requested()
        answer = _run_and_write(unit, options)
      except preemption.Preempted as stop:
        answer = stop
      except ValueError as error:
        answer = ValueError(str(error))  # A mistake of the user's, as it is.
      except Exception:  # pylint: disable=broad-except
        # A bug: the parent raises it, with the traceback of where it happened.
        answer = RuntimeError(f'a worker failed:\n{traceback.format_exc()}')
      connection.send(answer)


def _dead_worker_outcome(worker: _Worker, job: _Job) -> Outcome:
  """What is said of the unit that a dead worker had in hand."""
  code = worker.process.exitcode
  if code == -signal.SIGKILL:
    why = ('was killed by SIGKILL, as when memory runs out: try fewer '
           '--num_workers')
  else:
    why = (f'was killed by signal {-code}' if code < 0
           else f'ended with exit code {code}')
  return Outcome(job.unit, 0, 0, 0, num_missing=job.unit.num_rows,
                 seconds=time.perf_counter() - job.start,
                 message=f'the worker {why}; this unit has no rows.')
