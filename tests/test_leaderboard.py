"""Means, standard errors and rankings that can be checked by hand."""

import csv
import html.parser
import io
import itertools
import math
import pathlib
import random
import re
import subprocess
import sys
import zlib

import example_rows
from matplotlib import image
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from enn_ensembles import results
from enn_ensembles.report import html_page
from enn_ensembles.report import leaderboard

make_row = example_rows.make_row
make_entry = example_rows.make_entry


def make_rows(agent_id='ensemble-K10', scores=((1., 2., 3.),), **fields):
  """Rows of one agent; scores[c][s] is the KL in cell c at seed s."""
  noise_stds = (0.01, 0.1, 1.)
  rows = []
  for noise_std, by_seed in zip(noise_stds, scores):
    for seed, kl in enumerate(by_seed):
      status = 'failed' if kl is None else (
          'ok' if math.isfinite(kl) else 'diverged')
      rows.append(make_row(kl, agent_id, seed, noise_std=noise_std,
                           status=status, **fields))
  return rows


def expect(rows):
  """The expected rows that these rows are the answer to."""
  keys = ('agent', 'agent_id', 'agent_config', *results.PROBLEM_FIELDS,
          *results.PROTOCOL_FIELDS)
  return [{key: row[key] for key in keys} for row in rows]


def lines(tables):
  """label -> line of the leaderboard (of one ranking)."""
  return {line['label']: line for _, line in tables.leaderboard.iterrows()}


def realistic_rows(num_seeds=3):
  """Fourteen agent settings with everything that can be wrong with them."""
  generator = np.random.default_rng(0)
  rows, expected = [], []
  for agent_id, kl in (
      ('exact_posterior', 0.), ('exact_posterior-draws', 1e-9),
      ('layer_ensemble-K5', 0.08), ('layer_ensemble-K3', 0.2),
      ('ensemble-K10', 0.3), ('ensemble-K1', 1e5), ('hypermodel', 0.25),
      ('bbb', 1.), ('mc_dropout', 4.), ('batch_ensemble-K10', 2.),
      ('deep_sub_ensemble', 0.7), ('prior_only', 8.), ('map', 2e5),
      ('never_started', 1.)):
    draws = 1000 if agent_id in ('bbb', 'mc_dropout', 'hypermodel',
                                 'exact_posterior-draws') else None
    for dim, noise_std, seed in itertools.product(
        (10, 100), (0.01, 0.1, 1.), range(num_seeds)):
      score = float(kl * np.exp(0.3 * generator.normal()))
      status = 'ok'
      if (agent_id, dim, noise_std, seed) == ('bbb', 100, 1., 1):
        score, status = math.nan, 'diverged'
      if (agent_id, noise_std, seed) == ('deep_sub_ensemble', 1., 0):
        score, status = None, 'failed'
      row = make_row(
          score, agent_id, seed, dim, noise_std=noise_std, status=status,
          num_enn_samples=draws, kl_floor=math.inf if kl >= 1e5 else 0.175,
          num_params=None if kl == 0 else 100 * dim)
      expected += expect([row])
      if not ((agent_id, dim) == ('hypermodel', 100)
              or agent_id == 'never_started'):
        rows.append(row)
  return rows, expected


# Means and errors.


def test_paired_mean_and_error_by_hand():
  # Per-seed means over the two cells: (1+5)/2, (2+6)/2, (6+10)/2 = 3, 4, 8;
  # mean 5, std sqrt((4+1+9)/2) = sqrt(7), standard error sqrt(7/3).
  mean = leaderboard.mean_over_cells({
      (10, 1., 0.1): {0: 1., 1: 2., 2: 6.},
      (10, 1., 1.): {0: 5., 1: 6., 2: 10.}})
  assert mean.mean == 5.
  assert mean.method == 'paired_seeds'
  assert mean.standard_error == pytest.approx(1.5275252316519468, rel=1e-14)
  # Student's t with 2 degrees of freedom, 97.5 %: 4.302652729696142 (tables).
  assert mean.low == pytest.approx(5 - 4.302652729696142 * 1.5275252316519468)
  assert mean.high == pytest.approx(5 + 4.302652729696142 * 1.5275252316519468)


