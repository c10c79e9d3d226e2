"""The page of a board: well-formed, self-contained, with exact values."""

import html.parser
import re
import shutil
import subprocess

from example_rows import make_row
from example_rows import make_rows
from example_rows import realistic_rows
import numpy as np
import pytest

from enn_ensembles.report import board_picture
from enn_ensembles.report import csv_files
from enn_ensembles.report import html_page
from enn_ensembles.report import plots
from enn_ensembles.report import tables as tables_lib


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


def test_exact_values_are_in_the_page():
  tables = tables_lib.make_tables(make_rows('a', ((0.1, 0.1 + 0.2),)))
  mean = tables.leaderboard['kl_estimate_mean'][0]
  values = [attributes.get('data-value')
            for _, attributes in parse(html_page.make_page(
                tables, b'')).elements]
  assert repr(mean) in values


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
