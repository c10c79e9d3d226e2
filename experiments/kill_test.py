"""Kills a sweep again and again, and compares what it leaves with a plain run.

python -m experiments.kill_test --output_dir=DIR

A sweep of 66 work units is run once undisturbed. Then it is started, killed at
a random moment and started again, until that has happened --num_kills times
with each signal; sweeps that get done meanwhile are compared with the plain one
and begun anew, without the problems they have made. After every kill the
results folder must be readable, no unit that was written may change, and no
process may be left; no lock after a sweep. Then 16 processes share one sweep,
one results folder and one problem cache.

The files of the leaderboard must be those of the plain run, but for the columns
of timings.

Exit codes: 0 all is as it must be; 1 something is not; 2 bad input.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import csv
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

from absl import flags

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.machine import preemption
from enn_ensembles.report import html_page
from experiments import cli

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where everything goes; emptied first if a kill test '
    'made it.', required=True)
_NUM_KILLS = flags.DEFINE_integer('num_kills', 30, 'Kills with each signal.')
_SIGNALS = flags.DEFINE_list('signals', ['SIGKILL', 'SIGTERM'],
                             'What the sweep is killed with.')
_NUM_WORKERS = flags.DEFINE_list(
    'num_workers', ['1', '2'], 'Each kill is of a sweep with one of these, in '
    'turns.')
_NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', 16, 'Processes that share a sweep at the end; 0 for none.')
_QUICK = flags.DEFINE_bool(
    'quick', False, 'Agents that train nothing: seconds instead of minutes.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the moments.')

_MARK = 'KILL_TEST'  # A file that says that the folder is ours.

_CONFIG = '''
INPUT_DIM = [2, 3]
DATA_RATIO = [1, 2, 3]
NOISE_STD = [0.1, 1.0]
SEED = [0, 1, 2]
NUM_ENN_SAMPLES = 20
SMALL = {'hidden_sizes': (5,), 'num_batches': 50}
AGENTS = [
    {'agent': 'ensemble', 'num_ensemble': [2, 3], 'prior_scale': [0., 1.],
     'selection': ['none', 'oracle'], **SMALL},
    {'agent': 'layer_ensemble', 'num_options': 2, **SMALL},
    {'agent': 'batch_ensemble', 'num_ensemble': 3, **SMALL},
    {'agent': 'mc_dropout', **SMALL},
    {'agent': 'map', **SMALL},
    {'agent': 'exact_posterior', 'analytic': [True, False]},
    {'agent': 'prior_only'},
]
del SMALL
'''

_QUICK_CONFIG = '''
INPUT_DIM = [2]
DATA_RATIO = [1, 2, 3]
NOISE_STD = [0.1, 1.0]
SEED = [0, 1]
NUM_ENN_SAMPLES = 5
AGENTS = [{'agent': 'quick_agent', 'level': [float(i) for i in range(22)]}]
'''

_QUICK_AGENT = '''
import dataclasses
import time
import numpy as np

@dataclasses.dataclass(frozen=True)
class QuickConfig:
  level: float = 0.

def make_agent(config: QuickConfig):
  def agent(data, prior, key):
    time.sleep(0.01)
    return lambda x, key: np.full(
        [len(x), 1], config.level + np.asarray(key)[-1] % 7)
  return agent
'''

# Imports once and forks for every run: starting jax takes seconds. A line on
# stdin is a command, answered by a line on stdout.
_LAUNCHER = '''
import json, os, sys
from enn_ensembles.agents import batch_ensemble, ensemble, layer_ensemble
from enn_ensembles.agents import exact_posterior, map, mc_dropout, prior_only
from experiments import cli, run_sweep
for line in sys.stdin:
  command = json.loads(line)
  if 'wait' in command:
    _, status = os.waitpid(command['wait'], 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
    continue
  child = os.fork()
  if child:
    print(child, flush=True)
    continue
  os.setsid()
  log = os.open(command['log'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  os.dup2(log, 1)
  os.dup2(log, 2)
  sys.argv = ['run_sweep', *command['flags']]
  code = 70
  try:
    cli.run_main(run_sweep.main)
  except SystemExit as end:
    code = end.code or 0
  except BaseException:
    import traceback
    traceback.print_exc()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
'''


class _Launcher:
  """Starts sweeps and waits for them."""

  def __init__(self, log: pathlib.Path):
    self._log = str(log)
    self._process = subprocess.Popen(
        [sys.executable, '-c', _LAUNCHER], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True)

  def _ask(self, command: dict[str, Any]) -> int:
    stdin, stdout = self._process.stdin, self._process.stdout
    assert stdin is not None and stdout is not None  # They are pipes.
    stdin.write(json.dumps(command) + '\n')
    stdin.flush()
    return int(stdout.readline())

  def start(self, arguments: Sequence[str]) -> int:
    """The pid, which is that of a session too."""
    return self._ask({'flags': list(arguments), 'log': self._log})

  def wait(self, pid: int) -> int:
    """The exit code; minus the number of the signal that ended it."""
    return self._ask({'wait': pid})

  def close(self) -> None:
    """Ends it."""
    if self._process.stdin is not None:
      self._process.stdin.close()
    self._process.wait()


@dataclasses.dataclass
class _Tally:
  """What happened."""
  kills: int = 0
  kills_in_work: int = 0  # After the first unit of a sweep, before its last.
  sweeps: int = 0
  rows_before_kill: int = 0
  longest_stop: float = 0.


class _Failure(Exception):
  """Something is not as it must be."""


def _snapshot(folder: pathlib.Path) -> dict[str, tuple[int, bytes]]:
  """Unit files, with times and contents."""
  return {path.name: (path.stat().st_mtime_ns, path.read_bytes())
          for path in folder.glob('units/*.json')}


def _processes_of(session: int) -> list[int]:
  """Pids of a session, by /proc; zombies do not count."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = path.read_text().rpartition(')')[2].split()
    except OSError:
      continue
    if int(fields[3]) == session and fields[0] != 'Z':
      found.append(int(path.parent.name))
  return found


