"""Worker processes: pinned to cores, a pipe to their parent, ended with it.

Whoever has work for them says how it is handed out: `start` gives one process
and its pipe, `SideBySide` several that do the same at the same time.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import multiprocessing
from multiprocessing import connection as connection_lib
from multiprocessing import resource_tracker
import signal
import sys
import traceback
import types
from typing import Any
from typing import NamedTuple

from enn_ensembles.machine import devices


class Worker(NamedTuple):
  """A worker process, as its parent sees it.

  Attributes:
    process: the process; a daemon, which ends with its parent.
    connection: the pipe to it. Only the worker holds the other end, so that
      its death closes the pipe: `recv` raises EOFError then.
  """
  process: Any
  connection: connection_lib.Connection


def share_cores(cores: Sequence[int], num_workers: int) -> list[list[int]]:
  """The cores of each worker; with more workers than cores they share cores.

  Neighbours share caches, so that each has neighbours.
  """
  return [list(cores[i * len(cores) // num_workers:
                     (i + 1) * len(cores) // num_workers])
          or [cores[i % len(cores)]] for i in range(num_workers)]


def start(main: Callable[..., None], arguments: Sequence[Any],
          cores: Sequence[int] | None = None,
          environment: Mapping[str, str] | None = None) -> Worker:
  """Starts main(connection, *arguments) in a process of its own.

  Args:
    main: a function of a module, which the worker imports.
    arguments: what can be pickled.
    cores: what it may use; None for those of this process.
    environment: variables that it is born with besides this process's.
  """
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  process = context.Process(target=_run, args=(main, theirs, *arguments),
                            daemon=True)
  with devices.inherited_settings(
      devices.available_cores() if cores is None else cores, environment):
    # A Ctrl-C reaches the whole process group. Workers start with its signal
    # blocked: while they import, they would answer with a traceback.
    block = getattr(signal, 'pthread_sigmask', None)
    before = ()
    if block:
      # A process that multiprocessing starts beside the first worker: started
      # within `start`, it would leave SIGINT unblocked for that worker.
      resource_tracker.ensure_running()
      before = block(signal.SIG_BLOCK, [signal.SIGINT])
    try:
      with _without_main():
        process.start()
    finally:
      if block:
        block(signal.SIG_SETMASK, before)
      theirs.close()
  return Worker(process, ours)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
  """As if this program were no script: what workers run is in modules.

  A process that multiprocessing spawns would run the caller's script once more,
  up to where it guards against that, which short scripts and those that come by
  a pipe do not.
  """
  main = sys.modules['__main__']
  sys.modules['__main__'] = types.ModuleType('__main__')
  try:
    yield
  finally:
    sys.modules['__main__'] = main


def _run(main: Callable[..., None], connection: connection_lib.Connection,
         *arguments: Any) -> None:
  """The main function of a worker; its parent answers a Ctrl-C."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  main(connection, *arguments)


def failure() -> RuntimeError:
  """What a worker answers where it meets a bug, for its parent to raise."""
  return RuntimeError(f'a worker failed:\n{traceback.format_exc()}')


class SideBySide:
  """Workers that do the same at the same time, each with its share.

  Used as a context: at its end no worker is left.
  """

  def __init__(self, main: Callable[..., Any],
               arguments: Sequence[Sequence[Any]],
               cores: Sequence[Sequence[int]],
               environments: Sequence[Mapping[str, str]] | None = None,
               longest_wait: float | None = None, hint: str = ''):
    """Starts the workers.

    Args:
      main: (wait, send, *arguments of a worker), a function of a module. All
        workers leave `wait()` together; `send(answer)` is what `receive` gives.
      arguments: of each worker.
      cores: of each worker.
      environments: of each worker, see `start`.
      longest_wait: seconds after which `wait` gives up on the others.
      hint: what to try where a worker dies; follows the message.
    """
    self._hint = hint
    context = multiprocessing.get_context('spawn')
    # It is gone with its last reference here, for workers that still start too.
    self._barrier = context.Barrier(len(arguments), timeout=longest_wait)
    self._workers: list[Worker] = []
    try:
      for i, own in enumerate(arguments):
        self._workers.append(start(
            _work_side_by_side, (main, self._barrier, own), cores[i],
            None if environments is None else environments[i]))
    except BaseException:
      self.close()
      raise

  def receive(self) -> list[Any]:
    """One answer of every worker, in their order.

    Raises:
      RuntimeError: a worker died, or failed: its traceback is in the message.
    """
    connections = [worker.connection for worker in self._workers]
    found: dict[Any, Any] = {}
    while len(found) < len(connections):
      answered = connection_lib.wait(
          [connection for connection in connections if connection not in found])
      for ready in [c for c in connections if c in answered]:
        try:
          answer = ready.recv()
        except (EOFError, OSError):
          raise RuntimeError('a worker died, as when memory runs out'
                             f'{self._hint}.') from None
        if isinstance(answer, RuntimeError):
          raise answer
        found[ready] = answer
    return [found[connection] for connection in connections]

  def close(self) -> None:
    """Ends the workers."""
    for worker in self._workers:
      worker.process.kill()
    for worker in self._workers:
      worker.process.join()
      worker.connection.close()

  def __enter__(self) -> 'SideBySide':
    return self

  def __exit__(self, *exc_info: Any) -> None:
    self.close()


def _work_side_by_side(connection: connection_lib.Connection,
                       main: Callable[..., None], barrier: Any,
                       arguments: Sequence[Any]) -> None:
  try:
    main(barrier.wait, connection.send, *arguments)
  except Exception:  # pylint: disable=broad-except
    connection.send(failure())
