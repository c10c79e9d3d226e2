"""The exact posterior without the kernel matrix, for T up to 100,000.

Dense ground truth needs the kernel of all T training points: 80 GB at 100,000.
This solver never stores it. It splits the kernel exactly,

  K = U U^T + R,

where U [T, D + 2] holds the kernel's constant and linear parts and R, the
remainder, is positive semi-definite and well conditioned where T is not much
larger than D^2: its diagonal is large, all else is small. `remainder` has the
split, and multiplies R with blocks of vectors, in tiles that are made, used and
forgotten; `krylov` has the spaces that come of it.

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
last term is left out, and bounded likewise (Cauchy & Schwarz). The others are
b^T w with the weights w = c + Q (Q^T A Q)^-1 Q^T q.

*The lower bound of A.* `remainder` bounds R from below by a diagonal mu >= 0:
so r^T A^-1 r <= sum_i r_i^2 / (mu_i + s^2).

*Rounding.* Tiles may be float32; the diagonal and sums of tiles are float64.
What tiles round is estimated at some rows from float64 kernels, and is part of
the bounds.

*The draw.* f = U a + (R + jitter I)^1/2 z with standard normals a and z has
covariance K + jitter I exactly; the square root is applied by Lanczos' method,
with a bound of its error. At validation points, f is drawn from its exact
distribution given f at the training points. Another way of drawing gives
another f from the same normals: the way is part of the problem.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import os
import pathlib
import time
from typing import Any
from typing import NamedTuple

from absl import logging
import numpy as np
import scipy.linalg

from enn_ensembles import checks
from enn_ensembles.machine import array_files
from enn_ensembles.machine import files
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import krylov as krylov_lib
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder

PathLike = str | os.PathLike

# What a posterior's errors may be: relative for the std, in posterior stds for
# the mean.
STD_TOLERANCE = 1e-4
MEAN_TOLERANCE = 1e-3
# Root mean square error of a drawn function: a tenth of its jitter's std.
FUNCTION_TOLERANCE = 1e-4

# Rows of R that are recomputed in float64 to measure the error of the tiles.
_NUM_CHECKED_ROWS = 32
# Rows of the equations that tell how well the weights solve them.
_NUM_RESIDUAL_ROWS = 256
_MAX_CG_STEPS = 200
_MAX_LANCZOS_STEPS = 300
_CHECKPOINT_VERSION = 3


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
    residual_norms: |y - (K + s^2 I) weights|, estimated from rows, [E].
    converged: whether all bounds, the function's too, meet their tolerances.
    function: f at x_train, [T]; None if targets were given, as the next two.
    eval_function: f at the last points of x_eval, [number of normals_eval].
    rest_function: f at the points before them, given eval_function; None where
      it was not asked for.
    function_error: bound of the root mean square error of f.
    eigenvalue_bound: lambda_min(K) is at least this.
    std_error_history: std_error_bounds after every block step, [steps, E].
    std_history: the stds then, [steps, E, n].
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
  function: np.ndarray | None
  eval_function: np.ndarray | None
  rest_function: np.ndarray | None
  function_error: float | None
  eigenvalue_bound: float
  std_error_history: np.ndarray
  std_history: np.ndarray
  tile_error: float
  tile_dtype: str
  num_passes: int
  memory_mb: float
  seconds: float

  @property
  def num_block_steps(self) -> int:
    return len(self.std_error_history)


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
  tiles = 3 * itemsize * min(remainder.ACCELERATOR_TILE, num_train)**2
  return (num_train * columns + small + tiles) / 1e6


def solve(kernel: kernels.KernelConfig, x_train: np.ndarray,
          x_eval: np.ndarray, noise_stds: Sequence[float], *,
          normals_train: np.ndarray | None = None,
          normals_eval: np.ndarray | None = None,
          normals_rest: np.ndarray | None = None,
          noise: np.ndarray | None = None,
          targets: Sequence[np.ndarray] | None = None,
          reference: str = 'bayes', memory_budget_mb: float = 14_000.,
          block_priors: np.ndarray | None = None,
          checkpoint_path: PathLike | None = None,
          std_tolerance: float = STD_TOLERANCE,
          mean_tolerance: float = MEAN_TOLERANCE,
          function_tolerance: float = FUNCTION_TOLERANCE,
          max_block_steps: int = 12, strict: bool = True,
          progress: Callable[[Progress], None] | None = None) -> Solution:
  """Draws a function, and its posteriors under all noise levels.

  Either gives `targets`, or what they are drawn from: y = f + epsilon noise.

  Args:
    kernel: the prior.
    x_train: [T, D] float64.
    x_eval: where the posteriors are wanted, [n, D].
    noise_stds: epsilon per noise level.
    normals_train: [T + remainder.num_features(kernel, D)] standard normals, z
      then a.
    normals_eval: [v] standard normals for f at the last v points of x_eval;
      None for none.
    normals_rest: [n - v] standard normals for f at the points before them,
      drawn given all other values of f: they change none of these. None for
      none; needs normals_eval.
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
  config = _Config(reference, memory_budget_mb, std_tolerance, mean_tolerance,
                   function_tolerance, max_block_steps)
  normals = _Normals(normals_train, normals_eval, normals_rest, noise)
  solver = _Solver(kernel, x_train, x_eval, noise_stds, config, normals,
                   targets, block_priors, checkpoint_path, progress)
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
               rows: Sequence[int] | np.ndarray) -> np.ndarray:
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
  for block in remainder.panels(len(rows), 64):
    residuals[block] -= kernels.nngp(kernel, x_train[rows[block]],
                                     x_train) @ weights
  return residuals


