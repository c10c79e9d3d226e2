"""How far a sweep is: what is done, what runs, what failed, how long it takes.

Pure: from what is expected (work units), what is there (rows) and what somebody
is computing (row ids) to counts and times.
"""

import collections
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NamedTuple

from enn_ensembles import agents as agents_lib
from enn_ensembles import results
from enn_ensembles.sweeps import cost_model
from enn_ensembles.sweeps import work_units

Row = Mapping[str, Any]
Group = tuple[str, str]  # Label of the agent setting, name of the family.

# What is read of a row here: all that `make_status` needs.
ROW_FIELDS = ('agent_label', 'status', 'message', 'train_seconds',
              'evaluate_seconds', 'rank_seconds', 'problem_seconds',
              'compile_seconds', 'cell', 'seed')


@dataclasses.dataclass
class Counts:
  """Rows of an agent setting on a family, or of several of those together.

  Attributes:
    expected: rows that the sweep asks for; the sum of the others.
    ok: scored, all finite.
    diverged: scored, not finite.
    failed: the agent raised; done, unless it is asked to be retried.
    running: not there, and a live process is computing it.
    missing: not there, and no process is computing it.
    seconds_left: of one process, for what runs and what is missing.
  """
  expected: int = 0
  ok: int = 0
  diverged: int = 0
  failed: int = 0
  running: int = 0
  missing: int = 0
  seconds_left: float = 0.

  @property
  def done(self) -> int:
    """Rows that have scores."""
    return self.ok + self.diverged

  def add(self, other: 'Counts') -> None:
    """Adds another's counts to these."""
    for field in dataclasses.fields(self):
      name = field.name
      setattr(self, name, getattr(self, name) + getattr(other, name))


class Error(NamedTuple):
  """A message of rows that are not ok.

  Attributes:
    status: 'failed' or 'diverged'.
    message: as in the rows.
    num_rows: how many rows have it.
    agent_labels: whose they are, sorted.
  """
  status: str
  message: str
  num_rows: int
  agent_labels: tuple[str, ...]


class Status(NamedTuple):
  """How far a sweep is.

  Attributes:
    groups: counts of each agent setting on each family of problems, in the
      order of the units.
    errors: the most frequent first.
    num_measured: groups whose time per row was measured; the times of others
      are estimates, scaled by those.
    num_unknown: units left of user-defined agents that were measured nowhere,
      and say nothing themselves: their times are not known.
  """
  groups: dict[Group, Counts]
  errors: list[Error]
  num_measured: int
  num_unknown: int = 0

  @property
  def total(self) -> Counts:
    """Counts of the whole sweep."""
    return add_up(self.groups.values())

  def by_agent(self) -> dict[str, Counts]:
    """Counts of each agent setting, over all families."""
    return self._by(lambda group: group[0])

  def by_family(self) -> dict[str, Counts]:
    """Counts of each family of problems, over all agent settings."""
    return self._by(lambda group: group[1])

  def _by(self, key: Callable[[Group], str]) -> dict[str, Counts]:
    """Counts of the groups that have a key in common."""
    parts: dict[str, list[Counts]] = collections.defaultdict(list)
    for group, counts in self.groups.items():
      parts[key(group)].append(counts)
    return {name: add_up(found) for name, found in parts.items()}


def add_up(counts: Iterable[Counts]) -> Counts:
  """The sum of counts."""
  total = Counts()
  for part in counts:
    total.add(part)
  return total


def make_status(units: Sequence[work_units.WorkUnit], rows: Iterable[Row],
                running: Collection[str] = (),
                seconds_left: Mapping[str, float] | None = None) -> Status:
  """Compares what is expected with what is there.

  Args:
    units: the sweep.
    rows: rows of a store; those of other sweeps do not count.
    running: row ids that a live process is computing.
    seconds_left: what running units say they will still take, by the first of
      their row ids. It counts more than what their agent took elsewhere.
  """
  by_id = {row['row_id']: row for row in rows}
  groups: dict[Group, Counts] = {}
  ours: dict[Group, list[Row]] = {}
  for unit in units:
    group = (unit.agent_label, unit.family.name)
    counts = groups.setdefault(group, Counts())
    found = ours.setdefault(group, [])
    for row_id in unit.row_ids():
      counts.expected += 1
      if row_id in by_id:
        row = by_id[row_id]
        found.append(row)
        setattr(counts, row['status'], getattr(counts, row['status']) + 1)
      elif row_id in running:
        counts.running += 1
      else:
        counts.missing += 1
  measured = _costs(ours)
  num_unknown = _add_times(units, by_id, groups, measured, seconds_left or {})
  return Status(groups, _count_errors(ours), len(measured), num_unknown)


