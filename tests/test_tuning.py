"""Settings are chosen by held-out labels, each on the same problems."""

import math
import runpy
import subprocess
import sys

import commands
import example_rows
import pandas as pd
import pytest
import tiny_sweeps

from enn_ensembles import agents as agents_lib
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.studies.tuning import choice
from enn_ensembles.studies.tuning import gains


def make_rows(losses, num_seeds=2, **fields):
  """losses: size -> noise_std -> loss."""
  return [example_rows.make_row(
      agent='map', agent_id=f'map-{size}', agent_label=f'map,size={size}',
      agent_config={'size': size, 'shape': [50, 50]}, noise_std=noise_std,
      seed=100 + seed, log_score_excess=loss + 0.01 * (-1)**seed, **fields)
          for size, by_level in losses.items()
          for noise_std, loss in by_level.items() for seed in range(num_seeds)]


LOSSES = {1: {0.1: 1., 1.: 1.}, 2: {0.1: 0.2, 1.: 1.5}, 3: {0.1: 2., 1.: 0.1}}


def test_the_lowest_mean_loss_is_chosen_for_all_levels_and_for_each():
  chosen = choice.choose(make_rows(LOSSES), ['map-7', 'map-1', 'map-2'])
  assert [(c.noise_std, c.config['size']) for c in chosen] == [
      (None, 2), (0.1, 2), (1., 3)]
  assert chosen[0].loss == pytest.approx(0.85)
  assert chosen[0].papers_loss == pytest.approx(1.)
  assert chosen[0].written == {'size': 2}  # All have the same shape.
  assert {c.num_settings for c in chosen} == {3}
  assert [c.num_problems for c in chosen] == [4, 2, 2]


def test_settings_that_fail_somewhere_are_no_choice():
  rows = make_rows(LOSSES)
  spoilt = next(row for row in rows if row['agent_config']['size'] == 2)
  spoilt.update(status='failed', message='it broke', scores=None)
  assert [c.config['size'] for c in choice.choose(rows)] == [1, 1, 3]


def test_a_partial_sweep_compares_on_the_same_problems():
  """Half of setting 2 is missing: the others are tried on all problems."""
  rows = [row for row in make_rows(LOSSES) if not (
      row['agent_config']['size'] == 2 and row['problem']['seed'] == 101)]
  chosen = choice.choose(rows)[0]
  assert (chosen.config['size'], chosen.num_settings, chosen.num_left_out,
          chosen.num_problems, chosen.num_seeds) == (1, 2, 1, 4, 2)
  # With one seed of every setting it is the best again.
  rows = [row for row in make_rows(LOSSES) if row['problem']['seed'] == 100]
  chosen = choice.choose(rows)[0]
  assert (chosen.config['size'], chosen.num_settings, chosen.num_left_out,
          chosen.num_problems, chosen.num_seeds) == (2, 3, 0, 2, 1)


def test_the_command_writes_a_config_that_a_sweep_takes(tmp_path):
  store = results.open_store(tmp_path / 'rows', create=True)
  rows = make_rows({(): {}})
  for weight_decay in (0., 1.):
    rows += [example_rows.make_row(
        agent='ensemble', agent_id=f'e{weight_decay}', run_id='unit',
        row_id=f'{weight_decay}-{seed}-{noise_std}',
        agent_config={'num_ensemble': 4, 'weight_decay': weight_decay,
                      'hidden_sizes': [50, 50]}, seed=100 + seed,
        noise_std=noise_std, log_score_excess=weight_decay + seed)
             for seed in range(2) for noise_std in (0.1, 1.)]
  store.write_unit('unit', rows)
  flags = [f'--results_dir={tmp_path / "rows"}',
           f'--output_dir={tmp_path / "out"}']
  (code, out, error), = commands.run_commands('choose_settings', flags)
  assert code == 0, error
  assert out.count('ensemble ') == 3
  config = runpy.run_path(str(tmp_path / 'out' / 'tuned.py'))
  assert 'ensemble: 2 of 2 settings, 2 of 5 seeds, 4 problems.' in out
  assert '2 of 5 seeds' in (tmp_path / 'out' / 'tuned.py').read_text()
  assert config['AGENTS'][0] == {'agent': 'ensemble', 'weight_decay': 0.,
                                 'num_ensemble': 4}
  (code, out, error), = commands.run_commands('run_sweep', [
      f'--config={tmp_path / "out" / "tuned.py"}', '--dry_run',
      '--max_num_train=10', '--seed=0'])
  assert code == 0, error
  assert '12 rows' in out


