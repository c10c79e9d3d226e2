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

The expensive parts, f and the posteriors, can be kept in a cache folder. A
cache file carries what it is of, a checksum of the draws it was made from and
one of its contents; whatever does not fit is made again.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import time
from typing import Any, Mapping, NamedTuple, Optional, Sequence, Union

from absl import logging
import chex
import jax
import numpy as np
import scipy.special

from enn_ensembles import base
from enn_ensembles import config_checks as checks
from enn_ensembles import results
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior

PathLike = Union[str, os.PathLike]

# The dense solver's limit: T = 10,000 takes 2 GB and half a minute.
MAX_DENSE_TRAIN = 10_000

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

# Of cache files and of what is in them; a change of any draw or formula here
# or in `nngp` raises it.
CACHE_FORMAT_VERSION = 2
_CACHE_MAGIC = b'enn_ensembles ground truth\n'


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
    rest = {key: getattr(self, key)
            for key in ('kernel', 'num_test', 'num_val')}
    if rest == {key: getattr(ProblemConfig, key) for key in rest}:
      return name
    return f'{name}_{base.config_hash(rest)}'


@dataclasses.dataclass(frozen=True)
class GroundTruth:
  """How a posterior was computed, and how exact it is.

  Attributes:
    solver: 'dense' or 'matrix_free'.
    mean_error: bound of |mean - exact mean| / std over all points.
    std_error: the same of |std - exact std| / exact std; of 'dense' the rounding
      error at a few points.
    seconds: wall time of its computation, shared evenly by the noise levels
      that were computed together; the draw of f apart.
  """
  solver: str
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
    """That of the config; for brought data 'data_' and a hash of it."""
    if self.config is not None:
      return self.config.problem_id
    digest = _digest(self.x_train, self.y_train, self.x_test, self.x_val)
    return 'data_' + base.config_hash(
        [digest, self.noise_std, self.reference, self.kernel])


def agent_key(seed: int) -> chex.PRNGKey:
  """The key of what an agent draws on the problems of a seed, [2] uint32."""
  return jax.random.key_data(_fold(seed, _AGENT_KEY))


def evaluation_key(seed: int) -> chex.PRNGKey:
  """The key of what evaluation draws on the problems of a seed, [2] uint32."""
  return jax.random.key_data(_fold(seed, _EVALUATION_KEY))


def check_num_train(num_train: int) -> None:
  """Raises ValueError where the dense solver would need too much memory."""
  if num_train > MAX_DENSE_TRAIN:
    raise ValueError(
        'num_train = input_dim * data_ratio must be at most '
        f'{MAX_DENSE_TRAIN}, got {num_train}: the posterior is computed from '
        'the dense kernel matrix (2 GB and half a minute at 10000).')


def make_problem(config: ProblemConfig,
                 cache_dir: Optional[PathLike] = None) -> Problem:
  """One problem. Several are cheaper together: `make_problems`.

  Args:
    config: which.
    cache_dir: a folder for what is expensive, made if missing; None computes
      everything.

  Raises:
    ValueError: T is above MAX_DENSE_TRAIN, cache_dir cannot be written to, or
      jax runs without x64.
  """
  return make_problems([config], cache_dir)[0]


def make_problems(configs: Sequence[ProblemConfig],
                  cache_dir: Optional[PathLike] = None) -> list[Problem]:
  """Problems in the order of their configs, each exactly as if made alone.

  What configs share that differ in noise_std only is computed once: x, f, the
  kernel.

  Raises:
    ValueError: as for `make_problem`, before any work starts.
  """
  kernels.require_x64()
  for config in configs:
    check_num_train(config.num_train)
  if cache_dir is not None:
    cache_dir = results.make_folder(cache_dir, 'cache_dir')
  groups: dict[ProblemConfig, list[ProblemConfig]] = {}
  for config in configs:
    groups.setdefault(dataclasses.replace(config, noise_std=1.), []).append(
        config)
  made: dict[ProblemConfig, Problem] = {}
  for group in groups.values():
    for problem in _Group(group[0], cache_dir).make(list(dict.fromkeys(group))):
      made[problem.config] = problem
  return [made[config] for config in configs]


