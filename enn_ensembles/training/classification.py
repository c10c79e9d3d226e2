"""Losses of classification: cross-entropy over indices, ELBO.

Outputs are logits. A prior function is added to the logits, as in Osband et al.
2021, "Epistemic neural networks" (arXiv 2107.08924). Labels are not smoothed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles.training import index_losses
from enn_ensembles.training import losses
from enn_ensembles.training import penalties


def cross_entropy(logits: base.Array, labels: base.Array) -> base.Array:
  """Negative log probabilities of the labels, in nats.

  Args:
    logits: [J, B, C].
    labels: int [B], in 0..C-1.

  Returns:
    [J, B].
  """
  picked = jnp.take_along_axis(logits, labels[None, :, None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - picked


def make_loss(**options: Any) -> losses.Loss:
  """Cross-entropy, averaged over data points and indices.

  Args:
    **options: num_index_samples and bootstrap, as in
      `index_losses.make_index_loss`.
  """
  return index_losses.make_index_loss(cross_entropy, **options)


def make_per_example_loss() -> losses.Loss:
  """Cross-entropy with an index of its own for every data point of a batch."""
  return losses.make_per_example_loss(cross_entropy)


def make_elbo_loss(num_train: int,
                   divergence: Callable[[base.Params], base.Array],
                   num_index_samples: int) -> losses.Loss:
  """The negative ELBO per data point, for a categorical likelihood.

  mean over indices and batch of the cross-entropy
  + divergence(params) / num_train. Blundell et al. 2015, "Weight uncertainty in
  neural networks" (arXiv 1505.05424).

  Args:
    num_train: T; the divergence is shared out among the data points.
    divergence: params -> KL(q || prior) of the weights, in nats.
    num_index_samples: indices drawn per step.
  """
  return penalties.add_penalty(make_loss(num_index_samples=num_index_samples),
                               lambda params: divergence(params) / num_train)
