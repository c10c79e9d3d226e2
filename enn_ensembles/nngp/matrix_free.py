"""The exact posterior without the kernel matrix, for T up to 100,000.

Dense ground truth needs the kernel of all T training points: 80 GB at 100,000.
This solver never factorises it. It splits the kernel exactly,

  K = U U^T + R,

where U [T, D + 2] holds the kernel's constant and linear parts and R, the
remainder, is positive semi-definite and well conditioned where T is not much
larger than D^2: its diagonal is large, all else is small. `remainder` has the
split; `tiles` multiplies R with blocks of vectors, in tiles of which as many
are kept as there is memory for; `krylov` has the spaces that come of it.

*Variances.* Let A = K + s^2 I, and b = k(x_train, x) of a point x. For Q with
orthonormal columns, the Galerkin solution a = Q (Q^T A Q)^-1 Q^T b, of residual
r = b - A a, has

  b^T A^-1 b - b^T a = r^T A^-1 r,

which is at least 0, and at most what a lower bound of A says. The variance is
taken from the middle of that interval, half of which bounds its error. Beyond
30,000 points `calibration` narrows the interval: it solves for a random sample
of the points to find which share of the upper end is true, and by how much that
differs from point to point. Q is a block Krylov space. It starts with U; each
block step adds what the residuals of all points span, at that noise level whose
bound is worst. One space serves all levels, which only shift A: a level takes a
Cholesky factorisation of Q^T K Q + s^2 I, in float64.

*Means.* A^-1 y is found by conjugate gradients (Hestenes & Stiefel 1952) with
U U^T + const I as the preconditioner, from its Galerkin approximation. With c
found and q its residual, the mean b^T A^-1 y is b^T c + a^T q + r^T A^-1 q; the
last term is left out, and bounded likewise (Cauchy & Schwarz). The others are
b^T w with the weights w = c + Q (Q^T A Q)^-1 Q^T q.

*The lower bound of A.* `remainder` bounds R from below by a diagonal mu >= 0:
so r^T A^-1 r <= sum_i r_i^2 / (mu_i + s^2).

*Rounding.* Tiles may be float32, and rounded to float16 beyond 30,000 points;
the diagonal is float64. What tiles round, |R a as computed - R a| for each
point's a, is estimated at 64 rows from float64 kernels, and is part of the
bounds. The residuals of the means are made again from tiles that are not
rounded.

*The draw.* f = U a + (R + jitter I)^1/2 z with standard normals a and z has
covariance K + jitter I exactly; the square root is applied by Lanczos' method,
with a bound of its error. At validation points, f is drawn from its exact
distribution given f at the training points. Another way of drawing gives
another f from the same normals: the way is part of the problem.
"""

from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free_solver
from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import solution as solution_lib
from enn_ensembles.nngp import solver_arguments
from enn_ensembles.nngp import solver_memory
from enn_ensembles.nngp import step_files

Progress = solution_lib.Progress
Solution = solution_lib.Solution
estimate_memory_mb = solver_memory.estimate_memory_mb

# What a posterior's errors may be: relative for the std, in posterior stds for
# the mean.
STD_TOLERANCE = 1e-4
MEAN_TOLERANCE = 1e-3
# Root mean square error of a drawn function: a tenth of its jitter's std.
FUNCTION_TOLERANCE = 1e-4


