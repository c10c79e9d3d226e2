"""The flags of every command that makes problems or runs agents."""

import os
import pathlib

from absl import flags

from enn_ensembles import problems
from enn_ensembles.machine import files
from enn_ensembles.problems import cache_entries
from enn_ensembles.problems import image_files
from enn_ensembles.problems import kinds
from enn_ensembles.problems import published
from experiments import cli
from experiments import data_flags

flags.adopt_module_key_flags(data_flags)

_AGENT_MODULE = flags.DEFINE_list(
    'agent_module', [],
    'Files of user-defined agents. An agent has the name of '
    'its file. Without --agents they run beside the agents of the config where '
    'it names one of them, else alone.')
_CACHE_DIR = flags.DEFINE_string(
    'cache_dir', None, 'Folder of the ground-truth cache; empty for none. '
    'Default: in the cache folder of the user.')
_GROUND_TRUTH_DIR = flags.DEFINE_string(
    'ground_truth_dir', None, 'Folder of published ground truth, used where it '
    'fits the problem; empty for none. Default: the environment variable '
    f'{published.ENVIRONMENT_VARIABLE}, else ground_truth in the repository.')
_SOLVER_MEMORY_MB = flags.DEFINE_float('solver_memory_mb',
                                       problems.SOLVER_MEMORY_MB,
                                       'Memory that a solver may take.')


def use_data_dir() -> None:
  """Tells this process and its workers where files of real data are.

  And where published ground truth is.

  Raises:
    ValueError: a flag, or the variable of ground truth, names no folder.
  """
  cli.check_is_folder(_GROUND_TRUTH_DIR)
  if data_flags.data_dir() is not None:
    os.environ[image_files.ENVIRONMENT_VARIABLE] = data_flags.data_dir()
  if _GROUND_TRUTH_DIR.value is not None:
    os.environ[published.ENVIRONMENT_VARIABLE] = _GROUND_TRUTH_DIR.value
  published.folder()  # Where only the variable is set, it is checked here.


def agent_modules() -> tuple[str, ...]:
  """Files of user-defined agents."""
  return tuple(_AGENT_MODULE.value)


def refuse_agent_modules(reason: str) -> None:
  """For commands that run no agent; ValueError if a flag names a file of one.

  Args:
    reason: as `cli.refuse` says.
  """
  cli.refuse((_AGENT_MODULE,), reason)


def problem_settings() -> kinds.ProblemSettings:
  """What making problems takes besides their names; makes no folder."""
  return kinds.ProblemSettings(
      _cache_path(_CACHE_DIR, 'problems'), solver_memory_mb(),
      data_flags.data_dir() or os.environ.get(image_files.ENVIRONMENT_VARIABLE))


def solver_memory_mb() -> float:
  """Memory that the solver of the ground truth may take.

  Raises:
    ValueError: the flag is no finite number > 0, or too large.
  """
  return cli.memory_mb(_SOLVER_MEMORY_MB)


def problem_cache() -> str | None:
  """The folder of the ground-truth cache, made if missing; None for none."""
  return cache_folder(_CACHE_DIR, 'problems')


def clear_problem_cache() -> None:
  """Removes what killed processes left there; it harms nobody, and takes room.

  A thousand tasks that open each other's files are a million requests to a file
  server: one task of a job array does this, and nothing waits for it.
  """
  path = _cache_path(_CACHE_DIR, 'problems')
  if path is not None:
    cache_entries.remove_leftovers(pathlib.Path(path))


def check_problem_cache() -> None:
  """Checks, without making anything, that `problem_cache` has a chance.

  Raises:
    ValueError: it cannot be written to, or there is no home folder for it.
  """
  check_cache_folder(_CACHE_DIR, 'problems')


def check_cache_folder(flag: flags.FlagHolder, name: str) -> None:
  """As `check_problem_cache`, for `cache_folder`."""
  path = _cache_path(flag, name)
  if path is not None:
    files.check_folder(path, f'--{flag.name}')


def cache_folder(flag: flags.FlagHolder, name: str,
                 private: bool = False) -> str | None:
  """The folder a cache flag means, made if missing; None for no cache.

  Args:
    flag: the flag; empty for no cache.
    name: of the folder in the user's cache folder, where the flag is not given.
    private: what lies there is run: nobody else may be able to write there.

  Raises:
    ValueError: it cannot be written to, or others may; there is no home folder
      for it.
  """
  path = _cache_path(flag, name)
  if path is None:
    return None
  make = files.make_private_folder if private else files.make_folder
  return str(make(path, f'--{flag.name}'))


def _cache_path(flag: flags.FlagHolder, name: str) -> str | None:
  """The folder; None where the flag is empty, for no cache."""
  if flag.value is not None:
    return flag.value or None
  caches = os.environ.get('XDG_CACHE_HOME')
  if not caches:
    try:
      caches = os.path.join(pathlib.Path.home(), '.cache')
    except RuntimeError:
      raise ValueError(f'--{flag.name} must be given: there is no home folder '
                       '(HOME, XDG_CACHE_HOME).') from None
  return os.path.join(caches, 'enn_ensembles', name)