def test_seeds_are_paired_and_not_pooled():
  # Perfectly opposed cells: their mean does not move with the seed.
  mean = leaderboard.mean_over_cells({
      (10, 1., 0.1): {0: 1., 1: 3.}, (10, 1., 1.): {0: 3., 1: 1.}})
  assert (mean.mean, mean.standard_error) == (2., 0.)
  assert (mean.low, mean.high) == (2., 2.)


def test_independent_mean_and_error_by_hand():
  # Cell a: 1, 3: mean 2, se² = 2/2 = 1. Cell b: 2, 4, 6: mean 4, se² = 4/3.
  # Together: mean 3, se = sqrt(7/3)/2; degrees of freedom
  # (7/3)² / (1²/1 + (4/3)²/2) = (49/9) / (17/9) = 49/17.
  mean = leaderboard.mean_over_cells({
      (10, 1., 0.1): {0: 1., 1: 3.}, (10, 1., 1.): {0: 2., 1: 4., 2: 6.}})
  assert mean.mean == 3.
  assert mean.method == 'independent_cells'
  assert mean.standard_error == pytest.approx(math.sqrt(7 / 3) / 2, rel=1e-14)
  low, high = stats.t.interval(0.95, 49 / 17, 3., math.sqrt(7 / 3) / 2)
  assert (mean.low, mean.high) == (pytest.approx(low), pytest.approx(high))


def test_independent_interval_of_two_cells_is_welch():
  rng = np.random.default_rng(1)
  a, b = rng.normal(size=5), rng.normal(size=8)
  mean = leaderboard.mean_over_cells({
      (10, 1., 0.1): dict(enumerate(a)), (10, 1., 1.): dict(enumerate(b))})
  # The mean of a and b is half the difference of a and -b.
  interval = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)
  assert mean.low == pytest.approx(interval.low / 2)
  assert mean.high == pytest.approx(interval.high / 2)


def test_one_cell_is_scipys_sem_and_t_interval():
  values = np.random.default_rng(0).lognormal(size=10)
  mean = leaderboard.mean_over_cells({(10, 1., 0.1): dict(enumerate(values))})
  assert mean.mean == pytest.approx(np.mean(values), rel=1e-15)
  assert mean.standard_error == pytest.approx(stats.sem(values), rel=1e-14)
  interval = stats.ttest_1samp(values, 0.).confidence_interval(0.95)
  assert (mean.low, mean.high) == (pytest.approx(interval.low),
                                   pytest.approx(interval.high))


def test_interval_covers_the_mean_in_95_percent_of_samples():
  rng = np.random.default_rng(0)
  hits = 0
  for draw in rng.normal(size=(2000, 3, 5)) + rng.normal(size=(2000, 1, 5)):
    mean = leaderboard.mean_over_cells({
        (10, 1., float(c)): dict(enumerate(x)) for c, x in enumerate(draw)})
    hits += mean.low <= 0. <= mean.high
  # Three binomial standard deviations.
  assert abs(hits / 2000 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 2000)


def test_a_cell_counts_once_however_many_seeds_it_has():
  mean = leaderboard.mean_over_cells({
      (10, 1., 0.1): dict.fromkeys(range(8), 1.0),
      (10, 1., 1.): {
          0: 3.,
          1: 3.
      }
  })
  assert mean.mean == 2.


def test_one_seed_has_no_error():
  assert leaderboard.mean_over_cells({(10, 1., 1.): {0: 2.}}) == (
      leaderboard.CellMean(2.))
  assert leaderboard.mean_over_cells({}) is None


def test_non_finite_scores_stay_in_the_mean():
  cell = (10, 1., 0.1)
  mean = leaderboard.mean_over_cells({cell: {0: 1., 1: math.inf}})
  assert mean.mean == math.inf and math.isnan(mean.standard_error)
  mean = leaderboard.mean_over_cells({cell: {0: math.nan, 1: math.inf}})
  assert math.isnan(mean.mean) and math.isnan(mean.high)


