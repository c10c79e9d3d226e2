"""Runs many work units, in this process or in pinned worker processes.

XLA's CPU loops keep one core busy whatever it has, so workers are what uses a
machine; a worker that dies takes one unit with it and is replaced.

A process that is told to stop (`machine.preemption`) keeps what it has of its
units (`machine.checkpoints`) and ends: after the seed that is being trained, or
after a minute's steps where a seed takes minutes, or, where the grace period
ends first, at once; what was kept before is kept.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import multiprocessing
from multiprocessing import connection as connection_lib
import os
import signal
import time
import traceback
from typing import Any
from typing import NamedTuple

from enn_ensembles import results
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import devices
from enn_ensembles.machine import files
from enn_ensembles.machine import preemption
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import shares
from enn_ensembles.sweeps import work_units


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
    units: Sequence[work_units.WorkUnit], options: one_unit.RunOptions,
    num_workers: int, announce: Callable[[Sequence[work_units.WorkUnit]],
                                         None] = lambda _: None
) -> Iterator[Outcome]:
  """Runs units and writes their rows, the longest first.

  Args:
    units: what to run; none may be done (`sweeps.narrow`).
    options: how.
    num_workers: processes; 1 runs in this one, which must not have used jax
      before and keeps what `configure_jax` sets.
    announce: called with the units that are in hand, whenever that changes.

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
  if num_workers > 1:
    yield from _run_in_workers(units, options, num_workers, announce)
  elif units:
    one_unit.configure_jax(options)
    for unit in units:
      preemption.stop_if_requested()
      announce([unit])
      yield _run_and_write(unit, options)
    announce([])


def _run_and_write(unit: work_units.WorkUnit,
                   options: one_unit.RunOptions) -> Outcome:
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


class _Job(NamedTuple):
  """A unit that a worker has in hand."""
  unit: work_units.WorkUnit
  start: float


# How often the parent looks whether it was told to stop.
_POLL_SECONDS = 0.5


def _run_in_workers(
    units: Sequence[work_units.WorkUnit], options: one_unit.RunOptions,
    num_workers: int, announce: Callable[[Sequence[work_units.WorkUnit]],
                                         None]) -> Iterator[Outcome]:
  """Hands units out to workers, one at a time, each to the first that is free.

  A unit is tried once: whatever kills workers, this ends. A worker that is told
  to stop stops them all.
  """
  waiting = list(reversed(units))
  cores = devices.available_cores()
  environments = devices.worker_environments(num_workers, os.environ,
                                             devices.visible_gpus())
  busy: dict[connection_lib.Connection, tuple[_Worker, _Job]] = {}
  stopping = False

  def give(worker: _Worker) -> None:
    unit = waiting.pop()
    busy[worker.connection] = (worker, _Job(unit, time.perf_counter()))
    try:
      worker.connection.send(unit)
    except BrokenPipeError:
      pass  # It is dead, which reading from it will tell.

  try:
    for i in range(num_workers):
      # Neighbours share caches; with more workers than cores they share cores.
      share = cores[i * len(cores) // num_workers:
                    (i + 1) * len(cores) // num_workers]
      give(_start_worker(share or [cores[i % len(cores)]], environments[i],
                         options))
    while busy:
      announce([job.unit for _, job in busy.values()])
      if preemption.stop_requested() and not stopping:
        stopping = True
        waiting.clear()
        for worker, _ in busy.values():
          worker.process.terminate()  # By SIGTERM, which it hears of as we did.
      for ready in connection_lib.wait(list(busy), _POLL_SECONDS):
        worker, job = busy.pop(ready)
        try:
          answer = ready.recv()
        except (EOFError, OSError):
          worker.process.join()
          if worker.process.exitcode == preemption.EXIT_CODE or stopping:
            answer = preemption.Preempted()
          else:
            answer = _dead_worker_outcome(worker, job)
            if waiting:
              worker = _start_worker(worker.cores, worker.environment, options)
        if isinstance(answer, preemption.Preempted):
          preemption.request_stop()
          worker.connection.close()
          continue
        if isinstance(answer, BaseException):
          raise answer
        if waiting:
          give(worker)
        else:
          worker.connection.close()  # Which ends it.
        yield answer
    announce([])
    if stopping:
      raise preemption.Preempted('told to stop')
  finally:
    for worker, _ in busy.values():
      worker.process.kill()  # What is on the disk is whole at any moment.
      worker.process.join()


def _start_worker(cores: Sequence[int], environment: Mapping[str, str],
                  options: one_unit.RunOptions) -> _Worker:
  """Starts a worker on its cores and its GPU."""
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  # A daemon: it ends with its parent, whatever ends that.
  process = context.Process(target=_work, args=(theirs, options), daemon=True)
  with devices.inherited_settings(cores, environment):
    process.start()
  theirs.close()  # The worker alone holds it: its death closes the pipe.
  return _Worker(process, ours, cores, environment)


def _work(connection: connection_lib.Connection,
          options: one_unit.RunOptions) -> None:
  """The main function of a worker: runs what comes until the pipe is closed."""
  # Ctrl-C reaches the whole process group; the parent ends its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with preemption.SignalHandlers(
      options.grace_seconds, before_exit=lambda: files.finish_writing(5.),
      parent_pid=multiprocessing.parent_process().pid):
    one_unit.configure_jax(options)
    while True:
      try:
        unit = connection.recv()
      except (EOFError, OSError):
        return
      try:
        preemption.stop_if_requested()
        answer = _run_and_write(unit, options)
      except preemption.Preempted as stop:
        answer = stop
      except ValueError as error:
        answer = ValueError(str(error))  # A mistake of the user's, as it is.
      except Exception:  # pylint: disable=broad-except
        # A bug: the parent raises it, with the traceback of where it happened.
        answer = RuntimeError(f'a worker failed:\n{traceback.format_exc()}')
      connection.send(answer)


def _dead_worker_outcome(worker: _Worker, job: _Job) -> Outcome:
  """What is said of the unit that a dead worker had in hand."""
  code = worker.process.exitcode
  if code == -signal.SIGKILL:
    why = ('was killed by SIGKILL, as when memory runs out: try fewer '
           '--num_workers')
  else:
    why = (f'was killed by signal {-code}' if code < 0
           else f'ended with exit code {code}')
  return Outcome(job.unit, 0, 0, 0, num_missing=job.unit.num_rows,
                 seconds=time.perf_counter() - job.start,
                 message=f'the worker {why}; this unit has no rows.')
