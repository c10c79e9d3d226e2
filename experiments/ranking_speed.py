"""How long ranking takes: the whole greedy order of J members.

python -m experiments.ranking_speed [--num_samples=27,125,216,1000] \
    [--num_x=1000] [--repeats=3] [--output_dir=DIR]

Members are random functions; the time does not depend on what they predict.
Compilation is apart. Beside it, the same order the plain way: numpy, mean and
the std of every candidate set computed anew (up to --max_plain members).
"""

import os
import time

from absl import flags
import jax
import numpy as np

from enn_ensembles import checks
from enn_ensembles.machine import devices
from enn_ensembles.machine import files
from enn_ensembles.report import csv_files
from enn_ensembles.scoring import ranking
from experiments import cli

_NUM_SAMPLES = flags.DEFINE_list(
    'num_samples', ['27', '125', '216', '1000'], 'Numbers of members J.')
_NUM_X = flags.DEFINE_integer('num_x', 1000, 'Validation points.')
_REPEATS = flags.DEFINE_integer('repeats', 3, 'Measurements of each.')
_MAX_PLAIN = flags.DEFINE_integer(
    'max_plain', 125, 'The plain way is measured up to this many members.')
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', '.', 'Where ranking_speed.csv goes; made if missing.')

_COLUMNS = ('num_samples', 'num_x', 'selection', 'dtype', 'seconds_min',
            'seconds_median', 'compile_seconds', 'plain_seconds', 'num_cores',
            'load', 'device')


def rank_plainly(predictions: np.ndarray, mean: np.ndarray, std: np.ndarray,
                 std_ridge: float = 1e-3) -> list[int]:
  """The order of `ranking.rank_samples` for the oracle, by its definition."""
  order, left = [], list(range(len(predictions)))
  while left:
    scores = []
    for candidate in left:
      members = predictions[[*order, candidate]]
      own_mean, own_std = members.mean(0), members.std(0) + std_ridge
      ratio = (std + std_ridge) / own_std
      scores.append(np.mean(
          -np.log(ratio) + 0.5 * (ratio**2 - 1.)
          + 0.5 * ((own_mean - mean) / own_std)**2))
    order.append(left.pop(int(np.argmin(scores))))
  return order


def _measure(num_samples: int, num_x: int, dtype: str) -> dict[str, object]:
  rng = np.random.default_rng(0)
  mean, std = rng.standard_normal(num_x), rng.uniform(0.1, 1., num_x)
  predictions = mean + std * rng.standard_normal((num_samples, num_x))

  def rank():
    start = time.perf_counter()
    found = ranking.rank_samples(predictions, mean, std, dtype=dtype)
    return found, time.perf_counter() - start

  found, first = rank()
  seconds = [rank()[1] for _ in range(_REPEATS.value)]
  plain_seconds = None
  if num_samples <= _MAX_PLAIN.value and dtype == 'float64':
    start = time.perf_counter()
    plain = rank_plainly(predictions, mean, std)
    plain_seconds = time.perf_counter() - start
    if plain != found.order.tolist():
      raise RuntimeError(f'the two orders of {num_samples} members differ.')
  return dict(zip(_COLUMNS, (
      num_samples, num_x, 'oracle', dtype, min(seconds),
      float(np.median(seconds)), max(first - min(seconds), 0.), plain_seconds,
      len(devices.available_cores()), os.getloadavg()[0],
      devices.device_name())))


def main(_) -> None:
  num_samples = cli.numbers(_NUM_SAMPLES, int, checks.check_count)
  for flag, minimum in ((_NUM_X, 1), (_REPEATS, 1), (_MAX_PLAIN, 0)):
    checks.check_count(f'--{flag.name}', flag.value, minimum)
  path = (files.make_folder(_OUTPUT_DIR.value, '--output_dir')
          / 'ranking_speed.csv')
  jax.config.update('jax_enable_x64', True)
  rows = []
  for value in num_samples:
    for dtype in ('float64', 'float32'):
      row = _measure(value, _NUM_X.value, dtype)
      rows.append(row)
      plain = row['plain_seconds']
      print(f'J = {value}, {_NUM_X.value} points, {dtype}: '
            f'{row["seconds_min"]:.4f} s (median {row["seconds_median"]:.4f}), '
            f'compilation {row["compile_seconds"]:.2f} s'
            + (f', plainly {plain:.2f} s' if plain else ''), flush=True)
  files.write_atomically(path, csv_files.dicts_text(rows).encode())
  print(path)


if __name__ == '__main__':
  cli.run_main(main)
