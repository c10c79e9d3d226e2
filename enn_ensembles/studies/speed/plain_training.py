"""Training the plain way: what one would write first, to compare with.

One problem at a time, one jitted step per Python iteration, `vmap` of the
network's `apply` over the indices, the prior function computed again in every
step. It gives the same parameters as `training.loop` from the same draws.
"""

from collections.abc import Callable
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from enn_ensembles import base
from enn_ensembles import problems as problems_lib
from enn_ensembles import sweeps
from enn_ensembles.agents import bbb
from enn_ensembles.training import flops
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent


def make_loss(network: base.EpistemicNetwork, unit: sweeps.WorkUnit,
              noise_std: float) -> Callable[..., base.Array]:
  """The loss of an agent of this package as its paper writes it.

  Written again, from the agent's settings alone: no blocks of indices, no
  structured forward, no table of targets.

  Args:
    network: the agent's network.
    unit: its name and settings, and T.
    noise_std: the problem's noise level.

  Returns:
    (params, state, x [B, D], y [B, 1], noise [B, noise_dim], key) -> scalar,
    where noise holds the standard normals of these data points' target noise.
  """
  config = unit.agent_config
  noise_scale = config.get('noise_scale', 0.)
  num_samples = config.get('num_index_samples')
  if 'samples_per_dim' in config:
    num_samples = config['samples_per_dim'] * config['index_dim']
  indexer: Any = network.indexer  # With target noise it has an embedding.
  support = base.get_support(indexer)

  def forward(params, state, x, z):
    return base.get_predictions(network.apply(params, state, x, z)[0])

  def squared_error(params, state, x, y, noise, key):
    if unit.agent == 'mc_dropout':  # A mask for each example.
      indices = losses.sample_indices(network, key, len(x))
      out = jax.vmap(lambda x, z: forward(params, state, x[None], z)[0])(
          x, indices)
      return jnp.mean((out - y)**2)
    if num_samples is None:
      indices = jnp.asarray(support)
    else:
      indices = losses.sample_indices(network, key, num_samples)
    out = jax.vmap(lambda z: forward(params, state, x, z))(indices)
    targets = y.T  # [1 or J, B]
    if noise_scale:
      embedding = indexer.noise_embedding(indices).astype(x.dtype)
      targets += noise_scale * noise_std * (embedding @ noise.T)
    return jnp.mean((out[..., 0] - targets)**2)

  def loss(params, state, x, y, noise, key):
    value = squared_error(params, state, x, y, noise, key)
    if unit.agent == 'bbb':
      divergence = bbb.weight_divergence(params, config['sigma_0'])
      return (value / (2. * noise_std**2) + config.get('kl_weight', 1.)
              * divergence / unit.family.num_train)
    if unit.agent == 'mc_dropout':
      decay = (config['weight_decay_scale']**2 * (1. - config['dropout_rate'])
               / (2. * unit.family.num_train))
      return value + decay * sum(
          jnp.sum(p**2) for p in jax.tree.leaves(params))
    return value

  return loss


def make_step(loss: Callable[..., base.Array],
              optimizer: optax.GradientTransformation
              ) -> Callable[..., tuple[base.Params, Any]]:
  """(params, opt_state, state, *batch) -> (params, opt_state), to be jitted."""
  def step(params, opt_state, state, *batch):
    grads = jax.grad(loss)(params, state, *batch)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state

  return step


class PlainTrainer:
  """Trains one problem step by step, the way one would write it first."""

  def __init__(self, agent: network_agent.NetworkAgent, unit: sweeps.WorkUnit,
               problem: problems_lib.Problem, seed: int = 0):
    """Initialises the network and compiles the step.

    Args:
      agent: the agent.
      unit: the settings that it was made from.
      problem: what to learn from.
      seed: of everything that is drawn.
    """
    dtype = jnp.dtype(unit.dtype)
    network = agent.make_network(problem.prior)
    self._x = problem.x_train.astype(dtype)
    self._y = problem.y_train.astype(dtype)
    self._batch_size = agent.batch_size
    self._rng = np.random.default_rng(seed)
    self._key, init_key, index_key = jax.random.split(
        problems_lib.agent_key(seed), 3)
    # BBB's index is as long as its weights; without noise none is drawn.
    indexer: Any = network.indexer
    noise_dim = (indexer.noise_dim
                 if unit.agent_config.get('noise_scale') else 0)
    self._noise = self._rng.standard_normal(
        (len(self._x), noise_dim)).astype(dtype)
    optimizer = agent.make_optimizer(problem.prior)
    step = make_step(
        make_loss(network, unit, problem.noise_std), optimizer)

    start = time.perf_counter()
    self._params, self._state = jax.jit(network.init)(
        init_key, self._x[:1], network.indexer(index_key))
    self._opt_state = optimizer.init(self._params)
    arguments = (self._params, self._opt_state, self._state, *self._batch())
    self.flops = flops.count_flops(jax.make_jaxpr(step)(*arguments).jaxpr)
    self._step = jax.jit(step)
    jax.block_until_ready(self._step(*arguments))
    self.compile_seconds = time.perf_counter() - start

  def _batch(self) -> tuple[base.Array, ...]:
    rows = self._rng.integers(len(self._x), size=self._batch_size)
    self._key, step_key = jax.random.split(self._key)
    return self._x[rows], self._y[rows], self._noise[rows], step_key

  def run(self, num_steps: int) -> float:
    """Takes some steps more; their wall time, s."""
    start = time.perf_counter()
    for _ in range(num_steps):
      self._params, self._opt_state = self._step(
          self._params, self._opt_state, self._state, *self._batch())
    jax.block_until_ready(self._params)
    return time.perf_counter() - start
