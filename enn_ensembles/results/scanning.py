"""All units of some folders, as summaries, in which every row counts once."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib

from enn_ensembles.results import merging
from enn_ensembles.results import schema
from enn_ensembles.results import store as store_lib
from enn_ensembles.results import summaries


def scan(stores: Sequence[store_lib.ResultsStore],
         take: Callable[[summaries.Summary], None]) -> list[schema.Row]:
  """Goes through all units of some folders.

  Args:
    stores: the folders.
    take: called with the summary of each unit.

  Returns:
    The rows that stay of those whose id several files hold, as
    `merging.merge_units` decides. They come in the place of all rows with
    their ids that `take` was given.

  Raises:
    FileError: files are damaged, or contradict each other.
  """
  first: dict[str, pathlib.Path] = {}
  again: set[str] = set()
  paths: set[pathlib.Path] = set()
  for store in stores:
    for summary in _summaries(store):
      take(summary)
      before = len(first)
      for row_id in summary.row_ids:
        first.setdefault(row_id, summary.path)
      if len(first) - before != len(summary.row_ids):
        twice = {row_id for row_id in summary.row_ids
                 if first[row_id] != summary.path}
        again |= twice
        paths |= {summary.path, *(first[row_id] for row_id in twice)}
  if not again:
    return []
  return merging.merge_units(
      unit._replace(rows=[row for row in unit.rows if row['row_id'] in again])
      for store in stores for unit in store.iter_units(paths))


def scan_rows(stores: Sequence[store_lib.ResultsStore],
              names: Collection[str]) -> dict[str, schema.Row]:
  """Some fields of all rows, each row once, by `row_id`.

  Args:
    stores: the folders.
    names: the fields; see `summaries.Summary.rows`.

  Raises:
    FileError: as in `scan`.
  """
  rows: dict[str, schema.Row] = {}
  again = scan(stores, lambda unit: rows.update(
      (row['row_id'], row) for row in unit.rows(names)))
  rows.update((row['row_id'], row) for row in again)
  return rows


def done_row_ids(store: store_lib.ResultsStore,
                 retry_failed: bool = False) -> dict[str, str]:
  """row_id -> status of the rows that need not be computed again.

  Raises:
    FileError: as in `scan`.
  """
  return done_statuses(scan_rows([store], ('status',)), retry_failed)


def done_statuses(rows: Mapping[str, schema.Row],
                  retry_failed: bool = False) -> dict[str, str]:
  """row_id -> status of those rows that need not be computed again.

  A diverged row is done: the same computation diverges again. A failed row is
  done too, so that a broken agent does not cost its time at every start, unless
  `retry_failed`.

  Args:
    rows: rows by `row_id`, with their `status`.
    retry_failed: whether failed rows are computed again.
  """
  return {row_id: row['status'] for row_id, row in rows.items()
          if not (retry_failed and row['status'] == 'failed')}


def _summaries(store: store_lib.ResultsStore) -> Iterator[summaries.Summary]:
  """Of all units, in the order of their files' names.

  Raises:
    FileError: files are damaged; after the last that is whole.
  """
  # Rows of an old schema are read by what all manifests of a folder say.
  is_current = store.schema_version == schema.SCHEMA_VERSION
  unread = set()
  for path in store.unit_paths():
    found = summaries.read(path) if is_current else None
    if found is None:
      unread.add(path)
    else:
      yield found
  if not unread:
    return
  for unit in store.iter_units(unread):
    found = summaries.summarise(unit)
    if is_current:
      summaries.keep(found, unit.digest)
    yield found
