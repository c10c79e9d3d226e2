"""Tables of docs have the numbers of the CSV files that they stand beside."""

import pathlib
import re

import numpy as np
import pandas as pd
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def rows_of(page, *header):
  """The rows of the table that has these columns, as dicts by column."""
  text = (ROOT / 'docs' / f'{page}.md').read_text()
  for block in re.findall(r'(?:^\|.*\n)+', text, re.M):
    lines = [[cell.strip() for cell in line.strip().strip('|').split('|')]
             for line in block.splitlines()]
    if set(header) <= set(lines[0]):
      assert len(lines) > 2
      return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
  raise AssertionError(f'{page} has no table of {header}')


def csv(name):
  return pd.read_csv(ROOT / 'leaderboards' / f'{name}.csv')


def agrees(text, value):
  """Whether a number is what is printed, at the printed precision."""
  text = text.strip('*% ').replace('−', '-').replace(',', '')
  if text in ('-', ''):
    return value is None or np.isnan(value)
  if text == 'inf':
    return np.isinf(value)
  mantissa, _, exponent = text.partition('e')
  decimals = len(mantissa.partition('.')[2])
  unit = 10.**(int(exponent or 0) - decimals)
  return abs(float(text) - value) <= 0.5 * unit * (1 + 1e-9)


def check(pairs):
  wrong = [(name, text, value) for name, text, value in pairs
           if not agrees(text, value)]
  assert not wrong


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
    check((row['agent'], row[column], line[name])
          for column, name in columns.items())
    ranks = [] if np.isnan(line['rank']) else [
        int(line[name]) for name in ('rank', 'rank_low', 'rank_high')]
    assert list(map(int, re.findall(r'\d+', row[header]))) in (
        ranks, ranks[:2] if ranks[1:2] == ranks[2:] else ranks)
    assert row['rows'] == f'{line.num_ok}/{line.num_expected}'


def test_gains_of_tuned_settings():
  table = csv('board_tuned/gains').set_index(['agent', 'settings'])
  names = {"its paper's setting": 'papers', 'one setting for': 'one for all '
           'noise levels', 'a setting for each': 'one for each noise level'}
  columns = {'all cells': 'kl_estimate_relative',
             **{f'ε = {level}': f'kl_estimate_relative[noise_std={level}]'
                for level in ('0.01', '0.1', '1')}}
  agent = ''
  for row in rows_of('scores_and_statistics', 'KL / prior_only', 'all cells'):
    label = row['KL / prior_only']
    agent = {'ensemble of': 'ensemble', 'layer ensem': 'layer_ensemble',
             'BatchEnsemb': 'batch_ensemble', 'MC dropout:': 'mc_dropout'}.get(
                 label[:11], agent)
    settings, = [name for words, name in names.items() if words in label]
    check((label, row[column], table.loc[(agent, settings), name])
          for column, name in columns.items())


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
    check((words, row[column], board.loc[label, name])
          for column, name in columns.items())


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
  columns = {'24 cells': cells, 'four seeds of T = 100,000': large,
             'whole grid, ten seeds': cells + 2.5 * large}
  rows = rows_of('scores_and_statistics', 'minutes of one core', *columns)
  assert {row['minutes of one core'] for row in rows} == set(large.index)
  check((row['minutes of one core'], row[column],
         minutes[row['minutes of one core']])
        for row in rows for column, minutes in columns.items())


def test_first_board():
  board = csv('paper_D10_D100/leaderboard')
  board = board[board['ranking'].str.startswith(
      'reference bayes; selection none')].set_index('label')
  columns = {'mean KL': 'kl_estimate_mean', 'floor': 'kl_floor_mean',
             '± s.e.': 'kl_estimate_standard_error',
             'geometric': 'kl_estimate_geometric_mean',
             'reverse KL': 'kl_reverse_mean', 'train s': 'train_seconds_mean'}
  for row in rows_of('scores_and_statistics', 'remarks', *columns):
    check((row['agent'], row[column], board.loc[row['agent'], name])
          for column, name in columns.items())


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
    check((row['score'], row[column], line[name]) for column, name in {
        'agents': 'num_agents',
        'pairs told apart by both': 'num_pairs_told_apart_by_both',
        'of them in opposite order': 'num_pairs_in_opposite_order',
        'not explained': 'share_of_variance_not_explained'}.items())


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
    check((row['method'], row[column], line[name]) for column, name in {
        'KL / prior_only': 'kl_estimate_relative',
        'mean KL': 'kl_estimate_mean',
        'joint KL': 'joint_kl_dyadic_tau10_mean',
        'expected log score excess': 'log_score_excess_expected_mean',
        'coverage of 90 %': 'coverage_90_mean'}.items())


