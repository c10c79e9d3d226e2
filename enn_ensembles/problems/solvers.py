"""Two solvers of the exact posterior, and which of them a problem gets.

`dense` factorises the kernel matrix; `matrix_free` never stores it. They agree
on posteriors to their tolerances, but draw another function from one seed.
"""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import pathlib
import re
import time
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles import checks
from enn_ensembles.machine import canonical
from enn_ensembles.machine import files
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import matrix_free
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import solver_memory
from enn_ensembles.nngp import step_files
from enn_ensembles.nngp import tiles
from enn_ensembles.problems import nngp_regression

# How posteriors are computed: 'dense' factorises the kernel matrix of T^2
# entries, 'matrix_free' never stores it, 'auto' is dense where that fits.
SOLVERS = ('auto', 'dense', 'matrix_free')

_NUM_DYADIC = nngp_regression.NUM_DYADIC_BLOCKS * nngp_regression.JOINT_TAU

# What a solver may hold, in MB.
SOLVER_MEMORY_MB = solver_memory.DEFAULT_BUDGET_MB


def dense_memory_mb(num_train: int, num_points: int) -> float:
  """What the dense solver holds in MB: two matrices and two sets of columns.

  The few columns of dyadic points are not counted: which solver makes a problem
  does not depend on them.
  """
  return 16. * num_train * (num_train + num_points) / 1e6


def choose_solver(config: nngp_regression.ProblemConfig, solver: str = 'auto',
                  memory_budget_mb: float = SOLVER_MEMORY_MB) -> str:
  """The solver of a problem: 'dense' or 'matrix_free'.

  Args:
    config: the problem.
    solver: one of SOLVERS.
    memory_budget_mb: what it may hold.

  Raises:
    ValueError: there is no such solver, or the problem does not fit.
  """
  return choose_solver_by_sizes(
      solver, memory_budget_mb, config.num_train, config.input_dim,
      config.num_test + config.num_val, budget_name='solver_memory_mb',
      num_train_name='num_train = input_dim * data_ratio')


def choose_solver_by_sizes(solver: str, memory_budget_mb: float, num_train: int,
                           input_dim: int, num_points: int, *,
                           budget_name: str, num_train_name: str) -> str:
  """`choose_solver` by the sizes of a problem.

  Args:
    solver: one of SOLVERS.
    memory_budget_mb: what it may hold.
    num_train: T.
    input_dim: D.
    num_points: points of the posterior.
    budget_name: what the caller's user calls the budget, in errors.
    num_train_name: what that user calls T.

  Raises:
    ValueError: there is no such solver, or the problem does not fit.
  """
  checks.check_choice('solver', solver, SOLVERS)
  checks.check_positive(budget_name, memory_budget_mb)
  needed = {name: memory_mb(name, num_train, input_dim, num_points)
            for name in SOLVERS[1:]}
  allowed = [solver] if solver != 'auto' else list(needed)
  for name in allowed:
    if needed[name] <= memory_budget_mb:
      return name
  text = ', '.join(
      f'{name} needs {needed[name]:,.{0 if needed[name] >= 1 else 6}f} MB'
      for name in allowed)
  raise ValueError(
      f'{budget_name} must be enough for {num_train_name} = {num_train} points '
      f'of {input_dim} dimensions, got {memory_budget_mb:g}: {text}.')


def memory_mb(solver: str, num_train: int, input_dim: int,
              num_points: int) -> float:
  """What 'dense' or 'matrix_free' needs, MB; the latter for two block steps."""
  if solver == 'dense':
    return dense_memory_mb(num_train, num_points)
  return matrix_free.estimate_memory_mb(
      num_train, input_dim, num_points + _NUM_DYADIC, 2)


def held_mb(solver: str, num_train: int, input_dim: int, num_points: int,
            memory_budget_mb: float) -> float:
  """What it holds under a budget, MB: 'matrix_free' keeps what fits."""
  needed = memory_mb(solver, num_train, input_dim, num_points)
  if solver == 'dense':
    return needed
  return max(needed, min(memory_budget_mb, needed + tiles.all_tiles_mb(
      num_train, itemsize=4)))


