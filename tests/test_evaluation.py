"""Samples to scores: moments, draws of the index, the audits, the formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from enn_ensembles import base
from enn_ensembles import problems
from enn_ensembles.agents import ensemble
from enn_ensembles.agents import exact_posterior
from enn_ensembles.agents import prior_only
from enn_ensembles.scoring import evaluation
from enn_ensembles.scoring import gaussian
from enn_ensembles.training import loop
from enn_ensembles.training import network_agent

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 6, 3))
KEYS = jnp.stack([jax.random.PRNGKey(seed) for seed in (5, 6)])
AGENT = ensemble.make_agent(ensemble.EnsembleConfig(
    num_ensemble=4, hidden_sizes=(5,)))


@pytest.fixture(name='trained', scope='module')
def make_trained():
  """Initial parameters of 2 seeds by 3 noise levels, all different."""
  network = AGENT.make_network(None)
  init = lambda key: network.init(key, jnp.ones((1, 3), jnp.float32), 0)
  params, state = jax.vmap(jax.vmap(init))(
      jax.random.split(jax.random.PRNGKey(0), (2, 3)))
  return loop.Trained(params, state, np.zeros((2, 3)), 0,
                          jnp.dtype('float32'), 0., 0.)


@pytest.fixture(name='members', scope='module')
def predict_members(trained):
  """Every member's predictions, one apply at a time: [S, E, K, N]."""
  network = AGENT.make_network(None)
  apply = jax.jit(lambda params, state, x, z: base.get_predictions(
      network.apply(params, state, x, z)[0])[:, 0])
  return np.array([[[apply(*jax.tree.map(
      lambda a, s=s, e=e: a[s, e], (trained.params, trained.state)),
                           X[s].astype(np.float32), k) for k in range(4)]
                    for e in range(3)] for s in range(2)])


