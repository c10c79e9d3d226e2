"""Aggregation of members: definitions, ties, weights, and selections by it."""

import types

import jax
import numpy as np
import pytest
from scipy import special
from scipy import stats

from enn_ensembles import base
from enn_ensembles.problems import nngp_regression
from enn_ensembles.scoring import aggregation
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import classification_scores
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import joint
from enn_ensembles.scoring import noise_scores
from enn_ensembles.scoring import selection
from enn_ensembles.scoring import weighting

RNG = np.random.default_rng(0)
LOGITS = 2. * RNG.standard_normal((5, 30, 4))
LABELS = RNG.integers(0, 4, 30)
WEIGHTS = np.array([0.4, 0., 0.3, 0.2, 0.1])
KEY = jax.random.PRNGKey(0)


def one_hot_logits(labels, num_classes):
  """Members that are sure: exp(-800) is 0."""
  return -800. * (1. - np.eye(num_classes)[np.asarray(labels)])


def classes(rule, log_probs, weights=None):
  return np.exp(aggregation.Aggregation(rule, weights).classes(log_probs))


# The definitions on cases that everybody can check. ------------------------


def test_identical_members_have_no_epistemic_uncertainty():
  same = categorical.log_softmax(np.repeat(LOGITS[:1], 6, axis=0))
  found = categorical.uncertainties(same)
  assert found.epistemic.max() < 1e-15
  np.testing.assert_allclose(found.aleatoric, found.total)
  assert not aggregation.variation_ratio(same).any()


@pytest.mark.parametrize('num_members', [2, 3, 10])
def test_sure_members_that_all_differ_have_epistemic_uncertainty_only(
    num_members):
  logits = one_hot_logits(np.arange(num_members)[:, None], num_members)
  found = categorical.uncertainties(categorical.log_softmax(logits))
  np.testing.assert_allclose(found.aleatoric, 0., atol=1e-300)
  np.testing.assert_allclose(found.epistemic, np.log(num_members))
  np.testing.assert_allclose(
      aggregation.variation_ratio(categorical.log_softmax(logits)),
      1. - 1. / num_members)


def test_values_are_averaged():
  values = np.array([10.2, 9.8, 10.5, 9.5, 10.0])[:, None]
  assert aggregation.MEAN.values(values) == pytest.approx([10.0])
  assert aggregation.Aggregation('median').values(values) == [10.0]
  split = noise_scores.split_variance(
      values[..., None], np.array([1., 2., 3., 4., 5.])[:, None, None])
  # var = (.04 + .04 + .25 + .25 + 0) / 5.
  np.testing.assert_allclose(np.ravel(split), [3.116, 3., 0.116])


# The rules. ---------------------------------------------------------------


def test_rules_are_the_slow_formulas():
  log_probs = categorical.log_softmax(LOGITS)
  probs = special.softmax(LOGITS, axis=-1)
  np.testing.assert_allclose(classes('mean', log_probs), probs.mean(0))
  np.testing.assert_allclose(classes('mean_logits', log_probs),
                             special.softmax(LOGITS.mean(0), axis=-1))
  np.testing.assert_allclose(classes('mean', log_probs, WEIGHTS),
                             np.tensordot(WEIGHTS, probs, 1))
  found = classes('vote', log_probs)
  np.testing.assert_allclose(found.sum(-1), 1.)
  for n, members in enumerate(probs.argmax(-1).T):
    votes = np.bincount(members, minlength=4)
    winners = np.flatnonzero(votes == votes.max())
    best = max(winners, key=lambda c, n=n: probs[:, n, c].mean())
    assert found[n].argmax() == best
    assert aggregation.variation_ratio(log_probs)[n] == pytest.approx(
        1. - stats.mode(members).count / 5)
  # There are ties among them, and majorities that the mean would overrule.
  votes = aggregation.count_votes(probs.argmax(-1), 4)
  assert (np.sort(votes)[:, -1] == np.sort(votes)[:, -2]).any()
  assert (found.argmax(-1) != probs.mean(0).argmax(-1)).any()


