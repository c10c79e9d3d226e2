"""Arrays that scores are taken of: finite, of the right shape and dtype."""

from typing import Any

import jax.numpy as jnp
import numpy as np


class NotFiniteError(ValueError):
  """Members cannot be ordered, since what they predict is not finite."""


def get_dtype(dtype: Any) -> np.dtype:
  """The dtype asked for, or the widest float that jax has on."""
  widest = jnp.zeros(0, float).dtype
  dtype = widest if dtype is None else np.dtype(dtype)
  if dtype not in (np.dtype('float32'), widest):
    raise ValueError(
        f'dtype must be float32, or float64 with jax_enable_x64, got {dtype}.')
  return dtype


def as_finite(name: str, value: Any, ndim: int | None = None,
              shape: tuple[int, ...] | None = None) -> np.ndarray:
  """The value as a finite float64 array of the given rank or shape."""
  if value is None:
    raise ValueError(f'{name} must be given, got None.')
  array = np.asarray(value, np.float64)
  if ndim is not None and array.ndim != ndim:
    raise ValueError(f'{name} must have {ndim} axes, got shape {array.shape}.')
  if shape is not None and array.shape != shape:
    raise ValueError(f'{name} must have shape {shape}, got {array.shape}.')
  num_bad = np.count_nonzero(~np.isfinite(array))
  if num_bad:
    raise NotFiniteError(
        f'{name} must be finite, got {num_bad} values of nan or inf.')
  return array


def as_std(std: Any, shape: tuple[int, ...]) -> np.ndarray:
  """The posterior std, checked."""
  std = as_finite('std', std, shape=shape)
  if std.min() < 0:
    raise ValueError(f'std must be >= 0, got {std.min()}.')
  return std


def check_std_ridge(std_ridge: float):
  """One member alone has std 0: without a ridge its KL is infinite."""
  if not 0 < std_ridge < np.inf:
    raise ValueError(f'std_ridge must be finite and > 0, got {std_ridge}.')
