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


# A deep ensemble of three on D10_l10_e0.1_s3, trained with AVX-512 and with
# SSE 4.2.
_THREE_MEMBERS = (
    dict(kl_estimate=4.35028, kl_reverse=0.592902, mean_error=1.00331,
         std_error=0.400703, mean_rmse=0.138391, std_ratio=0.996084,
         kl_floor=math.inf, joint_kl_dyadic_tau10=11.6726,
         joint_kl_tau2=3.22595e+06, joint_kl_tau2_floor=math.inf,
         crps_excess=0.0225322, log_score_excess=0.365757, coverage_50=0.416,
         weight_cosine=-0.0133501),
    dict(kl_estimate=3.44472, kl_reverse=0.58975, mean_error=1.00055,
         std_error=0.400032, mean_rmse=0.138092, std_ratio=0.994967,
         kl_floor=math.inf, joint_kl_dyadic_tau10=11.5845,
         joint_kl_tau2=1087.26, joint_kl_tau2_floor=math.inf,
         crps_excess=0.0225384, log_score_excess=0.364285, coverage_50=0.417,
         weight_cosine=-0.0139608))
# A hypermodel on digits, the same.
_HYPERMODEL = (
    dict(accuracy=0.981092, nll=0.0625491, brier=0.0338335, ece=0.0173463,
         member_accuracy=0.967122, member_nll=0.284607, aurc=0.000840834),
    dict(accuracy=0.97479, nll=0.106759, brier=0.0414668, ece=0.029011,
         member_accuracy=0.960924, member_nll=0.296077, aurc=0.00249953))


def make_row(kl=0.5, numerics=None, **fields):
  return example_rows.make_row(kl, numerics=numerics or _HERE, **fields)


def make_members_row(scores, numerics=None, num_samples=3):
  """A row of an ensemble, whose curve ends with its own `kl_estimate`."""
  kl = scores['kl_estimate']
  curve = {'order': list(range(num_samples)),
           'kl_estimate': [1e4] * (num_samples - 1) + [kl]}
  return make_row(numerics=numerics, num_samples_used=num_samples, curve=curve,
                  **{**scores, 'kl': kl})


def make_classifier_row(scores, numerics=None, **fields):
  row = example_rows.make_image_row(numerics=numerics or _HERE, **fields)
  return {**row, 'scores': {**row['scores'], **scores}}


def contradiction(row, other):
  """What two rows contradict each other in; None if they do not."""
  found = set()
  for a, b in ((row, other), (other, row)):
    try:
      tolerance.difference(a, b)
      found.add(None)
    except tolerance.ContradictionError as error:
      found.add(error.field)
  field, = found  # The order of the rows is no matter.
  return field


@pytest.mark.parametrize('other, numerics, expected', [
    (0.5, _HERE, 0.), (0.5 * (1 + 1e-10), _HERE, 1e-10),
    (0.5 * (1 + 1e-8), _HERE, None), (0.5 * (1 + 1e-8), _THERE, 1e-8),
    (0.5 * 1.04, _THERE, 0.0385), (0.5 * 1.06, _THERE, None)])
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


@pytest.mark.parametrize('name', ['mean_error', 'joint_kl_dyadic_tau10'])
def test_errors_of_means_over_small_variances_differ_more(name):
  # BatchEnsemble at (10, 10), trained by two kinds of machine: 13.65 and 12.73.
  row = make_row(**{name: 13.65})
  for value, expected in ((12.73, None), (11., name)):
    assert contradiction(row, make_row(numerics=_THERE,
                                       **{name: value})) == expected
  assert contradiction(row, make_row(**{name: 12.73})) == name


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


def test_what_two_instruction_sets_give_is_one_result(tmp_path, caplog):
  here, there = (make_members_row(scores, numerics) for scores, numerics in
                 zip(_THREE_MEMBERS, (_HERE, _THERE)))
  # Rounding decides the KLs, by nothing of which the other scores know.
  assert tolerance.difference(here, there) > 0.99
  units = make_units(tmp_path, here, there)
  (row,) = results.merge_units(units)
  assert row['scores'] in (here['scores'], there['scores'])
  assert len(caplog.records) == 1 and 'differ by up to 1' in caplog.text
  # On equal terms nothing of the kind is one result.
  assert contradiction(here, {**there, 'numerics': _HERE}) == 'kl_estimate'
  assert contradiction(here, {
      **here, 'scores': {**here['scores'], 'joint_kl_tau2': 3.22596e+06}}
                       ) == 'joint_kl_tau2'


@pytest.mark.parametrize('factor', [1.1, 1.5])
@pytest.mark.parametrize('num_samples', [1, 2, 3, 5, 10])
def test_a_wrong_kl_is_found(num_samples, factor):
  # Of one network (map) and of ten the KL is compared; of few it must be that
  # of the row's own curve.
  scores = {'kl_estimate': 4.35, 'kl_floor': math.inf}
  row = make_members_row(scores, num_samples=num_samples)
  copy = make_members_row(scores, _THERE, num_samples)
  assert contradiction(row, copy) is None
  copy['scores']['kl_estimate'] *= factor
  assert contradiction(row, copy) == 'kl_estimate'
  # A map has no curve.
  assert num_samples > 1 or contradiction(
      row, {**copy, 'curve': None}) == 'kl_estimate'


