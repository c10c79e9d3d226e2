"""What a sampler of any framework says at given points, and whether it may.

A sampler is what an agent returns; `prediction.py` has the faster way of
networks that this package trained.
"""

from typing import Any

import chex
import jax
import numpy as np

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.machine import progress
from enn_ensembles.training import covariance_checks


def predict(sampler: base.EpistemicSampler, x: base.Array, key: chex.PRNGKey,
            num_enn_samples: int, enumerate_indices: bool = True,
            num_outputs: int = 1) -> base.Predictions:
  """What any sampler says at x [N, ...].

  Exact moments are used where the sampler offers them and asks for it
  (`analytic = True`); all members of one that has finitely many
  (`members(x) -> [K, N, out]`) where indices are enumerated; else draws, all at
  once where it can (`draws`, `mappable`).

  Args:
    sampler: the sampler.
    x: the points.
    key: what the keys of its draws come from.
    num_enn_samples: how many draws.
    enumerate_indices: whether finite sets of members are enumerated.
    num_outputs: components of f(x).

  Raises:
    ValueError: the sampler, or what it may offer besides, returns another
      shape, of single draws found at the first; or what is no real number; or
      a negative std or variance, or covariances that are none; or it is
      analytic and has no `moments`.
  """
  if getattr(sampler, 'analytic', False):
    return _exact_predictions(sampler, x)
  if takes_members(sampler, enumerate_indices):
    return _member_predictions(sampler, x, num_outputs)
  keys = networks.fold_in_many(key, num_enn_samples)
  shape = (len(x), num_outputs)
  draws = getattr(sampler, 'draws', None)
  progress.report('draw', 0, num_enn_samples)
  if draws is not None:
    samples = _real('draws', draws(x, keys))
    if samples.shape != (num_enn_samples, *shape):
      raise ValueError(
          f'draws must return shape {(num_enn_samples, *shape)} for '
          f'{num_enn_samples} keys at {len(x)} points, got {samples.shape}.')
    return base.Predictions(samples)
  first = _real('a sampler', sampler(x, keys[0]))
  if first.shape != shape:
    raise ValueError(f'a sampler must return shape {shape} '
                     f'at {len(x)} points, got {first.shape}.')
  if getattr(sampler, 'mappable', False):
    return base.Predictions(np.asarray(jax.vmap(lambda k: sampler(x, k))(keys)))
  found = [first]
  for key in keys[1:]:
    progress.report('draw', len(found), num_enn_samples)
    found.append(_real('a sampler', sampler(x, key)))
  return base.Predictions(np.stack(found))


def takes_members(sampler: Any, enumerate_indices: bool) -> bool:
  """Whether all members of a sampler take the place of draws."""
  return enumerate_indices and getattr(sampler, 'members', None) is not None


def _exact_predictions(sampler: Any, x: base.Array) -> base.Predictions:
  """The moments of an analytic sampler, as `base.EpistemicSampler` says."""
  moments = getattr(sampler, 'moments', None)
  if moments is None:
    raise ValueError('a sampler with analytic = True must have moments(x), got '
                     f'a {type(sampler).__name__} without.')
  mean, std = _read_moments(moments(x), len(x))
  joint, covariances = getattr(sampler, 'joint_covariance', None), None
  if joint is not None:
    covariances = _real('joint_covariance', joint(x))
    if covariances.shape != (len(x), len(x)):
      raise ValueError(f'joint_covariance must return shape {(len(x), len(x))} '
                       f'at {len(x)} points, got {covariances.shape}.')
    covariances = covariances[None]
    covariance_checks.check_covariances(covariances, std)
  return base.Predictions(None, mean=mean[:, None], std=std[:, None],
                          covariances=covariances)


def _member_predictions(sampler: Any, x: base.Array,
                        num_outputs: int) -> base.Predictions:
  """All members, and the noise that they say, as `base` has it."""
  with_noise, variances = getattr(sampler, 'members_with_noise', None), None
  if with_noise is None:
    samples = sampler.members(x)
  else:
    samples, variances = _pair('members_with_noise', 'members and variances',
                               with_noise(x))
  samples = _real('members', samples)
  if (samples.ndim != 3 or samples.shape[1:] != (len(x), num_outputs)
      or not len(samples)):
    raise ValueError(
        f'members must return shape [K, {len(x)}, {num_outputs}] at {len(x)} '
        f'points with K >= 1, got {samples.shape}.')
  if variances is not None:
    variances = _real('members_with_noise', variances)
    if variances.shape != samples.shape:
      raise ValueError(
          f'members_with_noise must return variances of shape {samples.shape} '
          f'as its members have, got {variances.shape}.')
    if (variances < 0).any():
      raise ValueError('members_with_noise must return variances >= 0, got '
                       f'{variances.min():g}.')
  return base.Predictions(samples, variances)


def _read_moments(given: Any, num_points: int) -> tuple[np.ndarray, np.ndarray]:
  """What a sampler's `moments` returned at N points, as mean and std.

  Args:
    given: what it returned.
    num_points: N.

  Returns:
    Mean and std, float64 [N] each; they need not be finite.

  Raises:
    ValueError: it is no pair of real numbers of this shape, or a std is
      negative.
  """
  mean, std = _pair('moments', 'mean and std', given)
  mean, std = (_real('moments', m).astype(np.float64) for m in (mean, std))
  if not mean.shape == std.shape == (num_points,):
    raise ValueError(
        f'moments must return shape ({num_points},) for mean and std at '
        f'{num_points} points, got {mean.shape} and {std.shape}.')
  if (std < 0).any():
    raise ValueError(f'moments must return std >= 0, got {std.min():g}.')
  return mean, std


def _pair(name: str, parts: str, value: Any) -> tuple[Any, Any]:
  """Two values; ValueError for what is no pair."""
  try:
    first, second = value
  except (TypeError, ValueError):
    raise ValueError(f'{name} must return a pair, {parts}, got '
                     f'{type(value).__name__}.') from None
  return first, second


def _real(name: str, value: Any) -> np.ndarray:
  """An array of real numbers; ValueError for texts, objects, complex ones."""
  found = np.asarray(value)
  if found.dtype.kind in 'OSUcMm':
    raise ValueError(f'{name} must return real numbers, got {found.dtype}.')
  return found
