"""Conjugate gradients (Hestenes & Stiefel 1952) for kernels with features."""

from collections.abc import Mapping

import numpy as np
import scipy.linalg

from enn_ensembles.nngp import features as features_lib
from enn_ensembles.nngp import posterior


class ConjugateGradients:
  """(K + s_e^2 I)^-1 y_e, all right-hand sides e in step with each other.

  Attributes:
    weights: the solutions by now, [T, E].
    residuals: y_e - (K + s_e^2 I) weights_e, [T, E]; None before the start.
    energies: y_e^T (K + s_e^2 I)^-1 y_e by now, if weights started at 0, [E]:
      they only grow (Hestenes & Stiefel 1952, theorem 6:1).
    increments: by what the last step made energies grow, [E].
  """

  def __init__(self, features: features_lib.TrainFeatures,
               noise_variances: np.ndarray, remainder_mean: float,
               scales: np.ndarray):
    self._features = features
    self._scales = scales
    self._variances = noise_variances
    # U U^T + shift I, inverted by Woodbury's formula.
    self._shifts = noise_variances + remainder_mean
    gram = features.gram()
    self._factors = {shift: posterior.cholesky(gram, shift)
                     for shift in np.unique(self._shifts)}

  def start(self, targets: np.ndarray, guess: np.ndarray) -> None:
    """targets and guess, [T, E]."""
    self._targets = targets
    self.weights = guess
    self.residuals: np.ndarray | None = None
    self.search = np.zeros(0)
    self.squares = np.ones(guess.shape[1])
    self.energies = np.zeros(guess.shape[1])
    self.increments = np.zeros(guess.shape[1])

  def wanted(self) -> np.ndarray:
    """The vectors [T, E] whose products with R `take` needs next."""
    return self.weights if self.residuals is None else self.search

  def take(self, product: np.ndarray) -> None:
    """Takes R wanted() [T, E]: a step."""
    if self.residuals is None:
      self.restart(product)
      return
    search, product = self.search, self._add_rest(self.search, product)
    curvature = np.einsum('te,te->e', search, product)
    # A column that is solved exactly has no direction left.
    length = self.squares / np.where(curvature > 0, curvature, np.inf)
    self.weights = self.weights + length * search
    self.increments = length * self.squares
    self.energies = self.energies + self.increments
    residuals = self.residuals - length * product
    self.residuals = residuals
    preconditioned, previous = self._precondition(residuals), self.squares
    self.squares = np.einsum('te,te->e', residuals, preconditioned)
    ratio = self.squares / np.where(previous > 0, previous, np.inf)
    self.search = preconditioned + ratio * search

  def restart(self, product: np.ndarray) -> None:
    """Takes R weights [T, E]: residuals from it, and no direction yet."""
    residuals = self._targets - self._add_rest(self.weights, product)
    self.residuals = residuals
    self.search = self._precondition(residuals)
    self.squares = np.einsum('te,te->e', residuals, self.search)

  def _add_rest(self, vectors: np.ndarray, product: np.ndarray) -> np.ndarray:
    """(K + s_e^2 I) vectors, from R vectors."""
    return (product + self._variances * vectors
            + self._features.times(self._features.inner(vectors)))

  def _precondition(self, vectors: np.ndarray) -> np.ndarray:
    small = self._features.inner(vectors)
    for shift, factor in self._factors.items():
      own = self._shifts == shift
      small[:, own] = scipy.linalg.cho_solve((factor, True), small[:, own])
    return (vectors - self._features.times(small)) / self._shifts

  def norms(self) -> np.ndarray:
    """Of the residuals, in the metric diag(scales^2), [E]."""
    return np.linalg.norm(self._scales[:, None] * self.residuals, axis=0)

  def state(self) -> dict[str, np.ndarray]:
    """All that later steps need, by name."""
    return {name: getattr(self, name)
            for name in ('weights', 'residuals', 'search', 'squares')}

  def restore(self, state: Mapping[str, np.ndarray]) -> None:
    """Takes back what `state` gave."""
    for name, array in state.items():
      setattr(self, name, array)
