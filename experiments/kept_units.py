"""Parts of a study that are kept as files, so that a stopped study goes on."""

from collections.abc import Callable
import json
import pathlib
from typing import Any

from enn_ensembles.machine import files


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
