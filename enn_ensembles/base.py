"""The vocabulary and the contracts that everything else is written in.

An epistemic neural network (ENN; Osband et al. 2021, arXiv 2107.08924) is a
network `f_theta(x, z)` with an extra input, the epistemic index `z`. Drawing
several indices gives several functions; their spread is what the network says
it does not know. Every agent of this project is such a network, or a plain
function that returns draws of `f`.

The shapes are those of DeepMind's `enn` library, field for field, so that a
network made there is scored here and the reverse, without an adapter.

Shape letters used everywhere: B data points in a batch, D input dimension,
J indices, K members or options, T training points, S seeds, E noise levels.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import sys
from typing import Any
from typing import NamedTuple
from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

Array = chex.Array
Index = Any  # An epistemic index: any pytree of arrays.
Params = Any  # What training changes: a pytree of float arrays.
State = Any  # What training does not change by gradient: priors, statistics.


class OutputWithPrior(NamedTuple):
  """The output of a network that has an additive prior function.

  Attributes:
    train: the part that training changes, [B, out] (or [J, B, out]).
    prior: the part that it does not, same shape; no gradient reaches it.
    extra: anything else a loss may want, by name.
  """
  train: Array
  prior: Array = np.zeros(1)
  extra: Mapping[str, Array] = {}

  @property
  def preds(self) -> Array:
    """The prediction: train + prior."""
    return self.train + jax.lax.stop_gradient(self.prior)


Output = Array | OutputWithPrior


def make_output(train: Array, prior: Array) -> OutputWithPrior:
  """An `OutputWithPrior` that the library of the caller recognises.

  DeepMind's `enn` tells outputs with a prior from plain arrays by its own
  class. When it is loaded (and only then: it is never imported from here) its
  class is used, so that its losses and experiments take our networks as they
  are. Here outputs are recognised by their `preds`, whatever their class.
  """
  theirs = sys.modules.get('enn.networks.base')
  output_class = getattr(theirs, 'OutputWithPrior', OutputWithPrior)
  return output_class(train=train, prior=prior)


def get_predictions(output: Output) -> Array:
  """The prediction in an output, with or without a prior part."""
  return output.preds if hasattr(output, 'preds') else output


def split_output(output: Output) -> tuple[Array, Array]:
  """(train, prior) parts of an output; the prior of a plain array is zero."""
  if hasattr(output, 'preds'):
    return output.train, jax.lax.stop_gradient(output.prior)
  return output, jnp.zeros_like(output)


class EpistemicIndexer(Protocol):
  """Draws indices. A finite indexer also lists them all."""

  def __call__(self, key: chex.PRNGKey) -> Index:
    """One index, drawn from its reference distribution."""


  # An indexer may also offer
  #   support() -> Index or None: all indices stacked along a first axis, as
  #     numpy arrays, or None where there are infinitely many. Missing = None.
  #   noise_dim and noise_embedding(indices [J, ...]) -> [J, noise_dim]: how
  #     target noise depends on the index, see `losses.make_regression_loss`.


def get_support(indexer: EpistemicIndexer) -> Index | None:
  """All indices of a finite indexer stacked as [J, ...] numpy, or None."""
  support = getattr(indexer, 'support', None)
  return None if support is None else support()


@dataclasses.dataclass(frozen=True)
class EpistemicNetwork:
  """A network f(x, z), the distribution of its index, and how to start it.

  Attributes:
    apply: (params, state, x [B, D], z) -> (output [B, out], state), for one z.
    init: (key, x [B, D], z) -> (params, state). `state` holds what gradients
      do not change, the parameters of a prior function for instance.
    indexer: key -> z.
    apply_indices: (params, state, x [B, D], indices) -> (output [J, B, out],
      state), the forward over many indices at once. `indices` are stacked on
      a first axis, or None for the whole support of a finite indexer in its
      own order. Left out, it is `apply` mapped over the indices. Networks
      whose indices share work (layer ensembles, hypermodels) override it.
    images: (params, state, x) -> what all indices need of x, or None. Given
      to `apply_indices` as a sixth argument by callers that forward the same x
      for block after block of indices (hypermodels).
  """
  apply: Callable[..., tuple[Output, State]]
  init: Callable[..., tuple[Params, State]]
  indexer: EpistemicIndexer
  apply_indices: Callable[..., tuple[Output, State]] | None = None
  images: Callable[[Params, State, Array], Any] | None = None


def get_images(network: EpistemicNetwork, params: Params, state: State,
               x: Array) -> Any:
  """What a network's indices share at x; None where it has no such thing."""
  images = getattr(network, 'images', None)
  return None if images is None else images(params, state, x)


def apply_indices(network: EpistemicNetwork, params: Params, state: State,
                  x: Array, indices: Index | None,
                  images: Any = None) -> tuple[Output, State]:
  """Forwards any network, ours or DeepMind's, over many indices.

  Args:
    network: has `apply` and `indexer`; `apply_indices` is used where offered.
    params: network parameters.
    state: network state.
    x: inputs [B, D].
    indices: indices stacked on a first axis of size J, or None for all
      indices of a finite indexer.
    images: of `get_images` at the same x, if the caller has them.

  Returns:
    The output [J, B, out] (an array or an `OutputWithPrior`) and the state.

  Raises:
    ValueError: `indices` is None and the indexer has infinitely many.
  """
  structured = getattr(network, 'apply_indices', None)
  if structured is not None and images is not None:
    return structured(params, state, x, indices, images)
  if structured is not None:
    return structured(params, state, x, indices)
  if indices is None:
    indices = get_support(network.indexer)
    if indices is None:
      raise ValueError(
          f'indices must be given: {network.indexer} has no finite support.')
  outputs, _ = jax.vmap(
      lambda z: network.apply(params, state, x, z))(
          jax.tree.map(jnp.asarray, indices))
  return outputs, state


class Data(NamedTuple):
  """Training data of one problem: x [T, D], y [T, 1]."""
  x: Array
  y: Array


class Batch(NamedTuple):
  """A minibatch: x [B, D], y [B, 1], data_index [B] = rows of the data."""
  x: Array
  y: Array
  data_index: Array


@dataclasses.dataclass(frozen=True)
class PriorKnowledge:
  """What an agent is told about the problem besides its data.

  Attributes:
    input_dim: D_x.
    num_train: T.
    noise_std: epsilon, the std of the noise in y. May be a traced scalar: one
      compiled training serves all noise levels.
    kernel: the prior of f, as `nngp.kernels.KernelConfig`; None if unknown.
  """
  input_dim: int
  num_train: int
  noise_std: Any
  kernel: Any = None


class EpistemicSampler(Protocol):
  """Draws a function from the agent's posterior.

  A sampler may also offer `moments(x) -> (mean [num_x], std [num_x])`, its
  exact mean and std; one that sets `analytic = True` is scored on those. One
  that sets `mappable = True` is drawn from by `jax.vmap` over keys.
  """

  def __call__(self, x: Array, key: chex.PRNGKey) -> Array:
    """One draw of f at x [num_x, D], as [num_x, 1], without observation noise.

    The same key gives the same function, whatever x it is asked at.
    """


class Agent(Protocol):
  """Learns from data; any method in any framework is an agent."""

  def __call__(self, data: Data, prior: PriorKnowledge,
               key: chex.PRNGKey) -> EpistemicSampler:
    """Learns from one problem and returns draws of its posterior."""
