"""The study of random features: the same members as the agent's."""

import commands
import jax
import numpy as np
import pandas as pd
import pytest

from enn_ensembles import problems
from enn_ensembles.agents import random_features
from enn_ensembles.machine import files
from enn_ensembles.problems import draws
from enn_ensembles.studies.random_features import measuring

_SMALL = dict(num_test=20, num_val=2)


def test_members_are_those_of_the_agent():
  """More units than points, and fewer; noise levels share a draw."""
  group = problems.make_problems([problems.ProblemConfig(3, 4, noise_std, 1,
                                                         **_SMALL)
                                  for noise_std in (0.1, 1.)])
  for width in (5, 30):
    found = measuring.predict_members(group, width, 3)
    for problem, own in zip(group, found):
      agent = random_features.make_agent(
          random_features.RandomFeaturesConfig(3, width))
      sampler = agent(problem.data, problem.prior, draws.agent_key(1))
      np.testing.assert_allclose(sampler.members(problem.x_test)[..., 0], own,
                                 rtol=1e-6, atol=1e-6)
  row = measuring.measure(group, 30, [2, 3])[1]
  assert (row['width'], row['num_ensemble'], row['num_train']) == (30, 3, 12)
  assert row['kl_floor'] == np.inf and row['kl_estimate'] > 0


def configs(*noise_stds, seed=1):
  return [problems.ProblemConfig(3, 4, noise_std, seed, **_SMALL)
          for noise_std in noise_stds]


def test_nothing_is_measured_twice(monkeypatch):
  """Of a group, the noise levels and numbers alone that have no row."""
  asked, measure = [], measuring.measure
  monkeypatch.setattr(measuring, 'measure', lambda group, width, nums: (
      asked.append(([problem.noise_std for problem in group], width, nums))
      or measure(group, width, nums)))
  groups = [configs(0.1, 1.), configs(0.1, 1., seed=2)]
  rows = {}
  sizes = [len(rows) for _ in measuring.add_missing(rows, groups, 5, [2, 3])]
  assert sizes == [4, 8]  # A group can be kept when it is done.
  assert asked == [([0.1, 1.], 5, (2, 3))] * 2
  whole = dict(rows)
  lost = [key for key, row in rows.items() if row['seed'] == 2 and (
      row['noise_std'], row['num_ensemble']) in ((0.1, 3), (1., 2), (1., 3))]
  for key in lost:
    del rows[key]
  asked.clear()
  assert len(list(measuring.add_missing(rows, groups, 5, [2, 3]))) == 1
  assert asked == [([0.1], 5, (3,)), ([1.], 5, (2, 3))] and rows == whole
  assert not list(measuring.add_missing(rows, groups, 5, [3]))


_HEADER = ','.join(measuring.COLUMNS)
_LINE = '3,4.0,0.1,12,1,5,2,solved,0.5,0.25,inf'


def test_rows_come_back(tmp_path):
  path = tmp_path / 'table.csv'
  assert measuring.read_rows(path) == []
  path.write_text(f'{_HEADER}\n{_LINE}\n')
  row, = measuring.read_rows(path)
  assert list(row.values()) == [3, 4., 0.1, 12, 1, 5, 2, 'solved', 0.5, 0.25,
                                np.inf]
  assert list(map(type, row.values())) == list(measuring.COLUMNS.values())


@pytest.mark.parametrize('content, message', [
    ('', 'its columns'), ('width,kl\n1,2\n', 'its columns'),
    (f'{_HEADER},more\n{_LINE},1\n', 'its columns'),
    (f'{_HEADER}\n{_LINE}', 'cut short'),
    (f'{_HEADER}\n{_LINE[:-8]}\n', 'line 2 has 10 fields'),
    (f'{_HEADER}\n{_LINE}\n{_LINE}\n', 'two lines'),
    (f'{_HEADER}\n{_LINE.replace("0.5", "nan")}\n', 'kl_estimate nan'),
    (f'{_HEADER}\n{_LINE.replace("0.5", "inf")}\n', 'kl_estimate inf'),
    (f'{_HEADER}\n{_LINE.replace("12", "12.5")}\n', "num_train '12.5'"),
    (f'{_HEADER}\n{_LINE.replace("3,", "-3,")}\n', 'input_dim -3'),
    (f'{_HEADER}\n"{_LINE}\n', 'unexpected end')])
def test_damaged_tables_are_refused(tmp_path, content, message):
  path = tmp_path / 'table.csv'
  path.write_text(content)
  with pytest.raises(files.FileError, match='is damaged') as error:
    measuring.read_rows(path)
  assert message in str(error.value) and '\n' not in str(error.value)
  path.write_bytes(b'\xff\xfe')
  with pytest.raises(files.FileError, match='is damaged'):
    measuring.read_rows(path)


def test_command(tmp_path):
  assert jax.config.jax_enable_x64
  flags = ['--input_dim=2', '--data_ratio=2', '--noise_std=0.1,1', '--seed=0']
  whole, parts, cut = (tmp_path / name for name in ('whole', 'parts', 'cut'))
  tables = [folder / 'random_features.csv' for folder in (whole, parts)]
  cut.mkdir()
  (cut / 'random_features.csv').write_text('width\n4\n')
  found = commands.run_commands(
      'random_features_study',
      [*flags, f'--output_dir={whole}', '--width=4,8', '--num_ensemble=4,6'],
      [*flags, f'--output_dir={parts}', '--width=8', '--num_ensemble=6'],
      [*flags, f'--output_dir={parts}', '--width=4,8', '--num_ensemble=4,6'],
      [f'--output_dir={whole}', '--width=wide'],
      [*flags, f'--output_dir={cut}', '--width=4'])
  assert [code for code, _, _ in found] == [0, 0, 0, 2, 2], found
  assert "'wide'" in found[3][2]
  assert 'is damaged' in found[4][2] and found[4][2].count('\n') == 1
  assert (cut / 'random_features.csv').read_text() == 'width\n4\n'
  table = pd.read_csv(tables[0])
  assert len(table) == 2 * 2 * 2 and set(table['last_layer']) == {'solved'}
  assert tables[0].read_bytes() == tables[1].read_bytes()
  assert (whole / 'random_features.png').read_bytes()[:4] == b'\x89PNG'
  # What is there is taken as it is, and what was not asked for stays.
  lines = tables[1].read_text().splitlines()
  lines[1] = lines[1].rpartition(',')[0].rpartition(',')[0] + ',7.5,0.25'
  tables[1].write_text('\n'.join(lines) + '\n')
  code, _, _ = commands.run_commands('random_features_study', [
      *flags, f'--output_dir={parts}', '--width=4', '--num_ensemble=4'])[0]
  assert code == 0 and tables[1].read_text().splitlines() == lines
