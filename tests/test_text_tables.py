"""Tables as Markdown and as plain text."""

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
