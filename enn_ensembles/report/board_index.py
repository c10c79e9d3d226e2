"""The index of published results: one page that links every folder of them."""

from collections.abc import Sequence
import html.parser
import importlib.resources
import os
import pathlib
from typing import NamedTuple
import urllib.parse

import jinja2

from enn_ensembles.machine import files
from enn_ensembles.machine import plain_text
from enn_ensembles.report import csv_files

NAME = 'index.html'


class Folder(NamedTuple):
  """A folder of published results.

  Attributes:
    name: its name.
    title: of its page, else its name.
    page: its page, if it has one.
    agents: agent settings on its board; None where it has no board.
    others: its other files: tables, pictures, rows.
  """
  name: str
  title: str
  page: str | None
  agents: int | None
  others: Sequence[str]


class _Title(html.parser.HTMLParser):
  """Reads the title of a page."""

  def __init__(self):
    super().__init__()
    self.title = ''
    self._is_inside = False

  def handle_starttag(self, tag, attrs):
    self._is_inside = tag == 'title' and not self.title

  def handle_data(self, data):
    if self._is_inside:
      self.title += data

  def handle_endtag(self, tag):
    self._is_inside = False


def _read_page(path: pathlib.Path) -> str:
  try:
    return files.read_bytes(path).decode()
  except UnicodeDecodeError:
    raise files.FileError(f'{path} is no page: it is not UTF-8.') from None
  except OSError as error:
    raise files.FileError(f'cannot read {path}: {error.strerror}.') from error


def read_folders(root: files.PathLike) -> list[Folder]:
  """The folders of published results, those with a board first.

  Raises:
    FileError: the folder is missing, or no folder.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise files.FileError(f'boards_dir {str(root)!r} is no folder.')
  found = []
  for folder in sorted(path for path in root.iterdir() if path.is_dir()):
    names = sorted(path.name for path in folder.iterdir()
                   if path.is_file() and not path.name.startswith('.'))
    pages = [name for name in names if name.endswith('.html')]
    title, agents = folder.name, None
    if pages:
      parser = _Title()
      parser.feed(_read_page(folder / pages[0]))
      title = f'{parser.title} ({folder.name})'
    if 'leaderboard.csv' in names:
      board = csv_files.read_table(folder / 'leaderboard.csv', 'the board')
      column = next((name for name in ('label', 'agent_id') if name in board),
                    None)
      if column is None:
        raise files.FileError(f'{folder / "leaderboard.csv"} must have a '
                              'column label or agent_id, it has neither.')
      agents = board[column].nunique()
    if names:
      found.append(Folder(folder.name, title, pages[0] if pages else None,
                          agents, [name for name in names
                                   if name not in pages[:1]]))
  return sorted(found, key=lambda folder: (folder.agents is None,
                                           folder.page is None, folder.name))


def _link(*names: str) -> str:
  """The address of a file in its folder, whatever characters are in names."""
  return '/'.join(urllib.parse.quote(os.fsencode(name)) for name in names)


def make_page(folders: Sequence[Folder]) -> str:
  """The index; links are relative to the folder of the folders."""
  source = (importlib.resources.files('enn_ensembles.report')
            / 'index.html.jinja').read_text(encoding='utf-8')
  environment = jinja2.Environment(autoescape=True,
                                   undefined=jinja2.StrictUndefined)
  return plain_text.printable(environment.from_string(source).render(
      link=_link,
      boards=[folder for folder in folders if folder.agents is not None],
      studies=[folder for folder in folders if folder.agents is None])) + '\n'


def write(root: files.PathLike) -> pathlib.Path:
  """Writes the index into the folder of the folders.

  Raises:
    FileError: the folder is missing, or cannot be written to.
  """
  path = files.as_folder(root, 'boards_dir') / NAME
  folders = read_folders(root)
  if not folders:
    raise files.FileError(
        f'boards_dir {str(root)!r} has no folder with results in it.')
  files.write_atomically(path, make_page(folders).encode())
  return path
