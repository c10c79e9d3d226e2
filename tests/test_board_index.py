"""The index of published results."""

import os
import re
import urllib.parse

import example_rows
import pytest

from enn_ensembles.report import board_index

BOARDS = example_rows.ROOT / 'leaderboards'


def links(text):
  return re.findall(r'(?:href|src)="([^"]*)"', text)


def test_every_link_of_the_published_index_leads_somewhere():
  found = links((BOARDS / board_index.NAME).read_text(encoding='utf-8'))
  assert len(found) > 20
  missing = [link for link in found if not (BOARDS / link).exists()]
  assert not missing, 'run python -m experiments.index_boards'


def test_the_published_boards_have_pages():
  text = (BOARDS / board_index.NAME).read_text(encoding='utf-8')
  boards = [path.parent for path in BOARDS.glob('*/leaderboard.csv')]
  assert boards
  for board in boards:
    page = f'{board.name}/leaderboard.html'
    assert (BOARDS / page).exists() and f'href="{page}"' in text


def test_folders_become_entries(tmp_path):
  board, study = tmp_path / 'a_board', tmp_path / 'b_study'
  for folder in (board, study, tmp_path / 'empty'):
    folder.mkdir()
  (board / 'leaderboard.csv').write_text('label\nmap\nmap\nensemble\n')
  (board / 'leaderboard.html').write_text(
      '<title>Agents &amp; &lt;b&gt;x</title><svg><title>y</title></svg>')
  (study / '<b>.csv').write_text('')
  (study / '.hidden').write_text('')
  folders = board_index.read_folders(tmp_path)
  assert folders == [
      board_index.Folder('a_board', 'Agents & <b>x (a_board)',
                         'leaderboard.html', 2, ['leaderboard.csv']),
      board_index.Folder('b_study', 'b_study', None, None, ['<b>.csv'])]
  text = board_index.write(tmp_path).read_text()
  assert 'a_board/leaderboard.html' in links(text)
  assert '<b>' not in text and '&lt;b&gt;.csv' in text
  with pytest.raises(ValueError, match='no_such'):
    board_index.write(tmp_path / 'no_such')


def test_links_lead_to_files_of_any_name(tmp_path):
  names = [b'a b#c?d%41.csv', 'עברית é.csv'.encode(), b'\xff\x1b"<.csv',
           b'two\nlines.csv']
  folder = os.fsencode(tmp_path) + b'/50% "board" \xfe'
  os.mkdir(folder)
  for name in names:
    with open(os.path.join(folder, name), 'wb'):
      pass
  text = board_index.write(tmp_path).read_text(encoding='utf-8')
  found = {urllib.parse.unquote_to_bytes(link) for link in links(text)}
  assert found >= {os.path.join(os.path.basename(folder), name)
                   for name in names}
  assert '\x1b' not in text


@pytest.mark.parametrize('file, content, message', [
    ('leaderboard.csv', b'', 'is no CSV file: No columns'),
    ('leaderboard.csv', b'agent,kl\nmap,1\n', 'a column label or agent_id'),
    ('leaderboard.csv', b'label\n"map\n', 'is no CSV file'),
    ('leaderboard.csv', b'label\n\xff\n', 'is no CSV file'),
    ('leaderboard.html', b'\xff', 'is no page: it is not UTF-8')])
def test_a_damaged_board_is_named(tmp_path, file, content, message):
  (tmp_path / 'board').mkdir()
  (tmp_path / 'board' / file).write_bytes(content)
  with pytest.raises(ValueError, match=message) as caught:
    board_index.write(tmp_path)
  assert str(tmp_path / 'board' / file) in str(caught.value)
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'index.html').exists()


def test_pipes_are_no_files_of_a_board(tmp_path):
  (tmp_path / 'board').mkdir()
  for name in ('leaderboard.csv', 'leaderboard.html'):
    os.mkfifo(tmp_path / 'board' / name)
  assert not board_index.read_folders(tmp_path)
