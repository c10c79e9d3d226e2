"""Leaderboards are ranked by the headline, a share of the baseline per cell."""

import math

import example_rows
import numpy as np
import pytest

from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text

make_row = example_rows.make_row
make_rows = example_rows.make_rows
lines = example_rows.lines_by_label


def test_best_is_first_and_equal_means_share_a_rank():
  rows = (make_rows('c', ((3., 3.),)) + make_rows('a', ((2., 2.),))
          + make_rows('b', ((2., 2.),)) + make_rows('d', ((1., 1.),)))
  board = tables_lib.make_tables(rows).leaderboard
  assert list(zip(board['label'], board['rank'])) == [
      ('d', 1), ('a', 2), ('b', 2), ('c', 4)]


def test_headline_by_hand():
  rows = (make_rows('prior_only', ((4., 4.), (5., 15.)), kl_floor=0.)
          + make_rows('a', ((1., 3.), (20., 40.)), kl_floor=1.))
  line = lines(tables_lib.make_tables(rows))['a']
  # Cells: 2 / 4 and 30 / 10; floors: 1 / 4 and 1 / 10.
  assert line['kl_estimate_relative'] == pytest.approx(math.sqrt(1.5))
  assert line['kl_floor_relative'] == pytest.approx(math.sqrt(0.025))
  assert line['kl_estimate_mean'] == 16.
  assert line['kl_estimate_excess'] == 15.
  assert line['kl_estimate_relative[noise_std=0.01]'] == pytest.approx(0.5)
  assert line['kl_estimate_relative[noise_std=0.1]'] == pytest.approx(3.)
  assert line['kl_estimate_mean[noise_std=0.1]'] == 30.
  assert line['baseline'] == 'prior_only'
  assert lines(tables_lib.make_tables(rows))['prior_only'][
      'kl_estimate_relative'] == 1.


def test_ranked_by_the_headline_and_not_by_the_mean():
  # b is far better in the small cell and a little worse in the large one.
  rows = (make_rows('prior_only', ((1., 1.), (100., 100.)))
          + make_rows('a', ((1., 1.), (50., 50.)))
          + make_rows('b', ((0.1, 0.1), (60., 60.))))
  board = tables_lib.make_tables(rows).leaderboard
  assert board['label'].tolist() == ['b', 'a', 'prior_only']
  assert board['kl_estimate_mean'].tolist() == [30.05, 25.5, 50.5]
  # Without the baseline ranks are the same; there is no share to show.
  board = tables_lib.make_tables(rows[4:]).leaderboard
  assert list(zip(board['label'], board['rank'])) == [('b', 1), ('a', 2)]
  assert set(board['kl_estimate_relative']) == {None}


def test_an_exact_zero_ranks_first_and_prints_zero():
  rows = (make_rows('prior_only', ((1., 1.), (1., 1.)))
          + make_rows('exact', ((0., 0.), (0., 0.)), kl_floor=0.))
  tables = tables_lib.make_tables(rows)
  assert tables.leaderboard['label'].tolist() == ['exact', 'prior_only']
  assert tables.leaderboard['kl_estimate_relative'].tolist() == [0., 1.]
  row = next(line for line in text.format_table(tables).split('\n')
             if 'exact' in line)
  assert row.split()[:4] == ['1', '(1)', 'exact', '0']


def test_infinite_floor_and_diverged_cells_leave_without_rank():
  rows = (make_rows('a', ((5., 5.),)) + make_rows('map', ((1., 1.),),
                                                  kl_floor=math.inf))
  rows += make_rows('b', ((2., 2.),))
  rows[-1].update(status='diverged', message='gradient is inf')
  table = lines(tables_lib.make_tables(rows))
  assert (table['map']['rank'], table['map']['unranked_because']) == (
      None, 'floor is infinite')
  assert (table['b']['rank'], table['b']['unranked_because']) == (
      None, 'diverged')
  assert table['a']['rank'] == 1
  # By a score that has no floor, map is ranked.
  table = lines(tables_lib.make_tables(rows[:4], score='mean_rmse'))
  assert table['map']['rank'] == 1


def test_rank_intervals_and_who_is_not_told_apart():
  rng = np.random.default_rng(0)
  rows = []
  for name, level in (('a', 1.), ('b', 1.), ('c', 50.)):
    scores = level * np.exp(0.3 * rng.normal(size=(3, 8)))
    rows += make_rows(name, scores.tolist())
  tables = tables_lib.make_tables(rows)
  first, second, third = tables.leaderboard.to_dict('records')
  assert [first['rank_low'], first['rank_high']] == [1, 2]
  assert [second['rank_low'], second['rank_high']] == [1, 2]
  assert first['not_told_apart_from'] == '2'
  assert second['not_told_apart_from'] == '1'
  assert [third['rank_low'], third['rank_high']] == [3, 3]
  assert third['not_told_apart_from'] == ''
  assert third['rank_high_random_cells'] == 3
  # One seed tells nothing.
  one = [row for row in rows if row['problem']['seed'] == 0]
  board = tables_lib.make_tables(one).leaderboard
  assert set(board['rank_low']) == set(board['not_told_apart_from']) == {None}


def test_score_by_and_baseline_are_arguments():
  rows = (make_rows('a', ((1., 1.),), kl_reverse=3.)
          + make_rows('b', ((2., 2.),), kl_reverse=1.))
  board = tables_lib.make_tables(rows, score='kl_reverse',
                                 baseline='a').leaderboard
  assert board['label'].tolist() == ['b', 'a']
  assert board['kl_reverse_relative'].tolist() == [pytest.approx(1 / 3), 1.]
  assert board['kl_estimate_mean'].tolist() == [2., 1.]
  rows += [make_row(1., 'a', seed, 100) for seed in (0, 1)]
  rows += [make_row(1., 'b', seed, 100) for seed in (0, 1)]
  board = tables_lib.make_tables(rows, by='input_dim').leaderboard
  assert board['kl_estimate_mean[input_dim=10]'].tolist() == [1., 2.]
  for options, message in (
      (dict(score='beauty'), 'score must be one of kl_estimate, '),
      (dict(score='std_ratio'), "'std_ratio' is neither"),
      (dict(by='colour'), 'by must be one of data_ratio, input_dim, noise_std'),
  ):
    with pytest.raises(ValueError, match=message):
      tables_lib.make_tables(rows, **options)


def test_a_baseline_that_is_not_there_is_named():
  with pytest.raises(ValueError, match=r"one of ensemble; got 'enssemble'"):
    tables_lib.make_tables([make_row(1.)], baseline='enssemble')
