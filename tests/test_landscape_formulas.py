"""Formulas of the loss landscape, against slow numpy and simulation."""

import itertools

import numpy as np
import pytest

from enn_ensembles.scoring import diversity
from enn_ensembles.studies.loss_landscape import formulas

RNG = np.random.default_rng(0)


def test_matrices_against_loops():
  vectors = RNG.standard_normal((4, 7))
  labels = RNG.integers(0, 3, (4, 11))
  cosines = diversity.cosine_matrix(vectors)
  disagreement = formulas.disagreement_matrix(labels)
  for i, j in itertools.product(range(4), repeat=2):
    expected = vectors[i] @ vectors[j] / np.sqrt(
        (vectors[i] @ vectors[i]) * (vectors[j] @ vectors[j]))
    assert cosines[i, j] == pytest.approx(expected, abs=1e-12)
    different = sum(a != b for a, b in zip(labels[i], labels[j]))
    assert disagreement[i, j] == different / 11
  assert formulas.pair_values(disagreement).tolist() == [
      disagreement[i, j] for i, j in itertools.combinations(range(4), 2)]


@pytest.mark.parametrize('num_classes', [2, 3, 10])
def test_upper_limit_is_that_of_independent_predictions(num_classes):
  num, a, b = 400_000, 0.8, 0.7
  rng = np.random.default_rng(num_classes)
  truth = rng.integers(0, num_classes, num)

  def predictions(accuracy):
    wrong = (truth + rng.integers(1, num_classes, num)) % num_classes
    return np.where(rng.random(num) < accuracy, truth, wrong)

  solution, sample = predictions(a), predictions(b)
  found = formulas.diversity(sample, solution, np.mean(sample == truth))
  assert formulas.upper_limit(a, b, num_classes) == pytest.approx(
      found, abs=0.01)


@pytest.mark.parametrize('num_classes', [3, 10])
def test_lower_limit_is_that_of_a_perturbed_copy(num_classes):
  num, a, p = 400_000, 0.8, 0.25
  rng = np.random.default_rng(num_classes)
  truth = rng.integers(0, num_classes, num)
  solution = np.where(rng.random(num) < a, truth, (truth + rng.integers(
      1, num_classes, num)) % num_classes)
  other = (solution + rng.integers(1, num_classes, num)) % num_classes
  sample = np.where(rng.random(num) < p, other, solution)
  b = np.mean(sample == truth)
  assert formulas.lower_limit(np.mean(solution == truth), b,
                              num_classes) == pytest.approx(
      formulas.diversity(sample, solution, b), abs=0.01)
  # A copy as accurate as the solution need not differ.
  assert formulas.lower_limit(0.8, 0.8, num_classes) == 0.


def test_jaccard_against_sets():
  sets = RNG.random((5, 30)) < 0.3
  sets[3] = sets[4] = False
  found = formulas.jaccard_matrix(sets)
  as_sets = [set(np.flatnonzero(row)) for row in sets]
  for i, j in itertools.product(range(5), repeat=2):
    either = as_sets[i] | as_sets[j]
    expected = len(as_sets[i] & as_sets[j]) / len(either) if either else 1.
    assert found[i, j] == pytest.approx(expected)


@pytest.mark.parametrize('sizes', [(2, 3, 6), (4, 5, 6), (0, 2, 5), (3, 3, 3),
                                   (0, 0, 4)])
def test_expected_jaccard_is_the_mean_over_all_sets(sizes):
  first, second, num_points = sizes
  fixed = set(range(first))
  values = []
  for chosen in itertools.combinations(range(num_points), second):
    either = fixed | set(chosen)
    values.append(len(fixed & set(chosen)) / len(either) if either else 1.)
  assert formulas.expected_jaccard(*sizes) == pytest.approx(np.mean(values))
  sets = np.zeros((2, num_points), bool)
  sets[0, :first], sets[1, :second] = True, True
  assert formulas.expected_jaccard_matrix(sets)[0, 1] == pytest.approx(
      np.mean(values))


def test_expected_jaccard_refuses_sets_that_do_not_fit():
  with pytest.raises(ValueError, match='must have 0 to 3 points, got 4 and 1'):
    formulas.expected_jaccard(4, 1, 3)


def test_confusion_matrix_counts():
  labels, predicted = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2])
  assert formulas.confusion_matrix(labels, predicted, 3).tolist() == [
      [1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_barrier_is_measured_from_the_line_between_the_ends():
  t = np.linspace(0., 1., 101)
  # 1 + t + h sin(pi t): the line between the ends is 1 + t.
  assert formulas.barrier(1. + t + 0.7 * np.sin(np.pi * t), t) == (
      pytest.approx(0.7))
  assert formulas.barrier((t - 0.5)**2, t) == 0.


def test_plane_holds_its_three_points():
  points = RNG.standard_normal((3, 9))
  plane = formulas.plane_through(points)
  np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
  np.testing.assert_allclose(plane.points(plane.coordinates), points,
                             atol=1e-12)
  # Distances in the plane are those of the weights.
  assert np.linalg.norm(plane.coordinates[1] - plane.coordinates[2]) == (
      pytest.approx(np.linalg.norm(points[1] - points[2])))
  line = np.stack([points[0], points[0] + points[1],
                   points[0] + 3. * points[1]])
  with pytest.raises(ValueError, match='must not be on one line'):
    formulas.plane_through(line)
  with pytest.raises(ValueError, match='must not be on one line'):
    formulas.plane_through(points[[0, 0, 1]])


def test_subsets_are_all_or_random_ones():
  rng = np.random.default_rng(0)
  assert formulas.subsets(4, 2, 200, rng) == list(
      itertools.combinations(range(4), 2))
  drawn = formulas.subsets(10, 5, 200, rng)
  assert len(set(drawn)) == 200
  assert all(len(set(one)) == 5 and list(one) == sorted(one) for one in drawn)


def test_mean_over_subsets():
  values = RNG.standard_normal((3, 2))
  np.testing.assert_allclose(
      formulas.mean_over_subsets(values, [(0, 2), (1,)]),
      [(values[0] + values[2]) / 2, values[1]])
