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


def sampler_predictions(sampler: base.EpistemicSampler, x: base.Array,
                        key: chex.PRNGKey, num_enn_samples: int,
                        enumerate_indices: bool = True,
                        num_outputs: int = 1) -> base.Predictions:
  """What any sampler says at x [N, ...].

  Exact moments are used where the sampler offers them and asks for it
  (`analytic = True`); all members of one that has finitely many
  (`members(x) -> [K, N, out]`) where indices are enumerated; else draws, all at
  once where it can (`draws`, `mappable`).

  Args:
    sampler: the sampler.
    x: the points.
    key: what the keys of its draws come from.
    num_enn_samples: how many draws.
    enumerate_indices: whether finite sets of members are enumerated.
    num_outputs: components of f(x).

  Raises:
    ValueError: the sampler, its `moments`, `members` or `draws` return another
      shape, of single draws found at the first; or what is no real number; or
      `moments` a negative std.
  """
  if getattr(sampler, 'analytic', False):
    # What is analytic has them; other samplers need not.
    given = sampler.moments(x)  # pyright: ignore[reportAttributeAccessIssue]
    mean, std = read_moments(given, len(x))
    joint = getattr(sampler, 'joint_covariance', None)
    return base.Predictions(
        None, mean=mean[:, None], std=std[:, None],
        covariances=None if joint is None else np.asarray(joint(x))[None])
  members = getattr(sampler, 'members', None)
  if members is not None and enumerate_indices:
    with_noise = getattr(sampler, 'members_with_noise', None)
    samples, variances = ((members(x), None) if with_noise is None
                          else with_noise(x))
    samples = _real('members', samples)
    if samples.ndim != 3 or samples.shape[1:] != (len(x), num_outputs):
      raise ValueError(
          f'members must return shape [K, {len(x)}, {num_outputs}] at '
          f'{len(x)} points, got {samples.shape}.')
    return base.Predictions(samples, variances)
  keys = networks.fold_in_many(key, num_enn_samples)
  shape = (len(x), num_outputs)
  draws = getattr(sampler, 'draws', None)
  progress.report('draw', 0, num_enn_samples)
  if draws is not None:
    samples = _real('draws', draws(x, keys))
    if samples.shape != (num_enn_samples, *shape):
      raise ValueError(
          f'draws must return shape {(num_enn_samples, *shape)} for '
          f'{num_enn_samples} keys at {len(x)} points, got {samples.shape}.')
    return base.Predictions(samples)
  first = _real('a sampler', sampler(x, keys[0]))
  if first.shape != shape:
    raise ValueError(f'a sampler must return shape {shape} '
                     f'at {len(x)} points, got {first.shape}.')
  if getattr(sampler, 'mappable', False):
    return base.Predictions(np.asarray(jax.vmap(lambda k: sampler(x, k))(keys)))
  found = [first]
  for key in keys[1:]:
    progress.report('draw', len(found), num_enn_samples)
    found.append(_real('a sampler', sampler(x, key)))
  return base.Predictions(np.stack(found))


def read_moments(given: Any, num_points: int) -> tuple[np.ndarray, np.ndarray]:
  """What a sampler's `moments` returned at N points, as mean and std.

  Args:
    given: what it returned.
    num_points: N.

  Returns:
    Mean and std, float64 [N] each; they need not be finite.

  Raises:
    ValueError: it is no pair of real numbers of this shape, or a std is
      negative.
  """
  try:
    mean, std = given
  except (TypeError, ValueError):
    raise ValueError('moments must return a pair, mean and std, got '
                     f'{type(given).__name__}.') from None
  mean, std = (_real('moments', m).astype(np.float64) for m in (mean, std))
  if not mean.shape == std.shape == (num_points,):
    raise ValueError(
        f'moments must return shape ({num_points},) for mean and std at '
        f'{num_points} points, got {mean.shape} and {std.shape}.')
  if (std < 0).any():
    raise ValueError(f'moments must return std >= 0, got {std.min():g}.')
  return mean, std


def _real(name: str, value: Any) -> np.ndarray:
  """An array of real numbers; ValueError for texts, objects, complex ones."""
  found = np.asarray(value)
  if found.dtype.kind in 'OSUcMm':
    raise ValueError(f'{name} must return real numbers, got {found.dtype}.')
  return found
