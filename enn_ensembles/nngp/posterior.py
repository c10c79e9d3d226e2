"""The exact posterior of a Gaussian process, dense and in float64.

This is the ground truth of every score. With K = k(x_train, x_train), noise
variance s^2 and A = K + s^2 I = L L^T (Rasmussen & Williams 2006, algorithm
2.1), the noise-free function at points x has

  mean = k*^T A^-1 y = V^T (L^-1 y),      with V = L^-1 k(x_train, x),
  cov  = k(x, x) - k*^T A^-1 k* = k(x, x) - V^T V,  + kernel_ridge on variances.

One Cholesky factorisation per noise level, T^3 / 3 multiply-adds, is nearly all
of the cost (`factorisation`). At T = 10,000 a posterior holds K and one working
copy, 0.8 GB each.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NamedTuple

import numpy as np
import scipy.linalg.blas

from enn_ensembles import checks
from enn_ensembles.nngp import factorisation
from enn_ensembles.nngp import kernels

# Added to every posterior variance, as in the testbed of Osband et al. (2021).
KERNEL_RIDGE = 1e-6
# Added to the diagonal of K to draw functions from the prior.
SAMPLE_JITTER = 1e-6

REFERENCES = ('bayes', 'enn2021')

# scipy makes its functions when it is imported; type checkers see none.
_BLAS: Any = scipy.linalg.blas

_NUM_CHECKED = 8  # Points at which the rounding error of a variance is taken.

cholesky = factorisation.cholesky


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


class PriorPoints(NamedTuple):
  """A set of points where a function of the prior is drawn.

  Attributes:
    cross: k(x, x_train), [n, T] float64 row-major: row i belongs to x_i.
    covariances: k(x, x of an earlier set), [n, n of that set], of every earlier
      set in their order, and last k(x, x), [n, n].
    normals: [n] standard normals.
  """
  cross: np.ndarray
  covariances: Sequence[np.ndarray]
  normals: np.ndarray


def sample_prior(kernel: np.ndarray, normals: np.ndarray,
                 elsewhere: Sequence[PriorPoints],
                 jitter: float = SAMPLE_JITTER,
                 work: np.ndarray | None = None) -> list[np.ndarray]:
  """A draw of the prior at x_train and, jointly, at further sets of points.

  With L = chol(K + jitter I) and V = L^-1 k(x_train, x), f = L z at x_train and
  V^T z + chol(k(x, x) + jitter I - V^T V) z' at the first set, and so on: this
  is the Cholesky factor of the joint covariance, block row by block row. What
  stands at one set does not depend on the sets after it, to the last bit.

  Args:
    kernel: K = k(x_train, x_train), [T, T] float64.
    normals: z, [T] standard normals.
    elsewhere: the further sets.
    jitter: added to the diagonal of the joint covariance.
    work: see `cholesky`.

  Returns:
    f at x_train [T], and at each further set.

  Raises:
    ValueError: the joint covariance is not positive definite.
  """
  factors = [cholesky(kernel, jitter, work)]
  all_normals = [normals]
  drawn = [_BLAS.dtrmv(factors[0], normals, lower=1)]
  rows: list[list[np.ndarray]] = []  # Of the joint factor, transposed blocks.
  for points in elsewhere:
    row = [_solve_lower(factors[0], np.array(points.cross.T, order='F'))]
    for covariance, factor, earlier in zip(points.covariances, factors[1:],
                                           rows):
      left = covariance.T - _dot_blocks(earlier, row)
      row.append(_solve_lower(factor, np.asarray(left, order='F')))
    factors.append(cholesky(points.covariances[-1] - _dot_blocks(row, row),
                            jitter))
    rows.append(row)
    mean = sum(block.T @ z for block, z in zip(row, all_normals, strict=True))
    drawn.append(mean + _BLAS.dtrmv(factors[-1], points.normals,
                                    lower=1))
    all_normals.append(points.normals)
  return drawn


def _dot_blocks(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
  """Sum of a_i^T b_i over the blocks that both have."""
  return sum(x.T @ y for x, y in zip(a, b))


class JointPoints(NamedTuple):
  """Blocks of tau points each whose joint posterior is wanted.

  Attributes:
    cross: k(x, x_train), [num_blocks * tau, T] float64 row-major.
    priors: k(x, x) within each block, [num_blocks, tau, tau].
  """
  cross: np.ndarray
  priors: np.ndarray


class JointMoments(NamedTuple):
  """Joint posterior of the function in blocks of tau points.

  Attributes:
    mean: [num_blocks, tau].
    covariances: kernel_ridge included, [num_blocks, tau, tau].
  """
  mean: np.ndarray
  covariances: np.ndarray


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
    joint: of further points, in blocks; None where none were asked for. The
      errors above are not of these.
  """
  mean: np.ndarray
  std: np.ndarray
  covariances: np.ndarray | None = None
  weights: np.ndarray | None = None
  residual: float | None = None
  mean_error: float | None = None
  std_error: float | None = None
  joint: JointMoments | None = None


