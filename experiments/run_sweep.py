"""Runs a sweep, or one task's share of it; what is finished is skipped.

python -m experiments.run_sweep --config=testbed_configs/quickstart.py \
    --results_dir=DIR

Exit codes: 0 all is well; 1 an agent failed or a worker died; 2 bad input.
"""

import logging
import os
import pathlib
import sys
import time
from typing import Any, Callable, Optional, Sequence

from absl import flags
import tqdm

from enn_ensembles import results
from enn_ensembles import runner
from enn_ensembles import sweeps
from experiments import cli

_CONFIG = flags.DEFINE_string(
    'config', None, 'File of the sweep, as those in testbed_configs.',
    required=True)
_RESULTS_DIR = flags.DEFINE_string(
    'results_dir', None, 'Where rows go; made if missing.')

# They narrow the config, or replace its values.
_AGENTS = flags.DEFINE_list(
    'agents', None, 'Only these agents, with the settings of the config where '
    'it has them, else with their defaults.')
_AGENT_MODULE = flags.DEFINE_string(
    'agent_module', None, 'File of an agent of your own; without --agents it '
    'is the only one. Its name is that of the file.')
_INPUT_DIM = flags.DEFINE_list('input_dim', None, 'Values of D_x.')
_DATA_RATIO = flags.DEFINE_list('data_ratio', None, 'Values of lambda.')
_NOISE_STD = flags.DEFINE_list('noise_std', None, 'Values of epsilon.')
_SEED = flags.DEFINE_list('seed', None, 'Seeds of the problems.')
_MAX_NUM_TRAIN = flags.DEFINE_integer(
    'max_num_train', None, 'Leave out cells with more training points.')
_REFERENCE = flags.DEFINE_string(
    'reference', None, 'bayes: the exact posterior. enn2021: with the noise '
    'variance of the published testbeds, to compare with their numbers.')
_NUM_ENN_SAMPLES = flags.DEFINE_integer(
    'num_enn_samples', None, 'Draws of agents that are not enumerated.')
_ENUMERATE_INDICES = flags.DEFINE_bool(
    'enumerate_indices', None, 'Score finite index sets on all members.')
_DTYPE = flags.DEFINE_string(
    'dtype', None, 'Precision of training, float32 or float64.')

_TASK_INDEX = flags.DEFINE_integer(
    'task_index', 0, 'Which share of the work is this process\'s, from 0.')
_NUM_TASKS = flags.DEFINE_integer('num_tasks', 1, 'Into how many it is cut.')
_NUM_WORKERS = flags.DEFINE_integer(
    'num_workers', None, 'Processes. Default: one per core that this process '
    'may use; one where jax uses an accelerator.')
_DRY_RUN = flags.DEFINE_bool(
    'dry_run', False, 'Print what would run, and stop.')
_RETRY_FAILED = flags.DEFINE_bool(
    'retry_failed', False, 'Run again what failed before.')
_MEMORY_BUDGET_MB = flags.DEFINE_float(
    'memory_budget_mb', None, 'Memory that training may take per device. '
    'Default: a seed at once on a CPU, half the memory of an accelerator.')
_CACHE_DIR = flags.DEFINE_string(
    'cache_dir', None, 'Folder of the ground-truth cache; empty for none. '
    'Default: in the cache folder of the user.')
_COMPILATION_CACHE_DIR = flags.DEFINE_string(
    'compilation_cache_dir', None, 'Folder of compiled programs; empty for '
    'none. Default: in the cache folder of the user.')


def _numbers(flag: flags.FlagHolder,
             kind: Callable[[str], Any]) -> Optional[list[Any]]:
  """The values of a list flag as numbers; None if it was not given."""
  if flag.value is None:
    return None
  try:
    return [kind(text) for text in flag.value]
  except ValueError:
    what = 'integers' if kind is int else 'numbers'
    raise ValueError(f'--{flag.name} must be {what} with commas between, got '
                     f'{",".join(flag.value)!r}.') from None


def _read_sweep() -> sweeps.SweepConfig:
  """The config with the flags applied."""
  return sweeps.override(
      sweeps.load_config(_CONFIG.value), agents=_AGENTS.value,
      agent_module=_AGENT_MODULE.value, input_dim=_numbers(_INPUT_DIM, int),
      data_ratio=_numbers(_DATA_RATIO, float),
      noise_std=_numbers(_NOISE_STD, float), seed=_numbers(_SEED, int),
      max_num_train=_MAX_NUM_TRAIN.value, reference=_REFERENCE.value,
      num_enn_samples=_NUM_ENN_SAMPLES.value,
      enumerate_indices=_ENUMERATE_INDICES.value, dtype=_DTYPE.value)


