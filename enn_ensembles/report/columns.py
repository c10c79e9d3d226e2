"""Rows as columns: a million rows in the memory of some numbers each.

A row is a dict that holds what hundreds of other rows hold too: the agent's
config, its problem, versions. Here every such value is kept once and a row
holds its number. Reports are made from these columns; curves, which only
figures read, are left out.
"""

import array
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.results import schema
from enn_ensembles.results import summaries

COSTS, REPEATED = summaries.COSTS, summaries.REPEATED


class Repeated:
  """A column of values that repeat: each different value once.

  Attributes:
    values: the different values, in the order of their first row.
  """

  def __init__(self):
    self.values: list[Any] = []
    self._codes = array.array('i')
    self._code_of: dict[Any, int] = {}
    self._code_of_dict: dict[str, int] = {}

  def code(self, value: Any) -> int:
    """The number of a value, a new one where it is new."""
    if isinstance(value, (dict, list)):
      # Written alike it is the same; what is not may still differ in order.
      written = repr(value)
      code = self._code_of_dict.get(written)
      if code is None:
        code = self._new_code((dict, schema.canonical_text(value)), value)
        self._code_of_dict[written] = code
      return code
    # True, 1 and 1.0 are equal and not the same.
    key = (type(value), value)
    code = self._code_of.get(key)
    return self._new_code(key, value) if code is None else code

  def _new_code(self, key: Any, value: Any) -> int:
    code = self._code_of.setdefault(key, len(self.values))
    if code == len(self.values):
      self.values.append(value)
    return code

  def append(self, value: Any) -> None:
    """Adds a row."""
    self._codes.append(self.code(value))

  def extend(self, column: summaries.Column) -> None:
    """Adds the rows of a unit."""
    codes = [self.code(value) for value in column.values]
    if len(codes) == 1:
      self._codes.extend(array.array('i', codes) * len(column.codes))
    else:
      self._codes.extend([codes[code] for code in column.codes])

  def keep(self, kept: np.ndarray) -> None:
    """Drops rows but those where `kept`, bool [R], says so."""
    self._codes = array.array('i', self.codes[kept])

  @property
  def codes(self) -> np.ndarray:
    """The number of each row's value, int32 [R]."""
    return np.array(self._codes, np.int32)


class Numbers:
  """A column of floats, some of which may be missing."""

  def __init__(self, num_before: int = 0):
    self._values = array.array('d', [np.nan]) * num_before
    self._present = array.array('b', [0]) * num_before

  def append(self, value: float | None) -> None:
    """Adds a row; None where it has no number."""
    self._values.append(np.nan if value is None else value)
    self._present.append(value is not None)

  def extend(self, values: Sequence[float | None]) -> None:
    """Adds the rows of a unit."""
    if None in values:
      for value in values:
        self.append(value)
    else:
      self._values.extend(values)
      self._present.extend(array.array('b', [1]) * len(values))

  def pad(self, num_rows: int) -> None:
    """Adds rows without a number until there are so many."""
    while len(self._values) < num_rows:
      self.append(None)

  def keep(self, kept: np.ndarray) -> None:
    """Drops rows but those where `kept`, bool [R], says so."""
    self._values = array.array('d', self.values[kept])
    self._present = array.array('b', self.present[kept].astype(np.int8))

  @property
  def values(self) -> np.ndarray:
    """float64 [R], NaN where there is none."""
    return np.array(self._values, np.float64)

  @property
  def present(self) -> np.ndarray:
    """bool [R], where there is one."""
    return np.array(self._present, bool)


@dataclasses.dataclass(eq=False)
class Columns:
  """Rows, a column per field.

  Attributes:
    repeated: field or part of the problem -> its column (REPEATED).
    costs: field -> numbers (COSTS).
    scores: score -> numbers.
    row_ids: of every row.
  """
  repeated: Mapping[str, Repeated]
  costs: Mapping[str, Numbers]
  scores: Mapping[str, Numbers]
  row_ids: Sequence[str]
  _arrays: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

  def __len__(self) -> int:
    return len(self.row_ids)

  def codes(self, name: str) -> np.ndarray:
    """Number of each row's value of a repeated field, int32 [R]."""
    return self.once(name, lambda: self.repeated[name].codes)

  def values(self, name: str) -> list[Any]:
    """The different values of a repeated field, in the order of the codes."""
    return self.repeated[name].values

  def score(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [R], bool [R]): a score, and whether the row has it."""
    def read():
      column = self.scores.get(name)
      if column is None:
        return np.full(len(self), np.nan), np.zeros(len(self), bool)
      return column.values, column.present
    return self.once(f'scores.{name}', read)

  def cost(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [R], bool [R]): a cost, and whether the row has it."""
    column = self.costs[name]
    return self.once(name, lambda: (column.values, column.present))

  def once(self, name: str, read: Callable[[], Any]) -> Any:
    """read(), which is called for each name once."""
    if name not in self._arrays:
      self._arrays[name] = read()
    return self._arrays[name]


