"""Sweeps: from a config file to an ordered list of work units with names.

A config is a Python file of plain data, constants only:

  INPUT_DIM = [10, 100]          # D_x
  DATA_RATIO = [1, 10]           # lambda
  NOISE_STD = [0.01, 0.1, 1.0]   # epsilon
  SEED = [0, 1, 2]
  AGENTS = [
      {'agent': 'ensemble', 'num_ensemble': [1, 3, 10], 'prior_scale': [0, 1]},
      {'agent': 'mc_dropout', 'hidden_sizes': (100, 100)},
  ]
  # May be left out; these are the defaults:
  REFERENCE = 'bayes'
  KERNEL = 'relu2'
  NUM_ENN_SAMPLES = 1000
  ENUMERATE_INDICES = True
  DTYPE = 'float32'
  SOLVER = 'auto'

A list of values is swept, all combinations of an entry's lists; a setting that
is itself a sequence is a tuple. Settings that several entries of AGENTS name
are computed once. An entry may also have 'selection', 'none', 'oracle',
'val_nll' or a list of them: how members of a finite index set are ranked and
selected. One training serves them all.

A work unit is one agent setting on one (input_dim, data_ratio), all its noise
levels and seeds: what is compiled once. Names are hashes of full configs, so
that equal names are equal computations, whatever file asked for them.

Everything here is pure: nothing is computed, and nothing written.
"""

import dataclasses
import hashlib
import heapq
import itertools
import math
import pathlib
import re
import runpy
from typing import (Any, Callable, Collection, Mapping, NamedTuple, Optional,
                    Sequence, Union)

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import config_checks as checks
from enn_ensembles import problems
from enn_ensembles import results
from enn_ensembles.nngp import kernels

# Names of a config file that are lists of numbers, with the check of each.
_GRIDS: Mapping[str, Callable[[str, Any], None]] = {
    'INPUT_DIM': checks.check_count,
    'DATA_RATIO': checks.check_positive,
    'NOISE_STD': checks.check_positive,
    'SEED': lambda name, value: checks.check_count(name, value, minimum=0),
}
_REQUIRED = (*_GRIDS, 'AGENTS')
_DTYPES = ('float32', 'float64')
_SELECTIONS = results.ROW_SCHEMA['selection'].choices

# The key under which a file of one's own adds a hash of its text to the
# agent's settings. No dataclass field can have this name.
SOURCE_FILE = 'source-file'

_LONGEST_SLUG = 120
_PLAIN_TEXT = re.compile(r'[A-Za-z][A-Za-z0-9_.-]*')
_RESERVED_TEXT = ('none', 'true', 'false')


