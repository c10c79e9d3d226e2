"""Bodies: their parameter counts, their layers against numpy, their members."""

import functools
import types

from compiled import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.networks import bodies
from enn_ensembles.networks import convolutions
from enn_ensembles.networks import images
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import layers
from enn_ensembles.networks import norms
from enn_ensembles.networks import products
from enn_ensembles.networks import stack_network

KEY = jax.random.PRNGKey(0)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 8, 8, 2))

CIFAR = (32, 32, 3)
TINY_RESNET = networks.make_resnet((1, 1), (4, 6), 5, norm='group')
BODIES = {
    'mlp': networks.make_mlp((6, 4), 5, first_bias_std=1.),
    'small_cnn': networks.make_body('small_cnn', (8, 8, 2), 5),
    'resnet': TINY_RESNET,
}


# Sizes. ------------------------------------------------------------------


def count_parameters(body, input_shape):
  return sum(shape.out * shape.columns
             for shape in body.weight_shapes(input_shape))


@pytest.mark.parametrize('name, input_shape, settings, count', [
    # By hand: 784 * 64 + 64 + 64 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10.
    ('mlp', (28, 28, 1), {'hidden_sizes': (64, 32, 16)}, 53018),
    ('small_cnn', CIFAR, {}, 15722),
    ('medium_cnn', CIFAR, {}, 245290),
    # The counts that public PyTorch implementations of both state, with
    # projections: shared by batch norm and group norm.
    ('resnet20', CIFAR, {'norm': 'batch'}, 272474),
    ('resnet18', CIFAR, {'norm': 'batch'}, 11173962),
    ('resnet18', CIFAR, {'norm': 'group'}, 11173962)])
def test_bodies_have_their_parameter_counts(name, input_shape, settings,
                                            count):
  body = networks.make_body(name, input_shape, 10, **settings)
  assert count_parameters(body, input_shape) == count


@pytest.mark.parametrize('name', ['small_cnn', 'medium_cnn', 'resnet20'])
def test_initialised_parameters_are_as_many_as_counted(name):
  body = networks.make_body(name, (8, 8, 1), 3)
  network = networks.make_member_network(body, 2)
  params, _ = jax.eval_shape(
      lambda key: network.init(key, jnp.zeros((1, 8, 8, 1)), 0), KEY)
  assert sum(p.size for p in jax.tree.leaves(params)) == (
      2 * count_parameters(body, (8, 8, 1)))


class _NegativeDense(layers.Dense):
  """A layer whose product is not that of its base class."""

  def product(self, w, h, shape):
    return -super().product(w, h, shape)


@pytest.mark.parametrize('body, is_mlp', [
    (networks.make_body('mlp', CIFAR, 3, hidden_sizes=(4,)), True),
    (networks.make_body('mlp_dropout', CIFAR, 3, hidden_sizes=(4,)), True),
    (networks.Body('mine', (layers.Dense(4, 'tanh'), layers.Dense(3))), True),
    (networks.make_body('small_cnn', CIFAR, 3), False),
    (networks.Body('mlp', (layers.Dense(4), norms.Norm('group'))), False),
    (networks.Body('mlp', (layers.Residual((layers.Dense(4),)),)), False),
    (networks.Body('mlp', (_NegativeDense(4),)), False)])
def test_an_mlp_is_known_by_its_layers(body, is_mlp):
  assert body.is_mlp == is_mlp


@pytest.mark.parametrize('input_shape', [(8, 8, 1), (28, 28, 1), CIFAR])
@pytest.mark.parametrize('name', sorted(networks.BODIES))
def test_every_body_takes_every_usual_image(name, input_shape):
  settings = {'hidden_sizes': (4,)} if name.startswith('mlp') else {}
  body = networks.make_body(name, input_shape, 7, **settings)
  assert body.output_shape(input_shape) == (7,)


