"""Verdicts on rows whose truth is planted: each must be able to come out."""

import dataclasses
import math
import pathlib

import commands
import example_rows
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from enn_ensembles import results
from enn_ensembles.report import statistics
from enn_ensembles.studies.layer_ensembles import claims
from enn_ensembles.studies.layer_ensembles import claims_text
from enn_ensembles.studies.layer_ensembles import further_claims
from enn_ensembles.studies.layer_ensembles import settings
from enn_ensembles.studies.layer_ensembles import similarity_claims
from enn_ensembles.studies.layer_ensembles import table_claims
from enn_ensembles.studies.layer_ensembles import verdicts

ROOT = pathlib.Path(__file__).resolve().parent.parent
Interval = statistics.Interval

CELLS = [(10, 1., 0.1), (100, 1., 1.)]
SEEDS = (0, 1, 2, 3)


def make_rows(setting, level, reference='bayes', reverse=2., curve=None,
              spread=0.02, seeds=SEEDS):
  """Rows of a setting with mean KL `level`, some scatter over seeds.

  Args:
    setting: a `comparison.Setting`.
    level: KL of all members.
    reference: of the rows.
    reverse: kl_reverse over kl_estimate.
    curve: KL by number of samples over `level`, a list; None for none.
    spread: relative scatter, known and summing to 0 over seeds.
    seeds: seeds.
  """
  rows = []
  scatter = spread * np.array([-1., 1., -0.5, 0.5])
  label = ','.join([setting.agent, *(f'{name}={value}'
                                     for name, value in setting.fields)])
  for cell in CELLS:
    for seed in seeds:
      kl = level * (1. + scatter[seed % 4])
      kls = None if curve is None else [kl * value for value in curve]
      stored = None if kls is None else {
          'order': list(range(len(kls))), 'kl_estimate': kls,
          'kl_reverse': [reverse * v for v in kls],
          **({} if setting.selection == 'none' else {'val_score': kls})}
      rows.append(example_rows.make_row(
          kl, label, seed=seed, input_dim=cell[0], data_ratio=cell[1],
          noise_std=cell[2],
          agent_config=dict(setting.fields), selection=setting.selection,
          reference=reference, kl_reverse=reverse * kl, curve=stored,
          run_id=f'{label}-D{cell[0]}-{setting.selection}-{reference}',
          problem_id=f'D{cell[0]}_s{seed}_{reference}',
          rank_seconds=None if setting.selection == 'none' else 0.1))
  return rows


def u_curve(best, length=125, depth=0.5):
  """A curve with its lowest value `depth` at P = best, 1 at the end."""
  p = np.arange(1, length + 1)
  rise = np.log(p / best) / np.log(length / best)
  fall = np.log(best / p) / np.log(max(best, 2))
  return (depth + (1. - depth) * np.where(p > best, rise, fall)).tolist()


def lines_by_claim(rows, **tables):
  found = {}
  for line in claims.evaluate(rows, **tables):
    found.setdefault((line.claim, line.reference, line.score), line)
  return found


@pytest.mark.parametrize('found, verdict', [
    (Interval(2.1, 1.9, 2.3), 'reproduced'),
    (Interval(1.85, 1.8, 2.), 'reproduced'),  # From 0.9 * 2 on.
    (Interval(1.65, 1.55, 1.75), 'partly'),  # More than half, less than all.
    (Interval(1.01, 1.001, 1.02), 'not reproduced'),
    (Interval(0.5, 0.4, 0.6), 'not reproduced'),
    (Interval(0.3, 0.056, 1.31), 'not reproduced'),
    (Interval(1.85, 1.7, 2.), 'inconclusive'),
    (Interval(1.5, 1.4, 1.6), 'inconclusive'),
    (Interval(3., 0.9, 9.), 'inconclusive')])
def test_judge_factor(found, verdict):
  assert verdicts.judge_factor(2.)(found) == verdict


