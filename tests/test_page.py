"""The page, the picture, the CSV files, the texts, and the command."""

import csv
import functools
import html.parser
import io
import math
import random
import re
import shutil
import subprocess
import warnings
import zlib

import commands
import example_rows
from matplotlib import image
import numpy as np
import pandas as pd
import pytest

from enn_ensembles import results
from enn_ensembles.report import board_picture
from enn_ensembles.report import csv_files
from enn_ensembles.report import html_page
from enn_ensembles.report import plots
from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text

make_entry = example_rows.make_entry
make_row = example_rows.make_row
make_rows = example_rows.make_rows
realistic_rows = example_rows.realistic_rows


# Files.


def test_scores_csv_gives_the_rows_back():
  rows = [
      make_row(0.1 + 0.2, seed=0, agent_config={
          'a': {'b': 1e-6}, 'sizes': [50, 50], 'name': 'x,"y"\nz',
          'nothing': None}, agent_id='x'),
      make_row(math.inf, 'map', 1, kl_reverse=math.nan, status='diverged',
               cost={'peak_memory_mb': 300.5}),
      make_row(None, 'map', 2)]
  content = ''.join(csv_files.rows_pieces(tables_lib.make_tables(rows).rows))
  [first, second, third] = csv.DictReader(io.StringIO(content))
  assert float(first['kl_estimate']) == 0.1 + 0.2
  assert float(first['agent.a.b']) == 1e-6
  assert first['agent.sizes'] == '[50, 50]'
  assert first['agent.name'] == 'x,"y"\nz'
  assert first['agent.nothing'] == ''
  assert first['versions.jax'] == '0.10.2'
  assert (first['peak_memory_mb'], second['peak_memory_mb']) == ('', '300.5')
  assert (second['kl_estimate'], second['kl_reverse']) == ('inf', 'nan')
  assert (third['kl_estimate'], third['status']) == ('', 'failed')
  frame = pd.read_csv(io.StringIO(content))
  # Dicts are flattened; the curve has a length of its own in every row.
  nested = {'agent_config', 'versions', 'numerics', 'problem', 'scores',
            'curve', 'by_set', 'counts', 'cost'}
  assert set(results.ROW_SCHEMA) - nested <= set(frame)
  assert {'kind', 'input_dim', 'noise_std', 'seed', 'reference', 'num_train',
          'numerics.instruction_set'} <= set(frame)
  assert 'curve' not in frame


def test_scores_hold_every_row_as_it_is():
  rows, expected = realistic_rows()
  content = ''.join(csv_files.rows_pieces(
      tables_lib.make_tables(rows, expected).rows))
  scores = list(csv.DictReader(io.StringIO(content)))
  assert len(scores) == len(rows)
  stored = {row['row_id']: row for row in rows}
  for line in scores:
    row = stored[line['row_id']]
    for name in ('kl_estimate', 'kl_reverse', 'kl_floor'):
      if row['scores'] is None:
        assert line[name] == ''
      else:
        assert results.same_value(float(line[name]), row['scores'][name])


