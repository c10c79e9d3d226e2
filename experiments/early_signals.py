"""What a command answers to signals before its imports are done and at its end.

Importing jax takes seconds, in which Python would end by the signal itself (or,
at Ctrl-C, with a traceback): a job array would not know that the command may
simply be run again. So it is while Python clears up what libraries have left.
This module imports next to nothing and is loaded first.
"""

import atexit
import functools
import os
import signal
import types

# As in machine.preemption, which is not imported yet.
_TRY_AGAIN = 75
INTERRUPTED = 130  # 128 + SIGINT, as shells count.

SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1', 'SIGINT')
           if hasattr(signal, name)]


def install() -> None:
  """From now on SIGTERM and SIGUSR1 end this process with 75, SIGINT with 130.

  `machine.preemption.SignalHandlers` and `cli.run_main` take over from here.
  """
  for number in SIGNALS:
    signal.signal(number, end)
  _ignore_at_the_end()


def end(number: int, frame: types.FrameType | None = None) -> None:
  """Ends this process, wherever it is, as a signal's handler does."""
  del frame
  # No `print`: the signal may have come in the middle of one.
  os.write(2, b'told to stop.\n')
  os._exit(INTERRUPTED if number == signal.SIGINT else _TRY_AGAIN)


@functools.cache
def _ignore_at_the_end() -> None:
  """Once, and before libraries register theirs: it is then called last."""
  atexit.register(_ignore)


def _ignore() -> None:
  """A signal after Python has taken its handlers away would kill.

  The command is done then, and its exit code says how.
  """
  for number in SIGNALS:
    signal.signal(number, signal.SIG_IGN)
