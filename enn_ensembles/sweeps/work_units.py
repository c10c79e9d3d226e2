"""Work units: what is compiled once, and what it is called.

A work unit is one agent setting on one (input_dim, data_ratio), all its noise
levels and seeds: what is compiled once. Names are hashes of full configs, so
that equal names are equal computations, whatever file asked for them.

Everything here is pure: nothing is computed, and nothing written.
"""

from collections.abc import Collection
from collections.abc import Mapping
import dataclasses
import hashlib
import itertools
import pathlib
import re
from typing import Any

from enn_ensembles import agents as agents_lib
from enn_ensembles import problems
from enn_ensembles import results
from enn_ensembles.machine import canonical
from enn_ensembles.nngp import kernels
from enn_ensembles.sweeps import sweep_config

# The key under which a file of one's own adds a hash of its text to the
# agent's settings. No dataclass field can have this name.
SOURCE_FILE = 'source-file'
_LONGEST_SLUG = 120
_PLAIN_TEXT = re.compile(r'[A-Za-z][A-Za-z0-9_.-]*')
_RESERVED_TEXT = ('none', 'true', 'false')


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
    ratio = canonical.canonical_json(self.data_ratio)
    return (f'{self.agent_id}-D{self.input_dim}_l{ratio}_{self.reference}-'
            f'{canonical.config_hash(config)}')

  @property
  def num_train(self) -> int:
    """T."""
    return sweep_config.num_train(self.input_dim, self.data_ratio)

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
  text = canonical.canonical_json(config)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_agent(name: str,
               agent_module: str | None = None) -> agents_lib.AgentModule:
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


def expand(config: sweep_config.SweepConfig,
           agent_module: str | None = None) -> tuple[WorkUnit, ...]:
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
          selections=tuple(selection for selection in sweep_config.SELECTIONS
                           if selection in selections[agent_id]))
      units.setdefault(unit.run_id, unit)
  return tuple(units.values())


def _agent_settings(config: sweep_config.SweepConfig, agent_module: str | None
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
                    sweep_config.selections(entry)))
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
  return f'{slug[:_LONGEST_SLUG]}-{canonical.config_hash(settings)}'


def _setting_text(value: Any) -> str | None:
  """A setting in a name, other for other settings; None if it has no such."""
  if value is None or isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, (int, float)):
    return canonical.canonical_json(value)
  if isinstance(value, str):
    plain = _PLAIN_TEXT.fullmatch(value) and value not in _RESERVED_TEXT
    return value if plain else None
  if isinstance(value, tuple) and value and all(
      isinstance(v, (int, float)) and not isinstance(v, bool) for v in value):
    # One number in a tuple is not that number.
    return 'x'.join(map(canonical.canonical_json,
                        value)) + 'x' * (len(value) == 1)
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
