"""Tables and rows as CSV that gives the same values back.

Floats are written with the digits that make them exact, inf and nan as `inf`
and `nan`, None as an empty field, lists and dicts as JSON.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import csv
import io
import json
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.machine import plain_text
from enn_ensembles.report import columns as columns_lib
from enn_ensembles.results import schema

_PROBLEM_PARTS = ('cell', 'ranking', 'facts')
# What depends on the machine comes last.
_LAST = ('train_seconds', 'evaluate_seconds', 'rank_seconds',
         'problem_seconds', 'compile_seconds',
         *results.COST_FIELDS, 'device', 'created')
_FIRST = tuple(
    key for key in results.ROW_SCHEMA
    if key not in (*results.TIMING_FIELDS, 'agent_config', 'scores', 'curve',
                   'by_set', 'counts'))


def read_table(path: files.PathLike, name: str) -> pd.DataFrame:
  """Reads a CSV with a header.

  Args:
    path: the file.
    name: what to call it in an error, e.g. 'figure3_csv'.

  Raises:
    FileError: there is no such file, or it is no CSV.
  """
  path = pathlib.Path(path)
  try:
    return pd.read_csv(io.BytesIO(files.read_bytes(path)))
  except FileNotFoundError:
    raise files.FileError(f'{name} must be a CSV file, got {str(path)!r}, '
                          'which does not exist.') from None
  except OSError as error:
    raise files.FileError(f'{name} {str(path)!r} cannot be read: '
                          f'{error.strerror}.') from error
  except ValueError as error:  # Those of pandas are of this kind.
    raise files.FileError(f'{name} {str(path)!r} is no CSV file: '
                          f'{str(error).strip().rstrip(".")}.') from error


def value_text(value: Any) -> str:
  """One value of a table as text."""
  if value is None:
    return ''
  if isinstance(value, float):
    return repr(float(value))
  if isinstance(value, (list, dict)):
    return json.dumps(value, sort_keys=True)
  return str(value)


def table_text(table: pd.DataFrame) -> str:
  """A table as CSV."""
  return _csv(table.columns, ([value_text(value) for value in row]
                              for row in table.itertuples(index=False)))


def dicts_text(rows: Sequence[Mapping[str, Any]],
               names: Sequence[str] | None = None) -> str:
  """Dicts as CSV, a line each; what a dict lacks is an empty field.

  Args:
    rows: the dicts.
    names: the columns; None for all names, as they first appear.
  """
  if names is None:
    names = list(dict.fromkeys(name for row in rows for name in row))
  return _csv(names, ([value_text(row.get(name)) for name in names]
                      for row in rows))


def short_text(table: pd.DataFrame) -> str:
  """The same with six digits; what a line has no number for is empty."""
  table = table.astype(object).where(table.notna(), None)
  return table_text(table.map(lambda value: float(f'{value:.6g}')
                              if isinstance(value, float) else value))


def _csv(names: Iterable[str] | None, rows: Iterable[Iterable[str]]) -> str:
  stream = io.StringIO()
  writer = csv.writer(stream, lineterminator='\n')
  # No cell may be a formula to a spreadsheet: texts are whatever users wrote.
  if names is not None:
    writer.writerow(map(plain_text.csv_cell, names))
  writer.writerows(map(plain_text.csv_cell, row) for row in rows)
  return stream.getvalue()


def rows_pieces(columns: columns_lib.Columns,
                num_rows: int = 100_000) -> Iterator[str]:
  """Rows as CSV, a line each, in an order that files do not decide.

  The problem's cell, ranking and facts, the scores, the agent's config
  ('agent.<name>') and versions ('versions.<name>') are columns of their own.
  Curves, which have a length of their own in every row, are left out.

  Args:
    columns: the rows.
    num_rows: of a piece: a million rows as texts are gigabytes.

  Yields:
    The lines, so many rows at a time, the header first.
  """
  order = reading_order(columns)
  for start in range(0, max(1, len(order)), num_rows):
    found = _row_texts(columns, order[start:start + num_rows])
    yield _csv(None if start else found, zip(*found.values()))


def _row_texts(columns: columns_lib.Columns,
               order: np.ndarray) -> dict[str, Sequence[str]]:
  """Name of a column -> its texts in the rows with these numbers."""
  found: dict[str, Sequence[str]] = {}
  for name in _FIRST:
    if name == 'schema_version':
      found[name] = [str(results.SCHEMA_VERSION)] * len(order)
    elif name == 'row_id':
      found[name] = [columns.row_ids[i] for i in order]
    elif name == 'problem':
      found['kind'] = _repeated(columns, order, 'kind')
      for part in _PROBLEM_PARTS:
        for key, texts in _flattened(columns, order, part).items():
          found[f'{part}.{key}' if key in found else key] = texts
      found['seed'] = _repeated(columns, order, 'seed')
    else:
      found[name] = _repeated(columns, order, name)
  for name in columns.scores:
    found[name] = _numbers(order, *columns.score(name))
  found.update({f'agent.{key}': texts for key, texts in _flattened(
      columns, order, 'agent_config').items()})
  for name in _LAST:
    found[name] = (_numbers(order, *columns.cost(name))
                   if name in columns_lib.COSTS else
                   _repeated(columns, order, name))
  for name in ('numerics', 'versions'):
    found.update({f'{name}.{key}': texts for key, texts in _flattened(
        columns, order, name).items()})
  return found


def reading_order(columns: columns_lib.Columns) -> np.ndarray:
  """Numbers of the rows in the order that they are listed in, [R]."""
  return columns.once('reading order', lambda: _reading_order(columns))


def _reading_order(columns: columns_lib.Columns) -> np.ndarray:
  def place(values: Sequence[Any]) -> np.ndarray:
    keys = [_sort_key(value) for value in values]
    ranks = {key: i for i, key in enumerate(sorted(set(keys)))}
    return np.array([ranks[key] for key in keys])
  names = ('agent_label', 'agent_id', 'kind', 'ranking', 'cell', 'seed',
           *results.PROTOCOL_FIELDS, 'dtype')
  keys = [place(columns.values(name))[columns.codes(name)] for name in names]
  return np.lexsort([np.argsort(np.argsort(columns.row_ids, kind='stable')),
                     *keys[::-1]])


def _sort_key(value: Any) -> tuple[Any, ...]:
  if isinstance(value, Mapping):
    return tuple(_sort_key(value[name]) for name in sorted(value)) + (
        (2, 0, schema.canonical_text(value)),)
  return schema.value_key(value)


def _repeated(columns: columns_lib.Columns, order: np.ndarray,
              name: str) -> list[str]:
  """The texts of a column whose values repeat, in this order."""
  return _take([value_text(value) for value in columns.values(name)],
               columns.codes(name)[order])


def _take(texts: Sequence[str], codes: np.ndarray) -> list[str]:
  return np.array(texts, object)[codes].tolist()


def _numbers(order: np.ndarray, values: np.ndarray,
             present: np.ndarray) -> list[str]:
  return [repr(value) if there else '' for value, there in zip(
      values[order].tolist(), present[order].tolist())]


def _flattened(columns: columns_lib.Columns, order: np.ndarray,
               name: str) -> dict[str, list[str]]:
  """Columns of dicts: {'a': {'b': 1}} has the column 'a.b'."""
  flat = [_flatten(value) for value in columns.values(name)]
  # The names of a cell keep their order, the others are sorted.
  names = dict.fromkeys(key for value in flat for key in value)
  if name != 'cell':
    names = sorted(names)
  codes = columns.codes(name)[order]
  return {key: _take([value_text(value.get(key)) for value in flat], codes)
          for key in names}


def _flatten(value: Mapping[str, Any]) -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, part in value.items():
    if isinstance(part, Mapping) and part:
      flat.update({f'{key}.{inner}': leaf
                   for inner, leaf in _flatten(part).items()})
    else:
      flat[key] = part
  return flat
