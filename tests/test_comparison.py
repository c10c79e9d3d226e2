"""Agent settings on common problems."""

import math

import example_rows
import numpy as np
import pytest

from enn_ensembles.report import comparison
from enn_ensembles.report import statistics

CELLS = [(10, 1., 0.1), (10, 10., 0.1), (100, 1., 0.1)]


BAYES = {'reference': 'bayes', 'kernel': 'relu2'}


def make_row(agent='ensemble', config=None, kl=0.5, **fields):
  config = {'num_ensemble': 10, 'prior_scale': 1.} if config is None else config
  return example_rows.make_row(
      kl, agent, agent_config=config, agent_id=f'{agent}-{config}', **fields)


def compare(rows, wanted, **options):
  return comparison.compare(rows, wanted, **{'ranking': BAYES, **options})


def make_rows(agent, cells=CELLS, seeds=range(4), score=lambda *_: 0.5,
              **fields):
  return [make_row(agent, kl=score(cell, seed), seed=seed, input_dim=cell[0],
                   data_ratio=cell[1], noise_std=cell[2], **fields)
          for cell in cells for seed in seeds]


def settings(*names):
  return [comparison.make_setting(name) for name in names]


def test_setting_reads_what_is_given_from_the_config():
  setting = comparison.make_setting('ensemble', num_ensemble=30,
                                    hidden_sizes=(50, 50), subset=None)
  config = {'num_ensemble': 30, 'hidden_sizes': [50, 50], 'prior_scale': 1.}
  assert setting.holds(make_row(config=config))
  assert setting.holds(make_row(config={**config, 'num_ensemble': 30.}))
  for changed in (
      dict(config={**config, 'num_ensemble': 10}),
      dict(config={**config, 'hidden_sizes': [50]}),
      dict(config={**config, 'subset': 3}),
      dict(config={'hidden_sizes': [50, 50]}),
      dict(agent='batch_ensemble'),
      dict(selection='oracle')):
    assert not setting.holds(make_row(**{'config': config, **changed})), changed


def test_what_is_not_given_must_be_equal_or_is_named():
  config = {'num_ensemble': 30, 'prior_scale': 1.}
  rows = make_rows('ensemble', config=config)
  rows += make_rows('ensemble', config={**config, 'prior_scale': 0.,
                                        'learning_rate': 0.01})
  with pytest.raises(comparison.AmbiguousSettingError) as error:
    compare(rows, [comparison.make_setting('ensemble', num_ensemble=30)])
  assert ('ensemble num_ensemble=30 is ambiguous: rows differ in '
          'learning_rate (0.01, null) and prior_scale (0, 1)'
          ) in str(error.value)
  assert '\n' not in str(error.value)
  for prior_scale in (0., 1.):
    setting = comparison.make_setting('ensemble', prior_scale=prior_scale)
    rows_of = compare(rows, [setting]).rows[setting].values()
    assert {row['agent_config']['prior_scale'] for row in rows_of} == {
        prior_scale}


def test_what_is_not_common_is_left_out_and_said():
  rows = make_rows('a') + make_rows('b', cells=CELLS[:2], seeds=range(1, 4))
  rows += make_rows('c')
  compared = compare(rows, settings('a', 'b', 'c'))
  assert compared.cells == tuple(CELLS[:2])
  assert compared.seeds == (1, 2, 3)
  text = ' '.join(compared.notes)
  assert '6 of 12 problems' in text
  assert 'incomplete, 6 of 12 problems: b; without' in text
  assert text.count('incomplete') == 1 and '(100, 1, 0.1)' in text
  # All there: nothing to say.
  assert not compare(rows, settings('a', 'c')).notes


def test_one_poor_cell_does_not_cost_all_seeds():
  rows = make_rows('a') + [row for row in make_rows('b') if not (
      row['problem']['cell']['input_dim'] == 100
      and row['problem']['seed'] > 0)]
  compared = compare(rows, settings('a', 'b'))
  assert (compared.cells, compared.seeds) == (tuple(CELLS[:2]), (0, 1, 2, 3))


def test_values_lie_by_cell_and_seed():
  rows = make_rows('a', score=lambda cell, seed: cell[0] + cell[1] + seed / 10)
  compared = compare(rows[::-1], settings('a'))
  np.testing.assert_allclose(
      compared.values(compared.settings[0], 'kl_estimate'),
      [[c[0] + c[1] + s / 10 for s in range(4)] for c in CELLS])


def test_failed_rows_and_rows_without_a_curve_are_missing():
  curve = {'order': [1, 0], 'kl_estimate': [2., 1.], 'kl_reverse': [4., 3.]}
  rows = make_rows('a', curve=curve)
  rows[0] = make_row('a', kl=None, seed=0)
  rows[1]['curve'] = None
  (setting,) = settings('a')
  compared = compare(rows, [setting])
  assert len(compared.cells) * len(compared.seeds) == 9  # Of 11: a grid.
  compared = compare(rows, [setting],
                                with_curve=[setting])
  assert compared.curve(setting, 'kl_reverse').shape[-1] == 2
  assert compared.curve(setting, 'kl_reverse')[0, 0].tolist() == [4., 3.]


def test_missing_settings_are_named_with_the_config():
  rows = make_rows('a')
  with pytest.raises(comparison.MissingSettingsError) as error:
    compare(rows, settings('a', 'b'),
                       config='testbed_configs/figure2.py')
  assert ' b.' in str(error.value) and 'figure2.py' in str(error.value)
  compared = compare(rows, settings('a', 'b'),
                                allow_missing=True)
  assert [s.agent for s in compared.settings] == ['a']
  assert 'b is not here' in ' '.join(compared.notes)
  for other in (make_rows('b', seeds=[9]), make_rows('b', kernel='erf1'), []):
    with pytest.raises(comparison.MissingSettingsError):
      compare(rows + other, settings('a', 'b'))
  with pytest.raises(comparison.MissingSettingsError):
    compare(rows, settings('a'), ranking={'reference': 'enn2021'},
                       allow_missing=True)


def test_contradicting_rows_are_an_error():
  rows = make_rows('a') + make_rows('a', dtype='float64')
  with pytest.raises(ValueError, match='float64'):
    compare(rows, settings('a'))


def test_scores_that_are_not_finite_stay():
  rows = make_rows('a', score=lambda cell, seed: math.inf if seed == 1 else 1.,
                   status='diverged')
  compared = compare(rows, settings('a'))
  assert '3 scores that are not finite' in ' '.join(compared.notes)
  found = statistics.mean_interval(
      compared.values(compared.settings[0], 'kl_estimate'))
  assert found.value == math.inf and not found.is_known


def test_another_score_and_another_kind_of_cell():
  rows = make_rows('a', score=lambda cell, seed: None if seed == 3 else 0.5)
  for row in rows:
    row['problem']['cell'] = {'dataset': str(row['problem']['cell'])}
  compared = compare(rows, settings('a'), score='std_ratio')
  assert compared.cell_names == ('dataset',)
  assert compared.seeds == (0, 1, 2)
  assert compared.column('dataset').shape == (3,)
  np.testing.assert_array_equal(
      compared.values(compared.settings[0], 'std_ratio'), np.full((3, 3), 0.9))
  with pytest.raises(comparison.SettingsError, match='has no score nll'):
    compared.values(compared.settings[0], 'nll')
  with pytest.raises(comparison.MissingSettingsError):
    compare(rows, settings('a'), score='nll')
  with pytest.raises(ValueError, match='must be one of dataset, got'):
    compared.column('noise_std')
