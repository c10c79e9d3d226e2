"""The lines of one ranking: everything the tables say about an agent setting.

`tables` says what is compared with what and why; here is what is computed from
the scores of one agent setting, and how the lines of a ranking are ranked.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles.report import agent_settings
from enn_ensembles.report import cells as cells_lib
from enn_ensembles.report import ranks
from enn_ensembles.report import statistics
from enn_ensembles.scoring import table


class Lines(NamedTuple):
  """One ranking's lines in the tables."""
  grid: cells_lib.Grid
  board: list[dict[str, Any]]
  cells: list[dict[str, Any]]
  seeds: list[dict[str, Any]]


def make_lines(scope: agent_settings.Scope, placed: agent_settings.Placed,
               agents: Mapping[str, agent_settings.Agent],
               asked_draws: Mapping[str, int | None]) -> Lines:
  """The lines of one ranking, best first.

  Args:
    scope: what they are about.
    placed: its rows.
    agents: agent_id -> every agent setting that has rows or is expected.
    asked_draws: agent_id -> draws that are expected of those without rows.
  """
  settings = agent_settings.make_settings(scope, placed, agents, asked_draws)
  baseline = _find_baseline(scope, settings)
  fields = scope.grid.usual_field() if scope.by is None else (
      scope.by if scope.by in scope.grid.names else None)
  lines = [_make_board_line(setting, baseline, fields) for setting in settings]
  order = _rank(scope, settings, lines)
  return Lines(
      scope.grid, [lines[i] for i in order],
      [line for i in order for line in _make_cell_lines(settings[i], baseline)],
      [line for i in order for line in _make_seed_lines(settings[i], baseline)])


def _find_baseline(scope: agent_settings.Scope,
                   settings: Sequence[agent_settings.AgentSetting]
                   ) -> tuple[np.ndarray, np.ndarray] | None:
  """Scores of the baseline and where there are any, [C, S] each.

  Of several settings of that agent, the first with most scores.
  """
  own = [setting for setting in settings
         if setting.identity['agent'] == scope.baseline
         and setting.covered_there.any()]
  if not own or not table.check_score(scope.score).positive:
    return None
  best = max(own, key=lambda setting: setting.covered_there.sum())
  return best.values, best.covered_there


def _relative(values: np.ndarray, there: np.ndarray,
              baseline: tuple[np.ndarray, np.ndarray] | None
              ) -> statistics.Interval | None:
  """The headline on the problems that both have; None where there are none."""
  if baseline is None:
    return None
  both = there & baseline[1]
  cells = both.any(axis=1)
  if not cells.any():
    return None
  values, base, both = values[cells], baseline[0][cells], both[cells]
  if (both == both[0]).all():
    seeds = both[0]
    return statistics.relative_mean(values[:, seeds], base[:, seeds])
  logs = [statistics.log_of_means(statistics.seed_means(array, both))
          for array in (values, base)]
  with np.errstate(invalid='ignore'):
    return statistics.Interval(float(np.exp(np.mean(logs[0] - logs[1]))))


def _make_board_line(setting: agent_settings.AgentSetting,
                     baseline: tuple[np.ndarray, np.ndarray] | None,
                     field: str | None) -> dict[str, Any]:
  """An agent setting's line on the board, not yet ranked."""
  scope, score = setting.scope, setting.scope.score
  entry = table.check_score(score)
  values, there = setting.values, setting.covered_there
  mean = statistics.mean_over_cells(values, there)
  finite = statistics.mean_over_cells(values, there & np.isfinite(values))
  relative = _relative(values, there, baseline)
  floor = floor_mean = floor_relative = None
  if entry.floor is not None:
    floor = setting.laid(entry.floor)
    floor_mean = setting.mean(entry.floor)
    found = _relative(floor[0], floor[1] & scope.covered, baseline)
    floor_relative = found and found.value
  line = {
      'ranking': scope.ranking.label, 'rank': None,
      'rank_low': None, 'rank_high': None,
      'rank_low_random_cells': None, 'rank_high_random_cells': None,
      'not_told_apart_from': None,
      'label': setting.identity['label'], 'unranked_because': '',
      'complete': int(there.sum()) == int(scope.covered.sum()),
      'score': score,
      'baseline': None if baseline is None else scope.baseline,
      f'{score}_relative': relative and relative.value,
      f'{score}_relative_low': relative and relative.low,
      f'{score}_relative_high': relative and relative.high,
      f'{score}_mean': mean and mean.mean,
      f'{score}_standard_error': mean and mean.standard_error,
      f'{score}_low': mean and mean.low, f'{score}_high': mean and mean.high,
      'standard_error_method': mean.method if mean else 'none',
      f'{score}_geometric_mean': statistics.geometric_mean_over_cells(
          values, there) if entry.positive else None,
      f'{score}_finite_rows_mean': finite and finite.mean,
  }
  if entry.floor is not None:
    line.update({
        f'{entry.floor}_relative': floor_relative,
        f'{entry.floor}_mean': floor_mean,
        f'{score}_excess': _minus(mean and mean.mean, floor_mean)})
  if field is not None:
    line.update(_level_columns(setting, baseline, field))
  line.update({f'{name}_mean': setting.mean(name)
               for name in table.scores_of(scope.ranking.key.score_set)
               if name not in (score, entry.floor)})
  line.update(_counts_and_settings(
      setting, 0 if floor is None else int(np.sum(
          np.isinf(floor[0][floor[1] & scope.covered])))))
  return line


