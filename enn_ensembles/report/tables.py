"""The tables of a report: how agent settings compare.

Nothing is repaired here: no score is clipped, filled or dropped. What is
missing, failed or not finite is counted and shown next to what it touches.

How agent settings are compared:
  * A ranking (`rankings`) covers the problems that were asked of most of its
    agent settings (of any of them, where no problem was asked of most). An
    agent setting without a score for each of them is incomplete.
  * It is ranked by exp(mean over cells of log(mean over seeds of the score)),
    so that a cell with large scores does not drown the others. Divided by the
    same of the baseline, the agent `prior_only`, this is the headline: 1 is as
    far from the truth as the prior, 0 is exact. Scores that may be negative are
    ranked by their mean over seeds and cells.
  * Without a rank are agent settings that are incomplete, that diverged on a
    problem or have a score that is not finite, and those whose floor is
    infinite: they have so few samples that their score says little about them.
  * The arithmetic mean, with its standard error over seeds, stands beside it.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import pandas as pd

from enn_ensembles import results
from enn_ensembles.report import agent_settings
from enn_ensembles.report import board_lines
from enn_ensembles.report import cells as cells_lib
from enn_ensembles.report import columns as columns_lib
from enn_ensembles.report import rankings as rankings_lib
from enn_ensembles.scoring import table

BASELINE = 'prior_only'


class Tables(NamedTuple):
  """The tables of a report. Columns of dtype object: None is 'not defined'.

  Attributes:
    leaderboard: a row per ranking and agent setting, best first.
    cells: a row per ranking, agent setting and cell.
    seeds: a row per ranking, agent setting and seed: its means over cells.
    errors: a row per agent setting and message of rows that are not ok.
    rows: all rows, as columns.
    grids: ranking -> its cells and seeds.
  """
  leaderboard: pd.DataFrame
  cells: pd.DataFrame
  seeds: pd.DataFrame
  errors: pd.DataFrame
  rows: columns_lib.Columns
  grids: Mapping[str, cells_lib.Grid]


class _Expected(NamedTuple):
  """Rows that a sweep is going to compute."""
  key: rankings_lib.Key
  agent: agent_settings.Agent
  num_enn_samples: int | None
  cells: Sequence[Mapping[str, Any]]
  seeds: Sequence[int]


def make_tables(rows: Sequence[Mapping[str, Any]] | columns_lib.Columns,
                expected: Sequence[Mapping[str, Any]] = (),
                score: str | None = None, by: str | None = None,
                baseline: str = BASELINE) -> Tables:
  """All tables of a report; independent of the order of the rows.

  Args:
    rows: as in results.ROW_SCHEMA, or columns of them.
    expected: what sweeps said they would compute, entries of manifests or
      expected rows. Without it, what is missing shows only where other agents
      have it.
    score: what to rank by; None for the headline of each score set. Problems
      that do not give it are left out.
    by: the cell field whose every value has columns of its own; None for the
      last that has few values.
    baseline: name of the agent whose score is 1.

  Raises:
    ValueError: there are no rows, none gives the score or it has no direction,
      no cell field is called `by`, no agent `baseline`, or rows contradict
      each other.
  """
  columns = rows if isinstance(rows, columns_lib.Columns) else (
      columns_lib.collect(rows))
  if not len(columns):
    raise ValueError('there are no rows to make a leaderboard of.')
  if score is not None and table.check_score(score).direction == 'none':
    raise ValueError(f'score must be lower or higher the better it is; '
                     f'{score!r} is neither.')
  if baseline != BASELINE and baseline not in columns.values('agent'):
    raise ValueError(
        'baseline must be an agent that has rows, one of '
        f'{", ".join(sorted(columns.values("agent")))}; got {baseline!r}.')
  agents = agent_settings.read_agents(columns)
  wanted = [_read_expected(entry) for entry in expected]
  _check_agents([*agents, *(entry.agent for entry in wanted)])
  keys = rankings_lib.keys_of(columns)
  order = _unique_rows(columns, keys)
  draws = columns.values('num_enn_samples')
  found = {(keys.values[k], draws[d]) for k, d in set(zip(
      keys.codes.tolist(), columns.codes('num_enn_samples').tolist()))}
  found |= {(entry.key, entry.num_enn_samples) for entry in wanted}
  parts: list[board_lines.Lines] = []
  grids: dict[str, cells_lib.Grid] = {}
  scores: dict[str, None] = {}
  for ranking in rankings_lib.make_rankings(found):
    known = table.scores_of(ranking.key.score_set)
    own_score = score or table.SCORE_SETS[ranking.key.score_set].headline
    if own_score not in known:
      continue
    part = _make_ranking(columns, keys, order, agents, wanted, ranking,
                         own_score, by, baseline)
    parts.append(part)
    scores[own_score] = None
    grids[ranking.label] = part.grid
  if not parts:
    raise ValueError(f'no row is of a problem that gives the score {score!r}.')
  fields = {name for grid in grids.values() for name in grid.names}
  if by is not None and by not in fields:
    raise ValueError(f'by must be one of {", ".join(sorted(fields))}, got '
                     f'{by!r}.')
  return Tables(make_frame([line for part in parts for line in part.board]),
                make_frame([line for part in parts for line in part.cells]),
                make_frame(
                    [line for part in parts for line in part.seeds],
                    ['ranking', 'label', 'score', 'seed', 'num_cells', *(
                        f'{name}_{what}' for name in scores
                        for what in ('mean', 'relative'))]),
                make_frame(
                    _make_errors(columns, order, agents),
                    ['label', 'status', 'message', 'num_rows', 'example']),
                columns, grids)


def make_frame(lines: Sequence[Mapping[str, Any]],
               names: Sequence[str] = ()) -> pd.DataFrame:
  """Lines as a table; None where a line lacks a column."""
  columns = dict.fromkeys([*names, *(name for line in lines for name in line)])
  return pd.DataFrame([[line.get(name) for name in columns] for line in lines],
                      columns=list(columns), dtype=object)


def _read_expected(entry: Mapping[str, Any]) -> _Expected:
  """A manifest entry, or an expected row."""
  problem = entry['problem']
  return _Expected(
      rankings_lib.key_of(problem, entry),
      agent_settings.Agent(entry['agent_id'], entry['agent'],
                           entry['agent_label'], entry['agent_config']),
      entry['num_enn_samples'], problem.get('cells') or [problem['cell']],
      problem.get('seeds') or [problem['seed']])


def _check_agents(agents: Sequence[agent_settings.Agent]) -> None:
  """Raises ValueError where one agent_id is the name of two settings."""
  known: dict[str, agent_settings.Agent] = {}
  for agent in agents:
    first = known.setdefault(agent.agent_id, agent)
    for field in ('agent', 'config'):
      if getattr(first, field) != getattr(agent, field):
        raise ValueError(
            f'agent_id {agent.agent_id} is the name of two agent settings: '
            f'{field} {getattr(first, field)} and {getattr(agent, field)}; '
            'keep them in different results folders.')


def _unique_rows(columns: columns_lib.Columns,
                 keys: columns_lib.Repeated) -> np.ndarray:
  """One row for each agent setting, problem and protocol: their numbers.

  Raises:
    ValueError: two rows say different things about the same.
  """
  frame = pd.DataFrame({
      'key': keys.codes, 'cell': cells_lib.cell_codes(columns),
      **{name: columns.codes(name) for name in (
          'agent_id', 'seed', 'dtype', 'num_enn_samples')}})
  names = list(frame)
  doubled = frame.duplicated(keep=False).to_numpy()
  if not doubled.any():
    return np.arange(len(columns))
  frame['row'] = np.arange(len(columns))
  dropped = []
  for _, group in frame[doubled].groupby(names, sort=False):
    rows: list[int] = np.asarray(group['row']).tolist()
    first, *others = sorted(rows, key=lambda i: columns.row_ids[i])
    for other in others:
      _check_same(columns, first, other)
    dropped += others
  return np.setdiff1d(np.arange(len(columns)), dropped)


def _check_same(columns: columns_lib.Columns, first: int, second: int) -> None:
  """Raises ValueError where two rows have another status or other scores."""
  def value(name: str, row: int) -> Any:
    return columns.values(name)[columns.codes(name)[row]]
  differ = [('status', value('status', first), value('status', second))]
  for name in columns.scores:
    values, present = columns.score(name)
    pair = [float(values[i]) if present[i] else None for i in (first, second)]
    differ.append((name, *pair))
  for name, a, b in differ:
    if not results.same_value(a, b):
      raise ValueError(
          f'rows {columns.row_ids[first]} and {columns.row_ids[second]} are '
          f'both agent {value("agent_label", first)} on '
          f'{value("problem_id", first)}, with {name} {a!r} and {b!r}: they '
          'differ in a setting that agent_id does not name; keep them in '
          'different results folders.')


def _make_ranking(
    columns: columns_lib.Columns, keys: columns_lib.Repeated,
    order: np.ndarray, agents: Sequence[agent_settings.Agent],
    wanted: Sequence[_Expected], ranking: rankings_lib.Ranking, score: str,
    by: str | None, baseline: str) -> board_lines.Lines:
  """All lines of one ranking."""
  inside = [i for i, key in enumerate(keys.values) if key == ranking.key]
  draws = [i for i, num in enumerate(columns.values('num_enn_samples'))
           if num in (None, ranking.num_enn_samples)]
  rows = order[np.isin(keys.codes[order], inside)
               & np.isin(columns.codes('num_enn_samples')[order], draws)]
  wanted = [entry for entry in wanted if entry.key == ranking.key
            and entry.num_enn_samples in (None, ranking.num_enn_samples)]
  cell_codes, seed_codes = (columns.codes(name)[rows]
                            for name in ('cell', 'seed'))
  all_cells, all_seeds = columns.values('cell'), columns.values('seed')
  grid, numbers = cells_lib.make_grid(
      [*(all_cells[i] for i in np.unique(cell_codes)),
       *(cell for entry in wanted for cell in entry.cells)],
      [*(all_seeds[i] for i in np.unique(seed_codes)),
       *(seed for entry in wanted for seed in entry.seeds)])
  seed_numbers = {seed: i for i, seed in enumerate(grid.seeds)}
  # Numbers of cells and seeds by code; -1 for those of other rankings.
  cell_of = np.array([numbers.get(cells_lib.identity(cell), -1)
                      for cell in all_cells], int)
  seed_of = np.array([seed_numbers.get(seed, -1) for seed in all_seeds], int)
  placed = agent_settings.Placed(rows, cell_of[cell_codes], seed_of[seed_codes])
  everybody: dict[str, agent_settings.Agent] = {}
  for agent in [*agents, *(entry.agent for entry in wanted)]:
    everybody.setdefault(agent.agent_id, agent)
  asked = _problems_asked(columns, placed, wanted, grid.shape, numbers,
                          seed_numbers)
  return board_lines.make_lines(
      agent_settings.Scope(columns, grid, ranking, score, by, baseline,
                           _covered(list(asked.values()))),
      placed, {name: everybody[name] for name in asked},
      {entry.agent.agent_id: entry.num_enn_samples for entry in wanted})


def _problems_asked(
    columns: columns_lib.Columns, placed: agent_settings.Placed,
    wanted: Sequence[_Expected], shape: tuple[int, int],
    cell_numbers: Mapping[str, int], seed_numbers: Mapping[int, int]
) -> dict[str, np.ndarray]:
  """agent_id -> the problems that have its rows, or are to have; bool [C, S].

  Args:
    columns: all rows.
    placed: rows of one ranking.
    wanted: rows of the ranking that sweeps are going to compute.
    shape: (C, S).
    cell_numbers: `cells.identity` of a cell -> its number.
    seed_numbers: seed -> its number.
  """
  asked: dict[str, np.ndarray] = {}
  agent_codes = columns.codes('agent_id')[placed.rows]
  for code in np.unique(agent_codes):
    here = agent_codes == code
    mask = asked.setdefault(columns.values('agent_id')[code],
                            np.zeros(shape, bool))
    mask[placed.cells[here], placed.seeds[here]] = True
  for entry in wanted:
    mask = asked.setdefault(entry.agent.agent_id, np.zeros(shape, bool))
    mask[np.ix_([cell_numbers[cells_lib.identity(cell)]
                 for cell in entry.cells],
                [seed_numbers[seed] for seed in entry.seeds])] = True
  return asked


def _covered(asked: Sequence[np.ndarray]) -> np.ndarray:
  """The problems asked of most agent settings, or all where there are none.

  So one agent tried on more (or fewer) problems than the rest neither makes
  everybody else incomplete nor shrinks what they are compared on.

  Args:
    asked: bool [C, S] per agent setting.

  Returns:
    bool [C, S].
  """
  counts = np.sum(asked, axis=0)
  most = 2 * counts > len(asked)
  return most if most.any() else counts > 0


def _make_errors(columns: columns_lib.Columns, order: np.ndarray,
                 agents: Sequence[agent_settings.Agent]
                 ) -> list[dict[str, Any]]:
  """What rows that are not ok say, the most frequent first."""
  label_of = {agent.agent_id: agent.label for agent in reversed(agents)}
  names = ('agent_id', 'status', 'message', 'problem_id')
  values = {name: columns.values(name) for name in names}
  is_ok = np.array([status == 'ok' for status in values['status']])
  rows = order[~is_ok[columns.codes('status')[order]]]
  counts: dict[tuple[str, str, str], list[Any]] = {}
  for codes in zip(*(columns.codes(name)[rows].tolist() for name in names)):
    agent_id, status, message, problem = (
        values[name][code] for name, code in zip(names, codes))
    line = counts.setdefault((label_of[agent_id], status, message),
                             [0, problem])
    line[0] += 1
    line[1] = min(line[1], problem)
  return [{'label': label, 'status': status, 'message': message,
           'num_rows': num, 'example': example}
          for (label, status, message), (num, example) in sorted(
              counts.items(), key=lambda item: (-item[1][0], item[0]))]
