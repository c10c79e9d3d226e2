"""From samples to scores: the only place where that happens.

Networks are evaluated for a whole batch of problems in one compiled program;
any other sampler draw by draw. Both give the mean and the std of the agent's
samples at each point, in float64, and those are scored against the exact
posterior by the Gaussian plug-in.
"""

import functools
import time
from typing import Any
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import ranking
from enn_ensembles.training import loop
from enn_ensembles.training import losses

STD_RIDGE = 1e-3  # Added to the stds of agent and posterior before scoring.

# fold_in constant of the evaluation key. Where indices are drawn, which fold the
# same key, there is no order.
_ORDER_KEY = 0

_INDEX_BLOCK = 100  # Indices forwarded at once: bounds the memory of a draw.


class Moments(NamedTuple):
  """Mean and std (ddof=0) of an agent's samples.

  Attributes:
    mean: float64, [N] for one problem or [S, E, N] for a batch.
    std: same shape, without ridge.
    num_samples: samples behind them; None where they are exact.
    evaluate_seconds: wall time, compilation apart.
    compile_seconds: wall time of tracing and compiling.
  """
  mean: np.ndarray
  std: np.ndarray
  num_samples: int | None
  evaluate_seconds: float
  compile_seconds: float


def _predict_problem(agent: loop.NetworkAgent, params: base.Params,
                     state: base.State, x: base.Array, key: chex.PRNGKey,
                     num_draws: int | None) -> base.Array:
  """Predictions of one problem's network, [J, N].

  Args:
    agent: the agent.
    params: trained parameters.
    state: network state.
    x: inputs [N, D].
    key: what the draws of the index come from.
    num_draws: J, indices drawn from the indexer; None takes its whole support.
  """
  # No network depends on T or the noise level; the loss does.
  network = agent.make_network(
      base.PriorKnowledge(x.shape[1:], 0, base.Gaussian(0.)))
  if num_draws is None:
    out, _ = base.apply_indices(network, params, state, x, None)
    return base.get_predictions(out)[..., 0]
  num_blocks = -(-num_draws // _INDEX_BLOCK)
  indices = losses.sample_indices(network, key, num_blocks * _INDEX_BLOCK)
  blocks = jax.tree.map(
      lambda z: z.reshape(num_blocks, _INDEX_BLOCK, *z.shape[1:]), indices)

  def forward(block):
    out, _ = base.apply_indices(network, params, state, x, block)
    return base.get_predictions(out)[..., 0]

  return jax.lax.map(forward, blocks).reshape(-1, len(x))[:num_draws]


@functools.partial(jax.jit, static_argnums=(0, 5))
def _predict_seed(agent, params, state, x, key, num_draws):
  """Predictions for the noise levels of one seed, [E, J, N].

  The indices come from the seed's key: the same for all its noise levels.
  """
  return jax.vmap(
      lambda p, s: _predict_problem(agent, p, s, x, key, num_draws))(params,
                                                                     state)


def num_index_draws(agent: loop.NetworkAgent, input_dim: int,
                    num_enn_samples: int, enumerate_indices: bool
                    ) -> int | None:
  """Draws of the index to evaluate with; None means every member once."""
  if enumerate_indices:
    network = agent.make_network(
        base.PriorKnowledge((input_dim,), 0, base.Gaussian(0.)))
    if base.get_support(network.indexer) is not None:
      return None
  return num_enn_samples


def predict(agent: loop.NetworkAgent, trained: loop.Trained,
            x: np.ndarray, keys: chex.PRNGKey, num_draws: int | None
            ) -> tuple[np.ndarray, float, float]:
  """Predictions of trained networks at given points.

  Args:
    agent: the agent.
    trained: its trained networks, S seeds by E noise levels.
    x: inputs of each seed, [S, N, D].
    keys: evaluation key of each seed, [S].
    num_draws: draws of the index, J; None takes every member once, in the
      order of the indexer's support.

  Returns:
    Predictions [S, E, J, N] in the dtype of training, seconds of evaluating
    and of compiling.
  """
  def arguments(seed: int) -> tuple:
    params, state = jax.tree.map(lambda a: a[seed],
                                 (trained.params, trained.state))
    return params, state, jnp.asarray(x[seed], trained.dtype), keys[seed]

  start = time.perf_counter()
  lowered = _predict_seed.lower(agent, *arguments(0), num_draws)
  compiled = loop.compile_program(lowered, jax.default_backend())
  compile_seconds = time.perf_counter() - start
  start = time.perf_counter()
  predictions = np.stack([np.asarray(compiled(*arguments(seed)))
                          for seed in range(len(x))])
  return predictions, time.perf_counter() - start, compile_seconds


def predict_moments(agent: loop.NetworkAgent, trained: loop.Trained,
                    x: np.ndarray, keys: chex.PRNGKey, *,
                    num_enn_samples: int, enumerate_indices: bool) -> Moments:
  """Mean and std of trained networks at given points.

  Args:
    agent: the agent.
    trained: its trained networks, S seeds by E noise levels.
    x: inputs of each seed, [S, N, D].
    keys: evaluation key of each seed, [S].
    num_enn_samples: draws of the index where it is not enumerated.
    enumerate_indices: whether a finite indexer is scored on all its members;
      otherwise every agent gets num_enn_samples draws, with replacement.

  Returns:
    Moments [S, E, N].
  """
  num_draws = num_index_draws(agent, x.shape[-1], num_enn_samples,
                              enumerate_indices)
  predictions, evaluate_seconds, compile_seconds = predict(
      agent, trained, x, keys, num_draws)
  mean, std = sample_moments(predictions, axis=2)
  return Moments(mean, std, predictions.shape[2], evaluate_seconds,
                 compile_seconds)


class Selected(NamedTuple):
  """What is left of an ensemble's members after selection.

  Attributes:
    mean: of the members that are kept, float64 [N].
    std: their std (ddof=0), [N].
    num_samples: how many are kept, P.
    path: scores of every beginning of the order, as `results.ROW_SCHEMA` says;
      None where predictions are not finite.
    rank_seconds: wall time of the ranking; None without one.
  """
  mean: np.ndarray
  std: np.ndarray
  num_samples: int
  path: dict[str, Any] | None
  rank_seconds: float | None


def select_members(selection: str, predictions: np.ndarray,
                   val_predictions: np.ndarray | None, *,
                   true_moments: tuple[np.ndarray, np.ndarray],
                   val_moments: tuple[np.ndarray, np.ndarray],
                   y_val: np.ndarray | None, noise_std: float,
                   key: chex.PRNGKey) -> Selected:
  """Selects members of a finite ensemble on one problem.

  Without a selection all are kept, and their order is random: its path shows
  what a number of random members scores. Ranked members (`ranking`) are kept up
  to the beginning with the lowest validation score.

  Args:
    selection: 'none', 'oracle' or 'val_nll'.
    predictions: of all J members at x_test, [J, N].
    val_predictions: of the same at x_val, [J, num_val]; read by rankings only.
    true_moments: posterior mean and std at x_test, [N] each.
    val_moments: the same at x_val; read by 'oracle' only.
    y_val: labels at x_val, [num_val, 1]; read by 'val_nll' only.
    noise_std: of the labels.
    key: the evaluation key of the problem's seed, for the random order.

  Raises:
    ValueError: as `ranking.rank_samples`.
  """
  predictions = np.asarray(predictions, np.float64)
  finite = np.isfinite(predictions).all() and (
      selection == 'none' or np.isfinite(val_predictions).all())
  if not finite:
    return Selected(*sample_moments(predictions, axis=0), len(predictions),
                    path=None, rank_seconds=None)
  path, rank_seconds, kept = {}, None, len(predictions)
  if selection == 'none':
    order = np.asarray(jax.random.permutation(
        jax.random.fold_in(key, _ORDER_KEY), len(predictions)))
  else:
    start = time.perf_counter()
    order, score = ranking.rank_samples(
        val_predictions, *val_moments, selection=selection,
        labels=None if y_val is None else y_val[:, 0], noise_std=noise_std,
        std_ridge=STD_RIDGE)
    rank_seconds = time.perf_counter() - start
    kept = ranking.choose_num_samples(
        len(order), budget_samples=len(order), score=score)
    path['val_score'] = score.tolist()
  scores = ranking.evaluate_path(predictions, order, *true_moments,
                                 std_ridge=STD_RIDGE)
  path.update(order=order.tolist(), kl_estimate=scores.kl_estimate.tolist(),
              kl_reverse=scores.kl_reverse.tolist())
  if not all(np.isfinite(values).all() for values in path.values()):
    path = None
  # In the order of the indexer: all members give what they give unselected.
  mean, std = sample_moments(predictions[np.sort(order[:kept])], axis=0)
  return Selected(mean, std, kept, path, rank_seconds)


def sample_moments(samples: np.ndarray, axis: int
                   ) -> tuple[np.ndarray, np.ndarray]:
  """Mean and std (ddof=0) over an axis, accumulated in float64."""
  with np.errstate(invalid='ignore', over='ignore'):  # Diverged agents.
    mean = np.mean(samples, axis=axis, dtype=np.float64)
    std = np.std(samples, axis=axis, dtype=np.float64)
  return mean, std


def sampler_moments(sampler: base.EpistemicSampler, x: np.ndarray,
                    key: chex.PRNGKey, *, num_enn_samples: int) -> Moments:
  """Mean and std of any sampler at x [N, D], from num_enn_samples draws.

  Exact moments are used where the sampler offers them and asks for it
  (`analytic = True`).

  Raises:
    ValueError: the sampler returns something else than [N, 1], or its
      `moments` something else than two [N].
  """
  start = time.perf_counter()
  if getattr(sampler, 'analytic', False):
    mean, std = (np.asarray(m, np.float64) for m in sampler.moments(x))
    if not mean.shape == std.shape == (len(x),):
      raise ValueError(
          f'moments must return shape ({len(x)},) for mean and std at {len(x)} '
          f'points, got {mean.shape} and {std.shape}.')
    return Moments(mean, std, None, time.perf_counter() - start, 0.)
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
      key, jnp.arange(num_enn_samples))
  if getattr(sampler, 'mappable', False):
    samples = np.asarray(jax.vmap(lambda k: sampler(x, k))(keys))
  else:
    samples = np.stack([np.asarray(sampler(x, k)) for k in keys])
  if samples.shape[1:] != (len(x), 1):
    raise ValueError(f'a sampler must return shape ({len(x)}, 1) at {len(x)} '
                     f'points, got {samples.shape[1:]}.')
  mean, std = sample_moments(samples[..., 0], axis=0)
  return Moments(mean, std, num_enn_samples, time.perf_counter() - start, 0.)


