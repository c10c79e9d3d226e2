"""How the files of a store are read, and that each is what was written."""

import hashlib
import pathlib
from typing import Any
from typing import NamedTuple

from enn_ensembles.machine import files
from enn_ensembles.machine import plain_text
from enn_ensembles.machine import strict_json
from enn_ensembles.results import conversion
from enn_ensembles.results import manifest_entries
from enn_ensembles.results import schema


class Unit(NamedTuple):
  """A work unit as read: where it is and what it holds.

  Attributes:
    path: its file.
    run_id: its name.
    rows: its rows.
    digest: `digest_of` the file's content.
  """
  path: pathlib.Path
  run_id: str
  rows: list[schema.Row]
  digest: str = ''


def digest_of(content: bytes) -> str:
  """SHA-256 of a file's content, hexadecimal."""
  return hashlib.sha256(content).hexdigest()


def _read_document(path: pathlib.Path) -> tuple[dict[str, Any], bytes]:
  """A file of the store, parsed and as it is; the checks all files share.

  Raises:
    ValueError: it is not strict JSON, or lacks what all files have.
    FileError: it cannot be opened, or has another schema version.
  """
  try:
    content = files.read_bytes(path)
  except OSError as error:
    raise UnreadableError(path, error) from error
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


def read_unit(path: pathlib.Path,
              asked_draws: int = conversion.DEFAULT_DRAWS) -> Unit:
  """Reads one unit and checks that it is what was written.

  Args:
    path: its file.
    asked_draws: as in `conversion.convert_row`, for a unit of the old schema.

  Raises:
    DamagedError: it is not what was written.
    FileError: it cannot be opened, or has another schema version.
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
    raise DamagedError(path, error) from error
  except (ValueError, TypeError, AttributeError, RecursionError,
          OverflowError) as error:
    raise DamagedError(path, error) from error
  return Unit(path, document['run_id'], rows, digest_of(content))


class UnreadableError(files.FileError):
  """A file cannot be opened or read."""

  def __init__(self, path: pathlib.Path, error: OSError):
    self.path = path
    self.reason = error.strerror
    super().__init__(f'cannot read {path}: {self.reason}.')


class DamagedError(files.FileError):
  """A unit's file is not what was written."""

  def __init__(self, path: pathlib.Path, reason: Exception):
    self.path = path
    self.reason = str(reason).rstrip('.')
    super().__init__(
        f'{path} is damaged ({self.reason}). Delete it and run the sweep '
        'again: only this unit is computed again.')


def read_manifest(path: pathlib.Path) -> list[schema.Row]:
  """The entries of one manifest, checked against the hash in its name.

  Raises:
    FileError: it is not what was written.
  """
  try:
    document, _ = _read_document(path)
    if schema.sha256(document)[:16] != path.name.removesuffix('.json'):
      raise ValueError('its content does not match its name')
    entries = document['entries']
    if document['schema_version'] == conversion.OLD_VERSION:
      entries = [conversion.convert_entry(entry) for entry in entries]
    return [manifest_entries.check_entry(entry, f'entry {i}')
            for i, entry in enumerate(entries)]
  except files.FileError as error:
    if str(path) in str(error):
      raise
    reason = error
  except (ValueError, KeyError, TypeError, RecursionError,
          OverflowError) as error:
    reason = error
  raise files.FileError(
      f'{path} is damaged ({str(reason).rstrip(".")}). Delete it and run the '
      'sweep again: it is written anew and nothing is computed again.'
  ) from reason
