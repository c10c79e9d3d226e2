"""What a sweep is going to cost, said before its first unit.

Seconds are those of a worker that has an idle core to itself. Of each agent
setting and family of problems the first of these counts that is there:

  rows        what rows of this agent setting and family say that they took
  timed       a user-defined agent, timed on problems of its small families
  operations  an agent that trains a network with the loop of this package: the
              operations of its training and predictions (`cost_model`); or one
              of the package whose file counts them
  reading     another agent of the package: reading the problems, no more
  unknown     a user-defined agent elsewhere; its rows say it later

Making problems is the cost of no agent (`estimate_ground_truth_seconds`).
"""

import collections
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import time
from typing import Any
from typing import NamedTuple

from enn_ensembles import agents as agents_lib
from enn_ensembles.sweeps import cost_model
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import status_text
from enn_ensembles.sweeps import sweep_status
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units

# Problems with more training points, or numbers, are not made to time an agent.
_MOST_POINTS, _MOST_NUMBERS = 1000, 1_000_000

_LONGEST_LIST = 20  # Agent settings, or families of one, that have a line.

_SOURCES: Mapping[str, str] = {
    'rows': 'rows in the results folder',
    'timed': 'timed just now on at most two seeds of a family',
    'operations': 'operations of training and predictions, counted',
    'reading': 'only reading the problems is counted',
    'unknown': 'unknown until a unit is done: `status` says it then',
}


class Timing(NamedTuple):
  """What a user-defined agent takes on a family of problems.

  Attributes:
    agent_id: the agent setting.
    family: the family's name.
    cost: seconds.
    source: 'timed' or 'operations'.
  """
  agent_id: str
  family: str
  cost: sweep_status.Cost
  source: str


class Part(NamedTuple):
  """The cost of an agent setting on a family of problems.

  Attributes:
    agent_label: the agent setting.
    family: the family's name.
    num_problems: problems that are not done.
    seconds: of one core; None where it is unknown.
    source: where the seconds are from, as in the module's docstring.
  """
  agent_label: str
  family: str
  num_problems: int
  seconds: float | None
  source: str


def time_agents(units: Sequence[work_units.WorkUnit],
                agents: Mapping[str, Any], options: unit_results.RunOptions,
                seconds: float) -> Iterator[Timing]:
  """Times user-defined agents, the smallest problems first; writes nothing.

  Args:
    units: of user-defined agents.
    agents: agent_id -> the agent.
    options: how units run; caches are not used.
    seconds: after which no further family is begun.

  Yields:
    What is found, one by one. Families whose problems are expensive to make,
    and agents that fail, are left out.
  """
  start = time.monotonic()
  options = dataclasses.replace(
      options, compilation_cache_dir=None,
      problem_settings=options.problem_settings._replace(cache_dir=None))
  timed = []
  for unit in units:
    try:
      estimate = cost_model.estimate_made(unit, agents[unit.agent_id])
    except Exception:  # Somebody's network, which nobody has traced before.
      continue
    if estimate is None:
      timed.append(unit)
    else:
      cost = sweep_status.Cost(
          (estimate - cost_model.START_SECONDS) / unit.num_problems,
          cost_model.START_SECONDS)
      yield Timing(unit.agent_id, unit.family.name, cost, 'operations')
  for unit in sorted(timed, key=_num_numbers):
    if (unit.family.num_train > _MOST_POINTS
        or _num_numbers(unit) > _MOST_NUMBERS):
      continue
    if time.monotonic() - start > seconds:
      return
    try:
      rows, _ = one_unit.run_unit(
          dataclasses.replace(unit, seeds=unit.seeds[:2]), options)
    except ValueError:
      continue  # The sweep will say why its problems cannot be made.
    cost = cost_of_run([
        None if row['train_seconds'] is None else
        row['train_seconds'] + row['evaluate_seconds'] for row in rows])
    if cost is not None:
      yield Timing(unit.agent_id, unit.family.name, cost, 'timed')


def _num_numbers(unit: work_units.WorkUnit) -> int:
  """Numbers in the training inputs of a problem."""
  return unit.family.num_train * math.prod(unit.family.input_shape)