def score(mean: np.ndarray, std: np.ndarray, true_mean: np.ndarray,
          true_std: np.ndarray, *, num_samples: int | None
          ) -> dict[str, float]:
  """Scores of one problem, from moments at its test points.

  Args:
    mean: the agent's means [N].
    std: the agent's stds [N], without ridge.
    true_mean: the exact posterior's means [N].
    true_std: its stds [N].
    num_samples: samples behind the agent's moments; None where exact.

  Returns:
    kl_estimate, kl_reverse: mean KL(posterior || agent) and the reverse, nats.
    mean_error, std_error: mean relative errors (as the ENN testbed's).
    mean_rmse: root mean square error of the mean.
    std_ratio: mean ratio of the agent's std to the posterior's.
    kl_floor: what exact posterior draws would score with as many samples.
    Scores may be non-finite; nothing is clipped or filled.
  """
  std, true_std = std + STD_RIDGE, true_std + STD_RIDGE
  with np.errstate(all='ignore'):  # Diverged agents score inf or nan.
    return {
        'kl_estimate': float(np.mean(
            gaussian.gaussian_kl(true_mean, true_std, mean, std))),
        'kl_reverse': float(np.mean(
            gaussian.gaussian_kl(mean, std, true_mean, true_std))),
        'mean_error': float(gaussian.relative_error(true_mean, mean)),
        'std_error': float(gaussian.relative_error(true_std, std)),
        'mean_rmse': float(gaussian.root_mean_square_error(true_mean, mean)),
        'std_ratio': float(np.mean(std / true_std)),
        'kl_floor': (0. if num_samples is None
                     else gaussian.finite_sample_floor(num_samples)),
    }
