"""What trained networks and samplers say at given points."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles import problems
from enn_ensembles.agents import ensemble
from enn_ensembles.agents import exact_posterior
from enn_ensembles.agents import prior_only
from enn_ensembles.scoring import gaussian
from enn_ensembles.training import forward_blocks
from enn_ensembles.training import loop
from enn_ensembles.training import prediction

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 6, 3))
KEYS = jnp.stack([jax.random.PRNGKey(seed) for seed in (5, 6)])
AGENT = ensemble.make_agent(ensemble.EnsembleConfig(
    num_ensemble=4, hidden_sizes=(5,)))
PRIOR = base.PriorKnowledge((3,), 6, base.Gaussian(0.1))


@pytest.fixture(name='trained', scope='module')
def make_trained():
  """Initial parameters of 2 seeds by 3 noise levels, all different."""
  network = AGENT.make_network(PRIOR)
  init = lambda key: network.init(key, jnp.ones((1, 3), jnp.float32), 0)
  params, state = jax.jit(jax.vmap(jax.vmap(init)))(
      jax.random.split(jax.random.PRNGKey(0), (2, 3)))
  return loop.Trained(params, state, np.zeros((2, 3)), 0,
                      jnp.dtype('float32'), 0., 0.)


@pytest.fixture(name='members', scope='module')
def predict_members(trained):
  """Every member's predictions, one apply at a time: [S, E, K, N]."""
  network = AGENT.make_network(PRIOR)
  apply = jax.jit(lambda params, state, x, z: base.get_predictions(
      network.apply(params, state, x, z)[0])[:, 0])
  return np.array([[[apply(*jax.tree.map(
      lambda a, s=s, e=e: a[s, e], (trained.params, trained.state)),
                           X[s].astype(np.float32), k) for k in range(4)]
                    for e in range(3)] for s in range(2)])


def predict_all(trained, num_draws, keys=KEYS, num_points=6):
  """Samples of every seed and noise level, [S, E, J, N]."""
  predictor = prediction.Predictor(AGENT, trained, PRIOR, keys, num_draws)
  found = np.array([[
      predictor.for_problem(s, e)(X[s, :num_points]).samples[..., 0]
      for e in range(3)] for s in range(2)])
  return found


def test_enumerated_predictions_are_those_of_all_members(trained, members):
  found = predict_all(trained, None)
  assert found.shape == (2, 3, 4, 6)
  np.testing.assert_allclose(found, members, rtol=1e-5, atol=1e-6)
  predict = prediction.Predictor(AGENT, trained, PRIOR, KEYS,
                                 None).for_problem(1, 2)
  predictions = predict(X[1])
  assert predictions.num_samples == 4
  assert predictions.mean is None and predictions.std is None
  mean, std = gaussian.prediction_moments(predictions)
  exact = members[1, 2].astype(np.float64)
  np.testing.assert_allclose(mean, exact.sum(0) / 4, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
      std, np.sqrt(((exact - exact.mean(0)) ** 2).sum(0) / 4), rtol=1e-4)
  assert mean.dtype == std.dtype == np.float64


@pytest.fixture(name='drawn', scope='module')
def draw_predictions(trained):
  # 230 is no multiple of the block of draws.
  return predict_all(trained, 230)


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


def test_draws_come_from_the_evaluation_key(trained, drawn, members):
  swapped = predict_all(trained, 230, KEYS[::-1])
  np.testing.assert_array_equal(
      find_members(swapped, members), find_members(drawn, members)[::-1])


