"""Samplers around a trained network, against the moments they promise."""

import numpy as np
import pytest

from enn_ensembles.studies.loss_landscape import samplers

RNG = np.random.default_rng(0)


def test_random_directions_have_uniform_lengths():
  solution = RNG.standard_normal(20)
  drawn = samplers.draw_random(solution, np.full(4000, 10.),
                               np.random.default_rng(1))
  lengths = np.linalg.norm(drawn - solution, axis=1)
  assert lengths.max() < 10.
  np.testing.assert_allclose(np.quantile(lengths, [0.25, 0.5, 0.75]),
                             [2.5, 5., 7.5], atol=0.4)
  np.testing.assert_allclose(drawn.mean(axis=0), solution, atol=0.15)


def test_dropout_keeps_the_mean():
  solution = np.array([1., -2., 3.])
  drawn = samplers.draw_dropout(solution, np.full(20_000, 0.3),
                                np.random.default_rng(1))
  assert np.mean(drawn == 0.) == pytest.approx(0.3, abs=0.01)
  np.testing.assert_allclose(drawn.mean(axis=0), solution, atol=0.06)
  kept = drawn != 0.
  np.testing.assert_allclose(drawn[kept],
                             np.broadcast_to(solution / 0.7, kept.shape)[kept])
  np.testing.assert_array_equal(
      samplers.draw_dropout(solution, np.zeros(2), np.random.default_rng(1)),
      [solution, solution])


def test_diagonal_has_the_moments_of_the_snapshots():
  snapshots = RNG.standard_normal((10, 3)) * [1., 2., 0.]
  drawn = samplers.draw_diagonal(snapshots, np.full(40_000, 2.),
                                 np.random.default_rng(1))
  np.testing.assert_allclose(drawn.mean(axis=0), snapshots.mean(axis=0),
                             atol=0.05)
  np.testing.assert_allclose(drawn.std(axis=0), 2. * snapshots.std(axis=0),
                             rtol=0.02, atol=1e-12)


def test_low_rank_has_the_covariance_of_the_snapshots():
  snapshots = RNG.standard_normal((6, 2)) @ RNG.standard_normal((2, 4))
  rng = np.random.default_rng(1)
  drawn = samplers.draw_low_rank(snapshots, np.ones(100_000), 2, 'covariance',
                                 rng)
  # Two components hold all of a covariance of rank two.
  expected = np.cov(snapshots.T)
  np.testing.assert_allclose(np.cov(drawn.T), expected,
                             atol=0.03 * np.abs(expected).max())
  published = samplers.draw_low_rank(snapshots, np.full(100_000, 3.), 2,
                                     'published', rng)
  values = np.linalg.eigvalsh(np.cov(published.T))
  np.testing.assert_allclose(values, [0., 0., 9., 9.], atol=0.2)
  np.testing.assert_allclose(published.mean(axis=0), snapshots.mean(axis=0),
                             atol=0.05)


def test_low_rank_refuses_what_it_cannot_do():
  snapshots, rng = np.zeros((3, 4)), np.random.default_rng(0)
  with pytest.raises(ValueError, match='components must be from 1 to 2 for 3'):
    samplers.draw_low_rank(snapshots, np.ones(1), 3, 'covariance', rng)
  with pytest.raises(ValueError, match="pca_scale must be one of 'covariance'"):
    samplers.draw_low_rank(snapshots, np.ones(1), 2, 'unit', rng)


def test_draws_are_kept_once_they_are_accurate():
  tries = iter([[0.1, 0.9, 0.2], [0.95, 0.3], [0.25]])

  def draw(num):
    values = next(tries)
    assert len(values) == num
    return np.array(values)[:, None]

  kept, num_accurate = samplers.keep_accurate(
      draw, lambda vectors: vectors[:, 0], 3, least=0.8, max_tries=3)
  # The third never reaches 0.8: the best of its three tries stays.
  assert kept[:, 0].tolist() == [0.95, 0.9, 0.3] and num_accurate == 2