def test_geometric_mean_by_hand():
  # Cells: sqrt(1 * 100) = 10 and sqrt(10 * 1000) = 100; together sqrt(1000).
  geometric = leaderboard.geometric_mean_over_cells
  assert geometric({(10, 1., 0.1): {0: 1., 1: 100.},
                    (10, 1., 1.): {0: 10., 1: 1000.}}) == pytest.approx(
                        math.sqrt(1000.))
  values = np.random.default_rng(0).lognormal(size=7)
  assert geometric({(10, 1., 1.): dict(enumerate(values))}) == pytest.approx(
      stats.gmean(values))
  assert geometric({(10, 1., 1.): {0: 0., 1: 5.}}) == 0.
  assert math.isnan(geometric({(10, 1., 1.): {0: -1e-17, 1: 5.}}))
  assert geometric({}) is None


# Tables.


def test_leaderboard_line_by_hand():
  rows = make_rows(scores=((1., 2., 6.), (5., 6., 10.)))
  rows[0].update(num_params=10, kl_reverse=4., kl_floor=2., train_seconds=None)
  rows[1].update(num_params=30, train_seconds=2.)
  line = lines(leaderboard.make_tables(rows))['ensemble-K10']
  want = {
      'rank': 1, 'complete': True, 'agent': 'ensemble',
      'kl_estimate_mean': 5., 'kl_estimate_standard_error': math.sqrt(7 / 3),
      'standard_error_method': 'paired_seeds',
      'kl_estimate_geometric_mean': (12 * 300)**(1 / 6),
      'kl_estimate_finite_rows_mean': 5.,
      # ((4 + 0.25 + 0.25) / 3 + 0.25) / 2 and likewise (2.35 / 3 + 0.175) / 2.
      'kl_reverse_mean': 0.875, 'kl_floor_mean': 0.47916666666666663,
      'num_cells': 2, 'num_cells_expected': 2, 'num_expected': 6,
      'num_present': 6, 'num_ok': 6, 'num_failed': 0, 'num_diverged': 0,
      'num_non_finite': 0, 'num_outside': 0, 'reference': 'bayes',
      'kernel': 'relu2',
      'selection': 'none', 'num_params_min': 10, 'num_params_max': 1000,
      'train_seconds_mean': (2. + 4 * 0.5) / 5}
  for key, value in want.items():
    assert line[key] == (pytest.approx(value) if isinstance(value, float)
                         else value), key


def test_best_is_first_and_equal_means_share_a_rank():
  rows = (make_rows('c', ((3., 3.),)) + make_rows('a', ((2., 2.),))
          + make_rows('b', ((2., 2.),)) + make_rows('d', ((1., 1.),)))
  board = leaderboard.make_tables(rows).leaderboard
  assert list(zip(board['label'], board['rank'])) == [
      ('d', 1), ('a', 2), ('b', 2), ('c', 4)]


def test_missing_row_makes_incomplete_even_without_manifest():
  good = make_rows('good', ((9., 9.), (9., 9.)))
  other = make_rows('other', ((8., 8.), (8., 8.)))
  partial = make_rows('partial', ((1., 1.),))
  board = leaderboard.make_tables(good + other + partial).leaderboard
  assert list(board['label']) == ['other', 'good', 'partial']
  assert list(board['rank']) == [1, 2, None]
  line = board.iloc[2]
  assert not line['complete']
  assert (line['num_cells'], line['num_cells_expected']) == (1, 2)
  assert (line['num_present'], line['num_expected']) == (2, 4)
  assert line['kl_estimate_mean'] == 1.


def test_manifest_tells_what_nobody_has_and_who_never_started():
  rows = make_rows('a', ((1., 1., 1.),))
  table = lines(leaderboard.make_tables(
      rows, expect(rows + make_rows('b', ((1., 1., 1.),)))))
  assert table['a']['rank'] == 1
  assert (table['b']['rank'], table['b']['complete']) == (None, False)
  assert (table['b']['num_present'], table['b']['num_expected']) == (0, 3)
  assert table['b']['kl_estimate_mean'] is None
  table = lines(leaderboard.make_tables(rows[:2], expect(rows)))
  assert (table['a']['rank'], table['a']['num_expected']) == (None, 3)


