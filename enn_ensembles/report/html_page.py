"""The leaderboard as a page and files.

It shows what `tables` has computed and changes no number. The page is one file
that needs nothing else; `page.html.jinja` is its text, its style and the script
that sorts, filters and saves its tables.
"""

import base64
from collections.abc import Sequence
import importlib.resources
import math
import pathlib
from typing import Any
from typing import NamedTuple

import jinja2
import markupsafe
from matplotlib import colormaps
import numpy as np
import pandas as pd

from enn_ensembles.machine import files
from enn_ensembles.machine import plain_text
from enn_ensembles.report import board_picture
from enn_ensembles.report import cells as cells_lib
from enn_ensembles.report import columns as columns_lib
from enn_ensembles.report import costs as costs_lib
from enn_ensembles.report import csv_files
from enn_ensembles.report import page_text
from enn_ensembles.report import provenance
from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text
from enn_ensembles.report import versions
from enn_ensembles.results import verification
from enn_ensembles.scoring import table


class _Column(NamedTuple):
  """A column of an HTML table.

  Attributes:
    name: its name in the CSV, that of leaderboard.csv where it is there too.
    title: its header.
    numeric: how it sorts, and on which side its text is.
    hint: what it is, shown on hovering.
  """
  name: str
  title: str
  numeric: bool = True
  hint: str = ''


class _Cell(NamedTuple):
  """A cell: its text, the value it sorts by and saves, its colours."""
  text: str
  value: str
  style: str = ''


class _Row(NamedTuple):
  """A row of an HTML table; its first cell names it."""
  cells: list[_Cell]
  unranked: bool = False


class _Table(NamedTuple):
  """An HTML table and the name of the file that it is saved as."""
  caption: str
  file: str
  columns: list[_Column]
  rows: list[_Row]


# What rows of earlier versions do not say.
_COSTS_OF_USE = (
    _Column('predict_seconds_per_1000_mean', 's / 1000\npredictions',
            hint='prediction at 1000 points by all members or draws, seconds'),
    _Column('peak_memory_mb_max', 'peak MB', hint='largest resident memory of '
            'the process while units were trained and scored'))


def _text(value: str) -> _Cell:
  return _Cell(value, value)


def _number(value: Any, words: str | None = None, style: str = '') -> _Cell:
  """A number with all its digits behind what is shown."""
  shown = text.short_number(value) if words is None else words
  return _Cell(shown, csv_files.value_text(value), style)


