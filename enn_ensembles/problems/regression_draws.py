"""What a seed draws for a regression problem, whatever its noise level.

x ~ N(0, I) where the problem is trained, validated and scored, the standard
normals of its function, and those of its label noise.
"""

from typing import NamedTuple

import numpy as np

from enn_ensembles.problems import draws
from enn_ensembles.problems import nngp_regression
from enn_ensembles.problems import solvers


class Normals(NamedTuple):
  """Independent standard normals, float64, one per training point and so on."""
  train: np.ndarray
  val: np.ndarray
  test: np.ndarray


def draw_points(config: nngp_regression.ProblemConfig,
                with_dyadic: bool = True) -> solvers.Points:
  """All points of a problem, without the dyadic ones if those have no use."""
  dim = config.input_dim
  return solvers.Points(
      config.kernel,
      _draw(config, draws.X_TRAIN_KEY, config.num_train, dim),
      _draw(config, draws.X_TEST_KEY, config.num_test, dim),
      _draw(config, draws.X_VAL_KEY, config.num_val, dim),
      nngp_regression.dyadic_points(_draw(
          config, draws.X_DYADIC_KEY, nngp_regression.NUM_DYADIC_BLOCKS,
          2 + nngp_regression.JOINT_TAU, dim)) if with_dyadic else None)


def draw_noise(config: nngp_regression.ProblemConfig) -> Normals:
  """n of the labels f + noise_std n."""
  return Normals(_draw(config, draws.NOISE_KEY, config.num_train),
                 _draw(config, draws.VAL_NOISE_KEY, config.num_val),
                 _draw(config, draws.TEST_NOISE_KEY, config.num_test))


def draw_function_normals(config: nngp_regression.ProblemConfig,
                          num_extra: int = 0) -> Normals:
  """What a solver makes f of; `num_extra` more for the training points."""
  return Normals(
      _draw(config, draws.FUNCTION_KEY, config.num_train + num_extra),
      _draw(config, draws.VAL_FUNCTION_KEY, config.num_val),
      _draw(config, draws.TEST_FUNCTION_KEY, config.num_test))


def _draw(config: nngp_regression.ProblemConfig, use: draws.Use,
          *sizes: int) -> np.ndarray:
  return draws.draw_normals(config.seed, use,
                            (config.input_dim, config.num_train), sizes)
