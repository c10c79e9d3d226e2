"""How every command of this folder starts and ends.

A mistake of the user is a ValueError with a message written for that user: the
command prints it as one line and exits with 2. A bug keeps its traceback.
"""

import logging as python_logging
import sys
from typing import Callable, Optional, Sequence

from absl import app
from absl import logging


def run_main(main: Callable[[Sequence[str]], Optional[int]]) -> None:
  """Parses the flags, runs `main(argv)` and exits with what it returns.

  With --verbosity=1 a ValueError keeps its traceback too.

  Args:
    main: the command; its return value is the exit code, None is 0.
  """

  # At level info jax lists the accelerators that it did not find.
  python_logging.getLogger('jax').setLevel(python_logging.WARNING)

  def guarded(argv: Sequence[str]) -> Optional[int]:
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
