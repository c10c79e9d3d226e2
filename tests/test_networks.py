"""Shared parts of networks, against plain numpy loops."""

import functools

from compiled import compiled
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from enn_ensembles import base
from enn_ensembles import networks

RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 3))
SIZES = (4, 5, 2)  # Two hidden layers and two outputs.


def random_layers(copies):
  """Layers [copies, out, in + 1] of an MLP from 3 inputs to SIZES."""
  inputs = (3, *SIZES[:-1])
  return [RNG.standard_normal((k, out, size + 1))
          for k, out, size in zip(copies, SIZES, inputs)]


def numpy_mlp(layers, member, x):
  """One member's output, neuron by neuron: x [B, D] -> [B, out]."""
  h = np.asarray(x)
  for layer, w in enumerate(np.asarray(w[min(member, len(w) - 1)])
                            for w in layers):
    out = np.zeros((len(h), len(w)))
    for b in range(len(h)):
      for unit in range(len(w)):
        out[b, unit] = w[unit, -1] + sum(
            w[unit, i] * h[b, i] for i in range(h.shape[1]))
    h = np.maximum(out, 0.) if layer < len(layers) - 1 else out
  return h


@pytest.mark.parametrize('copies', [
    (3, 3, 3), (1, 3, 3), (1, 1, 3), (1, 1, 1)])
def test_bodies_side_by_side_are_each_members_mlp(copies):
  layers = random_layers(copies)
  body = networks.make_mlp([w.shape[1] for w in layers[:-1]], 2)
  run = jax.jit(functools.partial(networks.forward, body))
  out = np.asarray(run(layers, X))
  assert out.shape == (copies[-1], 7, 2)
  for member in range(copies[-1]):
    np.testing.assert_allclose(out[member], numpy_mlp(layers, member, X),
                               rtol=1e-12)


@pytest.mark.parametrize('batch', [(), (3,), (2, 3)])
def test_affine_and_its_gradients_are_the_plain_products(batch):
  w = jnp.asarray(RNG.standard_normal((*batch, 4, 6)))
  h = jnp.asarray(RNG.standard_normal((*batch, 5, 7)))
  weights = jnp.asarray(RNG.standard_normal((*batch, 4, 7)))

  def plain(w, h):
    return w[..., :-1] @ h + w[..., -1:]

  @functools.partial(jax.jit, static_argnums=0)
  def value_and_gradient(f, w, h):
    return f(w, h), jax.grad(
        lambda w, h: jnp.sum(weights * jnp.sin(f(w, h))), (0, 1))(w, h)

  (ours, ours_back), (theirs, theirs_back) = (
      value_and_gradient(f, w, h) for f in (networks.affine, plain))
  np.testing.assert_allclose(ours, theirs, rtol=1e-12)
  for a, b in zip(ours_back, theirs_back):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_parameters_are_one_draw_cut_in_order():
  specs = {'a': ((2, 3), 2.), 'b': ((4,), np.array([0., 1., 2., 3.])),
           'c': ((5,), lambda draw: draw ** 2)}
  init = hk.transform(lambda: networks.draw_parameters(specs, jnp.float64)).init
  drawn = jax.jit(init)(jax.random.PRNGKey(0))['~']
  whole = np.concatenate([np.ravel(drawn['a']) / 2., np.sqrt(drawn['c'])])
  assert [a.shape for a in drawn.values()] == [(2, 3), (4,), (5,)]
  assert len(set(np.abs(whole).round(12))) == len(whole)
  assert drawn['b'][0] == 0. and np.all(drawn['b'][1:] != 0.)


def test_initial_parameters_have_their_distribution():
  # Truncated normals; weights std 1 / sqrt(in), first bias 1, other biases 0.
  network = compiled(networks.make_member_network((50, 50, 1), num_members=40))
  params, _ = network.init(jax.random.PRNGKey(0), jnp.ones((1, 16)), 0)
  layers = list(params['stacked_mlp'].values())
  assert [w.shape for w in layers] == [(40, 50, 17), (40, 50, 51), (40, 1, 51)]
  truncated = scipy.stats.truncnorm(-2., 2.)
  for w, size in zip(layers, (16, 50, 50)):
    draws = np.sqrt(size) * np.ravel(w[..., :-1])
    assert scipy.stats.kstest(draws, truncated.cdf).pvalue > 1e-3
  assert scipy.stats.kstest(np.ravel(layers[0][..., -1]),
                            truncated.cdf).pvalue > 1e-3
  for w in layers[1:]:
    np.testing.assert_array_equal(w[..., -1], 0.)


