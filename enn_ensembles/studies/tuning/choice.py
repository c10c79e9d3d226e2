"""Which of an agent's settings is best by held-out labels.

The loss of a setting is its `log_score_excess`: the negative log-likelihood of
labels at the test points of the tuning seeds, less that of the exact posterior.
Anybody with held-out labels can compute the first part, and the second is the
same for all settings. It is averaged over seeds and cells; the best setting has
the lowest mean. It is chosen once over all noise levels, and once for each,
since an agent knows its noise level.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles import results

SCORE = 'log_score_excess'
_LEVEL = 'noise_std'


class Choice(NamedTuple):
  """The best setting of one agent.

  Attributes:
    agent: name of the agent.
    noise_std: the noise level that it is for; None for all.
    config: every field of its config.
    written: those that its tuning config wrote out.
    loss: its mean loss, nats per label.
    default_loss: that of the setting that the board of papers' settings has,
      None where it was not among them.
    num_settings: how many settings there were to choose from.
    num_problems: problems that each of them was tried on.
  """
  agent: str
  noise_std: float | None
  config: Mapping[str, Any]
  written: Mapping[str, Any]
  loss: float
  default_loss: float | None
  num_settings: int
  num_problems: int


def mean_losses(rows: Sequence[results.Row], agent: str,
                noise_std: float | None) -> dict[str, tuple[float, int]]:
  """agent_id -> (mean loss, problems) of an agent's settings.

  Settings that failed or diverged anywhere are left out: they are no choice.
  The mean is over the seeds of each cell, then over cells.
  """
  found: dict[str, dict[Any, list[float]]] = {}
  spoilt = set()
  for row in rows:
    level = row['problem']['cell'].get(_LEVEL)
    if row['agent'] != agent or noise_std not in (None, level):
      continue
    loss = results.score_of(row, SCORE)
    if row['status'] != 'ok' or loss is None:
      spoilt.add(row['agent_id'])
      continue
    found.setdefault(row['agent_id'], {}).setdefault(
        results.cell_of(row), []).append(loss)
  return {agent_id: (float(np.mean([np.mean(of) for of in cells.values()])),
                     sum(map(len, cells.values())))
          for agent_id, cells in found.items() if agent_id not in spoilt}


def choose(rows: Sequence[results.Row],
           defaults: Mapping[str, Mapping[str, Any]]) -> list[Choice]:
  """The best setting of every agent, over all noise levels and for each.

  Args:
    rows: of the tuning sweep.
    defaults: agent -> settings of the board of papers' settings.

  Raises:
    ValueError: an agent has no setting that went well everywhere, or its
      settings were not tried on equally many problems.
  """
  levels = sorted({row['problem']['cell'][_LEVEL] for row in rows
                   if _LEVEL in row['problem']['cell']})
  configs = {row['agent_id']: row for row in rows}
  choices = []
  for agent in sorted({row['agent'] for row in rows}):
    for level in (None, *levels):
      losses = mean_losses(rows, agent, level)
      if not losses:
        raise ValueError(f'agent {agent!r} has no setting that went well on '
                         'every problem.')
      counts = {num for _, num in losses.values()}
      if len(counts) > 1:
        raise ValueError(f'settings of agent {agent!r} must be tried on '
                         f'equally many problems, got {sorted(counts)}.')
      best = min(losses, key=lambda agent_id: losses[agent_id][0])
      row = configs[best]
      default = [loss for agent_id, (loss, _) in losses.items()
                 if _holds(configs[agent_id], defaults.get(agent))]
      choices.append(Choice(
          agent, level, row['agent_config'],
          _varied(row, [configs[agent_id] for agent_id in losses]),
          losses[best][0], default[0] if default else None, len(losses),
          counts.pop()))
  return choices


def _holds(row: results.Row, settings: Mapping[str, Any] | None) -> bool:
  return settings is not None and all(
      row['agent_config'].get(name) == value
      for name, value in settings.items())


def _varied(row: results.Row, others: Sequence[results.Row]) -> dict[str, Any]:
  """The fields in which settings of the agent differ."""
  return {name: value for name, value in row['agent_config'].items()
          if any(other['agent_config'].get(name) != value for other in others)}
