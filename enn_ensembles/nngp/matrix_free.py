"""The exact posterior without the kernel matrix, for T up to 100,000.

Dense ground truth needs the kernel of all T training points: 80 GB at 100,000.
This solver never stores it. It splits the kernel exactly,

  K = U U^T + R,

where U [T, D + 2] holds the kernel's constant and linear parts and R, the
remainder, is positive semi-definite and well conditioned where T is not much
larger than D^2: its diagonal is large, all else is small. R is only ever
multiplied with blocks of vectors, in tiles that are made, used and forgotten.

*The split.* A ReLU network's kernel is sigma sigma' h(rho): rho is the cosine
of [x, 1] and [x', 1], h(rho) = sum_j c_j rho^j with every c_j >= 0 (Cho & Saul
2009; Schoenberg 1942), sigma^2 = k(x, x). With d = D + 1, the degrees 2 and 3
also have parts of degree 0 and 1, in the sense of spherical harmonics, so

  U = sigma [sqrt(c_0 + c_2 / d), sqrt(c_1 + 3 c_3 / (d + 2)) z], z z'^T = rho,
  R = sigma sigma' [c_2 (rho^2 - 1 / d) + c_3 (rho^3 - 3 rho / (d + 2))
                    + sum_{j >= 4} c_j rho^j],

and every term of R is positive semi-definite still (Gegenbauer polynomials). An
erf network's kernel has odd degrees only: U is its exact linear part.

*Variances.* Let A = K + s^2 I, and b = k(x_train, x) of a point x. For Q with
orthonormal columns, the Galerkin solution a = Q (Q^T A Q)^-1 Q^T b, of residual
r = b - A a, has

  b^T A^-1 b - b^T a = r^T A^-1 r,

which is at least 0, and at most what a lower bound of A says. The variance is
taken from the middle of that interval, half of which bounds its error. Q is a
block Krylov space. It starts with U; each block step adds what the residuals of
all points span, at that noise level whose bound is worst. One space serves all
levels, which only shift A: a level takes a Cholesky factorisation of
Q^T K Q + s^2 I, in float64.

*Means.* A^-1 y is found by conjugate gradients (Hestenes & Stiefel 1952) with
U U^T + const I as the preconditioner, from its Galerkin approximation. With c
found and q its residual, the mean b^T A^-1 y is b^T c + a^T q + r^T A^-1 q; the
last term is left out, and bounded likewise (Cauchy & Schwarz).

*The lower bound of A.* A - diag(mu + s^2) is positive semi-definite for mu from
Gershgorin's circles around the degrees from 4 (or 6) on, all others being
positive semi-definite: mu_i = sigma_i^2 (1 - c_0 - .. - c_3)
- sum_{j != i} |row i, degrees >= 4|, computed from all pairs of points; mu = 0
where one of these is negative. So r^T A^-1 r <= sum_i r_i^2 / (mu_i + s^2).

*Rounding.* Tiles may be float32; the diagonal and sums of tiles are float64.
What tiles round is estimated at some rows from float64 kernels, and is part of
the bounds.

*The draw.* f = U a + (R + jitter I)^1/2 z with standard normals a and z has
covariance K + jitter I exactly; the square root is applied by Lanczos' method,
with a bound of its error. At validation points, f is drawn from its exact
distribution given f at the training points. Another way of drawing gives
another f from the same normals: the way is part of the problem.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import time
from typing import Any, Callable, Mapping, Optional, Sequence, Union
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from enn_ensembles import config_checks as checks
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior

PathLike = Union[str, os.PathLike]

# What a posterior's errors may be: relative for the std, in posterior stds for
# the mean.
STD_TOLERANCE = 1e-4
MEAN_TOLERANCE = 1e-3
# Root mean square error of a drawn function: a tenth of its jitter's std.
FUNCTION_TOLERANCE = 1e-4

# Up to this cosine the remainder is made as a polynomial, of degree 13 (at D =
# 1000) to 50, and so small that float32 tiles do. Beyond: arccos, float64.
_MAX_SERIES_COSINE = 0.7
_SERIES_ERROR = 1e-12
# Gershgorin's circles are drawn around degrees >= one of these: even, since
# then no absolute value is needed, and >= 4, since U has parts of 2 and 3.
_SURVEY_POWERS = (4, 6)
# A direction that is this much shorter than the longest of its block is noise.
# Much larger values (1e-5) can discard directions that matter.
_DROP = 1e-7
# Rows of R that are recomputed in float64 to measure the error of the tiles.
_NUM_CHECKED_ROWS = 32
_MAX_CG_STEPS = 200
_MAX_LANCZOS_STEPS = 60
# Side of R's tiles. On a CPU a tile stays in the cache while it is used.
_CPU_TILE = 1024
_ACCELERATOR_TILE = 4096
# Rows of tall matrices that are worked on at a time.
_PANEL = 4096
_CHECKPOINT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Progress:
  """Where a computation is; `solve` gives it to its callback.

  Attributes:
    phase: 'variances', 'function' or 'means'.
    step: passes over the kernel in this phase, from 1.
    seconds: since the start, earlier runs of a checkpoint included.
    error: the phase's bound as a multiple of what is allowed; done at <= 1.
  """
  phase: str
  step: int
  seconds: float
  error: float


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
  """A draw and its posteriors. E noise levels, T points, n evaluation points.

  Attributes:
    noise_stds: epsilon, [E].
    noise_variances: s^2 that the posteriors assume, [E].
    targets: y, [E, T].
    weights: (K + s^2 I)^-1 y, [E, T].
    moments: at x_eval, per noise level.
    std_error_bounds: relative errors of the stds are at most this, [E].
    mean_error_bounds: errors of the means, in posterior stds, [E].
    residual_norms: |y - (K + s^2 I) weights|, [E].
    converged: whether all bounds, the function's too, meet their tolerances.
    function: f at x_train, [T]; None if targets were given, as the next two.
    eval_function: f at the last points of x_eval, [number of normals_eval].
    function_error: bound of the root mean square error of f.
    eigenvalue_bound: lambda_min(K) is at least this.
    std_error_history: std_error_bounds after every block step, [steps, E].
    tile_error: estimated |computed R Q - R Q|, Frobenius norm.
    tile_dtype: 'float32' or 'float64'.
    num_passes: how often the remainder was applied, a survey not counted.
    memory_mb: estimated peak of what the solver held.
    seconds: wall time, earlier runs of a checkpoint included.
  """
  noise_stds: np.ndarray
  noise_variances: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  moments: list[posterior.Moments]
  std_error_bounds: np.ndarray
  mean_error_bounds: np.ndarray
  residual_norms: np.ndarray
  converged: bool
  function: Optional[np.ndarray]
  eval_function: Optional[np.ndarray]
  function_error: Optional[float]
  eigenvalue_bound: float
  std_error_history: np.ndarray
  tile_error: float
  tile_dtype: str
  num_passes: int
  memory_mb: float
  seconds: float

  @property
  def num_block_steps(self) -> int:
    return len(self.std_error_history)


def num_features(kernel: kernels.KernelConfig, input_dim: int) -> int:
  """Columns of U, the kernel's constant and linear parts."""
  return input_dim + (2 if kernel.activation == 'relu' else 1)


