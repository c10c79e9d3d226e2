"""Mean and spread over all combinations are those of all outputs."""

import jax
import numpy as np
import pytest
from slow_combinations import all_combinations
from slow_combinations import check
from slow_combinations import make_all  # noqa: F401
from slow_combinations import MLP
from slow_combinations import predict
from slow_combinations import slow_forward
from slow_combinations import start
from slow_combinations import X_VECTORS

from enn_ensembles.agents import layer_ensemble
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import moments
from enn_ensembles.networks import stack_network


def forward_moments(parts, x):
  """`moments.forward_moments` as one program."""
  stacks, weights, scales = zip(*parts, strict=True)
  return jax.jit(lambda weights, x: moments.forward_moments(
      list(zip(stacks, weights, scales, strict=True)), x))(weights, x)


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
  mean, std = forward_moments([
      (stack, stack_network.get_weights(params), 1.),
      (stack, stack_network.get_weights(state['prior_params']), 2.)], X_VECTORS)
  check(mean, expected.mean(0))
  check(std, expected.std(0))
