"""What happens once and what happens per step, from runs of two lengths.

A training of n steps takes `once + n * step` seconds. One run cannot tell the
two apart: a short one that is scaled to all steps multiplies what happens once
(the initial draw, tables of targets, minibatches) with them. Two runs of the
same program with different numbers of steps can; this module holds the
arithmetic, and how long the runs should be.
"""

from collections.abc import Callable
from collections.abc import Sequence
import statistics
from typing import Any
from typing import NamedTuple

# The short run has this share of the steps of the long one: enough to be above
# the noise of the clock, few enough to cost little.
_SHORT_SHARE = 0.1
# Runs are tried until two differ by so many seconds, and by this share: then
# they can tell how long many steps take.
_PILOT_SECONDS, _PILOT_SHARE = 0.05, 0.1
_PILOT_STEPS = 2  # Of the first, and four times as many in each of the others.
_SHORTEST = 20  # Steps of the long run, where a step takes very long.


class Line(NamedTuple):
  """Seconds as a function of the number of steps.

  Attributes:
    once: seconds of what happens once.
    step: seconds per step.
  """
  once: float
  step: float

  def at(self, num_steps: float) -> float:
    """Seconds of a run of so many steps."""
    return self.once + num_steps * self.step


class Lengths(NamedTuple):
  """The numbers of steps that are run.

  Attributes:
    short: of the short run, at least 1 where there is more than one step.
    long: of the long run, more.
  """
  short: int
  long: int


class Timing(NamedTuple):
  """Measured seconds of runs of two lengths.

  Attributes:
    lengths: their numbers of steps.
    short: seconds of the short run, one per repeat.
    long: seconds of the long run, one per repeat.
  """
  lengths: Lengths
  short: Sequence[float]
  long: Sequence[float]

  def lines(self) -> list[Line]:
    """The line through the two runs of each repeat."""
    return [fit(self.lengths, short, long)
            for short, long in zip(self.short, self.long, strict=True)]

  def seconds_at(self, num_steps: int) -> list[float]:
    """Seconds of so many steps per repeat: measured, or along the line.

    Where something else took the machine in the short run, the line may be
    wrong without bound; but fewer steps take at least their share of the long
    run (what happens once takes no negative time), and more steps at least as
    long as that.
    """
    if num_steps in self.lengths:
      return list(self[1 + self.lengths.index(num_steps)])
    least = min(1., num_steps / self.lengths.long)
    return [max(line.at(num_steps), least * seconds)
            for line, seconds in zip(self.lines(), self.long, strict=True)]

  def scaled(self, factor: float) -> 'Timing':
    """The same with all seconds multiplied, as to seconds per problem."""
    return Timing(self.lengths, [factor * s for s in self.short],
                  [factor * s for s in self.long])


class Interval(NamedTuple):
  """A median and the range of the repeats.

  With r repeats that are independent and alike, the true median lies between
  the lowest and the highest with probability 1 - 2 / 2^r: 75 % of three, 94 %
  of five.

  Attributes:
    median: of the repeats.
    low: the lowest.
    high: the highest.
  """
  median: float
  low: float
  high: float


def interval(values: Sequence[float]) -> Interval:
  """Median and range of at least one value."""
  return Interval(statistics.median(values), min(values), max(values))


def fit(lengths: Lengths, short_seconds: float, long_seconds: float) -> Line:
  """The line through two runs.

  Raises:
    ValueError: the runs have the same length.
  """
  if not lengths.short < lengths.long:
    raise ValueError('the short run must have fewer steps than the long one, '
                     f'got {lengths.short} and {lengths.long}.')
  step = (long_seconds - short_seconds) / (lengths.long - lengths.short)
  return Line(long_seconds - lengths.long * step, step)


def choose(run: Callable[[int], float], num_steps: int,
           seconds: float) -> Lengths:
  """How many steps the two runs should have, by trying a few.

  Args:
    run: runs so many steps and returns the seconds that it took.
    num_steps: of the whole training, at least 1.
    seconds: what one run of each length may take together.

  Returns:
    (short, num_steps) where the whole training fits, else as many steps as fit.
    A training of one step is compared with none.
  """
  first = num_pilot = min(_PILOT_STEPS, num_steps)
  first_seconds = elapsed = run(first)
  while num_pilot < num_steps and (elapsed - first_seconds < max(
      _PILOT_SECONDS, _PILOT_SHARE * elapsed)) and elapsed < seconds:
    num_pilot = min(4 * num_pilot, num_steps)
    elapsed = run(num_pilot)
  if num_pilot == first:
    line = Line(0., elapsed / first)
  else:
    line = fit(Lengths(first, num_pilot), first_seconds, elapsed)
  step = max(line.step, 1e-9)  # Where the clock could not tell.
  # Both runs pay for what happens once.
  left = seconds - 2. * max(line.once, 0.)
  fitting = int(left / ((1. + _SHORT_SHARE) * step))
  longest = min(num_steps, max(fitting, _SHORTEST))
  short = max(1, int(_SHORT_SHARE * longest))
  return Lengths(short if short < longest else 0, longest)


def together(timings: Sequence[Timing]) -> Timing:
  """What several workers take side by side, per problem of all of them.

  Args:
    timings: of the workers, in seconds per problem of each; they may have run
      different lengths, but as many repeats.

  Returns:
    Seconds per problem of all workers together, of runs of the lengths that all
    of them have at least reached. The time of a worker that ran others is taken
    from its line.
  """
  lengths = min((timing.lengths for timing in timings),
                key=lambda lengths: lengths.long)
  return Timing(lengths, *(
      machine_seconds([timing.seconds_at(length) for timing in timings])
      for length in lengths))


def machine_seconds(seconds: Sequence[Sequence[float]]) -> list[float]:
  """Seconds per problem of all workers together, per repeat.

  Args:
    seconds: per worker and repeat, seconds per problem of that worker.

  Raises:
    RuntimeError: seconds are not positive, as where something else took the
      machine during a short run.
  """
  for value in (value for values in seconds for value in values):
    if not value > 0:
      raise RuntimeError(
          f'a measurement came to {value:.3g} s: the machine is too busy for '
          'runs that short; raise --seconds_per_case.')
  return [1. / sum(1. / s for s in repeat)
          for repeat in zip(*seconds, strict=True)]


def share(value: float | None, ceiling: Any) -> float | None:
  """value / ceiling; None where either is unknown."""
  return None if value is None or not ceiling else value / ceiling
