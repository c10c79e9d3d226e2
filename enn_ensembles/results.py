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

import hashlib
import json
import math
import numbers
import os
import pathlib
import re
import secrets
import threading
from typing import Any, Iterable, Mapping, NamedTuple, Sequence, Union

import numpy as np

PROJECT = 'enn_ensembles'
SCHEMA_VERSION = 3

PathLike = Union[str, os.PathLike]
Row = dict[str, Any]


class StoreError(ValueError):
  """The results folder, or something in it or for it, is not as it must be."""


class Field(NamedTuple):
  """One field of a row.

  Attributes:
    kind: 'int', 'float', 'str', 'bool' or 'dict'.
    meaning: what it says, with its unit.
    nullable: whether None is allowed.
    choices: the allowed values; empty where all of the kind are.
  """
  kind: str
  meaning: str
  nullable: bool = False
  choices: tuple[str, ...] = ()


# The only definition of a row: written rows and read rows are checked with it.
ROW_SCHEMA: Mapping[str, Field] = {
    'schema_version': Field('int', 'SCHEMA_VERSION of the writer'),
    'run_id': Field('str', 'the work unit, and the name of its file'),
    'row_id': Field('str', 'hash of agent, problem, evaluation and training '
                    'settings: equal ids are the same computation'),
    'agent': Field('str', 'name of the agent'),
    'agent_id': Field('str', 'readable name of the agent setting'),
    'agent_config': Field('dict', 'every field of the agent config'),
    'problem_id': Field('str', 'readable name of the problem'),
    'input_dim': Field('int', 'D_x'),
    'data_ratio': Field('float', 'lambda = T / D_x'),
    'noise_std': Field('float', 'epsilon, std of the noise in y'),
    'seed': Field('int', 'seed of the problem'),
    'reference': Field('str', 'noise variance of the exact posterior',
                       choices=('bayes', 'enn2021')),
    'kernel': Field('str', 'prior that the problem is drawn from: activation '
                    'and number of hidden layers, e.g. relu2'),
    'num_train': Field('int', 'T, number of training points'),
    'num_enn_samples': Field('int', 'draws of the agent that were asked for; '
                             'None = all members were enumerated',
                             nullable=True),
    'enumerate_indices': Field('bool', 'whether finite index sets are '
                               'enumerated instead of sampled'),
    'num_samples_used': Field('int', 'functions that the moments come from; '
                              'None = analytic moments', nullable=True),
    'selection': Field('str', 'how members were ranked and selected; scores are '
                       'of the best beginning of the ranking by val_score',
                       choices=('none', 'oracle', 'val_nll')),
    'dtype': Field('str', 'precision of training, e.g. float32'),
    'status': Field('str', 'ok: every score is finite; diverged: scored, but '
                    'training or a score is not finite; failed: no scores',
                    choices=('ok', 'diverged', 'failed')),
    'message': Field('str', 'why the status is not ok; empty if it is'),
    'kl_estimate': Field('float', 'mean over x_test of KL(NNGP || agent), nats',
                         nullable=True),
    'kl_reverse': Field('float', 'mean over x_test of KL(agent || NNGP), nats',
                        nullable=True),
    'mean_error': Field('float', 'relative error of the mean', nullable=True),
    'std_error': Field('float', 'relative error of the std', nullable=True),
    'mean_rmse': Field('float', 'root mean squared error of the mean',
                       nullable=True),
    'std_ratio': Field('float', 'mean ratio of the stds, agent / NNGP',
                       nullable=True),
    'kl_floor': Field('float', 'expected kl_estimate of as many draws of the '
                      'exact posterior; may be inf', nullable=True),
    'path': Field('dict', 'scores at x_test of the first 1, 2, ... members of '
                  'an order: order, kl_estimate, kl_reverse, and for a ranked '
                  'order val_score at x_val. The order is random where '
                  'selection is none. None where members are not enumerated or '
                  'not finite', nullable=True),
    'num_params': Field('int', 'trained parameters', nullable=True),
    'train_seconds': Field('float', 'training, s per problem', nullable=True),
    'evaluate_seconds': Field('float', 'evaluation, s per problem',
                              nullable=True),
    'rank_seconds': Field('float', 'ranking, s per problem', nullable=True),
    'problem_seconds': Field('float', 'problem and its posterior, s per '
                             'problem', nullable=True),
    'compile_seconds': Field('float', 'compilation, s, shared by the unit',
                             nullable=True),
    'versions': Field('dict', 'versions of the packages used'),
    'device': Field('str', 'the device it ran on'),
    'created': Field('str', 'when, UTC, ISO 8601'),
}

