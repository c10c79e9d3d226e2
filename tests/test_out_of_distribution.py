"""Detection of points out of distribution, against counting by hand."""

import numpy as np
import pytest

from enn_ensembles.scoring import out_of_distribution

RNG = np.random.default_rng(2)


def slow_false_positives(positive, negative):
  """At the highest threshold that finds 95 % of the positives."""
  for threshold in sorted(set(positive) | set(negative), reverse=True):
    if np.mean(positive >= threshold) >= 0.95:
      return np.mean(negative >= threshold)
  raise AssertionError


@pytest.mark.parametrize('decimals', [8, 1])  # One decimal makes many ties.
def test_detection_is_counting(decimals):
  inside = RNG.normal(size=60).round(decimals)
  outside = (RNG.normal(size=41) + 1.).round(decimals)
  found = out_of_distribution.detection(inside, outside)
  wins = outside[:, None] - inside
  assert found.auroc == pytest.approx(
      np.mean((wins > 0) + 0.5 * (wins == 0)))
  assert found.fpr95 == pytest.approx(slow_false_positives(outside, inside))
  assert found.fpr95_in == pytest.approx(
      slow_false_positives(-inside, -outside))
  assert found.base_rate == pytest.approx(41 / 101)
  # Precision at each threshold, weighted by the recall it adds.
  recall, expected = 0., 0.
  for threshold in sorted(set(inside) | set(outside), reverse=True):
    true, false = np.sum(outside >= threshold), np.sum(inside >= threshold)
    expected += (true / 41 - recall) * true / (true + false)
    recall = true / 41
  assert found.aupr == pytest.approx(expected)


def test_ends():
  perfect = out_of_distribution.detection(np.zeros(5), np.ones(3))
  assert perfect == (1., 1., 0., 0., 3 / 8)
  blind = out_of_distribution.detection(np.zeros(5), np.zeros(3))
  assert blind == (0.5, 3 / 8, 1., 1., 3 / 8)
  found = out_of_distribution.detection(np.array([0., np.nan]), np.ones(2))
  assert np.isnan(found[:4]).all() and found.base_rate == 0.5
  with pytest.raises(ValueError, match='outside must be'):
    out_of_distribution.detection(np.zeros(5), np.zeros(0))
  with pytest.raises(ValueError, match='inside must be'):
    out_of_distribution.detection(np.zeros((5, 1)), np.zeros(3))


def test_rounding_ranks_no_points():
  values = np.array([0., 1e-17, 9e-13, 2e-12, 0.1])
  np.testing.assert_array_equal(
      out_of_distribution.without_rounding(values), [0., 0., 0., 2e-12, 0.1])
