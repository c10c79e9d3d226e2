"""One work unit: its rows, whatever its agent does."""

import dataclasses
import pathlib

from faulty_agent import make_folder  # noqa: F401
from faulty_agent import make_options
from faulty_agent import make_units
from faulty_agent import scores_of
from faulty_agent import TINY
import jax
import numpy as np
import pytest

from enn_ensembles import problems
from enn_ensembles import results
from enn_ensembles.problems import kinds
from enn_ensembles.sweeps import network_units
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import sweep_config
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units


def test_rows_of_a_network(folder):
  unit, = make_units(folder, 'ensemble', seed=(1, 0), **TINY)
  rows, details = one_unit.run_unit(unit, make_options(folder))
  assert details == ''
  cells = unit.family.cells
  assert [(row['problem']['seed'], row['problem']['cell']) for row in rows] == [
      (seed, cell) for seed in (0, 1) for cell in cells]
  assert [cell['noise_std'] for cell in cells] == [0.1, 1.]
  for row in rows:
    results.check_row(row)
    seed, cell = row['problem']['seed'], row['problem']['cell']
    assert row['status'] == 'ok' and row['message'] == ''
    # Enumerated: the draws that were asked for made no difference.
    assert row['num_enn_samples'] is None and row['num_samples_used'] == 2
    # Two networks of 3 x 4 + 4 and 4 + 1 weights.
    assert row['num_params'] == 2 * (3 * 4 + 4 + 4 + 1)
    assert row['agent_config'] == unit.agent_config
    assert row['agent_config']['batch_size'] == 100
    assert row['agent_id'] == unit.agent_id
    assert row['agent_label'] == (
        'ensemble,num_batches=3,hidden_sizes=4,num_ensemble=2')
    assert row['row_id'] == unit.row_id(cell, seed)
    assert row['problem_id'] == problems.ProblemConfig(
        3, 1., cell['noise_std'], seed).problem_id
    assert row['problem']['facts'] == {'num_train': 3}
    assert row['problem']['ranking'] == {'reference': 'bayes',
                                         'kernel': 'relu2'}
    assert row['score_set'] == 'nngp' and row['dtype'] == 'float32'
    for name in ('train_seconds', 'evaluate_seconds', 'compile_seconds',
                 'problem_seconds'):
      assert row[name] > 0
    # The points of two noise levels took the seconds of two problems.
    problem = problems.make_problems(unit.family.configs(seed))[0]
    num_points = len(problem.x_test) + len(problem.x_dyadic)
    assert row['cost'].pop('predict_seconds_per_1000') == pytest.approx(
        1000 * row['evaluate_seconds'] / num_points)
    assert row['cost'] == {} or row['cost']['peak_memory_mb'] > 50
    assert row['versions']['jax'] == jax.__version__
    assert row['numerics']['cells_together'] == 2
  # The 2021 protocol: draws with replacement for all.
  sampled = dataclasses.replace(unit, enumerate_indices=False)
  rows, _ = one_unit.run_unit(sampled, make_options(folder))
  assert {row['num_enn_samples'] for row in rows} == {5}
  assert {row['num_samples_used'] for row in rows} == {5}


@pytest.mark.slow
def test_rows_do_not_depend_on_their_unit(folder):
  unit, = make_units(folder, 'ensemble', seed=(0, 1, 2), **TINY)
  rows, _ = one_unit.run_unit(unit, make_options(folder))
  together = scores_of(rows)
  for seed, level in ((0, 1), (2, 0)):
    part = dataclasses.replace(unit, seeds=(seed,), family=unit.family.narrow(
        unit.family.cells[level:level + 1]))
    row, = one_unit.run_unit(part, make_options(folder))[0]
    assert row['run_id'] != unit.run_id
    np.testing.assert_allclose(scores_of([row])[row['row_id']],
                               together[row['row_id']], rtol=1e-4)