@pytest.mark.parametrize('found, verdict', [
    (Interval(1.1, 1.01, 1.2), 'reproduced'),
    (Interval(1.1, 0.9, 1.3), 'inconclusive'),
    (Interval(0.3, 0.056, 1.31), 'inconclusive'),
    (Interval(0.9, 0.8, 0.99), 'not reproduced')])
def test_judge_better(found, verdict):
  assert verdicts.judge_better(found) == verdict


@pytest.mark.parametrize('found, verdict', [
    (Interval(0.03, 0.01, 0.05), 'reproduced'),
    (Interval(0.05, 0.01, 0.09), 'inconclusive'),
    (Interval(0.08, 0.07, 0.09), 'not reproduced')])
def test_judge_at_most(found, verdict):
  assert verdicts.judge_at_most(0.06)(found) == verdict


@pytest.mark.parametrize('found, verdict', [
    (Interval(36, 30., 42.), 'reproduced'), (Interval(36, 20., 42.),
                                             'inconclusive'),
    (Interval(60, 50., 70.), 'not reproduced')])
def test_judge_within(found, verdict):
  assert verdicts.judge_within(27, 45)(found) == verdict


def measured(low, high, log=True, num_seeds=10):
  middle = math.sqrt(low * high) if log else (low + high) / 2
  line = verdicts.Line('x', '', '', '', '', num_seeds=num_seeds)
  return verdicts.Measured(line, Interval(middle, low, high),
                           verdicts.judge_better, log)


def p_value(one):
  """Of the ratio being 1: Student's t on the logarithm."""
  half = math.log(one.found.high / one.found.low) / 2
  error = half / stats.t.ppf(0.975, one.line.num_seeds - 1)
  return 2 * stats.t.sf(abs(math.log(one.found.value)) / error,
                        one.line.num_seeds - 1)


def test_a_family_is_judged_by_holm():
  rng = np.random.default_rng(0)
  num_decided = 0
  for _ in range(50):
    family = []
    for _ in range(4):
      centre, half = 0.3 * rng.normal(), 0.2 * rng.gamma(2.)
      family.append(measured(math.exp(centre - half), math.exp(centre + half)))
    want = ['inconclusive'] * 4
    for rank, i in enumerate(np.argsort([p_value(one) for one in family])):
      if p_value(family[i]) > 0.05 / (4 - rank):
        break  # Holm stops at the first that is not rejected.
      want[i] = ('reproduced' if family[i].found.value > 1 else
                 'not reproduced')
    got = [line.verdict for line in verdicts.judge_family(family)]
    assert got == want
    num_decided += sum(verdict != 'inconclusive' for verdict in got)
  assert 20 < num_decided < 180
  # One line alone is judged at the interval that it shows.
  assert verdicts.judge_family([measured(1.001, 1.2)])[0].verdict == (
      'reproduced')
  # Without an interval nothing is decided.
  for found in (Interval(3.), Interval(math.inf, math.nan, math.nan)):
    one = verdicts.Measured(measured(1., 2.).line, found, verdicts.judge_better)
    assert verdicts.judge_family([one])[0].verdict == 'inconclusive'


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


ONE_BY_ONE = 'against one combination after the other'
AT_ONCE = 'against all combinations at once'


def figure3(speed_ups, memory=lambda k: 0.5 * k**2):
  rows = [{'num_options': k, 'num_samples': k**4, 'repeats': 5,
           'speedup_ole': speed, 'speedup_ole_low': 0.99 * speed,
           'speedup_ole_high': 1.01 * speed, 'memory_ole_bytes': 1000,
           'memory_one_by_one_bytes': 100,
           'memory_one_program_bytes': 1000 * memory(k),
           'speedup_ole_over_one_program': 2. if k < 4 else None,
           'speedup_ole_over_one_program_low': 1.9 if k < 4 else None,
           'speedup_ole_over_one_program_high': 2.1 if k < 4 else None}
          for k, speed in speed_ups.items()]
  # A smaller set, which the claims are not about.
  rows.append({**rows[-1], 'num_samples': 10, 'speedup_ole': 500.,
               'memory_one_program_bytes': 1.})
  return pd.DataFrame(rows)


