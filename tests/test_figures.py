"""Figures 2, 4 and 5: their tables against planted rows, their pictures."""

import io
import pathlib
import subprocess
import sys

import commands
import example_rows
from matplotlib import image
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.report import comparison
from enn_ensembles.report import plots
from enn_ensembles.report import text
from enn_ensembles.studies.layer_ensembles import figure2
from enn_ensembles.studies.layer_ensembles import figure4
from enn_ensembles.studies.layer_ensembles import figure5
from enn_ensembles.studies.layer_ensembles import settings

ROOT = pathlib.Path(__file__).resolve().parent.parent
CELLS = [(10, 1., 0.1), (10, 1., 1.), (100, 10., 0.1)]
SEEDS = range(3)
MAKE = {'figure2': figure2.make_figure, 'figure4': figure4.make_figure,
        'figure5': figure5.make_figure}


def config_settings(name):
  """agent, label, config and selection of all that a config runs."""
  config = sweeps.override(
      sweeps.load_config(ROOT / 'testbed_configs' / f'{name}.py'),
      problem={'input_dim': [10], 'data_ratio': [1.]})
  return [(unit.agent, unit.agent_label, dict(unit.agent_config), selection)
          for unit in sweeps.expand(config) for selection in unit.selections]


def level(label, selection, cell, seed):
  """The KL planted: any positive function of its arguments."""
  rng = np.random.default_rng([len(label), len(selection), int(cell[0]),
                               int(10 * cell[2]), seed])
  return float(np.exp(rng.normal()))


def plan_curve(num):
  """KL over `level` by number of samples: lowest at the root of the most."""
  p = np.arange(1, num + 1)
  return 1. + np.log(p / np.sqrt(num + 1.))**2 + 50. * np.exp(-4. * (p - 1))


def make_rows(name, reference='bayes', cells=CELLS, seeds=SEEDS):
  rows = []
  for agent, label, config, selection in config_settings(name):
    num = {'layer_ensemble': lambda c: c['num_options']**3,
           'ensemble': lambda c: c['num_ensemble']}.get(
               agent, lambda c: None)(config)
    for cell in cells:
      for seed in seeds:
        kl = level(label, selection, cell, seed)
        curve = None
        if num is not None:
          kls = kl * plan_curve(num)
          curve = {'order': list(range(num)), 'kl_estimate': kls.tolist(),
                   'kl_reverse': (3. * kls).tolist()}
          if selection != 'none':
            curve['val_score'] = kls.tolist()
        rows.append(example_rows.make_row(
            kl, label, seed=seed, input_dim=cell[0], data_ratio=cell[1],
            noise_std=cell[2], agent_config=config,
            agent_id=results.make_agent_id(agent, config),
            selection=selection, reference=reference, curve=curve,
            kl_reverse=2. * kl, num_samples_used=num,
            rank_seconds=None if selection == 'none' else 0.1,
            run_id=f'{label}-D{cell[0]}-{selection}-{reference}'))
  return rows


@pytest.fixture(scope='module')
def rows_of():
  return {name: make_rows(name) for name in ('figure2', 'figure4', 'figure5')}


@pytest.fixture(scope='module')
def drawn_of(rows_of):
  return {name: MAKE[name](rows_of[name]) for name in MAKE}


def planted(label, selection='none', cells=CELLS):
  return np.array([[level(label, selection, cell, seed) for seed in SEEDS]
                   for cell in cells])


def check_scores(line, values, reverse):
  """A table row against values [C, S] and its reverse KL as a multiple."""
  for score, scale in (('kl_estimate', 1.), ('kl_reverse', reverse)):
    per_seed = scale * values.mean(axis=0)
    expected = (per_seed.mean(), *stats.t.interval(
        0.95, len(per_seed) - 1, per_seed.mean(), stats.sem(per_seed)))
    np.testing.assert_allclose(
        [line[f'{score}_{end}'] for end in ('mean', 'low', 'high')], expected,
        rtol=1e-9)
    assert line[f'{score}_geometric_mean'] == pytest.approx(
        scale * stats.gmean(values, axis=None))


def find(table, **values):
  for name, value in values.items():
    table = table[table[name] == value]
  assert len(table) == 1, (values, len(table))
  return table.iloc[0]


@pytest.mark.parametrize('name', ['figure2', 'figure4', 'figure5'])
def test_pictures_are_pictures(drawn_of, name):
  pixels = image.imread(io.BytesIO(drawn_of[name].picture))
  assert pixels.shape[0] > 500 and pixels.shape[1] > 1000
  assert 0.01 < np.mean(pixels[..., :3].min(axis=-1) < 0.9) < 0.5