def test_a_vote_is_never_overruled_by_how_sure_the_others_are():
  # Two for class 0, hardly; one for class 1, surely.
  logits = np.array([[[.1, 0.]], [[.1, 0.]], [[0., 800.]]])
  log_probs = categorical.log_softmax(logits)
  assert classes('vote', log_probs).argmax() == 0
  assert classes('mean', log_probs).argmax() == 1
  assert np.isfinite(aggregation.Aggregation('vote').classes(log_probs)).all()


def test_a_class_without_a_vote_keeps_a_probability():
  # Its mean probability, exp(-800), is below the smallest number; it has a
  # quarter of that.
  logits = np.full((3, 2, 3), [800., 0., 0.])
  voted = aggregation.Aggregation('vote')
  least = -800. - np.log(4.)
  np.testing.assert_allclose(voted.classes(categorical.log_softmax(logits)),
                             [[0., least, least]] * 2, atol=1e-12)
  scores = classification_scores.score_test(logits, np.array([0, 1]), voted)
  assert scores['nll'] == pytest.approx(-least / 2)


def test_rules_are_refused_where_they_mean_nothing():
  with pytest.raises(ValueError, match="mean, mean_logits, vote here, got 'me"):
    aggregation.Aggregation('median').classes(LOGITS)
  with pytest.raises(ValueError, match="mean, median here, got 'vote'"):
    aggregation.Aggregation('vote').values(LOGITS[..., 0])
  for weights, rule in ((np.ones(4) / 4, 'mean'), (WEIGHTS, 'vote')):
    with pytest.raises(ValueError, match='weights must be None or one per'):
      aggregation.Aggregation.of(base.Predictions(
          LOGITS, weights=weights, aggregation=rule))


def test_weights_are_how_often_a_member_is_there():
  repeated = np.repeat(LOGITS, [4, 0, 3, 2, 1], axis=0)
  weighted = classification_scores.score_test(
      LOGITS, LABELS, aggregation.Aggregation('mean', WEIGHTS))
  plain = classification_scores.score_test(repeated, LABELS)
  for name in ('nll', 'accuracy', 'brier', 'ece', 'aurc', 'joint_nll',
               'dyadic_nll', 'total_uncertainty', 'aleatoric_uncertainty',
               'epistemic_uncertainty'):
    assert weighted[name] == pytest.approx(plain[name], rel=1e-9), name
  outside = classification_scores.score_outside(
      LOGITS, 0.5 * LOGITS, aggregation.Aggregation('mean', WEIGHTS))
  assert outside == pytest.approx({
      **classification_scores.score_outside(repeated, 0.5 * repeated),
      'ood_disagreement': outside['ood_disagreement']})
  samples = LOGITS[..., :1]
  mean, std = gaussian.prediction_moments(
      base.Predictions(samples, weights=WEIGHTS))
  often = np.repeat(samples[..., 0], [4, 0, 3, 2, 1], axis=0)
  np.testing.assert_allclose(mean, often.mean(0))
  np.testing.assert_allclose(std, often.std(0))
  for found, expected in zip(joint.sample_blocks(samples[..., 0], 3, WEIGHTS),
                             joint.sample_blocks(often, 3)):
    np.testing.assert_allclose(found, expected)


def test_what_is_predicted_is_the_rules_and_the_rest_the_members():
  vote = classification_scores.score_test(LOGITS, LABELS,
                                          aggregation.Aggregation('vote'))
  mean = classification_scores.score_test(LOGITS, LABELS)
  log_probs = categorical.log_softmax(LOGITS)
  expected = -np.log(classes('vote', log_probs)[np.arange(30), LABELS]).mean()
  assert vote['nll'] == pytest.approx(expected)
  changed = {name for name in mean if vote[name] != mean[name]}
  assert changed - {'accuracy'} == {'nll', 'brier', 'ece', 'adaptive_ece',
                                    'aurc'}


# Selections. ---------------------------------------------------------------