@pytest.mark.parametrize('fastest, power, expected', [
    (25., 2., ('reproduced', 'reproduced')), (17.5, 1.6, ('reproduced',) * 2),
    (12., 1., ('partly', 'partly')), (17.1, 1., ('inconclusive', 'partly')),
    (5., 0.2, ('not reproduced', 'not reproduced'))])
def test_ole(fastest, power, expected):
  table = figure3({2: 2., 3: 4., 4: fastest, 5: 4.5}, lambda k: 3. * k**power)
  found = lines_by_claim(make_rows(settings.layer_ensemble(3), 0.4),
                         figure3=table)
  speed = found[f'4a, {ONE_BY_ONE}', '', '']
  memory = found[f'4b, {AT_ONCE}', '', '']
  assert (speed.verdict, memory.verdict) == expected
  assert speed.ours == fastest and 'K = 4' in speed.why
  assert (speed.low, speed.high) == (0.99 * fastest, 1.01 * fastest)
  assert memory.ours == pytest.approx(power)
  # Against the same baseline: memory of one by one is a tenth of OLE's.
  memory = found[f'4b, {ONE_BY_ONE}', '', '']
  assert memory.verdict == 'not reproduced'
  assert found[f'4c, {ONE_BY_ONE}', '', ''].verdict == 'not reproduced'
  speed = found[f'4a, {AT_ONCE}', '', '']
  assert (speed.ours, speed.verdict) == (2., 'not reproduced')


def test_ole_tables_with_less():
  rows = make_rows(settings.layer_ensemble(3), 0.4)
  table = figure3({2: 2., 5: 20.})
  with pytest.raises(ValueError, match='memory_ole_bytes'):
    lines_by_claim(rows, figure3=table.drop(columns='memory_ole_bytes'))
  # As written before all at once was timed.
  found = lines_by_claim(rows, figure3=table.drop(
      columns=[name for name in table if 'over_one_program' in name]))
  assert found[f'4a, {AT_ONCE}', '', ''].verdict == verdicts.NOT_MEASURED
  assert found[f'4c, {AT_ONCE}', '', ''].verdict == verdicts.NOT_MEASURED
  found = lines_by_claim(rows)
  assert found[f'4a, {ONE_BY_ONE}', '', ''].verdict == verdicts.NOT_MEASURED
  several = pd.concat([table.assign(device='cpu'),
                       table.assign(device='gpu', speedup_ole=3.)])
  found = lines_by_claim(rows, figure3=several)
  assert found[f'4a, {ONE_BY_ONE}, cpu', '', ''].verdict == 'reproduced'
  assert found[f'4a, {ONE_BY_ONE}, gpu', '', ''].ours == 3.
  with pytest.raises(ValueError, match='num_options'):
    lines_by_claim(rows, figure3=pd.DataFrame({'K': [1]}))


def against_table(**fields):
  return pd.DataFrame([{
      'network': 'mlp', 'num_kept': 20, 'num_ensemble': 30, 'repeats': 10,
      'speedup': 2., 'speedup_low': 1.8, 'speedup_high': 2.2,
      'params_ratio': 6., 'temp_exact_bytes': 100, 'temp_padded_bytes': 9,
      'temp_batched_bytes': 250, 'temp_mapped_bytes': 10, 'kept_way': 'exact',
      'ensemble_way': 'batched',
      'deep_difference': 1e-15, 'sub_difference': 2e-15, **fields}])


@pytest.mark.parametrize('fields, expected', [
    ({}, ('reproduced',) * 3),
    (dict(params_ratio=4., speedup_low=1.4, sub_difference=1e-3),
     ('partly', 'inconclusive', 'not reproduced')),
    (dict(params_ratio=2., speedup=1.2, speedup_low=1.1, speedup_high=1.3,
          deep_difference=math.nan),
     ('not reproduced', 'not reproduced', 'not reproduced'))])
