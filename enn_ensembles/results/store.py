"""The results store: what a row is, and how rows reach the disk and come back.

A sweep is many processes on many machines that may die at any moment. So a
work unit is one file, written whole or not at all, carrying its own checksum;
two processes that finish the same unit write the same file; a sweep that
starts again asks the store what is done. Reading never repairs: a file that is
not what was written is an error that names it.

  results_dir/STORE.json              project and schema version of the folder
  results_dir/manifests/<hash>.json   what a sweep is going to compute
  results_dir/units/<run_id>.json     the rows of one work unit

Two more folders come and go while sweeps run, and hold no results: `running`
(`heartbeats`) and `checkpoints` (`checkpoints`).

What goes wrong:
  * Killed while writing: the old file, or none, and a hidden temporary file
    that nobody reads; sweeps remove those that are a day old.
  * Disk full, folder read-only: an error that says so; all that was written
    before is whole, and the same command goes on where it stopped.
  * A file that is not what was written (cut short, edited): an error that names
    it and says to delete it. Nothing is computed twice unasked.
  * Clocks: nothing here reads them but `remove_stale_files`, which compares the
    file system's own times and takes a file of the future for a new one.

This module does not import jax: reports are made where jax is not installed.
"""

import collections
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
import re
from typing import Any
from typing import NamedTuple

from absl import logging

from enn_ensembles.machine import files
from enn_ensembles.machine import plain_text
from enn_ensembles.machine import strict_json
from enn_ensembles.results import conversion
from enn_ensembles.results import schema
from enn_ensembles.results import tolerance

_RUN_ID = re.compile(r'[A-Za-z0-9][A-Za-z0-9._,=+-]{0,199}')


class Unit(NamedTuple):
  """A work unit as read: where it is and what it holds."""
  path: pathlib.Path
  run_id: str
  rows: list[schema.Row]


