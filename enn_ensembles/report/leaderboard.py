"""Rows to tables and intervals: how agents compare.

Nothing is repaired here: no score is clipped, filled or dropped. What is
missing, failed or not finite is counted and shown next to what it touches.

How agents are compared:
  * A ranking holds rows of one reference, kernel, selection and evaluation
    protocol. Enumerated and analytic rows do not depend on the number of draws
    and stand in every ranking that enumerates finite index sets.
  * A ranking covers the problems that were asked of most of its agent settings
    (of any of them, where no problem was asked of most). An agent setting
    without a score for each of those problems is incomplete: it has no rank.
  * The mean of an agent setting is taken over the seeds of each cell
    (input_dim, data_ratio, noise_std) and then over cells, so that a cell
    counts once however many seeds it has.
  * Its standard error is over seeds. The cells of a seed share their draws, so
    where every cell has the same seeds it is the standard error of the per-seed
    means over cells ('paired_seeds'); otherwise the cells' own standard errors
    are combined as if independent ('independent_cells').
  * The 95 % interval is Student's t around the mean.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import csv
import dataclasses
import io
import json
import math
import pathlib
from typing import Any
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from enn_ensembles import results
from enn_ensembles.machine import files

Cell = tuple[int, float, float]  # (input_dim, data_ratio, noise_std)
Problem = tuple[int, float, float, int]  # A cell and a seed.
Row = Mapping[str, Any]

class Tables(NamedTuple):
  """The tables of a report. Columns of dtype object: None is 'not defined'.

  Attributes:
    scores: a row per agent setting and problem, as stored, configs flattened.
    leaderboard: a row per ranking and agent setting, best first.
    cells: a row per ranking, agent setting and cell.
    seeds: a row per ranking, agent setting and seed: its mean over cells.
  """
  scores: pd.DataFrame
  leaderboard: pd.DataFrame
  cells: pd.DataFrame
  seeds: pd.DataFrame


@dataclasses.dataclass(frozen=True)
class CellMean:
  """A mean over seeds and cells, and how well it is known.

  Attributes:
    mean: mean over cells of the mean over seeds.
    standard_error: of `mean`, over seeds; None where a cell has one seed.
    low: lower end of the 95 % interval; None as above.
    high: upper end.
    method: 'paired_seeds', 'independent_cells' or 'none'.
  """
  mean: float
  standard_error: float | None = None
  low: float | None = None
  high: float | None = None
  method: str = 'none'


def mean_over_cells(
    scores: Mapping[Cell, Mapping[int, float]]) -> CellMean | None:
  """Mean of scores over seeds and then over cells, and its standard error.

  With the same n >= 2 seeds s in all C cells c, the per-seed means
  m_s = (1/C) sum_c x_cs give se = std(m_s, ddof=1) / sqrt(n), t with n - 1
  degrees of freedom. With other seeds in other cells, at least two in each,
  se² = sum_c se_c² / C² with the Welch-Satterthwaite degrees of freedom,
  (sum_c se_c²)² / sum_c (se_c⁴ / (n_c - 1)).

  Args:
    scores: cell -> seed -> score. Not finite scores give what arithmetic
      gives: a mean of inf or nan and a standard error of nan.

  Returns:
    The mean, or None where there are no scores.
  """
  if not scores:
    return None
  cells = [np.array([by_seed[s] for s in sorted(by_seed)], float)
           for _, by_seed in sorted(scores.items())]
  with np.errstate(invalid='ignore', over='ignore'):
    mean = float(np.mean([np.mean(cell) for cell in cells]))
    if min(map(len, cells)) < 2:
      return CellMean(mean)
    if len({frozenset(by_seed) for by_seed in scores.values()}) == 1:
      per_seed = np.mean(cells, axis=0)
      error = float(stats.sem(per_seed)) if np.isfinite(mean) else math.nan
      degrees, method = len(per_seed) - 1, 'paired_seeds'
    else:
      squares = np.array([np.var(c, ddof=1) / len(c) for c in cells])
      error = float(np.sqrt(np.sum(squares)) / len(cells))
      weights = np.sum(squares**2 / np.array([len(c) - 1 for c in cells]))
      degrees = np.sum(squares)**2 / weights if weights > 0 else math.inf
      method = 'independent_cells'
    half = float(stats.t.ppf(0.975, degrees)) * error
  return CellMean(mean, error, mean - half, mean + half, method)


def geometric_mean_over_cells(
    scores: Mapping[Cell, Mapping[int, float]]) -> float | None:
  """exp of the mean over cells of the mean over seeds of log(score).

  0 where a score is 0; nan where one is negative (rounding below an exact 0).
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    logs = {cell: {seed: float(np.log(value))
                   for seed, value in by_seed.items()}
            for cell, by_seed in scores.items()}
    mean = mean_over_cells(logs)
    return None if mean is None else float(np.exp(mean.mean))


