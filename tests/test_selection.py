"""Selection of members: rules, what they read, and what they may not see."""

import contextlib
import types

import jax
import numpy as np
import pytest
from scipy import special

from enn_ensembles import base
from enn_ensembles.problems import nngp_regression
from enn_ensembles.scoring import array_checks
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import ranking
from enn_ensembles.scoring import selection
from enn_ensembles.scoring import table

KEY = jax.random.PRNGKey(0)


def make_problem(num_x, **fields):
  """A problem with a posterior of N(0, 1) everywhere; x_val is x_test."""
  x = np.arange(float(num_x))[:, None]
  problem = nngp_regression.Problem(**{
      **dict(config=None, x_train=x[:1], y_train=x[:1], x_test=x, x_val=x,
             test_mean=np.zeros(num_x), test_std=np.ones(num_x),
             val_mean=np.zeros(num_x), val_std=np.ones(num_x), y_val=None,
             test_covariances=None, weights=None, ground_truth=None,
             noise_std=0.1, reference='bayes', kernel=None), **fields})
  return problem


def select(rule, samples, problem=None, key=KEY):
  """`select_members` of samples [J, N], the same at x_val and x_test."""
  problem = problem or make_problem(samples.shape[1])
  return selection.select_members(
      rule, problem, lambda x: base.Predictions(samples[..., None]),
      len(samples), key)


def moments(found, problem):
  return gaussian.prediction_moments(found.predict(problem.x_test))


def test_members_are_kept_up_to_the_best_validation_score():
  rng = np.random.default_rng(0)
  # Draws of the posterior, and two that only make its std too large.
  samples = rng.standard_normal((12, 500))
  samples[10:] *= 30.
  problem = make_problem(500)
  found = select('oracle', samples, problem)
  kept = found.curve['order'][:found.num_samples]
  assert 5 < len(kept) < 12 and sorted(found.curve['order']) == list(range(12))
  assert len(kept) == 1 + np.argmin(found.curve['val_score'])
  mean, std = moments(found, problem)
  np.testing.assert_allclose(mean, samples[kept].mean(0))
  np.testing.assert_allclose(std, samples[kept].std(0))
  # Here x_val is x_test, and so is the score.
  np.testing.assert_allclose(found.curve['val_score'],
                             found.curve['kl_estimate'], rtol=1e-6)
  # Ranking by labels does not read the posterior; the member that made them
  # comes first.
  by_label = select('val_nll', samples, make_problem(
      500, y_val=samples[7][:, None], val_mean=np.full(500, 1e3)))
  assert by_label.curve['order'][0] == 7
  assert by_label.curve['order'] != found.curve['order']


def test_kept_members_stay_in_the_order_of_the_indexer():
  samples = np.random.default_rng(1).standard_normal((6, 40))
  samples[[1, 4]] *= 30.
  found = select('oracle', samples)
  kept = sorted(found.curve['order'][:found.num_samples])
  assert len(kept) < 6
  predictions = found.predict(None)
  np.testing.assert_array_equal(predictions.samples[..., 0], samples[kept])
  # Variances that members predict are theirs.
  variances = np.arange(6.)[:, None, None] * np.ones((6, 40, 1))
  found = selection.select_members(
      'oracle', make_problem(40),
      lambda x: base.Predictions(samples[..., None], variances), 6, KEY)
  np.testing.assert_array_equal(
      found.predict(None).observation_variances[:, 0, 0], kept)


def test_without_selection_the_order_is_random_and_all_are_kept():
  samples = np.random.default_rng(0).standard_normal((9, 50))
  problem = make_problem(50)
  found = select('none', samples, problem)
  assert found.num_samples == 9 and found.rank_seconds is None
  order = found.curve['order']
  assert sorted(order) == list(range(9)) and order != list(range(9))
  mean, _ = moments(found, problem)
  np.testing.assert_array_equal(mean, samples.mean(0))
  assert select('none', samples).curve == found.curve
  assert select('none', samples,
                key=jax.random.PRNGKey(1)).curve['order'] != order
  three = gaussian.posterior_scores(
      samples[order[:3]].mean(0), samples[order[:3]].std(0),
      np.zeros(50), np.ones(50), num_samples=3)
  for name in ('kl_estimate', 'kl_reverse'):
    np.testing.assert_allclose(found.curve[name][2], three[name])


