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
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import pathlib
import runpy
from typing import Any

from enn_ensembles import checks
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
SELECTIONS = results.ROW_SCHEMA['selection'].choices


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
  max_num_train: int | None = None

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
      if not self.enumerate_indices and selections(entry) != ('none',):
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


def num_train(input_dim: int, data_ratio: float) -> int:
  """T of a cell; the noise level and the seed do not matter."""
  return problems.ProblemConfig(input_dim, data_ratio, 1., 0).num_train


def load_config(path: str | pathlib.Path) -> SweepConfig:
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
  for selection in selections(entry):
    checks.check_choice(f"selection of agent {entry['agent']!r}", selection,
                        SELECTIONS)


def selections(entry: Mapping[str, Any]) -> tuple[str, ...]:
  """The selections of an entry of AGENTS."""
  selections = entry.get('selection', 'none')
  return tuple(selections) if isinstance(selections, list) else (selections,)


def override(config: SweepConfig, *, agents: Sequence[str] | None = None,
             agent_module: str | None = None,
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
