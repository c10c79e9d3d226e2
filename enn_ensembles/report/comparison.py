"""Agent settings compared on the problems that all of them have.

A figure or a claim asks for some agent settings. It gets their scores as arrays
over the same cells and the same seeds, so that every comparison is paired, and
a note on whatever that leaves out. `statistics` takes it from there.

No jax here.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from enn_ensembles import results
from enn_ensembles.machine import canonical
from enn_ensembles.report import cells as cells_lib
from enn_ensembles.results import schema
from enn_ensembles.scoring import table

Cell = results.Cell
ProblemKey = results.ProblemKey
Row = Mapping[str, Any]

# More problems in a note would not be read.
_LONGEST_LIST = 6


@dataclasses.dataclass(frozen=True)
class Setting:
  """One agent setting and how its members are selected.

  Attributes:
    agent: name of the agent.
    fields: (name, value) of the fields of its config that are given. What is
      not given must be the same in all rows that have these.
    selection: how members are selected; 'none' for all of them.
    label: what figures and messages call it.
  """
  agent: str
  fields: tuple[tuple[str, Any], ...] = ()
  selection: str = 'none'
  label: str = ''

  def get(self, name: str) -> Any:
    """The value of a field; None if it is none of those given."""
    return dict(self.fields).get(name)

  def holds(self, row: Row) -> bool:
    """Whether a row has the agent, the selection and the values given.

    A field that is None may be missing in the row's config. Rows lack a later
    field that has its default (`canonical.later_field`): None asks for those.
    """
    return (row['agent'] == self.agent and row['selection'] == self.selection
            and all(_same(row['agent_config'].get(name), value)
                    for name, value in self.fields))

  def __str__(self) -> str:
    text = self.label or ' '.join(
        [self.agent, *(f'{name}={value}' for name, value in self.fields)])
    return text if self.selection == 'none' else (
        f'{text}, selection {self.selection}')


def _same(a: Any, b: Any) -> bool:
  """Whether two settings are one: a tuple is stored as a list, 1 as 1.0."""
  return canonical.canonical_json(a) == canonical.canonical_json(b)


def make_setting(agent: str, selection: str = 'none', label: str = '',
                 **fields: Any) -> Setting:
  """A `Setting` from keywords."""
  return Setting(agent, tuple(fields.items()), selection, label)


class SettingsError(ValueError):
  """Rows do not give the scores of the agent settings that are asked for."""


class MissingSettingsError(SettingsError):
  """Agent settings have no rows, or no problem is common to all of them."""


class AmbiguousSettingError(SettingsError):
  """The rows of an agent setting differ in fields that it does not give."""


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
  """Scores of agent settings on common problems.

  Attributes:
    settings: those that are here.
    ranking: what the problems have in common, e.g. their reference.
    cell_names: names of the cell fields.
    cells: the C cells, sorted.
    seeds: the S seeds, sorted; every setting has every seed in every cell.
    notes: what is missing or left out, a sentence each.
    rows: setting -> problem -> row.
  """
  settings: tuple[Setting, ...]
  ranking: Mapping[str, Any]
  cell_names: tuple[str, ...]
  cells: tuple[Cell, ...]
  seeds: tuple[int, ...]
  notes: tuple[str, ...]
  rows: Mapping[Setting, Mapping[ProblemKey, Row]]

  def values(self, setting: Setting, score: str) -> np.ndarray:
    """A score of a setting, float64 [C, S].

    Raises:
      SettingsError: a row does not have it.
    """
    found = [[self.rows[setting][cell, seed]['scores'].get(score)
              for seed in self.seeds] for cell in self.cells]
    if any(None in row for row in found):
      raise SettingsError(f'a row of {setting} has no score {score}.')
    return np.array(found, np.float64)

  def curve(self, setting: Setting, score: str) -> np.ndarray:
    """A score of the first 1, 2, ..., J members of the order, [C, S, J].

    Raises:
      SettingsError: curves have several lengths, or not this score.
    """
    rows = self.rows[setting]
    curves = [[rows[cell, seed]['curve'].get(score) for seed in self.seeds]
              for cell in self.cells]
    if any(None in row for row in curves):
      raise SettingsError(f'a curve of {setting} has no score {score}.')
    lengths = sorted({len(curve) for of_cell in curves for curve in of_cell})
    if len(lengths) > 1:
      raise SettingsError(f'the curves of {setting} must have one length, got '
                          f'{lengths}.')
    return np.array(curves, np.float64)

  def column(self, name: str) -> np.ndarray:
    """The value of a cell field in each cell, [C].

    Raises:
      ValueError: cells have no such field.
    """
    if name not in self.cell_names:
      raise ValueError(f'cell field must be one of '
                       f'{", ".join(self.cell_names)}, got {name!r}.')
    place = self.cell_names.index(name)
    return np.array([cell[place] for cell in self.cells])

  def scope(self) -> str:
    """On what everything here is compared, for titles and messages."""
    return ', '.join([*_ranking_texts(self.ranking),
                      f'{len(self.cells)} cells', f'{len(self.seeds)} seeds'])


def _ranking_texts(ranking: Mapping[str, Any]) -> list[str]:
  """What problems have in common, without what is usual."""
  return [f'{name} {value}' for name, value in ranking.items()
          if (name, value) != ('kernel', results.DEFAULT_KERNEL)]


def compare(rows: Sequence[Row], settings: Sequence[Setting], *,
            ranking: Mapping[str, Any], score: str | None = None,
            with_curve: Iterable[Setting] = (), config: str = '',
            allow_missing: bool = False) -> Comparison:
  """The scores of agent settings on the problems that all of them have.

  Failed rows have no scores and count as missing; scores that are not finite
  count as scores. Only rows that enumerate finite index sets are used.

  Args:
    rows: as `columns.read_results` gives them.
    settings: what to compare, at least one.
    ranking: what the problems must say under `ranking`, e.g. their reference.
    score: which rows must have it; None for the headline of their score set.
    with_curve: settings of which the curve is needed too.
    config: the config that makes the rows, for the message.
    allow_missing: leave out settings without any row and note it, instead of
      raising.

  Raises:
    MissingSettingsError: a setting has no rows (and not `allow_missing`), or
      the settings have no problem in common.
    AmbiguousSettingError: the rows of a setting are of several agent settings.
    ValueError: two rows say different things about the same.
  """
  with_curve = set(with_curve)
  usable = [row for row in rows if row['enumerate_indices']
            and row['problem']['ranking'] == ranking
            and row['status'] != 'failed'
            and _score_name(row, score) in row['scores']]
  names = results.cell_names(usable)
  found = {setting: _rows_of(usable, setting, names, setting in with_curve)
           for setting in settings}
  texts = ' '.join(_ranking_texts(ranking))
  flag = f' --reference={ranking["reference"]}' if 'reference' in ranking else (
      '')
  hint = (f' Run python -m experiments.run_sweep --config={config}{flag} '
          '--results_dir=DIR first.' if config else '')
  missing = [setting for setting in settings if not found[setting]]
  if missing and (not allow_missing or len(missing) == len(settings)):
    curves = ' (with a curve)' if with_curve & set(missing) else ''
    raise MissingSettingsError(
        f'results_dir holds no scores{curves} with {texts} of '
        + '; '.join(map(str, missing)) + f'.{hint}')
  present = tuple(s for s in settings if found[s])
  every = set().union(*(found[s] for s in present))
  shared = set(every).intersection(*(found[s] for s in present))
  if not shared:
    raise MissingSettingsError(
        'no problem is common to ' + '; '.join(map(str, present)) +
        f' with {texts}.{hint}')
  cells, seeds = _largest_grid(shared)
  notes = [f'{setting} is not here: no rows.' for setting in missing]
  notes += _left_out_notes(found, present, every, cells, seeds)
  for setting in present:
    bad = sum(not np.isfinite(row['scores'][_score_name(row, score)])
              for row in (found[setting][cell, seed] for cell in cells
                          for seed in seeds))
    if bad:
      notes.append(f'{setting} has {bad} scores that are not finite.')
  return Comparison(present, dict(ranking), names, cells, seeds, tuple(notes),
                    found)


def _score_name(row: Row, score: str | None) -> str:
  return score or table.SCORE_SETS[row['score_set']].headline


def _left_out_notes(found: Mapping[Setting, Mapping[ProblemKey, Row]],
                    present: Sequence[Setting], every: set[ProblemKey],
                    cells: Sequence[Cell], seeds: Sequence[int]) -> list[str]:
  """Sentences on the problems that are not compared on, and on who lacks."""
  num_used = len(cells) * len(seeds)
  if num_used == len(every):
    return []
  used = {(cell, seed) for cell in cells for seed in seeds}
  notes = [
      f'compared on {num_used} of {len(every)} problems ({len(cells)} cells, '
      f'seeds {_list_text(seeds)}): those that every setting has. Left out: '
      f'{_problems_text(every - used)}.']
  alike: dict[frozenset[ProblemKey], list[Setting]] = {}
  for setting in present:
    alike.setdefault(frozenset(every - set(found[setting])), []).append(setting)
  for lacking, incomplete in alike.items():
    if lacking:
      notes.append(
          f'incomplete, {len(every) - len(lacking)} of {len(every)} '
          f'problems: {"; ".join(map(str, incomplete))}; without '
          f'{_problems_text(lacking)}.')
  return notes


def _rows_of(rows: Sequence[Row], setting: Setting, names: Sequence[str],
             with_curve: bool) -> dict[ProblemKey, Row]:
  """problem -> row of one setting, cells having values of these names."""
  # One look per agent setting: rows are many.
  held: dict[tuple[str, str], bool] = {}
  own = []
  for row in rows:
    key = row['agent_id'], row['selection']
    if key not in held:
      held[key] = setting.holds(row)
    if held[key] and not (with_curve and row['curve'] is None):
      own.append(row)
  configs = {row['agent_id']: row['agent_config'] for row in own}
  if len(configs) > 1:
    raise AmbiguousSettingError(
        f'{setting} is ambiguous: rows differ in '
        f'{_differences_text(list(configs.values()))}; keep them in different '
        'results folders, or say which is meant.')
  found: dict[ProblemKey, Row] = {}
  for row in own:
    known = found.setdefault(results.problem_of(row, names), row)
    for field in ('dtype', 'num_enn_samples', 'scores'):
      if not results.same_value(known[field], row[field]):
        raise ValueError(
            f'two rows of {setting} on {row["problem_id"]} have {field} '
            f'{known[field]!r} and {row[field]!r}: keep them in different '
            'results folders.')
  return found


def _differences_text(configs: Sequence[Mapping[str, Any]]) -> str:
  """The fields in which configs differ, with their values."""
  parts = []
  for name in sorted({name for config in configs for name in config}):
    values = {canonical.canonical_json(config.get(name)) for config in configs}
    if len(values) > 1:
      parts.append(f'{name} ({", ".join(sorted(values))})')
  return ' and '.join(parts)


def _largest_grid(problems: Iterable[ProblemKey]
                  ) -> tuple[tuple[Cell, ...], tuple[int, ...]]:
  """Cells and seeds whose every combination is there, as many as can be.

  Cells are taken in the order of how many seeds they have; of the grids that
  grow so, the one with most problems (of equal ones, with most cells).
  """
  seeds_of = _seeds_of(problems)
  order = sorted(seeds_of, key=lambda cell: (-len(seeds_of[cell]),
                                             _cell_key(cell)))
  best: tuple[list[Cell], set[int]] = ([], set())
  common = set(seeds_of[order[0]])
  for i, cell in enumerate(order):
    common = common & seeds_of[cell]
    if (i + 1) * len(common) >= len(best[0]) * len(best[1]):
      best = (order[:i + 1], common)
  return tuple(sorted(best[0], key=_cell_key)), tuple(sorted(best[1]))


def _seeds_of(problems: Iterable[ProblemKey]) -> dict[Cell, set[int]]:
  seeds_of: dict[Cell, set[int]] = {}
  for cell, seed in problems:
    seeds_of.setdefault(cell, set()).add(seed)
  return seeds_of


def _cell_key(cell: Cell) -> tuple[Any, ...]:
  return tuple(map(schema.value_key, cell))


def _list_text(values: Iterable[Any]) -> str:
  values = sorted(values)
  if (len(values) > 2 and all(isinstance(v, int) for v in values)
      and values == list(range(values[0], values[-1] + 1))):
    return f'{values[0]} to {values[-1]}'
  return ', '.join(map(str, values))


def _problems_text(problems: Iterable[ProblemKey]) -> str:
  """Cells with their seeds, few of them."""
  seeds_of = _seeds_of(problems)
  texts = [
      f'({", ".join(map(cells_lib.level_text, cell))}) seeds '
      f'{_list_text(seeds_of[cell])}' for cell in sorted(seeds_of,
                                                         key=_cell_key)]
  if len(texts) > _LONGEST_LIST:
    texts[_LONGEST_LIST:] = [f'{len(texts) - _LONGEST_LIST} more cells']
  return '; '.join(texts)
