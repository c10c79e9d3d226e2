"""Summaries of units: the same rows, faster, and never other ones."""

import json
import math

import example_rows
from example_rows import make_store  # noqa: F401
import many_rows
import numpy as np
import pytest

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.report import columns
from enn_ensembles.results import summaries
from enn_ensembles.results import unit_files
from enn_ensembles.sweeps import sweep_status

make_row = example_rows.make_row


def write(store, run_id, *rows):
  return store.write_unit(run_id, [{**row, 'run_id': run_id} for row in rows])


def different_rows():
  """Rows that differ in what a summary might mix up."""
  return [make_row(0.5, 'a', 0, agent_config={'x': 1}),
          make_row(math.inf, 'b', 1, agent_config={'x': 1.}, kl_floor=math.nan,
                   status='diverged'),
          make_row(None, 'c', 2, agent_config={'x': True}, train_seconds=None),
          make_row(0.1 + 0.2, 'd', 3, agent_config={'y': 1, 'x': 2},
                   rank_seconds=math.inf,
                   curve={'order': [0], 'kl_estimate': [0.5]})]


def scan(store):
  """(summaries, copies) of one folder."""
  found = []
  copies = results.scan([store], found.append)
  return found, copies


def as_columns(found):
  """What reports make of it."""
  return {name: [values[c] for c in found.codes(name)]
          for name in columns.REPEATED for values in [found.values(name)]}


def check_equal(found, rows):
  """The columns are those of these rows, in this order."""
  expected = columns.collect(rows)
  assert list(found.row_ids) == list(expected.row_ids)
  assert repr(as_columns(found)) == repr(as_columns(expected))
  assert set(found.scores) == set(expected.scores)
  for name in found.scores:
    for part, other in zip(found.score(name), expected.score(name)):
      np.testing.assert_array_equal(part, other)
  for name in columns.COSTS:
    for part, other in zip(found.cost(name), expected.cost(name)):
      np.testing.assert_array_equal(part, other)


@pytest.mark.parametrize('is_kept', [True, False])
def test_columns_are_those_of_the_rows(store, is_kept):
  path = write(store, 'u', *different_rows())
  if not is_kept:
    summaries.path_of(path).unlink()
  found, _ = columns.read_columns(store.results_dir)
  check_equal(found, store.read_unit('u').rows)
  assert summaries.path_of(path).exists()  # Made anew where it was not.
  found, _ = columns.read_columns(store.results_dir)
  check_equal(found, store.read_unit('u').rows)


def test_a_unit_is_not_parsed_where_its_summary_fits(store, monkeypatch):
  write(store, 'u', *different_rows())
  monkeypatch.setattr(type(store), 'iter_units', None)
  (summary,), copies = scan(store)
  assert len(summary.row_ids) == 4 and not copies


def test_what_is_done_is_read_off_summaries(store, monkeypatch):
  write(store, 'u', *different_rows())
  statuses = {row['row_id']: row['status'] for row in store.read_rows()}
  assert sorted(statuses.values()) == ['diverged', 'failed', 'ok', 'ok']
  monkeypatch.setattr(type(store), 'read_rows', None)
  monkeypatch.setattr(type(store), 'iter_units', None)
  assert results.done_row_ids(store) == statuses
  assert results.done_row_ids(store, retry_failed=True) == {
      row_id: status for row_id, status in statuses.items()
      if status != 'failed'}


def test_a_summary_of_other_bytes_makes_nothing_done(store):
  path = write(store, 'u', make_row(0.5))
  kept = summaries.path_of(path).read_bytes()
  write(store, 'u', make_row(None))
  summaries.path_of(path).write_bytes(kept)  # Of the file before.
  assert not results.done_row_ids(store, retry_failed=True)
  # A writer that was killed before its unit was there.
  summaries.path_of(path).write_bytes(kept)
  path.unlink()
  assert not results.done_row_ids(store)


def test_of_copies_what_succeeded_is_done(store):
  write(store, 'u', make_row(0.5, 'a'))
  write(store, 'v', make_row(None, 'a'))
  assert list(results.done_row_ids(store, retry_failed=True).values()) == ['ok']
  write(store, 'v', make_row(0.7, 'a'))
  with pytest.raises(files.FileError, match='delete the file that is wrong'):
    results.done_row_ids(store)


def test_what_was_changed_is_seen(store):
  path = write(store, 'u', make_row(0.5))
  kept = summaries.path_of(path).read_bytes()
  write(store, 'u', make_row(0.25))
  summaries.path_of(path).write_bytes(kept)  # Of the file before.
  (summary,), _ = scan(store)
  assert summary.scores['kl_estimate'] == [0.25]
  assert summaries.path_of(path).read_bytes() != kept
  # A damaged unit is an error, whatever stands in its summary.
  path.write_bytes(path.read_bytes().replace(b'0.25', b'0.26'))
  with pytest.raises(files.FileError, match='u.json is damaged'):
    scan(store)


