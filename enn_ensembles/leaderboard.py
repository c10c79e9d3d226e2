"""Rows to tables, intervals, a picture and a page: how agents compare.

Nothing is repaired here: no score is clipped, filled or dropped. What is
missing, failed or not finite is counted and shown next to what it touches.

How agents are compared:
  * A ranking holds rows of one reference, one selection and one evaluation
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

import base64
import csv
import dataclasses
import html
import io
import json
import math
import pathlib
from typing import Any, Iterable, Mapping, NamedTuple, Optional, Sequence, Union

from matplotlib import colormaps
from matplotlib import figure as figure_lib
from matplotlib import lines as lines_lib
from matplotlib.backends import backend_agg
import numpy as np
import pandas as pd
from scipy import stats

from enn_ensembles import results

Cell = tuple[int, float, float]  # (input_dim, data_ratio, noise_std)
Problem = tuple[int, float, float, int]  # A cell and a seed.
Row = Mapping[str, Any]

# The part of the KL axis worth its ink: below, an agent is exact for any
# practical purpose; smaller values are written at the edge instead.
_SMALLEST_ON_AXIS = 1e-4

# Characters of a name in the picture; what is longer is cut there.
_LONGEST_LABEL = 60

# Wong (2011), Nature Methods 8:441: told apart with any colour vision.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9',
            '#7A6A00', '#555555')

_SCORES_TEXT = (
    'The score of an agent on a problem is kl_estimate: the mean over 1000 '
    'test points of KL(N_nngp || N_agent), the Kullback-Leibler divergence, in '
    'nats, from the exact NNGP posterior to a Gaussian with the mean and '
    'standard deviation of the agent; 0 is exact, lower is better. kl_reverse '
    'is the same with the two distributions exchanged. kl_floor is what as '
    'many independent draws from the exact posterior itself score on average, '
    'infinite for three or fewer; it is 0 for analytic moments.')
_MEANS_TEXT = (
    'Means are taken over the seeds of each cell (D = input dimension, λ = '
    'training points per dimension, ε = noise std) and then over cells; ± is '
    'the standard error over seeds and the interval is Student\'s t, 95 %. '
    'Nothing is clipped, filled or dropped: a score that is not finite makes '
    'its mean not finite.')


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
  standard_error: Optional[float] = None
  low: Optional[float] = None
  high: Optional[float] = None
  method: str = 'none'


def mean_over_cells(
    scores: Mapping[Cell, Mapping[int, float]]) -> Optional[CellMean]:
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
    scores: Mapping[Cell, Mapping[int, float]]) -> Optional[float]:
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
    selection: how members were selected.
    enumerate_indices: whether finite index sets are enumerated.
    num_enn_samples: draws of agents that are sampled; None if there are none.
  """
  reference: str
  selection: str
  enumerate_indices: bool
  num_enn_samples: Optional[int]

  @property
  def label(self) -> str:
    """One readable line, different for different rankings."""
    draws = f'{self.num_enn_samples} draws'
    if self.enumerate_indices:
      draws = 'all members' + (
          '' if self.num_enn_samples is None else f', or {draws}')
    return (f'reference {self.reference}; selection {self.selection}; '
            f'scored on {draws}')

  def holds(self, row: Row) -> bool:
    """Whether a row, or an expected row, belongs here."""
    return (row['reference'] == self.reference
            and row['selection'] == self.selection
            and row['enumerate_indices'] == self.enumerate_indices
            and row['num_enn_samples'] in (None, self.num_enn_samples))


def make_rankings(rows: Iterable[Row]) -> list[Ranking]:
  """The rankings that (expected) rows belong to, in a fixed order."""
  draws: dict[tuple[str, str, bool], set[int]] = {}
  for row in rows:
    key = (row['reference'], row['selection'], row['enumerate_indices'])
    draws.setdefault(key, set())
    if row['num_enn_samples'] is not None:
      draws[key].add(row['num_enn_samples'])
  rankings = []
  # Those without selection and with enumerated members are the headline.
  for key in sorted(draws,
                    key=lambda k: (k[0], k[1] != 'none', k[1], not k[2])):
    rankings += [Ranking(*key, num) for num in sorted(draws[key]) or [None]]
  return rankings


