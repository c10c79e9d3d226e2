"""Docs of studies have the numbers of the CSV files that they stand beside."""

import re

from docs_tables import check
from docs_tables import check_row
from docs_tables import csv
from docs_tables import in_text
from docs_tables import rows_of
import pandas as pd
import pytest


def test_random_features():
  found = csv('random_features/random_features')
  found = found[(found.num_ensemble == 30)
                & (found.last_layer == 'solved')].set_index(
      ['input_dim', 'data_ratio', 'noise_std', 'width'])['kl_estimate']
  for row in rows_of('study_random_features', '(D_x, λ), T', '2048'):
    input_dim, data_ratio, _ = map(int, re.findall(r'\d+', row['(D_x, λ), T']))
    check((row['(D_x, λ), T'], row[str(width)], found.get(
        (input_dim, data_ratio, float(row['ε']), width)))
          for width in (128, 256, 512, 1024, 2048, 4096))


@pytest.mark.parametrize('folder, header, size', [
    ('batch_ensemble_digits', 'K = 4 unless said', ' K=4'),
    ('batch_ensemble_mnist', 'MNIST, K = 4 unless said', ' K=4'),
    ('batch_ensemble_cifar', 'cifar10-jpeg75, K = 4', '')])
def test_batch_ensemble(folder, header, size):
  names = {'one network': 'map', 'deep ensemble': f'ensemble{size}',
           'BatchEnsemble, sign': f'batch_ensemble{size} sign',
           'BatchEnsemble, normal 0.5, as in the public code':
               f'batch_ensemble{size} normal std=0.5 plain member trains W',
           'layer ensemble, ranked by val_nll': 'layer_ensemble, val_nll',
           'deep sub-ensemble': 'deep_sub_ensemble',
           'hypermodel, d = 4': 'hypermodel', 'Bayes by backprop': 'bbb',
           'hypermodel, d = 4, from a network':
               'hypermodel start_at_network=True',
           'Bayes by backprop, KL × 0.01': 'bbb kl_weight=0.01',
           'Bayes by backprop, random means': 'bbb initial_std=0.05',
           'layer ensemble': 'layer_ensemble',
           'layer ensemble, 16 members': 'layer_ensemble',
           'MC dropout': 'mc_dropout'}
  scores = csv(f'{folder}/scores')
  means = scores[scores['set'].isna()].set_index(['setting', 'score'])['mean']
  for row in rows_of('study_batch_ensemble', header):
    label, _, members = row[header].partition(', K = ')
    setting = names.get(label, label.replace(
        'BatchEnsemble, normal ', f'batch_ensemble{size} normal std='))
    if members:
      setting = setting.replace(size, f' K={members}')
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
    check_row(row['agent'], row, line, {
        'disentanglement error': 'disentanglement_error',
        'AU left over': 'aleatoric_left_over',
        'EU left over': 'epistemic_left_over',
        'correlation of AU and EU over cells': 'cell_correlation',
        'over test images': 'point_correlation'})
  full = csv('decomposition_mnist/grid')
  full = full[full.aggregation == 'none'].groupby(['agent', 'size', 'share'])[
      ['aleatoric_uncertainty', 'epistemic_uncertainty']].mean()
  for row in rows_of('study_decomposition', 'MNIST, full size'):
    found = re.fullmatch(r'`(\w+)`, ([\d,]+) images', row['MNIST, full size'])
    if found:
      agent, size = found[1], int(found[2].replace(',', ''))
      check((row, row[f'{part}: {share} %'],
             full.loc[(agent, size, share / 100.), f'{name}_uncertainty'])
            for part, name in (('AU', 'aleatoric'), ('EU', 'epistemic'))
            for share in (0, 20, 40))
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
  weights, ensembles = (pd.concat([csv(f'empirical_bayes_mnist{end}/{name}')
                                   for end in ('', '_converged')])
                        for name in ('weights', 'ensembles'))
  rules = {'mean member': 'single', 'uniform': 'uniform', 'EM': 'em',
           'tempered 0.001': 'tempered_0.001', 'tempered 0.01': 'tempered_0.01',
           'posterior': 'posterior', 'stacking': 'stacking'}
  for row in rows_of('study_empirical_bayes', 'K = 30, MNIST'):
    kind, steps = re.fullmatch(r'`(\w+)`, ([\d,]+) steps',
                               row['K = 30, MNIST']).groups()
    steps = int(steps.replace(',', ''))
    # Both folders have `plain` members after 1,000 steps, the same ones.
    found, of_rules = (
        table[(table['kind'] == kind) & (table['steps'] == steps)
              & (table['num_members'] == 30)]
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
  found = in_text('studies', r'KL at P = (\d+) of .* or at (\d+) .* is (\d+) '
                  r'% and (\d+) % larger.* \((\S+) and (\S+) beside (\S+)\).* '
                  r'\((\S+) at P = (\d+)\).*ranking \((\S+) with (\d+) of')
  check(zip('abcdefghijk', found, (
      oracle[0], labels[0], 100 * (oracle[2] / oracle[1] - 1),
      100 * (labels[2] / labels[1] - 1), oracle[1], labels[1], deep[2],
      six[1], six[0], deep[1], deep[0]), strict=True))


def test_figure_2():
  table = csv('figure2/figure2')
  assert set(table['num_cells']) == {24} and set(table['num_seeds']) == {10}
  table = table[~table['panel'].isin(['with priors', 'without priors'])]
  means = table.groupby('label')['kl_estimate_mean'].first()
  by_options = in_text('studies', r'gain\s+little: (\S+) at K = 5, (\S+) at 6, '
                       r'(\S+) at 8 and (\S+) at 10')
  check(zip('abcd', by_options, (
      means[f'layer ensemble of {k}'] for k in (5, 6, 8, 10)), strict=True))
  found = in_text('studies', r'larger \((\S+) instead of (\S+); .* by (\d+) '
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
  found = in_text(
      'studies', r'ranked by `oracle` \((\S+) if each .* ensemble of 30 \((\S+)'
      r'\), which .* by `val_nll` \((\S+) with one P, (\S+) if each .* where '
      r'the hypermodel is \((\S+)\)')
  check(zip('abcde', found, (
      means['layer ensemble of 5, oracle, P by validation'],
      means['ensemble of 30'],
      means['layer ensemble of 5, val_nll, P = 24'],
      means['layer ensemble of 5, val_nll, P by validation'],
      means['hypermodel']), strict=True))