def test_failed_rows_make_incomplete_and_are_no_scores():
  line = lines(leaderboard.make_tables(
      make_rows('a', ((1., None, 3.),)) + make_rows('b', ((9., 9., 9.),))))['a']
  assert (line['rank'], line['complete']) == (None, False)
  assert (line['num_present'], line['num_ok'], line['num_failed']) == (3, 2, 1)
  assert line['kl_estimate_mean'] == 2.


def test_agent_that_only_failed_has_no_mean():
  line = lines(leaderboard.make_tables(make_rows('a', ((None, None),))))['a']
  assert line['kl_estimate_mean'] is None
  assert line['kl_estimate_geometric_mean'] is None
  assert line['num_failed'] == 2


@pytest.mark.parametrize('bad', [math.inf, math.nan])
def test_diverged_rows_are_complete_unranked_and_not_finite(bad):
  tables = leaderboard.make_tables(
      make_rows('a', ((1., bad, 3.),)) + make_rows('b', ((9., 9., 9.),)))
  line = lines(tables)['a']
  assert list(tables.leaderboard['label']) == ['b', 'a']
  assert (line['complete'], line['rank']) == (True, None)
  assert results.same_value(line['kl_estimate_mean'], bad)
  assert line['kl_estimate_finite_rows_mean'] == 2.
  assert (line['num_diverged'], line['num_non_finite']) == (1, 1)
  [cell] = [c for _, c in tables.cells.iterrows() if c['label'] == 'a']
  assert results.same_value(cell['kl_estimate_mean'], bad)
  assert cell['num_non_finite'] == 1


def test_one_agent_on_more_problems_neither_gains_nor_harms():
  common = [make_rows(name, ((2., 2.),)) for name in ('a', 'b', 'c')]
  extra = [make_row(100., 'a', seed, 1000) for seed in (0, 1)]
  tables = leaderboard.make_tables(sum(common, extra))
  table = lines(tables)
  assert [table[name]['rank'] for name in 'abc'] == [1, 1, 1]
  assert table['a']['kl_estimate_mean'] == 2.
  assert table['a']['num_outside'] == 2
  assert 'not in these means' in leaderboard.format_table(tables)
  cells = tables.cells[tables.cells['label'] == 'a']
  assert list(cells['in_ranking']) == [True, False]
  assert list(cells['kl_estimate_mean']) == [2., 100.]


def test_agents_without_a_common_problem_are_all_incomplete():
  tables = leaderboard.make_tables(
      [make_row(1., 'a', 0, 10), make_row(1., 'b', 0, 100)])
  assert list(tables.leaderboard['rank']) == [None, None]
  assert list(tables.leaderboard['num_expected']) == [2, 2]


@pytest.mark.parametrize('fields', [
    {'reference': 'enn2021'}, {'kernel': 'erf3'}, {'selection': 'oracle'},
    {'selection': 'val_nll'},
    {'enumerate_indices': False, 'num_enn_samples': 100}])
def test_protocols_never_share_a_ranking(fields):
  rows = (make_rows('a', ((1., 1.),)) + make_rows('b', ((2., 2.),), **fields)
          + make_rows('a', ((3., 3.),), **fields))
  tables = leaderboard.make_tables(rows)
  rankings = tables.leaderboard.groupby('ranking', sort=False)
  assert rankings.ngroups == 2
  assert [list(zip(board['label'], board['rank'], board['kl_estimate_mean']))
          for _, board in rankings] == [
              [('a', 1, 1.)], [('b', 1, 2.), ('a', 2, 3.)]]
  for label, _ in rankings:
    assert label[1:] in leaderboard.format_table(tables)
    assert label[1:] in html_page.make_page(tables, b'')


