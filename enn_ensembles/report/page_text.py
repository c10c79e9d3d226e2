"""What the page says in sentences, and the texts of its cells."""

from enn_ensembles.report import agent_settings
from enn_ensembles.report import columns as columns_lib
from enn_ensembles.report import csv_files
from enn_ensembles.report import ranks
from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text
from enn_ensembles.scoring import table

RANK_HINT = (f'seeds drawn anew {ranks.NUM_RESAMPLES} times, the same for all '
             'agent settings; cells fixed')
APART_HINT = ('ranks that a paired t test on the mean over cells of each '
              "seed's log ratio does not tell apart from this one: Holm over "
              'all pairs, level 0.05')
RELATIVE_HINT = (
    'exp of the mean over cells of log(mean over seeds of the score / that of '
    'the baseline), with its 95 % interval over seeds: 1 is as far from the '
    'truth as the baseline, 0 is exact')


def title(tables: tables_lib.Tables) -> str:
  """The page's title: what its scores are of."""
  sets = list(dict.fromkeys(tables.leaderboard['score_set']))
  if sets == ['nngp']:
    return 'Agents against the exact NNGP posterior'
  return 'Agents on ' + ' and '.join(sets) + ' problems'


def introduction(tables: tables_lib.Tables) -> list[str]:
  """How to read the page, a paragraph each."""
  board = tables.leaderboard
  paragraphs = []
  for name, score in dict.fromkeys(zip(board['score_set'], board['score'])):
    entry = table.check_score(score)
    words = (f'{table.SCORE_SETS[name].meaning} The score is {score}: '
             f'{entry.meaning}, in {entry.unit}; {entry.direction} is better.')
    if entry.floor is not None:
      words += (f' {entry.floor} is the {table.SCORES[entry.floor].meaning}: '
                'an expectation, not a bound. Agent settings whose floor is '
                'infinite are shown and not ranked.')
    paragraphs.append(words)
  shown = [text.headline(part) for _, part in board.groupby('ranking')]
  if any(one.is_relative for one in shown):
    names = sorted({one.baseline for one in shown if one.is_relative})
    paragraphs.append(
        f'Agent settings are ranked by {RELATIVE_HINT}. The baseline is '
        f'{" or ".join(names)}. So a cell counts once, whatever the size of '
        'its scores; the arithmetic mean stands beside it.')
  paragraphs.append(
      'Cells are the problems without their seeds. Intervals are 95 % over '
      'seeds, cells fixed: they do not say what other cells would give. '
      'Nothing is clipped, filled or dropped: a score that is not finite makes '
      'its mean not finite, and a diverged problem leaves its agent setting '
      'without a rank.')
  return paragraphs


def settings_of_agents(rows: columns_lib.Columns) -> list[dict[str, str]]:
  """Every field of every agent setting."""
  found: dict[str, dict[str, str]] = {}
  for agent in agent_settings.read_agents(rows):
    found.setdefault(agent.agent_id, {
        'label': agent.label,
        'settings': ', '.join(f'{name}={csv_files.value_text(value)}'
                              for name, value in sorted(agent.config.items()))})
  return list(found.values())
