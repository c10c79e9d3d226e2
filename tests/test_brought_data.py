"""Problems of brought data: their posterior, or why the data are refused."""

import jax
import numpy as np
import pytest
from small_problems import ARRAYS
from small_problems import assert_same
from small_problems import BROUGHT_ARRAYS
from small_problems import make_problem
from small_problems import small_config

from enn_ensembles import problems


def _brought(**changes):
  rng = np.random.default_rng(0)
  return {**dict(x_train=rng.standard_normal((6, 2)),
                 y_train=rng.standard_normal(6),
                 x_test=rng.standard_normal((4, 2)),
                 x_val=rng.standard_normal((3, 2)), noise_std=0.1), **changes}


def test_brought_data_needs_no_labels_at_x_val():
  assert problems.problem_from_data(**_brought()).y_val is None


def test_brought_data_has_its_posterior():
  made = make_problem(small_config(0.3, reference='enn2021'))
  brought = problems.problem_from_data(
      made.x_train, made.y_train, made.x_test, made.x_val, 0.3, 'enn2021',
      y_val=made.y_val)
  assert brought.config is None
  assert_same(made, brought, BROUGHT_ARRAYS)
  assert {getattr(brought, name) is None for name in ARRAYS
          if name not in BROUGHT_ARRAYS} == {True}
  assert brought.prior == made.prior
  flat = problems.problem_from_data(
      made.x_train, made.y_train[:, 0], made.x_test, made.x_val, 0.3, 'enn2021',
      y_val=made.y_val[:, 0])
  assert_same(brought, flat)
  assert flat.problem_id == brought.problem_id
  assert flat.problem_id.startswith('data_')


def test_brought_data_is_converted_and_copied():
  x = np.arange(6).reshape(3, 2)
  given = _brought(x_train=x.tolist(), y_train=np.float32([1, 2, 4]),
                   x_test=x + 1, x_val=x.astype(np.float32), y_val=[1, 2, 3])
  problem = problems.problem_from_data(**given)
  for name in BROUGHT_ARRAYS:
    assert getattr(problem, name).dtype == np.float64
    assert not getattr(problem, name).flags.writeable
  given['x_test'][:] = 0  # Its owner's array is neither locked nor shared.
  np.testing.assert_array_equal(problem.x_test, x + 1)
  assert problem.problem_id != problems.problem_from_data(**given).problem_id


@pytest.mark.parametrize('changes, message', [
    (dict(x_train=np.zeros(6)), r'x_train must have shape .* got \[6\]'),
    (dict(x_train=np.zeros((0, 2))), r'x_train must have .* got \[0, 2\]'),
    (dict(x_train=np.zeros((6, 0))), r'x_train must have .* got \[6, 0\]'),
    (dict(x_train=np.zeros((5, 2))), r'y_train must have .*\[5\].* got \[6\]'),
    (dict(y_train=np.zeros((6, 2))), r'y_train must have .* got \[6, 2\]'),
    (dict(x_test=np.zeros((4, 3))), r'x_test .* D = 2, as .* got \[4, 3\]'),
    (dict(x_val=np.zeros((3, 1))), r'x_val .* D = 2, as .* got \[3, 1\]'),
    (dict(x_val=np.zeros((0, 2))), r'x_val must have .* got \[0, 2\]'),
    (dict(x_train=np.full((6, 2), np.nan)), 'x_train must be finite, got 12 '),
    (dict(y_train=np.full(6, np.inf)), 'y_train must be finite, got 6 '),
    (dict(x_test=np.full((4, 2), np.nan)), 'x_test must be finite'),
    (dict(x_val=np.full((3, 2), -np.inf)), 'x_val must be finite'),
    (dict(y_val=np.zeros(4)), r'y_val must have .*\[3, 1\] like x_val, got'),
    (dict(y_val=[1, 2, np.nan]), 'y_val must be finite, got 1 '),
    (dict(y_train=['a'] * 6), 'y_train must be an array of real numbers'),
    (dict(y_train=np.ones(6) * 1j), 'y_train must be .* complex128'),
    (dict(x_test=[[1, 2], [3]]), 'x_test must be an array of real numbers'),
    (dict(noise_std=0), 'noise_std must be a finite number > 0, got 0'),
    (dict(noise_std=np.nan), 'noise_std must be .* got nan'),
    (dict(reference='true'), "reference must be .* got 'true'"),
    (dict(memory_budget_mb=1e-6), 'memory_budget_mb must be enough for T = 6 '
     'points of 2 .* got 1e-06: dense needs .* matrix_free needs'),
    (dict(solver='dense', memory_budget_mb=1e-6),
     'got 1e-06: dense needs 0.001248 MB'),
    (dict(y_train=np.ma.array(np.ones(6), mask=[1, 0, 0, 0, 0, 0])),
     'y_train must be without masked values, got 1'),
    (dict(x_train=np.full((6, 2), 1e160)), 'x_train must be from -1e.100 to '),
    (dict(noise_std=np.full((6, 1), 0.1)), r'got array\(\[\[0.1\], \[0.1\]'),
    (dict(memory_budget_mb=0), '^memory_budget_mb must be .* > 0, got 0'),
    (dict(solver='sparse'), "solver must be one of .* got 'sparse'"),
])
def test_refuses_bad_data(changes, message):
  with pytest.raises(ValueError, match=message) as error:
    problems.problem_from_data(**_brought(**changes))
  assert '\n' not in str(error.value)


def test_refuses_float32(restore_jax_flags):
  jax.config.update('jax_enable_x64', False)
  with pytest.raises(ValueError, match='jax_enable_x64 must be True'):
    make_problem(small_config())
  with pytest.raises(ValueError, match='jax_enable_x64 must be True'):
    problems.problem_from_data(**_brought())
