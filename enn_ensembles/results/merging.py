"""Rows of many units as one list: which of two copies of a row stays."""

from collections.abc import Iterable
import pathlib

from absl import logging

from enn_ensembles.machine import files
from enn_ensembles.results import schema
from enn_ensembles.results import tolerance
from enn_ensembles.results import unit_files


def merge_units(units: Iterable[unit_files.Unit]) -> list[schema.Row]:
  """The rows of many units, of one folder or several, each row_id once.

  The same computation may be in two files. Rows that agree within `tolerance`
  are one result, of which the one with most scores stays (a later program
  gives more), and of these the one with the lowest hash, whatever the order of
  the files; where they are not equal, a warning names the files. A failed row,
  which has no scores, gives way to one that has.

  Returns:
    Rows sorted by agent_id, problem, protocol and row_id.

  Raises:
    FileError: two files contradict each other about a row_id; both are named.
  """
  found: dict[str, list[tuple[pathlib.Path, schema.Row]]] = {}
  for unit in units:
    for row in unit.rows:
      found.setdefault(row['row_id'], []).append((unit.path, row))
  differing: dict[tuple[pathlib.Path, pathlib.Path], list[float]] = {}
  merged = []
  for copies in found.values():
    if len(copies) > 1:
      # What succeeded before what failed, then by content alone.
      copies.sort(key=lambda copy: (copy[1]['status'] == 'failed',
                                    -len(copy[1]['scores'] or ()),
                                    _content_hash(copy[1]),
                                    str(copy[0])))
      for copy in copies[1:]:
        difference = _difference(copies[0], copy)
        if difference:
          differing.setdefault((copies[0][0], copy[0]), []).append(difference)
    merged.append(copies[0][1])
  for (path, other), differences in sorted(differing.items()):
    logging.warning(
        '%d rows are in %s and, with scores that differ by up to %.1g of their '
        'value, in %s: the first are taken.', len(differences), path,
        max(differences), other)
  return sorted(merged, key=schema.reading_order)


def _content_hash(row: schema.Row) -> str:
  """What copies are ordered by: without `cost`, which no old row has.

  So which of two old copies stays does not depend on the version that reads.
  """
  return schema.sha256(schema.encode({
      name: value for name, value in row.items() if name != 'cost'}))


def _difference(kept: tuple[pathlib.Path, schema.Row],
                other: tuple[pathlib.Path, schema.Row]) -> float:
  """How far the scores of two copies of a row differ, relatively.

  Raises:
    FileError: by more than is promised.
  """
  (path, row), (other_path, other_row) = kept, other
  if other_row['status'] == 'failed':
    return 0.
  try:
    return tolerance.difference(row, other_row)
  except tolerance.ContradictionError as error:
    raise files.FileError(
        f'row {row["row_id"]} ({row["agent_id"]} on {row["problem_id"]}) has '
        f'{error.field} {error.value!r} in {path} and {error.other!r} in '
        f'{other_path}: delete the file that is wrong.') from None
