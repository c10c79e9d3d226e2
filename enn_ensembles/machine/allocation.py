"""How the C library's allocator treats large arrays, where it can be told."""

from collections.abc import Iterator
import contextlib
import ctypes

# mallopt's M_MMAP_THRESHOLD and glibc's largest value of it on its own accord.
_MMAP_THRESHOLD = -3
_MOST_BYTES = 2**25


@contextlib.contextmanager
def large_arrays_apart(num_bytes: int = 2**20) -> Iterator[None]:
  """Within it, every array of so many bytes has a place of its own in memory.

  Such an array is given back to the system when it is let go. Where many arrays
  that stay are made among others that do not, glibc else keeps the gaps between
  them: a third of what stays. Where the C library has no `mallopt`, nothing
  changes.

  Args:
    num_bytes: from which size on.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError):
    yield
    return
  mallopt(_MMAP_THRESHOLD, num_bytes)
  try:
    yield
  finally:
    mallopt(_MMAP_THRESHOLD, _MOST_BYTES)