def test_enumerated_rows_stand_with_each_number_of_draws():
  rows = (make_rows('ensemble', ((2.,),)) + make_rows(
      'bbb', ((1.,),), num_enn_samples=1000) + make_rows(
          'bbb', ((3.,),), num_enn_samples=100))
  tables = leaderboard.make_tables(rows)
  got = [(label, list(zip(board['label'], board['rank']))) for label, board
         in tables.leaderboard.groupby('ranking', sort=False)]
  assert [board for _, board in got] == [
      [('ensemble', 1), ('bbb', 2)], [('bbb', 1), ('ensemble', 2)]]
  assert '100 draws' in got[0][0] and '1000 draws' in got[1][0]


def test_manifest_asks_for_draws_that_enumerated_rows_do_not_have():
  rows = make_rows('ensemble', ((2.,),))
  expected = [{**row, 'num_enn_samples': 1000} for row in expect(rows)]
  [line] = lines(leaderboard.make_tables(rows, expected)).values()
  assert (line['rank'], line['num_expected']) == (1, 1)


def test_precisions_are_two_lines():
  table = lines(leaderboard.make_tables(
      make_rows('a', ((1.,),)) + make_rows('a', ((2.,),), dtype='float64',
                                           row_id='other')))
  assert set(table) == {'a (float32)', 'a (float64)'}


def test_contradicting_rows_are_refused():
  rows = make_rows('a', ((1.,),))
  with pytest.raises(ValueError, match='row-x.*kl_estimate.*differ in a set'):
    leaderboard.make_tables(rows + make_rows('a', ((2.,),), row_id='row-x'))
  again = make_rows('a', ((1.,),), row_id='row-x')
  assert len(leaderboard.make_tables(rows + again).scores) == 1
  with pytest.raises(ValueError, match='agent_id a is the name of two agent'):
    leaderboard.make_tables(rows + [make_row(1., 'a', 5, agent_config={})])
  with pytest.raises(ValueError, match='there are no rows'):
    leaderboard.make_tables([])


def test_cells_table_by_hand():
  cells = leaderboard.make_tables(
      make_rows(scores=((1., 2., 6.), (5.,)), kl_floor=0.5)).cells
  first, second = (line for _, line in cells.iterrows())
  assert (first['input_dim'], first['data_ratio'], first['noise_std']) == (
      10, 1., 0.01)
  assert first['kl_estimate_mean'] == 3.
  assert first['kl_estimate_standard_error'] == pytest.approx(
      stats.sem([1., 2., 6.]))
  assert (first['num_seeds'], first['num_seeds_expected']) == (3, 3)
  assert first['kl_floor_mean'] == 0.5
  assert second['kl_estimate_standard_error'] is None


# Files.


def test_scores_csv_gives_the_rows_back():
  rows = [
      make_row(0.1 + 0.2, seed=0, agent_config={
          'a': {'b': 1e-6}, 'sizes': [50, 50], 'name': 'x,"y"\nz',
          'nothing': None}),
      make_row(math.inf, 'map', 1, kl_reverse=math.nan, status='diverged'),
      make_row(None, 'map', 2, kl_floor=None)]
  text = leaderboard.csv_text(leaderboard.make_tables(rows).scores)
  [first, second, third] = csv.DictReader(io.StringIO(text))
  assert float(first['kl_estimate']) == 0.1 + 0.2
  assert float(first['agent.a.b']) == 1e-6
  assert first['agent.sizes'] == '[50, 50]'
  assert first['agent.name'] == 'x,"y"\nz'
  assert first['agent.nothing'] == ''
  assert first['versions.jax'] == '0.10.2'
  assert (second['kl_estimate'], second['kl_reverse']) == ('inf', 'nan')
  assert (third['kl_estimate'], third['status']) == ('', 'failed')
  frame = pd.read_csv(io.StringIO(text))
  # Dicts are flattened; the path has a length of its own in every row.
  assert set(frame) - {'path'} == set(frame)
  assert (set(results.ROW_SCHEMA) - {'agent_config', 'versions', 'path'}
          <= set(frame))