def make_problem_group(input_dim: int, data_ratio: float,
                       noise_stds: Sequence[float], seed: int,
                       reference: str = 'bayes',
                       cache_dir: Optional[PathLike] = None,
                       **settings: Any) -> list[Problem]:
  """The problems of one (input_dim, data_ratio, seed), per noise level.

  Args:
    input_dim: see `ProblemConfig`, as for all that follow.
    data_ratio: lambda.
    noise_stds: the noise levels, at least one.
    seed: which draw.
    reference: 'bayes' or 'enn2021'.
    cache_dir: see `make_problem`.
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
                     **settings) for noise_std in noise_stds], cache_dir)


def problem_from_data(
    x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray,
    x_val: np.ndarray, noise_std: float, reference: str = 'bayes',
    kernel: kernels.KernelConfig = kernels.KernelConfig(),
    y_val: Optional[np.ndarray] = None) -> Problem:
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

  Raises:
    ValueError: a shape does not fit, a number is not finite, T is above
      MAX_DENSE_TRAIN, or jax runs without x64.
  """
  kernels.require_x64()
  checks.check_positive('noise_std', noise_std)
  checks.check_choice('reference', reference, posterior.REFERENCES)
  x_train = _check_points('x_train', x_train)
  check_num_train(len(x_train))
  y_train = _check_targets('y_train', y_train, x_train)
  x_test = _check_points('x_test', x_test, x_train.shape[1])
  x_val = _check_points('x_val', x_val, x_train.shape[1])
  if y_val is not None:
    y_val = _check_targets('y_val', y_val, x_val)
  solver = _Solver(kernel, x_train, x_test, x_val)
  solved, = solver.solve([y_train[:, 0]], [float(noise_std)], reference)
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


class _Solver:
  """Dense kernel matrices of some points, each made when first needed."""

  def __init__(self, kernel: kernels.KernelConfig, x_train: np.ndarray,
               x_test: np.ndarray, x_val: np.ndarray):
    self._kernel = kernel
    self._x_train = x_train
    self._x_val = x_val
    self._num_test = len(x_test)
    # One product of kernel and factor serves both, without copying T rows.
    self._x = np.concatenate([x_test, x_val])

  @functools.cached_property
  def _matrix(self) -> np.ndarray:
    return kernels.nngp(self._kernel, self._x_train)

  @functools.cached_property
  def _cross(self) -> np.ndarray:
    return kernels.nngp(self._kernel, self._x, self._x_train)

  @functools.cached_property
  def _work(self) -> np.ndarray:
    """Where all factorisations take place."""
    return np.empty_like(self._matrix, order='F')

  def draw_function(self, normals: np.ndarray, val_normals: np.ndarray
                    ) -> tuple[np.ndarray, np.ndarray]:
    """f at x_train [T] and x_val, from as many standard normals each."""
    num_val = len(self._x_val)
    return posterior.sample_prior(
        self._matrix, self._cross[-num_val:],
        kernels.nngp(self._kernel, self._x_val), normals, val_normals,
        work=self._work)

  def solve(self, targets: Sequence[np.ndarray],
            noise_stds: Sequence[float], reference: str) -> list[_Solved]:
    """The posterior at x_test and x_val per noise level."""
    start = time.perf_counter()
    diagonal = np.diagonal(self._matrix)
    num_blocks = self._num_test // JOINT_TAU
    block_priors = np.empty([num_blocks, JOINT_TAU, JOINT_TAU])
    for i in range(num_blocks):
      block_priors[i] = kernels.nngp(
          self._kernel, self._x[i * JOINT_TAU:(i + 1) * JOINT_TAU])
    found = posterior.posterior_moments(
        self._matrix, self._cross, kernels.nngp_diag(self._kernel, self._x),
        targets, [posterior.noise_variance(noise_std, diagonal, reference)
                  for noise_std in noise_stds],
        block_priors=block_priors, work=self._work)
    seconds = (time.perf_counter() - start) / len(found)
    return [_Solved(moments, GroundTruth('dense', moments.mean_error,
                                         moments.std_error, seconds))
            for moments in found]


