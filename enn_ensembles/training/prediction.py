"""What trained networks say at given points, for a whole seed at once.

The networks of a seed's noise levels are forwarded together, in one compiled
program, and a forward that several problems ask for is done once.
"""

from collections.abc import Callable
import functools
import time
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.machine import progress
from enn_ensembles.training import forward_blocks
from enn_ensembles.training import loop
from enn_ensembles.training import network_sampler

# Predictions and noise variances, [E, J, N, out] each; None where networks say
# nothing of the noise.
_Levels = tuple[np.ndarray, np.ndarray | None]

# Sets of points whose predictions are kept: test, validation and dyadic points,
# and training points where members are weighted or ranked by them.
_NUM_KEPT = 4


def num_index_draws(network: base.EpistemicNetwork, num_enn_samples: int,
                    enumerate_indices: bool) -> int | None:
  """Draws of the index to evaluate with; None means every member once."""
  if enumerate_indices and base.get_support(network.indexer) is not None:
    return None
  return num_enn_samples


def _forward(network: base.EpistemicNetwork, params: base.Params,
             state: base.State, x: base.Array, key: chex.PRNGKey,
             num_draws: int | None) -> tuple[base.Array, base.Array | None]:
  """Predictions of one network, and noise variances, [J, N, out] each."""
  read = network_sampler.read_noise
  if num_draws is None:
    return network_sampler.forward_support(network, params, state, x, read)
  keys = networks.fold_in_many(key, num_draws)
  return network_sampler.forward_draws(network, params, state, x, keys, read)


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
def _forward_levels(make_network, prior, params, state, x, key, num_draws):
  """Predictions and noise variances of one seed's levels, [E, J, N, out].

  The indices come from the seed's key: the same for all its noise levels.
  """
  network = make_network(prior)
  return jax.vmap(lambda p, s: _forward(network, p, s, x, key, num_draws))(
      params, state)


class Predictor:
  """Predictions of the networks of one `loop.train`.

  Args:
    agent: the agent.
    trained: its trained networks, S seeds by E noise levels.
    prior: what the agent was told; no network depends on T or a noise level.
    keys: evaluation key of each seed, [S].
    num_draws: draws of the index, J; None takes every member once, in the
      order of the indexer's support.

  Attributes:
    num_draws: as given.
    evaluate_seconds: wall time spent so far, compilation apart.
    compile_seconds: wall time of tracing and compiling so far.
    num_points: points so far, those of every network counted.
  """

  def __init__(self, agent: Any, trained: loop.Trained,
               prior: base.PriorKnowledge, keys: chex.PRNGKey,
               num_draws: int | None):
    self._make_network = agent.make_network
    self._trained = trained
    self._prior = _static_prior(prior)
    self._keys = keys
    self.num_draws = num_draws
    self.evaluate_seconds = 0.
    self.compile_seconds = 0.
    self.num_points = 0
    self._compiled: dict[tuple[int, ...], Any] = {}
    self._sizes: set[int] = set()  # Points that programs take.
    # Per points asked for: them (so that their id stays theirs), and the
    # predictions there of the last seed that was asked.
    self._known: dict[int, tuple[np.ndarray, int, _Levels]] = {}

  @property
  def seconds_per_1000(self) -> float | None:
    """Wall time per 1000 points of one network; None before any."""
    return (1000. * self.evaluate_seconds / self.num_points
            if self.num_points else None)

  def for_problem(self, seed: int, level: int) -> Callable[
      [base.Array], base.Predictions]:
    """`predict(x)` of one problem's network, by the positions of both."""
    def predict(x):
      samples, variances = self._levels(seed, x)
      return base.Predictions(samples[level], None if variances is None
                              else variances[level])

    return predict

  def _levels(self, seed: int, x: base.Array) -> _Levels:
    """Predictions of all noise levels at x, and noise variances."""
    known = self._known.get(id(x))
    if known is not None and known[0] is x and known[1] == seed:
      return known[2]
    found = self._run(seed, np.asarray(x))
    self._known[id(x)] = (x, seed, found)
    if len(self._known) > _NUM_KEPT:
      del self._known[next(iter(self._known))]  # The oldest.
    return found

  def _run(self, seed: int, x: np.ndarray) -> _Levels:
    trained = self._trained
    params, state = jax.tree.map(lambda a: a[seed],
                                 (trained.params, trained.state))
    size = forward_blocks.points_per_block(
        self._make_network(self._prior), x.shape, self.num_draws)
    # A program that takes more points is there: cheaper than another one.
    size = min((num for num in self._sizes if num >= size), default=size)
    self._sizes.add(size)

    def forward(block: np.ndarray, first: int) -> Any:
      progress.report('predictions at point', first, len(x))
      arguments = (params, state, jnp.asarray(block, trained.dtype),
                   self._keys[seed])
      start = time.perf_counter()
      compiled = self._compile(arguments)
      compiling = time.perf_counter()
      # They are there when they are numpy's: what is timed waits for them.
      found = jax.tree.map(np.asarray, compiled(*arguments))
      self.compile_seconds += compiling - start
      self.evaluate_seconds += time.perf_counter() - compiling
      return found

    self.num_points += len(x) * len(jax.tree.leaves(params)[0])
    return forward_blocks.in_blocks(forward, x, size)

  def _compile(self, arguments: tuple) -> Any:
    shape = arguments[2].shape
    if shape not in self._compiled:
      lowered = _forward_levels.lower(self._make_network, self._prior,
                                      *arguments, self.num_draws)
      self._compiled[shape] = loop.compile_program(lowered,
                                                   jax.default_backend())
    return self._compiled[shape]


def _static_prior(prior: base.PriorKnowledge) -> base.PriorKnowledge:
  """The prior without what differs between problems of one program."""
  likelihood = prior.likelihood
  if isinstance(likelihood, base.Gaussian):
    likelihood = base.Gaussian(0., likelihood.num_outputs)
  return base.PriorKnowledge(prior.input_shape, 0, likelihood)
