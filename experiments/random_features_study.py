"""Random features: KL by width and by number of networks.

python -m experiments.random_features_study --output_dir=OUT \
    [--width=128,256,512,1024,2048 --num_ensemble=10,30,100 --seed=0,1] \
    [--results_dir=DIR]

Writes random_features.csv, a line per problem, width and number of networks,
and random_features.png. Lines that the table in --output_dir has already are
kept, whatever the flags ask for, and not computed again; it is written whenever
the problems of a cell and seed are done at a width, so that a command that was
killed goes on. --results_dir adds rows of the agent file
enn_ensembles/studies/random_features/trained_last_layer.py, whose last layer is
trained by Adam; docs/study_random_features.md says how they are made.
"""

from collections.abc import Iterable
import pathlib
import time

from absl import flags
import jax
import pandas as pd

from enn_ensembles import checks
from enn_ensembles.machine import files
from enn_ensembles.problems import draws
from enn_ensembles.problems import kinds
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.report import columns
from enn_ensembles.report import csv_files
from enn_ensembles.studies.random_features import drawing
from enn_ensembles.studies.random_features import measuring
from experiments import cli

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where the files go; made if missing.', required=True)
_INPUT_DIM = flags.DEFINE_list('input_dim', ['10', '100'], 'Values of D_x.')
_DATA_RATIO = flags.DEFINE_list('data_ratio', ['1', '10'], 'Values of lambda.')
_NOISE_STD = flags.DEFINE_list('noise_std', ['0.01', '0.1', '1'],
                               'Values of epsilon.')
_SEED = flags.DEFINE_list('seed', ['0', '1'], 'Seeds of the problems.')
_WIDTH = flags.DEFINE_list('width', ['128', '256', '512', '1024', '2048'],
                           'Units of every hidden layer.')
_NUM_ENSEMBLE = flags.DEFINE_list('num_ensemble', ['10', '30', '100'],
                                  'Numbers of networks.')
_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Folders of sweeps of trained_last_layer.')


def main(_) -> None:
  jax.config.update('jax_enable_x64', True)
  widths, nums = (cli.numbers(flag, int, checks.check_count)
                  for flag in (_WIDTH, _NUM_ENSEMBLE))
  seeds = cli.numbers(_SEED, int, draws.check_seed)
  input_dims, data_ratios, noise_stds = (
      cli.numbers(flag, kind, nngp.CONFIG_NAMES[flag.name.upper()].check)
      for flag, kind in ((_INPUT_DIM, int), (_DATA_RATIO, float),
                         (_NOISE_STD, float)))
  families = [nngp.NngpFamily(input_dim, data_ratio, tuple(noise_stds))
              for input_dim in input_dims for data_ratio in data_ratios]
  for family in families:
    family.check(kinds.ProblemSettings())
  configs = [family.configs(seed) for family in families for seed in seeds]
  trained = [] if _RESULTS_DIR.value is None else measuring.trained_rows(
      columns.read_results(_RESULTS_DIR.value)[0])
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')
  path = folder / 'random_features.csv'
  rows = {measuring.key_of(row): row
          for row in [*measuring.read_rows(path), *trained]}
  start = time.perf_counter()
  for width in widths:
    for _ in measuring.add_missing(rows, configs, width, nums):
      _write_table(path, rows.values())  # What was measured is not lost.
    print(f'[{time.perf_counter() - start:6.1f} s] width {width}', flush=True)
    table = _write_table(path, rows.values())
    files.write_atomically(path.with_suffix('.png'),
                           drawing.make_picture(table))
  print(path, path.with_suffix('.png'))


def _write_table(path: pathlib.Path,
                 rows: Iterable[measuring.Row]) -> pd.DataFrame:
  """Writes rows as CSV, sorted: it shows not which run a line came with."""
  table = pd.DataFrame(sorted(rows, key=measuring.key_of),
                       columns=list(measuring.COLUMNS))
  files.write_atomically(
      path, csv_files.table_text(table.astype(object)).encode())
  return table


if __name__ == '__main__':
  cli.run_main(main)