@pytest.mark.parametrize(
  'make, message',
  [
    (
      lambda: networks.make_body('lenet', CIFAR, 10),
      "body must be one of 'mlp', .* got 'lenet'",
    ),
    (
      lambda: networks.make_body('small_cnn', CIFAR, 10, norm='group'),
      "body 'small_cnn' has no setting 'norm'; allowed are none",
    ),
    (
      lambda: networks.make_body('resnet20', CIFAR, 10, norm='layer'),
      "norm must be one of .* got 'layer'",
    ),
    (
      lambda: networks.make_body('small_cnn', (5, 5, 1), 10),
      r"'small_cnn' does not fit inputs of shape \(5, 5, 1\): MaxPool",
    ),
    (
      lambda: networks.make_body('resnet18', (30,), 10),
      r"'resnet18' does not fit inputs of shape \(30,\): Conv2D.* needs images",
    ),
    (
      lambda: networks.choose_body(
        types.SimpleNamespace(body=TINY_RESNET), CIFAR, 10
      ),
      r"'resnet' has outputs of shape \(5,\), the problem needs 10",
    ),
    (
      lambda: networks.make_member_network(TINY_RESNET, 2, 5),
      "num_shared_layers must be at most 4, .* 'resnet', got 5",
    ),
    (
      lambda: layers.Residual((images.Conv2D(3),)).output_shape((8, 8, 2)),
      r'adds examples of shape \(8, 8, 3\) to \(8, 8, 2\)',
    ),
  ],
)
def test_bodies_that_do_not_fit_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


# Layers against numpy. ---------------------------------------------------


@pytest.mark.parametrize('window, strides, padding', [
    ((3, 3), (1, 1), 'SAME'), ((3, 2), (2, 1), 'SAME'),
    ((2, 3), (1, 2), 'VALID'), ((1, 1), (2, 2), 'SAME'),
    ((5, 5), (3, 3), 'VALID')])