class Ranking(NamedTuple):
  """What rows must have in common to be compared.

  Attributes:
    reference: reference of the scores.
    kernel: the prior of the problems.
    selection: how members were selected.
    enumerate_indices: whether finite index sets are enumerated.
    num_enn_samples: draws of agents that are sampled; None if there are none.
  """
  reference: str
  kernel: str
  selection: str
  enumerate_indices: bool
  num_enn_samples: int | None

  @property
  def label(self) -> str:
    """One readable line, different for different rankings."""
    draws = f'{self.num_enn_samples} draws'
    if self.enumerate_indices:
      draws = 'all members' + (
          '' if self.num_enn_samples is None else f', or {draws}')
    kernel = ('' if self.kernel == results.DEFAULT_KERNEL else
              f'kernel {self.kernel}; ')
    return (f'reference {self.reference}; {kernel}selection {self.selection}; '
            f'scored on {draws}')

  def holds(self, row: Row) -> bool:
    """Whether a row, or an expected row, belongs here."""
    return (all(row[name] == getattr(self, name) for name in (
                'reference', 'kernel', 'selection', 'enumerate_indices'))
            and row['num_enn_samples'] in (None, self.num_enn_samples))


def make_rankings(rows: Iterable[Row]) -> list[Ranking]:
  """The rankings that (expected) rows belong to, in a fixed order."""
  draws: dict[tuple[str, str, str, bool], set[int]] = {}
  for row in rows:
    key = (row['reference'], row['kernel'], row['selection'],
           row['enumerate_indices'])
    draws.setdefault(key, set())
    if row['num_enn_samples'] is not None:
      draws[key].add(row['num_enn_samples'])
  rankings = []
  # Those without selection and with enumerated members are the headline.
  for key in sorted(draws,
                    key=lambda k: (k[0], k[1] != results.DEFAULT_KERNEL, k[1],
                                   k[2] != 'none', k[2], not k[3])):
    rankings += [Ranking(*key, num) for num in sorted(draws[key]) or [None]]
  return rankings


def read_results(results_dirs: files.PathLike | Sequence[files.PathLike]
                 ) -> tuple[list[results.Row], list[results.Row]]:
  """Reads one results folder or several.

  Returns:
    (rows, expected rows), as `ResultsStore` gives them.

  Raises:
    ValueError: a folder or a file in it is not as it must be, or there are no
      rows at all.
  """
  if isinstance(results_dirs, (str, pathlib.PurePath)):
    results_dirs = [results_dirs]
  stores = [results.open_store(folder) for folder in results_dirs]
  rows = results.merge_units(
      unit for store in stores for unit in store.read_units())
  if not rows:
    names = ', '.join(str(store.results_dir) for store in stores)
    raise ValueError(f'results_dir {names} holds no rows yet: run the sweep '
                     'first.')
  return rows, [row for store in stores for row in store.read_manifests()]


def _problem(row: Row) -> Problem:
  return tuple(row[key] for key in results.PROBLEM_FIELDS)


def _sort_key(row: Row) -> tuple[Any, ...]:
  return (row['agent_id'], _problem(row), *(
      str(row[key]) for key in results.PROTOCOL_FIELDS), row['dtype'],
          row['row_id'])


