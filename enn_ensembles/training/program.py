"""The training program: steps `first` to `last` of one problem, compiled once.

One program trains from any step to any other, because both are arguments. What
changes from step to step is its `Progress`, which goes in and comes out, so a
training that is cut at any steps, checkpointed and taken up again by another
process gives what an uncut one gives, to the last digit. All that does not
change (data, tables of targets, minibatches, keys, the prior function) is made
again from the problem's key at the beginning of every call: that is little
beside the steps, and need not be stored.

A problem is traced once, into two parts: how a training starts and what a step
does. From them come the program, the shapes of its progress, and which arrays
of the network's state change at all. Those that do not (the prior function)
are no part of the progress: mapped over noise levels they stay one array.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any
from typing import NamedTuple

import chex
import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import optax

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.training import early_stopping
from enn_ensembles.training import minibatches
from enn_ensembles.training import network_training

# fold_in constants: each names the one use of a key derived from the agent's.
_NUM_KEYS = 7
(INDEX_KEY, INIT_KEY, PREPARE_KEY, MINIBATCH_KEY, STEP_KEY, AUGMENT_KEY,
 VALIDATION_KEY) = range(_NUM_KEYS)


class Inputs(NamedTuple):
  """One problem as the program sees it.

  Attributes:
    x: [T, ...].
    y: [T, ...].
    likelihood: leaves are scalars.
    key: the agent's key for this problem.
    validation: held-out data; None without early stopping.
  """
  x: base.Array
  y: base.Array
  likelihood: base.Likelihood
  key: chex.PRNGKey
  validation: base.Data | None = None


class Best(NamedTuple):
  """The best parameters by validation so far.

  Attributes:
    params: the parameters.
    state: the arrays of the state that change.
    score: of the validation data; infinite before the first.
    step: after how many steps.
    num_worse: scores since then.
    stopped: whether patience is over; nothing here changes any more.
  """
  params: base.Params
  state: Sequence[base.Array]
  score: base.Array
  step: base.Array
  num_worse: base.Array
  stopped: base.Array


class Progress(NamedTuple):
  """All that changes from step to step.

  Attributes:
    params: the parameters.
    state: the arrays of the network's state that steps change.
    opt_state: of the optimizer.
    losses: of every step, [num_batches]; zero where it is to come.
    best: None without early stopping.
  """
  params: base.Params
  state: Sequence[base.Array]
  opt_state: Any
  losses: base.Array
  best: Best | None


class _Start(NamedTuple):
  """What a training starts with.

  Attributes:
    progress: before the first step.
    constants: the arrays of the state that no step changes.
    operands: what `step` reads besides.
    validation_operands: what `validate` reads besides.
  """
  progress: Progress
  constants: Sequence[base.Array]
  operands: Sequence[base.Array]
  validation_operands: Sequence[base.Array]


class TracedProblem(NamedTuple):
  """The parts of the training of one problem.

  Attributes:
    start: leaves of `Inputs`, first and last step -> leaves of `_Start`.
    start_tree: their structure.
    step: operands; leaves of (params, state, opt_state), step -> the same
      leaves and the loss.
    validate: operands; leaves of (params, state) -> score; or None.
    state_tree: structure of the state.
    changes: for each of its leaves, whether steps change it.
    settings: of early stopping.
    progress: shapes of the progress.
    constants: shapes of the state's other arrays.
  """
  start: core.ClosedJaxpr
  start_tree: Any
  step: core.Jaxpr
  validate: core.Jaxpr | None
  state_tree: Any
  changes: tuple[bool, ...]
  settings: early_stopping.EarlyStopping | None
  progress: Progress
  constants: Sequence[jax.ShapeDtypeStruct]

  def merge_state(self, changing: Sequence[Any],
                  constants: Sequence[Any]) -> base.State:
    """The state from the arrays that change and those that do not."""
    changing, constants = iter(changing), iter(constants)
    return jax.tree.unflatten(self.state_tree, [
        next(changing if changes else constants) for changes in self.changes])


def _split(leaves: Sequence[Any], changes: Sequence[bool]
           ) -> tuple[list[Any], list[Any]]:
  return ([leaf for leaf, c in zip(leaves, changes, strict=True) if c],
          [leaf for leaf, c in zip(leaves, changes, strict=True) if not c])


def trace_problem(agent: network_training.NetworkTraining,
                  shapes: Inputs) -> TracedProblem:
  """Traces the training of one problem; nothing is computed.

  Args:
    agent: the agent.
    shapes: of its inputs.

  Raises:
    ValueError: the agent stops early and there are no validation data, or the
      reverse.
  """
  settings = agent.early_stopping
  if settings is not None and shapes.validation is None:
    raise ValueError('early_stopping needs validation data, got none.')
  if settings is None and shapes.validation is not None:
    raise ValueError('validation data are given to an agent without '
                     'early_stopping.')
  parts = {}  # What is found while `start` is traced.

  def start(inputs: Inputs, first: base.Array, last: base.Array) -> _Start:
    x, y, likelihood, key, validation = inputs
    keys = networks.fold_in_many(key, _NUM_KEYS)
    prior = base.PriorKnowledge(x.shape[1:], len(x), likelihood)
    network, loss = agent.make_network(prior), agent.make_loss(prior)
    optimizer = agent.make_optimizer(prior)

    index = network.indexer(keys[INDEX_KEY])
    params, state = network.init(keys[INIT_KEY], x[:1], index)
    prepare = loss.prepare
    if agent.augment is not None and loss.prepare_augmented is not None:
      prepare = loss.prepare_augmented
    context = prepare(network, params, state, base.Data(x, y),
                      keys[PREPARE_KEY])
    all_rows = minibatches.draw_rows(
        agent, len(x), keys[MINIBATCH_KEY], first, last)
    step_keys = networks.fold_in_many(keys[STEP_KEY], agent.num_batches)
    augment_keys = (
        None if agent.augment is None else
        networks.fold_in_many(keys[AUGMENT_KEY], agent.num_batches))

    def step(params, state, opt_state, i):
      rows = all_rows[i].astype(jnp.int32)
      inputs = x[rows]
      if agent.augment is not None and augment_keys is not None:
        inputs = agent.augment(augment_keys[i], inputs)
      batch = base.Batch(inputs, y[rows], rows)

      def loss_fn(params):
        return loss.evaluate(network, params, state, context, batch,
                             step_keys[i])

      (value, (new_state, _)), grads = jax.value_and_grad(
          loss_fn, has_aux=True)(params)
      updates, opt_state = optimizer.update(grads, opt_state, params)
      return (optax.apply_updates(params, updates), new_state, opt_state,
              value.astype(x.dtype))

    opt_state = optimizer.init(params)
    carry = (params, state, opt_state)
    traced, out_shapes = jax.make_jaxpr(step, return_shape=True)(
        *carry, np.int32(0))
    _check_carry(carry, out_shapes[:3])
    num_params, num_state = (len(jax.tree.leaves(t)) for t in carry[:2])
    # A step returns an array that it does not change as the variable it is.
    variables = slice(num_params, num_params + num_state)
    changes = tuple(out is not before for before, out in zip(
        traced.jaxpr.invars[variables], traced.jaxpr.outvars[variables]))
    changing, constants = _split(jax.tree.leaves(state), changes)

    best, validation_operands = None, []
    parts['validate'] = None
    if settings is not None:
      validate = jax.make_jaxpr(
          lambda params, state: early_stopping.score(
              settings, network, likelihood, params, state, validation,
              keys[VALIDATION_KEY]).astype(x.dtype))(params, state)
      parts['validate'], validation_operands = validate.jaxpr, validate.consts
      best = Best(params, changing, jnp.asarray(jnp.inf, x.dtype),
                  jnp.int32(0), jnp.int32(0), jnp.asarray(False))
    parts.update(step=traced.jaxpr, state_tree=jax.tree.structure(state),
                 changes=changes)
    losses = jnp.zeros(agent.num_batches, x.dtype)
    return _Start(Progress(params, changing, opt_state, losses, best),
                  constants, traced.consts, validation_operands)

  traced, out_shapes = jax.make_jaxpr(start, return_shape=True)(
      shapes, np.int32(0), np.int32(0))
  return TracedProblem(
      traced, jax.tree.structure(out_shapes), settings=settings,
      progress=out_shapes.progress, constants=out_shapes.constants, **parts)


def _check_carry(before: Any, after: Any) -> None:
  """ValueError unless a step keeps structures, shapes and dtypes."""
  for name, a, b in zip(('params', 'state', 'opt_state'), before, after):
    kinds = [jax.tree.map(lambda v: (v.shape, str(v.dtype)), t) for t in (a, b)]
    if kinds[0] != kinds[1]:
      raise ValueError(f'a step must keep the shapes and dtypes of {name}: it '
                       f'made {kinds[1]} out of {kinds[0]}.')


def _call(jaxpr: core.Jaxpr, operands: Sequence[base.Array],
          *arguments: Any) -> list[base.Array]:
  """Calls a traced function with what it closed over, and trees of arrays."""
  function = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, list(operands)))
  return function(*jax.tree.leaves(arguments))


def run_steps(traced: TracedProblem, inputs: Inputs, progress: Progress,
              first: base.Array, last: base.Array
              ) -> tuple[Progress, Sequence[base.Array]]:
  """Steps `first` up to `last` of one problem; pure, to be mapped and compiled.

  Args:
    traced: of `trace_problem`.
    inputs: the problem.
    progress: after `first` steps; not read where that is 0.
    first: int32 scalar.
    last: int32 scalar.

  Returns:
    The progress after `last` steps, and the arrays of the state that no step
    changes.
  """
  start = jax.tree.unflatten(
      traced.start_tree,
      core.jaxpr_as_fun(traced.start)(
          *jax.tree.leaves((inputs, first, last))))
  progress = jax.tree.map(lambda new, old: jnp.where(first == 0, new, old),
                          start.progress, progress)
  # A bool of `changes` stands for each array of the state that a step changes.
  carry_tree = jax.tree.structure(
      (progress.params, tuple(traced.changes), progress.opt_state))

  def step(i, progress):
    state = traced.merge_state(progress.state, start.constants)
    *leaves, loss = _call(traced.step, start.operands, progress.params, state,
                          progress.opt_state, i)
    params, state, opt_state = jax.tree.unflatten(carry_tree, leaves)
    return Progress(params, _split(state, traced.changes)[0], opt_state,
                    progress.losses.at[i].set(loss), progress.best)

  if traced.settings is None:
    return (jax.lax.fori_loop(first, last, step, progress), start.constants)
  every = traced.settings.every

  def validate(num_steps, progress):
    state = traced.merge_state(progress.state, start.constants)
    score, = _call(traced.validate, start.validation_operands, progress.params,
                   state)
    return progress._replace(best=_update_best(
        traced.settings, progress, score, num_steps))

  def steps_and_score(i, progress):
    end = (i + 1) * every
    progress = jax.lax.fori_loop(jnp.maximum(first, i * every),
                                 jnp.minimum(last, end), step, progress)
    return jax.lax.cond(end <= last, functools.partial(validate, end),
                        lambda progress: progress, progress)

  progress = jax.lax.fori_loop(first // every, -(-last // every),
                               steps_and_score, progress)
  return progress, start.constants


def _update_best(settings: early_stopping.EarlyStopping, progress: Progress,
                 score: base.Array, num_steps: base.Array) -> Best:
  """The best parameters after one more score."""
  best = progress.best
  assert best is not None  # It is, with early stopping.
  is_better = ~best.stopped & (score < best.score - settings.min_delta)
  num_worse = jnp.where(is_better, 0, best.num_worse + 1)
  found = Best(progress.params, progress.state, score, num_steps,
               jnp.int32(0), jnp.asarray(False))
  kept = jax.tree.map(lambda new, old: jnp.where(is_better, new, old), found,
                      best)
  return kept._replace(num_worse=num_worse,
                       stopped=best.stopped | (num_worse >= settings.patience))


def make_train_seeds(traced: TracedProblem) -> Callable[..., Any]:
  """`run_steps` mapped over seeds and the noise levels of each, to be compiled.

  x and the key are not mapped over the noise levels: what depends on them alone
  is computed once per seed.

  Returns:
    (inputs, progress, first, last) -> (progress, constants), where x and key
    are [S, ...], y [S, E, ...], the likelihood's leaves [E], those of the
    validation data like x and y, and all other arrays [S, E, ...].
  """
  def axes(x, y, likelihood, key):
    data = None if traced.settings is None else base.Data(x, y)
    return Inputs(x, y, likelihood, key, data)

  def train_seeds(inputs, progress, first, last):
    over_levels = jax.vmap(functools.partial(run_steps, traced),
                           in_axes=(axes(None, 0, 0, None), 0, None, None))
    over_seeds = jax.vmap(over_levels,
                          in_axes=(axes(0, 0, None, 0), 0, None, None))
    return over_seeds(inputs, progress, first, last)

  return train_seeds


def traced_bytes(traced: TracedProblem) -> float:
  """An upper estimate of the memory of training one problem, in bytes.

  The sum of its data and of every intermediate array, as if none were freed
  within a step.
  """
  jaxprs = [traced.start.jaxpr, traced.step, traced.validate]
  progress = sum(np.prod(leaf.shape) * leaf.dtype.itemsize
                 for leaf in jax.tree.leaves(traced.progress))
  inputs = sum(_num_bytes(aval) for aval in traced.start.in_avals)
  return inputs + progress + sum(
      _sum_bytes(j) for j in jaxprs if j is not None)


def _num_bytes(aval: Any) -> float:
  """Of an array; keys have no itemsize in every version of jax, but are small.
  """
  return np.prod(aval.shape) * getattr(aval.dtype, 'itemsize', 8)


def _sum_bytes(jaxpr: core.Jaxpr) -> float:
  """Bytes of all arrays made in a jaxpr, those of inner jaxprs once."""
  total = 0.
  for equation in jaxpr.eqns:
    total += sum(_num_bytes(variable.aval) for variable in equation.outvars)
    for value in jax.tree.leaves(
        equation.params, is_leaf=lambda v: hasattr(v, 'eqns')):
      inner = getattr(value, 'jaxpr', value)  # A closed jaxpr holds one.
      if hasattr(inner, 'eqns'):
        total += _sum_bytes(inner)
  return total
