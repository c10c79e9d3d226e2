"""What every agent costs here, beside what the machine can do.

python -m experiments.benchmark [--quick] [--agents=ensemble,bbb]
    [--input_dim=10,100,1000] [--data_ratio=10] [--num_workers=2]

Prints first what this machine can do (products, factorisations, memory), then
a table of agents, and writes all columns to ceiling.csv and benchmark.csv; the
package's `studies/speed/benchmarking.py` says what is measured and how, and
docs/speed.md how to read it. --quick measures six agents with few repeats; at
D_x = 10 alone that takes two minutes on two cores.
"""

from collections.abc import Sequence
import os
import time
from typing import Any

from absl import flags

from enn_ensembles import checks
from enn_ensembles import sweeps
from enn_ensembles.machine import devices
from enn_ensembles.machine import files
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.report import csv_files
from enn_ensembles.report import text_tables
from enn_ensembles.studies.speed import benchmarking
from enn_ensembles.studies.speed import case
from enn_ensembles.studies.speed import ceiling as ceiling_lib
from enn_ensembles.studies.speed import rows as rows_lib
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from experiments import cli

_AGENTS = flags.DEFINE_list(
    'agents', None, 'Only these agents. Default: every one, at the setting of '
    'its paper.')
_INPUT_DIM = flags.DEFINE_list(
    'input_dim', None, 'Values of D_x. Default: 10,100,1000; --quick: 10 with '
    'lambda 10 and 1000 with lambda 1.')
_DATA_RATIO = flags.DEFINE_list('data_ratio', None,
                                'Values of lambda. Default: 10.')
_NUM_WORKERS = flags.DEFINE_integer(
    'num_workers', 1, 'Pinned processes that measure side by side; one has all '
    'cores.')
_NUM_SEEDS = flags.DEFINE_integer(
    'num_seeds', 1, 'Seeds that a worker trains at once, times three noise '
    'levels. Sweeps train one at once on a CPU, many on an accelerator.')
_REPEATS = flags.DEFINE_integer(
    'repeats', None, 'Measurements of each. Default: 5; --quick: 3.')
_PLAIN = flags.DEFINE_bool('plain', True, 'Measure the plain way too.')
_SECONDS_PER_CASE = flags.DEFINE_float(
    'seconds_per_case', None, 'About how long the timed trainings of a case '
    'may take together; slower ones run fewer steps. Default: 20; --quick: 6.')
_QUICK = flags.DEFINE_bool(
    'quick', False, 'Only the main agents, on two families of problems.')
_CEILING = flags.DEFINE_bool('ceiling', True, 'Measure the machine first.')
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', '.', 'Where benchmark.csv and ceiling.csv go; made if '
    'missing.')
_MARKDOWN = flags.DEFINE_bool('markdown', False, 'Print the table as Markdown.')

_FILE_NAME, _CEILING_NAME = 'benchmark.csv', 'ceiling.csv'

AGENTS = (
    {'agent': 'ensemble', 'num_ensemble': 10},
    {'agent': 'layer_ensemble', 'num_options': 5},
    {'agent': 'deep_sub_ensemble', 'num_ensemble': 10},
    {'agent': 'batch_ensemble', 'num_ensemble': 10},
    {'agent': 'mc_dropout', 'dropout_rate': 0.05},
    {'agent': 'bbb', 'sigma_0': 100., 'index_scale': 'enn2021'},
    {'agent': 'vnn'},
    {'agent': 'hypermodel', 'index_dim': 20},
    {'agent': 'map'},
    {'agent': 'exact_posterior'},
    {'agent': 'prior_only'},
)
_QUICK_AGENTS = ('ensemble', 'layer_ensemble', 'batch_ensemble', 'mc_dropout',
                 'bbb', 'hypermodel')
_NOISE_STD = (0.01, 0.1, 1.)

# (D_x values, lambda values). A step does not depend on lambda, but ground
# truth at T = 10,000 would take most of a quick benchmark's time.
_GRIDS = (((10, 100, 1000), (10.,)),)
_QUICK_GRIDS = (((10,), (10.,)), ((1000,), (1.,)))
_REPEATS_DEFAULT, _QUICK_REPEATS = 5, 3
_SECONDS_DEFAULT, _QUICK_SECONDS = 20., 6.

# Heading of a printed column -> column of the CSV.
_PRINTED = {
    'agent': 'agent_label', 'D_x': 'input_dim', 'lambda': 'data_ratio',
    'start to score s': 'start_to_score_seconds',
    'problem s': 'problem_seconds', 'train s': 'train_seconds',
    'low': 'train_seconds_low', 'high': 'train_seconds_high',
    'once s': 'train_once_seconds', 'step ms': 'train_step_seconds',
    'steps': 'train_steps_long', 'score s': 'score_seconds',
    'GFLOP/s': 'train_gflop_per_second', 'of large': 'train_share_of_large',
    'of used': 'train_share_of_used', 'compile s': 'compile_first_seconds',
    'cached s': 'compile_cached_seconds', 'peak MB': 'peak_rss_mb',
    'plain s': 'plain_seconds', 'plain/ours': 'ratio',
    'lowest': 'ratio_low', 'highest': 'ratio_high',
}