def test_random_features():
  found = csv('random_features/random_features')
  found = found[found.num_ensemble == 30].set_index(
      ['input_dim', 'data_ratio', 'noise_std', 'width'])['kl_estimate']
  for row in rows_of('study_random_features', '(D_x, λ), T', '2048'):
    input_dim, data_ratio, _ = map(int, re.findall(r'\d+', row['(D_x, λ), T']))
    check((row['(D_x, λ), T'], row[str(width)], found.get(
        (input_dim, data_ratio, float(row['ε']), width)))
          for width in (128, 256, 512, 1024, 2048))


@pytest.mark.parametrize('folder, header, size', [
    ('batch_ensemble_digits', 'K = 4 unless said', ' K=4'),
    ('batch_ensemble_mnist', 'MNIST, K = 4', ''),
    ('batch_ensemble_cifar', 'cifar10-jpeg75, K = 4', '')])
def test_batch_ensemble(folder, header, size):
  names = {'one network': 'map', 'deep ensemble': f'ensemble{size}',
           'deep ensemble, K = 8': 'ensemble K=8',
           'BatchEnsemble, normal': 'batch_ensemble normal',
           'BatchEnsemble, sign': f'batch_ensemble{size} sign',
           'BatchEnsemble, sign, K = 8': 'batch_ensemble K=8 sign',
           'BatchEnsemble, normal 0.5, as in the public code':
               f'batch_ensemble{size} normal std=0.5 plain member trains W',
           'layer ensemble, ranked by val_nll': 'layer_ensemble, val_nll',
           'deep sub-ensemble': 'deep_sub_ensemble',
           'layer ensemble, 16 members': 'layer_ensemble',
           'MC dropout': 'mc_dropout'}
  scores = csv(f'{folder}/scores')
  means = scores[scores['set'].isna()].set_index(['setting', 'score'])['mean']
  for row in rows_of('study_batch_ensemble', header):
    label = row[header]
    setting = names.get(label, label.replace(
        'BatchEnsemble, normal ', f'batch_ensemble{size} normal std='))
    printed = {'accuracy': 'accuracy', 'NLL': 'nll', 'ECE': 'ece',
               'NLL under shift': 'shift_nll',
               'OOD AUROC (MSP)': 'ood_auroc_msp',
               'disagreement': 'disagreement',
               'cosine of weights': 'weight_cosine'}
    check((label, row[column], means.get((setting, name)))
          for column, name in printed.items())
    information = row['MI in / shift / OOD'].split(' / ')
    if len(information) > 1:
      check((label, text, means[setting, f'{name}epistemic_uncertainty'])
            for text, name in zip(information, ('', 'shift_', 'ood_'),
                                  strict=True))


