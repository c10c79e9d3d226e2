"""Wrong commands: one line, before any work, and nothing is written."""

import importlib.util
import os
import subprocess
import sys

import commands
import numpy as np
import pytest

from enn_ensembles import results
from enn_ensembles.machine import files

BELOW = 'file/below'  # No folder can be made there.


@pytest.fixture(name='folder', scope='module')
def make_folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('wrong')
  (folder / 'file').touch()
  (folder / 'empty').mkdir()
  (folder / 'named').mkdir()
  np.savez(folder / 'named' / 'D2_l1_e0.1_s0_bayes.npz', mean=np.zeros(3))
  results.open_store(folder / 'store', create=True)
  return folder


def check(folder, name, base, cases):
  """Every case is the base with one flag changed, and part of the message."""
  before = sorted(folder.rglob('*'))
  commands.check_refused(name, [
      ([f'--{flag}={str(value).format(folder)}' for flag, value in
        {**base, **changes}.items()], message) for changes, message in cases])
  assert sorted(folder.rglob('*')) == before


def test_score_predictions(folder):
  check(folder, 'score_predictions', {
      'predictions': '{}/named', 'label': 'a', 'results_dir': '{}/new',
      'cache_dir': ''}, [
          ({'predictions': ''}, "predictions must be a folder, got ''"),
          ({'predictions': '{}/file'}, 'predictions must be a folder'),
          ({'num_params': -1}, '--num_params must be an integer >= 0, got -1'),
          ({'num_params': 10**30}, '--num_params must be at most 2**32'),
          ({'num_params': 'many'},
           "--num_params must be an integer, got 'many'"),
          ({'solver_memory_mb': 'nan'}, '--solver_memory_mb must be a finite'),
          ({'solver_memory_mb': 'x'},
           "--solver_memory_mb must be a number, got 'x'"),
          # Before problems are made, which may take hours.
          ({'results_dir': ''}, 'results_dir must name a folder, got nothing'),
          ({'results_dir': '{}/' + BELOW}, 'not a folder that can be written'),
          ({'agent_module': 'a.py'}, '--agent_module is of no use here'),
          ({'ground_truth_dir': '{}/none'}, '--ground_truth_dir must be a fol'),
          ({'data_dir': '{}/file'}, '--data_dir must be a folder, got'),
          ({'solver_memory_mb': '1e300'}, '--solver_memory_mb must be at most'),
          ({}, 'D2_l1_e0.1_s0_bayes.npz must have either samples, or mean'),
      ])


@pytest.mark.parametrize('name', [
    'figure2', 'compare_scores', 'choose_settings', 'board_audit',
    'verify_claims', 'batch_ensemble_study', 'build_leaderboard'])
def test_commands_that_read_rows(folder, name):
  check(folder, name, {'results_dir': '{}/store', 'output_dir': '{}/out'}, [
      ({'results_dir': ''}, 'results_dir must name a folder, got nothing'),
      ({'results_dir': '{}/store,'}, 'results_dir must name a folder, got not'),
      ({'results_dir': '{}/empty'}, 'it has no STORE.json'),
      ({}, 'holds no rows yet')])


def test_compare_scores(folder):
  base = {'results_dir': '{}/store', 'output_dir': '{}/out'}
  check(folder, 'compare_scores', base, [
      ({'scores': ''}, '--scores must be a list of at least one value'),
      ({'scores': 'kl_reverse,'}, '--scores must be names with commas between'),
      ({'scores': 'kl_estimate,kl_estimate'},
       "--scores must name every value once, got 'kl_estimate' twice")])


def test_choose_settings(folder):
  base = {'results_dir': '{}/store', 'output_dir': '{}/out'}
  check(folder, 'choose_settings', base, [
      ({'board_config': 'no_such'}, "got 'no_such', which does not exist"),
      ({'board_config': '{}/empty'}, 'which is no file'),
      ({'board_config': 'quickstart_digits'},
       '--board_config must be a config of NNGP problems'),
      ({'tuning_config': '/dev/null'}, "'/dev/null', which is no file")])


def test_index_boards(folder):
  check(folder, 'index_boards', {}, [
      ({'boards_dir': ''}, 'boards_dir must name a folder, got nothing'),
      ({'boards_dir': '{}/empty'}, 'has no folder with results in it'),
      ({'boards_dir': '{}/file'}, 'is no folder')])


