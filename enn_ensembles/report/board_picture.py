"""The leaderboard as a picture.

Per ranking two blocks. The upper one holds the ranked agent settings and what
they are ranked by, over all cells and at each value of one cell field; no
degenerate agent stretches its axis. The lower one holds all agent settings and
their mean score. It draws what `tables` has computed and changes no number.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import math
import textwrap
from typing import Any
from typing import NamedTuple

from absl import logging
from matplotlib import figure as figure_lib
from matplotlib import lines as lines_lib
import pandas as pd

from enn_ensembles.report import plots
from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text

# The part of an axis worth its ink: below, an agent is exact for any practical
# purpose; smaller values are written at the edge instead. A share of the
# baseline below a hundredth is an audit, not an agent.
_SMALLEST_ON_AXIS = 1e-4
_SMALLEST_SHARE = 1e-2
# Nor may one agent setting push all others together: larger ones stand at the
# other edge.
_LARGEST_ON_AXIS = 1e8
# Agent settings in a block; matplotlib draws no picture of any height.
MOST_LINES = 60

# Inches.
_ROW, _HEAD, _FOOT = 0.34, 0.62, 0.55
_TITLE_LINE = 0.17
_NAMES, _MAIN, _NUMBERS, _LEVEL, _GAP = 2.35, 3.3, 1.95, 1.45, 0.25
_LEGEND = 0.4
_EDGE = 0.1  # What names leave free on both sides.
_TITLE_CHARACTERS, _TITLE_LINES = 95, 4


class _Block(NamedTuple):
  """Rows of one block of the picture and what is drawn of them.

  `names` has each label without the settings that all agents of the ranking
  share, which the title says.
  """
  title: str
  names: Mapping[str, str]
  board: list[Mapping[str, Any]]
  seeds: pd.DataFrame
  value: str
  low: str
  high: str
  floor: str | None
  seed_value: str
  levels: Mapping[str, str]
  xlabel: str

  @property
  def height(self) -> float:
    more = max(0, self.title.count('\n') - 1)
    return _HEAD + _TITLE_LINE * more + _ROW * len(self.board) + _FOOT

  @property
  def is_share(self) -> bool:
    """Whether what is drawn is relative to the baseline."""
    return self.value.endswith('_relative')


def make_picture(tables: tables_lib.Tables) -> bytes:
  """The leaderboard as PNG.

  Per agent setting: its number with its 95 % interval, a dot per seed and a
  tick at its floor. Values that a log axis cannot show (0, below its start, not
  finite) are marked at the edge and written.
  """
  boxes = plots.missing_characters(tables.leaderboard['label'])
  if boxes:
    logging.warning('the font of pictures has no %s: boxes stand for them.',
                    ', '.join(boxes))
  colours = plots.family_colours(tables.leaderboard['agent'])
  blocks = [block for ranking, board in tables.leaderboard.groupby(
      'ranking', sort=False) for block in _make_blocks(
          ranking, board, tables.seeds[tables.seeds['ranking'] == ranking])]
  num_levels = max(len(block.levels) for block in blocks)
  width = _NAMES + _MAIN + _NUMBERS + num_levels * (_LEVEL + _GAP) + 0.1
  height = sum(block.height for block in blocks) + _LEGEND
  figure = plots.make_canvas(width, height, layout=None)
  top = height
  for block in blocks:
    _draw_block(figure, block, top, colours)
    top -= block.height
  figure.legend(handles=_legend(), loc='lower center',
                ncols=6 if num_levels else 3, fontsize=8, frameon=False,
                handletextpad=0.4, columnspacing=1.4)
  return plots.to_png(figure)


def _make_blocks(ranking: str, board: pd.DataFrame,
                 seeds: pd.DataFrame) -> list[_Block]:
  """The one or two blocks of a ranking."""
  shown = text.headline(board)
  score, entry = shown.score, shown.entry
  lines = board.to_dict('records')
  scope = ', '.join(
      f'{lines[0][name]} {noun}{"" if lines[0][name] == 1 else "s"}'
      for name, noun in (('num_cells_expected', 'cell'),
                         ('num_expected', 'problem')))
  better = f'{entry.direction} is better'
  ranked = [line for line in lines if line['rank'] is not None]
  short, shared = text.split_labels([line['label'] for line in lines])
  names = {line['label']: name for line, name in zip(lines, short)}
  blocks = []
  title = ''.join(f'{line}\n' for line in textwrap.wrap(
      text.board_title(ranking, shared), _TITLE_CHARACTERS,
      max_lines=_TITLE_LINES, placeholder=' …'))
  if ranked:
    label = (f'{entry.label} as a share of that of {shown.baseline} '
             f'({better})' if shown.is_relative else
             f'mean {entry.label}, {entry.unit} ({better})')
    blocks.append(_cut(_Block(
        f'{title}Ranked agent settings, {scope}', names, ranked, seeds,
        shown.value, shown.low, shown.high, shown.floor, shown.value,
        text.level_columns(board, shown), label)))
    title = ''
  if shown.is_relative or len(ranked) < len(lines):
    blocks.append(_cut(_Block(
        f'{title}All agent settings, {scope}', names, lines, seeds,
        f'{score}_mean', f'{score}_low', f'{score}_high',
        entry.floor and f'{entry.floor}_mean', f'{score}_mean', {},
        f'mean {entry.label}, {entry.unit} ({better})')))
  return blocks


def _cut(block: _Block) -> _Block:
  """A block that fits into a picture, with a note on what does not."""
  more = len(block.board) - MOST_LINES
  if more <= 0:
    return block
  return block._replace(
      board=block.board[:MOST_LINES],
      title=f'{block.title}; {more} more are in the tables')


def _legend() -> list[Any]:
  """What the marks of the picture mean."""
  def mark(label, **options):
    return lines_lib.Line2D([], [], color='#444444', label=label, **options)
  return [
      mark('95 % interval', marker='o', markersize=6, linewidth=1.5),
      mark('one seed', marker='o', markersize=3.5, linewidth=0, alpha=0.5),
      mark('floor', marker='|', markersize=11, linewidth=0),
      mark('not ranked', marker='o', markersize=6, linewidth=0,
           markerfacecolor='white'),
      mark('off the axis', marker='<', markersize=6, linewidth=0),
      mark('not finite', marker='X', markersize=6, linewidth=0)]


def _limits(values: Iterable[float | None],
            is_share: bool) -> tuple[float, float]:
  """Limits of a log axis around values that it can show."""
  smallest = _SMALLEST_SHARE if is_share else _SMALLEST_ON_AXIS
  on_axis = [value for value in values if value is not None
             and smallest <= value <= _LARGEST_ON_AXIS]
  low = math.log10(min(on_axis, default=smallest))
  high = math.log10(max(on_axis, default=1.))
  room = max(0.08, 0.04 * (high - low))
  return 10**(low - room), 10**(high + room)


def _draw_block(figure: figure_lib.Figure, block: _Block, top: float,
                colours: Mapping[str, str]) -> None:
  """A block whose upper edge is `top` inches above the picture's lower."""
  width, height = figure.get_size_inches()
  bottom = top - block.height + _FOOT
  room = _ROW * len(block.board)

  def add_axes(left: float, inches: float):
    axes = figure.add_axes((left / width, bottom / height, inches / width,
                            room / height))
    for y in range(1, len(block.board), 2):
      axes.axhspan(y - 0.5, y + 0.5, color='#f4f4f4', zorder=0, linewidth=0)
    axes.set_ylim(len(block.board) - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(axis='x', color='#dddddd', linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis='x', labelsize=8)
    for side in ('top', 'right', 'left'):
      axes.spines[side].set_visible(False)
    return axes

  axes = add_axes(_NAMES, _MAIN)
  labels = {line['label'] for line in block.board}
  seeds = block.seeds[block.seeds['label'].isin(labels)]
  low, high = _limits([
      *(line[name] for line in block.board
        for name in (block.value, block.floor) if name is not None),
      *seeds[block.seed_value]], block.is_share)
  for y, line in enumerate(block.board):
    own = seeds[block.seed_value][seeds['label'] == line['label']]
    _draw_line(axes, y, line, block, list(own), (low, high), colours)
  _finish(axes, low, high, block.is_share)
  axes.set_yticks(range(len(block.board)), [
      ('' if line['rank'] is None else f'{line["rank"]}. ')
      + plots.wrap_label(block.names[line['label']])
      for line in block.board], fontsize=8)
  axes.tick_params(axis='y', length=0)
  plots.fit_tick_labels(axes.yaxis, _NAMES - _EDGE)
  axes.set_xlabel(plots.plain(block.xlabel), fontsize=8.5)
  figure.text(0.1 / width, (bottom + room + 0.12) / height,
              plots.plain(block.title), fontsize=9.5, va='bottom')

  left = _NAMES + _MAIN + _NUMBERS
  limits = _limits([line[name] for line in block.board
                    for name in block.levels], block.is_share)
  for name, title in block.levels.items():
    panel = add_axes(left, _LEVEL)
    for y, line in enumerate(block.board):
      _mark(panel, line[name], y, limits, color=colours[line['agent']],
            markersize=5)
    _finish(panel, *limits, block.is_share, sparse=True)
    panel.set_title(plots.plain(title).replace('=', ' = '), fontsize=8.5,
                    loc='left')
    left += _LEVEL + _GAP


def _finish(axes, low: float, high: float, is_relative: bool,
            sparse: bool = False) -> None:
  """The scale of an axis, and the baseline's line at 1."""
  axes.set_xscale('log')
  axes.set_xlim(low, high)
  plots.set_log(axes.xaxis, sparse=sparse)
  if is_relative and low < 1. < high:
    axes.axvline(1., color='#888888', linewidth=0.9, linestyle=(0, (4, 3)),
                 zorder=1)


def _mark(axes, value: float | None, y: float, limits: tuple[float, float],
          **options: Any) -> None:
  """A number as a dot; at the edge where the axis does not reach it."""
  if value is None:
    return
  low, high = limits
  if low <= value <= high:
    axes.plot([value], [y], 'o', zorder=4, **options)
    return
  # Marked at the edge, in fractions of the axis; the text says more.
  marker = 'X' if not math.isfinite(value) else '<' if value < low else '>'
  axes.plot([0.012 if marker == '<' else 0.988], [y], marker, zorder=4,
            transform=axes.get_yaxis_transform(), **options)


def _draw_line(axes, y: int, line: Mapping[str, Any], block: _Block,
               seeds: Sequence[float | None], limits: tuple[float, float],
               colours: Mapping[str, str]) -> None:
  """One agent setting in the main panel of a block."""
  low, high = limits
  ranked = line['rank'] is not None
  colour = colours[line['agent']]
  dots = [value for value in seeds
          if value is not None and low <= value <= high]
  axes.plot(dots, [y + 0.24] * len(dots), 'o', color=colour, markersize=3.2,
            alpha=0.5, markeredgewidth=0, zorder=2)
  floor = None if block.floor is None else line[block.floor]
  if floor is not None and low <= floor <= high:
    axes.plot([floor], [y], '|', color='black', markersize=12, zorder=2)
  value = line[block.value]
  ends = (line[block.low], line[block.high])
  known = ends[0] is not None and all(map(math.isfinite, ends))
  if value is not None and low <= value <= high and known:
    # A lower end at or below 0 is drawn to the edge of a log axis.
    axes.plot([max(low, ends[0]), min(high, ends[1])], [y - 0.08] * 2, '-',
              color=colour, linewidth=1.8, zorder=3, solid_capstyle='butt')
  _mark(axes, value, y - 0.08, limits, color=colour, markersize=5,
        markerfacecolor=colour if ranked else 'white')
  words = 'no score' if value is None else text.short_number(value)
  if value is not None and known and ends[0] != ends[1]:
    words += f' {text.interval(*ends)}'
  notes = []
  if not line['complete']:
    notes.append(f'{line["num_scored"]}/{line["num_expected"]}')
  if line['num_non_finite']:
    notes.append(f'{line["num_non_finite"]} not finite')
  if notes:
    words += f' ({", ".join(notes)})'
  axes.text(1.02, y, words, transform=axes.get_yaxis_transform(), va='center',
            fontsize=8, color='black' if ranked else '#777777')