def posterior_moments(kernel: np.ndarray, cross: np.ndarray,
                      variances: np.ndarray, targets: Sequence[np.ndarray],
                      noise_variances: Sequence[float],
                      kernel_ridge: float = KERNEL_RIDGE,
                      block_priors: np.ndarray | None = None,
                      work: np.ndarray | None = None,
                      joint: JointPoints | None = None) -> list[Moments]:
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
    joint: blocks of further points; they change no bit of what is said of x.

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
    weights = _BLAS.dtrsv(factor, solved, lower=1, trans=1)
    explained = np.einsum('tn,tn->n', whitened, whitened)
    std = _std(variances - explained + kernel_ridge)

    some = np.arange(0, len(cross), -(-len(cross) // _NUM_CHECKED))
    columns = _BLAS.dtrsm(
        1., factor, whitened[:, some].copy(order='F'), lower=1, trans_a=1)
    # One pass over the kernel for both checks.
    columns = np.concatenate([weights[:, None], columns], 1)
    misfit = np.concatenate([y[:, None], cross[some].T], 1) - variance * columns
    misfit -= kernel @ columns
    residual = np.linalg.norm(misfit[:, 0])
    variance_errors = np.abs(np.einsum('tn,tn->n', columns, misfit))[1:]
    results.append(Moments(
        mean=whitened.T @ solved, std=std,
        covariances=(None if block_priors is None else _block_covariances(
            whitened, block_priors, kernel_ridge)),
        weights=weights, residual=float(residual / (np.linalg.norm(y) or 1.)),
        mean_error=float(np.max(np.sqrt(explained) / std) * residual
                         / np.sqrt(variance)),
        std_error=float(np.max(variance_errors / (2. * std[some]**2))),
        joint=None if joint is None else _joint_moments(
            factor, solved, joint, kernel_ridge)))
  return results


def _joint_moments(factor: np.ndarray, whitened_targets: np.ndarray,
                   points: JointPoints, kernel_ridge: float) -> JointMoments:
  """Moments in blocks, from L and L^-1 y [T]."""
  whitened = _solve_lower(factor, np.array(points.cross.T, order='F'))
  mean = whitened.T @ whitened_targets
  return JointMoments(
      mean.reshape(points.priors.shape[:2]),
      _block_covariances(whitened, points.priors, kernel_ridge))


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
  return _BLAS.dtrsm(1., factor, targets, lower=1, overwrite_b=1)


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
  """A Gaussian process conditioned on data, to ask anywhere.

  Made by `fit`. Its answers are those of the ground truth of a problem with the
  same kernel, data and noise variance. `function_draws` samples from it.

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

  def joint(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n] and covariance [n, n], kernel_ridge included, at x [n, D]."""
    whitened = self._whiten(x)
    covariance = kernels.nngp(self.kernel, x)
    covariance -= whitened.T @ whitened
    covariance[np.diag_indices_from(covariance)] += self.kernel_ridge
    return whitened.T @ self.whitened_targets, covariance

  def _whiten(self, x: np.ndarray) -> np.ndarray:
    """V = L^-1 k(x_train, x), [T, n]."""
    cross = kernels.nngp(self.kernel, x, self.x_train)
    return _solve_lower(self.factor, cross.T)