def test_figure2_table(drawn_of):
  table = drawn_of['figure2'].table
  name = 'layer_ensemble,num_options=5,prior_scale=1'
  for num in (1, 2, 125):
    check_scores(
        find(table, panel='with priors', label='layer ensemble of 5',
             num_samples=num),
        planted(name) * plan_curve(125)[num - 1], reverse=3.)
  for k in (8, 10):
    check_scores(
        find(table, panel='with priors', label=f'layer ensemble of {k}',
             num_samples=k**3),
        planted(f'layer_ensemble,num_options={k}') * plan_curve(k**3)[-1],
        reverse=3.)
  line = find(table, panel='with priors, all members',
              label='layer ensemble of 5')
  check_scores(line, planted(name), reverse=2.)
  assert (line['num_cells'], line['num_seeds']) == (3, 3)
  for prior, end in ((1., ''), (0., ',prior_scale=0')):
    panel = 'with priors' if prior else 'without priors'
    line = find(table, panel=panel, agent='ensemble', num_samples=30)
    check_scores(line, planted(f'ensemble,num_ensemble=30{end}'), reverse=2.)
  # Noise rules and subsets, as ratios to the usual way.
  usual, other = (planted(f'layer_ensemble,num_options=3,{end}')
                  for end in ('prior_scale=1', 'noise_by=first_option'))
  line = find(table, label='K = 3, noise by first option')
  assert line['ratio_to_usual'] == pytest.approx(other.mean() / usual.mean())
  line = find(table, label='K = 5, 11 combinations per step')
  check_scores(line, planted('layer_ensemble,num_options=5,'
                             'num_index_samples=11'), reverse=2.)


def test_figure4_reads_off_the_best_and_twenty(drawn_of):
  table, notes = drawn_of['figure4'].table, drawn_of['figure4'].notes
  best = 1 + int(np.argmin(plan_curve(125)))  # The same for every problem.
  values = planted('layer_ensemble,num_options=5', 'oracle')
  panel = 'layer ensemble, K = 5, J = 125'
  for num in (best, 20, 36, 125):
    check_scores(find(table, panel=panel, selection='oracle', num_samples=num),
                 values * plan_curve(125)[num - 1], reverse=3.)
  short = text.short_number
  assert (f'layer ensemble of 5, selection oracle: best P {best} of 125, mean '
          f'kl_estimate {short(values.mean() * plan_curve(125).min())}; '
          f'P = 20: '
          f'{short(values.mean() * plan_curve(125)[19])}') in ' '.join(notes)
  cells = table[(table['panel'] == 'best P by cell')
                & (table['selection'] == 'val_nll')]
  assert len(cells) == 3
  assert (cells['best_num_samples'] == best).all()
  assert (cells['best_num_samples_low'] == best).all()
  assert {'none', 'oracle', 'val_nll'} == set(
      table[table['panel'] == 'deep ensemble of 30']['selection'])


def test_labels_of_figure4_lie_off_the_curves(rows_of, monkeypatch):
  drawn, to_png = [], plots.to_png
  monkeypatch.setattr(plots, 'to_png', lambda figure: (
      drawn.append(figure) or to_png(figure)))
  figure4.make_figure(rows_of['figure4'])
  for axes in drawn[0].axes[:5]:
    labels = [label for label in axes.texts if 'P = ' in label.get_text()]
    assert len(labels) == 2
    boxes = [label.get_window_extent() for label in labels]
    assert not boxes[0].overlaps(boxes[1])
    for line in axes.lines:
      points = line.get_transform().transform(line.get_xydata())
      assert not any(box.count_contains(points) for box in boxes)


def test_figure5_table_and_spread(drawn_of):
  table = drawn_of['figure5'].table
  values = planted('mc_dropout,dropout_rate=0.05')
  line = find(table, panel='all cells', label='dropout')
  check_scores(line, values, reverse=2.)
  assert line['kl_estimate_std'] == pytest.approx(values.std())
  assert line['kl_estimate_median'] == pytest.approx(np.median(values))
  noise = [i for i, cell in enumerate(CELLS) if cell[2] == 0.1]
  check_scores(find(table, panel='by noise_std', label='dropout',
                    noise_std=0.1), values[noise], reverse=2.)
  check_scores(find(table, panel='by input_dim', label='dropout',
                    input_dim=100), values[2:], reverse=2.)
  best = 1 + int(np.argmin(plan_curve(125)))
  ranked = planted('layer_ensemble,num_options=5', 'oracle')
  check_scores(find(table, panel='all cells',
                    label=f'layer ensemble of 5, oracle, P = {best}'),
               ranked * plan_curve(125).min(), reverse=3.)
  check_scores(find(table, panel='all cells',
                    label='layer ensemble of 5, oracle, P by validation'),
               ranked, reverse=2.)