def make_problem(num_x=6, num_train=4, **changes):
  """y is 1 everywhere, with a noise of 0.5; the posterior is N(0, 1)."""
  x, ones = np.arange(float(num_x))[:, None], np.ones([num_x, 1])
  return nngp_regression.Problem(**{
      **dict(config=None, x_train=x[:num_train], y_train=ones[:num_train],
             x_test=x, x_val=x, test_mean=np.zeros(num_x),
             test_std=np.ones(num_x), val_mean=np.zeros(num_x),
             val_std=np.ones(num_x), y_val=ones, test_covariances=None,
             weights=None, ground_truth=None, noise_std=0.5,
             reference='bayes', kernel=None), **changes})


def predict_levels(x):
  """Members that say 0, 1 and 2 at all points."""
  return base.Predictions(np.broadcast_to(np.arange(3.)[:, None, None],
                                          (3, len(x), 1)))


def select(rule, problem=None, predict=predict_levels):
  problem = problem or make_problem()
  return selection.select_members(rule, problem, predict, 3, KEY)


def test_members_are_weighted_by_their_likelihoods():
  found = select('weights_posterior')
  assert (found.num_samples, found.curve) == (3, None)
  weights = found.predict(np.zeros([2, 1])).weights
  likelihoods = np.prod(stats.norm.pdf(1., np.arange(3.)[:, None], 0.5)
                        * np.ones(4), axis=1)
  np.testing.assert_allclose(weights, likelihoods / likelihoods.sum())
  mean, std = gaussian.prediction_moments(found.predict(np.zeros([2, 1])))
  np.testing.assert_allclose(mean, 1.)
  np.testing.assert_allclose(std, np.sqrt(2. * weights[0]))


def test_variances_that_members_say_are_their_likelihoods():
  def predict(x):
    return predict_levels(x)._replace(observation_variances=np.broadcast_to(
        np.array([1., 4., 1.])[:, None, None], (3, len(x), 1)))

  weights = select('weights_posterior', predict=predict).predict(
      np.zeros([2, 1])).weights
  likelihoods = stats.norm.pdf(1., np.arange(3.), [1., 2., 1.])**4
  np.testing.assert_allclose(weights, likelihoods / likelihoods.sum())


def test_stacking_reads_labels_that_training_does_not():
  problem = make_problem(y_val=np.array([0., 2., 0., 0., 2., 0.])[:, None])
  weights = select('weights_stacking', problem).predict(problem.x_val).weights
  densities = stats.norm.logpdf(problem.y_val[:, 0], np.arange(3.)[:, None], .5)
  np.testing.assert_allclose(weights,
                             weighting.maximise_mixture(densities).weights)
  assert weights[0] > weights[2] > weights[1]
  with pytest.raises(ValueError, match='need validation data, which problem'):
    select('weights_stacking', make_problem(y_val=None))
  assert not selection.RULES['weights_stacking'].is_fair
  budget = selection.RULES['weights_stacking_budget']
  assert budget.is_fair and budget.label_share == 0.2


def test_classes_are_voted_on():
  problem = types.SimpleNamespace(
      prior=base.PriorKnowledge((1,), 3, base.Categorical(4)))
  found = select('vote', problem, lambda x: base.Predictions(LOGITS[:3]))
  assert found.predict(None).aggregation == 'vote'
  with pytest.raises(ValueError, match="'median' needs a Gaussian likelihood, "
                                       'got Categorical'):
    select('median', problem)
  with pytest.raises(ValueError, match="'vote' needs a Categorical"):
    select('vote')


def test_the_median_takes_the_means_place():
  found = select('median', predict=lambda x: base.Predictions(
      np.array([0., 1., 5.])[:, None, None] * np.ones((1, len(x), 1))))
  mean, std = gaussian.prediction_moments(found.predict(np.zeros([2, 1])))
  np.testing.assert_allclose(mean, 1.)
  np.testing.assert_allclose(std, np.std([0., 1., 5.]))


def test_members_that_diverged_are_not_weighted():
  found = select('weights_em', predict=lambda x: base.Predictions(
      np.full((3, len(x), 1), np.nan)))
  assert found.predict(np.zeros([2, 1])).weights is None


def test_noise_that_nobody_knows_gives_no_likelihood():
  with pytest.raises(ValueError, match='need a noise_std that is a number'):
    aggregation.log_densities(base.Gaussian(None), predict_levels([0.]), [[1.]])
