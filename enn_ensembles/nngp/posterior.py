"""The exact posterior of a Gaussian process, dense and in float64.

This is the ground truth of every score. With K = k(x_train, x_train), noise
variance s^2 and A = K + s^2 I = L L^T (Rasmussen & Williams 2006, algorithm
2.1), the noise-free function at points x has

  mean = k*^T A^-1 y = V^T (L^-1 y),      with V = L^-1 k(x_train, x),
  cov  = k(x, x) - k*^T A^-1 k* = k(x, x) - V^T V,  + kernel_ridge on variances.

One Cholesky factorisation per noise level, T^3 / 3 multiply-adds, is nearly all
of the cost. It is LAPACK's through scipy, in place: `jnp.linalg.cholesky` calls
the very same routine on a CPU, but copies around it and returns NaN where the
matrix is not positive definite. At T = 10,000 a posterior holds K and one
working copy, 0.8 GB each.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import chex
import jax
import numpy as np
import scipy.linalg.blas
import scipy.linalg.lapack

from enn_ensembles import checks
from enn_ensembles.nngp import kernels

# Added to every posterior variance, as in the testbed of Osband et al. (2021).
KERNEL_RIDGE = 1e-6
# Added to the diagonal of K to draw functions from the prior.
SAMPLE_JITTER = 1e-6

REFERENCES = ('bayes', 'enn2021')

_NUM_CHECKED = 8  # Points at which the rounding error of a variance is taken.


def noise_variance(noise_std: float, prior_variances: np.ndarray,
                   reference: str) -> float:
  """The noise variance that a reference posterior assumes.

  Args:
    noise_std: epsilon, the std of the noise in the targets.
    prior_variances: diag K, [T].
    reference: 'bayes' for epsilon^2, the variance that made the data. 'enn2021'
      for epsilon^2 mean(diag K), what the published testbed computes: it calls
      neural-tangents' predict with diag_reg = epsilon^2, which multiplies it by
      trace(K) / T unless told otherwise. Only for published numbers.

  Raises:
    ValueError: there is no such reference.
  """
  checks.check_choice('reference', reference, REFERENCES)
  if reference == 'bayes':
    return float(noise_std) ** 2
  return float(noise_std) ** 2 * float(np.mean(prior_variances))


def cholesky(matrix: np.ndarray, shift: float = 0.,
             work: np.ndarray | None = None) -> np.ndarray:
  """The lower Cholesky factor L of matrix + shift I.

  Args:
    matrix: symmetric [n, n] float64; not changed.
    shift: added to the diagonal.
    work: a column-major [n, n] float64 array that the factor may overwrite, to
      save its allocation; None makes one.

  Returns:
    [n, n] column-major float64: L in the lower triangle. What stands above the
    diagonal is not zeroed.

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
  factor, info = scipy.linalg.lapack.dpotrf(work, lower=1, clean=0,
                                            overwrite_a=1)
  if info != 0 or not np.all(np.isfinite(np.einsum('ii->i', factor))):
    raise ValueError(
        f'the covariance [{len(matrix)}, {len(matrix)}] + {shift:g} I must be '
        'finite and positive definite: its Cholesky factorisation failed.')
  return factor


def sample_prior(kernel: np.ndarray, cross: np.ndarray,
                 covariance: np.ndarray, normals: np.ndarray,
                 normals_elsewhere: np.ndarray,
                 jitter: float = SAMPLE_JITTER,
                 work: np.ndarray | None = None
                 ) -> tuple[np.ndarray, np.ndarray]:
  """A draw of the prior at x_train and, jointly, elsewhere.

  With L = chol(K + jitter I) and V = L^-1 k(x_train, x), f = L z at x_train and
  V^T z + chol(k(x, x) + jitter I - V^T V) z' at x: what stands at x_train does
  not depend on what else is asked.

  Args:
    kernel: K = k(x_train, x_train), [T, T] float64.
    cross: k(x, x_train), [n, T] float64 row-major.
    covariance: k(x, x), [n, n].
    normals: z, [T] standard normals.
    normals_elsewhere: z', [n].
    jitter: added to the diagonal of the joint covariance.
    work: see `cholesky`.

  Returns:
    f at x_train [T] and at x [n].

  Raises:
    ValueError: the joint covariance is not positive definite.
  """
  factor = cholesky(kernel, jitter, work)
  whitened = _solve_lower(factor, np.array(cross.T, order='F'))
  schur = cholesky(covariance - whitened.T @ whitened, jitter)
  elsewhere = whitened.T @ normals + scipy.linalg.blas.dtrmv(
      schur, normals_elsewhere, lower=1)
  return scipy.linalg.blas.dtrmv(factor, normals, lower=1), elsewhere


