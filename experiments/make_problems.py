"""Makes the problems of a sweep: fills the cache that its jobs then read.

python -m experiments.make_problems --config=testbed_configs/paper.py \
    [--cache_dir=DIR] [--task_index=0 --num_tasks=1] [--verify] \
    [--export_dir=DIR] [--publish_dir=DIR]

--publish_dir writes what is expensive of problems with 10,000 training points
or more, as the folder ground_truth of the repository holds it: whoever has it
computes none of that again (`enn_ensembles/problems/published.py`).

--verify computes nothing new: it checks what is in the cache by arithmetic of
its own (`enn_ensembles/problems/audit.py`) and says what fails or is missing.

Problems are the same for all agents: flags of agents are refused.

Exit codes: 0 all is well; 1 a check failed or a problem is missing; 2 bad
input.
"""

from collections.abc import Sequence
import pathlib
import time

from absl import flags
import jax

from enn_ensembles import checks
from enn_ensembles import problems
from enn_ensembles import sweeps
from enn_ensembles.machine import devices
from enn_ensembles.machine import files
from enn_ensembles.machine import peak_memory
from enn_ensembles.problems import audit
from enn_ensembles.problems import problem_export
from enn_ensembles.problems import published
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.sweeps import status_text
from experiments import cli
from experiments import grid_flags
from experiments import problem_flags

flags.adopt_module_key_flags(grid_flags)

_VERIFY = flags.DEFINE_bool(
    'verify', False, 'Check the cached problems instead of making any.')
_NUM_ROWS = flags.DEFINE_integer(
    'num_rows', 200, 'Random rows of the kernel that --verify recomputes.')
_EXPORT_DIR = flags.DEFINE_string(
    'export_dir', None, 'Also write each problem as .npz and .json there; made '
    'if missing.')
_PUBLISH_DIR = flags.DEFINE_string(
    'publish_dir', None, 'Also write the ground truth of problems with at '
    f'least {published.MIN_NUM_TRAIN} training points there, to be published; '
    'made if missing.')


# What takes longer is announced.
_LONG_SECONDS = 60.


def _groups(config: sweeps.SweepConfig) -> list[sweeps.WorkUnit]:
  """What shares a kernel: one unit per (input_dim, data_ratio, seed)."""
  if config.kind != 'nngp':
    raise ValueError(f'config {config.name} has PROBLEMS = {config.kind!r}; '
                     'only nngp problems have a ground truth to be made.')
  return [sweeps.WorkUnit('ground_truth', 'ground_truth', {}, family, (seed,))
          for family in config.families() for seed in sorted(config.seed)]


def _name(unit: sweeps.WorkUnit) -> str:
  return f'{unit.family.name}_s{unit.seeds[0]}'


def _estimate(unit: sweeps.WorkUnit) -> float:
  return sweeps.estimate_ground_truth_seconds(unit,
                                              problem_flags.solver_memory_mb())


def _make(unit: sweeps.WorkUnit, cache_dir: str) -> list[problems.Problem]:
  assert isinstance(unit.family, nngp.NngpFamily)
  return problems.make_problems(
      unit.family.configs(unit.seeds[0]), cache_dir, unit.family.solver,
      problem_flags.solver_memory_mb(), publish_dir=_PUBLISH_DIR.value,
      progress=lambda line: print(f'  {_name(unit)}: {line}', flush=True))


def _export(group: Sequence[problems.Problem]) -> None:
  if _EXPORT_DIR.value is not None:
    for problem in group:
      problem_export.export_problem(problem, pathlib.Path(_EXPORT_DIR.value))


def _fill(units: Sequence[sweeps.WorkUnit], cache_dir: str) -> int:
  """Makes what is missing and says how far it is."""
  total = sum(map(_estimate, units))
  start, done = time.perf_counter(), 0.
  for number, unit in enumerate(units, 1):
    before = time.perf_counter()
    seconds = _estimate(unit) / len(devices.available_cores())
    if seconds > _LONG_SECONDS:
      print(f'[{before - start:7.1f} s] {number}/{len(units)} {_name(unit)}: '
            f'T = {unit.family.num_train}, about '
            f'{status_text.duration_text(seconds)} unless it is in the cache',
            flush=True)
    group = _make(unit, cache_dir)
    _export(group)
    now = time.perf_counter()
    done += _estimate(unit)
    left = (now - start) / done * (total - done)
    truths = [problem.ground_truth for problem in group]
    print(f'[{now - start:7.1f} s] {number}/{len(units)} {_name(unit)}: '
          f'T = {unit.family.num_train}, {truths[0].solver}, std within '
          f'{max(t.std_error for t in truths):.1e}, mean within '
          f'{max(t.mean_error for t in truths):.1e} stds, in '
          f'{now - before:.1f} s; about {left:.0f} s left', flush=True)
  memory = peak_memory.since_start_mb()
  if memory is not None:
    print(f'done; {memory:,.0f} MB of memory at most.')
  return 0


def _verify(units: Sequence[sweeps.WorkUnit], cache_dir: str) -> int:
  """Checks what is cached; 1 if anything fails or is missing."""
  num_failed = num_missing = num_passed = 0
  for unit in units:
    assert isinstance(unit.family, nngp.NngpFamily)
    configs = unit.family.configs(unit.seeds[0])
    cached = problems.make_problems(configs, cache_dir, unit.family.solver,
                                    problem_flags.solver_memory_mb(),
                                    only_cached=True)
    for config, problem in zip(configs, cached):
      if problem is None:
        print(f'missing: {config.problem_id}', flush=True)
        num_missing += 1
        continue
      checks = audit.check_problem(problem, _NUM_ROWS.value)
      failed = [check for check in checks if not check.passed]
      text = ', '.join(f'{check.name} {check.error:.1e} (allowed '
                       f'{check.allowed:.0e})' for check in failed or checks)
      print(f'{"FAILED" if failed else "passed"}: {config.problem_id}, '
            f'{problem.ground_truth.solver}: {text}', flush=True)
      num_failed += bool(failed)
      num_passed += not failed
      _export([problem])
  print(f'{num_passed} problems passed, {num_failed} failed, {num_missing} are '
        'missing.')
  return 1 if num_failed or num_missing else 0


def main(_) -> int:
  grid_flags.refuse_agents()
  if _VERIFY.value:
    cli.refuse((_PUBLISH_DIR,), '--verify computes nothing that could go there')
  config = grid_flags.read_sweep()
  units = _groups(config)
  if not units:
    raise ValueError(
        f'config {config.name}: no problem has at most max_num_train '
        f'= {config.max_num_train} training points.')
  checks.check_count('--num_rows', _NUM_ROWS.value)
  for unit in units:
    unit.family.check(problem_flags.problem_settings())
  task = grid_flags.task()
  units = sweeps.select(units, task.index, task.num_tasks, _estimate)
  cache_dir = problem_flags.problem_cache()
  if cache_dir is None:
    raise ValueError('cache_dir must not be empty: it is what is filled.')
  for flag in (_EXPORT_DIR, _PUBLISH_DIR):
    if flag.value is not None:
      folder = files.make_folder(flag.value, flag.name)
      files.remove_stale_files(folder)
  if task.index == 0:
    problem_flags.clear_problem_cache()
  jax.config.update('jax_enable_x64', True)
  print(f'{sum(unit.num_problems for unit in units)} problems of {len(units)} '
        f'kernels; cache in {cache_dir}', flush=True)
  return (_verify if _VERIFY.value else _fill)(units, cache_dir)


if __name__ == '__main__':
  cli.run_main(main)
