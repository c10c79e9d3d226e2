"""The features U of the training points, made a panel at a time.

At T = 100,000 and D = 1000 they would take 0.8 GB, and they are products of the
inputs: whoever needs them makes them again.
"""

from collections.abc import Iterator

import numpy as np

from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import tall


class TrainFeatures:
  """U [T, F] of K = U U^T + R, float64.

  Args:
    split: of the kernel.
    x_train: [T, D].
  """

  def __init__(self, split: remainder.Split, x_train: np.ndarray):
    self._split = split
    self._x_train = x_train
    self.num_features = remainder.num_features(split.config, x_train.shape[1])

  def panels(self) -> Iterator[tuple[slice, np.ndarray]]:
    """All rows, a panel at a time."""
    for panel in remainder.panels(len(self._x_train), tall.PANEL):
      yield panel, self._split.features(self._x_train[panel])

  def rows(self, indices: np.ndarray) -> np.ndarray:
    """U of some training points, [r, F]."""
    return self._split.features(self._x_train[indices])

  def times(self, weights: np.ndarray) -> np.ndarray:
    """U weights, [T, m]."""
    result = np.empty((len(self._x_train), weights.shape[1]))
    for panel, features in self.panels():
      np.matmul(features, weights, out=result[panel])
    return result

  def inner(self, vectors: np.ndarray) -> np.ndarray:
    """U^T vectors, [F, m]."""
    return sum((features.T @ vectors[panel]
                for panel, features in self.panels()),
               start=np.zeros((self.num_features, vectors.shape[1])))

  def gram(self) -> np.ndarray:
    """U^T U, [F, F]."""
    return sum((features.T @ features for _, features in self.panels()),
               start=np.zeros((self.num_features,) * 2))
