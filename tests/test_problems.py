"""Problems: their posterior, labels and names, and settings of none."""

import dataclasses

import numpy as np
import pytest
import references
import scipy.stats
from small_problems import assert_same
from small_problems import make_group
from small_problems import make_problem
from small_problems import NOISE_STDS
from small_problems import SMALL
from small_problems import small_config

from enn_ensembles import base
from enn_ensembles import problems
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior


@pytest.mark.parametrize('reference', ['bayes', 'enn2021'])
def test_ground_truth_is_the_posterior_of_the_data(reference):
  for problem in make_group(5, 4, NOISE_STDS, 3, reference, num_test=20,
                            num_val=10):
    kernel = kernels.nngp(problem.kernel, problem.x_train)
    variance = problem.noise_std**2
    if reference == 'enn2021':
      variance *= np.trace(kernel) / 20
    for x, mean, std in (
        (problem.x_test, problem.test_mean, problem.test_std),
        (problem.x_val, problem.val_mean, problem.val_std)):
      true_mean, covariance = references.gp_posterior(
          kernel, kernels.nngp(problem.kernel, x, problem.x_train),
          kernels.nngp(problem.kernel, x), problem.y_train[:, 0], variance)
      np.testing.assert_allclose(mean, true_mean, rtol=0, atol=1e-11)
      np.testing.assert_allclose(std, np.sqrt(np.diag(covariance) + 1e-6),
                                 rtol=0, atol=1e-11)


def test_shapes_types_and_what_agents_are_told():
  config = small_config()
  problem = make_problem(config)
  shapes = dict(x_train=(12, 3), y_train=(12, 1), x_test=(7, 3), x_val=(5, 3),
                test_mean=(7,), test_std=(7,), val_mean=(5,), val_std=(5,),
                y_test=(7, 1), f_test=(7, 1), x_dyadic=(300, 3),
                dyadic_mean=(30, 10), dyadic_covariances=(30, 10, 10))
  for name, shape in shapes.items():
    array = getattr(problem, name)
    assert (array.shape, array.dtype) == (shape, np.float64)
    with pytest.raises(ValueError, match='read-only'):
      array[0] = 0
  assert problem.data.x is problem.x_train
  assert problem.data.y is problem.y_train
  assert problem.prior == base.PriorKnowledge(
      (3,), 12, base.Gaussian(0.1), config.kernel)
  assert problem.prior.input_dim == 3 and problem.prior.noise_std == 0.1
  assert problem.validation.x is problem.x_val
  assert problem.validation.y is problem.y_val
  assert problem.problem_id == config.problem_id


def test_noise_levels_share_all_but_the_noise():
  group = make_group(3, 4, NOISE_STDS, 0, **SMALL)
  assert [problem.noise_std for problem in group] == list(NOISE_STDS)
  for problem in group:
    for name in ('x_train', 'x_test', 'x_val'):
      assert getattr(problem, name) is getattr(group[0], name)
  # y = f + noise_std n, with one f and one n: linear in noise_std.
  low, middle, high = (problem.y_train for problem in group)
  np.testing.assert_allclose((middle - low) / 0.09, (high - low) / 0.99,
                             rtol=0, atol=1e-13)


def test_defaults_are_a_thousand_points():
  problem = make_problem(problems.ProblemConfig(1, 2, 0.1, 0))
  assert problem.x_test.shape == problem.x_val.shape == (1000, 1)
  assert problem.reference == 'bayes'


def test_targets_have_the_variance_that_the_posterior_assumes():
  """y^T (K + eps^2 I)^-1 y is chi-squared with T degrees of freedom."""
  total, degrees = {'bayes': 0., 'enn2021': 0.}, 0
  for seed in range(20):
    problem = make_problem(problems.ProblemConfig(
        10, 10, 1., seed, num_test=1, num_val=1))
    kernel = kernels.nngp(problem.kernel, problem.x_train)
    for reference in total:
      variance = posterior.noise_variance(1., np.diag(kernel), reference)
      covariance = kernel + variance * np.eye(100)
      y = problem.y_train[:, 0]
      total[reference] += y @ np.linalg.solve(covariance, y)
    degrees += 100
  p_value = scipy.stats.chi2.sf(total['bayes'], degrees)
  assert 0.001 < p_value < 0.999
  # The published posterior takes the noise for smaller than it is.
  assert scipy.stats.chi2.sf(total['enn2021'], degrees) < 1e-6


@pytest.mark.parametrize('input_dim, published', [(10, 0.16), (100, 0.10)])
def test_gap_between_the_references(input_dim, published):
  """A Bayesian agent scores 0.16 and 0.10 at (D, 10, 1) against enn2021."""
  gaps = []
  for seed in range(5):
    config = problems.ProblemConfig(input_dim, 10, 1., seed, num_val=1)
    truth = make_problem(dataclasses.replace(config, reference='enn2021'))
    agent = make_problem(config)
    p, q = truth.test_std + 1e-3, agent.test_std + 1e-3
    gaps.append(np.mean(
        np.log(q / p) - 0.5
        + (p**2 + (truth.test_mean - agent.test_mean)**2) / (2 * q**2)))
  assert np.mean(gaps) == pytest.approx(published, rel=0.25)


