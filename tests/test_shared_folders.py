"""Folders that others share: what they left, and what they may not read."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import example_rows
from example_rows import make_store  # noqa: F401
import pytest

from enn_ensembles import agents
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.machine import file_locks
from enn_ensembles.machine import files
from enn_ensembles.machine import heartbeats
from enn_ensembles.machine import job_arrays
from enn_ensembles.machine import preemption
from enn_ensembles.machine import strict_json
from enn_ensembles.results import conversion

_DEEP = '[' * 100_000 + ']' * 100_000


def write_unit(store, run_id, **fields):
  row = example_rows.make_row(run_id=run_id, row_id=run_id, **fields)
  return store.write_unit(run_id, [row])


@pytest.fixture(name='nobody')
def become_nobody(store):
  """This process is another user, who may not list what root has closed."""
  write_unit(store, 'a')
  store.write_manifest([example_rows.make_entry()])
  user = os.geteuid()
  if user != 0:
    pytest.skip('this needs root, which can become another user')
  # Folders of the test, and of the process that runs it beside others.
  for path in store.results_dir.parents:
    if path.stat().st_uid == 0 and path.name.startswith(('pytest', 'popen')):
      path.chmod(0o755)
  store.results_dir.parent.chmod(0o755)
  os.seteuid(65534)
  try:
    yield
  finally:
    os.seteuid(user)


@pytest.mark.parametrize('folder, read', [
    ('units', lambda store: store.read_rows()),
    ('units', lambda store: results.done_row_ids(store)),
    ('manifests', lambda store: store.read_manifests())])
def test_a_folder_that_cannot_be_listed_is_not_empty(store, nobody, folder,
                                                     read):
  del nobody
  assert read(store)
  os.seteuid(0)
  (store.results_dir / folder).chmod(0o700)
  os.seteuid(65534)
  with pytest.raises(files.FileError, match=f'cannot list .*{folder}: Perm'):
    read(store)


def test_what_is_in_a_closed_folder_is_not_called_missing(store, nobody):
  del nobody
  path = store.results_dir / 'units' / 'a.py'
  assert files.why_no_file(path) == 'which does not exist'
  assert files.why_no_file(path.parent) == 'which is no file'
  os.seteuid(0)
  path.parent.chmod(0o700)
  os.seteuid(65534)
  why = 'which cannot be looked at: Permission denied'
  assert files.why_no_file(path) == why
  with pytest.raises(ValueError, match=f"config must be .*a.py', {why}"):
    sweeps.find_config(path)
  with pytest.raises(ValueError, match=f"agent_module must .*a.py', {why}"):
    agents.load_agent(str(path))


def test_a_folder_on_a_disk_that_is_away_is_not_empty(store):
  (store.results_dir / 'units').rmdir()
  assert not store.read_units()
  (store.results_dir / 'units').symlink_to('/no/such/disk')
  with pytest.raises(files.FileError, match='cannot list .*units: it is a sy'):
    store.read_units()


def test_pipes_sockets_and_links_to_nowhere_are_skipped(store, caplog):
  write_unit(store, 'a')
  units = store.results_dir / 'units'
  os.mkfifo(units / 'pipe.json')
  (units / 'link.json').symlink_to(units / 'nowhere')
  (units / 'loop.json').symlink_to(units / 'loop.json')
  (units / 'folder.json').mkdir()
  server = socket.socket(socket.AF_UNIX)
  before = os.getcwd()
  os.chdir(units)  # Paths of sockets are short.
  server.bind('socket.json')
  os.chdir(before)
  found = []
  thread = threading.Thread(target=lambda: found.extend(store.read_units()),
                            daemon=True)
  thread.start()
  thread.join(600)
  server.close()
  assert [unit.run_id for unit in found] == ['a']
  said = ' '.join(record.getMessage() for record in caplog.records)
  assert all(name in said for name in ('pipe.json', 'socket.json', 'link.json',
                                       'loop.json', 'folder.json'))


def test_a_link_that_cannot_be_followed_is_named(store, nobody, tmp_path):
  """What it leads to may be there, and hold rows."""
  del nobody
  os.seteuid(0)
  closed = tmp_path / 'closed'
  closed.mkdir(mode=0o700)
  unit = store.results_dir / 'units' / 'b.json'
  unit.symlink_to(closed / 'b.json')
  os.seteuid(65534)
  with pytest.raises(files.FileError, match=f'{unit}: Permission denied'):
    store.read_rows()


def test_all_units_that_cannot_be_read_are_named(store, nobody):
  del nobody
  os.seteuid(0)
  paths = [write_unit(store, name) for name in 'bcd']
  for path in paths[:2]:
    path.chmod(0)
  paths[2].write_text('{')
  os.seteuid(65534)
  with pytest.raises(files.FileError) as error:
    store.read_rows()
  message = str(error.value)
  assert message.startswith(
      f'cannot read {paths[0]} (Permission denied), {paths[1]} (Permission '
      f'denied). {paths[2]} is damaged (')


def test_all_damaged_units_are_named_at_once(store):
  paths = [write_unit(store, name) for name in 'abcd']
  paths[0].write_text('{')
  paths[2].write_text(_DEEP)
  paths[3].write_bytes(paths[3].read_bytes().replace(b'0.5', b'0.6', 1))
  with pytest.raises(files.FileError) as error:
    store.read_rows()
  message = str(error.value)
  assert message.startswith('3 files are damaged: ') and '\n' not in message
  assert [str(path) in message for path in paths] == [True, False, True, True]
  assert 'nested too deeply' in message


@pytest.mark.parametrize('text', [
    _DEEP, '[]', '{"a": NaN}', '\xff', '', '{"a": ' * 100_000])
def test_strict_json_refuses_in_one_way(text):
  with pytest.raises(ValueError):
    strict_json.parse(text.encode('latin-1'))
  assert strict_json.parse(b'{"a": 1}') == {'a': 1}


def test_a_lone_surrogate_keeps_nobody_from_reading(store):
  write_unit(store, 'a', kl=None, message='cannot open \udcff')
  (row,) = store.read_rows()
  assert row['message'] == 'cannot open \ufffd'
  # As an older program has written it.
  path = write_unit(store, 'b', kl=None, message='MARK')
  document = json.loads(path.read_text())
  document['rows'][0]['message'] = 'bad \ud800'
  document['sha256'] = results.schema.sha256(document['rows'])
  path.write_text(json.dumps(document))
  rows = {row['row_id']: row for row in store.read_rows()}
  assert rows['b']['message'] == 'bad \ufffd'


# Who is at work.


def write_heartbeat(folder, name, **fields):
  running = folder / 'running'
  running.mkdir(exist_ok=True)
  content = {'host': 'h', 'place': '', 'pid': 1, 'pid_start': '1', 'task': '',
             'num_workers': 1, 'job': {}, 'entries': [], **fields}
  path = running / f'{name}.json'
  path.write_text(json.dumps(content))
  return path


@pytest.mark.parametrize('fields', [
    {'pid': 'x'}, {'pid': None}, {'host': 3}, {'num_workers': '2'},
    {'job': []}, {'job': {'a': 1}}, {'entries': {}}, {'entries': [1]},
    {'place': None}])
def test_heartbeats_of_wrong_types_are_left_out(tmp_path, fields):
  write_heartbeat(tmp_path, 'good')
  write_heartbeat(tmp_path, 'bad', **fields)
  (tmp_path / 'running' / 'list.json').write_text('[1]')
  (tmp_path / 'running' / 'deep.json').write_text(_DEEP)
  os.mkfifo(tmp_path / 'running' / 'pipe.json')
  assert [w.path.name for w in heartbeats.read(tmp_path)] == ['good.json']


@pytest.mark.skipif(not heartbeats._place(), reason='this needs /proc')
def test_heartbeats_of_the_dead_are_removed(tmp_path):
  alive = write_heartbeat(
      tmp_path, 'alive-1-0123abcd', place=heartbeats._place(), pid=os.getpid(),
      pid_start=heartbeats._start_of(os.getpid()))
  write_heartbeat(tmp_path, 'killed-1-0123abcd', place=heartbeats._place(),
                  pid=os.getpid(), pid_start='7')
  theirs = write_heartbeat(tmp_path, 'notes', place=heartbeats._place(),
                           pid=os.getpid(), pid_start='7')
  elsewhere = write_heartbeat(tmp_path, 'elsewhere-1-0123abcd')
  old = write_heartbeat(tmp_path, 'old-1-0123abcd')
  broken, old_broken = (tmp_path / 'running' / name
                        for name in ('broken-1-0123abcd.json',
                                     'old_broken-1-0123abcd.json'))
  for path in (broken, old_broken):
    path.write_text('[')
  for path in (old, old_broken, theirs):
    os.utime(path, (time.time() - 90_000,) * 2)
  removed = heartbeats.remove_dead(tmp_path)
  assert {path.name.partition('-')[0] for path in removed} == {
      'killed', 'old', 'old_broken'}
  assert {path.name for path in (tmp_path / 'running').iterdir()} == {
      path.name for path in (alive, elsewhere, broken, theirs)}


# Claims.

_HOLD = '''
import pathlib, sys, time
from enn_ensembles.machine import file_locks
with file_locks.claim(pathlib.Path(sys.argv[1])) as claimed:
  print(claimed, flush=True)
  time.sleep(1200)
'''


@pytest.fixture(name='holder')
def hold(tmp_path):
  process = subprocess.Popen(
      [sys.executable, '-c', _HOLD, str(tmp_path / 'a.lock')],
      stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == 'True\n'
  yield process
  process.kill()
  process.wait()
  process.stdout.close()


def test_who_waits_says_whom_for(tmp_path, holder, monkeypatch, caplog):
  monkeypatch.setattr(file_locks, '_SECONDS_BEFORE_LINE', 0.)
  monkeypatch.setattr(file_locks, '_SECONDS_BETWEEN_LINES', 0.2)
  path = tmp_path / 'a.lock'
  with pytest.raises(file_locks.ClaimedError, match=f'process {holder.pid} on'):
    with file_locks.claim(path, wait=False):
      pass
  had = threading.Event()

  def wait():
    with file_locks.claim(path):
      had.set()

  holder.send_signal(signal.SIGSTOP)
  start = time.monotonic()
  thread = threading.Thread(target=wait, daemon=True)
  thread.start()
  lines = lambda: [record.getMessage() for record in caplog.records]
  deadline = start + 600
  while len(lines()) < 3 or 'which is stopped' not in lines()[-1]:
    assert not had.wait(0.1) and time.monotonic() < deadline
  # They come in 0.2 seconds, and not in every look at the lock.
  assert len(lines()) <= 2 + (time.monotonic() - start) / 0.2
  lines = lines()
  for line in lines:
    assert f'until process {holder.pid} on {socket.gethostname()}' in line
    assert str(path) in line
  assert f'which is stopped (kill -CONT {holder.pid}' in lines[-1]
  holder.kill()
  assert had.wait(600)
  thread.join()


def test_who_is_told_to_stop_waits_no_longer(tmp_path, holder):
  del holder
  preemption.request_stop()
  try:
    with pytest.raises(preemption.Preempted):
      with file_locks.claim(tmp_path / 'a.lock'):
        pass
  finally:
    preemption._requested.clear()


def test_a_folder_without_locks_is_told_apart(tmp_path, monkeypatch, caplog):
  def refuse(*_):
    raise OSError(37, 'No locks available')

  with file_locks.claim(tmp_path / 'a.lock') as claimed:
    assert claimed
  monkeypatch.setattr(file_locks.fcntl, 'flock', refuse)
  with file_locks.claim(tmp_path / 'a.lock', wait=False) as claimed:
    assert not claimed
  assert 'No locks available' in caplog.text


def test_a_claim_follows_no_link(tmp_path):
  (tmp_path / 'precious').write_text('mine')
  (tmp_path / 'a.lock').symlink_to(tmp_path / 'precious')
  with file_locks.claim(tmp_path / 'a.lock') as claimed:
    assert not claimed
  assert (tmp_path / 'precious').read_text() == 'mine'
  assert (tmp_path / 'a.lock').is_symlink()


@pytest.mark.parametrize('trap', ['link', 'open', 'file'])
def test_the_lock_of_the_machine_is_in_a_folder_of_ones_own(
    tmp_path, monkeypatch, caplog, trap):
  monkeypatch.setattr(file_locks.tempfile, 'gettempdir', lambda: tmp_path)
  folder = file_locks.machine_folder()
  assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
  assert file_locks.machine_folder() == folder and not caplog.records
  folder.rmdir()
  if trap == 'link':
    (tmp_path / 'of_another').mkdir(mode=0o700)
    folder.symlink_to(tmp_path / 'of_another')
  elif trap == 'open':
    folder.mkdir()
    folder.chmod(0o777)
  else:
    folder.write_text('')
  assert file_locks.machine_folder() is None
  assert 'is not a folder of this user alone' in caplog.text


def test_a_private_folder(tmp_path):
  folder = files.make_private_folder(tmp_path / 'a' / 'b', '--cache_dir')
  assert folder.stat().st_mode & 0o777 == 0o700
  folder.chmod(0o755)  # Others may read it.
  files.make_private_folder(folder, '--cache_dir')
  for mode in (0o775, 0o757):
    folder.chmod(mode)
    with pytest.raises(files.FileError, match='can be written to by other us'):
      files.make_private_folder(folder, '--cache_dir')
  if os.getuid() == 0:
    folder.chmod(0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(files.FileError, match='belongs to another user'):
      files.make_private_folder(folder, '--cache_dir')


def test_tasks_are_not_without_bound():
  assert job_arrays.choose_task(0, 10**7, {}).num_tasks == 10**7
  with pytest.raises(ValueError, match='num_tasks must be at most 10000000'):
    job_arrays.choose_task(0, 10**8, {})


def test_a_scores_csv_that_is_a_pipe_is_refused(tmp_path):
  os.mkfifo(tmp_path / 'scores.csv')
  with pytest.raises(files.FileError, match='no regular file'):
    conversion.rows_from_scores_csv(tmp_path / 'scores.csv')
