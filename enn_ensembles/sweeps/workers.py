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

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import itertools
import multiprocessing
from multiprocessing import connection as connection_lib
import os
import signal
import time
from typing import Any
from typing import NamedTuple

from enn_ensembles.machine import core_claims
from enn_ensembles.machine import devices
from enn_ensembles.machine import files
from enn_ensembles.machine import preemption
from enn_ensembles.machine import progress
from enn_ensembles.machine import worker_processes
from enn_ensembles.sweeps import claimed_units
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import shares
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units


def run(
    units: Sequence[work_units.WorkUnit], options: unit_results.RunOptions,
    num_workers: int,
    announce: claimed_units.Announce = lambda _: None,
    in_this_process: bool = True) -> Iterator[claimed_units.Outcome]:
  """Runs units and writes their rows.

  The first worker takes the shortest unit each time, so that results come soon;
  the others the longest, so that none is left for the end. One process takes
  the shortest.

  Args:
    units: what to run; none may be done (`sweeps.narrow`).
    options: how.
    num_workers: processes. Each has one core, where no GPUs are seen: the
      number of threads decides last digits. It is one that no worker of another
      sweep has, if there is any.
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
    gpus = devices.visible_gpus()
    environments = devices.worker_environments(num_workers, os.environ, gpus)
    with _choose_cores(num_workers, bool(gpus)) as cores:
      yield from _run_in_workers(units, options, cores, environments, announce)
  elif units:
    one_unit.configure_jax(options)
    jobs, put_off = claimed_units.make_jobs(units[::-1], options), []
    for job in itertools.chain(jobs, put_off):  # Which grows meanwhile.
      preemption.stop_if_requested()
      announce([claimed_units.Running(job.unit)])
      with progress.listen(lambda stage, unit=job.unit: announce(
          [claimed_units.Running(unit, stage)])):
        outcome = claimed_units.run_claimed(job, options)
      if outcome is None:
        put_off.append(job._replace(wait=True))
      else:
        yield outcome
    announce([])


class _Worker(NamedTuple):
  """A worker process, as its parent sees it."""
  process: Any
  connection: connection_lib.Connection
  cores: Sequence[int]
  environment: Mapping[str, str]
  takes_shortest: bool


class _PutOff(NamedTuple):
  """A worker's answer where another process has claimed the unit."""


class _Waiting:
  """Jobs that nobody has yet; what is put off comes after all others.

  Taking one costs the same however many there are: sweeps have 100,000.

  Args:
    jobs: the longest first.
  """

  def __init__(self, jobs: Iterable[claimed_units.Job]):
    self._fresh = collections.deque(jobs)
    self._put_off: collections.deque[claimed_units.Job] = collections.deque()

  def __bool__(self) -> bool:
    return bool(self._fresh or self._put_off)

  def take(self, shortest: bool) -> claimed_units.Job:
    """The shortest or the longest job; of what was put off last or first."""
    if self._fresh:
      return self._fresh.pop() if shortest else self._fresh.popleft()
    return self._put_off.pop() if shortest else self._put_off.popleft()

  def put_off(self, job: claimed_units.Job) -> None:
    """Takes back a job whose unit another process has claimed."""
    self._put_off.append(job._replace(wait=True))

  def clear(self) -> None:
    """Forgets all jobs."""
    self._fresh.clear()
    self._put_off.clear()


class _Busy(NamedTuple):
  """A worker at work.

  Attributes:
    worker: it.
    job: what it has.
    start: when it got that, s.
  """
  worker: _Worker
  job: claimed_units.Job
  start: float


# How often the parent looks whether it was told to stop.
_POLL_SECONDS = 0.5


@contextlib.contextmanager
def _choose_cores(num_workers: int,
                  use_gpus: bool) -> Iterator[list[list[int]]]:
  """The cores of each worker: one, or beside a GPU its share of all."""
  shared_cores = worker_processes.share_cores(devices.available_cores(),
                                              num_workers)
  with contextlib.ExitStack() as claims:
    # As far apart as they can be: neighbours may be one core's two threads.
    yield shared_cores if use_gpus else [
        [claims.enter_context(core_claims.claim_core(share))]
        for share in shared_cores]


