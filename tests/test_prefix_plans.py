"""Sets of combinations share what they have in common, and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow_combinations import all_combinations
from slow_combinations import check
from slow_combinations import flat
from slow_combinations import make_all  # noqa: F401
from slow_combinations import predict
from slow_combinations import slow_forward
from slow_combinations import STACKS
from slow_combinations import start

from enn_ensembles import base
from enn_ensembles.agents import layer_ensemble
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import layers
from enn_ensembles.networks import prefix_plans
from enn_ensembles.networks import stack_network


def sets_of(combinations, rng):
  """Random subsets, a single path, repeats, the full set in another order."""
  num = len(combinations)
  for size in sorted({2, num // 4 + 1, (num + 1) // 2, num}):
    yield combinations[rng.choice(num, size, replace=False)]
  yield combinations[[num - 1]]
  yield combinations[[1, 1, 0, 1, 0]]
  yield combinations[rng.integers(num, size=num + 3)]


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