class Points(NamedTuple):
  """Where a kernel is wanted; x_dyadic None is nowhere."""
  kernel: kernels.KernelConfig
  x_train: np.ndarray
  x_test: np.ndarray
  x_val: np.ndarray
  x_dyadic: np.ndarray | None = None

  @property
  def x(self) -> np.ndarray:
    """x_test and x_val, one after the other."""
    return np.concatenate([self.x_test, self.x_val])

  def block_priors(self) -> np.ndarray:
    """k(x, x) of neighbouring test points, [num_test // tau, tau, tau]."""
    return _block_priors(self.kernel, self.x_test)

  def dyadic(self) -> posterior.JointPoints | None:
    """What the posterior at dyadic points takes; None without them."""
    if self.x_dyadic is None:
      return None
    return posterior.JointPoints(
        kernels.nngp(self.kernel, self.x_dyadic, self.x_train),
        _block_priors(self.kernel, self.x_dyadic))


def _block_priors(kernel: kernels.KernelConfig, x: np.ndarray) -> np.ndarray:
  """k(x, x) of every tau neighbouring points, [n // tau, tau, tau]."""
  tau = nngp_regression.JOINT_TAU
  priors = np.empty([len(x) // tau, tau, tau])
  for i, prior in enumerate(priors):
    prior[:] = kernels.nngp(kernel, x[i * tau:(i + 1) * tau])
  return priors


# Of a checkpoint where processes cannot tell each other that they are at work.
_SECONDS_UNTIL_ABANDONED = 86_400.


class DenseSolver:
  """The kernel matrices of some points, each made when first needed."""

  num_extra_normals = 0  # Normals for f besides one per training point.

  def __init__(self, points: Points):
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
                    test_normals: np.ndarray, noise: np.ndarray,
                    noise_stds: Sequence[float], reference: str
                    ) -> list[np.ndarray]:
    """f at x_train [T], x_val, x_test, from as many standard normals each."""
    del noise, noise_stds, reference
    kernel, x_test, x_val = (self._points.kernel, self._points.x_test,
                             self._points.x_val)
    return posterior.sample_prior(
        self._matrix, normals,
        [posterior.PriorPoints(self._cross[len(x_test):],
                               [kernels.nngp(kernel, x_val)], val_normals),
         posterior.PriorPoints(self._cross[:len(x_test)],
                               [kernels.nngp(kernel, x_test, x_val),
                                kernels.nngp(kernel, x_test)], test_normals)],
        work=self._work)

  def solve(self, targets: Sequence[np.ndarray], noise_stds: Sequence[float],
            reference: str) -> list[nngp_regression.Solved]:
    """The posterior at x_test and x_val per noise level.

    Args:
      targets: y of each noise level, [T] float64.
      noise_stds: of each.
      reference: 'bayes' or 'enn2021'.
    """
    start = time.perf_counter()
    diagonal = np.diagonal(self._matrix)
    found = posterior.posterior_moments(
        self._matrix, self._cross,
        kernels.nngp_diag(self._points.kernel, self._points.x), targets,
        [posterior.noise_variance(noise_std, diagonal, reference)
         for noise_std in noise_stds],
        block_priors=self._points.block_priors(), work=self._work,
        joint=self._points.dyadic())
    seconds = (time.perf_counter() - start) / len(found)
    return [nngp_regression.Solved(moments, nngp_regression.GroundTruth(
        'dense', moments.residual, moments.mean_error, moments.std_error,
        seconds)) for moments in found]


def find_steps(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
  """The folders of steps that `MatrixFreeSolver` has made.

  Args:
    folder: where; one that is missing has none.
    name: a regular expression of the name in the solvers' `checkpoints`.
  """
  pattern = re.compile(f'{name}\\.[0-9a-f]{{10}}\\.steps')
  with contextlib.suppress(OSError):
    return [path for path in folder.iterdir()
            if pattern.fullmatch(path.name) and path.is_dir()]
  return []


class MatrixFreeSolver:
  """`nngp.matrix_free`, which draws and solves from one Krylov space.

  Args:
    points: where.
    memory_budget_mb: what it may hold.
    checkpoints: what the folders of its steps begin with, which are kept until
      it is done: one per set of noise levels. None for nowhere.
    progress: told how far it is.
  """

  def __init__(self, points: Points, memory_budget_mb: float,
               checkpoints: pathlib.Path | None = None,
               progress: Callable[[str], None] | None = None):
    self._points = points
    self._memory_budget_mb = memory_budget_mb
    self._checkpoints = checkpoints
    self._progress = progress
    self._drawn: matrix_free.Solution | None = None

  @property
  def num_extra_normals(self) -> int:
    """Normals for f besides one per training point."""
    return remainder.num_features(self._points.kernel,
                                  self._points.x_train.shape[1])

  def draw_function(self, normals: np.ndarray, val_normals: np.ndarray,
                    test_normals: np.ndarray, noise: np.ndarray,
                    noise_stds: Sequence[float], reference: str
                    ) -> list[np.ndarray]:
    """f at x_train [T], x_val, x_test; what it takes serves `solve` as well."""
    self._drawn = self._run(
        noise_stds, reference, normals_train=normals, normals_eval=val_normals,
        normals_rest=test_normals, noise=noise)
    return [self._drawn.function, self._drawn.eval_function,
            self._drawn.rest_function]

  def solve(self, targets: Sequence[np.ndarray], noise_stds: Sequence[float],
            reference: str) -> list[nngp_regression.Solved]:
    """As `DenseSolver.solve`, with error bounds."""
    found = self._drawn
    if found is None or not np.array_equal(found.noise_stds, noise_stds):
      found = self._run(noise_stds, reference, targets=targets)
    seconds = found.seconds / len(targets)
    return [nngp_regression.Solved(
        self._moments(found, i),
        nngp_regression.GroundTruth(
            'matrix_free', float(found.residual_norms[i]
                                 / np.linalg.norm(found.targets[i])),
            float(found.mean_error_bounds[i]),
            float(found.std_error_bounds[i]), seconds))
            for i in range(len(found.moments))]

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
      what = canonical.config_hash(
          [list(noise_stds), reference, 'targets' in draws])
      path = f'{self._checkpoints}.{what}.steps'
    points = self._points
    # Dyadic points come first, and f is not drawn there.
    x_eval, priors = points.x, points.block_priors()
    if points.x_dyadic is not None:
      x_eval = np.concatenate([points.x_dyadic, x_eval])
      priors = np.concatenate([_block_priors(points.kernel, points.x_dyadic),
                               priors])
    return matrix_free.solve(
        points.kernel, points.x_train, x_eval, noise_stds,
        reference=reference, memory_budget_mb=self._memory_budget_mb,
        checkpoint_path=path, block_priors=priors, progress=tell, **draws)

  def _moments(self, found: matrix_free.Solution,
               level: int) -> posterior.Moments:
    """At x_test and x_val, and jointly at dyadic points."""
    moments, weights = found.moments[level], found.weights[level]
    assert moments.covariances is not None  # They are asked for.
    if self._points.x_dyadic is None:
      return dataclasses.replace(moments, weights=weights)
    num = len(self._points.x_dyadic)
    tau = moments.covariances.shape[1]
    return dataclasses.replace(
        moments, weights=weights, mean=moments.mean[num:],
        std=moments.std[num:], covariances=moments.covariances[num // tau:],
        joint=posterior.JointMoments(moments.mean[:num].reshape(-1, tau),
                                     moments.covariances[:num // tau]))

  def clear(self, claimed: bool) -> None:
    """Removes all checkpoints: with f drawn, none is of use.

    Args:
      claimed: whether no other process can be at the same work. Otherwise what
        was written to during the last day may be another's, and stays.
    """
    if self._checkpoints is None:
      return
    for folder in find_steps(self._checkpoints.parent,
                             re.escape(self._checkpoints.name)):
      try:
        age = time.time() - files.newest_change(folder)
      except OSError:
        continue  # Somebody removes it at this moment.
      if claimed or age > _SECONDS_UNTIL_ABANDONED:
        step_files.remove(folder)