@dataclasses.dataclass(frozen=True)
class SweepConfig:
  """What to compute: a grid of problems times the settings of some agents.

  Attributes:
    name: where it comes from, for messages.
    input_dim: values of D_x.
    data_ratio: values of lambda.
    noise_std: values of epsilon.
    seed: seeds.
    agents: dicts with the key 'agent', perhaps 'selection', and settings; lists
      are swept.
    reference: noise variance of the exact posterior, 'bayes' or 'enn2021'.
    kernel: prior of the problems: activation and number of hidden layers, as
      'relu2' (the testbed's) or 'erf1'.
    num_enn_samples: draws of agents that are not enumerated.
    enumerate_indices: whether finite index sets are scored on all members.
    dtype: precision of training.
    solver: how posteriors are computed, one of `problems.SOLVERS`.
    max_num_train: cells with more training points are left out; None keeps all.
  """
  name: str
  input_dim: tuple[int, ...]
  data_ratio: tuple[float, ...]
  noise_std: tuple[float, ...]
  seed: tuple[int, ...]
  agents: tuple[Mapping[str, Any], ...]
  reference: str = 'bayes'
  kernel: str = results.DEFAULT_KERNEL
  num_enn_samples: int = 1000
  enumerate_indices: bool = True
  dtype: str = 'float32'
  solver: str = 'auto'
  max_num_train: Optional[int] = None

  def __post_init__(self):
    try:
      self._check()
    except ValueError as error:
      raise ValueError(f'config {self.name}: {error}') from error

  def _check(self):
    for name, check in _GRIDS.items():
      _check_values(name, getattr(self, name.lower()), check)
    _check_values('AGENTS', self.agents, _check_agent_entry)
    checks.check_choice('REFERENCE', self.reference,
                        results.ROW_SCHEMA['reference'].choices)
    kernels.KernelConfig.from_name(self.kernel)
    checks.check_count('NUM_ENN_SAMPLES', self.num_enn_samples)
    checks.check_flag('ENUMERATE_INDICES', self.enumerate_indices)
    for entry in self.agents:
      if not self.enumerate_indices and _selections(entry) != ('none',):
        raise ValueError(
            'ENUMERATE_INDICES must be True where members are selected, got '
            f"False and agent {entry['agent']!r} with selection "
            f"{entry['selection']!r}.")
    checks.check_choice('DTYPE', self.dtype, _DTYPES)
    checks.check_choice('SOLVER', self.solver, problems.SOLVERS)
    if self.max_num_train is not None:
      checks.check_count('max_num_train', self.max_num_train)

  def cells(self) -> list[tuple[int, float]]:
    """(input_dim, data_ratio) pairs that are kept, in the order of the grid."""
    return [cell for cell in self._all_cells() if self._keeps(cell)]

  def left_out(self) -> list[tuple[int, float]]:
    """(input_dim, data_ratio) pairs that max_num_train leaves out."""
    return [cell for cell in self._all_cells() if not self._keeps(cell)]

  def _all_cells(self) -> list[tuple[int, float]]:
    return list(itertools.product(self.input_dim, self.data_ratio))

  def _keeps(self, cell: tuple[int, float]) -> bool:
    return self.max_num_train is None or (
        num_train(*cell) <= self.max_num_train)


@dataclasses.dataclass(frozen=True)
class WorkUnit:
  """One agent setting on one (input_dim, data_ratio).

  Attributes:
    agent: name of the agent.
    agent_id: readable name of the agent setting, unique.
    agent_config: every field of the agent's config.
    input_dim: D_x.
    data_ratio: lambda.
    noise_stds: values of epsilon, ascending.
    seeds: seeds, ascending.
    reference: as in `SweepConfig`, like all that follow.
    num_enn_samples: draws that are asked for.
    enumerate_indices: whether finite index sets are enumerated.
    dtype: precision of training.
    kernel: prior of the problems.
    selections: how members are selected, each a row of its own.
    solver: how posteriors are computed.
  """
  agent: str
  agent_id: str
  agent_config: Mapping[str, Any]
  input_dim: int
  data_ratio: float
  noise_stds: tuple[float, ...]
  seeds: tuple[int, ...]
  reference: str = 'bayes'
  num_enn_samples: int = 1000
  enumerate_indices: bool = True
  dtype: str = 'float32'
  kernel: str = results.DEFAULT_KERNEL
  selections: tuple[str, ...] = ('none',)
  solver: str = 'auto'

  @property
  def run_id(self) -> str:
    """A name that is safe for files: readable, and a hash of everything."""
    config = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)
              if f.name != 'agent_id'}
    ratio = base.canonical_json(self.data_ratio)
    return (f'{self.agent_id}-D{self.input_dim}_l{ratio}_{self.reference}-'
            f'{base.config_hash(config)}')

  @property
  def num_train(self) -> int:
    """T."""
    return num_train(self.input_dim, self.data_ratio)

  @property
  def num_problems(self) -> int:
    """Problems that are trained on."""
    return len(self.noise_stds) * len(self.seeds)

  @property
  def num_rows(self) -> int:
    """Rows: one per problem and selection."""
    return self.num_problems * len(self.selections)

  def row_ids(self) -> list[str]:
    """The names of all its rows."""
    return [row_id(self, noise_std, seed, selection)
            for seed, noise_std, selection in itertools.product(
                self.seeds, self.noise_stds, self.selections)]

  def problem_config(self, noise_std: float,
                     seed: int) -> problems.ProblemConfig:
    """One of its problems."""
    return problems.ProblemConfig(
        self.input_dim, self.data_ratio, noise_std, seed, self.reference,
        kernels.KernelConfig.from_name(self.kernel))

  def problem_configs(self, seed: int) -> tuple[problems.ProblemConfig, ...]:
    """Its problems of one seed, per noise level."""
    return tuple(self.problem_config(noise_std, seed)
                 for noise_std in self.noise_stds)

  def manifest_entries(self) -> list[dict[str, Any]]:
    """What it is expected to compute, as `ResultsStore.write_manifest` says."""
    names = ('agent', 'agent_id', 'agent_config', 'input_dim', 'data_ratio',
             'noise_stds', 'seeds', 'reference', 'kernel', 'num_enn_samples',
             'enumerate_indices')
    shared = {name: getattr(self, name) for name in names}
    return [{**shared, 'selection': selection}
            for selection in self.selections]


