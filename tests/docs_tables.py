"""Tables of docs, tables of leaderboards, and whether their numbers agree."""

import pathlib
import re

import numpy as np
import pandas as pd

ROOT = pathlib.Path(__file__).resolve().parents[1]


def rows_of(page, *header):
  """The rows of the table that has these columns, as dicts by column."""
  text = (ROOT / 'docs' / f'{page}.md').read_text()
  for block in re.findall(r'(?:^\|.*\n)+', text, re.M):
    lines = [[cell.strip() for cell in line.strip().strip('|').split('|')]
             for line in block.splitlines()]
    if set(header) <= set(lines[0]):
      assert len(lines) > 2
      return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
  raise AssertionError(f'{page} has no table of {header}')


def csv(name):
  """A table of the folder `leaderboards`, named without its ending."""
  return pd.read_csv(ROOT / 'leaderboards' / f'{name}.csv')


def agrees(text, value):
  """Whether a number is what is printed, at the printed precision."""
  text = text.strip('*% ').replace('−', '-').replace(',', '')
  if text in ('-', ''):
    return value is None or np.isnan(value)
  if text == 'inf':
    return np.isinf(value)
  mantissa, _, exponent = text.partition('e')
  decimals = len(mantissa.partition('.')[2])
  unit = 10.**(int(exponent or 0) - decimals)
  return abs(float(text) - value) <= 0.5 * unit * (1 + 1e-9)


def check(pairs):
  """Every (what it is of, text of the docs, value) must agree."""
  wrong = [(name, text, value) for name, text, value in pairs
           if not agrees(text, value)]
  assert not wrong


def check_row(label, row, line, columns):
  """A row of docs must agree with a line of a table; column -> name in it."""
  check((label, row[column], line[name]) for column, name in columns.items())


def in_text(page, pattern):
  """The numbers that a sentence of a page has where the pattern has groups."""
  text = ' '.join((ROOT / 'docs' / f'{page}.md').read_text().split())
  return re.search(pattern, text).groups()
