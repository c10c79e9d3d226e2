"""Lines of verdicts on claims, as a table and as Markdown."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import pandas as pd

from enn_ensembles.report import text_tables


def counts(lines: Sequence[Any], claim: int) -> dict[str, int]:
  """How many lines of a claim have each verdict, the most frequent first.

  Args:
    lines: dataclasses with the fields `claim` and `verdict`.
    claim: the number of the claim.
  """
  verdicts = pd.Series([line.verdict for line in lines if line.claim == claim])
  return {str(verdict): int(count)
          for verdict, count in verdicts.value_counts().items()}


def counts_text(found: Mapping[str, int]) -> str:
  """What `counts` gives, as 'holds 3, undecided 1'."""
  return ', '.join(f'{verdict} {count}' for verdict, count in found.items())


def table(lines: Sequence[Any]) -> pd.DataFrame:
  """A row per line, which is a dataclass, and a column per field of it."""
  frame = pd.DataFrame([dataclasses.asdict(line) for line in lines],
                       dtype=object)
  return frame.where(frame.notna(), None)


def interval_text(line: Any) -> str:
  """The ends of a line's interval, `low` and `high`; '' where it has none."""
  return '' if line.low is None else f'{line.low:.3g} to {line.high:.3g}'


def markdown(header: str, overall: Mapping[str, str], columns: Sequence[str],
             body: Sequence[Sequence[Any]], right: Sequence[int]) -> str:
  """Two tables in Markdown: a line per claim, and below them all lines.

  Args:
    header: what the first table says of a claim.
    overall: that, by the claim.
    columns: header of the second table.
    body: its lines.
    right: its columns of numbers, counted from 0.
  """
  claims = text_tables.markdown(('claim', header), list(overall.items()))
  return claims + '\n' + text_tables.markdown(columns, body, right=right)
