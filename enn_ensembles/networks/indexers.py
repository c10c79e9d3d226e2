"""Epistemic indexers: how z is drawn, listed, and tied to target noise.

DeepMind's enn makes target noise and bootstrap weights by the class of an
indexer; where an indexer has an attribute `indexer`, that one's class counts.
So those here have one, of their class, where enn is loaded (it is never
imported from here) and has a class that does the same; `noise_indexer` goes
the other way.
"""

import dataclasses
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import outputs
from enn_ensembles.networks import random_draws


def _deepmind_indexer(ours: Any, name: str | None, **fields: Any) -> Any:
  """An indexer of DeepMind's enn.

  Raises:
    AttributeError: enn is not loaded, or has none that does the same: there is
      no attribute `indexer`.
  """
  found = None if name is None else outputs.deepmind_class('indexers', name)
  if found is None:
    raise AttributeError(f'{type(ours).__name__!r} has no attribute '
                         "'indexer'.")
  return found(**fields)


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

  @property
  def indexer(self) -> Any:
    """DeepMind's."""
    return _deepmind_indexer(self, 'EnsembleIndexer',
                             num_ensemble=self.num_ensemble)


@dataclasses.dataclass(frozen=True)
class GaussianIndexer:
  """z ~ N(0, std^2 I) in R^index_dim."""
  index_dim: int
  std: float = 1.

  def __post_init__(self):
    checks.check_count('index_dim', self.index_dim)
    checks.check_positive('std', self.std)

  def __call__(self, key: chex.PRNGKey) -> base.Index:
    return self.std * random_draws.draw_normal(key, [self.index_dim])

  @property
  def noise_dim(self) -> int:
    """Target noise of a data point is linear in z."""
    return self.index_dim

  def noise_embedding(self, indices: base.Index) -> base.Array:
    """z scaled to unit mean square norm, [J, index_dim]."""
    return indices / (self.std * self.index_dim ** 0.5)

  @property
  def indexer(self) -> Any:
    """DeepMind's, of those two stds for which it makes noise of the right std.

    Its scaled indexer has a field for any, which its noise does not read.
    """
    name = None
    if self.std == 1.:
      name = 'GaussianIndexer'
    elif math.isclose(self.std, self.index_dim ** -0.5):
      name = 'ScaledGaussianIndexer'
    return _deepmind_indexer(self, name, index_dim=self.index_dim)


@dataclasses.dataclass(frozen=True)
class PrngIndexer:
  """z = a random key (two uint32), for networks that draw inside."""

  def __call__(self, key: chex.PRNGKey) -> base.Index:
    return key

  @property
  def indexer(self) -> Any:
    """DeepMind's."""
    return _deepmind_indexer(self, 'PrngIndexer')


@dataclasses.dataclass(frozen=True)
class _PartIndexer:
  """Target noise that depends on the last entries of z alone."""
  first: int
  rest: GaussianIndexer

  @property
  def noise_dim(self) -> int:
    """That of the rest."""
    return self.rest.noise_dim

  def noise_embedding(self, indices: base.Index) -> base.Array:
    """That of the last entries of indices [J, first + index_dim]."""
    return self.rest.noise_embedding(indices[:, self.first:])


def noise_indexer(indexer: Any) -> Any:
  """What gives an indexer's target noise: `noise_dim` and `noise_embedding`.

  Args:
    indexer: ours or somebody's, which has both itself; or DeepMind's, which is
      known by its class.

  Returns:
    An object that has both; None where the index does not say how noise
    depends on it.
  """
  if hasattr(indexer, 'noise_embedding'):
    return indexer
  def is_a(name: str) -> bool:
    found = outputs.deepmind_class('indexers', name)
    return found is not None and isinstance(indexer, found)
  if is_a('EnsembleIndexer'):
    return EnsembleIndexer(indexer.num_ensemble)
  if is_a('GaussianIndexer'):
    return GaussianIndexer(indexer.index_dim)
  if is_a('ScaledGaussianIndexer'):
    return GaussianIndexer(indexer.index_dim,
                           indexer.index_scale * indexer.index_dim ** -0.5)
  if is_a('GaussianWithUnitIndexer'):
    dim = indexer.index_dim - 1
    return _PartIndexer(1, GaussianIndexer(dim, dim ** -0.5))
  return None


def number_indices(network: base.EpistemicNetwork) -> base.EpistemicNetwork:
  """The same network with the number of an index for its index.

  DeepMind's enn makes target noise for indices that are one number, or
  Gaussian. A layer ensemble's index is an option per layer; with the numbers of
  its combinations it takes that noise too, a draw per combination.

  Raises:
    ValueError: the network has infinitely many indices.
  """
  support = base.get_support(network.indexer)
  if support is None:
    raise ValueError(f'number_indices needs finitely many indices, got '
                     f'{network.indexer}.')
  num = base.count_support(network.indexer)

  def pick(number):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[number], support)

  def apply_indices(params, state, x, numbers):
    return base.apply_indices(network, params, state, x,
                              None if numbers is None else pick(numbers))

  return base.EpistemicNetwork(
      apply=lambda params, state, x, number: network.apply(
          params, state, x, pick(number)),
      init=lambda key, x, number: network.init(key, x, pick(number)),
      indexer=EnsembleIndexer(num), apply_indices=apply_indices)
