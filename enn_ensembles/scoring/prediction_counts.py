"""Counts of predictions, few enough to be kept in a row.

Rows hold no predictions. Reliability diagrams, histograms of the mutual
information and of the probability integral transform, and matrices of how alike
members are need no more than these counts, by the name of the set that they are
of. Of classifiers:

  bin_count, bin_confidence, bin_correct   of `categorical.confidence_bins`
  mi_count                                 of `count_information`
  disagreement, jensen_shannon             of `compare_members`

Of regression on a function f that is known at the test points:

  pit_count                                of `count_transform`

Counts and sums of several sets of points add up to those of all points.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import distribution_scores
from enn_ensembles.scoring import diversity

# Edges of the bins of the mutual information, in nats: four a decade. What is
# below the first or above the last has a bin as well.
MI_EDGES = tuple(float(edge) for edge in 10.**np.arange(-6., 0.51, 0.25))

MAX_MEMBERS = 16  # Of a matrix: the first so many members.

NUM_PIT_BINS = 20  # Of equal width.

MATRICES = ('disagreement', 'jensen_shannon', 'weight_cosine')

Counts = dict[str, Any]  # Lists of numbers, or of lists, by name.


def count_bins(log_probs: np.ndarray, labels: np.ndarray) -> Counts:
  """Counts and sums of the bins of the confidence.

  Args:
    log_probs: of the mean prediction, [N, C].
    labels: integers [N].
  """
  found = categorical.confidence_bins(log_probs, labels, categorical.NUM_BINS)
  return {f'bin_{name}': values.tolist()
          for name, values in dataclasses.asdict(found).items()}


def count_information(epistemic: np.ndarray) -> Counts:
  """How many points [N] have a mutual information between two `MI_EDGES`."""
  places = np.searchsorted(MI_EDGES, epistemic, side='right')
  return {'mi_count': np.bincount(places,
                                  minlength=len(MI_EDGES) + 1).tolist()}


def count_transform(values: np.ndarray, mean: np.ndarray,
                    std: np.ndarray) -> Counts:
  """Counts of the probability integral transform of f by N(mean, std^2).

  Args:
    values: f at the test points, [N].
    mean: what the agent predicts there, [N].
    std: its std there, [N].

  Returns:
    'pit_count', [NUM_PIT_BINS] integers; nothing if a moment is not finite.
  """
  if not (np.isfinite(mean).all() and np.isfinite(std).all()):
    return {}
  return {'pit_count': distribution_scores.pit_counts(
      values, mean, std, NUM_PIT_BINS).tolist()}


def compare_members(log_probs: np.ndarray) -> Counts:
  """How different members are, as matrices [K, K] with zeros on the diagonal.

  Args:
    log_probs: [K, N, C]; of more than `MAX_MEMBERS` the first are compared.

  Returns:
    'disagreement', the share of points where two members predict different
    classes, and 'jensen_shannon', the mean over points of the Jensen-Shannon
    divergence of their probabilities in nats; nothing for one member.
  """
  log_probs = log_probs[:MAX_MEMBERS]
  if len(log_probs) < 2:
    return {}
  classes = log_probs.argmax(axis=-1)
  found = {name: np.zeros([len(log_probs)] * 2) for name in MATRICES[:2]}
  for i, j in diversity.member_pairs(len(log_probs)):
    pair = categorical.uncertainties(log_probs[[i, j]])
    for name, value in (('disagreement', np.mean(classes[i] != classes[j])),
                        ('jensen_shannon', pair.epistemic.mean())):
      found[name][i, j] = found[name][j, i] = value
  return {name: matrix.tolist() for name, matrix in found.items()}


def add(parts: Sequence[Mapping[str, Any]]) -> Counts:
  """Counts of all points of several sets; of no set nothing."""
  if not parts or not all(parts):  # One is not finite.
    return {}
  return {name: np.sum([part[name] for part in parts], axis=0).tolist()
          for name in parts[0]}
