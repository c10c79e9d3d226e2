"""Predictions that are none are refused before they are scored."""

import jax.numpy as jnp
import numpy as np
import pytest

import enn_ensembles as ee
from enn_ensembles import base
from enn_ensembles.machine import devices
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import prediction_checks

RNG = np.random.default_rng(0)
SAMPLES = RNG.standard_normal((4, 6, 1))
ONE = np.ones((6, 1))


@pytest.mark.parametrize('predictions', [
    base.Predictions(SAMPLES), base.Predictions(SAMPLES, SAMPLES**2),
    base.Predictions(SAMPLES, weights=np.full(4, 0.25)),
    base.Predictions(np.full((1, 6, 1), np.nan)),
    base.Predictions(mean=ONE, std=0. * ONE),
    base.Predictions(mean=np.nan * ONE, std=np.nan * ONE)])
def test_what_is_allowed(predictions):
  prediction_checks.check(predictions, 6, 1)


@pytest.mark.parametrize('predictions, message', [
    (base.Predictions(), 'must have samples, or mean and std'),
    (base.Predictions(mean=ONE), 'must have samples, or mean and std'),
    (base.Predictions(SAMPLES[..., 0]), r'shape \[J, 6, 1\].*got \[4, 6\]'),
    (base.Predictions(SAMPLES[:0]), r'J >= 1, got \[0, 6, 1\]'),
    (base.Predictions(SAMPLES[:, :5]), r'got \[4, 5, 1\]'),
    (base.Predictions(mean=ONE[:, 0], std=ONE), r'mean of shape \(6, 1\)'),
    (base.Predictions(mean=ONE, std=ONE[:5]), r'std of shape \(6, 1\)'),
    (base.Predictions(mean=ONE, std=-ONE), 'std >= 0, got -1'),
    (base.Predictions(mean=ONE, std=ONE, observation_variances=ONE),
     'no observation_variances without samples'),
    (base.Predictions(SAMPLES, SAMPLES[..., 0]), 'of the shape of the samples'),
    (base.Predictions(SAMPLES, aggregation='mode'),
     "aggregation must be one of mean, .*got 'mode'"),
    (base.Predictions(SAMPLES, weights=np.ones(4)), 'a sum of 4'),
    (base.Predictions(SAMPLES, weights=np.array([2., -1., 0., 0.])),
     'a minimum of -1'),
    (base.Predictions(SAMPLES, weights=np.ones(3) / 3), 'one per draw')])
def test_what_is_not(predictions, message):
  with pytest.raises(ValueError, match=message) as caught:
    prediction_checks.check(predictions, 6, 1)
  assert '\n' not in str(caught.value)


def test_problems_refuse_it():
  problem = ee.load_problem('D2_l2_e0.1_s0')
  with pytest.raises(ValueError, match='must have samples'):
    problem.score(lambda x: base.Predictions(np.zeros((3, len(x)))))


@pytest.mark.filterwarnings('error')
def test_moments_are_float64_of_whatever_there_is():
  samples = (100. + 1e-3 * SAMPLES).astype(np.float32)
  expected = gaussian.prediction_moments(base.Predictions(samples))
  with devices.x64_mode(False):  # As in a notebook.
    found = gaussian.prediction_moments(
        base.Predictions(jnp.asarray(samples)))
    half = gaussian.prediction_moments(base.Predictions(
        mean=jnp.zeros((6, 1), jnp.bfloat16), std=ONE.astype(np.float16)))
  for ours, theirs in zip(found, expected):
    assert ours.dtype == np.float64
    np.testing.assert_array_equal(ours, theirs)
  assert [part.dtype for part in half] == [np.float64] * 2