def test_decomposition():
  errors = csv('decomposition/disentanglement').set_index(['dataset', 'agent'])
  dataset = 'digits'
  for row in rows_of('study_decomposition', 'disentanglement error'):
    if row['agent'].startswith('MNIST'):
      dataset = 'npz:mnist'
    line = errors.loc[dataset, re.search('`(.*?)`', row['agent']).group(1)]
    check((row['agent'], row[column], line[name]) for column, name in {
        'disentanglement error': 'disentanglement_error',
        'AU left over': 'aleatoric_left_over',
        'EU left over': 'epistemic_left_over',
        'correlation of AU and EU over cells': 'cell_correlation',
        'over test images': 'point_correlation'}.items())
  split = csv('decomposition/split').groupby(
      ['num_train', 'noise_std', 'agent']).mean(numeric_only=True)
  for row in rows_of('study_decomposition', 'AU error', 'exact NLL'):
    num_train, noise_std = re.fullmatch(r'([\d,]+), ([\d.]+)',
                                        row['T, ε']).groups()
    cell = (int(num_train.replace(',', '')), float(noise_std))
    line = split.loc[(*cell, row['agent'].replace(' function', ''))]
    check([(row['agent'], row[column], line[name]) for column, name in {
        'AU error': 'aleatoric_error', 'EU error': 'epistemic_error',
        'AU correlation': 'aleatoric_correlation',
        'EU correlation': 'epistemic_correlation',
        'NLL': 'mixture_nll'}.items()] + [
            ('exact', row['exact NLL'],
             split.loc[(*cell, 'exact posterior')]['mixture_nll'])])
  attacked = csv('decomposition/robustness')
  attacked = attacked[attacked.dataset == 'digits'].groupby(
      ['agent', 'attack', 'epsilon'])['accuracy'].mean()
  for row in rows_of('study_decomposition', 'PGD on single .1'):
    check((row['accuracy'], row[column], attacked.get((row['accuracy'], *key)))
          for column, key in {
              'no attack': ('none', 0.), 'FGSM .05': ('fgsm', 0.05),
              'PGD .05': ('pgd', 0.05),
              'PGD on single .1': ('pgd on single', 0.1)}.items())


def test_ensemble_sizes_on_the_testbed():
  curve = csv('loss_landscape_testbed/testbed_curve').groupby(
      ['method', 'size', 'noise_std'])['kl_labels'].mean()
  names = {'one network': ('inits', 1),
           '30 snapshots of one run (steps 275 to 1,000)':
               ('snapshots of one run', 30),
           'averaged weights of those snapshots':
               ('averaged weights of snapshots', 1),
           'averaged weights of 30 inits': ('averaged weights of inits', 1)}
  for row in rows_of('study_loss_landscape', 'ε = 0.01', 'ε = 0.1'):
    label = next(iter(row.values()))
    key = names.get(label) or ('inits', int(label.removeprefix('inits: ')))
    check((label, row[f'ε = {level:g}'], curve[(*key, level)])
          for level in (0.01, 0.1, 1.))


def test_verdicts_of_the_loss_landscape():
  folders = {'digits': 'digits', 'digits, batch 16': 'digits_batch16',
             'MNIST': 'mnist', 'cifar10-jpeg75': 'cifar10'}
  methods = ('random', 'dropout', 'diagonal', 'low_rank')
  for column, folder in folders.items():
    table = csv(f'loss_landscape_{folder}/verdicts').drop_duplicates(
        ['claim', 'score', 'method']).set_index(['claim', 'score'])
    table.index = table.index.set_levels(
        table.index.levels[0].astype(str), level=0)
    for row in rows_of('study_loss_landscape', 'claim', 'score', *folders):
      printed = {}
      for part in row[column].split('; '):
        verdict, names = part.split(': ')
        printed |= dict.fromkeys(
            methods if names == 'all four' else
            names.replace('low rank', 'low_rank').split(', '), verdict)
      lines = table.loc[row['claim'].split()[0], row['score']]
      assert printed == dict(zip(lines['method'], lines['verdict']))


def test_evidence_of_empirical_bayes():
  found = csv('empirical_bayes/ensembles')
  found = found[(found.num_members == 30) & (found.steps == 1000)]
  found = found.assign(
      excess=found.evidence_learnt - found.nngp_log_marginal_likelihood
  ).groupby(['kind', 'num_train', 'noise_std'])['excess'].mean()
  for row in rows_of('study_empirical_bayes', 'excess in nats'):
    label = row['excess in nats']
    kind = 'map' if '`map`' in label else 'plain'
    num_train = int(re.search(r'\d+', label).group())
    check((label, row[f'ε = {level:g}'], found[kind, num_train, level])
          for level in (0.01, 0.1, 1.))



def test_empirical_bayes_on_mnist():
  weights, ensembles = (csv(f'empirical_bayes_mnist/{name}')
                        for name in ('weights', 'ensembles'))
  rules = {'mean member': 'single', 'uniform': 'uniform', 'EM': 'em',
           'tempered 0.001': 'tempered_0.001', 'tempered 0.01': 'tempered_0.01',
           'posterior': 'posterior', 'stacking': 'stacking'}
  for row in rows_of('study_empirical_bayes', 'K = 30, MNIST'):
    steps = int(row['K = 30, MNIST'].replace(',', '').split()[0])
    found, of_rules = (
        table[(table['steps'] == steps) & (table['num_members'] == 30)]
        for table in (ensembles, weights))
    nll = of_rules.groupby('rule')['nll'].mean()
    check([(steps, row['ESS / K'], found['ess_share'].mean()),
           (steps, row['range of log likelihoods, nats'],
            found['spread_range'].mean())])
    check((column, row[column], nll[rule]) for column, rule in rules.items())


