"""Which copies of a row are one result, and which contradict each other."""

import itertools
import math

import example_rows
import pytest

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.results import tolerance

_HERE = {'threads': 1, 'isa': 'avx2'}
_THERE = {'threads': 8, 'isa': 'avx512f'}


def make_row(kl=0.5, numerics=None, **fields):
  return example_rows.make_row(kl, numerics=numerics or _HERE, **fields)


@pytest.mark.parametrize('other, numerics, expected', [
    (0.5, _HERE, 0.), (0.5 * (1 + 1e-10), _HERE, 1e-10),
    (0.5 * (1 + 1e-8), _HERE, None), (0.5 * (1 + 1e-8), _THERE, 1e-8),
    (0.5 * 1.015, _THERE, 0.0148), (0.5 * 1.03, _THERE, None)])
def test_scores_are_one_result_within_the_tolerance(other, numerics, expected):
  row, copy = make_row(0.5), make_row(other, numerics=numerics)
  for a, b in ((row, copy), (copy, row)):
    if expected is None:
      with pytest.raises(tolerance.ContradictionError) as error:
        tolerance.difference(a, b)
      assert error.value.field == 'kl_estimate'
    else:
      assert tolerance.difference(a, b) == pytest.approx(expected, rel=0.01,
                                                         abs=1e-16)


def test_scores_near_zero_are_rounding():
  assert tolerance.difference(make_row(1e-15), make_row(3e-15)) < 1
  assert tolerance.difference(make_row(1e-9),
                              make_row(9e-9, numerics=_THERE)) < 1
  with pytest.raises(tolerance.ContradictionError):
    tolerance.difference(make_row(1e-9), make_row(9e-9))


def test_what_no_arithmetic_changes_must_be_equal():
  for fields in (dict(dtype='float64'), dict(num_samples_used=9),
                 dict(agent_config={'num_ensemble': 11})):
    with pytest.raises(tolerance.ContradictionError) as error:
      tolerance.difference(make_row(), make_row(numerics=_THERE, **fields))
    assert error.value.field in fields
  # The floor follows from the number of members.
  with pytest.raises(tolerance.ContradictionError, match='kl_floor'):
    tolerance.difference(make_row(), make_row(numerics=_THERE,
                                              kl_floor=0.175001))


def test_infinite_scores():
  row = make_row(math.inf, status='diverged')
  assert tolerance.difference(row, dict(row)) == 0
  with pytest.raises(tolerance.ContradictionError):
    tolerance.difference(row, make_row(1e308, status='diverged',
                                       numerics=_THERE))
  assert tolerance.difference(make_row(1.7e308), make_row(
      1.71e308, numerics=_THERE)) < 0.01


def test_old_rows_do_not_say_what_they_were_computed_with():
  old = lambda kl: {**make_row(kl), 'numerics': {}}
  assert tolerance.difference(old(0.5), old(0.505)) == pytest.approx(
      0.0099, rel=0.01)


def make_units(tmp_path, *rows):
  units = []
  for i, row in enumerate(rows):
    store = results.open_store(tmp_path / str(i), create=True)
    store.write_unit('a', [{**row, 'run_id': 'a'}])
    units += store.read_units()
  return units


def test_which_copy_stays_does_not_depend_on_the_order(tmp_path, caplog):
  rows = [make_row(0.5), make_row(0.5 * (1 + 1e-10)),
          make_row(0.501, numerics=_THERE), make_row(None)]
  units = make_units(tmp_path, *rows)
  kept = set()
  for order in itertools.permutations(units):
    (row,) = results.merge_units(order)
    kept.add(row['scores']['kl_estimate'])
  assert len(kept) == 1 and kept <= {0.5, 0.5 * (1 + 1e-10), 0.501}
  # Nor on where the files are.
  moved = make_units(tmp_path / 'moved', *reversed(rows))
  (row,) = results.merge_units(moved)
  assert kept == {row['scores']['kl_estimate']}
  caplog.clear()
  results.merge_units(units)
  assert len(caplog.records) == 2  # The kept one and each that differs.
  for record in caplog.records:
    named = [str(unit.path) in record.getMessage() for unit in units]
    assert sum(named) == 2


def test_a_score_that_one_side_lacks_is_no_contradiction(tmp_path):
  # A program of before did not give the cosine; the row that has it stays.
  order = {'order': [1, 0], 'kl_estimate': [0.9, 0.5]}
  before = make_row(0.5, curve=order)
  after = make_row(0.5, weight_cosine=0.25,
                   curve={**order, 'coverage_90': [0.1, 0.2]})
  for numerics in (_HERE, _THERE):
    copy = {**after, 'numerics': numerics}
    assert tolerance.difference(before, copy) == 0
    assert tolerance.difference(copy, before) == 0
    units = make_units(tmp_path / str(len(numerics['isa'])), before, copy)
    for ordered in (units, units[::-1]):
      (row,) = results.merge_units(ordered)
      assert row['scores']['weight_cosine'] == 0.25
      assert 'coverage_90' in row['curve']
  # What both have must still agree, and what every row has nobody may lack.
  with pytest.raises(tolerance.ContradictionError) as error:
    tolerance.difference(before, make_row(0.6, curve=order, weight_cosine=0.25))
  assert error.value.field == 'kl_estimate'
  without = {key: value for key, value in before['scores'].items()
             if key != 'kl_estimate'}
  with pytest.raises(tolerance.ContradictionError) as error:
    tolerance.difference(before, {**after, 'scores': without})
  assert error.value.field == 'scores'
  with pytest.raises(tolerance.ContradictionError) as error:
    tolerance.difference(before, {**after, 'curve': None})
  assert error.value.field == 'curve'


def test_a_contradiction_names_both_files(tmp_path):
  units = make_units(tmp_path, make_row(0.5), make_row(0.6, numerics=_THERE))
  for order in (units, units[::-1]):
    with pytest.raises(files.FileError, match='delete the file that') as error:
      results.merge_units(order)
    assert all(str(unit.path) in str(error.value) for unit in units)