def read_results(results_dirs: Union[results.PathLike,
                                     Sequence[results.PathLike]]
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
  settings: dict[tuple[str, Optional[str], Optional[int]], list[Row]] = {}
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


def _mean(values: Iterable[Optional[float]]) -> Optional[float]:
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
  flat = []
  for row in rows:
    columns = {key: row[key] for key in results.ROW_SCHEMA
               if key not in last and key != 'agent_config'}
    flat.append({**columns, **_flatten('agent', row['agent_config']),
                 **{key: row[key] for key in last if key != 'versions'},
                 **_flatten('versions', row['versions'])})
  names = sorted({name for row in flat for name in row})
  fixed = [key for key in results.ROW_SCHEMA
           if key not in last and key != 'agent_config']
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


def short_number(value: Optional[float]) -> str:
  """Three significant digits for reading; '-' where there is no number."""
  if value is None:
    return '-'
  if not math.isfinite(value) or value == 0:
    return f'{value:.3g}'.replace('-0', '0')
  if 1e-4 <= abs(value) < 1e4:
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f'{value:.{digits}f}'
  return f'{value:.2e}'


def _remarks(line: pd.Series) -> str:
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


def _interval(line: pd.Series) -> str:
  if line['kl_estimate_low'] is None:
    return '-'
  return (f'[{short_number(line["kl_estimate_low"])}, '
          f'{short_number(line["kl_estimate_high"])}]')


def _params(line: pd.Series) -> str:
  low, high = line['num_params_min'], line['num_params_max']
  if low is None:
    return '-'
  return f'{low:,}' if low == high else f'{low:,} to {high:,}'


def _samples(line: pd.Series) -> str:
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
        _params(line),
        short_number(line['train_seconds_mean']),
        _remarks(line)] for _, line in board.iterrows()]
    title = _title(ranking)
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


def _title(ranking: str) -> str:
  """A ranking's label as the start of a sentence."""
  return ranking[0].upper() + ranking[1:]


def _markdown(cells: Iterable[str]) -> str:
  return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def make_picture(tables: Tables) -> bytes:
  """The leaderboard as PNG: mean KL per agent setting, log axis, one panel
  per ranking.

  Per agent setting: its mean with a bar of one standard error, a dot per seed
  (mean over cells) and a tick at its floor. Values that a log axis cannot
  show (0, below its start, not finite) are marked at the edge and written.
  """
  boards = list(tables.leaderboard.groupby('ranking', sort=False))
  agents = sorted(set(tables.leaderboard['agent']))
  colours = {agent: _COLOURS[i % len(_COLOURS)]
             for i, agent in enumerate(agents)}
  # In inches: 0.3 per agent setting, 1.1 for title and axis, 0.4 for a legend;
  # names as wide as they are, 5.6 for the axis, 2.4 for the numbers.
  heights = [1.1 + 0.3 * len(board) for _, board in boards]
  height = sum(heights) + 0.4
  names = 0.5 + 0.075 * min(
      _LONGEST_LABEL, max(map(len, tables.leaderboard['label'])))
  width = names + 5.6 + 2.4
  figure = figure_lib.Figure(figsize=(width, height), dpi=150,
                             facecolor='white')
  backend_agg.FigureCanvasAgg(figure)
  bottom = 0.4
  for (ranking, board), room in reversed(list(zip(boards, heights))):
    axes = figure.add_axes((names / width, (bottom + 0.6) / height,
                            5.6 / width, (room - 1.1) / height))
    seeds = tables.seeds[tables.seeds['ranking'] == ranking]
    _draw_panel(axes, _title(ranking), board, seeds, colours)
    bottom += room
  figure.legend(handles=_legend(), loc='lower center', ncols=6, fontsize=8,
                frameon=False, handletextpad=0.4, columnspacing=1.4)
  stream = io.BytesIO()
  # Software and date would make the same picture another file.
  figure.savefig(stream, format='png', metadata={'Software': None})
  return stream.getvalue()


def _legend() -> list[Any]:
  """What the marks of the picture mean."""
  def mark(label, **options):
    return lines_lib.Line2D([], [], color='#444444', label=label, **options)
  return [
      mark('mean ± standard error', marker='o', markersize=6, linewidth=1.5),
      mark('one seed', marker='o', markersize=3.5, linewidth=0, alpha=0.5),
      mark('floor', marker='|', markersize=11, linewidth=0),
      mark('incomplete: not ranked', marker='o', markersize=6, linewidth=0,
           markerfacecolor='white'),
      mark('off the axis', marker='<', markersize=6, linewidth=0),
      mark('not finite', marker='X', markersize=6, linewidth=0)]


