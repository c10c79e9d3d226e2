"""Tables as CSV that gives the same values back."""

import csv
import io
import math

from example_rows import make_row
from example_rows import realistic_rows
import numpy as np
import pandas as pd
import pytest

from enn_ensembles import results
from enn_ensembles.report import csv_files
from enn_ensembles.report import tables as tables_lib

_ROWS = [{'kl': 0.1, 'agent': 'map', 'num': 3},
         {'kl': np.float64('inf'), 'note': '=1', 'agent': None}]


@pytest.mark.parametrize('names, text', [
    (None, "kl,agent,num,note\n0.1,map,3,\ninf,,,'=1\n"),
    (('num', 'kl'), 'num,kl\n3,0.1\n,inf\n')])
def test_dicts_are_lines_and_what_one_lacks_is_empty(names, text):
  assert csv_files.dicts_text(_ROWS, names) == text


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
