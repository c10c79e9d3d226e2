"""What the matrix-free solver is given, checked and named by a checksum."""

from collections.abc import Sequence
import dataclasses
import hashlib
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles import checks
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder

# Of what is kept of a computation; a change of any step raises it.
_STEPS_VERSION = 4


@dataclasses.dataclass(frozen=True)
class Config:
  """How exact a solution is to be and what it may take; see `solve`."""
  reference: str
  memory_budget_mb: float
  std_tolerance: float
  mean_tolerance: float
  function_tolerance: float
  max_block_steps: int

  def __post_init__(self):
    for name in ('memory_budget_mb', 'std_tolerance', 'mean_tolerance',
                 'function_tolerance'):
      checks.check_positive(name, getattr(self, name))
    checks.check_count('max_block_steps', self.max_block_steps)


class Normals(NamedTuple):
  """The standard normals that f and the labels are made of; see `solve`."""
  train: np.ndarray | None
  eval: np.ndarray | None
  rest: np.ndarray | None
  noise: np.ndarray | None


class Arguments:
  """What `solve` was given, checked.

  Attributes:
    kernel: the prior.
    config: tolerances and limits.
    x_train: [T, D] float64.
    x_eval: [n, D] float64.
    noise_stds: [E].
    noise_variances: s^2 that the posteriors assume, [E].
    drawn: whether targets are to be drawn.
    normals: z, then a; empty where targets are given, as the next.
    noise: [T].
    normals_eval: of f at the last points of x_eval; None for none.
    normals_rest: of f at points just before them; None for none.
    targets: y, [E, T]; None where they are to be drawn.
  """

  def __init__(self, kernel: kernels.KernelConfig, x_train: np.ndarray,
               x_eval: np.ndarray, noise_stds: Sequence[float],
               config: Config, normals: Normals,
               targets: Sequence[np.ndarray] | None):
    self.kernel, self.config = kernel, config
    self.x_train = _finite('x_train', x_train)
    self.x_eval = _finite('x_eval', x_eval)
    if (self.x_train.ndim != 2 or self.x_eval.ndim != 2
        or 0 in self.x_train.shape or not len(self.x_eval)
        or self.x_train.shape[1] != self.x_eval.shape[1]):
      raise ValueError('x_train and x_eval must have shapes [T, D] and [n, D], '
                       f'got {list(self.x_train.shape)} and '
                       f'{list(self.x_eval.shape)}.')
    num_train, input_dim = self.x_train.shape
    self.noise_stds = np.asarray(noise_stds, np.float64)
    if self.noise_stds.ndim != 1 or not len(self.noise_stds):
      raise ValueError('noise_stds must hold at least one noise level, got '
                       f'{noise_stds!r}.')
    for noise_std in self.noise_stds:
      checks.check_positive('every entry of noise_stds', float(noise_std))
    self.drawn = targets is None
    # Empty where targets are given.
    self.noise, self.normals = np.zeros(0), np.zeros(0)
    self.targets: np.ndarray | None = None
    self.normals_eval = self.normals_rest = None
    if targets is None:
      if normals.train is None or normals.noise is None:
        raise ValueError('give either targets, or normals_train and noise.')
      self.noise = _vector('noise', normals.noise, num_train)
      self.normals = _vector(
          'normals_train', normals.train,
          num_train + remainder.num_features(kernel, input_dim))
      if normals.eval is not None:
        self.normals_eval = _finite('normals_eval', normals.eval)
        if (self.normals_eval.ndim != 1
            or not 1 <= len(self.normals_eval) <= len(self.x_eval)):
          raise ValueError(
              f'normals_eval must have shape [1..{len(self.x_eval)}], got '
              f'{list(self.normals_eval.shape)}.')
      if normals.rest is not None:
        if self.normals_eval is None:
          raise ValueError('normals_rest must come with normals_eval, got '
                           'none.')
        self.normals_rest = _finite('normals_rest', normals.rest)
        most = len(self.x_eval) - len(self.normals_eval)
        if (self.normals_rest.ndim != 1
            or not 1 <= len(self.normals_rest) <= most):
          raise ValueError(f'normals_rest must have shape [1..{most}], got '
                           f'{list(self.normals_rest.shape)}.')
    else:
      if any(values is not None for values in normals):
        raise ValueError('with targets there are no normals and no noise.')
      if len(targets) != len(self.noise_stds):
        raise ValueError(f'targets must hold {len(self.noise_stds)} arrays, '
                         f'one per noise level, got {len(targets)}.')
      self.targets = np.stack([_vector('targets', y, num_train)
                               for y in targets])
    self.noise_variances = np.array([
        posterior.noise_variance(
            noise_std, kernels.nngp_diag(kernel, self.x_train),
            config.reference)
        for noise_std in self.noise_stds])

  def identity(self) -> str:
    """A checksum of all that the result follows from."""
    sha = hashlib.sha256(repr(
        (_STEPS_VERSION, self.kernel, self.x_train.shape,
         self.config.std_tolerance, self.config.mean_tolerance,
         self.config.function_tolerance,
         self.config.max_block_steps)).encode())
    noise, normals = (
        (self.noise, self.normals) if self.drawn else (None, None))
    for array in (self.x_train, self.x_eval, self.noise_stds,
                  self.noise_variances, noise, normals,
                  self.normals_eval, self.normals_rest, self.targets):
      sha.update(b'none' if array is None else np.ascontiguousarray(array))
    return sha.hexdigest()


def _finite(name: str, values: Any) -> np.ndarray:
  values = np.asarray(values, dtype=np.float64)
  if not np.all(np.isfinite(values)):
    raise ValueError(f'{name} must be finite, got NaN or infinite values.')
  return values


def _vector(name: str, values: Any, num: int) -> np.ndarray:
  values = _finite(name, values)
  if values.shape != (num,):
    raise ValueError(f'{name} must have shape [{num}], got '
                     f'{list(values.shape)}.')
  return values