def _cut(label: str) -> str:
  """A label that fits into the picture."""
  if len(label) <= _LONGEST_LABEL:
    return label
  return label[:_LONGEST_LABEL - 1] + '…'


def _draw_panel(axes, title: str, board: pd.DataFrame, seeds: pd.DataFrame,
                colours: Mapping[str, str]) -> None:
  """One ranking of the picture."""
  on_axis = [value for value in [
      *board['kl_estimate_mean'], *board['kl_floor_mean'],
      *board['kl_estimate_finite_rows_mean'], *seeds['kl_estimate']]
             if value is not None and _SMALLEST_ON_AXIS <= value < math.inf]
  low = 10**(math.log10(min(on_axis, default=_SMALLEST_ON_AXIS)) - 0.3)
  high = 10**(math.log10(max(on_axis, default=1.)) + 0.3)

  for y, (_, line) in enumerate(board.iterrows()):
    colour = colours[line['agent']] if line['complete'] else '#777777'
    if y % 2:
      axes.axhspan(y - 0.5, y + 0.5, color='#f4f4f4', zorder=0, linewidth=0)
    dots = [value for value in seeds['kl_estimate'][
        seeds['label'] == line['label']] if low <= value <= high]
    axes.plot(dots, [y + 0.22] * len(dots), 'o', color=colour, markersize=3.5,
              alpha=0.5, markeredgewidth=0, zorder=2)
    floor = line['kl_floor_mean']
    if floor is not None and low <= floor <= high:
      axes.plot([floor], [y], '|', color='black', markersize=13, zorder=2)
    mean, error = line['kl_estimate_mean'], line['kl_estimate_standard_error']
    text = 'no score'
    if mean is not None:
      style = dict(color=colour, markersize=5, zorder=4,
                   markerfacecolor=colour if line['complete'] else 'white')
      if not math.isfinite(mean) or mean > high or mean < low:
        # Marked at the edge, in fractions of the axis; the text says more.
        marker = 'X' if not math.isfinite(mean) else '<' if mean < low else '>'
        axes.plot([0.012 if marker == '<' else 0.988], [y], marker,
                  transform=axes.get_yaxis_transform(), **style)
      else:
        if error is not None and math.isfinite(error):
          # A lower end at or below 0 is drawn to the edge of a log axis.
          axes.plot([max(low, mean - error), min(high, mean + error)],
                    [y - 0.08] * 2, '-', color=colour, linewidth=1.8, zorder=3,
                    solid_capstyle='butt')
        axes.plot([mean], [y - 0.08], 'o', **style)
      text = short_number(mean)
      if error is not None and math.isfinite(error):
        text += f' ± {short_number(error)}'
    notes = []
    if not line['complete']:
      scored = line['num_present'] - line['num_failed']
      notes.append(f'{scored}/{line["num_expected"]}')
    if line['num_non_finite']:
      notes.append(f'{line["num_non_finite"]} not finite')
    if notes:
      text += f' ({", ".join(notes)})'
    axes.text(1.015, y, text, transform=axes.get_yaxis_transform(),
              va='center', fontsize=8.5,
              color='black' if line['complete'] else '#777777')
  axes.set_xscale('log')
  axes.set_xlim(low, high)
  axes.set_ylim(len(board) - 0.5, -0.5)
  axes.set_yticks(range(len(board)))
  axes.set_yticklabels([
      ('' if line['rank'] is None else f'{line["rank"]}.  ')
      + _cut(line['label']) for _, line in board.iterrows()], fontsize=9)
  axes.tick_params(axis='y', length=0)
  axes.tick_params(axis='x', labelsize=8.5)
  axes.grid(axis='x', color='#dddddd', linewidth=0.6)
  axes.set_axisbelow(True)
  for side in ('top', 'right', 'left'):
    axes.spines[side].set_visible(False)
  first = board.iloc[0]
  axes.set_xlabel('mean KL to the exact posterior, nats (lower is better)',
                  fontsize=9)
  axes.set_title(f'{title}\n{first["num_cells_expected"]} cells, '
                 f'{first["num_expected"]} problems', fontsize=9.5, loc='left')


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a;
  --paper: #ffffff; --line: #d0d7de; --band: #f6f8fa; --warn: #fff4d6;
  --warn-ink: #5c3c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4af;
  --paper: #0d1117; --line: #30363d; --band: #161b22; --warn: #3a2d0c;
  --warn-ink: #f5d990; } }