def _cache_folder(flag: flags.FlagHolder, name: str) -> Optional[str]:
  """The folder a cache flag means, made if missing; None for no cache."""
  if flag.value == '':  # pylint: disable=g-explicit-bool-comparison
    return None
  home = os.environ.get('XDG_CACHE_HOME') or os.path.join(
      pathlib.Path.home(), '.cache')
  folder = flag.value or os.path.join(home, 'enn_ensembles', name)
  return str(results.make_folder(folder, flag.name))


def _print_units(units: Sequence[sweeps.WorkUnit]) -> None:
  for unit in units:
    print(f'{unit.num_rows:6d} rows  {unit.run_id}')


def _num_rows(units: Sequence[sweeps.WorkUnit]) -> int:
  return sum(unit.num_rows for unit in units)


def _run(units: Sequence[sweeps.WorkUnit], options: runner.RunOptions,
         num_workers: int) -> bool:
  """Runs units and says how it goes; whether all succeeded."""
  # At level info jax lists the accelerators that it did not find.
  logging.getLogger('jax').setLevel(logging.WARNING)
  start, num_done, total = time.perf_counter(), 0, _num_rows(units)
  on_terminal = sys.stderr.isatty()
  succeeded = True
  with tqdm.tqdm(total=total, unit='row', disable=not on_terminal,
                 smoothing=0.1) as bar:
    for outcome in runner.run(units, options, num_workers):
      num_done += outcome.unit.num_rows
      bar.update(outcome.unit.num_rows)
      succeeded = succeeded and outcome.succeeded
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
  return succeeded


def main(_) -> int:
  # All that can be wrong is found before any work starts.
  config = _read_sweep()
  sweep = sweeps.expand(config, _AGENT_MODULE.value)
  runner.check_units(sweep, _AGENT_MODULE.value)
  mine = sweeps.select(sweep, _TASK_INDEX.value, _NUM_TASKS.value)
  if _NUM_WORKERS.value is not None and _NUM_WORKERS.value < 1:
    raise ValueError(f'num_workers must be >= 1, got {_NUM_WORKERS.value}.')
  if _MEMORY_BUDGET_MB.value is not None and not _MEMORY_BUDGET_MB.value > 0:
    raise ValueError(
        f'memory_budget_mb must be > 0, got {_MEMORY_BUDGET_MB.value}.')
  if config.left_out():
    cells = ', '.join(f'({d}, {ratio:g})' for d, ratio in config.left_out())
    print(f'left out by --max_num_train={config.max_num_train}: '
          f'(input_dim, data_ratio) = {cells}')
  if _DRY_RUN.value:
    _print_units(mine)
    print(f'{len(mine)} work units, {_num_rows(mine)} rows (of '
          f'{len(sweep)} and {_num_rows(sweep)} in the sweep); nothing '
          'was run or written.')
    return 0
  if _RESULTS_DIR.value is None:
    raise ValueError('--results_dir must be given, except with --dry_run.')

  store = results.open_store(_RESULTS_DIR.value, create=True)
  options = runner.RunOptions(
      results_dir=_RESULTS_DIR.value, agent_module=_AGENT_MODULE.value,
      cache_dir=_cache_folder(_CACHE_DIR, 'problems'),
      compilation_cache_dir=_cache_folder(_COMPILATION_CACHE_DIR, 'compiled'),
      memory_budget_mb=_MEMORY_BUDGET_MB.value)
  done = store.done_row_ids(retry_failed=_RETRY_FAILED.value)
  store.write_manifest([entry for unit in sweep
                        for entry in unit.manifest_entries()])
  todo = [part for unit in mine for part in sweeps.narrow(unit, done)]
  failed_before = sum(done.get(row_id) == 'failed'
                      for unit in mine for row_id in unit.row_ids())
  num_workers = 1
  if todo:
    num_workers = _NUM_WORKERS.value or runner.default_num_workers()
  print(f'{_num_rows(todo)} rows in {len(todo)} work units to run, '
        f'{_num_rows(mine) - _num_rows(todo)} done before; '
        f'results in {_RESULTS_DIR.value}', flush=True)
  if failed_before:
    print(f'{failed_before} of those done before failed; --retry_failed runs '
          'them again.')
  succeeded = _run(todo, options, num_workers)
  return 0 if succeeded and not failed_before else 1


if __name__ == '__main__':
  cli.run_main(main)