# None in a failed row and only there; all finite in a row that is ok.
SCORE_FIELDS = ('kl_estimate', 'kl_reverse', 'mean_error', 'std_error',
                'mean_rmse', 'std_ratio')
# What may differ when the same row is computed again.
TIMING_FIELDS = ('train_seconds', 'evaluate_seconds', 'rank_seconds',
                 'problem_seconds', 'compile_seconds', 'versions', 'device',
                 'created')
# The prior of the testbed: two hidden ReLU layers.
DEFAULT_KERNEL = 'relu2'
PROBLEM_FIELDS = ('input_dim', 'data_ratio', 'noise_std', 'seed')
PROTOCOL_FIELDS = ('reference', 'kernel', 'selection', 'enumerate_indices',
                   'num_enn_samples')

# JSON has no such numbers. A float field, and no other, may hold these
# strings; the schema says which fields those are, so reading is unambiguous.
_NON_FINITE = {'NaN': math.nan, 'Infinity': math.inf, '-Infinity': -math.inf}

_PATH_FIELDS = {'order', 'kl_estimate', 'kl_reverse'}

_MANIFEST_FIELDS = ('agent', 'agent_id', 'agent_config', 'input_dim',
                    'data_ratio', 'noise_stds', 'seeds', *PROTOCOL_FIELDS)

_RUN_ID = re.compile(r'[A-Za-z0-9][A-Za-z0-9._,=+-]{0,199}')


def check_row(row: Mapping[str, Any], name: str = 'row') -> Row:
  """Checks a row against the schema and gives it back in plain Python types.

  Args:
    row: field -> value. Numpy scalars are taken as the numbers they are.
    name: what to call the row in an error.

  Returns:
    A new dict, fields in the order of the schema, safe to store: what is
    read back is equal to it (NaN apart, which is not equal to itself).

  Raises:
    StoreError: a field is missing, unknown, of another type or not one of
      its choices, or the scores contradict the status.
  """
  unknown = sorted(set(row) - set(ROW_SCHEMA))
  missing = [field for field in ROW_SCHEMA if field not in row]
  if unknown or missing:
    raise StoreError(
        f'{name}: missing fields {missing}, unknown fields {unknown}; a row '
        f'has exactly the {len(ROW_SCHEMA)} fields of ROW_SCHEMA.')
  checked = {key: _check_value(row[key], field, f'{name}: {key}')
             for key, field in ROW_SCHEMA.items()}
  if checked['schema_version'] != SCHEMA_VERSION:
    raise StoreError(f'{name}: schema_version must be {SCHEMA_VERSION}, got '
                     f'{checked["schema_version"]}.')
  status = checked['status']
  for key in SCORE_FIELDS:
    value = checked[key]
    if (value is None) != (status == 'failed'):
      raise StoreError(f'{name}: {key} must be None if and only if status is '
                       f'failed, got {value} with status {status}.')
    if status == 'ok' and not math.isfinite(value):
      raise StoreError(f'{name}: {key} must be finite where status is ok, got '
                       f'{value}; such a row is diverged.')
  if status != 'failed' and checked['kl_floor'] is None:
    raise StoreError(f'{name}: kl_floor must not be None where status is '
                     f'{status}.')
  if checked['path'] is not None:
    _check_path(checked['path'], checked['selection'], f'{name}: path')
  return checked


