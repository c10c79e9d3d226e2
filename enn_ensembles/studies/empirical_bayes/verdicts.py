"""What is claimed of deep ensembles as empirical Bayes, judged by rules.

The rules were stated before the numbers. K is the largest ensemble; intervals
are Student's t, 95 %, over seeds, one line per problem, noise level, kind of
members and length of training (the usual 1000 steps, and the last one). Lines
are not corrected for their number.

1. "Exact averaging". On every ensemble that was measured, at every step of
   training: the log evidence of uniform and of learnt weights exceeds the
   largest log likelihood by no more than rounding, EM never lowers it by more,
   and ends within its own bound of the largest. Verdict 'holds as mathematics',
   or 'violated'.
2. "The learnt prior is the ensemble", that is, uniform weights are (nearly)
   their own posterior: by ESS / K of the posterior's weights. Holds: the
   interval lies above 0.9. Partly: it lies between 0.5 and 0.9. Does not hold:
   it lies below 0.5.
3. "Explains why ensembles work": if what helps is that members are averaged by
   their posterior, exact weights must give what uniform weights do. With the
   test NLL of the mean single member less that of uniform weights, gain u, and
   of the posterior's weights, gain e: Explains: e - 0.9 u is above 0. Partly:
   e - 0.9 u is below and e - 0.5 u above 0. Does not explain: e - 0.5 u is
   below 0. Nothing to explain: u is below 0.001 nats per label. (That was
   added after the first numbers: MAP members at a noise level of 1 end as one
   and the same function, and ratios of what they gain are rounding.)
Whatever else is inconclusive; one seed always is. Of a claim as a whole the
verdict is that of all its lines, or else 'mixed'.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import statistics
from enn_ensembles.studies import verdict_tables
from enn_ensembles.studies.empirical_bayes import units

HIGH, LOW = 0.9, 0.5
_SMALL_GAIN = 1e-3
# Relative to the size of a log likelihood, and absolute.
_ROUNDING = 1e-9

_GROUP = ['problem', 'noise_std', 'kind', 'steps']
HOLDS_AS_MATHEMATICS, VIOLATED = 'holds as mathematics', 'violated'
HOLDS, PARTLY, NOT = 'holds', 'partly', 'does not hold'
EXPLAINS, NOT_EXPLAINED, NOTHING = ('explains', 'does not explain',
                                    'nothing to explain')
INCONCLUSIVE = 'inconclusive'

CLAIMS = {1: 'exact averaging', 2: 'the learnt prior is the ensemble',
          3: 'explains why ensembles work'}


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of the table of verdicts.

  Attributes:
    claim: its number, a key of CLAIMS.
    problem: a testbed cell or digits; 'all' for claim 1.
    noise_std: epsilon; None where there is none.
    kind: of members.
    steps: of training; None for all.
    verdict: by the rules.
    measure: what `value` is.
    value: the number.
    low: lower end of its interval; None where it has none.
    high: upper end.
    uniform_gain: NLL that uniform weights are better than the mean member, in
      claim 3.
  """
  claim: int
  problem: str
  noise_std: float | None
  kind: str
  steps: int | None
  verdict: str
  measure: str
  value: float
  low: float | None = None
  high: float | None = None
  uniform_gain: float | None = None


def judge(ensembles: pd.DataFrame, weights: pd.DataFrame) -> list[Line]:
  """All lines, from the tables of ensembles and of weights."""
  largest = ensembles['num_members'].max()
  steps = {units.USUAL_STEPS, int(ensembles['steps'].max())}
  lines = [_judge_mathematics(ensembles)]
  kept = ensembles[(ensembles['num_members'] == largest)
                   & ensembles['steps'].isin(steps)]
  for key, group in kept.groupby(_GROUP, dropna=False, sort=False):
    lines.append(_judge_share(key, np.asarray(group['ess_share'])))
  kept = weights[(weights['num_members'] == largest)
                 & weights['steps'].isin(steps)]
  for key, group in kept.groupby(_GROUP, dropna=False, sort=False):
    nll = group.pivot(index='seed', columns='rule', values='nll')
    lines.append(_judge_gain(
        key, (nll['single'] - nll['uniform']).to_numpy(),
        (nll['single'] - nll['posterior']).to_numpy()))
  return lines


