"""Functions of a Gaussian process: one per key, whatever points it is asked at.

A draw at n points takes n normals and the Cholesky factor of their joint
covariance. Points that are asked for later are drawn given all earlier ones, by
further block rows of that factor, from normals of their own: a key stays one
function for as long as its `FunctionDraws` lives. (Which function it is depends
on the order in which points were first asked for.)
"""

from typing import NamedTuple
from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from enn_ensembles import checks
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior

# Points that are remembered at most: their factor takes 800 MB.
MAX_POINTS = 10_000


class Process(Protocol):
  """A Gaussian process, conditioned on data or not."""

  def moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n] and std [n] at x [n, D]."""

  def joint(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n] and covariance [n, n] at x [n, D]."""


class Prior(NamedTuple):
  """The Gaussian process of a kernel, conditioned on nothing: mean 0.

  Attributes:
    kernel: the kernel.
  """
  kernel: kernels.KernelConfig

  def moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n] and std [n] at x [n, D]."""
    variances = kernels.nngp_diag(self.kernel, x)
    return np.zeros_like(variances), np.sqrt(variances)

  def joint(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n] and covariance [n, n] at x [n, D]."""
    return np.zeros(len(x)), kernels.nngp(self.kernel, x)


class _PointSet(NamedTuple):
  """Points that were first asked for together.

  Attributes:
    x: [n, D].
    mean: [n].
    row: blocks of the joint factor's row, transposed: per earlier set
      [n of that set, n].
    factor: its last block, lower triangular [n, n].
  """
  x: np.ndarray
  mean: np.ndarray
  row: list[np.ndarray]
  factor: np.ndarray


class FunctionDraws:
  """Draws of a Gaussian process.

  Args:
    process: the process.
    ridge: added to every variance, so that a covariance has a Cholesky factor.
  """

  def __init__(self, process: Process, ridge: float = 0.):
    self._process = process
    self._ridge = ridge
    self._sets: list[_PointSet] = []
    # Bytes of a point -> (its set, its row there).
    self._places: dict[bytes, tuple[int, int]] = {}

  def sample(self, x: np.ndarray, key: chex.PRNGKey) -> jax.Array:
    """The function of a key at x [n, D], as [n, 1] float64.

    `key` may be traced (vmap over keys), x may not.

    Raises:
      ValueError: a covariance is not positive definite, or more than MAX_POINTS
        different points were asked for in all.
    """
    self._add_unknown(x)
    places = np.array([self._places[point.tobytes()] for point in x])
    normals, values = [], {}
    for i, points in enumerate(self._sets[:places[:, 0].max() + 1]):
      own = key if i == 0 else jax.random.fold_in(key, i)
      normals.append(jax.random.normal(own, points.mean.shape, np.float64))
      if i in places[:, 0]:
        values[i] = sum(
            (block.T @ z for block, z in zip(points.row, normals)),
            start=points.mean + points.factor @ normals[i])
    if len(values) == 1:  # All points lie in one set.
      value, = values.values()
      if np.array_equal(places[:, 1], np.arange(len(value))):
        return value[:, None]
    starts = dict(zip(values, np.cumsum(
        [0, *(len(value) for value in values.values())])))
    rows = np.array([starts[i] + row for i, row in places])
    return jnp.concatenate(list(values.values()))[rows, None]

  def _add_unknown(self, x: np.ndarray) -> None:
    """Makes a set of those points that were never asked for."""
    fresh = {point.tobytes(): point for point in x
             if point.tobytes() not in self._places}
    if not fresh:
      return
    if len(self._places) + len(fresh) > MAX_POINTS:
      raise ValueError(
          f'one function can be asked at no more than {MAX_POINTS} points in '
          f'all, got {len(fresh)} after {len(self._places)}: its joint '
          'covariance is remembered.')
    new = self._make_set(np.stack(list(fresh.values())))
    for row, point in enumerate(fresh):
      self._places[point] = (len(self._sets), row)
    self._sets.append(new)

  def _make_set(self, x: np.ndarray) -> _PointSet:
    everything = np.concatenate([points.x for points in self._sets] + [x])
    mean, covariance = self._process.joint(everything)
    num = len(x)
    start, row = 0, []
    for earlier in self._sets:
      left = covariance[start:start + len(earlier.x), -num:].copy()
      start += len(earlier.x)
      for a, b in zip(earlier.row, row):
        left -= a.T @ b
      row.append(scipy.linalg.solve_triangular(earlier.factor, left,
                                               lower=True))
    own = covariance[-num:, -num:].copy()
    own[np.diag_indices_from(own)] += self._ridge
    for block in row:
      own -= block.T @ block
    return _PointSet(x, mean[-num:], row, posterior.cholesky(own))


class ProcessSampler:
  """A Gaussian process as the sampler of an agent: draws and exact moments.

  Args:
    process: the process.
    analytic: whether it is scored on its exact moments, not on samples.
    input_dim: D.
    ridge: see `FunctionDraws`; moments are without it.
  """
  mappable = True

  def __init__(self, process: Process, analytic: bool, input_dim: int,
               ridge: float = 0.):
    self.analytic = analytic
    self._process = process
    self._input_dim = input_dim
    self._functions = FunctionDraws(process, ridge)

  def __call__(self, x: np.ndarray, key: chex.PRNGKey) -> jax.Array:
    """The function of the key at x [n, D], [n, 1] float64."""
    return self._functions.sample(self._points(x), key)

  def moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean [n] and std [n] at x [n, D]."""
    return self._process.moments(self._points(x))

  def joint_covariance(self, x: np.ndarray) -> np.ndarray:
    """Exact covariance [n, n] at x [n, D]."""
    return self._process.joint(self._points(x))[1]

  def _points(self, x: np.ndarray) -> np.ndarray:
    x = np.ascontiguousarray(x, dtype=np.float64)
    checks.check_points(x.shape, (self._input_dim,))
    return x
