"""What all tests share: float64, compiled programs, and an account of skips.

Ground truth is float64: jax must be told before anything is computed. Compiled
programs lie in one folder of this run, which the processes that tests start
read too, since jax takes it from the environment.

Compiling is most of what tests take, so XLA does little else than that: at its
usual level the program that trains a tiny ensemble takes three times as long.
Results differ in the order of sums. `compiled.USUAL_COMPILER` is for tests of
what the usual compiler does, and what runs in a process of its own may be given
XLA_FLAGS of its own.
"""

import collections
import gc
import importlib.metadata
import os
import shutil
import tempfile

# What this run shares: programs, and ground truth that sweeps ask for.
_FOLDER_VARIABLE = 'ENN_ENSEMBLES_TESTS'
_made_folder = None
if _FOLDER_VARIABLE not in os.environ:
  # Workers of pytest-xdist are started later, and inherit it.
  _made_folder = tempfile.mkdtemp(prefix='enn_ensembles_tests_')
  os.environ[_FOLDER_VARIABLE] = _made_folder
  os.mkdir(os.path.join(_made_folder, 'problems'), mode=0o700)
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR',
                      os.path.join(os.environ[_FOLDER_VARIABLE], 'programs'))
# Small programs too: tests compile nothing else.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')

if 'XLA_FLAGS' not in os.environ:
  _flags = ['--xla_backend_optimization_level=0',
            '--xla_llvm_disable_expensive_passes=true']
  # A flag that XLA does not know ends the process: this one comes and goes.
  if importlib.metadata.version('jaxlib').startswith('0.10.'):
    _flags.append('--xla_cpu_use_fusion_emitters=false')
  os.environ['XLA_FLAGS'] = ' '.join(_flags)

import jax  # noqa: E402
import pytest  # noqa: E402
import record_seconds  # noqa: E402

from enn_ensembles.machine import preemption  # noqa: E402

jax.config.update('jax_enable_x64', True)

# Tests of more seconds than this, all parameters together, are slow: what is
# left is to take a minute and a half on two cores.
_SLOW_SECONDS = 0.5


@pytest.hookimpl(tryfirst=True)  # Before -m is looked at.
def pytest_collection_modifyitems(items):
  """Files that take longest come first; what took long is marked slow."""
  seconds = record_seconds.read()
  of_files = record_seconds.of_files(seconds)
  items.sort(key=lambda item: -of_files.get(item.path.name, 0.))
  for item in items:
    test = item.nodeid.split('::', 1)[-1].split('[')[0]
    if seconds.get(f'{item.path.name}::{test}', 0.) > _SLOW_SECONDS:
      item.add_marker('slow')


@pytest.fixture(scope='module', autouse=True)
def forget_programs():
  """A process keeps no programs of the files that it is done with."""
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture
def forget_requests():
  """A test may tell this process to stop."""
  yield
  preemption._requested.clear()


@pytest.fixture
def restore_jax_flags():
  """A test may change these flags of jax."""
  names = ('jax_threefry_partitionable', 'jax_default_prng_impl',
           'jax_enable_x64')
  values = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in values.items():
    jax.config.update(name, value)


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
  """Removes what the run shared, if this process made it."""
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
