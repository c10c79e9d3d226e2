"""What all pictures share: canvas, PNG, axes, colours."""

from collections.abc import Iterable
import colorsys
import io
import math
import textwrap
import warnings

from matplotlib import figure as figure_lib
from matplotlib import font_manager
from matplotlib import ticker
from matplotlib.backends import backend_agg

from enn_ensembles.machine import plain_text

# Wong (2011), Nature Methods 8:441: told apart with any colour vision.
WONG = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9',
        '#7A6A00', '#555555')


def make_canvas(width: float, height: float,
                layout: str | None = 'constrained') -> figure_lib.Figure:
  """A white figure; inches."""
  figure = figure_lib.Figure(figsize=(width, height), dpi=150,
                             facecolor='white', layout=layout)
  backend_agg.FigureCanvasAgg(figure)
  return figure


# What is said of a character that the font does not have, in every layout.
_NO_GLYPH = 'Glyph .* missing from (current )?font'


def to_png(figure: figure_lib.Figure) -> bytes:
  """The figure as PNG; the same figure gives the same bytes."""
  stream = io.BytesIO()
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', _NO_GLYPH)
    # Software and date would make the same picture another file.
    figure.savefig(stream, format='png', metadata={'Software': None})
  return stream.getvalue()


def missing_characters(texts: Iterable[str]) -> str:
  """The characters of texts that pictures show as boxes, sorted."""
  font = font_manager.get_font(font_manager.findfont(
      font_manager.FontProperties()))
  return ''.join(sorted({
      character for text in texts for character in plain_text.printable(text)
      if not character.isspace() and not font.get_char_index(ord(character))}))


def fit_tick_labels(axis, inches: float) -> None:
  """Tick labels that are wider than so much get a smaller font."""
  dpi = axis.get_figure().dpi
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', _NO_GLYPH)
    for label in axis.get_ticklabels():
      # Widths are whole pixels per character: not quite as the font's size.
      while (share := label.get_window_extent().width / dpi / inches) > 1:
        label.set_fontsize(0.99 * label.get_fontsize() / share)


def family_colours(names: Iterable[str]) -> dict[str, str]:
  """A colour for each name, none twice, whatever their order."""
  names = sorted(set(names))
  colours = list(WONG)
  if len(names) > len(colours):
    # Hues around the circle, dark and light by turns, so that neighbours
    # differ in both.
    colours = []
    for i in range(len(names)):
      rgb = colorsys.hls_to_rgb(i / len(names), (0.32, 0.5)[i % 2], 0.75)
      colours.append('#' + ''.join(f'{round(255 * c):02X}' for c in rgb))
  return dict(zip(names, colours))


def plain(text: str) -> str:
  """Somebody's text as pictures show it: no formula, no control character."""
  return plain_text.printable(text).replace('$', r'\$')


def wrap_label(label: str, width: int = 28, num_lines: int = 2) -> str:
  """A label on at most so many lines, broken after commas; cut with '…'."""
  pieces = plain_text.printable(label).replace(',', ', ').split(' ')
  lines = textwrap.wrap(' '.join(pieces), width, break_long_words=True)
  lines = [line.replace(', ', ',') for line in lines]
  if len(lines) > num_lines:
    lines = lines[:num_lines]
    lines[-1] = lines[-1][:width - 1] + '…'
  return plain('\n'.join(lines))


def file_stem(name: str) -> str:
  """A name as the first part of that of a file."""
  return ''.join(c if c.isalnum() or c in '-_' else '_' for c in name)


def style_axes(axes, title: str, xlabel: str = '', ylabel: str = '') -> None:
  """Title, names of axes, a light grid, no box."""
  axes.set_title(title, fontsize=10, loc='left')
  axes.set_xlabel(xlabel, fontsize=9)
  axes.set_ylabel(ylabel, fontsize=9)
  axes.tick_params(labelsize=8.5)
  axes.grid(color='#e2e2e2', linewidth=0.6)
  axes.set_axisbelow(True)
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)


def set_log(axis, sparse: bool = False) -> None:
  """Log ticks as plain numbers, 0.2 and not 2 x 10^-1; more on a short axis.

  Args:
    axis: an axis with a log scale and its limits.
    sparse: fewer ticks, for a narrow panel.
  """
  low, high = axis.get_view_interval()
  decades = math.log10(high / low)
  subs = ((1., 1.5, 2., 3., 4., 5., 7.) if decades < 1. else
          (1., 2., 5.) if decades < 3. else (1.,))
  if sparse:
    subs = ((1., 1.5, 2., 3., 4., 5., 7.) if decades < 0.5 else
            (1., 2., 5.) if decades < 1. else
            (1., 3.) if decades < 1.6 else (1.,))
  axis.set_major_locator(ticker.LogLocator(
      subs=subs, numticks=5 if sparse else 15))
  axis.set_major_formatter(ticker.FuncFormatter(
      lambda v, _: f'{v:g}' if v < 1e4 else f'{v:.0e}'.replace('e+0', 'e')))
  axis.set_minor_locator(ticker.NullLocator())
