"""Agent settings on common problems, and their intervals, against scipy."""

import math

import example_rows
import numpy as np
import pytest
from scipy import stats

from enn_ensembles.report import comparison
from enn_ensembles.report import leaderboard

CELLS = [(10, 1., 0.1), (10, 10., 0.1), (100, 1., 0.1)]


def make_row(agent='ensemble', agent_id=None, config=None, kl=0.5, **fields):
  return example_rows.make_row(
      kl, agent_id=agent_id or agent, agent=agent,
      agent_config={'num_ensemble': 10, 'prior_scale': 1.} if config is None
      else config, **fields)


def make_rows(agent, cells=CELLS, seeds=range(4), score=lambda *_: 0.5,
              **fields):
  return [make_row(agent, kl=score(cell, seed), seed=seed, input_dim=cell[0],
                   data_ratio=cell[1], noise_std=cell[2], **fields)
          for cell in cells for seed in seeds]


def settings(*names):
  return [comparison.make_setting(name) for name in names]


def test_setting_reads_values_from_config_and_defaults_from_id():
  setting = comparison.make_setting('ensemble', num_ensemble=30, prior_scale=1.)
  config = {'num_ensemble': 30, 'prior_scale': 1., 'learning_rate': 1e-3}
  name = 'ensemble,num_ensemble=30'
  assert setting.holds(make_row(agent_id=name, config=config))
  for changed in (
      dict(config={**config, 'num_ensemble': 10}, agent_id='ensemble'),
      dict(config={**config, 'prior_scale': 0.},
           agent_id=f'{name},prior_scale=0'),
      dict(config={**config, 'learning_rate': 1e-2},
           agent_id=f'{name},learning_rate=0.01'),
      dict(agent='batch_ensemble'),
      dict(selection='oracle')):
    assert not setting.holds(make_row(
        **{'agent_id': name, 'config': config, **changed})), changed


def test_what_is_not_common_is_left_out_and_said():
  rows = make_rows('a') + make_rows('b', cells=CELLS[:2], seeds=range(1, 4))
  rows += make_rows('c')
  compared = comparison.compare(rows, settings('a', 'b', 'c'),
                                reference='bayes')
  assert compared.cells == tuple(CELLS[:2])
  assert compared.seeds == (1, 2, 3)
  text = ' '.join(compared.notes)
  assert '6 of 12 problems' in text
  assert 'incomplete, 6 of 12 problems: b; without' in text
  assert text.count('incomplete') == 1 and '(100, 1, 0.1)' in text
  # All there: nothing to say.
  assert not comparison.compare(rows, settings('a', 'c'),
                                reference='bayes').notes


def test_one_poor_cell_does_not_cost_all_seeds():
  rows = make_rows('a') + [row for row in make_rows('b') if not (
      row['input_dim'] == 100 and row['seed'] > 0)]
  compared = comparison.compare(rows, settings('a', 'b'), reference='bayes')
  assert (compared.cells, compared.seeds) == (tuple(CELLS[:2]), (0, 1, 2, 3))


def test_values_lie_by_cell_and_seed():
  rows = make_rows('a', score=lambda cell, seed: cell[0] + cell[1] + seed / 10)
  compared = comparison.compare(rows[::-1], settings('a'), reference='bayes')
  np.testing.assert_allclose(
      compared.values(compared.settings[0], 'kl_estimate'),
      [[c[0] + c[1] + s / 10 for s in range(4)] for c in CELLS])


def test_failed_rows_and_rows_without_a_path_are_missing():
  path = {'order': [1, 0], 'kl_estimate': [2., 1.], 'kl_reverse': [4., 3.]}
  rows = make_rows('a', path=path)
  rows[0] = make_row('a', kl=None, path=None, seed=0)
  rows[1]['path'] = None
  (setting,) = settings('a')
  compared = comparison.compare(rows, [setting], reference='bayes')
  assert len(compared.cells) * len(compared.seeds) == 9  # Of 11: a grid.
  compared = comparison.compare(rows, [setting], reference='bayes',
                                with_path=[setting])
  assert compared.path(setting, 'kl_reverse').shape[-1] == 2
  assert compared.path(setting, 'kl_reverse')[0, 0].tolist() == [4., 3.]


