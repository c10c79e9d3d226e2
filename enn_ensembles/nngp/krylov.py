"""Krylov spaces of a remainder R: what is computed by applying R to vectors.

Each class says which vectors it wants R applied to, and takes the product: so
several share a pass over the kernel. `matrix_free` drives them.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import scipy.linalg

from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder

# A direction that is this much shorter than the longest of its block is noise.
# Much larger values (1e-5) can discard directions that matter.
_DROP = 1e-7
# What stands before eps in estimates of float64's rounding errors; that of the
# dense solution, which is compared with, included.
_ROUNDING = 4.
# Rows of tall matrices that are worked on at a time.
PANEL = 4096


# Tall matrices, a panel of rows at a time.


def inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
  """left^T right: a panel in the wider of their types, their sum in float64."""
  total = np.zeros((left.shape[1], right.shape[1]))
  for panel in remainder.panels(len(left), PANEL):
    total += left[panel].T @ right[panel]
  return total


def _gram(parts: Sequence[np.ndarray], scales: np.ndarray) -> np.ndarray:
  """[parts]^T diag(scales^2) [parts] of columns side by side, float64.

  Products of a panel are in the wider type of parts and scales.
  """
  total = 0.
  for panel in remainder.panels(len(scales), PANEL):
    rows = np.concatenate([part[panel] for part in parts], 1) * (
        scales[panel, None])
    total = total + (rows.T @ rows).astype(np.float64)
  return total


def _times(parts: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
  """[parts] @ weights of columns side by side, in the type of the parts."""
  weights = weights.astype(parts[0].dtype)
  result = np.empty((len(parts[0]), weights.shape[1]), weights.dtype)
  for panel in remainder.panels(len(result), PANEL):
    rows = np.concatenate([part[panel] for part in parts], 1)
    np.matmul(rows, weights, out=result[panel])
  return result


def _orthonormalise(vectors: np.ndarray,
                    basis: Sequence[np.ndarray]) -> np.ndarray:
  """An orthonormal basis of what `vectors` add to `basis`, [T, rank].

  Args:
    vectors: [T, m], orthogonal to the basis but for rounding errors;
      overwritten.
    basis: blocks with orthonormal columns.
  """
  norms = np.sqrt(np.einsum('tm,tm->m', vectors, vectors, dtype=np.float64))
  vectors *= (1 / np.where(norms > 0, norms, 1.)).astype(vectors.dtype)
  ones = np.ones(len(vectors))
  # Short directions are made long, and errors with them: hence twice. What then
  # loses more than half of its length was an error, not a direction.
  for repeat, drop in enumerate((_DROP, 0.5)):
    if repeat:
      _subtract(vectors, basis, [inner(block, vectors) for block in basis])
    values, directions = scipy.linalg.eigh(_gram([vectors], ones))
    kept = values > drop**2 * max(values[-1], np.finfo(np.float64).tiny)
    weights = (directions[:, kept] / np.sqrt(values[kept])).astype(
        vectors.dtype)
    for panel in remainder.panels(len(vectors), PANEL):
      vectors[panel, :weights.shape[1]] = vectors[panel] @ weights
    vectors = vectors[:, :weights.shape[1]]
    if not vectors.shape[1]:
      break
  return np.ascontiguousarray(vectors)


def _subtract(vectors: np.ndarray, basis: Sequence[np.ndarray],
              coefficients: Sequence[np.ndarray]) -> None:
  """vectors -= Q coefficients, in place and block by block."""
  for block, part in zip(basis, coefficients, strict=True):
    part = part.astype(block.dtype)
    for panel in remainder.panels(len(vectors), PANEL):
      vectors[panel] -= block[panel] @ part


class Lanczos:
  """(R + jitter I)^1/2 z by Lanczos' method, with a bound of the error.

  In the Krylov space of z, R is a tridiagonal matrix.

  Attributes:
    eigenvalue_bound: lambda_min(R) is at least this; the bound depends on it.
  """

  def __init__(self, normals: np.ndarray):
    self.eigenvalue_bound = 0.
    self._norm = float(np.linalg.norm(normals))
    self.vectors = (normals / self._norm)[:, None]
    self.diagonal = np.zeros(0)
    self.off_diagonal = np.zeros(0)

  @property
  def num_steps(self) -> int:
    return len(self.diagonal)

  def wanted(self) -> np.ndarray:
    return self.vectors[:, -1:]

  def take(self, product: np.ndarray) -> None:
    vector = product[:, 0].copy()
    self.diagonal = np.append(self.diagonal, self.vectors[:, -1] @ vector)
    for _ in range(2):
      vector -= self.vectors @ (self.vectors.T @ vector)
    norm = np.linalg.norm(vector)
    self.off_diagonal = np.append(self.off_diagonal, norm)
    vector = vector / norm if norm > 0 else vector
    self.vectors = np.concatenate([self.vectors, vector[:, None]], 1)

  def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
    return scipy.linalg.eigh_tridiagonal(
        self.diagonal + posterior.SAMPLE_JITTER, self.off_diagonal[:-1])

  def value(self) -> np.ndarray:
    """The product, [T]."""
    values, directions = self._eigen()
    root = directions @ (np.sqrt(np.maximum(values, 0.)) * directions[0])
    return self._norm * (self.vectors[:, :-1] @ root)

  def error(self) -> float:
    """A bound of the root mean square error of `value`.

    B^1/2 z = 2 / pi int_0^inf [z - t^2 (B + t^2)^-1 z] dt, and the method
    solves with B + t^2 up to a residual of known length; B >= eigenvalue.
    """
    values, directions = self._eigen()
    eigenvalue = self.eigenvalue_bound + posterior.SAMPLE_JITTER
    # t = scale tan(angle): the midpoint rule on (0, pi / 2).
    angles = (np.arange(2000) + 0.5) * np.pi / 4000
    scale = np.sqrt(max(values[-1], eigenvalue))
    squares = (scale * np.tan(angles))**2
    last = np.abs((directions[0] * directions[-1])
                  @ (1 / (np.maximum(values, 0.)[:, None] + squares)))
    integrand = (self.off_diagonal[-1] * last * squares
                 / (eigenvalue + squares) * scale / np.cos(angles)**2)
    integral = 2 / np.pi * np.sum(integrand) * np.pi / 4000
    return float(self._norm * integral / np.sqrt(len(self.vectors)))

  def state(self) -> dict[str, np.ndarray]:
    return {'vectors': self.vectors, 'diagonal': self.diagonal,
            'off_diagonal': self.off_diagonal}

  def restore(self, state: Mapping[str, np.ndarray]) -> None:
    for name in self.state():
      setattr(self, name, state[name])


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
    block = _orthonormalise(features.copy(), []).astype(dtype)
    inside = inner(block, features)
    sides = np.concatenate([cross, extra], 1)
    remainders = sides[:, :self._num]
    # U is taken out with its own coordinates: it is far larger than the rest.
    for panel in remainder.panels(len(sides), PANEL):
      remainders[panel] -= features[panel] @ features_eval.T
    sides_inside = inner(block, sides)
    for panel in remainder.panels(len(sides), PANEL):
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
        [inner(block, product) for block in self.blocks]))
    _subtract(product, self.blocks, self._split(self.columns[-1]))
    product = product.astype(self.rest.dtype, copy=False)
    # Lengths of residuals: the precision of the parts is enough.
    self.rest_gram = _gram([self.rest, product],
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
    new = _orthonormalise(_times([self.rest, outside], weights), self.blocks)
    if not new.shape[1]:  # The space holds all that there is.
      return
    inside = inner(new, self.rest)
    self.sides = np.concatenate([self.sides, inside @ self.sides_rest])
    # Combinations of [rest, outside] other than those are what remains.
    norms = np.linalg.norm(weights, axis=0)
    found: Any = scipy.linalg.qr(
        weights / np.where(norms > 0, norms, 1.), pivoting=True)
    directions, triangle, _ = found
    pivots = np.abs(np.diagonal(triangle))
    directions = directions[:, np.count_nonzero(pivots > 1e-10 * pivots[0]):]
    rest = _times([self.rest, outside], directions)
    _subtract(rest, [new], [inner(new, rest)])
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

  def project(self, vectors: np.ndarray) -> np.ndarray:
    """Q^T vectors, [basis, m]."""
    return np.concatenate([inner(block, vectors) for block in self.blocks])

  def lift(self, coefficients: np.ndarray) -> np.ndarray:
    """Q coefficients, [T, m] float64."""
    total = 0.
    for block, part in zip(self.blocks, self._split(coefficients), strict=True):
      total = total + _times([block], part).astype(np.float64)
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


class ConjugateGradients:
  """(K + s_e^2 I)^-1 y_e, all right-hand sides e in step with each other."""

  def __init__(self, features: np.ndarray, noise_variances: np.ndarray,
               remainder_mean: float, scales: np.ndarray):
    self._features = features
    self._scales = scales
    self._variances = noise_variances
    # U U^T + shift I, inverted by Woodbury's formula.
    self._shifts = noise_variances + remainder_mean
    gram = inner(features, features)
    self._factors = [posterior.cholesky(gram, shift) for shift in self._shifts]

  def start(self, targets: np.ndarray, guess: np.ndarray) -> None:
    """targets and guess, [T, E]."""
    self._targets = targets
    self.weights = guess
    self.residuals = None
    self.search = None
    self.squares = np.ones(guess.shape[1])

  def wanted(self) -> np.ndarray:
    return self.weights if self.residuals is None else self.search

  def take(self, product: np.ndarray) -> None:
    vectors = self.wanted()
    product = (product + self._variances * vectors
               + self._features @ (self._features.T @ vectors))
    if self.residuals is None:
      self.residuals = self._targets - product
      previous = None
    else:
      curvature = np.einsum('te,te->e', vectors, product)
      # A column that is solved exactly has no direction left.
      length = self.squares / np.where(curvature > 0, curvature, np.inf)
      self.weights = self.weights + length * vectors
      self.residuals = self.residuals - length * product
      previous = self.squares
    preconditioned = self._precondition(self.residuals)
    self.squares = np.einsum('te,te->e', self.residuals, preconditioned)
    if previous is None:
      self.search = preconditioned
    else:
      ratio = self.squares / np.where(previous > 0, previous, np.inf)
      self.search = preconditioned + ratio * vectors

  def _precondition(self, vectors: np.ndarray) -> np.ndarray:
    small = self._features.T @ vectors
    small = np.stack(
        [scipy.linalg.cho_solve((factor, True), small[:, e])
         for e, factor in enumerate(self._factors)], axis=1)
    return (vectors - self._features @ small) / self._shifts

  def norms(self) -> np.ndarray:
    """Of the residuals, in the metric diag(scales^2), [E]."""
    return np.linalg.norm(self._scales[:, None] * self.residuals, axis=0)

  def state(self) -> dict[str, np.ndarray]:
    return {name: getattr(self, name)
            for name in ('weights', 'residuals', 'search', 'squares')}

  def restore(self, state: Mapping[str, np.ndarray]) -> None:
    for name, array in state.items():
      setattr(self, name, array)