def _run_in_workers(
    units: Sequence[work_units.WorkUnit], options: unit_results.RunOptions,
    cores: Sequence[Sequence[int]], environments: Sequence[Mapping[str, str]],
    announce: claimed_units.Announce) -> Iterator[claimed_units.Outcome]:
  """Hands units out to workers, one at a time, each to the first that is free.

  A unit is tried once: whatever kills workers, this ends. A worker that is told
  to stop stops them all.
  """
  waiting = _Waiting(claimed_units.make_jobs(units, options))
  busy: dict[connection_lib.Connection, _Busy] = {}
  stages: dict[str, progress.Stage] = {}  # By run id.
  stopping = stopped = False  # This process, a worker.
  try:
    for i, own_cores in enumerate(cores):
      worker = _start_worker(own_cores, environments[i], options,
                             takes_shortest=i == 0)
      busy[worker.connection] = _give(worker, waiting)
    while busy:
      announce([claimed_units.Running(job.unit, stages.get(job.unit.run_id))
                for _, job, _ in busy.values()])
      if preemption.stop_requested() and not stopping:
        stopping = True
        waiting.clear()
        for worker, _, _ in busy.values():
          worker.process.terminate()  # By SIGTERM, as this process was told.
      answered = connection_lib.wait(list(busy), _POLL_SECONDS)
      for ready in [connection for connection in busy
                    if connection in answered]:
        worker, job, _ = busy[ready]
        answer = _hear(busy[ready], stopping)
        if isinstance(answer, progress.Stage):
          stages[job.unit.run_id] = answer
          continue
        del busy[ready]
        if isinstance(answer, preemption.Preempted):
          preemption.request_stop()
          stopped = True
          worker.connection.close()
          continue
        if isinstance(answer, BaseException):
          raise answer
        if isinstance(answer, _PutOff) and not stopping:
          waiting.put_off(job)
        if waiting:
          if worker.process.exitcode is not None:  # It died on its unit.
            worker.connection.close()
            worker = _start_worker(worker.cores, worker.environment, options,
                                   worker.takes_shortest)
          busy[worker.connection] = _give(worker, waiting)
        else:
          worker.connection.close()  # Which ends it.
        if not isinstance(answer, _PutOff):
          yield answer
    announce([])
    if stopping or stopped:
      raise preemption.Preempted('told to stop')
  finally:
    for worker, _, _ in busy.values():
      worker.process.kill()  # What is on the disk is whole at any moment.
      worker.process.join()


def _give(worker: _Worker, waiting: _Waiting) -> _Busy:
  """Gives a worker its next job; there is one."""
  job = waiting.take(worker.takes_shortest)
  start = time.perf_counter()
  # It may be dead, which reading from it will tell.
  with contextlib.suppress(BrokenPipeError):
    worker.connection.send(job)
  return _Busy(worker, job, start)


def _hear(busy: _Busy, stopping: bool) -> Any:
  """What a worker says; of one that died, what is to be said of its unit.

  Args:
    busy: the worker, which says something or is dead.
    stopping: whether this process has told its workers to stop.

  Returns:
    A `progress.Stage`, after which the worker goes on; or its answer: an
    outcome, a `_PutOff` or an exception.
  """
  worker = busy.worker
  try:
    return worker.connection.recv()
  except (EOFError, OSError):
    worker.process.join()
  # A signal to the whole group ends a worker that is still starting.
  if (worker.process.exitcode == preemption.EXIT_CODE or stopping
      or preemption.stop_requested()):
    return preemption.Preempted()
  return _dead_worker_outcome(busy)


def _start_worker(cores: Sequence[int], environment: Mapping[str, str],
                  options: unit_results.RunOptions,
                  takes_shortest: bool) -> _Worker:
  """Starts a worker on its cores and its GPU."""
  return _Worker(*worker_processes.start(_work, (options,), cores, environment),
                 cores, environment, takes_shortest)


def _work(connection: connection_lib.Connection,
          options: unit_results.RunOptions) -> None:
  """The main function of a worker: runs what comes until the pipe is closed."""
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
          answer = claimed_units.run_claimed(job, options) or _PutOff()
      except preemption.Preempted as stop:
        answer = stop
      except ValueError as error:
        answer = ValueError(str(error))  # A mistake of the user's, as it is.
      except Exception:  # pylint: disable=broad-except
        # A bug: the parent raises it, with the traceback of where it happened.
        answer = worker_processes.failure()
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


def _dead_worker_outcome(busy: _Busy) -> claimed_units.Outcome:
  """What is said of the unit that a dead worker was running."""
  code, unit = busy.worker.process.exitcode, busy.job.unit
  if code == -signal.SIGKILL:
    why = ('was killed by SIGKILL, as when memory runs out: try fewer '
           '--num_workers')
  else:
    why = (f'was killed by signal {-code}' if code < 0
           else f'ended with exit code {code}')
  return claimed_units.Outcome(
      unit, 0, 0, 0, num_missing=unit.num_rows,
      seconds=time.perf_counter() - busy.start,
      message=f'the worker {why}; this unit has no rows.')
