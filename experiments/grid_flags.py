"""The flags of every command that reads a config of `testbed_configs`."""

import os
import pathlib

from absl import flags

from enn_ensembles import checks
from enn_ensembles import problems
from enn_ensembles import sweeps
from enn_ensembles.machine import files
from enn_ensembles.machine import job_arrays
from enn_ensembles.problems import kinds
from experiments import cli

_CONFIG = flags.DEFINE_string(
    'config', None, 'File of the sweep, as those in testbed_configs.',
    required=True)

# They narrow the config, or replace its values.
_AGENTS = flags.DEFINE_list(
    'agents', None, 'Only these agents, with the settings of the config where '
    'it has them, else with their defaults.')
_AGENT_MODULE = flags.DEFINE_list(
    'agent_module', [],
    'Files of user-defined agents. An agent has the name of '
    'its file. Without --agents they run beside the agents of the config where '
    'it names one of them, else alone.')
_DATA_DIR = flags.DEFINE_string(
    'data_dir', None,
    'Folder with files of real data. Default: the environment '
    'variable ENN_ENSEMBLES_DATA.')
_INPUT_DIM = flags.DEFINE_list('input_dim', None, 'Values of D_x.')
_DATA_RATIO = flags.DEFINE_list('data_ratio', None, 'Values of lambda.')
_NOISE_STD = flags.DEFINE_list('noise_std', None, 'Values of epsilon.')
_SEED = flags.DEFINE_list('seed', None, 'Seeds of the problems.')
_MAX_NUM_TRAIN = flags.DEFINE_integer(
    'max_num_train', None, 'Leave out cells with more training points.')
_REFERENCE = flags.DEFINE_string(
    'reference', None, 'bayes: the exact posterior. enn2021: with the noise '
    'variance of the published testbeds, to compare with their numbers.')
_KERNEL = flags.DEFINE_string(
    'kernel', None,
    'Prior of the problems: activation (relu or erf) and number '
    'of hidden layers. Default: that of the config, else relu2.')
_NUM_ENN_SAMPLES = flags.DEFINE_integer(
    'num_enn_samples', None, 'Draws of agents that are not enumerated.')
_ENUMERATE_INDICES = flags.DEFINE_bool(
    'enumerate_indices', None, 'Score finite index sets on all members.')
_DTYPE = flags.DEFINE_string(
    'dtype', None, 'Precision of training, float32 or float64.')

_TASK_INDEX = flags.DEFINE_integer(
    'task_index', None, "Which share of the work is this process's, from 0. "
    'Default: as the job array says that it is in, else all.')
_NUM_TASKS = flags.DEFINE_integer(
    'num_tasks', None, 'Into how many shares the work is cut.')
_CACHE_DIR = flags.DEFINE_string(
    'cache_dir', None, 'Folder of the ground-truth cache; empty for none. '
    'Default: in the cache folder of the user.')
_SOLVER = flags.DEFINE_string(
    'solver', None, 'How posteriors are computed: dense, matrix_free, or auto '
    'for dense where it fits into the memory. They draw other functions.')
_SOLVER_MEMORY_MB = flags.DEFINE_float('solver_memory_mb',
                                       problems.SOLVER_MEMORY_MB,
                                       'Memory that a solver may take.')


def read_sweep() -> sweeps.SweepConfig:
  """The config with the flags applied.

  Raises:
    ValueError: as `sweeps.load_config` and `sweeps.override`, or a list flag
      holds no numbers.
  """
  return sweeps.override(
      sweeps.load_config(_CONFIG.value), agents=_AGENTS.value,
      agent_modules=agent_modules(),
      problem={
          'input_dim': cli.numbers(_INPUT_DIM, int, checks.check_count),
          'data_ratio': cli.numbers(_DATA_RATIO, float, checks.check_positive),
          'noise_std': cli.numbers(
              _NOISE_STD, float, checks.check_positive),
          'reference': _REFERENCE.value, 'kernel': _KERNEL.value,
          'solver': _SOLVER.value},
      seed=cli.numbers(_SEED, int, _check_seed),
      max_num_train=_MAX_NUM_TRAIN.value,
      num_enn_samples=_NUM_ENN_SAMPLES.value,
      enumerate_indices=_ENUMERATE_INDICES.value, dtype=_DTYPE.value)


def agent_modules() -> tuple[str, ...]:
  """Files of user-defined agents."""
  return tuple(_AGENT_MODULE.value)


def problem_settings() -> kinds.ProblemSettings:
  """What making problems takes besides their names; makes no folder."""
  return kinds.ProblemSettings(
      _cache_path(_CACHE_DIR, 'problems'), solver_memory_mb(),
      _DATA_DIR.value or os.environ.get('ENN_ENSEMBLES_DATA'))


def task() -> job_arrays.Task:
  """Which share of the work is this process's: as flags or its array say.

  Raises:
    ValueError: as `sweeps.choose_task`.
  """
  return job_arrays.choose_task(_TASK_INDEX.value, _NUM_TASKS.value, os.environ)


def _check_seed(name: str, value: int) -> None:
  checks.check_count(name, value, minimum=0)


def solver_memory_mb() -> float:
  """Memory that the solver of the ground truth may take.

  Raises:
    ValueError: the flag is no finite number > 0.
  """
  return cli.positive(_SOLVER_MEMORY_MB)


def problem_cache() -> str | None:
  """The folder of the ground-truth cache, made if missing; None for none."""
  return cache_folder(_CACHE_DIR, 'problems')


def cache_folder(flag: flags.FlagHolder, name: str,
                 private: bool = False) -> str | None:
  """The folder a cache flag means, made if missing; None for no cache.

  Args:
    flag: the flag; empty for no cache.
    name: of the folder in the user's cache folder, where the flag is not given.
    private: what lies there is run: nobody else may be able to write there.

  Raises:
    FileError: it cannot be written to, or others may.
  """
  path = _cache_path(flag, name)
  if path is None:
    return None
  make = files.make_private_folder if private else files.make_folder
  return str(make(path, f'--{flag.name}'))


def _cache_path(flag: flags.FlagHolder, name: str) -> str | None:
  if flag.value == '':  # pylint: disable=g-explicit-bool-comparison
    return None
  home = os.environ.get('XDG_CACHE_HOME') or os.path.join(
      pathlib.Path.home(), '.cache')
  return flag.value or os.path.join(home, 'enn_ensembles', name)
