"""Sweep configs: a grid of problems times the settings of some agents.

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
  PROBLEMS = 'nngp'              # the kind of problem
  REFERENCE = 'bayes'            # this, KERNEL and SOLVER belong to the kind
  KERNEL = 'relu2'
  SOLVER = 'auto'
  NUM_ENN_SAMPLES = 1000
  ENUMERATE_INDICES = True
  DTYPE = 'float32'

A list of values is swept, all combinations of an entry's lists; a setting that
is itself a sequence is a tuple. Settings that several entries of AGENTS name
are computed once. An entry may also have 'selection', one of
`scoring.selection.RULES` or a list of them: how members of a finite index set
are selected. One training serves all that leave the training set whole.
'replica' trains with other random numbers on the same problems, which are the
same agent's second opinion (0 is the first); 'degrade' adds noise to what it
predicts until its KL is so much larger, as a share: both are there to audit
what the statistics of a board can tell apart.

Which other names a config may define depends on its kind of problem: see
`problems.kinds`.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import math
import pathlib
import runpy
from typing import Any

import numpy as np

from enn_ensembles import checks
from enn_ensembles.machine import files
from enn_ensembles.problems import draws
from enn_ensembles.problems import kinds
from enn_ensembles.scoring import selection as selection_lib

# Lists in lists.
_DEEPEST = 20

# Tables of a million rows take minutes.
_MOST_ROWS = 10**7

# Precisions of training.
DTYPES = ('float32', 'float64')


# What every config may define, whatever its kind of problem.
_SHARED_NAMES: Mapping[str, kinds.ConfigName] = {
    'SEED': kinds.ConfigName(draws.check_seed),
    'NUM_ENN_SAMPLES': kinds.ConfigName(checks.check_count, False, 1000),
    'ENUMERATE_INDICES': kinds.ConfigName(checks.check_flag, False, True),
    'DTYPE': kinds.ConfigName(
        lambda name, value: checks.check_choice(name, value, DTYPES),
        False, 'float32'),
}


@dataclasses.dataclass(frozen=True)
class SweepConfig:
  """What to compute: a grid of problems times the settings of some agents.

  Attributes:
    name: where it comes from, for messages.
    seed: seeds, each from 0 to 2**32 - 1.
    agents: dicts with the key 'agent', perhaps 'selection', 'replica' and
      'degrade', and settings; lists are swept.
    problem: values of the names that the kind of problem defines, in lower
      case, as {'input_dim': (10,), 'data_ratio': (1.,), 'noise_std': (0.1,)};
      left out are defaults.
    kind: the kind of problem: 'nngp', 'heteroscedastic' or 'images', a file of
      `problems.kinds`.
    num_enn_samples: draws of agents that are not enumerated.
    enumerate_indices: whether finite index sets are scored on all members.
    dtype: precision of training, 'float32' or 'float64'.
    max_num_train: problems with more training points are left out; None keeps
      all.

  Raises:
    ValueError: a name is unknown, or a value is not allowed; the message begins
      with the config's name.
  """
  name: str
  seed: tuple[int, ...]
  agents: tuple[Mapping[str, Any], ...]
  problem: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  kind: str = kinds.DEFAULT_KIND
  num_enn_samples: int = 1000
  enumerate_indices: bool = True
  dtype: str = 'float32'
  max_num_train: int | None = None

  def __post_init__(self):
    for field in dataclasses.fields(self):
      object.__setattr__(self, field.name,
                         _without_numpy(getattr(self, field.name)))
    with self.named_in_errors():
      self._check()

  @contextlib.contextmanager
  def named_in_errors(self) -> Iterator[None]:
    """What is wrong inside of it is wrong with this config."""
    try:
      yield
    except ValueError as error:
      raise ValueError(f'config {self.name}: {error}') from error

  def _check(self):
    names = kinds.load_kind(self.kind).CONFIG_NAMES
    if not isinstance(self.problem, Mapping):
      raise ValueError('problem must be a dict of values by name, got '
                       f'{self.problem!r}.')
    unknown = [str(name).upper() for name in self.problem
               if str(name).upper() not in names]
    if unknown:
      raise ValueError(
          f'{self.kind} problems have no {unknown[0]}; allowed are '
          f'{", ".join(names)}.')
    values = {}
    for name, config_name in names.items():
      values[name.lower()] = _check_value(
          name, self.problem.get(name.lower(), config_name.default),
          config_name)
    object.__setattr__(self, 'problem', values)  # Frozen, and now complete.
    for name, config_name in _SHARED_NAMES.items():
      _check_value(name, getattr(self, name.lower()), config_name)
    _check_values('AGENTS', self.agents, _check_agent_entry)
    for entry in self.agents:
      if not self.enumerate_indices and selections(entry) != ('none',):
        raise ValueError(
            'ENUMERATE_INDICES must be True where members are selected, got '
            f"False and agent {entry['agent']!r} with selection "
            f"{entry['selection']!r}.")
    if self.max_num_train is not None:
      checks.check_count('max_num_train', self.max_num_train)
    num_rows = math.prod((
        len(self.seed), *(len(values[name.lower()])
                          for name, config_name in names.items()
                          if config_name.is_list),
        sum(math.prod(len(_as_list(value)) for value in entry.values())
            for entry in self.agents)))
    if num_rows > _MOST_ROWS:
      raise ValueError(f'at most {_MOST_ROWS:,} rows are allowed, got lists '
                       f'that make {num_rows:,}.')

  def families(self) -> list[kinds.Family]:
    """The families of problems that are kept, in the order of the grid."""
    return [family for family in self._all_families() if self._keeps(family)]

  def left_out(self) -> list[kinds.Family]:
    """The families that max_num_train leaves out."""
    return [family for family in self._all_families()
            if not self._keeps(family)]

  def _all_families(self) -> list[kinds.Family]:
    return kinds.load_kind(self.kind).make_families(self.problem)

  def _keeps(self, family: kinds.Family) -> bool:
    return (self.max_num_train is None
            or family.num_train <= self.max_num_train)


def config_names() -> list[str]:
  """The names of the configs that come with the package, sorted."""
  return sorted(path.stem for path in _configs_folder().glob('*.py'))


def _configs_folder() -> pathlib.Path:
  """Where they are: in the package, or beside it in a clone."""
  package = pathlib.Path(__file__).resolve().parents[1]
  inside = package / 'testbed_configs'
  return inside if inside.is_dir() else package.parent / 'testbed_configs'


def find_config(name_or_path: str | pathlib.Path) -> pathlib.Path:
  """The file of a config that is given by its path, or by its name.

  Raises:
    ValueError: there is no such file.
  """
  if not isinstance(name_or_path, files.PathLike):
    raise ValueError('config must be the path of a Python file, or a name, got '
                     f'{name_or_path!r}.')
  path = pathlib.Path(name_or_path)
  if files.is_file(path):
    return path
  if str(name_or_path) in config_names():
    return _configs_folder() / f'{name_or_path}.py'
  raise ValueError(
      f'config must be a Python file or one of {", ".join(config_names())}; '
      f'got {str(name_or_path)!r}, {files.why_no_file(path)}.')


def load_config(name_or_path: str | pathlib.Path) -> SweepConfig:
  """Reads and checks a config file.

  `help('enn_ensembles.sweeps.sweep_config')` shows one and explains its names.

  Args:
    name_or_path: the file, or the name of a config that comes with the package.

  Returns:
    The config, which `run_sweep` takes.

  Raises:
    ValueError: the file does not exist or cannot be run, lacks a name, has an
      unknown one (in capitals), or a value that is not allowed.
  """
  path = find_config(name_or_path)
  try:
    names = runpy.run_path(str(path))
  except KeyboardInterrupt:  # Imports may take long.
    raise
  except BaseException as error:  # Whatever a file may raise.
    raise ValueError(f'config {path} cannot be read: '
                     f'{checks.error_text(error)}') from error
  names = {name: tuple(value) if isinstance(value, list) else value
           for name, value in names.items()
           if name.isupper() and not name.startswith('_')}
  kind = names.pop('PROBLEMS', kinds.DEFAULT_KIND)
  try:
    own = kinds.load_kind(kind).CONFIG_NAMES
  except ValueError as error:
    raise ValueError(f'config {path}: {error}') from error
  known = {**own, **_SHARED_NAMES}
  required = [name for name, value in known.items()
              if value.default is None] + ['AGENTS']
  missing = [name for name in required if name not in names]
  if missing:
    raise ValueError(f'config {path} must define {", ".join(required)}; '
                     f'{", ".join(missing)} is missing.')
  allowed = ['PROBLEMS', *known, 'AGENTS']
  unknown = [name for name in names if name not in allowed]
  if unknown:
    raise ValueError(f'config {path} has the unknown name {unknown[0]}; '
                     f'allowed are {", ".join(allowed)}.')
  for name, value in names.items():
    try:
      _check_plain(name, value)
    except ValueError as error:
      raise ValueError(f'config {path}: {error}') from error
  problem = {name.lower(): names.pop(name) for name in own if name in names}
  return SweepConfig(name=str(path), kind=kind, problem=problem, **{
      name.lower(): value for name, value in names.items()})


def _without_numpy(value: Any) -> Any:
  """The same value with numbers of Python: rows and names hold no others."""
  if isinstance(value, np.generic):
    return value.item()
  if type(value) in (list, tuple):
    return type(value)(map(_without_numpy, value))
  if type(value) is dict:
    return {_without_numpy(key): _without_numpy(part)
            for key, part in value.items()}
  return value


def _check_plain(name: str, value: Any, depth: int = 0) -> None:
  """Constants only: what else may do when it is compared or printed?"""
  if depth > _DEEPEST:
    raise ValueError(f'{name} must not hold lists in lists in lists for ever, '
                     f'got {_DEEPEST} of them.')
  kind = type(value)  # Of a subclass all may be different.
  if kind in (list, tuple, dict):
    parts = [*value, *value.values()] if kind is dict else value
    for part in parts:
      _check_plain(name, part, depth + 1)
  elif kind not in (bool, int, float, str, type(None)) and not isinstance(
      value, np.generic):
    raise ValueError(
        f'{name} must be constants: numbers, texts, True, False, None and '
        f'lists, tuples and dicts of them; got an object of type '
        f'{kind.__name__!r}.')


def _check_value(name: str, value: Any, config_name: kinds.ConfigName) -> Any:
  """A value of a config, checked."""
  if config_name.is_list:
    _check_values(name, value, config_name.check)
  else:
    config_name.check(name, value)
  return value


def _check_values(name: str, values: Any,
                  check: Callable[[str, Any], None]) -> None:
  """A list with at least one value, each allowed and there once."""
  if not isinstance(values, (list, tuple)) or not values:
    raise ValueError(f'{name} must be a list of at least one value, got '
                     f'{values!r}.')
  for value in values:
    check(f'every value of {name}', value)
  checks.check_different(name, values)


def _check_agent_entry(name: str, entry: Any) -> None:
  """A dict with the agent's name and its settings."""
  if not isinstance(entry, Mapping) or not isinstance(entry.get('agent'), str):
    raise ValueError(f"{name} must be a dict with the key 'agent', got "
                     f'{entry!r}.')
  for key, value in entry.items():
    if isinstance(value, list):
      _check_values(f"{key} of agent {entry['agent']!r}", value,
                    lambda name, value: None)
  for name, check in TREATMENTS.items():
    for value in _as_list(entry.get(name, 0)):
      check(f"{name} of agent {entry['agent']!r}", value)
  for selection in selections(entry):
    checks.check_choice(f"selection of agent {entry['agent']!r}", selection,
                        selection_lib.RULES)


