"""The most memory that this process has held since a moment, where known.

Linux counts it from the start of the process, and anew where it is told to.
"""

import pathlib
import sys

from enn_ensembles.machine import allocation

try:
  import resource
except ImportError:  # Not on this system.
  resource = None

_STATUS = pathlib.Path('/proc/self/status')
_CLEAR = pathlib.Path('/proc/self/clear_refs')
_RESET_PEAK = '5'


def reset() -> bool:
  """Counts anew from now on; whether the system does that.

  What the process holds already counts from the start: what earlier work has
  left in memory is in every later peak. What it has freed is not, where the C
  library is glibc, which gives it back to the system first.
  """
  allocation.return_freed()
  try:
    _CLEAR.write_text(_RESET_PEAK)
  except OSError:
    return False
  return True


def read_mb() -> float | None:
  """The peak in MB; None where the system does not say."""
  try:
    lines = _STATUS.read_text().splitlines()
  except OSError:
    return None
  for line in lines:
    if line.startswith('VmHWM:'):
      return float(line.split()[1]) * 1024 / 1e6  # In kibibytes.
  return None


def since_start_mb() -> float | None:
  """The peak since this process started, MB; None where nobody says it."""
  if resource is None:
    return None
  # In kibibytes, on macOS in bytes.
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