def _check_path(path: Mapping[str, Any], selection: str, name: str) -> None:
  """StoreError unless a path has its lists, all as long as its order."""
  fields = _PATH_FIELDS | (set() if selection == 'none' else {'val_score'})
  if set(path) != fields:
    raise StoreError(f'{name} must have the fields {sorted(fields)} where '
                     f'selection is {selection}, got {sorted(path)}.')
  lengths = {key: len(value) if isinstance(value, list) else None
             for key, value in path.items()}
  if None in lengths.values() or len(set(lengths.values())) != 1:
    raise StoreError(f'{name} must hold lists of one length, got lengths '
                     f'{lengths}.')


def _check_value(value: Any, field: Field, name: str) -> Any:
  """The value as a plain Python object; StoreError if it is not of its kind."""
  if value is None:
    if field.nullable:
      return None
    raise StoreError(f'{name} must be of type {field.kind}, got None.')
  is_bool = isinstance(value, (bool, np.bool_))
  if field.kind == 'bool' and is_bool:
    return bool(value)
  if field.kind == 'int' and isinstance(value, numbers.Integral) and (
      not is_bool):
    return int(value)
  if field.kind == 'float' and isinstance(value, numbers.Real) and not is_bool:
    return float(value)
  if field.kind == 'str' and isinstance(value, str):
    if field.choices and value not in field.choices:
      raise StoreError(
          f'{name} must be one of {list(field.choices)}, got {value!r}.')
    return str(value)
  if field.kind == 'dict' and isinstance(value, Mapping):
    try:
      return json.loads(_canonical_text(dict(value)))
    except (TypeError, ValueError) as error:
      raise StoreError(f'{name} cannot be stored as JSON: {error}.') from error
  raise StoreError(
      f'{name} must be of type {field.kind}, got {value!r} '
      f'({type(value).__name__}).')


def _canonical_text(value: Any) -> str:
  """One text for one JSON value: what checksums and hashes are made of."""
  return json.dumps(value, sort_keys=True, separators=(',', ':'),
                    allow_nan=False)


def _sha256(value: Any) -> str:
  return hashlib.sha256(_canonical_text(value).encode()).hexdigest()


def _encode(row: Row) -> Row:
  """The row with its non-finite floats as the strings of _NON_FINITE."""
  def text(value):
    if isinstance(value, float) and not math.isfinite(value):
      return 'NaN' if math.isnan(value) else (
          'Infinity' if value > 0 else '-Infinity')
    return value
  return {key: text(value) for key, value in row.items()}


def _decode(row: Mapping[str, Any]) -> Row:
  """Inverse of `_encode`: only float fields are looked at."""
  return {
      key: _NON_FINITE[value]
      if (key in ROW_SCHEMA and ROW_SCHEMA[key].kind == 'float'
          and isinstance(value, str) and value in _NON_FINITE) else value
      for key, value in row.items()}


# Held while a file is written: whoever ends the process from another thread can
# wait for it (`finish_writing`), so that no temporary file stays.
_writing = threading.Lock()


def finish_writing(timeout_seconds: float) -> None:
  """Waits until no file is half written, and keeps further ones from starting.

  For a process that is about to end; the lock is never given back.
  """
  _writing.acquire(timeout=timeout_seconds)