def test_a_draw_is_the_same_function_at_other_points(trained, drawn):
  fewer = predict_all(trained, 230, num_points=2)
  np.testing.assert_allclose(fewer, drawn[..., :2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('num_draws', [None, 230])
def test_blocks_of_points_give_the_same_as_one_block(trained, num_draws,
                                                     monkeypatch):
  whole = predict_all(trained, num_draws)
  compiled = []
  compile_program = loop.compile_program
  monkeypatch.setattr(loop, 'compile_program', lambda *args: (
      compiled.append(1), compile_program(*args))[1])
  # Blocks of four points; the second is filled up.
  monkeypatch.setattr(forward_blocks, '_BLOCK_NUMBERS', 4 * 64 * 100)
  blocks = predict_all(trained, num_draws, num_points=6)
  np.testing.assert_allclose(blocks, whole, rtol=1e-5, atol=1e-6)
  assert len(compiled) == 1  # One program for all blocks, seeds and levels.
  monkeypatch.setattr(forward_blocks, '_BLOCK_NUMBERS', 1)  # Point by point.
  np.testing.assert_allclose(predict_all(trained, num_draws), whole, rtol=1e-5,
                             atol=1e-6)


@pytest.mark.parametrize('num_draws, num_members, num_points, expected', [
    (None, 4, 1000, 32),  # 128 pairs of a member and an image.
    (None, 100, 1000, 8), (None, 100, 5, 5),
    (1000, 4, 1000, 125),  # Equal blocks of at most 128.
])
def test_images_are_forwarded_in_small_blocks(num_draws, num_members,
                                              num_points, expected):
  network = base.EpistemicNetwork(None, None,
                                  networks.EnsembleIndexer(num_members))
  points = lambda *image: forward_blocks.points_per_block(
      network, (num_points, *image), num_draws)
  assert points(8, 8, 1) == expected
  assert points(64) == num_points


@pytest.mark.parametrize('num_axes, num_indices, expected', [
    (4, 20, 8), (4, 4, 32), (4, 1, 100), (2, 20, 100)])
def test_few_images_are_validated_at_once(num_axes, num_indices, expected):
  assert forward_blocks.limit_images(100, num_axes, num_indices) == expected


def test_what_is_asked_twice_is_computed_once(trained, monkeypatch):
  predictor = prediction.Predictor(AGENT, trained, PRIOR, KEYS, None)
  asked = []
  run = predictor._run
  monkeypatch.setattr(predictor, '_run',
                      lambda *args: (asked.append(args[0]), run(*args))[1])
  x, other = X[0], X[1]
  for e, _ in itertools.product(range(3), range(2)):
    predictor.for_problem(0, e)(x)
  assert asked == [0]
  predictor.for_problem(0, 0)(other)
  predictor.for_problem(1, 0)(x)  # Another network at the same points.
  assert asked == [0, 0, 1]
  assert predictor.evaluate_seconds > 0 and predictor.compile_seconds > 0
  assert predictor.num_points == (2 * len(x) + len(other)) * 3  # Levels.
  assert predictor.seconds_per_1000 == pytest.approx(
      1000 * predictor.evaluate_seconds / predictor.num_points)


def test_only_finite_indices_are_enumerated():
  draws = lambda *args: prediction.num_index_draws(
      AGENT.make_network(PRIOR), *args)
  assert draws(100, True) is None and draws(100, False) == 100
  infinite = base.EpistemicNetwork(None, None, indexer=lambda key: 0)
  assert prediction.num_index_draws(infinite, 100, True) == 100


def sampler_moments(sampler, x, key, num_enn_samples):
  """(mean, std, number of samples)."""
  found = prediction.sampler_predictions(sampler, x, key, num_enn_samples)
  return (*gaussian.prediction_moments(found), found.num_samples)


@pytest.mark.parametrize('mappable', [False, True])
def test_a_sampler_is_drawn_from_with_independent_keys(mappable):
  class Sampler:
    def __call__(self, x, key):
      return x[:, :1] + 2. * jax.random.normal(key, [])

  sampler = Sampler()
  sampler.mappable = mappable
  x = X[0]
  mean, std, num_samples = sampler_moments(sampler, x, KEYS[0], 100)
  assert num_samples == 100
  shift = mean - x[:, 0]
  np.testing.assert_allclose(shift, shift[0], atol=1e-12)
  assert abs(shift[0]) < 4 * 2. / 100 ** 0.5
  # chi2 of 99.
  low, high = scipy.stats.chi2(99).ppf([1e-4, 1 - 1e-4])
  assert np.all(low < 100 * std ** 2 / 4.)
  assert np.all(100 * std ** 2 / 4. < high)
  if not mappable:
    mapped = Sampler()
    mapped.mappable = True
    same, _, _ = sampler_moments(mapped, x, KEYS[0], 100)
    np.testing.assert_allclose(same, mean, rtol=1e-12)


def test_any_function_is_a_sampler():
  mean, std, _ = sampler_moments(lambda x, key: [[3.]] * len(x), X[0], KEYS[0],
                                 5)
  np.testing.assert_array_equal(mean, np.full(6, 3.))
  np.testing.assert_array_equal(std, np.zeros(6))


@pytest.mark.parametrize('shape', [(6,), (6, 2), (5, 1), (1, 6), ()])
def test_a_sampler_of_another_shape_is_refused(shape):
  drawn = []

  def sampler(x, key):
    drawn.append(1)
    return np.zeros(shape)

  with pytest.raises(ValueError, match=r'must return shape \(6, 1\)'):
    prediction.sampler_predictions(sampler, X[0], KEYS[0], 3)
  assert len(drawn) == 1  # Not after all draws.


class SamplerWithMembers:
  """Three members; drawn from, it says something else."""

  def __init__(self, members):
    self._members = members

  def __call__(self, x, key):
    return np.full((len(x), 1), 9.)

  def members(self, x):
    return self._members(x)


def test_members_of_a_sampler_are_enumerated():
  sampler = SamplerWithMembers(
      lambda x: np.stack([k * x[:, :1] for k in (1., 2., 6.)]))
  found = prediction.sampler_predictions(sampler, X[0], KEYS[0], 5)
  assert found.num_samples == 3
  mean, std = gaussian.prediction_moments(found)
  np.testing.assert_allclose(mean, 3. * X[0, :, 0])
  np.testing.assert_allclose(std, np.sqrt(14. / 3.) * np.abs(X[0, :, 0]))
  # Where indices are drawn, so is this.
  found = prediction.sampler_predictions(sampler, X[0], KEYS[0], 5,
                                         enumerate_indices=False)
  np.testing.assert_array_equal(found.samples, np.full((5, 6, 1), 9.))
  # Several outputs, as logits are.
  classes = SamplerWithMembers(lambda x: np.stack([x, -x]))
  found = prediction.sampler_predictions(classes, X[0], KEYS[0], 5,
                                         num_outputs=3)
  np.testing.assert_array_equal(found.samples, [X[0], -X[0]])


@pytest.mark.parametrize('shape', [(6, 1), (3, 6), (3, 5, 1), (3, 6, 2)])
def test_members_of_another_shape_are_refused(shape):
  sampler = SamplerWithMembers(lambda x: np.zeros(shape))
  with pytest.raises(ValueError, match=r'members must return shape \[K, 6, 1\]'
                                       r' at 6 points, got'):
    prediction.sampler_predictions(sampler, X[0], KEYS[0], 3)


def test_a_sampler_that_draws_for_many_keys_is_asked_once():
  class Sampler:
    num_points = 6

    def draws(self, x, keys):
      return np.tile(np.asarray(keys)[:, 1, None, None] % 7.,
                     (1, self.num_points, 1))

  found = prediction.sampler_predictions(Sampler(), X[0], KEYS[0], 5)
  expected = [int(jax.random.fold_in(KEYS[0], i)[1]) % 7 for i in range(5)]
  np.testing.assert_array_equal(found.samples[:, 3, 0], expected)
  wrong = Sampler()
  wrong.num_points = 4
  with pytest.raises(ValueError, match=r'draws must return shape \(5, 6, 1\)'):
    prediction.sampler_predictions(wrong, X[0], KEYS[0], 5)


class AnalyticSampler:
  analytic = True

  def __init__(self, mean, std):
    self._moments = mean, std

  def moments(self, x):
    del x  # Given.
    return self._moments


def test_analytic_moments_are_taken_as_they_are():
  mean, std = RNG.standard_normal(6), np.exp(RNG.standard_normal(6))
  found_mean, found_std, num_samples = sampler_moments(
      AnalyticSampler(mean, std), X[0], KEYS[0], 3)
  np.testing.assert_array_equal(found_mean, mean)
  np.testing.assert_array_equal(found_std, std)
  assert num_samples is None


@pytest.mark.parametrize('mean_shape, std_shape', [
    ((6, 1), (6,)), ((6,), (6, 1)), ((), (6,)), ((6,), ())])
def test_analytic_moments_of_another_shape_are_refused(mean_shape, std_shape):
  sampler = AnalyticSampler(np.zeros(mean_shape), np.ones(std_shape))
  with pytest.raises(ValueError, match=r'must return shape \(6,\)'):
    prediction.sampler_predictions(sampler, X[0], KEYS[0], 3)


# The audits.


def make_problem(seed, reference='bayes'):
  problem, = problems.make_problems([problems.ProblemConfig(
      10, 2., 0.3, seed, reference, num_test=100, num_val=1)])
  return problem


def score_agent(agent, problem, num_enn_samples=10):
  seed = problem.config.seed
  sampler = agent(problem.data, problem.prior, problems.agent_key(seed))
  return problem.score(lambda x: prediction.sampler_predictions(
      sampler, x, problems.evaluation_key(seed), num_enn_samples))


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
  mean, sampled_std, _ = sampler_moments(sampler, problem.x_test, KEYS[0], 400)
  std = np.sqrt((np.sum(problem.x_test ** 2, 1) + 1.) / 10 / 4)
  assert np.max(np.abs(mean / std)) < 5. / 400 ** 0.5
  np.testing.assert_allclose(sampled_std, std, rtol=5. / 800 ** 0.5)