def test_labels_at_x_val_are_of_the_function():
  """Given y_train, y_val - its mean is N(0, posterior variance + noise)."""
  scaled = []
  for noise_std in (0.1, 1.):
    for seed in range(100):
      problem = make_problem(small_config(noise_std, seed=seed))
      assert problem.y_val.shape == (5, 1)
      variance = problem.val_std**2 + noise_std**2
      scaled.append((problem.y_val[:, 0] - problem.val_mean)
                    / np.sqrt(variance))
  scaled = np.concatenate(scaled)
  assert abs(scaled.mean()) < 4 / np.sqrt(scaled.size / 5)  # Points of a seed
  assert abs(scaled.std() - 1) < 4 / np.sqrt(2 * scaled.size / 5)  # depend.
  # Noise levels share the function and the draw of the noise.
  low, mid, high = make_group(3, 4, (1., 2., 3.), 0, **SMALL)
  np.testing.assert_allclose(mid.y_val - low.y_val, high.y_val - mid.y_val,
                             rtol=0, atol=1e-12)
  noise = (mid.y_val - low.y_val)[:, 0]
  assert not np.isin(noise, (mid.y_train - low.y_train)[:, 0]).any()


def test_labels_at_x_test_are_of_the_function():
  """Given y_train and f at x_val, f at x_test is of its posterior."""
  scaled = []
  for seed in range(150):
    problem = make_problem(small_config(1e-3, seed=seed))
    # f at x_val is all but known from y_val: it joins the training data.
    x = np.concatenate([problem.x_train, problem.x_val])
    y = np.concatenate([problem.y_train, problem.y_val])[:, 0]
    mean, covariance = references.gp_posterior(
        kernels.nngp(problem.kernel, x),
        kernels.nngp(problem.kernel, problem.x_test, x),
        kernels.nngp(problem.kernel, problem.x_test), y, 2e-6)
    factor = np.linalg.cholesky(covariance + 1e-6 * np.eye(7))
    scaled.append(np.linalg.solve(factor, problem.f_test[:, 0] - mean))
  # Independent standard normals, if all joint covariances are right.
  scaled = np.array(scaled)
  assert abs(scaled.mean()) < 4 / np.sqrt(scaled.size)
  assert abs(scaled.std() - 1) < 4 / np.sqrt(2 * scaled.size)
  assert np.abs(np.corrcoef(scaled.T) - np.eye(7)).max() < 4.5 / np.sqrt(150)
  # y = f + noise_std n.
  low, high = make_group(3, 4, (1., 3.), 0, **SMALL)
  np.testing.assert_array_equal(low.f_test, high.f_test)
  noise = low.y_test - low.f_test
  np.testing.assert_allclose(high.y_test - high.f_test, 3 * noise, atol=1e-12)
  assert not np.isin(noise, low.y_train - high.y_train).any()


@pytest.mark.parametrize('solver, error', [('dense', 1e-11),
                                           ('matrix_free', 1e-5)])
def test_dyadic_points_have_the_posterior_of_the_data(solver, error):
  for problem in make_group(3, 4, (0.1, 1.), 1, solver=solver, **SMALL):
    x = problem.x_dyadic[-10:]
    mean, covariance = references.gp_posterior(
        kernels.nngp(problem.kernel, problem.x_train),
        kernels.nngp(problem.kernel, x, problem.x_train),
        kernels.nngp(problem.kernel, x), problem.y_train[:, 0],
        problem.noise_std**2)
    np.testing.assert_allclose(problem.dyadic_mean[-1], mean, rtol=0,
                               atol=error)
    np.testing.assert_allclose(problem.dyadic_covariances[-1],
                               covariance + 1e-6 * np.eye(10), rtol=0,
                               atol=error)


def test_dyadic_points_lie_around_two_anchors_and_are_like_test_points():
  points = make_problem(
      problems.ProblemConfig(200, 0.1, 0.1, 0, **SMALL)).x_dyadic
  assert scipy.stats.kstest(points[::5].ravel(), 'norm').pvalue > 1e-3
  cosines = np.corrcoef(points.reshape(30, 10, 200)[4])
  group = np.arange(10) // 5
  same = group[:, None] == group
  np.testing.assert_allclose(cosines[same & ~np.eye(10, dtype=bool)], 0.95**2,
                             atol=0.06)
  assert np.abs(cosines[~same]).max() < 0.35