def _unique_rows(rows: Iterable[Row]) -> list[Row]:
  """The rows sorted, one for each agent setting, problem and protocol.

  Raises:
    ValueError: two rows say different things about the same, or one agent_id
      is the name of two settings.
  """
  unique: dict[tuple[Any, ...], Row] = {}
  for row in sorted(rows, key=_sort_key):
    key = (row['agent_id'], _problem(row), row['dtype'],
           *(row[k] for k in results.PROTOCOL_FIELDS))
    known = unique.setdefault(key, row)
    for field in ('status', *results.SCORE_FIELDS):
      if not results.same_value(known[field], row[field]):
        raise ValueError(
            f'rows {known["row_id"]} and {row["row_id"]} are both agent '
            f'{row["agent_id"]} on {row["problem_id"]}, with {field} '
            f'{known[field]!r} and {row[field]!r}: they differ in a setting '
            'that agent_id does not name; keep them in different results '
            'folders.')
  return list(unique.values())


def _check_agent_ids(rows: Iterable[Row]) -> None:
  """Raises ValueError where one agent_id is the name of two settings."""
  configs: dict[str, Row] = {}
  for row in rows:
    known = configs.setdefault(row['agent_id'], row)
    for field in ('agent', 'agent_config'):
      if known[field] != row[field]:
        raise ValueError(
            f'agent_id {row["agent_id"]} is the name of two agent settings: '
            f'{field} {known[field]} and {row[field]}; keep them in different '
            'results folders.')


def make_tables(rows: Sequence[Row], expected: Sequence[Row] = ()) -> Tables:
  """All tables of a report; independent of the order of the rows.

  Args:
    rows: as in results.ROW_SCHEMA.
    expected: what sweeps said they would compute (`read_manifests`). Without
      it, what is missing shows only where other agents have it.

  Raises:
    ValueError: there are no rows, or they contradict each other.
  """
  if not rows:
    raise ValueError('there are no rows to make a leaderboard of.')
  rows = _unique_rows(rows)
  expected = sorted(expected, key=lambda row: (row['agent_id'], _problem(row)))
  _check_agent_ids([*rows, *expected])
  board, cells, seeds = [], [], []
  for ranking in make_rankings([*rows, *expected]):
    for line in _rank(_make_lines(ranking, rows, expected)):
      board.append(line.summary)
      cells += line.cells
      seeds += line.seeds
  return Tables(
      scores=pd.DataFrame(_flatten_rows(rows), dtype=object),
      leaderboard=pd.DataFrame(board, dtype=object),
      cells=pd.DataFrame(cells, dtype=object),
      seeds=pd.DataFrame(seeds, dtype=object, columns=_SEED_COLUMNS))


_SEED_COLUMNS = ['ranking', 'label', 'seed', 'num_cells', 'kl_estimate']


class _Line(NamedTuple):
  """One agent setting in one ranking: its lines in the tables."""
  summary: dict[str, Any]
  cells: list[dict[str, Any]]
  seeds: list[dict[str, Any]]


def _make_lines(ranking: Ranking, rows: Sequence[Row],
                expected: Sequence[Row]) -> list[_Line]:
  """The lines of one ranking, not yet ranked."""
  rows = [row for row in rows if ranking.holds(row)]
  expected = [row for row in expected if ranking.holds(row)]
  asked: dict[str, set[Problem]] = {}
  settings: dict[tuple[str, str | None, int | None], list[Row]] = {}
  for row in [*expected, *rows]:
    asked.setdefault(row['agent_id'], set()).add(_problem(row))
  for row in rows:
    settings.setdefault(
        (row['agent_id'], row['dtype'], row['num_enn_samples']), []).append(row)
  agents = {row['agent_id']: row for row in [*expected, *rows]}
  for agent_id in set(agents) - {key[0] for key in settings}:
    settings[(agent_id, None, agents[agent_id]['num_enn_samples'])] = []
  covered = _covered_problems(list(asked.values()))
  lines = []
  for key in sorted(settings, key=lambda key: tuple(map(str, key))):
    agent_id, dtype, num_enn_samples = key
    # Precision and draws are told only where they tell namesakes apart.
    namesakes = [other for other in settings if other[0] == agent_id]
    label = agent_id
    if len({other[1] for other in namesakes}) > 1:
      label += f' ({dtype})'
    if len({other[2] for other in namesakes}) > 1:
      label += f' ({num_enn_samples or "all"} samples)'
    identity = {'ranking': ranking.label, 'label': label, 'agent_id': agent_id,
                'agent': agents[agent_id]['agent'], 'dtype': dtype,
                'num_enn_samples': num_enn_samples}
    lines.append(_make_line(ranking, identity, settings[key], covered))
  return lines


