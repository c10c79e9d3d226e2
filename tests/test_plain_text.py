"""Text of strangers: for terminals, for spreadsheets, for UTF-8."""

import csv
import io

import pandas as pd
import pytest

from enn_ensembles.machine import plain_text
from enn_ensembles.report import csv_files


@pytest.mark.parametrize('text, shown', [
    ('plain, \u00e4 \u4e2d\n\t', 'plain, \u00e4 \u4e2d\n\t'),
    ('\x1b[31mred', r'\x1b[31mred'), ('\x9b31m', r'\x9b31m'),
    ('bell\x07 back\x08', r'bell\x07 back\x08'),
    ('a\u202eb', r'a\u202eb'), ('\ud800', r'\ud800')])
def test_printable(text, shown):
  assert plain_text.printable(text) == shown
  shown.encode()


def test_encodable_goes_into_json():
  value = {'a\udfff': ['\ud800', 1, None, {'b': 'fine \U0001f600'}]}
  assert plain_text.encodable(value) == {
      'a\ufffd': ['\ufffd', 1, None, {'b': 'fine \U0001f600'}]}


@pytest.mark.parametrize('value, cell', [
    ('=HYPERLINK("x")', "'=HYPERLINK(\"x\")"), ('+1+1', "'+1+1"),
    ('-2+3', "'-2+3"), ('@SUM(A1)', "'@SUM(A1)"), ('\t=1', "'\t=1"),
    ('-1.5e-3', '-1.5e-3'), ('+7', '+7'), ('-inf', '-inf'), (-1.5, -1.5),
    (None, None), ('map', 'map'), ('', ''), ('a=b', 'a=b')])
def test_csv_cells_are_no_formulas(value, cell):
  assert plain_text.csv_cell(value) == cell
  stream = io.StringIO()
  csv.writer(stream).writerow([plain_text.csv_cell(value)])


def test_no_table_has_a_formula_in_a_cell():
  table = pd.DataFrame({'=name': ['@x', 'fine'], 'kl': [-0.5, float('inf')],
                        'note': ['-1+cmd', None]}, dtype=object)
  assert list(csv.reader(io.StringIO(csv_files.table_text(table)))) == [
      ["'=name", 'kl', 'note'], ["'@x", '-0.5', "'-1+cmd"],
      ['fine', 'inf', '']]
