"""Values that are kept for the next call, in a bounded number of bytes."""

from collections.abc import Callable
from collections.abc import Hashable
from typing import Any


class BoundedCache:
  """Keeps those values of one purpose that are made first, while there is room.

  Whoever asks for them in the same order again finds the first ones, where a
  cache of the latest would have lost each before it is asked for.

  Args:
    max_bytes: of all values that are kept.
  """

  def __init__(self, max_bytes: int):
    self._max_bytes = max_bytes
    self._num_bytes = 0
    self._purpose: Hashable = None
    self._values: dict[Hashable, Any] = {}

  def use_for(self, purpose: Hashable) -> None:
    """Forgets all values if they were kept for another purpose."""
    if purpose != self._purpose:
      self._purpose, self._num_bytes = purpose, 0
      self._values.clear()

  def get(self, name: Hashable, make: Callable[[], Any],
          num_bytes: Callable[[Any], int] = lambda array: array.nbytes) -> Any:
    """The value of a name: the one that is kept, or one that is made now.

    Args:
      name: of the value.
      make: makes it.
      num_bytes: its size, which decides whether it is kept.
    """
    if name in self._values:
      return self._values[name]
    value = make()
    size = num_bytes(value)
    if self._num_bytes + size <= self._max_bytes:
      self._num_bytes += size
      self._values[name] = value
    return value
