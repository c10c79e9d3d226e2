"""How exact the matrix-free posterior is, by number of block steps.

python -m experiments.solver_errors [--input_dim=100,1000] [--data_ratio=1,10]
    [--seed=0,1,2] [--noise_std=0.01,0.1,1] [--output_dir=DIR]
    [--max_num_train=10000] [--checkpoint_path=...] [--check_rows=200]

For every (D_x, lambda, seed): inputs are drawn, a function and its labels from
them, and the posterior at --num_eval points is computed by
`enn_ensembles.nngp.matrix_free`. Up to T = --max_dense_train also densely: the
errors of the stds after every block step, and of the means after the last,
beside the bounds that the solver computes of them. Writes a CSV with one row
per noise level and number of steps, and a plot beside it.

A large problem is solved once, with its bounds by block steps and residuals of
its weights at --check_rows random rows, in float64:

python -m experiments.solver_errors --input_dim=1000 --data_ratio=100 --seed=0
    --checkpoint_path=/large/disk/D1000_l100_s0
"""

from collections.abc import Sequence
import sys

from absl import flags
import jax

from enn_ensembles import checks
from enn_ensembles.machine import files
from enn_ensembles.nngp import solver_memory
from enn_ensembles.problems import draws
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.report import csv_files
from enn_ensembles.studies import solver_errors
from experiments import cli

_INPUT_DIM = flags.DEFINE_list('input_dim', ['100', '1000'], 'Values of D_x.')
_DATA_RATIO = flags.DEFINE_list('data_ratio', ['1', '10'], 'Values of lambda.')
_SEED = flags.DEFINE_list('seed', ['0', '1', '2'], 'Seeds of the draws.')
_NOISE_STD = flags.DEFINE_list('noise_std', ['0.01', '0.1', '1'],
                               'Noise levels, which share one solution.')
_NUM_EVAL = flags.DEFINE_integer('num_eval', 2000, 'Points of the posterior.')
_MAX_NUM_TRAIN = flags.DEFINE_integer(
    'max_num_train', None, 'Leave out cells with more training points.')
_MAX_DENSE_TRAIN = flags.DEFINE_integer(
    'max_dense_train', 10_000, 'Up to this T the dense posterior is computed.')
_MEMORY_BUDGET_MB = flags.DEFINE_float(
    'memory_budget_mb', solver_memory.DEFAULT_BUDGET_MB,
    'What the solver may hold.')
_CHECKPOINT_PATH = flags.DEFINE_string(
    'checkpoint_path', None, 'Folder where every step is kept; for one '
    '(input_dim, data_ratio, seed) only.')
_CHECK_ROWS = flags.DEFINE_integer(
    'check_rows', 200, 'Random rows whose residual is recomputed in float64.')
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', '.', 'Where solver_errors.csv, all columns, and the plot '
    'solver_errors.png go; made if missing.')


def main(argv: Sequence[str]) -> int:
  """1 if a tolerance was not met, or an error is larger than its bound."""
  del argv
  jax.config.update('jax_enable_x64', True)
  cells = [(input_dim, data_ratio, seed)
           for input_dim in cli.numbers(_INPUT_DIM, int, checks.check_count)
           for data_ratio in cli.numbers(_DATA_RATIO, float,
                                         nngp.CONFIG_NAMES['DATA_RATIO'].check)
           for seed in cli.numbers(_SEED, int, draws.check_seed)
           if _MAX_NUM_TRAIN.value is None
           or input_dim * data_ratio <= _MAX_NUM_TRAIN.value]
  if not cells:
    raise ValueError('no cell has at most max_num_train = '
                     f'{_MAX_NUM_TRAIN.value} training points.')
  noise_stds = cli.numbers(_NOISE_STD, float,
                           nngp.CONFIG_NAMES['NOISE_STD'].check)
  for flag, minimum in ((_NUM_EVAL, 1), (_CHECK_ROWS, 1),
                        (_MAX_DENSE_TRAIN, 0)):
    checks.check_count(f'--{flag.name}', flag.value, minimum)
  cli.memory_mb(_MEMORY_BUDGET_MB)
  if _CHECKPOINT_PATH.value is not None and len(cells) != 1:
    raise ValueError('checkpoint_path is of one (input_dim, data_ratio, seed), '
                     f'got {len(cells)} of them.')
  folder = files.make_folder(_OUTPUT_DIR.value, '--output_dir')
  path = folder / 'solver_errors.csv'
  rows, exact = [], True
  for input_dim, data_ratio, seed in cells:
    print(f'D_x {input_dim} ratio {data_ratio:g} seed {seed}', flush=True)
    own = solver_errors.measure(
        input_dim, data_ratio, seed, noise_stds, _NUM_EVAL.value,
        input_dim * data_ratio <= _MAX_DENSE_TRAIN.value,
        _MEMORY_BUDGET_MB.value, _CHECKPOINT_PATH.value, _CHECK_ROWS.value)
    for row in own:
      if 'seconds' in row:  # Of the last step.
        print(solver_errors.row_text(row), flush=True)
    exact &= solver_errors.is_exact(own)
    rows += own
    # After every cell: what was measured is not lost.
    files.write_atomically(path, csv_files.dicts_text(
        rows, solver_errors.FIELDS).encode())
    files.write_atomically(path.with_suffix('.png'), solver_errors.plot(rows))
  if not exact:
    print('error: a bound is above its tolerance, or an error above its bound.',
          file=sys.stderr)
  return 0 if exact else 1


if __name__ == '__main__':
  cli.run_main(main)
