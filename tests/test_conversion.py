"""Results of the schema before are read as rows of today, and converted."""

import collections
import functools
import json
import math
import pathlib
import re

import commands
import example_rows
import pytest

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.results import conversion
from enn_ensembles.results import schema

make_entry = example_rows.make_entry
make_unit = example_rows.make_unit
edit_json = example_rows.edit_json


def make_old_row(kl=0.5, **fields):
  """A row of schema 3, as sweeps of that time wrote it."""
  failed = kl is None
  row = {
      'schema_version': 3, 'run_id': 'ensemble-D10_l1_bayes-0123456789',
      'row_id': f'old-{fields.get("seed", 0)}', 'agent': 'ensemble',
      'agent_id': 'ensemble,num_ensemble=30',
      'agent_config': {'num_ensemble': 30, 'hidden_sizes': [50, 50]},
      'problem_id': f'D10_l1_e0.1_s{fields.get("seed", 0)}_bayes',
      'input_dim': 10, 'data_ratio': 1., 'noise_std': 0.1, 'seed': 0,
      'reference': 'bayes', 'kernel': 'relu2', 'num_train': 10,
      'num_enn_samples': None, 'enumerate_indices': True,
      'num_samples_used': 30, 'selection': 'none', 'dtype': 'float32',
      'status': 'failed' if failed else 'ok', 'message': 'x' * failed,
      'kl_estimate': kl, 'kl_reverse': None if failed else 0.25,
      'mean_error': None if failed else 0.1,
      'std_error': None if failed else 0.2,
      'mean_rmse': None if failed else 0.3,
      'std_ratio': None if failed else 0.9,
      'kl_floor': None if failed else 0.04,
      'path': None if failed else {
          'order': [1, 0], 'kl_estimate': [2., 1.5], 'kl_reverse': [1., 0.1]},
      'num_params': 1000, 'train_seconds': 0.5, 'evaluate_seconds': 0.1,
      'rank_seconds': None, 'problem_seconds': 0.2, 'compile_seconds': 3.,
      'versions': {'jax': '0.10.2'}, 'device': 'cpu',
      'created': '2026-01-02T03:04:05Z'}
  return {**row, **fields}


def write_old_store(folder, rows, asked=1000):
  """A results folder as schema 3 had it, with its checksums and a manifest."""
  def encoded(row):
    return {key: 'Infinity' if value == math.inf else value
            for key, value in row.items()}
  rows = [encoded(row) for row in rows]
  (folder / 'units').mkdir(parents=True)
  (folder / 'manifests').mkdir()
  head = {'project': 'enn_ensembles', 'schema_version': 3}
  (folder / 'STORE.json').write_text(json.dumps(head))
  run_id = rows[0]['run_id']
  (folder / 'units' / f'{run_id}.json').write_text(json.dumps(
      {**head, 'run_id': run_id, 'sha256': schema.sha256(rows), 'rows': rows}))
  entry = {key: rows[0][key] for key in (
      'agent', 'agent_id', 'agent_config', 'input_dim', 'data_ratio',
      'reference', 'kernel', 'selection', 'enumerate_indices')}
  entry.update(noise_stds=[0.1], seeds=[0, 1, 2], num_enn_samples=asked)
  manifest = {**head, 'entries': [entry]}
  (folder / 'manifests' / f'{schema.sha256(manifest)[:16]}.json').write_text(
      json.dumps(manifest))
  return folder


@pytest.fixture(name='old_folder')
def fixture_old_folder(tmp_path):
  return write_old_store(tmp_path / 'old', [
      make_old_row(0.1 + 0.2),
      make_old_row(1e5, seed=1, kl_floor=math.inf,
                   problem_id='D10_l1_e0.1_s1_bayes_matrix_free'),
      make_old_row(None, seed=2)], asked=100)


def test_an_old_folder_is_read_as_rows_of_today(old_folder):
  store = results.open_store(old_folder)
  first, second, third = store.read_rows()
  assert results.check_row(first) == first
  assert first['agent_label'] == 'ensemble,num_ensemble=30'
  assert re.fullmatch('ensemble-[0-9a-f]{10}', first['agent_id'])
  assert first['problem'] == {
      'kind': 'nngp', 'seed': 0,
      'cell': {'input_dim': 10, 'data_ratio': 1., 'noise_std': 0.1},
      'ranking': {'reference': 'bayes', 'kernel': 'relu2'},
      'facts': {'num_train': 10}}
  assert first['scores'] == {
      'kl_estimate': 0.1 + 0.2, 'kl_reverse': 0.25, 'mean_error': 0.1,
      'std_error': 0.2, 'mean_rmse': 0.3, 'std_ratio': 0.9, 'kl_floor': 0.04}
  assert first['curve'] == make_old_row()['path']
  # Draws come from the manifest: a sweep that goes on finds its rows done.
  assert first['row_id'] == results.make_row_id(first, 100)
  assert first['row_id'] != results.make_row_id(first, 1000)
  assert second['scores']['kl_floor'] == math.inf
  assert second['problem']['facts']['solver'] == 'matrix_free'
  assert (third['status'], third['scores']) == ('failed', None)
  expected = store.read_manifests()
  assert [row['problem']['seed'] for row in expected] == [0, 1, 2]
  assert {row['agent_id'] for row in expected} == {first['agent_id']}