def test_scores_hold_every_row_as_it_is():
  rows, expected = realistic_rows()
  scores = leaderboard.make_tables(rows, expected).scores
  assert len(scores) == len(rows)
  stored = {row['row_id']: row for row in rows}
  for _, line in scores.iterrows():
    for field in results.SCORE_FIELDS:
      assert results.same_value(line[field], stored[line['row_id']][field])


def test_report_does_not_depend_on_the_order_of_rows(tmp_path):
  rows, expected = realistic_rows()
  written = []
  for i in range(2):
    paths = html_page.write_report(
        leaderboard.make_tables(rows, expected), tmp_path / str(i))
    written.append({name: path.read_bytes() for name, path in paths.items()})
    random.Random(i).shuffle(rows)
    random.Random(i).shuffle(expected)
  assert set(written[0]) == {'leaderboard.html', 'leaderboard.png',
                             'leaderboard.csv', 'cells.csv', 'scores.csv'}
  for name, content in written[0].items():
    assert content == written[1][name], name


def test_means_do_not_change_with_the_timing_fields():
  rows, expected = realistic_rows()
  slow = [{**row, 'train_seconds': 9., 'device': 'gpu', 'created': 'later',
           'versions': {}} for row in rows]
  first, second = (leaderboard.make_tables(r, expected) for r in (rows, slow))
  drop = ['train_seconds_mean']
  assert leaderboard.csv_text(first.leaderboard.drop(columns=drop)) == (
      leaderboard.csv_text(second.leaderboard.drop(columns=drop)))
  assert leaderboard.csv_text(first.cells) == leaderboard.csv_text(second.cells)
  assert html_page.make_picture(first) == html_page.make_picture(second)


def _chunks(content):
  """(kind, data) of the chunks of a PNG file."""
  assert content[:8] == b'\x89PNG\r\n\x1a\n'
  place, chunks = 8, []
  while place < len(content):
    size = int.from_bytes(content[place:place + 4], 'big')
    kind = content[place + 4:place + 8]
    data = content[place + 8:place + 8 + size]
    assert zlib.crc32(kind + data) == int.from_bytes(
        content[place + 8 + size:place + 12 + size], 'big')
    chunks.append((kind, data))
    place += 12 + size
  return chunks


def test_picture_has_no_text_metadata_and_grows_with_the_agents():
  rows, expected = realistic_rows()
  content = html_page.make_picture(leaderboard.make_tables(rows, expected))
  kinds = {kind for kind, _ in _chunks(content)}
  assert b'IDAT' in kinds and not {b'tEXt', b'iTXt', b'tIME'} & kinds
  small = image.imread(io.BytesIO(content))
  many = [row for i in range(60)
          for row in make_rows(f'agent-{i}', ((1., 2.),))]
  large = image.imread(io.BytesIO(
      html_page.make_picture(leaderboard.make_tables(many))))
  assert large.shape[0] - small.shape[0] == pytest.approx(46 * 0.3 * 150, abs=2)


@pytest.mark.parametrize('scores', [
    (0., 0.), (1e-9, 0.), (1e-300, 1e300), (math.inf, math.inf),
    (math.nan, 1.), (-1e-17, 0.), (None, None), (5., 5.)])
def test_picture_and_page_take_any_score(scores):
  tables = leaderboard.make_tables(
      make_rows('a', (scores,), kl_floor=math.inf))
  content = html_page.make_picture(tables)
  pixels = image.imread(io.BytesIO(content))
  # A broken axis leaves an empty or huge picture.
  assert pixels.shape[0] < 400 and pixels[..., :3].min() < 0.3
  assert 'a' in html_page.make_page(tables, content)
  assert leaderboard.format_table(tables).count('\n') == 3


class _Checker(html.parser.HTMLParser):
  """Collects the elements and fails where tags are not closed in order."""

  VOID = ('meta', 'img', 'br', 'link')

  def __init__(self):
    super().__init__()
    self.open, self.elements, self.text = [], [], []

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open and self.open.pop() == tag, tag

  def handle_data(self, data):
    self.text.append(data)


