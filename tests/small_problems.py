"""Small problems of NNGP regression, and whether two are the same."""

import numpy as np

from enn_ensembles import problems

NOISE_STDS = (0.01, 0.1, 1.)
BROUGHT_ARRAYS = ('x_train', 'y_train', 'x_test', 'x_val', 'test_mean',
                  'test_std', 'val_mean', 'val_std', 'y_val',
                  'test_covariances', 'weights')
ARRAYS = (*BROUGHT_ARRAYS, 'y_test', 'f_test', 'x_dyadic', 'dyadic_mean',
          'dyadic_covariances')
# Few points where the posterior is: a test may make many such problems.
SMALL = dict(num_test=7, num_val=5)


def small_config(noise_std: float = 0.1, **fields) -> problems.ProblemConfig:
  """Of 12 training points in 3 dimensions; fields replace anything."""
  return problems.ProblemConfig(**{
      **dict(input_dim=3, data_ratio=4, noise_std=noise_std, seed=0), **SMALL,
      **fields})


def make_problem(config: problems.ProblemConfig, cache_dir=None,
                 **settings) -> problems.Problem:
  """One problem."""
  problem, = problems.make_problems([config], cache_dir, **settings)
  return problem


def make_group(input_dim: int, data_ratio: float, noise_stds, seed: int,
               reference: str = 'bayes', cache_dir=None, solver: str = 'auto',
               progress=None, **fields) -> list[problems.Problem]:
  """The problems of a seed, one per noise level."""
  return problems.make_problems(
      [problems.ProblemConfig(input_dim, data_ratio, noise_std, seed, reference,
                              **fields) for noise_std in noise_stds],
      cache_dir, solver, progress=progress)


def assert_same(a: problems.Problem, b: problems.Problem,
                names: tuple[str, ...] = ARRAYS) -> None:
  """Bit for bit, in all arrays or in those that are named."""
  for name in names:
    np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