def _main_table(ranking: str, board: pd.DataFrame, number: int) -> _Table:
  """The board of one ranking."""
  shown = text.headline(board)
  score, entry = shown.score, shown.entry
  columns = [
      _Column('label', 'agent', False, 'the agent setting'),
      _Column('rank', 'rank', hint='with its 95 % interval; '
              + page_text.RANK_HINT),
      _Column('not_told_apart_from', 'not told\napart from', False,
              page_text.APART_HINT)]
  numbers = []
  if shown.is_relative:
    numbers.append((shown.value, shown.title, page_text.RELATIVE_HINT))
    if shown.floor is not None:
      numbers.append((shown.floor, f'floor /\n{shown.baseline}',
                      'the same of what as many exact draws would score'))
  numbers += [(name, title.replace('=', '\n= '), f'{shown.title} there')
              for name, title in text.level_columns(board, shown).items()]
  numbers += [
      (f'{score}_mean', f'mean {entry.label}', f'{entry.meaning}; mean over '
       'seeds, then over cells'),
      (f'{score}_standard_error', '± s.e.', 'of the mean, over seeds')]
  if entry.floor is not None:
    numbers += [
        (f'{entry.floor}_mean', 'floor', table.SCORES[entry.floor].meaning),
        (f'{score}_excess', 'excess', 'mean minus floor')]
  columns += [_Column(name, title, hint=hint) for name, title, hint in numbers]
  costs = [column for column in _COSTS_OF_USE if any(
      value is not None for value in board[column.name])]
  columns += [
      _Column('num_scored', 'problems', hint='with a score, of those compared '
              'on'),
      _Column('num_samples_used', 'scored on', hint='functions drawn, all '
              'members, or exact moments'),
      _Column('num_params_max', 'parameters', hint='smallest to largest over '
              'the problems'),
      _Column('train_seconds_mean', 'train s', hint='training, seconds per '
              'problem'),
      *costs,
      _Column('provenance', 'rows', False, 'brought as predictions; computed '
              'again, and then within the promised tolerance (verified)'),
      _Column('remarks', 'remarks', False, 'what is not as it should be, and '
              'what a selection of members reads that other agents do not')]
  rows = []
  for line in board.to_dict('records'):
    cells = [_text(line['label']), _number(line['rank'], text.rank(line)),
             _text(line['not_told_apart_from'] or '')]
    cells += [_interval_cell(line, name, shown) for name, *_ in numbers]
    cells += [
        _number(line['num_scored'],
                f'{line["num_scored"]}/{line["num_expected"]}'),
        _number(line['num_samples_used'], text.samples(line)),
        _number(line['num_params_max'], text.params(line)),
        _number(line['train_seconds_mean']),
        *(_number(line[column.name]) for column in costs),
        _text(provenance.words(line)), _text(text.notes(line))]
    rows.append(_Row(cells, line['rank'] is None))
  return _Table(ranking, f'board_{number}.csv', columns, rows)


def _interval_cell(line: dict[str, Any], name: str,
                   shown: text.Headline) -> _Cell:
  """A number; the headline with its interval."""
  words = text.short_number(line[name])
  if name == shown.value and line[shown.low] is not None:
    words += f' {text.interval(line[shown.low], line[shown.high])}'
  return _number(line[name], words)


def _heat(value: float | None, is_relative: bool) -> str:
  """CSS colours of a score: its logarithm, light to red.

  From a hundredth to a hundred times the baseline, or from 0.001 to 100.
  """
  if value is None:
    return ''
  if not math.isfinite(value):
    return '--heat:#3b0a0a;background-color:#3b0a0a;color:#ffffff'
  lowest, decades = (1e-2, 4) if is_relative else (1e-3, 5)
  place = math.log10(max(value, lowest) / lowest) / decades
  red, green, blue = colormaps['YlOrRd'](min(1., place))[:3]
  # WCAG's relative luminance decides between black and white text.
  linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055)**2.4
            for c in (red, green, blue)]
  light = np.dot((0.2126, 0.7152, 0.0722), linear) > 0.18
  colour = '#' + ''.join(f'{round(255 * c):02x}' for c in (red, green, blue))
  return (f'--heat:{colour};background-color:{colour};'
          f'color:{"#000000" if light else "#ffffff"}')


def _cells_table(ranking: str, board: pd.DataFrame, cells: pd.DataFrame,
                 grid: cells_lib.Grid, number: int) -> _Table:
  """The score of every agent setting in every cell, coloured."""
  shown = text.headline(board)
  fields = list(grid.names)
  found = set(cells[fields].itertuples(index=False, name=None))
  names = [cell for cell in grid.cells if cell in found]
  lines = {(line['label'], *(line[field] for field in fields)): line
           for line in cells.to_dict('records')}
  columns = [_Column('label', 'agent', False, 'the agent setting')]
  for cell in names:
    parts = [f'{field}={cells_lib.level_text(value)}'
             for field, value in zip(fields, cell)]
    columns.append(_Column(';'.join(parts), '\n'.join(
        part.replace('=', ' ') for part in parts), hint=f'{shown.title}, over '
        'seeds'))
  rows = []
  for label, rank in zip(board['label'], board['rank']):
    row = [_text(label)]
    for cell in names:
      line = lines.get((label, *cell))
      value = None if line is None else line[shown.value]
      words = text.short_number(value)
      if line is not None and line['num_seeds'] < line['num_seeds_expected']:
        words += f' ({line["num_seeds"]}/{line["num_seeds_expected"]})'
      style = _heat(value, shown.is_relative) if shown.entry.positive else ''
      row.append(_number(value, words, style))
    rows.append(_Row(row, rank is None))
  return _Table(f'cells of {ranking}', f'cells_{number}.csv', columns, rows)


