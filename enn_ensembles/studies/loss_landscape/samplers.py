"""Four ways to draw networks around one solution: subspace samplers.

All take a numpy generator and return weights float64 [num, M]. What the paper
describes, and what the authors' public notebook sets:

  random    theta + s U u, u a random direction of length 1, U uniform in (0, 1)
  dropout   every weight is 0 with probability p, the others are / (1 - p)
  diagonal  mean and std of the last snapshots of a run, weight by weight
  low_rank  mean and the largest principal components of those snapshots

Fort, Hu & Lakshminarayanan 2019 (arXiv 1912.02757), section 4.1.
"""

from collections.abc import Callable

import numpy as np

from enn_ensembles import checks
from enn_ensembles.studies.loss_landscape import formulas

SAMPLERS = ('random', 'dropout', 'diagonal', 'low_rank')
PCA_SCALES = ('covariance', 'published')


def draw_random(solution: np.ndarray, scales: np.ndarray,
                rng: np.random.Generator) -> np.ndarray:
  """Steps of lengths scales[i] * U_i in random directions, [num, M]."""
  directions = rng.standard_normal((len(scales), len(solution)))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  lengths = np.asarray(scales) * rng.random(len(scales))
  return solution + lengths[:, None] * directions


def draw_dropout(solution: np.ndarray, rates: np.ndarray,
                 rng: np.random.Generator) -> np.ndarray:
  """Weights 0 with probability rates[i], else / (1 - rates[i]), [num, M]."""
  rates = np.asarray(rates, np.float64)[:, None]
  kept = rng.random((len(rates), len(solution))) >= rates
  return solution * kept / (1. - rates)


def draw_diagonal(snapshots: np.ndarray, scales: np.ndarray,
                  rng: np.random.Generator) -> np.ndarray:
  """Independent normals with each weight's mean and std over snapshots.

  Args:
    snapshots: [L, M]; stds have ddof 0.
    scales: of the stds, one per draw.
    rng: draws them.
  """
  mean, std = snapshots.mean(axis=0), snapshots.std(axis=0)
  normals = rng.standard_normal((len(scales), len(mean)))
  return mean + np.asarray(scales)[:, None] * std * normals


def draw_low_rank(snapshots: np.ndarray, scales: np.ndarray,
                  num_components: int, pca_scale: str,
                  rng: np.random.Generator) -> np.ndarray:
  """Normals along the largest principal components of snapshots.

  Args:
    snapshots: [L, M].
    scales: of the coordinates, one per draw.
    num_components: below L.
    pca_scale: 'covariance' gives each component the std that snapshots have
      along it; 'published' gives each the std 1, whatever its singular value,
      as the public notebook does.
    rng: draws them.

  Raises:
    ValueError: pca_scale is neither, or there are too few snapshots.
  """
  checks.check_choice('pca_scale', pca_scale, PCA_SCALES)
  mean, directions, stds = formulas.principal_components(
      snapshots, num_components)
  if pca_scale == 'published':
    stds = np.ones_like(stds)
  normals = rng.standard_normal((len(scales), num_components))
  return mean + np.asarray(scales)[:, None] * (normals * stds) @ directions


def keep_accurate(draw: Callable[[int], np.ndarray],
                  accuracy: Callable[[np.ndarray], np.ndarray], num: int,
                  least: float, max_tries: int) -> tuple[np.ndarray, int]:
  """Draws that reach an accuracy, each tried a few times.

  Where no try reaches it, the best one is taken: an ensemble has as many
  members as it says.

  Args:
    draw: number -> so many weights [number, M].
    accuracy: weights [J, M] -> validation accuracies [J].
    num: how many are wanted.
    least: accuracy that a draw must reach.
    max_tries: of each.

  Returns:
    weights [num, M], and how many of them reach the accuracy.
  """
  kept, best = draw(num), np.full(num, -np.inf)
  candidates = kept
  open_places = np.arange(num)
  for attempt in range(max_tries):
    if attempt:
      candidates = draw(len(open_places))
    found = accuracy(candidates)
    better = found > best[open_places]
    kept[open_places[better]] = candidates[better]
    best[open_places[better]] = found[better]
    open_places = np.flatnonzero(best < least)
    if not len(open_places):
      break
  return kept, num - len(open_places)
