"""Tables of a report are those made by hand, and count what is missing."""

import math

import example_rows
import pandas as pd
import pytest
from scipy import stats

from enn_ensembles import results
from enn_ensembles.report import columns
from enn_ensembles.report import csv_files
from enn_ensembles.report import html_page
from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text
from enn_ensembles.results import conversion
from enn_ensembles.scoring import table

make_row = example_rows.make_row
make_rows = example_rows.make_rows
expect = example_rows.expect
lines = example_rows.lines_by_label


def test_leaderboard_line_by_hand():
  rows = make_rows(scores=((1., 2., 6.), (5., 6., 10.)))
  rows[0].update(num_params=10, train_seconds=None)
  rows[0]['scores'].update(kl_reverse=4., kl_floor=2.)
  rows[1].update(num_params=30, train_seconds=2., cost={
      'peak_memory_mb': 500., 'predict_seconds_per_1000': 0.1})
  rows[2].update(cost={'peak_memory_mb': 300.})
  line = lines(tables_lib.make_tables(rows))['ensemble-K10']
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
      'train_seconds_mean': (2. + 4 * 0.5) / 5,
      'predict_seconds_per_1000_mean': 0.1,
      'peak_memory_mb_max': 500.}
  for key, value in want.items():
    assert line[key] == (pytest.approx(value) if isinstance(value, float)
                         else value), key


def test_missing_row_makes_incomplete_even_without_manifest():
  good = make_rows('good', ((9., 9.), (9., 9.)))
  other = make_rows('other', ((8., 8.), (8., 8.)))
  partial = make_rows('partial', ((1., 1.),))
  board = tables_lib.make_tables(good + other + partial).leaderboard
  assert list(board['label']) == ['other', 'good', 'partial']
  assert list(board['rank']) == [1, 2, None]
  line = board.iloc[2]
  assert not line['complete']
  assert (line['num_cells'], line['num_cells_expected']) == (1, 2)
  assert (line['num_present'], line['num_expected']) == (2, 4)
  assert line['kl_estimate_mean'] == 1.


def test_manifest_tells_what_nobody_has_and_who_never_started():
  rows = make_rows('a', ((1., 1., 1.),))
  table = lines(tables_lib.make_tables(
      rows, expect(rows + make_rows('b', ((1., 1., 1.),)))))
  assert table['a']['rank'] == 1
  assert (table['b']['rank'], table['b']['complete']) == (None, False)
  assert (table['b']['num_present'], table['b']['num_expected']) == (0, 3)
  assert table['b']['kl_estimate_mean'] is None
  table = lines(tables_lib.make_tables(rows[:2], expect(rows)))
  assert (table['a']['rank'], table['a']['num_expected']) == (None, 3)


def test_failed_rows_make_incomplete_and_are_no_scores():
  line = lines(tables_lib.make_tables(
      make_rows('a', ((1., None, 3.),)) + make_rows('b', ((9., 9., 9.),))))['a']
  assert (line['rank'], line['complete']) == (None, False)
  assert (line['num_present'], line['num_ok'], line['num_failed']) == (3, 2, 1)
  assert line['kl_estimate_mean'] == 2.


def test_agent_that_only_failed_has_no_mean():
  line = lines(tables_lib.make_tables(make_rows('a', ((None, None),))))['a']
  assert line['kl_estimate_mean'] is None
  assert line['kl_estimate_geometric_mean'] is None
  assert line['num_failed'] == 2


@pytest.mark.parametrize('bad', [math.inf, math.nan])
def test_diverged_rows_are_complete_unranked_and_not_finite(bad):
  tables = tables_lib.make_tables(
      make_rows('a', ((1., bad, 3.),)) + make_rows('b', ((9., 9., 9.),)))
  line = lines(tables)['a']
  assert list(tables.leaderboard['label']) == ['b', 'a']
  assert (line['complete'], line['rank']) == (True, None)
  assert results.same_value(line['kl_estimate_mean'], bad)
  assert line['kl_estimate_finite_rows_mean'] == 2.
  assert (line['num_diverged'], line['num_non_finite']) == (1, 1)
  [cell] = [c for c in tables.cells.to_dict('records') if c['label'] == 'a']
  assert results.same_value(cell['kl_estimate_mean'], bad)
  assert cell['num_non_finite'] == 1


def test_one_agent_on_more_problems_neither_gains_nor_harms():
  common = [make_rows(name, ((2., 2.),)) for name in ('a', 'b', 'c')]
  extra = [make_row(100., 'a', seed, 1000) for seed in (0, 1)]
  tables = tables_lib.make_tables(sum(common, extra))
  table = lines(tables)
  assert [table[name]['rank'] for name in 'abc'] == [1, 1, 1]
  assert table['a']['kl_estimate_mean'] == 2.
  assert table['a']['num_outside'] == 2
  assert 'not in these means' in text.format_table(tables)
  cells = tables.cells[tables.cells['label'] == 'a']
  assert list(cells['in_ranking']) == [True, False]
  assert list(cells['kl_estimate_mean']) == [2., 100.]


