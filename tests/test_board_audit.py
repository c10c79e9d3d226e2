"""The audit of a board's statistics finds what is there, and no more."""

import example_rows
import numpy as np
import pytest

from enn_ensembles.studies.board_audit import replicas


def make_rows(rng, num_agents=4, num_seeds=10, agent_std=0.2, problem_std=0.6,
              share=0.1):
  rows = []
  for seed in range(num_seeds):
    for noise_std in (0.01, 0.1, 1.):
      problem = rng.normal(0., problem_std)
      for agent in range(num_agents):
        scores = np.exp(problem + rng.normal(0., agent_std, 2))
        for replica, degrade in ((0, 0.), (1, 0.), (1, share)):
          config = {'size': agent, **({'replica': 1} if replica else {}),
                    **({'degrade': degrade} if degrade else {})}
          rows.append(example_rows.make_row(
              kl=float(scores[replica] * (1 + degrade)), seed=seed,
              noise_std=noise_std, agent_config=config, agent=f'a{agent}',
              agent_id=f'a{agent}-{replica}{degrade}',
              agent_label=f'a{agent},replica={replica},degrade={degrade}'))
  return rows


def test_two_trainings_are_told_apart_as_often_as_the_level_says():
  rng = np.random.default_rng(0)
  found = replicas.collect(make_rows(rng, num_agents=40), 'kl_estimate')
  assert found.first.shape == (40, 3, 10) and found.share == 0.1
  alike = replicas.count(found.first, found.second)
  assert alike.num_tests == 120 and alike.in_band
  assert 0 < alike.low + 1 and alike.high < 20


def test_what_is_much_worse_is_seen_and_the_band_is_left():
  rng = np.random.default_rng(1)
  found = replicas.collect(make_rows(rng, agent_std=0.05, share=1.),
                           'kl_estimate')
  worse = replicas.count(found.first, found.degraded)
  assert worse.share == 1. and not worse.in_band
  assert replicas.p_values(found.first, found.degraded).max() < 1e-6


def test_power_grows_with_the_difference():
  rng = np.random.default_rng(2)
  seen = [replicas.count(found.first, found.degraded).num_rejected
          for share in (0.02, 0.2, 0.6)
          for found in [replicas.collect(
              make_rows(rng, num_agents=20, share=share), 'kl_estimate')]]
  assert seen[0] < seen[1] < seen[2]


def test_boards_rarely_tell_an_agent_from_itself():
  rng = np.random.default_rng(3)
  found = replicas.collect(make_rows(rng, num_agents=5), 'kl_estimate')
  boards = replicas.family_errors(found, num_resamplings=100)
  assert boards.num_tests == 100 and boards.num_rejected <= boards.high
  other = replicas.Trainings(
      found.labels, found.cells, found.seeds, found.first, 3 * found.first,
      None, 0.)
  # Swapped at random, even a large difference looks like noise: what is
  # resampled is the hypothesis that both are alike.
  assert replicas.family_errors(other, 50).share < 0.5


@pytest.mark.parametrize('agent_std, problem_std, expected', [
    (0.01, 0.8, 1.), (0.5, 0., 0.), (0.5, 0.5, 0.5)])
def test_shares_of_variance_are_those_that_made_the_scores(
    agent_std, problem_std, expected):
  rng = np.random.default_rng(4)
  found = replicas.collect(
      make_rows(rng, num_agents=2, num_seeds=300, agent_std=agent_std,
                problem_std=problem_std), 'kl_estimate')
  shares = replicas.variance_shares(found)
  assert len(shares) == 2
  for share in shares.values():
    assert share == pytest.approx(expected, abs=0.12)


def test_one_training_is_no_audit():
  rng = np.random.default_rng(5)
  rows = [row for row in make_rows(rng)
          if 'replica' not in row['agent_config']]
  with pytest.raises(ValueError, match="'replica' 0 and 1, got none of 4"):
    replicas.collect(rows, 'kl_estimate')
