"""Work units: what is compiled once, and what it is called.

A work unit is one agent setting on one family of problems (of the NNGP testbed:
one input_dim and data_ratio, all its noise levels) and some seeds. Names are
hashes of full configs, so that equal names are equal computations, whatever
file asked for them.

Everything here is pure: nothing is computed, and nothing written.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import re
from typing import Any
from typing import NamedTuple

from enn_ensembles import agents as agents_lib
from enn_ensembles import results
from enn_ensembles.machine import canonical
from enn_ensembles.machine import plain_text
from enn_ensembles.problems import kinds
from enn_ensembles.report import versions
from enn_ensembles.scoring import selection as selection_lib
from enn_ensembles.sweeps import sweep_config

# The key under which a user-defined agent's file adds a hash of its text to the
# agent's settings. No dataclass field can have this name.
SOURCE_FILE = versions.SOURCE_FILE

_LONGEST_SLUG, _LONGEST_FAMILY = 100, 88


@dataclasses.dataclass(frozen=True)
class WorkUnit:
  """One agent setting on one family of problems.

  Attributes:
    agent: name of the agent.
    agent_label: what the config wrote of the setting, readable.
    agent_config: the fields of the agent's config, as `all_settings` gives
      them.
    family: the problems of each seed.
    seeds: seeds, ascending.
    num_enn_samples: draws that are asked for.
    enumerate_indices: whether finite index sets are enumerated.
    dtype: precision of training.
    selections: how members are selected, each a row of its own.
  """
  agent: str
  agent_label: str
  agent_config: Mapping[str, Any]
  family: kinds.Family
  seeds: tuple[int, ...]
  num_enn_samples: int = 1000
  enumerate_indices: bool = True
  dtype: str = 'float32'
  selections: tuple[str, ...] = ('none',)

  # A sweep may have 100,000 units, whose names are asked for again and again.
  @functools.cached_property
  def agent_id(self) -> str:
    """The agent setting, whatever the defaults are."""
    return results.make_agent_id(self.agent, self.agent_config)

  @functools.cached_property
  def run_id(self) -> str:
    """A name that is safe for files: readable, and a hash of everything."""
    config = canonical.named_fields(self, without=('agent_label', 'family'))
    config['problems'] = [self.family.kind, list(self.family.cells),
                          self.family.ranking]
    agent, family = (re.sub(r'[^A-Za-z0-9._,=+-]', '_', name)
                     for name in (self.agent_label, self.family.name))
    # It begins with a letter or a digit, and is at most 200 characters long.
    agent = agent.lstrip('._,=+-')[:_LONGEST_SLUG] or 'agent'
    return (f'{agent}-{family[:_LONGEST_FAMILY]}-'
            f'{canonical.config_hash(config)}')

  def agent_settings(self) -> dict[str, Any]:
    """The settings that its agent's config takes.

    These are `agent_config` without what a sweep adds to it: how problems are
    treated, and the hash of a user-defined agent's file.
    """
    return {name: value for name, value in self.agent_config.items()
            if name != SOURCE_FILE and name not in sweep_config.TREATMENTS}

  @property
  def num_problems(self) -> int:
    """Problems that are trained on."""
    return len(self.family.cells) * len(self.seeds)

  @property
  def num_rows(self) -> int:
    """Rows: one per problem and selection."""
    return self.num_problems * len(self.selections)

  def row_fields(self, cell: Mapping[str, Any], seed: int,
                 selection: str) -> dict[str, Any]:
    """What is known of a row before anything is computed."""
    fields = {
        'agent': self.agent, 'agent_id': self.agent_id,
        'agent_label': self.agent_label, 'agent_config': self.agent_config,
        'problem_id': self.family.problem_id(cell, seed),
        'problem': {
            'kind': self.family.kind, 'seed': seed, 'cell': cell,
            'ranking': self.family.ranking, 'facts': self.family.facts()},
        'score_set': self.family.score_set,
        'enumerate_indices': self.enumerate_indices, 'selection': selection,
        'dtype': self.dtype}
    fields['row_id'] = results.make_row_id(fields, self.num_enn_samples)
    return fields

  def row_id(self, cell: Mapping[str, Any], seed: int,
             selection: str = 'none') -> str:
    """The name of one of its rows."""
    return self.row_fields(cell, seed, selection)['row_id']

  def row_ids(self) -> list[str]:
    """The names of all its rows, by seed, cell and selection."""
    row_ids = results.RowIds(
        {'agent': self.agent, 'agent_config': self.agent_config,
         'enumerate_indices': self.enumerate_indices, 'dtype': self.dtype},
        self.family.kind, self.family.ranking, self.num_enn_samples)
    return row_ids.row_ids(self.family.cells, self.seeds, self.selections)

  def manifest_entries(self) -> list[dict[str, Any]]:
    """What it is expected to compute, as `ResultsStore.write_manifest` says."""
    shared = {
        'agent': self.agent, 'agent_id': self.agent_id,
        'agent_label': self.agent_label, 'agent_config': self.agent_config,
        'problem': {
            'kind': self.family.kind, 'cells': list(self.family.cells),
            'seeds': list(self.seeds), 'ranking': self.family.ranking},
        'score_set': self.family.score_set,
        'num_enn_samples': self.num_enn_samples,
        'enumerate_indices': self.enumerate_indices}
    return [{**shared, 'selection': selection}
            for selection in self.selections]


def modules_by_name(agent_modules: Sequence[str]) -> dict[str, str]:
  """Files of user-defined agents by the names of the agents."""
  return {pathlib.Path(path).stem: path for path in agent_modules}


def load_agent(name: str,
               agent_modules: Sequence[str] = ()) -> agents_lib.AgentModule:
  """An agent by its name: of one of the files, or of the package.

  Raises:
    ValueError: there is none, or the file is no agent.
  """
  for path in agent_modules:
    if not path.endswith('.py'):
      raise ValueError(f'agent_module must be a Python file, got {path!r}.')
  own = modules_by_name(agent_modules)
  if name in own:
    return agents_lib.load_agent(own[name])
  # A path in a config must not run a file that no flag named.
  if name not in agents_lib.agent_names():
    raise ValueError(
        'agent must be one of '
        f'{", ".join([*agents_lib.agent_names(), *own])}; got {name!r}.')
  return agents_lib.load_agent(name)


def expand(config: sweep_config.SweepConfig,
           agent_modules: Sequence[str] = ()) -> tuple[WorkUnit, ...]:
  """All work units of a config: agent settings, times the families kept.

  Args:
    config: the config.
    agent_modules: files of user-defined agents that the config may name.

  Returns:
    Units in the order of the config, agents first; none twice.

  Raises:
    ValueError: an agent or a setting is unknown, a setting is not allowed, or
      no problem is left.
  """
  families = config.families()
  if not families:
    raise ValueError(f'config {config.name}: no problem has at most '
                     f'max_num_train = {config.max_num_train} training points.')
  # Entries that share a setting share its training.
  settings = _agent_settings(config, agent_modules)
  selected: dict[str, set[str]] = {}
  for setting in settings:
    selected.setdefault(setting.agent_id, set()).update(setting.selections)
  units: dict[tuple[str, str], WorkUnit] = {}
  for setting in settings:
    for family in families:
      unit = WorkUnit(
          agent=setting.agent, agent_label=setting.label,
          agent_config=setting.config, family=family,
          seeds=tuple(sorted(config.seed)),
          num_enn_samples=config.num_enn_samples,
          enumerate_indices=config.enumerate_indices, dtype=config.dtype,
          selections=tuple(rule for rule in selection_lib.RULES
                           if rule in selected[setting.agent_id]))
      units.setdefault((setting.agent_id, family.name), unit)
  return tuple(units.values())


class _Setting(NamedTuple):
  """One setting of an agent."""
  agent: str
  agent_id: str
  label: str
  config: dict[str, Any]
  selections: tuple[str, ...]


def _agent_settings(config: sweep_config.SweepConfig,
                    agent_modules: Sequence[str]) -> list[_Setting]:
  """Every combination in AGENTS."""
  own = modules_by_name(agent_modules)
  found = []
  for entry in config.agents:
    with (contextlib.nullcontext() if entry['agent'] in own
          else config.named_in_errors()):
      agent = load_agent(entry['agent'], agent_modules)
    names = [name for name in entry if name not in ('agent', 'selection')]
    grids = [value if isinstance(value, list) else [value]
             for value in (entry[name] for name in names)]
    for values in itertools.product(*grids):
      written = dict(zip(names, values))
      treatments = {name: value for name, value in written.items()
                    if name in sweep_config.TREATMENTS}
      with config.named_in_errors():
        settings = all_settings(agent, {
            name: value for name, value in written.items()
            if name not in treatments})
      settings.update({name: value for name, value in treatments.items()
                       if value})
      if agent.name in own:
        # A changed file is another agent: its old rows are not its results.
        settings[SOURCE_FILE] = source_of(own[agent.name])
      plain = json.loads(_as_json(agent.name, settings))
      label = make_label(agent.name, written)
      if plain_text.encodable(plain) != plain:
        raise ValueError('an agent and its settings must be text that UTF-8 '
                         f'can encode, got {label}.')
      found.append(_Setting(
          agent.name, results.make_agent_id(agent.name, settings), label,
          settings, sweep_config.selections(entry)))
  return found


def _as_json(agent: str, settings: dict[str, Any]) -> str:
  """One text for the setting of an agent; what has none is named."""
  try:
    return canonical.canonical_json([agent, settings])
  except ValueError:
    for name, value in settings.items():
      try:
        canonical.canonical_json(value)
      except ValueError as error:
        raise ValueError(
            f'setting {name!r} of agent {agent!r}: {error}') from error
    raise


def source_of(agent_module: str) -> str:
  """What agent_config holds under SOURCE_FILE, of a file that exists."""
  source = pathlib.Path(agent_module).read_bytes()
  return f'sha256-{hashlib.sha256(source).hexdigest()[:10]}'


def check_source(unit: WorkUnit, agent_modules: Sequence[str]) -> None:
  """The file of a user-defined agent is the one that the unit names.

  Raises:
    ValueError: it was changed, or is gone: its rows would be those of another
      agent.
  """
  expected = unit.agent_config.get(SOURCE_FILE)
  if expected is None:
    return
  path = modules_by_name(agent_modules)[unit.agent]
  try:
    found = source_of(path)
  except OSError:
    found = None
  if found != expected:
    raise ValueError(f'agent_module {path!r} must not change during a sweep, '
                     'got another file: the same command again computes that.')


def all_settings(agent: agents_lib.AgentModule,
                 settings: Mapping[str, Any]) -> dict[str, Any]:
  """Every field of the agent's config, given or default.

  Later fields that have their default are left out, see
  `canonical.later_field`.
  """
  made = agents_lib.make_config(agent, settings)
  if made is None:
    return {}
  return canonical.named_fields(made)


def make_label(agent: str, written: Mapping[str, Any]) -> str:
  """A readable name: the agent and what a config wrote of its settings.

  It is one line, in which control characters are written out.
  """
  label = ','.join([agent, *(f'{name}={_setting_text(value)}'
                             for name, value in written.items())])
  return plain_text.printable(re.sub(r'\s', ' ', label)).strip()


def _setting_text(value: Any) -> str:
  """A setting in a label; a tuple of sizes as 50x50."""
  if isinstance(value, str):
    return value
  if isinstance(value, (tuple, list)):
    return 'x'.join(map(_setting_text, value)) or '()'
  if isinstance(value, Mapping):
    return '+'.join(f'{key}:{_setting_text(item)}'
                    for key, item in value.items())
  return canonical.canonical_json(value)


def narrow(unit: WorkUnit, done: Collection[str]) -> tuple[WorkUnit, ...]:
  """What is left of a unit when some of its rows are done.

  Units are full grids of seeds, cells and selections. Seeds that lack the same
  rows make one unit together, and so do the selections that lack the same
  cells: no row is computed again, and all seeds are one unit still where whole
  seeds, or whole cells, are missing.

  Args:
    unit: the unit.
    done: row ids.

  Returns:
    Units that hold exactly the missing rows; none if there are none.
  """
  cells, row_ids = unit.family.cells, iter(unit.row_ids())
  groups: dict[tuple[tuple[int, ...], tuple[str, ...]], list[int]] = {}
  for seed in unit.seeds:
    missing: dict[str, list[int]] = {rule: [] for rule in unit.selections}
    for (i, rule), row_id in zip(
        itertools.product(range(len(cells)), unit.selections), row_ids):
      if row_id not in done:
        missing[rule].append(i)
    lacking: dict[tuple[int, ...], list[str]] = {}
    for rule, positions in missing.items():
      if positions:
        lacking.setdefault(tuple(positions), []).append(rule)
    for positions, selections in lacking.items():
      groups.setdefault((positions, tuple(selections)), []).append(seed)
  return tuple(
      dataclasses.replace(
          unit, seeds=tuple(seeds), selections=selections,
          family=unit.family.narrow([cells[i] for i in positions]))
      for (positions, selections), seeds in groups.items())
