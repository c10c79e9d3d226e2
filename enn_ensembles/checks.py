"""Checks of config fields: a ValueError names the field, its value, the rule.

Configs call these when they are made, so that bad input stops a run before any
work starts and the code behind may take good input for granted.
"""

from collections.abc import Collection
from collections.abc import Sequence
import math
import numbers
from typing import Any

# No array has as many entries; above, messages would be those of numpy and jax.
_LARGEST_COUNT = 2**32
# So many networks have gigabytes of weights; two such layers, terabytes.
_LARGEST_SIZE = 2**20

_LONGEST_ERROR, _LONGEST_VALUE = 500, 200


def shown(value: Any) -> str:
  """A value in a message: in one line that is not too long, arrays too."""
  return _cut(' '.join(repr(value).split()), _LONGEST_VALUE)


def check_count(name: str, value: Any, minimum: int = 1) -> None:
  """`value` is an integer >= minimum, and at most 2**32."""
  if (not isinstance(value, numbers.Integral) or isinstance(value, bool)
      or value < minimum):
    raise ValueError(f'{name} must be an integer >= {minimum}, got '
                     f'{shown(value)}.')
  if value > _LARGEST_COUNT:
    raise ValueError(f'{name} must be at most 2**32, got {shown(value)}.')


def check_size(name: str, value: Any, minimum: int = 1) -> None:
  """A count of what is in the memory at once: units, members, draws."""
  check_count(name, value, minimum)
  if value > _LARGEST_SIZE:
    raise ValueError(f'{name} must be at most 2**20, got {shown(value)}.')


def _is_finite_number(value: Any) -> bool:
  try:
    return (isinstance(value, numbers.Real) and not isinstance(value, bool)
            and math.isfinite(value))
  except OverflowError:  # An integer that no float can be.
    return False


def check_scale(name: str, value: Any) -> None:
  """`value` is a finite number >= 0."""
  if not _is_finite_number(value) or value < 0:
    raise ValueError(f'{name} must be a finite number >= 0, got '
                     f'{shown(value)}.')


def check_positive(name: str, value: Any, maximum: float = math.inf) -> None:
  """`value` is a finite number > 0, and at most `maximum`."""
  if not _is_finite_number(value) or value <= 0:
    raise ValueError(f'{name} must be a finite number > 0, got {shown(value)}.')
  if value > maximum:
    raise ValueError(f'{name} must be at most {maximum:g}, got {shown(value)}.')


def check_rate(name: str, value: Any) -> None:
  """`value` is a number in [0, 1)."""
  if not _is_finite_number(value) or not 0 <= value < 1:
    raise ValueError(f'{name} must be in [0, 1), got {shown(value)}.')


def check_different(name: str, values: Sequence[Any]) -> None:
  """No value is there twice."""
  keys: set[Any] = set()
  others: list[Any] = []  # Dicts and lists.
  for value in values:
    try:
      is_known = value in keys
      keys.add(value)
    except TypeError:
      is_known = value in others
      others.append(value)
    if is_known:
      raise ValueError(f'{name} must name every value once, got {shown(value)} '
                       'twice.')


def _sort_of(value: Any) -> tuple[bool, ...]:
  return tuple(isinstance(value, kind)
               for kind in (bool, numbers.Integral, numbers.Number))


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
  """`value` is one of `choices`."""
  try:
    # True is 1 and 1.0 is 1, and neither is a choice of what says 1.
    known = value in choices and _sort_of(value) in map(_sort_of, choices)
  except (TypeError, ValueError):  # It cannot be a key, or is an array.
    known = False
  if not known:
    allowed = ', '.join(repr(choice) for choice in choices)
    raise ValueError(f'{name} must be one of {allowed}; got {shown(value)}.')


def check_flag(name: str, value: Any) -> None:
  """`value` is True or False."""
  if not isinstance(value, bool):
    raise ValueError(f'{name} must be True or False, got {shown(value)}.')


def check_sizes(name: str, value: Any) -> None:
  """`value` is a tuple of integers from 1 to 2**20; it may be empty."""
  if not isinstance(value, tuple):
    raise ValueError(f'{name} must be a tuple of integers >= 1, got '
                     f'{shown(value)}.')
  for size in value:
    check_size(f'every entry of {name}', size)


def check_points(shape: Sequence[int], input_shape: Sequence[int]) -> None:
  """Points that a sampler is asked at have the shape [N, *input_shape], N >= 1.

  Raises:
    ValueError: they have another one.
  """
  if tuple(shape[1:]) != tuple(input_shape) or not shape or not shape[0]:
    sizes = ', '.join(map(str, input_shape))
    raise ValueError(f'x must have shape [N, {sizes}] with N >= 1, got '
                     f'{list(shape)}.')


def error_text(error: BaseException) -> str:
  """What somebody else's error says, in one line that is not too long."""
  return _cut(f'{type(error).__name__}: {_said(error)}', _LONGEST_ERROR)


def error_reason(error: BaseException) -> str:
  """The same without the error's type, but where it says nothing else."""
  return _cut(_said(error) or type(error).__name__, _LONGEST_ERROR)


def _said(error: BaseException) -> str:
  try:
    return ' '.join(str(error).split())
  except Exception:  # It is whatever a file may raise.
    return 'it cannot say what is wrong'


def _cut(text: str, longest: int) -> str:
  return text if len(text) <= longest else f'{text[:longest]}...'
