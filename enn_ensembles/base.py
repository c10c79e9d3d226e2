"""The vocabulary and the contracts that everything else is written in.

An epistemic neural network (ENN; Osband et al. 2021, arXiv 2107.08924) is a
network `f_theta(x, z)` with an extra input, the epistemic index `z`. Drawing
several indices gives several functions; their spread is what the network says
it does not know. Every agent of this project is such a network, or a plain
function that returns draws of `f`.

The shapes are those of DeepMind's `enn` library, field for field, so that a
network made there is scored here and the reverse, without an adapter.

Shape letters used everywhere: B data points in a batch, N points of
predictions, D input dimension, J indices, K members or options, T training
points, S seeds, E noise levels; `out` components of f(x).
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any
from typing import NamedTuple
from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import outputs

Array = outputs.Array
Index = Any  # An epistemic index: any pytree of arrays.
Params = Any  # What training changes: a pytree of float arrays.
State = Any  # What training does not change by gradient: priors, statistics.
Output = Array | outputs.OutputWithPrior

# Where `OutputWithPrior.extra` has the log variances of label noise, which have
# the shape of the predictions.
LOG_VARIANCE = 'log_variance'


def get_predictions(output: Output) -> Array:
  """The prediction in an output, with or without a prior part."""
  return getattr(output, 'preds', output)


def get_log_variance(output: Output) -> Array | None:
  """What an output says of the label noise; None where it says nothing."""
  return (getattr(output, 'extra', None) or {}).get(LOG_VARIANCE)


def split_output(output: Output) -> tuple[Array, Array]:
  """(train, prior) parts of an output; the prior of a plain array is zero."""
  if isinstance(output, jax.Array | np.ndarray):
    return output, jnp.zeros_like(output)
  return output.train, jax.lax.stop_gradient(output.prior)


class EpistemicIndexer(Protocol):
  """Draws indices. A finite indexer also lists them all.

  An indexer may also offer
    support() -> Index or None: all indices stacked along a first axis, as numpy
      arrays, or None where there are infinitely many. Missing = None.
    noise_dim and noise_embedding(indices [J, ...]) -> [J, noise_dim]: how
      target noise depends on the index, see `regression.make_loss`.
  """

  def __call__(self, key: chex.PRNGKey) -> Index:
    """One index, drawn from its reference distribution by a key [2] uint32."""


def get_support(indexer: Any) -> Index | None:
  """All indices of a finite indexer stacked as [J, ...] numpy, or None.

  The ensemble indexer of DeepMind's enn is known by its class.
  """
  support = getattr(indexer, 'support', None)
  if support is not None:
    return support()
  theirs = outputs.deepmind_class('indexers', 'EnsembleIndexer')
  if theirs is not None and isinstance(indexer, theirs):
    return np.arange(indexer.num_ensemble, dtype=np.int32)
  return None


def count_support(indexer: Any) -> int | None:
  """How many indices a finite indexer has; None where they are infinitely many.
  """
  support = get_support(indexer)
  return None if support is None else len(jax.tree.leaves(support)[0])


@dataclasses.dataclass(frozen=True)
class EpistemicNetwork:
  """A network f(x, z), the distribution of its index, and how to start it.

  Attributes:
    apply: (params, state, x [B, ...], z) -> (output [B, out], state), for one
      z.
    init: (key, x [B, ...], z) -> (params, state). `state` holds what gradients
      do not change, the parameters of a prior function for instance.
    indexer: key -> z.
    apply_indices: (params, state, x [B, ...], indices) -> (output [J, B, out],
      state), the forward over many indices at once. `indices` are stacked on
      a first axis, or None for the whole support of a finite indexer in its
      own order. Left out, it is `apply` mapped over the indices. Networks
      whose indices share work (layer ensembles, hypermodels) override it.
    shared: (params, state, x) -> what all indices share at x, or None. Given
      to `apply_indices` as a fifth argument by callers that forward the same x
      for block after block of indices (hypermodels, VNNs).
    apply_train: (params, state, x [B, ...], indices, key) -> (output
      [J, B, out], new state), the forward of a training step where it differs
      from `apply_indices`: batch statistics that are updated, dropout. Left
      out, training forwards `apply_indices`.
    member_weights: (params, shape of one example) -> (weights [K, M], biases
      [K, L]), what each of K members computes with: W o (r s^T) for a
      BatchEnsemble. Scales and offsets of norms are among the biases; a prior
      function is left out. None where the index picks no member.
  """
  apply: Callable[..., tuple[Output, State]]
  init: Callable[..., tuple[Params, State]]
  indexer: EpistemicIndexer
  apply_indices: Callable[..., tuple[Output, State]] | None = None
  shared: Callable[[Params, State, Array], Any] | None = None
  apply_train: Callable[..., tuple[Output, State]] | None = None
  member_weights: Callable[..., tuple[Array, Array]] | None = None


def get_shared(network: EpistemicNetwork, params: Params, state: State,
               x: Array) -> Any:
  """What a network's indices share at x [B, ...]; None for nothing."""
  shared = getattr(network, 'shared', None)
  return None if shared is None else shared(params, state, x)


