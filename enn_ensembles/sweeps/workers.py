"""Runs many work units, in this process or in pinned worker processes.

XLA's CPU loops keep one core busy whatever it has, so workers are what uses a
machine; a worker that dies takes one unit with it and is replaced.

Several processes may be given the same units, of one results folder: each
claims a unit while it computes it. What another has claimed is put off until
the rest is done; what another has written meanwhile is not computed again.
Where the file system has no locks, everybody computes everything, with the same
result.

A process that is told to stop (`machine.preemption`) keeps what it has of its
units (`machine.checkpoints`) and ends: after the seed that is being trained, or
after a minute's steps where a seed takes minutes, or, where the grace period
ends first, at once; what was kept before is kept.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import itertools
import multiprocessing
from multiprocessing import connection as connection_lib
import os
import pathlib
import signal
import time
import traceback
from typing import Any
from typing import NamedTuple

from enn_ensembles import results
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import devices
from enn_ensembles.machine import file_locks
from enn_ensembles.machine import files
from enn_ensembles.machine import preemption
from enn_ensembles.machine import progress
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import shares
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units


class Running(NamedTuple):
  """A unit that is being computed.

  Attributes:
    unit: the unit.
    stage: what it has come to; None where it has said nothing yet.
  """
  unit: work_units.WorkUnit
  stage: progress.Stage | None = None


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


def run(
    units: Sequence[work_units.WorkUnit], options: unit_results.RunOptions,
    num_workers: int,
    announce: Callable[[Sequence[Running]], None] = lambda _: None,
    in_this_process: bool = True) -> Iterator[Outcome]:
  """Runs units and writes their rows.

  The first worker takes the shortest unit each time, so that results come soon;
  the others the longest, so that none is left for the end. One process takes
  the shortest.

  Args:
    units: what to run; none may be done (`sweeps.narrow`).
    options: how.
    num_workers: processes. Each has one core, where no GPUs are seen: the
      number of threads decides last digits.
    announce: called with the units that are running, whenever that changes or
      one of them has come to another stage.
    in_this_process: whether a single worker is this process, with all of its
      cores: it must not have used jax before and keeps what `configure_jax`
      sets.

  Yields:
    The outcome of each unit when it is done, in the order of that.

  Raises:
    ValueError: num_workers < 1, a problem cannot be made or a row cannot be
      written.
    RuntimeError: a worker met a bug; the message has its traceback.
    preemption.Preempted: this process was told to stop, or a worker was. What
      is done is written; no worker is left.
  """
  if num_workers < 1:
    raise ValueError(f'num_workers must be >= 1, got {num_workers}.')
  units = shares.longest_first(shares.limit_inputs(units))
  num_workers = min(num_workers, len(units))
  if units and (num_workers > 1 or not in_this_process):
    yield from _run_in_workers(units, options, num_workers, announce)
  elif units:
    one_unit.configure_jax(options)
    jobs, put_off = _make_jobs(units[::-1], options), []
    for job in itertools.chain(jobs, put_off):  # Which grows meanwhile.
      preemption.stop_if_requested()
      announce([Running(job.unit)])
      with progress.listen(
          lambda stage, unit=job.unit: announce([Running(unit, stage)])):
        outcome = _run_claimed(job, options)
      if outcome is None:
        put_off.append(job._replace(wait=True))
      else:
        yield outcome
    announce([])


class _Job(NamedTuple):
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


def _make_jobs(units: Sequence[work_units.WorkUnit],
               options: unit_results.RunOptions) -> list[_Job]:
  before = options.units_before
  return [_Job(unit, _file_version(unit, options) if before is None
               else before.get(unit.run_id)) for unit in units]


def unit_versions(results_dir: files.PathLike) -> dict[str, tuple[int, ...]]:
  """run_id -> what tells the version of each unit's file.

  To be asked before what is done is read: what another process writes between
  the two is then known to be new.
  """
  found = {}
  folder = pathlib.Path(results_dir) / 'units'
  for path in files.list_files(folder, '.json'):
    with contextlib.suppress(FileNotFoundError):
      stat = path.stat()
      found[path.stem] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
  return found


def _file_version(unit: work_units.WorkUnit, options: unit_results.RunOptions
                  ) -> tuple[int, ...] | None:
  """What differs between two writings of a unit's file; None for no file."""
  store = results.ResultsStore(options.results_dir)
  try:
    found = store.unit_path(unit.run_id).stat()
  except FileNotFoundError:
    return None
  return found.st_ino, found.st_mtime_ns, found.st_size


