"""How exact the matrix-free posterior is, by number of block steps.

Inputs are drawn, a function and its labels from them, and the posterior is
computed by `nngp.matrix_free`, where T is small also densely: the errors of the
stds after every block step, and of the means after the last, beside the bounds
that the solver computes of them.
"""

from collections.abc import Sequence
import io
import time
from typing import Any

import numpy as np

from enn_ensembles.machine import peak_memory
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder

FIELDS = ('input_dim', 'data_ratio', 'seed', 'noise_std', 'num_block_steps',
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
  """Rows of one (D_x, lambda, seed): per noise level, and block steps.

  Args:
    input_dim: D_x.
    data_ratio: lambda.
    seed: of all draws.
    noise_stds: epsilon; the levels share one solution.
    num_eval: points of the posterior.
    dense: whether the dense posterior is computed, too.
    memory_budget_mb: what the solver may hold.
    checkpoint_path: folder where every step is kept; None for none.
    num_rows: random rows whose residual is computed in float64.

  Returns:
    Dicts with keys of FIELDS; what is not known has none.
  """
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


def row_text(row: Row) -> str:
  """A line on one noise level after the last block step."""
  errors = '  '.join(
      f'{name} {row.get(name + "_error", float("nan")):.1e} (bound '
      f'{row[name + "_error_bound"]:.1e})' for name in ('std', 'mean'))
  return (f'D_x {row["input_dim"]} ratio {row["data_ratio"]:g} seed '
          f'{row["seed"]} noise {row["noise_std"]:g} steps '
          f'{row["num_block_steps"]}: {errors}  residual rms '
          f'{row["residual_rms_checked"]:.1e} (stored '
          f'{row["residual_rms"]:.1e})  {row["seconds"]:.1f} s')


def is_exact(rows: Sequence[Row]) -> bool:
  """Whether the rows of one problem keep what the solver promises.

  All bounds are within their tolerances after the last step, and no error is
  larger than its bound.
  """
  last = max(row['num_block_steps'] for row in rows)
  exact = all(row['std_error_bound'] <= matrix_free.STD_TOLERANCE
              and row['mean_error_bound'] <= matrix_free.MEAN_TOLERANCE
              and row['function_error'] <= matrix_free.FUNCTION_TOLERANCE
              for row in rows if row['num_block_steps'] == last)
  return exact and all(row.get(f'{name}_error', 0.)
                       <= row[f'{name}_error_bound'] + _DENSE_ROUNDING
                       for row in rows for name in ('std', 'mean')
                       if f'{name}_error_bound' in row)
