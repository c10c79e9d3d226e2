"""Pure formulas of the study: numpy, float64, no random numbers but where said.

Fort, Hu & Lakshminarayanan 2019, "Deep ensembles: a loss landscape perspective"
(arXiv 1912.02757). N test points, C classes, M weights of one network.
"""

from collections.abc import Sequence
import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats


def disagreement_matrix(labels: np.ndarray) -> np.ndarray:
  """Share of points that two networks give different labels, for all pairs.

  Args:
    labels: predicted classes, integers [K, N].

  Returns:
    [K, K], from 0 to 1.
  """
  return np.stack([np.mean(labels != row, axis=1) for row in labels])


def pair_values(matrix: np.ndarray) -> np.ndarray:
  """The values [K (K - 1) / 2] of all pairs of different rows, from [K, K]."""
  return matrix[np.triu_indices(len(matrix), 1)]


def diversity(labels: np.ndarray, solution_labels: np.ndarray,
              accuracy: np.ndarray | float) -> np.ndarray:
  """Disagreement with a solution, over the error of the network itself.

  P(label is not the solution's) / (1 - accuracy): how much of what a network
  could at most disagree in it does. The paper's measure of diversity.

  Args:
    labels: predicted classes, integers [..., N].
    solution_labels: integers [N].
    accuracy: of the networks, [...].

  Returns:
    [...]; inf or nan where the accuracy is 1.
  """
  with np.errstate(invalid='ignore', divide='ignore'):
    return (np.mean(labels != solution_labels, axis=-1)
            / (1. - np.asarray(accuracy, np.float64)))


def upper_limit(solution_accuracy: np.ndarray | float,
                accuracy: np.ndarray | float, num_classes: int) -> np.ndarray:
  """Diversity of a network whose predictions are independent of a solution's.

  [a (1 - b) + b (1 - a) + (1 - a)(1 - b)(C - 2)/(C - 1)] / (1 - b): one of both
  is right, or both are wrong in different ways, all wrong classes being equally
  likely.

  Args:
    solution_accuracy: a, below 1.
    accuracy: b, below 1.
    num_classes: C, >= 2.
  """
  a, b = (np.asarray(v, np.float64) for v in (solution_accuracy, accuracy))
  with np.errstate(invalid='ignore', divide='ignore'):
    return (a * (1 - b) + b * (1 - a) + (1 - a) * (1 - b) * (num_classes - 2)
            / (num_classes - 1)) / (1 - b)


def lower_limit(solution_accuracy: np.ndarray | float,
                accuracy: np.ndarray | float, num_classes: int) -> np.ndarray:
  """Diversity of a solution whose predictions are replaced at random.

  With probability p a prediction becomes another class, all being equally
  likely. The accuracy b = a (1 - p) + (1 - a) p / (C - 1) gives
  p = (a - b) / (a + (a - 1)/(C - 1)), and the diversity is p / (1 - b). It is
  negative where b > a: such a network is no such copy.

  Args:
    solution_accuracy: a, not 1 / C.
    accuracy: b, below 1.
    num_classes: C, >= 2.
  """
  a, b = (np.asarray(v, np.float64) for v in (solution_accuracy, accuracy))
  with np.errstate(invalid='ignore', divide='ignore'):
    return (a - b) / (a + (a - 1) / (num_classes - 1)) / (1 - b)


def jaccard_matrix(sets: np.ndarray) -> np.ndarray:
  """|A and B| / |A or B| of all pairs of sets; 1 for two empty ones.

  Args:
    sets: membership, bool [K, N].

  Returns:
    [K, K].
  """
  members = np.asarray(sets, np.float64)
  both = members @ members.T
  sizes = members.sum(axis=1)
  either = sizes[:, None] + sizes - both
  return np.where(either > 0, both / np.where(either > 0, either, 1.), 1.)


def expected_jaccard(first: int, second: int, num_points: int) -> float:
  """Mean Jaccard overlap of two independent random sets of these sizes.

  The size k of their intersection is hypergeometric; the mean is of
  k / (first + second - k). 1 for two empty sets.

  Args:
    first: points in one set.
    second: points in the other.
    num_points: points that both are drawn from.

  Raises:
    ValueError: a set has more points than there are.
  """
  if not 0 <= min(first, second) <= max(first, second) <= num_points:
    raise ValueError(f'sets must have 0 to {num_points} points, got {first} '
                     f'and {second}.')
  if first + second == 0:
    return 1.
  both = np.arange(max(0, first + second - num_points), min(first, second) + 1)
  probabilities = stats.hypergeom.pmf(both, num_points, first, second)
  return float(np.sum(probabilities * both / (first + second - both)))