@pytest.mark.parametrize('rule', ['none', 'oracle', 'val_nll'])
def test_members_that_diverged_have_no_curve(rule):
  samples = np.ones((3, 4))
  samples[1, 2] = np.nan
  problem = make_problem(4, y_val=np.zeros((4, 1)))
  found = select(rule, samples, problem)
  assert found.curve is None and found.num_samples == 3
  mean, _ = moments(found, problem)
  assert np.isnan(mean[2]) and mean[0] == 1


def test_a_rule_that_is_added_works_without_any_other_change(monkeypatch):
  def from_the_end(problem, predict, num_members, key):
    order = np.arange(num_members)[::-1]
    # The more members the better, up to three.
    return selection.Order(order, np.abs(np.arange(num_members) - 2.))

  monkeypatch.setitem(selection.RULES, 'from_the_end', selection.Rule(
      'the last members are kept', from_the_end))
  samples = np.random.default_rng(0).standard_normal((5, 20))
  found = select('from_the_end', samples)
  assert found.num_samples == 3 and found.curve['order'] == [4, 3, 2, 1, 0]
  assert found.curve['val_score'] == [2., 1., 0., 1., 2.]
  np.testing.assert_array_equal(found.predict(None).samples[..., 0],
                                samples[2:])


def test_every_rule_says_what_it_is():
  assert list(selection.RULES)[0] == 'none'
  for rule in selection.RULES.values():
    assert rule.meaning and 0 <= rule.label_share < 1
  fair = {name for name, rule in selection.RULES.items() if rule.is_fair}
  # The posterior and more labels are what other agents are not given.
  assert {'none', 'val_nll_budget'} <= fair
  # Reports, which know no jax, say of each of those what it reads.
  assert set(table.PRIVILEGED_SELECTIONS) == set(selection.RULES) - fair
  assert {'oracle', 'val_nll'} <= set(table.PRIVILEGED_SELECTIONS)


def test_a_rule_that_reads_what_a_problem_lacks_is_refused():
  samples = np.ones((3, 4))
  with pytest.raises(ValueError, match='needs validation data, which problem '
                                       'data_.* has not'):
    select('val_nll', samples)
  classes = types.SimpleNamespace(score_set='classification')
  with pytest.raises(ValueError, match="selection 'oracle' needs what "
                                       'classification problems do not have: '
                                       'x_val, val_mean, val_std'):
    select('oracle', samples, classes)


@pytest.mark.parametrize('rule, likelihood, message', [
    ('oracle', base.Categorical(3), 'needs a Gaussian likelihood, got Cate'),
    ('val_nll', base.Gaussian(None), 'noise_std is a known number, got None'),
    ('val_nll_budget', base.Gaussian(np.ones_like), 'known number, got <f'),
    ('val_nll', base.Categorical(3), None),
    ('oracle', base.Gaussian(1.), None)])
def test_rules_are_for_problems_that_have_what_they_read(
    rule, likelihood, message):
  with (pytest.raises(ValueError, match=message) if message
        else contextlib.nullcontext()):
    selection.check_rule(rule, base.PriorKnowledge((2,), 9, likelihood))


@pytest.mark.parametrize('rule', ['oracle', 'val_nll'])
def test_a_mistake_of_a_network_is_not_taken_for_one_of_the_problem(rule):
  def predict(x):
    return x.no_such_attribute

  with pytest.raises(AttributeError, match='no_such_attribute'):
    selection.select_members(
        rule, make_problem(4, y_val=np.zeros((4, 1))), predict, 3, KEY)


# Classifiers.


def slow_ranking(logits, labels):
  """Greedy by two loops, by the definition of the ensemble's NLL."""
  probabilities = special.softmax(logits, axis=-1)

  def nll(members):
    mean = sum(probabilities[m] for m in members) / len(members)
    return -np.mean([np.log(mean[n, labels[n]]) for n in range(len(labels))])

  order, scores = [], []
  while len(order) < len(logits):
    left = [j for j in range(len(logits)) if j not in order]
    best = min(left, key=lambda j: nll([*order, j]))  # The first of equal ones.
    order.append(best)
    scores.append(nll(order))
  return order, scores