def solve(kernel: kernels.KernelConfig, x_train: np.ndarray,
          x_eval: np.ndarray, noise_stds: Sequence[float], *,
          normals_train: np.ndarray | None = None,
          normals_eval: np.ndarray | None = None,
          normals_rest: np.ndarray | None = None,
          noise: np.ndarray | None = None,
          targets: Sequence[np.ndarray] | None = None,
          reference: str = 'bayes',
          memory_budget_mb: float = solver_memory.DEFAULT_BUDGET_MB,
          block_priors: np.ndarray | None = None,
          checkpoint_path: step_files.PathLike | None = None,
          std_tolerance: float = STD_TOLERANCE,
          mean_tolerance: float = MEAN_TOLERANCE,
          function_tolerance: float = FUNCTION_TOLERANCE,
          max_block_steps: int = 12, strict: bool = True,
          progress: Callable[[Progress], None] | None = None) -> Solution:
  """Draws a function, and its posteriors under all noise levels.

  Either gives `targets`, or what they are drawn from: y = f + epsilon noise.

  Args:
    kernel: the prior.
    x_train: [T, D] float64.
    x_eval: where the posteriors are wanted, [n, D].
    noise_stds: epsilon per noise level.
    normals_train: [T + remainder.num_features(kernel, D)] standard normals, z
      then a.
    normals_eval: [v] standard normals for f at the last v points of x_eval;
      None for none.
    normals_rest: at most [n - v] standard normals for f at as many points just
      before them, drawn given all other values of f: they change none of these.
      None for none; needs normals_eval.
    noise: [T] standard normals, shared by all noise levels.
    targets: y, [T] per noise level, instead of these three.
    reference: see `posterior.noise_variance`.
    memory_budget_mb: what may be held, x_train and the result included.
    block_priors: k(x, x) of blocks of the first points of x_eval, [num_blocks,
      tau, tau], where joint covariances are wanted.
    checkpoint_path: a folder where every step is kept, made if missing; a
      computation that was killed goes on from its last step. About as large as
      the basis; the caller removes it. None keeps nothing.
    std_tolerance: allowed relative error of the stds.
    mean_tolerance: allowed error of the means, in posterior stds.
    function_tolerance: allowed root mean square error of f.
    max_block_steps: of the block Krylov space.
    strict: whether a tolerance that is not met is an error; otherwise
      `Solution.converged` is False.
    progress: called after every pass over the kernel, its step being kept.

  Raises:
    ValueError: an argument does not fit, the budget is too small, the
      checkpoint is of something else, a tolerance is not met, or jax runs
      without x64.
  """
  kernels.require_x64()
  arguments = solver_arguments.Arguments(
      kernel, x_train, x_eval, noise_stds,
      solver_arguments.Config(reference, memory_budget_mb, std_tolerance,
                              mean_tolerance, function_tolerance,
                              max_block_steps),
      solver_arguments.Normals(normals_train, normals_eval, normals_rest,
                               noise), targets)
  solution = matrix_free_solver.Solver(arguments, block_priors,
                                       checkpoint_path, progress).run()
  if strict and not solution.converged:
    errors = [f'std {np.max(solution.std_error_bounds):.2g} (allowed '
              f'{std_tolerance:g})', 'mean '
              f'{np.max(solution.mean_error_bounds):.2g} posterior stds '
              f'(allowed {mean_tolerance:g})']
    if solution.function is not None:
      errors.append(f'function {solution.function_error:.2g} (allowed '
                    f'{function_tolerance:g})')
    raise ValueError(
        f'the matrix-free posterior of T = {len(x_train)}, D = '
        f'{np.shape(x_train)[1]} is not exact enough after '
        f'{solution.num_block_steps} block steps, error bounds: '
        f'{", ".join(errors)}; allow more block steps or memory, or use the '
        'dense solver.')
  return solution


def check_rows(kernel: kernels.KernelConfig, x_train: np.ndarray,
               solution: Solution, noise_std: float,
               rows: Sequence[int] | np.ndarray) -> np.ndarray:
  """Residuals of stored weights by independent arithmetic.

  Rows of K are made anew by `kernels.nngp`, in float64 and without the split.

  Args:
    kernel: the prior.
    x_train: [T, D].
    solution: what `solve` returned for them.
    noise_std: which of its noise levels.
    rows: indices of training points, [r].

  Returns:
    y - (K + s^2 I) weights at these rows, [r] float64. Where the solution is
    good, their root mean square is about residual_norm / sqrt(T).

  Raises:
    ValueError: there is no such noise level or row.
  """
  levels = np.flatnonzero(solution.noise_stds == noise_std)
  if not len(levels):
    raise ValueError(f'noise_std must be one of {list(solution.noise_stds)}, '
                     f'got {noise_std}.')
  rows = np.asarray(rows, dtype=np.int64)
  if rows.ndim != 1 or np.any((rows < 0) | (rows >= len(x_train))):
    raise ValueError(f'rows must be indices in [0, {len(x_train)}), got '
                     f'{rows}.')
  level = levels[0]
  weights = solution.weights[level]
  residuals = (solution.targets[level, rows]
               - solution.noise_variances[level] * weights[rows])
  for block in remainder.panels(len(rows), 64):
    residuals[block] -= kernels.nngp(kernel, x_train[rows[block]],
                                     x_train) @ weights
  return residuals