def expected_jaccard_matrix(sets: np.ndarray) -> np.ndarray:
  """`expected_jaccard` of all pairs of sets, bool [K, N] -> [K, K]."""
  sizes = np.sum(sets, axis=1).tolist()
  num_points = np.shape(sets)[1]
  known: dict[tuple[int, int], float] = {}
  for pair in itertools.combinations_with_replacement(sorted(set(sizes)), 2):
    known[pair] = known[pair[::-1]] = expected_jaccard(*pair, num_points)
  return np.array([[known[a, b] for b in sizes] for a in sizes])


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray,
                     num_classes: int) -> np.ndarray:
  """How often each class [row] is predicted as each class [column], int64."""
  cells = np.asarray(labels, np.int64) * num_classes + predicted
  return np.bincount(cells, minlength=num_classes**2).reshape(
      num_classes, num_classes)


def barrier(losses: np.ndarray, positions: np.ndarray) -> float:
  """How far the loss rises between two ends above the line through theirs.

  max over t of L(t) - [(1 - t) L(0) + t L(1)], which is at least 0.

  Args:
    losses: along the line, [P].
    positions: t, [P], from 0 to 1, both ends included.
  """
  line = (1. - positions) * losses[0] + positions * losses[-1]
  return float(np.max(losses - line))


class Plane(NamedTuple):
  """The plane through three points of a space of M weights.

  Attributes:
    origin: the first point, [M].
    axes: two orthogonal vectors of length 1, [2, M]; the first points from the
      first point to the second.
    coordinates: of the three points in the plane, [3, 2].
  """
  origin: np.ndarray
  axes: np.ndarray
  coordinates: np.ndarray

  def points(self, coordinates: np.ndarray) -> np.ndarray:
    """Weights [..., M] at coordinates [..., 2]."""
    return self.origin + coordinates @ self.axes


def plane_through(points: np.ndarray) -> Plane:
  """The plane through three points [3, M].

  Raises:
    ValueError: they are on one line.
  """
  points = np.asarray(points, np.float64)
  first, second = points[1] - points[0], points[2] - points[0]
  length = np.linalg.norm(first)
  axis = first / length if length > 0 else first
  rest = second - (second @ axis) * axis
  # Rounding of two parallel vectors leaves a rest of that size.
  if not length > 0 or np.linalg.norm(rest) <= 1e-9 * np.linalg.norm(second):
    raise ValueError('points of a plane must not be on one line.')
  axes = np.stack([axis, rest / np.linalg.norm(rest)])
  return Plane(points[0], axes, (points - points[0]) @ axes.T)


def subsets(num_members: int, size: int, most: int,
            rng: np.random.Generator) -> list[tuple[int, ...]]:
  """All subsets of a size, or `most` different random ones of more.

  Args:
    num_members: they are of 0..num_members - 1.
    size: from 1 to num_members.
    most: subsets.
    rng: draws them.
  """
  if math.comb(num_members, size) <= most:
    return list(itertools.combinations(range(num_members), size))
  found: dict[tuple[int, ...], None] = {}
  while len(found) < most:
    found[tuple(sorted(rng.choice(num_members, size, replace=False)
                       .tolist()))] = None
  return list(found)


def principal_components(vectors: np.ndarray, num: int
                         ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Mean, directions and stds of the largest principal components.

  Args:
    vectors: [L, M].
    num: components, below L.

  Returns:
    mean [M], directions [num, M] of length 1, stds [num] with ddof 1.

  Raises:
    ValueError: there are too few vectors.
  """
  if not 1 <= num < len(vectors):
    raise ValueError(f'components must be from 1 to {len(vectors) - 1} for '
                     f'{len(vectors)} vectors, got {num}.')
  vectors = np.asarray(vectors, np.float64)
  mean = vectors.mean(axis=0)
  _, values, directions = np.linalg.svd(vectors - mean, full_matrices=False)
  return mean, directions[:num], values[:num] / np.sqrt(len(vectors) - 1)


def mean_over_subsets(values: np.ndarray,
                      chosen: Sequence[Sequence[int]]) -> np.ndarray:
  """Means of rows of values [K, ...] over each subset, [subsets, ...]."""
  return np.stack([values[list(rows)].mean(axis=0) for rows in chosen])