def num_train(input_dim: int, data_ratio: float) -> int:
  """T of a cell; the noise level and the seed do not matter."""
  return problems.ProblemConfig(input_dim, data_ratio, 1., 0).num_train


def row_id(unit: WorkUnit, noise_std: float, seed: int,
           selection: str = 'none') -> str:
  """The name of one computation: equal in whatever unit or sweep it is done.

  A hash of the agent, its settings, the problem, the evaluation that is asked
  for and the precision. 64 bits: a clash would pass for finished work.
  """
  config = {
      'agent': unit.agent, 'agent_config': unit.agent_config,
      'input_dim': unit.input_dim, 'data_ratio': unit.data_ratio,
      'noise_std': noise_std, 'seed': seed, 'reference': unit.reference,
      'num_enn_samples': unit.num_enn_samples,
      'enumerate_indices': unit.enumerate_indices,
      'selection': selection, 'dtype': unit.dtype}
  if unit.solver != 'auto':  # It may draw another f.
    config['solver'] = unit.solver
  if unit.kernel != results.DEFAULT_KERNEL:
    config['kernel'] = unit.kernel
  text = base.canonical_json(config)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_config(path: Union[str, pathlib.Path]) -> SweepConfig:
  """Reads and checks a config file, as the module's docstring describes it.

  Raises:
    ValueError: the file does not exist or cannot be run, lacks a name, has an
      unknown one (in capitals), or a value that is not allowed.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'config must be a Python file, got {str(path)!r}, which '
                     'does not exist.')
  try:
    names = runpy.run_path(str(path))
  except Exception as error:  # Whatever somebody's file may raise.
    raise ValueError(f'config {path} cannot be read: '
                     f'{type(error).__name__}: {error}') from error
  names = {name: value for name, value in names.items()
           if name.isupper() and not name.startswith('_')}
  missing = [name for name in _REQUIRED if name not in names]
  if missing:
    raise ValueError(f'config {path} must define {", ".join(_REQUIRED)}; '
                     f'{", ".join(missing)} is missing.')
  allowed = [f.name.upper() for f in dataclasses.fields(SweepConfig)
             if f.name not in ('name', 'max_num_train')]
  unknown = [name for name in names if name not in allowed]
  if unknown:
    raise ValueError(f'config {path} has the unknown name {unknown[0]}; '
                     f'allowed are {", ".join(allowed)}.')
  return SweepConfig(name=str(path), **{
      name.lower(): tuple(value) if isinstance(value, list) else value
      for name, value in names.items()})


def _check_values(name: str, values: Any,
                  check: Callable[[str, Any], None]) -> None:
  """A list with at least one value, each allowed and there once."""
  if not isinstance(values, (list, tuple)) or not values:
    raise ValueError(f'{name} must be a list of at least one value, got '
                     f'{values!r}.')
  for i, value in enumerate(values):
    check(f'every value of {name}', value)
    if value in values[:i]:
      raise ValueError(f'{name} must name every value once, got {value!r} '
                       'twice.')


def _check_agent_entry(name: str, entry: Any) -> None:
  """A dict with the agent's name and its settings."""
  if not isinstance(entry, Mapping) or not isinstance(entry.get('agent'), str):
    raise ValueError(f"{name} must be a dict with the key 'agent', got "
                     f'{entry!r}.')
  for key, value in entry.items():
    if isinstance(value, list):
      _check_values(f"{key} of agent {entry['agent']!r}", value,
                    lambda name, value: None)
  for selection in _selections(entry):
    checks.check_choice(f"selection of agent {entry['agent']!r}", selection,
                        _SELECTIONS)


