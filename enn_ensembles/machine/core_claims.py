"""Which core a process is pinned to, where several share a machine.

Whoever pins a process to the first core that it may use meets all others there:
two sweeps with a worker each would share one core of many. A claim of a core is
a lock of this user on this machine, and ends with its process.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib

from enn_ensembles.machine import file_locks


@contextlib.contextmanager
def claim_core(cores: Sequence[int]) -> Iterator[int]:
  """Has a core that no process of this user has claimed, if there is one.

  Args:
    cores: numbers of cores, one or more.

  Yields:
    The first that is free; the first of all where none is, or where there are
    no locks.
  """
  folder = file_locks.machine_folder()
  locks = {} if folder is None else {
      core: folder / f'core_{core}.lock' for core in cores}
  with contextlib.ExitStack() as claims:
    for core, path in locks.items():
      try:
        claims.enter_context(file_locks.claim(path, wait=False))
      except file_locks.ClaimedError:
        continue
      yield core
      return
    yield cores[0]
