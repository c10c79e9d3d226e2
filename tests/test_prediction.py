"""What trained networks say at given points."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.agents import ensemble
from enn_ensembles.scoring import gaussian
from enn_ensembles.training import forward_blocks
from enn_ensembles.training import loop
from enn_ensembles.training import prediction

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 6, 3))
KEYS = jnp.stack([jax.random.PRNGKey(seed) for seed in (5, 6)])
AGENT = ensemble.make_agent(ensemble.EnsembleConfig(
    num_ensemble=4, hidden_sizes=(5,)))
PRIOR = base.PriorKnowledge((3,), 6, base.Gaussian(0.1))


@pytest.fixture(name='trained', scope='module')
def make_trained():
  """Initial parameters of 2 seeds by 3 noise levels, all different."""
  network = AGENT.make_network(PRIOR)
  init = lambda key: network.init(key, jnp.ones((1, 3), jnp.float32), 0)
  params, state = jax.jit(jax.vmap(jax.vmap(init)))(
      jax.random.split(jax.random.PRNGKey(0), (2, 3)))
  return loop.Trained(params, state, np.zeros((2, 3)), 0,
                      jnp.dtype('float32'), 0., 0.)


@pytest.fixture(name='members', scope='module')
def predict_members(trained):
  """Every member's predictions, one apply at a time: [S, E, K, N]."""
  network = AGENT.make_network(PRIOR)
  apply = jax.jit(lambda params, state, x, z: base.get_predictions(
      network.apply(params, state, x, z)[0])[:, 0])
  return np.array([[[apply(*jax.tree.map(
      lambda a, s=s, e=e: a[s, e], (trained.params, trained.state)),
                           X[s].astype(np.float32), k) for k in range(4)]
                    for e in range(3)] for s in range(2)])


def predict_all(trained, num_draws, keys=KEYS, num_points=6):
  """Samples of every seed and noise level, [S, E, J, N]."""
  predictor = prediction.Predictor(AGENT, trained, PRIOR, keys, num_draws)
  found = np.array([[
      predictor.for_problem(s, e)(X[s, :num_points]).samples[..., 0]
      for e in range(3)] for s in range(2)])
  return found


def test_enumerated_predictions_are_those_of_all_members(trained, members):
  found = predict_all(trained, None)
  assert found.shape == (2, 3, 4, 6)
  np.testing.assert_allclose(found, members, rtol=1e-5, atol=1e-6)
  predict = prediction.Predictor(AGENT, trained, PRIOR, KEYS,
                                 None).for_problem(1, 2)
  predictions = predict(X[1])
  assert predictions.num_samples == 4
  assert predictions.mean is None and predictions.std is None
  mean, std = gaussian.prediction_moments(predictions)
  exact = members[1, 2].astype(np.float64)
  np.testing.assert_allclose(mean, exact.sum(0) / 4, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
      std, np.sqrt(((exact - exact.mean(0)) ** 2).sum(0) / 4), rtol=1e-4)
  assert mean.dtype == std.dtype == np.float64


@pytest.fixture(name='drawn', scope='module')
def draw_predictions(trained):
  # 230 is no multiple of the block of draws.
  return predict_all(trained, 230)


def find_members(drawn, members):
  """Which member each draw is: [S, E, J]."""
  distance = np.abs(drawn[:, :, :, None] - members[:, :, None]).max(-1)
  np.testing.assert_array_less(distance.min(-1), 1e-5)
  return distance.argmin(-1)


def test_drawn_indices_are_uniform_over_members(drawn, members):
  assert drawn.shape == (2, 3, 230, 6)
  found = find_members(drawn, members)
  for seed in range(2):
    counts = np.bincount(found[seed, 0], minlength=4)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
  # The draws belong to the seed: shared by its noise levels, not by seeds.
  assert np.all(found[:, :1] == found)
  assert np.mean(found[0, 0] == found[1, 0]) < 0.5


def test_draws_come_from_the_evaluation_key(trained, drawn, members):
  swapped = predict_all(trained, 230, KEYS[::-1])
  np.testing.assert_array_equal(
      find_members(swapped, members), find_members(drawn, members)[::-1])


def test_a_draw_is_the_same_function_at_other_points(trained, drawn):
  fewer = predict_all(trained, 230, num_points=2)
  np.testing.assert_allclose(fewer, drawn[..., :2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('num_draws', [None, 230])
def test_blocks_of_points_give_the_same_as_one_block(trained, num_draws,
                                                     monkeypatch):
  whole = predict_all(trained, num_draws)
  compiled = []
  compile_program = loop.compile_program
  monkeypatch.setattr(loop, 'compile_program', lambda *args: (
      compiled.append(1), compile_program(*args))[1])
  # Blocks of four points; the second is filled up.
  monkeypatch.setattr(forward_blocks, '_BLOCK_NUMBERS', 4 * 64 * 100)
  blocks = predict_all(trained, num_draws, num_points=6)
  np.testing.assert_allclose(blocks, whole, rtol=1e-5, atol=1e-6)
  assert len(compiled) == 1  # One program for all blocks, seeds and levels.
  monkeypatch.setattr(forward_blocks, '_BLOCK_NUMBERS', 1)  # Point by point.
  np.testing.assert_allclose(predict_all(trained, num_draws), whole, rtol=1e-5,
                             atol=1e-6)


@pytest.mark.parametrize('num_draws, num_members, num_points, expected', [
    (None, 4, 1000, 32),  # 128 pairs of a member and an image.
    (None, 100, 1000, 8), (None, 100, 5, 5),
    (1000, 4, 1000, 125),  # Equal blocks of at most 128.
])
def test_images_are_forwarded_in_small_blocks(num_draws, num_members,
                                              num_points, expected):
  network = base.EpistemicNetwork(None, None,
                                  networks.EnsembleIndexer(num_members))
  points = lambda *image: forward_blocks.points_per_block(
      network, (num_points, *image), num_draws)
  assert points(8, 8, 1) == expected
  assert points(64) == num_points


@pytest.mark.parametrize('num_axes, num_indices, expected', [
    (4, 20, 8), (4, 4, 32), (4, 1, 100), (2, 20, 100)])
def test_few_images_are_validated_at_once(num_axes, num_indices, expected):
  assert forward_blocks.limit_images(100, num_axes, num_indices) == expected


def test_what_is_asked_twice_is_computed_once(trained, monkeypatch):
  predictor = prediction.Predictor(AGENT, trained, PRIOR, KEYS, None)
  asked = []
  run = predictor._run
  monkeypatch.setattr(predictor, '_run',
                      lambda *args: (asked.append(args[0]), run(*args))[1])
  x, other = X[0], X[1]
  for e, _ in itertools.product(range(3), range(2)):
    predictor.for_problem(0, e)(x)
  assert asked == [0]
  predictor.for_problem(0, 0)(other)
  predictor.for_problem(1, 0)(x)  # Another network at the same points.
  assert asked == [0, 0, 1]
  assert predictor.evaluate_seconds > 0 and predictor.compile_seconds > 0
  assert predictor.num_points == (2 * len(x) + len(other)) * 3  # Levels.
  assert predictor.seconds_per_1000 == pytest.approx(
      1000 * predictor.evaluate_seconds / predictor.num_points)


def test_only_finite_indices_are_enumerated():
  draws = lambda *args: prediction.num_index_draws(
      AGENT.make_network(PRIOR), *args)
  assert draws(100, True) is None and draws(100, False) == 100
  infinite = base.EpistemicNetwork(None, None, indexer=lambda key: 0)
  assert prediction.num_index_draws(infinite, 100, True) == 100
