"""All scores of an NNGP problem; the exact posterior is their audit."""

import dataclasses
import functools
import math

import counting
import jax
import numpy as np
import pytest
import scipy.stats

from enn_ensembles import base
from enn_ensembles import problems
from enn_ensembles.agents import exact_posterior
from enn_ensembles.agents import prior_only
from enn_ensembles.scoring import joint
from enn_ensembles.scoring import nngp_scores
from enn_ensembles.scoring import prediction_counts
from enn_ensembles.scoring import table
from enn_ensembles.sweeps import unit_results
from enn_ensembles.training import sampler_predictions


@functools.cache
def _problem(seed=0, num_test=40):
  problem, = problems.make_problems([problems.ProblemConfig(
      5, 6, 0.3, seed, num_test=num_test, num_val=2)])
  return problem


def _predictor(problem, agent, num_samples=1000):
  # Problems must not share draws: their scores are to be independent.
  key = jax.random.PRNGKey(problem.config.seed)
  sampler = agent(problem.data, problem.prior, key)
  return lambda x: sampler_predictions.predict(sampler, x, key, num_samples)


def _exact(problem, analytic, num_samples=1000):
  agent = exact_posterior.make_agent(
      exact_posterior.ExactPosteriorConfig(analytic))
  return _predictor(problem, agent, num_samples)


# Of agents that say what the noise is.
SPLIT = {name for name in table.scores_of('nngp')
         if name.startswith(('aleatoric', 'epistemic', 'split', 'mixture'))}
_FLOORS = {name: score.floor for name, score in table.scores_of('nngp').items()
           if score.floor is not None and name not in SPLIT}
AGENT_SCORES = {'weight_cosine', 'weight_cosine_biases'}


def _few(problem, num_samples, **changes):
  """Predictions of so many draws of N(0.1, 1) at every point."""
  def predict(x):
    rng = np.random.default_rng(len(x))
    return base.Predictions(
        0.1 + rng.standard_normal([num_samples, len(x), 1]))._replace(**changes)
  return predict


def test_every_score_stands_in_the_table_and_the_reverse():
  scores = _problem().score(_few(_problem(), 30))
  # Those of the agent itself come from its weights, not from predictions.
  assert set(scores) == set(table.scores_of('nngp')) - AGENT_SCORES - SPLIT
  assert all(type(value) is float for value in scores.values())


def test_exact_moments_of_the_posterior_score_zero():
  problem = _problem()
  scores = nngp_scores.score(problem, _exact(problem, analytic=True))
  for name in (*_FLOORS, *_FLOORS.values(), 'kl_reverse',
               'crps_excess_expected', 'log_score_excess_expected',
               'crps_excess', 'log_score_excess'):
    assert abs(scores[name]) < 1e-9, name


def test_draws_of_the_posterior_score_their_floors():
  """One is the expectation of the other, over problems and draws."""
  found = {name: [] for name in _FLOORS}
  for seed in range(12):
    problem = _problem(seed)
    scores = nngp_scores.score(problem, _exact(problem, False, 25))
    for name, floor in _FLOORS.items():
      found[name].append(scores[name] / scores[floor])
  for name, ratios in found.items():
    standard_error = np.std(ratios, ddof=1) / np.sqrt(len(ratios))
    # A percent for the std ridge and for floors that are simulated.
    assert abs(np.mean(ratios) - 1.) < 4 * standard_error + 0.01, name
    assert standard_error < 0.1, name


def test_posterior_is_calibrated():
  """Coverage and ranks, one number per problem: points are correlated."""
  found = {50: [], 90: [], 99: []}
  histograms = []
  for seed in range(60):
    problem = _problem(seed)
    counts = {}
    scores = nngp_scores.score(problem, _exact(problem, analytic=True), counts)
    for level, values in found.items():
      values.append(scores[f'coverage_{level}'] - level / 100)
    histograms.append(np.reshape(
        counts['test']['pit_count'], [5, 4]).sum(axis=1) / 40)
  for level, values in found.items():
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(60), level
  standard_error = np.std(histograms, axis=0) / np.sqrt(60)
  assert np.all(np.abs(np.mean(histograms, axis=0) - 0.2) < 4 * standard_error)
  assert np.all(standard_error < 0.03)