def _make_units(num_workers: int) -> list[sweeps.WorkUnit]:
  """The cases, those on the same problems one after the other."""
  quick = _QUICK.value
  agents = cli.names(_AGENTS) if _AGENTS.value is not None else (
      list(_QUICK_AGENTS) if quick else None)
  checks.check_count('--num_seeds', _NUM_SEEDS.value)
  input_dim = cli.numbers_if_given(_INPUT_DIM, int, checks.check_count)
  data_ratio = cli.numbers_if_given(_DATA_RATIO, float,
                                    nngp.CONFIG_NAMES['DATA_RATIO'].check)
  grids = _QUICK_GRIDS if quick else _GRIDS
  if input_dim is not None or data_ratio is not None:
    grids = ((_GRIDS[0][0] if input_dim is None else input_dim,
              _GRIDS[0][1] if data_ratio is None else data_ratio),)
  units = []
  for dims, ratios in grids:
    config = sweeps.SweepConfig(
        name='of the benchmark', agents=AGENTS,
        problem={'input_dim': tuple(dims), 'noise_std': _NOISE_STD,
                 'data_ratio': tuple(ratios)},
        seed=tuple(range(_NUM_SEEDS.value * num_workers)))
    units += sweeps.expand(sweeps.override(config, agents=agents))
  one_unit.check_units(units, unit_results.RunOptions(results_dir=''))
  def size(unit: sweeps.WorkUnit) -> tuple[int, float]:
    assert isinstance(unit.family, nngp.NngpFamily)
    return unit.family.input_dim, unit.family.data_ratio

  return sorted(units, key=size)


def _tasks(units: Sequence[sweeps.WorkUnit]) -> list[ceiling_lib.Task]:
  """What the machine is measured at: large sizes and those of the cases."""
  return ceiling_lib.tasks(
      ((unit.dtype, shape) for unit in units
       for shape in case.used_products(unit)),
      (unit.family.num_train for unit in units))


def _text(value: Any, heading: str = '') -> str:
  """A value in the printed table, three digits of it."""
  if value is None:
    return ''
  if heading.endswith(' ms'):
    value = 1000. * value
  if heading.startswith('of '):
    return f'{value:.0%}'
  if isinstance(value, float):
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'
  return str(value)


def format_table(rows: Sequence[rows_lib.Row], markdown: bool) -> str:
  """The main columns as lines of text, or as a Markdown table."""
  body = [[_text(row[column], heading)
           for heading, column in _PRINTED.items()] for row in rows]
  right = range(1, len(_PRINTED))
  if markdown:
    return text_tables.markdown(list(_PRINTED), body, right).rstrip('\n')
  return '\n'.join(text_tables.aligned([list(_PRINTED), *body], right))


def main(_) -> int:
  # All that can be wrong is found before any work starts.
  quick = _QUICK.value
  repeats, seconds = _REPEATS.value, _SECONDS_PER_CASE.value
  if repeats is None:
    repeats = _QUICK_REPEATS if quick else _REPEATS_DEFAULT
  if seconds is None:
    seconds = _QUICK_SECONDS if quick else _SECONDS_DEFAULT
  options = case.CaseOptions(repeats, _PLAIN.value, seconds)
  benchmarking.check_num_workers(_NUM_WORKERS.value)
  units = _make_units(_NUM_WORKERS.value)
  folder = files.make_folder(_OUTPUT_DIR.value, '--output_dir')
  output = folder / _FILE_NAME

  start, rows = time.perf_counter(), []
  print(f'{len(units)} cases, {_NUM_WORKERS.value} worker(s) on '
        f'{len(devices.available_cores())} cores, load average '
        f'{os.getloadavg()[0]:.2f}', flush=True)
  ceiling = None
  if _CEILING.value:
    ceiling = ceiling_lib.measure(_tasks(units))
    files.write_atomically(
        folder / _CEILING_NAME,
        csv_files.dicts_text(ceiling_lib.rows(ceiling)).encode())
    print(f'[{time.perf_counter() - start:6.1f} s] '
          f'{ceiling_lib.format_text(ceiling)}', flush=True)
  for row in benchmarking.run(units, options, _NUM_WORKERS.value, ceiling):
    rows.append(row)
    # Every time, in one piece: a long run that is stopped leaves what it has.
    files.write_atomically(output, csv_files.dicts_text(rows).encode())
    plain = ('' if row['ratio'] is None else
             f', plain {_text(row["plain_seconds"])} s '
             f'({_text(row["ratio"])} times)')
    print(f'[{time.perf_counter() - start:6.1f} s] {len(rows)}/{len(units)} '
          f'{row["agent_label"]} at D_x = {row["input_dim"]}: train '
          f'{_text(row["train_seconds"])} s per problem{plain}', flush=True)
  print()
  print(format_table(rows, _MARKDOWN.value))
  last = rows[-1]
  print(f'\nSeconds are per problem, of the whole machine, medians of '
        f'{repeats} repeats with the lowest and the highest; shares are of the '
        'fastest products above, of large matrices and of those of the case. '
        f'{last["device"]}, {last["num_cores"]} cores, load average '
        f'{rows[0]["load_before"]:.2f} before and {last["load_after"]:.2f} '
        f'after; jax {last["jax"]}, jaxlib {last["jaxlib"]}, Python '
        f'{last["python"]}.\nAll columns: {output}')
  return 0


if __name__ == '__main__':
  cli.run_main(main)
