"""The store gives back what was written, or says which file is not that."""

import collections
import functools
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import commands
import example_rows
import numpy as np
import pytest

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.results import schema

make_row = example_rows.make_row
make_entry = example_rows.make_entry


def make_unit(**fields):
  """A run_id and three rows, one of them diverged, one failed."""
  rows = [make_row(0.1 + 0.2, seed=0, **fields),
          make_row(math.inf, seed=1, kl_reverse=math.nan, status='diverged',
                   message='kl_estimate is inf', **fields),
          make_row(None, seed=2, **fields)]
  return rows[0]['run_id'], rows


@pytest.fixture(name='store')
def fixture_store(tmp_path):
  return results.open_store(tmp_path / 'results', create=True)


# Rows.


def test_schema_has_the_fields_that_the_groups_name():
  groups = results.TIMING_FIELDS + results.PROTOCOL_FIELDS
  assert set(groups) <= set(results.ROW_SCHEMA)
  assert all(field.meaning for field in results.ROW_SCHEMA.values())


def _with_problem(**fields):
  return {'problem': {**make_row()['problem'], **fields}}


def _with_scores(**fields):
  return {'scores': {**make_row()['scores'], **fields}}


@pytest.mark.parametrize('fields, message', [
    (_with_problem(seed='0'), "seed must be of type int, got '0' (str)"),
    (_with_problem(seed=True), 'seed must be of type int, got True (bool)'),
    (_with_problem(seed=0.), 'seed must be of type int, got 0.0 (float)'),
    (_with_problem(seed=None), 'seed must be of type int, got None'),
    (_with_problem(cell={'noise_std': [1]}),
     "cell must hold numbers and texts by name, got {'noise_std': [1]}"),
    ({'problem': {'seed': 0}}, "must have the fields ('kind', 'seed', 'cell'"),
    ({'train_seconds': 'NaN'},
     "train_seconds must be of type float, got 'NaN' (str)"),
    ({'train_seconds': False},
     'train_seconds must be of type float, got False (bool)'),
    ({'agent': 3}, 'agent must be of type str, got 3 (int)'),
    ({'enumerate_indices': 1},
     'enumerate_indices must be of type bool, got 1 (int)'),
    ({'agent_config': [1]},
     'agent_config must be of type dict, got [1] (list)'),
    ({'agent_config': {'a': math.nan}}, 'agent_config cannot be stored'),
    ({'agent_config': {'a': np.zeros(2)}}, 'agent_config cannot be stored'),
    ({'score_set': 'beauty'}, "score_set must be one of ['nngp', "),
    ({'status': 'fine'},
     "status must be one of ['ok', 'diverged', 'failed'], got 'fine'"),
    ({'schema_version': 1}, 'schema_version must be 4, got 1'),
    ({'kl': 1.}, "unknown fields ['kl']"),
    (_with_scores(kl=1.), "must be those of nngp; unknown ['kl']"),
    ({'scores': {'kl_estimate': 1.}}, "missing ['kl_reverse', "),
    ({'scores': [1.]}, 'must be scores by name, got [1.0]'),
    (_with_scores(kl_estimate=math.inf),
     'kl_estimate must be finite where status is ok, got inf'),
    (_with_scores(kl_floor=-math.inf),
     'kl_floor must be finite where status is ok, got -inf'),
    (_with_scores(kl_reverse=None),
     'kl_reverse must be of type float, got None'),
    ({'scores': None},
     'must be None if and only if status is failed, got None'),
    ({'status': 'failed'}, 'must be None if and only if status is failed, got'),
])
def test_bad_row_is_refused_and_named(fields, message):
  with pytest.raises(files.FileError, match=re.escape(message)):
    results.check_row({**make_row(), **fields}, 'row 3')
  with pytest.raises(files.FileError, match='^row 3: '):
    results.check_row({**make_row(), **fields}, 'row 3')


