"""Rows are checked against the schema, and what is wrong with one is named."""

import hashlib
import itertools
import json
import math
import re

import example_rows
from example_rows import make_store  # noqa: F401
import numpy as np
import pytest

from enn_ensembles import results
from enn_ensembles.machine import files

make_row = example_rows.make_row


def test_schema_has_the_fields_that_the_groups_name():
  groups = results.TIMING_FIELDS + results.PROTOCOL_FIELDS
  assert set(groups) <= set(results.ROW_SCHEMA)
  assert all(field.meaning for field in results.ROW_SCHEMA.values())


def _with_problem(**fields):
  return {'problem': {**make_row()['problem'], **fields}}


def _with_scores(**fields):
  return {'scores': {**make_row()['scores'], **fields}}


@pytest.mark.parametrize('fields, message', [
    (_with_problem(seed='0'), "seed must be of type int, got '0' (str)"),
    (_with_problem(seed=True), 'seed must be of type int, got True (bool)'),
    (_with_problem(seed=0.), 'seed must be of type int, got 0.0 (float)'),
    (_with_problem(seed=None), 'seed must be of type int, got None'),
    (_with_problem(cell={'noise_std': [1]}),
     "cell must hold numbers and texts by name, got {'noise_std': [1]}"),
    ({'problem': {'seed': 0}}, "must have the fields ('kind', 'seed', 'cell'"),
    ({'train_seconds': 'NaN'},
     "train_seconds must be of type float, got 'NaN' (str)"),
    ({'train_seconds': False},
     'train_seconds must be of type float, got False (bool)'),
    ({'agent': 3}, 'agent must be of type str, got 3 (int)'),
    ({'enumerate_indices': 1},
     'enumerate_indices must be of type bool, got 1 (int)'),
    ({'agent_config': [1]},
     'agent_config must be of type dict, got [1] (list)'),
    ({'agent_config': {'a': math.nan}}, 'agent_config cannot be stored'),
    ({'agent_config': {'a': np.zeros(2)}}, 'agent_config cannot be stored'),
    ({'score_set': 'beauty'}, "score_set must be one of ['nngp', "),
    ({'status': 'fine'},
     "status must be one of ['ok', 'diverged', 'failed'], got 'fine'"),
    ({'schema_version': 1}, 'schema_version must be 4, got 1'),
    ({'kl': 1.}, "unknown fields ['kl']"),
    (_with_scores(kl=1.), "must be those of nngp; unknown ['kl']"),
    ({'scores': {'kl_estimate': 1.}}, "missing ['kl_reverse', "),
    ({'scores': [1.]}, 'must be scores by name, got [1.0]'),
    (_with_scores(kl_estimate=math.inf),
     'kl_estimate must be finite where status is ok, got inf'),
    (_with_scores(kl_floor=-math.inf),
     'kl_floor must be finite where status is ok, got -inf'),
    (_with_scores(kl_reverse=None),
     'kl_reverse must be of type float, got None'),
    ({'scores': None},
     'must be None if and only if status is failed, got None'),
    ({'status': 'failed'}, 'must be None if and only if status is failed, got'),
])
def test_bad_row_is_refused_and_named(fields, message):
  with pytest.raises(files.FileError, match=re.escape(message)):
    results.check_row({**make_row(), **fields}, 'row 3')
  with pytest.raises(files.FileError, match='^row 3: '):
    results.check_row({**make_row(), **fields}, 'row 3')


def test_an_infinite_floor_is_a_score():
  row = make_row(kl_floor=math.inf)
  assert results.check_row(row)['scores']['kl_floor'] == math.inf


def test_missing_field_is_refused():
  row = make_row()
  del row['numerics']
  with pytest.raises(files.FileError, match=r"missing fields \['numerics'"):
    results.check_row(row)


