"""An error averaged with bootstrap weights that depend on the index.

Every data point has fixed b_t, c_t ~ N(0, I), and for the index z the weight

  w_t(z) = ((b_t . z)^2 + (c_t . z)^2) / (2 dim z),

which is exponentially distributed over the data for each index and 1 on
average: a bootstrap for networks whose index is a normal vector.
"""

import chex
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles.training import losses
from enn_ensembles.training import regression


def bootstrap_weights(key: chex.PRNGKey, rows: base.Array,
                      embedding: base.Array) -> base.Array:
  """w_t(z), exponential for each index, linked between indices by z.

  b_t and c_t are drawn anew from the row's key wherever the row occurs: a table
  of them would be several times larger than most data.

  Args:
    key: of the problem.
    rows: data points t, int [B].
    embedding: indices scaled to unit mean square norm, [J, index_dim].

  Returns:
    [J, B], of mean |embedding|^2 for each index.
  """
  row_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
  shape = (2, embedding.shape[1])
  b, c = jnp.moveaxis(jax.vmap(
      lambda k: jax.random.normal(k, shape, embedding.dtype))(row_keys), 1, 0)
  return 0.5 * (jnp.square(embedding @ b.T) + jnp.square(embedding @ c.T))


def make_bootstrap_loss(
    num_index_samples: int, largest_block: int = losses.INDEX_BLOCK,
    error: losses.PointError = regression.squared_error) -> losses.Loss:
  """An error, averaged with bootstrap weights that depend on the index.

  Args:
    num_index_samples: indices drawn per step.
    largest_block: the most of them that are forwarded at once.
    error: as in `index_losses.make_index_loss`.

  Returns:
    The loss, for networks with a Gaussian index.
  """
  def prepare(network, params, state, data, key):
    del network, params, state, data
    return key  # What the weights come from.

  def evaluate(network, params, state, context, batch, key):
    indices = losses.sample_indices(network, key, num_index_samples)
    embedding = network.indexer.noise_embedding(indices).astype(batch.x.dtype)
    weights = bootstrap_weights(context, batch.data_index, embedding)
    shared = base.get_shared(network, params, state, batch.x)

    def block_loss(params_and_shared, data, block):
      (params, shared), (x, y), (indices, weights) = (
          params_and_shared, data, block)
      out, _ = base.apply_indices(network, params, state, x, indices, shared)
      errors = error(base.get_predictions(out), y)
      chex.assert_equal_shape([errors, weights])
      return jnp.mean(weights * errors)

    value = losses.mean_over_blocks(
        block_loss, (params, shared), (batch.x, batch.y),
        losses.cut_blocks((indices, weights), largest_block))
    return value, (state, {})

  return losses.Loss(prepare, evaluate)
