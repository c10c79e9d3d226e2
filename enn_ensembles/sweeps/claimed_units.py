"""One unit run under a claim: nobody else computes it meanwhile.

What tells two writings of a unit's file apart is asked before what is done is
read, so that what another process writes between the two is known to be new.
"""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import pathlib
import time
from typing import NamedTuple

from enn_ensembles import results
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import devices
from enn_ensembles.machine import file_locks
from enn_ensembles.machine import files
from enn_ensembles.machine import progress
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units

# Folder of claims in the results folder.
CLAIMS_FOLDER = 'claims'


class Running(NamedTuple):
  """A unit that is being computed.

  Attributes:
    unit: the unit.
    stage: what it has come to; None where it has said nothing yet.
  """
  unit: work_units.WorkUnit
  stage: progress.Stage | None = None


Announce = Callable[[Sequence[Running]], None]


class Outcome(NamedTuple):
  """What became of a unit.

  Attributes:
    unit: the unit.
    num_ok: rows with this status, and so on.
    num_diverged: scored, but not finite.
    num_failed: the agent raised.
    num_missing: rows that were not written, since the worker died.
    seconds: wall time.
    message: what went wrong, one line; empty if nothing.
    details: the traceback of the first failed row; empty if there is none.
  """
  unit: work_units.WorkUnit
  num_ok: int
  num_diverged: int
  num_failed: int
  num_missing: int
  seconds: float
  message: str = ''
  details: str = ''

  @property
  def succeeded(self) -> bool:
    """Whether every row was computed; a diverged one was."""
    return not self.num_failed and not self.num_missing


class Job(NamedTuple):
  """A unit to run.

  Attributes:
    unit: the unit.
    written: what tells the version of its file that was there before the run;
      None for none.
    wait: whether to wait for a process that has claimed it.
  """
  unit: work_units.WorkUnit
  written: tuple[int, ...] | None
  wait: bool = False


def make_jobs(units: Sequence[work_units.WorkUnit],
              options: unit_results.RunOptions) -> list[Job]:
  """A job per unit, with the version of its file when the sweep began."""
  before = options.units_before
  return [Job(unit, _file_version(unit, options) if before is None
              else before.get(unit.run_id)) for unit in units]


def unit_versions(results_dir: files.PathLike) -> dict[str, tuple[int, ...]]:
  """run_id -> what tells the version of each unit's file.

  To be asked before what is done is read: what another process writes between
  the two is then known to be new.
  """
  found = {}
  folder = pathlib.Path(results_dir) / 'units'
  for path in files.list_files(folder, '.json'):
    version = _version_of(path)
    if version is not None:
      found[path.stem] = version
  return found


def _version_of(path: pathlib.Path) -> tuple[int, ...] | None:
  """What differs between two writings of a file; None for no file."""
  try:
    found = path.stat()
  except FileNotFoundError:
    return None
  return found.st_ino, found.st_mtime_ns, found.st_size


def _file_version(unit: work_units.WorkUnit, options: unit_results.RunOptions
                  ) -> tuple[int, ...] | None:
  """`_version_of` a unit's file."""
  return _version_of(
      results.ResultsStore(options.results_dir).unit_path(unit.run_id))


def run_claimed(job: Job, options: unit_results.RunOptions) -> Outcome | None:
  """Runs a unit that nobody else has claimed, and writes its rows.

  Returns:
    What became of it, also where another process has written it meanwhile; None
    if another is at it and `job` does not wait.
  """
  unit, start = job.unit, time.perf_counter()
  folder = pathlib.Path(options.results_dir, CLAIMS_FOLDER)
  with contextlib.suppress(OSError):  # Without it nobody claims anything.
    folder.mkdir(exist_ok=True)
  try:
    with file_locks.claim(folder / f'{unit.run_id}.lock', job.wait):
      if _file_version(unit, options) != job.written:
        found = results.ResultsStore(options.results_dir).read_unit(unit.run_id)
        if found and set(unit.row_ids()) <= {row['row_id']
                                             for row in found.rows}:
          return _outcome(unit, found.rows, start, '')
      return _run_and_write(unit, options)
  except file_locks.ClaimedError:
    return None


def _run_and_write(unit: work_units.WorkUnit,
                   options: unit_results.RunOptions) -> Outcome:
  """Runs a unit and writes its rows."""
  start = time.perf_counter()
  checkpoint = checkpoints.Checkpoint(
      options.results_dir, f'{unit.agent_id}-{unit.family.name}',
      {'agent': unit.agent, 'agent_config': unit.agent_config,
       'problems': [unit.family.kind, list(unit.family.cells),
                    unit.family.ranking], 'dtype': unit.dtype,
       'versions': one_unit.versions(), 'device': devices.device_name()},
      options.checkpoint_seconds)
  rows, details = one_unit.run_unit(unit, options, checkpoint)
  results.ResultsStore(options.results_dir).write_unit(unit.run_id, rows)
  checkpoint.clear()
  return _outcome(unit, rows, start, details)


def _outcome(unit: work_units.WorkUnit, rows: Sequence[results.Row],
             start: float, details: str) -> Outcome:
  """What became of a unit with these rows."""
  statuses = [row['status'] for row in rows]
  messages = [row['message'] for row in rows if row['message']]
  return Outcome(
      unit, statuses.count('ok'), statuses.count('diverged'),
      statuses.count('failed'), num_missing=0,
      seconds=time.perf_counter() - start,
      message=messages[0] if messages else '', details=details)
