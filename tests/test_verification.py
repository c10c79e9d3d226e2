"""Rows are computed again, and what came out is kept."""

import os
import shutil
import subprocess

import commands
import example_rows
import pytest
import tiny_sweeps

from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.results import verification
from enn_ensembles.scoring import table
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results

HEAD = 'row_id,passed,difference\n'


@pytest.fixture(name='folder', scope='module')
def make_folder(tmp_path_factory):
  """Rows of moments and of fewer draws than usual."""
  folder = tmp_path_factory.mktemp('verified')
  store = results.open_store(folder / 'results', create=True)
  config = tiny_sweeps.make_config(
      folder, INPUT_DIM=[2], DATA_RATIO=[2], NOISE_STD=[0.1], SEED=[0],
      NUM_ENN_SAMPLES=20,
      AGENTS=[{'agent': 'exact_posterior', 'analytic': [True, False]}])
  for unit in sweeps.expand(config):
    rows, _ = one_unit.run_unit(unit, unit_results.RunOptions(
        str(store.results_dir)))
    store.write_unit(unit.run_id, rows)
  return store.results_dir


def verify(folder, *flags):
  done, = commands.run_commands('verify_results', [
      f'--results_dir={folder}', '--share=1', *flags,
      f'--cache_dir={commands.shared_problems()}'])
  return done


def test_another_problem_is_a_difference():
  compare = commands.load_command('verify_results').compare
  row = example_rows.make_row()
  assert compare(row, row) == ''
  facts = {**row['problem']['facts'], 'num_train': 7}
  text = compare(row, {**row, 'problem': {**row['problem'], 'facts': facts}})
  assert text.startswith('problem {') and "'num_train': 7" in text


def test_rows_of_images_cannot_be_computed_again(tmp_path):
  row = example_rows.make_image_row(agent='ensemble')
  row['scores'] = {name: 0.5 for name, score in table.scores_of(
      'classification').items() if score.required}
  store = results.open_store(tmp_path, create=True)
  store.write_unit(row['run_id'], [row])
  code, out, error = verify(tmp_path)
  assert (code, out) == (2, '') and error.count('\n') == 1
  assert 'has no row that can be computed again' in error


def test_a_folder_that_takes_no_findings_is_known_before(folder, tmp_path):
  with commands.small_disk(tmp_path / 'disk', '1m') as disk:
    shutil.copytree(folder, disk / 'results')
    subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
    code, out, error = verify(disk / 'results')
  assert (code, out) == (2, '') and error.count('\n') == 1
  assert 'is not a folder that can be written to' in error


def test_rows_pass_whatever_number_of_draws_was_asked_for(folder):
  code, out, error = verify(folder)
  assert (code, error) == (0, ''), out
  assert '2 of 2 rows pass; 0 of 2 rows cannot be checked.' in out
  assert list(verification.read(folder).values()) == [True, True]
  (folder / verification.FILE_NAME).unlink()


OWN = '''
import numpy as np

def make_agent():
  def agent(data, prior, key):
    def sampler(x, key):
      draws = np.random.default_rng(np.asarray(key))
      return draws.standard_normal((len(x), 1))
    return sampler
  return agent
'''


def test_rows_of_a_file_are_computed_again_by_the_same_text(tmp_path):
  """Another version of an agent is another agent: its rows are not wrong."""
  module = tmp_path / 'own.py'
  module.write_text(OWN)
  config = sweeps.override(tiny_sweeps.make_config(
      tmp_path, INPUT_DIM=[2], DATA_RATIO=[2], NOISE_STD=[0.1], SEED=[0],
      AGENTS=[{'agent': 'own'}, {'agent': 'prior_only'}]),
                           agent_modules=[str(module)])
  store = results.open_store(tmp_path / 'results', create=True)
  for unit in sweeps.expand(config, [str(module)]):
    rows, _ = one_unit.run_unit(unit, unit_results.RunOptions(
        str(store.results_dir), agent_modules=(str(module),)))
    store.write_unit(unit.run_id, rows)
  flag = f'--agent_module={module}'
  code, out, error = verify(store.results_dir, flag)
  assert (code, error) == (0, '') and '2 of 2 rows pass; 0 of 2' in out, out
  module.write_text(OWN.replace('standard_normal', 'standard_cauchy'))
  code, out, error = verify(store.results_dir, flag)
  assert (code, error) == (0, '') and '1 of 1 rows pass; 1 of 2' in out, out
  module.write_text('{')
  code, out, error = verify(store.results_dir, flag)
  assert (code, out) == (2, '') and 'cannot be imported: SyntaxError' in error
  assert sorted(verification.read(store.results_dir).values()) == [True, True]


def write(content):
  return lambda path: path.write_bytes(content)


@pytest.mark.parametrize('damage, reason', [
    (os.mkdir, 'cannot be read: it is no regular file.'),
    (os.mkfifo, 'cannot be read: it is no regular file.'),
    (lambda path: path.symlink_to(path), 'cannot be read: Too many levels of'),
    (write(b''), 'must have the columns row_id, passed, difference'),
    (write(HEAD.encode() + b'a,ye'), 'must have the columns'),
    (write(b'\xff'), "cannot be read: 'utf-8' codec"),
    (write(HEAD.encode() + b'a,no,"' + b'x' * 200_000),
     'cannot be read: field larger than')])
def test_a_damaged_file_is_named_before_anything_is_computed(
    folder, damage, reason):
  path = folder / verification.FILE_NAME
  damage(path)
  try:
    code, out, error = verify(folder)
  finally:
    path.rmdir() if path.is_dir() else path.unlink()
  assert code == 2 and not out
  assert error.count('\n') == 1 and f'{path} ' in error and reason in error
