"""The results store: how rows reach the disk and come back.

A sweep is many processes on many machines that may die at any moment. So a
work unit is one file, written whole or not at all, carrying its own checksum;
two processes that finish the same unit write the same file; a sweep that
starts again asks the store what is done. Reading never repairs: a file that is
not what was written is an error that names it.

  results_dir/STORE.json              project and schema version of the folder
  results_dir/manifests/<hash>.json   what a sweep is going to compute
  results_dir/units/<run_id>.json     the rows of one work unit
  results_dir/summaries/              the same in columns, to be read fast; no
                                      results (`summaries`)

Three more folders come and go while sweeps run, and hold no results: `running`
(`machine.heartbeats`), `claims` (`sweeps.claimed_units`) and `checkpoints`
(`machine.checkpoints`).

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
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
import re
from typing import Any

from enn_ensembles.machine import files
from enn_ensembles.machine import plain_text
from enn_ensembles.machine import strict_json
from enn_ensembles.results import conversion
from enn_ensembles.results import manifest_entries
from enn_ensembles.results import merging
from enn_ensembles.results import schema
from enn_ensembles.results import summaries
from enn_ensembles.results import unit_files

# Of a results folder, all in which files are written to take their name whole.
FOLDERS = ('units', 'manifests', 'summaries', 'running', 'checkpoints')

_RUN_ID = re.compile(r'[A-Za-z0-9][A-Za-z0-9._,=+-]{0,199}')


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
    self.results_dir = files.as_folder(results_dir, 'results_dir')
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
      raise files.FileError(f'results_dir cannot be read: {error.filename}: '
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
      lost = sorted({row['row_id'] for row in unit_files.read_unit(path).rows}
                    - set(row_ids))
      if lost:
        raise files.FileError(
            f'unit {run_id}: {path} already holds {len(lost)} rows that the '
            f'new one lacks, the first is {lost[0]}; a run_id must stand for '
            'one set of rows.')
    content = _document(run_id, [schema.encode(row) for row in checked])
    files.write_atomically(path, content)
    summaries.keep(
        summaries.summarise(unit_files.Unit(path, run_id, checked)),
        unit_files.digest_of(content))
    return path

  def unit_paths(self) -> list[pathlib.Path]:
    """The files of all units, sorted.

    Raises:
      FileError: they cannot be listed.
    """
    return files.list_files(self._units, '.json')

  def read_units(self) -> list[unit_files.Unit]:
    """All units, in the order of their file names.

    Raises:
      FileError: files are damaged or cannot be read; it says which, all of
        them, and what to do.
    """
    return list(self.iter_units())

  def iter_units(self, paths: Collection[pathlib.Path] | None = None
                 ) -> Iterator[unit_files.Unit]:
    """The units of `read_units` one at a time, for what memory cannot hold.

    Args:
      paths: files to read; None for all, others than units are left out.

    Raises:
      FileError: as in `read_units`, after the last unit that is whole.
    """
    damaged: list[unit_files.DamagedError] = []
    unreadable: list[unit_files.UnreadableError] = []
    draws = self._asked_draws()
    for path in self.unit_paths():
      if paths is not None and path not in paths:
        continue
      try:
        yield unit_files.read_unit(path, draws)
      except unit_files.DamagedError as error:
        damaged.append(error)
      except unit_files.UnreadableError as error:
        unreadable.append(error)
    told = [] if not unreadable else [
        'cannot read ' + ', '.join(
            f'{error.path} ({error.reason})' for error in unreadable) + '.']
    if len(damaged) == 1:
      told.append(str(damaged[0]))
    elif damaged:
      which = ', '.join(f'{error.path} ({error.reason})' for error in damaged)
      told.append(
          f'{len(damaged)} files are damaged: {which}. Delete them and run the '
          'sweep again: only these units are computed again.')
    if told:
      raise files.FileError(' '.join(told))

  def read_unit(self, run_id: str) -> unit_files.Unit | None:
    """One unit; None if it is not there.

    Raises:
      FileError: its file is damaged.
    """
    path = self.unit_path(run_id)
    if not path.exists():
      return None
    return unit_files.read_unit(path, self._asked_draws())

  def _asked_draws(self) -> Any:
    """What rows of the old schema do not say."""
    if self.schema_version == conversion.OLD_VERSION:
      return conversion.asked_draws(self.read_entries())
    return conversion.DEFAULT_DRAWS

  def read_rows(self) -> list[schema.Row]:
    """All rows, each row_id once, in the order of `merging.merge_units`.

    Raises:
      FileError: a file is damaged, or two files contradict each other.
    """
    return merging.merge_units(self.read_units())

  def write_manifest(self, entries: Sequence[Mapping[str, Any]]
                     ) -> pathlib.Path:
    """Says what a sweep is going to compute, so that what is missing shows.

    The name of the file is a hash of its content: all processes of a job
    array write the same file, unless it is there as it should be.

    Args:
      entries: one per agent setting, ranking and selection, as
        `manifest_entries.check_entry` describes it.

    Returns:
      The file.

    Raises:
      FileError: an entry is not like that, or the disk refuses.
    """
    self.check_writable()
    checked = [manifest_entries.check_entry(entry, f'manifest entry {i}')
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
    content = (json.dumps(document, indent=1, allow_nan=False) + '\n').encode()
    # A thousand tasks of a large grid would force gigabytes to the disk.
    try:
      is_there = files.read_bytes(path) == content
    except OSError:
      is_there = False
    if not is_there:
      files.write_atomically(path, content)
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
      for problem in manifest_entries.expected_problems(entry):
        row = {**entry, 'problem': problem}
        expected[schema.canonical_text(row)] = row
    return sorted(expected.values(), key=schema.reading_order)

  def read_entries(self) -> list[schema.Row]:
    """The entries of all manifests, each many expected rows.

    Raises:
      FileError: a manifest is damaged.
    """
    return [entry for path in files.list_files(self._manifests, '.json')
            for entry in unit_files.read_manifest(path)]

  def check_writable(self) -> None:
    """FileError where files of today would come to stand beside old ones."""
    if self.schema_version != schema.SCHEMA_VERSION:
      raise files.FileError(
          f'results_dir {str(self.results_dir)!r} has schema_version '
          f'{self.schema_version}, which is read but not written: run '
          f'{conversion.COMMAND} --results_dir={self.results_dir} '
          '--output_dir=NEW first.')


def _document(run_id: str, encoded: Sequence[schema.Row]) -> bytes:
  """The file of a unit: a row per line, which json's fast encoder writes."""
  head = json.dumps({
      'project': schema.PROJECT,
      'schema_version': schema.SCHEMA_VERSION,
      'run_id': run_id,
      'sha256': schema.sha256(encoded)
  }).removesuffix('}')
  rows = ',\n'.join(json.dumps(row, allow_nan=False) for row in encoded)
  return f'{head}, "rows": [\n{rows}\n]}}\n'.encode()