@pytest.mark.parametrize('change', [
    lambda content: content[:-5], lambda content: b'',
    lambda content: content.replace(b'0.5', b'0.6'),
    lambda content: content.replace(b'2 ', b'99 ', 1),
    lambda content: b'\xff' * 100])
def test_a_damaged_summary_is_made_anew(store, change):
  path = write(store, 'u', make_row(0.5))
  kept = summaries.path_of(path)
  content = kept.read_bytes()
  assert change(content) != content
  kept.write_bytes(change(content))
  (summary,), _ = scan(store)
  assert summary.scores['kl_estimate'] == [0.5]
  assert kept.read_bytes() == content


@pytest.mark.parametrize('path, value', [
    (('row_ids',), 3), (('row_ids', 0), None), (('repeated', 'device'), None),
    (('repeated', 'device', 0), []), (('repeated', 'device', 1), [0]),
    (('repeated', 'device', 1), [0, 0, 0, 'x']),
    (('repeated', 'device', 1), [0, 0, 0, -1]),
    (('repeated', 'device', 1), [0, 0, 0, True]),
    (('repeated', 'created', 0, 0), True), (('repeated', 'status', 0, 0), 'on'),
    (('repeated', 'numerics', 0, 0), 'x'), (('repeated', 'cell', 0, 0), [1]),
    (('repeated', 'cell', 0, 0), {'a': []}), (('costs',), []),
    (('costs', 'train_seconds', 0), 'x'), (('scores', 'kl_estimate', 0), [1]),
    (('scores', 'kl_estimate'), [0.5])])
def test_a_summary_that_somebody_else_wrote_is_made_anew(store, path, value):
  unit = write(store, 'u', *different_rows())
  kept = summaries.path_of(unit)
  content = kept.read_bytes()
  head, _, columns_text = content.partition(b'\n')
  found = part = json.loads(columns_text)
  for step in path[:-1]:
    part = part[step]
  part[path[-1]] = value
  changed = json.dumps(found).encode()
  version, digest, _ = head.decode().split()
  # With a checksum that holds.
  kept.write_bytes(f'{version} {digest} {unit_files.digest_of(changed)}\n'
                   .encode() + changed)
  assert summaries.read(unit) is None
  check_equal(columns.read_columns(store.results_dir)[0],
              store.read_unit('u').rows)
  assert kept.read_bytes() == content


def test_a_folder_that_refuses_costs_the_summaries_only(store):
  (store.results_dir / 'summaries').write_text('a file')
  write(store, 'u', *different_rows())
  found, _ = columns.read_columns(store.results_dir)
  check_equal(found, store.read_unit('u').rows)


def test_rows_of_several_files_count_once(store, tmp_path):
  other = results.open_store(tmp_path / 'other', create=True)
  ok, failed = make_row(0.5, 'a'), make_row(None, 'a')
  write(store, 'u', failed, make_row(0.1, 'b'))
  write(other, 'v', ok, make_row(0.2, 'c'))
  found, _ = columns.read_columns([store.results_dir, other.results_dir])
  values, _ = found.score('kl_estimate')
  assert sorted(values) == [0.1, 0.2, 0.5]
  write(other, 'v', {**ok, 'scores': {**ok['scores'], 'kl_estimate': 0.5}},
        make_row(0.2, 'c'))
  write(store, 'u', make_row(0.7, 'a'), make_row(0.1, 'b'))
  with pytest.raises(files.FileError, match='delete the file that is wrong'):
    columns.read_columns([store.results_dir, other.results_dir])


def test_status_reads_no_more_than_it_needs(tmp_path):
  many_rows.make_folder(tmp_path, 1)
  store = results.open_store(tmp_path / 'results')
  (summary,), _ = scan(store)
  rows = list(summary.rows(sweep_status.ROW_FIELDS))
  whole = store.read_rows()
  assert len(rows) == len(whole) == 100
  by_id = {row['row_id']: row for row in whole}
  for row in rows:
    own = by_id[row['row_id']]
    assert row.pop('problem') == {name: own['problem'][name]
                                  for name in ('cell', 'seed')}
    assert row == {name: own[name] for name in row}
    assert set(row) == {'row_id', *sweep_status.ROW_FIELDS} - {'cell', 'seed'}


def test_a_summary_is_small_beside_its_unit(tmp_path):
  many_rows.make_folder(tmp_path, 1)
  (path,) = results.open_store(tmp_path / 'results').unit_paths()
  size = summaries.path_of(path).stat().st_size
  assert size < 0.15 * path.stat().st_size
  head, _, rest = summaries.path_of(path).read_bytes().partition(b'\n')
  assert len(head.split()) == 3 and json.loads(rest)
