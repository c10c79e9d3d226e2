"""Checks ground truth that lies in the cache, by arithmetic of its own.

A cached posterior is a mean, a std, and the weights w that its means come from.
Whatever solver made them, they must satisfy, with rows of the kernel that are
computed here afresh in float64:

* equations: y_i = sum_j K_ij w_j + s^2 w_i at random training points i. Their
  misfit, relative to |y|, is to be what the solver says that it has left.
* means: k(x, x_train) w is the stored mean at random test points, and at all
  dyadic points.
* labels: (y_val - val_mean) / sqrt(val_std^2 + epsilon^2) has mean square 1,
  and so at x_test. This is what would show a wrong std. The points of a
  problem are correlated: their effective number is taken from the posterior
  covariances of test points.
* up to `MAX_DENSE_CHECK` training points the posterior is also computed again
  by numpy, from the whole matrix, at dyadic points jointly.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import nngp_regression

# What an error of the mean may be in posterior stds, and of the std relative.
MEAN_TOLERANCE = 1e-3
STD_TOLERANCE = 1e-4
# What may be left of the equations, relative; and how much more than the solver
# says: random rows estimate it, and float64 rounds.
_RESIDUAL_TOLERANCE = 1e-3
_RESIDUAL_FACTOR = 2.
_RESIDUAL_ROUNDING = 1e-9
# Of the labels' mean square: this many of its standard errors.
_LABEL_SIGMAS = 6.

MAX_DENSE_CHECK = 1000


class Check(NamedTuple):
  """One check of one problem.

  Attributes:
    name: 'equations', 'means', 'dyadic means', 'labels', 'test labels', 'dense
      mean', 'dense std' or 'dense joint'.
    error: what was found.
    allowed: the most that passes.
  """
  name: str
  error: float
  allowed: float

  @property
  def passed(self) -> bool:
    """Whether the error is a number and allowed."""
    return bool(self.error <= self.allowed)


def check_problem(problem: nngp_regression.Problem, num_rows: int = 200,
                  seed: int = 0) -> list[Check]:
  """Checks the posterior of a problem.

  Args:
    problem: the problem; its posterior must be of its own data.
    num_rows: random training rows, and as many test points.
    seed: of their choice.

  Returns:
    The checks, passed or not.
  """
  num_train, num_test = len(problem.x_train), len(problem.x_test)
  checks = [check_equations(problem, num_rows, seed)]
  weights, variance = problem.weights, _noise_variance(problem)
  # Points are drawn apart from the rows.
  points = np.random.default_rng([seed, 1]).choice(
      num_test, min(num_rows, num_test), replace=False)
  mean = kernels.nngp(problem.kernel, problem.x_test[points],
                      problem.x_train) @ weights
  off = np.abs(mean - problem.test_mean[points]) / problem.test_std[points]
  checks.append(Check('means', float(off.max()), MEAN_TOLERANCE))
  if problem.x_dyadic is not None:
    assert problem.dyadic_mean is not None
    assert problem.dyadic_covariances is not None
    mean = kernels.nngp(problem.kernel, problem.x_dyadic,
                        problem.x_train) @ weights
    std = np.sqrt(np.einsum('bii->bi', problem.dyadic_covariances)).ravel()
    off = np.abs(mean - problem.dyadic_mean.ravel()) / std
    checks.append(Check('dyadic means', float(off.max()), MEAN_TOLERANCE))

  if problem.reference == 'bayes':
    for name, points in (('labels', 'val'), ('test labels', 'test')):
      if getattr(problem, f'y_{points}') is not None:
        checks.append(_check_labels(problem, name, points))
  if num_train <= MAX_DENSE_CHECK:
    checks += _check_dense(problem, variance)
  return checks


def check_equations(problem: nngp_regression.Problem, num_rows: int,
                    seed: int = 0) -> Check:
  """The equations of the weights, at random rows; see `check_problem`."""
  num_train, weights = len(problem.x_train), problem.weights
  rows = np.random.default_rng(seed).choice(
      num_train, min(num_rows, num_train), replace=False)
  misfit = (problem.y_train[rows, 0] - _noise_variance(problem) * weights[rows]
            - kernels.nngp(problem.kernel, problem.x_train[rows],
                           problem.x_train) @ weights)
  residual = (np.sqrt(np.mean(misfit**2))
              / np.sqrt(np.mean(problem.y_train**2)))
  allowed = min(_RESIDUAL_TOLERANCE, _RESIDUAL_ROUNDING
                + _RESIDUAL_FACTOR * problem.ground_truth.residual)
  return Check('equations', float(residual), allowed)


def _noise_variance(problem: nngp_regression.Problem) -> float:
  return posterior.noise_variance(
      problem.noise_std, kernels.nngp_diag(problem.kernel, problem.x_train),
      problem.reference)


def _check_labels(problem: nngp_regression.Problem, name: str,
                  points: str) -> Check:
  """The labels' mean square, in its standard errors away from 1."""
  labels, mean, std = (getattr(problem, field) for field in (
      f'y_{points}', f'{points}_mean', f'{points}_std'))
  square = (labels[:, 0] - mean)**2 / (std**2 + problem.noise_std**2)
  # For Gaussian labels cov(square_i, square_j) = 2 correlation_ij^2. The mean
  # over other points of it is that of neighbouring test points.
  covariances = problem.test_covariances
  correlation = 0.
  if len(covariances):
    stds = np.sqrt(np.einsum('bii->bi', covariances) + problem.noise_std**2)
    scaled = covariances / (stds[:, :, None] * stds[:, None, :])
    others = ~np.eye(scaled.shape[1], dtype=bool)
    correlation = float(np.mean(scaled[:, others]**2))
  num = len(square)
  standard_error = np.sqrt(2. * (1. / num + correlation))
  return Check(name, float(abs(square.mean() - 1.) / standard_error),
               _LABEL_SIGMAS)