def apply_indices(network: EpistemicNetwork, params: Params, state: State,
                  x: Array, indices: Index | None,
                  shared: Any = None) -> tuple[Output, State]:
  """Forwards any network, ours or DeepMind's, over many indices.

  Args:
    network: has `apply` and `indexer`; `apply_indices` is used where offered.
    params: network parameters.
    state: network state.
    x: inputs [B, D].
    indices: indices stacked on a first axis of size J, or None for all
      indices of a finite indexer.
    shared: what `get_shared` gives at the same x, if the caller has it.

  Returns:
    The output [J, B, out] (an array or an `OutputWithPrior`) and the state.

  Raises:
    ValueError: `indices` is None and the indexer has infinitely many.
  """
  structured = getattr(network, 'apply_indices', None)
  if structured is not None and shared is not None:
    return structured(params, state, x, indices, shared)
  if structured is not None:
    return structured(params, state, x, indices)
  if indices is None:
    indices = get_support(network.indexer)
    if indices is None:
      raise ValueError(
          f'indices must be given: {network.indexer} has no finite support.')
  out, _ = jax.vmap(
      lambda z: network.apply(params, state, x, z))(
          jax.tree.map(jnp.asarray, indices))
  return out, state


class Data(NamedTuple):
  """Data of one problem, numpy arrays.

  Attributes:
    x: inputs [T, D_x] float64, or images [T, height, width, channels] float32.
    y: labels [T, out] float64, or class labels [T] int32.
  """
  x: Array
  y: Array


class Batch(NamedTuple):
  """A minibatch, which a loss is evaluated on.

  Attributes:
    x: inputs [B, ...] in the dtype of training, float32 unless a config says
      otherwise.
    y: labels [B, out] in the same dtype, or class labels [B] int32.
    data_index: the rows of the data that these are, [B] int32.
  """
  x: Array
  y: Array
  data_index: Array


@functools.partial(jax.tree_util.register_dataclass,
                   data_fields=('noise_std',), meta_fields=('num_outputs',))
@dataclasses.dataclass(frozen=True)
class Gaussian:
  """y = f(x) + noise_std n, n ~ N(0, 1): the likelihood of regression.

  Attributes:
    noise_std: epsilon, in units of y. May be a traced scalar: one compiled
      training serves all noise levels. None where the noise is unknown, a
      function x [N, ...] -> [N, out] where it depends on the input.
    num_outputs: components of y.
  """
  noise_std: Any
  num_outputs: int = 1


@functools.partial(jax.tree_util.register_dataclass, data_fields=(),
                   meta_fields=('num_classes',))
@dataclasses.dataclass(frozen=True)
class Categorical:
  """y ~ softmax(f(x)): the likelihood of classification; outputs are logits.

  Attributes:
    num_classes: C; labels are 0..C-1.
  """
  num_classes: int

  @property
  def num_outputs(self) -> int:
    """One logit per class."""
    return self.num_classes


Likelihood = Gaussian | Categorical


@dataclasses.dataclass(frozen=True)
class PriorKnowledge:
  """What an agent is told about the problem besides its data.

  Attributes:
    input_shape: shape of one input: (D_x,), or (height, width, channels).
    num_train: T.
    likelihood: how labels come from f.
    kernel: the prior of f, as `nngp.kernels.KernelConfig`; None if unknown.
  """
  input_shape: tuple[int, ...]
  num_train: int
  likelihood: Likelihood
  kernel: Any = None

  @property
  def input_dim(self) -> int:
    """D_x: numbers in one input."""
    return math.prod(self.input_shape)

  @property
  def num_outputs(self) -> int:
    """Components of f(x)."""
    return self.likelihood.num_outputs

  @property
  def noise_std(self) -> Any:
    """epsilon of a Gaussian likelihood.

    Raises:
      ValueError: the likelihood is categorical and has no noise level.
    """
    if not isinstance(self.likelihood, Gaussian):
      raise ValueError('noise_std is asked of a problem with likelihood '
                       f'{self.likelihood}, which has none.')
    return self.likelihood.noise_std


