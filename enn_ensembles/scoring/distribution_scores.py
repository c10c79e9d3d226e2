"""Scores of predictive distributions that exist for a single network too.

An agent's marginal at a point enters by the Gaussian plug-in: its mean and its
std there. The KL to the posterior explodes as the agent's std goes to 0; what
is here stays finite. Labels are y = f + noise_std n, so the predictive
distribution of a label is N(mean, std^2 + noise_std^2), which has a density
even where the agent's std is 0.

Distances and scores work elementwise on float64 numpy arrays; floors and
coverages are numbers. `p` is the exact
posterior and `q` the agent.
"""

import numpy as np
from scipy import special

_SQRT_PI = np.sqrt(np.pi)


def wasserstein(mean_p: np.ndarray, std_p: np.ndarray, mean_q: np.ndarray,
                std_q: np.ndarray) -> np.ndarray:
  """Squared 2-Wasserstein distance of two Gaussians over the variance of p.

  ((mean_p - mean_q)^2 + (std_p - std_q)^2) / std_p^2: 1 is as far as a point
  mass at the posterior's mean.

  Args:
    mean_p: means of the posterior, [N].
    std_p: its stds [N], > 0.
    mean_q: means of the agent, [N].
    std_q: its stds [N], >= 0.

  Returns:
    [N].
  """
  return ((mean_p - mean_q)**2 + (std_p - std_q)**2) / std_p**2


def wasserstein_floor(num_samples: int) -> float:
  """The expected `wasserstein` of the mean and std (ddof=0) of S exact draws.

  The mean costs 1/S. The std over the posterior's is chi / sqrt(S) with chi of
  S - 1 degrees of freedom, whose square has the mean S - 1: together
  2 - 2 E[chi] / sqrt(S), E[chi] = sqrt(2) Gamma(S/2) / Gamma((S-1)/2).

  Args:
    num_samples: S; 2 for S = 1, one draw without a std.
  """
  s = float(num_samples)
  if num_samples == 1:
    return 2.
  mean = np.sqrt(2.) * np.exp(special.gammaln(s / 2.)
                              - special.gammaln((s - 1.) / 2.))
  return float(2. - 2. * mean / np.sqrt(s))


def crps(label: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
  """Continuous ranked probability score of N(mean, std^2) at labels.

  E|Y - label| - E|Y - Y'| / 2 for independent Y, Y' of the prediction; lower is
  better, in the unit of the label. Gneiting & Raftery 2007, "Strictly proper
  scoring rules, prediction, and estimation".

  Args:
    label: y, [N].
    mean: of the predictive distribution of the label, [N].
    std: of the same [N], > 0: noise included.

  Returns:
    [N].
  """
  return _mean_distance(label - mean, std) - std / _SQRT_PI


def expected_crps(mean_p: np.ndarray, std_p: np.ndarray, mean_q: np.ndarray,
                  std_q: np.ndarray) -> np.ndarray:
  """E[crps(y, mean_q, std_q)] for labels y ~ N(mean_p, std_p^2).

  Args:
    mean_p: where labels come from.
    std_p: its std, noise included.
    mean_q: of the prediction.
    std_q: its std, noise included.
  """
  return (_mean_distance(mean_p - mean_q, np.hypot(std_p, std_q))
          - std_q / _SQRT_PI)


def _mean_distance(shift: np.ndarray, std: np.ndarray) -> np.ndarray:
  """E|X| for X ~ N(shift, std^2)."""
  z = shift / std
  return (shift * special.erf(z / np.sqrt(2.))
          + std * np.sqrt(2. / np.pi) * np.exp(-0.5 * z**2))


def log_score(label: np.ndarray, mean: np.ndarray,
              std: np.ndarray) -> np.ndarray:
  """-log density of N(mean, std^2) at labels, nats; lower is better.

  Args:
    label: y, [N].
    mean: of the predictive distribution of the label, [N] or [K, N].
    std: of the same, > 0: noise included; it may be one number.

  Returns:
    Of the shape of mean.
  """
  return 0.5 * (np.log(2. * np.pi) + ((label - mean) / std)**2) + np.log(std)


def interval_coverage(values: np.ndarray, mean: np.ndarray, std: np.ndarray,
                      level: float) -> float:
  """Share of values inside the central interval of N(mean, std^2).

  Args:
    values: [N], of what the Gaussians predict.
    mean: [N].
    std: [N].
    level: probability of the interval, in (0, 1).

  Returns:
    A share; `level` in expectation where the values come from the Gaussians.
    Values at different points of one function are correlated, so its standard
    error is one over functions, not over points. nan where a moment is not
    finite.

  Raises:
    ValueError: there is no such level.
  """
  if not 0 < level < 1:
    raise ValueError(f'level must be in (0, 1), got {level}.')
  if not (np.isfinite(mean).all() and np.isfinite(std).all()):
    return float('nan')
  inside = np.abs(values - mean) <= special.ndtri(0.5 + level / 2.) * std
  return float(np.mean(inside))


def probability_integral_transform(values: np.ndarray, mean: np.ndarray,
                                   std: np.ndarray) -> np.ndarray:
  """The predicted probability of less than each value, in [0, 1].

  Uniform where the values come from N(mean, std^2). Where a std is 0 it is 0, 1
  or, at the mean itself, 1/2.

  Args:
    values: [N].
    mean: [N].
    std: [N], >= 0.
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    z = (values - mean) / std
  return np.where(values == mean, 0.5, special.ndtr(z))


def pit_counts(values: np.ndarray, mean: np.ndarray, std: np.ndarray,
               num_bins: int) -> np.ndarray:
  """Counts of the probability integral transform in bins of equal width.

  A hump says that stds are too large, a valley that they are too small, a slope
  that means are biased.

  Args:
    values: [N], finite.
    mean: [N], finite.
    std: [N], finite.
    num_bins: bins of [0, 1]; the last holds 1 too.

  Returns:
    int64 [num_bins], of sum N.
  """
  transformed = probability_integral_transform(values, mean, std)
  counts, _ = np.histogram(transformed, bins=num_bins, range=(0., 1.))
  return counts


def pit_of_exact_draws(num_samples: int | None, num_bins: int) -> np.ndarray:
  """Expected shares of `pit_counts` for the mean and std of S exact draws.

  With mean m and std s (ddof=0) of S independent draws of the distribution that
  a value comes from, (value - m) / s is sqrt((S + 1) / (S - 1)) times Student's
  t of S - 1 degrees of freedom: a valley, since so few draws do not know their
  mean and std.

  Args:
    num_samples: S; None for exact moments, whose transform is uniform.
    num_bins: bins of [0, 1] of equal width.

  Returns:
    [num_bins], of sum 1; for one draw, which has no std, half at either end.
  """
  edges = np.linspace(0., 1., num_bins + 1)
  if num_samples is None:
    return np.diff(edges)
  if num_samples == 1:
    below = np.where(edges < 1., 0.5, 1.)
    below[0] = 0.
    return np.diff(below)
  s = float(num_samples)
  return np.diff(special.stdtr(
      s - 1., np.sqrt((s - 1.) / (s + 1.)) * special.ndtri(edges)))
