"""The number of members fits the budget, and scores best within it."""

import numpy as np
import pytest

from enn_ensembles.scoring import budget


def test_choose_num_samples():
  choose = budget.choose_num_samples
  assert choose(125, budget_samples=36) == 36
  assert choose(125, budget_samples=36.9) == 36
  assert choose(125, budget_samples=1) == 1
  assert choose(125, budget_samples=1000) == 125
  assert choose(125, budget_samples=np.inf) == 125
  assert choose(10, budget_ms=0.35, ms_per_input=lambda p: 0.1 * p) == 3
  assert choose(4, budget_ms=2., ms_per_input=[1., 2., 3., 4.]) == 2
  # The full set may be cheaper than most of it.
  assert choose(4, budget_ms=2., ms_per_input=[1., 2., 3., 1.5]) == 4


def test_choose_num_samples_by_score():
  choose = budget.choose_num_samples
  score = [9., 2., 3., 2., 1., np.nan]
  assert choose(6, budget_samples=4, score=score) == 2
  assert choose(6, budget_samples=6, score=score) == 5
  assert choose(6, budget_samples=1, score=score) == 1
  cost = [1., 5., 2., 3., 4., 9.]
  assert choose(6, budget_ms=3., ms_per_input=cost, score=score) == 4


@pytest.mark.parametrize('num_available,kwargs,message', [
    (0, dict(budget_samples=1), 'num_available must be >= 1, got 0'),
    (5, dict(), 'give one of budget_samples and budget_ms'),
    (5, dict(budget_samples=1, budget_ms=1.), 'give one of'),
    (5, dict(budget_samples=0.9), 'budget_samples must be >= 1, got 0.9'),
    (5, dict(budget_samples=np.nan), 'budget_samples must be >= 1, got nan'),
    (2, dict(budget_samples=1, ms_per_input=[1., 2.]), 'goes with budget_ms'),
    (5, dict(budget_ms=1.), 'budget_ms=1.0 needs ms_per_input'),
    (2, dict(budget_ms=1., ms_per_input=[1.]), 'ms_per_input must have shape'),
    (2, dict(budget_ms=1., ms_per_input=[0., 1.]), 'ms_per_input must be > 0'),
    (2, dict(budget_ms=1., ms_per_input=[np.nan, 1.]), 'must be finite'),
    (2, dict(budget_ms=.4, ms_per_input=[.5, 1.]),
     'budget_ms must be >= 0.5, .* got 0.4'),
    (2, dict(budget_ms=np.nan, ms_per_input=[.5, 1.]), 'budget_ms must be >='),
    (2, dict(budget_samples=1, score=[1.]), r'score must have shape \(2,\)'),
])
def test_choose_num_samples_errors(num_available, kwargs, message):
  with pytest.raises(ValueError, match=message):
    budget.choose_num_samples(num_available, **kwargs)
