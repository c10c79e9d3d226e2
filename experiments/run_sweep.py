"""Runs a sweep, or one task's share of it; what is finished is skipped.

python -m experiments.run_sweep --config=testbed_configs/quickstart.py \
    --results_dir=DIR

Its share of the work is --task_index of --num_tasks, or what its job array says
(Slurm, PBS, AWS Batch, Google Batch).

It can be killed at any moment and started again: what is on the disk is whole,
and at most the running units are computed again. On SIGTERM, SIGUSR1 or Ctrl-C
it keeps what it has of those too, and ends within --grace_seconds.

Exit codes: 0 all is well; 1 an agent failed or diverged, or a worker died; 2
bad input; 75 (EX_TEMPFAIL) it was told to stop and is not done: the same
command goes on.
"""

import collections
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import multiprocessing
import pathlib
import sys
import time

from absl import flags
import tqdm

from enn_ensembles import checks
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import devices
from enn_ensembles.machine import file_locks
from enn_ensembles.machine import files
from enn_ensembles.machine import heartbeats
from enn_ensembles.machine import job_arrays
from enn_ensembles.machine import preemption
from enn_ensembles.sweeps import agent_checks
from enn_ensembles.sweeps import claimed_units
from enn_ensembles.sweeps import forecast
from enn_ensembles.sweeps import long_units
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import sweep_status
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units
from enn_ensembles.sweeps import workers
from experiments import cli
from experiments import grid_flags
from experiments import problem_flags

flags.adopt_module_key_flags(grid_flags)

_DAY = 86400  # Seconds: more is a mistake, or no number that waits take.

_RESULTS_DIR = flags.DEFINE_string(
    'results_dir', None, 'Where rows go; made if missing.')

_NUM_WORKERS = flags.DEFINE_integer(
    'num_workers', None, 'Processes. Default: one per core that this process '
    'may use; one where jax uses an accelerator.')
_GRACE_SECONDS = flags.DEFINE_float(
    'grace_seconds', 10., 'Seconds from SIGTERM, SIGUSR1 or Ctrl-C to the end '
    'of this process: what is running is kept if it comes to a point where it '
    'can be.')
_DRY_RUN = flags.DEFINE_bool(
    'dry_run', False, 'Print what would run, and stop. With --results_dir, '
    'what the folder has rows of is left out.')
_RETRY_FAILED = flags.DEFINE_bool(
    'retry_failed', False, 'Run again what failed before.')
_TIMING_SECONDS = flags.DEFINE_float(
    'timing_seconds', 10., 'For so long user-defined agents without rows are '
    'timed before the first unit, so that the cost is known; 0 for not at all. '
    'Tasks of a job array time nothing.')
_MEMORY_BUDGET_MB = flags.DEFINE_float(
    'memory_budget_mb', None, 'Memory that training may take per device. '
    'Default: a seed at once on a CPU, half the memory of an accelerator.')
_COMPILATION_CACHE_DIR = flags.DEFINE_string(
    'compilation_cache_dir', None, 'Folder of compiled programs; empty for '
    'none. Default: in the cache folder of the user.')


def _print_cost(todo: Sequence[sweeps.WorkUnit],
                measured: Mapping[sweep_status.Group, sweep_status.Cost],
                timings: Sequence[forecast.Timing], num_workers: int) -> None:
  parts = forecast.make_forecast(todo, measured, timings)
  own = work_units.modules_by_name(problem_flags.agent_modules())
  if parts:
    print(forecast.format_text(parts, num_workers, {
        unit.agent_label for unit in todo if unit.agent in own}), flush=True)


def _num_rows(units: Sequence[sweeps.WorkUnit]) -> int:
  return sum(unit.num_rows for unit in units)


def _left(units: Iterable[sweeps.WorkUnit],
          done: Collection[str]) -> list[sweeps.WorkUnit]:
  """The units, or parts of them, whose rows are not done."""
  if not done:  # See `sweep_status.costs_in_rows`.
    return list(units)
  return [part for unit in units for part in sweeps.narrow(unit, done)]


def _say_line(line: str) -> None:
  print(f'  {line}', flush=True)


def _say(bar: tqdm.tqdm, line: str) -> None:
  bar.write(f'  {line}')
  sys.stdout.flush()


