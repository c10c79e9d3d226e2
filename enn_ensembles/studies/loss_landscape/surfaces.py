"""Similarity along and across runs, loss along lines and in a plane."""

from collections.abc import Sequence
import dataclasses
import itertools

import numpy as np
import pandas as pd
from sklearn import decomposition
from sklearn import manifold

from enn_ensembles.problems import image_classification
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import diversity
from enn_ensembles.studies.loss_landscape import formulas
from enn_ensembles.studies.loss_landscape import settings as settings_lib
from enn_ensembles.studies.loss_landscape import trajectories

_TSNE_PERPLEXITY = 30.
_GRID_MARGIN = 0.35  # Of the triangle's extent, around it.


@dataclasses.dataclass(frozen=True, eq=False)
class Similarity:
  """How alike networks are, matrices [K, K].

  Attributes:
    cosine_kernels: of the weights without biases and norms.
    cosine_all: of all weights.
    disagreement: share of test images with different labels.
  """
  cosine_kernels: np.ndarray
  cosine_all: np.ndarray
  disagreement: np.ndarray


def similarity(forward: trajectories.Forward, weights: np.ndarray,
               logits: np.ndarray) -> Similarity:
  """Of networks with weights [K, M] and logits [K, N, C]."""
  return Similarity(
      diversity.cosine_matrix(weights[:, forward.kernel_entries]),
      diversity.cosine_matrix(weights),
      formulas.disagreement_matrix(logits.argmax(axis=-1)))


def embed(settings: settings_lib.LandscapeSettings,
          groups: Sequence[tuple[str, np.ndarray]]) -> pd.DataFrame:
  """Two components of the probabilities of networks, by t-SNE and by PCA.

  A network is one point: its probabilities at at most `num_embedded` test
  images, one after the other.

  Args:
    settings: of the study.
    groups: (name, log probabilities [K, N, C]).

  Returns:
    A row per network: group, number in it, tsne_x, tsne_y, pca_x, pca_y.
  """
  rows = trajectories.spread_rows(groups[0][1].shape[1], settings.num_embedded)
  points = np.concatenate([np.exp(values[:, rows]).reshape(len(values), -1)
                           for _, values in groups])
  perplexity = min(_TSNE_PERPLEXITY, (len(points) - 1) / 3)
  tsne = manifold.TSNE(2, perplexity=perplexity, init='pca', random_state=0
                       ).fit_transform(points)
  pca = decomposition.PCA(2, svd_solver='full').fit_transform(points)
  names = [(name, number) for name, values in groups
           for number in range(len(values))]
  return pd.DataFrame({
      'group': [name for name, _ in names],
      'number': [number for _, number in names],
      'tsne_x': tsne[:, 0], 'tsne_y': tsne[:, 1],
      'pca_x': pca[:, 0], 'pca_y': pca[:, 1]})


class _Images:
  """Training and test images that surfaces are made on."""

  def __init__(self, settings: settings_lib.LandscapeSettings,
               problem: image_classification.ImageClassificationProblem):
    most = settings.num_surface_images
    data = problem.data
    train = trajectories.spread_rows(len(data.x), most)
    test = trajectories.spread_rows(len(problem.x_test), most)
    self.sets = {'train': (data.x[train], data.y[train]),
                 'test': (problem.x_test[test], problem.test.labels[test])}


def line_table(settings: settings_lib.LandscapeSettings,
               problem: image_classification.ImageClassificationProblem,
               forward: trajectories.Forward,
               runs: Sequence[trajectories.Run]) -> pd.DataFrame:
  """Loss and accuracy along straight lines between weights.

  Lines: from the initial weights of the first run to its solution, and between
  the solutions of all pairs of whole runs.

  Returns:
    A row per line, set and position: line, images ('train' or 'test'),
    position, nll, accuracy, barrier (of the line and set).
  """
  whole = runs[:settings.num_trajectories]
  ends = {'init 0 - run 0': (whole[0].weights[0].astype(np.float64),
                             whole[0].solution)}
  for i, j in itertools.combinations(range(len(whole)), 2):
    ends[f'run {i} - run {j}'] = whole[i].solution, whole[j].solution
  positions = np.linspace(0., 1., settings.num_line_points)
  images, tables = _Images(settings, problem), []
  for line, (start, end) in ends.items():
    vectors = start + positions[:, None] * (end - start)
    for name, (x, labels) in images.sets.items():
      log_probs = forward.log_probs(vectors, x)
      losses = np.array([categorical.nll(one, labels) for one in log_probs])
      tables.append(pd.DataFrame({
          'line': line, 'images': name, 'position': positions, 'nll': losses,
          'accuracy': [categorical.accuracy(one, labels) for one in log_probs],
          'barrier': formulas.barrier(losses, positions)}))
  return pd.concat(tables, ignore_index=True)


def plane_table(settings: settings_lib.LandscapeSettings,
                problem: image_classification.ImageClassificationProblem,
                forward: trajectories.Forward,
                runs: Sequence[trajectories.Run]
                ) -> tuple[pd.DataFrame, np.ndarray]:
  """Loss in the plane through the first three solutions.

  Returns:
    A row per point: x, y (Euclidean distances), train_nll, test_nll,
    test_accuracy, and agreement_0, agreement_1, agreement_2 (share of test
    images with the label of that solution); and the coordinates of the three
    solutions, [3, 2].
  """
  solutions = np.stack([run.solution for run in runs[:3]])
  plane = formulas.plane_through(solutions)
  low, high = plane.coordinates.min(axis=0), plane.coordinates.max(axis=0)
  margin = _GRID_MARGIN * (high - low)
  axes = np.linspace(low - margin, high + margin, settings.num_grid_points)
  grid = np.stack(np.meshgrid(axes[:, 0], axes[:, 1], indexing='ij'),
                  axis=-1).reshape(-1, 2)
  images = _Images(settings, problem)
  table = pd.DataFrame({'x': grid[:, 0], 'y': grid[:, 1]})
  x_test, labels = images.sets['test']
  own = forward.logits(solutions, x_test).argmax(axis=-1)
  columns = {name: [] for name in (
      'train_nll', 'test_nll', 'test_accuracy', 'agreement_0', 'agreement_1',
      'agreement_2')}
  for row in np.array_split(grid, settings.num_grid_points):
    vectors = plane.points(row)
    x, y = images.sets['train']
    columns['train_nll'] += [categorical.nll(one, y)
                             for one in forward.log_probs(vectors, x)]
    for one in forward.log_probs(vectors, x_test):
      columns['test_nll'].append(categorical.nll(one, labels))
      columns['test_accuracy'].append(categorical.accuracy(one, labels))
      for i, share in enumerate(np.mean(own == one.argmax(axis=-1), axis=-1)):
        columns[f'agreement_{i}'].append(float(share))
  return table.assign(**columns), plane.coordinates