def test_status(folder):
  check(folder, 'status', {'config': 'quickstart', 'results_dir': '{}/store'}, [
      ({'results_dir': ''}, 'results_dir must name a folder, got nothing'),
      ({'ground_truth_dir': '{}/file'}, '--ground_truth_dir must be a folder'),
      ({'solver_memory_mb': 'nan'}, '--solver_memory_mb must be a finite'),
      # Before rows are read, which may take minutes.
      ({'csv': '{}'}, 'which is a folder'),
      ({'csv': ''}, "--csv must name a file, got '.'"),
      ({'csv': '{}/none/x.csv'}, "/x.csv' must be in a folder that exists"),
      ({'task_index': 0}, '--task_index is of no use here: it is about the wh'),
      ({'num_tasks': 2}, '--num_tasks is of no use here: it is about the wh')])


def test_making_problems_takes_no_flags_of_agents(folder):
  base = {'config': 'quickstart', 'cache_dir': '{}/new'}
  flags = {'agents': 'nonsense', 'agent_module': 'a.py', 'num_enn_samples': 5,
           'enumerate_indices': False, 'dtype': 'float64'}
  check(folder, 'make_problems', base, [
      *(({name: value}, f'--{name} is of no use here: problems are the same ')
        for name, value in flags.items()),
      ({'verify': True, 'publish_dir': '{}/new'},
       '--publish_dir is of no use here: --verify computes nothing')])


def test_the_loss_landscape(folder):
  check(folder, 'loss_landscape', {'output_dir': '{}/out'}, [
      ({'data_dir': '{}/file'}, '--data_dir must be a folder, got'),
      ({'learning_rate': '1e308'}, 'learning_rate must be at most 1, got 1e+'),
      ({'snapshots_dir': '{}/file'}, "snapshots_dir '"),
      ({'output_dir': '{}/' + BELOW}, "output_dir '")])


def test_the_kill_test(folder):
  (folder / 'loop').symlink_to(folder / 'loop')
  check(folder, 'kill_test', {'output_dir': '{}/out'}, [
      ({'output_dir': '{}/loop'}, 'Too many levels of symbolic links'),
      ({'signals': ''}, '--signals must be a list of at least one value'),
      ({'num_kills': 10**20}, '--num_kills must be at most 2**32'),
      ({'num_processes': -1}, '--num_processes must be an integer >= 0')])
  (folder / 'loop').unlink()


def test_studies_that_train(folder):
  out = {'output_dir': '{}/out'}
  check(folder, 'decomposition', out, [
      ({'parts': 'split,split'}, "--parts must name every value once, got 'sp"),
      ({'parts': ''}, '--parts must be a list of at least one value'),
      ({'datasets': 'mnits'}, "'npz:NAME'; got 'mnits'"),
      ({'datasets': 'npz:mine', 'data_dir': '{}/empty'},
       'npz:mine has no file mine.npz'),
      ({'num_members': 10**20}, '--num_members=1'),
      ({'image_sizes': '60,60'}, '--image_sizes must name every value once'),
      ({'image_sizes': '9000'}, 'digits must have 9100 training images'),
      ({'data_dir': '{}/file'}, '--data_dir must be a folder, got'),
      ({'only_kept': True, 'parts': 'split'}, 'output_dir must hold units'),
      ({'data_ratios': '0'}, 'every value of --data_ratios must be a finite'),
      ({'output_dir': '{}/' + BELOW}, 'not a folder that can be written to')])
  check(folder, 'empirical_bayes', out, [
      ({'problems': ''}, '--problems must be a list of at least one value'),
      ({'kinds': 'plain,plain'}, "--kinds must name every value once, got 'pl"),
      ({'kinds': 'plane'}, "every value of --kinds must be one of 'plain'"),
      ({'problems': 'npz:mine', 'data_dir': '{}/empty'},
       'npz:mine has no file mine.npz'),
      ({'num_members': ''}, '--num_members must be a list of at least one'),
      ({'num_members': 2**32}, 'every value of --num_members must be at most'),
      ({'num_members': '10,2'}, '--num_members must be increasing, got 10,2'),
      ({'num_seeds': 10**20}, '--num_seeds=1'),
      ({'num_batches': 10**20}, '--num_batches=1'),
      ({'only_kept': True, 'problems': 'D10_l1', 'kinds': 'plain'},
       'output_dir must hold units with --only_kept, got none of 5 in'),
      # Cells are looked at before the first of them is trained.
      ({'problems': 'D10_l1,D0_l1'}, 'input_dim must be an integer >= 1, got'),
      ({'problems': 'D10_l1,D10_l1e308'}, 'input_dim * data_ratio must be a f'),
      ({'problems': 'D10_l1,D1000_l1000'}, 'must be enough for num_train'),
      ({'only_kept': True, 'diversity': True}, 'got none of 3 in'),
      ({'num_members': '1,2'}, '--num_members must be an integer >= 2, got 1')])
  check(folder, 'against_ensemble', out, [
      ({'network': 'mlp,mlp'}, "--network must name every value once, got 'ml"),
      ({'network': 'rnn'}, "--network must be one of 'mlp', 'cnn'; got 'rnn'"),
      ({'seconds': '1e308'}, 'seconds must be at most 3600, got 1e+308')])


