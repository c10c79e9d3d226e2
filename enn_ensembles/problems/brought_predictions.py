"""Predictions that somebody brings as files, made by any method anywhere.

The problems are exported as plain files (`problem_export`); whoever trained on
them writes one `<problem_id>.npz` per problem with predictions at the test
points, which are scored as those of an agent of the package. Arrays, float32 or
float64:

  samples [S, N]        S draws of the function at x_test, without label noise
or
  mean [N], std [N]     exact moments at x_test, and perhaps
  covariances [N/10, 10, 10]   joint ones of every ten neighbouring test points

and, for the joint score at the dyadic points, the same with `dyadic_` before
the names, at x_dyadic. A text `x_test_sha256`, as the problem's JSON has it,
makes sure that the file is of this problem.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from enn_ensembles import base
from enn_ensembles.machine import foreign_files
from enn_ensembles.problems import nngp_regression
from enn_ensembles.problems import problem_export
from enn_ensembles.training import covariance_checks

_PARTS = ('samples', 'mean', 'std', 'covariances')
_DYADIC = 'dyadic_'
_NAMES = (*_PARTS, *(_DYADIC + part for part in _PARTS), 'x_test_sha256')


@dataclasses.dataclass(frozen=True)
class BroughtPredictions:
  """Predictions that a file has of a problem, called as `base.Predict`.

  Attributes:
    path: the file.
    at_points: each set of the problem's points that the file is of, and the
      predictions there.
  """
  path: pathlib.Path
  at_points: Sequence[tuple[np.ndarray, base.Predictions]]

  def __call__(self, x: np.ndarray) -> base.Predictions:
    """Those at one of these sets; ValueError at others."""
    for points, predictions in self.at_points:
      if x is points:
        return predictions
    raise ValueError(f'{self.path} has no predictions at these {len(x)} '
                     'points.')

  @property
  def has_dyadic(self) -> bool:
    """Whether they are at x_dyadic, too."""
    return len(self.at_points) > 1


def read_predictions(path: pathlib.Path,
                     problem: nngp_regression.Problem) -> BroughtPredictions:
  """A file's predictions as a function of the problem's points.

  Args:
    path: the npz file.
    problem: the problem that it is of.

  Returns:
    Predictions for x the problem's own x_test or, where the file has
    predictions there, x_dyadic.

  Raises:
    ValueError: the file cannot be read, is of another problem, or holds
      something else than the module's docstring says: one line each.
  """
  with foreign_files.open_npz(path) as file:
    arrays = dict(file)
  unknown = sorted(set(arrays) - set(_NAMES))
  if unknown:
    raise ValueError(f'{path} has the unknown array {unknown[0]!r}; allowed '
                     f'are {", ".join(_NAMES)}.')
  checksum = arrays.get('x_test_sha256')
  expected = problem_export.array_sha256(problem.x_test)
  if checksum is not None and str(checksum) != expected:
    raise ValueError(f'{path} is not of problem {problem.problem_id}: its '
                     f'x_test_sha256 is {str(checksum)[:16]}..., that of the '
                     f'problem {expected[:16]}....')
  found = [(problem.x_test, _predictions(path, arrays, '', problem.x_test))]
  if has_dyadic(arrays):
    if problem.x_dyadic is None:
      raise ValueError(
          f'{path} has predictions at dyadic points, which problem '
          f'{problem.problem_id} does not have.')
    found.append((problem.x_dyadic,
                  _predictions(path, arrays, _DYADIC, problem.x_dyadic)))

  return BroughtPredictions(path, found)


def has_dyadic(arrays: Mapping[str, Any]) -> bool:
  """Whether arrays hold predictions at the dyadic points."""
  return any(name.startswith(_DYADIC) for name in arrays)


def _predictions(path: pathlib.Path, arrays: Mapping[str, np.ndarray],
                 start: str, x: np.ndarray) -> base.Predictions:
  """The arrays whose names begin so, checked."""
  parts = {name: _real(path, start + name, arrays[start + name])
           for name in _PARTS if start + name in arrays}
  num = len(x)
  if 'samples' in parts and len(parts) == 1:
    samples = parts['samples']
    if samples.ndim != 2 or samples.shape[1] != num:
      hint = (' It seems to be transposed.'
              if samples.ndim == 2 and samples.shape[0] == num else '')
      raise ValueError(f'{path}: {start}samples must have shape [S, {num}], '
                       f'got {list(samples.shape)}.{hint}')
    if not len(samples):
      raise ValueError(f'{path}: {start}samples must hold at least one draw, '
                       'got none.')
    return base.Predictions(samples[:, :, None])
  if not {'mean', 'std'} <= set(parts) or 'samples' in parts:
    raise ValueError(
        f'{path} must have either {start}samples, or {start}mean and '
        f'{start}std; got '
        f'{", ".join(start + name for name in parts) or "none of them"}.')
  for name in ('mean', 'std'):
    if parts[name].shape != (num,):
      raise ValueError(f'{path}: {start}{name} must have shape [{num}], got '
                       f'{list(parts[name].shape)}.')
  if parts['std'].min() < 0:
    raise ValueError(f'{path}: {start}std must be >= 0, got '
                     f'{parts["std"].min():g}.')
  covariances = parts.get('covariances')
  tau = nngp_regression.JOINT_TAU
  if covariances is not None and covariances.shape != (num // tau, tau, tau):
    raise ValueError(
        f'{path}: {start}covariances must have shape '
        f'[{num // tau}, {tau}, {tau}], got {list(covariances.shape)}.')
  if covariances is None and start:
    raise ValueError(f'{path} must have {start}covariances beside {start}mean: '
                     'these points are for the joint score alone.')
  if covariances is not None:
    try:
      covariance_checks.check_covariances(covariances, parts['std'])
    except ValueError as error:
      raise ValueError(f'{path}: {start}{error}') from error
  return base.Predictions(None, mean=parts['mean'][:, None],
                          std=parts['std'][:, None], covariances=covariances)


def _real(path: pathlib.Path, name: str, array: np.ndarray) -> np.ndarray:
  """The array as float64; ValueError for what is not finite floats."""
  if array.dtype.newbyteorder('=') not in (np.float32, np.float64):
    raise ValueError(f'{path}: {name} must be float32 or float64, got '
                     f'{array.dtype}.')
  bad = array.size - np.count_nonzero(np.isfinite(array))
  if bad:
    raise ValueError(
        f'{path}: {name} must be finite, got {bad} NaN or infinite '
        f'of {array.size} values.')
  return array.astype(np.float64)
