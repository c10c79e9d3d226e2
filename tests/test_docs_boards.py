"""Docs of boards and scores have the numbers of the CSV files they stand by."""

import re

from docs_tables import agrees
from docs_tables import check
from docs_tables import check_row
from docs_tables import csv
from docs_tables import in_text
from docs_tables import rows_of
import numpy as np
import pytest


@pytest.mark.parametrize('text, value, found', [
    ('0.25', 0.2549, True), ('0.25', 0.2551, False), ('.75', 0.7446, False),
    ('−0.3', -0.34, True), ('1.8e+05', 184_999., True),
    ('1.8e+05', 186_000., False), ('4,138', 4138.2, True), ('-', np.nan, True),
    ('-', 1., False), ('inf', np.inf, True), ('**0.688**', 0.6884, True)])
def test_agrees(text, value, found):
  assert bool(agrees(text, value)) == found


@pytest.mark.parametrize('folder, header, more_columns', [
    ('board_D10_D100', 'rank (95 %)', {
        'mean KL': 'kl_estimate_mean', 'floor': 'kl_floor_mean',
        '± s.e.': 'kl_estimate_standard_error'}),
    ('board_24_cells', 'rank of 24 cells (95 %)', {}),
    ('board_T100000', 'rank of T = 100,000 (95 %)', {})])
def test_boards(folder, header, more_columns):
  board = csv(f'{folder}/leaderboard').set_index('label')
  columns = {'KL / prior_only': 'kl_estimate_relative',
             'floor / prior_only': 'kl_floor_relative', **more_columns,
             **{f'ε = {level}': f'kl_estimate_relative[noise_std={level}]'
                for level in ('0.01', '0.1', '1')}}
  for row in rows_of('scores_and_statistics', header, *columns):
    line = board.loc[row['agent'].removesuffix(' (brought)')]
    check_row(row['agent'], row, line, columns)
    ranks = [] if np.isnan(line['rank']) else [
        int(line[name]) for name in ('rank', 'rank_low', 'rank_high')]
    assert list(map(int, re.findall(r'\d+', row[header]))) in (
        ranks, ranks[:2] if ranks[1:2] == ranks[2:] else ranks)
    assert row['rows'] == f'{line.num_ok}/{line.num_expected}'


def test_gains_of_tuned_settings():
  table = csv('board_tuned/gains').set_index(['agent', 'settings'])
  names = {"its paper's setting": 'papers', 'its own prior': 'papers',
           'one setting for': 'one for all noise levels',
           'a setting for each': 'one for each noise level'}
  columns = {'all cells': 'kl_estimate_relative',
             **{f'ε = {level}': f'kl_estimate_relative[noise_std={level}]'
                for level in ('0.01', '0.1', '1')}}
  agent = ''
  for row in rows_of('scores_and_statistics', 'KL / prior_only', 'all cells'):
    label = row['KL / prior_only']
    agent = {'ensemble of': 'ensemble', 'layer ensem': 'layer_ensemble',
             'BatchEnsemb': 'batch_ensemble', 'MC dropout:': 'mc_dropout',
             'deep sub-en': 'deep_sub_ensemble', 'Bayes by ba': 'bbb',
             'VNN: its pa': 'vnn', 'hypermodel:': 'hypermodel'}.get(
                 label[:11], agent)
    settings, = [name for words, name in names.items() if words in label]
    check_row(label, row, table.loc[(agent, settings)], columns)


def label_of(board, start):
  """The label of a board that starts so, with a prior function."""
  found = [label for label in board.index if label.startswith(start)
           and (start != 'vnn' or label == 'vnn')
           and 'prior_scale=0' not in label]
  label, = found
  return label


