"""Lines of the table of claims, and the rules of their verdicts.

Each claim of Oleksiienko & Iosifidis 2022 (arXiv 2210.04882) is a function from
measured numbers to lines with a verdict; its docstring states the thresholds.
Nothing is typed in but the paper's own numbers and those thresholds.

Verdicts use one of three rules:
  * `judge_factor`: something is f times better. Reproduced: at least 0.9 f (the
    paper's factors are round), and the interval is above 1. Partly: the
    interval is above 1 but the factor is not reached, or it is reached and the
    interval is not above 1. Otherwise not reproduced.
  * `judge_at_most`: a number is at most a bound. Reproduced: it is. Partly: it
    is not, but its interval reaches the bound. Otherwise not.
  * `judge_better`: something is better, without a number. Reproduced: the
    interval of the ratio is above 1. Partly: it holds 1. Otherwise not.
A line without an interval (one seed) is at best partly reproduced; timings and
compiled sizes, which have no seeds, are judged by their value. What rows,
figure3.csv or similarity.csv do not tell is 'not measured'.

No jax here.
"""

import dataclasses
import math

from enn_ensembles.report import statistics
from enn_ensembles.report import text

REPRODUCED, PARTLY, NOT_REPRODUCED, NOT_MEASURED = VERDICTS = (
    'reproduced', 'partly', 'not reproduced', 'not measured')

# A factor counts as reached from this share of it on.
FACTOR_SHARE = 0.9


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of the table of claims.

  Attributes:
    claim: its number, e.g. '3b'.
    statement: what is claimed.
    paper: the paper's value, as text.
    verdict: one of VERDICTS.
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


def judge_factor(found: statistics.Interval, factor: float) -> str:
  """The verdict on 'f times better'; see the module's docstring."""
  reached = found.value >= FACTOR_SHARE * factor
  if found.is_known and found.low > 1.:
    return REPRODUCED if reached else PARTLY
  return PARTLY if reached else NOT_REPRODUCED


def judge_better(found: statistics.Interval) -> str:
  """The verdict on 'better'; see the module's docstring."""
  if not found.is_known:
    return PARTLY if found.value > 1. else NOT_REPRODUCED
  if found.low > 1.:
    return REPRODUCED
  return PARTLY if found.high >= 1. else NOT_REPRODUCED


def judge_at_most(found: statistics.Interval, bound: float) -> str:
  """The verdict on 'at most this'; see the module's docstring."""
  if not math.isfinite(found.value):
    return NOT_REPRODUCED
  if found.value <= bound:
    return REPRODUCED if found.is_known else PARTLY
  return PARTLY if found.is_known and found.low <= bound else NOT_REPRODUCED


def interval_text(found: statistics.Interval) -> str:
  """A number with its interval."""
  number = text.short_number
  if found.low is None:
    return f'{number(found.value)} (one seed, no interval)'
  return (f'{number(found.value)} [{number(found.low)}, '
          f'{number(found.high)}]')