class ResultsStore:
  """A results folder that exists. `open_store` makes one.

  Attributes:
    results_dir: the folder.
    schema_version: that of its files. Rows of the one before are converted
      when they are read.
  """

  def __init__(self, results_dir: files.PathLike):
    """Opens the folder for reading.

    Raises:
      FileError: the folder is missing, is no results store, or has another
        schema version.
    """
    self.results_dir = pathlib.Path(results_dir)
    self._units = self.results_dir / 'units'
    self._manifests = self.results_dir / 'manifests'
    try:
      if not self.results_dir.is_dir():
        what = 'is no folder' if self.results_dir.exists() else (
            'does not exist')
        raise files.FileError(
            f'results_dir {str(results_dir)!r} {what}: give the '
            'folder that a sweep has written to.')
      text = files.read_bytes(self.results_dir / 'STORE.json')
    except FileNotFoundError:
      raise files.FileError(
          f'results_dir {str(results_dir)!r} is no results store of '
          f'{schema.PROJECT}: it has no STORE.json.') from None
    except OSError as error:
      raise files.FileError(f'cannot read results_dir {str(results_dir)!r}: '
                       f'{error.strerror}.') from error
    try:
      header = strict_json.parse(text)
      project, version = header['project'], header['schema_version']
    except (ValueError, KeyError) as error:
      raise files.FileError(
          f'{self.results_dir / "STORE.json"} is damaged: a store '
          f'of {schema.PROJECT} holds its project and schema_version '
          'there.') from error
    if project != schema.PROJECT:
      raise files.FileError(f'results_dir {str(results_dir)!r} is a store of '
                       f'{project!r}, not of {schema.PROJECT!r}.')
    if version not in (schema.SCHEMA_VERSION, conversion.OLD_VERSION):
      raise files.FileError(
          f'results_dir {str(results_dir)!r} has schema_version {version}, '
          f'this program reads {conversion.OLD_VERSION} and '
          f'{schema.SCHEMA_VERSION}: use another folder, or the version of the '
          'program that wrote it.')
    self.schema_version = version

  def unit_path(self, run_id: str) -> pathlib.Path:
    """Where the rows of a unit are, or would be.

    Raises:
      FileError: run_id cannot be the name of a file.
    """
    if not _RUN_ID.fullmatch(run_id):
      raise files.FileError(
          f'run_id must be 1 to 200 letters, digits or ._,=+- and begin with a '
          f'letter or digit, got {run_id!r}.')
    return self._units / f'{run_id}.json'

  def write_unit(self, run_id: str, rows: Sequence[Mapping[str, Any]]
                 ) -> pathlib.Path:
    """Writes all rows of one work unit as one file, at once.

    A unit that exists is replaced. Its run_id must therefore name the whole
    set of its rows: a second writing may not lack any row of the first.

    Args:
      run_id: the work unit.
      rows: its rows, as in ROW_SCHEMA.

    Returns:
      The file.

    Raises:
      FileError: a row is not as the schema says or of another unit, a row_id
        is there twice, rows would be lost, the existing file is damaged, or
        the disk refuses.
    """
    self.check_writable()
    path = self.unit_path(run_id)
    if not rows:
      raise files.FileError(f'unit {run_id}: rows must not be empty.')
    # A message may hold the name of a file, and that what is no character.
    checked = [plain_text.encodable(
        schema.check_row(row, f'unit {run_id}, row {i}'))
               for i, row in enumerate(rows)]
    row_ids = [row['row_id'] for row in checked]
    for row in checked:
      if row['run_id'] != run_id:
        raise files.FileError(f'unit {run_id}: row {row["row_id"]} has run_id '
                         f'{row["run_id"]!r}.')
    for row_id, count in collections.Counter(row_ids).items():
      if count > 1:
        raise files.FileError(
            f'unit {run_id}: row_id {row_id} is there {count} times.')
    if path.exists():
      lost = sorted({row['row_id'] for row in _read_unit(path).rows}
                    - set(row_ids))
      if lost:
        raise files.FileError(
            f'unit {run_id}: {path} already holds {len(lost)} rows that the '
            f'new one lacks, the first is {lost[0]}; a run_id must stand for '
            'one set of rows.')
    encoded = [schema.encode(row) for row in checked]
    document = {
        'project': schema.PROJECT,
        'schema_version': schema.SCHEMA_VERSION,
        'run_id': run_id,
        'sha256': schema.sha256(encoded),
        'rows': encoded
    }
    files.write_atomically(
        path, (json.dumps(document, indent=1, allow_nan=False) + '\n').encode())
    return path

  def read_units(self) -> list[Unit]:
    """All units, in the order of their file names.

    Raises:
      FileError: files are damaged; it says which, all of them, and what to do.
    """
    return list(self.iter_units())

  def iter_units(self, paths: Collection[pathlib.Path] | None = None
                 ) -> Iterator[Unit]:
    """The units of `read_units` one at a time, for what memory cannot hold.

    Args:
      paths: files to read; None for all, others than units are left out.

    Raises:
      FileError: as in `read_units`, after the last unit that is whole.
    """
    damaged, draws = [], self._asked_draws()
    for path in files.list_files(self._units, '.json'):
      if paths is not None and path not in paths:
        continue
      try:
        yield _read_unit(path, draws)
      except _DamagedError as error:
        damaged.append(error)
    if len(damaged) == 1:
      raise damaged[0]
    if damaged:
      which = ', '.join(f'{error.path} ({error.reason})' for error in damaged)
      raise files.FileError(
          f'{len(damaged)} files are damaged: {which}. Delete them and run the '
          'sweep again: only these units are computed again.')

  def read_unit(self, run_id: str) -> Unit | None:
    """One unit; None if it is not there.

    Raises:
      FileError: its file is damaged.
    """
    path = self.unit_path(run_id)
    return _read_unit(path, self._asked_draws()) if path.exists() else None

  def _asked_draws(self) -> Any:
    """What rows of the old schema do not say."""
    if self.schema_version == conversion.OLD_VERSION:
      return conversion.asked_draws(self.read_entries())
    return conversion.DEFAULT_DRAWS

  def read_rows(self) -> list[schema.Row]:
    """All rows, each row_id once, in the order of `merge_units`.

    Raises:
      FileError: a file is damaged, or two files contradict each other.
    """
    return merge_units(self.read_units())

  def done_row_ids(self, retry_failed: bool = False) -> dict[str, str]:
    """row_id -> status of the rows that need not be computed again.

    A diverged row is done: the same computation diverges again. A failed row
    is done too, so that a broken agent does not cost its time at every start,
    unless `retry_failed`.

    Raises:
      FileError: as in `read_rows`.
    """
    return {row['row_id']: row['status'] for row in self.read_rows()
            if not (retry_failed and row['status'] == 'failed')}

  def write_manifest(self, entries: Sequence[Mapping[str, Any]]
                     ) -> pathlib.Path:
    """Says what a sweep is going to compute, so that what is missing shows.

    The name of the file is a hash of its content: all processes of a job
    array write the same file.

    Args:
      entries: one per agent setting, ranking and selection, as
        `schema.check_entry` describes it.

    Returns:
      The file.

    Raises:
      FileError: an entry is not like that, or the disk refuses.
    """
    self.check_writable()
    checked = [schema.check_entry(entry, f'manifest entry {i}')
               for i, entry in enumerate(entries)]
    if not checked:
      raise files.FileError(
          'a manifest must have at least one entry, got none.')
    checked.sort(key=schema.canonical_text)
    document = {
        'project': schema.PROJECT,
        'schema_version': schema.SCHEMA_VERSION,
        'entries': checked
    }
    path = self._manifests / f'{schema.sha256(document)[:16]}.json'
    files.write_atomically(
        path, (json.dumps(document, indent=1, allow_nan=False) + '\n').encode())
    return path

  def read_manifests(self) -> list[schema.Row]:
    """What all sweeps of this folder together expect.

    Returns:
      One dict per expected row, each once, sorted: the fields of a manifest
      entry, with the problem as rows have it, without facts. num_enn_samples
      is what the sweep asked for; the rows of an enumerated agent have None
      there.

    Raises:
      FileError: a manifest is damaged.
    """
    expected = {}
    for entry in self.read_entries():
      for problem in schema.expected_problems(entry):
        row = {**entry, 'problem': problem}
        expected[schema.canonical_text(row)] = row
    return sorted(expected.values(), key=schema.reading_order)

  def read_entries(self) -> list[schema.Row]:
    """The entries of all manifests, each many expected rows.

    Raises:
      FileError: a manifest is damaged.
    """
    return [entry for path in files.list_files(self._manifests, '.json')
            for entry in _read_manifest(path)]

  def check_writable(self) -> None:
    """FileError where files of today would come to stand beside old ones."""
    if self.schema_version != schema.SCHEMA_VERSION:
      raise files.FileError(
          f'results_dir {str(self.results_dir)!r} has schema_version '
          f'{self.schema_version}, which is read but not written: run '
          f'{conversion.COMMAND} --results_dir={self.results_dir} '
          '--output_dir=NEW first.')


