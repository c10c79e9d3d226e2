"""The leaderboard as a picture, a page and files.

It draws what `leaderboard` has computed and changes no number.
"""

import base64
from collections.abc import Mapping
from collections.abc import Sequence
import html
import io
import math
import pathlib
from typing import Any
from typing import NamedTuple

from matplotlib import colormaps
from matplotlib import figure as figure_lib
from matplotlib import lines as lines_lib
from matplotlib.backends import backend_agg
import numpy as np
import pandas as pd

from enn_ensembles.machine import files
from enn_ensembles.report import leaderboard

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
    "the standard error over seeds and the interval is Student's t, 95 %. "
    'Nothing is clipped, filled or dropped: a score that is not finite makes '
    'its mean not finite.')


def make_picture(tables: leaderboard.Tables) -> bytes:
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
    _draw_panel(axes, leaderboard.ranking_title(ranking), board, seeds, colours)
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
      text = leaderboard.short_number(mean)
      if error is not None and math.isfinite(error):
        text += f' ± {leaderboard.short_number(error)}'
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


_STYLE = '''
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
'''

# Sorts the rows of a table by the column of the pressed header. Cells carry
# their exact value in data-value; empty and not finite ones stay last.
_SCRIPT = '''
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
'''


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


def _number(value: float | None) -> _Cell:
  return _Cell(leaderboard.short_number(value), value)


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
        _Cell(leaderboard.interval_text(line), line['kl_estimate_high']),
        _number(line['kl_estimate_geometric_mean']),
        _number(line['kl_reverse_mean']),
        _number(line['kl_floor_mean']),
        _Cell(f'{scored}/{line["num_expected"]}', scored),
        _Cell(leaderboard.samples_text(line), line['num_samples_used']),
        _Cell(leaderboard.params_text(line), line['num_params_max']),
        _number(line['train_seconds_mean']),
        _Cell(leaderboard.remarks_text(line), leaderboard.remarks_text(line))])
  return _html_table(ranking, _BOARD_COLUMNS, rows,
                     [rank is None for rank in board['rank']])


def _heat(value: float | None) -> str:
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
  colour = '#{:02x}{:02x}{:02x}'.format(*tuple(
      round(255 * c) for c in (red, green, blue)))
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
      text = leaderboard.short_number(value)
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


def make_page(tables: leaderboard.Tables, picture: bytes) -> str:
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
      + f': {escape(leaderboard.remarks_text(line))}</li>'
      for ranking, board in boards for _, line in board.iterrows()
      if leaderboard.remarks_text(line)]
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
        f'<section><h2>{escape(leaderboard.ranking_title(ranking))}</h2>'
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


def write_report(tables: leaderboard.Tables,
                 output_dir: files.PathLike) -> dict[str, pathlib.Path]:
  """Writes scores.csv, leaderboard.csv, cells.csv, .png and .html.

  The same rows give the same bytes, whatever their order.

  Returns:
    File name -> path.

  Raises:
    ValueError: output_dir cannot be written to.
  """
  folder = files.make_folder(output_dir, 'output_dir')
  picture = make_picture(tables)
  contents = {
      'leaderboard.html': make_page(tables, picture).encode(),
      'leaderboard.png': picture,
      'leaderboard.csv': leaderboard.csv_text(tables.leaderboard).encode(),
      'cells.csv': leaderboard.csv_text(tables.cells).encode(),
      'scores.csv': leaderboard.csv_text(tables.scores).encode(),
  }
  for name, content in contents.items():
    files.write_atomically(folder / name, content)
  return {name: folder / name for name in contents}


def build(results_dirs: files.PathLike | Sequence[files.PathLike],
          output_dir: files.PathLike
          ) -> tuple[leaderboard.Tables, dict[str, pathlib.Path]]:
  """From results folders to the report.

  Args:
    results_dirs: a folder that a sweep has written to, or several.
    output_dir: where the files go; made if missing.

  Returns:
    The tables, and file name -> path.

  Raises:
    ValueError: a folder or a file in it is not as it must be.
  """
  tables = leaderboard.make_tables(*leaderboard.read_results(results_dirs))
  return tables, write_report(tables, output_dir)
