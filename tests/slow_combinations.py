"""Stacks of layers in numpy, each combination alone: the truth of fast ways."""

import itertools

import jax
import numpy as np
import pytest
import scipy.signal

from enn_ensembles import base
from enn_ensembles.networks import images
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import layers

KEY = jax.random.PRNGKey(0)
RNG = np.random.default_rng(0)

MLP = (layers.Dense(5, bias_std=1.), layers.Dense(4, 'tanh', bias_std=0.5),
       layers.Dense(2, 'none'))
# Two convolutions, a pool behind each and one before both, two dense layers.
CNN = (images.MaxPool((1, 2)), images.Conv2D(3, window=(3, 2), bias_std=0.5),
       images.MaxPool(2), images.Conv2D(2, strides=(1, 2), padding='VALID',
                                  activation='tanh', bias_std=0.5),
       images.MaxPool((2, 1), strides=1), images.Flatten(),
       layers.Dense(4, bias_std=1.), layers.Dense(2, 'none', bias_std=1.))
X_VECTORS = RNG.normal(size=(6, 3))
X_IMAGES = RNG.normal(size=(3, 10, 16, 2))

STACKS = {
  'mlp': (layer_stack.LayerStack(MLP, (3, 2, 4)), X_VECTORS),
  'mlp_trunk': (layer_stack.LayerStack(MLP, (1, 3, 2)), X_VECTORS),
  'one_layer': (
    layer_stack.LayerStack((layers.Dense(2, 'none', 1.0),), (4,)),
    X_VECTORS,
  ),
  'cnn': (layer_stack.LayerStack(CNN, (2, 3, 2, 3)), X_IMAGES),
  'cnn_trunk': (layer_stack.LayerStack(CNN, (1, 2, 1, 4)), X_IMAGES),
  # The network's input is an image, its layers are dense.
  'flat': (
    layer_stack.LayerStack((images.Flatten(), *MLP), (2, 2, 3)),
    X_IMAGES[:, :2, :3],
  ),
}

ACTIVATIONS = {'relu': lambda h: np.maximum(h, 0.), 'tanh': np.tanh,
               'none': lambda h: h}


def two(value):
  return value if isinstance(value, tuple) else (value, value)


def slow_conv(layer, w, image):
  """Correlation of one image, zeros around it, then every s-th value."""
  (height, width), strides = two(layer.window), two(layer.strides)
  kernel = w[:, :-1].T.reshape(height, width, image.shape[-1], layer.channels)
  if layer.padding == 'SAME':
    pads = []
    for size, window, step in zip(image.shape, (height, width), strides):
      total = max(((size - 1) // step) * step + window - size, 0)
      pads.append((total // 2, total - total // 2))
    image = np.pad(image, [*pads, (0, 0)])
  planes = [
      sum(scipy.signal.correlate(image[..., c], kernel[..., c, out], 'valid')
          for c in range(image.shape[-1])) + w[out, -1]
      for out in range(layer.channels)]
  return np.stack(planes, -1)[::strides[0], ::strides[1]]


def slow_pool(layer, image):
  (height, width) = two(layer.window)
  (down, right) = two(layer.window if layer.strides is None else layer.strides)
  rows = range(0, image.shape[0] - height + 1, down)
  columns = range(0, image.shape[1] - width + 1, right)
  return np.array([[image[i:i + height, j:j + width].max((0, 1))
                    for j in columns] for i in rows])


def slow_combination(stack, weights, example, z):
  """Output [out] of one example under one combination of options."""
  h, left = np.asarray(example, float), list(zip(weights, z))
  for layer in stack.layers:
    if isinstance(layer, layers.Dropout):
      continue  # A place, where a layer ensemble does nothing.
    if isinstance(layer, images.MaxPool):
      h = slow_pool(layer, h)
    elif isinstance(layer, images.Flatten):
      h = h.ravel()
    else:
      w, option = left.pop(0)
      w = np.asarray(w, float)[:, option]
      h = (slow_conv(layer, w, h) if isinstance(layer, images.Conv2D)
           else w[:, :-1] @ h + w[:, -1])
      h = ACTIVATIONS[layer.activation](h)
  assert not left
  return h


def slow_forward(stack, weights, x, indices):
  """[J, B, out]."""
  return np.array(
    [
      [slow_combination(stack, weights, example, z) for example in x]
      for z in indices
    ]
  )


def all_combinations(num_options):
  return np.array(list(itertools.product(*map(range, num_options))))


def start(network, x):
  """Parameters and state, by one program."""
  return jax.tree.map(np.asarray, jax.jit(lambda: network.init(KEY, x, None))())


def predict(network, params, state, x, indices):
  """By one program, in which the indices are what they are here."""
  return np.asarray(jax.jit(lambda params, state: base.get_predictions(
      network.apply_indices(params, state, x, indices)[0]))(params, state))


@pytest.fixture(name='made', scope='module', params=STACKS)
def make_all(request):
  """Stack, weights, x, all combinations and their outputs."""
  stack, x = STACKS[request.param]
  rng = np.random.default_rng(1)
  weights = [rng.normal(size=shape) / 2
             for shape in stack.parameter_shapes(x.shape[1:])]
  combinations = all_combinations(stack.num_options)
  return (
    stack,
    weights,
    x,
    combinations,
    slow_forward(stack, weights, x, combinations),
  )


def check(found, expected):
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def flat(combinations, num_options):
  return np.ravel_multi_index(combinations.T, num_options)
