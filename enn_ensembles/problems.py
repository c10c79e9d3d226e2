"""Problems and their ground truth: the only place where a seed becomes keys.

A problem is regression on data from a function f drawn from the NNGP, y = f +
noise_std n, with the exact posterior of f at 1000 test and 1000 validation
points (Osband et al. 2021, arXiv 2107.08924), and labels at the latter, for
methods that select something. x, f and n are shared by all noise levels of one
(input_dim, data_ratio, seed): comparisons across noise
levels are paired, and one kernel serves them all. Everything else is drawn
independently.

Draws must be the same on every machine and with every version and flag of jax,
since results of months are compared. So a problem's seed becomes a key by
`jax.random.fold_in`, which no flag changes; the key seeds numpy's Philox
generator, whose raw bits are a published standard; and the bits become normals
by the inverse of the normal distribution function. (`jax.random.normal` depends
on jax_threefry_partitionable, its last digits on the device, and it compiles
for a second per shape.)

The expensive parts, f and the posteriors, can be kept in a cache folder
(`problem_cache`); whatever does not fit is made again.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import shutil
import time
from typing import (Any, Callable, Mapping, NamedTuple, Optional, Sequence,
                    Union)

import chex
import jax
import numpy as np
import scipy.special

from enn_ensembles import base
from enn_ensembles import config_checks as checks
from enn_ensembles import file_locks
from enn_ensembles import problem_cache
from enn_ensembles import results
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder

PathLike = Union[str, os.PathLike]

# How posteriors are computed: 'dense' factorises the kernel matrix of T^2
# entries, 'matrix_free' never stores it, 'auto' is dense where that fits.
SOLVERS = ('auto', 'dense', 'matrix_free')
# What a solver may hold, in MB. The same everywhere, so that 'auto' makes the
# same problem on every machine: the solvers draw f in different ways.
SOLVER_MEMORY_MB = 14_000.

# Test points whose joint covariance is kept.
JOINT_TAU = 10

# What a seed's keys are folded with: one constant per use, never reused.
_X_TRAIN_KEY = 1
_X_TEST_KEY = 2
_X_VAL_KEY = 3
_FUNCTION_KEY = 4
_NOISE_KEY = 5
_AGENT_KEY = 6
_EVALUATION_KEY = 7
_VAL_FUNCTION_KEY = 8
_VAL_NOISE_KEY = 9

# Seeds are 32-bit: the same key with and without x64.
_MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class ProblemConfig:
  """Names one problem.

  Attributes:
    input_dim: D_x.
    data_ratio: lambda; there are T = D_x lambda training points.
    noise_std: epsilon, the std of the noise in y.
    seed: which draw of the problem.
    reference: the noise variance of the ground truth: 'bayes', the true one, or
      'enn2021', that of published numbers (`posterior.noise_variance`).
    kernel: the prior that f is drawn from.
    num_test: test points.
    num_val: validation points.
  """
  input_dim: int
  data_ratio: float
  noise_std: float
  seed: int
  reference: str = 'bayes'
  kernel: kernels.KernelConfig = kernels.KernelConfig()
  num_test: int = 1000
  num_val: int = 1000

  def __post_init__(self):
    checks.check_count('input_dim', self.input_dim)
    checks.check_positive('data_ratio', self.data_ratio)
    checks.check_positive('noise_std', self.noise_std)
    checks.check_count('seed', self.seed, minimum=0)
    if self.seed > _MAX_SEED:
      raise ValueError(f'seed must be at most 2**32 - 1, got {self.seed}.')
    checks.check_choice('reference', self.reference, posterior.REFERENCES)
    if not isinstance(self.kernel, kernels.KernelConfig):
      raise ValueError(f'kernel must be a KernelConfig, got {self.kernel!r}.')
    checks.check_count('num_test', self.num_test)
    checks.check_count('num_val', self.num_val)
    if self.num_train < 1:
      raise ValueError(
          'input_dim * data_ratio must be at least one training point, got '
          f'{self.input_dim} * {self.data_ratio:g}.')

  @property
  def num_train(self) -> int:
    """T, the whole part of input_dim * data_ratio."""
    # Rounded first: 100 * 0.29 is 28.999999999999996.
    return int(round(self.input_dim * self.data_ratio, 9))

  @property
  def problem_id(self) -> str:
    """Readable and unique, e.g. 'D10_l1_e0.01_s0_bayes'.

    A kernel or sizes other than the default add a hash of them.
    """
    name = (f'D{self.input_dim}_l{_number(self.data_ratio)}'
            f'_e{_number(self.noise_std)}_s{self.seed}_{self.reference}')
    return name + self.settings_suffix

  @property
  def settings_suffix(self) -> str:
    """Empty for the default kernel and sizes, else a hash of them."""
    rest = {key: getattr(self, key)
            for key in ('kernel', 'num_test', 'num_val')}
    if rest == {key: getattr(ProblemConfig, key) for key in rest}:
      return ''
    return f'_{base.config_hash(rest)}'


@dataclasses.dataclass(frozen=True)
class GroundTruth:
  """How a posterior was computed, and how exact it is.

  Attributes:
    solver: 'dense' or 'matrix_free'.
    residual: |y_train - (K + s^2 I) weights| / |y_train|.
    mean_error: bound of |mean - exact mean| / std over all points.
    std_error: the same of |std - exact std| / exact std; of 'dense' the rounding
      error at a few points.
    seconds: wall time of its computation, shared evenly by the noise levels
      that were computed together; the draw of f apart.
  """
  solver: str
  residual: float
  mean_error: float
  std_error: float
  seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
  """Data, and the exact posterior to compare an agent with.

  All arrays are float64 numpy, and read-only: problems that differ in their
  noise level only share x_train, x_test and x_val.

  Attributes:
    config: None for data that somebody brought.
    x_train: [T, D].
    y_train: [T, 1].
    x_test: [num_test, D].
    x_val: [num_val, D].
    test_mean: posterior mean of the noise-free function at x_test, [num_test].
    test_std: its std, sqrt(variance + 1e-6), [num_test].
    val_mean: the same at x_val, [num_val].
    val_std: [num_val].
    y_val: labels at x_val, made like y_train, [num_val, 1]; None where brought
      data have none. Agents do not see them.
    test_covariances: joint posterior covariances, ridge included, of
      neighbouring test points, [num_test // tau, tau, tau] with tau = JOINT_TAU.
    weights: (K + s^2 I)^-1 y_train, [T]: what any posterior mean is made from.
    ground_truth: how the posterior was computed.
    noise_std: epsilon.
    reference: whose noise variance the posterior assumes.
    kernel: the prior of the posterior.
  """
  config: Optional[ProblemConfig]
  x_train: np.ndarray
  y_train: np.ndarray
  x_test: np.ndarray
  x_val: np.ndarray
  test_mean: np.ndarray
  test_std: np.ndarray
  val_mean: np.ndarray
  val_std: np.ndarray
  y_val: Optional[np.ndarray]
  test_covariances: np.ndarray
  weights: np.ndarray
  ground_truth: GroundTruth
  noise_std: float
  reference: str
  kernel: kernels.KernelConfig

  @property
  def data(self) -> base.Data:
    """What an agent learns from."""
    return base.Data(x=self.x_train, y=self.y_train)

  @property
  def prior(self) -> base.PriorKnowledge:
    """What an agent is told besides."""
    return base.PriorKnowledge(
        input_dim=self.x_train.shape[1], num_train=len(self.x_train),
        noise_std=self.noise_std, kernel=self.kernel)

  @functools.cached_property
  def problem_id(self) -> str:
    """That of the config; for brought data 'data_' and a hash of it.

    The matrix-free solver draws another f: its problems have another name.
    """
    if self.config is not None:
      return self.config.problem_id + _SOLVER_SUFFIX[self.ground_truth.solver]
    digest = _digest(self.x_train, self.y_train, self.x_test, self.x_val)
    return 'data_' + base.config_hash(
        [digest, self.noise_std, self.reference, self.kernel])


def agent_key(seed: int) -> chex.PRNGKey:
  """The key of what an agent draws on the problems of a seed, [2] uint32."""
  return jax.random.key_data(_fold(seed, _AGENT_KEY))


def evaluation_key(seed: int) -> chex.PRNGKey:
  """The key of what evaluation draws on the problems of a seed, [2] uint32."""
  return jax.random.key_data(_fold(seed, _EVALUATION_KEY))


def dense_memory_mb(num_train: int, num_points: int) -> float:
  """What the dense solver holds in MB: two matrices and two sets of columns."""
  return 16. * num_train * (num_train + num_points) / 1e6


def choose_solver(config: ProblemConfig, solver: str = 'auto',
                  memory_budget_mb: float = SOLVER_MEMORY_MB) -> str:
  """The solver of a problem: 'dense' or 'matrix_free'.

  Args:
    config: the problem.
    solver: one of SOLVERS.
    memory_budget_mb: what it may hold.

  Raises:
    ValueError: there is no such solver, or the problem does not fit.
  """
  return _choose_solver(solver, memory_budget_mb, config.num_train,
                        config.input_dim, config.num_test + config.num_val)


def _choose_solver(solver: str, memory_budget_mb: float, num_train: int,
                   input_dim: int, num_points: int) -> str:
  checks.check_choice('solver', solver, SOLVERS)
  checks.check_positive('solver_memory_mb', memory_budget_mb)
  needed = {name: _memory_mb(name, num_train, input_dim, num_points)
            for name in SOLVERS[1:]}
  allowed = [solver] if solver != 'auto' else list(needed)
  for name in allowed:
    if needed[name] <= memory_budget_mb:
      return name
  text = ', '.join(f'{name} needs {needed[name]:,.0f} MB' for name in allowed)
  raise ValueError(
      f'solver_memory_mb must be enough for num_train = input_dim * data_ratio '
      f'= {num_train} points of {input_dim} dimensions, got '
      f'{memory_budget_mb:g}: {text}.')


def _memory_mb(solver: str, num_train: int, input_dim: int,
               num_points: int) -> float:
  """What 'dense' or 'matrix_free' holds, MB."""
  if solver == 'dense':
    return dense_memory_mb(num_train, num_points)
  return matrix_free.estimate_memory_mb(num_train, input_dim, num_points)


def make_problem(config: ProblemConfig, cache_dir: Optional[PathLike] = None,
                 solver: str = 'auto',
                 memory_budget_mb: float = SOLVER_MEMORY_MB) -> Problem:
  """One problem. Several are cheaper together: `make_problems`.

  Args:
    config: which.
    cache_dir: a folder for what is expensive, made if missing; None computes
      everything.
    solver: one of SOLVERS. They agree on posteriors to their tolerances, but
      draw another f from the same seed.
    memory_budget_mb: what the solver may hold.

  Raises:
    ValueError: the problem does not fit into the budget, cache_dir cannot be
      written to, a tolerance is not met, or jax runs without x64.
  """
  return make_problems([config], cache_dir, solver, memory_budget_mb)[0]


def make_problems(configs: Sequence[ProblemConfig],
                  cache_dir: Optional[PathLike] = None, solver: str = 'auto',
                  memory_budget_mb: float = SOLVER_MEMORY_MB,
                  progress: Optional[Callable[[str], None]] = None
                  ) -> list[Problem]:
  """Problems in the order of their configs, each exactly as if made alone.

  What configs share that differ in noise_std only is computed once: x, f, the
  kernel. Processes that want the same at the same time wait for the first.

  Args:
    configs: which.
    cache_dir: see `make_problem`, like all that follow.
    solver: one of SOLVERS.
    memory_budget_mb: what the solver may hold.
    progress: told by the matrix-free solver how far it is, a line at a time.

  Raises:
    ValueError: as for `make_problem`; budgets before any work starts.
  """
  kernels.require_x64()
  made: dict[ProblemConfig, Problem] = {}
  groups = _group(configs, cache_dir, solver, memory_budget_mb, progress)
  for group, members in groups:
    for problem in group.make(members):
      made[problem.config] = problem
  return [made[config] for config in configs]


def read_cached(configs: Sequence[ProblemConfig], cache_dir: PathLike,
                solver: str = 'auto',
                memory_budget_mb: float = SOLVER_MEMORY_MB
                ) -> list[Optional[Problem]]:
  """Problems that lie in the cache, None for those that do not.

  Raises:
    ValueError: as for `make_problems`.
  """
  kernels.require_x64()
  found: dict[ProblemConfig, Optional[Problem]] = {}
  for group, members in _group(configs, cache_dir, solver, memory_budget_mb):
    found.update(group.read(members))
  return [found[config] for config in configs]


def _group(configs: Sequence[ProblemConfig], cache_dir: Optional[PathLike],
           solver: str, memory_budget_mb: float,
           progress: Optional[Callable[[str], None]] = None
           ) -> list[tuple['_Group', list[ProblemConfig]]]:
  """Configs that differ in noise_std only, together; each of them once."""
  solvers = {config: choose_solver(config, solver, memory_budget_mb)
             for config in configs}
  if cache_dir is not None:
    cache_dir = results.make_folder(cache_dir, 'cache_dir')
  groups: dict[ProblemConfig, list[ProblemConfig]] = {}
  for config in dict.fromkeys(configs):
    groups.setdefault(dataclasses.replace(config, noise_std=1.), []).append(
        config)
  return [(_Group(members[0], cache_dir, solvers[members[0]], memory_budget_mb,
                  progress), members) for members in groups.values()]


def make_problem_group(input_dim: int, data_ratio: float,
                       noise_stds: Sequence[float], seed: int,
                       reference: str = 'bayes',
                       cache_dir: Optional[PathLike] = None,
                       solver: str = 'auto',
                       memory_budget_mb: float = SOLVER_MEMORY_MB,
                       progress: Optional[Callable[[str], None]] = None,
                       **settings: Any) -> list[Problem]:
  """The problems of one (input_dim, data_ratio, seed), per noise level.

  Args:
    input_dim: see `ProblemConfig`, as for all that follow.
    data_ratio: lambda.
    noise_stds: the noise levels, at least one.
    seed: which draw.
    reference: 'bayes' or 'enn2021'.
    cache_dir: see `make_problems`, like the next three.
    solver: one of SOLVERS.
    memory_budget_mb: what the solver may hold.
    progress: told how far it is.
    **settings: other fields of `ProblemConfig`.

  Returns:
    Problems in the order of noise_stds, sharing x_train, x_test and x_val.

  Raises:
    ValueError: as for `ProblemConfig` and `make_problem`; no noise level.
  """
  if not len(noise_stds):
    raise ValueError('noise_stds must hold at least one noise level, got '
                     f'{noise_stds!r}.')
  return make_problems(
      [ProblemConfig(input_dim, data_ratio, noise_std, seed, reference,
                     **settings) for noise_std in noise_stds],
      cache_dir, solver, memory_budget_mb, progress)


def problem_from_data(
    x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray,
    x_val: np.ndarray, noise_std: float, reference: str = 'bayes',
    kernel: kernels.KernelConfig = kernels.KernelConfig(),
    y_val: Optional[np.ndarray] = None, solver: str = 'auto',
    memory_budget_mb: float = SOLVER_MEMORY_MB) -> Problem:
  """A problem from data that somebody brings, with its exact posterior.

  The posterior is that of the NNGP prior `kernel` with noise of std noise_std,
  whatever really made the data.

  Args:
    x_train: [T, D] finite numbers, converted to float64 like the others.
    y_train: [T] or [T, 1].
    x_test: [any, D].
    x_val: [any, D].
    noise_std: std of the noise in y_train.
    reference: see `ProblemConfig`.
    kernel: the prior.
    y_val: labels at x_val, [any] or [any, 1]; only selection by labels reads
      them.
    solver: one of SOLVERS.
    memory_budget_mb: what it may hold.

  Raises:
    ValueError: a shape does not fit, a number is not finite, the problem does
      not fit into the budget, or jax runs without x64.
  """
  kernels.require_x64()
  checks.check_positive('noise_std', noise_std)
  checks.check_choice('reference', reference, posterior.REFERENCES)
  x_train = _check_points('x_train', x_train)
  y_train = _check_targets('y_train', y_train, x_train)
  x_test = _check_points('x_test', x_test, x_train.shape[1])
  x_val = _check_points('x_val', x_val, x_train.shape[1])
  if y_val is not None:
    y_val = _check_targets('y_val', y_val, x_val)
  solver = _choose_solver(solver, memory_budget_mb, *x_train.shape,
                          len(x_test) + len(x_val))
  points = _Points(kernel, x_train, x_test, x_val)
  if solver == 'dense':
    chosen = _DenseSolver(points)
  else:
    chosen = _MatrixFreeSolver(points, memory_budget_mb)
  solved, = chosen.solve([y_train[:, 0]], [float(noise_std)], reference)
  return _make_problem(None, x_train, y_train, x_test, x_val, y_val, solved,
                       float(noise_std), reference, kernel)


def _check_finite(name: str, values: Any) -> np.ndarray:
  """Brought numbers as a float64 array of their own."""
  try:
    values = np.asarray(values)
    if values.dtype.kind not in 'fiub':
      raise TypeError(f'they are {values.dtype}')
  except (TypeError, ValueError) as error:
    raise ValueError(
        f'{name} must be an array of real numbers: {error}.') from error
  values = values.astype(np.float64)  # Always a copy: it becomes read-only.
  bad = values.size - np.count_nonzero(np.isfinite(values))
  if bad:
    raise ValueError(f'{name} must be finite, got {bad} NaN or infinite of '
                     f'{values.size} values.')
  return values


def _check_points(name: str, x: Any,
                  input_dim: Optional[int] = None) -> np.ndarray:
  x = _check_finite(name, x)
  if x.ndim != 2 or 0 in x.shape or input_dim not in (None, x.shape[-1]):
    columns = 'D >= 1' if input_dim is None else f'D = {input_dim}, as x_train'
    raise ValueError(f'{name} must have shape [n, D] with n >= 1 and {columns},'
                     f' got {list(x.shape)}.')
  return x


def _check_targets(name: str, y: Any, x: np.ndarray) -> np.ndarray:
  """Brought targets as [n, 1]."""
  y = _check_finite(name, y)
  if y.shape not in ((len(x),), (len(x), 1)):
    points = name.replace('y', 'x', 1)
    raise ValueError(f'{name} must have shape [{len(x)}] or [{len(x)}, 1] like '
                     f'{points}, got {list(y.shape)}.')
  return y.reshape(-1, 1)


def _number(value: float) -> str:
  """A number in a name: 1.0 as '1', others as Python writes them."""
  return base.canonical_json(value)


def _fold(seed: int, constant: int, *counts: int) -> jax.Array:
  """The key of one use of a seed."""
  # The generator is named: jax's default can be changed by a flag.
  key = jax.random.key(np.uint32(seed), impl='threefry2x32')
  for data in (constant, *counts):
    key = jax.random.fold_in(key, data)
  return key


def _draw_normals(config: ProblemConfig, constant: int,
                  shape: tuple[int, ...]) -> np.ndarray:
  """Standard normals of one use, float64; a longer draw starts the same."""
  # Folding the sizes in makes (input_dim, data_ratio) cells independent.
  key = _fold(config.seed, constant, config.input_dim, config.num_train)
  high, low = (int(word) for word in jax.random.key_data(key))
  bits = np.random.Philox(key=high << 32 | low).random_raw(int(np.prod(shape)))
  # 52 bits and a half: both tails end at 2^-53, and no rounding happens.
  uniforms = ((bits >> np.uint64(12)) + 0.5) * 2.**-52
  return scipy.special.ndtri(uniforms, out=uniforms).reshape(shape)


def _digest(*arrays: np.ndarray) -> str:
  """SHA-256 of the numbers in float64 arrays, and of their shapes."""
  sha = hashlib.sha256()
  for array in arrays:
    sha.update(repr(array.shape).encode())
    sha.update(np.ascontiguousarray(array, dtype='<f8'))
  return sha.hexdigest()


class _Solved(NamedTuple):
  """Moments at x_test and x_val, one after the other, and where they are from."""
  moments: posterior.Moments
  ground_truth: GroundTruth


def _make_problem(config: Optional[ProblemConfig], x_train: np.ndarray,
                  y_train: np.ndarray, x_test: np.ndarray, x_val: np.ndarray,
                  y_val: Optional[np.ndarray], solved: _Solved,
                  noise_std: float, reference: str,
                  kernel: kernels.KernelConfig) -> Problem:
  """Takes moments at x_test and x_val together apart; locks the arrays."""
  num_test, moments = len(x_test), solved.moments
  arrays = dict(
      x_train=x_train, y_train=y_train, x_test=x_test, x_val=x_val, y_val=y_val,
      test_mean=moments.mean[:num_test], test_std=moments.std[:num_test],
      val_mean=moments.mean[num_test:], val_std=moments.std[num_test:],
      test_covariances=moments.covariances, weights=moments.weights)
  for array in arrays.values():
    if array is not None:
      array.flags.writeable = False
  return Problem(config=config, noise_std=noise_std, reference=reference,
                 kernel=kernel, ground_truth=solved.ground_truth, **arrays)


# What names of problems add for a solver that draws another f.
_SOLVER_SUFFIX = {'dense': '', 'matrix_free': '_matrix_free'}


class _Points(NamedTuple):
  """Where a kernel is wanted."""
  kernel: kernels.KernelConfig
  x_train: np.ndarray
  x_test: np.ndarray
  x_val: np.ndarray

  @property
  def x(self) -> np.ndarray:
    """x_test and x_val, one after the other."""
    return np.concatenate([self.x_test, self.x_val])

  def block_priors(self) -> np.ndarray:
    """k(x, x) of neighbouring test points, [num_test // tau, tau, tau]."""
    num_blocks = len(self.x_test) // JOINT_TAU
    priors = np.empty([num_blocks, JOINT_TAU, JOINT_TAU])
    for i in range(num_blocks):
      priors[i] = kernels.nngp(
          self.kernel, self.x_test[i * JOINT_TAU:(i + 1) * JOINT_TAU])
    return priors


class _DenseSolver:
  """The kernel matrices of some points, each made when first needed."""

  num_extra_normals = 0  # Normals for f besides one per training point.

  def __init__(self, points: _Points):
    self._points = points

  @functools.cached_property
  def _matrix(self) -> np.ndarray:
    return kernels.nngp(self._points.kernel, self._points.x_train)

  @functools.cached_property
  def _cross(self) -> np.ndarray:
    # One product of kernel and factor serves both, without copying T rows.
    return kernels.nngp(self._points.kernel, self._points.x,
                        self._points.x_train)

  @functools.cached_property
  def _work(self) -> np.ndarray:
    """Where all factorisations take place."""
    return np.empty_like(self._matrix, order='F')

  def draw_function(self, normals: np.ndarray, val_normals: np.ndarray,
                    noise: np.ndarray, noise_stds: Sequence[float],
                    reference: str) -> tuple[np.ndarray, np.ndarray]:
    """f at x_train [T] and x_val, from as many standard normals each."""
    del noise, noise_stds, reference
    points = self._points
    return posterior.sample_prior(
        self._matrix, self._cross[-len(points.x_val):],
        kernels.nngp(points.kernel, points.x_val), normals, val_normals,
        work=self._work)

  def solve(self, targets: Sequence[np.ndarray],
            noise_stds: Sequence[float], reference: str) -> list[_Solved]:
    """The posterior at x_test and x_val per noise level."""
    start = time.perf_counter()
    diagonal = np.diagonal(self._matrix)
    found = posterior.posterior_moments(
        self._matrix, self._cross,
        kernels.nngp_diag(self._points.kernel, self._points.x), targets,
        [posterior.noise_variance(noise_std, diagonal, reference)
         for noise_std in noise_stds],
        block_priors=self._points.block_priors(), work=self._work)
    seconds = (time.perf_counter() - start) / len(found)
    return [_Solved(moments, GroundTruth(
        'dense', moments.residual, moments.mean_error, moments.std_error,
        seconds)) for moments in found]


class _MatrixFreeSolver:
  """`nngp.matrix_free`, which draws and solves from one Krylov space.

  Args:
    points: where.
    memory_budget_mb: what it may hold.
    checkpoints: what the folders of its steps begin with, which are kept until
      it is done: one per set of noise levels. None for nowhere.
    progress: told how far it is.
  """

  def __init__(self, points: _Points, memory_budget_mb: float,
               checkpoints: Optional[pathlib.Path] = None,
               progress: Optional[Callable[[str], None]] = None):
    self._points = points
    self._memory_budget_mb = memory_budget_mb
    self._checkpoints = checkpoints
    self._progress = progress
    self._drawn: Optional[matrix_free.Solution] = None

  @property
  def num_extra_normals(self) -> int:
    """Normals for f besides one per training point."""
    return remainder.num_features(self._points.kernel,
                                  self._points.x_train.shape[1])

  def draw_function(self, normals: np.ndarray, val_normals: np.ndarray,
                    noise: np.ndarray, noise_stds: Sequence[float],
                    reference: str) -> tuple[np.ndarray, np.ndarray]:
    """f at x_train [T] and x_val; what it takes serves `solve` as well."""
    self._drawn = self._run(
        noise_stds, reference, normals_train=normals, normals_eval=val_normals,
        noise=noise)
    return self._drawn.function, self._drawn.eval_function

  def solve(self, targets: Sequence[np.ndarray],
            noise_stds: Sequence[float], reference: str) -> list[_Solved]:
    """The posterior at x_test and x_val per noise level."""
    found = self._drawn
    if found is None or not np.array_equal(found.noise_stds, noise_stds):
      found = self._run(noise_stds, reference, targets=targets)
    seconds = found.seconds / len(targets)
    return [_Solved(
        dataclasses.replace(moments, weights=found.weights[i]),
        GroundTruth(
            'matrix_free', float(found.residual_norms[i]
                                 / np.linalg.norm(found.targets[i])),
            float(found.mean_error_bounds[i]),
            float(found.std_error_bounds[i]), seconds))
            for i, moments in enumerate(found.moments)]

  def _run(self, noise_stds: Sequence[float], reference: str,
           **draws: Any) -> matrix_free.Solution:
    def tell(progress: matrix_free.Progress) -> None:
      if self._progress is not None:
        self._progress(
            f'{progress.phase}, pass {progress.step}: error bound '
            f'{progress.error:.1e} of what is allowed, '
            f'{progress.seconds:.0f} s')

    path = None
    if self._checkpoints is not None:
      what = base.config_hash([list(noise_stds), reference, 'targets' in draws])
      path = f'{self._checkpoints}.{what}.steps'
    solution = matrix_free.solve(
        self._points.kernel, self._points.x_train, self._points.x, noise_stds,
        reference=reference, memory_budget_mb=self._memory_budget_mb,
        checkpoint_path=path,
        block_priors=self._points.block_priors(), progress=tell, **draws)
    return solution

  def clear(self) -> None:
    """Removes all checkpoints: with f drawn, none is of use."""
    if self._checkpoints is not None:
      for folder in self._checkpoints.parent.glob(
          f'{self._checkpoints.name}.*.steps'):
        shutil.rmtree(folder, ignore_errors=True)


class _Group:
  """Problems that differ in noise_std only: draws, cache and solver."""

  def __init__(self, config: ProblemConfig, cache_dir: Optional[pathlib.Path],
               solver: str, memory_budget_mb: float,
               progress: Optional[Callable[[str], None]]):
    self._config = config
    self._cache_dir = cache_dir
    self._solver_name = solver
    self._memory_mb = _memory_mb(solver, config.num_train, config.input_dim,
                                 config.num_test + config.num_val)
    self._stale: set[pathlib.Path] = set()  # Files that were complained of.
    shape = (config.num_train, config.input_dim)
    points = _Points(
        config.kernel, _draw_normals(config, _X_TRAIN_KEY, shape),
        _draw_normals(config, _X_TEST_KEY, (config.num_test, config.input_dim)),
        _draw_normals(config, _X_VAL_KEY, (config.num_val, config.input_dim)))
    self._points = points
    self._noise = _draw_normals(config, _NOISE_KEY, shape[:1])
    self._val_noise = _draw_normals(config, _VAL_NOISE_KEY, (config.num_val,))
    if solver == 'dense':
      self._solver = _DenseSolver(points)
    else:
      self._solver = _MatrixFreeSolver(
          points, memory_budget_mb,
          cache_dir and cache_dir / self._function_name(), progress)
    self._normals = _draw_normals(
        config, _FUNCTION_KEY, (shape[0] + self._solver.num_extra_normals,))
    self._val_normals = _draw_normals(config, _VAL_FUNCTION_KEY,
                                      (config.num_val,))

  def make(self, configs: Sequence[ProblemConfig]) -> list[Problem]:
    """The problems of configs that differ in noise_std only."""
    found = self.read(configs)
    lock = self._cache_dir and self._cache_dir / f'{self._function_name()}.lock'
    if all(found.values()):
      if lock is not None:
        file_locks.remove_abandoned(lock)
      return list(found.values())
    with (contextlib.nullcontext() if lock is None else file_locks.claim(lock)):
      found = self.read(configs)
      if all(found.values()):  # Made by whoever had the claim before.
        return list(found.values())
      with file_locks.claim_memory(self._memory_mb):
        return self._compute(configs)

  def read(self, configs: Sequence[ProblemConfig]
           ) -> dict[ProblemConfig, Optional[Problem]]:
    """What the cache holds of them, None for what it does not."""
    arrays = self._read_function()
    if arrays is None:
      return dict.fromkeys(configs)
    targets = self._targets(configs, arrays['function'])
    found = {}
    for config in configs:
      solved = self._read_solved(config, targets[config])
      found[config] = solved and self._problem(config, arrays, targets[config],
                                               solved)
    return found

  def _compute(self, configs: Sequence[ProblemConfig]) -> list[Problem]:
    """The problems; what is in the cache by now is not computed."""
    arrays = self._read_function()
    if arrays is None:
      function, val_function = self._solver.draw_function(
          self._normals, self._val_normals, self._noise,
          [config.noise_std for config in configs], self._config.reference)
      arrays = {'function': function, 'val_function': val_function}
      if self._cache_dir is not None:
        self._function_entry.write(arrays)
    targets = self._targets(configs, arrays['function'])
    found = {config: self._read_solved(config, targets[config])
             for config in configs}
    missing = [config for config in configs if found[config] is None]
    if missing:
      computed = self._solver.solve(
          [targets[config] for config in missing],
          [config.noise_std for config in missing], self._config.reference)
      for config, solved in zip(missing, computed, strict=True):
        found[config] = solved
        if self._cache_dir is not None:
          self._solved_entry(config, targets[config]).write(_pack(solved))
    if self._solver_name == 'matrix_free':
      self._solver.clear()
    return [self._problem(config, arrays, targets[config], found[config])
            for config in configs]

  def _targets(self, configs: Sequence[ProblemConfig], function: np.ndarray
               ) -> dict[ProblemConfig, np.ndarray]:
    return {config: function + config.noise_std * self._noise
            for config in configs}

  def _problem(self, config: ProblemConfig, arrays: Mapping[str, np.ndarray],
               target: np.ndarray, solved: _Solved) -> Problem:
    y_val = arrays['val_function'] + config.noise_std * self._val_noise
    points = self._points
    return _make_problem(config, points.x_train, target[:, None], points.x_test,
                         points.x_val, y_val[:, None], solved,
                         float(config.noise_std), config.reference,
                         config.kernel)

  def _function_name(self) -> str:
    """The readable part of the names of files that noise levels share."""
    config = self._config
    return (f'D{config.input_dim}_l{_number(config.data_ratio)}_s{config.seed}'
            f'{config.settings_suffix}{_SOLVER_SUFFIX[self._solver_name]}'
            '_function')

  @functools.cached_property
  def _function_entry(self) -> problem_cache.CacheEntry:
    config, points = self._config, self._points
    identity = {
        'kind': 'function', 'input_dim': config.input_dim,
        'data_ratio': config.data_ratio, 'seed': config.seed,
        'kernel': config.kernel, 'jitter': posterior.SAMPLE_JITTER,
        'num_val': config.num_val, 'solver': self._solver_name}
    return problem_cache.CacheEntry(
        self._cache_dir, self._function_name(), identity,
        _digest(points.x_train, self._normals, points.x_val,
                self._val_normals))

  def _solved_entry(self, config: ProblemConfig,
                    target: np.ndarray) -> problem_cache.CacheEntry:
    identity = {'kind': 'posterior', 'config': config,
                'kernel_ridge': posterior.KERNEL_RIDGE, 'joint_tau': JOINT_TAU,
                'solver': self._solver_name}
    return problem_cache.CacheEntry(
        self._cache_dir,
        config.problem_id + _SOLVER_SUFFIX[self._solver_name], identity,
        self._x_digest + _digest(target))

  @functools.cached_property
  def _x_digest(self) -> str:
    points = self._points
    return _digest(points.x_train, points.x_test, points.x_val)

  def _read_function(self) -> Optional[dict[str, np.ndarray]]:
    if self._cache_dir is None:
      return None
    return self._function_entry.read(self._stale)

  def _read_solved(self, config: ProblemConfig,
                   target: np.ndarray) -> Optional[_Solved]:
    if self._cache_dir is None:
      return None
    arrays = self._solved_entry(config, target).read(self._stale)
    return None if arrays is None else _unpack(arrays)


_MOMENT_ARRAYS = ('mean', 'std', 'covariances', 'weights')


def _pack(solved: _Solved) -> dict[str, np.ndarray]:
  """What a cache file holds of a posterior."""
  return {**{name: getattr(solved.moments, name) for name in _MOMENT_ARRAYS},
          **{f'ground_truth.{name}': np.asarray(value) for name, value
             in dataclasses.asdict(solved.ground_truth).items()}}


def _unpack(arrays: Mapping[str, np.ndarray]) -> _Solved:
  """Inverse of `_pack`."""
  ground_truth = GroundTruth(**{
      field.name: arrays[f'ground_truth.{field.name}'].item()
      for field in dataclasses.fields(GroundTruth)})
  moments = posterior.Moments(
      **{name: arrays[name] for name in _MOMENT_ARRAYS},
      residual=ground_truth.residual, mean_error=ground_truth.mean_error, std_error=ground_truth.std_error)
  return _Solved(moments, ground_truth)
