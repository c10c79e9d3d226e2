"""Files of checkpoints: what is kept, when, and which are not used."""

import os
import pathlib

import numpy as np
import pytest

from enn_ensembles.machine import checkpoints


def test_what_is_restored_is_what_was_offered(tmp_path):
  arrays = [np.arange(6, dtype=np.float32).reshape(2, 3),
            np.array([np.nan, np.inf, -0.]), np.zeros((0, 2), np.uint32)]
  part = checkpoints.Part({'a': [1, float('inf')], 'b': 'text'}, arrays)
  make = lambda folder=tmp_path, **identity: checkpoints.Checkpoint(
      folder, 'an agent/of some name', {'seed': 0, **identity}, 0.)
  assert make().restore('k') is None
  make().offer('k', lambda: part)
  path, = (tmp_path / 'checkpoints').iterdir()
  assert path.name.startswith('an_agent_of_some_name-')
  kept = make().restore('k')
  assert kept.info == part.info
  for a, b in zip(kept.arrays, arrays, strict=True):
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    assert a.shape == b.shape
  # Another part, another unit, another time of the same.
  assert make().restore('l') is None and make(seed=1).restore('k') is None
  make().offer('k', lambda: checkpoints.Part({'a': 2}))
  assert make().restore('k') == ({'a': 2}, [])


def test_nothing_is_made_between_the_intervals(tmp_path):
  checkpoint = checkpoints.Checkpoint(tmp_path, 'a', {}, seconds_between=3600.)
  made = []
  checkpoint.offer('k', lambda: made.append(1))
  assert not made and not list(tmp_path.iterdir())
  # A part that is offered twice is written once, as it was last.
  checkpoint.offer('k', lambda: checkpoints.Part({'n': 2}))
  checkpoint.offer('l', lambda: checkpoints.Part({'n': 3}))
  checkpoint.write()
  assert checkpoint.restore('k').info == {'n': 2}
  assert checkpoint.restore('l').info == {'n': 3}
  checkpoint.clear()
  assert not list((tmp_path / 'checkpoints').iterdir())


@pytest.mark.parametrize('damage', [
    lambda content: content[:-10], lambda content: b'',
    lambda content: content[:40], lambda content: content + b'x',
    lambda content: content.replace(b'"n": 1', b'"n": 2'),
    lambda content: content.replace(b'unit-a', b'unit-b')])
def test_a_damaged_checkpoint_is_not_used(tmp_path, damage):
  make = lambda: checkpoints.Checkpoint(tmp_path, 'a', {'unit': 'unit-a'}, 0.)
  make().offer('k', lambda: checkpoints.Part({'n': 1}, [np.arange(50)]))
  path, = (tmp_path / 'checkpoints').iterdir()
  path.write_bytes(damage(path.read_bytes()))
  again = make()
  assert again.restore('k') is None
  again.clear()  # It goes with the unit.
  assert not path.exists()


def test_a_full_disk_costs_the_checkpoint_only(tmp_path, monkeypatch):
  def full(_):
    raise OSError(28, 'No space left on device')
  monkeypatch.setattr(os, 'fsync', full)
  checkpoint = checkpoints.Checkpoint(tmp_path, 'a', {}, 0.)
  checkpoint.offer('k', lambda: checkpoints.Part({'n': 1}))
  assert checkpoint.restore('k') is None
  assert not list((tmp_path / 'checkpoints').iterdir())


def test_checkpoints_of_other_code_are_not_used(tmp_path, monkeypatch):
  make = lambda: checkpoints.Checkpoint(tmp_path, 'a', {}, 0.)
  make().offer('k', lambda: checkpoints.Part({'n': 1}))
  assert make().restore('k') is not None
  monkeypatch.setattr(checkpoints, '_source_digest', lambda: 'edited')
  assert make().restore('k') is None


def test_checkpoints_know_the_code_of_the_whole_package(monkeypatch):
  read = []
  plain = pathlib.Path.read_bytes
  monkeypatch.setattr(pathlib.Path, 'read_bytes',
                      lambda path: read.append(path) or plain(path))
  checkpoints._source_digest.__wrapped__()
  names = {path.name for path in read}
  assert {'base.py', 'checkpoints.py', 'program.py', 'ensemble.py'} <= names
