"""What the matrix-free solver returns, and what it says while it works."""

import dataclasses

import numpy as np

from enn_ensembles.nngp import posterior


@dataclasses.dataclass(frozen=True)
class Progress:
  """Where a computation is; `solve` gives it to its callback.

  Attributes:
    phase: 'variances', 'function' or 'means'.
    step: passes over the kernel in this phase, from 1.
    seconds: since the start, earlier runs of a checkpoint included.
    error: the phase's bound as a multiple of what is allowed; done at <= 1.
  """
  phase: str
  step: int
  seconds: float
  error: float


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
  """A draw and its posteriors. E noise levels, T points, n evaluation points.

  Attributes:
    noise_stds: epsilon, [E].
    noise_variances: s^2 that the posteriors assume, [E].
    targets: y, [E, T].
    weights: (K + s^2 I)^-1 y, [E, T].
    moments: at x_eval, per noise level.
    std_error_bounds: relative errors of the stds are at most this, [E]; beyond
      30,000 points as a random sample of the points says (`calibration`).
    mean_error_bounds: errors of the means, in posterior stds, [E].
    residual_norms: |y - (K + s^2 I) weights|, estimated from rows, [E].
    converged: whether all bounds, the function's too, meet their tolerances.
    function: f at x_train, [T]; None if targets were given, as the next two.
    eval_function: f at the last points of x_eval, [number of normals_eval].
    rest_function: f at the points before them, given eval_function, [number of
      normals_rest]; None where it was not asked for.
    function_error: bound of the root mean square error of f.
    eigenvalue_bound: lambda_min(K) is at least this.
    std_error_history: std_error_bounds after every block step, [steps, E].
    std_history: the stds then, [steps, E, n].
    tile_error: estimated |computed R Q - R Q|, Frobenius norm.
    tile_dtype: 'float32' or 'float64'.
    num_passes: how often the remainder was applied, a survey not counted.
    memory_mb: estimated peak of what the solver held.
    seconds: wall time, earlier runs of a checkpoint included.
  """
  noise_stds: np.ndarray
  noise_variances: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  moments: list[posterior.Moments]
  std_error_bounds: np.ndarray
  mean_error_bounds: np.ndarray
  residual_norms: np.ndarray
  converged: bool
  function: np.ndarray | None
  eval_function: np.ndarray | None
  rest_function: np.ndarray | None
  function_error: float | None
  eigenvalue_bound: float
  std_error_history: np.ndarray
  std_history: np.ndarray
  tile_error: float
  tile_dtype: str
  num_passes: int
  memory_mb: float
  seconds: float

  @property
  def num_block_steps(self) -> int:
    """Block steps of the space that served all noise levels."""
    return len(self.std_error_history)
