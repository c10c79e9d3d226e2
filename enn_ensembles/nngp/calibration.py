"""How much Galerkin's variances lack, from a random sample of the points.

A variance lacks r^T A^-1 r, r the residual of its point. Without more it is
known to lie between 0 and |r|^2, norms being taken in a metric below A: a wide
interval, and one more block step makes |r|^2 only ten times smaller. But
residuals are nearly generic directions of a space of T dimensions, and A's
spectrum as they see it is the same for all: r^T A^-1 r / |r|^2 varies by about
T^-1/2 from point to point. So it is computed for a random sample of the points,
by conjugate gradients, and taken to lie within three times the sample's largest
deviation of its mean for the others. For independent normal deviations that is
beyond five of their standard deviations. (It is a statement about the points
that are asked for, from a random sample of them, and no strict bound.)
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from enn_ensembles.nngp import conjugate_gradients
from enn_ensembles.nngp import krylov as krylov_lib
from enn_ensembles.nngp import tall

# Points per noise level that are solved exactly.
_NUM_SAMPLED = 12
# Times the largest deviation of the sample.
_SAFETY = 3.
_MAX_STEPS = 20
_TOLERANCE = 1e-4  # Of the energies that conjugate gradients find, relative.


class Calibration(NamedTuple):
  """r^T A^-1 r over |r|^2 in the metric of `Krylov`, per noise level [E].

  Attributes:
    centers: its mean.
    radii: by what it differs from that at most.
  """
  centers: np.ndarray
  radii: np.ndarray


def arrays(found: Calibration | None) -> dict[str, np.ndarray]:
  """What is kept of it on the disk; nothing of None."""
  return {} if found is None else {'calibration': np.stack(found)}


def from_arrays(kept: Mapping[str, np.ndarray]) -> Calibration | None:
  """Inverse of `arrays`, others left out."""
  return Calibration(*kept['calibration']) if 'calibration' in kept else None


def calibrate(krylov: krylov_lib.Krylov, outside: np.ndarray,
              variances: np.ndarray,
              make_gradients: Callable[
                  [np.ndarray], conjugate_gradients.ConjugateGradients],
              apply: Callable[[np.ndarray], np.ndarray]) -> Calibration:
  """Measures it.

  Args:
    krylov: with the products of all its blocks.
    outside: what `take` returned of the last.
    variances: s^2 per noise level, [E].
    make_gradients: for s^2 of each of some right-hand sides.
    apply: multiplies R with vectors [T, m].
  """
  num = len(krylov.prior)
  sample = np.random.default_rng(0).choice(num, min(num, _NUM_SAMPLED),
                                           replace=False)
  residuals, squares = [], []
  for variance in variances:
    solved = krylov.variances(krylov.factor(variance))
    residuals.append(tall.times([krylov.rest, outside],
                                solved.residual_weights[:, sample]))
    squares.append(solved.residual_squares[sample])
  vectors = np.concatenate(residuals, 1).astype(np.float64)
  gradients = make_gradients(np.repeat(variances, len(sample)))
  gradients.start(vectors, np.zeros_like(vectors))
  gradients.restart(np.zeros_like(vectors))
  for _ in range(_MAX_STEPS):
    gradients.take(apply(gradients.search))
    if np.all(gradients.increments <= _TOLERANCE * gradients.energies):
      break
  floor = np.finfo(np.float64).tiny
  ratios, left = (
      values.reshape(len(variances), -1) / np.maximum(squares, floor)
      for values in (gradients.energies, gradients.increments))
  centers = np.mean(ratios, axis=1)
  deviations = np.max(np.abs(ratios - centers[:, None]), axis=1)
  return Calibration(centers,
                     _SAFETY * deviations + np.max(left, axis=1))
