"""Keys and draws of problems: normal, independent, the same everywhere."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
import scipy.stats
from small_problems import assert_same
from small_problems import make_problem
from small_problems import small_config

from enn_ensembles import problems
from enn_ensembles.nngp import kernels
from enn_ensembles.problems import draws

USES = {name: use for name, use in vars(draws).items()
        if isinstance(use, draws.Use)}
# Of the problem in test_draws_are_what_they_were.
_GOLDEN_X = [1.0728144953615955,
             -0.12462106568265847, 1.062879778065521]
_GOLDEN_Y = [0.6576935287819168, 0.36516345573278414, 0.36570993645018113]
_GOLDEN_Y_VAL = [0.3462793262512699, -0.09027237147769608, -0.3719874537877427]
_GOLDEN_MEAN = [-0.15195995705651627, -0.42618650314280215,
                -0.04524137606200235]


def test_no_key_is_used_twice():
  assert len(USES) >= 16
  assert all(name.endswith('_KEY') for name in USES)
  for (name, use), (other, used) in itertools.combinations(USES.items(), 2):
    assert use != used, f'{name} and {other} are one use'
  # Equal constants with other numbers of counts are other keys.
  keys = {
      tuple(np.asarray(jax.random.key_data(
          draws._fold(3, use, *range(1, use.num_counts + 1)))))
      for use in USES.values()}
  assert len(keys) == len(USES)


def test_a_use_has_its_number_of_counts():
  with pytest.raises(AssertionError):
    draws.draw_normals(0, draws.NOISE_KEY, (10,), (3,))
  with pytest.raises(AssertionError):
    draws.draw_permutation(0, draws.NOISE_KEY, 10)


def test_two_uses_of_one_number_are_independent():
  images = draws.draw_permutation(5, draws.TEST_SET_KEY, 64)
  points = draws.draw_uniforms(5, draws.X_DYADIC_KEY, (64, 64), (64,))
  assert sorted(images) == list(range(64))
  assert (images != np.argsort(points, kind='stable')).sum() > 50


def _draws(config: problems.ProblemConfig) -> dict[str, np.ndarray]:
  """All that is random in a problem, recovered from two of its noise levels."""
  low, high = problems.make_problems(
      [dataclasses.replace(config, noise_std=noise_std)
       for noise_std in (1., 3.)])
  noise = (high.y_train - low.y_train) / 2
  kernel = kernels.nngp(config.kernel, low.x_train)
  factor = np.linalg.cholesky(kernel + 1e-6 * np.eye(len(kernel)))
  normals = np.linalg.solve(factor, low.y_train - noise)
  return dict(x_train=low.x_train, x_test=low.x_test, x_val=low.x_val,
              function=normals, noise=noise)


def test_draws_are_standard_normal():
  for name, values in _draws(problems.ProblemConfig(10, 50, 1., 0)).items():
    p_value = scipy.stats.kstest(values.ravel(), 'norm').pvalue
    assert p_value > 1e-3, name
    assert len(np.unique(values)) == values.size, name


def test_draws_are_independent():
  """No two share numbers: published test inputs were the normals behind y."""
  streams = {}
  for config in (problems.ProblemConfig(10, 50, 1., 0),
                 problems.ProblemConfig(10, 50, 1., 1),
                 problems.ProblemConfig(50, 10, 1., 0),
                 problems.ProblemConfig(10, 100, 1., 0)):
    for name, values in _draws(config).items():
      streams[config.problem_id, name] = values.ravel()[:500]
  assert len(streams) == 20
  for (a, first), (b, second) in itertools.combinations(streams.items(), 2):
    correlation = np.corrcoef(first, second)[0, 1]
    # 190 pairs: 4.5 standard errors.
    assert abs(correlation) < 4.5 / np.sqrt(500), (a, b)


def test_draws_are_what_they_were():
  """These numbers must not change: results are compared over months.

  Computed from the definition: Philox's bits for the folded key, their upper 52
  as a number in (0, 1), and the quantile of the normal there.
  """
  problem = make_problem(small_config(seed=7))
  for constant, drawn in ((1, problem.x_train), (2, problem.x_test),
                          (3, problem.x_val)):
    key = jax.random.PRNGKey(7)
    for data in (constant, 3, 12):
      key = jax.random.fold_in(key, data)
    high, low = np.asarray(key).tolist()
    bits = np.random.Philox(key=2**32 * high + low).random_raw(drawn.size)
    uniforms = [((int(b) // 2**12) + 0.5) / 2**52 for b in bits]
    np.testing.assert_allclose(drawn.ravel(), scipy.stats.norm.ppf(uniforms),
                               rtol=1e-14)
  np.testing.assert_allclose(problem.x_train[0], _GOLDEN_X, rtol=1e-12)
  np.testing.assert_allclose(problem.y_train[:3, 0], _GOLDEN_Y, rtol=1e-9)
  # As they were before labels at x_test and dyadic points were drawn.
  np.testing.assert_allclose(problem.y_val[:3, 0], _GOLDEN_Y_VAL, rtol=1e-9)
  np.testing.assert_allclose(problem.test_mean[:3], _GOLDEN_MEAN, rtol=1e-9)


@pytest.mark.parametrize('flag, value', [
    ('jax_threefry_partitionable', False), ('jax_threefry_partitionable', True),
    ('jax_default_prng_impl', 'rbg')])
def test_jax_flags_change_nothing(restore_jax_flags, flag, value):
  problem = make_problem(small_config())
  keys = problems.agent_key(3), problems.evaluation_key(3)
  jax.config.update(flag, value)
  assert_same(problem, make_problem(small_config()))
  np.testing.assert_array_equal(problems.agent_key(3), keys[0])
  np.testing.assert_array_equal(problems.evaluation_key(3), keys[1])


def test_keys_of_a_seed(restore_jax_flags):
  seeds = (0, 1, 2**32 - 1)
  keys = [make(seed) for seed in seeds
          for make in (problems.agent_key, problems.evaluation_key)]
  assert len({tuple(np.asarray(key).tolist()) for key in keys}) == len(keys)
  assert all(key.shape == (2,) and key.dtype == np.uint32 for key in keys)
  jax.config.update('jax_enable_x64', False)
  for seed, key in zip(seeds, keys[::2], strict=True):
    np.testing.assert_array_equal(problems.agent_key(seed), key)