def _check_dense(problem: nngp_regression.Problem,
                 variance: float) -> list[Check]:
  """The posterior once more, by one solve with the whole matrix."""
  points, num = problem.x_test, len(problem.x_test)
  if problem.x_dyadic is not None:
    points = np.concatenate([points, problem.x_dyadic])
  kernel = kernels.nngp(problem.kernel, problem.x_train)
  cross = kernels.nngp(problem.kernel, points, problem.x_train)
  solved = scipy.linalg.solve(
      kernel + variance * np.eye(len(kernel)),
      np.concatenate([problem.y_train, cross.T], axis=1), assume_a='sym')
  means, solved = cross @ solved[:, 0], solved[:, 1:]
  std = np.sqrt(kernels.nngp_diag(problem.kernel, problem.x_test)
                - np.einsum('nt,tn->n', cross[:num], solved[:, :num])
                + posterior.KERNEL_RIDGE)
  checks = [
      Check('dense mean',
            float(np.max(np.abs(means[:num] - problem.test_mean) / std)),
            MEAN_TOLERANCE),
      Check('dense std', float(np.max(np.abs(problem.test_std / std - 1.))),
            STD_TOLERANCE)]
  if problem.x_dyadic is not None:
    checks.append(_check_joint(problem, means[num:], cross[num:],
                               solved[:, num:]))
  return checks


def _check_joint(problem: nngp_regression.Problem, means: np.ndarray,
                 cross: np.ndarray, solved: np.ndarray) -> Check:
  """Means and covariances at dyadic points, in units of the largest std.

  Args:
    problem: what is checked.
    means: at x_dyadic, [n].
    cross: k(x_dyadic, x_train), [n, T].
    solved: (K + noise)^-1 of it, [T, n].
  """
  assert problem.x_dyadic is not None and problem.dyadic_mean is not None
  assert problem.dyadic_covariances is not None
  means = means.reshape(problem.dyadic_mean.shape)
  num_blocks, tau = means.shape
  largest = 0.
  for i in range(num_blocks):
    own = slice(i * tau, (i + 1) * tau)
    covariance = (kernels.nngp(problem.kernel, problem.x_dyadic[own])
                  - cross[own] @ solved[:, own]
                  + posterior.KERNEL_RIDGE * np.eye(tau))
    variances = np.diag(covariance)
    largest = max(
        largest,
        np.max(np.abs(means[i] - problem.dyadic_mean[i]) / np.sqrt(variances)),
        np.max(np.abs(covariance - problem.dyadic_covariances[i])
               / np.sqrt(np.outer(variances, variances))))
  return Check('dense joint', float(largest), STD_TOLERANCE)
