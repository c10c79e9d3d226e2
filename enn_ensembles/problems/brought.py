"""Problems from data that somebody brings, with their exact posterior."""

from typing import Any

import numpy as np

from enn_ensembles import checks
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import nngp_regression
from enn_ensembles.problems import solvers

_KERNEL = kernels.KernelConfig()  # The testbed's.

_LARGEST = 1e100  # Squares of larger numbers may be infinite.


def problem_from_data(
    x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray,
    x_val: np.ndarray, noise_std: float, reference: str = 'bayes',
    kernel: kernels.KernelConfig = _KERNEL,
    y_val: np.ndarray | None = None, solver: str = 'auto',
    memory_budget_mb: float = solvers.SOLVER_MEMORY_MB
) -> nngp_regression.Problem:
  """A problem from data that somebody brings, with its exact posterior.

  The posterior is that of the NNGP prior `kernel` with noise of std noise_std,
  whatever really made the data.

  Args:
    x_train: training inputs [T, D], finite real numbers of any dtype, like all
      arrays here.
    y_train: their labels, [T] or [T, 1].
    x_test: test inputs [N, D], at which agents are scored.
    x_val: validation inputs [M, D], at which members are selected.
    noise_std: std of the noise in y_train, in the units of y_train; from 1e-6
      to 1e6.
    reference: the noise variance of the posterior: 'bayes', noise_std^2, or
      'enn2021', noise_std^2 times the mean prior variance at x_train, as in
      published testbeds.
    kernel: the prior; that of the testbed unless given.
    y_val: labels at x_val, [M] or [M, 1], for selection by labels and for
      agents that stop early, which need them; no other agent sees them.
    solver: 'dense' factorises the kernel matrix of T^2 entries, 'matrix_free'
      never stores it, 'auto' is dense where that fits.
    memory_budget_mb: what the solver may hold, MB of 10^6 bytes.

  Returns:
    The problem. Its arrays are float64 and read-only copies of what was given.
    Nobody knows its f: y_test, f_test and what belongs to dyadic points are
    None.

  Raises:
    ValueError: a shape does not fit, a number is masked, not finite or beyond
      1e100, the problem does not fit into the budget, or jax runs without x64.
  """
  kernels.require_x64()
  nngp_regression.check_noise_std('noise_std', noise_std)
  checks.check_choice('reference', reference, posterior.REFERENCES)
  if not isinstance(kernel, kernels.KernelConfig):
    raise ValueError(f'kernel must be a KernelConfig, got '
                     f'{checks.shown(kernel)}.')
  x_train = _check_points('x_train', x_train)
  y_train = _check_targets('y_train', y_train, x_train)
  x_test = _check_points('x_test', x_test, x_train.shape[1])
  x_val = _check_points('x_val', x_val, x_train.shape[1])
  if y_val is not None:
    y_val = _check_targets('y_val', y_val, x_val)
  solver = solvers.choose_solver_by_sizes(solver, memory_budget_mb,
                                          len(x_train), x_train.shape[1],
                                          len(x_test) + len(x_val),
                                          budget_name='memory_budget_mb',
                                          num_train_name='T')
  points = solvers.Points(kernel, x_train, x_test, x_val)
  if solver == 'dense':
    chosen = solvers.DenseSolver(points)
  else:
    chosen = solvers.MatrixFreeSolver(points, memory_budget_mb)
  solved, = chosen.solve([y_train[:, 0]], [float(noise_std)], reference)
  return nngp_regression.make_problem(None, x_train, y_train,
                                      x_test, x_val, y_val, solved,
                                      float(noise_std), reference, kernel)


def _check_finite(name: str, values: Any) -> np.ndarray:
  """Brought numbers as a float64 array of their own."""
  if np.ma.is_masked(values):
    raise ValueError(f'{name} must be without masked values, got '
                     f'{np.ma.count_masked(values)}.')
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
  if np.abs(values).max(initial=0.) > _LARGEST:
    raise ValueError(f'{name} must be from -{_LARGEST:g} to {_LARGEST:g}, got '
                     f'{values.flat[np.abs(values).argmax()]:g}.')
  return values


def _check_points(name: str, x: Any,
                  input_dim: int | None = None) -> np.ndarray:
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
