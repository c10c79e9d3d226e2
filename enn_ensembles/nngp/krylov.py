"""The block Krylov space of a remainder R, and variances from it.

As `lanczos` and `conjugate_gradients`, it says which vectors it wants R applied
to, and takes the product: so several share a pass over the kernel.
`matrix_free_solver` drives them.
"""

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np
import scipy.linalg

from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import tall

# What stands before eps in estimates of float64's rounding errors; that of the
# dense solution, which is compared with, included.
_ROUNDING = 4.


class Galerkin(NamedTuple):
  """Galerkin's solution at one noise level, for n points.

  Attributes:
    variances: k(x, x) - b^T a, [n].
    residual_norms: |b - A a| in the metric diag(scales^2), [n].
    solutions: a in terms of Q, [basis, n].
    rounding: of the variances, besides that of R Q, [n].
  """
  variances: np.ndarray
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
    error: estimated |computed R Q - R Q|.
    scales: [T], of the metric in which residuals are measured; to be set before
      the first product is taken.

  Args:
    prior_variances: k(x, x), [n].
  """

  def __init__(self, prior_variances: np.ndarray):
    self._num = len(prior_variances)
    self.prior = prior_variances
    self.scales = np.zeros(0)
    self.blocks: list[np.ndarray] = []
    self.columns: list[np.ndarray] = []
    self.error = 0.

  def start(self, features: np.ndarray, features_eval: np.ndarray,
            cross: np.ndarray, extra: np.ndarray, dtype: np.dtype) -> None:
    """From U, and the sides k(x_train, x) [T, n] and extra [T, m]."""
    block = tall.orthonormalise(features.copy(), []).astype(dtype)
    inside = tall.inner(block, features)
    sides = np.concatenate([cross, extra], 1)
    remainders = sides[:, :self._num]
    # U is taken out with its own coordinates: it is far larger than the rest.
    for panel in remainder.panels(len(sides), tall.PANEL):
      remainders[panel] -= features[panel] @ features_eval.T
    sides_inside = tall.inner(block, sides)
    for panel in remainder.panels(len(sides), tall.PANEL):
      sides[panel] -= block[panel].astype(np.float64) @ sides_inside
    sides_inside[:, :self._num] += inside @ features_eval.T
    self.set_start(block, inside, sides_inside, sides.astype(dtype))

  def set_start(self, block: np.ndarray, features: np.ndarray,
                sides: np.ndarray, rest: np.ndarray) -> None:
    """What `start` makes; see the attributes."""
    self.blocks = [block]
    self.features, self.sides, self.rest = features, sides, rest
    self.sides_rest = np.eye(sides.shape[1])
    self.rest_weights = np.zeros((sides.shape[1], 0))

  def take(self, product: np.ndarray, tile_error: float) -> np.ndarray:
    """Takes R Q_j [T, b_j] float64 of the last block.

    Returns:
      What of it is outside Q, in the type of the tiles. The product is
      overwritten.
    """
    self.columns.append(np.concatenate(
        [tall.inner(block, product) for block in self.blocks]))
    tall.subtract(product, self.blocks, self._split(self.columns[-1]))
    product = product.astype(self.rest.dtype, copy=False)
    # Lengths of residuals: the precision of the parts is enough.
    self.rest_gram = tall.gram([self.rest, product],
                           self.scales.astype(product.dtype))
    self.error = max(self.error, tile_error)
    return product

  def expand(self, outside: np.ndarray, noise_variance: float) -> None:
    """Adds a block: what the residuals of all sides at a noise level span.

    Args:
      outside: what `take` returned.
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
    rest = tall.times([self.rest, outside], directions)
    tall.subtract(rest, [new], [tall.inner(new, rest)])
    num_rest = len(self.sides_rest)
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

  _STATE = ('sides', 'rest', 'sides_rest', 'rest_weights', 'rest_gram', 'error')

  def restore(self, state: Mapping[str, np.ndarray]) -> None:
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
    norms = (np.sqrt(np.maximum(squares, 0.))
             + self.error * np.max(self.scales)
             * np.linalg.norm(solutions, axis=0))
    rounding = np.finfo(self.blocks[0].dtype).eps * self.prior
    if self.blocks[0].dtype == np.float64:
      # Of float32, `error` is far larger than this: the backward error of
      # solving by Cholesky's method (Higham 2002, theorem 10.3).
      amplified = np.abs(np.tril(factor)).T @ np.abs(solutions)
      rounding = _ROUNDING * (rounding + np.finfo(np.float64).eps * np.einsum(
          'mn,mn->n', amplified, amplified))
    return Galerkin(variances, norms, solutions, rounding)

  def explained(self, solutions: np.ndarray, points: slice) -> np.ndarray:
    """k^T A^-1 k between some points and those of solutions."""
    return self.sides[:, :self._num][:, points].T @ solutions

  def block_covariances(self, priors: np.ndarray, solution: np.ndarray,
                        std: np.ndarray) -> np.ndarray:
    """Joint covariances of blocks of the first points, ridge included.

    Galerkin's; their diagonals are the variances of `std`, to the same error.

    Args:
      priors: k(x, x) of the blocks, [num_blocks, tau, tau].
      solution: [basis, n].
      std: [n].
    """
    tau = priors.shape[1]
    covariances = priors.copy()
    for i, covariance in enumerate(covariances):
      own = slice(i * tau, (i + 1) * tau)
      explained = self.explained(solution[:, own], own)
      covariance -= 0.5 * (explained + explained.T)
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