class _Builder:
  """Columns that grow row by row."""

  def __init__(self):
    self.repeated = {name: Repeated() for name in REPEATED}
    self.costs = {name: Numbers() for name in COSTS}
    self.scores: dict[str, Numbers] = {}
    self.row_ids: list[str] = []

  def add(self, row: Mapping[str, Any]) -> None:
    """Adds a row."""
    for name in REPEATED:
      source = row['problem'] if name in schema.PROBLEM_FIELDS else row
      self.repeated[name].append(source[name])
    for name in COSTS:
      self.costs[name].append(results.cost_of(row, name))
    for name, value in (row['scores'] or {}).items():
      if name not in self.scores:
        self.scores[name] = Numbers(len(self.row_ids))
      self.scores[name].append(value)
    self.row_ids.append(row['row_id'])
    for column in self.scores.values():
      column.pad(len(self.row_ids))

  def add_unit(self, unit: summaries.Summary) -> None:
    """Adds all rows of a unit."""
    for name in REPEATED:
      self.repeated[name].extend(unit.repeated[name])
    for name in COSTS:
      self.costs[name].extend(unit.costs[name])
    for name, values in unit.scores.items():
      if name not in self.scores:
        self.scores[name] = Numbers(len(self.row_ids))
      self.scores[name].extend(values)
    self.row_ids.extend(unit.row_ids)
    for column in self.scores.values():
      column.pad(len(self.row_ids))

  def remove(self, row_ids: Collection[str]) -> None:
    """Drops the rows with these ids."""
    kept = np.array([row_id not in row_ids for row_id in self.row_ids], bool)
    for columns in (self.repeated, self.costs, self.scores):
      for column in columns.values():
        column.keep(kept)
    self.row_ids = [row_id for row_id, stays in zip(self.row_ids, kept)
                    if stays]

  def build(self) -> Columns:
    return Columns(self.repeated, self.costs, self.scores, self.row_ids)


def collect(rows: Iterable[Mapping[str, Any]]) -> Columns:
  """The columns of rows as in results.ROW_SCHEMA."""
  builder = _Builder()
  for row in rows:
    builder.add(row)
  return builder.build()


def _open(results_dirs: files.PathLike | Sequence[files.PathLike]
          ) -> list[results.ResultsStore]:
  if not isinstance(results_dirs, Sequence) or isinstance(results_dirs, str):
    results_dirs = [results_dirs]
  if not results_dirs:
    raise files.FileError('results_dir must name a folder, got nothing.')
  return [results.open_store(folder) for folder in results_dirs]


def _no_rows(stores: Sequence[results.ResultsStore]) -> ValueError:
  names = ', '.join(str(store.results_dir) for store in stores)
  return ValueError(f'results_dir {names} holds no rows yet: run the sweep '
                    'first.')


def read_results(results_dirs: files.PathLike | Sequence[files.PathLike]
                 ) -> tuple[list[results.Row], list[results.Row]]:
  """Reads one results folder or several, rows as dicts.

  Returns:
    (rows, expected rows), as `ResultsStore` gives them.

  Raises:
    ValueError: a folder or a file in it is not as it must be, or there are no
      rows at all.
  """
  stores = _open(results_dirs)
  rows = results.merge_units(
      unit for store in stores for unit in store.read_units())
  if not rows:
    raise _no_rows(stores)
  return rows, [row for store in stores for row in store.read_manifests()]


def read_columns(results_dirs: files.PathLike | Sequence[files.PathLike],
                 without: str | None = None
                 ) -> tuple[Columns, list[results.Row]]:
  """Reads one results folder or several as columns, a unit at a time.

  Args:
    results_dirs: the folders.
    without: the label of an agent that is read as if it were not there.

  Returns:
    (columns, manifest entries). Rows that several files hold are there once,
    as `results.merge_units` decides.

  Raises:
    ValueError: as in `read_results`.
  """
  stores = _open(results_dirs)
  builder = _Builder()

  def take(unit: summaries.Summary) -> None:
    if without is None or unit.repeated['agent_label'].values != [without]:
      builder.add_unit(unit)

  again = results.scan(stores, take)
  if again:
    builder.remove({row['row_id'] for row in again})
    for row in again:
      if row['agent_label'] != without:
        builder.add(row)
  if not builder.row_ids and without is not None:
    raise ValueError(
        f'without the rows of {without!r} there are no rows to make a board of '
        f'in {", ".join(str(store.results_dir) for store in stores)}.')
  if not builder.row_ids:
    raise _no_rows(stores)
  return builder.build(), [entry for store in stores
                           for entry in store.read_entries()
                           if entry['agent_label'] != without]
