"""Scores of the first members of an order are those of slow loops."""

import numpy as np
import pytest
from slow_ranking import make_case
from slow_ranking import oracle_score
from slow_ranking import reverse_score

from enn_ensembles.scoring import curves
from enn_ensembles.scoring import ranking


def test_evaluate_curve_equals_slow_scores():
  predictions, mean, std, _ = make_case(6)
  order = np.array([4, 0, 8, 2, 1])
  scores = curves.evaluate_curve(predictions, order, mean, std)
  for p in range(1, len(order) + 1):
    chosen = predictions[order[:p]]
    np.testing.assert_allclose(
        scores.kl_estimate[p - 1], oracle_score(mean, std)(chosen), rtol=1e-10)
    np.testing.assert_allclose(
        scores.kl_reverse[p - 1], reverse_score(mean, std)(chosen), rtol=1e-10)


def test_ranking_beats_random_orders_where_it_was_not_chosen():
  # Half of the members are biased: the ranking leaves them for the end, but
  # for one or two that give the first few some spread.
  rng = np.random.RandomState(0)
  mean, std = rng.randn(2, 400), np.full((2, 400), 0.3)
  predictions = mean[:, None] + 0.3 * rng.randn(2, 40, 400)
  predictions[:, 20:] += 1.
  found = ranking.rank_samples(predictions[0], mean[0], std[0])
  assert np.sum(found.order[:15] >= 20) <= 2
  ranked = curves.evaluate_curve(predictions[1], found.order, mean[1], std[1])
  for seed in range(5):
    order = np.random.RandomState(seed).permutation(40)
    other = curves.evaluate_curve(predictions[1], order, mean[1], std[1])
    assert ranked.kl_estimate[14] < other.kl_estimate[14]


@pytest.mark.parametrize('changes,message', [
    (dict(order=[]), 'order must be a non-empty'),
    (dict(order=[0.5]), 'order must be a non-empty list of integers'),
    (dict(order=[[0]]), 'order must be a non-empty'),
    (dict(order=[0, 4]), r'order must lie in 0\.\.3, got 0\.\.4'),
    (dict(order=[-1]), r'order must lie in 0\.\.3, got -1'),
    (dict(order=[1, 2, 1]), 'must not repeat a member, got 1 repeats'),
    (dict(predictions=np.zeros((0, 6))), 'at least one member'),
    (dict(predictions=np.zeros((4, 7))), r'mean must have shape \(7,\)'),
    (dict(std=np.full(6, -1.)), 'std must be >= 0'),
    (dict(std_ridge=0.), 'std_ridge must be'),
])
def test_evaluate_curve_errors(changes, message):
  predictions, mean, std, _ = make_case(0, num_samples=4, num_x=6)
  kwargs = dict(predictions=predictions, order=[0, 1], mean=mean, std=std)
  with pytest.raises(ValueError, match=message):
    curves.evaluate_curve(**dict(kwargs, **changes))