def estimate_memory_mb(num_train: int, input_dim: int, num_eval: int,
                       num_block_steps: int = 4, itemsize: int = 4) -> float:
  """Peak memory of `solve` in MB of 10^6 bytes, x_train included.

  Args:
    num_train: T.
    input_dim: D.
    num_eval: points of x_eval.
    num_block_steps: how many fit.
    itemsize: bytes of a number in a tile, 4 or 8.
  """
  first = min(num_train, input_dim + 2)
  width = min(num_train, num_eval + 8)
  basis = min(num_train, first + (num_block_steps - 1) * width)
  # x_train, U and the points of the tiles; the basis and what is outside.
  columns = (8 * input_dim + 8 * first + itemsize * first
             + itemsize * (basis + max(first, width)))
  # The vectors of a pass, their product, and its sum on the device.
  columns += (16 + itemsize) * width
  # Columns of H, H and its factor; sides and solutions; what combines the rest.
  small = 8 * (2.5 * basis**2 + 4 * basis * width + 4 * (first + width)**2)
  tiles = 3 * itemsize * min(_ACCELERATOR_TILE, num_train)**2
  return (num_train * columns + small + tiles) / 1e6


def solve(kernel: kernels.KernelConfig, x_train: np.ndarray,
          x_eval: np.ndarray, noise_stds: Sequence[float], *,
          normals_train: Optional[np.ndarray] = None,
          normals_eval: Optional[np.ndarray] = None,
          noise: Optional[np.ndarray] = None,
          targets: Optional[Sequence[np.ndarray]] = None,
          reference: str = 'bayes', memory_budget_mb: float = 14_000.,
          block_priors: Optional[np.ndarray] = None,
          checkpoint_path: Optional[PathLike] = None,
          std_tolerance: float = STD_TOLERANCE,
          mean_tolerance: float = MEAN_TOLERANCE,
          function_tolerance: float = FUNCTION_TOLERANCE,
          max_block_steps: int = 12, strict: bool = True,
          progress: Optional[Callable[[Progress], None]] = None) -> Solution:
  """Draws a function, and its posteriors under all noise levels.

  Either gives `targets`, or what they are drawn from: y = f + epsilon noise.

  Args:
    kernel: the prior.
    x_train: [T, D] float64.
    x_eval: where the posteriors are wanted, [n, D].
    noise_stds: epsilon per noise level.
    normals_train: [T + num_features(kernel, D)] standard normals, z then a.
    normals_eval: [v] standard normals for f at the last v points of x_eval;
      None for none.
    noise: [T] standard normals, shared by all noise levels.
    targets: y, [T] per noise level, instead of these three.
    reference: see `posterior.noise_variance`.
    memory_budget_mb: what may be held, x_train and the result included.
    block_priors: k(x, x) of blocks of the first points of x_eval, [num_blocks,
      tau, tau], where joint covariances are wanted.
    checkpoint_path: a folder where every step is kept, made if missing; a
      computation that was killed goes on from its last step. About as large as
      the basis; the caller removes it. None keeps nothing.
    std_tolerance: allowed relative error of the stds.
    mean_tolerance: allowed error of the means, in posterior stds.
    function_tolerance: allowed root mean square error of f.
    max_block_steps: of the block Krylov space.
    strict: whether a tolerance that is not met is an error; otherwise
      `Solution.converged` is False.
    progress: called after every pass over the kernel, its step being kept.

  Raises:
    ValueError: an argument does not fit, the budget is too small, the
      checkpoint is of something else, a tolerance is not met, or jax runs
      without x64.
  """
  kernels.require_x64()
  solver = _Solver(kernel, x_train, x_eval, noise_stds, normals_train,
                   normals_eval, noise, targets, reference, memory_budget_mb,
                   checkpoint_path, std_tolerance, mean_tolerance,
                   function_tolerance, max_block_steps, progress, block_priors)
  solution = solver.run()
  if strict and not solution.converged:
    errors = [f'std {np.max(solution.std_error_bounds):.2g} (allowed '
              f'{std_tolerance:g})', 'mean '
              f'{np.max(solution.mean_error_bounds):.2g} posterior stds '
              f'(allowed {mean_tolerance:g})']
    if solution.function is not None:
      errors.append(f'function {solution.function_error:.2g} (allowed '
                    f'{function_tolerance:g})')
    raise ValueError(
        f'the matrix-free posterior of T = {len(x_train)}, D = '
        f'{np.shape(x_train)[1]} is not exact enough after '
        f'{solution.num_block_steps} block steps, error bounds: '
        f'{", ".join(errors)}; allow more block steps or memory, or use the '
        'dense solver.')
  return solution


