"""How the work of a sweep is cut into even shares."""

from collections.abc import Sequence
import dataclasses
import heapq
import math

from enn_ensembles import checks
from enn_ensembles.sweeps import cost_model
from enn_ensembles.sweeps import work_units

# Units above this part of a share are cut: the shares of 50 tasks then differ
# by some percent, where one unit of ten seeds may be eleven shares.
_LARGEST_PART = 0.5
# Inputs of at most so many numbers are held at once: 1.6 GB in float64.
_MOST_INPUTS = 2e8


def split(
    units: Sequence[work_units.WorkUnit], num_shares: int,
    estimate: cost_model.Estimate | None = None
) -> tuple[work_units.WorkUnit, ...]:
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
  costs = list(map(estimate or cost_model.estimate_seconds, units))
  # Not `sum`, whose rounding depends on the order of the units.
  largest = _LARGEST_PART * math.fsum(costs) / num_shares
  parts = []
  for unit, cost in zip(units, costs):
    num_seeds = len(unit.seeds)
    num_parts = max(1, min(num_seeds, math.ceil(cost / largest),
                           int(cost / cost_model.START_SECONDS) - 1))
    ends = [num_seeds * i // num_parts for i in range(num_parts + 1)]
    parts += [dataclasses.replace(unit, seeds=unit.seeds[start:end])
              for start, end in zip(ends, ends[1:])]
  return tuple(parts)


def select(
    units: Sequence[work_units.WorkUnit], task_index: int, num_tasks: int,
    estimate: cost_model.Estimate | None = None
) -> tuple[work_units.WorkUnit, ...]:
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
  if num_tasks == 1:
    return tuple(units)
  estimate = estimate or cost_model.estimate_seconds
  units = split(units, num_tasks, estimate)
  loads, chosen = [(0., task) for task in range(num_tasks)], set()
  for unit in longest_first(units, estimate):
    load, task = loads[0]
    heapq.heapreplace(loads, (load + estimate(unit), task))
    if task == task_index:
      chosen.add(unit.run_id)
  return tuple(unit for unit in units if unit.run_id in chosen)


def limit_inputs(
    units: Sequence[work_units.WorkUnit]) -> tuple[work_units.WorkUnit, ...]:
  """Units cut by seeds where their inputs would not fit into memory together.

  A unit on (1000, 100) becomes one unit per pair of seeds; their rows are the
  same.
  """
  parts = []
  for unit in units:
    inputs = unit.family.num_train * math.prod(unit.family.input_shape)
    num = max(1, int(_MOST_INPUTS // inputs))
    parts += [dataclasses.replace(unit, seeds=unit.seeds[i:i + num])
              for i in range(0, len(unit.seeds), num)]
  return tuple(parts)


def longest_first(
    units: Sequence[work_units.WorkUnit],
    estimate: cost_model.Estimate | None = None) -> list[work_units.WorkUnit]:
  """Units by estimated cost, so that no long one is left for the end."""
  estimate = estimate or cost_model.estimate_seconds
  return sorted(units, key=lambda unit: (-estimate(unit), unit.run_id))