body { margin: 2rem auto; max-width: 92rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { max-width: 60rem; margin: .4rem 0; }
.soft { color: var(--soft); }
.attention { background: var(--warn); color: var(--warn-ink);
  border-radius: 6px; padding: .6rem 1rem; margin: 1rem 0; }
.attention ul { margin: .2rem 0 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: 13.5px; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th.text, td.text { text-align: left; }
td.text { white-space: normal; min-width: 12rem; }
tbody th { text-align: left; font-weight: 600; position: sticky; left: 0;
  background: var(--paper); }
thead th { vertical-align: bottom; white-space: pre-line;
  border-bottom: 2px solid var(--line); }
tbody tr:hover th, tbody tr:hover td { background-color: var(--band); }
tr.unranked, tr.unranked th { color: var(--soft); }
td.heat { border: 1px solid var(--paper); }
tbody tr:hover td.heat { background-color: var(--heat); }
thead button { all: unset; cursor: pointer; font-weight: 600; }
thead button:focus-visible { outline: 2px solid currentColor; }
thead th[aria-sort=ascending] button::after { content: " \\25B2"; }
thead th[aria-sort=descending] button::after { content: " \\25BC"; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
details { margin: .6rem 0; }
code { font-size: 12.5px; overflow-wrap: anywhere; white-space: normal; }
"""

# Sorts the rows of a table by the column of the pressed header. Cells carry
# their exact value in data-value; empty and not finite ones stay last.
_SCRIPT = """
for (const button of document.querySelectorAll('thead button')) {
  button.addEventListener('click', () => {
    const header = button.closest('th');
    const body = header.closest('table').tBodies[0];
    const down = header.getAttribute('aria-sort') === 'ascending';
    for (const other of header.parentNode.cells) {
      other.removeAttribute('aria-sort');
    }
    header.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const numeric = header.dataset.kind === 'number';
    const value = (row) => {
      const text = row.cells[header.cellIndex].dataset.value;
      if (!numeric) { return text; }
      return text === '' ? NaN : Number(text);
    };
    const order = (a, b) => {
      const x = value(a);
      const y = value(b);
      if (!numeric) { return (down ? -1 : 1) * x.localeCompare(y); }
      const last = !Number.isFinite(x) - !Number.isFinite(y);
      if (last || !Number.isFinite(x)) { return last; }
      return down ? y - x : x - y;
    };
    body.append(...Array.from(body.rows).sort(order));
  });
}
"""


class _Column(NamedTuple):
  """A column of an HTML table.

  Attributes:
    title: its header.
    numeric: how it sorts, and on which side its text is.
    hint: what it is, shown on hovering.
  """
  title: str
  numeric: bool = True
  hint: str = ''


class _Cell(NamedTuple):
  """A cell of an HTML table: its text, the value it sorts by, its colours."""
  text: str
  value: Any = None
  style: str = ''


def _html_table(caption: str, columns: Sequence[_Column],
                rows: Sequence[Sequence[_Cell]],
                unranked: Sequence[bool]) -> str:
  """A table that can be sorted; the first column names the row."""
  head = ''.join(
      f'<th scope="col" data-kind="{"number" if c.numeric else "text"}"'
      f' class="{"number" if c.numeric else "text"}"'
      f' title="{html.escape(c.hint)}"><button type="button">'
      f'{html.escape(c.title)}</button></th>' for c in columns)
  body = []
  for row, grey in zip(rows, unranked):
    cells = []
    for i, (column, cell) in enumerate(zip(columns, row)):
      value = '' if cell.value is None else str(cell.value)
      attributes = f' data-value="{html.escape(value)}"'
      if column.numeric and value:
        attributes += f' title="{html.escape(value)}"'
      if cell.style:
        attributes += f' class="heat" style="{html.escape(cell.style)}"'
      elif not column.numeric and i:
        attributes += ' class="text"'
      tag, scope = ('td', '') if i else ('th', ' scope="row"')
      cells.append(
          f'<{tag}{scope}{attributes}>{html.escape(cell.text)}</{tag}>')
    body.append(f'<tr{" class=unranked" if grey else ""}>{"".join(cells)}</tr>')
  rows_text = '\n'.join(body)
  return (f'<div class="scroll"><table aria-label="{html.escape(caption)}">\n'
          f'<thead><tr>{head}</tr></thead>\n<tbody>\n{rows_text}\n</tbody>'
          '</table></div>')


def _number(value: Optional[float]) -> _Cell:
  return _Cell(short_number(value), value)


_BOARD_COLUMNS = (
    _Column('agent', False, 'the agent setting'),
    _Column('rank', hint='among complete agent settings with a finite mean'),
    _Column('mean KL', hint='kl_estimate, mean over seeds, then over cells'),
    _Column('± s.e.', hint='standard error of the mean, over seeds'),
    _Column('95 % interval', hint="Student's t; sorts by its upper end"),
    _Column('geometric mean', hint='of kl_estimate over the same problems'),
    _Column('reverse KL', hint='kl_reverse, mean as for KL'),
    _Column('floor', hint='mean kl_floor'),
    _Column('problems', hint='with a score, of those compared on'),
    _Column('scored on', hint='functions drawn, all members, or exact '
            'moments'),
    _Column('parameters', hint='smallest to largest over the problems'),
    _Column('train s', hint='training, seconds per problem'),
    _Column('remarks', False, 'what is not as it should be'))


def _board_table(ranking: str, board: pd.DataFrame) -> str:
  """The ranking as an HTML table."""
  rows = []
  for _, line in board.iterrows():
    scored = line['num_present'] - line['num_failed']
    rows.append([
        _Cell(line['label'], line['label']),
        _Cell('-' if line['rank'] is None else str(line['rank']), line['rank']),
        _number(line['kl_estimate_mean']),
        _number(line['kl_estimate_standard_error']),
        _Cell(_interval(line), line['kl_estimate_high']),
        _number(line['kl_estimate_geometric_mean']),
        _number(line['kl_reverse_mean']),
        _number(line['kl_floor_mean']),
        _Cell(f'{scored}/{line["num_expected"]}', scored),
        _Cell(_samples(line), line['num_samples_used']),
        _Cell(_params(line), line['num_params_max']),
        _number(line['train_seconds_mean']),
        _Cell(_remarks(line), _remarks(line))])
  return _html_table(ranking, _BOARD_COLUMNS, rows,
                     [rank is None for rank in board['rank']])


def _heat(value: Optional[float]) -> str:
  """CSS colours of a mean KL: its logarithm from 0.001 to 100, light to red."""
  if value is None:
    return ''
  if not math.isfinite(value):
    return '--heat:#3b0a0a;background-color:#3b0a0a;color:#ffffff'
  place = (math.log10(max(value, 1e-3)) + 3) / 5
  red, green, blue = colormaps['YlOrRd'](min(1., place))[:3]
  # WCAG's relative luminance decides between black and white text.
  linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055)**2.4
            for c in (red, green, blue)]
  light = np.dot((0.2126, 0.7152, 0.0722), linear) > 0.18
  colour = '#%02x%02x%02x' % tuple(
      round(255 * c) for c in (red, green, blue))
  return (f'--heat:{colour};background-color:{colour};'
          f'color:{"#000000" if light else "#ffffff"}')


def _cells_table(ranking: str, board: pd.DataFrame,
                 cells: pd.DataFrame) -> str:
  """Mean KL of every agent setting in every cell, coloured."""
  names = sorted(set(zip(cells['input_dim'], cells['data_ratio'],
                         cells['noise_std'])))
  by_name = {(line['label'], line['input_dim'], line['data_ratio'],
              line['noise_std']): line for _, line in cells.iterrows()}
  columns = [_Column('agent', False, 'the agent setting')] + [
      _Column(f'D {d}\nλ {ratio:g}\nε {noise:g}', hint='mean KL over seeds')
      for d, ratio, noise in names]
  rows = []
  for label in board['label']:
    row = [_Cell(label, label)]
    for name in names:
      line = by_name.get((label, *name))
      value = None if line is None else line['kl_estimate_mean']
      text = short_number(value)
      if line is not None and line['num_seeds'] < line['num_seeds_expected']:
        text += f' ({line["num_seeds"]}/{line["num_seeds_expected"]})'
      row.append(_Cell(text, value, _heat(value)))
    rows.append(row)
  return _html_table(f'cells of {ranking}', columns, rows,
                     [rank is None for rank in board['rank']])


def _provenance(scores: pd.DataFrame) -> str:
  """Devices and package versions behind the rows, with their row counts."""
  items = []
  names = ['device', 'dtype'] + [
      name for name in scores.columns if name.startswith('versions')]
  for name in names:
    counts = scores[name].astype(str).value_counts().sort_index()
    found = ', '.join(
        value if len(counts) == 1 else f'{value} ({count} rows)'
        for value, count in counts.items())
    items.append(f'<tr><th scope="row">{html.escape(name)}</th>'
                 f'<td class="text">{html.escape(found)}</td></tr>')
  return '<table><tbody>' + '\n'.join(items) + '</tbody></table>'


def make_page(tables: Tables, picture: bytes) -> str:
  """The report as one HTML page that needs nothing but itself.

  Args:
    tables: of `make_tables`.
    picture: of `make_picture`.
  """
  escape = html.escape
  boards = list(tables.leaderboard.groupby('ranking', sort=False))
  remarks = [
      f'<li><b>{escape(line["label"])}</b>'
      + (f' ({escape(ranking)})' if len(boards) > 1 else '')
      + f': {escape(_remarks(line))}</li>'
      for ranking, board in boards for _, line in board.iterrows()
      if _remarks(line)]
  attention = (
      '<div class="attention" role="note"><b>Not as it should be</b><ul>'
      + '\n'.join(remarks) + '</ul></div>' if remarks else
      '<p>Every agent setting has a finite score for every problem that it is '
      'compared on.</p>')
  parts = []
  for ranking, board in boards:
    first = board.iloc[0]
    cells = tables.cells[tables.cells['ranking'] == ranking]
    parts.append(
        f'<section><h2>{escape(_title(ranking))}</h2>'
        f'<p class="soft">Compared on {first["num_expected"]} problems in '
        f'{first["num_cells_expected"]} cells. Grey: not ranked.</p>'
        + _board_table(ranking, board)
        + '<h3>Mean KL per cell</h3><p class="soft">Coloured by the logarithm '
        'from 0.001 (light) to 100 (dark red); in parentheses, seeds present '
        'of those expected where some are missing.</p>'
        + _cells_table(ranking, board, cells) + '</section>')
  settings = tables.scores[
      ['agent_id', *(name for name in tables.scores.columns
                     if name.startswith('agent.'))]].drop_duplicates('agent_id')
  configs = [
      f'<li><b>{escape(row["agent_id"])}</b> <code>'
      + escape(', '.join(f'{name.removeprefix("agent.")}={value}'
                         for name, value in row.items()
                         if name != 'agent_id' and value is not None))
      + '</code></li>' for _, row in settings.iterrows()]
  image = base64.b64encode(picture).decode()
  title = 'Agents against the exact NNGP posterior'
  return '\n'.join([
      '<!DOCTYPE html>', '<html lang="en">', '<head>', '<meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f'<title>{title}</title>', f'<style>{_STYLE}</style>', '</head>',
      '<body>', f'<h1>{title}</h1>', f'<p>{escape(_SCORES_TEXT)}</p>',
      f'<p>{escape(_MEANS_TEXT)}</p>', attention,
      '<p><img alt="Mean KL per agent setting on a log axis; the same numbers '
      f'are in the tables below." src="data:image/png;base64,{image}"></p>',
      '<p class="soft">Press a header to sort by its column.</p>', *parts,
      '<h2>Settings and machines</h2>',
      '<details><summary>Every field of every agent setting</summary><ul>',
      *configs, '</ul></details>', _provenance(tables.scores),
      f'<script>{_SCRIPT}</script>', '</body>', '</html>', ''])


def write_report(tables: Tables,
                 output_dir: results.PathLike) -> dict[str, pathlib.Path]:
  """Writes scores.csv, leaderboard.csv, cells.csv, .png and .html.

  The same rows give the same bytes, whatever their order.

  Returns:
    File name -> path.

  Raises:
    ValueError: output_dir cannot be written to.
  """
  folder = results.make_folder(output_dir, 'output_dir')
  picture = make_picture(tables)
  contents = {
      'leaderboard.html': make_page(tables, picture).encode(),
      'leaderboard.png': picture,
      'leaderboard.csv': csv_text(tables.leaderboard).encode(),
      'cells.csv': csv_text(tables.cells).encode(),
      'scores.csv': csv_text(tables.scores).encode(),
  }
  for name, content in contents.items():
    results.write_atomically(folder / name, content)
  return {name: folder / name for name in contents}


def build(results_dirs: Union[results.PathLike, Sequence[results.PathLike]],
          output_dir: results.PathLike
          ) -> tuple[Tables, dict[str, pathlib.Path]]:
  """From results folders to the report.

  Args:
    results_dirs: a folder that a sweep has written to, or several.
    output_dir: where the files go; made if missing.

  Returns:
    The tables, and file name -> path.

  Raises:
    ValueError: a folder or a file in it is not as it must be.
  """
  tables = make_tables(*read_results(results_dirs))
  return tables, write_report(tables, output_dir)
