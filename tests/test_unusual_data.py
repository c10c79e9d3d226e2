"""Agents that train networks take data and knowledge as somebody has them."""

import jax
import numpy as np
import pytest

import enn_ensembles as ee
from enn_ensembles import base
from enn_ensembles.nngp import kernels
from enn_ensembles.training import loop

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 3)), RNG.standard_normal((12, 1))
AT = RNG.standard_normal((5, 3))
KNOWN = base.Gaussian(0.1)


def noise_at(x):
  return 0.1 + np.abs(x[:, :1])


def train(agent='map', x=X, y=Y, likelihood=KNOWN, key=None, **settings):
  prior = base.PriorKnowledge((3,), len(x), likelihood)
  return ee.make_agent(agent, num_batches=3, **settings)(
      base.Data(x, y), prior, ee.agent_key(0) if key is None else key)


def draw(sampler):
  return np.asarray(sampler(AT, ee.evaluation_key(0)))


def test_noise_that_is_a_function_of_x_is_unknown_to_networks():
  np.testing.assert_array_equal(draw(train(likelihood=base.Gaussian(noise_at))),
                                draw(train(likelihood=base.Gaussian(None))))
  with pytest.raises(ValueError, match='needs a problem whose noise_std is a '
                                       'known number') as caught:
    train('ensemble', likelihood=base.Gaussian(noise_at))
  assert '\n' not in str(caught.value)


def test_keys_of_both_styles_are_the_same_key():
  raw, typed = jax.random.PRNGKey(3), jax.random.key(3)
  np.testing.assert_array_equal(draw(train(key=raw)), draw(train(key=typed)))


@pytest.mark.parametrize('dtype', [np.int32, np.uint8, np.float32])
def test_numbers_may_be_whole(dtype):
  x = RNG.integers(0, 9, (12, 3))
  y = RNG.integers(0, 9, (12, 1))
  np.testing.assert_array_equal(
      draw(train(x=x.astype(dtype), y=y.astype(dtype))),
      draw(train(x=x.astype(float), y=y.astype(float))))


def test_large_whole_numbers_are_not_wrapped():
  large = np.full((1, 7, 1), 2**40)
  assert loop._take(large, np.array([0]), np.float32).min() == 2.**40


@pytest.mark.parametrize('shape', [(12,), (12, 2), (11, 1)])
def test_labels_of_another_shape_are_named_in_the_users_axes(shape):
  with pytest.raises(ValueError) as caught:
    train(y=np.zeros(shape))
  assert str(caught.value) == (
      f'y must have shape (12, 1) for x of shape (12, 3), got {shape}.')


def test_classes_have_one_axis():
  with pytest.raises(ValueError, match=r'y must have shape \(12,\) for x'):
    train(y=np.zeros((12, 1), int), likelihood=base.Categorical(3))


@pytest.mark.parametrize('agent', ['prior_only', 'exact_posterior',
                                   'random_features'])
def test_agents_of_one_kernel_have_one_output(agent):
  prior = base.PriorKnowledge((3,), 12, base.Gaussian(0.1, 2),
                              kernels.KernelConfig())
  with pytest.raises(ValueError, match='one output, got 2'):
    ee.make_agent(agent)(base.Data(X, np.zeros((12, 2))), prior,
                         ee.agent_key(0))


def test_labels_may_all_be_zero():
  problem = ee.problem_from_data(X, 0. * Y, AT, AT, 0.1)
  assert problem.ground_truth.residual == 0. and not problem.test_mean.any()