@pytest.mark.parametrize('name', ['random_features_study', 'member_similarity'])
def test_commands_with_a_grid(folder, name):
  check(folder, name, {'output_dir': '{}/out'}, [
      ({'input_dim': '0'}, 'every value of --input_dim must be an integer >='),
      ({'input_dim': '2,2'}, '--input_dim must name every value once, got 2 t'),
      ({'input_dim': 10**20}, '--input_dim must be at most 2**32'),
      ({'data_ratio': 'nan'}, 'every value of --data_ratio must be a finite'),
      ({'data_ratio': '1e5'}, 'solver_memory_mb must be enough'),
      ({'noise_std': '1e-320'}, '--noise_std must be at least 1e-06'),
      ({'noise_std': '1e308'}, '--noise_std must be at most 1e+06'),
      ({'seed': ''}, '--seed must be a list of at least one value'),
      ({'seed': '-1'}, 'every value of --seed must be an integer >= 0, got -1'),
      ({'seed': 2**32}, 'every value of --seed must be at most 2**32 - 1')])


def test_numbers_of_the_random_features_study(folder):
  check(folder, 'random_features_study', {'output_dir': '{}/out'}, [
      ({'width': '0'}, 'every value of --width must be an integer >= 1, got 0'),
      ({'num_ensemble': '10,'}, '--num_ensemble must be integers with commas')])


def test_figure_3(folder):
  check(folder, 'figure3', {'output_dir': '{}/out'}, [
      ({'output_dir': ''}, 'output_dir must name a folder, got nothing'),
      ({'num_options': 10**20}, 'num_options must be at most 2**32'),
      ({'num_options': 31}, 'every num_options must be at most 30, got 31'),
      ({'batch_size': 10**20}, 'batch_size must be at most 2**32'),
      ({'seconds': '1e308'}, 'seconds must be at most 3600, got 1e+308')])


def test_an_interpreter_without_torch(folder):
  check(folder, 'pytorch_speed', {'output_dir': '{}/out'}, [
      ({'torch_python': '/bin/false'}, "that has torch, got '/bin/false'"),
      ({'torch_python': '/no/python'}, '--torch_python must be a Python'),
      ({'torch_python': '/bin/false', 'repeats': 0}, '--repeats must be an int')
  ])


def test_the_quickstart_checks_its_folders_first(folder):
  check(folder, 'quickstart', {'results_dir': '{}/new'}, [
      ({'results_dir': ''}, '--results_dir must name a folder, got nothing'),
      ({'output_dir': '{}/' + BELOW}, "--output_dir '"),
      ({'results_dir': '{}/file'}, 'is not a folder that can be written to')])


def test_a_dry_run_checks_what_the_results_folder_holds(tmp_path):
  """A job array would be queued, of which every task ends with this."""
  flags = ['--config=quickstart', '--dry_run', '--agents=prior_only',
           f'--results_dir={tmp_path}']
  (tmp_path / 'mine').write_text('x')
  commands.check_refused('run_sweep', [(flags, 'is not empty and no results')])
  (tmp_path / 'mine').unlink()
  (tmp_path / 'units').mkdir()
  (tmp_path / 'STORE.json').write_text('{')
  commands.check_refused('run_sweep', [(flags, 'STORE.json')])


