"""How much each member of a finite ensemble counts: one entry per rule.

A prior that is a mixture of point masses on the members, sum_m w_m
delta(theta_m), has the posterior weights

  v_m = w_m p(D | theta_m) / sum_j w_j p(D | theta_j)

and the evidence sum_m w_m p(D | theta_m), which is at most the largest
likelihood: it is an average of likelihoods. The weights that maximise it are
those on the maximisers alone, and for those prior and posterior are the same
(empirical Bayes with a prior that is not restricted; Loaiza-Ganem, Villecroze &
Wang 2025, "Deep Ensembles Secretly Perform Empirical Bayes", arXiv 2501.17917).

EM of such weights (`maximise_mixture`) takes log densities of N independent
observations. The data set as a whole is one observation: that is empirical
Bayes, whose step puts the posterior in place of the prior. Held-out points are
N observations: that is stacking (Wolpert 1992, "Stacked generalization",
Neural Networks 5; of densities Yao et al. 2018, arXiv 1704.02030).

All of it is numpy and float64, on logarithms: likelihoods of data sets
underflow. Weights are [K], not negative, and sum to 1.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np
from scipy import special

# Powers of the likelihood between uniform weights (0) and the posterior's (1).
TEMPERS = (0.0001, 0.001, 0.01, 0.1, 0.3)

_MAX_EM_STEPS = 2000
_EM_TOLERANCE = 1e-6  # Nats per observation that the maximum is off, at most.


def uniform_weights(num_members: int) -> np.ndarray:
  """1 / K for each of K members."""
  return np.full(num_members, 1. / num_members)


def log_evidence(log_likelihoods: np.ndarray, weights: np.ndarray) -> float:
  """log sum_m w_m p(D | theta_m) in nats, from log p(D | theta_m) [K]."""
  return float(mixture_log_densities(log_likelihoods[:, None], weights)[0])


def posterior_weights(log_likelihoods: np.ndarray,
                      prior_weights: np.ndarray | None = None,
                      power: float = 1.) -> np.ndarray:
  """Weights of members after the data.

  Args:
    log_likelihoods: log p(D | theta_m), [K].
    prior_weights: w, [K]; None for uniform ones.
    power: of the likelihood: 1 is Bayes, less is tempered, 0 is the prior.

  Returns:
    w_m p(D | theta_m)^power, normalised, [K].
  """
  if prior_weights is None:
    prior_weights = uniform_weights(len(log_likelihoods))
  return special.softmax(
      _log(prior_weights) + power * np.asarray(log_likelihoods, np.float64))


def mixture_log_densities(log_densities: np.ndarray,
                          weights: np.ndarray) -> np.ndarray:
  """log sum_m w_m p_m(y_n), [...], from log p_m(y_n) [K, ...]."""
  weights = np.reshape(weights, [-1, *(1,) * (np.ndim(log_densities) - 1)])
  return special.logsumexp(log_densities + _log(weights), axis=0)


def _log(weights: np.ndarray) -> np.ndarray:
  """Logarithms of weights, which may be 0."""
  with np.errstate(divide='ignore'):
    return np.log(weights)


class Mixture(NamedTuple):
  """Weights of maximal likelihood, and how they were reached.

  Attributes:
    weights: [K].
    log_likelihoods: mean over observations of the mixture's log density before
      the first step and after each, [steps + 1].
    gap: bound of how far the last is below the maximum, nats per observation.
  """
  weights: np.ndarray
  log_likelihoods: np.ndarray
  gap: float


def maximise_mixture(log_densities: np.ndarray,
                     weights: np.ndarray | None = None,
                     max_steps: int = _MAX_EM_STEPS,
                     tolerance: float = _EM_TOLERANCE) -> Mixture:
  """EM over the weights of a mixture whose components are fixed.

  A step puts the mean over observations of the posterior weights in place of
  the weights, and never lowers the likelihood (Dempster, Laird & Rubin 1977).
  The objective is concave in the weights; by Jensen's inequality the maximum is
  at most max_m mean_n p_m(y_n) / p(y_n) - 1 nats per observation above.

  Args:
    log_densities: log p_m(y_n), [K, N].
    weights: to start from, [K], all > 0; None for uniform ones.
    max_steps: steps at most.
    tolerance: the gap at which it stops.
  """
  log_densities = np.asarray(log_densities, np.float64)
  if weights is None:
    weights = uniform_weights(len(log_densities))
  found, gap = [], np.inf
  for step in range(max_steps + 1):
    mixture = mixture_log_densities(log_densities, weights)
    found.append(float(mixture.mean()))
    with np.errstate(over='ignore'):  # An infinite ratio is no small gap.
      ratios = np.exp(log_densities - mixture)
      gap = float(ratios.mean(axis=1).max() - 1.)
    if gap <= tolerance or step == max_steps:
      break
    # w_m p_m / p from logarithms: the ratio alone may be infinite.
    weights = np.asarray(np.exp(_log(weights)[:, None] + log_densities
                                - mixture).mean(axis=1))
    weights /= np.sum(weights)  # Of rounding.
  return Mixture(weights, np.asarray(found), gap)


def effective_sample_size(weights: np.ndarray) -> float:
  """1 / sum_m w_m^2 of weights [K]: K if uniform, 1 if one member has all."""
  return float(1. / np.sum(np.square(weights)))


def weighted_moments(samples: np.ndarray,
                     weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and std [...] of members [K, ...] under weights, float64.

  Uniform weights give the mean and the std with ddof=0.
  """
  samples = np.asarray(samples, np.float64)
  mean = np.tensordot(weights, samples, 1)
  variance = np.tensordot(weights, np.square(samples - mean), 1)
  return mean, np.sqrt(variance)


class Rule(NamedTuple):
  """A weighting rule.

  Attributes:
    meaning: a sentence.
    weigh: (log p(D | theta_m) [K], log densities of held-out labels [K, N]) ->
      weights [K]. It reads one of the two; the other may be None.
    reads_held_out: whether that is the held-out labels, which no other agent
      learns from.
  """
  meaning: str
  weigh: Callable[[Any, Any], np.ndarray]
  reads_held_out: bool = False


def _tempered(power: float) -> Rule:
  return Rule(f'likelihood of the training set to the power {power:g}',
              lambda log_likelihoods, _: posterior_weights(
                  log_likelihoods, power=power))


RULES: Mapping[str, Rule] = {
    'uniform': Rule('all members count the same',
                    lambda log_likelihoods, _: uniform_weights(
                        len(log_likelihoods))),
    **{f'tempered_{power:g}': _tempered(power) for power in TEMPERS},
    'posterior': Rule("the posterior's weights under a uniform prior over "
                      'members', lambda log_likelihoods, _: posterior_weights(
                          log_likelihoods)),
    'em': Rule('weights of maximal evidence, by EM',
               lambda log_likelihoods, _: maximise_mixture(
                   log_likelihoods[:, None]).weights),
    'stacking': Rule('weights of maximal likelihood of held-out labels, by EM',
                     lambda _, held_out: maximise_mixture(held_out).weights,
                     reads_held_out=True),
}
