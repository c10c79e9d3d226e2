"""From the log densities of an ensemble's members to lines of tables.

Pure numpy: whatever gave the predictions, and whatever the likelihood is.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from enn_ensembles.scoring import weighting

Score = Callable[[np.ndarray], Mapping[str, float]]

_LOG_2_PI = float(np.log(2. * np.pi))


def gaussian_bound(num_labels: int, noise_std: float) -> float:
  """The log likelihood of functions through all labels: no other has more."""
  return -num_labels * (0.5 * _LOG_2_PI + float(np.log(noise_std)))


@dataclasses.dataclass(frozen=True, eq=False)
class Members:
  """What the members of an ensemble say of a problem.

  Attributes:
    train: log densities of training labels, [K, T] float64.
    held_out: of labels that training did not see, for stacking, [K, V].
    bound: what log p(D | theta) cannot exceed: the data interpolated.
    score: members [P] -> (weights [P] -> scores by name).
  """
  train: np.ndarray
  held_out: np.ndarray
  bound: float
  score: Callable[[np.ndarray], Score]

  @property
  def is_finite(self) -> bool:
    """Whether training did not diverge."""
    return bool(np.isfinite(self.train).all()
                and np.isfinite(self.held_out).all())


def describe(members: Members, num_members: int) -> dict[str, Any]:
  """How far the first members are from a tie, and from the maximum.

  Returns:
    log_likelihood_max, _mean: of log p(D | theta_m) over members, nats.
    spread_range, spread_std: largest less smallest, and std (ddof=0).
    distance_best, distance_mean: to the bound, nats.
    evidence_uniform: log evidence of the uniform prior over the members.
    evidence_learnt: after EM over the weights.
    evidence_excess: of the former above the largest likelihood: not above 0.
    em_gap: bound of what EM left below the maximum.
    em_largest_fall: largest fall of the evidence in a step of EM: 0.
    ess, ess_share: of the posterior's weights; its share of K.
  """
  likelihoods = members.train[:num_members].sum(axis=1)
  uniform = weighting.uniform_weights(num_members)
  posterior = weighting.posterior_weights(likelihoods)
  em = weighting.maximise_mixture(likelihoods[:, None])
  highest, mean = float(likelihoods.max()), float(likelihoods.mean())
  evidence = weighting.log_evidence(likelihoods, uniform)
  ess = weighting.effective_sample_size(posterior)
  return {
      'log_likelihood_max': highest, 'log_likelihood_mean': mean,
      'spread_range': highest - float(likelihoods.min()),
      'spread_std': float(likelihoods.std()),
      'distance_best': members.bound - highest,
      'distance_mean': members.bound - mean,
      'evidence_uniform': evidence,
      'evidence_learnt': float(em.log_likelihoods[-1]),
      'evidence_excess': max(evidence, float(em.log_likelihoods[-1])) - highest,
      'em_gap': em.gap,
      'em_largest_fall': float(max(0., -np.diff(em.log_likelihoods).min(
          initial=0.))),
      'ess': ess, 'ess_share': ess / num_members}


def weigh(members: Members, num_members: int,
          rules: Sequence[str]) -> list[dict[str, Any]]:
  """Scores of the first members under each rule, and the mean member's.

  Returns:
    A line per rule: rule, ess and the scores. The rule 'single' is the mean of
    the members' own scores.
  """
  first = np.arange(num_members)
  likelihoods = members.train[:num_members].sum(axis=1)
  score, lines = members.score(first), []
  for rule in rules:
    weights = weighting.RULES[rule].weigh(likelihoods,
                                          members.held_out[:num_members])
    lines.append({'rule': rule,
                  'ess': weighting.effective_sample_size(weights),
                  **score(weights)})
  singles = [score(one) for one in np.eye(num_members)]
  lines.append({'rule': 'single', 'ess': 1., **{
      name: float(np.mean([one[name] for one in singles]))
      for name in singles[0]}})
  return lines