def test_cost_beside_a_deep_ensemble(fields, expected):
  rows = make_rows(settings.layer_ensemble(3), 0.4)
  found = lines_by_claim(rows, against=against_table(**fields))
  lines = [found[f'7{part}, mlp', '', ''] for part in 'fgh']
  assert tuple(line.verdict for line in lines) == expected
  assert '2.50 times' in lines[0].why  # Temporary memory.
  assert lines_by_claim(rows)['7f', '', ''].verdict == verdicts.NOT_MEASURED
  with pytest.raises(ValueError, match='speedup_low'):
    lines_by_claim(rows, against=against_table().drop(columns='speedup_low'))


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


ALONE = 'num_ensemble=4,prior_scale=0,noise_scale=0'
BATCH = f'batch_ensemble,fast_init=normal,fast_std=0.1,{ALONE}'


def similarity_table(half=0.001, **batch):
  base = {'reference': 'bayes', 'input_dim': math.nan, 'num_cells': 6,
          'num_seeds': 3}
  deep = {'disagreement': 0.2, 'jensen_shannon': 0.3, 'cosine': 0.,
          'one_network_share': 0.}
  ends = {f'{name}_{end}': value + sign * half
          for name, value in batch.items()
          for end, sign in (('low', -1), ('high', 1))}
  return pd.DataFrame([
      {**base, **deep, 'setting': f'ensemble,{ALONE}'},
      {**base, **deep, 'disagreement': 0.9, 'setting': 'ensemble'},
      {**base, **deep, **batch, **ends, 'setting': BATCH},
      {**base, **deep, 'input_dim': 10., **batch, 'setting': BATCH},
      {**base, 'setting': 'map', 'one_network_share': 1.}])


@pytest.mark.parametrize('batch, half, verdict', [
    (dict(disagreement=0.005, jensen_shannon=0.002, cosine=0.99,
          one_network_share=0.9), 0.001, 'reproduced'),
    (dict(disagreement=0.09, jensen_shannon=0.14, cosine=0.6,
          one_network_share=0.5), 0.001, 'partly'),
    (dict(disagreement=0.15, jensen_shannon=0.2, cosine=0.1,
          one_network_share=0.1), 0.001, 'not reproduced'),
    (dict(disagreement=0.01, jensen_shannon=0.15, cosine=0.95,
          one_network_share=0.75), 0.02, 'inconclusive'),
    (dict(disagreement=0.005, jensen_shannon=0.002, cosine=0.99,
          one_network_share=0.9), math.nan, 'inconclusive')])
def test_similarity_is_judged_by_its_interval(batch, half, verdict):
  found = lines_by_claim(make_rows(settings.layer_ensemble(3), 0.4),
                         similarity=similarity_table(half, **batch))
  for part, measure in zip('abcd', batch):
    line = found[f'6{part}, {BATCH}', 'bayes', '']
    assert (line.verdict, line.ours) == (verdict, batch[measure])
    assert line.statement.startswith('regression, a contrast')
  # Beside the deep ensemble of the same prior and target noise.
  assert '0.200 of the deep' in found[f'6a, {BATCH}', 'bayes', ''].why


def test_similarity_table_is_checked():
  rows = make_rows(settings.layer_ensemble(3), 0.4)
  table = similarity_table(cosine=0.5)
  with pytest.raises(ValueError, match='cosine'):
    lines_by_claim(rows, similarity=table.drop(columns='cosine'))
  found = lines_by_claim(rows, similarity=table[table['setting'] == 'map'])
  assert found['6a', '', ''].verdict == verdicts.NOT_MEASURED


