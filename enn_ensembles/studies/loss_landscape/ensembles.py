"""Scores by ensemble size: inits, snapshots, averaged weights, subspaces."""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses

import numpy as np
import pandas as pd

from enn_ensembles.problems import image_classification
from enn_ensembles.scoring import categorical
from enn_ensembles.studies.loss_landscape import formulas
from enn_ensembles.studies.loss_landscape import samplers
from enn_ensembles.studies.loss_landscape import settings as settings_lib
from enn_ensembles.studies.loss_landscape import subspaces
from enn_ensembles.studies.loss_landscape import trajectories

SCORES = ('accuracy', 'nll', 'brier', 'ece')
SINGLE, DEEP = 'single', 'inits'
_SUBSET_SEED = 1


def together(sampler: str) -> str:
  """What inits whose members are subspace ensembles are called."""
  return f'inits+{sampler}'


def scores_of(log_probs: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
  """`SCORES` of log probabilities [N, C]."""
  return (categorical.accuracy(log_probs, labels),
          categorical.nll(log_probs, labels),
          categorical.brier(log_probs, labels),
          categorical.calibration_error(log_probs, labels))


def _row(method: str, size: int, ensembles: Iterable[np.ndarray],
         labels: np.ndarray) -> dict[str, float | int | str]:
  """A row of the table from the log probabilities of several ensembles."""
  values = np.array([scores_of(one, labels) for one in ensembles])
  row = {'method': method, 'size': size, 'num_ensembles': len(values)}
  for name, column in zip(SCORES, values.T):
    row[name] = float(column.mean())
    row[f'{name}_std'] = (float(column.std(ddof=1)) if len(column) > 1
                          else float('nan'))
  return row


@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleScores:
  """Scores by size, and what verdicts compare.

  Attributes:
    curves: a row per method and size: method, size, num_ensembles, and mean and
      std over these of each score.
    per_image: method -> {'accuracy': [N], 'nll': [N]} of the largest ensemble,
      averaged over the solutions that it is made around.
    num_accurate: random directions that reach the accuracy asked for, of all
      runs together.
    samples: sampler -> weights [num_samples, M] around the first solution.
  """
  curves: pd.DataFrame
  per_image: dict[str, dict[str, np.ndarray]]
  num_accurate: int
  samples: dict[str, np.ndarray]


def _per_image(ensembles: Sequence[np.ndarray],
               labels: np.ndarray) -> dict[str, np.ndarray]:
  """Correctness and negative log probability of each image, means [N]."""
  return {
      'accuracy': np.mean([one.argmax(axis=-1) == labels
                           for one in ensembles], axis=0),
      'nll': -np.mean([categorical.label_log_probs(one, labels)
                       for one in ensembles], axis=0)}


def score_ensembles(settings: settings_lib.LandscapeSettings,
                    problem: image_classification.ImageClassificationProblem,
                    forward: trajectories.Forward,
                    runs: Sequence[trajectories.Run]) -> EnsembleScores:
  """All ensembles of the study on the test images.

  Methods: 'inits' are ensembles of runs; 'snapshots' the last epochs of one
  run; 'averaged_snapshots' the one network with the mean of their weights;
  'averaged_inits' the one with the mean of several runs' weights; samplers the
  subspace ensembles around one run's solution; 'inits+sampler' several runs,
  each with its whole subspace ensemble. Probabilities are averaged.
  """
  labels, x_test = problem.test.labels, problem.x_test
  rng = np.random.default_rng([settings.training.seed, _SUBSET_SEED])
  num_runs = len(runs)
  chosen = {size: formulas.subsets(num_runs, size, settings.num_subsets, rng)
            for size in range(1, num_runs + 1)}
  rows = []

  def add_subsets(method: str, members: np.ndarray) -> None:
    for size, subsets in chosen.items():
      rows.append(_row(method, size, (
          categorical.mean_log_probs(members[list(subset)])
          for subset in subsets), labels))

  finals = np.stack([run.log_probs[-1] for run in runs])
  add_subsets(DEEP, finals)
  per_image = {
      SINGLE: _per_image(finals, labels),
      DEEP: _per_image([categorical.mean_log_probs(finals)], labels)}

  lasts = [run.log_probs[-settings.num_last:][::-1] for run in runs]
  for size in range(1, settings.num_last + 1):
    rows.append(_row('snapshots', size, (
        categorical.mean_log_probs(last[:size]) for last in lasts), labels))
  per_image['snapshots'] = _per_image(
      [categorical.mean_log_probs(last) for last in lasts], labels)
  for size in range(1, settings.num_last + 1):
    means = np.stack([run.weights[-size:].mean(axis=0, dtype=np.float64)
                      for run in runs])
    rows.append(_row('averaged_snapshots', size,
                     forward.log_probs(means, x_test), labels))
  solutions = np.stack([run.solution for run in runs])
  for size, subsets in chosen.items():
    few = subsets[:num_runs]
    rows.append(_row('averaged_inits', size, forward.log_probs(
        formulas.mean_over_subsets(solutions, few), x_test), labels))

  curves = {name: [] for name in samplers.SAMPLERS}
  num_accurate, first = 0, {}
  for number, run in enumerate(runs):
    drawn, num = subspaces.ensemble_samples(settings, problem, forward, run,
                                            number)
    num_accurate += num
    first = first or drawn
    for name, vectors in drawn.items():
      curves[name].append(subspaces.running_mean_log_probs(
          forward.log_probs(vectors, x_test)).astype(np.float32))
  for name, per_run in curves.items():
    for size in range(1, settings.num_samples + 1):
      rows.append(_row(name, size, (
          curve[size - 1].astype(np.float64) for curve in per_run), labels))
    wholes = np.stack([curve[-1] for curve in per_run]).astype(np.float64)
    per_image[name] = _per_image(wholes, labels)
    add_subsets(together(name), wholes)
    per_image[together(name)] = _per_image(
        [categorical.mean_log_probs(wholes)], labels)
  return EnsembleScores(pd.DataFrame(rows), per_image, num_accurate, first)
