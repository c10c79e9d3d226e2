"""The one format of array files: what is read is what was written."""

import json
import math
import os
import threading

import numpy as np
import pytest

from enn_ensembles.machine import array_files
from enn_ensembles.machine import files

_ARRAYS = {
    'a': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b.c': np.array([np.nan, np.inf, -0.]), 'd': np.zeros((0, 2), np.uint32),
    'e': np.asfortranarray(np.arange(12.).reshape(3, 4)), 'f': np.array(7)}


@pytest.fixture(name='path')
def write_file(tmp_path):
  path = tmp_path / 'file.arrays'
  array_files.write(path, 'identity', _ARRAYS, {'n': [1, math.inf], 't': 'x'})
  return path


def test_what_is_read_is_what_was_written(path):
  info, arrays = array_files.read(path, 'identity')
  assert info == {'n': [1, math.inf], 't': 'x'}
  assert set(arrays) == set(_ARRAYS)
  for name, array in _ARRAYS.items():
    assert arrays[name].dtype == array.dtype
    assert arrays[name].shape == array.shape
    assert arrays[name].tobytes() == array.tobytes()
  assert [p.name for p in path.parent.iterdir()] == ['file.arrays']


def test_the_header_is_a_line_of_json_behind_the_first(path):
  magic, header, rest = path.read_bytes().split(b'\n', 2)
  assert magic == b'enn_ensembles arrays' and rest.startswith(b'PK')
  header = json.loads(header)
  assert set(header) == {'identity', 'info', 'sha256'}
  assert header['identity'] == 'identity' and len(header['sha256']) == 64


def test_another_identity_is_told(path):
  with pytest.raises(array_files.StaleError) as error:
    array_files.read(path, 'another')
  assert error.value.identity == 'identity'


@pytest.mark.parametrize('damage, message', [
    (lambda content: b'', 'no file of arrays'),
    (lambda content: content[:30], 'header is damaged'),
    (lambda content: b'x' + content, 'no file of arrays'),
    (lambda content: content[:-1], 'checksum'),
    (lambda content: content + b'x', 'checksum'),
    (lambda content: content.replace(b'"n": [1', b'"n": [2'), 'checksum'),
    (lambda content: content[:-300] + bytes([content[-300] ^ 1])
     + content[-299:], 'checksum'),
    (lambda content: content.split(b'\n')[0] + b'\n' + b'[' * 100_000,
     'header is damaged'),
    (lambda content: content.split(b'\n')[0] + b'\n{"identity": 3}\n',
     'header is damaged')])
def test_a_damaged_file_is_not_used(path, damage, message):
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(array_files.StaleError, match=message):
    array_files.read(path, 'identity')


def test_a_pipe_in_its_place_makes_nobody_wait(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  done = threading.Event()

  def read():
    with pytest.raises(OSError, match='no regular file'):
      array_files.read(tmp_path / 'pipe', 'identity')
    done.set()

  threading.Thread(target=read, daemon=True).start()
  assert done.wait(600)


def test_a_full_disk_leaves_what_was_there(path, monkeypatch):
  before = path.read_bytes()

  def full(_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(files.FileError, match='No space left'):
    array_files.write(path, 'identity', {'a': np.zeros(3)})
  assert path.read_bytes() == before
  assert [p.name for p in path.parent.iterdir()] == ['file.arrays']
