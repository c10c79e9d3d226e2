"""Claim 6: a contrast in regression to a claim about classification."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import statistics
from enn_ensembles.report import text
from enn_ensembles.studies.layer_ensembles import table_claims
from enn_ensembles.studies.layer_ensembles import verdicts

# The columns of similarity.csv, one row per agent setting and cell, and one
# without a cell for all of them; every measure is a mean over seeds and pairs
# of members, with the ends of its interval over seeds.
MEASURES = ('disagreement', 'jensen_shannon', 'cosine', 'one_network_share')
COLUMNS = ('setting', 'reference', 'input_dim', 'num_cells', 'num_seeds',
           *MEASURES)

_CLAIMS = (
    ('6a', 'disagreement', 'members of BatchEnsemble never disagree', '0'),
    ('6b', 'jensen_shannon', 'members of BatchEnsemble predict the same', '0'),
    ('6c', 'cosine', "weights of BatchEnsemble's members are nearly parallel",
     '1'),
    ('6d', 'one_network_share', 'BatchEnsemble behaves like one network',
     'one network'))
# Of log 2 = 0.69 nats; of signs.
_NEARLY_NONE = 0.01
_text = text.short_number


def claim_6(table: pd.DataFrame | None) -> Iterator[verdicts.Line]:
  """BatchEnsemble's members are nearly identical: how regression differs.

  The claim, that BatchEnsemble behaves like one network (arXiv 2601.16936), is
  about classification with k = 4, and is judged on images. What stands here is
  how the same measures come out in regression with k = 4, without prior and
  target noise; there the std of the fast weights at the start decides them.

  For each BatchEnsemble in similarity.csv, means over its cells with the 95 %
  interval over seeds, judged by the interval; nothing is decided without one:
  6a: sign disagreement. Reproduced up to 0.01; partly from there up to half of
  the deep ensemble's mean; not reproduced above that half.
  6b: Jensen-Shannon divergence, by the same bounds, in nats.
  6c: cosine of the members' weights. Reproduced from 0.95 on; partly from 0.5
  to 0.95; not reproduced below 0.5.
  6d: where its log KL stands on the way from the deep ensemble (0) to the one
  network `map` (1), a mean over cells. Reproduced from 0.75 on; partly from
  0.25 to 0.75; not reproduced below 0.25.
  The lines of a measure are a family, over the settings of the fast weights.

  Args:
    table: similarity.csv; None if there is none.

  Raises:
    ValueError: the table lacks a column.
  """
  overall = own = pd.DataFrame()
  if table is not None:
    table_claims.check_columns(table, 'similarity_csv', COLUMNS)
    overall = pd.DataFrame(table[table['input_dim'].isna()])
    own = pd.DataFrame(overall[overall['setting'].str.startswith(
        'batch_ensemble')])
  if table is None or own.empty:
    why = ('no similarity_csv was given.' if table is None else
           'similarity_csv has no batch_ensemble.')
    for claim, _, statement, paper in _CLAIMS:
      yield verdicts.Line(
          claim=claim, statement=f'regression, a contrast: {statement}',
          paper=f'{paper} (classification)', verdict=verdicts.NOT_MEASURED,
          why=why)
    return
  for claim, measure, statement, paper in _CLAIMS:
    lines: list[verdicts.Measured] = []
    for row in own.to_dict('records'):
      fields = dict(
          claim=f'{claim}, {row["setting"]}', paper=f'{paper} (classification)',
          statement=f'regression, a contrast: {statement}',
          reference=row['reference'])
      deep = _deep_mean(overall, row, measure)
      lines.append(_measured(row, measure, deep, fields))
    yield from verdicts.judge_family(lines)


def _deep_mean(overall: pd.DataFrame, row: dict[str, Any],
               measure: str) -> float | None:
  """The measure of the deep ensemble of the same prior, noise and size."""
  def parts(setting: str) -> set[str]:
    return {part for part in setting.split(',')[1:]
            if not part.startswith('fast_')}
  for other in overall.to_dict('records'):
    if (other['setting'].split(',')[0] == 'ensemble'
        and other['reference'] == row['reference']
        and parts(other['setting']) == parts(row['setting'])):
      return float(other[measure])
  return None


def _measured(row: dict[str, Any], measure: str, deep: float | None,
              fields: dict[str, str]) -> verdicts.Measured:
  """One line that waits for its verdict."""
  ends = (row.get(f'{measure}_low'), row.get(f'{measure}_high'))
  low, high = (None if end is None or not np.isfinite(end) else float(end)
               for end in ends)
  found = statistics.Interval(float(row[measure]), low, high)
  if measure == 'cosine':
    judge = _judge_between(0.5, 0.95)
  elif measure == 'one_network_share':
    judge = _judge_between(0.25, 0.75)
  else:
    judge = _judge_small(_NEARLY_NONE, None if deep is None else deep / 2)
  beside = ('' if deep is None or measure == 'one_network_share' else
            f', beside {_text(deep)} of the deep ensemble')
  line = verdicts.Line(
      verdict='', measure=f'mean {measure}', ours=found.value, low=low,
      high=high, num_cells=int(row['num_cells']),
      num_seeds=int(row['num_seeds']),
      why=f'mean {measure} is {verdicts.interval_text(found)}{beside}, over '
      f'{int(row["num_cells"])} cells and {int(row["num_seeds"])} seeds.',
      **fields)
  return verdicts.Measured(line, found, judge, log=False)


def _judge_between(partly: float, reproduced: float) -> verdicts.Judge:
  """The larger the better: two bounds."""
  def judge(found: statistics.Interval) -> str:
    if found.low >= reproduced:
      return verdicts.REPRODUCED
    if found.high < partly:
      return verdicts.NOT_REPRODUCED
    decided = partly <= found.low and found.high < reproduced
    return verdicts.PARTLY if decided else verdicts.INCONCLUSIVE
  return judge


def _judge_small(reproduced: float, partly: float | None) -> verdicts.Judge:
  """The smaller the better: two bounds, the second perhaps unknown."""
  def judge(found: statistics.Interval) -> str:
    if found.high <= reproduced:
      return verdicts.REPRODUCED
    if partly is not None and found.low > max(partly, reproduced):
      return verdicts.NOT_REPRODUCED
    decided = (partly is not None and reproduced < found.low
               and found.high <= partly)
    return verdicts.PARTLY if decided else verdicts.INCONCLUSIVE
  return judge
