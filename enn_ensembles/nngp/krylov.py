"""The block Krylov space of a remainder R, and variances from it.

As `lanczos` and `conjugate_gradients`, it says which vectors it wants R applied
to, and takes the product: so several share a pass over the kernel.
`matrix_free_solver` drives them.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np
import scipy.linalg

from enn_ensembles.nngp import features as features_lib
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import tall

# What stands before eps in estimates of float64's rounding errors; that of the
# dense solution, which is compared with, included.
_ROUNDING = 4.
# Up to so many points Q_1 is made in float64: U may be singular. Where they are
# many more than its columns it is not, and float32 does.
_MAX_FLOAT64_START = 30_000
# What stands before norms that are estimated from 64 rows: their own standard
# error is 9 %, and the largest of thousands of points is wanted.
_SAMPLED = 1.5


class Galerkin(NamedTuple):
  """Galerkin's solution at one noise level, for n points.

  Attributes:
    variances: k(x, x) - b^T a, [n].
    residual_weights: b - A a in terms of [rest, what is outside of R Q_last],
      [p, n].
    residual_squares: |b - A a|^2 in the metric diag(scales^2), as computed [n].
    residual_norms: |b - A a| in that metric, at most, [n].
    solutions: a in terms of Q, [basis, n].
    rounding: of the variances, that of R Q included, [n].
  """
  variances: np.ndarray
  residual_weights: np.ndarray
  residual_squares: np.ndarray
  residual_norms: np.ndarray
  solutions: np.ndarray
  rounding: np.ndarray


class Krylov:
  """The block Krylov space Q and H = Q^T R Q; variances from them.

  The sides b are k(x_train, x) of n points, and some extra vectors whose linear
  systems are to be solved roughly. Residuals b - A a of vectors a in Q stand
  outside Q, if the solution is Galerkin's. They come from what of the sides
  stands outside, rest @ sides_rest, and from what of R Q does: for all blocks
  but the last it is rest @ rest_weights. A step adds the last block's, and
  takes the directions of the new block out.

  Attributes:
    blocks: Q_j, [T, b_j] each, in the dtype of the tiles; Q_1 spans U.
    features: Q^T U, [b_1, F]: U has no part in other blocks.
    columns: [Q_1 .. Q_j]^T R Q_j, one per block whose product is known.
    sides: Q^T b, [basis, n + extra].
    rest: [T, p], orthogonal to Q.
    sides_rest: [p, n + extra].
    rest_weights: [p, columns of all blocks but the last].
    rest_gram: inner products of [rest, what is outside of R Q_last] in the
      metric diag(scales^2).
    row_errors: R Q as computed less R Q, at some rows times sqrt(T / r): norms
      of its columns, and of what follows from them, estimate those of all rows.
    scales: [T], of the metric in which residuals are measured; to be set before
      the first product is taken.

  Args:
    prior_variances: k(x, x), [n].
    num_checked: rows at which errors of R Q are known, r.
  """

  def __init__(self, prior_variances: np.ndarray, num_checked: int):
    self._num = len(prior_variances)
    self._num_checked = num_checked
    self.prior = prior_variances
    self.scales = np.zeros(0)
    self.blocks: list[np.ndarray] = []
    self.columns: list[np.ndarray] = []
    self.row_errors = np.zeros((0, 0))

  def start(self, features: features_lib.TrainFeatures,
            features_eval: np.ndarray,
            cross: Callable[[slice], np.ndarray], extra: np.ndarray,
            dtype: np.dtype) -> None:
    """From U, and the sides k(x_train, x) and extra.

    Args:
      features: U.
      features_eval: those of the points, [n, F].
      cross: k(x_train, x) of a panel of training points, [panel, n].
      extra: [T, m].
      dtype: of the tiles.
    """
    num_train = len(extra)
    block = np.empty((num_train, features.num_features),
                     np.float64 if num_train <= _MAX_FLOAT64_START else dtype)
    for panel, rows in features.panels():
      block[panel] = rows
    block = tall.orthonormalise(block, []).astype(dtype, copy=False)
    rest = np.empty((num_train, self._num + extra.shape[1]), dtype)
    inside = np.zeros((block.shape[1], features.num_features))
    sides = np.zeros((block.shape[1], rest.shape[1]))
    for panel, rows in features.panels():
      # U is taken out with its own coordinates: it is far larger than the rest.
      outside = np.concatenate(
          [cross(panel) - rows @ features_eval.T, extra[panel]], 1)
      own = block[panel].astype(np.float64)
      inside += own.T @ rows
      sides += own.T @ outside
      rest[panel] = outside
    tall.subtract(rest, [block], [sides])
    sides[:, :self._num] += inside @ features_eval.T
    self.set_start(block, inside, sides, rest)

  @property
  def error(self) -> float:
    """|R Q as computed - R Q|, Frobenius norm, estimated."""
    return float(np.linalg.norm(self.row_errors))

  def set_start(self, block: np.ndarray, features: np.ndarray,
                sides: np.ndarray, rest: np.ndarray) -> None:
    """What `start` makes; see the attributes."""
    self.blocks = [block]
    self.features, self.sides, self.rest = features, sides, rest
    self.sides_rest = np.eye(sides.shape[1])
    self.rest_weights = np.zeros((sides.shape[1], 0))
    self.row_errors = np.zeros((self._num_checked, 0))

  def take(self, product: np.ndarray, row_errors: np.ndarray) -> np.ndarray:
    """Takes R Q_j [T, b_j] of the last block.

    Args:
      product: is overwritten.
      row_errors: by what it is wrong at some rows, times sqrt(T / r), [r, b_j];
        the same rows for every block.

    Returns:
      What of it is outside Q, in the type of the tiles.
    """
    self.columns.append(np.concatenate(
        [tall.inner(block, product) for block in self.blocks]))
    tall.subtract(product, self.blocks, self._split(self.columns[-1]))
    product = product.astype(self.rest.dtype, copy=False)
    # Lengths of residuals: the precision of the parts is enough.
    self.rest_gram = tall.gram([self.rest, product],
                               self.scales.astype(product.dtype))
    self.row_errors = np.concatenate([self.row_errors, row_errors], 1)
    return product

  def expand(self, outside: np.ndarray, noise_variance: float) -> None:
    """Adds a block: what the residuals of all sides at a noise level span.

    Args:
      outside: what `take` returned; overwritten.
      noise_variance: s^2.
    """
    weights = self._residual_weights(
        self.solve(self.factor(noise_variance), self.sides), self.sides_rest)
    new = tall.orthonormalise(tall.times([self.rest, outside], weights),
                              self.blocks)
    if not new.shape[1]:  # The space holds all that there is.
      return
    inside = tall.inner(new, self.rest)
    self.sides = np.concatenate([self.sides, inside @ self.sides_rest])
    # Combinations of [rest, outside] other than those are what remains.
    norms = np.linalg.norm(weights, axis=0)
    found: Any = scipy.linalg.qr(
        weights / np.where(norms > 0, norms, 1.), pivoting=True)
    directions, triangle, _ = found
    pivots = np.abs(np.diagonal(triangle))
    directions = directions[:, np.count_nonzero(pivots > 1e-10 * pivots[0]):]
    num_rest = len(self.sides_rest)
    rest = tall.times([outside, self.rest], np.concatenate(
        [directions[num_rest:], directions[:num_rest]]), in_place=True)
    tall.subtract(rest, [new], [tall.inner(new, rest)])
    self.rest = rest
    self.sides_rest = directions[:num_rest].T @ self.sides_rest
    self.rest_weights = np.concatenate(
        [directions[:num_rest].T @ self.rest_weights,
         directions[num_rest:].T], 1)
    self.blocks.append(new)

  def state(self) -> dict[str, np.ndarray]:
    """What the last step has made."""
    return {'column': self.columns[-1], 'block': self.blocks[-1],
            **{name: getattr(self, name) for name in self._STATE}}

  _STATE = ('sides', 'rest', 'sides_rest', 'rest_weights', 'rest_gram',
            'row_errors')

  def restore(self, state: Mapping[str, np.ndarray]) -> None:
    """Takes back one step of what `state` gave."""
    self.columns.append(state['column'])
    for name in self._STATE:
      setattr(self, name, state[name])
    # The last step of all adds no block.
    if self.rest_weights.shape[1] == len(state['column']):
      self.blocks.append(state['block'])

  def factor(self, noise_variance: float) -> np.ndarray:
    """The Cholesky factor of Q^T (K + s^2 I) Q."""
    matrix = np.empty((len(self.columns[-1]),) * 2)
    for column in self.columns:
      size, width = column.shape
      own = slice(size - width, size)
      matrix[:size, own] = column
      matrix[own, :size] = column.T
      matrix[own, own] = 0.5 * (column[own] + column[own].T)
    num = len(self.features)
    matrix[:num, :num] += self.features @ self.features.T
    return posterior.cholesky(matrix, noise_variance)

  def solve(self, factor: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """(Q^T A Q)^-1 sides, [basis, m]."""
    return scipy.linalg.cho_solve((factor, True), sides, check_finite=False)

  def variances(self, factor: np.ndarray) -> Galerkin:
    """Galerkin's solution for the points, from what `factor` returned."""
    sides = self.sides[:, :self._num]
    solutions = self.solve(factor, sides)
    variances = self.prior - np.einsum('mn,mn->n', sides, solutions)
    weights = self._residual_weights(solutions, self.sides_rest[:, :self._num])
    squares = np.einsum('pn,pn->n', weights, self.rest_gram @ weights)
    # By what (K + s^2 I) a is wrong.
    errors = _SAMPLED * np.linalg.norm(self.row_errors @ solutions, axis=0)
    squares = np.maximum(squares, 0.)
    norms = np.sqrt(squares) + errors * np.max(self.scales)
    rounding = (np.finfo(self.blocks[0].dtype).eps * self.prior
                + errors * np.linalg.norm(solutions, axis=0))
    if self.blocks[0].dtype == np.float64:
      # Of float32, `error` is far larger than this: the backward error of
      # solving by Cholesky's method (Higham 2002, theorem 10.3).
      amplified = np.abs(factor).T @ np.abs(solutions)
      rounding = _ROUNDING * (rounding + np.finfo(np.float64).eps * np.einsum(
          'mn,mn->n', amplified, amplified))
    return Galerkin(variances, weights, squares, norms, solutions, rounding)

  def explained(self, solved: Galerkin, points: slice, others: slice,
                center: float = 0.) -> np.ndarray:
    """k^T A^-1 k between points and others.

    Args:
      solved: what `variances` returned.
      points: some points.
      others: some points.
      center: r^T A^-1 r over the square of r's norm in our metric, which is
        added; see `calibration`.
    """
    sides = self.sides[:, :self._num]
    explained = sides[:, points].T @ solved.solutions[:, others]
    if points != others:
      other_way = solved.solutions[:, points].T @ sides[:, others]
    else:
      other_way = explained.T
    weights = solved.residual_weights
    return 0.5 * (explained + other_way) + center * (
        weights[:, points].T @ (self.rest_gram @ weights[:, others]))

  def block_covariances(self, priors: np.ndarray, solved: Galerkin,
                        std: np.ndarray, center: float) -> np.ndarray:
    """Joint covariances of blocks of the first points, ridge included.

    Their diagonals are the variances of `std`, to the same error.

    Args:
      priors: k(x, x) of the blocks, [num_blocks, tau, tau].
      solved: what `variances` returned.
      std: [n].
      center: see `explained`.
    """
    tau = priors.shape[1]
    covariances = priors.copy()
    for i, covariance in enumerate(covariances):
      own = slice(i * tau, (i + 1) * tau)
      covariance -= self.explained(solved, own, own, center)
      covariance[np.diag_indices(tau)] = std[own]**2
    return covariances

  def project(self, vectors: np.ndarray) -> np.ndarray:
    """Q^T vectors, [basis, m]."""
    return np.concatenate([tall.inner(block, vectors) for block in self.blocks])

  def lift(self, coefficients: np.ndarray) -> np.ndarray:
    """Q coefficients, [T, m] float64."""
    total = 0.
    for block, part in zip(self.blocks, self._split(coefficients), strict=True):
      total = total + tall.times([block], part).astype(np.float64)
    return total

  def _residual_weights(self, solutions: np.ndarray,
                        sides_rest: np.ndarray) -> np.ndarray:
    """Residuals in terms of [rest, what is outside of R Q_last]; [p, m]."""
    size = self.rest_weights.shape[1]
    return np.concatenate(
        [sides_rest - self.rest_weights @ solutions[:size], -solutions[size:]])

  def _split(self, coefficients: np.ndarray) -> list[np.ndarray]:
    """Coordinates in Q, taken apart by blocks."""
    widths = [column.shape[1] for column in self.columns]
    return np.split(coefficients, np.cumsum(widths)[:-1])
