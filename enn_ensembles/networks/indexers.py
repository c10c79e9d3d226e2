"""Epistemic indexers: how z is drawn, listed, and tied to target noise."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base


@dataclasses.dataclass(frozen=True)
class EnsembleIndexer:
  """z = a member, an int32 in 0..num_ensemble-1, all equally likely."""
  num_ensemble: int

  def __call__(self, key: chex.PRNGKey) -> base.Index:
    return jax.random.randint(key, [], 0, self.num_ensemble, dtype=jnp.int32)

  def support(self) -> np.ndarray:
    """All members, [K] int32."""
    return np.arange(self.num_ensemble, dtype=np.int32)

  @property
  def noise_dim(self) -> int:
    """Target noise is drawn for each (data point, member)."""
    return self.num_ensemble

  def noise_embedding(self, indices: base.Index) -> base.Array:
    """One-hot members, [J, K]: see `regression.make_loss`."""
    return jax.nn.one_hot(indices, self.num_ensemble)


@dataclasses.dataclass(frozen=True)
class GaussianIndexer:
  """z ~ N(0, std^2 I) in R^index_dim."""
  index_dim: int
  std: float = 1.

  def __call__(self, key: chex.PRNGKey) -> base.Index:
    return self.std * jax.random.normal(key, [self.index_dim], jnp.float32)

  @property
  def noise_dim(self) -> int:
    """Target noise of a data point is linear in z."""
    return self.index_dim

  def noise_embedding(self, indices: base.Index) -> base.Array:
    """z scaled to unit mean square norm, [J, index_dim]."""
    return indices / (self.std * self.index_dim ** 0.5)


@dataclasses.dataclass(frozen=True)
class PrngIndexer:
  """z = a random key (two uint32), for networks that draw inside."""

  def __call__(self, key: chex.PRNGKey) -> base.Index:
    return key
