"""What all tests share: float64, compiled programs, and an account of skips.

Ground truth is float64: jax must be told before anything is computed. Compiled
programs lie in one folder of this run, which the processes that tests start
read too, since jax takes it from the environment.
"""

import collections
import os
import shutil
import tempfile

_CACHE_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'
_made_folder = None
if _CACHE_VARIABLE not in os.environ:
  # Workers of pytest-xdist are started later, and inherit it.
  _made_folder = tempfile.mkdtemp(prefix='enn_ensembles_tests_')
  os.environ[_CACHE_VARIABLE] = _made_folder
# Small programs too: tests compile nothing else.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')

import jax  # noqa: E402

jax.config.update('jax_enable_x64', True)

# Part of a reason -> what makes the test run.
_HOW_TO_RUN = {
    'tmpfs': 'run the tests as root, or in a container that may mount',
    "DeepMind's enn": 'pip install dm-haiku '
                      'git+https://github.com/google-deepmind/enn',
    'Slurm': 'set START_SLURM to a command that starts a cluster '
             '(tests/test_slurm.py says how)',
    '/proc': 'run the tests on Linux',
    'two cores': 'run the tests on Linux with two cores or more',
    'reference': 'put the reference files into the folder that is named',
}


def pytest_unconfigure():
  """Removes the folder of compiled programs, if this process made it."""
  if _made_folder is not None:
    shutil.rmtree(_made_folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter):
  """Says what was skipped or left out, and how to run it."""
  reasons = collections.Counter()
  for report in terminalreporter.stats.get('skipped', []):
    reason = report.longrepr
    if isinstance(reason, tuple):  # (file, line, reason)
      reason = reason[2]
    reasons[str(reason).removeprefix('Skipped: ')] += 1
  num_deselected = len(terminalreporter.stats.get('deselected', []))
  if not reasons and not num_deselected:
    return
  terminalreporter.section('not run')
  for reason, num in reasons.most_common():
    hints = [how for part, how in _HOW_TO_RUN.items() if part in reason]
    terminalreporter.line(f'{num} skipped: {reason}'
                          + (f' To run: {hints[0]}.' if hints else ''))
  if num_deselected:
    terminalreporter.line(
        f'{num_deselected} left out by -m or -k; pytest without these options '
        'runs them (slow tests alone: pytest -m slow).')