def _covered_problems(asked: Sequence[set[Problem]]) -> set[Problem]:
  """The problems asked of most agent settings, or all where there are none.

  So one agent tried on more (or fewer) problems than the rest neither makes
  everybody else incomplete nor shrinks what they are compared on.
  """
  every = set().union(*asked)
  most = {problem for problem in every
          if 2 * sum(problem in one for one in asked) > len(asked)}
  return most or every


def _by_cell(rows: Iterable[Row], field: str) -> dict[Cell, dict[int, float]]:
  """cell -> seed -> value of a field, without rows that have none."""
  table: dict[Cell, dict[int, float]] = {}
  for row in rows:
    if row[field] is not None:
      problem = _problem(row)
      table.setdefault(problem[:3], {})[problem[3]] = row[field]
  return table


def _mean(values: Iterable[float | None]) -> float | None:
  """Plain mean of the values that are there, None if there are none."""
  values = [value for value in values if value is not None]
  return float(np.mean(values)) if values else None


def _make_line(ranking: Ranking, identity: dict[str, Any],
               rows: Sequence[Row], covered: set[Problem]) -> _Line:
  """Everything the tables say about one agent setting in one ranking."""
  inside = [row for row in rows if _problem(row) in covered]
  scored = [row for row in inside if row['status'] != 'failed']
  kl = _by_cell(scored, 'kl_estimate')
  finite = _by_cell([row for row in scored
                     if math.isfinite(row['kl_estimate'])], 'kl_estimate')
  mean = mean_over_cells(kl)
  mean_finite = mean_over_cells(finite)
  mean_reverse = mean_over_cells(_by_cell(scored, 'kl_reverse'))
  mean_floor = mean_over_cells(_by_cell(scored, 'kl_floor'))
  params = [row['num_params'] for row in inside
            if row['num_params'] is not None]
  summary = {
      'ranking': identity['ranking'],
      'rank': None,
      'label': identity['label'],
      'complete': len(scored) == len(covered),
      'kl_estimate_mean': mean and mean.mean,
      'kl_estimate_standard_error': mean and mean.standard_error,
      'kl_estimate_low': mean and mean.low,
      'kl_estimate_high': mean and mean.high,
      'standard_error_method': mean.method if mean else 'none',
      'kl_estimate_geometric_mean': geometric_mean_over_cells(kl),
      'kl_estimate_finite_rows_mean': mean_finite and mean_finite.mean,
      'kl_reverse_mean': mean_reverse and mean_reverse.mean,
      'kl_floor_mean': mean_floor and mean_floor.mean,
      'num_cells_expected': len({problem[:3] for problem in covered}),
      'num_cells': len(kl),
      'num_expected': len(covered),
      'num_present': len(inside),
      'num_ok': sum(row['status'] == 'ok' for row in inside),
      'num_diverged': sum(row['status'] == 'diverged' for row in inside),
      'num_failed': sum(row['status'] == 'failed' for row in inside),
      'num_non_finite': sum(not math.isfinite(row['kl_estimate'])
                            for row in scored),
      'num_outside': len(rows) - len(inside),
      'reference': ranking.reference,
      'kernel': ranking.kernel,
      'selection': ranking.selection,
      'enumerate_indices': ranking.enumerate_indices,
      **{key: identity[key] for key in ('agent_id', 'agent', 'dtype',
                                        'num_enn_samples')},
      'num_samples_used': max(
          (row['num_samples_used'] for row in inside
           if row['num_samples_used'] is not None), default=None),
      'num_params_min': min(params, default=None),
      'num_params_max': max(params, default=None),
      'train_seconds_mean': _mean(row['train_seconds'] for row in inside),
  }
  every_cell = _by_cell([row for row in rows if row['status'] != 'failed'],
                        'kl_estimate')
  floors = _by_cell(rows, 'kl_floor')
  cells = []
  for cell in sorted({problem[:3] for problem in [
      *covered, *(_problem(row) for row in rows)]}):
    here = mean_over_cells(
        {cell: every_cell[cell]} if cell in every_cell else {})
    cells.append({
        **identity, **dict(zip(results.PROBLEM_FIELDS, cell)),
        'kl_estimate_mean': here and here.mean,
        'kl_estimate_standard_error': here and here.standard_error,
        'kl_floor_mean': _mean(floors.get(cell, {}).values()),
        'num_seeds': len(every_cell.get(cell, {})),
        'num_seeds_expected': sum(p[:3] == cell for p in covered),
        'num_non_finite': sum(not math.isfinite(value) for value
                              in every_cell.get(cell, {}).values()),
        'in_ranking': any(p[:3] == cell for p in covered)})
  seeds = []
  for seed in sorted({seed for by_seed in kl.values() for seed in by_seed}):
    of_seed = {cell: {seed: by_seed[seed]} for cell, by_seed in kl.items()
               if seed in by_seed}
    seeds.append({'ranking': identity['ranking'], 'label': identity['label'],
                  'seed': seed, 'num_cells': len(of_seed),
                  'kl_estimate': mean_over_cells(of_seed).mean})
  return _Line(summary, cells, seeds)


