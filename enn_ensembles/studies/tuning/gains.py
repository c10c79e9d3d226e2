"""What tuning gains on a board: papers' settings, one for all levels, one each.

The board's rows are of other seeds than those that settings were chosen on. No
jax here.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pandas as pd

from enn_ensembles import results
from enn_ensembles.report import statistics
from enn_ensembles.studies.tuning import choice

SCORE, BASELINE = 'kl_estimate', 'prior_only'
PAPERS, ONE, EACH = ('papers', 'one for all noise levels',
                     'one for each noise level')

_Scores = dict[results.ProblemKey, float]


def make_table(rows: Sequence[results.Row],
               choices: Sequence[choice.Choice]) -> pd.DataFrame:
  """The KL of each agent over that of the prior, by whose settings it has.

  Args:
    rows: of boards, all members kept; those of other selections are left out.
    choices: of `choice.choose`.

  Returns:
    A line per agent and settings (PAPERS, ONE, EACH): agent, settings,
    num_problems that have a row, num_expected (the baseline's),
    kl_estimate_relative with its interval (_low, _high), and the same of every
    noise level, kl_estimate_relative[noise_std=LEVEL]. Where problems are
    missing there is no number.

  Raises:
    ValueError: the baseline has no rows, or no seed that all its cells have, or
      no setting was chosen for one of its noise levels; or rows are refused by
      `choice.rows_once`.
  """
  scores, levels = _read(rows)
  base = scores.get(BASELINE, {})
  seeds = set.intersection(*(
      {seed for other, seed in base if other == cell} for cell, _ in base)
                           ) if base else set()
  if not seeds:
    raise ValueError(f'rows of a board must have the agent {BASELINE} on seeds '
                     'that all its cells share, got none.')
  problems = [[(cell, seed) for seed in sorted(seeds)]
              for cell in sorted({cell for cell, _ in base})]
  of_cells = np.array([levels[of_cell[0][0]] for of_cell in problems])
  baseline = np.array([[base[problem] for problem in of_cell]
                       for of_cell in problems])
  lines = []
  for agent in dict.fromkeys(chosen.agent for chosen in choices):
    by_level = {chosen.noise_std: chosen for chosen in choices
                if chosen.agent == agent}
    of_all = by_level[None]
    missing = sorted(set(of_cells.tolist()) - set(by_level))
    if missing:
      raise ValueError(f'a setting of {agent} must be chosen for every noise '
                       f'level of the board, got none for {missing[0]:g}.')
    for settings, agent_id in (
        (PAPERS, lambda level, of_all=of_all: of_all.papers_id),
        (ONE, lambda level, of_all=of_all: of_all.agent_id),
        (EACH, lambda level, by_level=by_level: by_level[level].agent_id)):
      found = np.array([[
          scores.get(agent_id(level) or '', {}).get(problem, np.nan)
          for problem in of_cell]
                        for level, of_cell in zip(of_cells, problems)])
      line = {'agent': agent, 'settings': settings,
              'num_problems': int(np.sum(~np.isnan(found))),
              'num_expected': found.size}
      interval = _relative(found, baseline)
      line.update({f'{SCORE}_relative{end}': value for end, value in zip(
          ('', '_low', '_high'), interval)})
      for level in np.unique(of_cells):
        there = of_cells == level
        line[f'{SCORE}_relative[noise_std={level:g}]'] = _relative(
            found[there], baseline[there]).value
      lines.append(line)
  return pd.DataFrame(lines, dtype=object)


def _read(rows: Sequence[results.Row]
          ) -> tuple[dict[str, _Scores], Mapping[results.Cell, float]]:
  """agent_id -> scores (the baseline by its name), and cell -> noise level."""
  scores: dict[str, _Scores] = {}
  levels: dict[results.Cell, float] = {}
  for row in choice.rows_once(rows):
    value = results.score_of(row, SCORE)
    level = row['problem']['cell'].get('noise_std')
    if value is None or level is None:
      continue
    name = BASELINE if row['agent'] == BASELINE else row['agent_id']
    scores.setdefault(name, {})[results.problem_of(row)] = value
    levels[results.cell_of(row)] = level
  return scores, levels


def _relative(values: np.ndarray,
              baseline: np.ndarray) -> statistics.Interval:
  """The headline with its interval; None where a value is missing."""
  return (statistics.Interval(None) if np.isnan(values).any()
          else statistics.relative_mean(values, baseline))
