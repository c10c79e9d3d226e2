"""A kernel as features and a remainder that is never stored: K = U U^T + R.

U [T, D + 2] holds the kernel's constant and linear parts; R, the remainder, is
positive semi-definite. A ReLU network's kernel is sigma sigma' h(rho): rho is
the cosine of [x, 1] and [x', 1], h(rho) = sum_j c_j rho^j with every c_j >= 0
(Cho & Saul 2009; Schoenberg 1942), sigma^2 = k(x, x). With d = D + 1, the
degrees 2 and 3 also have parts of degree 0 and 1, in the sense of spherical
harmonics, so

  U = sigma [sqrt(c_0 + c_2 / d), sqrt(c_1 + 3 c_3 / (d + 2)) z], z z'^T = rho,
  R = sigma sigma' [c_2 (rho^2 - 1 / d) + c_3 (rho^3 - 3 rho / (d + 2))
                    + sum_{j >= 4} c_j rho^j],

and every term of R is positive semi-definite still (Gegenbauer polynomials). An
erf network's kernel has odd degrees only: U is its exact linear part.

`tiles` multiplies R with blocks of vectors, tile by tile. Tiles may be float32.

*A lower bound of R.* R - diag(mu) is positive semi-definite for mu from
Gershgorin's circles around the degrees from 4 (or 6) on, all others being
positive semi-definite: mu_i = sigma_i^2 (1 - c_0 - .. - c_3)
- sum_{j != i} |row i, degrees >= 4|, computed from all pairs of points; mu = 0
where one of these is negative.
"""

from collections.abc import Mapping
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles.nngp import kernels

# Up to this cosine the remainder is made as a polynomial, of degree 13 (at D =
# 1000) to 50, and so small that float32 tiles do. Beyond: arccos, float64.
_MAX_SERIES_COSINE = 0.7
_SERIES_ERROR = 1e-12
# The largest cosine is first guessed from those of some points with all. Of
# standard normal points it is 1.1 times theirs at T = 100,000, give or take
# 5 %. A guess that is too small costs a pass; one beyond the series costs more.
_NUM_SAMPLED_POINTS = 1000
_GUESS_MARGIN = 1.3
_LEAST_MARGIN = 1.05
COSINE_ERROR = 1e-5  # What float32 rounds is less.
# Gershgorin's circles are drawn around degrees >= one of these: even, since
# then no absolute value is needed, and >= 4, since U has parts of 2 and 3.
SURVEY_POWERS = (4, 6)
# More points than this have tiles in float16, where `Split.kept_dtype` says so.
_MAX_FULL_PRECISION = 30_000


def num_features(kernel: kernels.KernelConfig, input_dim: int) -> int:
  """Columns of U, the kernel's constant and linear parts."""
  return input_dim + (2 if kernel.activation == 'relu' else 1)


@functools.lru_cache
def relu_series(num_hidden_layers: int) -> np.ndarray:
  """Taylor coefficients c_j of h, the ReLU kernel as a function of the cosine.

  h is J(J(..)), J(c) = (sqrt(1 - c^2) + (pi - arccos c) c) / pi, h(1) = 1 (Cho
  & Saul 2009). By Cauchy's formula on a circle inside the unit disk: exact to
  rounding, relative to where the series is used.
  """
  num, radius = 512, 0.8
  value = radius * np.exp(2j * np.pi * np.arange(num) / num)
  for _ in range(num_hidden_layers):
    value = (np.sqrt(1 - value * value)
             + (np.pi - np.arccos(value)) * value) / np.pi
  coefficients = np.fft.fft(value).real[:100] / num
  return np.maximum(coefficients / radius**np.arange(100), 0.)


