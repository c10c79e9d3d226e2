"""The agent settings of one ranking, each with its rows laid out on cells."""

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles.report import cells as cells_lib
from enn_ensembles.report import columns as columns_lib
from enn_ensembles.report import rankings as rankings_lib
from enn_ensembles.report import statistics


class Agent(NamedTuple):
  """An agent setting, as rows and manifests name it."""
  agent_id: str
  agent: str
  label: str
  config: Mapping[str, Any]


class Scope(NamedTuple):
  """What the lines of one ranking are about.

  Attributes:
    columns: all rows.
    grid: cells and seeds of the ranking.
    ranking: the ranking.
    score: what it is ranked by.
    by: the cell field with columns per value; None for the usual one.
    baseline: name of the agent whose score is 1.
    covered: the problems that are compared on, bool [C, S].
  """
  columns: columns_lib.Columns
  grid: cells_lib.Grid
  ranking: rankings_lib.Ranking
  score: str
  by: str | None
  baseline: str
  covered: np.ndarray


class Placed(NamedTuple):
  """Numbers of rows [R], and of the cell and the seed of each."""
  rows: np.ndarray
  cells: np.ndarray
  seeds: np.ndarray


def read_agents(columns: columns_lib.Columns) -> list[Agent]:
  """The agent settings of all rows, each combination once.

  Sweeps may call one setting by several labels: the shortest comes first.
  """
  names = ('agent_id', 'agent', 'agent_label', 'agent_config')
  found = set(zip(*(columns.codes(name).tolist() for name in names)))
  agents = [Agent(*(columns.values(name)[code]
                    for name, code in zip(names, codes))) for codes in found]
  return sorted(agents, key=lambda agent: (len(agent.label), agent.label,
                                           agent.agent_id))


class AgentSetting:
  """One agent setting of a ranking with its rows.

  Attributes:
    scope: what the ranking is about.
    identity: its columns in every table.
    placed: its rows.
    status: of each row [R].
    inside: which rows are on problems that are compared on, bool [R].
    values: the score, [C, S].
    there: where there is one, [C, S].
    covered_there: the same on the problems that are compared on, [C, S].
  """

  def __init__(self, scope: Scope, identity: Mapping[str, Any],
               placed: Placed):
    self.scope, self.identity, self.placed = scope, identity, placed
    columns = scope.columns
    codes = columns.codes('status')[placed.rows]
    statuses = np.array(columns.values('status'), object)
    self.status = statuses[codes] if len(codes) else np.array([], object)
    self.inside = scope.covered[placed.cells, placed.seeds]
    self.values, self.there = self.laid(scope.score)
    self.covered_there = self.there & scope.covered

  def laid(self, score: str) -> tuple[np.ndarray, np.ndarray]:
    """A score over cells and seeds, and where there is one, [C, S] each."""
    values, present = self.scope.columns.score(score)
    rows = self.placed.rows
    return cells_lib.lay_out(
        values[rows], present[rows] & (self.status != 'failed'),
        self.placed.cells, self.placed.seeds, self.scope.grid.shape)

  def mean(self, score: str) -> float | None:
    """Mean over seeds, then cells, of the problems compared on."""
    values, there = self.laid(score)
    found = statistics.mean_over_cells(values, there & self.scope.covered)
    return found and found.mean

  def unique(self, name: str) -> list[Any]:
    """Different values of a field of the rows compared on, without None."""
    codes = np.unique(self.scope.columns.codes(name)[
        self.placed.rows[self.inside]])
    values = self.scope.columns.values(name)
    return [values[code] for code in codes if values[code] is not None]


def make_settings(scope: Scope, placed: Placed, agents: Mapping[str, Agent],
                  asked_draws: Mapping[str, int | None]) -> list[AgentSetting]:
  """The agent settings of a ranking, by label, each with its rows."""
  names = ('agent_id', 'dtype', 'num_enn_samples')
  groups: dict[tuple[Any, ...], np.ndarray] = {}
  if len(placed.rows):
    codes = np.stack([scope.columns.codes(name)[placed.rows]
                      for name in names])
    found, inverse = np.unique(codes, axis=1, return_inverse=True)
    inverse = inverse.ravel()
    by_group = np.split(np.argsort(inverse, kind='stable'),
                        np.cumsum(np.bincount(inverse))[:-1])
    for column, members in zip(found.T, by_group):
      key = tuple(scope.columns.values(name)[code]
                  for name, code in zip(names, column))
      groups[key] = members
  for agent_id in set(agents) - {key[0] for key in groups}:
    groups[(agent_id, None, asked_draws.get(agent_id))] = np.array([], int)
  labels: dict[str, set[str]] = {}
  for agent in agents.values():
    labels.setdefault(agent.label, set()).add(agent.agent_id)
  settings = []
  for key, members in groups.items():
    agent_id, dtype, num_enn_samples = key
    agent = agents[agent_id]
    # Hash, precision and draws are told only where they tell namesakes apart.
    namesakes = [other for other in groups if other[0] == agent_id]
    label = agent.label
    if len(labels[label]) > 1:
      label += f' [{agent_id.rpartition("-")[2]}]'
    if len({other[1] for other in namesakes}) > 1:
      label += f' ({dtype})'
    if len({other[2] for other in namesakes}) > 1:
      label += f' ({num_enn_samples or "all"} samples)'
    identity = {
        'ranking': scope.ranking.label, 'label': label, 'agent_id': agent_id,
        'agent': agent.agent, 'dtype': dtype,
        'num_enn_samples': num_enn_samples}
    settings.append(AgentSetting(
        scope, identity, Placed(*(part[members] for part in placed))))
  return sorted(settings, key=lambda setting: setting.identity['label'])
