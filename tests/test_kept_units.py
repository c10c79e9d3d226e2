"""Parts of a study that are kept: found again, and nothing else is taken."""

import math
import os

import pytest

from enn_ensembles.machine import files
from enn_ensembles.studies import kept_units

LINES = [{'agent': 'a', 'kl': 1.5}, {'agent': 'b', 'kl': math.inf}]


def test_what_is_kept_is_not_computed_again(tmp_path):
  path, calls = tmp_path / 'unit.json', []

  def run():
    calls.append(1)
    return LINES

  assert kept_units.find_or_run(path, None, kept_units.are_lines) is None
  for _ in range(2):
    assert kept_units.find_or_run(path, run, kept_units.are_lines) == LINES
  assert kept_units.find_or_run(path, None, kept_units.are_lines) == LINES
  assert len(calls) == 1


@pytest.mark.parametrize('content, reason', [
    (b'', 'Expecting value'), (b'[{"agent": "a"', 'delimiter'),
    (b'\xff\xfe', 'damaged'), (b'[' * 100_000, 'damaged'),
    (b'{"lines": []}', 'something else'), (b'[1]', 'something else'),
    (b'null', 'something else')])
def test_what_is_damaged_is_named_and_kept(tmp_path, content, reason):
  path = tmp_path / 'unit.json'
  path.write_bytes(content)
  for run in (None, lambda: LINES):
    with pytest.raises(ValueError, match=reason) as caught:
      kept_units.find_or_run(path, run, kept_units.are_lines)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)
    assert 'Delete it' in str(caught.value)
  assert path.read_bytes() == content


def test_what_is_no_regular_file_is_refused(tmp_path):
  path = tmp_path / 'unit.json'
  os.mkfifo(path)  # To open one for reading waits for who writes.
  with pytest.raises(ValueError, match='unit.json cannot be read: it is no'):
    kept_units.find_or_run(path, lambda: LINES, kept_units.are_lines)
  path.unlink()
  path.symlink_to(path)
  with pytest.raises(ValueError, match='unit.json cannot be read'):
    kept_units.find_or_run(path, lambda: LINES, kept_units.are_lines)


def test_a_folder_that_takes_no_file_is_named(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises((ValueError, files.FileError), match='file'):
    kept_units.find_or_run(tmp_path / 'file' / 'unit.json', lambda: LINES,
                           kept_units.are_lines)