def test_rows_keep_the_transform_of_f_point_by_point():
  problem = _problem()
  samples = 0.1 + np.random.default_rng(0).standard_normal([30, 40, 1])
  predict = lambda x: (base.Predictions(samples) if len(x) == 40
                       else _few(problem, 30)(x))
  counts = {}
  assert problem.score_and_count(predict, counts) == problem.score(predict)
  expected = [0] * prediction_counts.NUM_PIT_BINS
  for f, own in zip(problem.f_test[:, 0], samples[..., 0].T):
    share = scipy.stats.norm(own.mean(), own.std()).cdf(f)
    expected[int(share * len(expected))] += 1
  assert counts == {'test': {'pit_count': expected}}
  result = unit_results.scored(problem, predict)
  assert result.counts == counts and sum(expected) == 40


def test_no_transform_without_f_or_of_what_is_not_finite():
  problem = _problem()
  def diverged(x):
    return base.Predictions(np.full([3, len(x), 1], np.nan))
  assert unit_results.scored(problem, diverged).counts is None
  unknown = dataclasses.replace(problem, f_test=None)
  assert unit_results.scored(unknown, _few(unknown, 3)).counts is None


def test_scores_have_no_loop_over_points_or_samples():
  def num_calls(num_test, num_samples):
    problem = _problem(num_test=num_test)
    predict = _few(problem, num_samples)
    predictions = {len(x): predict(x)
                   for x in (problem.x_test, problem.x_dyadic)}
    score = lambda: nngp_scores.score(problem, lambda x: predictions[len(x)])
    score()  # What happens once has happened.
    return counting.num_calls(score)

  # Older versions of jax make some calls more at first, no loop.
  assert num_calls(80, 30) == pytest.approx(num_calls(40, 30), rel=0.01)
  assert num_calls(40, 60) == pytest.approx(num_calls(40, 30), rel=0.01)


def test_scores_are_the_formulas_point_by_point():
  problem = _problem()
  samples = 0.1 + np.random.default_rng(0).standard_normal([30, 40, 1])
  scores = nngp_scores.score(
      problem, lambda x: base.Predictions(samples) if len(x) == 40
      else _few(problem, 30)(x))
  mean, std = samples[..., 0].mean(0), samples[..., 0].std(0)
  p = scipy.stats.norm(problem.test_mean, np.hypot(problem.test_std, 0.3))
  q = scipy.stats.norm(mean, np.hypot(std, 0.3))
  y, f = problem.y_test[:, 0], problem.f_test[:, 0]
  assert scores['log_score_excess'] == pytest.approx(
      np.mean(p.logpdf(y) - q.logpdf(y)))
  assert scores['wasserstein'] == pytest.approx(np.mean(
      ((mean - problem.test_mean)**2 + (std - problem.test_std)**2)
      / problem.test_std**2))
  low, high = scipy.stats.norm(mean, std).interval(0.9)
  assert scores['coverage_90'] == np.mean((low < f) & (f < high))
  # Expectations, by many labels of the exact predictive distribution.
  labels = p.rvs((20_000, 40), random_state=0)
  difference = (p.logpdf(labels) - q.logpdf(labels)).mean(1)
  assert abs(scores['log_score_excess_expected'] - difference.mean()) < (
      4 * difference.std() / np.sqrt(20_000))
  # Pairs of neighbouring points, with a ridge on every std.
  kl = []
  for i in range(20):
    pair = slice(2 * i, 2 * i + 2)
    block, row = divmod(2 * i, 10)
    both = []
    for covariance in (
        problem.test_covariances[block, row:row + 2, row:row + 2],
        np.cov(samples[:, pair, 0].T, ddof=0)):
      scale = np.diag(1 + 1e-3 / np.sqrt(np.diag(covariance)))
      both.append(scale @ covariance @ scale)
    kl.append(joint.kl(problem.test_mean[pair], both[0], mean[pair], both[1]))
  assert scores['joint_kl_tau2'] == pytest.approx(np.mean(kl))


