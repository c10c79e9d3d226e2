"""Published ground truth: written, found, checked, used, or refused by name."""

import dataclasses
import logging

import commands
import numpy as np
import pytest
from small_problems import assert_same

from enn_ensembles import problems
from enn_ensembles.nngp import kernels
from enn_ensembles.problems import draws
from enn_ensembles.problems import ground_truth
from enn_ensembles.problems import published
from enn_ensembles.problems import solvers

_NOISE_STDS = (0.1, 1.)


def _configs(*noise_stds, **fields):
  return [problems.ProblemConfig(**{
      **dict(input_dim=3, data_ratio=8, noise_std=noise_std, seed=0,
             num_test=20, num_val=5), **fields})
          for noise_std in noise_stds or _NOISE_STDS]


@pytest.fixture(autouse=True)
def small_problems(monkeypatch):
  monkeypatch.setattr(published, 'MIN_NUM_TRAIN', 20)
  monkeypatch.setattr(published, '_COMPLAINTS', set())


@pytest.fixture(name='folder')
def published_folder(tmp_path, monkeypatch):
  """Where the problems of `_configs` are published."""
  folder = tmp_path / 'truth'
  monkeypatch.setenv(published.ENVIRONMENT_VARIABLE, '')
  problems.make_problems(_configs(), tmp_path / 'cache', publish_dir=folder)
  monkeypatch.setenv(published.ENVIRONMENT_VARIABLE, str(folder))
  return folder


def test_a_variable_that_names_no_folder_is_named(tmp_path, monkeypatch):
  monkeypatch.setenv(published.ENVIRONMENT_VARIABLE, str(tmp_path / 'none'))
  flags = ['--config=quickstart', '--dry_run', '--agents=prior_only']
  message = (f"{published.ENVIRONMENT_VARIABLE} must be a folder, got "
             f"'{tmp_path}/none', which is none.")
  commands.check_refused('run_sweep', [(flags, message)])
  monkeypatch.setenv(published.ENVIRONMENT_VARIABLE, '~')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert published.folder() == tmp_path
  monkeypatch.setenv(published.ENVIRONMENT_VARIABLE, '')
  assert published.folder() is None


@pytest.fixture(name='no_solver')
def without_solver(monkeypatch):
  """Whoever computes a posterior fails."""
  def refuse(*_):
    raise AssertionError('a posterior is computed')
  monkeypatch.setattr(solvers.DenseSolver, 'solve', refuse)
  monkeypatch.setattr(solvers.DenseSolver, 'draw_function', refuse)


def _assert_same(found, made):
  for problem, other in zip(found, made, strict=True):
    assert problem.ground_truth == other.ground_truth
    assert_same(problem, other)


def test_what_is_published_is_used_to_the_last_bit(folder, tmp_path, no_solver):
  del no_solver
  cached = problems.make_problems(_configs(), tmp_path / 'cache',
                                  only_cached=True)
  for settings in ({}, dict(cache_dir=tmp_path / 'other'),
                   dict(cache_dir=tmp_path / 'other', only_cached=True)):
    _assert_same(problems.make_problems(_configs(), **settings), cached)
  file, = folder.iterdir()
  assert file.name.startswith('D3_l8_s0_bayes_')
  # Nothing is kept twice.
  assert not list((tmp_path / 'other').iterdir())


def test_what_is_missing_is_computed(folder, tmp_path):
  """Another seed, and a noise level that is not in the file."""
  assert len(list(folder.iterdir())) == 1
  found = problems.make_problems(
      [*_configs(0.1, 0.3), *_configs(0.1, seed=1)], tmp_path / 'other')
  truth = problems.problem_from_data(
      found[1].x_train, found[1].y_train, found[1].x_test, found[1].x_val, 0.3)
  np.testing.assert_allclose(found[1].test_mean, truth.test_mean, atol=1e-9)
  low, high = problems.make_problems(_configs())
  noise = (high.y_train - low.y_train) / 0.9
  np.testing.assert_allclose(found[1].y_train, low.y_train + 0.2 * noise,
                             rtol=0, atol=1e-12)
  assert found[2].config.seed == 1


def test_small_problems_are_neither_written_nor_looked_for(tmp_path,
                                                           monkeypatch):
  monkeypatch.setattr(published, 'MIN_NUM_TRAIN', 25)
  monkeypatch.setenv(published.ENVIRONMENT_VARIABLE, str(tmp_path / 'truth'))
  problems.make_problems(_configs(), tmp_path / 'cache',
                         publish_dir=tmp_path / 'truth')
  assert not list((tmp_path / 'truth').iterdir())


