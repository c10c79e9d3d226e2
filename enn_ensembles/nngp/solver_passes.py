"""What all phases of the matrix-free solver use.

Passes over the kernel, some of its rows in float64, steps on the disk, and how
far the computation is.
"""

from collections.abc import Callable
import time
from typing import Any

import numpy as np

from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import solution as solution_lib
from enn_ensembles.nngp import solver_arguments
from enn_ensembles.nngp import solver_memory
from enn_ensembles.nngp import step_files
from enn_ensembles.nngp import tall
from enn_ensembles.nngp import tiles


class Passes:
  """The arguments of a solver, and R as it is multiplied.

  Args:
    arguments: what is given.
    block_priors: see `matrix_free.solve`, as the next two.
    steps_path: its checkpoint_path.
    progress: told after every pass.
  """

  def __init__(self, arguments: solver_arguments.Arguments,
               block_priors: np.ndarray | None,
               steps_path: step_files.PathLike | None,
               progress: Callable[[solution_lib.Progress], None] | None):
    self._arguments = arguments
    self._kernel, self._config = arguments.kernel, arguments.config
    self._x_train, self._x_eval = arguments.x_train, arguments.x_eval
    self._noise_stds = arguments.noise_stds
    self._noise_variances = arguments.noise_variances
    self._drawn, self._targets = arguments.drawn, arguments.targets
    self._noise, self._normals = arguments.noise, arguments.normals
    self._progress = progress
    self._block_priors = block_priors
    self._steps = step_files.StepFiles(steps_path, arguments.identity())
    self._num_passes = 0
    self._started = time.monotonic()

  def _set_remainder(self, largest_cosine: float | None) -> None:
    """R with tiles for a largest cosine; None guesses it."""
    self._split = remainder.Split(self._kernel, self._x_train, largest_cosine)
    self._check_memory(self._split.dtype.itemsize)
    self._remainder = tiles.Remainder(self._split, self._x_train)
    self._keep_tiles(2)

  def _norm_from_rows(self, num_rows: int,
                      of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Estimated norms of the columns of a [T, m] of which rows are known."""
    rows = self._some_rows(num_rows)
    return np.linalg.norm(of(rows), axis=0) * np.sqrt(
        len(self._x_train) / len(rows))

  def _some_rows(self, num_rows: int) -> np.ndarray:
    num_train = len(self._x_train)
    return np.random.default_rng(0).choice(
        num_train, min(num_rows, num_train), replace=False)

  def _residuals(self, rows: np.ndarray, targets: np.ndarray,
                 variances: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """targets - (K + s_e^2 I) weights at some rows, [rows, E], in float64."""
    return targets[rows] - variances * weights[rows] - kernels.nngp(
        self._kernel, self._x_train[rows], self._x_train) @ weights

  def _cross(self, rows: slice) -> np.ndarray:
    """k(x_train[rows], x_eval)."""
    return kernels.nngp(self._kernel, self._x_train[rows], self._x_eval)

  def _cross_times(self, weights: np.ndarray,
                   of: Callable[[np.ndarray], np.ndarray] = np.asarray
                   ) -> np.ndarray:
    """k(x_eval, x_train) weights, [n, m]; `of` is applied to both first."""
    return sum(of(self._cross(panel)).T @ of(weights[panel])
               for panel in remainder.panels(len(weights), tall.PANEL))

  def _apply(self, *blocks: np.ndarray) -> list[np.ndarray]:
    self._num_passes += 1
    return self._remainder.apply(*blocks)

  def _save(self, name: str, **arrays: Any) -> None:
    self._steps.save(name, dict(arrays, seconds=self._seconds(),
                                num_passes=self._num_passes))

  def _load(self, name: str) -> dict[str, np.ndarray] | None:
    saved = self._steps.load(name)
    if saved is not None:
      # The clock goes on from where the last saved step left it.
      self._started = min(self._started,
                          time.monotonic() - float(saved.pop('seconds')))
      self._num_passes = int(saved.pop('num_passes'))
    return saved

  def _tell(self, phase: str, step: int, error: float) -> None:
    if self._progress is not None:
      self._progress(solution_lib.Progress(phase, step, self._seconds(), error))

  def _seconds(self) -> float:
    return time.monotonic() - self._started

  def _check_memory(self, itemsize: int) -> None:
    need = self._memory_mb(1, itemsize)
    if need > self._config.memory_budget_mb:
      raise ValueError(
          f'memory_budget_mb must be at least {need:.0f} at T = '
          f'{len(self._x_train)}, D = {self._x_train.shape[1]} and '
          f'{len(self._x_eval)} evaluation points, got '
          f'{self._config.memory_budget_mb:g}.')

  def _memory_mb(self, num_block_steps: int,
                 itemsize: int | None = None) -> float:
    num_train, input_dim = self._x_train.shape
    return solver_memory.estimate_memory_mb(
        num_train, input_dim, len(self._x_eval), num_block_steps,
        itemsize or self._split.dtype.itemsize)

  def _keep_tiles(self, num_block_steps: int) -> None:
    """As many as there is room for beside these block steps."""
    self._remainder.keep(self._config.memory_budget_mb
                         - self._memory_mb(num_block_steps))
