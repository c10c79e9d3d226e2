"""Which uncertainty is whose, where the truth of both parts is known.

An agent that says what the noise of a label is splits the variance of a label
(law of total variance; Depeweg et al. 2018, arXiv 1710.07283):

  aleatoric = mean over members of sigma_m(x)^2,
  epistemic = variance over members of mu_m(x).

On the testbed both have a truth: the noise variance epsilon(x)^2 that made the
labels, and the variance of the exact posterior of f. Stds are compared by their
logarithms, after the ridge that all scores of stds have.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from enn_ensembles import base
from enn_ensembles.scoring import distribution_scores
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import weighting

# Relative spread of true stds below which there is nothing to correlate with.
_SMALLEST_SPREAD = 1e-6


class VarianceSplit(NamedTuple):
  """Variances of a label at each point, [N] each.

  Attributes:
    total: of the mixture of members.
    aleatoric: mean over members of the noise variance that they say.
    epistemic: variance over members of the mean that they say.
  """
  total: np.ndarray
  aleatoric: np.ndarray
  epistemic: np.ndarray


def split_variance(samples: np.ndarray, observation_variances: np.ndarray,
                   weights: np.ndarray | None = None) -> VarianceSplit:
  """The law of total variance over members.

  Args:
    samples: means, [J, N, 1].
    observation_variances: noise variances, [J, N, 1].
    weights: how much each member counts, [J], of sum 1; None for all alike.
  """
  aleatoric = np.average(np.asarray(observation_variances, np.float64)[..., 0],
                         axis=0, weights=weights)
  _, std = gaussian.prediction_moments(
      base.Predictions(samples, weights=weights))
  return VarianceSplit(aleatoric + std**2, aleatoric, std**2)


def epistemic_floor(num_samples: int) -> float:
  """The epistemic error of S draws of the exact posterior itself.

  Their std (ddof=0) over the posterior's is chi / sqrt(S) with S - 1 degrees of
  freedom. Its logarithm has the mean (digamma((S-1)/2) + log(2/S)) / 2 and the
  variance trigamma((S-1)/2) / 4; the floor is the root of their mean square.

  Args:
    num_samples: S; infinite for one draw.
  """
  if num_samples < 2:
    return float('inf')
  half = (num_samples - 1) / 2.
  mean = 0.5 * (special.digamma(half) + np.log(2. / num_samples))
  return float(np.sqrt(mean**2 + 0.25 * special.polygamma(1, half)))


def split_scores(predictions: base.Predictions, noise_std: np.ndarray,
                 true_std: np.ndarray,
                 labels: np.ndarray | None) -> dict[str, float]:
  """Each part of an agent's variance against its truth, scores by name.

  Args:
    predictions: of members that say what the noise is, at N points.
    noise_std: epsilon(x), [N]; or a number where it is the same everywhere.
    true_std: of the exact posterior of f, [N].
    labels: [N]; None where there are none.

  Returns:
    aleatoric_error, epistemic_error: RMSE of the logarithm of the std.
    epistemic_error_floor: what draws of the exact posterior would have.
    aleatoric_ratio, epistemic_ratio: geometric mean of std / true std.
    aleatoric_correlation, epistemic_correlation: of log stds with true ones,
      over points; left out where one of them does not vary.
    split_correlation: of the two parts of the agent.
    split_correlation_exact: of the two true parts.
    mixture_nll: of labels under the mixture of the members' Gaussians.
  """
  assert predictions.samples is not None
  assert predictions.observation_variances is not None
  found = split_variance(predictions.samples, predictions.observation_variances,
                         predictions.weights)
  noise_std = np.broadcast_to(noise_std, true_std.shape)
  logs = {
      part: np.log(std + gaussian.STD_RIDGE) for part, std in (
          ('aleatoric', np.sqrt(found.aleatoric)),
          ('epistemic', np.sqrt(found.epistemic)),
          ('noise', noise_std), ('posterior', true_std))}
  scores = {}
  for part, truth in (('aleatoric', 'noise'), ('epistemic', 'posterior')):
    difference = logs[part] - logs[truth]
    scores[f'{part}_error'] = np.sqrt(np.mean(difference**2))
    scores[f'{part}_ratio'] = np.exp(np.mean(difference))
    scores[f'{part}_correlation'] = _correlation(logs[part], logs[truth])
  scores['epistemic_error_floor'] = epistemic_floor(len(predictions.samples))
  scores['split_correlation'] = _correlation(logs['aleatoric'],
                                             logs['epistemic'])
  scores['split_correlation_exact'] = _correlation(logs['noise'],
                                                   logs['posterior'])
  if labels is not None:
    scores['mixture_nll'] = mixture_nll(predictions, labels)
  return {name: float(value) for name, value in scores.items()
          if value is not None}


def mixture_nll(predictions: base.Predictions, labels: np.ndarray) -> float:
  """-log density of labels [N] under the mixture of members, mean, nats."""
  assert predictions.samples is not None
  samples, variances = (
      np.asarray(part, np.float64)[..., 0]
      for part in (predictions.samples, predictions.observation_variances))
  log_densities = -distribution_scores.log_score(labels, samples,
                                                 np.sqrt(variances))
  weights = predictions.weights
  if weights is None:
    weights = weighting.uniform_weights(len(samples))
  return float(-weighting.mixture_log_densities(log_densities, weights).mean())


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
  """Pearson's; None where one of them does not vary."""
  if min(a.std(), b.std()) < _SMALLEST_SPREAD:
    return None
  return float(np.corrcoef(a, b)[0, 1])