def test_tuned_settings_where_nothing_was_tuned():
  board, cells = (csv(f'board_tuned_18_cells/{name}').set_index('label')
                  for name in ('leaderboard', 'cells'))
  cells = cells[cells.data_ratio == 100]
  wide = csv('board_tuned_D1000/leaderboard').set_index('label')
  labels = {
      'ensemble of 10': ('ensemble,num_ensemble=10', 'ensemble,num_batches'),
      'layer ensemble of 3': ('layer_ensemble,num_options=3',
                              'layer_ensemble,num_batches'),
      'BatchEnsemble of 10': ('batch_ensemble,num_ensemble=10',
                              'batch_ensemble,num_batches'),
      'deep sub-ensemble of 10': ('deep_sub_ensemble,num_ensemble=10',
                                  'deep_sub_ensemble,num_batches'),
      'Bayes by backprop': ('bbb,sigma_0=1,', 'bbb,learning_rate'),
      'hypermodel': ('hypermodel,index_dim', 'hypermodel,learning_rate'),
      'MC dropout': ('mc_dropout,dropout_rate', 'mc_dropout,num_batches'),
      'VNN': ('vnn', 'vnn,learning_rate')}
  rows = rows_of('scores_and_statistics', '18 cells: tuned')
  assert {row['KL / prior_only'] for row in rows} == set(labels)
  for row in rows:
    name = row['KL / prior_only']
    tuned = labels[name][0].split(',')[0] + ',learning_rate'  # At D_x = 1000.
    for start, of_wide, column in zip(
        labels[name], (labels[name][0], tuned), ("papers' setting", 'tuned')):
      label = label_of(board, start)
      ratios = cells.loc[label, 'kl_estimate_relative']
      assert len(ratios) == 6
      check([(name, row[f'18 cells: {column}'],
              board.loc[label, 'kl_estimate_relative']),
             (name, row[f'λ = 100: {column}'], np.exp(np.log(ratios).mean())),
             (name, row[f'D_x = 1000: {column}'],
              wide.loc[label_of(wide, of_wide), 'kl_estimate_relative'])])


def test_gains_without_the_noise_of_labels():
  found = in_text(
      'scores_and_statistics', r'BatchEnsemble then comes to (\S+) \((\S+) at '
      r'ε = 1, .*\) instead of (\S+), Bayes by backprop to (\S+) \((\S+)\) '
      r'instead of (\S+), and .* loses by it \((\S+) instead of (\S+)\)')
  without, labels = (
      csv(f'board_tuned/{name}').set_index(['agent', 'settings'])
      for name in ('gains_without_label_noise', 'gains'))
  each, one = 'one for each noise level', 'one for all noise levels'
  all_cells = 'kl_estimate_relative'
  check(zip('abcdefgh', found, (
      *without.loc[('batch_ensemble', each),
                   [all_cells, f'{all_cells}[noise_std=1]']],
      labels.loc[('batch_ensemble', each), all_cells],
      *without.loc[('bbb', each), [all_cells, f'{all_cells}[noise_std=1]']],
      labels.loc[('bbb', each), all_cells],
      without.loc[('layer_ensemble', one), all_cells],
      labels.loc[('layer_ensemble', one), all_cells]), strict=True))


def test_forms_of_weight_decay():
  board = csv('decay_forms/kl').set_index('label')
  columns = {'all cells': 'kl_estimate_relative',
             **{f'ε = {level}': f'kl_estimate_relative[noise_std={level}]'
                for level in ('0.01', '0.1', '1')}}
  header = 'ensemble of 10, 1,000 steps: KL / prior_only'
  for row in rows_of('scores_and_statistics', header):
    words = row[header]
    decay = (re.findall(r'decay ([\d.]+)', words) or ['0'])[0]
    scale = 0 if 'no prior' in words else 1
    label = 'ensemble,num_ensemble=10,' + (
        f'prior_scale=0,weight_decay={decay},num_batches=1000,'
        'decay_from_start=true' if 'start' in words else
        f'weight_decay={decay},prior_scale={scale},num_batches=1000')
    check_row(words, row, board.loc[label], columns)


