"""Samples around the solutions of runs: for ensembles, and for the plane."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from enn_ensembles.problems import image_classification
from enn_ensembles.scoring import categorical
from enn_ensembles.studies.loss_landscape import formulas
from enn_ensembles.studies.loss_landscape import samplers
from enn_ensembles.studies.loss_landscape import settings as settings_lib
from enn_ensembles.studies.loss_landscape import trajectories

INITS = 'inits'  # What other runs are called in the plane.

# The use of a generator is part of its seed.
_ENSEMBLE_DRAWS, _PLANE_DRAWS = range(2)


def _generator(settings: settings_lib.LandscapeSettings, use: int, number: int,
               sampler: str) -> np.random.Generator:
  return np.random.default_rng([settings.training.seed, use, number,
                                samplers.SAMPLERS.index(sampler)])


def ensemble_samples(settings: settings_lib.LandscapeSettings,
                     problem: image_classification.ImageClassificationProblem,
                     forward: trajectories.Forward, run: trajectories.Run,
                     number: int) -> tuple[dict[str, np.ndarray], int]:
  """Weights of the subspace ensembles around the solution of one run.

  Args:
    settings: of the study.
    problem: its validation images judge random directions.
    forward: of its networks.
    run: the run.
    number: of the run, part of its draws' seed.

  Returns:
    sampler -> weights [num_samples, M]; and how many random directions reach
    the accuracy that was asked for.
  """
  num, solution = settings.num_samples, run.solution
  last = run.weights[-settings.num_last:].astype(np.float64)
  generators = {name: _generator(settings, _ENSEMBLE_DRAWS, number, name)
                for name in samplers.SAMPLERS}
  held_out = problem.validation
  assert held_out is not None  # The study has seen to it.

  def accuracy(vectors: np.ndarray) -> np.ndarray:
    labels = forward.logits(vectors, held_out.x).argmax(axis=-1)
    return np.mean(labels == held_out.y, axis=-1)

  least = float(accuracy(solution[None])[0]) - settings.accuracy_margin
  random, num_accurate = samplers.keep_accurate(
      lambda count: samplers.draw_random(
          solution, np.full(count, settings.random_scale),
          generators['random']),
      accuracy, num, least, settings.max_tries)
  rates = settings.dropout_scale * generators['dropout'].random(num)
  return {
      'random': random,
      'dropout': samplers.draw_dropout(solution, rates, generators['dropout']),
      'diagonal': samplers.draw_diagonal(
          last, np.full(num, settings.diagonal_scale), generators['diagonal']),
      'low_rank': samplers.draw_low_rank(
          last, np.full(num, settings.low_rank_scale),
          settings.low_rank_components, settings.pca_scale,
          generators['low_rank'])}, num_accurate


def plane_samples(settings: settings_lib.LandscapeSettings,
                  run: trajectories.Run,
                  number: int) -> dict[str, np.ndarray]:
  """Weights for the plane of diversity and accuracy, wider than ensembles'."""
  num, solution = settings.num_plane_samples, run.solution
  last = run.weights[-settings.num_last:].astype(np.float64)
  generators = {name: _generator(settings, _PLANE_DRAWS, number, name)
                for name in samplers.SAMPLERS}
  uniforms = {name: generators[name].random(num)
              for name in ('dropout', 'diagonal')}
  return {
      'random': samplers.draw_random(
          solution, np.full(num, settings.plane_random_scale),
          generators['random']),
      'dropout': samplers.draw_dropout(
          solution, settings.dropout_scale * uniforms['dropout'],
          generators['dropout']),
      'diagonal': samplers.draw_diagonal(
          last, settings.plane_diagonal_scale * uniforms['diagonal'],
          generators['diagonal']),
      'low_rank': samplers.draw_low_rank(
          last, np.full(num, settings.plane_low_rank_scale),
          settings.low_rank_components, settings.pca_scale,
          generators['low_rank'])}


def plane_table(settings: settings_lib.LandscapeSettings,
                problem: image_classification.ImageClassificationProblem,
                forward: trajectories.Forward,
                runs: Sequence[trajectories.Run]) -> pd.DataFrame:
  """Diversity and accuracy of samples and of other runs, around every run.

  Returns:
    A row per network: solution (number of the run), method ('inits', or a
    sampler), accuracy, solution_accuracy, disagreement, diversity, upper_limit,
    lower_limit.
  """
  labels, num_classes = problem.test.labels, problem.test.num_classes
  finals = np.stack([run.logits[-1].argmax(axis=-1) for run in runs])
  tables = []
  for number, run in enumerate(runs):
    solution = finals[number]
    solution_accuracy = float(np.mean(solution == labels))
    predicted = {INITS: np.delete(finals, number, axis=0)}
    for name, vectors in plane_samples(settings, run, number).items():
      predicted[name] = forward.logits(
          vectors, problem.x_test).argmax(axis=-1)
    for name, found in predicted.items():
      accuracy = np.mean(found == labels, axis=-1)
      tables.append(pd.DataFrame({
          'solution': number, 'method': name, 'accuracy': accuracy,
          'solution_accuracy': solution_accuracy,
          'disagreement': np.mean(found != solution, axis=-1),
          'diversity': formulas.diversity(found, solution, accuracy),
          'upper_limit': formulas.upper_limit(
              solution_accuracy, accuracy, num_classes),
          'lower_limit': formulas.lower_limit(
              solution_accuracy, accuracy, num_classes)}))
  return pd.concat(tables, ignore_index=True)


def limit_shares(table: pd.DataFrame, margin: float,
                 from_lower: bool = False) -> dict[str, np.ndarray]:
  """Diversity over its upper limit, mean over each solution's networks.

  Args:
    table: of `plane_table`.
    margin: networks count if their accuracy is at least the solution's less
      this margin.
    from_lower: whether both are measured from the lower limit, or from 0 where
      that is negative: 0 is then as diverse as a perturbed copy of the solution
      that is as accurate, 1 as an independent network.

  Returns:
    method -> [solutions]; nan where no network counts.
  """
  counts = table[table['accuracy'] >= table['solution_accuracy'] - margin]
  start = np.maximum(counts['lower_limit'], 0.) if from_lower else 0.
  counts = counts.assign(share=(counts['diversity'] - start)
                         / (counts['upper_limit'] - start))
  shares = counts.groupby(['method', 'solution'])['share'].agg('mean')
  solutions = sorted(table['solution'].unique())
  return {method: np.array([shares.get((method, solution), np.nan)
                            for solution in solutions])
          for method in table['method'].unique()}


def running_mean_log_probs(log_probs: np.ndarray) -> np.ndarray:
  """Log mean probabilities of the first 1, 2, ..., J networks, [J, N, C]."""
  return np.stack([categorical.mean_log_probs(log_probs[:size + 1])
                   for size in range(len(log_probs))])
