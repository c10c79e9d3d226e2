"""What the rows of a board cost, by agent setting and cell.

Seconds are those that rows carry: wall time of a worker that has a core (or an
accelerator) for itself. On a machine that was busy with other things they are
larger than what the same work takes on an idle one, and rows of several
machines carry the seconds of each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import agent_settings
from enn_ensembles.report import cells as cells_lib
from enn_ensembles.report import columns as columns_lib
from enn_ensembles.report import csv_files
from enn_ensembles.report import text

# Times of one training, which all its rows carry, of each row, and of a unit.
_OF_TRAINING = ('train_seconds', 'evaluate_seconds', 'problem_seconds')
_OF_ROW, _OF_UNIT = 'rank_seconds', 'compile_seconds'
_SECONDS = (*_OF_TRAINING, _OF_ROW, _OF_UNIT)


def make_costs(columns: columns_lib.Columns) -> pd.DataFrame:
  """A line per agent setting, kind of problem, ranking of problems and cell.

  A problem that an agent setting was trained on once counts once, however many
  rows its selections have. What a work unit took to compile is shared evenly by
  its rows.

  Args:
    columns: rows, R of them.

  Returns:
    label, agent_id, kind, then the fields of cells and of what keeps problems
    apart (None where a line has no such field); `num_problems`, trainings;
    `num_untimed`, those of them whose rows carry no training time (failed, or
    brought as predictions); `seconds`, the sum of the five that follow, for all
    problems together: `train_seconds`, `evaluate_seconds`, `problem_seconds`
    (making or reading problems), `rank_seconds`, `compile_seconds`; and
    `seconds_per_problem`, of those that are timed (None where none is).
  """
  # Sums do not depend on the order of files.
  order = csv_files.reading_order(columns)
  code = lambda name: columns.codes(name)[order]
  cells = cells_lib.cell_codes(columns)[order]
  training = _numbers([code('run_id'), cells, code('seed')])
  group = _numbers([code('agent_id'), code('kind'), code('ranking'), cells])
  share = {name: 1. / np.bincount(training)[training] for name in _OF_TRAINING}
  share[_OF_ROW] = np.ones(len(order))
  share[_OF_UNIT] = 1. / np.bincount(code('run_id'))[code('run_id')]
  num = int(group.max(initial=-1)) + 1
  sums = {name: np.bincount(
      group, np.where(there, values, 0.)[order] * share[name], num)
          for name in _SECONDS for values, there in [columns.cost(name)]}
  _, timed = columns.cost('train_seconds')
  once = share['train_seconds']
  num_problems = np.bincount(group, once, num)
  num_timed = np.bincount(group, once * timed[order], num)
  labels: dict[str, str] = {}
  for agent in agent_settings.read_agents(columns):
    labels.setdefault(agent.agent_id, agent.label)
  _, first = np.unique(group, return_index=True)
  lines = []
  for i, row in enumerate(order[first]):
    value = lambda name, row=row: columns.values(name)[columns.codes(name)[row]]
    seconds = {name: float(sums[name][i]) for name in _SECONDS}
    total = sum(seconds.values())
    fields = {**value('cell'), **value('ranking')}
    lines.append({
        'label': labels[value('agent_id')], 'agent_id': value('agent_id'),
        'kind': value('kind'), **fields,
        'num_problems': round(num_problems[i]),
        'num_untimed': round(num_problems[i] - num_timed[i]),
        'seconds': total, **seconds, 'seconds_per_problem': (
            total / round(num_timed[i]) if round(num_timed[i]) else None)})
  return _frame(lines)


def _numbers(keys: Sequence[np.ndarray]) -> np.ndarray:
  """A number for each row, equal where all keys are, in the order of rows."""
  joined = np.zeros(len(keys[0]), np.int64)
  for key in keys:
    _, joined = np.unique(joined, return_inverse=True)
    joined = joined * (int(key.max(initial=0)) + 1) + key
  _, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
  return np.argsort(np.argsort(first))[inverse]


def _frame(lines: Sequence[dict[str, Any]]) -> pd.DataFrame:
  """Lines as a table of dtype object, numbers behind names."""
  last = ('num_problems', 'num_untimed', 'seconds', *_SECONDS,
          'seconds_per_problem')
  names = dict.fromkeys(name for line in lines for name in line
                        if name not in last)
  return pd.DataFrame(
      [[line.get(name) for name in (*names, *last)] for line in lines],
      columns=[*names, *last], dtype=object)


def sentence(costs: pd.DataFrame) -> str:
  """What the rows cost together, and one agent setting of them."""
  hours = costs['seconds'].to_numpy(float) / 3600
  agent_ids = costs['agent_id'].to_numpy(str)
  by_agent = np.array([np.sum(hours[agent_ids == agent_id])
                       for agent_id in np.unique(agent_ids)])
  words = lambda value: f'{text.short_number(float(value))} h'
  found = ('By the clocks of its rows this board took '
           f'{words(np.sum(hours))} of single workers (a core or an '
           'accelerator each), making or reading problems included')
  if len(by_agent) > 1:
    found += (f': an agent setting {words(np.min(by_agent))} to '
              f'{words(np.max(by_agent))}, half of them at most '
              f'{words(np.median(by_agent))}')
  num_untimed = int(costs['num_untimed'].sum())
  if num_untimed:
    found += (f'. {num_untimed} of {int(costs["num_problems"].sum())} problems '
              'carry no time and are not in it')
  return found + ('. Clocks run on where a machine is busy with other things: '
                  'idle ones take less. Per cell: costs.csv.')