class _Checkpoint:
  """Named sets of arrays in a folder, each written whole or not at all.

  Each belongs to all that were saved before it. So what lies there is taken up
  to the first that is missing or damaged: once a step is computed again, the
  later ones are of no use.
  """

  def __init__(self, path: PathLike | None, identity: str):
    self._folder = None if path is None else pathlib.Path(path)
    self._identity = identity
    self._resuming = True
    if self._folder is None:
      return
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise ValueError(f'checkpoint_path cannot be used: {path}: '
                       f'{error.strerror}.') from error

  def save(self, name: str, arrays: Mapping[str, Any]) -> None:
    """Keeps a set; that it cannot be kept is a warning, not an error."""
    self._resuming = False
    if self._folder is None:
      return
    try:
      # Where processes cannot claim it, another may have removed it.
      self._folder.mkdir(parents=True, exist_ok=True)
      array_files.write(self._path(name), self._identity, {
          key: np.asarray(value) for key, value in arrays.items()})
    except (OSError, files.FileError) as error:
      logging.warning('no checkpoint, the computation goes on without: %s',
                      error)

  def load(self, name: str) -> dict[str, np.ndarray] | None:
    """A set that was kept; None if it must be computed.

    Raises:
      ValueError: it is of another computation.
    """
    if self._folder is None or not self._resuming:
      return None
    path = self._path(name)
    try:
      return dict(array_files.read(path, self._identity).arrays)
    except FileNotFoundError:
      return None
    except array_files.StaleError as error:
      if error.identity is not None:
        raise ValueError(f'the checkpoint {path} is of another computation: '
                         'remove its folder or name another.') from None
      logging.warning('the checkpoint %s is not used: %s.', path, error)
    except OSError as error:
      logging.warning('the checkpoint %s is not used: %s.', path,
                      error.strerror)
    return None

  def _path(self, name: str) -> pathlib.Path:
    assert self._folder is not None
    return self._folder / f'{name}.arrays'


class _LargerCosineError(Exception):
  """A cosine between training points is beyond what tiles are made for."""

  def __init__(self, largest: float):
    super().__init__(largest)
    self.largest = largest


def _pack_survey(survey: remainder.Survey | None) -> dict[str, Any]:
  """What a checkpoint holds of it."""
  return {} if survey is None else {
      f'survey_{name}': value for name, value in survey._asdict().items()}


def _unpack_survey(arrays: Mapping[str, np.ndarray]
                   ) -> remainder.Survey | None:
  """Inverse of `_pack_survey`."""
  if 'survey_largest' not in arrays:
    return None
  return remainder.Survey(**{name: arrays[f'survey_{name}']
                             for name in remainder.Survey._fields})


@dataclasses.dataclass(frozen=True)
class _Config:
  """How exact a solution is to be and what it may take; see `solve`."""
  reference: str
  memory_budget_mb: float
  std_tolerance: float
  mean_tolerance: float
  function_tolerance: float
  max_block_steps: int

  def __post_init__(self):
    for name in ('memory_budget_mb', 'std_tolerance', 'mean_tolerance',
                 'function_tolerance'):
      checks.check_positive(name, getattr(self, name))
    checks.check_count('max_block_steps', self.max_block_steps)