@pytest.mark.parametrize('num_shared_layers', [0, 1, 2, 3])
def test_member_network_is_its_members(num_shared_layers):
  plain = networks.make_member_network(SIZES, 3, num_shared_layers)
  network = compiled(plain)
  x = jnp.asarray(X)
  params, state = network.init(jax.random.PRNGKey(1), x[:1], 0)
  layers = list(params['stacked_mlp'].values())
  assert [len(w) for w in layers] == (
      [1] * num_shared_layers + [3] * (3 - num_shared_layers))
  expected = np.array([numpy_mlp(layers, k, X) for k in range(3)])
  everything, _ = network.apply_indices(params, state, x, None)
  np.testing.assert_allclose(everything, expected, rtol=1e-11)
  chosen = np.array([2, 0, 2], np.int32)
  some, _ = network.apply_indices(params, state, x, chosen)
  np.testing.assert_allclose(some, expected[chosen], rtol=1e-11)
  traced, _ = jax.jit(plain.apply_indices)(params, state, x, chosen)
  np.testing.assert_allclose(traced, expected[chosen], rtol=1e-11)
  for k in range(3):
    one, _ = network.apply(params, state, x, k)
    np.testing.assert_allclose(one, expected[k], rtol=1e-11)


def test_ensemble_indexer_draws_every_member_equally():
  indexer = networks.EnsembleIndexer(5)
  np.testing.assert_array_equal(indexer.support(), range(5))
  draws = jax.vmap(indexer)(jax.random.split(jax.random.PRNGKey(0), 5000))
  assert draws.dtype == jnp.int32
  counts = np.bincount(draws, minlength=5)
  assert scipy.stats.chisquare(counts).pvalue > 1e-3
  np.testing.assert_array_equal(
      indexer.noise_embedding(np.array([3, 0])),
      [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0]])


def test_gaussian_indexer_has_its_std_and_a_unit_embedding():
  indexer = networks.GaussianIndexer(4, std=0.5)
  assert base.get_support(indexer) is None
  draws = jax.vmap(indexer)(jax.random.split(jax.random.PRNGKey(0), 5000))
  assert draws.dtype == jnp.float32
  assert scipy.stats.kstest(np.ravel(draws) / 0.5, 'norm').pvalue > 1e-3
  norms = np.sum(np.square(indexer.noise_embedding(draws)), axis=1)
  # 4 |e|^2 is chi2 of 4.
  assert scipy.stats.kstest(4. * norms, scipy.stats.chi2(4).cdf).pvalue > 1e-3


def test_prng_indexer_is_the_key():
  key = jax.random.PRNGKey(3)
  np.testing.assert_array_equal(networks.PrngIndexer()(key), key)


@pytest.fixture(name='pair', scope='module')
def make_pair():
  members = lambda: networks.make_member_network(SIZES, 3)
  return (compiled(networks.with_additive_prior(members(), members(), 2.5)),
          members())


def test_prior_is_added_with_its_scale(pair):
  network, plain = pair
  x = jnp.asarray(X)
  params, state = network.init(jax.random.PRNGKey(0), x[:1], 0)
  trained = list(params['stacked_mlp'].values())
  untrained = list(state['prior_params']['stacked_mlp'].values())
  assert all(not np.any(a[..., :-1] == b[..., :-1])
             for a, b in zip(trained, untrained))
  out, _ = network.apply_indices(params, state, x, None)
  for k in range(3):
    f, p = numpy_mlp(trained, k, X), numpy_mlp(untrained, k, X)
    np.testing.assert_allclose(out.train[k], f, rtol=1e-11)
    np.testing.assert_allclose(out.prior[k], 2.5 * p, rtol=1e-11)
    np.testing.assert_allclose(out.preds[k], f + 2.5 * p, rtol=1e-9)
    one, _ = network.apply(params, state, x, k)
    np.testing.assert_allclose(one.preds, out.preds[k], rtol=1e-12)
  # What is trained has the shapes of the network without a prior.
  alone, _ = jax.eval_shape(plain.init, jax.random.PRNGKey(0), x[:1], 0)
  assert (jax.tree.map(jnp.shape, alone) == jax.tree.map(jnp.shape, params))


def test_no_gradient_reaches_the_prior(pair):
  network, _ = pair
  x = jnp.asarray(X)
  params, state = network.init(jax.random.PRNGKey(0), x[:1], 0)

  def total(state):
    out, _ = network.apply(params, state, x, 1)
    return jnp.sum(base.get_predictions(out))

  gradients = jax.tree.leaves(jax.jit(jax.grad(total))(state))
  assert gradients and all(np.all(g == 0.) for g in gradients)


def test_without_a_scale_there_is_no_prior(pair):
  _, plain = pair
  assert networks.with_additive_prior(plain, None, 0.) is plain
