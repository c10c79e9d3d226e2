"""`experiments.kill_test`, whose sweeps fork off their workers too.

Started as users start it, every run of a sweep imports jax in its worker, which
is most of what a short kill test takes: `command_server.Spares` says what takes
the place of that. All else is the command's own.
"""

import pathlib

from experiments import cli
from experiments import kill_test

_TESTS = pathlib.Path(__file__).parent
_SESSION = '  os.setsid()\n'
assert kill_test._LAUNCHER.count(_SESSION) == 1

if __name__ == '__main__':
  kill_test._LAUNCHER = f'''
import sys
sys.path.append({str(_TESTS)!r})
import command_server
command_server.import_package()
''' + kill_test._LAUNCHER.replace(
    _SESSION, _SESSION + '  command_server.Spares(1)\n')
  cli.run_main(kill_test.main)