def write_atomically(path: PathLike, content: bytes) -> None:
  """Writes a file whole or not at all, whatever happens meanwhile.

  The content goes to a hidden temporary file in the same folder, to the disk,
  and takes its name by one rename. A process that dies in between leaves the
  old file (or none) and a hidden `.tmp` file that no reader looks at.

  Raises:
    StoreError: the folder or the disk refuses, with its reason.
  """
  path = pathlib.Path(path)
  # Not tempfile.mkstemp: its files are closed to the other users of a folder.
  temporary = path.parent / (
      f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp')
  with _writing:
    try:
      try:
        with open(temporary, 'xb') as stream:
          stream.write(content)
          stream.flush()
          os.fsync(stream.fileno())
        os.replace(temporary, path)
      finally:
        temporary.unlink(missing_ok=True)
      # The rename is on the disk only when its folder is.
      folder = os.open(path.parent, os.O_RDONLY)
      try:
        os.fsync(folder)
      finally:
        os.close(folder)
    except OSError as error:
      raise StoreError(f'cannot write {path}: {error.strerror}.') from error


def make_folder(path: PathLike, name: str) -> pathlib.Path:
  """Makes a folder, parents included, and checks that it takes files.

  Args:
    path: the folder; it may exist.
    name: what to call it in an error, e.g. 'results_dir'.

  Raises:
    StoreError: it cannot be made or written to.
  """
  folder = pathlib.Path(path)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f'.probe.{os.getpid()}.{secrets.token_hex(4)}.tmp'
    with open(probe, 'xb'):
      pass
    probe.unlink()
  except OSError as error:
    raise StoreError(f'{name} {str(path)!r} is not a folder that can be '
                     f'written to: {error.strerror}.') from error
  return folder


_STALE_DAYS = {'.tmp': 1., '.checkpoint': 14.}


def remove_stale_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Removes what killed processes left in a folder and its own folders.

  Temporary files of the last day may be about to get their name, and
  checkpoints of the last two weeks may be taken up: they stay.

  Returns:
    What was removed. Files that cannot be are left.
  """
  removed = []
  try:
    probe = folder / f'.clock.{os.getpid()}.{secrets.token_hex(4)}.tmp'
    with open(probe, 'xb'):
      pass
    now = probe.stat().st_mtime  # The clock that stamps the other files.
    probe.unlink()
    found = [path for pattern in ('.*.tmp', '*/.*.tmp', '*/*.checkpoint')
             for path in folder.glob(pattern)]
  except OSError:
    return []
  for path in found:
    try:
      age_days = (now - path.stat().st_mtime) / 86400
      if age_days > _STALE_DAYS[path.suffix]:
        path.unlink()
        removed.append(path)
    except OSError:
      continue  # Another process was faster.
  return removed


class Unit(NamedTuple):
  """A work unit as read: where it is and what it holds."""
  path: pathlib.Path
  run_id: str
  rows: list[Row]


class ResultsStore:
  """A results folder that exists. `open_store` makes one.

  Attributes:
    results_dir: the folder.
  """

  def __init__(self, results_dir: PathLike):
    """Opens the folder for reading.

    Raises:
      StoreError: the folder is missing, is no results store, or has another
        schema version.
    """
    self.results_dir = pathlib.Path(results_dir)
    self._units = self.results_dir / 'units'
    self._manifests = self.results_dir / 'manifests'
    try:
      if not self.results_dir.is_dir():
        what = 'is no folder' if self.results_dir.exists() else (
            'does not exist')
        raise StoreError(f'results_dir {str(results_dir)!r} {what}: give the '
                         'folder that a sweep has written to.')
      text = (self.results_dir / 'STORE.json').read_bytes()
    except FileNotFoundError:
      raise StoreError(
          f'results_dir {str(results_dir)!r} is no results store of {PROJECT}: '
          'it has no STORE.json.') from None
    except OSError as error:
      raise StoreError(f'cannot read results_dir {str(results_dir)!r}: '
                       f'{error.strerror}.') from error
    try:
      header = _parse(text)
      project, version = header['project'], header['schema_version']
    except (ValueError, KeyError) as error:
      raise StoreError(f'{self.results_dir / "STORE.json"} is damaged: a store '
                       f'of {PROJECT} holds its project and schema_version '
                       'there.') from error
    if project != PROJECT:
      raise StoreError(f'results_dir {str(results_dir)!r} is a store of '
                       f'{project!r}, not of {PROJECT!r}.')
    if version != SCHEMA_VERSION:
      raise StoreError(
          f'results_dir {str(results_dir)!r} has schema_version {version}, '
          f'this program reads and writes {SCHEMA_VERSION}: use another '
          'folder, or the version of the program that wrote it.')

  def unit_path(self, run_id: str) -> pathlib.Path:
    """Where the rows of a unit are, or would be.

    Raises:
      StoreError: run_id cannot be the name of a file.
    """
    if not _RUN_ID.fullmatch(run_id):
      raise StoreError(
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
      StoreError: a row is not as the schema says or of another unit, a row_id
        is there twice, rows would be lost, the existing file is damaged, or
        the disk refuses.
    """
    path = self.unit_path(run_id)
    if not rows:
      raise StoreError(f'unit {run_id}: rows must not be empty.')
    checked = [check_row(row, f'unit {run_id}, row {i}')
               for i, row in enumerate(rows)]
    row_ids = [row['row_id'] for row in checked]
    for row in checked:
      if row['run_id'] != run_id:
        raise StoreError(f'unit {run_id}: row {row["row_id"]} has run_id '
                         f'{row["run_id"]!r}.')
      if row_ids.count(row['row_id']) > 1:
        raise StoreError(f'unit {run_id}: row_id {row["row_id"]} is there '
                         f'{row_ids.count(row["row_id"])} times.')
    if path.exists():
      lost = sorted({row['row_id'] for row in _read_unit(path).rows}
                    - set(row_ids))
      if lost:
        raise StoreError(
            f'unit {run_id}: {path} already holds {len(lost)} rows that the '
            f'new one lacks, the first is {lost[0]}; a run_id must stand for '
            'one set of rows.')
    encoded = [_encode(row) for row in checked]
    document = {'project': PROJECT, 'schema_version': SCHEMA_VERSION,
                'run_id': run_id, 'sha256': _sha256(encoded), 'rows': encoded}
    write_atomically(
        path, (json.dumps(document, indent=1, allow_nan=False) + '\n').encode())
    return path

  def read_units(self) -> list[Unit]:
    """All units, in the order of their file names.

    Raises:
      StoreError: a file is damaged; it says which and what to do.
    """
    return [_read_unit(path) for path in _json_files(self._units)]

  def read_rows(self) -> list[Row]:
    """All rows, each row_id once, in the order of `merge_units`.

    Raises:
      StoreError: a file is damaged, or two files contradict each other.
    """
    return merge_units(self.read_units())

  def done_row_ids(self, retry_failed: bool = False) -> dict[str, str]:
    """row_id -> status of the rows that need not be computed again.

    A diverged row is done: the same computation diverges again. A failed row
    is done too, so that a broken agent does not cost its time at every start,
    unless `retry_failed`.

    Raises:
      StoreError: as in `read_rows`.
    """
    return {row['row_id']: row['status'] for row in self.read_rows()
            if not (retry_failed and row['status'] == 'failed')}

  def write_manifest(self, entries: Sequence[Mapping[str, Any]]
                     ) -> pathlib.Path:
    """Says what a sweep is going to compute, so that what is missing shows.

    The name of the file is a hash of its content: all processes of a job
    array write the same file.

    Args:
      entries: one per agent setting and (input_dim, data_ratio): agent,
        agent_id, agent_config, input_dim, data_ratio, noise_stds (list),
        seeds (list), and PROTOCOL_FIELDS.

    Returns:
      The file.

    Raises:
      StoreError: an entry is not like that, or the disk refuses.
    """
    checked = [_check_entry(entry, f'manifest entry {i}')
               for i, entry in enumerate(entries)]
    if not checked:
      raise StoreError('a manifest must have at least one entry, got none.')
    checked.sort(key=_canonical_text)
    document = {'project': PROJECT, 'schema_version': SCHEMA_VERSION,
                'entries': checked}
    path = self._manifests / f'{_sha256(document)[:16]}.json'
    write_atomically(
        path, (json.dumps(document, indent=1, allow_nan=False) + '\n').encode())
    return path

  def read_manifests(self) -> list[Row]:
    """What all sweeps of this folder together expect.

    Returns:
      One dict per expected row, each once, sorted: agent, agent_id,
      agent_config, input_dim, data_ratio, noise_std, seed, and the fields of
      PROTOCOL_FIELDS. num_enn_samples is what the sweep asked for; the rows of
      an enumerated agent have None there.

    Raises:
      StoreError: a manifest is damaged.
    """
    expected = {}
    for path in _json_files(self._manifests):
      for entry in _read_manifest(path):
        for noise_std in entry['noise_stds']:
          for seed in entry['seeds']:
            row = {key: entry[key] for key in _MANIFEST_FIELDS
                   if key not in ('noise_stds', 'seeds')}
            row.update(noise_std=noise_std, seed=seed)
            expected[_canonical_text(row)] = row
    return sorted(expected.values(), key=_reading_order)


def open_store(results_dir: PathLike, create: bool = False) -> ResultsStore:
  """Opens a results folder.

  Args:
    results_dir: the folder.
    create: open it for writing: it is made where it is missing, and it is
      checked that it takes files before anybody computes what goes there.

  Returns:
    The store.

  Raises:
    StoreError: the folder is missing (and not `create`), cannot be written
      to, has another schema version, or holds things but is no store.
  """
  if create:
    folder = make_folder(results_dir, 'results_dir')
    header = folder / 'STORE.json'
    if not header.exists():
      # Another process may be at the same point: its hidden files are no
      # reason to refuse, and it writes the same content.
      found = sorted(p.name for p in folder.iterdir()
                     if not p.name.startswith('.'))
      if found and not header.exists():
        raise StoreError(
            f'results_dir {str(results_dir)!r} is not empty and no results '
            f'store of {PROJECT} (it has {", ".join(found[:3])} and no '
            'STORE.json): give an empty or a new folder.')
      text = json.dumps({'project': PROJECT, 'schema_version': SCHEMA_VERSION})
      write_atomically(header, (text + '\n').encode())
  store = ResultsStore(results_dir)
  if create:
    make_folder(store.results_dir / 'units', 'results_dir')
    make_folder(store.results_dir / 'manifests', 'results_dir')
  return store


def merge_units(units: Iterable[Unit]) -> list[Row]:
  """The rows of many units, of one folder or several, each row_id once.

  The same computation may be in two files. Where they agree in all but the
  fields of TIMING_FIELDS (and run_id and message) one is taken, the one whose
  file name comes first; a failed row, which has no scores, gives way to one
  that has.

  Returns:
    Rows sorted by agent_id, problem, protocol and row_id.

  Raises:
    StoreError: two files give different values for one row_id; both are named.
  """
  merged: dict[str, tuple[pathlib.Path, Row]] = {}
  for unit in sorted(units, key=lambda unit: (unit.path.name, str(unit.path))):
    for row in unit.rows:
      row_id = row['row_id']
      if row_id not in merged:
        merged[row_id] = (unit.path, row)
        continue
      path, known = merged[row_id]
      if row['status'] == 'failed':
        continue
      if known['status'] == 'failed':
        merged[row_id] = (unit.path, row)
        continue
      for key in ROW_SCHEMA:
        if key not in (*TIMING_FIELDS, 'run_id', 'message') and (
            not same_value(known[key], row[key])):
          raise StoreError(
              f'row {row_id} ({row["agent_id"]} on {row["problem_id"]}) has '
              f'{key} {known[key]!r} in {path} and {row[key]!r} in '
              f'{unit.path}: delete the file that is wrong.')
  return sorted((row for _, row in merged.values()), key=_reading_order)


def same_value(a: Any, b: Any) -> bool:
  """Equality in which NaN is equal to itself."""
  return a == b or (a != a and b != b)


def _reading_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """Sorts rows the same way on every machine, whatever the files' order."""
  return (row['agent_id'], *(row[key] for key in PROBLEM_FIELDS),
          *(str(row[key]) for key in PROTOCOL_FIELDS), row.get('row_id', ''))


def _json_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The finished files of a folder: hidden and temporary ones are not."""
  return sorted(path for path in folder.glob('*.json')
                if not path.name.startswith('.'))


def _parse(content: bytes) -> dict[str, Any]:
  """Strict JSON of an object; ValueError for anything else."""
  def refuse(constant):
    raise ValueError(f'{constant} is not JSON')
  document = json.loads(content.decode('utf-8'), parse_constant=refuse)
  if not isinstance(document, dict):
    raise ValueError('not a JSON object')
  return document


def _read_document(path: pathlib.Path) -> dict[str, Any]:
  """Reads and parses a file of the store; the checks all files share.

  Raises:
    ValueError: it is not strict JSON, or lacks what all files have.
    StoreError: it cannot be opened, or has another schema version.
  """
  try:
    content = path.read_bytes()
  except OSError as error:
    raise StoreError(f'cannot read {path}: {error.strerror}.') from error
  document = _parse(content)
  version = document.get('schema_version')
  if isinstance(version, int) and version != SCHEMA_VERSION:
    raise StoreError(f'{path} has schema_version {version}, this program '
                     f'reads {SCHEMA_VERSION}.')
  if version != SCHEMA_VERSION or document.get('project') != PROJECT:
    raise ValueError('project or schema_version is missing')
  return document


def _read_unit(path: pathlib.Path) -> Unit:
  """Reads one unit and checks that it is what was written."""
  try:
    document = _read_document(path)
    if set(document) != {'project', 'schema_version', 'run_id', 'sha256',
                         'rows'}:
      raise ValueError(f'its fields are {sorted(document)}')
    if document['sha256'] != _sha256(document['rows']):
      raise ValueError('its rows do not match its checksum')
    if document['run_id'] != path.name.removesuffix('.json'):
      raise ValueError(f'it is the unit {document["run_id"]!r}')
    rows = [check_row(_decode(row), f'row {i}')
            for i, row in enumerate(document['rows'])]
  except StoreError as error:
    if str(path) in str(error):
      raise
    raise _damaged(path, error) from error
  except ValueError as error:
    raise _damaged(path, error) from error
  return Unit(path, document['run_id'], rows)


def _damaged(path: pathlib.Path, reason: Exception) -> StoreError:
  return StoreError(
      f'{path} is damaged ({str(reason).rstrip(".")}). Delete it and run the '
      'sweep again: only this unit is computed again.')


def _read_manifest(path: pathlib.Path) -> list[Row]:
  """The entries of one manifest, checked against the hash in its name."""
  try:
    document = _read_document(path)
    if _sha256(document)[:16] != path.name.removesuffix('.json'):
      raise ValueError('its content does not match its name')
    return [_check_entry(entry, f'entry {i}')
            for i, entry in enumerate(document['entries'])]
  except StoreError as error:
    if str(path) in str(error):
      raise
    reason = error
  except (ValueError, KeyError) as error:
    reason = error
  raise StoreError(
      f'{path} is damaged ({str(reason).rstrip(".")}). Delete it and run the '
      'sweep again: it is written anew and nothing is computed again.'
  ) from reason


def _check_entry(entry: Mapping[str, Any], name: str) -> Row:
  """Checks a manifest entry with the fields of the row schema."""
  if set(entry) != set(_MANIFEST_FIELDS):
    raise StoreError(f'{name}: fields must be {sorted(_MANIFEST_FIELDS)}, got '
                     f'{sorted(entry)}.')
  checked = {}
  for key in _MANIFEST_FIELDS:
    if key in ('noise_stds', 'seeds'):
      values = entry[key]
      if not isinstance(values, (list, tuple)) or not values:
        raise StoreError(f'{name}: {key} must be a list of at least one, got '
                         f'{values!r}.')
      checked[key] = sorted(
          _check_value(value, ROW_SCHEMA[key[:-1]], f'{name}: {key}')
          for value in values)
    else:
      checked[key] = _check_value(entry[key], ROW_SCHEMA[key],
                                  f'{name}: {key}')
  return checked
