"""Agents' ranks by each score side by side, and what scores tell beyond KL.

A score that orders agents as the KL does tells nothing new; how far it does not
is said in two ways, over agent settings that both scores rank:
  * Pairs of agent settings that both scores tell apart (`ranks.told_apart`),
    and how many of them the two scores put in opposite order.
  * The share of the variance of the score, within cells and over agent
    settings, that the KL does not explain: 1 - r^2 of the logarithms of means
    over seeds (of scores that may be negative: of those means), each cell's
    mean taken off. A score that is a power of the KL has 0.
Exact draws and exact moments of the posterior, whose scores are what the
pipeline audits, are ranked and left out of both.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import pandas as pd

from enn_ensembles.report import cells as cells_lib
from enn_ensembles.report import columns as columns_lib
from enn_ensembles.report import rankings
from enn_ensembles.report import ranks
from enn_ensembles.report import statistics
from enn_ensembles.report import tables
from enn_ensembles.scoring import table

_AUDIT = 'exact_posterior'

# What makes two lines of a board two agent settings.
_SETTING = ('agent_id', 'dtype', 'num_enn_samples')
_Setting = tuple[Any, ...]


class ScoreComparison(NamedTuple):
  """Two tables, columns of dtype object.

  Attributes:
    ranks: a row per agent setting of the first ranking, with its rank and its
      mean by each score; None where it has no rank.
    relations: a row per score: its relation to the first of the scores.
  """
  ranks: pd.DataFrame
  relations: pd.DataFrame


def compare_scores(rows: columns_lib.Columns, expected: Sequence[Any],
                   scores: Sequence[str]) -> ScoreComparison:
  """Ranks by each score, and how each relates to the first.

  Args:
    rows: of the board.
    expected: what its sweeps said they would compute.
    scores: names in the table of scores; the first is what others are compared
      with.

  Raises:
    ValueError: a score is unknown or has no direction, or no row has it.
  """
  whole = {score: tables.make_tables(rows, expected, score).leaderboard
           for score in scores}
  found_ranking = rankings.first_with(rows, rows.score(scores[0])[1])
  if found_ranking is None:
    raise ValueError(f'results_dir has no row with score {scores[0]!r}.')
  ranking, inside = found_ranking
  boards: dict[str, dict[_Setting, Any]] = {
      score: {tuple(line[name] for name in _SETTING): line for _, line in
              board[board['ranking'] == ranking.label].iterrows()}
      for score, board in whole.items()}
  main = boards[scores[0]]
  lines = []
  for setting, line in main.items():
    found = {'ranking': line['ranking'], 'label': line['label']}
    for score, board in boards.items():
      own = board.get(setting)
      for name, column in (('rank', 'rank'), ('rank_low', 'rank_low'),
                           ('rank_high', 'rank_high'),
                           ('mean', f'{score}_mean'),
                           ('relative', f'{score}_relative')):
        found[f'{score}_{name}'] = None if own is None else own[column]
    lines.append(found)
  number = {setting: i for i, setting in enumerate(main)}
  values = _values(rows, inside, number, scores)
  relations = []
  for score in scores[1:]:
    other = boards[score]
    ranked = [number[setting] for setting, line in main.items()
              if line['agent'] != _AUDIT and setting in other
              and None not in (line['rank'], other[setting]['rank'])]
    relations.append({'score': score, 'beside': scores[0], **_relate(
        values[scores[0]][ranked], values[score][ranked], scores[0], score)})
  return ScoreComparison(pd.DataFrame(lines, dtype=object),
                         pd.DataFrame(relations, dtype=object))


def _values(rows: columns_lib.Columns, inside: np.ndarray,
            number: Mapping[_Setting, int], scores: Sequence[str]
            ) -> dict[str, np.ndarray]:
  """Each score of agent settings in the rows of a ranking, [A, C, S]."""
  cell_codes, seed_codes = cells_lib.cell_codes(rows), rows.codes('seed')
  cells, seeds = np.unique(cell_codes[inside]), np.unique(seed_codes[inside])
  named = zip(*([rows.values(name)[code] for code in rows.codes(name).tolist()]
                for name in _SETTING))
  agents = np.array([number.get(setting, -1) for setting in named], int)
  found = {}
  for score in scores:
    values, present = rows.score(score)
    kept = inside & present & (agents >= 0)
    places = (agents[kept], np.searchsorted(cells, cell_codes[kept]),
              np.searchsorted(seeds, seed_codes[kept]))
    found[score] = np.full((len(number), len(cells), len(seeds)), np.nan)
    found[score][places] = values[kept]
  return found


def _relate(base: np.ndarray, values: np.ndarray, base_score: str,
            score: str) -> dict[str, Any]:
  """The columns of `ScoreComparison.relations` for two scores [A, C, S]."""
  line: dict[str, Any] = {'num_agents': len(base)}
  if len(base) < 3:
    return line
  summaries, apart, residuals = [], [], []
  for array, name in ((base, base_score), (values, score)):
    entry = table.check_score(name)
    sign = -1. if entry.direction == 'higher' else 1.
    summaries.append(sign * ranks.summaries(array, entry.positive))
    apart.append(ranks.told_apart(array, entry.positive))
    means = array.mean(axis=2)
    means = statistics.log_of_means(means) if entry.positive else means
    residuals.append(means - means.mean(axis=0))
  if apart[0] is None:
    return line
  pairs = np.triu_indices(len(base), 1)
  decided = (apart[0] & apart[1])[pairs]
  signs = [np.sign(s[:, None] - s)[pairs] for s in summaries]
  opposite = decided & (signs[0] != signs[1])
  a, b = (residual.ravel() for residual in residuals)
  both = float((a @ a) * (b @ b))  # 0: all agents score alike by one of them.
  r_squared = float(a @ b)**2 / both if both else None
  return {**line, 'num_pairs': len(pairs[0]),
          'num_pairs_told_apart_by_both': int(decided.sum()),
          'num_pairs_in_opposite_order': int(opposite.sum()),
          'share_of_variance_not_explained':
              None if r_squared is None else 1. - r_squared}