def _selections(entry: Mapping[str, Any]) -> tuple[str, ...]:
  """The selections of an entry of AGENTS."""
  selections = entry.get('selection', 'none')
  return tuple(selections) if isinstance(selections, list) else (selections,)


def override(config: SweepConfig, *, agents: Optional[Sequence[str]] = None,
             agent_module: Optional[str] = None,
             **values: Any) -> SweepConfig:
  """The config with some of its values replaced.

  Args:
    config: what to start from.
    agents: only these agents, with the settings of the config where it has
      them, else with their defaults.
    agent_module: file of an agent of one's own, which `agents` may then name;
      without `agents` it is the only one.
    **values: other fields of `SweepConfig`; None keeps the config's value.

  Raises:
    ValueError: a value is not allowed, or an agent is named twice.
  """
  values = {name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items() if value is not None}
  if agents is None and agent_module is not None:
    agents = [pathlib.Path(agent_module).stem]
  if agents is not None:
    _check_values('agents', agents, lambda name, value: None)
    entries = []
    for name in agents:
      entries += ([entry for entry in config.agents if entry['agent'] == name]
                  or [{'agent': name}])
    values['agents'] = tuple(entries)
  return dataclasses.replace(config, **values)


def load_agent(name: str,
               agent_module: Optional[str] = None) -> agents_lib.AgentModule:
  """An agent by its name: of the file `agent_module`, or of the package.

  Raises:
    ValueError: there is none, or the file is no agent.
  """
  if agent_module is not None:
    if not agent_module.endswith('.py'):
      raise ValueError('agent_module must be a Python file, got '
                       f'{agent_module!r}.')
    if pathlib.Path(agent_module).stem == name:
      return agents_lib.load_agent(agent_module)
    # A path in a config must not run a file that no flag named.
  if name not in agents_lib.agent_names():
    own = ([] if agent_module is None else [pathlib.Path(agent_module).stem])
    raise ValueError(
        f'agent must be one of {", ".join(agents_lib.agent_names() + own)}; '
        f'got {name!r}.')
  return agents_lib.load_agent(name)


def expand(config: SweepConfig,
           agent_module: Optional[str] = None) -> tuple[WorkUnit, ...]:
  """All work units of a config: agent settings, times the cells that are kept.

  Args:
    config: the config.
    agent_module: file of an agent of one's own that the config may name.

  Returns:
    Units in the order of the config, agents first; none twice.

  Raises:
    ValueError: an agent or a setting is unknown, a setting is not allowed, or
      no cell is left.
  """
  cells = config.cells()
  if not cells:
    raise ValueError(f'config {config.name}: no cell has at most '
                     f'max_num_train = {config.max_num_train} training points.')
  # Entries that share a setting share its training.
  selections: dict[str, set[str]] = {}
  settings_of_agents = _agent_settings(config, agent_module)
  for _, agent_id, _, selected in settings_of_agents:
    selections.setdefault(agent_id, set()).update(selected)
  units = {}
  for name, agent_id, settings, _ in settings_of_agents:
    for input_dim, data_ratio in cells:
      unit = WorkUnit(
          agent=name, agent_id=agent_id, agent_config=settings,
          input_dim=input_dim, data_ratio=float(data_ratio),
          noise_stds=tuple(sorted(map(float, config.noise_std))),
          seeds=tuple(sorted(config.seed)), reference=config.reference,
          num_enn_samples=config.num_enn_samples,
          enumerate_indices=config.enumerate_indices, dtype=config.dtype,
          solver=config.solver, kernel=config.kernel,
          selections=tuple(selection for selection in _SELECTIONS
                           if selection in selections[agent_id]))
      units.setdefault(unit.run_id, unit)
  return tuple(units.values())


