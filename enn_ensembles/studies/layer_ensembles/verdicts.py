"""Lines of the table of claims, and the rules of their verdicts.

The thresholds are stated here and in the docstring of each claim, and were
chosen before the numbers. A paper's claim is judged by the paper's own rule,
the arithmetic mean over all cells and seeds; the geometric one stands beside
it.

  * reproduced: the data decide that what is claimed is there.
  * partly: the data decide that there is less than is claimed, but at least
    half of it.
  * not reproduced: the data decide that it is not there.
  * inconclusive: the data do not decide; one seed never does.
  * inconclusive: not measured: there are no such rows, or no such table.

The rules, for a number with its 95 % interval [low, high]:
  * `judge_factor`: something is f times better, a ratio. Reproduced: low is at
    least 0.9 f (the papers' factors are round). Partly: the interval lies
    between half of the improvement, 1 + (f - 1) / 2, and 0.9 f. Not reproduced:
    high is below half of the improvement.
  * `judge_better`: something is better, a ratio. Reproduced: low is above 1.
    Not reproduced: high is below 1.
  * `judge_at_most`: a number is at most a bound. Reproduced: high is at most
    the bound. Not reproduced: low is above it.
  * `judge_within`: a number lies in a range. Reproduced: the interval does. Not
    reproduced: the interval lies outside.
Whatever else is inconclusive. The lines of one claim are a family: verdicts
other than inconclusive hold together at a level of 5 %, by Holm's step-down
procedure (`judge_family`). Timings have turns in place of seeds; the sizes of
compiled programs and numbers of weights are exact, and judged by their value.

No jax here.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import stats

from enn_ensembles.report import statistics
from enn_ensembles.report import text

VERDICTS = ('reproduced', 'partly', 'not reproduced', 'inconclusive',
            'inconclusive: not measured')
REPRODUCED, PARTLY, NOT_REPRODUCED, INCONCLUSIVE, NOT_MEASURED = VERDICTS

# A factor counts as reached from this share of it on.
FACTOR_SHARE = 0.9
LEVEL = 0.05

Judge = Callable[[statistics.Interval], str]


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of the table of claims.

  Attributes:
    claim: its number, e.g. '3b'.
    statement: what is claimed.
    paper: the paper's value, as text.
    verdict: one of VERDICTS; '' where it is still to be judged.
    why: one sentence, made from the numbers.
    reference: reference of the scores; '' where scores are not involved.
    score: 'kl_estimate' or 'kl_reverse'; '' as above.
    measure: what `ours` is.
    ours: our value; None if not measured.
    low: lower end of its 95 % interval; None if it has none.
    high: upper end.
    geometric: the same from geometric means; None where that is not defined.
    num_cells: cells behind it; None where there are none.
    num_seeds: seeds.
  """
  claim: str
  statement: str
  paper: str
  verdict: str
  why: str
  reference: str = ''
  score: str = ''
  measure: str = ''
  ours: float | None = None
  low: float | None = None
  high: float | None = None
  geometric: float | None = None
  num_cells: int | None = None
  num_seeds: int | None = None


@dataclasses.dataclass(frozen=True)
class Measured:
  """A line that has a number and waits for its verdict.

  Attributes:
    line: the line; its verdict is not read.
    found: its number with the 95 % interval over seeds.
    judge: the rule.
    log: whether the interval is one of the logarithm, as of a ratio.
  """
  line: Line
  found: statistics.Interval
  judge: Judge
  log: bool = True

  def verdict(self, level: float) -> str:
    """The verdict with an interval of another level than 5 %."""
    if not self.found.is_known:
      return INCONCLUSIVE
    return self.judge(self._widened(level))

  def _widened(self, level: float) -> statistics.Interval:
    """Student's t interval of this level around the same number."""
    forward, back = (np.log, np.exp) if self.log else (lambda v: v,) * 2
    assert self.line.num_seeds is not None  # What has an interval has seeds.
    degrees = self.line.num_seeds - 1
    scale = (stats.t.ppf(1 - level / 2, degrees)
             / statistics.student_t(degrees))
    # Around the middle, which for the best P is not the number itself.
    low, high = forward(self.found.low), forward(self.found.high)
    middle, half = (low + high) / 2, scale * (high - low) / 2
    return statistics.Interval(self.found.value, float(back(middle - half)),
                               float(back(middle + half)))


def judge_family(lines: Sequence[Measured]) -> list[Line]:
  """The lines of one claim with their verdicts, Holm at a level of 5 %.

  Of m lines, those that are decided at level 0.05 / m are; of the m' others
  those that are decided at 0.05 / m'; and so on until none is.
  """
  verdicts: dict[int, str] = {}
  waiting = list(range(len(lines)))
  while waiting:
    found = {i: lines[i].verdict(LEVEL / len(waiting)) for i in waiting}
    decided = {i: verdict for i, verdict in found.items()
               if verdict != INCONCLUSIVE}
    if not decided:
      break
    verdicts.update(decided)
    waiting = [i for i in waiting if i not in decided]
  return [dataclasses.replace(measured.line,
                              verdict=verdicts.get(i, INCONCLUSIVE))
          for i, measured in enumerate(lines)]


def judge_factor(factor: float) -> Judge:
  """The rule for 'f times better'; see the module's docstring."""
  claimed, half = FACTOR_SHARE * factor, 1 + (factor - 1) / 2

  def judge(found: statistics.Interval) -> str:
    if found.low >= claimed:
      return REPRODUCED
    if found.high < half:
      return NOT_REPRODUCED
    decided = half <= found.low and found.high < claimed
    return PARTLY if decided else INCONCLUSIVE

  return judge


def judge_better(found: statistics.Interval) -> str:
  """The rule for 'better'; see the module's docstring."""
  return judge_at_least(1.)(found)


def judge_at_least(bound: float) -> Judge:
  """The rule for a ratio that is above a bound."""
  def judge(found: statistics.Interval) -> str:
    return (REPRODUCED if found.low > bound else
            NOT_REPRODUCED if found.high < bound else INCONCLUSIVE)
  return judge


def judge_at_most(bound: float) -> Judge:
  """The rule for 'at most this'; see the module's docstring."""
  def judge(found: statistics.Interval) -> str:
    return (REPRODUCED if found.high <= bound else
            NOT_REPRODUCED if found.low > bound else INCONCLUSIVE)
  return judge


def judge_within(low: float, high: float) -> Judge:
  """The rule for a number in a range; see the module's docstring."""
  def judge(found: statistics.Interval) -> str:
    if low <= found.low and found.high <= high:
      return REPRODUCED
    outside = found.high < low or found.low > high
    return NOT_REPRODUCED if outside else INCONCLUSIVE
  return judge


def interval_text(found: statistics.Interval) -> str:
  """A number with its interval."""
  number = text.short_number
  if found.low is None:
    return f'{number(found.value)} (one seed, no interval)'
  return (f'{number(found.value)} [{number(found.low)}, '
          f'{number(found.high)}]')