def _counts_and_settings(setting: agent_settings.AgentSetting,
                         num_infinite_floor: int) -> dict[str, Any]:
  """A board line's columns that are no scores."""
  scope, values = setting.scope, setting.values
  there = setting.covered_there
  status = setting.status[setting.inside]
  params = setting.unique('num_params')
  rows = setting.placed.rows[setting.inside]
  return {
      'num_cells_expected': int(scope.covered.any(axis=1).sum()),
      'num_cells': int(there.any(axis=1).sum()),
      'num_expected': int(scope.covered.sum()),
      'num_present': len(rows),
      **{f'num_{name}': int(np.sum(status == name))
         for name in ('ok', 'diverged', 'failed')},
      'num_scored': int(there.sum()),
      'num_non_finite': int(np.sum(~np.isfinite(values[there]))),
      'num_infinite_floor': num_infinite_floor,
      'num_outside': int(np.sum(~setting.inside)),
      'kind': scope.ranking.key.kind, 'score_set': scope.ranking.key.score_set,
      **dict(scope.ranking.key.same),
      'selection': scope.ranking.key.selection,
      'enumerate_indices': scope.ranking.key.enumerate_indices,
      **{key: setting.identity[key] for key in ('agent_id', 'agent', 'dtype',
                                                'num_enn_samples')},
      'num_samples_used': max(setting.unique('num_samples_used'),
                              default=None),
      'num_params_min': min(params, default=None),
      'num_params_max': max(params, default=None),
      'train_seconds_mean': _over_rows(np.mean, setting, 'train_seconds'),
      'predict_seconds_per_1000_mean': _over_rows(
          np.mean, setting, 'predict_seconds_per_1000'),
      'peak_memory_mb_max': _over_rows(np.max, setting, 'peak_memory_mb'),
  }


def _over_rows(combine: Callable[[np.ndarray], Any],
               setting: agent_settings.AgentSetting,
               cost: str) -> float | None:
  """A cost of the rows that have it, combined; None where none has."""
  values, there = setting.scope.columns.cost(cost)
  rows = setting.placed.rows[setting.inside]
  found = values[rows][there[rows]]
  return float(combine(found)) if found.size else None


def _minus(value: float | None, floor: float | None) -> float | None:
  return None if value is None or floor is None else value - floor


def level_column(score: str, what: str, field: str, level: Any) -> str:
  """The name of a column of one value of a cell field."""
  return f'{score}_{what}[{field}={cells_lib.level_text(level)}]'


def _level_columns(setting: agent_settings.AgentSetting,
                   baseline: tuple[np.ndarray, np.ndarray] | None,
                   field: str) -> dict[str, Any]:
  """The headline and the mean at every value of a cell field."""
  scope, columns = setting.scope, {}
  for level in scope.grid.levels(field):
    there = setting.covered_there & scope.grid.at_level(field, level)[:, None]
    relative = _relative(setting.values, there, baseline)
    mean = statistics.mean_over_cells(setting.values, there)
    for what, value in (('relative', relative and relative.value),
                        ('mean', mean and mean.mean)):
      columns[level_column(scope.score, what, field, level)] = value
  return columns


