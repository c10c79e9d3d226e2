"""Floating-point operations of a training step, counted from its program.

Nothing is compiled or run: the step is traced and its matrix products and
convolutions are added up.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base


def step_flops(agent: Any, prior: base.PriorKnowledge,
               dtype: Any = jnp.float32) -> float:
  """Operations of a training step of one problem, as trained.

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
  batch = base.Batch(*shapes(agent.batch_size),
                     jax.ShapeDtypeStruct((agent.batch_size,), jnp.int32))
  return count_flops(jax.make_jaxpr(step)(*started, batch, key).jaxpr)


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
      inner = [count_flops(j) for j in core.jaxprs_in_params(params)]
      flops = (max if name == 'cond' else sum)(inner)
    found.append((equation, flops))
  return found[::-1]


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