def check_rows(kernel: kernels.KernelConfig, x_train: np.ndarray,
               solution: Solution, noise_std: float,
               rows: Sequence[int]) -> np.ndarray:
  """Residuals of stored weights by independent arithmetic.

  Rows of K are made anew by `kernels.nngp`, in float64 and without the split.

  Args:
    kernel: the prior.
    x_train: [T, D].
    solution: what `solve` returned for them.
    noise_std: which of its noise levels.
    rows: indices of training points, [r].

  Returns:
    y - (K + s^2 I) weights at these rows, [r] float64. Where the solution is
    good, their root mean square is about residual_norm / sqrt(T).

  Raises:
    ValueError: there is no such noise level or row.
  """
  levels = np.flatnonzero(solution.noise_stds == noise_std)
  if not len(levels):
    raise ValueError(f'noise_std must be one of {list(solution.noise_stds)}, '
                     f'got {noise_std}.')
  rows = np.asarray(rows, dtype=np.int64)
  if rows.ndim != 1 or np.any((rows < 0) | (rows >= len(x_train))):
    raise ValueError(f'rows must be indices in [0, {len(x_train)}), got '
                     f'{rows}.')
  level = levels[0]
  weights = solution.weights[level]
  residuals = (solution.targets[level, rows]
               - solution.noise_variances[level] * weights[rows])
  for block in _panels(len(rows), 64):
    residuals[block] -= kernels.nngp(kernel, x_train[rows[block]],
                                     x_train) @ weights
  return residuals


# The kernel as features and a remainder.


@functools.lru_cache
def _relu_series(num_hidden_layers: int) -> np.ndarray:
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


class _Split:
  """K = U U^T + R for some kernel and points.

  Attributes:
    config: the kernel.
    dtype: of R's tiles.
    eigenvalue_bounds: mu [T] >= 0; R - diag(mu) is positive semi-definite.
  """

  def __init__(self, config: kernels.KernelConfig, x_train: np.ndarray):
    self.config = config
    self.dtype = np.dtype(np.float64)
    self.eigenvalue_bounds = np.zeros(len(x_train))
    self._dim = x_train.shape[1] + 1
    self._series = None
    if config.activation == 'relu':
      self._coefficients = _relu_series(config.num_hidden_layers)
      c = self._coefficients
      self._constant = float(c[0] + c[2] / self._dim)
      self._slope = float(c[1] + 3 * c[3] / (self._dim + 2))
      self._survey(x_train)

  def _survey(self, x_train: np.ndarray) -> None:
    """Chooses how R is computed from the largest cosine, and bounds mu."""
    z, sigma = self.points(x_train)
    largest, sums = _survey_cosines(z.astype(np.float32), sigma)
    if not largest < _MAX_SERIES_COSINE:
      return
    c = self._coefficients
    tails = np.cumsum((c * largest**np.arange(len(c)))[::-1])[::-1]
    series = c[:max(4, int(np.argmax(tails < _SERIES_ERROR)))].copy()
    series[0] -= self._constant
    series[1] -= self._slope
    self._series = tuple(float(value) for value in series)
    self.dtype = np.dtype(np.float32)
    for power, others in zip(_SURVEY_POWERS, sums, strict=True):
      # |rho|^j <= rho^power largest^(j - power): circles of degrees >= power.
      factor = np.sum(c[power:] * largest**np.arange(len(c) - power))
      circles = sigma * (sigma * (1 - np.sum(c[:power])) - factor * others)
      if np.min(circles) > np.min(self.eigenvalue_bounds):
        self.eigenvalue_bounds = circles

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

  def tile(self, z1: jax.Array, z2: jax.Array) -> jax.Array:
    """R without its scales between points z1 [a, D + 1] and z2 [b, D + 1]."""
    k12 = jnp.dot(z1, z2.T, precision=jax.lax.Precision.HIGHEST)
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


def _panels(num: int, size: int) -> list[slice]:
  return [slice(i, min(i + size, num)) for i in range(0, num, size)]


