"""Scores of classification problems by their names in the table."""

import warnings

import numpy as np
import pytest

from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import classification_scores
from enn_ensembles.scoring import table

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(3, 40, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, 40)
OUTSIDE = 0.5 * RNG.normal(size=(3, 30, 4))


def all_scores(logits, outside):
  return {**classification_scores.score_test(logits, LABELS),
          **classification_scores.score_shifted(logits, LABELS),
          **classification_scores.score_outside(logits, outside)}


def test_names_are_those_of_the_table():
  # Cosines of weights are of the agent itself, not of its predictions.
  known = {name: score for name, score
           in table.scores_of('classification').items()
           if not name.startswith('weight_cosine')}
  assert set(all_scores(LOGITS, OUTSIDE)) == set(known)
  one = all_scores(LOGITS[:1], OUTSIDE[:1])
  # One member has no pairs.
  missing = {'disagreement', 'shift_disagreement', 'ood_disagreement',
             'member_kl', 'logit_correlation', 'variation_ratio'}
  assert set(known) - set(one) == missing
  assert not any(known[name].required for name in missing)
  few = classification_scores.score_test(LOGITS[:, :1], LABELS[:1])
  assert {name for name, score in known.items() if score.required} <= set(few)
  for name, score in known.items():
    assert score.direction in ('lower', 'higher', 'none'), name
    assert score.meaning, name
    assert score.unit in ('nats', 'share', '1'), name
  assert table.SCORE_SETS['classification'].headline in known


def test_units_and_signs_are_kept():
  for name, value in all_scores(LOGITS, OUTSIDE).items():
    entry = table.SCORES[name]
    assert np.isfinite(value) and isinstance(value, float), name
    assert value >= 0. or not entry.positive, name
    assert entry.unit != 'share' or value <= 1., name


def test_one_member_is_its_own_mean():
  scores = all_scores(LOGITS[:1], OUTSIDE[:1])
  for name in ('accuracy', 'nll', 'brier', 'ece', 'adaptive_ece'):
    assert scores[f'member_{name}'] == scores[name] == scores[f'shift_{name}']
  assert scores['epistemic_uncertainty'] == 0.
  # Nothing epistemic: a detector that knows nothing, not one of rounding.
  assert scores['ood_auroc_mi'] == 0.5 and scores['ood_fpr95_mi'] == 1.
  assert scores['ood_aupr_mi'] == scores['ood_base_rate'] == 30 / 70
  same = all_scores(LOGITS[[0, 0, 0]], OUTSIDE[[0, 0, 0]])
  assert same['ood_auroc_mi'] == 0.5
  assert same['disagreement'] == 0. and same['member_kl'] < 1e-15
  assert same['logit_correlation'] == pytest.approx(1.)


def test_mean_member():
  scores = classification_scores.score_test(LOGITS, LABELS)
  alone = [classification_scores.score_test(LOGITS[[m]], LABELS)
           for m in range(3)]
  for name in ('accuracy', 'nll', 'brier', 'ece', 'adaptive_ece'):
    assert scores[f'member_{name}'] == pytest.approx(
        np.mean([one[name] for one in alone]))
  # Jensen's inequality.
  assert scores['nll'] < scores['member_nll']


def test_sorted_labels_change_no_joint_score_on_average():
  # Blocks are drawn from everywhere: sorting moves the scores by chance only.
  logits = RNG.normal(size=(3, 3000, 4))
  labels = RNG.integers(0, 4, 3000)
  order = np.argsort(labels, kind='stable')
  plain = classification_scores.score_test(logits, labels)
  ordered = classification_scores.score_test(logits[:, order], labels[order])
  for name in ('joint_nll', 'dyadic_nll'):
    assert ordered[name] == pytest.approx(plain[name], rel=0.03)
  for name in ('nll', 'ece', 'aurc', 'member_kl'):
    assert ordered[name] == pytest.approx(plain[name], rel=1e-9)


def test_curve_is_the_scores_of_each_prefix():
  order = np.array([2, 0, 1])
  curve = classification_scores.score_curve(LOGITS, LABELS, order)
  for count in (1, 2, 3):
    scores = classification_scores.score_test(LOGITS[order[:count]], LABELS)
    for name in classification_scores.CURVE_SCORES:
      assert curve[name][count - 1] == pytest.approx(scores[name], rel=1e-10)


def test_a_member_that_says_nothing_is_left_out_of_the_correlation():
  logits = LOGITS.copy()
  logits[0] = 0.  # Each class has 1/C everywhere.
  scores = classification_scores.score_test(logits, LABELS)
  others = classification_scores.score_test(logits[1:], LABELS)
  assert scores['logit_correlation'] == others['logit_correlation']
  assert 'logit_correlation' not in classification_scores.score_test(
      logits[[0, 1]], LABELS)


def test_not_finite_is_nan_and_silent():
  for bad in (np.nan, np.inf, -np.inf):
    logits = LOGITS.copy()
    logits[1, 5, 2] = bad
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      scores = all_scores(logits, OUTSIDE)
    assert np.isnan(list(scores.values())).all()
  large = classification_scores.score_test(LOGITS * 1e30, LABELS)
  assert np.isfinite(list(large.values())).all() and large['nll'] > 1e29


def test_mean_over_sets():
  assert classification_scores.mean_scores([]) == {}
  assert classification_scores.mean_scores(
      [{'a': 1., 'b': 2.}, {'a': 2., 'b': 6.}]) == {'a': 1.5, 'b': 4.}


def test_msp_tells_saturated_points_apart():
  # 1 - p rounds to 0 for both; the first set is less sure all the same.
  inside = np.array([[[100., 0.]] * 4])
  outside = np.array([[[60., 0.]] * 4])
  scores = classification_scores.score_outside(inside, outside)
  assert scores['ood_auroc_msp'] == 1.
  assert categorical.log_softmax(inside).max() == pytest.approx(
      -np.exp(-100.), rel=1e-12)