def _make_cell_lines(setting: agent_settings.AgentSetting,
                     baseline: tuple[np.ndarray, np.ndarray] | None
                     ) -> list[dict[str, Any]]:
  """An agent setting in every cell, those that are not compared on too."""
  scope, score = setting.scope, setting.scope.score
  floor_name = table.check_score(score).floor
  floor = None if floor_name is None else setting.laid(floor_name)
  shown = scope.covered.any(axis=1)
  shown[setting.placed.cells] = True
  lines = []
  for i in np.flatnonzero(shown):
    values, there = setting.values[[i]], setting.there[[i]]
    mean = statistics.mean_over_cells(values, there)
    base = None if baseline is None else (baseline[0][[i]], baseline[1][[i]])
    relative = _relative(values, there, base)
    line = {**setting.identity, 'score': score,
            **dict(zip(scope.grid.names, scope.grid.cells[i])),
            f'{score}_mean': mean and mean.mean,
            f'{score}_standard_error': mean and mean.standard_error,
            f'{score}_relative': relative and relative.value}
    if floor is not None:
      floor_mean = statistics.mean_over_cells(floor[0][[i]], floor[1][[i]])
      line[f'{floor_name}_mean'] = floor_mean and floor_mean.mean
      line[f'{score}_excess'] = _minus(mean and mean.mean,
                                       floor_mean and floor_mean.mean)
    lines.append({
        **line, 'num_seeds': int(there.sum()),
        'num_seeds_expected': int(scope.covered[i].sum()),
        'num_non_finite': int(np.sum(~np.isfinite(values[there]))),
        'in_ranking': bool(scope.covered[i].any())})
  return lines


def _make_seed_lines(setting: agent_settings.AgentSetting,
                     baseline: tuple[np.ndarray, np.ndarray] | None
                     ) -> list[dict[str, Any]]:
  """An agent setting at every seed: means over its cells."""
  lines = []
  there = setting.covered_there
  for s in np.flatnonzero(there.any(axis=0)):
    one = np.zeros_like(there)
    one[:, s] = there[:, s]
    mean = statistics.mean_over_cells(setting.values, one)
    relative = _relative(setting.values, one, baseline)
    lines.append({
        **{key: setting.identity[key] for key in ('ranking', 'label')},
        'score': setting.scope.score, 'seed': setting.scope.grid.seeds[s],
        'num_cells': int(one.sum()),
        f'{setting.scope.score}_mean': mean and mean.mean,
        f'{setting.scope.score}_relative': relative and relative.value})
  return lines


def _rank(scope: agent_settings.Scope,
          settings: Sequence[agent_settings.AgentSetting],
          lines: Sequence[dict[str, Any]]) -> list[int]:
  """Fills in ranks; the order of the lines, best first, then the unranked."""
  entry = table.check_score(scope.score)
  higher = entry.direction == 'higher'
  value = np.full(len(lines), np.nan)
  for i, setting in enumerate(settings):
    means = statistics.seed_means(setting.values, setting.covered_there)
    if len(means):
      with np.errstate(invalid='ignore', over='ignore'):
        value[i] = np.mean(statistics.log_of_means(means) if entry.positive
                           else means)
  for line in lines:
    line['unranked_because'] = '; '.join(reason for reason, holds in (
        ('incomplete', not line['complete']),
        ('diverged', line['num_diverged'] > 0),
        ('not finite', line['num_non_finite'] > 0),
        ('floor is infinite', line['num_infinite_floor'] > 0)) if holds)

  def order(i: int) -> tuple[Any, ...]:
    line, here = lines[i], value[i]
    return (line['unranked_because'] != '', not line['complete'],
            line['num_non_finite'] > 0 or math.isnan(here),
            0. if math.isnan(here) else -here if higher else here,
            line[f'{scope.score}_mean'] is None, line['label'])

  places = sorted(range(len(lines)), key=order)
  ranked = [i for i in places if not lines[i]['unranked_because']]
  if ranked:
    found = ranks.competition_ranks(value[ranked], higher)
    for i, rank in zip(ranked, found.tolist()):
      lines[i]['rank'] = rank
    _add_rank_intervals(scope, [settings[i] for i in ranked],
                        [lines[i] for i in ranked], entry)
  return places


def _add_rank_intervals(scope: agent_settings.Scope,
                        settings: Sequence[agent_settings.AgentSetting],
                        lines: Sequence[dict[str, Any]],
                        entry: table.Score) -> None:
  """How sure the ranks are, where every cell has the same seeds, 2 or more."""
  cells, seeds = scope.covered.any(axis=1), scope.covered.any(axis=0)
  if not scope.covered[np.ix_(cells, seeds)].all() or seeds.sum() < 2:
    return
  values = np.array([setting.values[np.ix_(cells, seeds)]
                     for setting in settings])
  higher = entry.direction == 'higher'
  for end, random_cells in (('', False), ('_random_cells', True)):
    found = ranks.rank_intervals(values, entry.positive, higher, random_cells)
    assert found is not None  # There are two seeds or more.
    for line, low, high in zip(lines, *found):
      line[f'rank_low{end}'], line[f'rank_high{end}'] = int(low), int(high)
  apart = ranks.told_apart(values, entry.positive)
  assert apart is not None
  for i, line in enumerate(lines):
    others: list[int] = np.flatnonzero(~apart[i]).tolist()
    line['not_told_apart_from'] = ranks.ranges_text(
        {lines[j]['rank'] for j in others if j != i})