@pytest.mark.parametrize('score, num_samples, factor, agrees', [
    ('joint_kl_tau2', 6, 3., True), ('joint_kl_tau2', 7, 1.1, False),
    ('joint_kl_tau2', 1, 1.1, False), ('joint_kl_tau10', 14, 3., True),
    ('joint_kl_tau10', 15, 1.1, False), ('joint_kl_tau10', None, 1.1, False),
    ('joint_kl_dyadic_tau10', 2, 1.2, False), ('wasserstein', 2, 1.1, False),
    ('log_score_excess_expected', 3, 1.15, True),
    ('log_score_excess_expected', 3, 1.3, False),
    ('log_score_excess_expected', 6, 1.15, False),
    ('log_score_excess', 2, 1.15, True), ('log_score_excess', 1, 1.15, False)])
def test_only_covariances_of_few_samples_are_rounding(score, num_samples,
                                                      factor, agrees):
  row, copy = (make_row(numerics=numerics, num_samples_used=num_samples,
                        **{score: value}) for numerics, value in (
                            (_HERE, 2.), (_THERE, 2. * factor)))
  assert contradiction(row, copy) == (None if agrees else score)


def test_weights_may_leave_few_samples():
  rows = [make_row(numerics=numerics, selection='weights_em',
                   joint_kl_tau2=value)
          for numerics, value in ((_HERE, 2.), (_THERE, 2.1), (_THERE, 6.))]
  assert contradiction(rows[0], rows[2]) is None
  assert contradiction(rows[0], make_row(
      0.55, _THERE, selection='weights_em', joint_kl_tau2=2.)) == 'kl_estimate'


@pytest.mark.parametrize('score, value, fits, wrong', [
    ('weight_cosine', 0.001, -0.0015, 0.0075), ('coverage_90', 0.9, 0.88, 0.86),
    ('crps_excess', 0.001, -0.003, 0.008), ('crps_excess', 0.4, 0.415, 0.43),
    ('log_score_excess', 0.001, -0.005, 0.02),
    ('wasserstein_floor', 0.5, 0.5, 0.5001)])
def test_scores_that_pass_through_zero_and_shares(score, value, fits, wrong):
  row = make_row(**{score: value})
  for other, expected in ((fits, None), (wrong, score)):
    assert contradiction(row, make_row(
        numerics=_THERE, **{score: other})) == expected


def test_agents_that_say_what_the_noise_is():
  # A mean variance ensemble of five on D10_l10_e1_s0.
  here = dict(num_samples_used=5, kl_reverse=7., aleatoric_ratio=0.0467181,
              mixture_nll=201.854, log_score_excess=3.5691)
  there = dict(num_samples_used=5, kl_reverse=6.9, aleatoric_ratio=0.025613,
               mixture_nll=791.04, log_score_excess=3.85828)
  row = make_row(**here)
  assert contradiction(row, make_row(numerics=_THERE, **there)) is None
  for score, value in (('log_score_excess', 5.5), ('kl_reverse', 6.2)):
    assert contradiction(row, make_row(
        numerics=_THERE, **{**there, score: value})) == score


def make_selected_row(numerics, order, kept, kl, val_score=0.5, **fields):
  """A row of three members that a ranking put into an order."""
  return make_row(
      kl, numerics, selection='oracle', num_samples_used=kept, curve={
          'order': order, 'kl_estimate': [kl] * 3,
          'val_score': [val_score + 0.01 * abs(i + 1 - kept)
                        for i in range(3)]}, **fields)


def test_a_selection_may_keep_other_members():
  row = make_selected_row(_HERE, [0, 1, 2], 2, 0.5, kl_floor=math.inf)
  other = make_selected_row(_THERE, [0, 2, 1], 2, 0.6, kl_floor=math.inf)
  assert contradiction(row, other) is None
  more = make_selected_row(_THERE, [0, 1, 2], 3, 0.6, kl_floor=0.2)
  assert contradiction(row, more) is None
  # Where they are the same in another order, so are the scores.
  same = make_selected_row(_THERE, [1, 0, 2], 2, 0.5, kl_floor=math.inf,
                           kl_reverse=0.28)
  assert contradiction(row, same) == 'kl_reverse'
  # The best validation score is the same whoever is kept, and a score is that
  # of the row's own curve.
  worse = make_selected_row(_THERE, [0, 2, 1], 2, 0.6, 0.55)
  assert contradiction(row, worse) == 'best val_score'
  other['scores']['kl_estimate'] *= 1.1
  assert contradiction(row, other) == 'kl_estimate'
  assert contradiction(row, {**more, 'numerics': _HERE}) == 'num_samples_used'


def test_trainings_of_classifiers_part():
  row, other = (make_classifier_row(scores, numerics) for scores, numerics in
                zip(_HYPERMODEL, (_HERE, _THERE)))
  assert contradiction(row, other) is None
  assert contradiction(row, {**other, 'numerics': _HERE}) == 'nll'
  # The accuracy is the same in any case.
  wrong = make_classifier_row({**_HYPERMODEL[1], 'accuracy': 0.961}, _THERE)
  assert contradiction(row, wrong) == 'accuracy'
  # A score that is wrong differs alone.
  for score, value in (('accuracy', 0.961), ('nll', 0.0688), ('ece', 0.03)):
    wrong = make_classifier_row({**_HYPERMODEL[0], score: value}, _THERE)
    assert contradiction(row, wrong) == score
  # As it was measured: a share moves in steps.
  wrong = make_classifier_row({**_HYPERMODEL[0], 'ece': 0.0214}, _THERE)
  assert contradiction(row, wrong) is None
  for factor, expected in ((1., None), (1.1, 'nll')):
    wrong = make_classifier_row(_HYPERMODEL[1], _THERE, num_samples_used=2,
                                curve={'order': [1, 0], 'nll': [
                                    0.2, factor * 0.106759]})
    assert contradiction({**row, 'num_samples_used': 2}, wrong) == expected


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
