"""Bayes by backprop is a Gaussian around an MLP and starts where it is told."""

from haiku_mlps import check_equal
from haiku_mlps import haiku_mlp
from haiku_mlps import HIDDEN
from haiku_mlps import random_mlp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tiny_agents import KEY

from enn_ensembles import networks
from enn_ensembles.agents import bbb


def to_bbb(layers, rho):
  """mu such that the weights are those of the layers."""
  scaled = [w[0] * ([(w.shape[2] - 1) ** 0.5] * (w.shape[2] - 1) + [1.])
            for w in layers]
  flat = np.concatenate([np.ravel(w) for w in scaled])
  return {'gaussian_weights': {'mu': flat, 'rho': np.full_like(flat, rho)}}


@pytest.mark.parametrize('index_scale', ['unit', 'enn2021'])
def test_bbb_is_a_gaussian_around_an_mlp(index_scale):
  layers = random_mlp()
  network = bbb.make_network(bbb.BbbConfig(
      sigma_0=3., index_scale=index_scale, hidden_sizes=HIDDEN), (2,))
  num_weights = sum(w.size for w in layers)
  indices = jax.vmap(network.indexer)(jax.random.split(KEY, 4))
  assert indices.shape == (4, num_weights)
  # softplus(-200) is 0 to all purposes: a plain MLP, biases included.
  check_equal(network, to_bbb(layers, -200.), {}, indices,
              [haiku_mlp(layers)] * 4)
  # One weight after another, by its own entry of the index.
  std = 3. * np.log1p(np.exp(0.7))
  if index_scale == 'enn2021':
    std /= num_weights ** 0.5
  z, start, moved = np.asarray(indices[0], np.float64), 0, []
  for w in layers:
    noise = z[start:start + w.size].reshape(w.shape) * std
    noise[..., :-1] /= (w.shape[2] - 1) ** 0.5
    moved.append(w + noise)
    start += w.size
  check_equal(network, to_bbb(layers, 0.7), {}, indices[:1],
              [haiku_mlp(moved)])


def start_bbb(input_shape, num_outputs=1, **settings):
  """Means and stds of the flat u at the start, and the weight arrays."""
  config = bbb.BbbConfig(**settings)
  network = bbb.make_network(config, input_shape, num_outputs)
  params, _ = jax.jit(lambda: network.init(
      KEY, jnp.zeros((1, *input_shape)), network.indexer(KEY)))()
  mu, rho = (np.asarray(params['gaussian_weights'][name], np.float64)
             for name in ('mu', 'rho'))
  stds = config.sigma_0 * np.log1p(np.exp(rho))
  if config.index_scale == 'enn2021':
    stds /= len(mu) ** 0.5
  shapes = networks.choose_body(config, input_shape, num_outputs).weight_shapes(
      input_shape)
  ends = np.cumsum([shape.out * shape.columns for shape in shapes])
  assert ends[-1] == len(mu)
  return [part.reshape(shape.out, -1) for shape, part in zip(
      shapes, np.split(mu, ends[:-1]))], stds, shapes


@pytest.mark.parametrize('sigma_0, index_scale', [(1., 'unit'), (30., 'unit'),
                                                  (3., 'enn2021')])
def test_bbb_may_start_at_a_random_network(sigma_0, index_scale):
  settings = {'sigma_0': sigma_0, 'index_scale': index_scale,
              'hidden_sizes': (90, 80)}
  means, stds, _ = start_bbb((40,), initial_std=0.05, **settings)
  np.testing.assert_allclose(stds, 0.05, rtol=1e-5)
  # The mean of u is sqrt(inputs) times a weight as Haiku draws it.
  drawn = scipy.stats.truncnorm(-2., 2.)
  for layer in means[:2]:
    np.testing.assert_array_equal(layer[:, -1], 0.)  # Biases.
    assert np.abs(layer).max() <= 2.
    assert scipy.stats.kstest(layer[:, :-1].ravel(), drawn.cdf).pvalue > 1e-3
  assert len(np.unique(means[0][:, :-1])) > 3500
  # Without it all means are 0, and stds are softplus(0) sigma_0 or nearly so.
  means, stds, _ = start_bbb((40,), **settings)
  assert not any(layer.any() for layer in means)
  scale = sigma_0 * (1. if index_scale == 'unit' else len(stds) ** -0.5)
  np.testing.assert_allclose(stds, np.log(2.) * scale, rtol=0.03)


def test_bbb_starts_norms_at_scale_one():
  means, stds, shapes = start_bbb((8, 8, 1), 3, body='resnet20', norm='group',
                                  initial_std=0.1)
  assert sum(shape.is_norm for shape in shapes) == 21
  for layer, shape in zip(means, shapes):
    if shape.is_norm:  # 1 + u and u.
      np.testing.assert_array_equal(layer, 0.)
    elif shape.has_bias:
      np.testing.assert_array_equal(layer[:, -1], 0.)
    if not shape.is_norm and layer.size > 1000:
      # u is multiplied by the std of the body's initial weights.
      ratio = np.std(layer) / scipy.stats.truncnorm(-2., 2.).std()
      assert ratio == pytest.approx(1., rel=0.05)
  np.testing.assert_allclose(stds, 0.1, rtol=1e-5)
