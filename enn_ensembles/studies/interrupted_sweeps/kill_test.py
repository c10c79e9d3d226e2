"""A sweep that is killed again and again must leave what a plain run leaves.

After every kill the results folder must be readable, no unit that was written
may change, and no process may be left; no lock after a sweep. The files of the
leaderboard must be those of the plain run, but for the columns of timings.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import csv
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import time
from typing import Any

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.machine import preemption
from enn_ensembles.report import html_page
from enn_ensembles.studies.interrupted_sweeps import processes

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

# One size of problems: every start of the sweep reads its programs anew, which
# is most of what a quick test takes.
_QUICK_CONFIG = '''
INPUT_DIM = [2]
DATA_RATIO = [1]
NOISE_STD = [0.1]
SEED = [0, 1]
AGENTS = [{'agent': 'random_features', 'num_ensemble': 12, 'width': 16,
           'replica': list(range(30))}]
'''

# Units to be killed among: with fewer, kills hardly ever come between two.
_LEAST_UNITS, _LEAST_QUICK_UNITS = 60, 30


@dataclasses.dataclass
class Tally:
  """What happened to the sweeps that one signal killed."""
  kills: int = 0
  kills_in_work: int = 0  # After the first unit of a sweep, before its last.
  sweeps: int = 0
  rows_before_kill: int = 0
  longest_stop: float = 0.


class FailureError(Exception):
  """Something is not as it must be."""


def _unit_files(folder: pathlib.Path) -> list[pathlib.Path]:
  return list(folder.glob('units/*.json'))


def _snapshot(folder: pathlib.Path) -> dict[str, tuple[int, bytes]]:
  """Unit files, with times and contents."""
  return {path.name: (path.stat().st_mtime_ns, path.read_bytes())
          for path in _unit_files(folder)}


def _is_timing(column: str) -> bool:
  # A board's column may be a mean of a field, and so begin with its name.
  return 'seconds' in column or column.startswith(
      (*results.TIMING_FIELDS, *results.COST_FIELDS))


def read_tables(results_dir: pathlib.Path,
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


class KillTest:
  """The sweep, its plain run, and what is done to it.

  Args:
    folder: where everything goes, made by `make_folder`.
    launcher: source of the program that starts sweeps, see
      `processes.Launcher`.
    quick: half the units, of an agent that trains no network, instead of all
      kinds.
    seed: of the moments of kills.
  """

  def __init__(self, folder: pathlib.Path, launcher: str, quick: bool,
               seed: int):
    self._folder = folder
    self._problems = folder / 'problems'
    self._random = random.Random(seed)
    (folder / 'config.py').write_text(_QUICK_CONFIG if quick else _CONFIG)
    self._least_units = _LEAST_QUICK_UNITS if quick else _LEAST_UNITS
    self._launcher = processes.Launcher(launcher, folder / 'log')
    self._plain: dict[str, Any] = {}
    self._seconds: dict[int, tuple[float, float]] = {}

  def close(self) -> None:
    """Ends the process that starts sweeps."""
    self._launcher.close()

  def _flags(self, name: str, *more: str) -> list[str]:
    return [f'--config={self._folder / "config.py"}',
            f'--results_dir={self._folder / name}',
            f'--cache_dir={self._problems}',
            f'--compilation_cache_dir={self._folder / "compiled"}', *more]

  def run_plain(self, num_workers: Iterable[int]) -> None:
    """Runs the sweep undisturbed, and measures how long that takes.

    Raises:
      FailureError: it fails, or has too few units to be killed among.
    """
    for num in num_workers:
      name = f'plain{num}'
      start = time.monotonic()
      pid = self._launcher.start(self._flags(name, f'--num_workers={num}'))
      first = None
      while processes.is_running(pid):
        if first is None and _unit_files(self._folder / name):
          first = time.monotonic() - start
        time.sleep(0.01)
      if (code := self._launcher.wait(pid)):
        raise FailureError(f'the plain run ended with {code}: see the log')
      self._seconds[num] = (first or 0., time.monotonic() - start)
      tables = read_tables(self._folder / name, self._folder / f'{name}.board')
      self._plain[str(num)] = tables
      units = len(_snapshot(self._folder / name))
      print(f'plain run, num_workers={num}: {units} units, '
            f'{len(tables["scores.csv"])} rows, {self._seconds[num][1]:.1f} s, '
            f'the first unit after {self._seconds[num][0]:.1f} s', flush=True)
      if units < self._least_units:
        raise FailureError(f'the sweep has {units} units, fewer than '
                           f'{self._least_units}')

  def kill(self, signal_name: str, num_kills: int,
           num_workers: Sequence[int]) -> Tally:
    """Kills sweeps and runs them again; compares each that gets done.

    Args:
      signal_name: what they are killed with.
      num_kills: how often.
      num_workers: of the sweeps, in turns; `run_plain` has had each.

    Raises:
      FailureError: something is not as it must be.
      TimeoutError: processes are left.
    """
    tally = Tally()
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
                    tally: Tally, num_kills: int) -> bool:
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
        delay = self._random.uniform(0., 2 * (whole - first) / 10)
        while len(_unit_files(folder)) == len(before) and (
            processes.is_running(pid)):
          time.sleep(0.005)
      deadline = time.monotonic() + delay
      while time.monotonic() < deadline and processes.is_running(pid):
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
    processes.wait_until_gone(pid)
    self._check_folder(folder, before, signal_name != 'SIGKILL')
    if code == 0:
      return True
    if not killed or code not in (
        preemption.EXIT_CODE, -getattr(signal, signal_name)):
      raise FailureError(f'{name} ended with {code}: see the log')
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
        raise FailureError(f'{folder} is no store any more')
      return
    results.open_store(folder).read_rows()  # Raises if anything is torn.
    after = _snapshot(folder)
    for name, content in before.items():
      if after.get(name) != content:
        raise FailureError(f'{name} was written again')
    if complete_only:  # SIGKILL may leave files that nobody reads.
      left = [path for path in folder.rglob('*') if path.suffix == '.tmp'
              or path.parent.name == 'running']
      if left:
        raise FailureError(f'{left} are left')

  def _compare(self, name: str, num_workers: str) -> None:
    tables = read_tables(self._folder / name, self._folder / f'{name}.board')
    for table, rows in self._plain[num_workers].items():
      if tables[table] != rows:
        raise FailureError(f'{name}: {table} is not that of the plain run')
    left = [*(self._folder / name).glob('checkpoints/*'),
            *self._problems.glob('*.lock')]
    if left:
      raise FailureError(f'{left} are left')

  def share(self, num_processes: int) -> None:
    """Many processes, one results folder, one new problem cache.

    Raises:
      FailureError: their results are not those of the plain run.
    """
    cache = self._folder / 'shared_problems'
    arguments = [flag for flag in self._flags('shared')
                 if not flag.startswith('--cache_dir')]
    pids = [self._launcher.start([
        *arguments, f'--cache_dir={cache}', '--num_workers=1',
        f'--task_index={i}', f'--num_tasks={num_processes}'])
            for i in range(num_processes)]
    codes = [self._launcher.wait(pid) for pid in pids]
    if any(codes):
      raise FailureError(f'processes that share a folder ended with {codes}')
    folder = self._folder / 'shared'
    left = [path for root in (folder, cache) for path in root.rglob('.*')]
    left += [*(folder / 'running').glob('*'), *cache.glob('*.lock')]
    if left:
      raise FailureError(f'{left} are left')
    tables = read_tables(folder, self._folder / 'shared.board')
    plain = next(iter(self._plain.values()))
    # The units were cut otherwise, and are named otherwise.
    drop = lambda rows: [{key: value for key, value in row.items()
                          if key != 'run_id'} for row in rows]
    for table, rows in plain.items():
      if drop(tables[table]) != drop(rows):
        raise FailureError(f'{table} of {num_processes} processes is not that '
                           'of the plain run')


def make_folder(path: str) -> pathlib.Path:
  """The folder, empty but for a mark.

  Raises:
    ValueError: it holds what no kill test has made, or cannot be written to.
  """
  files.check_folder(path, 'output_dir')
  folder = pathlib.Path(path).resolve()
  if folder.is_dir() and any(folder.iterdir()):
    if not (folder / _MARK).exists():
      raise ValueError(f'output_dir {path!r} is not empty and was not made by '
                       'a kill test.')
    shutil.rmtree(folder)
  files.make_folder(folder, 'output_dir')
  (folder / _MARK).touch()
  return folder
