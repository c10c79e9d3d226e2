"""One row, whatever it holds, keeps nobody from the board."""

import csv
import io
import math

import example_rows
import pytest

from enn_ensembles import results
from enn_ensembles.machine import plain_text
from enn_ensembles.report import html_page
from enn_ensembles.report import text

make_row = example_rows.make_row

LABELS = ['$x^{$', r'\frac{', '=1+1', '@SUM(A1)', '+1', '-1+1',
          '<script>alert(1)</script>', 'a|b', '\x1b[31mred', 'a\nb']
VALUES = [1e306, 1.7e308, 5e-324, -1e306, math.inf, math.nan]


def make_rows():
  """Rows of sound agents, of names that do harm, of numbers that overflow."""
  rows = []
  for seed in range(3):
    rows += [make_row(0.5, 'prior_only', seed), make_row(0.2, 'sound', seed)]
    rows += [make_row(0.3 + 0.1 * seed, label, seed) for label in LABELS]
    rows.append(make_row(0.4, 'set', seed, agent_config={
        'note': '\0\u202e'}))
    rows += [make_row(value, f'value{i}', seed,
                      status='ok' if math.isfinite(value) else 'diverged')
             for i, value in enumerate(VALUES)]
  rows.append(make_row(1.7e308, 'once', 0))
  rows.append(make_row(0.1, 'once', 1))
  rows.append(make_row(None, 'broken', 0, message='\udcff <b> \x1b[31m'))
  return rows


@pytest.fixture(name='folder', scope='module')
def write_board(tmp_path_factory):
  """A results folder of these rows, and its board."""
  folder = tmp_path_factory.mktemp('hostile')
  store = results.open_store(folder / 'results', create=True)
  for i, row in enumerate(make_rows()):
    store.write_unit(f'u{i}', [{**row, 'run_id': f'u{i}'}])
  tables, _ = html_page.build(folder / 'results', folder / 'board')
  return folder, tables


def test_the_board_is_made(folder):
  folder, tables = folder
  board = tables.leaderboard
  labels = set(board['label'])
  assert {'sound', 'prior_only', *LABELS} <= labels
  assert (folder / 'board' / 'leaderboard.png').read_bytes().startswith(
      b'\x89PNG')
  sound = board[board['label'] == 'sound'].iloc[0]
  assert sound['kl_estimate_mean'] == pytest.approx(0.2)


def test_the_page_runs_no_script_of_a_row(folder):
  folder, _ = folder
  page = (folder / 'board' / 'leaderboard.html').read_text(encoding='utf-8')
  assert '<script>alert' not in page and '&lt;script&gt;alert' in page
  assert '\ufffd &lt;b&gt;' in page
  # What no page may hold, and what turns the direction of text.
  assert not set(page) & {'\0', '\x1b', '\u202e'}
  assert r'\x1b[31mred' in page and r'note=\x00\u202e' in page


def test_no_cell_of_a_csv_is_a_formula(folder):
  folder, _ = folder
  for name in ('leaderboard', 'cells', 'scores'):
    content = (folder / 'board' / f'{name}.csv').read_text(encoding='utf-8')
    for line in csv.reader(io.StringIO(content)):
      for cell in line:
        if cell.startswith(('=', '+', '-', '@')):
          float(cell)  # A number, or this raises.


def test_markdown_and_terminals_get_text(folder):
  _, tables = folder
  markdown = text.format_table(tables, 'markdown')
  assert '<script' not in markdown and 'a\\|b' in markdown
  rows = [line for line in markdown.splitlines() if line.startswith('|')]
  # No name makes a line or a column.
  bars = {line.replace('\\|', '').count('|') for line in rows}
  assert len(bars) == 1
  stream = io.StringIO()
  plain_text.PrintableStream(stream).write(text.format_table(tables))
  assert '\x1b' not in stream.getvalue()
