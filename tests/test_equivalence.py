"""The rule that says whether BatchEnsemble behaves like one network."""

import numpy as np
import pytest
from scipy import stats

from enn_ensembles.studies.batch_ensemble import equivalence
from enn_ensembles.studies.batch_ensemble import published

ONE = np.array([0.960, 0.962, 0.961, 0.959, 0.963])
DEEP = ONE + np.array([0.009, 0.010, 0.011, 0.0095, 0.0105])


def test_equal_scores_are_one_network():
  found = equivalence.judge(ONE, ONE + [1e-4, -1e-4, 0., 1e-4, -1e-4], DEEP)
  assert found.verdict == 'reproduced'
  assert found.gain == pytest.approx(0.01) and abs(found.share) < 0.01


def test_a_deep_ensemble_is_not_one_network():
  found = equivalence.judge(ONE, DEEP, DEEP)
  assert found.verdict == 'not reproduced' and found.share == 1.
  assert "goes the deep ensemble's way" in found.reason


def test_direction_of_the_score_does_not_matter():
  worse = ONE - 0.008 + [1e-4, -1e-4, 0., 1e-4, -1e-4]
  for sign in (1, -1):
    found = equivalence.judge(sign * ONE, sign * worse, sign * DEEP)
    assert found.verdict == 'not reproduced' and (
        'goes away' in found.reason)


def test_without_a_gain_nothing_is_decided():
  found = equivalence.judge(ONE, ONE, ONE + [1e-3, -1e-3, 2e-3, -2e-3, 0.])
  assert found.verdict == 'inconclusive' and (
      'own difference' in found.reason)
  assert found.gain_low < 0 < found.gain_high


def test_few_noisy_seeds_decide_nothing():
  noisy = ONE + [0.01, -0.012, 0.004, -0.006, 0.009]
  assert equivalence.judge(ONE, noisy, DEEP).verdict == 'inconclusive'


def test_intervals_are_students():
  found = equivalence.judge(ONE, DEEP, DEEP)
  low, high = stats.t.interval(0.95, 4, np.mean(DEEP - ONE),
                               stats.sem(DEEP - ONE))
  assert (found.gain_low, found.gain_high) == pytest.approx((low, high))


def test_errors_of_both_kinds_are_rare():
  """At the margin itself equivalence is claimed in at most 5 % of studies."""
  rng = np.random.default_rng(0)
  claims = 0
  for _ in range(400):
    one = rng.normal(0., 1., 8)
    deep = one + rng.normal(3., 0.3, 8)
    batch = one + rng.normal(1., 0.3, 8)  # A third of the gain.
    claims += equivalence.judge(one, batch, deep).verdict == 'reproduced'
  # Of 400 at 5 %: 99 % of binomials are below 32.
  assert claims < 32


@pytest.mark.parametrize('one, batch', [(ONE[:1], ONE[:1]), (ONE, ONE[:3])])
def test_seeds_must_be_the_same(one, batch):
  with pytest.raises(ValueError, match='same two or more seeds'):
    equivalence.judge(one, batch, DEEP[:len(one)])


@pytest.mark.parametrize('batch, error, verdict', [
    (0.91, 0.001, equivalence.REPRODUCED),
    (0.89, 0.001, equivalence.REPRODUCED),
    (0.94, 0.001, equivalence.NOT_REPRODUCED),
    (0.86, 0.001, equivalence.NOT_REPRODUCED),  # Away from the deep ensemble.
    (0.93, 0.02, equivalence.INCONCLUSIVE),
    (0.90, 0.05, equivalence.INCONCLUSIVE)])  # The gain may be 0.
def test_published_means_are_judged_for_all_that_they_may_be(batch, error,
                                                             verdict):
  for sign in (1., -1.):  # Of an accuracy, and of a loss.
    means = published.Published('x', 'nll', sign * 0.9, sign * batch,
                                sign * 0.99, error)
    assert published.judge(means) == verdict


def test_the_studys_own_numbers():
  verdicts = published.table().set_index('score')
  assert verdicts.loc['accuracy', 'verdict'] == equivalence.INCONCLUSIVE
  assert verdicts.loc['nll', 'verdict'] == equivalence.NOT_REPRODUCED
  assert verdicts.loc['nll', 'share'] == pytest.approx(8 / 17)