def open_store(results_dir: files.PathLike,
               create: bool = False) -> ResultsStore:
  """Opens a results folder.

  Args:
    results_dir: the folder.
    create: open it for writing: it is made where it is missing, and it is
      checked that it takes files before anybody computes what goes there.

  Returns:
    The store.

  Raises:
    FileError: the folder is missing (and not `create`), cannot be written
      to, has another schema version, or holds things but is no store.
  """
  if create:
    folder = files.make_folder(results_dir, 'results_dir')
    header = folder / 'STORE.json'
    if not header.exists():
      # Another process may be at the same point: its hidden files are no
      # reason to refuse, and it writes the same content.
      found = sorted(p.name for p in folder.iterdir()
                     if not p.name.startswith('.'))
      if found and not header.exists():
        raise files.FileError(
            f'results_dir {str(results_dir)!r} is not empty and no results '
            f'store of {schema.PROJECT} (it has {", ".join(found[:3])} and no '
            'STORE.json): give an empty or a new folder.')
      text = json.dumps({
          'project': schema.PROJECT,
          'schema_version': schema.SCHEMA_VERSION
      })
      files.write_atomically(header, (text + '\n').encode())
  store = ResultsStore(results_dir)
  if create:
    store.check_writable()
    files.make_folder(store.results_dir / 'units', 'results_dir')
    files.make_folder(store.results_dir / 'manifests', 'results_dir')
  return store