def make_classifiers(seed, num_members=6):
  rng = np.random.default_rng(seed)
  labels = rng.integers(4, size=25)
  right = np.eye(4)[labels]
  return (3. * rng.normal(size=(num_members, 25, 4))
          + rng.uniform(0., 4., size=(num_members, 1, 1)) * right), labels


@pytest.mark.parametrize('seed', range(3))
def test_classifiers_are_ranked_by_their_definition(seed):
  logits, labels = make_classifiers(seed)
  order, scores = slow_ranking(logits, labels)
  found = ranking.rank_classifiers(logits, labels)
  assert found.order.tolist() == order
  np.testing.assert_allclose(found.score, scores, rtol=1e-10)
  # A constant in all logits of a point changes nothing.
  shifted = ranking.rank_classifiers(logits + 500., labels)
  assert shifted.order.tolist() == order
  np.testing.assert_allclose(shifted.score, scores, rtol=1e-9)


def test_classifiers_that_are_sure_and_wrong_are_ranked_by_how_much():
  logits = np.zeros([2, 5, 2])
  logits[0, :, 1], logits[1, :, 1] = 3000., 800.
  found = ranking.rank_classifiers(logits, np.zeros(5, int))
  assert found.order.tolist() == [1, 0]
  np.testing.assert_allclose(found.score, [800., 800. + np.log(2.)])


def test_equal_classifiers_keep_their_order():
  logits, labels = make_classifiers(0, num_members=1)
  found = ranking.rank_classifiers(np.repeat(logits, 4, axis=0), labels)
  assert found.order.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize('change, error, message', [
    (lambda logits, labels: (np.full_like(logits, np.nan), labels),
     array_checks.NotFiniteError, 'logits must be finite'),
    (lambda logits, labels: (logits, labels[1:]), ValueError,
     r'labels must have shape \(25,\), got \(24,\)'),
    (lambda logits, labels: (logits[0], labels), ValueError,
     'logits must have 3 axes')])
def test_bad_classifiers_are_refused(change, error, message):
  with pytest.raises(error, match=message):
    ranking.rank_classifiers(*change(*make_classifiers(0)))


def test_classifiers_are_selected_by_labels():
  logits, labels = make_classifiers(0)
  logits[2] += 20. * (1 - np.eye(4)[labels])  # Sure, and wrong.
  prior = base.PriorKnowledge((1,), 25, base.Categorical(4))
  problem = types.SimpleNamespace(
      problem_id='p', score_set='classification', prior=prior,
      validation=base.Data(np.zeros((25, 1)), labels))
  found = selection.select_members(
      'val_nll', problem, lambda x: base.Predictions(logits), 6, KEY)
  order, scores = slow_ranking(logits, labels)
  kept = sorted(order[:1 + int(np.argmin(scores))])
  assert 2 not in kept and found.num_samples == len(kept)
  np.testing.assert_array_equal(found.predict(None).samples, logits[kept])
  assert found.curve is None  # It scores no curves.


# Labels that are taken from the training set.


@pytest.mark.parametrize('share, num, num_labels', [
    (0.2, 10, 2), (0.2, 12, 2), (0.2, 13, 3), (0.5, 3, 2), (0.2, 3, 1)])
def test_reserved_labels_are_the_rest_of_the_training_set(share, num,
                                                          num_labels):
  x, y = np.arange(2. * num).reshape(num, 2), np.arange(float(num))[:, None]
  problem = types.SimpleNamespace(data=base.Data(x, y))
  data, labels = selection.reserve_labels(problem, share)
  assert len(labels.y) == len(labels.x) == num_labels
  np.testing.assert_array_equal(np.concatenate([data.x, labels.x]), x)
  np.testing.assert_array_equal(np.concatenate([data.y, labels.y]), y)


@pytest.mark.parametrize('share, num', [(0.2, 1), (0.2, 2), (0.9, 2)])
def test_too_few_labels_to_reserve_are_refused(share, num):
  problem = types.SimpleNamespace(
      data=base.Data(np.zeros((num, 1)), np.zeros((num, 1))))
  with pytest.raises(ValueError, match=f'reserve {share:g} of it, got {num}'):
    selection.reserve_labels(problem, share)