def test_enumerated_moments_are_those_of_all_members(trained, members):
  moments = evaluation.predict_moments(
      AGENT, trained, X, KEYS, num_enn_samples=7, enumerate_indices=True)
  mean = members.astype(np.float64).sum(2) / 4
  variance = ((members - mean[:, :, None]) ** 2).sum(2) / 4
  np.testing.assert_allclose(moments.mean, mean, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(moments.std, np.sqrt(variance), rtol=1e-4)
  assert moments.mean.dtype == moments.std.dtype == np.float64
  assert moments.num_samples == 4


@pytest.fixture(name='drawn', scope='module')
def draw_predictions(trained):
  # 230 is no multiple of the block of draws.
  drawn, _, _ = evaluation.predict(AGENT, trained, X, KEYS, 230)
  return drawn


def find_members(drawn, members):
  """Which member each draw is: [S, E, J]."""
  distance = np.abs(drawn[:, :, :, None] - members[:, :, None]).max(-1)
  np.testing.assert_array_less(distance.min(-1), 1e-5)
  return distance.argmin(-1)


def test_drawn_indices_are_uniform_over_members(drawn, members):
  assert drawn.shape == (2, 3, 230, 6)
  found = find_members(drawn, members)
  for seed in range(2):
    counts = np.bincount(found[seed, 0], minlength=4)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
  # The draws belong to the seed: shared by its noise levels, not by seeds.
  assert np.all(found[:, :1] == found)
  assert np.mean(found[0, 0] == found[1, 0]) < 0.5


def test_drawn_moments_are_those_of_the_draws(trained, drawn):
  moments = evaluation.predict_moments(
      AGENT, trained, X, KEYS, num_enn_samples=230, enumerate_indices=False)
  assert moments.num_samples == 230
  samples = drawn.astype(np.float64)
  np.testing.assert_allclose(moments.mean, samples.mean(2), rtol=1e-6,
                             atol=1e-7)
  np.testing.assert_allclose(moments.std, samples.std(2), rtol=1e-5)


def test_draws_come_from_the_evaluation_key(trained, drawn, members):
  swapped, _, _ = evaluation.predict(AGENT, trained, X, KEYS[::-1], 230)
  np.testing.assert_array_equal(
      find_members(swapped, members), find_members(drawn, members)[::-1])


def test_only_finite_indices_are_enumerated():
  draws = lambda *args: evaluation.num_index_draws(AGENT, 3, *args)
  assert draws(100, True) is None and draws(100, False) == 100
  infinite = network_agent.NetworkAgent(
      make_network=lambda prior: base.EpistemicNetwork(
          None, None, indexer=lambda key: 0), make_loss=None)
  assert evaluation.num_index_draws(infinite, 3, 100, True) == 100


def test_moments_are_accumulated_in_float64():
  samples = (1e4 + RNG.standard_normal((1000, 3))).astype(np.float32)
  mean, std = evaluation.sample_moments(samples, axis=0)
  exact = samples.astype(np.longdouble)
  np.testing.assert_allclose(mean, exact.mean(0).astype(float), rtol=1e-14)
  np.testing.assert_allclose(std, exact.std(0).astype(float), rtol=1e-9)


def test_moments_of_diverged_samples_are_not_finite():
  samples = np.array([[1., np.nan, np.inf], [1., 2., 3.]], np.float32)
  mean, std = evaluation.sample_moments(samples, axis=0)
  np.testing.assert_array_equal(np.isfinite(mean), [True, False, False])
  np.testing.assert_array_equal(np.isfinite(std), [True, False, False])


@pytest.mark.parametrize('mappable', [False, True])
def test_a_sampler_is_drawn_from_with_independent_keys(mappable):
  class Sampler:
    def __call__(self, x, key):
      return x[:, :1] + 2. * jax.random.normal(key, [])

  sampler = Sampler()
  sampler.mappable = mappable
  x = X[0]
  moments = evaluation.sampler_moments(sampler, x, KEYS[0],
                                       num_enn_samples=100)
  assert moments.num_samples == 100
  shift = moments.mean - x[:, 0]
  np.testing.assert_allclose(shift, shift[0], atol=1e-12)
  assert abs(shift[0]) < 4 * 2. / 100 ** 0.5
  # chi2 of 99.
  low, high = scipy.stats.chi2(99).ppf([1e-4, 1 - 1e-4])
  assert np.all(low < 100 * moments.std ** 2 / 4.)
  assert np.all(100 * moments.std ** 2 / 4. < high)
  if not mappable:
    mapped = Sampler()
    mapped.mappable = True
    same = evaluation.sampler_moments(mapped, x, KEYS[0], num_enn_samples=100)
    np.testing.assert_allclose(same.mean, moments.mean, rtol=1e-12)


def test_any_function_is_a_sampler():
  moments = evaluation.sampler_moments(
      lambda x, key: [[3.]] * len(x), X[0], KEYS[0], num_enn_samples=5)
  np.testing.assert_array_equal(moments.mean, np.full(6, 3.))
  np.testing.assert_array_equal(moments.std, np.zeros(6))


@pytest.mark.parametrize('shape', [(6,), (6, 2), (5, 1), (1, 6), ()])
def test_a_sampler_of_another_shape_is_refused(shape):
  with pytest.raises(ValueError, match=r'must return shape \(6, 1\)'):
    evaluation.sampler_moments(lambda x, key: np.zeros(shape), X[0], KEYS[0],
                               num_enn_samples=3)


class AnalyticSampler:
  analytic = True

  def __init__(self, mean, std):
    self._moments = mean, std

  def moments(self, x):
    del x  # Given.
    return self._moments


def test_analytic_moments_are_taken_as_they_are():
  mean, std = RNG.standard_normal(6), np.exp(RNG.standard_normal(6))
  moments = evaluation.sampler_moments(AnalyticSampler(mean, std), X[0],
                                       KEYS[0], num_enn_samples=3)
  np.testing.assert_array_equal(moments.mean, mean)
  np.testing.assert_array_equal(moments.std, std)
  assert moments.num_samples is None


@pytest.mark.parametrize('mean_shape, std_shape', [
    ((6, 1), (6,)), ((6,), (6, 1)), ((), (6,)), ((6,), ())])
def test_analytic_moments_of_another_shape_are_refused(mean_shape, std_shape):
  sampler = AnalyticSampler(np.zeros(mean_shape), np.ones(std_shape))
  with pytest.raises(ValueError, match=r'must return shape \(6,\)'):
    evaluation.sampler_moments(sampler, X[0], KEYS[0], num_enn_samples=3)


def test_scores_are_the_direct_formulas():
  mean, true_mean = RNG.standard_normal((2, 40))
  std, true_std = np.exp(RNG.standard_normal((2, 40)))
  scores = evaluation.score(mean, std, true_mean, true_std, num_samples=30)
  forward = reverse = mean_error = std_error = square = ratio = 0.
  for m, s, tm, ts in zip(mean, std + 1e-3, true_mean, true_std + 1e-3):
    forward += math.log(s / ts) + (ts ** 2 + (tm - m) ** 2) / (2 * s ** 2) - 0.5
    reverse += math.log(ts / s) + (s ** 2 + (m - tm) ** 2) / (2 * ts ** 2) - 0.5
    mean_error += abs((tm - m) / tm)
    std_error += abs((ts - s) / ts)
    square += (tm - m) ** 2
    ratio += s / ts
  expected = {
      'kl_estimate': forward / 40, 'kl_reverse': reverse / 40,
      'mean_error': mean_error / 40, 'std_error': std_error / 40,
      'mean_rmse': math.sqrt(square / 40), 'std_ratio': ratio / 40,
      'kl_floor': gaussian.finite_sample_floor(30)}
  assert scores.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(scores[name], value, rtol=1e-10, err_msg=name)
    assert type(scores[name]) is float


def test_the_ridge_bounds_the_score_of_an_agent_without_spread():
  scores = evaluation.score(np.zeros(5), np.zeros(5), np.zeros(5), np.ones(5),
                            num_samples=1)
  ratio = 1.001 / 0.001
  np.testing.assert_allclose(scores['kl_estimate'],
                             0.5 * ratio ** 2 - 0.5 - math.log(ratio))
  assert scores['kl_floor'] == np.inf


def test_scores_of_a_diverged_agent_are_not_finite():
  mean = np.array([np.nan, 1., 1.])
  scores = evaluation.score(mean, np.ones(3), np.ones(3), np.ones(3),
                            num_samples=10)
  assert np.isnan(scores['kl_estimate']) and np.isnan(scores['mean_rmse'])


def make_problem(seed, reference='bayes'):
  return problems.make_problem(problems.ProblemConfig(
      10, 2., 0.3, seed, reference, num_test=100, num_val=1))


def score_agent(agent, problem, num_enn_samples=10):
  seed = problem.config.seed
  sampler = agent(problem.data, problem.prior, problems.agent_key(seed))
  moments = evaluation.sampler_moments(
      sampler, problem.x_test, problems.evaluation_key(seed),
      num_enn_samples=num_enn_samples)
  return evaluation.score(moments.mean, moments.std, problem.test_mean,
                          problem.test_std, num_samples=moments.num_samples)


@pytest.mark.parametrize('reference', ['bayes', 'enn2021'])
def test_exact_posterior_scores_zero(reference):
  problem = make_problem(0, reference)
  scores = score_agent(exact_posterior.make_agent(
      exact_posterior.ExactPosteriorConfig(reference=reference)), problem)
  assert 0. <= scores['kl_estimate'] < 1e-18
  assert 0. <= scores['kl_reverse'] < 1e-18
  np.testing.assert_allclose(scores['std_ratio'], 1., rtol=1e-9)
  assert scores['kl_floor'] == 0.
  # And not against the other reference.
  other = {'bayes': 'enn2021', 'enn2021': 'bayes'}[reference]
  assert score_agent(exact_posterior.make_agent(
      exact_posterior.ExactPosteriorConfig(reference=other)),
                     problem)['kl_estimate'] > 1e-3


@pytest.mark.parametrize('num_enn_samples', [10, 50])
def test_sampled_exact_posterior_scores_its_floor(num_enn_samples):
  agent = exact_posterior.make_agent(
      exact_posterior.ExactPosteriorConfig(analytic=False))
  scores = [score_agent(agent, make_problem(seed), num_enn_samples)
            for seed in range(16)]
  floor = gaussian.finite_sample_floor(num_enn_samples)
  assert {s['kl_floor'] for s in scores} == {floor}
  kls = np.array([s['kl_estimate'] for s in scores])
  standard_error = kls.std(ddof=1) / 4.
  assert standard_error < 0.2 * floor
  assert abs(kls.mean() - floor) < 4 * standard_error


def test_prior_only_is_the_closed_form():
  problem = make_problem(0)
  scores = score_agent(prior_only.make_agent(prior_only.PriorOnlyConfig()),
                       problem)
  # Each ReLU layer halves the diagonal of (|x|^2 + 1) / D.
  std = np.sqrt((np.sum(problem.x_test ** 2, 1) + 1.) / 10 / 4) + 1e-3
  true_std = problem.test_std + 1e-3
  kl = (np.log(std / true_std)
        + (true_std ** 2 + problem.test_mean ** 2) / (2 * std ** 2) - 0.5)
  np.testing.assert_allclose(scores['kl_estimate'], kl.mean(), rtol=1e-9)
  np.testing.assert_allclose(scores['std_ratio'], np.mean(std / true_std),
                             rtol=1e-9)


def test_sampled_prior_has_the_priors_moments():
  problem = make_problem(0)
  sampler = prior_only.make_agent(prior_only.PriorOnlyConfig(analytic=False))(
      problem.data, problem.prior, None)
  moments = evaluation.sampler_moments(sampler, problem.x_test, KEYS[0],
                                       num_enn_samples=400)
  std = np.sqrt((np.sum(problem.x_test ** 2, 1) + 1.) / 10 / 4)
  assert np.max(np.abs(moments.mean / std)) < 5. / 400 ** 0.5
  np.testing.assert_allclose(moments.std, std, rtol=5. / 800 ** 0.5)


def select(selection, predictions, val_predictions=None, **fields):
  """`select_members` on a problem with a posterior of N(0, 1) everywhere."""
  num_x = predictions.shape[1]
  standard = (np.zeros(num_x), np.ones(num_x))
  return evaluation.select_members(selection, predictions, val_predictions, **{
      **dict(true_moments=standard, val_moments=standard, y_val=None,
             noise_std=0.1, key=jax.random.PRNGKey(0)), **fields})


def test_members_are_kept_up_to_the_best_validation_score():
  rng = np.random.default_rng(0)
  # Draws of the posterior, and two that only make its std too large.
  predictions = rng.standard_normal((12, 500))
  predictions[10:] *= 30.
  found = select('oracle', predictions, predictions)
  kept = found.path['order'][:found.num_samples]
  assert 5 < len(kept) < 12 and sorted(found.path['order']) == list(range(12))
  assert len(kept) == 1 + np.argmin(found.path['val_score'])
  np.testing.assert_allclose(found.mean, predictions[kept].mean(0))
  np.testing.assert_allclose(found.std, predictions[kept].std(0))
  # Here x_val is x_test, and so is the score.
  np.testing.assert_allclose(found.path['val_score'],
                             found.path['kl_estimate'], rtol=1e-6)
  # Ranking by labels does not read the posterior; the member that made them
  # comes first.
  unread = (np.full(500, 1e3), np.ones(500))
  by_label = select('val_nll', predictions, predictions,
                    y_val=predictions[7][:, None], val_moments=unread)
  assert by_label.path['order'][0] == 7
  assert by_label.path['order'] != found.path['order']


def test_without_selection_the_order_is_random_and_all_are_kept():
  predictions = np.random.default_rng(0).standard_normal((9, 50))
  found = select('none', predictions)
  assert found.num_samples == 9 and found.rank_seconds is None
  order = found.path['order']
  assert sorted(order) == list(range(9)) and order != list(range(9))
  np.testing.assert_array_equal(found.mean, predictions.mean(0))
  assert select('none', predictions).path == found.path
  assert select('none', predictions,
                key=jax.random.PRNGKey(1)).path['order'] != order
  three = evaluation.score(
      predictions[order[:3]].mean(0), predictions[order[:3]].std(0),
      np.zeros(50), np.ones(50), num_samples=3)
  np.testing.assert_allclose(found.path['kl_estimate'][2],
                             three['kl_estimate'])
  np.testing.assert_allclose(found.path['kl_reverse'][2], three['kl_reverse'])


def test_members_that_diverged_have_no_path():
  predictions = np.ones((3, 4))
  predictions[1, 2] = np.nan
  for selection in ('none', 'oracle'):
    found = select(selection, predictions, np.ones((3, 4)))
    assert found.path is None and found.num_samples == 3
    assert np.isnan(found.mean[2]) and found.mean[0] == 1