def _as_list(value: Any) -> list[Any]:
  return value if isinstance(value, list) else [value]


# Keys of an entry of AGENTS that are no settings of the agent, with the check
# of each: they change what is done with it. 0 is nothing.
TREATMENTS: Mapping[str, Callable[[str, Any], None]] = {
    'replica': lambda name, value: checks.check_count(name, value, minimum=0),
    'degrade': checks.check_scale,
}


def selections(entry: Mapping[str, Any]) -> tuple[str, ...]:
  """The selections of an entry of AGENTS."""
  return tuple(_as_list(entry.get('selection', 'none')))


def override(config: SweepConfig, *, agents: Sequence[str] | None = None,
             agent_modules: Sequence[str] = (),
             problem: Mapping[str, Any] | None = None,
             **values: Any) -> SweepConfig:
  """The config with some of its values replaced.

  Args:
    config: what to start from.
    agents: only these agents, with the settings of the config where it has
      them, else with their defaults.
    agent_modules: files of user-defined agents, which `agents` or the config
      may name; those that neither names are added with their defaults, and
      where the config names none of them they are the only agents.
    problem: values of the kind's own names; None keeps the config's value.
    **values: other fields of `SweepConfig`; None keeps the config's value.

  Raises:
    ValueError: a value is not allowed, an agent is named twice, or a file of
      agent_modules is not used.
  """
  values = {name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items() if value is not None}
  own = [pathlib.Path(path).stem for path in agent_modules]
  _check_values('names of agent_modules', own or ['none'],
                lambda name, value: None)
  named = list(dict.fromkeys(entry['agent'] for entry in config.agents))
  if agents is None and not set(own) & set(named):
    agents = own or None
  elif agents is None and not set(own) <= set(named):
    agents = [*named, *(name for name in own if name not in named)]
  if agents is not None:
    _check_values('agents', agents, lambda name, value: None)
    entries = []
    for name in agents:
      entries += ([entry for entry in config.agents if entry['agent'] == name]
                  or [{'agent': name}])
    values['agents'] = tuple(entries)
    unused = [path for path, name in zip(agent_modules, own)
              if name not in agents]
    if unused:
      raise ValueError(
          f'agent_module {unused[0]!r} is not used: agents must name '
          f'{pathlib.Path(unused[0]).stem}, got {",".join(agents)}.')
  given = {name: tuple(value) if isinstance(value, list) else value
           for name, value in (problem or {}).items() if value is not None}
  if given:
    values['problem'] = {**config.problem, **given}
  return dataclasses.replace(config, **values)
