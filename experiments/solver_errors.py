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
import io
import sys
import time
from typing import Any

from absl import flags
import jax
import numpy as np

from enn_ensembles import checks
from enn_ensembles.machine import files
from enn_ensembles.machine import peak_memory
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import solver_memory
from enn_ensembles.problems import draws
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.report import csv_files
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

_FIELDS = ('input_dim', 'data_ratio', 'seed', 'noise_std', 'num_block_steps',
           'std_error', 'std_error_bound', 'mean_error', 'mean_error_bound',
           'residual_rms', 'residual_rms_checked', 'function_error',
           'num_passes', 'seconds', 'dense_seconds', 'memory_mb', 'peak_rss_mb',
           'tile_dtype')

# The dense posterior has rounding errors of its own.
_DENSE_ROUNDING = 1e-12

_MOST_COLUMNS = 4  # Of the plot.

Row = dict[str, Any]


def _print_progress(progress: matrix_free.Progress) -> None:
  print(f'  {progress.seconds:7.0f} s  {progress.phase} {progress.step}: '
        f'{progress.error:.3g} times the tolerance', flush=True)


def measure(input_dim: int, data_ratio: float, seed: int,
            noise_stds: Sequence[float], num_eval: int, dense: bool,
            memory_budget_mb: float, checkpoint_path: str | None,
            num_rows: int) -> list[Row]:
  """Rows of one (D_x, lambda, seed): per noise level, and block steps."""
  rng = np.random.default_rng([seed, input_dim, int(1000 * data_ratio)])
  kernel = kernels.KernelConfig()
  num_train = int(round(input_dim * data_ratio))
  x_train = rng.standard_normal((num_train, input_dim))
  x_eval = rng.standard_normal((num_eval, input_dim))
  num = num_train + remainder.num_features(kernel, input_dim)
  arguments = dict(
      kernel=kernel, x_train=x_train, x_eval=x_eval, noise_stds=noise_stds,
      normals_train=rng.standard_normal(num),
      noise=rng.standard_normal(num_train), strict=False,
      memory_budget_mb=memory_budget_mb)
  solution = matrix_free.solve(**arguments, checkpoint_path=checkpoint_path,
                               progress=_print_progress)
  truth, dense_seconds = None, None
  if dense:
    started = time.monotonic()
    truth = posterior.posterior_moments(
        kernels.nngp(kernel, x_train), kernels.nngp(kernel, x_eval, x_train),
        kernels.nngp_diag(kernel, x_eval), solution.targets,
        solution.noise_variances)
    dense_seconds = time.monotonic() - started
  checked = rng.choice(num_train, min(num_rows, num_train), replace=False)
  rows = []
  for level, noise_std in enumerate(noise_stds):
    for step, (bounds, stds) in enumerate(
        zip(solution.std_error_history, solution.std_history, strict=True), 1):
      row = dict(input_dim=input_dim, data_ratio=data_ratio, seed=seed,
                 noise_std=noise_std, num_block_steps=step,
                 std_error_bound=bounds[level])
      if truth is not None:
        row['std_error'] = np.max(np.abs(stds[level] / truth[level].std - 1))
      rows.append(row)
    # What is known of the last step alone.
    residuals = matrix_free.check_rows(kernel, x_train, solution, noise_std,
                                       checked)
    rows[-1].update(
        mean_error_bound=solution.mean_error_bounds[level],
        residual_rms=solution.residual_norms[level] / np.sqrt(num_train),
        residual_rms_checked=np.sqrt(np.mean(residuals**2)),
        function_error=solution.function_error,
        num_passes=solution.num_passes, seconds=solution.seconds,
        dense_seconds=dense_seconds, memory_mb=solution.memory_mb,
        peak_rss_mb=peak_memory.since_start_mb(),
        tile_dtype=solution.tile_dtype)
    if truth is not None:
      rows[-1]['mean_error'] = np.max(
          np.abs(solution.moments[level].mean - truth[level].mean)
          / truth[level].std)
  return rows