def test_rows_of_another_sweep_are_refused(tmp_path):
  """They may be of the board's seeds, and were counted as '3 of 2 seeds'."""
  store = results.open_store(tmp_path / 'rows', create=True)
  store.write_unit('unit', [
      {**row, 'run_id': 'unit', 'row_id': str(i)}
      for i, row in enumerate(make_rows(LOSSES, num_seeds=3))])
  tuning = tiny_sweeps.write_config(tmp_path, SEED=[100, 101])
  commands.check_refused('choose_settings', [(
      [f'--results_dir={tmp_path / "rows"}', f'--tuning_config={tuning}',
       f'--output_dir={tmp_path / "out"}'],
      'alone, got seed 102, which that config does not have.')])
  assert not (tmp_path / 'out').exists()


def test_papers_settings_are_told_from_others_of_their_agent(tmp_path):
  """The board has an ensemble without a prior too, and none with decay."""
  module = agents_lib.load_agent('ensemble')
  losses = {(0.3, 1.): 0.2, (0., 0.): 0.9, (0., 1.): 0.5}
  rows = []
  for (weight_decay, prior_scale), loss in losses.items():
    config = sweeps.all_settings(module, {
        'num_ensemble': 10, 'weight_decay': weight_decay,
        'prior_scale': prior_scale})
    rows.append(example_rows.make_row(
        agent='ensemble', agent_id=results.make_agent_id('ensemble', config),
        agent_config=config, seed=100, log_score_excess=loss, run_id='unit',
        row_id=str(loss)))
  results.open_store(tmp_path / 'rows', create=True).write_unit('unit', rows)
  (code, _, error), = commands.run_commands('choose_settings', [
      f'--results_dir={tmp_path / "rows"}',
      f'--output_dir={tmp_path / "out"}'])
  assert code == 0, error
  chosen = pd.read_csv(tmp_path / 'out' / 'chosen.csv')
  assert list(chosen['log_score_excess_mean']) == [0.2, 0.2]
  assert list(chosen['papers_log_score_excess_mean']) == [0.5, 0.5]


def test_another_score_chooses_otherwise(tmp_path):
  """A score of which less is better; others are refused."""
  rows = [{**row, 'run_id': 'unit', 'row_id': str(i)}
          for i, row in enumerate(make_rows(LOSSES))]
  for row in rows:  # What labels say is worst is best by the KL.
    row['scores'] = {**row['scores'], 'kl_estimate': math.exp(
        -row['scores']['log_score_excess'])}
  results.open_store(tmp_path / 'rows', create=True).write_unit('unit', rows)
  (code, _, error), (refused, _, line), (unknown, _, other) = (
      commands.run_commands('choose_settings', *([
          f'--results_dir={tmp_path / "rows"}', f'--score={score}',
          f'--output_dir={tmp_path / score}'] for score in (
              'kl_estimate', 'coverage_90', 'beauty'))))
  assert code == 0, error
  chosen = pd.read_csv(tmp_path / 'kl_estimate' / 'chosen.csv')
  usual = choice.choose(rows)
  assert list(chosen['kl_estimate_mean']) == [
      pytest.approx(c.loss) for c in choice.choose(rows, score='kl_estimate')]
  assert all(a.agent_id != b.agent_id for a, b in zip(
      usual, choice.choose(rows, score='kl_estimate'), strict=True))
  assert 'chosen by their kl_estimate' in (
      tmp_path / 'kl_estimate' / 'tuned.py').read_text()
  assert (refused, unknown) == (2, 2)
  assert "of which less is better, got 'coverage_90'" in line
  assert "got 'beauty'" in other and line.count('\n') == 1


@pytest.mark.parametrize('fields, message', [
    ({'reference': 'enn2021'}, 'rows must be of one reference and kernel, got '
     'reference bayes, kernel relu2 and reference enn2021, kernel relu2'),
    ({'num_enn_samples': 50}, 'must hold map,size=1 once on D10_l1_e0.1_s100_'
     'bayes, got two; num_enn_samples is None and 50'),
    ({'dtype': 'float64'}, 'dtype is float32 and float64')])
def test_no_row_takes_the_place_of_another(fields, message):
  """The last one counted, without a word."""
  rows = make_rows(LOSSES) + make_rows({1: {0.1: 0., 1.: 0.}}, **fields)
  with pytest.raises(ValueError, match=message):
    choice.choose(rows)
  board = make_board({}) + [example_rows.make_row(
      7., agent='prior_only', agent_id='prior', **fields)]
  with pytest.raises(ValueError, match='rows must'):
    gains.make_table(board, [])


