"""python -m enn_ensembles is the command enn-ensembles."""

import sys

from enn_ensembles import commands

if __name__ == '__main__':
  sys.exit(commands.main())
