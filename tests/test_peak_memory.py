"""The peak of a process's memory, from where it is counted anew."""

import pathlib

import numpy as np
import pytest

from enn_ensembles.machine import peak_memory


def test_the_peak_since_the_start_never_falls():
  before = peak_memory.since_start_mb()
  if before is None:
    pytest.skip('this system does not say it')
  assert 10 < before <= peak_memory.since_start_mb()


def test_the_peak_is_that_since_the_reset():
  if not peak_memory.reset():
    pytest.skip('this system does not count anew')
  before = peak_memory.read_mb()
  held = np.ones(20_000_000)  # 160 MB.
  del held
  after = peak_memory.read_mb()
  assert before > 10 and after > before + 100
  assert peak_memory.reset()
  assert peak_memory.read_mb() < after - 100


def test_systems_that_do_not_say_it(tmp_path, monkeypatch):
  monkeypatch.setattr(peak_memory, '_CLEAR', tmp_path / 'none' / 'clear_refs')
  monkeypatch.setattr(peak_memory, '_STATUS', tmp_path / 'status')
  assert not peak_memory.reset() and peak_memory.read_mb() is None
  pathlib.Path(tmp_path / 'status').write_text('Name:\tpython\n')
  assert peak_memory.read_mb() is None
