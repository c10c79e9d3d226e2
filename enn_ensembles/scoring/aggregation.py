"""How the members of an ensemble are made one prediction: one entry per rule.

What the ensemble predicts depends on the rule; what its members disagree about
does not. So scores of predictions (accuracy, NLL, KL, ...) are those of the
rule, and total, aleatoric and epistemic uncertainty stay those of the members,
with the weights that they have.

All of it is numpy and float64. Weights are [J], not negative, and sum to 1;
None counts all members alike.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles import base
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import distribution_scores
from enn_ensembles.scoring import weighting


class Rule(NamedTuple):
  """A rule of aggregation.

  Attributes:
    meaning: a sentence; tables show it.
    of_classes: (log probabilities [J, N, C], weights) -> log probabilities
      [N, C]; None where the rule is not for classes.
    of_values: (samples [J, N], weights) -> what is predicted [N]; None where
      the rule is not for numbers.
    takes_weights: whether members may count differently.
  """
  meaning: str
  of_classes: Callable[..., np.ndarray] | None = None
  of_values: Callable[..., np.ndarray] | None = None
  takes_weights: bool = False


def _mean_logits(log_probs: np.ndarray, weights: None) -> np.ndarray:
  del weights
  # Logits and log probabilities differ by a constant per member and point.
  return categorical.log_softmax(np.mean(log_probs, axis=0))


def _vote(log_probs: np.ndarray, weights: None) -> np.ndarray:
  del weights
  num_members, _, num_classes = log_probs.shape
  votes = count_votes(log_probs.argmax(axis=-1), num_classes)
  with np.errstate(divide='ignore'):
    log_votes = np.log(votes)
  # As logarithms, since a mean probability may be below the smallest number.
  return np.logaddexp(log_votes, categorical.mean_log_probs(log_probs)
                      ) - np.log(num_members + 1.)


RULES: Mapping[str, Rule] = {
    'mean': Rule('mean of probabilities, or of values',
                 categorical.mean_log_probs,
                 lambda samples, weights: np.average(samples, axis=0,
                                                     weights=weights),
                 takes_weights=True),
    'mean_logits': Rule('mean of logits: the geometric mean of probabilities, '
                        'normalised', _mean_logits),
    # One more vote of J + 1 is shared out by the mean probabilities: it decides
    # ties, never turns a majority, and leaves no class a probability of 0.
    'vote': Rule("majority vote, ties by the mean probability; a class's "
                 'probability is its share of the votes and of one more, which '
                 'is shared out by the mean probabilities', _vote),
    'median': Rule('median of values; their std stays that of all members',
                   None, lambda samples, weights: np.median(samples, axis=0)),
}


def count_votes(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """How many members [J] choose each class at each point, int [N, C].

  Args:
    labels: the class that each member chooses, [J, N].
    num_classes: C.
  """
  return np.sum(labels[..., None] == np.arange(num_classes), axis=0)


def variation_ratio(log_probs: np.ndarray) -> np.ndarray:
  """Share of members that do not choose the class with most votes, [N].

  Freeman 1965, "Elementary applied statistics". It is 0 where all agree.

  Args:
    log_probs: [J, N, C].
  """
  votes = count_votes(log_probs.argmax(axis=-1), log_probs.shape[-1])
  return 1. - votes.max(axis=-1) / len(log_probs)


class Aggregation(NamedTuple):
  """A rule, and how much each member counts.

  Attributes:
    rule: a key of RULES.
    weights: [J]; None for all alike.
  """
  rule: str = 'mean'
  weights: np.ndarray | None = None

  @classmethod
  def of(cls, predictions: base.Predictions) -> 'Aggregation':
    """That of predictions.

    Raises:
      ValueError: their weights do not fit their samples.
    """
    weights = predictions.weights
    if weights is not None:
      weights = np.asarray(weights, np.float64)
      if weights.shape != (predictions.num_samples,) or not (
          RULES[predictions.aggregation].takes_weights):
        raise ValueError(
            f'weights must be None or one per draw, [{predictions.num_samples}]'
            f', and go with a mean; got shape {weights.shape} with aggregation '
            f'{predictions.aggregation!r}.')
    return cls(predictions.aggregation, weights)

  def classes(self, log_probs: np.ndarray) -> np.ndarray:
    """What members [J, N, C] predict together, log probabilities [N, C].

    Raises:
      ValueError: the rule is not for classes.
    """
    return self._rule('of_classes')(log_probs, self.weights)

  def values(self, samples: np.ndarray) -> np.ndarray:
    """What members [J, N] predict together, [N].

    Raises:
      ValueError: the rule is not for numbers.
    """
    return self._rule('of_values')(np.asarray(samples, np.float64),
                                   self.weights)

  def _rule(self, part: str) -> Callable[..., np.ndarray]:
    found = getattr(RULES[self.rule], part)
    if found is None:
      raise ValueError(f'aggregation must be one of '
                       f'{", ".join(rules_for(part))} here, got {self.rule!r}.')
    return found


MEAN = Aggregation()


def rules_for(part: str) -> list[str]:
  """The rules that have 'of_classes', or 'of_values'."""
  return [name for name, rule in RULES.items() if getattr(rule, part)]


def log_densities(likelihood: base.Likelihood, predictions: base.Predictions,
                  labels: Any) -> np.ndarray:
  """log p(label | member) of each member and label, float64 [J, N], in nats.

  Args:
    likelihood: how labels come from f. The noise of a Gaussian one is what the
      members say of it, or else its own.
    predictions: of members, at the labels' points.
    labels: [N] classes, or [N, out] numbers.

  Raises:
    ValueError: nobody says what the noise is, or there are no members.
  """
  if predictions.samples is None:
    raise ValueError('log densities need predictions of members, got exact '
                     'moments.')
  labels = np.asarray(labels)
  if isinstance(likelihood, base.Categorical):
    return categorical.label_log_probs(
        categorical.log_softmax(predictions.samples), labels)
  std = likelihood.noise_std
  if predictions.observation_variances is not None:
    std = np.sqrt(np.asarray(predictions.observation_variances, np.float64))
  elif std is None or callable(std):
    raise ValueError('log densities need a noise_std that is a number, or '
                     f'members that say what the noise is; got {std!r}.')
  samples = np.asarray(predictions.samples, np.float64)
  return -distribution_scores.log_score(labels, samples, std).sum(axis=-1)


def weigh_members(problem: Any, predict: base.Predict,
                  rule: str) -> np.ndarray:
  """Weights of members [J] by a rule of `weighting.RULES`.

  Args:
    problem: its training data are D; its validation data are held out.
    predict: predictions of all members.
    rule: its name.

  Raises:
    ValueError: likelihoods are not known, or the rule reads validation data
      that the problem does not have.
  """
  data, found = problem.data, weighting.RULES[rule]
  if found.reads_held_out:
    data = problem.validation
    if data is None:
      raise ValueError(f'weights by {rule} need validation data, which problem '
                       f'{problem.problem_id} has not.')
  densities = log_densities(problem.prior.likelihood, predict(data.x), data.y)
  if found.reads_held_out:
    return found.weigh(None, densities)
  return found.weigh(densities.sum(axis=1), None)
