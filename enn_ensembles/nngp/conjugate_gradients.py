"""Conjugate gradients (Hestenes & Stiefel 1952) for kernels with features."""

from collections.abc import Mapping

import numpy as np
import scipy.linalg

from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import tall


class ConjugateGradients:
  """(K + s_e^2 I)^-1 y_e, all right-hand sides e in step with each other."""

  def __init__(self, features: np.ndarray, noise_variances: np.ndarray,
               remainder_mean: float, scales: np.ndarray):
    self._features = features
    self._scales = scales
    self._variances = noise_variances
    # U U^T + shift I, inverted by Woodbury's formula.
    self._shifts = noise_variances + remainder_mean
    gram = tall.inner(features, features)
    self._factors = [posterior.cholesky(gram, shift) for shift in self._shifts]

  def start(self, targets: np.ndarray, guess: np.ndarray) -> None:
    """targets and guess, [T, E]."""
    self._targets = targets
    self.weights = guess
    self.residuals = None
    self.search = None
    self.squares = np.ones(guess.shape[1])

  def wanted(self) -> np.ndarray:
    return self.weights if self.residuals is None else self.search

  def take(self, product: np.ndarray) -> None:
    vectors = self.wanted()
    product = (product + self._variances * vectors
               + self._features @ (self._features.T @ vectors))
    if self.residuals is None:
      self.residuals = self._targets - product
      previous = None
    else:
      curvature = np.einsum('te,te->e', vectors, product)
      # A column that is solved exactly has no direction left.
      length = self.squares / np.where(curvature > 0, curvature, np.inf)
      self.weights = self.weights + length * vectors
      self.residuals = self.residuals - length * product
      previous = self.squares
    preconditioned = self._precondition(self.residuals)
    self.squares = np.einsum('te,te->e', self.residuals, preconditioned)
    if previous is None:
      self.search = preconditioned
    else:
      ratio = self.squares / np.where(previous > 0, previous, np.inf)
      self.search = preconditioned + ratio * vectors

  def _precondition(self, vectors: np.ndarray) -> np.ndarray:
    small = self._features.T @ vectors
    small = np.stack(
        [scipy.linalg.cho_solve((factor, True), small[:, e])
         for e, factor in enumerate(self._factors)], axis=1)
    return (vectors - self._features @ small) / self._shifts

  def norms(self) -> np.ndarray:
    """Of the residuals, in the metric diag(scales^2), [E]."""
    return np.linalg.norm(self._scales[:, None] * self.residuals, axis=0)

  def state(self) -> dict[str, np.ndarray]:
    return {name: getattr(self, name)
            for name in ('weights', 'residuals', 'search', 'squares')}

  def restore(self, state: Mapping[str, np.ndarray]) -> None:
    for name, array in state.items():
      setattr(self, name, array)
