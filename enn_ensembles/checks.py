"""Checks of config fields: a ValueError names the field, its value, the rule.

Configs call these when they are made, so that bad input stops a run before any
work starts and the code behind may take good input for granted.
"""

from collections.abc import Collection
import math
import numbers
from typing import Any


def check_count(name: str, value: Any, minimum: int = 1) -> None:
  """`value` is an integer >= minimum."""
  if (not isinstance(value, numbers.Integral) or isinstance(value, bool)
      or value < minimum):
    raise ValueError(f'{name} must be an integer >= {minimum}, got {value!r}.')


def _is_finite_number(value: Any) -> bool:
  return (isinstance(value, numbers.Real) and not isinstance(value, bool)
          and math.isfinite(value))


def check_scale(name: str, value: Any) -> None:
  """`value` is a finite number >= 0."""
  if not _is_finite_number(value) or value < 0:
    raise ValueError(f'{name} must be a finite number >= 0, got {value!r}.')


def check_positive(name: str, value: Any, maximum: float = math.inf) -> None:
  """`value` is a finite number > 0, and at most `maximum`."""
  if not _is_finite_number(value) or value <= 0:
    raise ValueError(f'{name} must be a finite number > 0, got {value!r}.')
  if value > maximum:
    raise ValueError(f'{name} must be at most {maximum:g}, got {value!r}.')


def check_rate(name: str, value: Any) -> None:
  """`value` is a number in [0, 1)."""
  if not _is_finite_number(value) or not 0 <= value < 1:
    raise ValueError(f'{name} must be in [0, 1), got {value!r}.')


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
  """`value` is one of `choices`."""
  if value not in choices:
    allowed = ', '.join(repr(choice) for choice in choices)
    raise ValueError(f'{name} must be one of {allowed}; got {value!r}.')


def check_flag(name: str, value: Any) -> None:
  """`value` is True or False."""
  if not isinstance(value, bool):
    raise ValueError(f'{name} must be True or False, got {value!r}.')


def check_sizes(name: str, value: Any) -> None:
  """`value` is a tuple of integers >= 1; it may be empty."""
  if not isinstance(value, tuple):
    raise ValueError(f'{name} must be a tuple of integers >= 1, got {value!r}.')
  for size in value:
    check_count(f'every entry of {name}', size)