def test_missing_settings_are_named_with_the_config():
  rows = make_rows('a')
  with pytest.raises(comparison.MissingSettingsError) as error:
    comparison.compare(rows, settings('a', 'b'), reference='bayes',
                       config='testbed_configs/figure2.py')
  assert ' b.' in str(error.value) and 'figure2.py' in str(error.value)
  compared = comparison.compare(rows, settings('a', 'b'), reference='bayes',
                                allow_missing=True)
  assert [s.agent for s in compared.settings] == ['a']
  assert 'b is not here' in ' '.join(compared.notes)
  for other in (make_rows('b', seeds=[9]), make_rows('b', kernel='erf1'), []):
    with pytest.raises(comparison.MissingSettingsError):
      comparison.compare(rows + other, settings('a', 'b'), reference='bayes')
  with pytest.raises(comparison.MissingSettingsError):
    comparison.compare(rows, settings('a'), reference='enn2021',
                       allow_missing=True)


def test_contradicting_rows_are_an_error():
  rows = make_rows('a') + make_rows('a', dtype='float64')
  with pytest.raises(ValueError, match='float64'):
    comparison.compare(rows, settings('a'), reference='bayes')


def test_scores_that_are_not_finite_stay():
  rows = make_rows('a', score=lambda cell, seed: math.inf if seed == 1 else 1.,
                   status='diverged')
  compared = comparison.compare(rows, settings('a'), reference='bayes')
  assert '3 scores that are not finite' in ' '.join(compared.notes)
  found = comparison.mean_interval(
      compared.values(compared.settings[0], 'kl_estimate'))
  assert found.value == math.inf and not found.is_known


def test_mean_interval_is_that_of_the_leaderboard():
  values = np.random.default_rng(0).gamma(2., size=(5, 7))
  expected = leaderboard.mean_over_cells(
      {(10, 1., float(c)): dict(enumerate(row))
       for c, row in enumerate(values)})
  found = comparison.mean_interval(values)
  np.testing.assert_allclose(
      found, (expected.mean, expected.low, expected.high), rtol=1e-12)
  low, high = stats.t.interval(0.95, 6, np.log(values).mean(),
                               stats.sem(np.log(values).mean(0)))
  np.testing.assert_allclose(
      comparison.geometric_interval(values),
      np.exp([np.log(values).mean(), low, high]), rtol=1e-12)
  one = comparison.mean_interval(values[:, :1])
  assert one.low is None and not one.is_known


def test_jackknife_of_a_mean_is_its_t_interval():
  values = np.random.default_rng(1).normal(size=9)
  found = comparison.jackknife_interval(lambda s: values[s].mean(), 9)
  np.testing.assert_allclose(
      found[1:], stats.t.interval(0.95, 8, values.mean(), stats.sem(values)),
      rtol=1e-10)


def test_ratio_interval_covers_the_true_ratio():
  """Pairs of correlated means with a known ratio: 95 % of the intervals."""
  rng, hits = np.random.default_rng(2), 0
  for _ in range(400):
    shared = rng.gamma(20., size=(3, 10))
    above = 3. * shared * np.exp(0.1 * rng.normal(size=(3, 10)))
    below = 2. * shared * np.exp(0.1 * rng.normal(size=(3, 10)))
    found = comparison.ratio_interval(above, below)
    assert found.low < found.value < found.high
    hits += found.low < 1.5 < found.high
  assert 0.91 < hits / 400 < 0.985
  with pytest.raises(ValueError, match='shapes'):
    comparison.ratio_interval(np.ones((2, 3)), np.ones((3, 3)))


def test_best_num_samples():
  path = np.array([[[5., 1., 2.], [5., 3., 1.]]])  # One cell, two seeds.
  path[0, :, 2] += 0.2
  assert comparison.best_num_samples(path) == 3
  found = comparison.best_num_samples_interval(path)
  half = stats.t.ppf(0.975, 1) * np.std([2, 3], ddof=1) / np.sqrt(2)
  np.testing.assert_allclose(found, (3, 2.5 - half, 2.5 + half))
  path[0, 0, 2] = np.nan
  assert comparison.best_num_samples(path) == 2