def _wait_until_gone(session: int) -> None:
  deadline = time.monotonic() + 30
  while _processes_of(session):
    if time.monotonic() > deadline:
      raise _Failure(f'processes {_processes_of(session)} are left')
    time.sleep(0.02)


def _is_timing(column: str) -> bool:
  return 'seconds' in column or (
      column.split('.')[0] in results.TIMING_FIELDS)


def _read_tables(results_dir: pathlib.Path,
                 output_dir: pathlib.Path) -> dict[str, list[dict[str, str]]]:
  """The leaderboard's csv files without their timings."""
  _, paths = html_page.build(results_dir, output_dir)
  tables = {}
  for name, path in paths.items():
    if name.endswith('.csv'):
      with open(path, newline='', encoding='utf-8') as file:
        tables[name] = [{key: value for key, value in row.items()
                         if not _is_timing(key)}
                        for row in csv.DictReader(file)]
  return tables


class _KillTest:
  """The sweep, its plain run, and what is done to it."""

  def __init__(self, folder: pathlib.Path, quick: bool, seed: int):
    self._folder = folder
    self._problems = folder / 'problems'
    self._random = random.Random(seed)
    (folder / 'config.py').write_text(_QUICK_CONFIG if quick else _CONFIG)
    (folder / 'quick_agent.py').write_text(_QUICK_AGENT)
    self._agent = [f'--agent_module={folder / "quick_agent.py"}'] * quick
    self._launcher = _Launcher(folder / 'log')
    self._plain: dict[str, Any] = {}
    self._seconds: dict[int, tuple[float, float]] = {}

  def close(self) -> None:
    self._launcher.close()

  def _flags(self, name: str, *more: str) -> list[str]:
    return [f'--config={self._folder / "config.py"}',
            f'--results_dir={self._folder / name}', *self._agent,
            f'--cache_dir={self._problems}',
            f'--compilation_cache_dir={self._folder / "compiled"}', *more]

  def run_plain(self, num_workers: Iterable[int]) -> None:
    """Runs the sweep undisturbed, and measures how long that takes."""
    for num in num_workers:
      name = f'plain{num}'
      start = time.monotonic()
      pid = self._launcher.start(self._flags(name, f'--num_workers={num}'))
      first = None
      while _processes_of(pid):
        if first is None and list((self._folder / name).glob('units/*.json')):
          first = time.monotonic() - start
        time.sleep(0.01)
      if (code := self._launcher.wait(pid)):
        raise _Failure(f'the plain run ended with {code}: see the log')
      self._seconds[num] = (first or 0., time.monotonic() - start)
      tables = _read_tables(self._folder / name, self._folder / f'{name}.board')
      self._plain[str(num)] = tables
      units = len(_snapshot(self._folder / name))
      print(f'plain run, num_workers={num}: {units} units, '
            f'{len(tables["scores.csv"])} rows, {self._seconds[num][1]:.1f} s, '
            f'the first unit after {self._seconds[num][0]:.1f} s', flush=True)
      if units < 60:
        raise _Failure(f'the sweep has {units} units, fewer than 60')

  def kill(self, signal_name: str, num_kills: int,
           num_workers: Sequence[int]) -> _Tally:
    """Kills sweeps and runs them again; compares each that gets done."""
    tally = _Tally()
    while tally.kills < num_kills:
      num = num_workers[tally.sweeps % len(num_workers)]
      name = f'{signal_name}{tally.sweeps}'
      # Kills are to come while problems are made, too.
      shutil.rmtree(self._problems, ignore_errors=True)
      while not self._run_and_kill(name, signal_name, num, tally, num_kills):
        pass
      tally.sweeps += 1
      self._compare(name, str(num))
    return tally

  def _run_and_kill(self, name: str, signal_name: str, num_workers: int,
                    tally: _Tally, num_kills: int) -> bool:
    """One run; whether the sweep is done."""
    folder = self._folder / name
    first, whole = self._seconds[num_workers]
    before = _snapshot(folder)
    pid = self._launcher.start(
        self._flags(name, f'--num_workers={num_workers}', '--grace_seconds=20'))
    killed = tally.kills < num_kills
    if killed:
      # Some moments are before the first unit of a run; otherwise a tenth of
      # the sweep's work is done between two kills, on average.
      if self._random.random() < 0.15:
        delay = self._random.uniform(0., first)
      else:
        delay = first + self._random.uniform(0., 2 * (whole - first) / 10)
      deadline = time.monotonic() + delay
      while time.monotonic() < deadline and _processes_of(pid):
        time.sleep(0.005)
      start = time.monotonic()
      try:
        if signal_name == 'SIGKILL' and self._random.random() < 0.5:
          os.killpg(pid, signal.SIGKILL)  # The machine is gone.
        else:
          os.kill(pid, getattr(signal, signal_name))
      except ProcessLookupError:
        pass  # It was done.
      code = self._launcher.wait(pid)
      tally.longest_stop = max(tally.longest_stop, time.monotonic() - start)
    else:
      code = self._launcher.wait(pid)
    _wait_until_gone(pid)
    self._check_folder(folder, before, signal_name != 'SIGKILL')
    if code == 0:
      return True
    if not killed or code not in (
        preemption.EXIT_CODE, -getattr(signal, signal_name)):
      raise _Failure(f'{name} ended with {code}: see the log')
    tally.kills += 1
    done = len(_snapshot(folder))
    tally.kills_in_work += 0 < done
    tally.rows_before_kill += done - len(before)
    return False

  def _check_folder(self, folder: pathlib.Path,
                    before: dict[str, tuple[int, bytes]],
                    complete_only: bool) -> None:
    """What must hold after every run, however it ended."""
    if not (folder / 'STORE.json').exists():
      if before:
        raise _Failure(f'{folder} is no store any more')
      return
    results.open_store(folder).read_rows()  # Raises if anything is torn.
    after = _snapshot(folder)
    for name, content in before.items():
      if after.get(name) != content:
        raise _Failure(f'{name} was written again')
    if complete_only:  # SIGKILL may leave files that nobody reads.
      left = [path for path in folder.rglob('*') if path.suffix == '.tmp'
              or path.parent.name == 'running']
      if left:
        raise _Failure(f'{left} are left')

  def _compare(self, name: str, num_workers: str) -> None:
    tables = _read_tables(self._folder / name, self._folder / f'{name}.board')
    for table, rows in self._plain[num_workers].items():
      if tables[table] != rows:
        raise _Failure(f'{name}: {table} is not that of the plain run')
    left = [*(self._folder / name).glob('checkpoints/*'),
            *self._problems.glob('*.lock')]
    if left:
      raise _Failure(f'{left} are left')

  def share(self, num_processes: int) -> None:
    """Many processes, one results folder, one new problem cache."""
    cache = self._folder / 'shared_problems'
    arguments = [flag for flag in self._flags('shared')
                 if not flag.startswith('--cache_dir')]
    pids = [self._launcher.start([
        *arguments, f'--cache_dir={cache}', '--num_workers=1',
        f'--task_index={i}', f'--num_tasks={num_processes}'])
            for i in range(num_processes)]
    codes = [self._launcher.wait(pid) for pid in pids]
    if any(codes):
      raise _Failure(f'processes that share a folder ended with {codes}')
    folder = self._folder / 'shared'
    left = [path for root in (folder, cache) for path in root.rglob('.*')]
    left += [*(folder / 'running').glob('*'), *cache.glob('*.lock')]
    if left:
      raise _Failure(f'{left} are left')
    tables = _read_tables(folder, self._folder / 'shared.board')
    plain = next(iter(self._plain.values()))
    # The units were cut otherwise, and are named otherwise.
    drop = lambda rows: [{key: value for key, value in row.items()
                          if key != 'run_id'} for row in rows]
    for table, rows in plain.items():
      if drop(tables[table]) != drop(rows):
        raise _Failure(f'{table} of {num_processes} processes is not that of '
                       'the plain run')