def test_peak_memory_is_that_of_the_agent_or_not_said(folder, monkeypatch):
  unit, = make_units(folder, 'prior_only', noise_std=(0.1,))
  monkeypatch.setattr(one_unit.peak_memory, 'read_mb', lambda: 3.)
  steps, make = [], one_unit._make_group
  monkeypatch.setattr(one_unit, '_make_group', lambda *args: (
      steps.append('problem'), make(*args))[1])
  for is_counted, peak in ((True, 3.), (False, None)):
    monkeypatch.setattr(one_unit.peak_memory, 'reset', lambda it=is_counted: (
        steps.append('reset'), it)[1])
    row, = one_unit.run_unit(unit, make_options(folder))[0]
    assert results.cost_of(row, 'peak_memory_mb') == peak
  assert steps == ['problem', 'reset'] * 2


def test_the_audits_score_what_they_must(folder):
  options = make_options(folder, problem_settings=kinds.ProblemSettings(
      cache_dir=str(folder / 'cache')))
  unit, = make_units(folder, 'exact_posterior', seed=(0, 1))
  rows, _ = one_unit.run_unit(unit, options)
  for row in rows:
    assert abs(row['scores']['kl_estimate']) < 1e-9
    assert row['scores']['kl_floor'] == 0
    assert row['num_samples_used'] is None and row['num_enn_samples'] is None
  assert list((folder / 'cache').iterdir())
  unit, = make_units(folder, 'exact_posterior', seed=(0, 1), analytic=False,
                     num_enn_samples=400)
  rows, _ = one_unit.run_unit(unit, options)
  for row in rows:
    # Draws are shared by test points: the spread around the floor is wide.
    kl, floor = (row['scores'][name] for name in ('kl_estimate', 'kl_floor'))
    assert floor == pytest.approx(0.00252, rel=0.01)
    assert floor / 5 < kl < 5 * floor
    assert row['num_enn_samples'] == row['num_samples_used'] == 400


def test_a_plain_agent_fails_problem_by_problem(folder):
  unit, = make_units(folder, what='raises')
  rows, details = one_unit.run_unit(unit, make_options(folder))
  assert [row['status'] for row in rows] == ['ok', 'failed']
  assert rows[1]['message'] == 'ArithmeticError: too noisy'
  assert 'my_agent.py' in details and 'Traceback' in details
  assert 0 < results.cost_of(rows[0], 'predict_seconds_per_1000') < (
      1000 * rows[0]['evaluate_seconds'])
  assert results.cost_of(rows[1], 'predict_seconds_per_1000') is None
  for row in rows:
    results.check_row(row)
  # Mean and std of its draws, from scratch.
  problem, = problems.make_problems([problems.ProblemConfig(3, 1., 0.1, 0)])
  key = jax.numpy.asarray(problems.evaluation_key(0))
  draws = [int(jax.random.fold_in(key, i)[-1]) % 7 for i in range(5)]
  error = np.sqrt(np.mean((np.mean(draws) - problem.test_mean)**2))
  assert rows[0]['scores']['mean_rmse'] == pytest.approx(error)
  assert rows[0]['scores']['std_ratio'] == pytest.approx(np.mean(
      (np.std(draws) + 1e-3) / (problem.test_std + 1e-3)))


def test_a_plain_agent_with_members_is_scored_on_all_of_them(folder):
  unit, = make_units(folder, what='members', noise_std=(0.1,))
  row, = one_unit.run_unit(unit, make_options(folder))[0]
  results.check_row(row)
  # Members 0, 1, 2 and 3, whatever number of draws was asked for.
  assert row['num_samples_used'] == 4 and row['num_enn_samples'] is None
  problem, = problems.make_problems([problems.ProblemConfig(3, 1., 0.1, 0)])
  assert row['scores']['mean_rmse'] == pytest.approx(
      np.sqrt(np.mean((1.5 - problem.test_mean)**2)))
  drawn = dataclasses.replace(unit, enumerate_indices=False)
  row, = one_unit.run_unit(drawn, make_options(folder))[0]
  assert row['num_samples_used'] == row['num_enn_samples'] == 5


