"""Histograms of the transform: planted rows, scipy, and the exact posterior."""

import commands
import example_rows
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from enn_ensembles import base
from enn_ensembles import problems
from enn_ensembles import results
from enn_ensembles.report import calibration
from enn_ensembles.report import calibration_picture
from enn_ensembles.report import columns
from enn_ensembles.scoring import distribution_scores
from enn_ensembles.scoring import prediction_counts

NUM_BINS = prediction_counts.NUM_PIT_BINS
SEEDS = range(5)


def make_rows(agents=('a-1', 'b-1', 'prior_only')):
  """'a' has a valley, 'b' is nearly uniform, 'prior_only' has no counts."""
  rng = np.random.default_rng(0)
  rows = []
  for kl, agent in enumerate(agents, start=1):
    for noise_std in (0.1, 1.):
      for seed in SEEDS:
        pit_count = 100 + rng.integers(-5, 6, NUM_BINS)
        if agent == 'a-1':
          pit_count[[0, -1]] += 120
        counts = None if agent == 'prior_only' else {
            'test': {'pit_count': pit_count.tolist()}}
        rows.append(example_rows.make_row(kl, agent, seed, noise_std=noise_std,
                                          counts=counts))
  return rows


def measure(rows):
  counts = {row['row_id']: row['counts']['test']['pit_count']
            for row in rows if row['counts']}
  return calibration.measure(columns.collect(rows), [], counts)


def shares(rows, agent, noise_stds):
  """Mean over cells of each seed, with loops."""
  found = []
  for seed in SEEDS:
    own = [np.array(row['counts']['test']['pit_count']) for row in rows
           if row['agent_label'] == agent and row['problem']['seed'] == seed
           and row['problem']['cell']['noise_std'] in noise_stds]
    found.append(sum(one / sum(one) for one in own) / len(own))
  return np.array(found)


@pytest.mark.parametrize('num_samples', [2, 3, 10, 1000])
def test_transform_of_exact_draws_is_that_of_simulated_ones(num_samples):
  rng = np.random.default_rng(num_samples)
  draws = 2. + 3. * rng.standard_normal((num_samples, 4000))
  values = 2. + 3. * rng.standard_normal(4000)
  counts = distribution_scores.pit_counts(values, draws.mean(axis=0),
                                          draws.std(axis=0), 8)
  expected = distribution_scores.pit_of_exact_draws(num_samples, 8)
  assert expected.sum() == pytest.approx(1.)
  assert scipy.stats.chisquare(counts, 4000 * expected).pvalue > 1e-3
  if num_samples < 1000:  # The test sees that it is not uniform.
    assert scipy.stats.chisquare(counts).pvalue < 1e-6


def test_transform_of_one_draw_and_of_exact_moments():
  np.testing.assert_array_equal(
      distribution_scores.pit_of_exact_draws(1, 4), [0.5, 0., 0., 0.5])
  np.testing.assert_array_equal(
      distribution_scores.pit_of_exact_draws(None, 4), 0.25)


@pytest.mark.parametrize('num_bins', [4, 20])
def test_components_are_orthonormal_polynomials(num_bins):
  found = calibration.components(num_bins)
  x = np.arange(num_bins)
  for degree, own in enumerate(found, start=1):
    assert np.polyfit(x, own, degree)[0] > 0
    np.testing.assert_allclose(
        np.polyval(np.polyfit(x, own, degree), x), own, atol=1e-9)
  basis = np.vstack([np.ones(num_bins), found])
  np.testing.assert_allclose(basis @ basis.T / num_bins, np.eye(3), atol=1e-12)


@pytest.mark.parametrize('cells, noise_stds', [
    ('all', (0.1, 1.)), ('noise_std=0.1', (0.1,)), ('noise_std=1', (1.,))])