def _rank(lines: Sequence[_Line]) -> list[_Line]:
  """Complete agents with a finite mean best first, ranked; then the others."""
  def order(line):
    summary = line.summary
    mean = summary['kl_estimate_mean']
    finite = mean is not None and math.isfinite(mean)
    return (not summary['complete'], not finite, mean if finite else 0.,
            mean is None, summary['label'])
  lines = sorted(lines, key=order)
  means = [line.summary['kl_estimate_mean'] for line in lines
           if not any(order(line)[:2])]
  for line in lines[:len(means)]:
    # Equal means share the better rank.
    line.summary['rank'] = 1 + means.index(line.summary['kl_estimate_mean'])
  return lines


def _flatten(name: str, value: Any) -> dict[str, Any]:
  """A config as columns: {'agent': {'a': {'b': 1}}} is {'agent.a.b': 1}."""
  if isinstance(value, Mapping) and value:
    flat = {}
    for key in sorted(value):
      flat.update(_flatten(f'{name}.{key}', value[key]))
    return flat
  return {name: value}


def _flatten_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
  """Rows as flat dicts; what depends on the machine comes last."""
  last = results.TIMING_FIELDS
  # The path has a length of its own in every row; figures read it.
  fixed = [key for key in results.ROW_SCHEMA
           if key not in (*last, 'agent_config', 'path')]
  flat = []
  for row in rows:
    columns = {key: row[key] for key in fixed}
    flat.append({**columns, **_flatten('agent', row['agent_config']),
                 **{key: row[key] for key in last if key != 'versions'},
                 **_flatten('versions', row['versions'])})
  names = sorted({name for row in flat for name in row})
  config = [n for n in names if n.startswith('agent.')]
  timing = [key for key in last if key != 'versions'] + [
      n for n in names if n.startswith('versions')]
  return [{name: row.get(name) for name in [*fixed, *config, *timing]}
          for row in flat]


def csv_text(table: pd.DataFrame) -> str:
  """A table as CSV that gives the same values back.

  Floats are written with the digits that make them exact, inf and nan as
  `inf` and `nan`, None as an empty field, lists and dicts as JSON.
  """
  def text(value):
    if value is None:
      return ''
    if isinstance(value, float):
      return repr(float(value))
    if isinstance(value, (list, dict)):
      return json.dumps(value, sort_keys=True)
    return str(value)
  stream = io.StringIO()
  writer = csv.writer(stream, lineterminator='\n')
  writer.writerow(table.columns)
  writer.writerows([text(value) for value in row]
                   for row in table.itertuples(index=False))
  return stream.getvalue()


