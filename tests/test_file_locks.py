"""Claims of files and of a machine's memory."""

import concurrent.futures
import contextlib
import subprocess
import sys
import threading

import pytest

from enn_ensembles.machine import file_locks

_HOLD = '''
import pathlib, sys, time
from enn_ensembles.machine import file_locks
with file_locks.claim(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(1200)
'''


@contextlib.contextmanager
def holder(path):
  """A process that has the claim, until it is killed."""
  process = subprocess.Popen([sys.executable, '-c', _HOLD, str(path)],
                             stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == 'held\n'
  try:
    yield process
  finally:
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_claim_is_had_by_one_at_a_time(tmp_path):
  path, inside, most = tmp_path / 'a.lock', [], []

  def work(number):
    for _ in range(20):
      with file_locks.claim(path):
        inside.append(number)
        most.append(len(inside))
        inside.remove(number)

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(work, range(8)))
  assert len(most) == 160 and max(most) == 1
  assert not path.exists()


def test_what_a_killed_process_left_is_removed_and_what_is_held_is_not(
    tmp_path):
  path = tmp_path / 'a.lock'
  with holder(path):
    file_locks.remove_abandoned(path)
    assert path.exists()
  assert path.exists()  # It was killed.
  file_locks.remove_abandoned(path)
  assert not path.exists()
  file_locks.remove_abandoned(path)  # Nothing to do is no error.


def test_abandoned_claims_of_a_folder_are_removed_and_all_else_stays(tmp_path):
  for name in ('a.lock', 'b.lock', 'units.json'):
    (tmp_path / name).touch()
  with holder(tmp_path / 'held.lock'):
    file_locks.remove_all_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        'held.lock', 'units.json'}
  file_locks.remove_all_abandoned(tmp_path / 'missing')  # No error.


def test_a_claim_is_had_when_its_holder_is_killed(tmp_path):
  path, had = tmp_path / 'a.lock', threading.Event()

  def wait():
    with file_locks.claim(path):
      had.set()

  with holder(path):
    thread = threading.Thread(target=wait)
    thread.start()
    assert not had.wait(0.3)
  assert had.wait(600)
  thread.join()
  assert not path.exists()


def test_a_folder_without_locks_makes_nobody_wait(tmp_path):
  with file_locks.claim(tmp_path / 'missing' / 'a.lock'):
    pass


@pytest.mark.parametrize('memory_mb, own_cores, together', [
    (1000., 2, 4), (2000., 2, 1),
    # Fewer processes have room beside each other, but always two.
    (2000., 3, 4), (2000., 8, 4), (3500., 8, 1)])
def test_large_work_is_done_one_at_a_time(memory_mb, own_cores, together,
                                          tmp_path, monkeypatch):
  """8 cores and 8 GB; two cores each: of 1 GB four fit, of 2 GB not quite."""
  monkeypatch.setattr(file_locks, '_machine_cores', lambda: 8)
  monkeypatch.setattr(file_locks, '_own_cores', lambda: own_cores)
  monkeypatch.setattr(file_locks, '_machine_memory_mb', lambda: 8000.)
  monkeypatch.setattr(file_locks.tempfile, 'gettempdir', lambda: tmp_path)
  inside, most = [], []
  barrier = threading.Barrier(4)
  longest_wait = 600 if together == 4 else 0.1

  def work(number):
    with file_locks.claim_memory(memory_mb):
      inside.append(number)
      # All four are inside at once, or nobody ever comes.
      with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait(longest_wait)
      most.append(len(inside))
      inside.remove(number)

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(work, range(4)))
  assert max(most) == together
