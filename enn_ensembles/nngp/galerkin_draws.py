"""A drawn function at further points, from a block Krylov space."""

import numpy as np
import scipy.linalg

from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import krylov as krylov_lib
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import solver_arguments


def draw_elsewhere(krylov: krylov_lib.Krylov,
                   arguments: solver_arguments.Arguments, mean: np.ndarray,
                   solved: krylov_lib.Galerkin, center: float
                   ) -> tuple[np.ndarray, np.ndarray | None]:
  """f at the last points of x_eval and at those before, given f at x_train.

  Args:
    krylov: of these points, with all its products.
    arguments: normals_eval must be given.
    mean: of f at x_eval given f at x_train, [n].
    solved: Galerkin's solution at the jitter of f.
    center: see `Krylov.explained`.

  Returns:
    f at the last points, one per normal in normals_eval, and at the points
    before them, one per normal in normals_rest; None without these.
  """
  kernel, x_eval = arguments.kernel, arguments.x_eval
  normals = arguments.normals_eval
  assert normals is not None
  num = len(normals)
  last = slice(len(x_eval) - num, None)
  covariance = kernels.nngp(kernel, x_eval[-num:])
  covariance -= krylov.explained(solved, last, last, center)
  factor = posterior.cholesky(covariance, posterior.SAMPLE_JITTER)
  function = mean[-num:] + factor @ normals
  if arguments.normals_rest is None:
    return function, None
  rest = slice(last.start - len(arguments.normals_rest), last.start)
  cross = kernels.nngp(kernel, x_eval[last], x_eval[rest])
  cross -= krylov.explained(solved, last, rest, center)
  whitened = scipy.linalg.solve_triangular(factor, cross, lower=True)
  covariance = kernels.nngp(kernel, x_eval[rest])
  covariance -= krylov.explained(solved, rest, rest, center)
  covariance -= whitened.T @ whitened
  factor = posterior.cholesky(covariance, posterior.SAMPLE_JITTER)
  return function, (mean[rest] + whitened.T @ normals
                    + factor @ arguments.normals_rest)