def short_number(value: float | None) -> str:
  """Three significant digits for reading; '-' where there is no number."""
  if value is None:
    return '-'
  if not math.isfinite(value) or value == 0:
    return f'{value:.3g}'.replace('-0', '0')
  if 1e-4 <= abs(value) < 1e4:
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f'{value:.{digits}f}'
  return f'{value:.2e}'


def remarks_text(line: pd.Series) -> str:
  """What is not as it should be with an agent setting; '' if nothing."""
  remarks = []
  if not line['complete']:
    scored = line['num_present'] - line['num_failed']
    remarks.append(
        f'incomplete: {scored} of {line["num_expected"]} problems, '
        f'{line["num_cells"]} of {line["num_cells_expected"]} cells')
  if line['num_failed']:
    remarks.append(f'{line["num_failed"]} failed')
  if line['num_diverged']:
    remarks.append(f'{line["num_diverged"]} diverged')
  if line['num_non_finite']:
    remarks.append(f'{line["num_non_finite"]} not finite')
  if line['num_outside']:
    remarks.append(f'{line["num_outside"]} rows on other problems, not in '
                   'these means')
  return '; '.join(remarks)


def interval_text(line: pd.Series) -> str:
  if line['kl_estimate_low'] is None:
    return '-'
  return (f'[{short_number(line["kl_estimate_low"])}, '
          f'{short_number(line["kl_estimate_high"])}]')


def params_text(line: pd.Series) -> str:
  low, high = line['num_params_min'], line['num_params_max']
  if low is None:
    return '-'
  return f'{low:,}' if low == high else f'{low:,} to {high:,}'


def samples_text(line: pd.Series) -> str:
  """What an agent is scored on, '-' where nothing is known of it."""
  if not line['num_present']:
    return '-'
  if line['num_enn_samples'] is not None:
    return f'{line["num_enn_samples"]:,} draws'
  if line['num_samples_used'] is None:
    return 'exact moments'
  return f'all {line["num_samples_used"]:,}'


def format_table(tables: Tables, style: str = 'text') -> str:
  """The leaderboard as text: for a terminal, or markdown for a README.

  Args:
    tables: of `make_tables`.
    style: 'text' or 'markdown'.

  Raises:
    ValueError: another style.
  """
  if style not in ('text', 'markdown'):
    raise ValueError(f"style must be 'text' or 'markdown', got {style!r}.")
  parts = []
  header = ['rank', 'agent', 'mean KL', '± s.e.', 'geometric', 'reverse KL',
            'floor', 'cells', 'rows', 'parameters', 'train s', 'remarks']
  right = [True, False] + 9 * [True] + [False]
  for ranking, board in tables.leaderboard.groupby('ranking', sort=False):
    body = [[
        '-' if line['rank'] is None else str(line['rank']),
        line['label'],
        short_number(line['kl_estimate_mean']),
        short_number(line['kl_estimate_standard_error']),
        short_number(line['kl_estimate_geometric_mean']),
        short_number(line['kl_reverse_mean']),
        short_number(line['kl_floor_mean']),
        f'{line["num_cells"]}/{line["num_cells_expected"]}',
        f'{line["num_present"] - line["num_failed"]}/{line["num_expected"]}',
        params_text(line),
        short_number(line['train_seconds_mean']),
        remarks_text(line)] for _, line in board.iterrows()]
    title = ranking_title(ranking)
    if style == 'markdown':
      lines = [f'**{title}**', '', _markdown(header),
               _markdown(['--:' if r else ':--' for r in right]),
               *(_markdown(line) for line in body)]
    else:
      widths = [max(len(line[i]) for line in [header, *body])
                for i in range(len(header))]
      def pad(line):
        return '  '.join(
            cell.rjust(width) if r else cell.ljust(width)
            for cell, width, r in zip(line, widths, right)).rstrip()
      lines = [title, pad(header), pad(['-' * width for width in widths]),
               *(pad(line) for line in body)]
    parts.append('\n'.join(lines))
  return '\n\n'.join(parts)


def ranking_title(ranking: str) -> str:
  """A ranking's label as the start of a sentence."""
  return ranking[0].upper() + ranking[1:]


def _markdown(cells: Iterable[str]) -> str:
  return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'
