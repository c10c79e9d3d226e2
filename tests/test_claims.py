"""Verdicts on rows whose truth is planted: each must be able to come out."""

import numpy as np
from planted_claims import lines_by_claim
from planted_claims import make_rows
from planted_claims import u_curve
import pytest

from enn_ensembles.studies.layer_ensembles import claims
from enn_ensembles.studies.layer_ensembles import further_claims
from enn_ensembles.studies.layer_ensembles import settings
from enn_ensembles.studies.layer_ensembles import similarity_claims
from enn_ensembles.studies.layer_ensembles import table_claims
from enn_ensembles.studies.layer_ensembles import verdicts


def test_priors_ratio_is_measured_per_k():
  rows = []
  for k, ratio in ((2, 2.5), (3, 1.64), (5, 0.8), (6, 1.)):
    rows += make_rows(settings.layer_ensemble(k), 0.4)
    rows += make_rows(settings.layer_ensemble(k, prior_scale=0.), 0.4 * ratio,
                      spread=-0.02)
  found = lines_by_claim(rows)
  of_k = {k: found[f'2, K = {k}', 'bayes', 'kl_estimate'].verdict
          for k in (2, 3, 5, 6)}
  assert of_k == {2: 'reproduced', 3: 'partly', 5: 'not reproduced',
                  6: 'not reproduced'}
  line = found['2, K = 2', 'bayes', 'kl_reverse']
  assert line.ours == pytest.approx(2.5)
  assert line.low < 2.5 < line.high
  assert (line.num_cells, line.num_seeds) == (2, 4)
  assert '2.00' in line.why and '0.800' in line.why  # Of the reverse KL.
  assert found['1a', 'bayes', 'kl_estimate'].verdict == verdicts.NOT_MEASURED
  assert 'ensemble of 10' in found['1a', 'bayes', 'kl_estimate'].why


def test_the_interval_of_a_ratio_is_paired():
  """Two settings with the same scatter: the ratio is exact."""
  rows = make_rows(settings.layer_ensemble(3), 0.4, spread=0.2)
  rows += make_rows(settings.deep_ensemble(3), 0.42, spread=0.2)
  line = lines_by_claim(rows)['1b, K = 3', 'bayes', 'kl_estimate']
  assert line.verdict == 'reproduced'
  np.testing.assert_allclose((line.low, line.high), 1.05, rtol=1e-9)
  # With opposite scatter nothing can be told.
  rows = make_rows(settings.layer_ensemble(3), 0.4, spread=0.2)
  rows += make_rows(settings.deep_ensemble(3), 0.42, spread=-0.2)
  line = lines_by_claim(rows)['1b, K = 3', 'bayes', 'kl_estimate']
  assert line.verdict == 'inconclusive' and line.low < 1. < line.high


@pytest.mark.parametrize('level, verdict', [
    (0.39, 'reproduced'), (0.6, 'not reproduced'), (0.42, 'inconclusive')])
def test_good_quality_is_that_of_an_ensemble_of_ten(level, verdict):
  rows = make_rows(settings.layer_ensemble(3), level, spread=0.01)
  rows += make_rows(settings.deep_ensemble(10), 0.4, spread=-0.01)
  assert lines_by_claim(rows)['1a', 'bayes', 'kl_estimate'].verdict == verdict


@pytest.mark.parametrize('best, verdict', [
    (36, 'reproduced'), (27, 'reproduced'), (45, 'reproduced'),
    (26, 'not reproduced'), (46, 'not reproduced'), (125, 'not reproduced')])
def test_best_num_samples(best, verdict):
  curve = u_curve(best) if best < 125 else np.linspace(2., 1., 125).tolist()
  rows = make_rows(settings.layer_ensemble(5, selection='oracle'), 0.5,
                   curve=curve)
  line = lines_by_claim(rows)['3a, oracle', 'bayes', 'kl_estimate']
  assert (line.ours, line.verdict) == (best, verdict)
  assert f'P = {best}' in line.why


def test_num_samples_are_chosen_on_validation_and_never_on_test_scores():
  setting = settings.layer_ensemble(5, selection='val_nll')
  rows = make_rows(setting, 0.5, curve=u_curve(36))
  for row in rows:  # Validation prefers another P than the test scores.
    row['curve']['val_score'] = u_curve(10)
  found = lines_by_claim(rows)
  line = found['3a, val_nll', 'bayes', 'kl_estimate']
  assert line.ours == 10 and 'lowest at P = 36' in line.why
  assert line.why.endswith('100 times the training set at T = 10).')
  ratio = u_curve(36)[19] / u_curve(36)[9]
  line = found['3b, val_nll', 'bayes', 'kl_estimate']
  assert line.ours == pytest.approx(ratio - 1.)
  line = found['7a, val_nll, K = 5', 'bayes', 'kl_estimate']
  assert line.ours == pytest.approx(1. / u_curve(36)[9])
  assert line.verdict == 'reproduced'


@pytest.mark.parametrize('excess, verdict', [
    (0.059, 'reproduced'), (0.07, 'not reproduced')])
def test_twenty_samples_against_the_best(excess, verdict):
  curve = [1. + excess] * 125
  curve[35] = 1.
  rows = make_rows(settings.layer_ensemble(5, selection='val_nll'), 0.5,
                   curve=curve)
  line = lines_by_claim(rows)['3b, val_nll', 'bayes', 'kl_estimate']
  assert line.ours == pytest.approx(excess)
  assert line.geometric == pytest.approx(excess)
  assert line.verdict == verdict


@pytest.mark.parametrize('ratio, verdict', [
    (2.2, 'reproduced'), (1.65, 'partly'), (0.7, 'not reproduced')])
