"""From folders of results to the files of a report, and the command."""

import functools
import random

import commands
from example_rows import make_entry
from example_rows import make_rows
from example_rows import realistic_rows
import pytest

from enn_ensembles import results
from enn_ensembles.report import board_picture
from enn_ensembles.report import csv_files
from enn_ensembles.report import html_page
from enn_ensembles.report import tables as tables_lib


def test_report_does_not_depend_on_the_order_of_rows(tmp_path):
  rows, expected = realistic_rows()
  written = []
  for i in range(2):
    paths = html_page.write_report(
        tables_lib.make_tables(rows, expected), tmp_path / str(i))
    written.append({name: path.read_bytes() for name, path in paths.items()})
    random.Random(i).shuffle(rows)
    random.Random(i).shuffle(expected)
  assert set(written[0]) == {'leaderboard.html', 'leaderboard.png',
                             'leaderboard.csv', 'cells.csv', 'costs.csv',
                             'scores.csv'}
  for name, content in written[0].items():
    assert content == written[1][name], name


def test_means_do_not_change_with_the_timing_fields():
  rows, expected = realistic_rows()
  slow = [{**row, 'train_seconds': 9., 'device': 'gpu', 'created': 'later',
           'versions': {}, 'cost': {'peak_memory_mb': 9.}} for row in rows]
  first, second = (tables_lib.make_tables(r, expected) for r in (rows, slow))
  drop = ['train_seconds_mean', 'peak_memory_mb_max']
  assert csv_files.table_text(first.leaderboard.drop(columns=drop)) == (
      csv_files.table_text(second.leaderboard.drop(columns=drop)))
  assert csv_files.table_text(first.cells) == csv_files.table_text(second.cells)
  assert board_picture.make_picture(first) == board_picture.make_picture(second)


def _fill(folder, rows, entries=()):
  store = results.open_store(folder, create=True)
  for run_id in {row['run_id'] for row in rows}:
    store.write_unit(run_id, [r for r in rows if r['run_id'] == run_id])
  if entries:
    store.write_manifest(entries)
  return folder


def test_build_reads_several_folders(tmp_path):
  one = _fill(tmp_path / 'one', make_rows('a', ((1., 2.),)))
  two = _fill(tmp_path / 'two', make_rows('b', ((3., 4.),)),
              [make_entry('b', noise_stds=[0.01], seeds=[0, 1, 2])])
  tables, paths = html_page.build([one, two], tmp_path / 'x' / 'out')
  board = tables.leaderboard.set_index('label')
  assert board['num_expected'].to_dict() == {'a': 2, 'b': 2}
  assert all(path.stat().st_size for path in paths.values())
  tables, _ = html_page.build(str(two), tmp_path / 'out')
  assert tables.leaderboard['num_expected'].tolist() == [3]


def test_folder_without_rows_is_refused(tmp_path):
  empty = results.open_store(tmp_path / 'empty', create=True)
  empty.write_manifest([make_entry()])
  with pytest.raises(ValueError, match='empty holds no rows yet: run the sw'):
    html_page.build(empty.results_dir, tmp_path / 'out')
  with pytest.raises(ValueError, match="none' does not exist"):
    html_page.build(tmp_path / 'none', tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


_command = functools.partial(commands.run_module,
                             'experiments.build_leaderboard')


def test_command_prints_the_table_and_the_files(tmp_path):
  folder = _fill(tmp_path / 'results', make_rows('a', ((1., 2.),)))
  done = _command(f'--results_dir={folder}', f'--output_dir={tmp_path}/out')
  assert (done.returncode, done.stderr) == (0, '')
  assert 'a ' in done.stdout and '1.50' in done.stdout
  for name in ('scores.csv', 'leaderboard.html'):
    assert f'{tmp_path}/out/{name}' in done.stdout
    assert (tmp_path / 'out' / name).stat().st_size > 0


def test_command_errors_are_one_line(tmp_path):
  out = f'--output_dir={tmp_path}/out'
  damaged = _fill(tmp_path / 'damaged', make_rows('a', ((1., 2.),)))
  unit = next((damaged / 'units').iterdir())
  unit.write_text(unit.read_text()[:100])
  (tmp_path / 'file').write_text('')
  good = _fill(tmp_path / 'good', make_rows('a', ((1., 2.),)))
  for flags, message in (
      ([f'--results_dir={damaged}', out], f'{unit} is damaged'),
      ([f'--results_dir={good}', f'--output_dir={tmp_path}/file'],
       'output_dir'),
      ([f'--results_dir={good}', out, 'extra'], "unknown argument 'extra'")):
    done = _command(*flags)
    assert done.returncode == 2
    assert done.stdout == ''
    assert message in done.stderr
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_command_keeps_the_traceback_where_it_is_asked_for(tmp_path):
  done = _command(f'--results_dir={tmp_path}/none', f'--output_dir={tmp_path}',
                  '--verbosity=1')
  assert done.returncode != 0
  assert 'Traceback' in done.stderr
