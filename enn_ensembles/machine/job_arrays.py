"""Which share of the work is this process's, as its job array says."""

from collections.abc import Mapping
import dataclasses

from enn_ensembles import checks

# More than any cluster takes, and few enough to be dealt out in seconds.
MOST_TASKS = 10_000_000


@dataclasses.dataclass(frozen=True)
class Task:
  """Which share of a sweep a process does.

  Attributes:
    index: from 0.
    num_tasks: how many shares there are.
    source: where that was said, for messages; empty for flags and defaults.
  """
  index: int
  num_tasks: int
  source: str = ''


# Job arrays say which task a process is: the variable of the index, and those
# of the number of tasks. PBS does not say the number.
_ARRAY_VARIABLES: Mapping[str, tuple[str, ...]] = {
    'SLURM_ARRAY_TASK_ID': ('SLURM_ARRAY_TASK_COUNT', 'SLURM_ARRAY_TASK_MIN',
                            'SLURM_ARRAY_TASK_MAX', 'SLURM_ARRAY_TASK_STEP'),
    'PBS_ARRAY_INDEX': (),
    'AWS_BATCH_JOB_ARRAY_INDEX': ('AWS_BATCH_JOB_ARRAY_SIZE',),
    'BATCH_TASK_INDEX': ('BATCH_TASK_COUNT',),
}


def choose_task(task_index: int | None, num_tasks: int | None,
                environment: Mapping[str, str]) -> Task:
  """The task of this process: as it is told, or as its job array says.

  What is given goes before what the environment says. With num_tasks given, the
  index of the array is taken as it is, so that a few tasks of a division can be
  submitted again; without, the array is the division: its first index, whatever
  it is, is task 0.

  Args:
    task_index: as given, from 0; None if it was not.
    num_tasks: likewise.
    environment: environment variables: those of Slurm (SLURM_ARRAY_TASK_ID),
      PBS (PBS_ARRAY_INDEX), AWS Batch (AWS_BATCH_JOB_ARRAY_INDEX) and Google
      Batch (BATCH_TASK_INDEX) are known.

  Returns:
    The task; the whole sweep where nothing says otherwise.

  Raises:
    ValueError: task_index without num_tasks or the reverse; two arrays at once;
      an array whose division cannot be known; a number that is none, or is out
      of range.
  """
  found = [name for name in _ARRAY_VARIABLES if environment.get(name)]
  source = ''
  if task_index is None and found:
    if len(found) > 1:
      raise ValueError(f'both {found[0]} and {found[1]} are set: say with '
                       'task_index and num_tasks which share this is.')
    source = found[0]
    task_index = _environment_count(environment, source)
    if num_tasks is None:
      task_index, num_tasks = _array_division(environment, source, task_index)
  if num_tasks is None:
    if task_index is not None:
      raise ValueError(f'task_index {task_index} was given without num_tasks, '
                       'into how many the work is cut.')
    task_index, num_tasks = 0, 1
  checks.check_count('num_tasks', num_tasks)
  if num_tasks > MOST_TASKS:
    raise ValueError(f'num_tasks must be at most {MOST_TASKS}, got '
                     f'{num_tasks}.')
  if task_index is None:
    if num_tasks > 1:
      raise ValueError(f'num_tasks {num_tasks} was given without task_index, '
                       'and no job array says which share this is '
                       f'({", ".join(_ARRAY_VARIABLES)} are not set).')
    task_index = 0
  said = f' (from {source})' if source else ''
  checks.check_count(f'task_index{said}', task_index, minimum=0)
  if task_index >= num_tasks:
    raise ValueError(f'task_index{said} must be below num_tasks = {num_tasks}, '
                     f'got {task_index}.')
  return Task(task_index, num_tasks, source)


def _environment_count(environment: Mapping[str, str], name: str) -> int:
  """An environment variable as a number."""
  try:
    return int(environment[name])
  except ValueError:
    raise ValueError(f'{name} must be a whole number, got '
                     f'{environment[name]!r}.') from None


def _array_division(environment: Mapping[str, str], source: str,
                    array_index: int) -> tuple[int, int]:
  """(task index from 0, number of tasks) of a whole job array."""
  names = _ARRAY_VARIABLES[source]
  missing = [name for name in names[:1] if not environment.get(name)]
  if not names or missing:
    raise ValueError(
        f'{source} is {array_index}, but '
        + (f'{missing[0]} is not set' if missing else
           'such arrays do not say how many tasks there are')
        + ': give num_tasks, with indices from 0.')
  count = _environment_count(environment, names[0])
  if len(names) == 1:
    return array_index, count
  first, last, step = (
      _environment_count(environment, name) if environment.get(name) else other
      for name, other in zip(names[1:], (0, count - 1, 1)))
  if step < 1 or (last - first) // step + 1 != count:
    raise ValueError(
        f'the job array of {source} = {array_index} has {count} tasks between '
        f'{first} and {last}, which is no regular division: give num_tasks, '
        'with indices from 0.')
  return (array_index - first) // step, count
