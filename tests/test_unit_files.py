"""A unit comes back as it was written, or its file is named as damaged."""

import json
import math

import example_rows
from example_rows import make_store  # noqa: F401
import pytest

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.results import schema

make_row = example_rows.make_row
make_unit = example_rows.make_unit
edit_json = example_rows.edit_json


def test_unit_comes_back_as_it_was_written(store):
  run_id, rows = make_unit()
  path = store.write_unit(run_id, rows)
  assert path == store.results_dir / 'units' / f'{run_id}.json'
  [unit] = store.read_units()
  assert (unit.path, unit.run_id) == (path, run_id)
  # repr tells nan, inf and every last digit; == would not know nan.
  assert repr(unit.rows) == repr([results.check_row(row) for row in rows])
  assert unit.rows[0]['scores']['kl_estimate'] == 0.1 + 0.2
  assert [row['status'] for row in unit.rows] == ['ok', 'diverged', 'failed']


def test_unit_is_strict_json(store):
  path = store.write_unit(*make_unit())
  def refuse(constant):
    raise AssertionError(constant)
  document = json.loads(path.read_text(), parse_constant=refuse)
  scores = document['rows'][1]['scores']
  assert (scores['kl_estimate'], scores['kl_reverse']) == ('Infinity', 'NaN')


def test_text_that_looks_like_a_number_stays_text(store):
  run_id, rows = make_unit(device='Infinity')
  store.write_unit(run_id, rows)
  assert {row['device'] for row in store.read_rows()} == {'Infinity'}


def test_extreme_floats_come_back(store):
  values = [5e-324, 1.7976931348623157e308, -0.0, 0.1, -math.inf]
  rows = [make_row(0.5, seed=i, train_seconds=value)
          for i, value in enumerate(values)]
  store.write_unit(rows[0]['run_id'], rows)
  assert [repr(row['train_seconds']) for row in store.read_rows()] == [
      repr(value) for value in values]


@pytest.mark.parametrize('run_id', ['', '../x', 'a/b', '.x', 'a b', 'x' * 201])
def test_run_id_that_is_no_file_name_is_refused(store, run_id):
  with pytest.raises(files.FileError, match='run_id must be'):
    store.write_unit(run_id, [make_row(run_id=run_id)])


def test_bad_units_are_refused_and_nothing_is_written(store):
  run_id, rows = make_unit()
  for bad, message in (
      ([], 'rows must not be empty'),
      ([make_row(run_id='other')], "has run_id 'other'"),
      ([rows[0], rows[0]], 'is there 2 times'),
      ([rows[0], make_row(seed='1')], 'row 1: problem: seed must be')):
    with pytest.raises(files.FileError, match=message):
      store.write_unit(run_id, bad)
  assert not list((store.results_dir / 'units').iterdir())


def test_writing_again_replaces_but_never_loses_rows(store):
  run_id, rows = make_unit()
  store.write_unit(run_id, rows)
  again = rows[:2] + [make_row(0.7, seed=2)]
  store.write_unit(run_id, again)
  assert store.read_rows()[2]['scores']['kl_estimate'] == 0.7
  with pytest.raises(files.FileError, match='already holds 1 rows'):
    store.write_unit(run_id, rows[:2])
  assert len(store.read_rows()) == 3


def _set_score(document):
  document['rows'][0]['scores']['kl_estimate'] = 0.29


@pytest.mark.parametrize('damage', [
    lambda path: path.write_bytes(path.read_bytes()[:-40]),
    lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes(b'\xff\xfe'),
    lambda path: path.write_text('[]'),
    lambda path: path.write_text('{}'),
    lambda path: path.write_text(
        path.read_text().replace('"Infinity"', 'Infinity')),
    lambda path: edit_json(path, _set_score),
    lambda path: edit_json(path, lambda d: d['rows'].pop()),
    lambda path: edit_json(path, lambda d: d.pop('sha256')),
    lambda path: edit_json(path, lambda d: d.pop('rows')),
    lambda path: edit_json(path, lambda d: d.update(note=1)),
    lambda path: edit_json(path, lambda d: d.update(run_id='other')),
    lambda path: path.rename(path.with_name('renamed.json')),
], ids=['truncated', 'empty', 'binary', 'list', 'no_fields', 'loose_json',
        'edited_score', 'lost_row', 'no_checksum', 'no_rows', 'extra_field',
        'edited_id', 'renamed'])
@pytest.mark.parametrize('read', [
    results.ResultsStore.read_units, results.ResultsStore.read_rows,
    results.done_row_ids])
def test_damaged_unit_is_named_with_what_to_do(store, damage, read):
  store.write_unit(*make_unit())
  damage(next((store.results_dir / 'units').iterdir()))
  path = next((store.results_dir / 'units').iterdir())
  with pytest.raises(files.FileError) as error:
    read(store)
  assert str(path) in str(error.value)
  assert 'Delete it and run the sweep again' in str(error.value)
  assert '\n' not in str(error.value)


def test_hand_made_row_with_its_checksum_is_still_checked(store):
  path = store.write_unit(*make_unit())
  def change(document):
    document['rows'][0]['status'] = 'fine'
    document['sha256'] = schema.sha256(document['rows'])
  edit_json(path, change)
  with pytest.raises(files.FileError, match='damaged .*status must be one'):
    store.read_rows()


def test_unit_of_another_version_is_not_called_damaged(store):
  path = store.write_unit(*make_unit())
  edit_json(path, lambda document: document.update(schema_version=1))
  with pytest.raises(files.FileError,
                     match=r'\.json has schema_version 1, this program reads'):
    store.read_rows()


def test_reformatted_unit_is_still_good(store):
  path = store.write_unit(*make_unit())
  before = json.dumps(store.read_rows(), sort_keys=True)
  path.write_text(json.dumps(json.loads(path.read_text()), indent=7,
                             sort_keys=True))
  assert json.dumps(store.read_rows(), sort_keys=True) == before


def test_stale_temporary_and_foreign_files_are_ignored(store):
  run_id, rows = make_unit()
  store.write_unit(run_id, rows)
  units = store.results_dir / 'units'
  (units / f'.{run_id}.json.123.abcd.tmp').write_text('{"half')
  (units / f'._{run_id}.json').write_text('resource fork')
  (units / 'notes.txt').write_text('x')
  assert len(store.read_rows()) == 3
  assert len(results.done_row_ids(store)) == 3
