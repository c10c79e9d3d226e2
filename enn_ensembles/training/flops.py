"""Floating-point operations of training and predicting, counted from programs.

Nothing is compiled or run: the program is traced and its matrix products and
convolutions are added up. Agents that train otherwise count for themselves.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
from typing import Any
from typing import NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import networks


class Workload(NamedTuple):
  """The problems of one seed, as an agent's `count_operations` sees them.

  Attributes:
    prior: what the agent is told; its noise level means nothing.
    num_points: size of each set of points where the sampler is asked.
    num_levels: E, problems that differ in their noise level only.
    num_draws: J, draws of a sampler at each set of points.
    enumerate_indices: whether finitely many members take the place of draws.
  """
  prior: base.PriorKnowledge
  num_points: tuple[int, ...]
  num_levels: int
  num_draws: int
  enumerate_indices: bool


def step_flops(agent: Any, prior: base.PriorKnowledge,
               dtype: Any = jnp.float32) -> float:
  """Operations of a training step of one problem.

  Args:
    agent: a `NetworkAgent`.
    prior: what it is told of the problem.
    dtype: of training.
  """
  network, loss = agent.make_network(prior), agent.make_loss(prior)
  classes = isinstance(prior.likelihood, base.Categorical)

  def step(params, state, context, batch, key):
    return jax.value_and_grad(lambda p: loss.evaluate(
        network, p, state, context, batch, key)[0])(params)

  def start(data, key):
    params, state = network.init(key, data.x[:1], network.indexer(key))
    return params, state, loss.prepare(network, params, state, data, key)

  def shapes(num: int) -> tuple[Any, Any]:
    y = (jax.ShapeDtypeStruct((num,), jnp.int32) if classes else
         jax.ShapeDtypeStruct((num, prior.num_outputs), dtype))
    return jax.ShapeDtypeStruct((num, *prior.input_shape), dtype), y

  key = jax.eval_shape(lambda: jax.random.key(0))
  started = jax.eval_shape(start, base.Data(*shapes(prior.num_train)), key)
  # An epoch of few points is one smaller batch.
  size = (min(agent.batch_size, prior.num_train) if agent.sampling == 'epochs'
          else agent.batch_size)
  batch = base.Batch(*shapes(size), jax.ShapeDtypeStruct((size,), jnp.int32))
  return count_flops(jax.make_jaxpr(step)(*started, batch, key).jaxpr)


# Indices in the program that is traced; a draw takes as much in any number.
_NUM_INDICES = 10


def draw_flops(network: base.EpistemicNetwork, prior: base.PriorKnowledge,
               num_points: int, dtype: Any = jnp.float32) -> float:
  """Operations of predictions of one draw of the index, as evaluated.

  Args:
    network: the network.
    prior: what the agent was told of the problem.
    num_points: where predictions are made.
    dtype: of training.
  """
  def start(x, key):
    index = network.indexer(key)
    params, state = network.init(key, x[:1], index)
    indices = jax.vmap(network.indexer)(
        networks.fold_in_many(key, _NUM_INDICES))
    return params, state, indices, base.get_shared(network, params, state, x)

  def forward(params, state, x, indices, shared):
    out, _ = base.apply_indices(network, params, state, x, indices, shared)
    return base.get_predictions(out)

  x = jax.ShapeDtypeStruct((num_points, *prior.input_shape), dtype)
  key = jax.eval_shape(lambda: jax.random.key(0))
  params, state, indices, shared = jax.eval_shape(start, x, key)
  traced = jax.make_jaxpr(forward)(params, state, x, indices, shared)
  return count_flops(traced.jaxpr) / _NUM_INDICES


def count_flops(jaxpr: Any) -> float:
  """Operations of products and convolutions in a jaxpr, 2 per multiply-add.

  A scan counts as often as it runs, a while loop once, a branch as the longest
  of its kind. As in what XLA makes of it, what does not reach an output is left
  out, and what is the same in every round of a scan counts once.
  """
  return float(sum(flops for _, flops in _equation_flops(jaxpr)))


def _equation_flops(jaxpr: Any) -> list[tuple[Any, float]]:
  """(equation, operations) of what reaches an output, in order."""
  found, live = [], _variables(jaxpr.outvars)
  for equation in reversed(jaxpr.eqns):
    if not live.intersection(equation.outvars):
      continue
    live |= _variables(equation.invars)
    name, params = equation.primitive.name, equation.params
    if name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      left = equation.invars[0].aval.shape
      depth = np.prod([left[axis] for axis in contracted])
      flops = 2. * depth * np.prod(equation.outvars[0].aval.shape)
    elif name == 'conv_general_dilated':
      numbers, window = params['dimension_numbers'], equation.invars[
          1].aval.shape
      depth = np.prod(window) / window[numbers.rhs_spec[0]]
      flops = 2. * depth * np.prod(equation.outvars[0].aval.shape)
    elif name == 'scan':
      flops = _scan_flops(params)
    else:
      inner = [count_flops(j) for j in inner_programs(params)]
      flops = (max if name == 'cond' else sum)(inner)
    found.append((equation, flops))
  return found[::-1]


def inner_programs(params: Mapping[str, Any]) -> list[Any]:
  """The programs that an equation calls, branches of a condition among them.

  `jax.extend.core.jaxprs_in_params` does the same, but not in jax 0.6 to 0.8.
  """
  values = itertools.chain.from_iterable(
      value if isinstance(value, tuple) else (value,)
      for value in params.values())
  return [getattr(value, 'jaxpr', value) for value in values
          if isinstance(value, (core.Jaxpr, core.ClosedJaxpr))]


def _scan_flops(params: Mapping[str, Any]) -> float:
  body, total = params['jaxpr'].jaxpr, 0.
  if 'num_consts' in params:
    num_consts = params['num_consts']
  else:  # jax 0.12: the trees of constants, carry and inputs, leaves None.
    num_consts = len(jax.tree.leaves(params['ft_in'][0],
                                     is_leaf=lambda leaf: leaf is None))
  varying = _variables(body.invars[num_consts:])
  for equation, flops in _equation_flops(body):
    changes = not varying.isdisjoint(_variables(equation.invars))
    if changes:
      varying |= set(equation.outvars)
    total += flops * (params['length'] if changes else 1)
  return total


def _variables(atoms: Sequence[Any]) -> set[Any]:
  return {v for v in atoms if not isinstance(v, core.Literal)}
