"""What every agent costs here, and against the plain way of training it.

python -m experiments.benchmark [--quick] [--agents=ensemble,bbb]
    [--input_dim=10,100,1000] [--data_ratio=10] [--num_workers=2]

Prints a table, and writes all columns to benchmark.csv; the package's
`studies/speed/benchmarking.py` says what is measured and how. The default takes
about ten minutes on two cores, --quick about one.
"""

from collections.abc import Sequence
import csv
import io
import os
import time
from typing import Any

from absl import flags

from enn_ensembles import sweeps
from enn_ensembles.machine import devices
from enn_ensembles.machine import files
from enn_ensembles.studies.speed import benchmarking
from enn_ensembles.sweeps import one_unit
from experiments import cli

_AGENTS = flags.DEFINE_list(
    'agents', None, 'Only these agents. Default: every one, at the setting of '
    'its paper.')
_INPUT_DIM = flags.DEFINE_list('input_dim', None,
                               'Values of D_x. Default: 10,100,1000.')
_DATA_RATIO = flags.DEFINE_list('data_ratio', ['10'], 'Values of lambda.')
_NUM_WORKERS = flags.DEFINE_integer(
    'num_workers', 1, 'Pinned processes that measure side by side; one has all '
    'cores.')
_NUM_SEEDS = flags.DEFINE_integer(
    'num_seeds', 3, 'Seeds per worker, times three noise levels.')
_REPEATS = flags.DEFINE_integer('repeats', 3, 'Measurements of each.')
_PLAIN = flags.DEFINE_bool('plain', True, 'Measure the plain way too.')
_SECONDS_PER_CASE = flags.DEFINE_float(
    'seconds_per_case', 8., 'About how long the timed runs of a case may '
    'take; slower ones run fewer steps.')
_QUICK = flags.DEFINE_bool(
    'quick', False, 'Only ensemble and layer_ensemble, at D_x = 10.')
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', '.', 'Where benchmark.csv goes; made if missing.')
_MARKDOWN = flags.DEFINE_bool('markdown', False, 'Print the table as Markdown.')

_FILE_NAME = 'benchmark.csv'

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
_QUICK_AGENTS = ('ensemble', 'layer_ensemble')
_NOISE_STD = (0.01, 0.1, 1.)

# Heading of a printed column -> column of the CSV.
_PRINTED = {
    'agent': 'agent_label', 'D_x': 'input_dim', 'ratio': 'data_ratio',
    'problem s': 'problem_seconds', 'train s': 'train_seconds_min',
    '(median)': 'train_seconds_median', 'evaluate s': 'evaluate_seconds_min',
    'problems/s': 'problems_per_second', 'compile s': 'compile_seconds',
    'GFLOP/s': 'train_gflop_per_second', 'program MB': 'program_mb',
    'peak MB': 'peak_rss_mb', 'plain s': 'plain_seconds_min',
    'plain/ours': 'ratio_min', '(of medians)': 'ratio_median',
    'steps timed': 'train_steps_timed', 'plain steps': 'plain_steps_timed',
}


def _make_units(num_workers: int) -> list[sweeps.WorkUnit]:
  """The cases, those on the same problems one after the other."""
  quick = _QUICK.value
  agents = _AGENTS.value if _AGENTS.value is not None else (
      list(_QUICK_AGENTS) if quick else None)
  if _NUM_SEEDS.value < 1:
    raise ValueError(f'num_seeds must be >= 1, got {_NUM_SEEDS.value}.')
  input_dim = cli.numbers(_INPUT_DIM, int)
  if input_dim is None:
    input_dim = [10] if quick else [10, 100, 1000]
  config = sweeps.SweepConfig(
      name='of the benchmark', agents=AGENTS,
      problem={'input_dim': tuple(input_dim), 'noise_std': _NOISE_STD,
               'data_ratio': tuple(cli.numbers(_DATA_RATIO, float))},
      seed=tuple(range(_NUM_SEEDS.value * num_workers)))
  units = sweeps.expand(sweeps.override(config, agents=agents))
  one_unit.check_units(units, one_unit.RunOptions(results_dir=''))
  return sorted(units, key=lambda u: (u.family.input_dim, u.family.data_ratio))


def _text(value: Any) -> str:
  """A value in the printed table, three digits of it."""
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'
  return str(value)


def format_table(rows: Sequence[benchmarking.Row], markdown: bool) -> str:
  """The main columns as lines of text, or as a Markdown table."""
  lines = [list(_PRINTED)] + [
      [_text(row[column]) for column in _PRINTED.values()] for row in rows]
  widths = [max(map(len, cells)) for cells in zip(*lines)]
  lines = [[cells[0].ljust(widths[0])]
           + [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
           for cells in lines]
  if not markdown:
    return '\n'.join('  '.join(cells) for cells in lines)
  rule = ['-' * widths[0]] + ['-' * (width - 1) + ':' for width in widths[1:]]
  return '\n'.join(f'| {" | ".join(cells)} |'
                   for cells in [lines[0], rule, *lines[1:]])


def format_csv(rows: Sequence[benchmarking.Row]) -> bytes:
  """All columns; an empty field where there is no value."""
  stream = io.StringIO()
  writer = csv.DictWriter(stream, list(rows[0]), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return stream.getvalue().encode()


def main(_) -> int:
  # All that can be wrong is found before any work starts.
  options = benchmarking.BenchmarkOptions(
      repeats=_REPEATS.value, plain=_PLAIN.value,
      seconds_per_case=_SECONDS_PER_CASE.value)
  benchmarking.check_num_workers(_NUM_WORKERS.value)
  units = _make_units(_NUM_WORKERS.value)
  output = files.make_folder(_OUTPUT_DIR.value, '--output_dir') / _FILE_NAME

  start, rows = time.perf_counter(), []
  print(f'{len(units)} cases, {_NUM_WORKERS.value} worker(s) on '
        f'{len(devices.available_cores())} cores, load average '
        f'{os.getloadavg()[0]:.2f}', flush=True)
  for row in benchmarking.run(units, options, _NUM_WORKERS.value):
    rows.append(row)
    # Every time, in one piece: a long run that is stopped leaves what it has.
    files.write_atomically(output, format_csv(rows))
    plain = ('' if row['ratio_min'] is None else
             f', plain {_text(row["plain_seconds_min"])} s '
             f'({_text(row["ratio_min"])} times)')
    print(f'[{time.perf_counter() - start:6.1f} s] {len(rows)}/{len(units)} '
          f'{row["agent_label"]} at D_x = {row["input_dim"]}: train '
          f'{_text(row["train_seconds_min"])} s per problem{plain}', flush=True)
  print()
  print(format_table(rows, _MARKDOWN.value))
  last = rows[-1]
  print(f'\nSeconds are per problem, of the whole machine. {last["device"]}, '
        f'{last["num_cores"]} cores, load average {rows[0]["load_before"]:.2f} '
        f'before and {last["load_after"]:.2f} after; jax {last["jax"]}, jaxlib '
        f'{last["jaxlib"]}, Python {last["python"]}.\nAll columns: {output}')
  return 0


if __name__ == '__main__':
  cli.run_main(main)