def test_numpy_scalars_become_python_numbers():
  row = results.check_row(make_row(
      np.float32(0.1), num_params=np.int64(3), enumerate_indices=np.bool_(True),
      agent_config={'sizes': (1, 2)}))
  assert type(row['scores']['kl_estimate']) is float
  assert row['scores']['kl_estimate'] == float(np.float32(0.1))
  assert type(row['num_params']) is int
  assert row['enumerate_indices'] is True
  assert row['agent_config'] == {'sizes': [1, 2]}


@pytest.mark.parametrize('cost', [{'money': 1.}, {'peak_memory_mb': '1'},
                                  {'peak_memory_mb': math.inf},
                                  {'peak_memory_mb': -1.}])
def test_costs_of_use_are_checked(cost):
  with pytest.raises(files.FileError, match='row 3: cost must have finite'):
    results.check_row({**make_row(), 'cost': cost}, 'row 3', is_json=True)


@pytest.mark.parametrize('counts, message', [
    (5, "'test' must have .*bin_count.* by name, got 5"),
    ([], "'test' must have"), ({'count': [1]}, "'test' must have"),
    ({'bin_count': [1]}, "bin_count of 'test' must be a list of 15 numbers"),
    ({'bin_count': ['1'] * 15}, 'bin_count of'),
    ({'bin_count': [-1] * 15}, 'bin_count of'),
    ({'bin_correct': [10**400] * 15}, 'bin_correct of'),
    ({'mi_count': 3}, "mi_count of 'test' must be a list of 28 numbers"),
    ({'pit_count': [1] * 10}, "pit_count of 'test' must be a list of 20"),
    ({'disagreement': [[0., 1.]]}, 'must be a square matrix of finite'),
    ({'disagreement': [[0.], [1., 2.]]}, 'disagreement of'),
    ({'weight_cosine': []}, 'weight_cosine of')])
def test_counts_of_predictions_are_checked(counts, message):
  with pytest.raises(files.FileError, match=f'row 3: counts: .*{message}'):
    results.check_row({**make_row(), 'counts': {'test': counts}}, 'row 3',
                      is_json=True)


def test_curve_of_a_row(store):
  curve = {'order': [1, 0], 'kl_estimate': [2., 1.5], 'kl_reverse': [1., 0.1]}
  row = make_row(curve=curve)
  assert results.check_row(row)['curve'] == curve
  store.write_unit(row['run_id'], [row])
  assert store.read_rows()[0]['curve'] == curve
  for wrong, message in (
      ({'order': [0]}, 'curve must have .*where selection is none'),
      ({**curve, 'val_score': [1., 2.]}, 'curve must have'),
      ({**curve, 'kl_reverse': [1.]}, 'curve must hold lists of one length'),
      ({**curve, 'kl_reverse': 1.}, 'curve must hold lists of one length'),
      ({**curve, 'kl_reverse': [1., np.nan]}, 'curve cannot be stored as JSON')
  ):
    with pytest.raises(files.FileError, match=message):
      results.check_row(make_row(curve=wrong))
  with pytest.raises(files.FileError, match="must have .*'val_score'"):
    results.check_row(make_row(curve=curve, selection='oracle'))


def test_row_ids_of_a_grid_are_hashes_of_the_whole_text():
  """What is shared is hashed once; the names are those of whole texts."""
  row = example_rows.make_row(agent='ensemble-K3')
  cells = [{'noise_std': 0.1, 'input_dim': 10}, {'dataset': 'a"b'}]
  found = results.RowIds(row, 'nngp', {'reference': 'bayes'}, 1000).row_ids(
      cells, [0, 7], ['none', 'val_nll'])
  expected = []
  for seed, cell, selection in itertools.product([0, 7], cells,
                                                 ['none', 'val_nll']):
    text = json.dumps({
        **{key: row[key] for key in ('agent', 'agent_config', 'dtype',
                                     'enumerate_indices')},
        'num_enn_samples': 1000, 'selection': selection,
        'problem': {'kind': 'nngp', 'seed': seed, 'cell': cell,
                    'ranking': {'reference': 'bayes'}}},
                      sort_keys=True, separators=(',', ':'))
    expected.append(hashlib.sha256(text.encode()).hexdigest()[:16])
  assert found == expected and len(set(found)) == 8
