"""Numbers, remarks and tables as text for readers."""

from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any
from typing import NamedTuple

import pandas as pd

from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text_tables
from enn_ensembles.scoring import table


def short_number(value: float | None) -> str:
  """Three significant digits for reading; '-' where there is no number."""
  if value is None:
    return '-'
  if not math.isfinite(value) or value == 0:
    return f'{value:.3g}'.replace('-0', '0')
  if 1e-4 <= abs(value) < 1e4:
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f'{value:.{digits}f}'
  return f'{value:.2e}'


def interval(low: float | None, high: float | None) -> str:
  """An interval in brackets; '-' where there is none."""
  if low is None or high is None:
    return '-'
  return f'[{short_number(low)}, {short_number(high)}]'


def rank(line: Mapping[str, Any]) -> str:
  """A rank with its interval, '3 (2 to 5)'; '-' without a rank."""
  if line['rank'] is None:
    return '-'
  low, high = line['rank_low'], line['rank_high']
  if low is None:
    return str(line['rank'])
  return f'{line["rank"]} ({low if low == high else f"{low} to {high}"})'


def remarks(line: Mapping[str, Any]) -> str:
  """What is not as it should be with an agent setting; '' if nothing."""
  found = []
  if not line['complete']:
    found.append(
        f'incomplete: {line["num_scored"]} of {line["num_expected"]} problems, '
        f'{line["num_cells"]} of {line["num_cells_expected"]} cells')
  for name, text in (('num_failed', 'failed'), ('num_diverged', 'diverged'),
                     ('num_non_finite', 'not finite')):
    if line[name]:
      found.append(f'{line[name]} {text}')
  if line['num_infinite_floor']:
    found.append('too few samples to be ranked by this score: its floor is '
                 'infinite')
  if line['num_outside']:
    found.append(f'{line["num_outside"]} rows on other problems, not in '
                 'these means')
  return '; '.join(found)


def notes(line: Mapping[str, Any]) -> str:
  """What its selection reads that other agents do not, and the remarks."""
  privilege = table.PRIVILEGED_SELECTIONS.get(line['selection'])
  return '; '.join(filter(None, (privilege, remarks(line))))


def params(line: Mapping[str, Any]) -> str:
  """Trained parameters, smallest to largest over the problems."""
  low, high = line['num_params_min'], line['num_params_max']
  if low is None:
    return '-'
  return f'{low:,}' if low == high else f'{low:,} to {high:,}'


def samples(line: Mapping[str, Any]) -> str:
  """What an agent is scored on, '-' where nothing is known of it."""
  if not line['num_present']:
    return '-'
  if line['num_enn_samples'] is not None:
    return f'{line["num_enn_samples"]:,} draws'
  if line['num_samples_used'] is None:
    return 'exact moments'
  return f'all {line["num_samples_used"]:,}'


def sentence(label: str) -> str:
  """A ranking's label as the start of a sentence."""
  return label[0].upper() + label[1:]


class Headline(NamedTuple):
  """What a board is ranked by, in words and as columns.

  Attributes:
    score: name of the score.
    entry: its entry in the table of scores.
    is_relative: whether it is shown as a share of the baseline's.
    value: the column of the number shown.
    low: the column of the lower end of its interval.
    high: the column of the upper end.
    floor: the column of the same of the floor; None without a floor.
    baseline: the agent whose score counts as 1; None if not relative.
    title: a short header.
  """
  score: str
  entry: table.Score
  is_relative: bool
  value: str
  low: str
  high: str
  floor: str | None
  baseline: str | None
  title: str


