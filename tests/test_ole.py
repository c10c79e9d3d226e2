"""Layer ensembles, each combination alone in numpy, and all ways to share."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.signal

from enn_ensembles import base
from enn_ensembles.agents import layer_ensemble
from enn_ensembles.networks import images
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import layers
from enn_ensembles.networks import moments
from enn_ensembles.networks import prefix_plans
from enn_ensembles.networks import stack_network
from enn_ensembles.training import regression

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


# The truth: one combination, one image at a time. ------------------------

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


def forward_moments(parts, x):
  """`moments.forward_moments` as one program."""
  stacks, weights, scales = zip(*parts, strict=True)
  return jax.jit(lambda weights, x: moments.forward_moments(
      list(zip(stacks, weights, scales, strict=True)), x))(weights, x)


@pytest.fixture(scope='module', params=STACKS)
def made(request):
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


# All combinations and single ones. ----------------------------------------


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


# Sets of combinations. ----------------------------------------------------


def sets_of(combinations, rng):
  """Random subsets, a single path, repeats, the full set in another order."""
  num = len(combinations)
  for size in sorted({2, num // 4 + 1, (num + 1) // 2, num}):
    yield combinations[rng.choice(num, size, replace=False)]
  yield combinations[[num - 1]]
  yield combinations[[1, 1, 0, 1, 0]]
  yield combinations[rng.integers(num, size=num + 3)]


def flat(combinations, num_options):
  return np.ravel_multi_index(combinations.T, num_options)


@pytest.mark.parametrize('exact', [True, False])
def test_sets_of_combinations(made, exact):
  stack, weights, x, combinations, expected = made
  # Every exact set is another program: half of them.
  for indices in list(sets_of(combinations, np.random.default_rng(2)))[
    :: 1 + exact
  ]:
    plan = prefix_plans.plan_combinations(
      indices, stack.num_options, exact=exact
    )
    run = jax.jit(functools.partial(prefix_plans.forward_set, stack, x=x,
                                    plan=plan))
    check(run(weights), expected[flat(indices, stack.num_options)])


def test_traced_sets_of_combinations(made):
  stack, weights, x, combinations, expected = made
  network = stack_network.make_network(stack, None)
  params = {'layer_stack': {f'w_{i}': w for i, w in enumerate(weights)}}
  run = jax.jit(lambda indices: network.apply_indices(
      params, {}, x, indices)[0])
  rng = np.random.default_rng(3)
  num = len(combinations)
  for size in sorted({1, 3, (num + 1) // 2, num + 2}):
    indices = combinations[rng.integers(num, size=size)]
    check(run(indices), expected[flat(indices, stack.num_options)])


def test_concrete_sets_of_combinations(made):
  stack, weights, x, combinations, expected = made
  network = stack_network.make_network(stack, None)
  params = {'layer_stack': {f'w_{i}': w for i, w in enumerate(weights)}}
  for indices in (combinations[[2, 0, 2]], jnp.asarray(combinations[1:]),
                  combinations[[0]].tolist()):
    chosen = flat(np.asarray(indices), stack.num_options)
    check(predict(network, params, {}, x, indices), expected[chosen])
  check(predict(network, params, {}, x, None), expected)
  check(network.apply(params, {}, x, combinations[1])[0], expected[1])


def test_every_mode_of_a_depth_is_met(made):
  # Else the tests above test less than they say.
  del made
  modes = set()
  for stack, _ in STACKS.values():
    for exact in (True, False):
      for indices in sets_of(all_combinations(stack.num_options),
                             np.random.default_rng(2)):
        modes |= set(prefix_plans.plan_combinations(indices, stack.num_options,
                                    exact=exact).modes)
  assert modes == {'keep', 'pick', 'each', 'group'}


def count_prefixes(indices):
  return tuple(len({tuple(z[:depth]) for z in indices.tolist()})
               for depth in range(1, indices.shape[1] + 1))


def test_every_shared_beginning_is_computed_once():
  num_options = (5, 5, 5, 5)
  combinations = all_combinations(num_options)
  full = prefix_plans.plan_combinations(combinations, num_options)
  assert full.num_evaluations == (5, 25, 125, 625)
  assert prefix_plans.plan_combinations(
    combinations, num_options, exact=True
  ).num_evaluations == (5, 25, 125, 625)
  rng = np.random.default_rng(4)
  for size in (1, 2, 7, 30, 100, 313, 600):
    indices = combinations[rng.integers(len(combinations), size=size)]
    exact = prefix_plans.plan_combinations(indices, num_options, exact=True)
    assert exact.num_evaluations == count_prefixes(indices)
    # Static shapes: at most twice the combinations that such a set can have.
    found = prefix_plans.plan_combinations(indices, num_options).num_evaluations
    most = [min(size, 5 ** depth) for depth in range(1, 5)]
    assert all(f <= 2 * m for f, m in zip(found, most)), (size, found)
  assert prefix_plans.plan_combinations(
    combinations[:1], num_options
  ).num_evaluations == (1, 1, 1, 1)


def test_large_layers_run_one_by_one_without_copies():
  """More weights than are copied: the same outputs, little memory."""
  stack = layer_stack.LayerStack(
      (layers.Dense(300), layers.Dense(200), layers.Dense(2, 'none')),
      (4, 4, 4))
  rng = np.random.default_rng(5)
  weights = [rng.normal(size=shape) / 10
             for shape in stack.parameter_shapes((7,))]
  x, combinations = rng.normal(size=(2, 7)), all_combinations((4, 4, 4))
  indices = combinations[rng.choice(64, 7, replace=False)]
  plan = prefix_plans.plan_combinations(indices, (4, 4, 4))
  assert plan.modes == ('keep', 'each', 'each')
  run = jax.jit(prefix_plans.forward_set, static_argnums=0).lower(
      stack, weights, x, plan).compile()
  check(run(weights, x, plan), slow_forward(stack, weights, x, indices))
  # One option of the second layer has 200 * 301 weights; there are 7 sets.
  assert run.memory_analysis().temp_size_in_bytes < 3 * 200 * 301 * 8


def test_one_program_serves_all_sets_of_one_size():
  stack, x = STACKS['cnn']
  traces = []
  network = layer_ensemble.make_stack_network(stack, prior_scale=0.5)
  params, state = start(network, x)

  def apply_indices(*args):
    traces.append(1)
    return network.apply_indices(*args)

  predict_set = stack_network.make_predict_set(base.EpistemicNetwork(
      network.apply, network.init, network.indexer, apply_indices),
                                     stack.num_options)
  combinations, rng = (
    all_combinations(stack.num_options),
    np.random.default_rng(6),
  )
  expected = slow_forward(
    stack, stack_network.get_weights(params), x, combinations
  )
  expected += 0.5 * slow_forward(
      stack, stack_network.get_weights(state['prior_params']), x, combinations)
  for size in (1, 5, 20):
    traces.clear()
    for repeat in range(6):
      chosen = rng.integers(len(combinations), size=size)
      chosen[rng.integers(size):] = chosen[0]  # Many shared prefixes, or few.
      chosen = chosen if repeat else np.arange(size)
      check(
        predict_set(params, state, x, combinations[chosen]), expected[chosen]
      )
    assert len(traces) == 1


def test_any_time_inference_in_a_ranked_order():
  stack, x = STACKS['mlp']
  network = layer_ensemble.make_stack_network(stack, prior_scale=0.)
  params, _ = start(network, x)
  predict_set = stack_network.make_predict_set(network, stack.num_options)
  order = np.random.default_rng(7).permutation(stack.num_samples)
  support = network.indexer.support()
  whole = slow_forward(stack, stack_network.get_weights(params), x, support)
  for num in (1, 7, 24):
    found = predict_set(params, {}, x, support[order[:num]])
    check(found.mean(0), whole[order[:num]].mean(0))


@pytest.mark.parametrize('indices, message', [
    ([[0, 0]], r'must be \[J, 3\]'), ([0, 0, 0], r'must be \[J, 3\]'),
    (np.zeros((0, 3), int), 'at least one'), ([[0., 1., 0.]], 'be integers'),
    ([[0, 0, 0], [0, 2, 0]], 'asks for option 2 of layer 1, .* 0 to 1'),
    ([[-1, 0, 0]], 'asks for option -1 of layer 0')])
def test_sets_that_do_not_exist_are_refused(indices, message):
  stack, x = STACKS['mlp']
  network = layer_ensemble.make_stack_network(stack, prior_scale=0.)
  params, _ = start(network, x)
  for refuse in (
      lambda: network.apply_indices(params, {}, x, np.array(indices)),
      lambda: stack_network.make_predict_set(network, stack.num_options)(
          params, {}, x, indices),
      lambda: prefix_plans.plan_combinations(indices, stack.num_options)):
    with pytest.raises(ValueError, match=message):
      refuse()


def test_traced_sets_of_a_wrong_shape_are_refused():
  stack, x = STACKS['mlp']
  network = layer_ensemble.make_stack_network(stack, prior_scale=0.)
  params, _ = start(network, x)
  run = jax.jit(lambda z: network.apply_indices(params, {}, x, z)[0])
  with pytest.raises(ValueError, match=r'must be \[J, 3\]'):
    run(np.zeros((4, 2), int))
  with pytest.raises(ValueError, match='at least one'):
    run(np.zeros((0, 3), int))


def test_plans_are_refused_where_they_do_not_belong():
  stack, x = STACKS['mlp']
  weights = [np.zeros(shape) for shape in stack.parameter_shapes((3,))]
  with pytest.raises(ValueError, match=r'options \(2, 2, 2\), the layers'):
    prefix_plans.forward_set(
      stack, weights, x, prefix_plans.plan_combinations([[0, 0, 0]], (2, 2, 2))
    )
  exact = prefix_plans.plan_combinations([[0, 0, 0]], (3, 2, 4), exact=True)
  with pytest.raises(ValueError, match='exact plan must be a constant'):
    jax.jit(prefix_plans.forward_set, static_argnums=0)(
      stack, weights, x, exact
    )


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


# Moments. ----------------------------------------------------------------


def test_moments_are_those_of_all_outputs(made):
  stack, weights, x, _, expected = made
  mean, std = forward_moments([(stack, weights, 1.)], x)
  check(mean, expected.mean(0))
  check(std, expected.std(0))


def test_moments_with_a_prior_on_the_same_index(made):
  stack, weights, x, combinations, expected = made
  rng = np.random.default_rng(8)
  prior = [rng.normal(size=w.shape) for w in weights]
  expected = expected + 0.7 * slow_forward(stack, prior, x, combinations)
  mean, std = forward_moments([(stack, weights, 1.), (stack, prior, 0.7)], x)
  check(mean, expected.mean(0))
  check(std, expected.std(0))


@pytest.mark.parametrize('prior', [False, True])
def test_moments_with_more_options_than_features(prior):
  # in + 1 = 5 features, twice that with the prior; 40 options.
  stack, x = layer_stack.LayerStack(MLP, (2, 3, 40)), X_VECTORS
  rng = np.random.default_rng(9)
  parts = [(stack, [rng.normal(size=shape)
                    for shape in stack.parameter_shapes((3,))], scale)
           for scale in ([1., 2.] if prior else [1.])]
  expected = sum(scale * slow_forward(stack, w, x, all_combinations((2, 3, 40)))
                 for _, w, scale in parts)
  run = jax.jit(lambda x: moments.forward_moments(parts, x))
  mean, std = run(x)
  check(mean, expected.mean(0))
  check(std, expected.std(0))
  # The last layer never has 2 * 3 * 40 outputs.
  text = str(jax.make_jaxpr(run)(x))
  assert f'{2 * 3 * 40 * len(x)}' not in text


def test_moments_in_float32_next_to_a_large_mean():
  stack, x = layer_stack.LayerStack(MLP, (2, 3, 4)), X_VECTORS
  rng = np.random.default_rng(10)
  weights = [rng.normal(size=shape).astype(np.float32)
             for shape in stack.parameter_shapes((3,))]
  weights[-1][..., -1] += 1000.  # Sums of squares would lose the variance.
  expected = slow_forward(stack, weights, x.astype(np.float32),
                          all_combinations((2, 3, 4)))
  mean, std = forward_moments([(stack, weights, 1.)], x.astype(np.float32))
  assert mean.dtype == std.dtype == np.float32
  np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-6)
  np.testing.assert_allclose(std, expected.std(0), rtol=1e-3)


def test_moments_of_one_option_have_no_spread():
  stack, x = layer_stack.LayerStack(MLP, (1, 1, 1)), X_VECTORS
  rng = np.random.default_rng(11)
  weights = [rng.normal(size=shape) for shape in stack.parameter_shapes((3,))]
  mean, std = forward_moments([(stack, weights, 1.)], x)
  check(mean, slow_forward(stack, weights, x, [[0, 0, 0]])[0])
  np.testing.assert_array_equal(std, 0.)


def test_parts_of_different_options_are_refused():
  parts = [(layer_stack.LayerStack(MLP, options), [], 1.)
           for options in ((2, 2, 2), (2, 2, 3))]
  with pytest.raises(ValueError, match='parts must have the same options'):
    moments.forward_moments(parts, X_VECTORS)


def test_contrasts_are_orthonormal_and_see_no_constant():
  for num in (2, 3, 7):
    rows = moments.contrasts(num)
    assert rows.shape == (num - 1, num)
    np.testing.assert_allclose(rows @ rows.T, np.eye(num - 1), atol=1e-14)
    np.testing.assert_allclose(rows.sum(1), 0., atol=1e-14)


# Networks and their special cases. ---------------------------------------


def test_moments_of_a_network():
  for prior_scale in (0., 0.3):
    stack, x = STACKS['cnn']
    network = layer_ensemble.make_stack_network(stack, prior_scale)
    params, state = start(network, x)
    combinations = all_combinations(stack.num_options)
    expected = slow_forward(
      stack, stack_network.get_weights(params), x, combinations
    )
    if prior_scale:
      expected += prior_scale * slow_forward(
        stack, stack_network.get_weights(state['prior_params']), x, combinations
      )
    mean, std = jax.jit(layer_ensemble.make_stack_moments(
        stack, prior_scale))(params, state, x)
    check(mean, expected.mean(0))
    check(std, expected.std(0))


def test_moments_of_the_agents_network():
  config = layer_ensemble.LayerEnsembleConfig(
      num_options=(2, 1, 3), hidden_sizes=(4, 3), prior_scale=2.)
  network = layer_ensemble.make_network(config)
  params, state = start(network, X_VECTORS)
  outputs = predict(network, params, state, X_VECTORS, None)
  stack, combinations = (
    layer_ensemble.make_stack(config),
    all_combinations((2, 1, 3)),
  )
  expected = slow_forward(
    stack, stack_network.get_weights(params), X_VECTORS, combinations
  )
  expected += 2.0 * slow_forward(
    stack,
    stack_network.get_weights(state['prior_params']),
    X_VECTORS,
    combinations,
  )
  check(outputs, expected)
  mean, std = jax.jit(layer_ensemble.make_moments(config))(params, state,
                                                           X_VECTORS)
  check(mean, expected.mean(0))
  check(std, expected.std(0))


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


# Training. ---------------------------------------------------------------


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
  mean, _ = jax.jit(layer_ensemble.make_stack_moments(stack, 0.5))(
      trained, state, data.x[:6])
  np.testing.assert_allclose(mean, found.mean(0), rtol=1e-3, atol=1e-4)


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