def _run(units: Sequence[sweeps.WorkUnit], options: unit_results.RunOptions,
         num_workers: int, heartbeat: heartbeats.Heartbeat
         ) -> tuple[bool, int]:
  """Runs units and says how it goes.

  Returns:
    Whether all rows were computed, and how many of them diverged.
  """
  start, num_done, total = time.perf_counter(), 0, _num_rows(units)
  on_terminal = sys.stderr.isatty()
  succeeded, num_diverged = True, 0
  with tqdm.tqdm(total=total, unit='row', disable=not on_terminal,
                 smoothing=0.1) as bar, long_units.LongUnits(
                     lambda line: _say(bar, line),
                     heartbeat.set_entries) as watch:
    # On a CPU a single worker is pinned as several are: same threads, same
    # last digits.
    for outcome in workers.run(units, options, num_workers, watch.announce,
                               not devices.computes_on_cpu()):
      num_done += outcome.unit.num_rows
      bar.update(outcome.unit.num_rows)
      succeeded = succeeded and outcome.succeeded
      num_diverged += outcome.num_diverged
      counts = ', '.join(
          f'{count} {status}' for status, count in (
              ('ok', outcome.num_ok), ('diverged', outcome.num_diverged),
              ('failed', outcome.num_failed),
              ('missing', outcome.num_missing)) if count)
      if not on_terminal or outcome.message:
        bar.write(
            f'[{time.perf_counter() - start:7.1f} s] {num_done}/{total} '
            f'rows; {outcome.unit.run_id}: {counts} in '
            f'{outcome.seconds:.1f} s'
            + (f'; {outcome.message}' if outcome.message else ''))
        sys.stdout.flush()
      if outcome.details:
        bar.write(outcome.details, file=sys.stderr)
  return succeeded, num_diverged


class _Ending:
  """What a process does that has to end wherever it is."""

  def __init__(self):
    self.heartbeat: heartbeats.Heartbeat | None = None

  def __call__(self) -> None:
    for worker in multiprocessing.active_children():
      worker.kill()
    if self.heartbeat is not None:
      self.heartbeat.close()
    files.finish_writing(0.5 * preemption.ENDING_SECONDS)


def main(_) -> int:
  for flag in (_GRACE_SECONDS, _TIMING_SECONDS):
    if not 0 <= flag.value <= _DAY:
      raise ValueError(f'--{flag.name} must be >= 0 and at most {_DAY}, got '
                       f'{flag.value}.')
  ending = _Ending()
  with preemption.SignalHandlers(_GRACE_SECONDS.value, before_exit=ending):
    try:
      return _sweep(ending)
    except preemption.Preempted:
      print('told to stop: what is done is written, and the same command goes '
            'on.', file=sys.stderr)
      return preemption.EXIT_CODE


def _remove_leftovers() -> None:
  """Removes what killed processes left; it harms nobody, and takes room."""
  problem_flags.clear_problem_cache()
  results_dir = pathlib.Path(_RESULTS_DIR.value)
  files.remove_stale_files(results_dir, results.FOLDERS)
  checkpoints.remove_stale(results_dir)
  heartbeats.remove_dead(results_dir)
  file_locks.remove_all_abandoned(results_dir / claimed_units.CLAIMS_FOLDER)


def _print_plan(sweep: Sequence[sweeps.WorkUnit],
                mine: Sequence[sweeps.WorkUnit],
                options: unit_results.RunOptions, num_tasks: int) -> None:
  """What a dry run says; also raises what a run would before its first unit.

  Args:
    sweep: all units.
    mine: this task's share of them.
    options: of the run.
    num_tasks: tasks that share the units.
  """
  rows: dict[str, results.Row] = {}
  if _RESULTS_DIR.value is not None:
    store = results.find_store(_RESULTS_DIR.value)
    if store is not None:  # Else a run makes it.
      rows = results.scan_rows([store], sweep_status.ROW_FIELDS)
  problem_flags.check_problem_cache()
  problem_flags.check_cache_folder(_COMPILATION_CACHE_DIR, 'compiled')
  done = results.done_statuses(rows, _RETRY_FAILED.value)
  todo = _left(mine, done)
  for part in todo:
    print(f'{part.num_rows:6d} rows  {part.run_id}')
  todo_of_all = _left(sweep, done)  # The cost is that of all tasks together.
  timings = []
  if _TIMING_SECONDS.value:
    timings = agent_checks.check_units(todo_of_all, options, _say_line,
                                       timing_seconds=_TIMING_SECONDS.value)
  workers_per_task = _NUM_WORKERS.value or devices.default_num_workers()
  _print_cost(todo_of_all, sweep_status.costs_in_rows(sweep, rows), timings,
              num_tasks * workers_per_task)
  num_done = _num_rows(mine) - _num_rows(todo)
  print(f'{len(todo)} work units, {_num_rows(todo)} rows (of '
        f'{len(sweep)} and {_num_rows(sweep)} in the sweep'
        + (f'; {num_done} rows done before' if num_done else '')
        + '); none was run, nothing was written.')


