"""Which data points each step of a training sees."""

import chex
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.training import network_training


def draw_rows(agent: network_training.NetworkTraining, num_train: int,
              key: chex.PRNGKey, first: base.Array | int = 0,
              last: base.Array | int | None = None) -> base.Array:
  """The rows of the data in every step, [num_batches, batch size].

  Args:
    agent: says how many, and how they are drawn.
    num_train: T.
    key: of all steps.
    first: the first step that is asked for.
    last: the end of those; None for all. Rows of other epochs may be 0: to
      order 60,000 points takes as long as dozens of steps.
  """
  if agent.sampling == 'replacement':
    # Rows by remainder: the bias, T / 2^32, is far below any effect.
    return networks.draw_bits(
        key, [agent.num_batches, agent.batch_size]) % jnp.uint32(num_train)
  batch_size = min(agent.batch_size, num_train)
  per_epoch = num_train // batch_size
  num_epochs = -(-agent.num_batches // per_epoch)

  def order(epoch):
    return jax.random.permutation(
        jax.random.fold_in(key, epoch), num_train).astype(jnp.uint32)

  def needed(epoch):
    begin = epoch * per_epoch
    end = agent.num_batches if last is None else last
    return (begin < end) & (begin + per_epoch > first)

  orders = jax.lax.map(
      lambda epoch: jax.lax.cond(
          needed(epoch), order, lambda _: jnp.zeros(num_train, jnp.uint32),
          epoch), jnp.arange(num_epochs))
  rows = orders[:, :per_epoch * batch_size].reshape(-1, batch_size)
  return rows[:agent.num_batches]
