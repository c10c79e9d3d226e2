"""The flags of every command that reads a config of `testbed_configs`."""

import os
import pathlib

from absl import flags

from enn_ensembles import agents as agents_lib
from enn_ensembles import checks
from enn_ensembles import sweeps
from enn_ensembles.machine import job_arrays
from enn_ensembles.problems import draws
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.sweeps import sweep_config
from experiments import cli
from experiments import problem_flags

_CONFIG = flags.DEFINE_string(
    'config', None, 'The sweep: a file as those in testbed_configs, or the '
    'name of one of them, e.g. paper.', required=True)

# They narrow the config, or replace its values.
_AGENTS = flags.DEFINE_list(
    'agents', None, 'Only these agents, with the settings of the config where '
    'it has them, else with their defaults.')
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
_SOLVER = flags.DEFINE_string(
    'solver', None, 'How posteriors are computed: dense, matrix_free, or auto '
    'for dense where it fits into the memory. They draw other functions.')

_NO_AGENT = 'problems are the same for all agents'

_CHECKS = (
    *((flag, nngp.CONFIG_NAMES[flag.name.upper()].check)
      for flag in (_REFERENCE, _KERNEL, _SOLVER)),
    (_NUM_ENN_SAMPLES, checks.check_count),
    (_MAX_NUM_TRAIN, checks.check_count),
    (_DTYPE, lambda name, value: checks.check_choice(name, value,
                                                     sweep_config.DTYPES)))


def read_sweep() -> sweeps.SweepConfig:
  """The config with the flags applied.

  Raises:
    ValueError: as `sweeps.load_config` and `sweeps.override`, or a list flag
      holds no numbers.
  """
  problem_flags.use_data_dir()
  problem_flags.solver_memory_mb()
  modules = problem_flags.agent_modules()
  # Here, so that a message names the flag and not the config.
  for flag, check in _CHECKS:
    if flag.value is not None:
      check(f'--{flag.name}', flag.value)
  return sweeps.override(
      sweeps.load_config(_CONFIG.value),
      agents=None if _AGENTS.value is None else cli.names(
          _AGENTS, [*agents_lib.agent_names(),
                    *(pathlib.Path(path).stem for path in modules)]),
      agent_modules=modules,
      problem={
          'input_dim': cli.numbers_if_given(_INPUT_DIM, int,
                                            checks.check_count),
          'data_ratio': cli.numbers_if_given(
              _DATA_RATIO, float, nngp.CONFIG_NAMES['DATA_RATIO'].check),
          'noise_std': cli.numbers_if_given(
              _NOISE_STD, float, nngp.CONFIG_NAMES['NOISE_STD'].check),
          'reference': _REFERENCE.value, 'kernel': _KERNEL.value,
          'solver': _SOLVER.value},
      seed=cli.numbers_if_given(_SEED, int, draws.check_seed),
      max_num_train=_MAX_NUM_TRAIN.value,
      num_enn_samples=_NUM_ENN_SAMPLES.value,
      enumerate_indices=_ENUMERATE_INDICES.value, dtype=_DTYPE.value)


def refuse_task() -> None:
  """For commands that are about the whole work.

  Raises:
    ValueError: a flag says that only a share is meant.
  """
  cli.refuse((_TASK_INDEX, _NUM_TASKS), 'it is about the whole sweep')


def refuse_agents() -> None:
  """For commands that are about problems alone.

  Raises:
    ValueError: a flag is about agents.
  """
  problem_flags.refuse_agent_modules(_NO_AGENT)
  cli.refuse((_AGENTS, _NUM_ENN_SAMPLES, _ENUMERATE_INDICES, _DTYPE), _NO_AGENT)


def task() -> job_arrays.Task:
  """Which share of the work is this process's: as flags or its array say.

  Raises:
    ValueError: as `job_arrays.choose_task`.
  """
  return job_arrays.choose_task(_TASK_INDEX.value, _NUM_TASKS.value, os.environ)
