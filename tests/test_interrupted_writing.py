"""Files are whole whoever writes beside, is killed, or finds the disk full."""

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import commands
import example_rows
from example_rows import make_store  # noqa: F401
import pytest

from enn_ensembles import results
from enn_ensembles.machine import array_files
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import files

make_row = example_rows.make_row
make_entry = example_rows.make_entry
make_unit = example_rows.make_unit


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
  kept_dir, digest = store.results_dir / 'checkpoints', '0123456789abcdef'
  store.write_unit(*make_unit())
  times = {
      store.results_dir / '.STORE.json.1.0123abcd.tmp': old,
      units / '.a.json.1.0123abcd.tmp': old,
      units / '.b.json.1.0123abcd.tmp': new,
      # The clock ran backwards: written in what is the future now.
      units / '.c.json.1.0123abcd.tmp': now + 10 * 86400,
      units / 'notes.txt': old, units / 'mine.tmp': old,
      # None of these is the project's.
      units / '.mine.tmp': old, store.results_dir / 'x' / '.a.1.0123abcd.tmp':
      old, kept_dir / 'best.checkpoint': now - 2e6,
      kept_dir / f'best-{digest}.checkpoint': now - 2e6,
      kept_dir / f'a-{digest}.checkpoint': old,
      kept_dir / f'b-{digest}.checkpoint': now - 2e6}
  for path, stamp in times.items():
    path.parent.mkdir(exist_ok=True)
    path.write_text('x')
    if path.name[:2] in ('a-', 'b-'):
      array_files.write(path, 'b', {})
    os.utime(path, (stamp, stamp))
  for path in units.glob('*.json'):
    os.utime(path, (0, 0))
  removed = [*files.remove_stale_files(store.results_dir,
                                             results.FOLDERS),
             *checkpoints.remove_stale(store.results_dir)]
  assert {path.name for path in removed} == {
      '.STORE.json.1.0123abcd.tmp', '.a.json.1.0123abcd.tmp',
      f'b-{digest}.checkpoint'}
  assert {path for path in times if path.exists()} == set(times) - set(removed)
  assert len(store.read_rows()) == 3
  assert not list(store.results_dir.glob('.clock*'))
  # A folder that is not there, or read-only, is no error.
  nowhere = store.results_dir / 'nowhere'
  assert files.remove_stale_files(nowhere, ('units',)) == []
  assert checkpoints.remove_stale(nowhere) == []


@pytest.fixture(name='small_disk')
def fixture_small_disk(tmp_path):
  """A file system of 256 kB."""
  with commands.small_disk(tmp_path / 'disk', '256k') as folder:
    yield folder


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