@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('block_numbers', [1, 600, 2**17])
def test_both_convolutions_agree(monkeypatch, window, strides, padding,
                                 with_bias, block_numbers):
  # Three members; weights, images, or both of their own; values and gradients.
  # One row of the image at a time, some, or all.
  monkeypatch.setattr(convolutions, '_BLOCK_NUMBERS', block_numbers)
  columns = window[0] * window[1] * 2 + with_bias
  w = jnp.asarray(RNG.normal(size=(3, 4, columns)))
  h = jnp.asarray(RNG.normal(size=(3, 2, 7, 6, 5)))

  def value(implementation, w, h):
    out = products.over_members(
        lambda w, h: implementation(w, h, window, strides, padding, with_bias),
        w, h, rank=3)
    return jnp.sum(jnp.sin(out)), out

  @jax.jit
  def both(w, h):
    return [[
        jax.value_and_grad(functools.partial(value, implementation), (0, 1),
                           has_aux=True)(w_here, h_here)
        for w_here, h_here in ((w[0], h[0]), (w, h[0]), (w[0], h), (w, h))]
            for implementation in (convolutions.convolve_by_product,
                                   convolutions.convolve_by_xla)]

  for a, b in zip(*map(jax.tree.leaves, both(w, h)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


def test_a_cpu_convolves_by_products(monkeypatch):
  w, h = jnp.ones((1, 10)), jnp.ones((1, 4, 4, 2))
  program = lambda: str(jax.make_jaxpr(lambda w, h: convolutions.convolve(
      w, h, (3, 3), (1, 1), 'SAME', True))(w, h))
  assert 'conv_general_dilated' not in program()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert 'conv_general_dilated' in program()


@pytest.mark.parametrize('pool, reduce', [
    (images.MaxPool, np.max), (images.AveragePool, np.mean)])
@pytest.mark.parametrize('window, strides', [(2, None), ((3, 2), 1), (3, 2),
                                             ((2, 3), None)])
def test_pools(pool, reduce, window, strides):
  layer = pool(window, strides)
  (height, width), (down, right) = layer._sizes()
  shape = layer.output_shape((8, 7, 2))
  h = RNG.normal(size=(4, 2, 8, 7, 3))  # Four members, three examples.
  expected = np.zeros((4, 2, *shape[:2], 3))
  for i in range(shape[0]):
    for j in range(shape[1]):
      expected[:, :, i, j] = reduce(
          h[:, :, i * down:i * down + height, j * right:j * right + width],
          axis=(2, 3))
  for members, found in ((h, expected), (h[0], expected[0])):
    np.testing.assert_allclose(
        jax.jit(lambda h: layer.apply([], h, (8, 7, 2), layers.INFERENCE))(
            members), found, rtol=1e-12)


def test_flatten_and_global_average_read_images_as_numpy_does():
  h = layers.first_layout(jnp.asarray(IMAGES))
  flat = images.Flatten().apply([], h, (8, 8, 2), layers.INFERENCE)
  np.testing.assert_array_equal(flat.T, IMAGES.reshape(3, -1))
  mean = images.GlobalAveragePool().apply([], h, (8, 8, 2), layers.INFERENCE)
  np.testing.assert_allclose(mean.T, IMAGES.mean((1, 2)), rtol=1e-12)


def test_group_norm_normalises_every_example_over_its_groups():
  layer = norms.Norm('group', num_groups=2)
  w = RNG.normal(size=(6, 2))
  x = RNG.normal(size=(3, 4, 5, 6))
  found = np.asarray(jax.jit(lambda w, x: layer.apply(
      [w], layers.first_layout(x), (4, 5, 6), layers.INFERENCE))(w, x))
  for example, image in enumerate(x):
    for group in (slice(0, 3), slice(3, 6)):
      part = image[..., group]
      part = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
      part = part * w[group, 0] + w[group, 1]
      np.testing.assert_allclose(found[group, ..., example],
                                 np.moveaxis(part, -1, 0), rtol=1e-10)


def test_batch_norm_uses_the_batch_in_training_and_learns_its_statistics():
  body = networks.Body('normed', (
      norms.Norm('batch'), images.Flatten(), layers.Dense(2, 'none')))
  network = compiled(networks.make_member_network(body, 2))
  x = 3. + 2. * RNG.normal(size=(50, 2, 2, 3))
  params, state = network.init(KEY, x[:1], 0)
  (start,) = state['statistics']
  np.testing.assert_array_equal(start, np.tile([[[0.], [1.]]], (2, 1, 3)))
  out, trained = network.apply_train(params, state, x, None, KEY)
  mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
  (statistics,) = trained['statistics']
  for member in range(2):
    np.testing.assert_allclose(statistics[member, 0], 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(statistics[member, 1], 0.9 + 0.1 * variance,
                               rtol=1e-6)
    w = np.asarray(params['stacked_normed']['w_1'][member])
    for normed, found in (
        ((x - mean) / np.sqrt(variance + 1e-5), out[member]),
        ((x - 0.1 * mean) / np.sqrt(0.9 + 0.1 * variance + 1e-5),
         network.apply(params, trained, x, member)[0])):
      np.testing.assert_allclose(
          found, normed.reshape(50, -1) @ w[:, :-1].T + w[:, -1], rtol=1e-5,
          atol=1e-6)
  # Training some members leaves the statistics of the others.
  _, some = network.apply_train(params, state, x, np.array([1]), KEY)
  np.testing.assert_array_equal(some['statistics'][0][0], start[0])
  np.testing.assert_allclose(some['statistics'][0][1], statistics[1])


def test_residual_block_adds_its_shortcut():
  block = layers.Residual(
      (images.Conv2D(3, 1, activation='none'),),
      (images.Conv2D(3, 1, activation='none', with_bias=False),))
  main, side = RNG.normal(size=(3, 3)), RNG.normal(size=(3, 2))
  found = jax.jit(lambda main, side, x: block.apply(
      [main, side], layers.first_layout(x), (8, 8, 2), layers.INFERENCE))(
          main, side, IMAGES)
  expected = np.maximum(
      IMAGES @ (main[:, :2] + side).T + main[:, 2], 0.)
  np.testing.assert_allclose(found, expected.transpose(3, 1, 2, 0), rtol=1e-12,
                             atol=1e-12)


# Members. ----------------------------------------------------------------


@pytest.mark.parametrize('name', BODIES)
@pytest.mark.parametrize('num_shared_layers', [0, 2])
def test_members_are_each_alone(name, num_shared_layers):
  body = BODIES[name]
  network = compiled(networks.make_member_network(body, 3, num_shared_layers))
  forward = jax.jit(functools.partial(networks.forward, body))
  params, state = network.init(KEY, IMAGES[:1], 0)
  assert state == {} and network.apply_train is None
  weights = networks.get_weights(params)
  assert [len(w) for w in weights] == [
      1 if layer < num_shared_layers else 3
      for layer in body.weight_layers((8, 8, 2))]
  everything, _ = network.apply_indices(params, state, IMAGES, None)
  assert everything.shape == (3, 3, 5)
  for member in range(3):
    alone = [np.asarray(w)[min(member, len(w) - 1)][None] for w in weights]
    expected = forward(alone, IMAGES)[0]
    np.testing.assert_allclose(everything[member], expected, rtol=1e-9,
                               atol=1e-12)
    # One example at a time.
    np.testing.assert_allclose(
        everything[member, 1:2], forward(alone, IMAGES[1:2])[0],
        rtol=1e-9, atol=1e-12)
  assert np.all(np.std(everything, axis=0) > 0.)
  chosen = np.array([2, 0, 2])
  some, _ = network.apply_indices(params, state, IMAGES, chosen)
  np.testing.assert_allclose(some, everything[chosen], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('name', BODIES)
def test_layer_ensemble_of_a_body_is_its_combinations(name):
  body = BODIES[name]
  num_options = (2, 1, 2, 1, 2)[:body.num_weight_layers]
  stack = layer_stack.LayerStack(body.layers, num_options)
  network = compiled(stack_network.make_network(stack, None))
  forward = jax.jit(functools.partial(networks.forward, body))
  params, _ = network.init(KEY, IMAGES[:1], None)
  weights = stack_network.get_weights(params)
  indices = np.array(list(np.ndindex(*num_options)))
  layer_of = body.weight_layers((8, 8, 2))
  expected = np.array([
      forward([np.asarray(w)[:, z[layer]][None] for layer, w in zip(
          layer_of, weights)], IMAGES)[0] for z in indices])
  check = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
  check(network.apply_indices(params, {}, IMAGES, None)[0], expected)
  chosen = [3, 0, 3]
  check(network.apply_indices(params, {}, IMAGES, indices[chosen])[0],
        expected[chosen])
  traced = jax.jit(network.apply_indices)(params, {}, IMAGES, indices[chosen])
  check(traced[0], expected[chosen])
  check(network.apply(params, {}, IMAGES, indices[1])[0], expected[1])


def test_layer_ensemble_refuses_batch_norm_in_one_line():
  body = networks.make_resnet((1, 1), (4, 6), 5)
  stack = layer_stack.LayerStack(body.layers, (2, 2, 2, 2))
  with pytest.raises(ValueError, match="cannot have norm 'batch'"):
    stack_network.make_network(stack, None).init(KEY, IMAGES, None)


def test_prior_functions_have_no_statistics():
  body = networks.make_resnet((1, 1), (4, 6), 5)
  assert body.has_batch_norm and not TINY_RESNET.has_batch_norm
  assert bodies.without_statistics(body) == TINY_RESNET
  network = compiled(networks.with_body_prior(
      lambda body: networks.make_member_network(body, 2), body, 3.))
  params, state = network.init(KEY, IMAGES[:1], 0)
  out, trained = network.apply_train(params, state, IMAGES, None, KEY)
  after, _ = base.apply_indices(network, params, trained, IMAGES, None)
  np.testing.assert_allclose(out.prior, after.prior, rtol=1e-9)
  assert np.all(np.abs(out.prior) > 0.)
  assert any(np.any(a != b) for a, b in zip(
      jax.tree.leaves(state['network']), jax.tree.leaves(trained['network'])))
