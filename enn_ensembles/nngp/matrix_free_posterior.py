"""A Gaussian process conditioned on more data than a matrix has room for.

`posterior.GPPosterior` factorises the kernel matrix of the data once, and then
answers anywhere. Here every new set of points is one run of the matrix-free
solver, whose Krylov space is made for these points: minutes at T = 100,000, and
exact to the tolerances of `matrix_free`.
"""

import numpy as np

from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import solver_memory

# Passes of the solver over the kernel besides the first, at T = 100,000: with
# as many vectors as there are points (block steps), and with few (Lanczos'
# method and conjugate gradients).
_NUM_BLOCK_PASSES, _NUM_THIN_PASSES = 3, 7


def count_operations(num_train: int, input_dim: int, num_points: int) -> float:
  """Operations of one run of the solver, most of them in float32.

  Per pass these are all cosines of half the kernel, and each of its elements
  twice per vector.
  """
  cosines = (1 + _NUM_BLOCK_PASSES + _NUM_THIN_PASSES) * input_dim
  vectors = input_dim + num_points * _NUM_BLOCK_PASSES
  return num_train**2 * (cosines + 2. * vectors)


class MatrixFreePosterior:
  """Answers as `posterior.GPPosterior` does, without a kernel matrix.

  Args:
    kernel: the prior.
    x_train: [T, D].
    y_train: [T] or [T, 1].
    noise_std: epsilon.
    reference: see `posterior.noise_variance`.
    memory_budget_mb: what the solver may hold.
  """

  def __init__(self, kernel: kernels.KernelConfig, x_train: np.ndarray,
               y_train: np.ndarray, noise_std: float,
               reference: str = 'bayes',
               memory_budget_mb: float = solver_memory.DEFAULT_BUDGET_MB):
    self._kernel = kernel
    self._x_train = np.asarray(x_train, np.float64)
    self._targets = np.asarray(y_train, np.float64).reshape(-1)
    self._noise_std = noise_std
    self._reference = reference
    self._memory_budget_mb = memory_budget_mb
    # The points asked last and their moments.
    self._last: tuple[np.ndarray, posterior.Moments] | None = None

  def moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean [n], std [n]) at x [n, D].

    Raises:
      ValueError: as `matrix_free.solve`.
    """
    moments = self._solve(x)
    return moments.mean, moments.std

  def joint(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n] and covariance [n, n], kernel_ridge included, at x [n, D].

    Raises:
      ValueError: as `matrix_free.solve`.
    """
    moments = self._solve(x)
    assert moments.covariances is not None  # _solve asks for them.
    return moments.mean, moments.covariances[0]

  def _solve(self, x: np.ndarray) -> posterior.Moments:
    x = np.asarray(x, np.float64)
    if self._last is None or not np.array_equal(self._last[0], x):
      solution = matrix_free.solve(
          self._kernel, self._x_train, x, [self._noise_std],
          targets=[self._targets], reference=self._reference,
          memory_budget_mb=self._memory_budget_mb,
          block_priors=kernels.nngp(self._kernel, x)[None])
      self._last = (x.copy(), solution.moments[0])
    return self._last[1]