def _agent_settings(config: SweepConfig, agent_module: Optional[str]
                    ) -> list[tuple[str, str, dict[str, Any], tuple[str, ...]]]:
  """Every combination in AGENTS: agent, agent_id, settings, selections."""
  found = []
  for entry in config.agents:
    agent = load_agent(entry['agent'], agent_module)
    names = [name for name in entry if name not in ('agent', 'selection')]
    grids = [value if isinstance(value, list) else [value]
             for value in (entry[name] for name in names)]
    for values in itertools.product(*grids):
      settings = _all_settings(agent, dict(zip(names, values)))
      identity = dict(settings)
      if agent.name not in agents_lib.agent_names():
        # A changed file is another agent: its old rows are not its results.
        source = pathlib.Path(agent_module).read_bytes()
        digest = hashlib.sha256(source).hexdigest()[:10]
        identity[SOURCE_FILE] = f'sha256-{digest}'
      found.append((agent.name, _agent_id(agent, identity), identity,
                    _selections(entry)))
  return found


def _all_settings(agent: agents_lib.AgentModule,
                  settings: Mapping[str, Any]) -> dict[str, Any]:
  """Every field of the agent's config, given or default."""
  made = agents_lib.make_config(agent, settings)
  if made is None:
    return {}
  return {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}


def _agent_id(agent: agents_lib.AgentModule,
              settings: Mapping[str, Any]) -> str:
  """The agent's name and the settings that are not its defaults.

  A hash of all settings is added where the text alone would not tell two
  settings apart, or is cut because it is long.
  """
  defaults = {f.name: f.default
              for f in dataclasses.fields(agent.config_class)
              } if agent.config_class else {}
  parts, exact = [agent.name], True
  for name, value in settings.items():
    if name in defaults and defaults[name] == value:
      continue
    text = _setting_text(value)
    exact = exact and text is not None
    parts.append(f'{name}={text}' if text is not None else name)
  slug = re.sub(r'[^A-Za-z0-9._,=+-]', '_', ','.join(parts))
  if exact and len(slug) <= _LONGEST_SLUG and slug == ','.join(parts):
    return slug
  return f'{slug[:_LONGEST_SLUG]}-{base.config_hash(settings)}'


def _setting_text(value: Any) -> Optional[str]:
  """A setting in a name, other for other settings; None if it has no such."""
  if value is None or isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, (int, float)):
    return base.canonical_json(value)
  if isinstance(value, str):
    plain = _PLAIN_TEXT.fullmatch(value) and value not in _RESERVED_TEXT
    return value if plain else None
  if isinstance(value, tuple) and value and all(
      isinstance(v, (int, float)) and not isinstance(v, bool) for v in value):
    # One number in a tuple is not that number.
    return 'x'.join(map(base.canonical_json, value)) + 'x' * (len(value) == 1)
  return None


def narrow(unit: WorkUnit, done: Collection[str]) -> tuple[WorkUnit, ...]:
  """What is left of a unit when some of its rows are done.

  Units are full grids of seeds, noise levels and selections. Seeds that lack the
  same rows make one unit together, and so do the selections that lack the same
  noise levels: no row is computed again, and all seeds are one unit still where
  whole seeds, or whole noise levels, are missing.

  Args:
    unit: the unit.
    done: row ids.

  Returns:
    Units that hold exactly the missing rows; none if there are none.
  """
  groups: dict[tuple[tuple[float, ...], tuple[str, ...]], list[int]] = {}
  for seed in unit.seeds:
    lacking: dict[tuple[float, ...], list[str]] = {}
    for selection in unit.selections:
      missing = tuple(noise_std for noise_std in unit.noise_stds
                      if row_id(unit, noise_std, seed, selection) not in done)
      if missing:
        lacking.setdefault(missing, []).append(selection)
    for noise_stds, selections in lacking.items():
      groups.setdefault((noise_stds, tuple(selections)), []).append(seed)
  return tuple(
      dataclasses.replace(unit, noise_stds=noise_stds, seeds=tuple(seeds),
                          selections=selections)
      for (noise_stds, selections), seeds in groups.items())


class Task(NamedTuple):
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