class Cost(NamedTuple):
  """Seconds of one problem with all its selections, and of one unit's start."""
  problem: float
  start: float

  def of(self, unit: work_units.WorkUnit) -> float:
    """Seconds of a unit, or of a part of one."""
    return self.start + self.problem * unit.num_problems


def costs_in_rows(units: Sequence[work_units.WorkUnit],
                  by_id: Mapping[str, Row]) -> dict[Group, Cost]:
  """What each agent setting was found to take on each family with rows.

  Args:
    units: the sweep.
    by_id: rows by their `row_id`.
  """
  if not by_id:  # Naming all rows of a large sweep takes seconds.
    return {}
  found: dict[Group, list[Row]] = collections.defaultdict(list)
  for unit in units:
    found[unit.agent_label, unit.family.name] += [
        by_id[row_id] for row_id in unit.row_ids() if row_id in by_id]
  return _costs(found)


def _costs(rows: Mapping[Group, Sequence[Row]]) -> dict[Group, Cost]:
  """Of the groups whose rows say what they took."""
  return {group: cost for group, found in rows.items()
          if (cost := _measure(found)) is not None}


def _measure(rows: Sequence[Row]) -> Cost | None:
  """The mean cost of an agent setting on a family, from rows; None of none."""
  rows = [row for row in rows if row['train_seconds'] is not None]
  if not rows:
    return None
  # The rows of a problem share all but the ranking of members.
  problems = {results.problem_of(row): row for row in rows}
  shared = sum(row[name] or 0. for row in problems.values()
               for name in ('problem_seconds', 'train_seconds',
                            'evaluate_seconds'))
  ranking = sum(row['rank_seconds'] or 0. for row in rows)
  start = sum(row['compile_seconds'] or 0. for row in rows) / len(rows)
  return Cost((shared + ranking) / len(problems), start)


def _add_times(units: Sequence[work_units.WorkUnit], by_id: Mapping[str, Row],
               groups: Mapping[Group, Counts],
               measured: Mapping[Group, Cost],
               seconds_left: Mapping[str, float]) -> int:
  """Fills in seconds_left, from measured costs where there are any.

  Elsewhere the estimate of `sweeps` is scaled by what this agent, or else any,
  was found to take instead of its estimate.

  Returns:
    Units of which nothing is known.
  """
  num_unknown = 0
  package = set(agents_lib.agent_names())
  left: dict[Group, list[work_units.WorkUnit]] = collections.defaultdict(list)
  spent: dict[str, list[float]] = collections.defaultdict(lambda: [0., 0.])
  for unit in units:
    group = (unit.agent_label, unit.family.name)
    left[group] += work_units.narrow(unit, by_id)
  # An estimate traces a network: they are made only where one is needed.
  if any(parts and group not in measured for group, parts in left.items()):
    for unit in units:
      group = (unit.agent_label, unit.family.name)
      if group not in measured:
        continue
      cost = measured[group]
      for name in (unit.agent, ''):
        spent[name][0] += cost.of(unit)
        spent[name][1] += cost_model.estimate_seconds(unit)
  for group, parts in left.items():
    # A unit that runs knows best. It may be a part of what is asked for here.
    said = sum(seconds_left[row_id] for part in parts
               for row_id in part.row_ids() if row_id in seconds_left)
    for part in parts:
      if group in measured:
        cost = measured[group]
        seconds = cost.of(part)
      else:
        num_unknown += (part.agent not in package and part.agent not in spent
                        and not set(part.row_ids()) & set(seconds_left))
        taken, estimated = spent.get(part.agent) or spent.get('', (1., 1.))
        seconds = cost_model.estimate_seconds(part) * taken / estimated
      groups[group].seconds_left += seconds
    counts = groups[group]
    if said and not counts.missing:
      counts.seconds_left = said
    counts.seconds_left = max(counts.seconds_left, said)
  return num_unknown


def _count_errors(ours: Mapping[Group, Sequence[Row]]) -> list[Error]:
  """Messages of what is not ok, the most frequent first."""
  counts: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
  for rows in ours.values():
    for row in rows:
      if row['status'] != 'ok':
        counts[row['status'], row['message']].append(row['agent_label'])
  errors = [Error(status, message, len(agents), tuple(sorted(set(agents))))
            for (status, message), agents in counts.items()]
  return sorted(errors, key=lambda e: (-e.num_rows, e.status, e.message))
