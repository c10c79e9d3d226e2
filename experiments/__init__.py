"""Command lines: flags in, one call into the package, an exit code out."""

import os
import sys

from experiments import early_signals
from experiments import early_variables

# That is what Python says while `python -m experiments.<command>` is looked up:
# a command is about to start, and nobody has merely imported this package.
if sys.argv[:1] == ['-m']:
  early_signals.install()
  early_variables.check(os.environ)
