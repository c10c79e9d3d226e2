"""The table of claims as CSV and as markdown."""

from collections.abc import Sequence
import dataclasses

import pandas as pd

from enn_ensembles.report import statistics
from enn_ensembles.report import text_tables
from enn_ensembles.studies.layer_ensembles import verdicts

_SCORE_NAMES = {'kl_estimate': 'KL', 'kl_reverse': 'reverse KL'}


def make_table(lines: Sequence[verdicts.Line]) -> pd.DataFrame:
  """Every line as a row of claims.csv."""
  return pd.DataFrame([dataclasses.asdict(line) for line in lines],
                      columns=[f.name for f in dataclasses.fields(
                          verdicts.Line)], dtype=object)


def format_markdown(lines: Sequence[verdicts.Line], brief: bool = False) -> str:
  """The table as markdown; brief for a README, which leaves the reasons out.

  The lines of a claim that share a verdict are one row, which gives the number
  of each of them and the reason of the first; where references or directions
  of the KL differ in their verdict, each verdict has a row. Where it is brief,
  what is not measured has a row only where nothing of its claim is.
  """
  header = ['claim', 'what is claimed', 'paper', 'ours', 'verdict', 'of', 'why']
  body = []
  claims = list(dict.fromkeys(line.claim for line in lines))
  for claim in claims:
    group = [line for line in lines if line.claim == claim]
    for verdict in dict.fromkeys(line.verdict for line in group):
      if brief and verdict == verdicts.NOT_MEASURED and any(
          line.verdict != verdicts.NOT_MEASURED for line in group):
        continue
      same = [line for line in group if line.verdict == verdict]
      first = same[0]
      ours = '-'
      if first.ours is not None:
        ours = '; '.join(_number_text(line, len(same) > 1) for line in same)
        ours += f' ({first.measure})'
      body.append([claim, first.statement, first.paper, ours,
                   f'**{verdict}**', _scope_text(same, group), first.why])
  columns = slice(-1 if brief else None)
  return text_tables.markdown(header[columns],
                              [cells[columns] for cells in body])


def _number_text(line: verdicts.Line, several: bool) -> str:
  """A line's number with its interval, and of what it is among several."""
  number = verdicts.interval_text(
      statistics.Interval(line.ours, line.low, line.high)
  ).replace(' (one seed, no interval)', '')
  of = ' '.join(filter(None, [line.reference, _SCORE_NAMES.get(line.score)]))
  return f'{of} {number}' if several and of else number


def _scope_text(same: Sequence[verdicts.Line],
                group: Sequence[verdicts.Line]) -> str:
  """Which references and scores a verdict is of."""
  if not any(line.score for line in group):
    return ', '.join(dict.fromkeys(line.reference for line in same)) or '-'
  parts = {}
  for line in same:
    parts.setdefault(line.reference, []).append(
        _SCORE_NAMES[line.score])
  return '; '.join(f'{reference}: {" and ".join(scores)}'
                   for reference, scores in parts.items())