def _make_folder(path: str) -> pathlib.Path:
  """The folder, empty but for a mark."""
  folder = pathlib.Path(path).resolve()
  if folder.is_dir() and any(folder.iterdir()):
    if not (folder / _MARK).exists():
      raise ValueError(f'output_dir {path!r} is not empty and was not made by '
                       'a kill test.')
    shutil.rmtree(folder)
  files.make_folder(folder, 'output_dir')
  (folder / _MARK).touch()
  return folder


def _check_flags() -> list[int]:
  """The numbers of workers."""
  for name in _SIGNALS.value:
    if name not in ('SIGKILL', *preemption.SIGNALS):
      raise ValueError('signals must be among SIGKILL, '
                       f'{", ".join(preemption.SIGNALS)}, got {name!r}.')
  for flag, least in ((_NUM_KILLS, 1), (_NUM_PROCESSES, 0)):
    if flag.value < least:
      raise ValueError(f'{flag.name} must be >= {least}, got {flag.value}.')
  try:
    num_workers = [int(text) for text in _NUM_WORKERS.value]
  except ValueError:
    num_workers = []
  if not num_workers or min(num_workers) < 1:
    raise ValueError('num_workers must be numbers >= 1 with commas between, '
                     f'got {",".join(_NUM_WORKERS.value)!r}.')
  return num_workers


def main(_) -> int | None:
  num_workers = _check_flags()
  test = _KillTest(_make_folder(_OUTPUT_DIR.value), _QUICK.value, _SEED.value)
  try:
    test.run_plain(sorted(set(num_workers)))
    for name in _SIGNALS.value:
      tally = test.kill(name, _NUM_KILLS.value, num_workers)
      print(f'{name}: {tally.kills} kills ({tally.kills_in_work} of them with '
            f'units written), {tally.rows_before_kill} units written before '
            f'kills, {tally.sweeps} sweeps done and equal to the plain run; '
            f'the longest way from signal to end {tally.longest_stop:.2f} s',
            flush=True)
    if _NUM_PROCESSES.value:
      test.share(_NUM_PROCESSES.value)
      print(f'{_NUM_PROCESSES.value} processes on one folder and one cache: '
            'equal to the plain run')
  except _Failure as failure:
    print(f'failed: {failure}', file=sys.stderr)
    return 1
  finally:
    test.close()
  return 0


if __name__ == '__main__':
  cli.run_main(main)
