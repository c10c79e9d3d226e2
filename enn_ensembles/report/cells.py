"""The cells of a ranking: names, order, and scores laid out on them.

Rows name their cell by a dict. Here a cell is a number, in an order that a
reader expects, and the scores of an agent setting are an array over cells and
seeds.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from enn_ensembles.machine import canonical
from enn_ensembles.report import columns as columns_lib
from enn_ensembles.results import schema

# A cell field with so many values has a column and a panel per value.
MOST_LEVELS = 6


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
  """Cells and seeds in order.

  Attributes:
    names: names of the cell fields.
    cells: values of each cell in the order of the names, sorted.
    seeds: sorted.
  """
  names: tuple[str, ...]
  cells: tuple[tuple[Any, ...], ...]
  seeds: tuple[int, ...]

  @property
  def shape(self) -> tuple[int, int]:
    """(number of cells, number of seeds)."""
    return len(self.cells), len(self.seeds)

  def levels(self, name: str) -> list[Any]:
    """The different values of a cell field, sorted."""
    place = self.names.index(name)
    return sorted({cell[place] for cell in self.cells}, key=schema.value_key)

  def at_level(self, name: str, level: Any) -> np.ndarray:
    """Which cells have this value of a field, bool [C]."""
    place = self.names.index(name)
    return np.array([cell[place] == level for cell in self.cells], bool)

  def usual_field(self) -> str | None:
    """The last field with few values: what a board is split by unless told."""
    few = [name for name in self.names
           if 2 <= len(self.levels(name)) <= MOST_LEVELS]
    return few[-1] if few else None


def identity(cell: Mapping[str, Any]) -> str:
  """One text for one cell: 1 and 1.0 are the same value."""
  return canonical.canonical_json(cell)


def cell_codes(columns: columns_lib.Columns) -> np.ndarray:
  """The number of each row's cell, int [R]; equal cells have one number."""
  numbers: dict[str, int] = {}
  found = [numbers.setdefault(identity(cell), len(numbers))
           for cell in columns.values('cell')]
  return np.array(found, int)[columns.codes('cell')]


def make_grid(cells: Iterable[Mapping[str, Any]], seeds: Iterable[int]
              ) -> tuple[Grid, dict[str, int]]:
  """The grid of cells and seeds, and `identity` of a cell -> its number."""
  distinct = {identity(cell): cell for cell in cells}
  names: dict[str, None] = {}
  for cell in distinct.values():
    names.update(dict.fromkeys(cell))
  values = {key: tuple(cell.get(name) for name in names)
            for key, cell in distinct.items()}
  order = sorted(values, key=lambda key: tuple(
      map(schema.value_key, values[key])))
  grid = Grid(tuple(names), tuple(values[key] for key in order),
              tuple(sorted(set(seeds))))
  return grid, {key: i for i, key in enumerate(order)}


def level_text(value: Any) -> str:
  """A value of a cell field, short."""
  return f'{value:g}' if isinstance(value, float) else str(value)


def lay_out(values: np.ndarray, present: np.ndarray, cells: np.ndarray,
            seeds: np.ndarray, shape: Sequence[int]
            ) -> tuple[np.ndarray, np.ndarray]:
  """Scores of rows as an array over cells and seeds.

  Args:
    values: float64 [R].
    present: bool [R], which rows have one.
    cells: number of each row's cell [R].
    seeds: number of each row's seed [R].
    shape: (C, S).

  Returns:
    float64 [C, S], NaN where there is none, and bool [C, S], where there is.
  """
  laid = np.full(shape, np.nan)
  there = np.zeros(shape, bool)
  laid[cells[present], seeds[present]] = values[present]
  there[cells[present], seeds[present]] = True
  return laid, there
