"""Tables as Markdown, and as columns of even width for a terminal."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
import html
from typing import Any


def markdown(header: Sequence[str], body: Iterable[Sequence[Any]],
             right: Collection[int] = ()) -> str:
  """A table of Markdown, each of its lines ended.

  Whatever a cell holds, it makes neither a line nor a column, and no HTML.

  Args:
    header: titles of the columns.
    body: cells of each row.
    right: numbers of the columns whose cells stand to the right, from 0.
  """
  rule = ['--:' if i in right else ':--' for i in range(len(header))]
  return ''.join(
      '| ' + ' | '.join(map(_markdown_cell, cells)) + ' |\n'
      for cells in (header, rule, *body))


def _markdown_cell(value: Any) -> str:
  text = html.escape(str(value), quote=False).replace('|', '\\|')
  return ' '.join(text.split())


def aligned(rows: Sequence[Sequence[str]],
            right: Collection[int] = ()) -> list[str]:
  """Lines of plain text with columns of even width.

  Args:
    rows: cells of each line; the titles are one of them.
    right: as in `markdown`.
  """
  widths = [max(map(len, column)) for column in zip(*rows)]
  return ['  '.join(
      cell.rjust(width) if i in right else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
          for row in rows]
