"""Layers that normalise: over the batch, over groups of channels, or not."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.networks import layers
from enn_ensembles.networks import parameters

NORMS = ('batch', 'group', 'none')


@dataclasses.dataclass(frozen=True)
class Norm:
  """activation(scale * normalised h + offset), scale and offset per channel.

  'batch' normalises every channel over a training batch, and by running
  statistics afterwards (Ioffe & Szegedy 2015, "Batch normalization",
  arXiv 1502.03167); each member has its own. 'group' normalises every example
  over groups of channels and needs no statistics (Wu & He 2018, "Group
  normalization", arXiv 1803.08494). 'none' is the activation alone.

  Attributes:
    kind: a name in `NORMS`.
    activation: a name in `ACTIVATIONS`.
    num_groups: of channels, with 'group'; the largest common divisor with the
      number of channels is used.
    momentum: share of the running statistics that a training step keeps.
    epsilon: added to variances.
  """
  has_options: ClassVar[bool] = False
  kind: str = 'batch'
  activation: str = 'none'
  num_groups: int = 8
  momentum: float = 0.9
  epsilon: float = 1e-5

  def __post_init__(self):
    checks.check_choice('norm', self.kind, NORMS)
    checks.check_choice('activation', self.activation, layers.ACTIVATIONS)
    checks.check_count('num_groups', self.num_groups)
    checks.check_rate('momentum', self.momentum)
    checks.check_positive('epsilon', self.epsilon)

  def output_shape(self, shape: layers.Shape) -> layers.Shape:
    return shape

  def weight_shapes(self, shape):
    return [] if self.kind == 'none' else [parameters.norm_shape(shape[-1])]

  def statistics_shapes(self, shape):
    return [shape[-1]] if self.kind == 'batch' else []

  def apply(self, weights, h, shape, run):
    if self.kind != 'none':
      rank = len(shape)
      normalise = (self._by_batch if self.kind == 'batch' else self._by_group)
      w = weights[0]
      h = (normalise(h, rank, run) * _spread(w[..., 0], rank)
           + _spread(w[..., 1], rank))
    return layers.ACTIVATIONS[self.activation](h)

  def _by_batch(self, h, rank, run):
    statistics = run.next_statistics()
    if run.is_training:
      axes = tuple(range(-rank, 0))  # All behind the channels.
      mean, variance = jnp.mean(h, axes), jnp.var(h, axes)
      found = jax.lax.stop_gradient(jnp.stack([mean, variance], axis=-2))
      run.updated.append(self.momentum * statistics
                         + (1. - self.momentum) * found)
    else:
      mean, variance = statistics[..., 0, :], statistics[..., 1, :]
      run.updated.append(statistics)
    scale = jax.lax.rsqrt(variance + self.epsilon)
    return (h - _spread(mean, rank)) * _spread(scale, rank)

  def _by_group(self, h, rank, run):
    del run
    channels = h.shape[-rank - 1]
    groups = math.gcd(self.num_groups, channels)
    grouped = h.reshape(*h.shape[:-rank - 1], groups, channels // groups,
                        *h.shape[-rank:])
    axes = tuple(range(-rank - 1, -1))
    mean = jnp.mean(grouped, axes, keepdims=True)
    variance = jnp.var(grouped, axes, keepdims=True)
    grouped = (grouped - mean) * jax.lax.rsqrt(variance + self.epsilon)
    return grouped.reshape(h.shape)


def _spread(values: base.Array, rank: int) -> base.Array:
  """[..., channels] over the axes that lie behind the channels."""
  return values.reshape(*values.shape, *(1,) * rank)
