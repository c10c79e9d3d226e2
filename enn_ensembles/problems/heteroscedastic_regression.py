"""NNGP regression whose noise depends on the input, with the exact posterior.

y = f(x) + epsilon(x) n with f from the NNGP, n ~ N(0, 1) and

  epsilon(x) = noise_std exp(c u(x) - c^2),   u(x) = sum_i x_i / sqrt(D),

where u(x) ~ N(0, 1) at points x ~ N(0, I), so that noise_std^2 is the mean
noise variance, and c, the `noise_contrast`, is the std of log epsilon(x). The
posterior of f stays Gaussian, with the diagonal of epsilon(x_t)^2 in place of
noise_std^2 I. An agent is not told the noise.

x, f and n are those of the problem of `nngp_regression` with the same input
dimension, data ratio and seed, and all noise levels share them.
"""

from collections.abc import Sequence
import dataclasses
import functools
import time

import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import nngp_regression
from enn_ensembles.problems import regression_draws
from enn_ensembles.problems import solvers


def noise_std_at(x: np.ndarray, noise_std: float,
                 noise_contrast: float) -> np.ndarray:
  """epsilon(x), [N], at points x [N, D]."""
  u = x.sum(axis=1) / np.sqrt(x.shape[1])
  return noise_std * np.exp(noise_contrast * u - noise_contrast**2)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class HeteroscedasticProblem(nngp_regression.Problem):
  """A problem whose `noise_std` is epsilon at x_test, [num_test].

  Attributes:
    name: its id.
    noise_contrast: std of log epsilon(x).
  """
  name: str
  noise_contrast: float

  @property
  def prior(self) -> base.PriorKnowledge:
    """What an agent is told besides: nothing of the noise."""
    return dataclasses.replace(super().prior, likelihood=base.Gaussian(None))

  @functools.cached_property
  def problem_id(self) -> str:
    """As 'D10_l1_e0.1_c1_s0'."""
    return self.name


def problem_id(config: nngp_regression.ProblemConfig,
               noise_contrast: float) -> str:
  """As 'D10_l1_e0.1_c1_s0'; kernels other than the default add a hash."""
  number = nngp_regression.number
  return (f'D{config.input_dim}_l{number(config.data_ratio)}'
          f'_e{number(config.noise_std)}_c{number(noise_contrast)}'
          f'_s{config.seed}{config.settings_suffix}')


def make_problems(configs: Sequence[nngp_regression.ProblemConfig],
                  noise_contrast: float,
                  memory_budget_mb: float = solvers.SOLVER_MEMORY_MB
                  ) -> list[HeteroscedasticProblem]:
  """Problems of configs that differ in noise_std only.

  Args:
    configs: which; their reference is 'bayes'.
    noise_contrast: c, >= 0; 0 is the same noise everywhere.
    memory_budget_mb: what the solver may hold.

  Raises:
    ValueError: a value is not allowed, the dense solver has too little memory,
      or jax runs without x64.
  """
  kernels.require_x64()
  checks.check_scale('noise_contrast', noise_contrast)
  config = configs[0]
  if config.reference != 'bayes':
    raise ValueError("reference must be 'bayes' where noise depends on the "
                     f'input, got {config.reference!r}.')
  solvers.choose_solver(config, 'dense', memory_budget_mb)

  points = regression_draws.draw_points(config, with_dyadic=False)
  x_train, x_test, x_val = points.x_train, points.x_test, points.x_val
  noise = regression_draws.draw_noise(config)
  functions = solvers.DenseSolver(points).draw_function(
      *regression_draws.draw_function_normals(config), noise.train,
      [config.noise_std], config.reference)
  matrix = kernels.nngp(config.kernel, x_train)
  cross = kernels.nngp(config.kernel, points.x, x_train)
  variances = kernels.nngp_diag(config.kernel, points.x)
  block_priors = points.block_priors()

  found = []
  for config in configs:
    stds = [noise_std_at(x, config.noise_std, noise_contrast)
            for x in (x_train, x_val, x_test)]
    y_train, y_val, y_test = (
        (f + std * n)[:, None] for f, std, n in zip(functions, stds, noise))
    solved = solve(matrix, cross, variances, y_train[:, 0], stds[0],
                   block_priors)
    plain = nngp_regression.make_problem(
        config, x_train, y_train, x_test, x_val, y_val, solved,
        config.noise_std, config.reference, config.kernel, y_test=y_test,
        f_test=functions[2][:, None])
    fields = {field.name: getattr(plain, field.name)
              for field in dataclasses.fields(plain)}
    found.append(HeteroscedasticProblem(
        **{**fields, 'noise_std': stds[2]}, noise_contrast=noise_contrast,
        name=problem_id(config, noise_contrast)))
  return found


def solve(matrix: np.ndarray, cross: np.ndarray, variances: np.ndarray,
          targets: np.ndarray, noise_stds: np.ndarray,
          block_priors: np.ndarray | None = None) -> nngp_regression.Solved:
  """The posterior with a noise variance of its own for each training point.

  With S the diagonal of noise stds, k*^T (K + S^2)^-1 y is h*^T (H + I)^-1 S^-1
  y for H = S^-1 K S^-1 and h* = S^-1 k*, and so is the variance: it is the
  posterior of data in units of their noise.

  Args:
    matrix: K, [T, T] float64.
    cross: k(x, x_train), [n, T].
    variances: k(x, x) per point, [n].
    targets: y, [T].
    noise_stds: epsilon(x_t), [T].
    block_priors: see `posterior.posterior_moments`.
  """
  start = time.perf_counter()
  moments, = posterior.posterior_moments(
      matrix / np.outer(noise_stds, noise_stds), cross / noise_stds, variances,
      [targets / noise_stds], [1.], block_priors=block_priors)
  moments = dataclasses.replace(moments, weights=moments.weights / noise_stds)
  return nngp_regression.Solved(moments, nngp_regression.GroundTruth(
      'dense', moments.residual, moments.mean_error, moments.std_error,
      time.perf_counter() - start))
