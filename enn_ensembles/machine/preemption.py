"""Being told to stop: SIGTERM, SIGUSR1 or Ctrl-C, and an exit in time.

A cluster that wants its machine back sends a signal, and kills seconds later.
Whoever computes asks `stop_requested` at points where nothing is half done, and
raises `Preempted` there. Computations that take longer than the grace period
are left where they are: whatever is on the disk is whole at any moment, which
is what makes SIGKILL harmless too.

Signals belong to the process, so there is one state per process. Python runs a
signal's handler only between two steps of the main thread, which may be inside
a compiled program for minutes; a separate thread receives signals at once.
"""

from collections.abc import Callable
import os
import select
import signal
import threading
import time
from typing import Any

# EX_TEMPFAIL of sysexits.h, "try again": nothing is wrong, and the same command
# goes on where this one stopped.
EXIT_CODE = 75

SIGNALS = ('SIGTERM', 'SIGUSR1', 'SIGINT')

# Of the grace period, at most, what is left for the end itself: files that are
# being written, worker processes, the interpreter.
ENDING_SECONDS = 1.

_POLL_SECONDS = 1.  # How often a process looks whether its parent lives.

_requested = threading.Event()


class Preempted(BaseException):
  """The process was told to stop and has reached a point where it can.

  No `Exception`: an agent's failures are caught and become rows, this is none.
  """


def stop_requested() -> bool:
  """Whether the process was told to stop."""
  return _requested.is_set()


def stop_if_requested() -> None:
  """A point where nothing is half done.

  Raises:
    Preempted: the process was told to stop.
  """
  if _requested.is_set():
    raise Preempted('told to stop')


def request_stop() -> None:
  """What a signal does."""
  _requested.set()


class SignalHandlers:
  """Hears SIGNALS while it is entered, from the main thread.

  The first signal sets what `stop_requested` says; more of them change nothing.
  If the process would not end within grace_seconds it is ended with EXIT_CODE,
  wherever it is, after `before_exit`, for which the last ENDING_SECONDS of them
  are kept (of short grace periods, a tenth).

  Args:
    grace_seconds: from the signal to the end of the process, at most.
    before_exit: called by another thread before a process is ended; it may not
      wait for the main thread, nor take ENDING_SECONDS. What it raises is lost.
    parent_pid: the process that started this one: when it is gone, this one
      ends at once. A killed parent leaves no children.
  """

  def __init__(self, grace_seconds: float,
               before_exit: Callable[[], Any] = lambda: None,
               parent_pid: int | None = None):
    self._grace_seconds = grace_seconds
    self._before_exit = before_exit
    self._parent_pid = parent_pid

  def __enter__(self) -> 'SignalHandlers':
    _requested.clear()
    self._reader, writer = os.pipe()
    self._writer = writer
    os.set_blocking(writer, False)
    self._old_wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    self._old = {name: signal.signal(getattr(signal, name), self._handle)
                 for name in SIGNALS if hasattr(signal, name)}
    self._numbers = {int(getattr(signal, name)) for name in self._old}
    self._thread = threading.Thread(target=self._watch, daemon=True)
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    for name, handler in self._old.items():
      signal.signal(getattr(signal, name), handler)
    signal.set_wakeup_fd(self._old_wakeup)
    os.write(self._writer, b'\0')  # No signal's number: it ends `_watch`.
    self._thread.join()
    os.close(self._writer)
    os.close(self._reader)
    _requested.clear()

  def _handle(self, *_) -> None:
    """Waits, interrupted, go on: `_watch` does what is to be done."""
    request_stop()

  def _watch(self) -> None:
    deadline: float | None = None
    while True:
      timeout = _POLL_SECONDS if deadline is None else max(
          0., min(_POLL_SECONDS, deadline - time.monotonic()))
      ready, _, _ = select.select([self._reader], [], [], timeout)
      numbers = os.read(self._reader, 512) if ready else b''
      if 0 in numbers:
        return
      if self._numbers & set(numbers):
        request_stop()
      if self._parent_pid not in (None, os.getppid()):
        self._end()
      if _requested.is_set() and deadline is None:
        deadline = time.monotonic() + self._grace_seconds - min(
            ENDING_SECONDS, 0.1 * self._grace_seconds)
      if deadline is not None and time.monotonic() >= deadline:
        self._end()

  def _end(self) -> None:
    try:
      self._before_exit()
    finally:
      os._exit(EXIT_CODE)  # The main thread may be anywhere.