def test_an_infinite_floor_is_a_score():
  row = make_row(kl_floor=math.inf)
  assert results.check_row(row)['scores']['kl_floor'] == math.inf


def test_missing_field_is_refused():
  row = make_row()
  del row['numerics']
  with pytest.raises(files.FileError, match=r"missing fields \['numerics'"):
    results.check_row(row)


def test_numpy_scalars_become_python_numbers():
  row = results.check_row(make_row(
      np.float32(0.1), num_params=np.int64(3), enumerate_indices=np.bool_(True),
      agent_config={'sizes': (1, 2)}))
  assert type(row['scores']['kl_estimate']) is float
  assert row['scores']['kl_estimate'] == float(np.float32(0.1))
  assert type(row['num_params']) is int
  assert row['enumerate_indices'] is True
  assert row['agent_config'] == {'sizes': [1, 2]}


# Folders.


def test_created_store_opens_again(tmp_path):
  folder = tmp_path / 'a' / 'b'
  results.open_store(folder, create=True)
  assert json.loads((folder / 'STORE.json').read_text()) == {
      'project': 'enn_ensembles', 'schema_version': results.SCHEMA_VERSION}
  assert results.open_store(folder, create=True).read_rows() == []
  assert results.open_store(folder).read_rows() == []


def test_reading_makes_nothing(tmp_path):
  with pytest.raises(files.FileError, match=r"'.*missing' does not exist"):
    results.open_store(tmp_path / 'missing')
  assert not list(tmp_path.iterdir())


def test_empty_folder_is_no_store_to_read_but_one_to_create(tmp_path):
  with pytest.raises(files.FileError, match='has no STORE.json'):
    results.open_store(tmp_path)
  results.open_store(tmp_path, create=True)


def test_folder_with_other_things_is_refused_and_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').write_text('x')
  with pytest.raises(files.FileError,
                     match=r'is not empty .*thesis\.tex'):
    results.open_store(tmp_path, create=True)
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


@pytest.mark.parametrize('create', [False, True])
@pytest.mark.parametrize('text, message', [
    ('{"project": "enn_ensembles", "schema_version": 7}',
     'has schema_version 7, this program reads 3 and 4'),
    ('{"project": "other", "schema_version": 1}', "is a store of 'other'"),
    ('{"schema_version": 1}', 'STORE.json is damaged'),
    ('{"project": ', 'STORE.json is damaged'),
    ('[]', 'STORE.json is damaged'),
])
def test_foreign_store_is_refused(store, create, text, message):
  (store.results_dir / 'STORE.json').write_text(text)
  with pytest.raises(files.FileError, match=message):
    results.open_store(store.results_dir, create=create)


def test_file_in_place_of_the_folder_is_refused(tmp_path):
  path = tmp_path / 'file'
  path.write_text('x')
  for folder in (path, path / 'below'):
    with pytest.raises(files.FileError, match='can be written to'):
      results.open_store(folder, create=True)
  with pytest.raises(files.FileError, match='is no folder'):
    results.open_store(path)


@pytest.fixture(name='closed_folder')
def fixture_closed_folder():
  """A store that this process may read and not write, even if it is root."""
  folder = pathlib.Path(tempfile.mkdtemp())
  store = results.open_store(folder / 'results', create=True)
  run_id, rows = make_unit()
  store.write_unit(run_id, rows)
  folder.chmod(0o755)
  for path in [store.results_dir, *store.results_dir.rglob('*')]:
    path.chmod(0o555 if path.is_dir() else 0o444)
  user = os.geteuid()
  if user == 0:
    os.seteuid(65534)
  yield store.results_dir
  os.seteuid(user)
  for path in [store.results_dir, *store.results_dir.rglob('*')]:
    path.chmod(0o755)
  shutil.rmtree(folder)


