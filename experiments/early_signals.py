"""What a command answers to signals before its imports are done.

Importing jax takes seconds, in which Python would end by the signal itself (or,
at Ctrl-C, with a traceback): a job array would not know that the command may
simply be run again. This module imports next to nothing and is loaded first.
"""

import os
import signal
import types

# As in machine.preemption, which is not imported yet.
_TRY_AGAIN = 75
_INTERRUPTED = 130  # 128 + SIGINT, as shells count.


def install() -> None:
  """From now on SIGTERM and SIGUSR1 end this process with 75, SIGINT with 130.

  `machine.preemption.SignalHandlers` and `cli.run_main` take over from here.
  """
  for name in ('SIGTERM', 'SIGUSR1', 'SIGINT'):
    if hasattr(signal, name):
      signal.signal(getattr(signal, name), _end)


def _end(number: int, frame: types.FrameType | None) -> None:
  del frame
  # No `print`: the signal may have come in the middle of one.
  os.write(2, b'told to stop.\n')
  os._exit(_INTERRUPTED if number == signal.SIGINT else _TRY_AGAIN)