def cost_of_run(seconds: Sequence[float | None]) -> sweep_status.Cost | None:
  """The cost in the first run of an agent, whose beginning compiles.

  Args:
    seconds: of each problem, in the order of the run; None where it failed.

  Returns:
    The mean of the second half is a problem's, what the first half took above
    that is the start's; None where a problem failed.
  """
  known = [value for value in seconds if value is not None]
  if not known or len(known) < len(seconds):
    return None
  last = known[len(known) // 2:]
  problem = sum(last) / len(last)
  return sweep_status.Cost(
      problem, max(0., sum(known) - problem * len(known)))


def make_forecast(todo: Sequence[work_units.WorkUnit],
                  measured: Mapping[sweep_status.Group, sweep_status.Cost],
                  timings: Sequence[Timing] = ()) -> list[Part]:
  """The cost of units, by agent setting and family, in their order.

  Args:
    todo: what is not done.
    measured: of `sweep_status.costs_in_rows`.
    timings: of `time_agents`.
  """
  timed = {(timing.agent_id, timing.family): timing for timing in timings}
  package = set(agents_lib.agent_names())
  groups: dict[sweep_status.Group, list[work_units.WorkUnit]]
  groups = collections.defaultdict(list)
  for unit in todo:
    groups[unit.agent_label, unit.family.name].append(unit)
  parts = []
  for group, units in groups.items():
    timing = timed.get((units[0].agent_id, units[0].family.name))
    if group in measured:
      seconds, source = sum(map(measured[group].of, units)), 'rows'
    elif timing is not None:
      seconds, source = sum(map(timing.cost.of, units)), timing.source
    elif units[0].agent in package:
      seconds = sum(map(cost_model.estimate_seconds, units))
      source = ('operations' if cost_model.is_counted(units[0])
                else 'reading')
      if not cost_model.estimate_training_seconds(units[0]):
        # It compiles no training, which is what a start takes.
        seconds -= len(units) * cost_model.START_SECONDS
    else:
      seconds, source = None, 'unknown'
    parts.append(Part(*group, sum(unit.num_problems for unit in units),
                      seconds, source))
  return parts


def format_text(parts: Sequence[Part], num_workers: int,
                own: Collection[str] = ()) -> str:
  """The forecast in lines.

  Args:
    parts: of `make_forecast`, at least one.
    num_workers: processes that share the work, one core each.
    own: labels of user-defined agent settings, whose families are listed.
  """
  agents: dict[str, list[Part]] = collections.defaultdict(list)
  for part in parts:
    agents[part.agent_label].append(part)
  lines = [f'cost: {_total_text(parts)} of one core, without making problems; '
           + _wall_text(parts, num_workers)]
  for label, own_parts in list(agents.items())[:_LONGEST_LIST]:
    num_problems = sum(part.num_problems for part in own_parts)
    sources = ', '.join(dict.fromkeys(part.source for part in own_parts))
    lines.append(f'  {label}: {_total_text(own_parts)} for {num_problems} '
                 f'problems ({sources})')
    if label in own:
      lines += [f'    {part.family}: {_per_problem_text(part)}'
                for part in own_parts[:_LONGEST_LIST]]
      if len(own_parts) > _LONGEST_LIST:
        lines.append(f'    and {len(own_parts) - _LONGEST_LIST} others')
  if len(agents) > _LONGEST_LIST:
    lines.append(f'  and {len(agents) - _LONGEST_LIST} other agent settings')
  lines += [f'  {source}: {_SOURCES[source]}' for source in _SOURCES
            if any(part.source == source for part in parts)]
  return '\n'.join(lines)


def _total_text(parts: Sequence[Part]) -> str:
  """The sum of what is known."""
  known = [part.seconds for part in parts if part.seconds is not None]
  if not known:
    return 'an unknown time'
  total = status_text.duration_text(sum(known))
  num_unknown = len(parts) - len(known)
  return f'about {total}' if not num_unknown else (
      f'at least {total} (unknown in {num_unknown} of {len(parts)} cases)')


def _wall_text(parts: Sequence[Part], num_workers: int) -> str:
  """How long the known parts take where workers share them evenly."""
  known = [part.seconds for part in parts if part.seconds is not None]
  if not known:
    return 'nobody knows yet how long it takes here'
  least = 'at least' if len(known) < len(parts) else 'about'
  workers = 'one worker' if num_workers == 1 else f'{num_workers} workers'
  even = '' if num_workers == 1 else ', shared evenly'
  return (f'{least} {status_text.duration_text(sum(known) / num_workers)} on '
          f'{workers}{even}')


def _per_problem_text(part: Part) -> str:
  """Seconds of one problem and of all, or that they are unknown."""
  if part.seconds is None:
    return 'unknown'
  return (f'{part.seconds / part.num_problems:.2g} s per problem, '
          f'{status_text.duration_text(part.seconds)} for '
          f'{part.num_problems}')
