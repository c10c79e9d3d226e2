"""Gaussian scores: pure formulas, no random numbers, no jit, no files.

`gaussian_kl` works elementwise on numpy and on jax arrays, in the dtype that it
is given, and the two errors reduce such arrays to a number; scores of the
testbed are computed in float64. `p` is the exact posterior (the NNGP) and `q`
the agent where the two differ.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from enn_ensembles import base
from enn_ensembles.scoring import aggregation
from enn_ensembles.scoring import weighting

Array = Any

STD_RIDGE = 1e-3  # Added to the stds of agent and posterior before scoring.


def _module(*arrays: Array):
  """numpy, or jax.numpy as soon as one argument is a jax array."""
  return jnp if any(isinstance(a, jax.Array) for a in arrays) else np


def gaussian_kl(mean_p: Array, std_p: Array, mean_q: Array,
                std_q: Array) -> Array:
  """KL(N(mean_p, std_p^2) || N(mean_q, std_q^2)), elementwise, in nats.

  Args:
    mean_p: means of the first Gaussian, of any shape [...].
    std_p: its standard deviations [...], > 0.
    mean_q: means of the second Gaussian [...].
    std_q: its standard deviations [...], > 0.

  Returns:
    log(std_q / std_p) + (std_p^2 + (mean_p - mean_q)^2) / (2 std_q^2) - 1/2,
    [...]. It is written so that it is exactly 0 for equal Gaussians and keeps
    its digits where they are nearly equal.
  """
  xp = _module(mean_p, std_p, mean_q, std_q)
  ratio = std_p / std_q
  excess = (ratio - 1.) * (ratio + 1.)  # ratio^2 - 1
  # log1p keeps the digits near 0 and loses them near -1, where log has them.
  log_ratio_squared = xp.where(xp.abs(excess) < 0.5,
                               xp.log1p(xp.maximum(excess, -0.5)),
                               2. * xp.log(ratio))
  shift = (mean_p - mean_q) / std_q
  return 0.5 * (shift ** 2 + (excess - log_ratio_squared))


def finite_sample_floor(num_samples: int) -> float:
  """What exact posterior draws score: E[KL(p || q)] of the plug-in Gaussian.

  q has the mean and the std (ddof=0) of S independent draws from p, so the
  agent is perfect and only the number of its samples costs it:
  1/2 [digamma((S-1)/2) + log(2/S)] + (S+1) / (2 (S-3)) - 1/2, infinite for
  S <= 3. (From E[log chi2_k] and E[1/chi2_k] with k = S - 1.)

  Args:
    num_samples: S, the number of samples behind the agent's mean and std.

  Returns:
    The expected KL in nats; 0.0105 for S = 100, inf for S <= 3.
  """
  if num_samples <= 3:
    return float('inf')
  s = float(num_samples)
  log_term = special.digamma((s - 1.) / 2.) + np.log(2. / s)
  return float(0.5 * log_term + (s + 1.) / (2. * (s - 3.)) - 0.5)


def relative_error(truth: Array, estimate: Array) -> Array:
  """mean |(truth - estimate) / truth|, the ENN testbed's relative error.

  Args:
    truth: of any shape [...], not 0.
    estimate: [...].

  Returns:
    A scalar.
  """
  xp = _module(truth, estimate)
  return xp.mean(xp.abs((truth - estimate) / truth))


def root_mean_square_error(truth: Array, estimate: Array) -> Array:
  """sqrt(mean (truth - estimate)^2) of two arrays [...], a scalar."""
  xp = _module(truth, estimate)
  return xp.sqrt(xp.mean((truth - estimate) ** 2))


def sample_moments(samples: Array, axis: int
                   ) -> tuple[np.ndarray, np.ndarray]:
  """Mean and std (ddof=0) over an axis, accumulated in float64.

  Args:
    samples: of any shape, e.g. [J, N].
    axis: that of the samples, 0 of [J, N].

  Returns:
    (mean, std) float64, both of the shape without the axis, e.g. [N].
  """
  samples = np.asarray(samples)  # jax's own mean has no float64 by default.
  with np.errstate(invalid='ignore', over='ignore'):  # Diverged agents.
    mean = np.mean(samples, axis=axis, dtype=np.float64)
    std = np.std(samples, axis=axis, dtype=np.float64)
  return mean, std


def prediction_moments(predictions: base.Predictions
                       ) -> tuple[np.ndarray, np.ndarray]:
  """Mean and std [N] of `base.Predictions` of one output: exact, or of samples.

  What stands for the mean is what the samples are aggregated to; the std is
  always theirs, with their weights.

  Raises:
    ValueError: there are several outputs, or another aggregation than numbers
      have.
  """
  samples = predictions.samples
  mean: Any = predictions.mean  # Exact ones, if there are no samples.
  std: Any = predictions.std
  if samples is not None and predictions.weights is not None:
    mean, std = weighting.weighted_moments(samples, predictions.weights)
  elif samples is not None:
    mean, std = sample_moments(samples, axis=0)
  if mean.shape[1] != 1:
    raise ValueError('predictions must have one output per point, got '
                     f'{mean.shape[1]}.')
  mean, std = (np.asarray(part, np.float64)[:, 0] for part in (mean, std))
  if samples is not None and predictions.aggregation != 'mean':
    together = aggregation.Aggregation.of(predictions)
    mean = together.values(np.asarray(samples)[..., 0])
  return mean, std


def posterior_scores(mean: np.ndarray, std: np.ndarray, true_mean: np.ndarray,
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
      Here, in std_error and in std_ratio STD_RIDGE is added to all stds.
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
            gaussian_kl(true_mean, true_std, mean, std))),
        'kl_reverse': float(np.mean(
            gaussian_kl(mean, std, true_mean, true_std))),
        'mean_error': float(relative_error(true_mean, mean)),
        'std_error': float(relative_error(true_std, std)),
        'mean_rmse': float(root_mean_square_error(true_mean, mean)),
        'std_ratio': float(np.mean(std / true_std)),
        'kl_floor': (0. if num_samples is None
                     else finite_sample_floor(num_samples)),
    }
