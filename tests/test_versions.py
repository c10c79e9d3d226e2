"""Boards show the newest version of a file; --forget removes an agent."""

import commands
from example_rows import make_row
import pytest

from enn_ensembles import results
from enn_ensembles.report import columns
from enn_ensembles.report import versions
from enn_ensembles.results import forgetting


def own_row(version, seed, day, **fields):
  return make_row(
      agent='mine', seed=seed, agent_id=f'mine-{version}',
      agent_config={'source-file': version},
      created=f'2026-01-{day:02d}T00:00:00+00:00', run_id=f'mine-{version}',
      row_id=f'{version}{seed}', **fields)


@pytest.fixture(name='rows')
def make_rows():
  """An agent of the package, and three versions of a file; 'b' is the last."""
  return [make_row(agent='ensemble', seed=0, row_id='e0', run_id='ensemble'),
          own_row('a', 0, 2), own_row('a', 1, 3), own_row('b', 0, 9),
          own_row('b', 1, 5), own_row('c', 0, 8)]


def test_only_the_newest_version_is_left(rows):
  found = versions.keep_newest(columns.collect(rows), [])
  assert found.columns.row_ids == ['e0', 'b0', 'b1']
  assert found.num_left_out == {'mine': 3}
  assert list(found.columns.codes('seed')) == [0, 0, 1]


def test_entries_of_older_versions_go_too(rows):
  def entry(agent, version):
    return {'agent': agent,
            'agent_config': {'source-file': version} if version else {}}

  entries = [entry('mine', 'a'), entry('mine', 'b'), entry('ensemble', None),
             entry('yours', 'x')]
  found = versions.keep_newest(columns.collect(rows), entries)
  assert found.entries == [entries[1], entries[2], entries[3]]


def write_store(folder, rows):
  store = results.open_store(folder, create=True)
  for run_id in {row['run_id']: None for row in rows}:
    store.write_unit(run_id, [row for row in rows if row['run_id'] == run_id])
  return store


def test_the_command_shows_the_newest_or_all_and_forgets(tmp_path, rows):
  store = write_store(tmp_path / 'results', rows)
  flags = [f'--results_dir={tmp_path / "results"}',
           f'--output_dir={tmp_path / "out"}']
  newest, every, unknown, forgot = commands.run_commands(
      'build_leaderboard', flags, [*flags, '--all_versions'],
      [*flags, '--forget=your'], [*flags, '--forget=mine'])
  assert newest[0] == 0 and newest[1].count('mine') == 1, newest
  assert every[0] == 0 and every[1].count('mine') == 3
  assert unknown[0] == 2
  assert "holds no agent 'your'; it has ensemble, mine." in unknown[2]
  assert forgot[0] == 0
  assert 'removing 5 rows of mine in 3 files' in forgot[1]
  assert [row['row_id'] for row in store.read_rows()] == ['e0']


def test_nothing_is_forgotten_where_another_flag_is_wrong(tmp_path, rows):
  store = write_store(tmp_path / 'results', rows)
  (tmp_path / 'file').touch()
  flags = [f'--results_dir={tmp_path / "results"}', '--forget=mine']
  commands.check_refused('build_leaderboard', [
      ([*flags, f'--output_dir={tmp_path / "file"}'], 'not a folder that can'),
      ([*flags, f'--output_dir={tmp_path / "out"}', '--score=kl'],
       'score must be one of kl_estimate, '),
      *(([*flags, f'--output_dir={tmp_path / "out"}', other], message)
        for other, message in (
            ('--baseline=nonsense', "rows, one of ensemble; got 'nonsense'"),
            # It has rows, but will not.
            ('--baseline=mine', "rows, one of ensemble; got 'mine'"),
            ('--by=nonsense', 'by must be one of data_ratio, '),
            ('--score=accuracy', 'no row is of a problem')))])
  assert len(store.read_rows()) == 6
  alone = write_store(tmp_path / 'alone', rows[1:3])
  commands.check_refused('build_leaderboard', [
      ([f'--results_dir={alone.results_dir}', '--forget=mine',
        f'--output_dir={tmp_path / "out"}'],
       "without the rows of 'mine' there are no rows to make a board of in ")])
  assert len(alone.read_rows()) == 2


def test_manifests_forget_it_too(tmp_path, rows):
  store = write_store(tmp_path / 'results', rows)

  def entry(row):
    problem = row['problem']
    return {**{key: row[key] for key in (
        'agent', 'agent_id', 'agent_label', 'agent_config', 'score_set',
        'selection', 'enumerate_indices')}, 'num_enn_samples': 1000,
            'problem': {'kind': 'nngp', 'cells': [problem['cell']],
                        'seeds': [0], 'ranking': problem['ranking']}}

  store.write_manifest([entry(rows[0]), entry(rows[1])])
  store.write_manifest([entry(rows[3])])
  found = forgetting.find(store, 'mine')
  assert (found.num_rows, found.num_entries) == (5, 2)
  forgetting.forget(store, found)
  assert [entry['agent'] for entry in store.read_entries()] == ['ensemble']