def test_unwritable_folder_is_refused_before_work_but_read(closed_folder):
  with pytest.raises(files.FileError,
                     match='can be written to: Permission denied'):
    results.open_store(closed_folder, create=True)
  store = results.open_store(closed_folder)
  assert len(store.read_rows()) == 3
  with pytest.raises(files.FileError, match='cannot write .*denied'):
    store.write_unit('other', [make_row(run_id='other')])


# Units.


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


def _edit(path, change):
  document = json.loads(path.read_text())
  change(document)
  path.write_text(json.dumps(document))


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
    lambda path: _edit(path, _set_score),
    lambda path: _edit(path, lambda d: d['rows'].pop()),
    lambda path: _edit(path, lambda d: d.pop('sha256')),
    lambda path: _edit(path, lambda d: d.pop('rows')),
    lambda path: _edit(path, lambda d: d.update(note=1)),
    lambda path: _edit(path, lambda d: d.update(run_id='other')),
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
  _edit(path, change)
  with pytest.raises(files.FileError, match='damaged .*status must be one'):
    store.read_rows()


def test_unit_of_another_version_is_not_called_damaged(store):
  path = store.write_unit(*make_unit())
  _edit(path, lambda document: document.update(schema_version=1))
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


def test_done_rows(store):
  run_id, rows = make_unit()
  store.write_unit(run_id, rows)
  ids = [row['row_id'] for row in rows]
  assert results.done_row_ids(store) == dict(
      zip(ids, ('ok', 'diverged', 'failed')))
  assert results.done_row_ids(store, retry_failed=True) == dict(
      zip(ids[:2], ('ok', 'diverged')))


# Many units.


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


@pytest.mark.parametrize('cost', [{'money': 1.}, {'peak_memory_mb': '1'},
                                  {'peak_memory_mb': math.inf},
                                  {'peak_memory_mb': -1.}])
def test_costs_of_use_are_checked(cost):
  with pytest.raises(files.FileError, match='row 3: cost must have finite'):
    results.check_row({**make_row(), 'cost': cost}, 'row 3', is_json=True)


@pytest.mark.parametrize('counts, message', [
    (5, "'test' must have .*bin_count.* by name, got 5"),
    ([], "'test' must have"), ({'count': [1]}, "'test' must have"),
    ({'bin_count': [1]}, "bin_count of 'test' must be a list of 15 numbers"),
    ({'bin_count': ['1'] * 15}, 'bin_count of'),
    ({'bin_count': [-1] * 15}, 'bin_count of'),
    ({'bin_correct': [10**400] * 15}, 'bin_correct of'),
    ({'mi_count': 3}, "mi_count of 'test' must be a list of 28 numbers"),
    ({'pit_count': [1] * 10}, "pit_count of 'test' must be a list of 20"),
    ({'disagreement': [[0., 1.]]}, 'must be a square matrix of finite'),
    ({'disagreement': [[0.], [1., 2.]]}, 'disagreement of'),
    ({'weight_cosine': []}, 'weight_cosine of')])
def test_counts_of_predictions_are_checked(counts, message):
  with pytest.raises(files.FileError, match=f'row 3: counts: .*{message}'):
    results.check_row({**make_row(), 'counts': {'test': counts}}, 'row 3',
                      is_json=True)


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


def _write_many(folder, start):
  store = results.open_store(folder, create=True)
  start.wait()
  for _ in range(20):
    store.write_unit(*make_unit())
    store.write_manifest([make_entry()])


def test_processes_that_write_the_same_unit_do_not_disturb_each_other(tmp_path):
  # Spawned, not forked: the tests' process has jax and its threads.
  context = multiprocessing.get_context('spawn')
  start = context.Event()
  writers = [context.Process(target=_write_many, args=(tmp_path, start))
             for _ in range(3)]
  for writer in writers:
    writer.start()
  start.set()
  while any(writer.is_alive() for writer in writers):
    if (tmp_path / 'STORE.json').exists():
      assert len(results.open_store(tmp_path).read_rows()) in (0, 3)
    time.sleep(0.002)
  assert [writer.exitcode for writer in writers] == [0, 0, 0]
  assert len(results.open_store(tmp_path).read_rows()) == 3
  assert len(list((tmp_path / 'units').iterdir())) == 1


