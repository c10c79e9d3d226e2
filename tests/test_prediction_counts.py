"""Counts of predictions against slow definitions, and what adds up."""

import numpy as np
import pytest

from enn_ensembles.results import counts
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import classification_scores
from enn_ensembles.scoring import prediction_counts

RNG = np.random.default_rng(3)
LOGITS = 2. * RNG.normal(size=(3, 50, 4))
LABELS = RNG.integers(0, 4, 50)
LOG_PROBS = categorical.log_softmax(LOGITS)


def test_bins_of_the_confidence():
  mean = categorical.mean_log_probs(LOG_PROBS)
  found = prediction_counts.count_bins(mean, LABELS)
  expected = {name: [0.] * 15 for name in found}
  for row, label in zip(np.exp(mean), LABELS):
    bin_ = int(np.ceil(row.max() * 15)) - 1
    expected['bin_count'][bin_] += 1
    expected['bin_confidence'][bin_] += row.max()
    expected['bin_correct'][bin_] += row.argmax() == label
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values)
  gaps = np.subtract(found['bin_correct'], found['bin_confidence'])
  np.testing.assert_allclose(np.abs(gaps).sum() / 50,
                             categorical.calibration_error(mean, LABELS))


def test_histogram_of_the_information():
  edges = prediction_counts.MI_EDGES
  values = np.array([0., edges[0], edges[3] * 1.01, edges[3] * 1.02, 10.])
  counts = prediction_counts.count_information(values)['mi_count']
  assert len(counts) == len(edges) + 1 and sum(counts) == 5
  assert (counts[0], counts[1], counts[4], counts[-1]) == (1, 1, 2, 1)


def test_matrices_of_members():
  found = prediction_counts.compare_members(LOG_PROBS)
  p, q = np.exp(LOG_PROBS[0]), np.exp(LOG_PROBS[2])
  middle = (p + q) / 2.
  expected = 0.5 * np.mean(np.sum(p * np.log(p / middle)
                                  + q * np.log(q / middle), axis=1))
  for i, j in ((0, 2), (2, 0)):
    np.testing.assert_allclose(found['jensen_shannon'][i][j], expected)
    np.testing.assert_allclose(
        found['disagreement'][i][j],
        np.mean(LOGITS[0].argmax(1) != LOGITS[2].argmax(1)))
  assert all(np.diag(matrix).tolist() == [0.] * 3 for matrix in found.values())
  # The mean over pairs is the score of the same name.
  pairs = np.triu_indices(3, 1)
  np.testing.assert_allclose(
      np.array(found['disagreement'])[pairs].mean(),
      classification_scores.score_test(LOGITS, LABELS)['disagreement'])
  assert not prediction_counts.compare_members(LOG_PROBS[:1])


def test_counts_of_sets_add_up():
  def count(rows):
    return classification_scores.Points(LOGITS[:, rows]).count(LABELS[rows])

  whole = count(slice(None))
  together = prediction_counts.add([count(slice(20)), count(slice(20, None))])
  for name, values in whole.items():
    np.testing.assert_allclose(together[name], values)
  assert not prediction_counts.add([])


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_what_is_not_finite_has_no_counts(value):
  logits = LOGITS.copy()
  logits[0, 0, 0] = value
  points = classification_scores.Points(logits)
  assert not points.count(LABELS) and not points.compare()
  assert not prediction_counts.add([whole_counts(), {}])


def whole_counts():
  return classification_scores.Points(LOGITS).count(LABELS)


def test_rows_may_have_all_counts_that_there_are():
  log_probs = np.log(np.full((2, 5, 3), 1. / 3.))
  made = [prediction_counts.count_bins(log_probs[0], np.zeros(5, int)),
          prediction_counts.count_information(np.ones(5)),
          prediction_counts.compare_members(log_probs),
          prediction_counts.count_transform(np.zeros(5), np.zeros(5),
                                            np.ones(5))]
  functions = [name for name in vars(prediction_counts)
               if name.startswith(('count_', 'compare_'))]
  assert len(functions) == len(made)  # Of a new one here is an example too.
  counts.check_counts({'test': {
      name: values for part in made for name, values in part.items()}}, 'row')
