"""Who works on a results folder, and on what: small files that come and go.

  results_dir/running/<host>-<pid>-<random>.json

A process that runs a sweep writes one, renews it every 20 seconds and removes
it when it ends. They only tell: nothing waits for them and nothing is locked by
them, so that one that a killed process left behind does no harm. It is told
from a live one by its process where that can be looked up, by its age
elsewhere.

This module does not import jax.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
import pathlib
import re
import secrets
import socket
import threading
from typing import Any
from typing import NamedTuple

from enn_ensembles.machine import files
from enn_ensembles.machine import process_table
from enn_ensembles.machine import strict_json

_MOST_WORKERS = 1_000_000  # Of one process.
_RENEW_SECONDS = 20.
# Shared file systems may show a renewal to other hosts a minute late.
_STALE_SECONDS = 150.
_REMOVED_AFTER_SECONDS = 86_400.
# Units that take less leave no trace: a thousand of them are no thousand files.
_SETTLE_SECONDS = 1.

# The names of files here: <host>-<pid>-<random>.json.
_NAME = re.compile(r'.+-[0-9]+-[0-9a-f]{8}\.json', re.DOTALL)

# What tells the jobs of a cluster apart, shown as it is.
_JOB_VARIABLES = ('SLURM_JOB_ID', 'SLURM_ARRAY_JOB_ID', 'SLURM_ARRAY_TASK_ID',
                  'SLURM_RESTART_COUNT', 'PBS_JOBID', 'AWS_BATCH_JOB_ID',
                  'BATCH_JOB_UID')


class Worker(NamedTuple):
  """One file of the folder `running`.

  Attributes:
    path: the file.
    host: its name.
    pid: the process that runs the sweep; it may have worker processes.
    task: which share it does, e.g. '3 of 20'.
    num_workers: its processes that compute.
    job: the variables of its cluster job.
    entries: what it is computing: work units, as dicts of their fields.
    age_seconds: since the file was renewed, at least 0 whatever the clocks say.
    alive: whether the process still runs, as far as can be known.
    here: whether it is, or was, a process of this machine.
  """
  path: pathlib.Path
  host: str
  pid: int
  task: str
  num_workers: int
  job: Mapping[str, str]
  entries: Sequence[Mapping[str, Any]]
  age_seconds: float
  alive: bool
  here: bool


class Heartbeat:
  """The file of this process, while it is entered.

  Where the folder refuses it (a full disk), there is none: a sweep does not end
  for it.

  Args:
    results_dir: a results folder that exists.
    task: which share of the sweep this process does.
    num_workers: its processes that compute.
  """

  def __init__(self, results_dir: files.PathLike, task: str,
               num_workers: int):
    self._folder = pathlib.Path(results_dir) / 'running'
    name = f'{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.json'
    self._path = self._folder / name
    self._content: dict[str, Any] = {
        'host': socket.gethostname(), 'place': _place(), 'pid': os.getpid(),
        'pid_start': _start_of(os.getpid()), 'task': task,
        'num_workers': num_workers,
        'job': {name: os.environ[name] for name in _JOB_VARIABLES
                if os.environ.get(name)},
        'entries': []}
    self._lock = threading.Lock()
    self._wake = threading.Event()
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._renew, daemon=True)

  def __enter__(self) -> 'Heartbeat':
    self._write()
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self.close()
    self._thread.join()

  def close(self) -> None:
    """Removes the file, for good; any thread may."""
    self._closed.set()
    self._wake.set()
    # Whoever writes at this moment looks at `_closed` afterwards.
    self._remove()

  def set_entries(self, entries: Sequence[Mapping[str, Any]]) -> None:
    """Says what is being computed from now on: dicts that JSON can hold.

    The file is written at once where the entries' `run_id`s or their number
    change, else with the next renewal.
    """
    with self._lock:
      before = self._content['entries']
      self._content = {**self._content, 'entries': list(entries)}
    if [entry.get('run_id') for entry in entries] != [
        entry.get('run_id') for entry in before]:
      self._wake.set()

  def _renew(self) -> None:
    while not self._closed.is_set():
      if self._wake.wait(_RENEW_SECONDS):
        self._closed.wait(_SETTLE_SECONDS)
      self._wake.clear()
      self._write()

  def _write(self) -> None:
    with self._lock:
      text = json.dumps(self._content)
    temporary = self._path.with_name(f'.{self._path.name}.tmp')
    try:
      self._folder.mkdir(exist_ok=True)
      temporary.write_text(text)
      os.replace(temporary, self._path)
    except OSError:
      pass  # It only tells.
    if self._closed.is_set():
      self._remove()

  def _remove(self) -> None:
    try:
      self._path.unlink(missing_ok=True)
      self._path.with_name(f'.{self._path.name}.tmp').unlink(missing_ok=True)
    except OSError:
      pass


def read(results_dir: files.PathLike) -> list[Worker]:
  """The processes that say they work on a folder, dead ones included.

  A file that cannot be read is left out: it may be gone the next moment.
  """
  return [worker for _, worker in _read_all(results_dir) if worker is not None]


def remove_dead(results_dir: files.PathLike) -> list[pathlib.Path]:
  """Removes the files of processes that ended without doing so.

  Those are files of this machine whose process is gone, and files that nobody
  has renewed, or can read, for a day. What has another name than a heartbeat
  stays.

  Returns:
    What was removed. Files that cannot be are left.
  """
  folder = pathlib.Path(results_dir) / 'running'
  now, removed = files.file_system_time(folder), []
  for path, worker in _read_all(results_dir):
    if not _NAME.fullmatch(path.name):
      continue
    try:
      gone = worker is not None and worker.here and not worker.alive
      if gone or now - path.stat().st_mtime > _REMOVED_AFTER_SECONDS:
        path.unlink()
        removed.append(path)
    except OSError:
      continue  # Another process was faster, or the folder is read-only.
  return removed


def _read_all(results_dir: files.PathLike
              ) -> list[tuple[pathlib.Path, Worker | None]]:
  """Every file, with what it says; None for what cannot be read."""
  folder = pathlib.Path(results_dir) / 'running'
  now, found = files.file_system_time(folder), []
  for path in files.list_files(folder, '.json'):
    try:
      content = strict_json.parse(files.read_bytes(path))
      age = max(0., now - path.stat().st_mtime)
      _check_content(content)
    except (OSError, ValueError):
      found.append((path, None))
      continue
    here = bool(content['place']) and content['place'] == _place()
    alive = age < _STALE_SECONDS
    if here:
      start = _start_of(content['pid'])
      alive = start is not None and start == content['pid_start']
    found.append((path, Worker(
        path, content['host'], content['pid'], content['task'],
        content['num_workers'], content['job'], content['entries'], age, alive,
        here)))
  return found


_FIELD_TYPES: Mapping[str, type | tuple[type, ...]] = {
    'host': str, 'place': str, 'pid': int, 'pid_start': (str, type(None)),
    'task': str, 'num_workers': int, 'job': dict, 'entries': list}


def _check_content(content: Mapping[str, Any]) -> None:
  """ValueError unless every field that is read is of its type."""
  for name, kind in _FIELD_TYPES.items():
    if name not in content or not isinstance(content[name], kind):
      raise ValueError(f'{name} is missing or of another type')
  if not all(isinstance(value, str) for value in content['job'].values()):
    raise ValueError('job must hold texts')
  if not 0 <= content['num_workers'] <= _MOST_WORKERS:
    raise ValueError(f'num_workers must be at most {_MOST_WORKERS}')
  if not all(isinstance(entry, dict) for entry in content['entries']):
    raise ValueError('entries must be objects')


def _place() -> str:
  """Where a pid has a meaning: this boot of this machine, this container."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:
    return ''  # No Linux: age alone tells.


def _start_of(pid: int) -> str | None:
  """When a process started, in the kernel's ticks; None if there is none.

  Pids are used again; a pid and its start are not.
  """
  fields = process_table.fields_of(pid)
  return None if fields is None else fields[19]
