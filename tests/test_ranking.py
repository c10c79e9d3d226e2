"""Rankings are those of slow loops over scipy densities.

tests/data/ranking_path_K5.csv is the greedy order that another implementation
found on the 125 members of a layer ensemble [5, 5, 5]; ranking_val_K5.npz has
their predictions at x_val, rounded to float32, and the posterior there.
"""

import csv
import json
import pathlib

import counting
import jax
import numpy as np
import pytest
from slow_ranking import make_case
from slow_ranking import nll_score
from slow_ranking import oracle_score
from slow_ranking import slow_order

from enn_ensembles.machine import devices
from enn_ensembles.scoring import curves
from enn_ensembles.scoring import ranking

DATA = pathlib.Path(__file__).parent / 'data'
REFERENCE = pathlib.Path(__file__).parents[2] / 'shared' / 'reference'


def load_stored_order():
  """The stored order as rows of the predictions, kl_val and kl_test.

  The rows are in lexicographic order of the options ([0, 0, 0], [0, 0, 1]...).
  """
  with open(DATA / 'ranking_path_K5.csv', newline='') as f:
    rows = list(csv.DictReader(f))
  options = np.array([json.loads(row['added_combination']) for row in rows])
  order = np.ravel_multi_index(tuple(options.T), (5, 5, 5))
  return (order, np.array([float(row['kl_val']) for row in rows]),
          np.array([float(row['kl_test']) for row in rows]))


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('dtype,rtol', [('float64', 1e-10), ('float32', 1e-4)])
def test_oracle_equals_slow_loops(seed, dtype, rtol):
  predictions, mean, std, _ = make_case(seed)
  order, score = slow_order(predictions, oracle_score(mean, std))
  found = ranking.rank_samples(predictions, mean, std, dtype=dtype)
  assert found.order.dtype == np.int32
  assert found.score.dtype == dtype
  np.testing.assert_array_equal(found.order, order)
  np.testing.assert_allclose(found.score, score, rtol=rtol)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('noise_std', [0.01, 1.])
@pytest.mark.parametrize('dtype,tol', [('float64', 1e-10), ('float32', 2e-4)])
def test_val_nll_equals_slow_loops(seed, noise_std, dtype, tol):
  predictions, _, _, labels = make_case(seed)
  order, score = slow_order(predictions, nll_score(labels, noise_std))
  found = ranking.rank_samples(predictions, selection='val_nll', labels=labels,
                              noise_std=noise_std, dtype=dtype)
  np.testing.assert_array_equal(found.order, order)
  np.testing.assert_allclose(found.score, score, rtol=tol, atol=tol)


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_duplicates_go_to_the_lowest_index(dtype):
  predictions, mean, std, labels = make_case(1, num_samples=5)
  predictions = predictions[[3, 0, 3, 1, 0, 2, 4, 3]]
  order, _ = slow_order(predictions, oracle_score(mean, std))
  found = ranking.rank_samples(predictions, mean, std, dtype=dtype)
  np.testing.assert_array_equal(found.order, order)
  position = np.argsort(found.order)
  assert position[0] < position[2] < position[7]
  assert position[1] < position[4]
  order, _ = slow_order(predictions, nll_score(labels, 0.1))
  found = ranking.rank_samples(predictions, selection='val_nll', labels=labels,
                              noise_std=0.1, dtype=dtype)
  np.testing.assert_array_equal(found.order, order)


@pytest.mark.parametrize('num_samples', [3, 16, 37])
def test_identical_members_keep_their_order(num_samples):
  predictions, mean, std, _ = make_case(0, num_samples=1)
  found = ranking.rank_samples(
      np.repeat(predictions, num_samples, axis=0), mean, std)
  np.testing.assert_array_equal(found.order, np.arange(num_samples))


def test_single_member():
  predictions, mean, std, _ = make_case(0, num_samples=1)
  found = ranking.rank_samples(predictions, mean, std)
  assert found.order.tolist() == [0]
  np.testing.assert_allclose(
      found.score, [oracle_score(mean, std)(predictions)], rtol=1e-12)


def test_is_deterministic_and_compiled_once():
  predictions, mean, std, labels = make_case(2, num_samples=8, num_x=21)
  first = ranking.rank_samples(predictions, mean, std)
  compiled = ranking._greedy_order._cache_size()
  second = ranking.rank_samples(predictions, mean, std)
  np.testing.assert_array_equal(first.order, second.order)
  np.testing.assert_array_equal(first.score, second.score)
  ranking.rank_samples(predictions, selection='val_nll', labels=labels,
                       noise_std=0.3)
  assert ranking._greedy_order._cache_size() == compiled


def test_shorter_order_is_the_beginning_of_the_full_one():
  predictions, mean, std, _ = make_case(3)
  full = ranking.rank_samples(predictions, mean, std)
  short = ranking.rank_samples(predictions, mean, std, num_ranked=4)
  np.testing.assert_array_equal(short.order, full.order[:4])
  np.testing.assert_allclose(short.score, full.score[:4], rtol=1e-12)


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_large_offset_loses_no_digits(dtype):
  # A common shift of predictions and posterior changes nothing.
  predictions, mean, std, _ = make_case(4)
  shift = 2. ** 20
  found = ranking.rank_samples(predictions, mean, std, dtype=dtype)
  shifted = ranking.rank_samples(
      predictions + shift, mean + shift, std, dtype=dtype)
  np.testing.assert_array_equal(shifted.order, found.order)
  np.testing.assert_allclose(shifted.score, found.score, rtol=1e-5)


