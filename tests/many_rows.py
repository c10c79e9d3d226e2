"""Makes a results folder of very many rows, to measure readers on.

python tests/many_rows.py FOLDER NUM_UNITS

Writes FOLDER/config.py and FOLDER/results with NUM_UNITS units of 100 rows (25
seeds, four noise levels), each with a curve of ten members and its summary,
under the names that a sweep of the config would give them. The numbers are
random. Then:

  python -m experiments.status --config=FOLDER/config.py \
      --results_dir=FOLDER/results
  python -m experiments.build_leaderboard --results_dir=FOLDER/results \
      --output_dir=FOLDER/board
"""

import argparse
import itertools
import pathlib

import example_rows
import numpy as np

from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.sweeps import sweep_config

_CONFIG = '''
INPUT_DIM = {input_dims}
DATA_RATIO = [1.]
NOISE_STD = [0.01, 0.1, 1., 10.]
SEED = list(range(25))
AGENTS = [{{'agent': 'map', 'num_batches': list(range(1, {num_agents} + 1))}}]
'''


def make_folder(folder: pathlib.Path, num_units: int) -> None:
  """Writes the folder; num_units is a square number."""
  side = round(num_units ** 0.5)
  folder.mkdir(parents=True, exist_ok=True)
  config = folder / 'config.py'
  config.write_text(_CONFIG.format(
      input_dims=list(range(2, 2 + side)), num_agents=side))
  store = results.open_store(folder / 'results', create=True)
  units = sweeps.expand(sweep_config.load_config(config))
  rng = np.random.default_rng(0)
  for unit in units:
    rows = []
    # What the rows of a unit share is hashed once.
    shared = unit.row_fields(unit.family.cells[0], unit.seeds[0], 'none')
    for (seed, cell), row_id in zip(
        itertools.product(unit.seeds, unit.family.cells), unit.row_ids(),
        strict=True):
      scores = dict(zip(('kl_reverse', 'mean_error', 'std_error',
                         'mean_rmse', 'std_ratio'),
                        rng.exponential(size=5).tolist()))
      curve = {'order': list(range(10)),
               'kl_estimate': rng.exponential(size=10).tolist(),
               'mean_rmse': rng.exponential(size=10).tolist()}
      rows.append(example_rows.make_row(
          float(rng.exponential()), **{
              **shared, **scores, 'row_id': row_id, 'run_id': unit.run_id,
              'problem': {**shared['problem'], 'seed': seed, 'cell': cell},
              'problem_id': unit.family.problem_id(cell, seed),
              'curve': curve}))
    store.write_unit(unit.run_id, rows)
  store.write_manifest([entry for unit in units
                        for entry in unit.manifest_entries()])


if __name__ == '__main__':
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('num_units', type=int)
  make_folder(**vars(parser.parse_args()))