def test_scores_that_are_written_in_pieces_are_the_same_text():
  columns = tables_lib.make_tables(*realistic_rows()).rows
  pieces = list(csv_files.rows_pieces(columns, num_rows=20))
  assert len(pieces) == -(-len(columns) // 20) > 3
  assert [''.join(pieces)] == list(csv_files.rows_pieces(columns))


def test_report_does_not_depend_on_the_order_of_rows(tmp_path):
  rows, expected = realistic_rows()
  written = []
  for i in range(2):
    paths = html_page.write_report(
        tables_lib.make_tables(rows, expected), tmp_path / str(i))
    written.append({name: path.read_bytes() for name, path in paths.items()})
    random.Random(i).shuffle(rows)
    random.Random(i).shuffle(expected)
  assert set(written[0]) == {'leaderboard.html', 'leaderboard.png',
                             'leaderboard.csv', 'cells.csv', 'costs.csv',
                             'scores.csv'}
  for name, content in written[0].items():
    assert content == written[1][name], name


def test_means_do_not_change_with_the_timing_fields():
  rows, expected = realistic_rows()
  slow = [{**row, 'train_seconds': 9., 'device': 'gpu', 'created': 'later',
           'versions': {}, 'cost': {'peak_memory_mb': 9.}} for row in rows]
  first, second = (tables_lib.make_tables(r, expected) for r in (rows, slow))
  drop = ['train_seconds_mean', 'peak_memory_mb_max']
  assert csv_files.table_text(first.leaderboard.drop(columns=drop)) == (
      csv_files.table_text(second.leaderboard.drop(columns=drop)))
  assert csv_files.table_text(first.cells) == csv_files.table_text(second.cells)
  assert board_picture.make_picture(first) == board_picture.make_picture(second)


def test_costs_of_use_are_on_the_page_where_rows_say_them():
  rows = [make_row(agent='a', cost={'predict_seconds_per_1000': 0.1234,
                                    'peak_memory_mb': 432.1}),
          make_row(agent='b')]
  page = html_page.make_page(tables_lib.make_tables(rows), b'')
  for words in ('predict_seconds_per_1000_mean', 'peak_memory_mb_max',
                '0.123', '432'):
    assert words in page
  page = html_page.make_page(tables_lib.make_tables(rows[1:]), b'')
  assert 'predict_seconds' not in page and 'peak' not in page


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


class _Checker(html.parser.HTMLParser):
  """Collects the elements and fails where tags are not closed in order."""

  VOID = ('meta', 'img', 'br', 'link', 'input', 'wbr')

  def __init__(self):
    super().__init__()
    self.open, self.elements, self.text = [], [], []

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open and self.open.pop() == tag, tag

  def handle_data(self, data):
    self.text.append(data)


def parse(page):
  checker = _Checker()
  checker.feed(page)
  checker.close()
  assert not checker.open
  return checker


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


def test_page_is_well_formed_self_contained_and_accessible():
  rows, expected = realistic_rows()
  tables = tables_lib.make_tables(rows, expected)
  picture = board_picture.make_picture(tables)
  checker = parse(html_page.make_page(tables, picture))
  tags = [tag for tag, _ in checker.elements]
  assert tags[0] == 'html' and checker.elements[0][1] == {'lang': 'en'}
  # Board, cells, other scores, messages, and machines.
  assert tags.count('table') == 5
  for tag, attributes in checker.elements:
    if tag == 'th':
      assert attributes['scope'] in ('col', 'row')
    for key in ('src', 'href', 'action'):
      assert attributes.get(key, 'data:').startswith('data:')
    if tag == 'img':
      assert len(attributes['alt']) > 20
    assert not any(key.startswith('on') for key in attributes)
  page = html_page.make_page(tables, picture)
  assert not re.search(r'https?://|@import|url\(', page)
  assert 'aria-sort' in page and 'prefers-color-scheme: dark' in page
  words = ' '.join(checker.text)
  for part in ('hypermodel', 'incomplete: 9 of 18 problems, 3 of 6 cells',
               'deep_sub_ensemble', '2 failed', '1 diverged; 1 not finite',
               'never_started', 'incomplete: 0 of 18 problems, 0 of 6 cells',
               'KL(exact posterior || agent)', '0.10.2', 'it broke'):
    assert part in words, part


def test_page_says_when_nothing_is_missing():
  page = html_page.make_page(
      tables_lib.make_tables(make_rows('a', ((1., 2.),))), b'')
  assert 'class="attention"' not in page
  assert 'finite score for every problem' in page


def test_page_escapes_everything():
  evil = '<script>alert("&\')</script>'
  rows = make_rows(evil, ((1., None),), agent_config={evil: evil}, device=evil,
                   versions={evil: evil}, message=evil)
  tables = tables_lib.make_tables(rows)
  page = html_page.make_page(tables, board_picture.make_picture(tables))
  checker = parse(page)
  assert [tag for tag, _ in checker.elements].count('script') == 1
  assert evil not in page
  assert evil in ' '.join(checker.text)


def test_page_says_what_agents_are_scored_on():
  rows = (make_rows('a', ((1.,),), num_samples_used=30)
          + make_rows('b', ((1.,),), num_samples_used=None)
          + make_rows('c', ((1.,),), num_samples_used=1000,
                      num_enn_samples=1000))
  words = parse(html_page.make_page(tables_lib.make_tables(rows), b'')).text
  for part in ('all 30', 'exact moments', '1,000 draws'):
    assert part in words


def test_exact_values_are_in_the_page():
  tables = tables_lib.make_tables(make_rows('a', ((0.1, 0.1 + 0.2),)))
  mean = tables.leaderboard['kl_estimate_mean'][0]
  values = [attributes.get('data-value')
            for _, attributes in parse(html_page.make_page(
                tables, b'')).elements]
  assert repr(mean) in values


@pytest.mark.parametrize('value, words', [
    (None, '-'), (math.inf, 'inf'), (math.nan, 'nan'), (0., '0'), (-0., '0'),
    (0.123456, '0.123'), (1.5, '1.50'), (12.345, '12.3'), (9999., '9999'),
    (190000., '1.90e+05'), (1e-9, '1.00e-09'), (-0.5, '-0.500'),
    (0.0001, '0.000100'), (1000., '1000')])
def test_short_number(value, words):
  assert text.short_number(value) == words


def test_text_table_lines_up():
  rows, expected = realistic_rows()
  content = text.format_table(tables_lib.make_tables(rows, expected))
  head, rule, *body = content.split('\n')[1:]
  assert len(body) == 14
  starts = [match.start() for match in re.finditer('-+', rule)]
  assert head[starts[1]:].startswith('agent')
  for line in body:
    assert all(line[start - 1] == ' ' for start in starts[1:] if
               start < len(line))


def test_markdown_table_has_the_same_cells_in_every_line():
  rows = make_rows('a|b', ((1., 2.),)) + make_rows('c', ((1., math.inf),))
  content = text.format_table(tables_lib.make_tables(rows), 'markdown')
  table = [line for line in content.split('\n') if line.startswith('|')]
  assert len(table) == 4
  assert len({len(re.split(r'(?<!\\)\|', line)) for line in table}) == 1
  with pytest.raises(ValueError, match="'text' or 'markdown', got 'latex'"):
    text.format_table(tables_lib.make_tables(rows), 'latex')


# From folder to report.


def _fill(folder, rows, entries=()):
  store = results.open_store(folder, create=True)
  for run_id in {row['run_id'] for row in rows}:
    store.write_unit(run_id, [r for r in rows if r['run_id'] == run_id])
  if entries:
    store.write_manifest(entries)
  return folder


def test_build_reads_several_folders(tmp_path):
  one = _fill(tmp_path / 'one', make_rows('a', ((1., 2.),)))
  two = _fill(tmp_path / 'two', make_rows('b', ((3., 4.),)),
              [make_entry('b', noise_stds=[0.01], seeds=[0, 1, 2])])
  tables, paths = html_page.build([one, two], tmp_path / 'x' / 'out')
  board = tables.leaderboard.set_index('label')
  assert board['num_expected'].to_dict() == {'a': 2, 'b': 2}
  assert all(path.stat().st_size for path in paths.values())
  tables, _ = html_page.build(str(two), tmp_path / 'out')
  assert tables.leaderboard['num_expected'].tolist() == [3]


def test_folder_without_rows_is_refused(tmp_path):
  empty = results.open_store(tmp_path / 'empty', create=True)
  empty.write_manifest([make_entry()])
  with pytest.raises(ValueError, match='empty holds no rows yet: run the sw'):
    html_page.build(empty.results_dir, tmp_path / 'out')
  with pytest.raises(ValueError, match="none' does not exist"):
    html_page.build(tmp_path / 'none', tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


_command = functools.partial(commands.run_module,
                             'experiments.build_leaderboard')


def test_command_prints_the_table_and_the_files(tmp_path):
  folder = _fill(tmp_path / 'results', make_rows('a', ((1., 2.),)))
  done = _command(f'--results_dir={folder}', f'--output_dir={tmp_path}/out')
  assert (done.returncode, done.stderr) == (0, '')
  assert 'a ' in done.stdout and '1.50' in done.stdout
  for name in ('scores.csv', 'leaderboard.html'):
    assert f'{tmp_path}/out/{name}' in done.stdout
    assert (tmp_path / 'out' / name).stat().st_size > 0


def test_command_errors_are_one_line(tmp_path):
  out = f'--output_dir={tmp_path}/out'
  damaged = _fill(tmp_path / 'damaged', make_rows('a', ((1., 2.),)))
  unit = next((damaged / 'units').iterdir())
  unit.write_text(unit.read_text()[:100])
  (tmp_path / 'file').write_text('')
  good = _fill(tmp_path / 'good', make_rows('a', ((1., 2.),)))
  for flags, message in (
      ([f'--results_dir={damaged}', out], f'{unit} is damaged'),
      ([f'--results_dir={good}', f'--output_dir={tmp_path}/file'],
       'output_dir'),
      ([f'--results_dir={good}', out, 'extra'], "unknown argument 'extra'")):
    done = _command(*flags)
    assert done.returncode == 2
    assert done.stdout == ''
    assert message in done.stderr
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_command_keeps_the_traceback_where_it_is_asked_for(tmp_path):
  done = _command(f'--results_dir={tmp_path}/none', f'--output_dir={tmp_path}',
                  '--verbosity=1')
  assert done.returncode != 0
  assert 'Traceback' in done.stderr


def test_page_tables_hold_exact_values_under_the_names_of_the_csv():
  rows, expected = realistic_rows()
  rows += make_rows('prior_only-x', ((1., 2., 3.),))
  tables = tables_lib.make_tables(rows, expected)
  checker = parse(html_page.make_page(tables, b''))
  names, cells, table = [], {}, -1
  for tag, attributes in checker.elements:
    if tag == 'table':
      table += 1
      names.append([])
    elif 'data-name' in attributes:
      names[table].append(attributes['data-name'])
    elif 'data-value' in attributes:
      cells.setdefault(table, []).append(attributes['data-value'])
  # The first table is of messages, the second the board.
  board = np.array(cells[1]).reshape(-1, len(names[1]))
  stored = {line['label']: line
            for line in tables.leaderboard.to_dict('records')}
  assert len(board) == len(stored)
  assert len(set(names[1])) == len(names[1])
  for row in board:
    for name, value in zip(names[1], row):
      if name not in ('remarks', 'provenance'):  # Words about columns.
        assert value == csv_files.value_text(stored[row[0]][name]), name


@pytest.mark.skipif(shutil.which('node') is None, reason='needs node')
def test_script_of_the_page_is_javascript(tmp_path):
  page = html_page.make_page(
      tables_lib.make_tables(make_rows('a', ((1., 2.),))), b'')
  script = page[page.index('<script>') + 8:page.index('</script>')]
  (tmp_path / 'script.js').write_text(script)
  subprocess.run(['node', '--check', str(tmp_path / 'script.js')], check=True)
  # What it saves: no formulas, and quotes as CSV has them.
  start = script.index('const plain')
  code = script[start:script.index('const names', start)] + (
      'console.log(["=1", "-2.5", "-inf", "a,\\"b\\""]'
      '.map(plain).map(quoted).join());')
  done = subprocess.run(['node', '-e', code], check=True, capture_output=True,
                        text=True)
  assert done.stdout.strip() == '\'=1,-2.5,-inf,"a,""b"""'


def test_labels_may_break_on_a_narrow_screen():
  tables = tables_lib.make_tables(make_rows('a,b=1,c=2', ((1., 2.),)))
  assert 'a,<wbr>b=1,<wbr>c=2' in html_page.make_page(tables, b'')
  assert plots.wrap_label('layer_ensemble,num_options=5') == (
      'layer_ensemble,\nnum_options=5')
  assert plots.wrap_label('x' * 100).endswith('…')
  assert max(map(len, plots.wrap_label('x,' * 50).split('\n'))) <= 28


@pytest.mark.parametrize('num', [1, 8, 9, 40])
def test_no_colour_is_there_twice(num):
  names = [f'agent_{i}' for i in range(num)]
  colours = plots.family_colours(names[::-1])
  assert len(set(colours.values())) == num
  assert colours == plots.family_colours(names)