@pytest.mark.parametrize('num_samples', [1, 2, 4, 10, 12, 13])
def test_what_is_infinite_for_few_samples(num_samples):
  scores = nngp_scores.score(_problem(), _few(_problem(), num_samples))
  infinite = {name for name, value in scores.items() if math.isinf(value)}
  expected = {name for name, most in (
      ('kl_floor', 3), ('joint_kl_tau2', 2), ('joint_kl_tau2_floor', 4),
      ('joint_kl_tau10', 10), ('joint_kl_tau10_floor', 12))
              if num_samples <= most}
  assert infinite == expected
  assert all(table.SCORES[name].may_be_infinite for name in infinite)
  assert not any(math.isnan(value) for value in scores.values())


def test_joint_score_sees_what_marginals_do_not():
  """Right marginals, but independent from point to point."""
  problem = _problem()

  def predict(x):
    exact = _exact(problem, analytic=True)(x)
    return exact._replace(
        covariances=np.diag(exact.std[:, 0]**2)[None])

  scores = nngp_scores.score(problem, predict)
  assert abs(scores['kl_estimate']) < 1e-9
  assert scores['joint_kl_dyadic_tau10'] > 0.3


def test_prior_has_its_own_joint_covariance():
  """Sampled and exact, it scores the same: its functions are joint draws."""
  problem = _problem()
  exact, sampled = (
      nngp_scores.score(problem, _predictor(problem, prior_only.make_agent(
          prior_only.PriorOnlyConfig(analytic)), 20_000))
      for analytic in (True, False))
  for name in ('kl_estimate', 'joint_kl_tau2', 'joint_kl_tau10',
               'joint_kl_dyadic_tau10'):
    assert sampled[name] == pytest.approx(exact[name], rel=0.05), name


def test_what_is_not_known_is_left_out():
  problem = _problem()
  bare = problems.problem_from_data(
      problem.x_train, problem.y_train, problem.x_test, problem.x_val, 0.3)
  scores = nngp_scores.score(
      bare, lambda x: base.Predictions(
          None, mean=np.zeros([len(x), 1]), std=np.ones([len(x), 1])))
  missing = set(table.scores_of('nngp')) - set(scores) - AGENT_SCORES - SPLIT
  assert missing == {name for name in table.scores_of('nngp')
                     if name.startswith(('joint', 'coverage'))
                     or name in ('crps_excess', 'log_score_excess')}
  assert not {name for name in missing if table.SCORES[name].required}


def test_noise_that_an_agent_says_is_read():
  problem = _problem()
  few = _few(problem, 5)
  own = nngp_scores.score(problem, few)
  said = nngp_scores.score(problem, lambda x: few(x)._replace(
      observation_variances=np.full([5, len(x), 1], 4.)))
  assert said['log_score_excess'] != own['log_score_excess']
  assert said['wasserstein'] == own['wasserstein']


@pytest.mark.parametrize('shape', [(40, 40), (1, 30, 30), (5, 8, 8)])
def test_refuses_covariances_of_another_shape(shape):
  problem = _problem()

  def predict(x):
    exact = _exact(problem, analytic=True)(x)
    return exact._replace(covariances=np.ones(shape))

  with pytest.raises(ValueError, match='covariances at 40 points must'):
    nngp_scores.score(problem, predict)


def test_refuses_predictions_at_other_points():
  with pytest.raises(ValueError, match=r'of shape \[J, 40, 1\]'):
    nngp_scores.score(_problem(), lambda x: base.Predictions(
        np.zeros([3, len(x) - 1, 1])))


def test_diverged_predictions_score_no_number():
  problem = _problem()
  scores = nngp_scores.score(problem, lambda x: base.Predictions(
      np.full([30, len(x), 1], np.nan)))
  assert all(math.isnan(scores[name]) for name in (
      'kl_estimate', 'joint_kl_tau10', 'joint_kl_dyadic_tau10', 'coverage_90',
      'wasserstein', 'crps_excess'))
