"""Parts of a study that are kept as files, so that a stopped study goes on."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
import time
from typing import Any
from typing import NamedTuple

from enn_ensembles.machine import canonical
from enn_ensembles.machine import files
from enn_ensembles.machine import peak_memory

Tables = dict[str, list[dict[str, Any]]]


class Unit(NamedTuple):
  """A part of a study.

  Attributes:
    name: of its file, readable.
    settings: what is computed, of which its file's name has a hash.
    run: computes what is kept, of which JSON is made.
    is_sound: whether what a file holds has the form that `run` returns.
    tables: its lines by table, from what is kept.
  """
  name: str
  settings: Any
  run: Callable[[], Any]
  is_sound: Callable[[Any], bool]
  tables: Callable[[Any], Mapping[str, list[dict[str, Any]]]]


def run_units(units: Sequence[Unit], folder: pathlib.Path,
              only_kept: bool) -> Tables:
  """The lines of all units by table; what is missing is computed and kept.

  Args:
    units: the parts of the study; their order is that of the lines.
    folder: of `open_folder`.
    only_kept: nothing is computed, and missing parts are left out.

  Raises:
    ValueError: nothing is kept and may be computed, or a file is damaged.
  """
  tables: Tables = {}
  for unit in units:
    path = folder / f'{unit.name}_{canonical.config_hash(unit.settings)}.json'
    found = find_or_run(path, None if only_kept else unit.run, unit.is_sound)
    if found is not None:
      for table, lines in unit.tables(found).items():
        tables.setdefault(table, []).extend(lines)
  if not tables:
    raise ValueError('output_dir must hold units with --only_kept, got none '
                     f'of {len(units)} in {folder}.')
  return tables


def run_counted(name: str, run: Callable[[], Any]
                ) -> tuple[Any, dict[str, Any]]:
  """Says that a part runs, and what `run` returns and costs.

  The costs are `cpu_seconds` and `peak_memory_mb`; the memory is that of the
  process so far, of earlier parts, too.
  """
  print(name, flush=True)
  start = time.process_time()
  found = run()
  return found, {'cpu_seconds': time.process_time() - start,
                 'peak_memory_mb': peak_memory.since_start_mb()}


def open_folder(output_dir: files.PathLike, only_kept: bool) -> pathlib.Path:
  """The folder of a study's parts, `units` in its output folder.

  Args:
    output_dir: the output folder.
    only_kept: nothing is computed: no folder is made.

  Raises:
    FileError: it cannot be written to.
  """
  folder = files.as_folder(output_dir, 'output_dir') / 'units'
  (files.check_folder if only_kept else files.make_folder)(folder, 'output_dir')
  return folder


def find_or_run(path: pathlib.Path, run: Callable[[], Any] | None,
                is_sound: Callable[[Any], bool]) -> Any | None:
  """What a file holds; else what `run` returns, which is written there.

  Args:
    path: the file, of JSON in which numbers need not be finite.
    run: computes what is kept; None to compute nothing.
    is_sound: whether what the file holds has the form that `run` returns.

  Returns:
    What is kept; None where nothing is, and `run` is None.

  Raises:
    ValueError: the file cannot be read, or holds something else.
  """
  try:
    text = files.read_bytes(path)
  except FileNotFoundError:
    if run is None:
      return None
    text = json.dumps(run()).encode()
    files.write_atomically(path, text)
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error.strerror}.') from error
  try:
    found = json.loads(text)
    if is_sound(found):
      return found
    reason = 'it holds something else than its part of the study'
  except (ValueError, RecursionError) as error:
    reason = str(error)
  raise ValueError(f'{path} is damaged ({reason}). Delete it and run the '
                   'command again: only this part is computed again.')


def are_lines(found: Any) -> bool:
  """Whether it is a list of lines of a table."""
  return isinstance(found, list) and all(
      isinstance(line, dict) for line in found)