def test_all_27_cells():
  board = csv('board_27_cells/leaderboard').set_index('label')
  for row in rows_of('scores_and_statistics', 'rank of 27 cells', 'agent'):
    line = board.loc[row['agent']]
    check([(row['agent'], row['KL / prior_only'], line.kl_estimate_relative),
           (row['agent'], row['rank of 27 cells'], line['rank'])])
    assert row['rows'] == f'{line.num_ok}/{line.num_expected}'


def test_costs_of_the_grid():
  cells, large = (csv(f'{board}/costs').groupby('label').seconds.sum() / 60
                  for board in ('board_24_cells', 'board_T100000'))
  columns = {'24 cells': cells, 'five seeds of T = 100,000': large,
             'whole grid, ten seeds': cells + 2 * large}
  rows = rows_of('scores_and_statistics', 'minutes of one core', *columns)
  assert {row['minutes of one core'] for row in rows} == set(large.index)
  check((row['minutes of one core'], row[column],
         minutes[row['minutes of one core']])
        for row in rows for column, minutes in columns.items())


def test_ranks_by_score():
  ranks = csv('board_D10_D100/ranks_by_score').set_index('label')
  columns = {
      'KL': 'kl_estimate', 'reverse KL': 'kl_reverse',
      'joint KL': 'joint_kl_dyadic_tau10',
      'joint, 2 test points': 'joint_kl_tau2',
      'joint, 10 test points': 'joint_kl_tau10', 'Wasserstein': 'wasserstein',
      'CRPS, expected': 'crps_excess_expected', 'CRPS': 'crps_excess',
      'log score, expected': 'log_score_excess_expected',
      'log score': 'log_score_excess'}
  for row in rows_of('scores_side_by_side', 'agent', *columns):
    check((row['agent'], row[column], ranks.loc[row['agent'], f'{name}_rank'])
          for column, name in columns.items())
  relations = csv('board_D10_D100/score_relations').set_index('score')
  for row in rows_of('scores_side_by_side', 'not explained'):
    line = relations.loc[columns[row['score']]]
    check_row(row['score'], row, line, {
        'agents': 'num_agents',
        'pairs told apart by both': 'num_pairs_told_apart_by_both',
        'of them in opposite order': 'num_pairs_in_opposite_order',
        'not explained': 'share_of_variance_not_explained'})


def test_calibration():
  tests = csv('calibration/calibration_tests').set_index(['label', 'cells'])
  names = {'all cells': 'all', **{f'ε = {level}': f'noise_std={level}'
                                  for level in ('0.01', '0.1', '1')}}
  rows = rows_of('scores_side_by_side', 'curvature', *names)
  assert {row['curvature'] for row in rows} == set(
      tests.index.get_level_values('label'))
  for row in rows:
    label = row['curvature']
    line = tests.loc[label, 'all']
    check([*((label, row[column], tests.loc[(label, cells), 'curvature'])
             for column, cells in names.items()),
           (label, row['± s.e.'], line.curvature_standard_error),
           (label, row['as many exact draws'], line.curvature_of_exact_draws)])
    assert (line.num_cells, line.num_seeds, line.num_rows_without) == (6, 5, 0)
    if row['p'] == '< 0.001':
      assert line.p_holm < 1e-3
    else:
      check([(label, row['p'], line.p_holm)])


def test_brought_predictions():
  board = csv('board_D10_D100/leaderboard').set_index('agent')
  names = {'GaussianProcessRegressor': 'scikit-learn gaussian_process',
           'RandomForestRegressor': 'scikit-learn random_forest',
           'mcmc_ensemble': 'mcmc_ensemble'}
  for row in rows_of('bring_predictions', 'method', 'joint KL'):
    line = board[board.label == names[row['method']]].iloc[0]
    check_row(row['method'], row, line, {
        'KL / prior_only': 'kl_estimate_relative',
        'mean KL': 'kl_estimate_mean',
        'joint KL': 'joint_kl_dyadic_tau10_mean',
        'expected log score excess': 'log_score_excess_expected_mean',
        'coverage of 90 %': 'coverage_90_mean'})