@dataclasses.dataclass(frozen=True)
class Moments:
  """Mean [n] and std [n] of the function at n points, float64.

  Attributes:
    mean: [n].
    std: sqrt(variance + kernel_ridge), [n].
    covariances: joint covariance, ridge included, of blocks of neighbouring
      points, [num_blocks, tau, tau]; None where none were asked for.
    weights: (K + s^2 I)^-1 y, [T]: mean(x) = k(x, x_train) weights. None where
      nobody keeps them.
    residual: |y - (K + s^2 I) weights| / |y|; None as above.
    mean_error: bound of |mean - exact mean| / std over all points; None where
      it was not computed.
    std_error: the same of |std - exact std| / exact std.
  """
  mean: np.ndarray
  std: np.ndarray
  covariances: np.ndarray | None = None
  weights: np.ndarray | None = None
  residual: float | None = None
  mean_error: float | None = None
  std_error: float | None = None


def posterior_moments(kernel: np.ndarray, cross: np.ndarray,
                      variances: np.ndarray, targets: Sequence[np.ndarray],
                      noise_variances: Sequence[float],
                      kernel_ridge: float = KERNEL_RIDGE,
                      block_priors: np.ndarray | None = None,
                      work: np.ndarray | None = None) -> list[Moments]:
  """Posterior mean and std under several noise levels that share one kernel.

  The errors are those of rounding, measured by residuals, with A = K + s^2 I.
  For r = y - A w the mean at x is off by k*^T A^-1 r, at most
  sqrt(k*^T A^-1 k*) |r| / s. For c = A^-1 k* and r = k* - A c the variance is
  off by c^T r to first order; that is taken at a few points.

  Args:
    kernel: K = k(x_train, x_train), [T, T] float64.
    cross: k(x, x_train), [n, T] float64 row-major: row i belongs to x_i.
    variances: k(x, x) per point, [n].
    targets: y, [T], per noise level.
    noise_variances: s^2 per noise level.
    kernel_ridge: added to every variance.
    block_priors: k(x, x) of blocks of the first points, [num_blocks, tau, tau],
      where joint covariances are wanted.
    work: see `cholesky`.

  Returns:
    Moments at x, per noise level.

  Raises:
    ValueError: K + s^2 I is not positive definite, or a variance is not
      positive.
  """
  if work is None:
    work = np.empty_like(kernel, order='F')
  whitened = np.empty(cross.T.shape, order='F')
  results = []
  for y, variance in zip(targets, noise_variances, strict=True):
    factor = cholesky(kernel, variance, work)
    np.copyto(whitened, cross.T)
    whitened = _solve_lower(factor, whitened)
    y = np.asarray(y, np.float64)
    solved = _solve_lower(factor, y[:, None].copy())[:, 0]
    weights = scipy.linalg.blas.dtrsv(factor, solved, lower=1, trans=1)
    explained = np.einsum('tn,tn->n', whitened, whitened)
    std = _std(variances - explained + kernel_ridge)

    residual = np.linalg.norm(y - kernel @ weights - variance * weights)
    some = np.arange(0, len(cross), -(-len(cross) // _NUM_CHECKED))
    columns = scipy.linalg.blas.dtrsm(
        1., factor, whitened[:, some].copy(order='F'), lower=1, trans_a=1)
    misfit = cross[some].T - kernel @ columns - variance * columns
    variance_errors = np.abs(np.einsum('tn,tn->n', columns, misfit))
    results.append(Moments(
        mean=whitened.T @ solved, std=std,
        covariances=(None if block_priors is None else _block_covariances(
            whitened, block_priors, kernel_ridge)),
        weights=weights, residual=float(residual / np.linalg.norm(y)),
        mean_error=float(np.max(np.sqrt(explained) / std) * residual
                         / np.sqrt(variance)),
        std_error=float(np.max(variance_errors / (2. * std[some]**2)))))
  return results


def _block_covariances(whitened: np.ndarray, priors: np.ndarray,
                       kernel_ridge: float) -> np.ndarray:
  """Posterior covariances of blocks of points, from V = L^-1 k* [T, n]."""
  covariances = priors + kernel_ridge * np.eye(priors.shape[1])
  for i, covariance in enumerate(covariances):
    block = whitened[:, i * len(covariance):(i + 1) * len(covariance)]
    covariance -= block.T @ block
  return covariances


def _solve_lower(factor: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """L^-1 B for B [T, n] column-major, which it overwrites."""
  return scipy.linalg.blas.dtrsm(1., factor, targets, lower=1, overwrite_b=1)


def _whitened_moments(whitened: np.ndarray, y: np.ndarray,
                      variances: np.ndarray, kernel_ridge: float) -> Moments:
  """Moments from V = L^-1 k* [T, n] and L^-1 y [T]."""
  explained = np.einsum('tn,tn->n', whitened, whitened)
  return Moments(mean=whitened.T @ y,
                 std=_std(variances - explained + kernel_ridge))


def _std(variances: np.ndarray) -> np.ndarray:
  lowest = np.min(variances, initial=np.inf)
  if not lowest > 0:  # Catches NaN too.
    raise ValueError('posterior variances must be > 0, the lowest is '
                     f'{lowest:g}.')
  return np.sqrt(variances)


@dataclasses.dataclass(frozen=True)
class GPPosterior:
  """A Gaussian process conditioned on data, to ask and to sample anywhere.

  Made by `fit`. It serves as an agent: `sample` is an `EpistemicSampler`, and
  `moments` are its exact moments. Its answers are those of the ground truth of
  a problem with the same kernel, data and noise variance.

  Attributes:
    kernel: the prior.
    x_train: [T, D] float64.
    factor: L, the Cholesky factor of K + s^2 I, [T, T] in its lower triangle.
    whitened_targets: L^-1 y, [T].
    kernel_ridge: added to every posterior variance.
  """
  kernel: kernels.KernelConfig
  x_train: np.ndarray
  factor: np.ndarray
  whitened_targets: np.ndarray
  kernel_ridge: float = KERNEL_RIDGE
  # The points asked last and their factorised joint: [(x, mean, factor)].
  _last_joint: list[Any] = dataclasses.field(
      default_factory=list, repr=False, compare=False)

  @classmethod
  def fit(cls, kernel: kernels.KernelConfig, x_train: np.ndarray,
          y_train: np.ndarray, noise_variance: float,
          kernel_ridge: float = KERNEL_RIDGE) -> 'GPPosterior':
    """Conditions the prior on data.

    Args:
      kernel: the prior.
      x_train: [T, D].
      y_train: [T] or [T, 1].
      noise_variance: s^2 of the targets, see the function of that name.
      kernel_ridge: added to every posterior variance.

    Raises:
      ValueError: shapes do not fit, K + s^2 I is not positive definite, or jax
        runs without x64.
    """
    x_train = np.asarray(x_train, dtype=np.float64)
    y_train = np.array(y_train, dtype=np.float64)
    if y_train.shape not in ((len(x_train),), (len(x_train), 1)):
      raise ValueError(f'y_train must have shape [{len(x_train)}] or '
                       f'[{len(x_train)}, 1], got {list(y_train.shape)}.')
    factor = cholesky(kernels.nngp(kernel, x_train), noise_variance)
    whitened = _solve_lower(factor, y_train.reshape(-1, 1))[:, 0]
    return cls(kernel, x_train, factor, whitened, kernel_ridge)

  def moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean [n], std [n]) at x [n, D]."""
    moments = _whitened_moments(self._whiten(x), self.whitened_targets,
                                kernels.nngp_diag(self.kernel, x),
                                self.kernel_ridge)
    return moments.mean, moments.std

  def joint_covariance(self, x: np.ndarray) -> np.ndarray:
    """Posterior covariance at x [n, D]: [n, n], kernel_ridge included."""
    return self._joint_covariance(x, self._whiten(x))

  def sample(self, x: np.ndarray, key: chex.PRNGKey) -> jax.Array:
    """One draw of the function at x [n, D], as [n, 1] float64.

    Jointly exact over the points of x. The draw is made from n normals of the
    key, so asking the same key at other points gives another function: ask for
    all points of one function at once. `key` may be traced (vmap over keys), x
    may not. The factorisation at x is kept for the next call.

    Raises:
      ValueError: the covariance is not positive definite.
    """
    mean, factor = self._joint_factor(np.asarray(x, dtype=np.float64))
    normals = jax.random.normal(key, mean.shape, np.float64)
    return (mean + factor @ normals)[:, None]

  def _whiten(self, x: np.ndarray) -> np.ndarray:
    """V = L^-1 k(x_train, x), [T, n]."""
    cross = kernels.nngp(self.kernel, x, self.x_train)
    return _solve_lower(self.factor, cross.T)

  def _joint_covariance(self, x: np.ndarray,
                        whitened: np.ndarray) -> np.ndarray:
    covariance = kernels.nngp(self.kernel, x)
    covariance -= whitened.T @ whitened
    covariance[np.diag_indices_from(covariance)] += self.kernel_ridge
    return covariance

  def _joint_factor(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n] and lower factor [n, n] of the covariance at x, remembered."""
    if not self._last_joint or not np.array_equal(self._last_joint[0][0], x):
      whitened = self._whiten(x)
      factor = np.tril(cholesky(self._joint_covariance(x, whitened)))
      self._last_joint[:] = [
          (x.copy(), whitened.T @ self.whitened_targets, factor)]
    return self._last_joint[0][1:]