def test_grouping_changes_nothing():
  configs = [small_config(noise_std, seed=seed, reference=reference)
             for seed in (0, 1) for reference in ('bayes', 'enn2021')
             for noise_std in NOISE_STDS]
  shuffled = [configs[i] for i in np.random.default_rng(0).permutation(12)]
  shuffled.append(shuffled[0])  # Asked for twice.
  together = problems.make_problems(shuffled)
  for config, problem in zip(shuffled, together, strict=True):
    assert problem.config == config
    assert_same(problem, make_problem(config))


def test_more_test_points_change_no_other():
  few, many = (make_problem(small_config(num_test=n)) for n in (4, 9))
  np.testing.assert_array_equal(few.x_test, many.x_test[:4])
  for name in ('x_train', 'y_train', 'x_val'):
    np.testing.assert_array_equal(getattr(few, name), getattr(many, name))
  np.testing.assert_allclose(few.test_mean, many.test_mean[:4], rtol=1e-12)


def test_problem_ids():
  config = problems.ProblemConfig(10, 1, 0.01, 0)
  assert config.problem_id == 'D10_l1_e0.01_s0_bayes'
  assert problems.ProblemConfig(
      100, 0.5, 1., 12, 'enn2021').problem_id == 'D100_l0.5_e1_s12_enn2021'
  # Equal settings, equal name; any other setting, another name.
  assert problems.ProblemConfig(10, 1., 0.01, 0).problem_id == config.problem_id
  others = [dict(kernel=kernels.KernelConfig(num_hidden_layers=3)),
            dict(kernel=kernels.KernelConfig(activation='erf')),
            dict(num_test=10), dict(num_val=10), dict(noise_std=0.01 + 1e-9)]
  ids = {dataclasses.replace(config, **other).problem_id for other in others}
  assert len(ids | {config.problem_id}) == 6


@pytest.mark.parametrize('input_dim, data_ratio, num_train', [
    (10, 1, 10), (100, 0.29, 29), (10, 0.35, 3), (1000, 100, 100_000)])
def test_num_train(input_dim, data_ratio, num_train):
  config = problems.ProblemConfig(input_dim, data_ratio, 0.1, 0)
  assert config.num_train == num_train


@pytest.mark.parametrize('field, value, message', [
    ('input_dim', 0, 'input_dim must be an integer >= 1, got 0'),
    ('input_dim', 2.5, 'input_dim must be .* got 2.5'),
    ('input_dim', True, 'input_dim must be .* got True'),
    ('data_ratio', 0, 'data_ratio must be a finite number > 0, got 0'),
    ('data_ratio', 0.3, r'at least one training point, got 3 \* 0.3'),
    ('data_ratio', 1e308, r'input_dim \* data_ratio must be a finite number'),
    ('data_ratio', 'many', "data_ratio must be .* got 'many'"),
    ('noise_std', 0., 'noise_std must be a finite number > 0, got 0'),
    ('noise_std', -1, 'noise_std must be .* got -1'),
    ('noise_std', np.inf, 'noise_std must be .* got inf'),
    ('seed', -1, 'seed must be an integer >= 0, got -1'),
    ('seed', 0.5, 'seed must be .* got 0.5'),
    ('seed', None, 'seed must be .* got None'),
    ('seed', 2**32, 'seed must be at most .* got 4294967296'),
    ('reference', 'enn', "reference must be .* 'enn2021'; got 'enn'"),
    ('kernel', 'relu', "kernel must be a KernelConfig, got 'relu'"),
    ('num_test', 0, 'num_test must be an integer >= 1, got 0'),
    ('num_val', 0, 'num_val must be an integer >= 1, got 0')])
def test_refuses_bad_settings(field, value, message):
  with pytest.raises(ValueError, match=message):
    small_config(**{field: value})


def test_nothing_asked_for_is_nothing_made():
  assert problems.make_problems([]) == []


def test_refuses_what_is_too_large_before_any_work(tmp_path, monkeypatch):
  monkeypatch.setattr(np.random, 'Philox', None)
  large = problems.ProblemConfig(1000, 100, 0.1, 0)
  cache_dir = tmp_path / 'cache'
  for solver, message in (('dense', 'dense needs 163,200 MB'),
                          ('auto', 'dense needs .*, matrix_free needs')):
    with pytest.raises(ValueError, match=f'= 100000 points.* 500: {message}'):
      problems.make_problems([small_config(), large], cache_dir, solver, 500.)
  assert not cache_dir.exists()


def test_the_solver_is_chosen_by_size_and_budget():
  large = problems.ProblemConfig(1000, 100, 0.1, 0)
  assert problems.choose_solver(large) == 'matrix_free'
  for input_dim in (10, 100, 1000):
    config = problems.ProblemConfig(input_dim, 10_000 // input_dim, 0.1, 0)
    assert problems.choose_solver(config) == 'dense'
    assert problems.choose_solver(config, 'matrix_free') == 'matrix_free'
  assert problems.choose_solver(large, 'dense', 2e5) == 'dense'
