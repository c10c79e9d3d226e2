"""Noise that depends on the input: exact posterior, heads, losses, scores."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy import stats

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.agents import mean_variance_ensemble
from enn_ensembles.machine import devices
from enn_ensembles.nngp import kernels
from enn_ensembles.problems import draws
from enn_ensembles.problems import ground_truth
from enn_ensembles.problems import heteroscedastic_regression
from enn_ensembles.problems import kinds
from enn_ensembles.problems import nngp_regression
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import nngp_scores
from enn_ensembles.scoring import noise_scores
from enn_ensembles.scoring import table
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from enn_ensembles.training import noise_losses
from enn_ensembles.training import sampler_predictions

RNG = np.random.default_rng(0)
CONFIGS = [nngp_regression.ProblemConfig(3, 4, noise_std, 5, num_test=30,
                                         num_val=20)
           for noise_std in (0.1, 1.)]


@functools.cache
def make_problems(noise_contrast=0.8):
  with devices.x64_mode(True):
    return heteroscedastic_regression.make_problems(CONFIGS, noise_contrast)


# The problem. --------------------------------------------------------------


def test_posterior_is_the_slow_formula():
  for config, problem in zip(CONFIGS, make_problems()):
    with devices.x64_mode(True):
      x, s = problem.x_train, problem.x_test
      k, cross, prior = (kernels.nngp(problem.kernel, *pair)
                         for pair in ((x,), (s, x), (s,)))
    noise_std = config.noise_std * np.exp(0.8 * x.sum(1) / 3**.5 - 0.8**2)
    inverse = np.linalg.inv(k + np.diag(noise_std**2))
    covariance = prior - cross @ inverse @ cross.T + 1e-6 * np.eye(30)
    np.testing.assert_allclose(problem.weights, inverse @ problem.y_train[:, 0],
                               rtol=1e-9)
    np.testing.assert_allclose(problem.test_mean, cross @ problem.weights,
                               rtol=1e-9)
    np.testing.assert_allclose(problem.test_std, np.diag(covariance)**.5,
                               rtol=1e-9)
    np.testing.assert_allclose(problem.test_covariances[1],
                               covariance[10:20, 10:20], rtol=1e-7, atol=1e-12)
    scores = nngp_scores.score(problem, lambda x, p=problem: base.Predictions(
        None, mean=p.test_mean[:, None], std=p.test_std[:, None]))
    assert all(abs(scores[name]) < 1e-9 for name in (
        'kl_estimate', 'log_score_excess', 'crps_excess'))


def test_noise_is_what_is_said_and_levels_share_the_rest():
  first, second = make_problems()
  np.testing.assert_allclose(second.noise_std, 10. * first.noise_std)
  normals = [(p.y_test - p.f_test)[:, 0] / p.noise_std for p in (first, second)]
  np.testing.assert_allclose(*normals)
  np.testing.assert_array_equal(first.f_test, second.f_test)
  # Its mean variance is noise_std^2, and its contrast the std of its logarithm.
  x = RNG.standard_normal((200_000, 4))
  std = heteroscedastic_regression.noise_std_at(x, 0.3, 0.5)
  assert np.mean(std**2) == pytest.approx(0.09, rel=0.01)
  assert np.log(std).std() == pytest.approx(0.5, rel=0.01)
  assert first.prior.likelihood == base.Gaussian(None)
  assert first.problem_id.startswith('D3_l4_e0.1_c0.8_s5')


def test_without_contrast_it_is_the_testbeds_own_problem():
  with devices.x64_mode(True):
    plain = ground_truth.make_problems(CONFIGS)
  for one, other in zip(make_problems(0.), plain):
    for name in ('x_train', 'y_train', 'y_val', 'y_test', 'f_test'):
      np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ('test_mean', 'test_std', 'val_mean', 'test_covariances'):
      np.testing.assert_allclose(getattr(one, name), getattr(other, name),
                                 rtol=1e-8, atol=1e-12)


def test_a_kind_of_problem_is_swept(tmp_path):
  (tmp_path / 'config.py').write_text('''
PROBLEMS = 'heteroscedastic'
INPUT_DIM = [2]
DATA_RATIO = [3]
NOISE_STD = [0.1, 1]
NOISE_CONTRAST = 0.5
SEED = [0]
AGENTS = [{'agent': 'mean_variance_ensemble', 'num_ensemble': 4,
           'num_batches': 2, 'hidden_sizes': (3,), 'prior_scale': 1.,
           'selection': ['none', 'weights_posterior']}]
''')
  unit, = sweeps.expand(sweeps.load_config(tmp_path / 'config.py'))
  options = unit_results.RunOptions(str(tmp_path))
  one_unit.check_units([unit], options)
  with devices.x64_mode(True):
    rows, details = one_unit.run_unit(unit, options)
  assert [row['status'] for row in rows] == ['ok'] * 4, details
  for row in rows:
    results.check_row(row)
    assert row['problem']['ranking']['noise_contrast'] == 0.5
    assert {'aleatoric_error', 'epistemic_error'} <= set(row['scores'])
  first, weighted = (row['scores'] for row in rows[:2])
  assert first['kl_estimate'] != weighted['kl_estimate']
  assert rows[0]['problem_id'] == unit.family.problem_id(
      unit.family.cells[0], 0)
  # Ranking by labels needs the noise level, which nobody is told here.
  with pytest.raises(ValueError, match="'val_nll' needs a problem whose noise_s"
                                       'td is a known number, got None'):
    one_unit.check_units(
        [dataclasses.replace(unit, selections=('none', 'val_nll'))], options)


def test_the_solver_may_hold_what_it_is_given():
  family, = kinds.load_kind('heteroscedastic').make_families(
      {'input_dim': [2], 'data_ratio': [3], 'noise_std': [0.1],
       'kernel': 'relu2', 'noise_contrast': 0.5})
  # The check before work and the work itself read the same setting.
  settings = kinds.ProblemSettings(solver_memory_mb=1e-3)
  for call in (family.check, functools.partial(family.make, 0)):
    with devices.x64_mode(True), pytest.raises(
        ValueError, match='solver_memory_mb must be'):
      call(settings)
  with devices.x64_mode(True):
    assert len(family.make(0, kinds.ProblemSettings())) == 1


# Losses and networks. --------------------------------------------------------


def test_nll_is_scipys_and_beta_weighs_its_gradient():
  mean, log_variance = RNG.standard_normal((2, 3, 5, 2))
  y = RNG.standard_normal((5, 2))
  expected = -stats.norm.logpdf(y, mean, np.exp(0.5 * log_variance)).sum(-1)
  np.testing.assert_allclose(
      noise_losses.gaussian_nll(mean, log_variance, y) + np.log(2 * np.pi),
      expected, rtol=1e-5)

  def gradients(beta):
    return jax.grad(lambda m, v: jnp.sum(noise_losses.gaussian_nll(
        m, v, y, beta)), argnums=(0, 1))(mean, log_variance)

  for plain, weighted in zip(gradients(0.), gradients(0.4)):
    np.testing.assert_allclose(weighted, np.exp(0.4 * log_variance) * plain,
                               rtol=1e-4)
  # With beta = 1 means learn as by half the squared error.
  np.testing.assert_allclose(gradients(1.)[0], mean - y, rtol=1e-4, atol=1e-5)


def make_agent(**settings):
  return mean_variance_ensemble.make_agent(
      mean_variance_ensemble.MeanVarianceEnsembleConfig(
          hidden_sizes=(8,), batch_size=64, **settings))


PRIOR = base.PriorKnowledge((2,), 6, base.Gaussian(None))


@pytest.mark.parametrize('prior_scale', [0., 2.])
def test_prior_functions_are_added_to_means_alone(prior_scale):
  network = make_agent(num_ensemble=3, prior_scale=prior_scale).make_network(
      PRIOR)
  key, x = jax.random.PRNGKey(0), RNG.standard_normal((6, 2))
  params, state = network.init(key, x, 0)
  out, _ = base.apply_indices(network, params, state, x, None)
  train, prior = base.split_output(out)
  assert train.shape == prior.shape == (3, 6, 1)
  log_variance = base.get_log_variance(out)
  bare, _ = make_agent(num_ensemble=3).make_network(PRIOR).apply_indices(
      params, state.get('network', state), x, None)
  np.testing.assert_allclose(train, base.get_predictions(bare), rtol=1e-6)
  np.testing.assert_allclose(log_variance, base.get_log_variance(bare),
                             rtol=1e-6)
  assert bool(np.any(prior)) == (prior_scale > 0)


def test_an_ensemble_learns_noise_that_depends_on_the_input():
  rng = np.random.default_rng(1)
  x = rng.uniform(-1., 1., (600, 1))
  std = np.where(x > 0, 1., 0.1)
  data = base.Data(x, std * rng.standard_normal((600, 1)))
  prior = base.PriorKnowledge((1,), 600, base.Gaussian(None))
  sampler = make_agent(num_ensemble=3, num_batches=400, learning_rate=1e-2)(
      data, prior, jax.random.PRNGKey(0))
  at = np.array([[-0.9], [-0.6], [0.6], [0.9]])
  found = sampler_predictions.predict(sampler, at, None, 0)
  assert found.observation_variances.shape == found.samples.shape == (3, 4, 1)
  said = np.sqrt(found.observation_variances.mean(0)[:, 0])
  assert (said[:2] > 0.03).all() and (said[:2] < 0.3).all(), said
  np.testing.assert_allclose(said[2:], 1., rtol=0.3)
  np.testing.assert_array_equal(found.samples, sampler.members(at))


def test_classes_are_refused():
  agent = agents_lib.make_agent(
      agents_lib.load_agent('mean_variance_ensemble'),
      mean_variance_ensemble.MeanVarianceEnsembleConfig())
  with pytest.raises(ValueError, match='needs a Gaussian likelihood, got Cat'):
    agent.make_network(base.PriorKnowledge((2,), 6, base.Categorical(3)))


# Scores. -------------------------------------------------------------------


def test_parts_are_scored_against_their_truths():
  noise_std, true_std = (np.exp(RNG.standard_normal(40)) for _ in range(2))
  # Two members at a distance of two stds have that std.
  samples = np.stack([2. * true_std, 0. * true_std])[..., None]
  variances = np.stack([1.5 * noise_std**2, 0.5 * noise_std**2])[..., None]
  labels = RNG.standard_normal(40)
  predictions = base.Predictions(samples, variances)
  scores = noise_scores.split_scores(predictions, noise_std, true_std, labels)
  for part in ('aleatoric', 'epistemic'):
    assert abs(scores[f'{part}_error']) < 1e-12
    assert scores[f'{part}_ratio'] == pytest.approx(1.)
    assert scores[f'{part}_correlation'] == pytest.approx(1.)
  expected = stats.pearsonr(np.log(noise_std + gaussian.STD_RIDGE),
                            np.log(true_std + gaussian.STD_RIDGE))[0]
  for name in ('split_correlation', 'split_correlation_exact'):
    assert scores[name] == pytest.approx(expected)
  logs = stats.norm.logpdf(labels, samples[..., 0], variances[..., 0]**.5)
  assert scores['mixture_nll'] == pytest.approx(
      np.log(2.) - special.logsumexp(logs, axis=0).mean())
  doubled = noise_scores.split_scores(
      predictions._replace(observation_variances=4. * variances,
                           weights=np.array([0.5, 0.5])),
      noise_std, true_std, None)
  assert doubled['aleatoric_error'] == pytest.approx(np.log(2.), rel=5e-3)
  assert set(scores) <= set(table.scores_of('nngp'))
  # Constant noise has nothing to correlate with.
  constant = noise_scores.split_scores(predictions, 0.3, true_std, labels)
  assert scores['epistemic_error_floor'] == noise_scores.epistemic_floor(2)
  assert set(scores) - set(constant) == {'aleatoric_correlation',
                                         'split_correlation_exact'}


@pytest.mark.parametrize('num_samples', [2, 10])
def test_floor_is_what_draws_of_the_posterior_have(num_samples):
  samples = RNG.standard_normal((num_samples, 200_000, 1))
  scores = noise_scores.split_scores(
      base.Predictions(1e3 * samples, np.ones_like(samples)), 1.,
      np.full(200_000, 1e3), None)
  assert scores['epistemic_error'] == pytest.approx(
      scores['epistemic_error_floor'], rel=0.01)
  assert noise_scores.epistemic_floor(1) == np.inf


def test_draw_keys_are_those_of_the_testbed():
  x = draws.draw_normals(5, draws.X_TRAIN_KEY, (3, 12), (12, 3))
  np.testing.assert_array_equal(make_problems()[0].x_train, x)
