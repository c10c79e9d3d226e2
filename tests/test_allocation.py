"""Arrays in pages of their own leave no gaps, and go back to the system."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest

from enn_ensembles.machine import allocation

# Arrays that stay, each made beside one that does not.
_PROGRAM = '''
import os, sys
import numpy as np
from enn_ensembles.machine import allocation

def resident_mb():
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6

np.ones(3_000_000)  # 24 MB come and go: glibc now keeps arrays of that size.
before = resident_mb()
stays = allocation.in_own_pages if sys.argv[1] == 'apart' else lambda x: x
pairs = [[np.ones(250_000), stays(np.ones(250_000))] for _ in range(50)]
for pair in pairs:
  pair.pop(0)
print(resident_mb() - before)
'''


@pytest.mark.skipif(
    not os.path.exists('/proc/self/statm')
    or not hasattr(ctypes.CDLL(None), 'gnu_get_libc_version'),
    reason='needs the C library of GNU, and the memory that a process has')
def test_gaps_between_arrays_that_stay_are_given_back():
  def grown_mb(how: str) -> float:
    return float(subprocess.run(
        [sys.executable, '-c', _PROGRAM, how], check=True, text=True,
        capture_output=True).stdout)

  assert grown_mb('as it is') > 190  # 50 arrays of 2 MB, and as many gaps.
  assert 95 < grown_mb('apart') < 120


def test_a_copy_is_equal_and_can_be_shared_without_copying():
  array = np.arange(6, dtype=np.float16).reshape(2, 3)
  copy = allocation.in_own_pages(array)
  array[0, 0] = 7.
  np.testing.assert_array_equal(copy, [[0, 1, 2], [3, 4, 5]])
  assert copy.dtype == array.dtype and copy.ctypes.data % 64 == 0
