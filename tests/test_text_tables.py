"""Numbers and tables as plain text and as Markdown."""

import math
import re

from example_rows import make_rows
from example_rows import realistic_rows
import pytest

from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text as text_lib
from enn_ensembles.report import text_tables


def test_markdown_cells_make_no_lines_columns_or_html():
  text = text_tables.markdown(('a', 'b'), [(1, '<b>x|y'), ('two\nlines', '')],
                              right=[0])
  assert text == ('| a | b |\n| --: | :-- |\n'
                  '| 1 | &lt;b&gt;x\\|y |\n| two lines |  |\n')


def test_plain_columns_are_even():
  assert text_tables.aligned([('name', 'n', 'of'), ('a', '10', '7')],
                             range(1, 3)) == ['name   n  of', 'a     10   7']
  assert text_tables.aligned([('x', 'left'), ('y', 'l')]) == ['x  left', 'y  l']


@pytest.mark.parametrize('value, words', [
    (None, '-'), (math.inf, 'inf'), (math.nan, 'nan'), (0., '0'), (-0., '0'),
    (0.123456, '0.123'), (1.5, '1.50'), (12.345, '12.3'), (9999., '9999'),
    (190000., '1.90e+05'), (1e-9, '1.00e-09'), (-0.5, '-0.500'),
    (0.0001, '0.000100'), (1000., '1000')])
def test_short_number(value, words):
  assert text_lib.short_number(value) == words


def test_text_table_lines_up():
  rows, expected = realistic_rows()
  content = text_lib.format_table(tables_lib.make_tables(rows, expected))
  head, rule, *body = content.split('\n')[1:]
  assert len(body) == 14
  starts = [match.start() for match in re.finditer('-+', rule)]
  assert head[starts[1]:].startswith('agent')
  for line in body:
    assert all(line[start - 1] == ' ' for start in starts[1:] if
               start < len(line))


def test_markdown_table_has_the_same_cells_in_every_line():
  rows = make_rows('a|b', ((1., 2.),)) + make_rows('c', ((1., math.inf),))
  content = text_lib.format_table(tables_lib.make_tables(rows), 'markdown')
  table = [line for line in content.split('\n') if line.startswith('|')]
  assert len(table) == 4
  assert len({len(re.split(r'(?<!\\)\|', line)) for line in table}) == 1
  with pytest.raises(ValueError, match="'text' or 'markdown', got 'latex'"):
    text_lib.format_table(tables_lib.make_tables(rows), 'latex')