def _judge_mathematics(ensembles: pd.DataFrame) -> Line:
  allowed = _ROUNDING * (1. + ensembles['log_likelihood_max'].abs())
  left = ensembles['log_likelihood_max'] - ensembles['evidence_learnt']
  holds = ((ensembles['evidence_excess'] <= allowed)
           & (ensembles['em_largest_fall'] <= allowed)
           & (left <= ensembles['em_gap'] + allowed)).all()
  return Line(1, 'all', None, 'all', None,
              HOLDS_AS_MATHEMATICS if holds else VIOLATED,
              'largest log evidence less largest log likelihood',
              float(ensembles['evidence_excess'].max()))


def _place(key: Sequence[Any]) -> tuple[str, float | None, str, int]:
  problem, noise_std, kind, steps = key
  return (problem, None if pd.isna(noise_std) else float(noise_std), kind,
          int(steps))


def judge_share(found: statistics.Interval) -> str:
  """Claim 2 from ESS / K."""
  if not found.is_known:
    return INCONCLUSIVE
  if found.low > HIGH:
    return HOLDS
  if found.high < LOW:
    return NOT
  return PARTLY if LOW < found.low and found.high < HIGH else INCONCLUSIVE


def _judge_share(key: Sequence[Any], shares: np.ndarray) -> Line:
  found = statistics.mean_interval(shares[None])
  return Line(2, *_place(key), judge_share(found), 'ESS / K', *_plain(found))


def judge_gain(uniform: np.ndarray, exact: np.ndarray) -> str:
  """Claim 3 from the gains of each seed, [S]."""
  gain, high, low = (statistics.mean_interval(values[None]) for values in (
      uniform, exact - HIGH * uniform, exact - LOW * uniform))
  if not (gain.is_known and high.is_known and low.is_known):
    return INCONCLUSIVE
  if gain.high < _SMALL_GAIN:
    return NOTHING
  if gain.low <= 0:
    return INCONCLUSIVE
  if high.low > 0:
    return EXPLAINS
  if low.high < 0:
    return NOT_EXPLAINED
  return PARTLY if high.high < 0 < low.low else INCONCLUSIVE


def _judge_gain(key: Sequence[Any], uniform: np.ndarray,
                exact: np.ndarray) -> Line:
  found = statistics.mean_interval(exact[None])
  return Line(3, *_place(key), judge_gain(uniform, exact),
              'NLL gain of exact weights', *_plain(found),
              uniform_gain=float(uniform.mean()))


def _plain(found: statistics.Interval) -> tuple[float | None, ...]:
  return tuple(None if part is None else float(part) for part in found)


def overall(lines: Sequence[Line], claim: int) -> str:
  """The verdict of a claim as a whole, and how many lines say what."""
  counts = verdict_tables.counts(lines, claim)
  if len(counts) == 1:
    return next(iter(counts))
  return 'mixed: ' + verdict_tables.counts_text(counts)


def text(lines: Sequence[Line]) -> str:
  """The verdicts as Markdown."""
  return verdict_tables.markdown(
      'verdict', {f'{claim}. {name}': overall(lines, claim)
                  for claim, name in CLAIMS.items()},
      ('claim', 'problem', 'ε', 'members', 'steps', 'verdict', 'measure',
       'value', '95 %', 'uniform gain'),
      [(line.claim, line.problem, _optional(line.noise_std), line.kind,
        '' if line.steps is None else line.steps, line.verdict, line.measure,
        f'{line.value:.3g}', verdict_tables.interval_text(line),
        _optional(line.uniform_gain)) for line in lines], right=[2, 4, 7, 9])


def _optional(value: float | None) -> str:
  return '' if value is None else f'{value:.3g}'
