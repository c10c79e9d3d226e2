"""What the last phase of the matrix-free solver, that of the means, passes on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from enn_ensembles.nngp import krylov as krylov_lib


class Start(NamedTuple):
  """Where the means of one noise level start.

  Attributes:
    guess: weights in the Krylov space, [m, 1].
    stds: of the posterior, [n].
    allowed: what the residual's norm may be.
    length: the largest norm of a solution over its std.
    covariances: in blocks of points; None where they are not asked for.
  """
  guess: np.ndarray
  stds: np.ndarray
  allowed: float
  length: float
  covariances: np.ndarray | None


class Means(NamedTuple):
  """What conjugate gradients have found, at all levels.

  Attributes:
    targets: [T, E].
    weights: [T, E].
    means: at x_eval, [n, E].
    errors: bounds of the means' errors as shares of their stds, [E].
    starts: per level.
    solved: variances of the last level.
  """
  targets: np.ndarray
  weights: np.ndarray
  means: np.ndarray
  errors: np.ndarray
  starts: Sequence[Start]
  solved: krylov_lib.Galerkin
