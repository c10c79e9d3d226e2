"""The picture of a board: its file, its labels, its colours, any score."""

import io
import math
import warnings
import zlib

from example_rows import make_rows
from example_rows import realistic_rows
from matplotlib import image
import pytest

from enn_ensembles.report import board_picture
from enn_ensembles.report import html_page
from enn_ensembles.report import plots
from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text


def _chunks(content):
  """(kind, data) of the chunks of a PNG file."""
  assert content[:8] == b'\x89PNG\r\n\x1a\n'
  place, chunks = 8, []
  while place < len(content):
    size = int.from_bytes(content[place:place + 4], 'big')
    kind = content[place + 4:place + 8]
    data = content[place + 8:place + 8 + size]
    assert zlib.crc32(kind + data) == int.from_bytes(
        content[place + 8 + size:place + 12 + size], 'big')
    chunks.append((kind, data))
    place += 12 + size
  return chunks


def test_picture_has_no_text_metadata_and_grows_with_the_agents():
  rows, expected = realistic_rows()
  content = board_picture.make_picture(tables_lib.make_tables(rows, expected))
  kinds = {kind for kind, _ in _chunks(content)}
  assert b'IDAT' in kinds and not {b'tEXt', b'iTXt', b'tIME'} & kinds
  sizes = []
  for num in (20, 60, 100):
    rows = [row for i in range(num)
            for row in make_rows(f'agent-{i}', ((1., 2.),))]
    sizes.append(image.imread(io.BytesIO(board_picture.make_picture(
        tables_lib.make_tables(rows)))).shape[0])
  assert sizes[1] - sizes[0] == pytest.approx(40 * 0.34 * 150, abs=2)
  # What does not fit is in the tables only.
  assert sizes[2] == sizes[1]


@pytest.mark.parametrize('scores', [
    (0., 0.), (1e-9, 0.), (1e-300, 1e300), (math.inf, math.inf),
    (math.nan, 1.), (-1e-17, 0.), (None, None), (5., 5.)])
def test_picture_and_page_take_any_score(scores):
  tables = tables_lib.make_tables(
      make_rows('a', (scores,), kl_floor=math.inf))
  content = board_picture.make_picture(tables)
  pixels = image.imread(io.BytesIO(content))
  # A broken axis leaves an empty or huge picture.
  assert pixels.shape[0] < 700 and pixels[..., :3].min() < 0.3
  assert 'a' in html_page.make_page(tables, content)
  assert text.format_table(tables).count('\n') == 3


def test_the_picture_says_settings_that_all_agents_have_once(monkeypatch):
  shared = ','.join(f'setting_number_{i}={i}' for i in range(8))
  rows = [row for k in (1, 2) for row in make_rows(
      f'ensemble,num_ensemble={k},{shared}', ((1. * k, 2. * k, 4. * k),))]
  tables = tables_lib.make_tables(rows)
  monkeypatch.setattr(plots, 'to_png', lambda figure: figure)
  figure = board_picture.make_picture(tables)
  labels = [tick.get_text() for axes in figure.axes
            for tick in axes.get_yticklabels()]
  assert [label.rpartition('. ')[2] for label in labels] == [
      'ensemble,num_ensemble=1', 'ensemble,num_ensemble=2'] * (len(labels) // 2)
  title = ' '.join(' '.join(part.get_text() for part in figure.texts).split())
  assert f'every agent with {shared.replace(",", ", ")}' in title
  assert max(len(line) for part in figure.texts
             for line in part.get_text().splitlines()) <= 100
  # However much they share, the picture has a height that can be drawn.
  longer = ','.join(f'setting_number_{i}={i}' for i in range(5000))
  tables = tables_lib.make_tables([row for name in 'ab' for row in make_rows(
      f'{name},{longer}', ((1., 2., 3.),))])
  assert board_picture.make_picture(tables).get_size_inches()[1] < 10.


def test_no_label_leaves_the_picture(monkeypatch, caplog):
  """The number before it was cut off where capital letters are wide."""
  names = ['W' * 90, '\u4e2d' * 90, '\u4e2d\u6587', 'x,' * 45, 'short']
  tables = tables_lib.make_tables([
      row for name in names for row in make_rows(name, ((1., 2., 4.),))])
  monkeypatch.setattr(plots, 'to_png', lambda figure: figure)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    figure = board_picture.make_picture(tables)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # Boxes.
    figure.draw_without_rendering()
    labels = [tick for axes in figure.axes for tick in axes.get_yticklabels()]
    assert len(labels) == 5
    assert all(label.get_window_extent().x0 >= 0 for label in labels)
  assert {label.get_fontsize() for label in labels
          if label.get_text().endswith('short')} == {8}
  # A font without a character draws a box, which is said once.
  line, = [record.getMessage() for record in caplog.records]
  assert '\u4e2d, \u6587: boxes' in line


@pytest.mark.parametrize('num', [1, 8, 9, 40])
def test_no_colour_is_there_twice(num):
  names = [f'agent_{i}' for i in range(num)]
  colours = plots.family_colours(names[::-1])
  assert len(set(colours.values())) == num
  assert colours == plots.family_colours(names)