def _run_claimed(job: _Job, options: unit_results.RunOptions) -> Outcome | None:
  """Runs a unit that nobody else has claimed, and writes its rows.

  Returns:
    What became of it, also where another process has written it meanwhile; None
    if another is at it and `job` does not wait.
  """
  unit, start = job.unit, time.perf_counter()
  folder = pathlib.Path(options.results_dir) / 'claims'
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


class _Worker(NamedTuple):
  """A worker process, as its parent sees it."""
  process: Any
  connection: connection_lib.Connection
  cores: Sequence[int]
  environment: Mapping[str, str]
  takes_shortest: bool


class _PutOff(NamedTuple):
  """A worker's answer where another process has claimed the unit."""


# How often the parent looks whether it was told to stop.
_POLL_SECONDS = 0.5


def _run_in_workers(
    units: Sequence[work_units.WorkUnit], options: unit_results.RunOptions,
    num_workers: int, announce: Callable[[Sequence[Running]], None]
) -> Iterator[Outcome]:
  """Hands units out to workers, one at a time, each to the first that is free.

  A unit is tried once: whatever kills workers, this ends. A worker that is told
  to stop stops them all.
  """
  waiting = list(reversed(_make_jobs(units, options)))
  cores, gpus = devices.available_cores(), devices.visible_gpus()
  environments = devices.worker_environments(num_workers, os.environ, gpus)
  busy: dict[connection_lib.Connection, tuple[_Worker, _Job, float]] = {}
  stages: dict[str, progress.Stage] = {}  # By run id.
  stopping = False

  def give(worker: _Worker) -> None:
    position = -1
    if worker.takes_shortest:  # What was put off comes first there.
      position = sum(job.wait for job in waiting)
      position = 0 if position == len(waiting) else position
    job = waiting.pop(position)
    busy[worker.connection] = (worker, job, time.perf_counter())
    try:
      worker.connection.send(job)
    except BrokenPipeError:
      pass  # It is dead, which reading from it will tell.

  try:
    for i in range(num_workers):
      # As far apart as they can be: neighbours may be one core's two threads.
      # With more workers than cores they share cores.
      share = cores[i * len(cores) // num_workers:
                    (i + 1) * len(cores) // num_workers]
      give(_start_worker((share if gpus else share[:1])
                         or [cores[i % len(cores)]], environments[i],
                         options, takes_shortest=i == 0))
    while busy:
      announce([Running(job.unit, stages.get(job.unit.run_id))
                for _, job, _ in busy.values()])
      if preemption.stop_requested() and not stopping:
        stopping = True
        waiting.clear()
        for worker, _, _ in busy.values():
          worker.process.terminate()  # By SIGTERM, which it hears of as we did.
      answered = connection_lib.wait(list(busy), _POLL_SECONDS)
      for ready in [connection for connection in busy
                    if connection in answered]:
        worker, job, start = busy.pop(ready)
        try:
          answer = ready.recv()
          if isinstance(answer, progress.Stage):
            stages[job.unit.run_id] = answer
            busy[ready] = worker, job, start
            continue
        except (EOFError, OSError):
          worker.process.join()
          if worker.process.exitcode == preemption.EXIT_CODE or stopping:
            answer = preemption.Preempted()
          else:
            answer = _dead_worker_outcome(worker, job.unit, start)
            if waiting:
              worker = _start_worker(worker.cores, worker.environment,
                                     options, worker.takes_shortest)
        if isinstance(answer, preemption.Preempted):
          preemption.request_stop()
          worker.connection.close()
          continue
        if isinstance(answer, BaseException):
          raise answer
        if isinstance(answer, _PutOff) and not stopping:
          waiting.insert(0, job._replace(wait=True))
        if waiting:
          give(worker)
        else:
          worker.connection.close()  # Which ends it.
        if not isinstance(answer, _PutOff):
          yield answer
    announce([])
    if stopping:
      raise preemption.Preempted('told to stop')
  finally:
    for worker, _, _ in busy.values():
      worker.process.kill()  # What is on the disk is whole at any moment.
      worker.process.join()


def _start_worker(cores: Sequence[int], environment: Mapping[str, str],
                  options: unit_results.RunOptions,
                  takes_shortest: bool) -> _Worker:
  """Starts a worker on its cores and its GPU."""
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  # A daemon: it ends with its parent, whatever ends that.
  process = context.Process(target=_work, args=(theirs, options), daemon=True)
  with devices.inherited_settings(cores, environment):
    # A Ctrl-C reaches the whole process group. Workers are born without an ear
    # for it: while they import, they would answer with a traceback.
    block = getattr(signal, 'pthread_sigmask', None)
    if block:
      block(signal.SIG_BLOCK, [signal.SIGINT])
    try:
      process.start()
    finally:
      if block:
        block(signal.SIG_UNBLOCK, [signal.SIGINT])
  theirs.close()  # The worker alone holds it: its death closes the pipe.
  return _Worker(process, ours, cores, environment, takes_shortest)


def _work(connection: connection_lib.Connection,
          options: unit_results.RunOptions) -> None:
  """The main function of a worker: runs what comes until the pipe is closed."""
  # Ctrl-C reaches the whole process group; the parent ends its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  with preemption.SignalHandlers(
      _worker_grace_seconds(options.grace_seconds),
      before_exit=lambda: files.finish_writing(
          0.5 * preemption.ENDING_SECONDS),
      parent_pid=parent.pid if parent is not None else None):
    one_unit.configure_jax(options)
    while True:
      try:
        job = connection.recv()
      except (EOFError, OSError):
        return
      try:
        preemption.stop_if_requested()
        with progress.listen(lambda stage: _tell(connection, stage)):
          answer = _run_claimed(job, options) or _PutOff()
      except preemption.Preempted as stop:
        answer = stop
      except ValueError as error:
        answer = ValueError(str(error))  # A mistake of the user's, as it is.
      except Exception:  # pylint: disable=broad-except
        # A bug: the parent raises it, with the traceback of where it happened.
        answer = RuntimeError(f'a worker failed:\n{traceback.format_exc()}')
      connection.send(answer)


def _tell(connection: connection_lib.Connection,
          stage: progress.Stage) -> None:
  """Sends a stage. Where the parent is gone, that is found out elsewhere."""
  with contextlib.suppress(OSError):
    connection.send(stage)


def _worker_grace_seconds(grace_seconds: float) -> float:
  """What a worker has, so that its parent ends within the grace period too."""
  return max(grace_seconds - 2 * preemption.ENDING_SECONDS,
             0.5 * grace_seconds)


def _dead_worker_outcome(worker: _Worker, unit: work_units.WorkUnit,
                         start: float) -> Outcome:
  """What is said of the unit that a dead worker had in hand."""
  code = worker.process.exitcode
  if code == -signal.SIGKILL:
    why = ('was killed by SIGKILL, as when memory runs out: try fewer '
           '--num_workers')
  else:
    why = (f'was killed by signal {-code}' if code < 0
           else f'ended with exit code {code}')
  return Outcome(unit, 0, 0, 0, num_missing=unit.num_rows,
                 seconds=time.perf_counter() - start,
                 message=f'the worker {why}; this unit has no rows.')