def _sweep(ending: _Ending) -> int:
  """Runs what the flags say; 1 if anything failed."""
  # All that can be wrong is found before any work starts.
  task = grid_flags.task()
  config = grid_flags.read_sweep()
  sweep = sweeps.expand(config, problem_flags.agent_modules())
  options = unit_results.RunOptions(
      results_dir=_RESULTS_DIR.value or '',
      agent_modules=problem_flags.agent_modules(),
      problem_settings=problem_flags.problem_settings(),
      memory_budget_mb=cli.memory_mb(_MEMORY_BUDGET_MB),
      grace_seconds=_GRACE_SECONDS.value)
  one_unit.check_units(sweep, options)
  mine = sweeps.select(sweep, task.index, task.num_tasks)
  if _NUM_WORKERS.value is not None:
    checks.check_count('--num_workers', _NUM_WORKERS.value)
  if config.left_out():
    names = ', '.join(family.name for family in config.left_out())
    print(f'left out by --max_num_train={config.max_num_train}: {names}')
  if task.source:
    print(f'task {task.index} of {task.num_tasks}, from {task.source}')
  if _DRY_RUN.value:
    _print_plan(sweep, mine, options, task.num_tasks)
    return 0
  if _RESULTS_DIR.value is None:
    raise ValueError('--results_dir must be given, except with --dry_run.')
  return _run_share(sweep, mine, options, task, ending)


def _run_share(sweep: Sequence[sweeps.WorkUnit],
               mine: Sequence[sweeps.WorkUnit],
               options: unit_results.RunOptions, task: job_arrays.Task,
               ending: _Ending) -> int:
  """Runs what is left of this task's share; 1 if anything failed.

  Args:
    sweep: all units.
    mine: this task's share of them.
    options: of the run.
    task: says which share that is.
    ending: closes the heartbeat where the process has to end.
  """
  problem_flags.check_problem_cache()
  options = dataclasses.replace(
      options, compilation_cache_dir=problem_flags.cache_folder(
          _COMPILATION_CACHE_DIR, 'compiled', private=True))
  store = results.open_store(_RESULTS_DIR.value, create=True)
  options = dataclasses.replace(
      options, units_before=claimed_units.unit_versions(store.results_dir))
  rows = results.scan_rows([store], sweep_status.ROW_FIELDS)
  done = results.done_statuses(rows, _RETRY_FAILED.value)
  if task.index == 0:
    _remove_leftovers()  # See `problem_flags.clear_problem_cache`.
  store.write_manifest([entry for unit in sweep
                        for entry in unit.manifest_entries()])
  before = collections.Counter(done.get(row_id) for unit in mine
                               for row_id in unit.row_ids())
  num_workers = 1
  if any(row_id not in done for unit in mine for row_id in unit.row_ids()):
    num_workers = _NUM_WORKERS.value or devices.default_num_workers()
  # Cut before what is done is left out: the parts are the same at every start.
  todo = _left(sweeps.split(mine, num_workers), done)
  print(f'{_num_rows(todo)} rows in {len(todo)} work units to run, '
        f'{_num_rows(mine) - _num_rows(todo)} done before; '
        f'results in {_RESULTS_DIR.value}', flush=True)
  if before['failed']:
    print(f'{before["failed"]} of those done before failed; --retry_failed '
          'runs them again.')
  timings = _check_new_agents(sweep, todo, done, options, task)
  _print_cost(todo, sweep_status.costs_in_rows(mine, rows), timings,
              num_workers)
  with heartbeats.Heartbeat(
      _RESULTS_DIR.value, f'{task.index} of {task.num_tasks}',
      num_workers) as ending.heartbeat:
    succeeded, num_diverged = _run(todo, options, num_workers,
                                   ending.heartbeat)
  num_diverged += before['diverged']
  if num_diverged:
    print(f'{num_diverged} rows diverged: their training or a score is not '
          'finite, and they would diverge again.')
  return 0 if succeeded and not before['failed'] and not num_diverged else 1


def _check_new_agents(sweep: Sequence[sweeps.WorkUnit],
                      todo: Sequence[sweeps.WorkUnit], done: Collection[str],
                      options: unit_results.RunOptions,
                      task: job_arrays.Task) -> list[forecast.Timing]:
  """Checks user-defined agents that have no rows, and times them."""
  begun = {unit.agent_id for unit in sweep
           if any(row_id in done for row_id in unit.row_ids())}
  return agent_checks.check_units(
      [unit for unit in todo if unit.agent_id not in begun], options, _say_line,
      timing_seconds=_TIMING_SECONDS.value if task.num_tasks == 1 else 0.)


if __name__ == '__main__':
  cli.run_main(main)
