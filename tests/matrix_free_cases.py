"""Inputs of the matrix-free solver, and its errors by dense linear algebra."""

import numpy as np

from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import remainder

RELU = kernels.KernelConfig()
ERF = kernels.KernelConfig(activation='erf')
DEEP = kernels.KernelConfig(num_hidden_layers=3, weight_std=1.3,
                            first_bias=0.5)
NOISE_STDS = (0.01, 0.1, 1.)


def make_inputs(num_train, input_dim, num_eval, num_val=None, kernel=RELU):
  """(x_train, x_eval, and the normals by the names of `solve`)."""
  rng = np.random.default_rng(0)
  x_train = rng.standard_normal((num_train, input_dim))
  x_eval = rng.standard_normal((num_eval, input_dim))
  num = num_train + remainder.num_features(kernel, input_dim)
  normals = dict(normals_train=rng.standard_normal(num),
                 noise=rng.standard_normal(num_train))
  if num_val is not None:
    normals['normals_eval'] = rng.standard_normal(num_val)
  return x_train, x_eval, normals


def dense_errors(kernel, x_train, x_eval, solution):
  """Largest relative error of the stds, and of the means in stds: [E], [E]."""
  matrix = kernels.nngp(kernel, x_train)
  cross = kernels.nngp(kernel, x_train, x_eval)
  prior = kernels.nngp_diag(kernel, x_eval)
  std_errors, mean_errors = [], []
  for moments, y, variance in zip(solution.moments, solution.targets,
                                  solution.noise_variances, strict=True):
    solved = np.linalg.solve(matrix + variance * np.eye(len(y)), cross)
    std = np.sqrt(prior - np.sum(cross * solved, axis=0) + 1e-6)
    std_errors.append(np.max(np.abs(moments.std / std - 1)))
    mean_errors.append(np.max(np.abs(moments.mean - solved.T @ y) / std))
  return np.array(std_errors), np.array(mean_errors)