def test_selections_and_older_versions_of_a_file_are_left_out():
  rows = make_rows(LOSSES)
  better = make_rows({1: {0.1: 0., 1.: 0.}}, selection='oracle')
  assert choice.choose(rows + better) == choice.choose(rows)
  versions = [{**row, 'agent': 'own', 'agent_id': f'own-{version}',
               'agent_config': {'source-file': version},
               'created': f'2026-01-0{day}T00:00:00Z',
               'scores': {**row['scores'], 'log_score_excess': float(day)}}
              for version, day in (('new', 2), ('old', 1))
              for row in make_rows({1: {0.1: 0.}})]
  for chosen in choice.choose(versions):
    assert (chosen.agent_id, chosen.num_settings) == ('own-new', 1)


def make_board(kls):
  """kls: agent_id -> noise_std -> KL; the prior's is 2."""
  return [example_rows.make_row(
      kl * (1 + seed), agent='prior_only' if agent_id == 'prior' else 'map',
      agent_id=agent_id, noise_std=noise_std, seed=seed)
          for agent_id, of_level in {'prior': {0.1: 2., 1.: 2.}, **kls}.items()
          for noise_std, kl in of_level.items() for seed in (0, 1)]


def test_gains_are_those_of_papers_settings_and_of_chosen_ones():
  choices = choice.choose(make_rows(LOSSES), ['map-1'])  # Then 2; 2 and 3.
  board = make_board({'map-1': {0.1: 8., 1.: 2.}, 'map-2': {0.1: 1., 1.: 4.},
                      'map-3': {1.: 0.5}})
  table = gains.make_table(board, choices).set_index('settings')
  assert table['kl_estimate_relative'].tolist() == pytest.approx(
      [2., 1., 0.5 * 0.5**0.5])
  assert table['kl_estimate_relative[noise_std=1]'].tolist() == pytest.approx(
      [1., 2., 0.25])
  assert table.loc[gains.EACH, 'kl_estimate_relative_low'] <= 0.36
  assert table['num_problems'].tolist() == [4, 4, 4]
  # Without the row of a problem there is no number.
  table = gains.make_table(board[:-1], choices).set_index('settings')
  assert table.loc[gains.EACH, 'num_problems'] == 3
  assert table.loc[gains.EACH, 'kl_estimate_relative'] is None
  assert table.loc[gains.EACH, 'kl_estimate_relative[noise_std=0.1]'] == (
      pytest.approx(0.5))
  with pytest.raises(ValueError, match='must have the agent prior_only'):
    gains.make_table([row for row in board if row['agent'] == 'map'], choices)
  with pytest.raises(ValueError, match='must be chosen for every noise level of'
                                       ' the board, got none for 0.1'):
    gains.make_table(board, [c for c in choices if c.noise_std != 0.1])


def test_settings_of_single_levels_have_configs_of_their_own(tmp_path):
  module = agents_lib.load_agent('map')
  def agent_id(steps):
    return results.make_agent_id('map', sweeps.all_settings(
        module, {'num_batches': steps}))
  rows = [{**row, 'run_id': 'unit', 'row_id': str(i), 'agent_id': agent_id(
      row['agent_config']['size']), 'agent_config': sweeps.all_settings(
          module, {'num_batches': row['agent_config']['size']})}
          for i, row in enumerate(make_rows(LOSSES))]
  board = [{**row, 'run_id': 'board', 'row_id': f'b{i}'}
           for i, row in enumerate(make_board({
               agent_id(2): {0.1: 1., 1.: 4.}, agent_id(3): {1.: 0.5}}))]
  for name, own in (('unit', rows), ('board', board)):
    results.open_store(tmp_path / name, create=True).write_unit(name, own)
  (code, out, error), = commands.run_commands('choose_settings', [
      f'--results_dir={tmp_path / "unit"}',
      f'--board_results_dir={tmp_path / "board"}',
      f'--output_dir={tmp_path / "out"}'])
  assert code == 0 and 'gains.csv' in out, error
  assert not (tmp_path / 'out' / 'tuned_e0.1.py').exists()
  # What is written does not depend on who reads what is printed.
  (tmp_path / 'out' / 'gains.csv').unlink()
  process = subprocess.Popen(
      [sys.executable, '-m', 'experiments.choose_settings',
       f'--results_dir={tmp_path / "unit"}',
       f'--board_results_dir={tmp_path / "board"}',
       f'--output_dir={tmp_path / "out"}'], cwd=commands.ROOT,
      stdout=subprocess.PIPE)
  process.stdout.close()
  assert process.wait() == 141
  config = runpy.run_path(str(tmp_path / 'out' / 'tuned_e1.py'))
  assert config['NOISE_STD'] == [1.]
  assert config['AGENTS'] == [{'agent': 'map', 'num_batches': 3}]
  table = pd.read_csv(tmp_path / 'out' / 'gains.csv').set_index('settings')
  assert table.loc[gains.EACH, 'kl_estimate_relative'] == pytest.approx(
      0.5 * 0.5**0.5)
