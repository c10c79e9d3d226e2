"""Cells of rows as numbers."""

import example_rows

from enn_ensembles.report import cells
from enn_ensembles.report import columns


def test_equal_cells_have_one_number():
  rows = [example_rows.make_row(data_ratio=1, seed=0),
          example_rows.make_row(data_ratio=2., seed=0),
          example_rows.make_row(data_ratio=1., seed=1)]
  assert cells.cell_codes(columns.collect(rows)).tolist() == [0, 1, 0]
  assert cells.cell_codes(columns.collect([])).shape == (0,)
