"""How every command of this folder starts and ends.

A mistake of the user is a ValueError with a message written for that user: the
command prints it as one line and exits with 2. A bug keeps its traceback.
"""

from collections.abc import Callable
from collections.abc import Sequence
import logging as python_logging
import sys
from typing import Any

try:
  import resource
except ImportError:  # Not on this system.
  resource = None

from absl import app
from absl import flags
from absl import logging


def run_main(main: Callable[[Sequence[str]], int | None]) -> None:
  """Parses the flags, runs `main(argv)` and exits with what it returns.

  With --verbosity=1 a ValueError keeps its traceback too.

  Args:
    main: the command; its return value is the exit code, None is 0.
  """

  # At level info jax lists the accelerators that it did not find.
  python_logging.getLogger('jax').setLevel(python_logging.WARNING)

  def guarded(argv: Sequence[str]) -> int | None:
    try:
      if len(argv) > 1:
        raise ValueError(f'unknown argument {argv[1]!r}: everything is given '
                         'as --flag=value.')
      return main(argv)
    except ValueError as error:
      if logging.level_debug():
        raise
      print('error:', ' '.join(str(error).split()), file=sys.stderr)
      return 2

  app.run(guarded)


def peak_memory_mb() -> float | None:
  """The most this process has held, MB; None where the system does not say."""
  if resource is None:
    return None
  # In kilobytes, on macOS in bytes.
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def numbers(flag: flags.FlagHolder,
            kind: Callable[[str], Any]) -> list[Any] | None:
  """The values of a list flag as numbers; None if it was not given.

  Raises:
    ValueError: one is no number of this kind, int or float.
  """
  if flag.value is None:
    return None
  try:
    return [kind(text) for text in flag.value]
  except ValueError:
    what = 'integers' if kind is int else 'numbers'
    raise ValueError(f'--{flag.name} must be {what} with commas between, got '
                     f'{",".join(flag.value)!r}.') from None