@pytest.mark.parametrize('change, message', [
    (lambda d: d['rows'][0].update(kl_estimate=0.2), 'match its checksum'),
    (lambda d: (d['rows'][0].pop('kl_floor'),
                d.update(sha256=schema.sha256(d['rows']))),
     r"missing fields \['kl_floor'\]")])
def test_a_damaged_old_unit_is_named(old_folder, change, message):
  edit_json(next((old_folder / 'units').iterdir()), change)
  with pytest.raises(files.FileError, match=f'is damaged .*{message}'):
    results.open_store(old_folder).read_rows()


def test_writers_refuse_an_old_folder_and_name_the_command(old_folder):
  for write in (
      lambda: results.open_store(old_folder, create=True),
      lambda: results.open_store(old_folder).write_unit(*make_unit()),
      lambda: results.open_store(old_folder).write_manifest([make_entry()])):
    with pytest.raises(files.FileError) as error:
      write()
    assert 'run python -m experiments.convert_results' in str(error.value)
    assert '\n' not in str(error.value)


_convert = functools.partial(commands.run_module,
                             'experiments.convert_results')


def test_command_converts_a_folder(old_folder, tmp_path):
  done = _convert(f'--results_dir={old_folder}', f'--output_dir={tmp_path}/now')
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout.startswith('3 rows of 1 units')
  old, new = (results.open_store(f) for f in (old_folder, tmp_path / 'now'))
  assert new.schema_version == results.SCHEMA_VERSION
  assert repr(new.read_rows()) == repr(old.read_rows())
  assert new.read_manifests() == old.read_manifests()
  done = _convert(f'--results_dir={tmp_path}/now', f'--output_dir={tmp_path}/x')
  assert done.returncode == 2
  assert 'already has schema_version 4' in done.stderr


def test_command_makes_a_folder_of_a_published_csv(tmp_path):
  path = pathlib.Path(__file__).parent / 'data/earlier_report/scores.csv'
  done = _convert(f'--scores_csv={path}', f'--output_dir={tmp_path}/now')
  assert (done.returncode, done.stderr) == (0, '')
  rows = results.open_store(tmp_path / 'now').read_rows()
  assert len(rows) == 30
  assert {row['agent_config'].get('num_ensemble') for row in rows} == {
      None, 1, 3, 10, 30}
  done = _convert(f'--output_dir={tmp_path}/now')
  assert done.returncode == 2 and 'either --results_dir or' in done.stderr
  (tmp_path / 'bad.csv').write_text('a,b\n1,2\n')
  done = _convert(f'--scores_csv={tmp_path}/bad.csv',
                  f'--output_dir={tmp_path}/x')
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert 'is no scores.csv of an earlier report' in done.stderr
  assert not (tmp_path / 'x').exists()


def test_command_converts_the_rows_of_some_agents(old_folder, tmp_path):
  path = pathlib.Path(__file__).parent / 'data/earlier_report/scores.csv'
  done = _convert(f'--scores_csv={path}', f'--output_dir={tmp_path}/now',
                  '--agents=map,prior_only')
  assert (done.returncode, done.stderr) == (0, '')
  rows = results.open_store(tmp_path / 'now').read_rows()
  assert collections.Counter(row['agent'] for row in rows) == {
      'map': 3, 'prior_only': 3}
  # What is expected of other agents is left out with their rows.
  agent = results.open_store(old_folder).read_rows()[0]['agent']
  done = _convert(f'--results_dir={old_folder}', f'--output_dir={tmp_path}/x',
                  f'--agents={agent}')
  assert (done.returncode, done.stderr) == (0, '')
  assert {entry['agent'] for entry in results.open_store(
      tmp_path / 'x').read_entries()} == {agent}
  done = _convert(f'--scores_csv={path}', f'--output_dir={tmp_path}/none',
                  '--agents=mapp')
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert "--agents must be one of 'ensemble'" in done.stderr
  assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize('damage, message', [
    (lambda text: text[:-9], 'it ends within a line: it is truncated'),
    (lambda text: text[:-9] + '\n', 'line 31: ValueError: it has more or'),
    (lambda text: text[:-1] + ',,\n', 'line 31: ValueError: it has more or')])
def test_a_damaged_csv_is_refused(tmp_path, damage, message):
  path = pathlib.Path(__file__).parent / 'data/earlier_report/scores.csv'
  (tmp_path / 'cut.csv').write_text(damage(path.read_text()))
  with pytest.raises(files.FileError, match=message) as error:
    conversion.rows_from_scores_csv(tmp_path / 'cut.csv')
  assert '\n' not in str(error.value)
