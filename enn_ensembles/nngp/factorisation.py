"""Cholesky factors in place, as fast as products of matrices.

On one core it is LAPACK's dpotrf, through scipy: `jnp.linalg.cholesky` calls
the very same routine on a CPU, but copies around it and returns NaN where the
matrix is not positive definite. On several, OpenBLAS's dpotrf reaches two
thirds of the speed of its dgemm, so that blocks of columns are made here, each
from one product with the columns before it.
"""

from typing import Any

import numpy as np
import scipy.linalg.blas
import scipy.linalg.lapack

from enn_ensembles.machine import devices

# Columns that are factorised together, and how many are worth it.
_BLOCK = 512
_MIN_BLOCKED = 2048

# scipy makes these functions when it is imported; type checkers see none.
_BLAS: Any = scipy.linalg.blas
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
  if len(matrix) >= _MIN_BLOCKED and len(devices.available_cores()) > 1:
    _factor_blocks(matrix, shift, work)
    return work
  # The transpose of a symmetric row-major matrix is itself, column-major.
  np.copyto(work, matrix.T if matrix.flags.c_contiguous else matrix)
  diagonal = np.einsum('ii->i', work)
  diagonal += shift
  return _factor(work, f'[{len(matrix)}, {len(matrix)}] + {shift:g} I')


def _factor(work: np.ndarray, name: str) -> np.ndarray:
  """LAPACK's, in place; ValueError where there is none."""
  # On a NaN LAPACK stops in some versions and goes on in others.
  factor, info = _LAPACK.dpotrf(work, lower=1, clean=1, overwrite_a=1)
  if info != 0 or not np.all(np.isfinite(np.einsum('ii->i', factor))):
    raise ValueError(
        f'the covariance {name} must be finite and positive definite: its '
        'Cholesky factorisation failed.')
  return factor


def _factor_blocks(matrix: np.ndarray, shift: float, work: np.ndarray) -> None:
  """The factor in `work`, a block of columns at a time."""
  num, transposed = len(matrix), work.T
  for start in range(0, num, _BLOCK):
    block = slice(start, min(start + _BLOCK, num))
    size = block.stop - start
    transposed[block, :start] = 0.
    # Columns of L from the diagonal down, as rows of the transpose.
    columns = transposed[block, start:]
    if start:
      np.matmul(transposed[:start, block].T, transposed[:start, start:],
                out=columns)
      np.subtract(matrix[block, start:], columns, out=columns)
    else:
      columns[:] = matrix[block]
    own = _factor(columns[:, :size].T + shift * np.eye(size),
                  f'[{num}, {num}] + {shift:g} I')
    columns[:, :size] = own.T
    if block.stop < num:
      columns[:, size:] = _BLAS.dtrsm(
          1., own, np.asfortranarray(columns[:, size:].T), side=1, lower=1,
          trans_a=1, overwrite_b=1).T
