"""Problems of the matrix-free solver: posterior, labels, and killed ones."""

import numpy as np
import pytest
from small_problems import assert_same
from small_problems import make_group
from small_problems import make_problem
from small_problems import NOISE_STDS

from enn_ensembles import problems
from enn_ensembles.nngp import kernels


def test_matrix_free_problems_have_the_dense_posterior(tmp_path):
  """Its own f, and the exact posterior of what that made."""
  said = []
  settings = dict(solver='matrix_free', num_test=20, num_val=15)
  made = make_group(
      5, 12, NOISE_STDS, 0, cache_dir=tmp_path, progress=said.append,
      **settings)
  assert len(said) >= 3 and all('\n' not in line for line in said)
  dense = make_group(5, 12, NOISE_STDS, 0, num_test=20, num_val=15)
  for problem, other in zip(made, dense, strict=True):
    assert problem.ground_truth.solver == 'matrix_free'
    assert problem.problem_id == f'{other.problem_id}_matrix_free'
    np.testing.assert_array_equal(problem.x_train, other.x_train)
    truth = problems.problem_from_data(
        problem.x_train, problem.y_train, problem.x_test, problem.x_val,
        problem.noise_std)
    truth_is = problem.ground_truth
    for points in ('test', 'val'):
      std = getattr(truth, f'{points}_std')
      off = np.abs(getattr(problem, f'{points}_mean')
                   - getattr(truth, f'{points}_mean')) / std
      assert off.max() <= truth_is.mean_error + 1e-12 < 1e-3
      off = np.abs(getattr(problem, f'{points}_std') / std - 1.)
      assert off.max() <= truth_is.std_error + 1e-12 < 1e-4
    scale = truth.test_std.max() ** 2
    np.testing.assert_allclose(problem.test_covariances,
                               truth.test_covariances, atol=1e-4 * scale)
  # f is another one, the noise is not.
  assert np.abs(made[0].y_train - dense[0].y_train).max() > 0.1
  np.testing.assert_allclose(made[2].y_train - made[1].y_train,
                             dense[2].y_train - dense[1].y_train)
  # From the cache, and from it with a noise level that is new.
  again = make_group(5, 12, (0.1, 0.5), 0, cache_dir=tmp_path, **settings)
  assert_same(again[0], made[1])
  assert again[1].noise_std == 0.5
  assert {path.suffix for path in tmp_path.iterdir()} == {'.cache'}


def test_matrix_free_labels_are_of_the_function():
  scaled = {'val': [], 'test': []}
  for seed in range(12):
    problem = make_problem(
        problems.ProblemConfig(4, 6, 0.1, seed, num_test=30, num_val=40),
        solver='matrix_free')
    for points, values in scaled.items():
      std = getattr(problem, f'{points}_std')
      values.append((getattr(problem, f'y_{points}')[:, 0]
                     - getattr(problem, f'{points}_mean'))
                    / np.sqrt(std**2 + 0.01))
  for values in scaled.values():
    assert 0.7 < np.std(np.concatenate(values)) < 1.3


def test_a_killed_matrix_free_problem_goes_on(tmp_path):
  settings = dict(solver='matrix_free', cache_dir=tmp_path, num_test=20,
                  num_val=15)
  fresh = make_group(6, 20, (0.1,), 0, **{**settings, 'cache_dir': None})[0]
  said = []

  def killed(line):
    said.append(line)
    if len(said) == 3:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    make_group(6, 20, (0.1,), 0, progress=killed, **settings)
  assert [path for path in tmp_path.iterdir() if path.suffix == '.steps']
  rest = []
  made, = make_group(6, 20, (0.1,), 0, progress=rest.append, **settings)
  assert_same(made, fresh)
  assert not set(said) & set(rest)
  assert {path.suffix for path in tmp_path.iterdir()} == {'.cache'}


def _kill_when_second_step_is_said():
  said = []

  def killed(line):
    said.append(line)
    if len(said) == 2:
      raise KeyboardInterrupt

  return killed


@pytest.mark.parametrize('changes', [
    dict(noise_stds=(0.2, 0.1)), dict(reference='enn2021'),
    dict(kernel=kernels.KernelConfig(activation='erf')), dict(num_val=16)])
def test_what_was_killed_is_in_nobody_elses_way(tmp_path, changes):
  settings = dict(noise_stds=(0.1,), solver='matrix_free', cache_dir=tmp_path,
                  num_test=20, num_val=15)
  with pytest.raises(KeyboardInterrupt):
    make_group(6, 20, seed=0, **settings,
               progress=_kill_when_second_step_is_said())
  left = {path for path in tmp_path.iterdir() if path.suffix == '.steps'}
  made = make_group(6, 20, seed=0, **{**settings, **changes})
  fresh = make_group(6, 20, seed=0,
                     **{**settings, **changes, 'cache_dir': None})
  for problem, other in zip(made, fresh, strict=True):
    assert_same(problem, other)
  # The same f with other noise levels makes the first of no use.
  same_function = not {'kernel', 'num_val'} & set(changes)
  assert left and all(path.exists() != same_function for path in left)
  # And it is still made.
  make_group(6, 20, seed=0, **settings)
  assert not [path for path in tmp_path.iterdir() if path.suffix != '.cache']
