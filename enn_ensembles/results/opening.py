"""Results folders are opened, or made; what is something else is refused.

This module does not import jax.
"""

import json
import pathlib

from enn_ensembles.machine import files
from enn_ensembles.results import schema
from enn_ensembles.results import store as store_lib


def _check_new(folder: pathlib.Path) -> None:
  """FileError if a folder without STORE.json holds anything."""
  # Another process may be about to make the same store: its hidden files are no
  # reason to refuse, and it writes the same content.
  found = sorted(path.name for path in folder.iterdir()
                 if not path.name.startswith('.'))
  if found and not (folder / 'STORE.json').exists():
    raise files.FileError(
        f'results_dir {str(folder)!r} is not empty and no results store of '
        f'{schema.PROJECT} (it has {", ".join(found[:3])} and no STORE.json): '
        'give an empty or a new folder.')


def find_store(results_dir: files.PathLike) -> store_lib.ResultsStore | None:
  """The store that `open_store(results_dir, create=True)` would open.

  Nothing is made; None where that would make a store.

  Raises:
    FileError: as `open_store` does.
  """
  files.check_folder(results_dir, 'results_dir')
  folder = pathlib.Path(results_dir)
  if not (folder / 'STORE.json').exists():
    if folder.is_dir():
      _check_new(folder)
    return None
  store = store_lib.ResultsStore(results_dir)
  store.check_writable()
  return store


def open_store(results_dir: files.PathLike,
               create: bool = False) -> store_lib.ResultsStore:
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
      _check_new(folder)
      text = json.dumps({
          'project': schema.PROJECT,
          'schema_version': schema.SCHEMA_VERSION
      })
      files.write_atomically(header, (text + '\n').encode())
  store = store_lib.ResultsStore(results_dir)
  if create:
    store.check_writable()
    files.make_folder(store.results_dir / 'units', 'results_dir')
    files.make_folder(store.results_dir / 'manifests', 'results_dir')
  return store
