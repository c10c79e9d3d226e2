"""Folders of results are made and opened, or refused if they are no store."""

import json
import os
import pathlib
import shutil
import tempfile

import example_rows
from example_rows import make_store  # noqa: F401
import pytest

from enn_ensembles import results
from enn_ensembles.machine import files

make_row = example_rows.make_row
make_unit = example_rows.make_unit


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
