"""Scores of classifiers, against scipy, scikit-learn, torch and slow loops."""

import itertools
import pathlib

import numpy as np
import pytest
from scipy import special
from scipy import stats
from sklearn import metrics

from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import classification_scores
from enn_ensembles.scoring import diversity

RNG = np.random.default_rng(1)
LOGITS = 2. * RNG.normal(size=(4, 103, 5))
LABELS = RNG.integers(0, 5, 103)
LOG_PROBS = special.log_softmax(LOGITS, axis=-1)
PROBS = special.softmax(LOGITS, axis=-1)
MEAN = PROBS.mean(axis=0)

# Made by scripts/torchmetrics_values.sh, which says by which versions.
THEIRS = pathlib.Path(__file__).parent / 'data' / 'torchmetrics_values.npz'


def test_log_softmax_and_mean():
  np.testing.assert_allclose(categorical.log_softmax(LOGITS), LOG_PROBS,
                             atol=1e-13)
  np.testing.assert_allclose(categorical.mean_log_probs(LOG_PROBS),
                             np.log(MEAN), atol=1e-13)
  # Nothing overflows or vanishes.
  extreme = np.array([[[0., 2000.]], [[0., 2010.]]])
  found = categorical.mean_log_probs(categorical.log_softmax(extreme))
  np.testing.assert_allclose(
      found, [[-2000. + np.log((1. + np.exp(-10.)) / 2.), 0.]], rtol=1e-12)
  assert categorical.log_softmax(extreme.astype(np.float32)).dtype == np.float64
  one = categorical.mean_log_probs(LOG_PROBS[:1])
  np.testing.assert_array_equal(one, LOG_PROBS[0])


def test_scores_of_labels_are_scikit_learns():
  log_mean, one_hot = np.log(MEAN), np.eye(5)[LABELS]
  assert categorical.accuracy(log_mean, LABELS) == pytest.approx(
      metrics.accuracy_score(LABELS, MEAN.argmax(axis=1)))
  assert categorical.nll(log_mean, LABELS) == pytest.approx(
      metrics.log_loss(LABELS, MEAN, labels=range(5)), rel=1e-12)
  assert categorical.brier(log_mean, LABELS) == pytest.approx(
      np.mean(np.sum((MEAN - one_hot) ** 2, axis=1)), rel=1e-12)
  np.testing.assert_allclose(
      categorical.label_log_probs(LOG_PROBS, LABELS),
      [[member[n, LABELS[n]] for n in range(103)] for member in LOG_PROBS])


@pytest.mark.parametrize('num_bins', [1, 4, 15])
def test_calibration_errors_are_slow_loops(num_bins):
  confidence, correct = MEAN.max(axis=1), MEAN.argmax(axis=1) == LABELS
  expected = 0.
  for b in range(num_bins):
    inside = ((confidence > b / num_bins)
              & (confidence <= (b + 1) / num_bins))
    if inside.any():
      expected += inside.mean() * abs(correct[inside].mean()
                                      - confidence[inside].mean())
  assert categorical.calibration_error(
      np.log(MEAN), LABELS, num_bins) == pytest.approx(expected, rel=1e-12)
  order = np.argsort(confidence)
  expected = sum(
      len(part) / 103 * abs(correct[part].mean() - confidence[part].mean())
      for part in np.array_split(order, num_bins))
  assert categorical.adaptive_calibration_error(
      np.log(MEAN), LABELS, num_bins) == pytest.approx(expected, rel=1e-12)


def test_calibration_of_known_cases():
  # 0.6 and right 6 times of 10: calibrated. Certain and wrong: error 1.
  log_probs = np.log(np.tile([0.6, 0.4], (10, 1)))
  labels = np.array([0] * 6 + [1] * 4)
  for error in (categorical.calibration_error,
                categorical.adaptive_calibration_error):
    # Ties count as in a random order: sorted labels must not matter.
    assert error(log_probs, labels) == pytest.approx(0., abs=1e-12)
    certain = np.array([[0., -800.]] * 3)
    assert error(certain, np.array([1, 1, 1])) == pytest.approx(1.)
    assert error(certain, np.array([0, 0, 0])) == 0.


def test_entropies_are_scipys():
  found = categorical.uncertainties(LOG_PROBS)
  np.testing.assert_allclose(found.total, stats.entropy(MEAN, axis=1))
  np.testing.assert_allclose(found.aleatoric,
                             stats.entropy(PROBS, axis=2).mean(axis=0))
  np.testing.assert_allclose(found.epistemic, found.total - found.aleatoric,
                             atol=1e-13)


def test_epistemic_uncertainty_at_its_ends():
  # Two members, each certain of another class: log 2.
  opposed = categorical.log_softmax(np.array([[[0., 900.]], [[900., 0.]]]))
  assert categorical.uncertainties(opposed).epistemic == pytest.approx(
      np.log(2.))
  same = categorical.uncertainties(np.repeat(LOG_PROBS[:1], 3, axis=0))
  assert 0. <= same.epistemic.max() < 1e-14
  assert np.all(categorical.uncertainties(LOG_PROBS[:1]).epistemic == 0.)
  # For small differences of logits d it is the variance form,
  # 1/2 mean_m sum_c p_c (d_mc - mean d)^2, far below rounding of entropies.
  nudge = 1e-6 * RNG.normal(size=(4, 103, 5))
  near = categorical.log_softmax(LOGITS[:1] + nudge)
  probs = PROBS[0]
  centred = nudge - nudge.mean(axis=0)
  centred -= (probs * centred).sum(axis=-1, keepdims=True)
  expected = 0.5 * (probs * centred ** 2).sum(axis=-1).mean(axis=0)
  np.testing.assert_allclose(categorical.uncertainties(near).epistemic,
                             expected, rtol=1e-2, atol=2e-15)