class _Normals(NamedTuple):
  """The standard normals that f and the labels are made of; see `solve`."""
  train: np.ndarray | None
  eval: np.ndarray | None
  rest: np.ndarray | None
  noise: np.ndarray | None


class _Solver:
  """One call of `solve`: its arguments, checked, and its phases in order."""

  def __init__(self, kernel: kernels.KernelConfig, x_train: np.ndarray,
               x_eval: np.ndarray, noise_stds: Sequence[float],
               config: _Config, normals: _Normals,
               targets: Sequence[np.ndarray] | None,
               block_priors: np.ndarray | None,
               checkpoint_path: PathLike | None,
               progress: Callable[[Progress], None] | None):
    self._kernel, self._config = kernel, config
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
    self._drawn = targets is None
    # Empty where targets are given.
    self._noise, self._normals = np.zeros(0), np.zeros(0)
    self._targets: np.ndarray | None = None
    self._normals_eval = self._normals_rest = None
    if targets is None:
      if normals.train is None or normals.noise is None:
        raise ValueError('give either targets, or normals_train and noise.')
      self._noise = _vector('noise', normals.noise, num_train)
      self._normals = _vector(
          'normals_train', normals.train,
          num_train + remainder.num_features(kernel, input_dim))
      if normals.eval is not None:
        self._normals_eval = _finite('normals_eval', normals.eval)
        if (self._normals_eval.ndim != 1
            or not 1 <= len(self._normals_eval) <= len(self._x_eval)):
          raise ValueError(
              f'normals_eval must have shape [1..{len(self._x_eval)}], got '
              f'{list(self._normals_eval.shape)}.')
      if normals.rest is not None:
        if self._normals_eval is None:
          raise ValueError('normals_rest must come with normals_eval, got '
                           'none.')
        self._normals_rest = _vector(
            'normals_rest', normals.rest,
            len(self._x_eval) - len(self._normals_eval))
    else:
      if any(values is not None for values in normals):
        raise ValueError('with targets there are no normals and no noise.')
      if len(targets) != len(self._noise_stds):
        raise ValueError(f'targets must hold {len(self._noise_stds)} arrays, '
                         f'one per noise level, got {len(targets)}.')
      self._targets = np.stack([_vector('targets', y, num_train)
                                for y in targets])
    self._noise_variances = np.array([
        posterior.noise_variance(
            noise_std, kernels.nngp_diag(kernel, self._x_train),
            config.reference)
        for noise_std in self._noise_stds])
    self._progress = progress
    self._block_priors = block_priors
    self._checkpoint = _Checkpoint(checkpoint_path, self._identity())
    self._num_passes = 0
    self._started = time.monotonic()

  def _identity(self) -> str:
    """A checksum of all that the result follows from."""
    sha = hashlib.sha256(repr(
        (_CHECKPOINT_VERSION, self._kernel, self._x_train.shape,
         self._config.std_tolerance, self._config.mean_tolerance,
         self._config.function_tolerance,
         self._config.max_block_steps)).encode())
    noise, normals = (
        (self._noise, self._normals) if self._drawn else (None, None))
    for array in (self._x_train, self._x_eval, self._noise_stds,
                  self._noise_variances, noise, normals,
                  self._normals_eval, self._normals_rest, self._targets):
      sha.update(b'none' if array is None else np.ascontiguousarray(array))
    return sha.hexdigest()

  def run(self) -> Solution:
    """All phases, each from its checkpoint where there is one."""
    self._check_memory(4)
    saved = self._load('cosines')
    largest = None if saved is None else float(saved['largest'])
    try:
      return self._run(largest)
    except _LargerCosineError as error:
      # Tiles did not reach that far. Rare: points that are nearly the same.
      self._save('cosines', largest=error.largest)
      return self._run(error.largest)

  def _run(self, largest_cosine: float | None) -> Solution:
    """The same, with tiles for a largest cosine; None guesses it."""
    self._split = remainder.Split(self._kernel, self._x_train, largest_cosine)
    self._check_memory(self._split.dtype.itemsize)
    self._remainder = remainder.Remainder(self._split, self._x_train)
    self._features = self._split.features(self._x_train)
    self._krylov = krylov_lib.Krylov(
        kernels.nngp_diag(self._kernel, self._x_eval))
    self._lanczos = None
    if self._drawn:
      self._lanczos = krylov_lib.Lanczos(self._normals[:len(self._x_train)])
    history, stds = self._run_variances()
    function_error = 0.
    if self._drawn:
      function_error = self._run_function()
    return self._run_means(history, stds, function_error)

  def _take_survey(self, survey: remainder.Survey | None) -> None:
    """What bounds need to know of R; None where it needs no survey."""
    if survey is not None and not self._split.accept(survey):
      raise _LargerCosineError(survey.largest)
    # Residuals are measured such that their squares bound r^T A^-1 r at the
    # smallest noise; other levels divide by a factor.
    self._metric = self._split.eigenvalue_bounds + np.min(self._noise_variances)
    self._krylov.scales = 1 / np.sqrt(self._metric)
    if self._lanczos is not None:
      self._lanczos.eigenvalue_bound = self._eigenvalue_bound

  def _check_memory(self, itemsize: int) -> None:
    need = self._memory_mb(1, itemsize)
    if need > self._config.memory_budget_mb:
      raise ValueError(
          f'memory_budget_mb must be at least {need:.0f} at T = '
          f'{len(self._x_train)}, D = {self._x_train.shape[1]} and '
          f'{len(self._x_eval)} evaluation points, got '
          f'{self._config.memory_budget_mb:g}.')

  def _memory_mb(self, num_block_steps: int,
                 itemsize: int | None = None) -> float:
    num_train, input_dim = self._x_train.shape
    return estimate_memory_mb(num_train, input_dim, len(self._x_eval),
                              num_block_steps,
                              itemsize or self._split.dtype.itemsize)

  def _run_variances(self) -> tuple[np.ndarray, np.ndarray]:
    """Block steps until the stds are exact enough.

    Lanczos' method for f takes a step in every pass.

    Returns:
      Bounds [steps, E] and stds [steps, E, n].
    """
    krylov = self._krylov
    saved = self._load('step_0')
    if saved is None or saved['block'].dtype != self._split.dtype:
      extra = (self._targets if self._targets is not None else
               np.stack([self._normals[:len(self._x_train)], self._noise]))
      krylov.start(self._features, self._split.features(self._x_eval),
                   self._cross(slice(None)), extra.T, self._split.dtype)
      self._save('step_0', block=krylov.blocks[0], features=krylov.features,
                 sides=krylov.sides, rest=krylov.rest)
    else:
      krylov.set_start(**saved)
    history, stds = [], []
    while True:
      step, survey, outside = len(krylov.blocks), None, np.zeros(0)
      saved = self._load(f'step_{step}')
      if saved is not None:
        if step == 1:
          self._take_survey(_unpack_survey(saved))
        history.append(saved['bounds'])
        stds.append(saved['stds'])
        krylov.restore(saved)
        if self._lanczos is not None:
          self._lanczos.restore(saved)
      else:
        product, tile_error, survey = self._block_product(survey=step == 1)
        outside = krylov.take(product, tile_error)
        del product
        found = [
            self._stds(krylov.variances(krylov.factor(variance)), variance)
            for variance in self._noise_variances]
        stds.append(np.stack([std for std, _ in found]))
        history.append(np.array([bound for _, bound in found]))
      error = float(np.max(history[-1])) / self._config.std_tolerance
      full = (step == self._config.max_block_steps
              or self._memory_mb(step + 1) > self._config.memory_budget_mb)
      if saved is None:
        if error > 1 and not full:
          krylov.expand(outside,
                        self._noise_variances[np.argmax(history[-1])])
        del outside
        lanczos = {} if self._lanczos is None else self._lanczos.state()
        self._save(f'step_{step}', bounds=history[-1], stds=stds[-1],
                   **krylov.state(), **lanczos, **_pack_survey(survey))
        self._tell('variances', step, error)
      if len(krylov.blocks) == step:
        return np.array(history), np.array(stds)

  def _block_product(self, survey: bool) -> tuple[
      np.ndarray, float, remainder.Survey | None]:
    """R Q_j [T, b_j] of the last block, an estimate of its error, a survey.

    The error is that of some rows, against rows of R made in float64. The
    survey is None unless it is asked for and needed.
    """
    block = self._krylov.blocks[-1]
    wanted = [block]
    if self._lanczos is not None:
      wanted.append(self._lanczos.wanted())
    found = None
    if survey:
      self._num_passes += 1
      product, found = self._remainder.apply_and_survey(*wanted)
      self._take_survey(found)
    else:
      product = self._apply(*wanted)
    if self._lanczos is not None:
      self._lanczos.take(product[:, block.shape[1]:])
      product = product[:, :block.shape[1]]
    def difference(rows: np.ndarray) -> np.ndarray:
      exact = kernels.nngp(self._kernel, self._x_train[rows], self._x_train)
      exact -= self._features[rows] @ self._features.T
      return krylov_lib.inner(exact.T, block) - product[rows]

    error = np.linalg.norm(self._norm_from_rows(_NUM_CHECKED_ROWS, difference))
    return product, float(error), found

  def _stds(self, solved: krylov_lib.Galerkin, noise_variance: float
            ) -> tuple[np.ndarray, float]:
    """Stds [n], ridge included, and a bound of their largest relative error."""
    excess = solved.residual_norms**2 * self._metric_factor(noise_variance)
    # What tiles round, and by what Q is not orthonormal.
    rounding = solved.rounding + self._krylov.error * np.einsum(
        'mn,mn->n', solved.solutions, solved.solutions)
    lowest = np.maximum(solved.variances - excess - rounding, 0.)
    highest = np.maximum(solved.variances + rounding, 0.)
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
    assert lanczos is not None  # What is drawn has one.
    saved = self._load('function')
    if saved is not None:
      lanczos.restore(saved)
    while lanczos.error() > self._config.function_tolerance and (
        lanczos.num_steps < min(_MAX_LANCZOS_STEPS, len(self._x_train))):
      lanczos.take(self._apply(lanczos.wanted()))
      self._save('function', **lanczos.state())
      self._tell('function', lanczos.num_steps,
                 lanczos.error() / self._config.function_tolerance)
    self._function = lanczos.value() + (
        self._features @ self._normals[len(self._x_train):])
    self._targets = (self._function
                     + self._noise_stds[:, None] * self._noise[None, :])
    return lanczos.error()

  def _run_means(self, history: np.ndarray, std_history: np.ndarray,
                 function_error: float) -> Solution:
    """Conjugate gradients until the means are exact enough."""
    krylov = self._krylov
    assert self._targets is not None  # Given, or made by `_run_function`.
    targets, variances = self._targets.T, self._noise_variances
    if self._normals_eval is not None:
      # f at x_eval is drawn given f at x_train: one more posterior.
      targets = np.concatenate([targets, self._function[:, None]], 1)
      variances = np.append(variances, posterior.SAMPLE_JITTER)
    sides = krylov.project(targets)
    guess, stds, allowed, solutions, lengths = [], [], [], [], []
    covariances, factor = [], None
    for e, variance in enumerate(variances):
      factor = krylov.factor(variance)
      guess.append(krylov.solve(factor, sides[:, e:e + 1]))
      solved = krylov.variances(factor)
      solution, norms = solved.solutions, solved.residual_norms
      stds.append(self._stds(solved, variance)[0])
      # Of the residual's norm, such that its product with that of k is small.
      allowed.append(self._config.mean_tolerance / self._metric_factor(variance)
                     / np.max(norms / stds[-1]))
      lengths.append(np.max(np.linalg.norm(solution, axis=0) / stds[-1]))
      solutions.append(solution)
      covariances.append(self._block_covariances(solution, stds[-1]))
    del factor
    gradients = krylov_lib.ConjugateGradients(
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
    # Galerkin's correction: means of these weights are b^T c + a^T q.
    residuals = gradients.residuals
    assert residuals is not None  # There was a step.
    sides = krylov.project(residuals)
    weights = gradients.weights + krylov.lift(np.concatenate(
        [krylov.solve(krylov.factor(variance), sides[:, e:e + 1])
         for e, variance in enumerate(variances)], 1))
    means = self._cross_times(weights)
    num = len(self._noise_stds)
    # Residuals are known up to what tiles and recursions have rounded.
    rounding = self._norm_from_rows(_NUM_CHECKED_ROWS, lambda rows: (
        self._residuals(rows, targets, variances, gradients.weights)
        - residuals[rows]))
    norms = gradients.norms() + rounding * np.max(krylov.scales)
    mean_errors = (self._config.mean_tolerance * norms / allowed
                   + lengths * rounding)
    if self._split.dtype == np.float64:
      # Of float32, tiles round far more than this last product.
      sizes = self._cross_times(weights, np.abs)
      mean_errors += np.finfo(np.float64).eps * np.max(
          sizes / np.stack(stds, axis=1), axis=0)
    eval_function = rest_function = None
    if self._normals_eval is not None:
      eval_function, rest_function = self._draw_eval(means[:, -1],
                                                     solutions[-1])
    return Solution(
        noise_stds=self._noise_stds, noise_variances=self._noise_variances,
        targets=self._targets,
        weights=np.ascontiguousarray(weights[:, :num].T),
        moments=[posterior.Moments(mean=means[:, e].copy(), std=stds[e],
                                   covariances=covariances[e])
                 for e in range(num)],
        std_error_bounds=history[-1], mean_error_bounds=mean_errors[:num],
        residual_norms=self._norm_from_rows(
            _NUM_RESIDUAL_ROWS, lambda rows: self._residuals(
                rows, targets, variances, weights))[:num],
        converged=bool(np.all(history[-1] <= self._config.std_tolerance)
                       and np.all(mean_errors <= self._config.mean_tolerance)
                       and function_error <= self._config.function_tolerance),
        function=self._function if self._drawn else None,
        eval_function=eval_function, rest_function=rest_function,
        function_error=function_error if self._drawn else None,
        eigenvalue_bound=self._eigenvalue_bound,
        std_error_history=history, std_history=std_history,
        tile_error=krylov.error,
        tile_dtype=self._split.dtype.name, num_passes=self._num_passes,
        memory_mb=self._memory_mb(len(history)), seconds=self._seconds())

  def _residuals(self, rows: np.ndarray, targets: np.ndarray,
                 variances: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """targets - (K + s_e^2 I) weights at some rows, [rows, E], in float64."""
    return targets[rows] - variances * weights[rows] - kernels.nngp(
        self._kernel, self._x_train[rows], self._x_train) @ weights

  def _norm_from_rows(self, num_rows: int,
                      of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Estimated norms of the columns of a [T, m] of which rows are known."""
    rows = self._some_rows(num_rows)
    return np.linalg.norm(of(rows), axis=0) * np.sqrt(
        len(self._x_train) / len(rows))

  def _some_rows(self, num_rows: int) -> np.ndarray:
    num_train = len(self._x_train)
    return np.random.default_rng(0).choice(
        num_train, min(num_rows, num_train), replace=False)

  def _draw_eval(self, mean: np.ndarray, solution: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray | None]:
    """f at the last points of x_eval, and at the rest, given f at x_train."""
    assert self._normals_eval is not None
    num = len(self._normals_eval)
    last = slice(len(self._x_eval) - num, None)
    covariance = kernels.nngp(self._kernel, self._x_eval[-num:])
    explained = self._krylov.explained(solution[:, last], last)
    covariance -= 0.5 * (explained + explained.T)
    factor = np.tril(posterior.cholesky(covariance, posterior.SAMPLE_JITTER))
    function = mean[-num:] + factor @ self._normals_eval
    if self._normals_rest is None:
      return function, None
    rest = slice(0, len(self._x_eval) - num)
    cross = kernels.nngp(self._kernel, self._x_eval[last], self._x_eval[rest])
    cross -= 0.5 * (self._krylov.explained(solution[:, last], rest).T
                    + self._krylov.explained(solution[:, rest], last))
    whitened = scipy.linalg.solve_triangular(factor, cross, lower=True)
    covariance = kernels.nngp(self._kernel, self._x_eval[rest])
    explained = self._krylov.explained(solution[:, rest], rest)
    covariance -= 0.5 * (explained + explained.T) + whitened.T @ whitened
    factor = np.tril(posterior.cholesky(covariance, posterior.SAMPLE_JITTER))
    return function, (mean[rest] + whitened.T @ self._normals_eval
                      + factor @ self._normals_rest)

  def _block_covariances(self, solution: np.ndarray,
                         std: np.ndarray) -> np.ndarray | None:
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

  def _cross_times(self, weights: np.ndarray,
                   of: Callable[[np.ndarray], np.ndarray] = np.asarray
                   ) -> np.ndarray:
    """k(x_eval, x_train) weights, [n, m]; `of` is applied to both first."""
    return sum(of(self._cross(panel)).T @ of(weights[panel])
               for panel in remainder.panels(len(weights), krylov_lib.PANEL))

  def _apply(self, *blocks: np.ndarray) -> np.ndarray:
    self._num_passes += 1
    return self._remainder.apply(*blocks)

  def _save(self, name: str, **arrays: Any) -> None:
    self._checkpoint.save(name, dict(arrays, seconds=self._seconds(),
                                     num_passes=self._num_passes))

  def _load(self, name: str) -> dict[str, np.ndarray] | None:
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