def test_twenty_samples_against_an_ensemble_of_thirty(ratio, verdict):
  curve = [3.] * 125
  curve[19] = 1.
  rows = make_rows(settings.layer_ensemble(5, selection='oracle'), 0.2,
                   curve=curve)
  rows += make_rows(settings.deep_ensemble(30), 0.2 * ratio)
  line = lines_by_claim(rows)['3c, oracle', 'bayes', 'kl_estimate']
  assert line.ours == pytest.approx(ratio)
  assert line.verdict == verdict


def competitor_rows(ranked_level, ranked_spread=0.02, dropped=()):
  rows = make_rows(settings.layer_ensemble(5, selection='oracle'), ranked_level,
                   curve=u_curve(36, depth=0.9), spread=ranked_spread)
  for i, setting in enumerate(settings.COMPETITORS):
    if setting.agent not in dropped:
      rows += make_rows(setting, 0.5 + 0.1 * i, spread=0.1)
  return rows


def test_best_agent_and_lowest_spread():
  found = lines_by_claim(competitor_rows(0.4))
  for i, other in enumerate(settings.COMPETITORS):
    name = f'oracle, P by validation, {other}'
    mean = found[f'5a, {name}', 'bayes', 'kl_estimate']
    assert mean.verdict == 'reproduced'
    assert mean.ours == pytest.approx((0.5 + 0.1 * i) / 0.4)
    assert str(other) in mean.why
    spread = found[f'5b, {name}', 'bayes', 'kl_estimate']
    # Scatter of the same shape: 10 % of 0.5 over 2 % of 0.4.
    assert spread.ours == pytest.approx(0.1 * (0.5 + 0.1 * i) / (0.02 * 0.4))
  fixed = found['5a, oracle, one P for all, dropout', 'bayes', 'kl_estimate']
  assert fixed.ours == pytest.approx(0.5 / (0.4 * 0.9))
  assert 'P = 36' in fixed.why
  found = lines_by_claim(competitor_rows(0.6, ranked_spread=0.2))
  for part, ours in (('5a', 0.5 / 0.6), ('5b', 0.05 / 0.12)):
    line = found[f'{part}, oracle, P by validation, dropout', 'bayes',
                 'kl_estimate']
    assert line.ours == pytest.approx(ours)
    assert line.verdict in ('not reproduced', 'inconclusive')
  assert found['7c, VNN', 'bayes', 'kl_estimate'].ours == pytest.approx(0.7)


def test_each_pair_uses_all_seeds_that_it_has():
  rows = competitor_rows(0.4, dropped=('hypermodel',))
  rows += make_rows(settings.COMPETITORS[3], 0.8, seeds=(0, 1))
  found = lines_by_claim(rows)
  seeds = {str(other): found[f'5a, oracle, P by validation, {other}', 'bayes',
                             'kl_estimate'].num_seeds
           for other in settings.COMPETITORS}
  assert seeds.pop('hypermodel') == 2 and set(seeds.values()) == {4}


def test_a_missing_agent_is_not_measured_and_named():
  found = lines_by_claim(competitor_rows(0.4, dropped=('vnn',)))
  line = found['5a, oracle, P by validation, VNN', 'bayes', 'kl_estimate']
  assert line.verdict == verdicts.NOT_MEASURED and 'VNN' in line.why
  assert line.ours is None


def test_an_ambiguous_setting_is_not_measured_and_says_why():
  rows = competitor_rows(0.4)
  tuned = make_rows(settings.COMPETITORS[2], 0.3)
  for row in tuned:
    row.update(agent_config={'learning_rate': 0.1}, agent_id='vnn-tuned')
  found = lines_by_claim(rows + tuned)
  line = found['5a, oracle, P by validation, VNN', 'bayes', 'kl_estimate']
  assert line.verdict == verdicts.NOT_MEASURED
  assert 'rows differ in learning_rate (0.1, null)' in line.why


def test_an_optimum_at_all_members_is_not_interior():
  rows = make_rows(settings.layer_ensemble(3, selection='oracle'), 0.5,
                   curve=np.linspace(2., 1., 27).tolist())
  line = lines_by_claim(rows)['7a, oracle, K = 3', 'bayes', 'kl_estimate']
  assert (line.verdict, line.ours) == ('not reproduced', 1.)


@pytest.mark.parametrize('ratio, verdict', [
    (1.05, 'reproduced'), (1.3, 'not reproduced')])
def test_a_random_subset_against_all(ratio, verdict):
  curve = np.linspace(3., 1., 125)
  curve[19] = ratio
  rows = make_rows(settings.layer_ensemble(5), 0.5, curve=curve.tolist())
  found = lines_by_claim(rows)
  line = found['7e, K = 5, P = 20', 'bayes', 'kl_estimate']
  assert line.ours == pytest.approx(ratio) and line.verdict == verdict
  assert found['7e, K = 3, P = 9', 'bayes',
               'kl_estimate'].verdict == verdicts.NOT_MEASURED


def test_one_seed_decides_nothing():
  rows = make_rows(settings.layer_ensemble(2), 0.4, seeds=(0,))
  rows += make_rows(settings.layer_ensemble(2, prior_scale=0.), 4., seeds=(0,))
  line = lines_by_claim(rows)['2, K = 2', 'bayes', 'kl_estimate']
  assert line.verdict == 'inconclusive' and line.low is None
  assert 'one seed' in line.why


def test_every_claim_states_its_thresholds():
  found = {}
  for module in (claims, further_claims, similarity_claims, table_claims):
    found.update({name: function for name, function in vars(module).items()
                  if name.startswith('claim_')})
  assert len(found) == 15
  for function in found.values():
    text = function.__doc__
    assert 'Reproduced' in text or '`judge_' in text