def choose_task(task_index: Optional[int], num_tasks: Optional[int],
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


# Seconds that a unit takes on one core.
Estimate = Callable[[WorkUnit], float]

# Units above this part of a share are cut: the shares of 50 tasks then differ
# by some percent, where one unit of ten seeds may be eleven shares.
_LARGEST_PART = 0.5


def split(units: Sequence[WorkUnit], num_shares: int,
          estimate: Optional[Estimate] = None) -> tuple[WorkUnit, ...]:
  """Units cut by seeds where they are too long to be shared evenly.

  A unit that is more than half of an even share becomes parts that are less, as
  far as its seeds go and as long as a part takes longer than its start. The
  rows are the same, and so are their names. It depends on the units and the
  number alone.

  Args:
    units: whole units.
    num_shares: into how many shares they are going to be divided, >= 1.
    estimate: what a unit costs; None for `estimate_seconds`.

  Returns:
    Units, parts in place of what was cut.
  """
  if num_shares == 1:
    return tuple(units)
  costs = list(map(estimate or estimate_seconds, units))
  # Not `sum`, whose rounding depends on the order of the units.
  largest = _LARGEST_PART * math.fsum(costs) / num_shares
  parts = []
  for unit, cost in zip(units, costs):
    num_seeds = len(unit.seeds)
    num_parts = max(1, min(num_seeds, math.ceil(cost / largest),
                           int(cost / _START_SECONDS) - 1))
    ends = [num_seeds * i // num_parts for i in range(num_parts + 1)]
    parts += [dataclasses.replace(unit, seeds=unit.seeds[start:end])
              for start, end in zip(ends, ends[1:])]
  return tuple(parts)


def select(units: Sequence[WorkUnit], task_index: int, num_tasks: int,
           estimate: Optional[Estimate] = None) -> tuple[WorkUnit, ...]:
  """The share of one task out of several, about equal in estimated cost.

  Long units are cut by seeds (`split`). Then the longest goes to the task with
  the least work so far, and so on: the division depends on the units and the
  number of tasks alone, not on what is done or on the order of the units.

  Args:
    units: the whole sweep.
    task_index: which task, from 0.
    num_tasks: how many tasks there are.
    estimate: what a unit costs; None for `estimate_seconds`.

  Returns:
    Its units and parts of units, in the order of `units`; none if there are
    more tasks than those.

  Raises:
    ValueError: num_tasks < 1, or task_index is outside num_tasks.
  """
  checks.check_count('num_tasks', num_tasks)
  checks.check_count('task_index', task_index, minimum=0)
  if task_index >= num_tasks:
    raise ValueError(f'task_index must be below num_tasks = {num_tasks}, got '
                     f'{task_index}.')
  estimate = estimate or estimate_seconds
  units = split(units, num_tasks, estimate)
  loads, chosen = [(0., task) for task in range(num_tasks)], set()
  for unit in longest_first(units, estimate):
    load, task = loads[0]
    heapq.heapreplace(loads, (load + estimate(unit), task))
    if task == task_index:
      chosen.add(unit.run_id)
  return tuple(unit for unit in units if unit.run_id in chosen)


# Inputs of at most so many numbers are held at once: 1.6 GB in float64.
_MOST_INPUTS = 2e8


def limit_inputs(units: Sequence[WorkUnit]) -> tuple[WorkUnit, ...]:
  """Units cut by seeds where their inputs would not fit into memory together.

  A unit on (1000, 100) becomes one unit per pair of seeds; their rows are the
  same.
  """
  parts = []
  for unit in units:
    num = max(1, int(_MOST_INPUTS // (unit.num_train * unit.input_dim)))
    parts += [dataclasses.replace(unit, seeds=unit.seeds[i:i + num])
              for i in range(0, len(unit.seeds), num)]
  return tuple(parts)


def longest_first(units: Sequence[WorkUnit],
                  estimate: Optional[Estimate] = None) -> list[WorkUnit]:
  """Units by estimated cost, so that no long one is left for the end."""
  estimate = estimate or estimate_seconds
  return sorted(units, key=lambda unit: (-estimate(unit), unit.run_id))


# The cost model. It only has to rank units and to balance shares: the numbers
# are those of one core of a 2024 server, and a factor of 2 does no harm.
_FLOPS = 6e10  # Floating-point operations per second of training.
_START_SECONDS = 3.  # Tracing, compiling, reading the cache: per unit.
_NUM_POINTS = 1000  # Test points; as many validation points.
_DRAWS_PER_SECOND = 2e7  # Normals drawn: x of every seed, in every unit.
_SOLVER_FLOPS = 8e10  # Dense linear algebra in float64.
_TILE_FLOPS = 1e11  # The matrix-free solver's products.
# Passes of that solver over the kernel besides the first, at T = 100,000: with as
# many vectors as there are points (block steps), and with few (Lanczos' method
# and conjugate gradients).
_NUM_BLOCK_PASSES, _NUM_THIN_PASSES = 3, 7


def estimate_seconds(unit: WorkUnit) -> float:
  """Estimated seconds of a unit on one core, its ground truth apart.

  Training: 6 operations per weight, copy of it, data point and step;
  evaluation 2. An agent without the usual settings (hidden_sizes, num_batches,
  batch_size) counts as reading its problems. Ground truth is made once for all
  agents, by `make_problems` or by whoever comes first: it is no unit's own.
  """
  seconds = _START_SECONDS + (len(unit.seeds) * unit.num_train * unit.input_dim
                              / _DRAWS_PER_SECOND)
  weights = _layer_weights(unit)
  if weights is not None:
    seconds += unit.num_problems * (
        estimate_training_seconds(unit)
        + 2. * sum(weights) * _NUM_POINTS * unit.num_enn_samples / _FLOPS)
  return seconds


def estimate_ground_truth_seconds(
    unit: WorkUnit,
    solver_memory_mb: float = problems.SOLVER_MEMORY_MB) -> float:
  """Estimated seconds on one core of a unit's ground truth.

  Dense: per seed a kernel matrix and a Cholesky factor for the draw, and per
  noise level a factor and the solves of 2000 points, T^3 / 3 and 2000 T^2
  operations. Matrix-free: per seed and pass all cosines of half the kernel, and
  each of its elements twice per vector.
  """
  t, num_noise = unit.num_train, len(unit.noise_stds)
  config = unit.problem_config(unit.noise_stds[0], unit.seeds[0])
  solver = problems.choose_solver(config, unit.solver, solver_memory_mb)
  if solver == 'dense':
    flops = (2. * t**2 * unit.input_dim + (1 + num_noise) * t**3 / 3.
             + num_noise * 2 * _NUM_POINTS * t**2) / _SOLVER_FLOPS
  else:
    cosines = (1 + _NUM_BLOCK_PASSES + _NUM_THIN_PASSES) * unit.input_dim
    vectors = unit.input_dim + 2 * _NUM_POINTS * _NUM_BLOCK_PASSES
    flops = t**2 * (cosines + 2. * vectors) / _TILE_FLOPS
  return len(unit.seeds) * (_START_SECONDS + flops)


def estimate_training_seconds(unit: WorkUnit) -> float:
  """Estimated seconds of training on one problem; 0 where nothing is known."""
  weights, settings = _layer_weights(unit), unit.agent_config
  if weights is None:
    return 0.
  trained = sum(w * c for w, c in
                zip(weights, _num_copies(settings, len(weights))))
  data_points = settings['num_batches'] * settings['batch_size']
  return 6. * trained * data_points / _FLOPS


def _layer_weights(unit: WorkUnit) -> Optional[list[int]]:
  """Weights of each layer; None for an agent without the usual settings."""
  if not all(name in unit.agent_config
             for name in ('hidden_sizes', 'num_batches', 'batch_size')):
    return None
  sizes = (unit.input_dim, *unit.agent_config['hidden_sizes'], 1)
  return [m * n for m, n in zip(sizes[:-1], sizes[1:])]


def _num_copies(settings: Mapping[str, Any], num_layers: int) -> list[int]:
  """How often each layer is computed in one training step."""
  if 'num_options' in settings:  # Shared prefixes: K, K^2, ... evaluations.
    options = settings['num_options']
    options = (options if isinstance(options, tuple)
               else (options,) * num_layers)
    return [math.prod(options[:i + 1]) for i in range(num_layers)]
  if 'index_dim' in settings:  # A hypermodel.
    copies = settings['index_dim'] * settings.get('samples_per_dim', 1)
    # Its first layer is linear in the index: that many images of the data.
    return [settings['index_dim'], *[copies] * (num_layers - 1)]
  copies = (settings.get('num_ensemble') or settings.get('num_index_samples')
            or 1)
  if settings.get('activation_mode') == 'none':  # VNN, affine in its inputs:
    # an index costs a row of each layer's weights, and no data point does.
    copies = -(-copies // settings['batch_size'])
  return [copies] * num_layers
