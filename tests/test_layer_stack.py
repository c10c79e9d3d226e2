"""Stacks of layers compute all combinations and single ones, or do not fit."""

import jax
import numpy as np
import pytest
from slow_combinations import check
from slow_combinations import CNN
from slow_combinations import make_all  # noqa: F401
from slow_combinations import MLP
from slow_combinations import slow_pool
from slow_combinations import start

from enn_ensembles.networks import images
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import layers
from enn_ensembles.networks import stack_network


def test_shapes_are_what_the_layers_make_of_them(made):
  stack, weights, x, _, _ = made
  network = stack_network.make_network(stack, None)
  params, _ = start(network, x)
  assert [w.shape for w in stack_network.get_weights(params)] == [
      w.shape for w in weights]
  h = x
  for layer, shape in zip(stack.layers, stack.shapes(x.shape[1:])[1:]):
    if isinstance(layer, images.MaxPool):
      h = np.array([slow_pool(layer, image) for image in h])
      assert h.shape[1:] == shape
      break
  assert stack.shapes(x.shape[1:])[-1] == (2,)


def test_all_combinations(made):
  stack, weights, x, combinations, expected = made
  assert stack.num_samples == len(combinations)
  check(
    jax.jit(layer_stack.forward_all, static_argnums=0)(stack, weights, x),
    expected,
  )


def test_one_combination_with_a_traced_index(made):
  stack, weights, x, combinations, expected = made
  one = jax.jit(layer_stack.forward_one, static_argnums=0)
  for i in (0, len(combinations) // 2, len(combinations) - 1):
    check(one(stack, weights, x, combinations[i]), expected[i])


@pytest.mark.parametrize(
  'make, message',
  [
    (
      lambda: layer_stack.LayerStack(MLP, (2, 2)),
      'num_options must have 3 entries',
    ),
    (
      lambda: layer_stack.LayerStack(CNN, (2,) * 8),
      'num_options must have 4 entries',
    ),
    (
      lambda: layer_stack.LayerStack(MLP, (2, 0, 2)),
      'entry of num_options .* got 0',
    ),
    (lambda: layer_stack.LayerStack(MLP, 3), 'num_options must be a tuple'),
    (
      lambda: layer_stack.LayerStack(MLP[:2], (2, 2)),
      "Dense with activation 'none'",
    ),
    (lambda: layer_stack.LayerStack((), ()), "Dense with activation 'none'"),
    (lambda: layers.Dense(0), 'size must be an integer >= 1, got 0'),
    (lambda: layers.Dense(3, 'gelu'), "activation must be .* got 'gelu'"),
    (lambda: layers.Dense(3, bias_std=-1.0), 'bias_std must be'),
    (lambda: images.Conv2D(3, window=(3,)), 'window must be an integer or two'),
    (lambda: images.Conv2D(3, strides=0), 'strides must be .* got 0'),
    (lambda: images.Conv2D(3, padding='same'), "padding must be .* got 'same'"),
    (lambda: images.Conv2D(3, activation='elu'), 'activation must be'),
    (lambda: images.MaxPool((2, 2, 2)), 'window must be an integer or two'),
    (
      lambda: layer_stack.LayerStack(MLP, (1, 1, 1)).shapes((4, 4, 1)),
      r'Dense.* needs vectors, got examples of shape \(4, 4, 1\)',
    ),
    (
      lambda: layer_stack.LayerStack(CNN, (1,) * 4).shapes((4,)),
      'MaxPool.*needs images',
    ),
    (
      lambda: layer_stack.LayerStack(CNN, (1,) * 4).shapes((3, 4, 1)),
      r'Conv2D.* images of at least \(3, 3\)',
    ),
    (
      lambda: layer_stack.LayerStack(
        (images.MaxPool(9), *CNN), (1,) * 4
      ).shapes((8, 8, 1)),
      r'MaxPool.* images of at least \(9, 9\)',
    ),
  ],
)
def test_layers_that_do_not_fit_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
