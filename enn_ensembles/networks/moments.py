"""Mean and std over all combinations of a layer ensemble, exactly.

The last layer is linear, so its options need not be enumerated.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import products


def forward_features(stack: layer_stack.LayerStack,
                     weights: layer_stack.Weights,
                     x: base.Array) -> base.Array:
  """What the last layer reads, [features, K_1 ... K_(L-1) B]: its columns are
  ordered as in `forward_all` before its transposition."""
  h, segments = stack.start(x)
  groups = layer_stack.group_weights(segments, weights)
  for segment, w in zip(segments[:-1], groups[:-1], strict=True):
    h = segment.apply_all(w, h)
  return h


def contrasts(num: int) -> np.ndarray:
  """Orthonormal rows that are orthogonal to the constant, [num - 1, num]."""
  rows = np.tril(np.ones((num, num)), -1)[1:]
  np.fill_diagonal(rows[:, 1:], -np.arange(1., num))
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def forward_moments(
    parts: Sequence[tuple[layer_stack.LayerStack, layer_stack.Weights, Any]],
    x: base.Array) -> tuple[base.Array, base.Array]:
  """Mean and std over all combinations, without the last layer's options.

  Given the features h_p of a prefix p through the other layers, the output is
  W_k h_p, and by the law of total variance over k and p

    mean = Wbar mean_p(h_p),
    var  = var_p(Wbar h_p) + mean_p |A h_p|^2,

  where Wbar is the mean of the options' weights and A^T A their covariance. A
  has min(K - 1, features) rows per output: orthonormal contrasts of the
  weights, or the triangular factor of those where there are more options than
  features. Nothing is a difference of large squares: float32 will do.

  Args:
    parts: (stack, weights, scale); the ensemble is the sum of the parts times
      their scales, all on the same index: a trained part and its prior. Their
      numbers of options and outputs are the same.
    x: inputs, [B, D] or [B, height, width, channels].

  Returns:
    Mean [B, out] and std [B, out] (ddof 0) of the K_1 ... K_L outputs.

  Raises:
    ValueError: the parts have different options.
  """
  stacks, part_weights, scales = zip(*parts)
  for stack in stacks:
    if stack.num_options != stacks[0].num_options:
      raise ValueError('parts must have the same options, got '
                       f'{stacks[0].num_options} and {stack.num_options}.')
  num_options = stacks[0].num_options[-1]
  # Side by side: [out, K, sum of features + 1].
  w = jnp.concatenate([scale * weights[-1] for weights, scale in zip(
      part_weights, scales)], axis=-1)
  rows = [jnp.mean(w, axis=1, keepdims=True)]
  if num_options > 1:
    spread = jnp.asarray(contrasts(num_options) / num_options ** 0.5, w.dtype)
    factor = jnp.einsum('ck,oki->oci', spread, w,
                        precision=jax.lax.Precision.HIGHEST)
    if factor.shape[1] > factor.shape[2]:
      factor = jnp.linalg.qr(factor, mode='r')
    rows.append(factor)
  rows = jnp.concatenate(rows, axis=1)
  out, num_rows, _ = rows.shape
  ends = np.cumsum([weights[-1].shape[-1] for weights in part_weights])
  values = jnp.zeros((), w.dtype)
  for stack, weights, columns in zip(
      stacks, part_weights, jnp.split(rows, ends[:-1], axis=-1)):
    features = forward_features(stack, weights, x)
    values += products.affine(columns.reshape(out * num_rows, -1), features)
  values = values.reshape(out, num_rows, -1, len(x))  # [.., prefixes, B]
  means = values[:, 0]
  variance = jnp.var(means, axis=1) + jnp.mean(
      jnp.sum(jnp.square(values[:, 1:]), axis=1), axis=1)
  return jnp.mean(means, axis=1).T, jnp.sqrt(variance).T