def _others_table(ranking: str, board: pd.DataFrame, number: int) -> _Table:
  """Means of the scores that the board is not ranked by."""
  shown = text.headline(board)
  others = {
      f'{name}_mean': entry for name, entry in table.scores_of(
          board.iloc[0]['score_set']).items()
      if name not in (shown.score, shown.entry.floor)
      and any(value is not None for value in board[f'{name}_mean'])}
  columns = [_Column('label', 'agent', False, 'the agent setting')] + [
      _Column(name, entry.label, hint=f'{entry.meaning}, {entry.unit}')
      for name, entry in others.items()]
  rows = [_Row([_text(line['label']),
                *(_number(line[name]) for name in others)],
               line['rank'] is None) for line in board.to_dict('records')]
  return _Table(f'other scores of {ranking}', f'scores_{number}.csv', columns,
                rows)


def _errors_table(errors: pd.DataFrame) -> _Table:
  """What agents said when they failed or diverged."""
  return _Table(
      'messages', 'messages.csv',
      [_Column('label', 'agent', False), _Column('status', 'status', False),
       _Column('num_rows', 'rows'), _Column('message', 'message', False),
       _Column('example', 'for example on', False)],
      [_Row([_text(line['label']), _text(line['status']),
             _number(line['num_rows'], str(line['num_rows'])),
             _text(line['message']), _text(line['example'])])
       for line in errors.to_dict('records')])


def _devices_and_versions(rows: columns_lib.Columns) -> list[dict[str, str]]:
  """Devices and package versions behind the rows, with their row counts."""
  counts: dict[str, dict[str, int]] = {}
  for name in ('device', 'dtype', 'numerics', 'versions'):
    numbers = np.bincount(rows.codes(name), minlength=len(rows.values(name)))
    for value, number in zip(rows.values(name), numbers.tolist()):
      parts = ({f'{name}.{key}': part for key, part in value.items()}
               if isinstance(value, dict) else {name: value})
      for key, part in parts.items():
        found = counts.setdefault(key, {})
        found[str(part)] = found.get(str(part), 0) + number
  return [{'name': name, 'text': ', '.join(
      value if len(found) == 1 else f'{value} ({count} rows)'
      for value, count in sorted(found.items()))}
          for name, found in counts.items()]


def _breakable(label: str) -> markupsafe.Markup:
  """A label that a narrow screen may break after commas."""
  return markupsafe.Markup(',<wbr>').join(label.split(','))


def make_page(tables: tables_lib.Tables, picture: bytes,
              costs: pd.DataFrame | None = None) -> str:
  """The report as one HTML page that needs nothing but itself.

  Args:
    tables: of `make_tables`.
    picture: of `board_picture.make_picture`.
    costs: of `costs.make_costs`; None leaves out what the rows cost.
  """
  boards, remarks = [], []
  grouped = list(tables.leaderboard.groupby('ranking', sort=False))
  for number, (ranking, board) in enumerate(grouped, 1):
    cells = tables.cells[tables.cells['ranking'] == ranking]
    first = board.iloc[0]
    boards.append({
        'title': text.sentence(ranking),
        'scope': f'Compared on {first["num_expected"]} problems in '
                 f'{first["num_cells_expected"]} cells. Grey: not ranked.',
        'main': _main_table(ranking, board, number),
        'cells_title': text.headline(board).title,
        'cells': _cells_table(ranking, board, cells,
                              tables.grids[ranking], number),
        'others': _others_table(ranking, board, number)})
    place = f' ({ranking})' if len(grouped) > 1 else ''
    remarks += [{'label': line['label'] + place, 'text': text.remarks(line)}
                for line in board.to_dict('records') if text.remarks(line)]
  source = (importlib.resources.files('enn_ensembles.report')
            / 'page.html.jinja').read_text(encoding='utf-8')
  environment = jinja2.Environment(autoescape=True,
                                   undefined=jinja2.StrictUndefined)
  return plain_text.printable(environment.from_string(source).render(
      title=page_text.title(tables),
      introduction=page_text.introduction(tables),
      remarks=remarks, errors=_errors_table(tables.errors), boards=boards,
      picture=base64.b64encode(picture).decode(), breakable=_breakable,
      agents=page_text.settings_of_agents(tables.rows),
      cost='' if costs is None else costs_lib.sentence(costs),
      devices_and_versions=_devices_and_versions(tables.rows))) + '\n'