class _Group:
  """Problems that differ in noise_std only: draws, cache and solver."""

  def __init__(self, config: ProblemConfig, cache_dir: Optional[pathlib.Path]):
    self._config = config
    self._cache_dir = cache_dir
    shape = (config.num_train, config.input_dim)
    self._x_train = _draw_normals(config, _X_TRAIN_KEY, shape)
    self._x_test = _draw_normals(config, _X_TEST_KEY,
                                 (config.num_test, config.input_dim))
    self._x_val = _draw_normals(config, _X_VAL_KEY,
                                (config.num_val, config.input_dim))
    self._normals = _draw_normals(config, _FUNCTION_KEY, shape[:1])
    self._noise = _draw_normals(config, _NOISE_KEY, shape[:1])
    self._val_normals = _draw_normals(config, _VAL_FUNCTION_KEY,
                                      (config.num_val,))
    self._val_noise = _draw_normals(config, _VAL_NOISE_KEY, (config.num_val,))
    self._solver = _Solver(config.kernel, self._x_train, self._x_test,
                           self._x_val)

  def make(self, configs: Sequence[ProblemConfig]) -> list[Problem]:
    """The problems of configs that differ in noise_std only."""
    function, val_function = self._make_function()
    targets = {config: function + config.noise_std * self._noise
               for config in configs}
    val_targets = {config: val_function + config.noise_std * self._val_noise
                   for config in configs}
    solved = self._solve(targets)
    return [_make_problem(config, self._x_train, targets[config][:, None],
                          self._x_test, self._x_val,
                          val_targets[config][:, None], solved[config],
                          float(config.noise_std), config.reference,
                          config.kernel) for config in configs]

  def _make_function(self) -> tuple[np.ndarray, np.ndarray]:
    """f at x_train [T] and x_val [num_val]; cached where it can be."""
    if self._cache_dir is None:
      return self._solver.draw_function(self._normals, self._val_normals)
    config = self._config
    identity = {
        'kind': 'function', 'input_dim': config.input_dim,
        'data_ratio': config.data_ratio, 'seed': config.seed,
        'kernel': config.kernel, 'jitter': posterior.SAMPLE_JITTER,
        'num_val': config.num_val}
    entry = _CacheEntry(
        self._cache_dir, f'D{config.input_dim}_l{_number(config.data_ratio)}'
        f'_s{config.seed}_function', identity,
        _digest(self._x_train, self._normals, self._x_val, self._val_normals))
    arrays = entry.read()
    if arrays is None:
      function, val_function = self._solver.draw_function(self._normals,
                                                          self._val_normals)
      arrays = {'function': function, 'val_function': val_function}
      entry.write(arrays)
    return arrays['function'], arrays['val_function']

  def _solve(self, targets: Mapping[ProblemConfig, np.ndarray]
             ) -> dict[ProblemConfig, _Solved]:
    """Posteriors; computed for what is not in the cache."""
    entries, found = {}, {}
    if self._cache_dir is not None:
      x_digest = _digest(self._x_train, self._x_test, self._x_val)
      for config, target in targets.items():
        identity = {'kind': 'posterior', 'config': config,
                    'kernel_ridge': posterior.KERNEL_RIDGE,
                    'joint_tau': JOINT_TAU}
        entries[config] = _CacheEntry(self._cache_dir, config.problem_id,
                                      identity, x_digest + _digest(target))
        arrays = entries[config].read()
        if arrays is not None:
          found[config] = _unpack(arrays)
    missing = [config for config in targets if config not in found]
    if missing:
      computed = self._solver.solve(
          [targets[config] for config in missing],
          [config.noise_std for config in missing], self._config.reference)
      for config, solved in zip(missing, computed, strict=True):
        found[config] = solved
        if config in entries:
          entries[config].write(_pack(solved))
    return found


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
      mean_error=ground_truth.mean_error, std_error=ground_truth.std_error)
  return _Solved(moments, ground_truth)


class _CacheEntry:
  """One cache file: magic line, header line of JSON, arrays as npz.

  Args:
    cache_dir: the folder, which exists.
    name: the readable part of the file's name.
    identity: what the arrays are of, any canonical config.
    inputs: a checksum of the draws that they were made from.
  """

  def __init__(self, cache_dir: pathlib.Path, name: str,
               identity: Mapping[str, Any], inputs: str):
    identity = {**identity, 'format_version': CACHE_FORMAT_VERSION}
    self._path = cache_dir / f'{name}_{base.config_hash(identity)}.cache'
    self._header = {'identity': base.canonical_json(identity), 'inputs': inputs}

  def write(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the file at once or not at all; whoever comes last wins."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    payload = stream.getvalue()
    header = {**self._header, 'sha256': hashlib.sha256(payload).hexdigest()}
    results.write_atomically(
        self._path,
        _CACHE_MAGIC + json.dumps(header).encode() + b'\n' + payload)

  def read(self) -> Optional[dict[str, np.ndarray]]:
    """The arrays by name; None if they must be made (again).

    Says in one warning why a file that exists is not used.
    """
    try:
      content = self._path.read_bytes()
    except FileNotFoundError:
      return None
    except OSError as error:
      raise ValueError(f'cache_dir holds {self._path}, which cannot be read: '
                       f'{error.strerror}.') from error
    try:
      return self._parse(content)
    except _StaleError as error:
      logging.warning('%s is made again: %s.', self._path, error)
      return None

  def _parse(self, content: bytes) -> dict[str, np.ndarray]:
    if not content.startswith(_CACHE_MAGIC):
      raise _StaleError('it is not a ground-truth file')
    line, _, payload = content[len(_CACHE_MAGIC):].partition(b'\n')
    try:
      header = json.loads(line)
    except ValueError as error:
      raise _StaleError('its header is damaged') from error
    if not isinstance(header, dict):
      raise _StaleError('its header is damaged')
    if header.get('identity') != self._header['identity']:
      raise _StaleError('it is of another problem or format version')
    if header.get('inputs') != self._header['inputs']:
      raise _StaleError('it was made from other draws')
    if header.get('sha256') != hashlib.sha256(payload).hexdigest():
      raise _StaleError('its contents do not match their checksum')
    # The checksum holds: these are the arrays that were written.
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
      return dict(file)


class _StaleError(Exception):
  """Why a cache file is not used."""
