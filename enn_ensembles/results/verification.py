"""Which rows of a results folder were computed again, and what came out.

`verification.csv` in the folder has a line per row that `verify_results` has
computed again: its id, whether it was within the promised tolerance, and what
differed if not. A later check of the same row replaces its line.
"""

from collections.abc import Mapping
import csv
import io
import pathlib

from enn_ensembles.machine import file_locks
from enn_ensembles.machine import files

FILE_NAME = 'verification.csv'
_FIELDS = ['row_id', 'passed', 'difference']


def read(results_dir: files.PathLike) -> dict[str, bool]:
  """row_id -> whether it passed; empty where nothing was checked.

  Raises:
    ValueError: the file cannot be read, or is none of these.
  """
  return {row_id: difference == ''
          for row_id, difference in _read(results_dir).items()}


def record(results_dir: files.PathLike, found: Mapping[str, str]) -> None:
  """Adds checks: row_id -> what differs, '' where the row passes.

  Raises:
    ValueError: the file cannot be read or written.
  """
  folder = pathlib.Path(results_dir)
  with file_locks.claim(folder / f'.{FILE_NAME}.lock'):
    merged = {**_read(results_dir), **found}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(_FIELDS)
    for row_id, difference in sorted(merged.items()):
      writer.writerow([row_id, 'no' if difference else 'yes', difference])
    files.write_atomically(folder / FILE_NAME, stream.getvalue().encode())


def _read(results_dir: files.PathLike) -> dict[str, str]:
  """row_id -> what differs, '' where the row passed.

  Raises:
    ValueError: the file cannot be read, or is none of these.
  """
  path = pathlib.Path(results_dir) / FILE_NAME
  try:
    text = files.read_bytes(path).decode()
    lines = list(csv.reader(io.StringIO(text)))
  except FileNotFoundError:
    return {}
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error.strerror}.') from error
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(f'{path} cannot be read: {error}.') from error
  if not lines or lines[0] != _FIELDS or any(
      len(line) != 3 or line[1] != ('no' if line[2] else 'yes')
      for line in lines[1:]):
    raise ValueError(f'{path} must have the columns {", ".join(_FIELDS)}, as '
                     'verify_results writes them.')
  return {row_id: difference for row_id, _, difference in lines[1:]}