class Survey(NamedTuple):
  """What a pass over all pairs of points finds.

  Attributes:
    largest: max |rho_ij| over i != j, at most.
    power_sums: sum_{j != i} rho_ij^power sigma_j, at most, per power of
      SURVEY_POWERS, [P, T].
  """
  largest: float
  power_sums: np.ndarray

  def arrays(self) -> dict[str, Any]:
    """What is kept of it on the disk."""
    return {f'survey_{name}': value for name, value in self._asdict().items()}

  @classmethod
  def from_arrays(cls, arrays: Mapping[str, Any]) -> 'Survey | None':
    """Inverse of `arrays`, others left out; None if it is not among them."""
    if 'survey_largest' not in arrays:
      return None
    return cls(**{name: arrays[f'survey_{name}'] for name in cls._fields})


class Split:
  """K = U U^T + R for some kernel and points.

  How R is computed depends on the largest cosine, which is guessed, until a
  `Survey` says more (`accept`).

  Attributes:
    config: the kernel.
    dtype: in which R's tiles are made.
    kept_dtype: to which they are rounded, and in which they are kept.
    largest_cosine: tiles are right up to this one.
    needs_survey: whether tiles depend on the guess; if not, nothing more can be
      learnt from one.
    eigenvalue_bounds: mu [T] >= 0; R - diag(mu) is positive semi-definite. 0
      before a survey.

  Args:
    config: the kernel.
    x_train: [T, D].
    largest_cosine: max |rho_ij| over i != j, at most; None guesses.
  """

  def __init__(self, config: kernels.KernelConfig, x_train: np.ndarray,
               largest_cosine: float | None = None):
    self.config = config
    self.dtype = np.dtype(np.float64)
    self.eigenvalue_bounds = np.zeros(len(x_train))
    self._dim = x_train.shape[1] + 1
    self._series = None
    self.largest_cosine = 1.
    if config.activation == 'relu':
      self._coefficients = relu_series(config.num_hidden_layers)
      c = self._coefficients
      self._constant = float(c[0] + c[2] / self._dim)
      self._slope = float(c[1] + 3 * c[3] / (self._dim + 2))
      z, self._sigma = self.points(x_train)
      if largest_cosine is None:
        largest_cosine = _guess_largest_cosine(z)
      self._choose_series(largest_cosine)
    self.needs_survey = self._series is not None
    self.kept_dtype = self.dtype
    # By T and D alone: whatever the memory, R is the same. With so many points
    # for D, the bounds of R's eigenvalues are 0, and must not be rounded.
    if (self.dtype == np.float32 and len(x_train) > _MAX_FULL_PRECISION
        and len(x_train) <= x_train.shape[1]**2):
      self.kept_dtype = np.dtype(np.float16)

  def _choose_series(self, largest: float) -> None:
    if not largest < _MAX_SERIES_COSINE:
      return
    c = self._coefficients
    tails = np.cumsum((c * largest**np.arange(len(c)))[::-1])[::-1]
    series = c[:max(4, int(np.argmax(tails < _SERIES_ERROR)))].copy()
    series[0] -= self._constant
    series[1] -= self._slope
    self._series = tuple(float(value) for value in series)
    self.largest_cosine = largest
    self.dtype = np.dtype(np.float32)

  def accept(self, survey: Survey) -> bool:
    """Bounds mu; False if a cosine is larger than guessed, and tiles wrong."""
    if survey.largest > self.largest_cosine:
      return False
    c, sigma = self._coefficients, self._sigma
    for power, others in zip(SURVEY_POWERS, survey.power_sums, strict=True):
      # |rho|^j <= rho^power largest^(j - power): circles of degrees >= power.
      factor = np.sum(c[power:] * survey.largest**np.arange(len(c) - power))
      circles = sigma * (sigma * (1 - np.sum(c[:power])) - factor * others)
      if np.min(circles) > np.min(self.eigenvalue_bounds):
        self.eigenvalue_bounds = circles
    return True

  def points(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(z [n, D + 1], scale [n]): what `tile` takes of points, and R's scale.

    ReLU: unit vectors and sigma. Erf: k0 = z z'^T, and no scale.
    """
    config = self.config
    z = np.empty((len(x), self._dim))
    np.multiply(x, config.weight_std, out=z[:, :-1])
    z[:, -1] = config.first_bias
    if config.activation == 'relu':
      norm = np.sqrt(np.einsum('nd,nd->n', z, z))
      z /= np.maximum(norm, np.finfo(np.float64).tiny)[:, None]
      return z, np.sqrt(kernels.nngp_diag(config, x))
    z /= np.sqrt(self._dim - 1)
    return z, np.ones(len(x))

  def features(self, x: np.ndarray) -> np.ndarray:
    """U at points [n, D], [n, num_features]."""
    config = self.config
    z, scale = self.points(x)
    if config.activation == 'relu':
      z *= np.sqrt(self._slope) * scale[:, None]
      return np.concatenate([np.sqrt(self._constant) * scale[:, None], z], 1)
    # Each layer's slope at k12 = 0 is a product of one factor per point.
    diag = np.einsum('nd,nd->n', z, z)
    for _ in range(config.num_hidden_layers):
      z *= (config.weight_std * np.sqrt(4 / np.pi / (1 + 2 * diag)))[:, None]
      diag = config.weight_std**2 * 2 / np.pi * np.arctan2(
          2 * diag, np.sqrt(1 + 4 * diag))
    return z

  def tile(self, k12: jax.Array, z1: jax.Array, z2: jax.Array) -> jax.Array:
    """R without its scales between points z1 [a, D + 1] and z2 [b, D + 1].

    k12 [a, b] is z1 z2^T: cosines, for ReLU.
    """
    if self.config.activation == 'erf':
      return self._erf_tile(k12, jnp.sum(z1 * z1, axis=1)[:, None],
                            jnp.sum(z2 * z2, axis=1)[None, :])
    if self._series is not None:
      value = jnp.full_like(k12, self._series[-1])
      for coefficient in self._series[-2::-1]:
        value = value * k12 + coefficient
      return value
    rho = jnp.clip(k12, -1., 1.)
    value = rho
    for _ in range(self.config.num_hidden_layers):
      value = (jnp.sqrt((1. - value) * (1. + value))
               + jnp.arccos(-value) * value) / np.pi
    return value - self._constant - self._slope * rho

  def _erf_tile(self, k12, diag1, diag2):
    """The layers of `kernels` in jax, less the linear part."""
    gain = self.config.weight_std**2
    linear = k12
    for _ in range(self.config.num_hidden_layers):
      linear = linear * (gain * 4. / np.pi) / jnp.sqrt(
          (1. + 2. * diag1) * (1. + 2. * diag2))
      determinant = jnp.maximum(diag1 * diag2 - k12 * k12, 0.)
      leg = jnp.sqrt(1. + 2. * (diag1 + diag2) + 4. * determinant)
      k12 = gain * 2. / np.pi * jnp.arctan2(2. * k12, leg)
      diag1, diag2 = (
          gain * 2. / np.pi * jnp.arctan2(2. * d, jnp.sqrt(1. + 4. * d))
          for d in (diag1, diag2))
    return k12 - linear


def panels(num: int, size: int) -> list[slice]:
  """num rows in slices of at most size rows, in order."""
  return [slice(i, min(i + size, num)) for i in range(0, num, size)]


def _guess_largest_cosine(z: np.ndarray) -> float:
  """max |rho_ij| over i != j, probably at most."""
  rows = np.unique(np.linspace(0, len(z) - 1, _NUM_SAMPLED_POINTS).astype(int))
  largest = 0.
  for panel in panels(len(z), 4096):
    rho = np.abs(z[rows].astype(np.float32) @ z[panel].T.astype(np.float32))
    rho[rows[:, None] == np.arange(panel.start, panel.stop)[None]] = 0.
    largest = max(largest, float(np.max(rho)))
  if len(rows) == len(z):
    return largest + 2 * COSINE_ERROR
  guess = _GUESS_MARGIN * largest
  if guess >= _MAX_SERIES_COSINE > _LEAST_MARGIN * largest:
    guess = np.nextafter(_MAX_SERIES_COSINE, 0.)
  return guess