def test_a_dry_run_checks_the_folders_that_are_named(folder):
  base = {'config': 'quickstart', 'dry_run': True, 'agents': 'prior_only'}
  check(folder, 'run_sweep', base, [
      ({'cache_dir': '{}/file'}, "--cache_dir '"),
      ({'compilation_cache_dir': '{}/' + BELOW}, '--compilation_cache_dir '),
      ({'data_dir': '{}/none'}, '--data_dir must be a folder, got'),
      ({'num_workers': 10**20}, '--num_workers must be at most 2**32'),
      ({'results_dir': '{}/' + BELOW}, 'is not a folder that can be written'),
      ({'results_dir': ''}, 'results_dir must name a folder, got nothing')])


def test_numbers_of_measurements(folder):
  check(folder, 'ranking_speed', {'output_dir': '{}/out'}, [
      ({'num_samples': ''}, '--num_samples must be a list of at least one'),
      ({'num_x': 0}, '--num_x must be an integer >= 1, got 0')])
  check(folder, 'solver_errors', {'output_dir': '{}/out'}, [
      ({'input_dim': '0'}, 'every value of --input_dim must be an integer >='),
      ({'noise_std': 'inf'}, 'every value of --noise_std must be a finite'),
      ({'noise_std': '1e20'}, '--noise_std must be at most 1e+06, got 1e+20'),
      ({'memory_budget_mb': '1e308'}, '--memory_budget_mb must be at most'),
      ({'num_eval': 0}, '--num_eval must be an integer >= 1, got 0'),
      ({'memory_budget_mb': 'nan'}, '--memory_budget_mb must be a finite')])


@pytest.mark.parametrize('path, reason', [
    ('', 'must name a folder, got nothing'), ('file', 'Not a directory'),
    (BELOW, 'Not a directory'), ('loop', 'Too many levels'),
    ('dangling', 'No such file'), ('n' * 300, 'File name too long')])
def test_a_folder_that_cannot_be_made_is_known_before(folder, tmp_path, path,
                                                      reason):
  (tmp_path / 'file').touch()
  (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
  (tmp_path / 'dangling').symlink_to(tmp_path / 'nowhere')
  before = sorted(tmp_path.iterdir())
  with pytest.raises(files.FileError, match=reason):
    files.check_folder(tmp_path / path if path else '', 'output_dir')
  files.check_folder(tmp_path / 'a' / 'b' / 'c', 'output_dir')
  files.check_folder(tmp_path, 'output_dir')
  assert sorted(tmp_path.iterdir()) == before


def start(module, *argv, **environment):
  """A command in a process of its own, which imports jax for itself."""
  return subprocess.run(
      [sys.executable, '-m', module, *argv], cwd=commands.ROOT, text=True,
      capture_output=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize('config, platforms', [
    ('quickstart', 'nonsense'), ('quickstart_digits', 'cuda')])
def test_devices_that_are_not_there(tmp_path, config, platforms):
  if platforms == 'cuda' and importlib.util.find_spec('jax_plugins'):
    pytest.skip('there may be such a device')
  done = start('experiments.run_sweep', f'--config={config}', '--agents=map',
               '--cache_dir=', '--compilation_cache_dir=',
               f'--results_dir={tmp_path / "results"}', JAX_PLATFORMS=platforms)
  assert done.returncode == 2 and not done.stdout
  assert done.stderr.count('\n') == 1 and done.stderr.startswith(
      f"error: jax finds no device of JAX_PLATFORMS='{platforms}' here.")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('module', ['experiments.run_sweep', 'enn_ensembles'])
def test_a_variable_with_which_jax_cannot_be_imported(module):
  done = start(module, 'run', JAX_ENABLE_X64='may\nbe')
  assert done.returncode == 2 and not done.stdout
  assert done.stderr == (
      'error: the environment variable JAX_ENABLE_X64 must be one of 1, true, '
      "yes, on, t, y, 0, false, no, off, f, n; got 'may\\nbe'.\n")
