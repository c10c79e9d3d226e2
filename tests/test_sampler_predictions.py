"""What samplers of any framework say at given points; audits of the scores."""

import jax
import numpy as np
import pytest
import scipy.stats

from enn_ensembles import problems
from enn_ensembles.agents import exact_posterior
from enn_ensembles.agents import prior_only
from enn_ensembles.scoring import gaussian
from enn_ensembles.training import sampler_predictions

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 6, 3))
KEYS = [jax.random.PRNGKey(seed) for seed in (5, 6)]


def sampler_moments(sampler, x, key, num_enn_samples):
  """(mean, std, number of samples)."""
  found = sampler_predictions.predict(sampler, x, key, num_enn_samples)
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
    sampler_predictions.predict(sampler, X[0], KEYS[0], 3)
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
  found = sampler_predictions.predict(sampler, X[0], KEYS[0], 5)
  assert found.num_samples == 3
  mean, std = gaussian.prediction_moments(found)
  np.testing.assert_allclose(mean, 3. * X[0, :, 0])
  np.testing.assert_allclose(std, np.sqrt(14. / 3.) * np.abs(X[0, :, 0]))
  # Where indices are drawn, so is this.
  found = sampler_predictions.predict(sampler, X[0], KEYS[0], 5,
                                      enumerate_indices=False)
  np.testing.assert_array_equal(found.samples, np.full((5, 6, 1), 9.))
  # Several outputs, as logits are.
  classes = SamplerWithMembers(lambda x: np.stack([x, -x]))
  found = sampler_predictions.predict(classes, X[0], KEYS[0], 5,
                                      num_outputs=3)
  np.testing.assert_array_equal(found.samples, [X[0], -X[0]])


@pytest.mark.parametrize('shape', [(6, 1), (3, 6), (3, 5, 1), (3, 6, 2),
                                   (0, 6, 1)])
def test_members_of_another_shape_are_refused(shape):
  sampler = SamplerWithMembers(lambda x: np.zeros(shape))
  with pytest.raises(ValueError, match=r'members must return shape \[K, 6, 1\]'
                                       r' at 6 points with K >= 1, got'):
    sampler_predictions.predict(sampler, X[0], KEYS[0], 3)


@pytest.mark.parametrize('given, message', [
    ((np.zeros((3, 6, 1)), np.ones((3, 6))),
     r'variances of shape \(3, 6, 1\) as its members have, got \(3, 6\)'),
    ((np.zeros((3, 6, 1)), np.full((3, 6, 1), -1.)), 'variances >= 0, got -1'),
    (np.zeros((3, 6, 1)), 'must return a pair, members and variances, got nd'),
    ((np.zeros((3, 6, 1)), np.full((3, 6, 1), 'a')), 'must return real numb')])
def test_noise_that_members_cannot_say_is_refused(given, message):
  sampler = SamplerWithMembers(lambda x: np.zeros((3, 6, 1)))
  sampler.members_with_noise = lambda x: given
  with pytest.raises(ValueError, match=message):
    sampler_predictions.predict(sampler, X[0], KEYS[0], 3)


def test_a_sampler_that_draws_for_many_keys_is_asked_once():
  class Sampler:
    num_points = 6

    def draws(self, x, keys):
      return np.tile(np.asarray(keys)[:, 1, None, None] % 7.,
                     (1, self.num_points, 1))

  found = sampler_predictions.predict(Sampler(), X[0], KEYS[0], 5)
  expected = [int(jax.random.fold_in(KEYS[0], i)[1]) % 7 for i in range(5)]
  np.testing.assert_array_equal(found.samples[:, 3, 0], expected)
  wrong = Sampler()
  wrong.num_points = 4
  with pytest.raises(ValueError, match=r'draws must return shape \(5, 6, 1\)'):
    sampler_predictions.predict(wrong, X[0], KEYS[0], 5)


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
    sampler_predictions.predict(sampler, X[0], KEYS[0], 3)


def test_an_analytic_sampler_has_moments_and_a_square_covariance():
  sampler = AnalyticSampler(np.zeros(6), np.ones(6))
  sampler.joint_covariance = lambda x: np.ones((6, 5))
  with pytest.raises(ValueError, match=r'shape \(6, 6\) .* got \(6, 5\)'):
    sampler_predictions.predict(sampler, X[0], KEYS[0], 3)
  bare = SamplerWithMembers(None)
  bare.analytic = True
  with pytest.raises(ValueError, match=r'have moments\(x\), got a Sampler'):
    sampler_predictions.predict(bare, X[0], KEYS[0], 3)


# The audits.


def make_problem(seed, reference='bayes'):
  problem, = problems.make_problems([problems.ProblemConfig(
      10, 2., 0.3, seed, reference, num_test=100, num_val=1)])
  return problem


def score_agent(agent, problem, num_enn_samples=10):
  seed = problem.config.seed
  sampler = agent(problem.data, problem.prior, problems.agent_key(seed))
  return problem.score(lambda x: sampler_predictions.predict(
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
