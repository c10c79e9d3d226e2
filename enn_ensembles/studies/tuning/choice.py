"""Which of an agent's settings is best by held-out labels.

The loss of a setting is its `log_score_excess`: the negative log-likelihood of
labels at the test points of the tuning seeds, less that of the exact posterior.
Anybody with held-out labels can compute the first part, and the second is the
same for all settings. It is averaged over seeds and cells; the best setting has
the lowest mean. It is chosen once over all noise levels, and once for each,
since an agent knows its noise level. Another score may take its place, to see
what labels lack: with `log_score_excess_expected` they have no noise, and
`kl_estimate` reads the truth.

A sweep that has not run whole still gives choices: the settings of an agent are
compared on the set of problems for which (settings that have all of them) times
(problems) is largest. How many settings, problems and seeds that leaves is part
of a choice.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles import results
from enn_ensembles.report import versions
from enn_ensembles.scoring import table

SCORE = 'log_score_excess'
_LEVEL = 'noise_std'


class Choice(NamedTuple):
  """The best setting of one agent.

  Attributes:
    agent: name of the agent.
    noise_std: the noise level that it is for; None for all.
    config: its config, as rows hold it.
    written: those that its tuning config wrote out.
    loss: its mean loss, in nats per label if that is the log score.
    papers_loss: that of the first setting on the board of papers' settings
      that is among them, None where none is.
    num_settings: how many settings there were to choose from.
    num_left_out: settings that failed or diverged somewhere, or lack problems.
    num_problems: problems that each of them was tried on.
    num_seeds: seeds of these problems.
    agent_id: of the setting.
    papers_id: of the setting that papers_loss is of.
  """
  agent: str
  noise_std: float | None
  config: Mapping[str, Any]
  written: Mapping[str, Any]
  loss: float
  papers_loss: float | None
  num_settings: int
  num_left_out: int
  num_problems: int
  num_seeds: int
  agent_id: str
  papers_id: str | None


class Losses(NamedTuple):
  """The losses of an agent's settings on problems that all of them have.

  Attributes:
    means: agent_id -> mean loss.
    num_left_out: settings that are not there.
    num_problems: problems.
    num_seeds: their seeds.
  """
  means: dict[str, float]
  num_left_out: int
  num_problems: int
  num_seeds: int


def rows_once(rows: Sequence[results.Row]) -> list[results.Row]:
  """Rows of all members, each agent setting once per problem.

  Rows of a selection are left out, which may read the posterior, and rows of
  older versions of a user-defined agent.

  Raises:
    ValueError: rows are of several references or kernels, or two rows are of
      one agent setting and problem.
  """
  rows = [row for row in rows if row['selection'] == 'none']
  version = lambda row: row['agent_config'].get(versions.SOURCE_FILE)
  newest = {row['agent']: version(row)
            for row in sorted(rows, key=lambda row: row['created'])}
  found: dict[Any, results.Row] = {}
  for row in rows:
    if version(row) != newest[row['agent']]:
      continue
    if row['problem']['ranking'] != rows[0]['problem']['ranking']:
      raise ValueError(
          'rows must be of one reference and kernel, got '
          f'{_words(rows[0]["problem"]["ranking"])} and '
          f'{_words(row["problem"]["ranking"])}.')
    name = row['agent_id'], results.problem_of(row)
    other = found.setdefault(name, row)
    if other is not row:
      differ = [field for field in (*results.PROTOCOL_FIELDS, 'dtype')
                if other[field] != row[field]]
      raise ValueError(
          f'rows must hold {row["agent_label"]} once on {row["problem_id"]}, '
          'got two' + ''.join(f'; {field} is {other[field]} and {row[field]}'
                              for field in differ) + '.')
  return list(found.values())


def _words(fields: Mapping[str, Any]) -> str:
  return ', '.join(f'{name} {value}' for name, value in fields.items())


def mean_losses(rows: Sequence[results.Row], agent: str,
                noise_std: float | None, score: str = SCORE) -> Losses:
  """The mean losses, by a score, of an agent's settings.

  Settings that failed or diverged anywhere are left out: they are no choice.
  The mean is over the seeds of each cell, then over cells.
  """
  found: dict[str, dict[results.ProblemKey, float]] = {}
  spoilt = set()
  for row in rows:
    level = row['problem']['cell'].get(_LEVEL)
    if row['agent'] != agent or noise_std not in (None, level):
      continue
    own = found.setdefault(row['agent_id'], {})
    loss = results.score_of(row, score)
    if row['status'] != 'ok' or loss is None:
      spoilt.add(row['agent_id'])
      continue
    own[results.problem_of(row)] = loss
  sound = {agent_id: own for agent_id, own in found.items()
           if agent_id not in spoilt}
  shared: frozenset[results.ProblemKey] = frozenset()
  num_have = 0
  for candidate in {frozenset(own) for own in sound.values()}:
    num = sum(candidate <= own.keys() for own in sound.values())
    if (num * len(candidate), len(candidate)) > (num_have * len(shared),
                                                 len(shared)):
      shared, num_have = candidate, num
  means = {}
  for agent_id, own in sound.items():
    if shared <= own.keys():
      cells: dict[results.Cell, list[float]] = {}
      for cell, seed in shared:
        cells.setdefault(cell, []).append(own[cell, seed])
      means[agent_id] = float(np.mean([np.mean(of) for of in cells.values()]))
  return Losses(means, len(found) - len(means), len(shared),
                len({seed for _, seed in shared}))


def choose(rows: Sequence[results.Row], papers: Sequence[str] = (),
           score: str = SCORE) -> list[Choice]:
  """The best setting of every agent, over all noise levels and for each.

  Args:
    rows: of the tuning sweep.
    papers: agent_ids of the board of papers' settings, in its order.
    score: what they are chosen by, a score of regression of which less is
      better.

  Raises:
    ValueError: there is no such score, an agent has no setting that went well
      everywhere, or rows are refused by `rows_once`.
  """
  if table.check_score(score, 'nngp').direction != 'lower':
    raise ValueError('score must be one of which less is better, got '
                     f'{score!r}.')
  rows = rows_once(rows)
  levels = sorted({row['problem']['cell'][_LEVEL] for row in rows
                   if _LEVEL in row['problem']['cell']})
  configs = {row['agent_id']: row for row in rows}
  choices = []
  for agent in sorted({row['agent'] for row in rows}):
    for level in (None, *levels):
      losses = mean_losses(rows, agent, level, score)
      if not losses.means:
        raise ValueError(f'agent {agent!r} has no setting that went well, with '
                         f'a {score}, on every problem.')
      best = min(losses.means, key=lambda agent_id: losses.means[agent_id])
      row = configs[best]
      papers_id = next((agent_id for agent_id in papers
                        if agent_id in losses.means), None)
      choices.append(Choice(
          agent, level, row['agent_config'],
          _varied(row, [configs[agent_id] for agent_id in losses.means]),
          losses.means[best],
          None if papers_id is None else losses.means[papers_id],
          len(losses.means), *losses[1:], best, papers_id))
  return choices


def _varied(row: results.Row, others: Sequence[results.Row]) -> dict[str, Any]:
  """The fields in which settings of the agent differ."""
  return {name: value for name, value in row['agent_config'].items()
          if any(other['agent_config'].get(name) != value for other in others)}
