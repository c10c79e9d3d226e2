"""Rows of many units are one sorted table, and say what is done."""

import math
import os
import time

import example_rows
from example_rows import make_store  # noqa: F401
import pytest

from enn_ensembles import results
from enn_ensembles.machine import files

make_row = example_rows.make_row
make_unit = example_rows.make_unit


def test_done_rows(store):
  run_id, rows = make_unit()
  store.write_unit(run_id, rows)
  ids = [row['row_id'] for row in rows]
  assert results.done_row_ids(store) == dict(
      zip(ids, ('ok', 'diverged', 'failed')))
  assert results.done_row_ids(store, retry_failed=True) == dict(
      zip(ids[:2], ('ok', 'diverged')))


def test_rows_are_sorted_whatever_the_files(tmp_path):
  rows = [make_row(0.5, agent, seed=seed, input_dim=dim)
          for agent in ('map', 'bbb') for dim in (100, 10)
          for seed in (10, 9)]
  read = []
  for name in ('a', 'b'):
    store = results.open_store(tmp_path / name, create=True)
    for i, row in enumerate(rows if name == 'a' else rows[::-1]):
      store.write_unit(f'unit{i}', [{**row, 'run_id': f'unit{i}'}])
    read.append([row['row_id'] for row in store.read_rows()])
  assert read[0] == read[1]
  assert [(r['agent'], r['problem']['cell']['input_dim'],
           r['problem']['seed']) for r in store.read_rows()] == [
              (a, d, s) for a in ('bbb', 'map') for d in (10, 100)
              for s in (9, 10)]


def test_same_row_in_two_files_is_one_row(store):
  row = make_row(math.nan, status='diverged')
  store.write_unit('a', [{**row, 'run_id': 'a'}])
  store.write_unit('b', [{**row, 'run_id': 'b', 'train_seconds': 99.,
                          'device': 'gpu', 'created': 'later',
                          'agent_label': 'ensemble,num_ensemble=10'}])
  [read] = store.read_rows()
  # Which of them is decided by their content.
  assert (read['run_id'], read['train_seconds']) in (('a', 0.5), ('b', 99.))
  assert results.merge_units(reversed(store.read_units())) == [read] or (
      repr(results.merge_units(reversed(store.read_units()))) == repr([read]))


def test_costs_of_use_decide_nothing(store):
  old = make_row()
  del old['cost']
  read = results.check_row(old)
  assert read['cost'] is None
  assert results.cost_of(read, 'peak_memory_mb') is None
  # Which copy stays does not depend on a field that an old row lacks.
  rows = [{**read, 'run_id': run_id} for run_id in 'abcd']
  for row in rows:
    store.write_unit(row['run_id'], [row])
  kept, = store.read_rows()
  assert kept['run_id'] == min(rows, key=lambda row: results.schema.sha256(
      {name: value for name, value in row.items() if name in old}))['run_id']
  again = {**kept, 'cost': {'peak_memory_mb': 9.}}
  assert results.tolerance.difference(kept, again) == 0.


def test_contradicting_files_are_both_named_with_their_values(store):
  a = store.write_unit('a', [make_row(0.5, run_id='a')])
  b = store.write_unit('b', [make_row(0.5000001, run_id='b')])
  with pytest.raises(files.FileError) as error:
    store.read_rows()
  for part in (str(a), str(b), 'kl_estimate 0.5 in', '0.5000001'):
    assert part in str(error.value)


@pytest.mark.parametrize('order', [('a', 'b'), ('b', 'a')])
def test_failed_row_gives_way_to_a_score(store, order):
  store.write_unit(order[0], [make_row(None, run_id=order[0])])
  store.write_unit(order[1], [make_row(0.5, run_id=order[1])])
  [row] = store.read_rows()
  assert (row['status'], row['scores']['kl_estimate']) == ('ok', 0.5)
  assert list(results.done_row_ids(store, retry_failed=True).values()) == ['ok']


def test_units_of_two_folders_merge(tmp_path):
  stores = [results.open_store(tmp_path / name, create=True) for name in 'ab']
  for seed, store in enumerate(stores):
    store.write_unit('unit', [make_row(seed=seed, run_id='unit')])
  rows = results.merge_units(
      unit for store in stores for unit in store.read_units())
  assert [row['problem']['seed'] for row in rows] == [0, 1]


def test_no_clock_decides_what_is_done(store, monkeypatch):
  for day in ('2030', '1970'):
    row = make_row(run_id=day, seed=int(day),
                   created=f'{day}-01-01T00:00:00+00:00')
    store.write_unit(day, [row])
    for path in (store.results_dir / 'units').iterdir():
      os.utime(path, (0, 0) if day == '2030' else (4e9, 4e9))
  monkeypatch.setattr(time, 'time', lambda: 0.)
  assert len(results.done_row_ids(store)) == 2