class Predictions(NamedTuple):
  """What an agent says at N points: draws of f, or exact moments.

  Arrays have any dtype of floats; scores are computed in float64.

  Attributes:
    samples: J draws of f, [J, N, out]; logits where the likelihood is
      categorical. None where the moments are exact.
    observation_variances: what each draw says of the label noise, [J, N, out];
      None where it says nothing and the likelihood's own is used.
    mean: exact mean of f, [N, out]; None where there are samples.
    std: exact std of f, [N, out].
    covariances: exact joint covariances of one output beside its exact
      moments, in B blocks of n = N // B neighbouring points, [B, n, n]; [1, N,
      N] for all points. None where nobody knows them; samples have their own.
    weights: how much each draw counts, [J], of sum 1; None for all alike.
    aggregation: how draws are made one prediction, a key of
      `scoring.aggregation.RULES`.
  """
  samples: Array | None = None
  observation_variances: Array | None = None
  mean: Array | None = None
  std: Array | None = None
  covariances: Array | None = None
  weights: Array | None = None
  aggregation: str = 'mean'

  @property
  def num_samples(self) -> int | None:
    """J; None where the moments are exact."""
    return None if self.samples is None else len(self.samples)


Predict = Callable[[Array], Predictions]  # x [N, ...] -> predictions there.


class Problem(Protocol):
  """A problem scores itself: nothing outside knows what kind it is.

  A problem may also offer
    augmentation: (key, x [B, ...]) -> x of the same shape and dtype, the random
      changes of the inputs of a training step; None is none.
    score_curve(predict, order [P]) -> {score: [P]}: some of its scores for the
      first 1, 2, ..., P members of an order.
    score_by_set(predict, counts) -> {set: {score: value}} and
      combine_sets(that) -> what `score` gives: 'test' and other sets, which
      rows keep one by one. It puts into the dict `counts` what rows keep of the
      predictions, see `scoring.prediction_counts`.
    score_and_count(predict, counts) -> what `score` gives, and `counts` takes
      the same: for problems of one set.

  Attributes:
    problem_id: readable and unique name.
    data: what the agent learns from.
    prior: what it is told besides.
    validation: held-out data for selection and early stopping, visible to
      training only as such; None where there is none.
    score_set: which scores it gives, a key of `scoring.table.SCORE_SETS`.
  """
  problem_id: str
  data: Data
  prior: PriorKnowledge
  validation: Data | None
  score_set: str

  def score(self, predict: Predict) -> Mapping[str, float]:
    """Scores by name; `scoring.table.SCORES` has their meanings and units.

    Scores may be infinite or nan; nothing is clipped or filled.
    """


class EpistemicSampler(Protocol):
  """Draws a function from the agent's posterior.

  A sampler may also offer
    moments(x) -> (mean [N], std [N]): its exact mean and std; one that sets
      `analytic = True` is scored on those.
    joint_covariance(x) -> [N, N]: beside `moments`, the exact joint covariance
      of f at the points.
    members(x) -> [K, N, out]: all its functions, where they are finitely many
      and equally likely. It is then scored on each of them once.
    members_with_noise(x) -> (members [K, N, out], noise variances that they say
      [K, N, out], or None): beside `members`.
    draws(x, keys [J, 2]) -> [J, N, out]: a draw per key, where several are
      faster than one by one. One that sets `mappable = True` instead is drawn
      from by `jax.vmap` over keys.
  """

  def __call__(self, x: Array, key: chex.PRNGKey) -> Array:
    """One draw of f, without label noise.

    Args:
      x: points [N, ...] as those of `Data.x`; it must not be changed.
      key: a jax key, [2] uint32. The same key gives the same function, whatever
        x it is asked at; different keys give different functions.

    Returns:
      f at x, [N, out] real numbers of any dtype; logits where the likelihood is
      categorical.
    """


class Agent(Protocol):
  """Learns from data; any method in any framework is an agent."""

  def __call__(self, data: Data, prior: PriorKnowledge,
               key: chex.PRNGKey) -> EpistemicSampler:
    """Learns from one problem.

    Args:
      data: what to learn from; it must not be changed.
      prior: what is known of the problem besides.
      key: a jax key, [2] uint32; all randomness comes from it.

    Returns:
      A sampler, which draws one function per key.

    Raises:
      ValueError: the agent cannot serve the problem.
    """
