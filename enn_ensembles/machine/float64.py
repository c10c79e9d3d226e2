"""Callables that run in jax's 64-bit mode, whatever their caller's mode is."""

import functools
import inspect
from typing import Any

from enn_ensembles.machine import devices


class InFloat64Mode:
  """What is called in jax's 64-bit mode; the caller's mode stays.

  Attributes and methods are those of what it holds, and methods run in 64-bit
  mode, too.

  Args:
    held: a function, or an object that can be called.
  """

  def __init__(self, held: Any):
    self._held = held
    functools.update_wrapper(self, held, assigned=('__doc__',), updated=())

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    with devices.x64_mode(True):
      return self._held(*args, **kwargs)

  def __getattr__(self, name: str) -> Any:
    if name == '_held':  # Not made yet, when it is copied.
      raise AttributeError(name)
    found = getattr(self._held, name)
    if inspect.isroutine(found):  # Lambdas and methods.
      return InFloat64Mode(found)
    return found

  def __repr__(self) -> str:
    return repr(self._held)


def unwrap(value: Any) -> Any:
  """What an `InFloat64Mode` holds; any other value itself."""
  return value._held if isinstance(value, InFloat64Mode) else value