def test_writer_killed_before_the_rename_leaves_the_old_file(store):
  run_id, rows = make_unit()
  store.write_unit(run_id, rows)
  code = f'''
import os, signal
from enn_ensembles.machine import files
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically({str(store.unit_path(run_id))!r}, b'new')
'''
  root = pathlib.Path(__file__).parents[1]
  done = subprocess.run([sys.executable, '-c', code], cwd=root, check=False)
  assert done.returncode == -signal.SIGKILL
  assert len(list((store.results_dir / 'units').iterdir())) == 2
  assert len(store.read_rows()) == 3


def test_failing_disk_is_one_line_and_leaves_nothing(store, monkeypatch):
  def full(_):
    raise OSError(28, 'No space left on device')
  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(files.FileError,
                     match='cannot write .*: No space left on device'):
    store.write_unit(*make_unit())
  assert not list((store.results_dir / 'units').iterdir())


def test_stale_files_are_removed_and_others_are_not(store):
  now = time.time()
  old, new = now - 2 * 86400, now - 3600
  units = store.results_dir / 'units'
  kept_dir = store.results_dir / 'checkpoints'
  kept_dir.mkdir()
  store.write_unit(*make_unit())
  times = {
      store.results_dir / '.STORE.json.1.ab.tmp': old,
      units / '.a.json.1.ab.tmp': old, units / '.b.json.1.ab.tmp': new,
      # The clock ran backwards: written in what is the future now.
      units / '.c.json.1.ab.tmp': now + 10 * 86400,
      units / 'notes.txt': old, units / 'mine.tmp': old,
      kept_dir / 'a.checkpoint': old, kept_dir / 'b.checkpoint': now - 2e6}
  for path, stamp in times.items():
    path.write_text('x')
    os.utime(path, (stamp, stamp))
  for path in units.glob('*.json'):
    os.utime(path, (0, 0))
  removed = files.remove_stale_files(store.results_dir)
  assert {path.name for path in removed} == {
      '.STORE.json.1.ab.tmp', '.a.json.1.ab.tmp', 'b.checkpoint'}
  assert {path for path in times if path.exists()} == set(times) - set(removed)
  assert len(store.read_rows()) == 3
  assert not list(store.results_dir.glob('.clock*'))
  # A folder that is not there, or read-only, is no error.
  assert files.remove_stale_files(store.results_dir / 'nowhere') == []


def test_no_clock_decides_what_is_done(store, monkeypatch):
  for day in ('2030', '1970'):
    row = make_row(run_id=day, seed=int(day),
                   created=f'{day}-01-01T00:00:00+00:00')
    store.write_unit(day, [row])
    for path in (store.results_dir / 'units').iterdir():
      os.utime(path, (0, 0) if day == '2030' else (4e9, 4e9))
  monkeypatch.setattr(time, 'time', lambda: 0.)
  assert len(results.done_row_ids(store)) == 2


