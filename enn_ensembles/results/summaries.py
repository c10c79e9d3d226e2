"""What most readers want of a unit, in columns and fast to read.

  results_dir/summaries/<run_id>.json

A unit's file holds every row whole, with its curve and a copy of the agent's
config; to parse and check that takes a hundred times as long as to read it. So
beside the units stand their rows again, without curves and scores by set: every
value that repeats once, and the numbers of a score side by side. A summary
names the hash of the unit's file that it was made of and has a checksum of its
own: one that is not of exactly these bytes is made anew. Summaries may be
deleted at any time; where a folder cannot be written to, they are not kept.
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
from typing import Any
from typing import NamedTuple

from enn_ensembles.machine import files
from enn_ensembles.machine import strict_json
from enn_ensembles.results import costs as costs_lib
from enn_ensembles.results import schema
from enn_ensembles.results import unit_files

_VERSION = 2

# Fields that are numbers of their own in every row; the others repeat.
COSTS = ('train_seconds', 'evaluate_seconds', 'rank_seconds',
         'problem_seconds', 'compile_seconds', *costs_lib.COST_FIELDS)
_LEFT_OUT = ('schema_version', 'row_id', 'problem', 'scores', 'curve',
             'by_set', 'counts', 'cost')
REPEATED = tuple(
    key for key in schema.ROW_SCHEMA
    if key not in (*COSTS, *_LEFT_OUT)) + schema.PROBLEM_FIELDS

_FIELDS = {**schema.ROW_SCHEMA, 'kind': schema.Field('str', ''),
           'seed': schema.Field('int', '')}


class Column(NamedTuple):
  """Values that repeat.

  Attributes:
    values: the different ones, in the order of their first row.
    codes: the number of each row's value, [R].
  """
  values: Sequence[Any]
  codes: Sequence[int]


class Summary(NamedTuple):
  """The rows of a unit, but for curves and scores by set.

  Attributes:
    path: the unit's file.
    row_ids: of its rows, [R].
    repeated: field or part of the problem (REPEATED) -> its column.
    costs: field (COSTS) -> numbers, [R], None where a row has none.
    scores: score -> its numbers, [R], None where a row has none.
  """
  path: pathlib.Path
  row_ids: Sequence[str]
  repeated: Mapping[str, Column]
  costs: Mapping[str, Sequence[float | None]]
  scores: Mapping[str, Sequence[float | None]]

  def rows(self, names: Collection[str]) -> Iterator[dict[str, Any]]:
    """Its rows with these fields of REPEATED and COSTS, and `row_id`.

    `problem` has those of its parts that are named.
    """
    parts = [(name, self.repeated[name]) for name in schema.PROBLEM_FIELDS
             if name in names]
    repeated = [(name, self.repeated[name]) for name in REPEATED
                if name in names and name not in schema.PROBLEM_FIELDS]
    costs = [(name, self.costs[name]) for name in COSTS if name in names]
    for i, row_id in enumerate(self.row_ids):
      row: dict[str, Any] = {'row_id': row_id}
      for name, column in repeated:
        row[name] = column.values[column.codes[i]]
      for name, numbers in costs:
        row[name] = numbers[i]
      if parts:
        row['problem'] = {name: column.values[column.codes[i]]
                          for name, column in parts}
      yield row


def summarise(unit: unit_files.Unit) -> Summary:
  """The summary of a unit as read."""
  rows = unit.rows
  repeated = {
      name: _column(row['problem' if name in schema.PROBLEM_FIELDS else name]
                    [name] if name in schema.PROBLEM_FIELDS else row[name]
                    for row in rows) for name in REPEATED}
  names = dict.fromkeys(name for row in rows for name in row['scores'] or ())
  return Summary(
      unit.path, [row['row_id'] for row in rows], repeated,
      {name: [costs_lib.cost_of(row, name) for row in rows] for name in COSTS},
      {name: [(row['scores'] or {}).get(name) for row in rows]
       for name in names})


def _column(values: Iterable[Any]) -> Column:
  """The values of all rows, [R], as different ones and their numbers."""
  # True, 1 and 1.0 are equal and not the same; dicts have an order.
  found: dict[str, int] = {}
  different, codes = [], []
  for value in values:
    text = repr(value)
    code = found.setdefault(text, len(found))
    if code == len(different):
      different.append(value)
    codes.append(code)
  return Column(different, codes)


def path_of(unit_path: pathlib.Path) -> pathlib.Path:
  """Where the summary of a unit is, or would be."""
  return unit_path.parents[1] / 'summaries' / unit_path.name


def keep(summary: Summary, digest: str) -> None:
  """Writes a summary; nothing where the folder refuses.

  Args:
    summary: the summary.
    digest: of the unit's file, as `unit_files.Unit` has it.
  """
  try:
    columns = json.dumps({
        'row_ids': summary.row_ids,
        'repeated': {name: [column.values, column.codes
                            if len(column.values) > 1 else None]
                     for name, column in summary.repeated.items()},
        'costs': {name: [schema.encode_float(value) for value in values]
                  for name, values in summary.costs.items()},
        'scores': {name: [schema.encode_float(value) for value in values]
                   for name, values in summary.scores.items()},
    }, separators=(',', ':'), allow_nan=False).encode()
    path = path_of(summary.path)
    path.parent.mkdir(exist_ok=True)
    head = f'{_VERSION} {digest} {unit_files.digest_of(columns)}\n'
    # A file server waits for every write that has to last.
    files.write_atomically(path, head.encode() + columns, durable=False)
  except (OSError, ValueError):
    pass  # It saves time, no more.


def read(unit_path: pathlib.Path) -> Summary | None:
  """The summary of exactly this file; None where there is none."""
  try:
    content = files.read_bytes(path_of(unit_path))
    head, _, columns = content.partition(b'\n')
    if head.decode().split() != [
        str(_VERSION), unit_files.digest_of(files.read_bytes(unit_path)),
        unit_files.digest_of(columns)]:
      return None
    found = strict_json.parse(columns)
    num_rows = len(found['row_ids'])
    summary = Summary(
        unit_path, found['row_ids'],
        {name: Column(values, [0] * num_rows if codes is None else codes)
         for name, (values, codes) in found['repeated'].items()},
        _decode(found['costs']), _decode(found['scores']))
    return summary if _is_sound(summary) else None
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return None


def _is_sound(summary: Summary) -> bool:
  """Whether readers may take it as it is; ValueError or TypeError if not.

  Its checksum tells damage; this, what somebody else has written there.
  """
  num_rows = len(summary.row_ids)
  if set(map(type, summary.row_ids)) != {str} or (
      set(summary.repeated) != set(REPEATED)
      or set(summary.costs) != set(COSTS)):
    return False
  for name, (values, codes) in summary.repeated.items():
    if len(codes) != num_rows or set(map(type, codes)) != {int} or not (
        0 <= min(codes) <= max(codes) < len(values)):
      return False
    for value in values:
      if name in ('cell', 'ranking', 'facts'):
        if not all(isinstance(part, (str, int, float))
                   for part in value.values()):
          return False
      elif not isinstance(value, dict):  # To check one takes as long as all.
        schema.check_value(value, _FIELDS[name], name)
      elif _FIELDS[name].kind != 'dict':
        return False
  allowed = {float, type(None)}
  return all(
      len(numbers) == num_rows and set(map(type, numbers)) <= allowed
      for part in (summary.costs, summary.scores)
      for numbers in part.values())


def _decode(numbers: Mapping[str, Sequence[Any]]
            ) -> dict[str, Sequence[float | None]]:
  return {name: [schema.decode_float(value) for value in values]
          if any(isinstance(value, str) for value in values) else values
          for name, values in numbers.items()}