def _tile_panels(num: int) -> list[slice]:
  """Panels of nearly equal length; one compiled tile serves all."""
  size = _CPU_TILE if jax.default_backend() == 'cpu' else _ACCELERATOR_TILE
  count = -(-num // size)
  return _panels(num, -(-num // count))


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
  missing = length - len(rows)
  return np.pad(rows, ((0, missing), (0, 0))) if missing else rows


def _survey_cosines(z: np.ndarray,
                    sigma: np.ndarray) -> tuple[float, np.ndarray]:
  """(max |rho|, sum_j rho_ij^power sigma_j per power [P, T]) over j != i."""

  @functools.partial(jax.jit, static_argnames='same')
  def tile(z1, z2, s1, s2, same):
    rho = jnp.dot(z1, z2.T, precision=jax.lax.Precision.HIGHEST)
    if same:
      rho = rho * (1. - jnp.eye(len(rho), dtype=rho.dtype))
    powers = [rho**power for power in _SURVEY_POWERS]
    return (jnp.max(jnp.abs(rho)), jnp.stack([p @ s2 for p in powers]),
            jnp.stack([s1 @ p for p in powers]))

  panels = _tile_panels(len(z))
  length = panels[0].stop
  # Points that fill up the last panel have cosine 0 with all others.
  points = [jnp.asarray(_padded(z[panel], length)) for panel in panels]
  scales = [jnp.asarray(_padded(sigma[panel, None], length)[:, 0],
                        dtype=jnp.float32) for panel in panels]
  sums = np.zeros((len(_SURVEY_POWERS), len(panels), length))
  largest = 0.
  for i, _ in enumerate(panels):
    for j in range(i + 1):
      top, rows, columns = tile(points[i], points[j], scales[i], scales[j],
                                same=i == j)
      largest = max(largest, float(top))
      sums[:, i] += np.asarray(rows, np.float64)
      if i != j:
        sums[:, j] += np.asarray(columns, np.float64)
  # float32's rounding of cosines and of sums of positive terms is below this.
  return largest + 1e-5, 1.001 * sums.reshape(len(sums), -1)[:, :len(z)]


class _Remainder:
  """R of the training points, as an operator on blocks of vectors.

  Only tiles on and below the diagonal are made; each serves twice. Tiles are
  spread over all devices, and their products summed in float64.
  """

  def __init__(self, split: _Split, x_train: np.ndarray):
    self._split = split
    z, self._scale = split.points(x_train)
    features = split.features(x_train)
    # The diagonal is R's largest part: kept apart, and exact.
    self.diagonal = (kernels.nngp_diag(split.config, x_train)
                     - np.einsum('tf,tf->t', features, features))
    self._panels = _tile_panels(len(x_train))
    self._length = self._panels[0].stop
    # Devices that are not the default are only used if there are several.
    self._devices = jax.local_devices()
    z = z.astype(split.dtype)
    self._points = [[jax.device_put(_padded(z[panel], self._length), device)
                     for panel in self._panels] for device in self._devices]

    def off_diagonal(sum1, sum2, z1, z2, q1, q2):
      tile = split.tile(z1, z2)
      dot = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
      return sum1 + dot(tile, q2), sum2 + dot(tile.T, q1)

    def on_diagonal(sum1, z1, q1):
      tile = split.tile(z1, z1)
      tile = jnp.where(jnp.eye(len(tile), dtype=bool), 0., tile)
      return sum1 + jnp.dot(tile, q1, precision=jax.lax.Precision.HIGHEST)

    self._off_diagonal = jax.jit(off_diagonal, donate_argnums=(0, 1))
    self._on_diagonal = jax.jit(on_diagonal, donate_argnums=0)

  def apply(self, *blocks: np.ndarray) -> np.ndarray:
    """R [blocks], [T, m] float64, for blocks of together m columns."""
    num_columns = sum(block.shape[1] for block in blocks)
    num_devices = len(self._devices)
    sums, vectors = [], []
    for device in self._devices:
      vectors.append([])
      for panel in self._panels:
        rows = np.concatenate(
            [self._scale[panel, None] * block[panel] for block in blocks], 1)
        vectors[-1].append(jax.device_put(
            _padded(rows.astype(self._split.dtype), self._length), device))
      with jax.default_device(device):
        sums.append([jnp.zeros((self._length, num_columns), jnp.float64)
                     for _ in self._panels])
    for i, _ in enumerate(self._panels):
      device = i % num_devices
      z, q, s = self._points[device], vectors[device], sums[device]
      for j in range(i):
        s[i], s[j] = self._off_diagonal(s[i], s[j], z[i], z[j], q[i], q[j])
      s[i] = self._on_diagonal(s[i], z[i], q[i])
      if device == num_devices - 1:
        jax.block_until_ready(sums)  # Keeps the queue short.
    result = np.empty((len(self._scale), num_columns))
    for i, panel in enumerate(self._panels):
      rows = panel.stop - panel.start
      result[panel] = sum(np.asarray(part[i])[:rows] for part in sums)
      for part in sums:
        part[i] = None
      result[panel] *= self._scale[panel, None]
      result[panel] += self.diagonal[panel, None] * np.concatenate(
          [block[panel] for block in blocks], 1)
    return result


# Tall matrices, a panel of rows at a time.


def _inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
  """left^T right: a panel in the wider of their types, their sum in float64."""
  total = np.zeros((left.shape[1], right.shape[1]))
  for panel in _panels(len(left), _PANEL):
    total += left[panel].T @ right[panel]
  return total


def _gram(parts: Sequence[np.ndarray], scales: np.ndarray) -> np.ndarray:
  """[parts]^T diag(scales^2) [parts] of columns side by side, in float64."""
  total = 0.
  for panel in _panels(len(scales), _PANEL):
    rows = np.concatenate([part[panel] for part in parts], 1) * (
        scales[panel, None])
    total = total + rows.T @ rows
  return total


def _times(parts: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
  """[parts] @ weights of columns side by side, in the type of the parts."""
  weights = weights.astype(parts[0].dtype)
  result = np.empty((len(parts[0]), weights.shape[1]), weights.dtype)
  for panel in _panels(len(result), _PANEL):
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
      _subtract(vectors, basis, [_inner(block, vectors) for block in basis])
    values, directions = scipy.linalg.eigh(_gram([vectors], ones))
    kept = values > drop**2 * max(values[-1], np.finfo(np.float64).tiny)
    weights = (directions[:, kept] / np.sqrt(values[kept])).astype(
        vectors.dtype)
    for panel in _panels(len(vectors), _PANEL):
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
    for panel in _panels(len(vectors), _PANEL):
      vectors[panel] -= block[panel] @ part


class _Checkpoint:
  """Named sets of arrays in a folder, each written whole or not at all."""

  def __init__(self, path: Optional[PathLike], identity: str):
    self._folder = None if path is None else pathlib.Path(path)
    self._identity = identity
    if self._folder is None:
      return
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      for left in self._folder.glob('.*.tmp'):
        left.unlink()
    except OSError as error:
      raise ValueError(f'checkpoint_path cannot be used: {path}: '
                       f'{error.strerror}.') from error

  def save(self, name: str, arrays: Mapping[str, Any]) -> None:
    if self._folder is None:
      return
    path = self._folder / f'{name}.npz'
    temporary = self._folder / f'.{name}.{os.getpid()}.tmp'
    try:
      with open(temporary, 'wb') as stream:
        np.savez(stream, identity=self._identity, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
      os.replace(temporary, path)
    except OSError as error:
      temporary.unlink(missing_ok=True)
      raise ValueError(
          f'cannot write the checkpoint {path}: {error.strerror}.') from error

  def load(self, name: str) -> Optional[dict[str, np.ndarray]]:
    if self._folder is None:
      return None
    path = self._folder / f'{name}.npz'
    try:
      with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    except FileNotFoundError:
      return None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
      raise ValueError(f'the checkpoint {path} cannot be read ({error}): '
                       'remove its folder.') from error
    if str(arrays.pop('identity', None)) != self._identity:
      raise ValueError(f'the checkpoint {path} is of another computation: '
                       'remove its folder or name another.')
    return arrays


# The three computations that apply R. Each says which vectors it wants R
# applied to, and takes the product; so they can share a pass.


class _Lanczos:
  """(R + jitter I)^1/2 z by Lanczos' method, with a bound of the error.

  In the Krylov space of z, R is a tridiagonal matrix.
  """

  def __init__(self, normals: np.ndarray, eigenvalue_bound: float):
    self._eigenvalue = eigenvalue_bound + posterior.SAMPLE_JITTER
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
    # t = scale tan(angle): the midpoint rule on (0, pi / 2).
    angles = (np.arange(2000) + 0.5) * np.pi / 4000
    scale = np.sqrt(max(values[-1], self._eigenvalue))
    squares = (scale * np.tan(angles))**2
    last = np.abs((directions[0] * directions[-1])
                  @ (1 / (np.maximum(values, 0.)[:, None] + squares)))
    integrand = (self.off_diagonal[-1] * last * squares
                 / (self._eigenvalue + squares) * scale / np.cos(angles)**2)
    integral = 2 / np.pi * np.sum(integrand) * np.pi / 4000
    return float(self._norm * integral / np.sqrt(len(self.vectors)))

  def state(self) -> dict[str, np.ndarray]:
    return {'vectors': self.vectors, 'diagonal': self.diagonal,
            'off_diagonal': self.off_diagonal}

  def restore(self, state: Mapping[str, np.ndarray]) -> None:
    for name in self.state():
      setattr(self, name, state[name])


class _Krylov:
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

  Args:
    prior_variances: k(x, x), [n].
    scales: [T], of the metric in which residuals are measured.
  """

  def __init__(self, prior_variances: np.ndarray, scales: np.ndarray):
    self._num = len(prior_variances)
    self.prior = prior_variances
    self.scales = scales
    self.blocks: list[np.ndarray] = []
    self.columns: list[np.ndarray] = []
    self.error = 0.

  def start(self, features: np.ndarray, features_eval: np.ndarray,
            cross: np.ndarray, extra: np.ndarray, dtype: np.dtype) -> None:
    """From U, and the sides k(x_train, x) [T, n] and extra [T, m]."""
    block = _orthonormalise(features.copy(), []).astype(dtype)
    inside = _inner(block, features)
    sides = np.concatenate([cross, extra], 1)
    remainders = sides[:, :self._num]
    # U is taken out with its own coordinates: it is far larger than the rest.
    for panel in _panels(len(sides), _PANEL):
      remainders[panel] -= features[panel] @ features_eval.T
    sides_inside = _inner(block, sides)
    for panel in _panels(len(sides), _PANEL):
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
        [_inner(block, product) for block in self.blocks]))
    _subtract(product, self.blocks, self._split(self.columns[-1]))
    product = product.astype(self.rest.dtype, copy=False)
    self.rest_gram = _gram([self.rest, product], self.scales)
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
    inside = _inner(new, self.rest)
    self.sides = np.concatenate([self.sides, inside @ self.sides_rest])
    # Combinations of [rest, outside] other than those are what remains.
    norms = np.linalg.norm(weights, axis=0)
    directions, triangle, _ = scipy.linalg.qr(
        weights / np.where(norms > 0, norms, 1.), pivoting=True)
    pivots = np.abs(np.diagonal(triangle))
    directions = directions[:, np.count_nonzero(pivots > 1e-10 * pivots[0]):]
    rest = _times([self.rest, outside], directions)
    _subtract(rest, [new], [_inner(new, rest)])
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

  def variances(self, factor: np.ndarray
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Galerkin variances [n], residual norms [n], solutions [basis, n])."""
    sides = self.sides[:, :self._num]
    solutions = self.solve(factor, sides)
    variances = self.prior - np.einsum('mn,mn->n', sides, solutions)
    weights = self._residual_weights(solutions, self.sides_rest[:, :self._num])
    squares = np.einsum('pn,pn->n', weights, self.rest_gram @ weights)
    norms = (np.sqrt(np.maximum(squares, 0.))
             + self.error * np.max(self.scales)
             * np.linalg.norm(solutions, axis=0))
    return variances, norms, solutions

  def explained(self, solutions: np.ndarray, points: slice) -> np.ndarray:
    """k^T A^-1 k between some points and those of solutions."""
    return self.sides[:, :self._num][:, points].T @ solutions

  def project(self, vectors: np.ndarray) -> np.ndarray:
    """Q^T vectors, [basis, m]."""
    return np.concatenate([_inner(block, vectors) for block in self.blocks])

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


class _ConjugateGradients:
  """(K + s_e^2 I)^-1 y_e, all right-hand sides e in step with each other."""

  def __init__(self, features: np.ndarray, noise_variances: np.ndarray,
               remainder_mean: float, scales: np.ndarray):
    self._features = features
    self._scales = scales
    self._variances = noise_variances
    # U U^T + shift I, inverted by Woodbury's formula.
    self._shifts = noise_variances + remainder_mean
    gram = _inner(features, features)
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


class _Solver:
  """One call of `solve`: its arguments, checked, and its phases in order."""

  def __init__(self, kernel, x_train, x_eval, noise_stds, normals_train,
               normals_eval, noise, targets, reference, memory_budget_mb,
               checkpoint_path, std_tolerance, mean_tolerance,
               function_tolerance, max_block_steps, progress, block_priors):
    self._kernel = kernel
    self._x_train = _finite('x_train', x_train)
    self._x_eval = _finite('x_eval', x_eval)
    if (self._x_train.ndim != 2 or self._x_eval.ndim != 2
        or 0 in self._x_train.shape or not len(self._x_eval)
        or self._x_train.shape[1] != self._x_eval.shape[1]):
      raise ValueError('x_train and x_eval must have shapes [T, D] and [n, D], '
                       f'got {list(self._x_train.shape)} and '
                       f'{list(self._x_eval.shape)}.')
    num_train, input_dim = self._x_train.shape
    self._noise_stds = np.asarray(noise_stds, np.float64)
    if self._noise_stds.ndim != 1 or not len(self._noise_stds):
      raise ValueError('noise_stds must hold at least one noise level, got '
                       f'{noise_stds!r}.')
    for noise_std in self._noise_stds:
      checks.check_positive('every entry of noise_stds', float(noise_std))
    for name, value in (('memory_budget_mb', memory_budget_mb),
                        ('std_tolerance', std_tolerance),
                        ('mean_tolerance', mean_tolerance),
                        ('function_tolerance', function_tolerance)):
      checks.check_positive(name, value)
    checks.check_count('max_block_steps', max_block_steps)
    self._drawn = targets is None
    if self._drawn and (normals_train is None or noise is None):
      raise ValueError('give either targets, or normals_train and noise.')
    self._noise = self._normals = self._targets = None
    self._normals_eval = None
    if self._drawn:
      self._noise = _vector('noise', noise, num_train)
      self._normals = _vector('normals_train', normals_train,
                              num_train + num_features(kernel, input_dim))
      if normals_eval is not None:
        self._normals_eval = _finite('normals_eval', normals_eval)
        if (self._normals_eval.ndim != 1
            or not 1 <= len(self._normals_eval) <= len(self._x_eval)):
          raise ValueError(
              f'normals_eval must have shape [1..{len(self._x_eval)}], got '
              f'{list(self._normals_eval.shape)}.')
    else:
      if normals_train is not None or noise is not None or (
          normals_eval is not None):
        raise ValueError('with targets there are no normals and no noise.')
      if len(targets) != len(self._noise_stds):
        raise ValueError(f'targets must hold {len(self._noise_stds)} arrays, '
                         f'one per noise level, got {len(targets)}.')
      self._targets = np.stack([_vector('targets', y, num_train)
                                for y in targets])
    self._noise_variances = np.array([
        posterior.noise_variance(
            noise_std, kernels.nngp_diag(kernel, self._x_train), reference)
        for noise_std in self._noise_stds])
    self._budget_mb = memory_budget_mb
    self._std_tolerance = std_tolerance
    self._mean_tolerance = mean_tolerance
    self._function_tolerance = function_tolerance
    self._max_block_steps = max_block_steps
    self._progress = progress
    self._block_priors = block_priors
    self._checkpoint = _Checkpoint(checkpoint_path, self._identity())
    self._num_passes = 0
    self._started = time.monotonic()

  def _identity(self) -> str:
    """A checksum of all that the result follows from."""
    sha = hashlib.sha256(repr(
        (_CHECKPOINT_VERSION, self._kernel, self._x_train.shape,
         self._std_tolerance, self._mean_tolerance, self._function_tolerance,
         self._max_block_steps)).encode())
    for array in (self._x_train, self._x_eval, self._noise_stds,
                  self._noise_variances, self._noise, self._normals,
                  self._normals_eval, self._targets):
      sha.update(b'none' if array is None else np.ascontiguousarray(array))
    return sha.hexdigest()

  def run(self) -> Solution:
    """All phases, each from its checkpoint where there is one."""
    self._check_memory(4)
    self._split = _Split(self._kernel, self._x_train)
    self._check_memory(self._split.dtype.itemsize)
    self._remainder = _Remainder(self._split, self._x_train)
    self._features = self._split.features(self._x_train)
    # Residuals are measured such that their squares bound r^T A^-1 r at the
    # smallest noise; other levels divide by a factor.
    self._metric = self._split.eigenvalue_bounds + np.min(self._noise_variances)
    self._krylov = _Krylov(kernels.nngp_diag(self._kernel, self._x_eval),
                           1 / np.sqrt(self._metric))
    self._lanczos = None
    if self._drawn:
      self._lanczos = _Lanczos(self._normals[:len(self._x_train)],
                               self._eigenvalue_bound)
    history = self._run_variances()
    function_error = 0.
    if self._drawn:
      function_error = self._run_function()
    return self._run_means(history, function_error)

  def _check_memory(self, itemsize: int) -> None:
    need = self._memory_mb(1, itemsize)
    if need > self._budget_mb:
      raise ValueError(
          f'memory_budget_mb must be at least {need:.0f} at T = '
          f'{len(self._x_train)}, D = {self._x_train.shape[1]} and '
          f'{len(self._x_eval)} evaluation points, got {self._budget_mb:g}.')

  def _memory_mb(self, num_block_steps: int,
                 itemsize: Optional[int] = None) -> float:
    return estimate_memory_mb(*self._x_train.shape, len(self._x_eval),
                              num_block_steps,
                              itemsize or self._split.dtype.itemsize)

  def _run_variances(self) -> np.ndarray:
    """Block steps until the stds are exact enough; bounds [steps, E].

    Lanczos' method for f takes a step in every pass.
    """
    krylov = self._krylov
    saved = self._load('step_0')
    if saved is None:
      extra = (self._targets if self._targets is not None else
               np.stack([self._normals[:len(self._x_train)], self._noise]))
      krylov.start(self._features, self._split.features(self._x_eval),
                   self._cross(slice(None)), extra.T, self._split.dtype)
      self._save('step_0', block=krylov.blocks[0], features=krylov.features,
                 sides=krylov.sides, rest=krylov.rest)
    else:
      krylov.set_start(**saved)
    history = []
    while True:
      step = len(krylov.blocks)
      saved = self._load(f'step_{step}')
      if saved is not None:
        history.append(saved['bounds'])
        krylov.restore(saved)
        if self._lanczos is not None:
          self._lanczos.restore(saved)
      else:
        product, tile_error = self._block_product()
        outside = krylov.take(product, tile_error)
        del product
        history.append(np.array([
            self._stds(*krylov.variances(krylov.factor(variance)), variance)[1]
            for variance in self._noise_variances]))
      error = float(np.max(history[-1])) / self._std_tolerance
      full = (step == self._max_block_steps
              or self._memory_mb(step + 1) > self._budget_mb)
      if saved is None:
        if error > 1 and not full:
          krylov.expand(outside,
                        self._noise_variances[np.argmax(history[-1])])
        del outside
        lanczos = {} if self._lanczos is None else self._lanczos.state()
        self._save(f'step_{step}', bounds=history[-1], **krylov.state(),
                   **lanczos)
        self._tell('variances', step, error)
      if len(krylov.blocks) == step:
        return np.array(history)

  def _block_product(self) -> tuple[np.ndarray, float]:
    """R Q_j [T, b_j] of the last block, and an estimate of its error.

    The error is that of some rows, against rows of R made in float64.
    """
    block = self._krylov.blocks[-1]
    wanted = [block]
    if self._lanczos is not None:
      wanted.append(self._lanczos.wanted())
    product = self._apply(*wanted)
    if self._lanczos is not None:
      self._lanczos.take(product[:, block.shape[1]:])
      product = product[:, :block.shape[1]]
    rows = self._checked_rows()
    exact = kernels.nngp(self._kernel, self._x_train[rows], self._x_train)
    exact -= self._features[rows] @ self._features.T
    error = np.linalg.norm(_inner(exact.T, block) - product[rows])
    return product, float(error * np.sqrt(len(self._x_train) / len(rows)))

  def _stds(self, variances: np.ndarray, residual_norms: np.ndarray,
            solutions: np.ndarray, noise_variance: float
            ) -> tuple[np.ndarray, float]:
    """Stds [n], ridge included, and a bound of their largest relative error."""
    excess = residual_norms**2 * self._metric_factor(noise_variance)
    # What tiles round, and by what Q is not orthonormal.
    rounding = (self._krylov.error * np.einsum('mn,mn->n', solutions, solutions)
                + np.finfo(self._split.dtype).eps * self._krylov.prior)
    lowest = np.maximum(variances - excess - rounding, 0.)
    highest = np.maximum(variances + rounding, 0.)
    lowest, middle, highest = (
        np.sqrt(values + posterior.KERNEL_RIDGE)
        for values in (lowest, 0.5 * (lowest + highest), highest))
    return middle, float(np.max(
        np.maximum(middle / lowest - 1, 1 - middle / highest)))

  def _metric_factor(self, noise_variance: float) -> float:
    """At most this times a squared norm in our metric bounds r^T A^-1 r."""
    bounds = self._split.eigenvalue_bounds + noise_variance
    return float(np.max(self._metric / bounds))

  @property
  def _eigenvalue_bound(self) -> float:
    return float(np.min(self._split.eigenvalue_bounds))

  def _run_function(self) -> float:
    """Lanczos steps until f is exact enough, its error; makes the targets."""
    lanczos = self._lanczos
    saved = self._load('function')
    if saved is not None:
      lanczos.restore(saved)
    while lanczos.error() > self._function_tolerance and (
        lanczos.num_steps < min(_MAX_LANCZOS_STEPS, len(self._x_train))):
      lanczos.take(self._apply(lanczos.wanted()))
      self._save('function', **lanczos.state())
      self._tell('function', lanczos.num_steps,
                 lanczos.error() / self._function_tolerance)
    self._function = lanczos.value() + (
        self._features @ self._normals[len(self._x_train):])
    self._targets = (self._function
                     + self._noise_stds[:, None] * self._noise[None, :])
    return lanczos.error()

  def _run_means(self, history: np.ndarray,
                 function_error: float) -> Solution:
    """Conjugate gradients until the means are exact enough."""
    krylov = self._krylov
    targets, variances = self._targets.T, self._noise_variances
    if self._normals_eval is not None:
      # f at x_eval is drawn given f at x_train: one more posterior.
      targets = np.concatenate([targets, self._function[:, None]], 1)
      variances = np.append(variances, posterior.SAMPLE_JITTER)
    sides = krylov.project(targets)
    guess, stds, allowed, solutions, lengths = [], [], [], [], []
    covariances = []
    for e, variance in enumerate(variances):
      factor = krylov.factor(variance)
      guess.append(krylov.solve(factor, sides[:, e:e + 1]))
      values, norms, solution = krylov.variances(factor)
      stds.append(self._stds(values, norms, solution, variance)[0])
      # Of the residual's norm, such that its product with that of k is small.
      allowed.append(self._mean_tolerance / self._metric_factor(variance)
                     / np.max(norms / stds[-1]))
      lengths.append(np.max(np.linalg.norm(solution, axis=0) / stds[-1]))
      solutions.append(solution)
      covariances.append(self._block_covariances(solution, stds[-1]))
    del factor
    gradients = _ConjugateGradients(
        self._features, variances, float(np.mean(self._remainder.diagonal)),
        krylov.scales)
    gradients.start(targets, krylov.lift(np.concatenate(guess, 1)))
    saved = self._load('means')
    step = 0
    if saved is not None:
      step = int(saved.pop('step'))
      gradients.restore(saved)
    while not step or (np.any(gradients.norms() > allowed)
                       and step < _MAX_CG_STEPS):
      gradients.take(self._apply(gradients.wanted()))
      step += 1
      self._save('means', step=step, **gradients.state())
      self._tell('means', step,
                 float(np.max(gradients.norms() / allowed)))
    means = self._cross_times(gradients.weights)
    corrections = krylov.project(gradients.residuals)
    for e, solution in enumerate(solutions):
      means[:, e] += solution.T @ corrections[:, e]
    num = len(self._noise_stds)
    # Residuals are known up to what tiles and recursions have rounded.
    rounding = self._residual_errors(targets, variances, gradients)
    norms = gradients.norms() + rounding * np.max(krylov.scales)
    mean_errors = self._mean_tolerance * norms / allowed + lengths * rounding
    eval_function = None
    if self._normals_eval is not None:
      eval_function = self._draw_eval(means[:, -1], solutions[-1])
    return Solution(
        noise_stds=self._noise_stds, noise_variances=self._noise_variances,
        targets=self._targets,
        weights=np.ascontiguousarray(gradients.weights[:, :num].T),
        moments=[posterior.Moments(mean=means[:, e].copy(), std=stds[e],
                                   covariances=covariances[e])
                 for e in range(num)],
        std_error_bounds=history[-1], mean_error_bounds=mean_errors[:num],
        residual_norms=(np.linalg.norm(gradients.residuals, axis=0)
                        + rounding)[:num],
        converged=bool(np.all(history[-1] <= self._std_tolerance)
                       and np.all(mean_errors <= self._mean_tolerance)
                       and function_error <= self._function_tolerance),
        function=self._function if self._drawn else None,
        eval_function=eval_function,
        function_error=function_error if self._drawn else None,
        eigenvalue_bound=self._eigenvalue_bound,
        std_error_history=history, tile_error=krylov.error,
        tile_dtype=self._split.dtype.name, num_passes=self._num_passes,
        memory_mb=self._memory_mb(len(history)), seconds=self._seconds())

  def _residual_errors(self, targets: np.ndarray, variances: np.ndarray,
                       gradients: _ConjugateGradients) -> np.ndarray:
    """Estimated |computed - true residual|, [E], from rows in float64."""
    rows = self._checked_rows()
    exact = (targets[rows] - variances * gradients.weights[rows]
             - kernels.nngp(self._kernel, self._x_train[rows], self._x_train)
             @ gradients.weights)
    return (np.linalg.norm(exact - gradients.residuals[rows], axis=0)
            * np.sqrt(len(self._x_train) / len(rows)))

  def _checked_rows(self) -> np.ndarray:
    num_train = len(self._x_train)
    return np.random.default_rng(0).choice(
        num_train, min(_NUM_CHECKED_ROWS, num_train), replace=False)

  def _draw_eval(self, mean: np.ndarray, solution: np.ndarray) -> np.ndarray:
    """f at the last points of x_eval, given f at x_train."""
    num = len(self._normals_eval)
    covariance = kernels.nngp(self._kernel, self._x_eval[-num:])
    last = slice(len(self._x_eval) - num, None)
    explained = self._krylov.explained(solution[:, last], last)
    covariance -= 0.5 * (explained + explained.T)
    factor = posterior.cholesky(covariance, posterior.SAMPLE_JITTER)
    return mean[-num:] + np.tril(factor) @ self._normals_eval

  def _block_covariances(self, solution: np.ndarray,
                         std: np.ndarray) -> Optional[np.ndarray]:
    """Joint covariances of the blocks asked for, ridge included.

    Galerkin's; their diagonals are the variances of `std`, to the same error.
    """
    if self._block_priors is None:
      return None
    tau = self._block_priors.shape[1]
    covariances = self._block_priors.copy()
    for i, covariance in enumerate(covariances):
      own = slice(i * tau, (i + 1) * tau)
      explained = self._krylov.explained(solution[:, own], own)
      covariance -= 0.5 * (explained + explained.T)
      covariance[np.diag_indices(tau)] = std[own]**2
    return covariances

  def _cross(self, rows: slice) -> np.ndarray:
    """k(x_train[rows], x_eval)."""
    return kernels.nngp(self._kernel, self._x_train[rows], self._x_eval)

  def _cross_times(self, weights: np.ndarray) -> np.ndarray:
    """k(x_eval, x_train) weights, [n, m]."""
    return sum(self._cross(panel).T @ weights[panel]
               for panel in _panels(len(weights), _PANEL))

  def _apply(self, *blocks: np.ndarray) -> np.ndarray:
    self._num_passes += 1
    return self._remainder.apply(*blocks)

  def _save(self, name: str, **arrays: Any) -> None:
    self._checkpoint.save(name, dict(arrays, seconds=self._seconds(),
                                     num_passes=self._num_passes))

  def _load(self, name: str) -> Optional[dict[str, np.ndarray]]:
    saved = self._checkpoint.load(name)
    if saved is not None:
      # The clock goes on from where the last saved step left it.
      self._started = min(self._started,
                          time.monotonic() - float(saved.pop('seconds')))
      self._num_passes = int(saved.pop('num_passes'))
    return saved

  def _tell(self, phase: str, step: int, error: float) -> None:
    if self._progress is not None:
      self._progress(Progress(phase, step, self._seconds(), error))

  def _seconds(self) -> float:
    return time.monotonic() - self._started


def _finite(name: str, values: Any) -> np.ndarray:
  values = np.asarray(values, dtype=np.float64)
  if not np.all(np.isfinite(values)):
    raise ValueError(f'{name} must be finite, got NaN or infinite values.')
  return values


def _vector(name: str, values: Any, num: int) -> np.ndarray:
  values = _finite(name, values)
  if values.shape != (num,):
    raise ValueError(f'{name} must have shape [{num}], got '
                     f'{list(values.shape)}.')
  return values