def test_an_agent_that_cannot_be_made_fails(folder):
  unit, = make_units(folder, what='make_raises')
  rows, _ = one_unit.run_unit(unit, make_options(folder))
  assert [row['message'] for row in rows] == ['OSError: no such thing'] * 2
  assert {row['status'] for row in rows} == {'failed'}


def test_what_diverges_is_told_and_scored_as_it_is(folder):
  unit, = make_units(folder, what='nan')
  rows, _ = one_unit.run_unit(unit, make_options(folder))
  for row in rows:
    results.check_row(row)
    assert row['status'] == 'diverged'
    assert np.isnan(row['scores']['kl_estimate'])
    assert row['message'].startswith('not finite: kl_estimate')
  # A step of 1e38 leaves the range of float32 at once.
  unit, = make_units(folder, 'ensemble', **TINY, learning_rate=1e38)
  rows, details = one_unit.run_unit(unit, make_options(folder))
  assert details == ''
  for row in rows:
    assert row['status'] == 'diverged'
    assert row['message'].startswith('not finite: parameters, kl_estimate')


def test_an_interrupt_is_no_failure_of_the_agent(folder):
  unit, = make_units(folder, what='interrupted')
  with pytest.raises(KeyboardInterrupt):
    one_unit.run_unit(unit, make_options(folder))


def test_check_units(folder):
  units = make_units(folder, data_ratio=(1., 10_000.))
  options = unit_results.RunOptions('nowhere')
  one_unit.check_units(units, options)
  # 30,000 points: two matrices of 7.2 GB for a dense solver.
  with pytest.raises(ValueError, match=(
      r'solver_memory_mb must be enough for .* = 30000 points .* got 14000: '
      r'dense needs .*MB\. --max_num_train=29999 leaves such cells out')):
    one_unit.check_units(
        make_units(folder, data_ratio=(1., 10_000.), solver='dense'), options)
  with pytest.raises(ValueError, match='solver_memory_mb .* got 1: dense needs '
                                       '.*, matrix_free needs'):
    one_unit.check_units(units, dataclasses.replace(
        options, problem_settings=kinds.ProblemSettings(solver_memory_mb=1.)))
  with pytest.raises(ValueError, match='SEED must be at most'):
    make_units(folder, seed=(2**32,))


@pytest.mark.parametrize('agent', ['exact_posterior', 'prior_only',
                                   'random_features'])
def test_what_an_agent_cannot_serve_is_said_before_any_work(agent):
  images = sweep_config.SweepConfig('test', (0,), ({'agent': agent},),
                                    {'dataset': ('digits',)}, 'images')
  with pytest.raises(ValueError, match=(
      f'digits_n1079_.*: {agent} needs a problem whose kernel is known')):
    one_unit.check_units(work_units.expand(images),
                         unit_results.RunOptions('nowhere'))


def test_compiled_programs_are_kept(folder, monkeypatch):
  told = {}
  monkeypatch.setattr(jax.config, 'update', told.__setitem__)
  one_unit.configure_jax(make_options(folder))
  assert told == {'jax_enable_x64': True}
  one_unit.configure_jax(make_options(folder, compilation_cache_dir='/some'))
  assert pathlib.Path(told['jax_compilation_cache_dir']).parent == (
      pathlib.Path('/some'))
  assert told['jax_persistent_cache_min_compile_time_secs'] == 0
  assert told['jax_persistent_cache_min_entry_size_bytes'] == -1


SELECTED = {'num_ensemble': 5, 'num_batches': 30, 'hidden_sizes': (8,)}