def test_histograms_and_tests_are_those_of_loops(cells, noise_stds):
  rows = make_rows()
  found = measure(rows)
  for agent in ('a-1', 'b-1'):
    per_seed = shares(rows, agent, noise_stds)
    own = found.histograms[(found.histograms['label'] == agent)
                           & (found.histograms['cells'] == cells)]
    np.testing.assert_allclose(list(own['share']), per_seed.mean(axis=0))
    np.testing.assert_allclose(
        list(own['standard_error']),
        scipy.stats.sem(per_seed, axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        list(own['share_of_exact_draws']),
        distribution_scores.pit_of_exact_draws(10, NUM_BINS))
    test, = found.tests[(found.tests['label'] == agent)
                        & (found.tests['cells'] == cells)].to_dict('records')
    assert (test['num_cells'], test['num_seeds'], test['num_rows_without']) == (
        len(noise_stds), 5, 0)
    values = per_seed @ calibration.components(NUM_BINS).T
    p_values = scipy.stats.ttest_1samp(values, 0.).pvalue
    assert test['p_value'] == pytest.approx(min(1., 2 * p_values.min()))
    for name, value in zip(('slope', 'curvature'), values.T):
      assert test[name] == pytest.approx(value.mean())
      assert test[f'{name}_standard_error'] == pytest.approx(
          scipy.stats.sem(value))
    assert (test['p_value'] < 1e-3) == (agent == 'a-1')
    assert (test['curvature'] > 0.1) == (agent == 'a-1')


def test_holm_is_over_the_agent_settings_and_those_without_counts_are_named():
  tests = measure(make_rows()).tests
  overall = tests[tests['cells'] == 'all'].set_index('label')
  assert list(overall.index) == ['a-1', 'b-1', 'prior_only']
  first, second = overall.loc['a-1'], overall.loc['b-1']
  assert first['p_holm'] == pytest.approx(2 * first['p_value'])
  assert second['p_holm'] == pytest.approx(
      max(2 * first['p_value'], second['p_value']))
  without = overall.loc['prior_only']
  assert without['num_seeds'] == 0 and without['num_rows_without'] == 10
  assert without['curvature'] is None and without['p_holm'] is None


def test_a_seed_that_lacks_a_cell_is_left_out():
  rows = make_rows()
  rows[0]['counts'] = None  # Of 'a-1', seed 0, noise_std 0.1.
  tests = measure(rows).tests.set_index(['label', 'cells'])
  assert tests['num_seeds'].to_dict() == {
      **{(agent, cells): 5 for agent in ('a-1', 'b-1')
         for cells in ('all', 'noise_std=0.1', 'noise_std=1')},
      ('a-1', 'all'): 4, ('a-1', 'noise_std=0.1'): 4, ('prior_only', 'all'): 0}
  assert set(tests.loc['a-1', 'num_rows_without']) == {1}


def test_one_seed_has_no_error_and_is_drawn():
  rows = [row for row in make_rows() if row['problem']['seed'] == 0]
  found = measure(rows)
  assert set(found.histograms['standard_error']) == {None}
  assert set(found.tests['p_value']) == {None}
  assert calibration_picture.draw(found).startswith(b'\x89PNG')


def test_shares_that_never_vary():
  constant = np.tile([0.5, 0., 0., 0.5], (3, 1))
  assert calibration.uniformity_p_value(constant) == 0.
  assert calibration.uniformity_p_value(np.full((3, 4), 0.25)) == 1.


def test_the_exact_posterior_is_uniform_and_half_its_std_is_not():
  per_seed = {1.: [], 0.5: []}
  for seed in range(12):
    problem, = problems.make_problems([problems.ProblemConfig(
        5, 6, 0.3, seed, num_test=200, num_val=2)])
    for scale, found in per_seed.items():
      counts = {}
      problem.score_and_count(lambda x: base.Predictions(
          None, mean=problem.test_mean[:, None],
          std=scale * problem.test_std[:, None]) if len(x) == 200 else (
              base.Predictions(None, mean=np.zeros((len(x), 1)),
                               std=np.ones((len(x), 1)))), counts)
      found.append(np.array(counts['test']['pit_count']) / 200)
  exact, narrow = (np.array(found) for found in per_seed.values())
  error = scipy.stats.sem(exact, axis=0)
  assert np.all(np.abs(exact.mean(axis=0) - 0.05) < 4.5 * error)
  assert calibration.uniformity_p_value(exact) > 0.01
  assert calibration.uniformity_p_value(narrow) < 1e-6


def _write(folder, rows):
  store = results.open_store(folder, create=True)
  units = {}
  for row in rows:
    units.setdefault(row['run_id'], []).append(row)
  for run_id, own in units.items():
    store.write_unit(run_id, own)


def test_command(tmp_path):
  rows = make_rows()
  _write(tmp_path / 'rows', rows)
  _write(tmp_path / 'old', [{**row, 'counts': None} for row in rows])
  flags = [['compare_scores', f'--results_dir={tmp_path / name}',
            f'--output_dir={tmp_path / "out"}', '--calibration',
            '--scores=kl_estimate,kl_reverse'] for name in ('rows', 'old')]
  (code, out, error), (old_code, _, old_error) = commands.run_commands(
      flags[0][0], *(own[1:] for own in flags))
  assert code == 0, error
  assert '| prior_only | 0 | - | - | - | - | - | - | 10 |' in out
  found = measure(rows)
  for name, table in (('calibration', found.histograms),
                      ('calibration_tests', found.tests)):
    read = pd.read_csv(tmp_path / 'out' / f'{name}.csv')
    assert list(read.columns) == list(table.columns)
    # Older versions of pandas read the last digit otherwise.
    np.testing.assert_allclose(
        read.select_dtypes('number').to_numpy(float),
        table[list(read.select_dtypes('number'))].to_numpy(float), rtol=1e-9)
  assert (tmp_path / 'out' / 'calibration.png').read_bytes() == (
      calibration_picture.draw(found))
  assert old_code == 2 and 'no row with counts' in old_error