def parse(page):
  checker = _Checker()
  checker.feed(page)
  checker.close()
  assert not checker.open
  return checker


def test_page_is_well_formed_self_contained_and_accessible():
  rows, expected = realistic_rows()
  tables = leaderboard.make_tables(rows, expected)
  picture = html_page.make_picture(tables)
  checker = parse(html_page.make_page(tables, picture))
  tags = [tag for tag, _ in checker.elements]
  assert tags[0] == 'html' and checker.elements[0][1] == {'lang': 'en'}
  # 14 agents in two tables, their headers, and the table of versions.
  assert tags.count('table') == 3
  for tag, attributes in checker.elements:
    if tag == 'th':
      assert attributes['scope'] in ('col', 'row')
    for key in ('src', 'href', 'action'):
      assert attributes.get(key, 'data:').startswith('data:')
    if tag == 'img':
      assert len(attributes['alt']) > 20
    assert not any(key.startswith('on') for key in attributes)
  page = html_page.make_page(tables, picture)
  assert not re.search(r'https?://|@import|url\(', page)
  assert 'aria-sort' in page and 'prefers-color-scheme: dark' in page
  text = ' '.join(checker.text)
  for part in ('hypermodel', 'incomplete: 9 of 18 problems, 3 of 6 cells',
               'deep_sub_ensemble', '2 failed', '1 diverged; 1 not finite',
               'never_started', 'incomplete: 0 of 18 problems, 0 of 6 cells',
               'KL(N_nngp || N_agent)', '0.10.2'):
    assert part in text, part


def test_page_says_when_nothing_is_missing():
  page = html_page.make_page(
      leaderboard.make_tables(make_rows('a', ((1., 2.),))), b'')
  assert 'class="attention"' not in page
  assert 'finite score for every problem' in page


def test_page_escapes_everything():
  evil = '<script>alert("&\')</script>'
  rows = make_rows(evil, ((1., None),), agent_config={evil: evil}, agent=evil,
                   device=evil, versions={evil: evil})
  tables = leaderboard.make_tables(rows)
  page = html_page.make_page(tables, html_page.make_picture(tables))
  checker = parse(page)
  assert [tag for tag, _ in checker.elements].count('script') == 1
  assert evil not in page
  assert evil in ' '.join(checker.text)


def test_page_says_what_agents_are_scored_on():
  rows = (make_rows('a', ((1.,),), num_samples_used=30)
          + make_rows('b', ((1.,),), num_samples_used=None)
          + make_rows('c', ((1.,),), num_samples_used=1000,
                      num_enn_samples=1000))
  text = parse(html_page.make_page(leaderboard.make_tables(rows), b'')).text
  for part in ('all 30', 'exact moments', '1,000 draws'):
    assert part in text


def test_exact_values_are_in_the_page():
  tables = leaderboard.make_tables(make_rows('a', ((0.1, 0.1 + 0.2),)))
  mean = tables.leaderboard['kl_estimate_mean'][0]
  values = [attributes.get('data-value')
            for _, attributes in parse(html_page.make_page(
                tables, b'')).elements]
  assert repr(mean) in values


@pytest.mark.parametrize('value, text', [
    (None, '-'), (math.inf, 'inf'), (math.nan, 'nan'), (0., '0'), (-0., '0'),
    (0.123456, '0.123'), (1.5, '1.50'), (12.345, '12.3'), (9999., '9999'),
    (190000., '1.90e+05'), (1e-9, '1.00e-09'), (-0.5, '-0.500'),
    (0.0001, '0.000100'), (1000., '1000')])
def test_short_number(value, text):
  assert leaderboard.short_number(value) == text


def test_text_table_lines_up():
  rows, expected = realistic_rows()
  text = leaderboard.format_table(leaderboard.make_tables(rows, expected))
  head, rule, *body = text.split('\n')[1:]
  assert len(body) == 14
  starts = [match.start() for match in re.finditer('-+', rule)]
  assert head[starts[1]:].startswith('agent')
  for line in body:
    assert all(line[start - 1] == ' ' for start in starts[1:] if
               start < len(line))