@pytest.mark.parametrize('module, name, value, said', [
    (kernels, 'VERSION', 2, 'its kernel has version 1, this program has 2'),
    (draws, 'VERSION', 3, 'its draws has version 1, this program has 3'),
    (published, 'SOLVER_VERSIONS', {'dense': 7}, 'its solver has version 1'),
    (published, 'FORMAT_VERSION', 2, 'its format has version 1'),
    (draws, 'X_TRAIN_KEY', draws.Use(77, 2), 'it was made from other draws')])
def test_other_versions_are_refused_by_name(folder, monkeypatch, caplog, module,
                                            name, value, said):
  assert list(folder.iterdir())
  monkeypatch.setattr(module, name, value)
  with caplog.at_level(logging.WARNING):
    problem, = problems.make_problems(_configs(0.1))
    problems.make_problems(_configs(0.1))
  assert len(caplog.records) == 1  # Once.
  assert f'is not used: {said}' in caplog.text
  assert problem.ground_truth.solver == 'dense'


@pytest.mark.parametrize('damage, said', [
    (lambda content: content[:-1] + b'x', 'do not match their checksum'),
    (lambda content: b'', 'it is no file of arrays'),
    (lambda content: content.replace(b'published', b'unpublish'),
     'it has another kind')])
def test_damaged_files_are_refused(folder, caplog, damage, said):
  file, = folder.iterdir()
  file.write_bytes(damage(file.read_bytes()))
  problem, = problems.make_problems(_configs(0.1))
  assert said in caplog.text and problem.weights is not None


@pytest.mark.parametrize('part', ['weights', 'function'])
def test_numbers_that_do_not_solve_the_equations_are_refused(
    folder, caplog, monkeypatch, part):
  """With a right checksum: whoever wrote them computed something else."""
  inputs = []
  read = published.read
  monkeypatch.setattr(published, 'read', lambda *arguments: (
      inputs.append(arguments) or read(*arguments)))
  config = _configs(0.1)[0]
  problems.make_problems([config])
  whole = read(*inputs[0])
  assert whole is not None and not caplog.records
  if part == 'function':
    whole = whole._replace(function={
        **whole.function, 'function': 1.001 * whole.function['function']})
  else:
    whole = whole._replace(solved={noise_std: solved._replace(
        moments=dataclasses.replace(solved.moments, weights=(
            solved.moments.weights * 1.001)))
                                   for noise_std, solved
                                   in whole.solved.items()})
  published.write(folder, config, 'dense', inputs[0][3], whole)
  problems.make_problems([config])
  assert 'the equations of its weights are off by' in caplog.text


def test_compression_loses_nothing():
  rng = np.random.default_rng(0)
  symmetric = rng.standard_normal((4, 3, 3))
  symmetric = symmetric + np.swapaxes(symmetric, 1, 2)
  for array in (rng.standard_normal(7), np.zeros((0, 3, 3)), symmetric,
                rng.standard_normal((4, 3, 3)),
                np.array([[np.pi, -0., 1e-300]])):
    data = published._compress(array)
    again = published._decompress(data, list(array.shape))
    assert again.tobytes() == array.tobytes() and again.flags.writeable
  # A triangle is kept of what is symmetric, and exponents take little.
  large = rng.standard_normal((200, 10, 10))
  large += np.swapaxes(large, 1, 2).copy()
  assert len(published._compress(large)) < 0.52 * large.nbytes
  assert len(published._compress(rng.standard_normal(10_000))) < 76_000


def test_sizes_are_of_all_noise_levels(folder, tmp_path):
  lines = []
  problems.make_problems(_configs(), tmp_path / 'cache', publish_dir=folder,
                         progress=lines.append)
  line, = lines
  assert line.startswith('D3_l8_s0_bayes_')
  # Two levels of T = 24 weights, 8 bytes each.
  assert ', weights 0 of 0' in line and 'covariances' in line


def test_publishing_needs_a_cache(tmp_path):
  with pytest.raises(ValueError, match='cache_dir must be given where publish'):
    problems.make_problems(_configs(), publish_dir=tmp_path)


def test_matrix_free_problems_are_published_too(tmp_path, monkeypatch):
  configs = _configs()
  made = problems.make_problems(configs, tmp_path / 'cache', 'matrix_free',
                                publish_dir=tmp_path / 'truth')
  monkeypatch.setenv(published.ENVIRONMENT_VARIABLE, str(tmp_path / 'truth'))
  monkeypatch.setattr(ground_truth.solvers.MatrixFreeSolver, 'solve', None)
  found = problems.make_problems(configs, solver='matrix_free')
  for problem, other in zip(found, made, strict=True):
    np.testing.assert_array_equal(problem.test_mean, other.test_mean)
    np.testing.assert_array_equal(problem.y_train, other.y_train)
    assert problem.problem_id.endswith('_matrix_free')