def headline(board: pd.DataFrame) -> Headline:
  """What the board of one ranking is ranked by.

  Where the baseline has no scores, the arithmetic mean stands for what would be
  relative to it.
  """
  score = board.iloc[0]['score']
  entry = table.check_score(score)
  baseline = board.iloc[0]['baseline']
  relative = baseline is not None
  stem = f'{score}_relative' if relative else score
  floor = entry.floor and f'{entry.floor}_{"relative" if relative else "mean"}'
  return Headline(
      score, entry, relative, f'{score}_{"relative" if relative else "mean"}',
      f'{stem}_low', f'{stem}_high', floor, baseline,
      f'{entry.label} / {baseline}' if relative else f'mean {entry.label}')


def level_columns(board: pd.DataFrame, shown: Headline) -> dict[str, str]:
  """Column of the headline at a value of a cell field -> 'field=value'."""
  start = f'{shown.value}['
  return {name: name.removeprefix(start).removesuffix(']')
          for name in board.columns if name.startswith(start)
          and any(value is not None for value in board[name])}


def format_table(tables: tables_lib.Tables, style: str = 'text') -> str:
  """The leaderboard as text: for a terminal, or markdown for a README.

  Args:
    tables: of `make_tables`.
    style: 'text' or 'markdown'.

  Raises:
    ValueError: another style.
  """
  if style not in ('text', 'markdown'):
    raise ValueError(f"style must be 'text' or 'markdown', got {style!r}.")
  return '\n\n'.join(
      _format_board(ranking, board, style)
      for ranking, board in tables.leaderboard.groupby('ranking', sort=False))


def _format_board(ranking: str, board: pd.DataFrame, style: str) -> str:
  """The board of one ranking as text."""
  shown = headline(board)
  levels = level_columns(board, shown)
  score, floor = shown.score, shown.entry.floor
  numbers = [(shown.title, shown.value)] if shown.is_relative else []
  numbers += [(title, name) for name, title in levels.items()]
  if shown.floor and shown.is_relative:
    numbers.append((f'floor / {shown.baseline}', shown.floor))
  numbers += [(f'mean {shown.entry.label}', f'{score}_mean'),
              ('± s.e.', f'{score}_standard_error')]
  if floor:
    numbers.append(('floor', f'{floor}_mean'))
  numbers += [
      (table.SCORES[name].label, f'{name}_mean')
      for name in table.SCORE_SETS[board.iloc[0]['score_set']].beside
      if name != score
      and any(value is not None for value in board[f'{name}_mean'])]
  header = ['rank', 'agent', *(title for title, _ in numbers), 'rows',
            'parameters', 'train s', 'remarks']
  right = {0, *range(2, len(header) - 1)}  # All but the agent and remarks.
  labels, shared = split_labels(
      [' '.join(label.splitlines()) for label in board['label']])
  title = board_title(ranking, shared)
  body = [[
      rank(line), label,
      *(short_number(line[name]) for _, name in numbers),
      f'{line["num_scored"]}/{line["num_expected"]}', params(line),
      short_number(line['train_seconds_mean']),
      notes(line)] for label, line in zip(labels, board.to_dict('records'))]
  if style == 'markdown':
    return f'**{title}**\n\n' + text_tables.markdown(
        header, body, right).rstrip('\n')
  rule = ['-' * max(len(line[i]) for line in [header, *body])
          for i in range(len(header))]
  return '\n'.join([title, *text_tables.aligned([header, rule, *body], right)])


def board_title(ranking: str, shared: Sequence[str]) -> str:
  """The ranking, and the settings of `split_labels` that all agents share."""
  return sentence(ranking) + (
      f'; every agent with {", ".join(shared)}' if shared else '')


def split_labels(labels: Sequence[str]) -> tuple[list[str], list[str]]:
  """Labels without the settings that all of them have, and these settings.

  A label is a name and settings 'field=value', with commas between them.
  """
  pieces = [label.split(',') for label in labels]
  shared = [piece for piece in pieces[0][1:] if len(pieces) > 1 and all(
      piece in others[1:] for others in pieces)]
  return [','.join(part for i, part in enumerate(parts)
                   if i == 0 or part not in shared)
          for parts in pieces], shared