def test_rows_of_selections(folder):
  unit, = make_units(folder, 'ensemble', seed=(0, 1), **SELECTED,
                     selection=['none', 'oracle', 'val_nll'])
  rows, _ = one_unit.run_unit(unit, make_options(folder))
  assert [row['row_id'] for row in rows] == unit.row_ids()
  for row in rows:
    results.check_row(row)
    curve, kept = row['curve'], row['num_samples_used']
    assert sorted(curve['order']) == list(range(5))
    # The row is the point of its curve that it says.
    for name in ('kl_estimate', 'kl_reverse'):
      assert row['scores'][name] == pytest.approx(curve[name][kept - 1])
    if row['selection'] == 'none':
      assert kept == 5 and row['rank_seconds'] is None
    else:
      assert kept == 1 + np.argmin(curve['val_score'])
      assert row['rank_seconds'] > 0
  plain, = make_units(folder, 'ensemble', seed=(0, 1), **SELECTED)
  alone, _ = one_unit.run_unit(plain, make_options(folder))
  together = scores_of(rows)
  for row_id, scores in scores_of(alone).items():
    np.testing.assert_allclose(scores, together[row_id], rtol=1e-6)


@pytest.mark.slow
def test_val_nll_budget_pays_for_its_labels(folder, monkeypatch):
  """Its members train on 80 %, and never see the labels that rank them."""
  seen = []
  train = network_units.loop.train

  def watched(agent, x, y, *args, **options):
    seen.append((x, y))
    return train(agent, x, y, *args, **options)

  monkeypatch.setattr(network_units.loop, 'train', watched)
  unit, = make_units(folder, 'ensemble', seed=(0, 1), data_ratio=(5.,),
                     **SELECTED, selection=['val_nll_budget', 'none'])
  rows, _ = one_unit.run_unit(unit, make_options(folder))
  (_, all_y), (budget_x, budget_y) = seen  # Two trainings, 'none' first.
  assert all_y.shape == (2, 2, 15, 1)
  assert budget_x.shape == (2, 12, 3) and budget_y.shape == (2, 2, 12, 1)
  group = problems.make_problems(unit.family.configs(1))
  np.testing.assert_array_equal(budget_x[1], group[0].x_train[:12])
  np.testing.assert_array_equal(budget_y[1, 1], group[1].y_train[:12])
  by_selection = {row['selection']: row for row in rows
                  if row['problem']['seed'] == 1
                  and row['problem']['cell']['noise_std'] == 1.}
  row = by_selection['val_nll_budget']
  results.check_row(row)
  assert row['status'] == 'ok'
  assert row['scores'] != by_selection['none']['scores']
  assert row['num_samples_used'] == 1 + np.argmin(row['curve']['val_score'])
  # Other labels at the reserved points reach no parameter: only the order.
  make = problems.nngp_regression.Problem
  data = make.data.fget

  def other_labels(problem):
    y = data(problem).y.copy()
    y[12:] += 100.
    return data(problem)._replace(y=y)

  monkeypatch.setattr(make, 'data', property(other_labels))
  rows, _ = one_unit.run_unit(
      dataclasses.replace(unit, selections=('val_nll_budget',)),
      make_options(folder))
  np.testing.assert_array_equal(seen[-1][1], budget_y)
  changed = next(r for r in rows if r['row_id'] == row['row_id'])
  assert changed['curve']['val_score'] != row['curve']['val_score']
  # All members together are what they were.
  for name in ('kl_estimate', 'kl_reverse'):
    assert changed['curve'][name][-1] == pytest.approx(row['curve'][name][-1],
                                                       rel=1e-6)


def test_too_few_points_to_reserve_fail_in_their_rows(folder):
  unit, = make_units(folder, 'ensemble', data_ratio=(0.4,), **TINY,
                     selection=['val_nll_budget'])
  rows, _ = one_unit.run_unit(unit, make_options(folder))
  assert {row['status'] for row in rows} == {'failed'}
  assert 'num_train must be enough to reserve 0.2 of it, got 1' in (
      rows[0]['message'])


def test_selection_needs_members(folder):
  options = make_options(folder)
  unit, = make_units(folder, 'mc_dropout', selection='oracle')
  with pytest.raises(
      ValueError, match="selection 'oracle' needs an agent with a"
      " finite index set .*'mc_dropout' has"):
    one_unit.check_units([unit], options)
  unit, = make_units(folder, selection='val_nll')
  with pytest.raises(ValueError, match="'val_nll' needs .*'my_agent"):
    one_unit.check_units([unit], options)
