"""What the rows of a board cost, against sums that are made row by row."""

import itertools
import random

from example_rows import make_row
import numpy as np
import pytest

from enn_ensembles.report import columns as columns_lib
from enn_ensembles.report import costs as costs_lib
from enn_ensembles.report import csv_files

SHARED = ('train_seconds', 'evaluate_seconds', 'problem_seconds')


def make_rows():
  """Units of two cells, three seeds and up to two selections, with holes."""
  generator, rows = np.random.default_rng(0), []
  for agent, dim, selections in itertools.product(
      ('ensemble-K10', 'map'), (10, 100), (('none',), ('none', 'oracle'))):
    run_id = f'{agent}-D{dim}-{len(selections)}'
    compiled = float(generator.exponential())
    for noise_std, seed in itertools.product((0.1, 1.), range(3)):
      seed += 3 * len(selections)
      times = dict(zip(SHARED, generator.exponential(size=3).tolist()))
      fails = (dim, noise_std, seed) == (100, 1., 3)
      for selection in selections:
        rows.append(make_row(
            None if fails else 1., agent, seed, dim, noise_std=noise_std,
            selection=selection, run_id=run_id, **{
                **times, 'compile_seconds': compiled,
                'rank_seconds': None if selection == 'none' else
                float(generator.exponential()),
                **({'train_seconds': None} if fails else {})}))
  return rows


def slow_costs(rows):
  """(agent_id, input_dim, noise_std) -> times, one row after the other."""
  sums = {}
  for row in rows:
    cell = row['problem']['cell']
    line = sums.setdefault(
        (row['agent_id'], cell['input_dim'], cell['noise_std']),
        {**dict.fromkeys((*SHARED, 'rank_seconds', 'compile_seconds'), 0.),
         'num_problems': 0, 'num_untimed': 0})
    unit = [other for other in rows if other['run_id'] == row['run_id']]
    same = [other for other in unit if other['problem'] == row['problem']]
    line['compile_seconds'] += row['compile_seconds'] / len(unit)
    line['rank_seconds'] += row['rank_seconds'] or 0.
    if row is not same[0]:
      continue
    line['num_problems'] += 1
    line['num_untimed'] += row['train_seconds'] is None
    for name in SHARED:
      line[name] += row[name] or 0.
  return sums


def test_costs_are_those_of_a_sum_row_by_row():
  rows = make_rows()
  expected = slow_costs(rows)
  found = costs_lib.make_costs(columns_lib.collect(rows)).to_dict('records')
  assert len(found) == len(expected) == 8
  for line in found:
    slow = expected[line['agent_id'], line['input_dim'], line['noise_std']]
    for name, value in slow.items():
      assert line[name] == pytest.approx(value, abs=1e-12), name
    total = sum(slow[name] for name in slow if name.endswith('_seconds'))
    assert line['seconds'] == pytest.approx(total)
    assert line['seconds_per_problem'] == pytest.approx(
        total / (slow['num_problems'] - slow['num_untimed']))
    assert line['num_problems'] == 6
    assert line['kind'] == 'nngp' and line['reference'] == 'bayes'
  assert [line['label'] for line in found] == ['ensemble-K10'] * 4 + ['map'] * 4
  assert sum(line['num_untimed'] for line in found) == 2


def test_the_order_of_rows_changes_no_digit():
  rows = make_rows()
  texts = set()
  for i in range(3):
    texts.add(csv_files.table_text(
        costs_lib.make_costs(columns_lib.collect(rows))))
    random.Random(i).shuffle(rows)
  assert len(texts) == 1


def test_rows_without_times_cost_nothing_and_are_counted():
  rows = [make_row(seed=seed, run_id='brought', **dict.fromkeys(
      (*SHARED, 'rank_seconds', 'compile_seconds'))) for seed in range(2)]
  costs = costs_lib.make_costs(columns_lib.collect(rows))
  line, = costs.to_dict('records')
  assert (line['seconds'], line['num_problems'], line['num_untimed']) == (
      0., 2, 2)
  assert line['seconds_per_problem'] is None
  assert '2 of 2 problems carry no time' in costs_lib.sentence(costs)


def test_the_sentence_has_the_total_and_what_an_agent_costs():
  rows = [make_row(agent=agent, seed=seed, run_id=agent, train_seconds=seconds,
                   evaluate_seconds=0., problem_seconds=0., compile_seconds=0.)
          for agent, seconds in (('a', 1800.), ('b', 3600.), ('c', 7200.))
          for seed in range(2)]
  text = costs_lib.sentence(costs_lib.make_costs(columns_lib.collect(rows)))
  assert 'this board took 7.00 h of' in text
  assert ('an agent setting 1.00 h to 4.00 h, half of them at most 2.00 h'
          in text)
