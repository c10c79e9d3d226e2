"""Manifests say what sweeps expect, each row once, or are named as damaged."""

import example_rows
from example_rows import make_store  # noqa: F401
import pytest

from enn_ensembles.machine import files

make_row = example_rows.make_row
make_entry = example_rows.make_entry
edit_json = example_rows.edit_json


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
    lambda path: edit_json(
        path, lambda d: d['entries'][0]['problem']['seeds'].append(9)),
    lambda path: edit_json(path, lambda d: d.pop('entries')),
], ids=['truncated', 'edited', 'no_entries'])
def test_damaged_manifest_is_named_with_what_to_do(store, damage):
  path = store.write_manifest([make_entry()])
  damage(path)
  with pytest.raises(files.FileError) as error:
    store.read_manifests()
  assert str(path) in str(error.value)
  assert 'Delete it and run the sweep again' in str(error.value)