@pytest.mark.parametrize('name', ['figure2', 'figure4', 'figure5'])
def test_order_of_rows_does_not_matter(rows_of, drawn_of, name):
  again = MAKE[name](rows_of[name][::-1])
  pd.testing.assert_frame_equal(again.table, drawn_of[name].table)
  assert again.picture == drawn_of[name].picture


def test_figures_take_the_score_as_an_argument(rows_of):
  drawn = figure5.make_figure(rows_of['figure5'], score='kl_reverse')
  means = drawn.table[drawn.table['panel'] == 'all cells']
  order = means['kl_reverse_mean'].tolist()
  assert order == sorted(order)
  assert 'kl_reverse_median' in drawn.table
  with pytest.raises(ValueError, match='score of nngp problems must be one of'):
    figure2.make_figure(rows_of['figure2'], score='beauty')
  # Curves hold the two directions of the KL only.
  with pytest.raises(ValueError, match='has no score std_error'):
    figure4.make_figure(rows_of['figure4'], score='std_error')


def test_missing_settings_are_named_or_noted(rows_of):
  rows = [row for row in rows_of['figure5'] if row['agent'] != 'vnn']
  with pytest.raises(comparison.MissingSettingsError) as error:
    figure5.make_figure(rows)
  assert 'VNN' in str(error.value) and 'figure5.py' in str(error.value)
  drawn = figure5.make_figure(rows, allow_missing=True)
  assert 'VNN is not here' in ' '.join(drawn.notes)
  assert 'VNN' not in set(drawn.table['label'])
  # The other selections do not stand in for one that is missing.
  rows = [row for row in rows_of['figure4'] if row['selection'] != 'val_nll']
  with pytest.raises(comparison.MissingSettingsError, match='val_nll'):
    figure4.make_figure(rows)
  drawn = figure4.make_figure(rows, allow_missing=True)
  assert set(drawn.table['selection']) == {'none', 'oracle'}
  with pytest.raises(comparison.MissingSettingsError, match='enn2021'):
    figure2.make_figure(rows_of['figure2'], 'enn2021')


def test_incomplete_settings_shrink_the_comparison_and_are_listed(rows_of):
  rows = [row for row in rows_of['figure5']
          if row['agent'] != 'bbb'
          or row['problem']['cell']['input_dim'] == 10]
  drawn = figure5.make_figure(rows)
  assert set(drawn.table['num_cells'][drawn.table['panel'] == 'all cells']) == {
      2}
  assert 'incomplete, 6 of 9 problems: BBB; without' in ' '.join(drawn.notes)
  check_scores(find(drawn.table, panel='all cells', label='dropout'),
               planted('mc_dropout,dropout_rate=0.05', cells=CELLS[:2]),
               reverse=2.)


def test_configs_run_what_figures_and_claims_need():
  runs = [example_rows.make_row(
      agent=label, agent_config=config, selection=selection,
      agent_id=results.make_agent_id(agent, config))
          for name in MAKE
          for agent, label, config, selection in config_settings(name)]
  needed = [*figure5.FIGURE5_SETTINGS, *settings.COMPETITORS,
            *(settings.layer_ensemble(k, prior) for k in (2, 3, 5, 6)
              for prior in (0., 1.)),
            *(settings.deep_ensemble(k) for k in (2, 3, 5, 10, 30))]
  for setting in needed:
    assert len({row['agent_id'] for row in runs if setting.holds(row)}) == 1, (
        setting)


@pytest.mark.parametrize('name', ['figure2', 'figure4', 'figure5'])
def test_command(tmp_path, rows_of, name):
  store = results.open_store(tmp_path / 'results', create=True)
  units = {}
  for row in rows_of[name]:
    units.setdefault(row['run_id'], []).append(row)
  for run_id, rows in units.items():
    store.write_unit(run_id, rows)
  code = ('import atexit, sys; '
          "atexit.register(lambda: print('jax' in sys.modules)); "
          f'from experiments import cli, {name}; cli.run_main({name}.main)')
  flags = (f'--results_dir={tmp_path / "results"}',
           f'--output_dir={tmp_path / "out"}')
  done = subprocess.run([sys.executable, '-c', code, *flags], cwd=ROOT,
                        capture_output=True, text=True, timeout=600,
                        check=False)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'False'  # Drawn without jax.
  table = pd.read_csv(tmp_path / 'out' / f'{name}.csv')
  assert {'kl_estimate_mean', 'kl_estimate_low', 'kl_reverse_mean',
          'num_seeds', 'num_cells', 'selection', 'reference'} <= set(table)
  assert (tmp_path / 'out' / f'{name}.png').read_bytes()[:4] == b'\x89PNG'
  if name == 'figure2':
    done = commands.run_module(f'experiments.{name}', *flags,
                               '--reference=enn2021')
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'testbed_configs/figure2.py' in line
