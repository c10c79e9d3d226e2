"""What a process is at: said by whoever works, heard by whoever listens.

Work that may take long calls `report` where it comes to a point of which there
is something to say, as 'step 400 of 1000', and names the loops around it by
`part`. Where nobody listens that costs nothing. How long it will still take
follows from how long it took so far.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import time
from typing import NamedTuple

# Reports of one counter that come faster are not passed on.
_SECONDS_BETWEEN = 1.


class Stage(NamedTuple):
  """A point that was come to.

  Attributes:
    text: as 'seed 2 of 10, step 400 of 1000'.
    seconds_left: until the outermost loop is through; None where nothing is
      known yet.
  """
  text: str
  seconds_left: float | None


@dataclasses.dataclass
class _Counter:
  """How far a loop is: `done` of `total` are done, 0 of 0 where none counts."""
  name: str
  done: int
  total: int
  start: float  # When the loop began.
  now: float  # When it came to `done`.

  def text(self, before: int = 0) -> str:
    """As 'step 400 of 1000', `before` of which were done before it began."""
    if not self.total:
      return self.name
    return f'{self.name} {self.done + before} of {self.total + before}'


@dataclasses.dataclass
class _Listening:
  """One listener, and where in its loops the work is."""
  hear: Callable[[Stage], None]
  clock: Callable[[], float]
  loops: list[_Counter] = dataclasses.field(default_factory=list)
  leaf: _Counter | None = None
  last: float = -1e9

  def enter(self, depth: int, name: str, done: int, total: int) -> None:
    """A loop, `depth` loops deep, comes to its part number `done`."""
    now = self.clock()
    known = self.loops[depth] if depth < len(self.loops) else None
    start = now if known is None or known.name != name or not done else (
        known.start)
    self.loops[depth:] = [_Counter(name, done, total, start, now)]
    self.leaf = None

  def say(self, name: str, done: int, total: int, before: int) -> None:
    """The innermost counter has come to `done`."""
    now = self.clock()
    same = self.leaf is not None and self.leaf.name == name
    start = self.leaf.start if same and done and self.leaf else now
    self.leaf = _Counter(name, done, total, start, now)
    if same and done and now - self.last < _SECONDS_BETWEEN:
      return
    self.last = now
    texts = [f'{loop.name} {loop.done + 1} of {loop.total}'
             for loop in self.loops if loop.total > 1]
    self.hear(Stage(', '.join([*texts, self.leaf.text(before)]),
                    self._seconds_left(now)))

  def _seconds_left(self, now: float) -> float | None:
    """From the innermost loop outwards; None where no loop knows its pace."""
    left = _seconds_left(self.leaf, now) if self.leaf else None
    for loop in reversed(self.loops):
      to_come = loop.total - loop.done - 1
      if loop.done:
        pace = (loop.now - loop.start) / loop.done
        left = max(left or 0., pace - (now - loop.now)) + pace * to_come
      elif left is not None:
        left += (now - loop.now + left) * to_come
    return left


def _seconds_left(leaf: _Counter, now: float) -> float | None:
  """Of a counter that was at 0 when it began."""
  if not leaf.done:
    return None
  return (now - leaf.start) / leaf.done * (leaf.total - leaf.done)


_listening: _Listening | None = None
_depth = 0


@contextlib.contextmanager
def listen(hear: Callable[[Stage], None],
           clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
  """Passes what is reported within on to `hear`, in the same thread.

  Args:
    hear: takes a stage: each new one, and of a counter one a second.
    clock: s.
  """
  global _listening, _depth
  before = _listening, _depth
  _listening, _depth = _Listening(hear, clock), 0
  try:
    yield
  finally:
    _listening, _depth = before


@contextlib.contextmanager
def part(name: str, done: int, total: int) -> Iterator[None]:
  """Part number `done`, from 0, of a loop over `total` parts."""
  global _depth
  if _listening is None:
    yield
    return
  _listening.enter(_depth, name, done, total)
  _depth += 1
  try:
    yield
  finally:
    _depth -= 1


def report(name: str, done: int = 0, total: int = 0, before: int = 0) -> None:
  """Says how far the innermost loop is.

  Args:
    name: of what is counted, as 'step', or of what is done, as 'compiling'.
    done: how many this loop has done. It begins with 0.
    total: of how many; 0 where nothing is counted.
    before: how many were done before it began.
  """
  if _listening is not None:
    _listening.say(name, done, total, before)