def plot(rows: Sequence[Row]) -> bytes:
  """PNG: std errors (dots) and their bounds (lines) over block steps."""
  import matplotlib  # Slow to import, and the numbers do not need it.
  matplotlib.use('Agg')
  from matplotlib import pyplot
  cells = sorted({(row['input_dim'], row['data_ratio']) for row in rows})
  num_columns = min(len(cells), _MOST_COLUMNS)
  num_rows = -(-len(cells) // num_columns)
  figure, axes = pyplot.subplots(
      num_rows, num_columns, figsize=(1 + 3 * num_columns, 0.5 + 3 * num_rows),
      sharey=True, squeeze=False, layout='constrained')
  for axis in axes.flat[len(cells):]:
    axis.set_axis_off()
  levels = sorted({row['noise_std'] for row in rows})
  for cell, axis in zip(cells, axes.flat):
    for number, level in enumerate(levels):
      own = [row for row in rows if row['noise_std'] == level
             and (row['input_dim'], row['data_ratio']) == cell]
      for seed in sorted({row['seed'] for row in own}):
        points = sorted((row['num_block_steps'], row['std_error_bound'],
                         row.get('std_error')) for row in own
                        if row['seed'] == seed)
        steps, bounds, errors = zip(*points)
        first = seed == min(row['seed'] for row in own)
        axis.plot(steps, bounds, '-_', color=f'C{number}', linewidth=1,
                  label=f'noise std {level:g}' if first else None)
        if None not in errors:
          axis.plot(steps, errors, '.', color=f'C{number}')
    axis.axhline(matrix_free.STD_TOLERANCE, color='0.6', linewidth=1)
    axis.set(yscale='log', xlabel='block steps',
             title=f'$D_x$ = {cell[0]}, $\\lambda$ = {cell[1]:g}')
    last = max(row['num_block_steps'] for row in rows
               if (row['input_dim'], row['data_ratio']) == cell)
    axis.set(xlim=(0.5, last + 0.5), xticks=range(1, last + 1))
  for axis in axes[:, 0]:
    axis.set_ylabel('relative error of the std:\ndots; bounds: lines')
  axes[0, 0].legend()
  stream = io.BytesIO()
  figure.savefig(stream, format='png', dpi=150)
  pyplot.close(figure)
  return stream.getvalue()


def _print_row(row: Row) -> None:
  if 'seconds' not in row:
    return
  errors = '  '.join(
      f'{name} {row.get(name + "_error", float("nan")):.1e} (bound '
      f'{row[name + "_error_bound"]:.1e})' for name in ('std', 'mean'))
  print(f'D_x {row["input_dim"]} ratio {row["data_ratio"]:g} seed '
        f'{row["seed"]} noise {row["noise_std"]:g} steps '
        f'{row["num_block_steps"]}: {errors}  residual rms '
        f'{row["residual_rms_checked"]:.1e} (stored {row["residual_rms"]:.1e})'
        f'  {row["seconds"]:.1f} s', flush=True)


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
    own = measure(input_dim, data_ratio, seed, noise_stds, _NUM_EVAL.value,
                  input_dim * data_ratio <= _MAX_DENSE_TRAIN.value,
                  _MEMORY_BUDGET_MB.value, _CHECKPOINT_PATH.value,
                  _CHECK_ROWS.value)
    for row in own:
      _print_row(row)
    last = max(row['num_block_steps'] for row in own)
    exact &= all(row['std_error_bound'] <= matrix_free.STD_TOLERANCE
                 and row['mean_error_bound'] <= matrix_free.MEAN_TOLERANCE
                 and row['function_error'] <= matrix_free.FUNCTION_TOLERANCE
                 for row in own if row['num_block_steps'] == last)
    exact &= all(row.get(f'{name}_error', 0.)
                 <= row[f'{name}_error_bound'] + _DENSE_ROUNDING
                 for row in own for name in ('std', 'mean')
                 if f'{name}_error_bound' in row)
    rows += own
    # After every cell: what was measured is not lost.
    files.write_atomically(path, csv_files.dicts_text(rows, _FIELDS).encode())
    files.write_atomically(path.with_suffix('.png'), plot(rows))
  if not exact:
    print('error: a bound is above its tolerance, or an error above its bound.',
          file=sys.stderr)
  return 0 if exact else 1


if __name__ == '__main__':
  cli.run_main(main)