def test_trained_last_layers():
  table = csv('random_features/random_features')
  cells = csv('board_D10_D100/cells')
  cells = cells[cells['label'] == 'ensemble,num_ensemble=10']
  for row in rows_of('study_random_features', '512: solved'):
    cell = [float(value) for value in re.findall(
        r'[\d.]+', row['(D_x, λ), T'])[:2]] + [float(row['ε'])]

    def at(frame, cell=cell):
      return frame[(frame['input_dim'] == cell[0])
                   & (frame['data_ratio'] == cell[1])
                   & (frame['noise_std'] == cell[2])]

    check([(cell, row['all layers'], at(cells)['kl_estimate_mean'].item())])
    for column in list(row)[2:-1]:
      width, _, how = column.partition(': ')
      found = at(table)
      found = found[(found['width'] == int(width)) & (found['seed'] == 0)
                    & (found['last_layer'] == how)
                    & (found['num_ensemble'] == 10)]
      check([(cell, row[column], found['kl_estimate'].item())])


def in_text(page, pattern):
  """The numbers that a sentence of a page has where the pattern has groups."""
  text = ' '.join((ROOT / 'docs' / f'{page}.md').read_text().split())
  return re.search(pattern, text).groups()


def test_figure_4():
  table = csv('figure4/figure4')
  table = table[table['panel'] != 'best P by cell']
  means = table.groupby(['label', 'selection', 'num_samples'])[
      'kl_estimate_mean'].first()
  best = {of: means[of].agg(['idxmin', 'min', lambda kl: kl.iloc[-1]]).tolist()
          for of in means.index.droplevel(2).unique()}
  oracle, labels = (best['layer ensemble of 5', rule]
                    for rule in ('oracle', 'val_nll'))
  six, deep = (best[f'{of}', 'oracle']
               for of in ('layer ensemble of 6', 'ensemble of 30'))
  found = in_text('studies', r'best at P = (\d+) of .* or at (\d+) .* is (\d+) '
                  r'% and (\d+) % larger.* \((\S+) and (\S+) beside (\S+)\).* '
                  r'\((\S+) at P = (\d+)\).*ranking \((\S+) with (\d+) of')
  check(zip('abcdefghijk', found, (
      oracle[0], labels[0], 100 * (oracle[2] / oracle[1] - 1),
      100 * (labels[2] / labels[1] - 1), oracle[1], labels[1], deep[2],
      six[1], six[0], deep[1], deep[0]), strict=True))


def test_figure_2():
  table = csv('figure2/figure2')
  table = table[~table['panel'].isin(['with priors', 'without priors'])]
  means = table.groupby('label')['kl_estimate_mean'].first()
  found = in_text('studies', r'at K = 2 \((\S+) instead of (\S+); .* by (\d+) '
                  r'% at K = 3 and by (\d+) % at K = 5: to (\S+), where')
  two, three, five = (means[f'layer ensemble of {k}'] for k in (2, 3, 5))
  subset = means['K = 5, 2 combinations per step']
  check(zip('abcde', found, (
      means['K = 2, noise by first option'], two,
      100 * (1 - means['K = 3, 2 combinations per step'] / three),
      100 * (1 - subset / five), subset), strict=True))


def test_figure_5():
  table = csv('figure5/figure5')
  means = table[table['panel'] == 'all cells'].set_index('label')[
      'kl_estimate_mean']
  found = in_text('studies', r'ensemble of 30 \((\S+)\) and the ranked .* '
                  r'\((\S+) by `oracle`, .*; (\S+) by `val_nll`\)')
  check(zip('abc', found, (
      means['ensemble of 30'],
      means['layer ensemble of 5, oracle, P by validation'],
      means['layer ensemble of 5, val_nll, P = 19']), strict=True))