@pytest.fixture(name='small_disk')
def fixture_small_disk(tmp_path):
  """A file system of 256 kB."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', str(folder)]
  if not shutil.which('mount') or subprocess.run(
      mount, check=False, capture_output=True).returncode:
    pytest.skip('this needs the right to mount a tmpfs')
  yield folder
  subprocess.run(['umount', str(folder)], check=True)


def test_a_full_disk_loses_nothing_that_was_written(small_disk):
  store = results.open_store(small_disk / 'results', create=True)
  written = []
  with pytest.raises(files.FileError,
                     match='cannot write .*: No space left on device'):
    for i in range(1000):
      run_id = f'unit{i}'
      store.write_unit(run_id, [make_row(seed=i, run_id=run_id)])
      written.append(i)
  assert len(written) > 5
  assert [row['problem']['seed'] for row in store.read_rows()] == written
  # No temporary file, which would keep the disk full.
  assert not [p for p in small_disk.rglob('*') if p.suffix == '.tmp']
  (small_disk / 'results' / 'units' / 'unit0.json').unlink()
  store.write_unit('unit0', [make_row(seed=0, run_id='unit0')])
  assert [row['problem']['seed'] for row in store.read_rows()] == written


def test_a_process_that_ends_waits_for_a_file(tmp_path):
  # The file is half written when another thread ends the process.
  code = f'''
import os, threading, time
from enn_ensembles.machine import files
replace = os.replace
os.replace = lambda *a: (writing.set(), time.sleep(0.5), replace(*a))
writing = threading.Event()
def end():
  writing.wait()
  files.finish_writing(600.)
  os._exit(75)
threading.Thread(target=end).start()
for i in range(100):
  files.write_atomically({str(tmp_path)!r} + '/file' + str(i), b'content')
'''
  done = subprocess.run([sys.executable, '-c', code], check=False,
                        cwd=pathlib.Path(__file__).parents[1])
  assert done.returncode == 75
  # The one file, or, by the order of two threads, a second.
  assert {path.read_text() for path in tmp_path.iterdir()} == {'content'}
  assert not list(tmp_path.glob('.*'))


# Manifests.


def test_manifests_give_the_union_of_what_is_expected(store):
  store.write_manifest([make_entry(seeds=(0, 1)), make_entry('map', seeds=[0])])
  store.write_manifest([make_entry(seeds=(1, 2), noise_stds=(0.1, 1.))])
  expected = store.read_manifests()
  assert [(row['agent_label'], row['problem']['cell']['noise_std'],
           row['problem']['seed']) for row in expected] == [
              ('ensemble-K10', 0.1, 0), ('ensemble-K10', 0.1, 1),
              ('ensemble-K10', 0.1, 2), ('ensemble-K10', 1., 1),
              ('ensemble-K10', 1., 2), ('map', 0.1, 0)]
  assert expected[0]['agent_config'] == make_row()['agent_config']
  assert expected[0]['problem']['ranking']['reference'] == 'bayes'


def test_same_manifest_is_one_file_whatever_the_order(store):
  entries = [make_entry(seeds=(0, 1)), make_entry('map')]
  path = store.write_manifest(entries)
  assert store.write_manifest(
      [entries[1], make_entry(seeds=(1, 0))]) == path
  assert len(list(path.parent.iterdir())) == 1


def test_a_manifest_is_written_only_where_it_is_not_there_as_it_should_be(
    store):
  path = store.write_manifest([make_entry()])
  content, written = path.read_bytes(), path.stat().st_ino
  store.write_manifest([make_entry()])
  assert path.stat().st_ino == written  # Not another file in its place.
  path.write_bytes(content[:-10])
  store.write_manifest([make_entry()])
  assert path.read_bytes() == content


@pytest.mark.parametrize('fields, message', [
    ({'seeds': []}, r'seeds must be a list of at least one, got \[\]'),
    ({'seeds': [0.5]}, 'seed must be of type int, got 0.5'),
    ({'cells': {'noise_std': 0.1}}, 'cells must be a list'),
    ({'cells': [{'noise_std': [0.1]}]}, 'cell must hold numbers and texts'),
    ({'cell': {}}, 'problem must have the fields'),
])
def test_bad_manifest_entry_is_refused(store, fields, message):
  entry = make_entry()
  entry = {**entry, 'problem': {**entry['problem'], **fields}}
  with pytest.raises(files.FileError, match=message):
    store.write_manifest([entry])
  with pytest.raises(files.FileError, match='fields must be'):
    store.write_manifest([{**make_entry(), 'noise_std': 0.1}])


def test_empty_manifest_is_refused(store):
  with pytest.raises(files.FileError, match='at least one entry'):
    store.write_manifest([])


@pytest.mark.parametrize('damage', [
    lambda path: path.write_text(path.read_text()[:-10]),
    lambda path: _edit(
        path, lambda d: d['entries'][0]['problem']['seeds'].append(9)),
    lambda path: _edit(path, lambda d: d.pop('entries')),
], ids=['truncated', 'edited', 'no_entries'])
def test_damaged_manifest_is_named_with_what_to_do(store, damage):
  path = store.write_manifest([make_entry()])
  damage(path)
  with pytest.raises(files.FileError) as error:
    store.read_manifests()
  assert str(path) in str(error.value)
  assert 'Delete it and run the sweep again' in str(error.value)


def test_curve_of_a_row(store):
  curve = {'order': [1, 0], 'kl_estimate': [2., 1.5], 'kl_reverse': [1., 0.1]}
  row = make_row(curve=curve)
  assert results.check_row(row)['curve'] == curve
  store.write_unit(row['run_id'], [row])
  assert store.read_rows()[0]['curve'] == curve
  for wrong, message in (
      ({'order': [0]}, 'curve must have .*where selection is none'),
      ({**curve, 'val_score': [1., 2.]}, 'curve must have'),
      ({**curve, 'kl_reverse': [1.]}, 'curve must hold lists of one length'),
      ({**curve, 'kl_reverse': 1.}, 'curve must hold lists of one length'),
      ({**curve, 'kl_reverse': [1., np.nan]}, 'curve cannot be stored as JSON')
  ):
    with pytest.raises(files.FileError, match=message):
      results.check_row(make_row(curve=wrong))
  with pytest.raises(files.FileError, match="must have .*'val_score'"):
    results.check_row(make_row(curve=curve, selection='oracle'))


# Results of the schema before.


def make_old_row(kl=0.5, **fields):
  """A row of schema 3, as sweeps of that time wrote it."""
  failed = kl is None
  row = {
      'schema_version': 3, 'run_id': 'ensemble-D10_l1_bayes-0123456789',
      'row_id': f'old-{fields.get("seed", 0)}', 'agent': 'ensemble',
      'agent_id': 'ensemble,num_ensemble=30',
      'agent_config': {'num_ensemble': 30, 'hidden_sizes': [50, 50]},
      'problem_id': f'D10_l1_e0.1_s{fields.get("seed", 0)}_bayes',
      'input_dim': 10, 'data_ratio': 1., 'noise_std': 0.1, 'seed': 0,
      'reference': 'bayes', 'kernel': 'relu2', 'num_train': 10,
      'num_enn_samples': None, 'enumerate_indices': True,
      'num_samples_used': 30, 'selection': 'none', 'dtype': 'float32',
      'status': 'failed' if failed else 'ok', 'message': 'x' * failed,
      'kl_estimate': kl, 'kl_reverse': None if failed else 0.25,
      'mean_error': None if failed else 0.1,
      'std_error': None if failed else 0.2,
      'mean_rmse': None if failed else 0.3,
      'std_ratio': None if failed else 0.9,
      'kl_floor': None if failed else 0.04,
      'path': None if failed else {
          'order': [1, 0], 'kl_estimate': [2., 1.5], 'kl_reverse': [1., 0.1]},
      'num_params': 1000, 'train_seconds': 0.5, 'evaluate_seconds': 0.1,
      'rank_seconds': None, 'problem_seconds': 0.2, 'compile_seconds': 3.,
      'versions': {'jax': '0.10.2'}, 'device': 'cpu',
      'created': '2026-01-02T03:04:05Z'}
  return {**row, **fields}


def write_old_store(folder, rows, asked=1000):
  """A results folder as schema 3 had it, with its checksums and a manifest."""
  def encoded(row):
    return {key: 'Infinity' if value == math.inf else value
            for key, value in row.items()}
  rows = [encoded(row) for row in rows]
  (folder / 'units').mkdir(parents=True)
  (folder / 'manifests').mkdir()
  head = {'project': 'enn_ensembles', 'schema_version': 3}
  (folder / 'STORE.json').write_text(json.dumps(head))
  run_id = rows[0]['run_id']
  (folder / 'units' / f'{run_id}.json').write_text(json.dumps(
      {**head, 'run_id': run_id, 'sha256': schema.sha256(rows), 'rows': rows}))
  entry = {key: rows[0][key] for key in (
      'agent', 'agent_id', 'agent_config', 'input_dim', 'data_ratio',
      'reference', 'kernel', 'selection', 'enumerate_indices')}
  entry.update(noise_stds=[0.1], seeds=[0, 1, 2], num_enn_samples=asked)
  manifest = {**head, 'entries': [entry]}
  (folder / 'manifests' / f'{schema.sha256(manifest)[:16]}.json').write_text(
      json.dumps(manifest))
  return folder


@pytest.fixture(name='old_folder')
def fixture_old_folder(tmp_path):
  return write_old_store(tmp_path / 'old', [
      make_old_row(0.1 + 0.2),
      make_old_row(1e5, seed=1, kl_floor=math.inf,
                   problem_id='D10_l1_e0.1_s1_bayes_matrix_free'),
      make_old_row(None, seed=2)], asked=100)


def test_an_old_folder_is_read_as_rows_of_today(old_folder):
  store = results.open_store(old_folder)
  first, second, third = store.read_rows()
  assert results.check_row(first) == first
  assert first['agent_label'] == 'ensemble,num_ensemble=30'
  assert re.fullmatch('ensemble-[0-9a-f]{10}', first['agent_id'])
  assert first['problem'] == {
      'kind': 'nngp', 'seed': 0,
      'cell': {'input_dim': 10, 'data_ratio': 1., 'noise_std': 0.1},
      'ranking': {'reference': 'bayes', 'kernel': 'relu2'},
      'facts': {'num_train': 10}}
  assert first['scores'] == {
      'kl_estimate': 0.1 + 0.2, 'kl_reverse': 0.25, 'mean_error': 0.1,
      'std_error': 0.2, 'mean_rmse': 0.3, 'std_ratio': 0.9, 'kl_floor': 0.04}
  assert first['curve'] == make_old_row()['path']
  # Draws come from the manifest: a sweep that goes on finds its rows done.
  assert first['row_id'] == results.make_row_id(first, 100)
  assert first['row_id'] != results.make_row_id(first, 1000)
  assert second['scores']['kl_floor'] == math.inf
  assert second['problem']['facts']['solver'] == 'matrix_free'
  assert (third['status'], third['scores']) == ('failed', None)
  expected = store.read_manifests()
  assert [row['problem']['seed'] for row in expected] == [0, 1, 2]
  assert {row['agent_id'] for row in expected} == {first['agent_id']}


@pytest.mark.parametrize('change, message', [
    (lambda d: d['rows'][0].update(kl_estimate=0.2), 'match its checksum'),
    (lambda d: (d['rows'][0].pop('kl_floor'),
                d.update(sha256=schema.sha256(d['rows']))),
     r"missing fields \['kl_floor'\]")])
def test_a_damaged_old_unit_is_named(old_folder, change, message):
  _edit(next((old_folder / 'units').iterdir()), change)
  with pytest.raises(files.FileError, match=f'is damaged .*{message}'):
    results.open_store(old_folder).read_rows()


def test_writers_refuse_an_old_folder_and_name_the_command(old_folder):
  for write in (
      lambda: results.open_store(old_folder, create=True),
      lambda: results.open_store(old_folder).write_unit(*make_unit()),
      lambda: results.open_store(old_folder).write_manifest([make_entry()])):
    with pytest.raises(files.FileError) as error:
      write()
    assert 'run python -m experiments.convert_results' in str(error.value)
    assert '\n' not in str(error.value)


_convert = functools.partial(commands.run_module,
                             'experiments.convert_results')


def test_command_converts_a_folder(old_folder, tmp_path):
  done = _convert(f'--results_dir={old_folder}', f'--output_dir={tmp_path}/now')
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout.startswith('3 rows of 1 units')
  old, new = (results.open_store(f) for f in (old_folder, tmp_path / 'now'))
  assert new.schema_version == results.SCHEMA_VERSION
  assert repr(new.read_rows()) == repr(old.read_rows())
  assert new.read_manifests() == old.read_manifests()
  done = _convert(f'--results_dir={tmp_path}/now', f'--output_dir={tmp_path}/x')
  assert done.returncode == 2
  assert 'already has schema_version 4' in done.stderr


def test_command_makes_a_folder_of_a_published_csv(tmp_path):
  path = (pathlib.Path(__file__).parents[1] / 'leaderboards'
          / 'paper_D1000_l100' / 'scores.csv')
  done = _convert(f'--scores_csv={path}', f'--output_dir={tmp_path}/now')
  assert (done.returncode, done.stderr) == (0, '')
  rows = results.open_store(tmp_path / 'now').read_rows()
  assert len(rows) == 30
  assert {row['agent_config'].get('num_ensemble') for row in rows} == {
      None, 1, 3, 10, 30}
  done = _convert(f'--output_dir={tmp_path}/now')
  assert done.returncode == 2 and 'either --results_dir or' in done.stderr
  (tmp_path / 'bad.csv').write_text('a,b\n1,2\n')
  done = _convert(f'--scores_csv={tmp_path}/bad.csv',
                  f'--output_dir={tmp_path}/x')
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert 'is no scores.csv of an earlier report' in done.stderr
  assert not (tmp_path / 'x').exists()


def test_command_converts_the_rows_of_some_agents(old_folder, tmp_path):
  path = (pathlib.Path(__file__).parents[1] / 'leaderboards'
          / 'paper_D1000_l100' / 'scores.csv')
  done = _convert(f'--scores_csv={path}', f'--output_dir={tmp_path}/now',
                  '--agents=map,prior_only')
  assert (done.returncode, done.stderr) == (0, '')
  rows = results.open_store(tmp_path / 'now').read_rows()
  assert collections.Counter(row['agent'] for row in rows) == {
      'map': 3, 'prior_only': 3}
  # What is expected of other agents is left out with their rows.
  agent = results.open_store(old_folder).read_rows()[0]['agent']
  done = _convert(f'--results_dir={old_folder}', f'--output_dir={tmp_path}/x',
                  f'--agents={agent}')
  assert (done.returncode, done.stderr) == (0, '')
  assert {entry['agent'] for entry in results.open_store(
      tmp_path / 'x').read_entries()} == {agent}
  done = _convert(f'--scores_csv={path}', f'--output_dir={tmp_path}/none',
                  '--agents=mapp')
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert "--agents must be one of 'ensemble'" in done.stderr
  assert not (tmp_path / 'none').exists()


def test_row_ids_of_a_grid_are_hashes_of_the_whole_text():
  """What is shared is hashed once; the names are those of whole texts."""
  row = example_rows.make_row(agent='ensemble-K3')
  cells = [{'noise_std': 0.1, 'input_dim': 10}, {'dataset': 'a"b'}]
  found = results.RowIds(row, 'nngp', {'reference': 'bayes'}, 1000).row_ids(
      cells, [0, 7], ['none', 'val_nll'])
  expected = []
  for seed, cell, selection in itertools.product([0, 7], cells,
                                                 ['none', 'val_nll']):
    text = json.dumps({
        **{key: row[key] for key in ('agent', 'agent_config', 'dtype',
                                     'enumerate_indices')},
        'num_enn_samples': 1000, 'selection': selection,
        'problem': {'kind': 'nngp', 'seed': seed, 'cell': cell,
                    'ranking': {'reference': 'bayes'}}},
                      sort_keys=True, separators=(',', ':'))
    expected.append(hashlib.sha256(text.encode()).hexdigest()[:16])
  assert found == expected and len(set(found)) == 8
