"""Cholesky factors in place, by LAPACK's dpotrf through scipy.

`jnp.linalg.cholesky` calls the very same routine on a CPU, but copies around it
and returns NaN where the matrix is not positive definite.
"""

from typing import Any

import numpy as np
import scipy.linalg.lapack

# scipy makes these functions when it is imported; type checkers see none.
_LAPACK: Any = scipy.linalg.lapack


def cholesky(matrix: np.ndarray, shift: float = 0.,
             work: np.ndarray | None = None) -> np.ndarray:
  """The lower Cholesky factor L of matrix + shift I.

  Args:
    matrix: symmetric [n, n] float64; not changed.
    shift: added to the diagonal.
    work: a column-major [n, n] float64 array that the factor may overwrite, to
      save its allocation; None makes one.

  Returns:
    [n, n] column-major float64, with zeros above the diagonal.

  Raises:
    ValueError: the shifted matrix is not positive definite, or not finite.
  """
  if work is None:
    work = np.empty_like(matrix, order='F')
  # The transpose of a symmetric row-major matrix is itself, column-major.
  np.copyto(work, matrix.T if matrix.flags.c_contiguous else matrix)
  diagonal = np.einsum('ii->i', work)
  diagonal += shift
  # On a NaN LAPACK stops in some versions and goes on in others.
  factor, info = _LAPACK.dpotrf(work, lower=1, clean=1, overwrite_a=1)
  if info != 0 or not np.all(np.isfinite(diagonal)):
    raise ValueError(
        f'the covariance [{len(matrix)}, {len(matrix)}] + {shift:g} I must be '
        'finite and positive definite: its Cholesky factorisation failed.')
  return factor