def test_overflow_ranks_last_and_shows():
  predictions, mean, std, _ = make_case(5, num_samples=6)
  expected = ranking.rank_samples(predictions[1:], mean, std)
  predictions[0] = 1e300
  found = ranking.rank_samples(predictions, mean, std)
  np.testing.assert_array_equal(found.order, [*(expected.order + 1), 0])
  np.testing.assert_allclose(found.score[:-1], expected.score, rtol=1e-12)
  assert not np.isfinite(found.score[-1])


def test_no_member_comes_twice_when_every_score_is_infinite():
  found = ranking.rank_samples(np.full((3, 5), 1e153), np.zeros(5), np.ones(5))
  assert found.order.tolist() == [0, 1, 2]
  assert np.isinf(found.score).all()


def test_float32_is_the_default_without_x64():
  predictions, mean, std, _ = make_case(0)
  with devices.x64_mode(False):
    found = ranking.rank_samples(predictions, mean, std)
    assert found.score.dtype == np.float32
    with pytest.raises(ValueError, match='dtype must be float32'):
      ranking.rank_samples(predictions, mean, std, dtype='float64')


def test_stored_order_on_rounded_predictions():
  order, kl_val, _ = load_stored_order()
  with np.load(DATA / 'ranking_val_K5.npz') as stored:
    found = ranking.rank_samples(
        stored['predictions'], stored['mean'], stored['std'])
  np.testing.assert_array_equal(found.order, order)
  np.testing.assert_allclose(found.score, kl_val, rtol=2e-6)


def test_stored_order_in_full():
  files = (REFERENCE / 'ranking_member_predictions_K5.npz',
           REFERENCE / 'problems' / 'D10_l10_e0.1_s0.npz')
  if not all(file.exists() for file in files):
    pytest.skip(f'needs the reference predictions in {REFERENCE}.')
  order, kl_val, kl_test = load_stored_order()
  with np.load(files[0]) as members, np.load(files[1]) as problem:
    found = ranking.rank_samples(
        members['val'], problem['val_mean'], problem['val_std'])
    scores = curves.evaluate_curve(
        members['test'], found.order, problem['test_mean'], problem['test_std'])
  np.testing.assert_array_equal(found.order, order)
  np.testing.assert_allclose(found.score, kl_val, rtol=1e-11)
  np.testing.assert_allclose(scores.kl_estimate, kl_test, rtol=1e-11)


def test_costs_are_as_documented():
  """So many per input, candidate and addition, and hardly any besides."""
  predictions, mean, std, labels = make_case(0, num_samples=125, num_x=1000)
  task, num_ranked = ranking._make_task(
      predictions, mean, std, 'oracle', labels, 0.1, 1e-3, 50, None)
  assert num_ranked == 50
  jaxpr = jax.make_jaxpr(ranking._greedy_order, static_argnums=1)(task,
                                                                  num_ranked)
  # One of the divisions is by the number of members.
  for name, times in (('log', 1), ('sqrt', 1), ('div', 2)):
    num = counting.num_elements(jaxpr, name) / (50 * 125 * 1000)
    assert times <= num < 1.1 * times, name


def ranking_kwargs(**changes):
  predictions, mean, std, labels = make_case(0, num_samples=4, num_x=6)
  return dict(dict(predictions=predictions, mean=mean, std=std, labels=labels,
                   noise_std=0.1), **changes)


@pytest.mark.parametrize('changes,message', [
    (dict(selection='none'), "selection must be one of .* got 'none'"),
    (dict(predictions=np.zeros(6)), r'predictions must have 2 axes, got .*6'),
    (dict(predictions=np.zeros((0, 6))), r'at least one member .*\(0, 6\)'),
    (dict(predictions=np.zeros((4, 0))), r'at least one member .*\(4, 0\)'),
    (dict(predictions=np.full((4, 6), np.nan)), 'predictions .*finite.* 24'),
    (dict(mean=np.zeros(5)), r'mean must have shape \(6,\), got \(5,\)'),
    (dict(mean=np.full(6, np.inf)), 'mean must be finite'),
    (dict(mean=None), 'mean must be given'),
    (dict(std=None), 'std must be given'),
    (dict(std=np.zeros((6, 1))), r'std must have shape \(6,\), got \(6, 1\)'),
    (dict(std=np.full(6, -1.)), 'std must be >= 0, got -1'),
    (dict(std_ridge=0.), 'std_ridge must be finite and > 0, got 0'),
    (dict(std_ridge=np.nan), 'std_ridge must be finite and > 0, got nan'),
    (dict(num_ranked=0), r'num_ranked must be an integer in 1\.\.4, got 0'),
    (dict(num_ranked=5), r'num_ranked must be an integer in 1\.\.4, got 5'),
    (dict(num_ranked=1.5), r'num_ranked must be an integer in 1\.\.4, got 1.5'),
    (dict(dtype='float16'), 'dtype must be float32'),
    (dict(selection='val_nll', labels=None), 'labels must be given'),
    (dict(selection='val_nll', labels=np.zeros((6, 1))), 'labels must have'),
    (dict(selection='val_nll', noise_std=None), 'noise_std must be given'),
    (dict(selection='val_nll', noise_std=0.), 'noise_std must be > 0, got 0'),
    (dict(selection='val_nll', noise_std=np.nan), 'noise_std must be finite'),
    (dict(selection='val_nll', noise_std=[.1, .2]), 'noise_std must be a sca'),
])
def test_rank_samples_errors(changes, message):
  with pytest.raises(ValueError, match=message):
    ranking.rank_samples(**ranking_kwargs(**changes))
