"""Verdicts on tables of costs and similarities whose truth is planted."""

import math

import pandas as pd
from planted_claims import AT_ONCE
from planted_claims import figure3
from planted_claims import lines_by_claim
from planted_claims import make_rows
from planted_claims import ONE_BY_ONE
import pytest

from enn_ensembles.studies.layer_ensembles import settings
from enn_ensembles.studies.layer_ensembles import verdicts


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