def test_agents_without_a_common_problem_are_all_incomplete():
  tables = tables_lib.make_tables(
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
  tables = tables_lib.make_tables(rows)
  rankings = tables.leaderboard.groupby('ranking', sort=False)
  assert rankings.ngroups == 2
  assert [list(zip(board['label'], board['rank'], board['kl_estimate_mean']))
          for _, board in rankings] == [
              [('a', 1, 1.)], [('b', 1, 2.), ('a', 2, 3.)]]
  for label, _ in rankings:
    assert label[1:] in text.format_table(tables)
    assert label[1:] in html_page.make_page(tables, b'')


def test_rows_of_a_selection_that_reads_more_say_so():
  rows = (make_rows('a', ((1., 1.),)) + make_rows('b', ((1., 1.),))
          + make_rows('a', ((1., 1.),), selection='val_nll')
          + make_rows('b', ((1., 1.),), selection='val_nll')
          + make_rows('b', ((1., 1.),), selection='val_nll_budget'))
  tables = tables_lib.make_tables(rows)
  words = 'validation labels that no other agent learns from (1,000 on'
  for content in (text.format_table(tables),
                  html_page.make_page(tables, b'').split('</script>')[0]):
    plain, _, rest = content.partition('election val_nll;')
    privileged, _, budget = rest.partition('election val_nll_budget;')
    assert words not in plain + budget
    assert privileged.count(words) >= 2 and budget


def test_enumerated_rows_stand_with_each_number_of_draws():
  rows = (make_rows('ensemble', ((2.,),)) + make_rows(
      'bbb', ((1.,),), num_enn_samples=1000) + make_rows(
          'bbb', ((3.,),), num_enn_samples=100))
  tables = tables_lib.make_tables(rows)
  got = [(label, list(zip(board['label'], board['rank']))) for label, board
         in tables.leaderboard.groupby('ranking', sort=False)]
  assert [board for _, board in got] == [
      [('ensemble', 1), ('bbb', 2)], [('bbb', 1), ('ensemble', 2)]]
  assert '100 draws' in got[0][0] and '1000 draws' in got[1][0]


def test_manifest_asks_for_draws_that_enumerated_rows_do_not_have():
  rows = make_rows('ensemble', ((2.,),))
  expected = [{**row, 'num_enn_samples': 1000} for row in expect(rows)]
  [line] = lines(tables_lib.make_tables(rows, expected)).values()
  assert (line['rank'], line['num_expected']) == (1, 1)


def test_precisions_are_two_lines():
  table = lines(tables_lib.make_tables(
      make_rows('a', ((1.,),)) + make_rows('a', ((2.,),), dtype='float64',
                                           row_id='other')))
  assert set(table) == {'a (float32)', 'a (float64)'}


def test_contradicting_rows_are_refused():
  rows = make_rows('a', ((1.,),))
  with pytest.raises(ValueError, match='row-x.*kl_estimate.*differ in a set'):
    tables_lib.make_tables(rows + make_rows('a', ((2.,),), row_id='row-x'))
  again = make_rows('a', ((1.,),), row_id='row-x')
  assert lines(tables_lib.make_tables(rows + again))['a']['num_present'] == 1
  with pytest.raises(ValueError, match='id-of-a is the name of two agent'):
    tables_lib.make_tables(rows + [make_row(1., 'a', 5, agent_config={})])
  with pytest.raises(ValueError, match='there are no rows'):
    tables_lib.make_tables([])


def test_cells_table_by_hand():
  cells = tables_lib.make_tables(
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


def test_another_kind_of_problem_stands_beside(monkeypatch):
  monkeypatch.setitem(table.SCORES, 'nll', table.Score(
      ('classification',), 'lower', 'nats', 'NLL', 'of held-out labels',
      positive=False, required=True))
  images = [example_rows.make_image_row(nll, agent, seed, dataset)
            for agent, nll in (('a', -0.5), ('b', 0.25))
            for seed in (0, 1) for dataset in ('digits', 'wine')]
  tables = tables_lib.make_tables(images + make_rows('a', ((1., 2.),)))
  boards = [board for _, board in tables.leaderboard.groupby('ranking',
                                                             sort=False)]
  assert [board.iloc[0]['score'] for board in boards] == ['kl_estimate', 'nll']
  assert boards[1]['label'].tolist() == ['a', 'b']
  assert boards[1]['nll_mean'].tolist() == [-0.5, 0.25]
  assert boards[1]['nll_mean[dataset=digits]'].tolist() == [-0.5, 0.25]
  cells = tables.cells[tables.cells['score'] == 'nll']
  assert cells['dataset'].tolist() == ['digits', 'wine'] * 2
  page = html_page.make_page(tables, b'')
  assert 'Problems images; selection none' in page and 'wine' in page
  # A score of one kind leaves the problems of the other out.
  tables = tables_lib.make_tables(images + make_rows('a', ((1., 2.),)),
                                  score='nll')
  assert set(tables.leaderboard['kind']) == {'images'}


def test_one_setting_under_two_labels_is_one_line():
  rows = make_rows('ensemble', ((1., 2.),))
  rows[1]['agent_label'] = 'ensemble,num_ensemble=10'
  [line] = lines(tables_lib.make_tables(rows)).values()
  assert (line['label'], line['num_present']) == ('ensemble', 2)
  rows += make_rows('ensemble', ((3., 3.),), agent_id='ensemble-0123',
                    agent_config={})
  assert set(lines(tables_lib.make_tables(rows))) == {
      'ensemble [ensemble]', 'ensemble [0123]'}


def test_messages_of_what_is_not_ok_are_counted():
  rows = make_rows('a', ((None, None, 1.),)) + make_rows('b', ((math.inf,),))
  rows[-1]['message'] = 'kl_estimate is inf'
  errors = tables_lib.make_tables(rows).errors
  assert errors[['label', 'status', 'message', 'num_rows']].values.tolist() == [
      ['a', 'failed', 'it broke', 2],
      ['b', 'diverged', 'kl_estimate is inf', 1]]


def test_columns_hold_rows_that_several_files_have_once(tmp_path):
  store = results.open_store(tmp_path / 'one', create=True)
  rows = make_rows('a', ((1., None, 3.),))
  store.write_unit('first', [{**row, 'run_id': 'first'} for row in rows])
  again = [{**make_row(2., 'a', 1, noise_std=0.01), 'run_id': 'second',
            'agent_label': 'another label'},
           {**rows[2], 'run_id': 'second', 'device': 'gpu'}]
  store.write_unit('second', again)
  other = results.open_store(tmp_path / 'two', create=True)
  other.write_unit('third', [{**rows[0], 'run_id': 'third'}])
  folders = [tmp_path / 'one', tmp_path / 'two']
  read, _ = columns.read_columns(folders)
  want, _ = columns.read_results(folders)
  assert list(csv_files.rows_pieces(read)) == list(
      csv_files.rows_pieces(columns.collect(want)))
  assert len(read) == 3 and read.score('kl_estimate')[1].all()
  wrong = {**rows[0], 'run_id': 'fourth',
           'scores': {**rows[0]['scores'], 'kl_estimate': 7.}}
  other.write_unit('fourth', [wrong])
  with pytest.raises(ValueError, match='delete the file that is wrong'):
    columns.read_columns(folders)


def test_an_earlier_board_comes_out_of_its_scores():
  """Every number that an earlier report had, from the rows in scores.csv."""
  folder = example_rows.ROOT / 'tests/data/earlier_report'
  rows = conversion.rows_from_scores_csv(folder / 'scores.csv')
  tables = tables_lib.make_tables(rows)
  for file, made, keys in (
      ('leaderboard.csv', tables.leaderboard, ['label']),
      ('cells.csv', tables.cells,
       ['label', 'input_dim', 'data_ratio', 'noise_std'])):
    stored = pd.read_csv(folder / file).set_index(keys).sort_index()
    made = made.set_index(keys).sort_index().loc[stored.index]
    # Ranks were by the mean, rankings told draws from a manifest, and ids were
    # what labels are.
    compared = set(stored) - {'rank', 'ranking', 'agent_id'}
    assert compared <= set(made)
    for column in compared:
      for got, want in zip(made[column], stored[column]):
        if pd.isna(want):
          assert got is None, column
        elif isinstance(want, float):
          assert got == pytest.approx(want, rel=1e-12), column
        else:
          assert got == want, column
    if file == 'leaderboard.csv':
      by_mean = made['kl_estimate_mean'].astype(float).rank(method='min')
      assert by_mean.tolist() == stored['rank'].tolist()


@pytest.mark.parametrize('labels, short, shared', [
    (['a,k=1,n=2', 'b,n=2', 'c,m=3,n=2'], ['a,k=1', 'b', 'c,m=3'], ['n=2']),
    (['a,n=2', 'b'], ['a,n=2', 'b'], []),
    (['a,n=2'], ['a,n=2'], []),
    (['n=2,n=2', 'b,n=2'], ['n=2', 'b'], ['n=2'])])
def test_settings_that_all_agents_have_are_said_once(labels, short, shared):
  assert text.split_labels(labels) == (short, shared)