def test_risk_coverage_area():
  confidence, wrong = MEAN.max(axis=1), MEAN.argmax(axis=1) != LABELS
  order = np.argsort(-confidence)
  expected = np.mean([wrong[order[:n]].mean() for n in range(1, 104)])
  assert categorical.risk_coverage_area(np.log(MEAN), LABELS) == pytest.approx(
      expected, rel=1e-12)
  # Equal confidence: the mean over all orders, whatever comes first.
  log_probs = np.log(np.array([[.9, .1], [.6, .4], [.6, .4], [.6, .4]]))
  labels = np.array([0, 1, 0, 0])
  orders = [np.mean([np.mean([0, *last][:n]) for n in range(1, 5)])
            for last in itertools.permutations([1, 0, 0])]
  assert categorical.risk_coverage_area(log_probs, labels) == pytest.approx(
      np.mean(orders))


def test_joint_nll_is_the_slow_product():
  blocks = RNG.permutation(103)[:100].reshape(25, 4)
  likelihoods = categorical.label_log_probs(LOG_PROBS, LABELS)
  expected = 0.
  for block in blocks:
    products = [np.prod([PROBS[m, n, LABELS[n]] for n in block])
                for m in range(4)]
    expected -= np.log(np.mean(products)) / 25
  assert categorical.joint_nll(likelihoods, blocks) == pytest.approx(
      expected, rel=1e-12)
  # Of one input it is the NLL; of one member tau times the NLL.
  assert categorical.joint_nll(
      likelihoods, np.arange(103)[:, None]) == pytest.approx(
          categorical.nll(np.log(MEAN), LABELS))
  assert categorical.joint_nll(
      likelihoods[:1], np.arange(100).reshape(10, 10)) == pytest.approx(
          10 * categorical.nll(LOG_PROBS[0, :100], LABELS[:100]))


def test_dyadic_nll_is_the_mean_over_draws():
  likelihoods = categorical.label_log_probs(LOG_PROBS, LABELS)
  pairs = np.array([[3, 50], [7, 8]])
  # All 2^tau ways to draw tau inputs from two points.
  tau, expected = 5, []
  for pair in pairs:
    for picks in itertools.product(pair, repeat=tau):
      products = [np.prod([PROBS[m, n, LABELS[n]] for n in picks])
                  for m in range(4)]
      expected.append(-np.log(np.mean(products)))
  assert categorical.dyadic_nll(likelihoods, pairs, tau) == pytest.approx(
      np.mean(expected), rel=1e-12)


def test_class_disagreement():
  classes = RNG.integers(0, 3, (5, 40))
  expected = [np.mean([classes[i, n] != classes[j, n]
                       for i, j in itertools.combinations(range(5), 2)])
              for n in range(40)]
  np.testing.assert_allclose(diversity.class_disagreement(classes, 3), expected)
  with pytest.raises(ValueError, match='num_members must be >= 2, got 1'):
    diversity.class_disagreement(classes[:1], 3)


def test_mean_member_kl():
  expected = np.mean([stats.entropy(PROBS[i], PROBS[j], axis=1)
                      for i, j in itertools.permutations(range(4), 2)], axis=0)
  np.testing.assert_allclose(diversity.mean_member_kl(LOG_PROBS), expected)
  assert np.all(diversity.mean_member_kl(LOG_PROBS[[0, 0]]) == 0.)
  with pytest.raises(ValueError, match='num_members must be >= 2, got 1'):
    diversity.mean_member_kl(LOG_PROBS[:1])


def test_logit_correlation():
  pairs = [(0, 1), (2, 3), (1, 1)]
  # What changes no probability changes no correlation.
  moved = LOGITS + 5. * RNG.normal(size=(4, 103, 1))
  for logits in (LOGITS, moved):
    centred = LOGITS - LOGITS.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(
        diversity.logit_correlation(logits, pairs),
        [stats.pearsonr(centred[i].ravel(), centred[j].ravel())[0]
         for i, j in pairs], rtol=1e-10)


def test_agrees_with_torchmetrics_and_torch_uncertainty():
  theirs = np.load(THEIRS)
  logits, labels = theirs['logits'], theirs['labels']
  ours = {
      **classification_scores.score_test(logits, labels),
      **classification_scores.score_outside(logits, theirs['logits_outside'])}
  # torch-uncertainty integrates risk over coverage by trapezoids from 1 / N on
  # and divides by the length; ours is the sum in Geifman & El-Yaniv's text.
  num = len(labels)
  mean = np.log(special.softmax(logits.astype(float), axis=-1).mean(axis=0))
  first = mean[mean.max(axis=1).argmax()].argmax() != labels[
      mean.max(axis=1).argmax()]
  ends = (first + 1. - ours['accuracy']) / 2.
  ours['aurc_trapezoid'] = (num * ours['aurc'] - ends) / (num - 1)
  names = set(theirs.files) - {'labels', 'logits', 'logits_outside', 'versions'}
  assert len(names) == 20
  for name in names:
    assert ours[name] == pytest.approx(float(theirs[name]), abs=1e-6), name