def write_report(tables: tables_lib.Tables,
                 output_dir: files.PathLike) -> dict[str, pathlib.Path]:
  """Writes scores.csv, leaderboard.csv, cells.csv, costs.csv, .png and .html.

  Costs are of all rows. The same rows give the same bytes, whatever their
  order.

  Returns:
    File name -> path.

  Raises:
    ValueError: output_dir cannot be written to.
  """
  folder = files.make_folder(output_dir, 'output_dir')
  picture = board_picture.make_picture(tables)
  costs = costs_lib.make_costs(tables.rows)
  contents = {
      'leaderboard.html': make_page(tables, picture, costs).encode(),
      'leaderboard.png': picture,
      'leaderboard.csv': csv_files.table_text(tables.leaderboard).encode(),
      'cells.csv': csv_files.table_text(tables.cells).encode(),
      'costs.csv': csv_files.table_text(costs).encode(),
  }
  for name, content in contents.items():
    files.write_atomically(folder / name, content)
  # Large: made when the others are written.
  files.write_atomically(folder / 'scores.csv', lambda stream: [
      stream.write(piece.encode())
      for piece in csv_files.rows_pieces(tables.rows)])
  return {name: folder / name for name in (*contents, 'scores.csv')}


def read_tables(results_dirs: files.PathLike | Sequence[files.PathLike],
                all_versions: bool = False, without: str | None = None,
                **options: Any) -> tables_lib.Tables:
  """The tables of `build`, without what verification has found.

  Args:
    results_dirs: as of `build`.
    all_versions: as of `build`.
    without: the label of an agent that is read as if it were not there.
    **options: as of `build`.

  Raises:
    ValueError: as of `build`.
  """
  columns, entries = columns_lib.read_columns(results_dirs, without)
  if not all_versions:
    columns, entries, _ = versions.keep_newest(columns, entries)
  return tables_lib.make_tables(columns, entries, **options)


def build(results_dirs: files.PathLike | Sequence[files.PathLike],
          output_dir: files.PathLike, all_versions: bool = False,
          **options: Any
          ) -> tuple[tables_lib.Tables, dict[str, pathlib.Path]]:
  """From results folders to the report.

  Args:
    results_dirs: a folder that a sweep has written to, or several.
    output_dir: where the files go; made if missing.
    all_versions: whether older versions of the files of user-defined agents
      are shown beside the newest.
    **options: `score`, `by` and `baseline` of `tables.make_tables`.

  Returns:
    The tables, and file name -> path.

  Raises:
    ValueError: a folder or a file in it is not as it must be.
  """
  tables = read_tables(results_dirs, all_versions, **options)
  if isinstance(results_dirs, (str, pathlib.PurePath)):
    results_dirs = [results_dirs]
  verified: dict[str, bool] = {}
  for folder in results_dirs:
    verified |= verification.read(folder)
  tables = provenance.add_provenance(tables, verified)
  return tables, write_report(tables, output_dir)