def test_markdown_table_has_the_same_cells_in_every_line():
  rows = make_rows('a|b', ((1., 2.),)) + make_rows('c', ((1., math.inf),))
  text = leaderboard.format_table(leaderboard.make_tables(rows), 'markdown')
  table = [line for line in text.split('\n') if line.startswith('|')]
  assert len(table) == 4
  assert len({len(re.split(r'(?<!\\)\|', line)) for line in table}) == 1
  with pytest.raises(ValueError, match="'text' or 'markdown', got 'latex'"):
    leaderboard.format_table(leaderboard.make_tables(rows), 'latex')


# From folder to report.


def _fill(folder, rows, entries=()):
  store = results.open_store(folder, create=True)
  for run_id in {row['run_id'] for row in rows}:
    store.write_unit(run_id, [r for r in rows if r['run_id'] == run_id])
  if entries:
    store.write_manifest(entries)
  return folder


def test_build_reads_several_folders(tmp_path):
  one = _fill(tmp_path / 'one', make_rows('a', ((1., 2.),)))
  two = _fill(tmp_path / 'two', make_rows('b', ((3., 4.),)),
              [make_entry('b', noise_stds=[0.01], seeds=[0, 1, 2])])
  tables, paths = html_page.build([one, two], tmp_path / 'x' / 'out')
  assert {line['label']: line['num_expected'] for line in lines(
      tables).values()} == {'a': 2, 'b': 2}
  assert all(path.stat().st_size for path in paths.values())
  tables, _ = html_page.build(str(two), tmp_path / 'out')
  assert lines(tables)['b']['num_expected'] == 3


def test_folder_without_rows_is_refused(tmp_path):
  empty = results.open_store(tmp_path / 'empty', create=True)
  empty.write_manifest([make_entry()])
  with pytest.raises(ValueError, match='empty holds no rows yet: run the sw'):
    html_page.build(empty.results_dir, tmp_path / 'out')
  with pytest.raises(ValueError, match="none' does not exist"):
    html_page.build(tmp_path / 'none', tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def _command(*flags):
  return subprocess.run(
      [sys.executable, '-m', 'experiments.build_leaderboard', *flags],
      cwd=pathlib.Path(leaderboard.__file__).parents[1], check=False,
      capture_output=True, text=True)


def test_command_prints_the_table_and_the_files(tmp_path):
  folder = _fill(tmp_path / 'results', make_rows('a', ((1., 2.),)))
  done = _command(f'--results_dir={folder}', f'--output_dir={tmp_path}/out')
  assert (done.returncode, done.stderr) == (0, '')
  assert 'a ' in done.stdout and '1.50' in done.stdout
  for name in ('scores.csv', 'leaderboard.html'):
    assert f'{tmp_path}/out/{name}' in done.stdout
    assert (tmp_path / 'out' / name).stat().st_size > 0


def test_command_errors_are_one_line(tmp_path):
  out = f'--output_dir={tmp_path}/out'
  damaged = _fill(tmp_path / 'damaged', make_rows('a', ((1., 2.),)))
  unit = next((damaged / 'units').iterdir())
  unit.write_text(unit.read_text()[:100])
  (tmp_path / 'file').write_text('')
  good = _fill(tmp_path / 'good', make_rows('a', ((1., 2.),)))
  for flags, message in (
      ([f'--results_dir={damaged}', out], f'{unit} is damaged'),
      ([f'--results_dir={good}', f'--output_dir={tmp_path}/file'],
       'output_dir'),
      ([f'--results_dir={good}', out, 'extra'], "unknown argument 'extra'")):
    done = _command(*flags)
    assert done.returncode == 2
    assert done.stdout == ''
    assert message in done.stderr
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_command_keeps_the_traceback_where_it_is_asked_for(tmp_path):
  done = _command(f'--results_dir={tmp_path}/none', f'--output_dir={tmp_path}',
                  '--verbosity=1')
  assert done.returncode != 0
  assert 'Traceback' in done.stderr