def test_markdown_joins_what_agrees_and_splits_what_does_not():
  rows = []
  for reference, ratio in (('bayes', 3.), ('enn2021', 1.3)):
    rows += make_rows(settings.layer_ensemble(2), 0.4, reference)
    rows += make_rows(settings.layer_ensemble(2, prior_scale=0.), 0.4 * ratio,
                      reference)
    rows += make_rows(settings.deep_ensemble(2), 4., reference)
  lines = claims.evaluate(rows)
  text = claims_text.format_markdown(lines)
  table = [[cell.strip() for cell in line.strip('| ').split(' | ')]
           for line in text.splitlines()]
  assert len({len(cells) for cells in table[2:]}) == 1
  same = [cells for cells in table if cells[0] == '1b, K = 2']
  other = [cells for cells in table if cells[0] == '2, K = 2']
  assert len(same) == 1 and len(other) == 2
  assert same[0][5] == ('bayes: KL and reverse KL; '
                        'enn2021: KL and reverse KL')
  # Every line shows its own number.
  assert same[0][3].count('10.0') >= 4 and 'enn2021 KL' in same[0][3]
  assert [(cells[4], cells[5]) for cells in other] == [
      ('**reproduced**', 'bayes: KL and reverse KL'),
      ('**not reproduced**', 'enn2021: KL and reverse KL')]
  assert other[0][3].startswith('bayes KL 3.00')
  # The brief one has no reasons, and nothing unmeasured beside what is.
  brief = claims_text.format_markdown(lines, brief=True)
  assert lines[0].why not in brief and '| why |' not in brief
  assert '| 1b, K = 2 |' in brief
  one_sided = [line for line in lines if line.claim == '2, K = 2']
  one_sided[0] = dataclasses.replace(one_sided[0],
                                     verdict=verdicts.NOT_MEASURED)
  brief = claims_text.format_markdown(one_sided, brief=True)
  assert 'not measured' not in brief
  brief = claims_text.format_markdown(one_sided[:1], brief=True)
  assert 'not measured' in brief
  # claims.csv has every line with its numbers.
  table = claims_text.make_table(lines)
  assert len(table) == len(lines)
  assert set(table['verdict']) <= set(verdicts.VERDICTS)


def test_one_seed_decides_nothing():
  rows = make_rows(settings.layer_ensemble(2), 0.4, seeds=(0,))
  rows += make_rows(settings.layer_ensemble(2, prior_scale=0.), 4., seeds=(0,))
  line = lines_by_claim(rows)['2, K = 2', 'bayes', 'kl_estimate']
  assert line.verdict == 'inconclusive' and line.low is None
  assert 'one seed' in line.why


def test_command(tmp_path):
  store = results.open_store(tmp_path / 'results', create=True)
  units = {}
  for row in make_rows(settings.layer_ensemble(2), 0.4) + make_rows(
      settings.layer_ensemble(2, prior_scale=0.), 1.):
    units.setdefault(row['run_id'], []).append(row)
  for run_id, rows in units.items():
    store.write_unit(run_id, rows)
  figure3({2: 2., 5: 20.}).to_csv(tmp_path / 'figure3.csv')

  def run(*arguments):
    return commands.run_module(
        'experiments.verify_claims', f'--results_dir={tmp_path / "results"}',
        f'--output_dir={tmp_path / "out"}', *arguments)

  done = run(f'--figure3_csv={tmp_path / "figure3.csv"}')
  assert done.returncode == 0, done.stderr
  table = pd.read_csv(tmp_path / 'out' / 'claims.csv').set_index('claim')
  assert table['verdict'][f'4a, {ONE_BY_ONE}'] == 'reproduced'
  line = table.loc['2, K = 2'].iloc[0]
  assert line['ours'] == pytest.approx(2.5)
  assert (tmp_path / 'out' / 'claims.md').read_text() in done.stdout
  done = run('--figure3_csv=nowhere.csv')
  assert done.returncode == 2
  (text,) = done.stderr.splitlines()
  assert 'nowhere.csv' in text
  done = run(f'--figure3_csv={tmp_path}')
  assert done.returncode == 2
  (text,) = done.stderr.splitlines()
  assert 'cannot be read: it is no regular file' in text


def test_every_claim_states_its_thresholds():
  found = {}
  for module in (claims, further_claims, similarity_claims, table_claims):
    found.update({name: function for name, function in vars(module).items()
                  if name.startswith('claim_')})
  assert len(found) == 15
  for function in found.values():
    text = function.__doc__
    assert 'Reproduced' in text or '`judge_' in text
