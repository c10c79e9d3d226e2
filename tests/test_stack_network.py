"""Networks of stacks start, have special cases and train as numpy says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from slow_combinations import all_combinations
from slow_combinations import check
from slow_combinations import CNN
from slow_combinations import flat
from slow_combinations import KEY
from slow_combinations import predict
from slow_combinations import slow_combination
from slow_combinations import slow_forward
from slow_combinations import STACKS
from slow_combinations import start
from slow_combinations import X_IMAGES

from enn_ensembles import base
from enn_ensembles.agents import layer_ensemble
from enn_ensembles.networks import images
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import layers
from enn_ensembles.networks import prefix_plans
from enn_ensembles.networks import stack_network
from enn_ensembles.training import regression


def test_initial_weights_have_the_stds_of_their_layers():
  stack = layer_stack.LayerStack(
    (
      images.Conv2D(40, window=5, bias_std=2.0),
      images.MaxPool(),
      images.Flatten(),
      layers.Dense(30, bias_std=0.5),
      layers.Dense(3, 'none'),
    ),
    (6, 4, 2),
  )
  params, _ = start(stack_network.make_network(stack, None),
                    np.zeros((1, 8, 8, 3)))
  conv, dense, last = stack_network.get_weights(params)
  assert conv.shape == (40, 6, 76) and dense.shape == (30, 4, 641)
  # A standard normal cut at two has std 0.8796.
  for found, std in ((conv[..., :-1], 75 ** -0.5), (conv[..., -1], 2.),
                     (dense[..., :-1], 640 ** -0.5), (dense[..., -1], 0.5),
                     (last[..., :-1], 30 ** -0.5)):
    np.testing.assert_allclose(np.std(found), 0.8796 * std, rtol=0.15)
  np.testing.assert_array_equal(last[..., -1], 0.)
  assert len(np.unique(
      conv[..., :-1])) == conv[..., :-1].size  # No draw is used twice.


def test_deep_ensemble_of_cnns_is_the_diagonal():
  stack = layer_stack.LayerStack(CNN, (3, 3, 3, 3))
  network = stack_network.make_network(stack, None)
  params, _ = start(network, X_IMAGES)
  diagonal = np.arange(3)[:, None].repeat(4, 1)
  single = layer_stack.LayerStack(CNN, (1, 1, 1, 1))
  members = [
    slow_combination(
      single,
      [np.asarray(w)[:, [k]] for w in stack_network.get_weights(params)],
      example,
      (0, 0, 0, 0),
    )
    for k in range(3)
    for example in X_IMAGES
  ]
  check(predict(network, params, {}, X_IMAGES, diagonal),
        np.reshape(members, (3, len(X_IMAGES), 2)))


def test_deep_sub_ensemble_of_cnns_has_one_option_in_its_trunk():
  stack = layer_stack.LayerStack(CNN, (1, 1, 3, 3))
  network = stack_network.make_network(stack, None)
  params, _ = start(network, X_IMAGES)
  weights = [np.asarray(w) for w in stack_network.get_weights(params)]
  tails = np.array([[0, 0, k, k] for k in range(3)])
  plan = prefix_plans.plan_combinations(tails, stack.num_options, exact=True)
  assert plan.num_evaluations == (1, 1, 3, 3)  # The trunk once.
  # Copies of the trunk in a deep ensemble.
  copied = [np.repeat(w, 3 // w.shape[1], axis=1) for w in weights]
  diagonal = np.arange(3)[:, None].repeat(4, 1)
  check(
    predict(network, params, {}, X_IMAGES, tails),
    slow_forward(
      layer_stack.LayerStack(CNN, (3,) * 4), copied, X_IMAGES, diagonal
    ),
  )


@pytest.mark.parametrize('name, num', [
    ('mlp', 2), ('mlp', 7), ('mlp', 50), ('cnn', 7)])
def test_gradients_on_a_traced_subset(name, num):
  """Against differences of the slow forward, in random directions."""
  stack, x = STACKS[name]
  rng = np.random.default_rng(12)
  weights = [rng.normal(size=shape) / 2
             for shape in stack.parameter_shapes(x.shape[1:])]
  combinations = all_combinations(stack.num_options)
  indices = combinations[rng.integers(len(combinations), size=num)]
  targets = rng.normal(size=(num, len(x), 2))
  network = stack_network.make_network(stack, None)

  def loss(params, indices):
    out, _ = network.apply_indices(params, {}, x, indices)
    return jnp.mean(jnp.square(out - targets))

  params = {'layer_stack': {f'w_{i}': w for i, w in enumerate(weights)}}
  gradients = stack_network.get_weights(
    jax.jit(jax.grad(loss))(params, indices)
  )
  step = 1e-5
  for layer, gradient in enumerate(gradients):
    direction = rng.normal(size=gradient.shape)
    ends = []
    for sign in (1, -1):
      moved = list(weights)
      moved[layer] = weights[layer] + sign * step * direction
      used = np.unique(flat(indices, stack.num_options))
      outputs = np.zeros((len(combinations), len(x), 2))
      outputs[used] = slow_forward(stack, moved, x, combinations[used])
      ends.append(np.mean(np.square(
          outputs[flat(indices, stack.num_options)] - targets)))
    np.testing.assert_allclose(np.sum(gradient * direction),
                               (ends[0] - ends[1]) / (2 * step), rtol=1e-5,
                               atol=1e-8)


@pytest.mark.parametrize('num_index_samples, dtype', [
    (None, np.float32), (3, np.float64)])
def test_images_are_trained_by_the_losses(num_index_samples, dtype):
  """A CNN learns which half of an image is bright."""
  rng = np.random.default_rng(13)
  side = rng.choice([-1., 1.], size=40)
  x = rng.normal(size=(40, 6, 6, 1)) * 0.1
  x[side > 0, :3] += 1.
  x[side < 0, 3:] += 1.
  data = base.Data(x.astype(dtype), side[:, None].astype(dtype))
  stack = layer_stack.LayerStack(
    (
      images.Conv2D(4),
      images.MaxPool(),
      images.Flatten(),
      layers.Dense(1, 'none'),
    ),
    (2, 3),
  )
  network = layer_ensemble.make_stack_network(stack, prior_scale=0.5)
  loss = regression.make_loss(
      0.01, num_index_samples=num_index_samples)
  params, state = start(network, data.x)
  context = jax.jit(lambda params, state: loss.prepare(
      network, params, state, data, KEY))(params, state)
  optimizer = optax.adam(3e-2)

  @jax.jit
  def train(params, opt_state, keys):
    def step(carry, key):
      params, opt_state = carry
      batch = base.Batch(data.x, data.y, np.arange(40))
      (value, _), gradient = jax.value_and_grad(
          lambda p: loss.evaluate(network, p, state, context, batch, key),
          has_aux=True)(params)
      updates, opt_state = optimizer.update(gradient, opt_state)
      return (optax.apply_updates(params, updates), opt_state), value
    return jax.lax.scan(step, (params, opt_state), keys)

  (trained, _), values = train(params, jax.jit(optimizer.init)(params),
                               jax.random.split(KEY, 60))
  assert values.dtype == dtype and values[-1] < 0.05 < values[0]
  # As numpy sees it too: every combination has learned it, prior included.
  indices = all_combinations((2, 3))
  found = slow_forward(
    stack, stack_network.get_weights(trained), x[:6], indices
  )
  found += 0.5 * slow_forward(
      stack, stack_network.get_weights(state['prior_params']), x[:6], indices)
  np.testing.assert_allclose(found[..., 0], np.tile(side[:6], (6, 1)), atol=0.7)


def test_the_prior_is_drawn_apart_from_the_network():
  stack, x = STACKS['cnn']
  network = layer_ensemble.make_stack_network(stack)
  params, state = start(network, x)
  for ours, prior in zip(stack_network.get_weights(params),
                         stack_network.get_weights(state['prior_params'])):
    assert ours.shape == prior.shape and np.all(ours != prior)
  with pytest.raises(ValueError, match='prior_scale must be'):
    layer_ensemble.make_stack_network(stack, prior_scale=-1.)
  with pytest.raises(ValueError, match='noise_by must be one of'):
    layer_ensemble.make_stack_network(stack, noise_by='layer')
