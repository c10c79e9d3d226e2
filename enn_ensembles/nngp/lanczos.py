"""A draw of a Gaussian process by Lanczos' method: (R + jitter I)^1/2 z."""

from collections.abc import Mapping

import numpy as np
import scipy.linalg

from enn_ensembles.nngp import posterior


class Lanczos:
  """(R + jitter I)^1/2 z by Lanczos' method, with a bound of the error.

  In the Krylov space of z, R is a tridiagonal matrix.

  Attributes:
    eigenvalue_bound: lambda_min(R) is at least this; the bound depends on it.
    product_error: by what products with unit vectors are wrong, a norm.
  """

  def __init__(self, normals: np.ndarray):
    self.eigenvalue_bound = 0.
    self.product_error = np.zeros(())
    self._norm = float(np.linalg.norm(normals))
    self.vectors = (normals / self._norm)[:, None]
    self.diagonal = np.zeros(0)
    self.off_diagonal = np.zeros(0)

  @property
  def num_steps(self) -> int:
    """Steps taken."""
    return len(self.diagonal)

  def wanted(self) -> np.ndarray:
    """The vector [T, 1] whose product with R `take` needs next."""
    return self.vectors[:, -1:]

  def take(self, product: np.ndarray) -> None:
    """Takes R wanted() [T, 1]: a step."""
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
    solves with B + t^2 up to a residual of known length; B >= eigenvalue. Where
    products are those of B + E, the root is off by an X of B^1/2 X + X (B +
    E)^1/2 = E, so that |X z| <= |E z| / (2 eigenvalue^1/2), |E v| / |v| being
    the same for all v that E knows nothing of. |E| is twice that, if its
    entries are independent (Wigner).
    """
    values, directions = self._eigen()
    eigenvalue = (posterior.SAMPLE_JITTER + max(
        self.eigenvalue_bound - 2. * float(self.product_error), 0.))
    # t = scale tan(angle): the midpoint rule on (0, pi / 2).
    angles = (np.arange(2000) + 0.5) * np.pi / 4000
    scale = np.sqrt(max(values[-1], eigenvalue))
    squares = (scale * np.tan(angles))**2
    last = np.abs((directions[0] * directions[-1])
                  @ (1 / (np.maximum(values, 0.)[:, None] + squares)))
    integrand = (self.off_diagonal[-1] * last * squares
                 / (eigenvalue + squares) * scale / np.cos(angles)**2)
    integral = 2 / np.pi * np.sum(integrand) * np.pi / 4000
    integral += float(self.product_error) / (2. * np.sqrt(eigenvalue))
    return float(self._norm * integral / np.sqrt(len(self.vectors)))

  def state(self) -> dict[str, np.ndarray]:
    """All that later steps need, by name."""
    return {'vectors': self.vectors, 'diagonal': self.diagonal,
            'off_diagonal': self.off_diagonal,
            'product_error': self.product_error}

  def restore(self, state: Mapping[str, np.ndarray]) -> None:
    """Takes back what `state` gave."""
    for name in self.state():
      setattr(self, name, state[name])