def merge_units(units: Iterable[Unit]) -> list[schema.Row]:
  """The rows of many units, of one folder or several, each row_id once.

  The same computation may be in two files. Rows that agree within `tolerance`
  are one result, of which the one with the lowest hash stays, whatever the
  order of the files; where they are not equal, a warning names the files. A
  failed row, which has no scores, gives way to one that has.

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
                                    schema.sha256(schema.encode(copy[1])),
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


def _read_document(path: pathlib.Path) -> tuple[dict[str, Any], bytes]:
  """A file of the store, parsed and as it is; the checks all files share.

  Raises:
    ValueError: it is not strict JSON, or lacks what all files have.
    FileError: it cannot be opened, or has another schema version.
  """
  try:
    content = files.read_bytes(path)
  except OSError as error:
    raise files.FileError(f'cannot read {path}: {error.strerror}.') from error
  document = strict_json.parse(content)
  version = document.get('schema_version')
  known = (schema.SCHEMA_VERSION, conversion.OLD_VERSION)
  if isinstance(version, int) and version not in known:
    raise files.FileError(
        f'{path} has schema_version {version}, this program reads '
        f'{conversion.OLD_VERSION} and {schema.SCHEMA_VERSION}.')
  if version not in known or document.get('project') != schema.PROJECT:
    raise ValueError('project or schema_version is missing')
  return document, content


def _read_unit(path: pathlib.Path,
               asked_draws: int = conversion.DEFAULT_DRAWS) -> Unit:
  """Reads one unit and checks that it is what was written.

  Args:
    path: its file.
    asked_draws: as in `conversion.convert_row`, for a unit of the old schema.
  """
  try:
    document, content = _read_document(path)
    if set(document) != {'project', 'schema_version', 'run_id', 'sha256',
                         'rows'}:
      raise ValueError(f'its fields are {sorted(document)}')
    if document['sha256'] != schema.sha256(document['rows']):
      raise ValueError('its rows do not match its checksum')
    if document['run_id'] != path.name.removesuffix('.json'):
      raise ValueError(f'it is the unit {document["run_id"]!r}')
    if document['schema_version'] == conversion.OLD_VERSION:
      decoded = [conversion.convert_row(conversion.decode_row(row), asked_draws)
                 for row in document['rows']]
    else:
      decoded = [schema.decode(row) for row in document['rows']]
    rows = [schema.check_row(row, f'row {i}', is_json=True)
            for i, row in enumerate(decoded)]
    if rb'\ud' in content:  # As JSON writes a lone surrogate, and all above.
      rows = [plain_text.encodable(row) for row in rows]
  except files.FileError as error:
    if str(path) in str(error):
      raise
    raise _DamagedError(path, error) from error
  except (ValueError, TypeError, AttributeError, RecursionError) as error:
    raise _DamagedError(path, error) from error
  return Unit(path, document['run_id'], rows)


class _DamagedError(files.FileError):
  """A unit's file is not what was written."""

  def __init__(self, path: pathlib.Path, reason: Exception):
    self.path = path
    self.reason = str(reason).rstrip('.')
    super().__init__(
        f'{path} is damaged ({self.reason}). Delete it and run the sweep '
        'again: only this unit is computed again.')


def _read_manifest(path: pathlib.Path) -> list[schema.Row]:
  """The entries of one manifest, checked against the hash in its name."""
  try:
    document, _ = _read_document(path)
    if schema.sha256(document)[:16] != path.name.removesuffix('.json'):
      raise ValueError('its content does not match its name')
    entries = document['entries']
    if document['schema_version'] == conversion.OLD_VERSION:
      entries = [conversion.convert_entry(entry) for entry in entries]
    return [schema.check_entry(entry, f'entry {i}')
            for i, entry in enumerate(entries)]
  except files.FileError as error:
    if str(path) in str(error):
      raise
    reason = error
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    reason = error
  raise files.FileError(
      f'{path} is damaged ({str(reason).rstrip(".")}). Delete it and run the '
      'sweep again: it is written anew and nothing is computed again.'
  ) from reason
