"""What comes out of one agent on one problem, and how units are run."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import traceback
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.machine import checkpoints
from enn_ensembles.problems import brought_predictions
from enn_ensembles.problems import kinds
from enn_ensembles.scoring import table


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """How to run; nothing here changes a score.

  Attributes:
    results_dir: the results folder, which exists.
    agent_modules: files of user-defined agents.
    problem_settings: what making problems takes.
    compilation_cache_dir: folder of compiled programs; None for none.
    memory_budget_mb: memory that training may take per device; see
      `training.loop.train`.
    grace_seconds: how long a process that is told to stop may go on to where
      it can keep what it has.
    checkpoint_seconds: how often what there is of a unit is kept.
    units_before: of `claimed_units.unit_versions`, from before what is done was
      read; None looks when the run begins.
  """
  results_dir: str
  agent_modules: tuple[str, ...] = ()
  problem_settings: kinds.ProblemSettings = kinds.ProblemSettings()
  compilation_cache_dir: str | None = None
  memory_budget_mb: float | None = None
  grace_seconds: float = 10.
  checkpoint_seconds: float = checkpoints.SECONDS_BETWEEN
  units_before: Mapping[str, tuple[int, ...]] | None = None


class Result(NamedTuple):
  """One agent on one problem: the fields of a row that are not known before."""
  status: str
  message: str = ''
  scores: Mapping[str, float] | None = None
  num_samples: int | None = None
  depends_on_draws: bool = True  # Whether num_enn_samples made a difference.
  curve: Mapping[str, Any] | None = None
  by_set: Mapping[str, Mapping[str, float]] | None = None
  counts: Mapping[str, Mapping[str, Any]] | None = None
  rank_seconds: float | None = None
  num_params: int | None = None
  train_seconds: float | None = None
  evaluate_seconds: float | None = None
  predict_seconds_per_1000: float | None = None
  compile_seconds: float | None = None
  details: str = ''


# Results of a unit by (seed, position of the cell, selection).
Results = dict[tuple[int, int, str], Result]

# The problems of each seed, one per cell.
Groups = Mapping[int, Sequence[Any]]


def scored(problem: Any, predict: base.Predict, finite_params: bool = True,
           agent_scores: Mapping[str, float] | None = None,
           member_matrices: Mapping[str, Any] | None = None,
           **fields: Any) -> Result:
  """Scores of one problem, raw; diverged if anything is not finite.

  Args:
    problem: the problem.
    predict: what the agent predicts.
    finite_params: whether its parameters are.
    agent_scores: scores of the agent itself.
    member_matrices: of its members, beside those of their predictions.
    **fields: other fields of the result.
  """
  num_samples = []

  def counted(x):
    found = predict(x)
    num_samples.append(found.num_samples)
    return found

  by_set, counts = None, {}
  if hasattr(problem, 'score_by_set'):
    by_set = problem.score_by_set(counted, counts)
    scores = dict(problem.combine_sets(by_set))
    by_set = {name: found for name, found in by_set.items() if name != 'test'}
    if not all(np.isfinite(list(found.values())).all()
               for found in by_set.values()):
      by_set, counts = None, {}
    elif counts.get('test'):
      counts['test'].update(member_matrices or {})
  elif hasattr(problem, 'score_and_count'):
    scores = dict(problem.score_and_count(counted, counts))
  else:
    scores = dict(problem.score(counted))
  bad = [] if finite_params else ['parameters']
  known = table.scores_of(problem.score_set)
  bad += [name for name, value in scores.items() if not np.isfinite(value)
          and not (known[name].may_be_infinite and value == math.inf)]
  return Result(
      status='diverged' if bad else 'ok', by_set=by_set or None,
      counts={name: found for name, found in counts.items() if found} or None,
      scores={**scores, **(agent_scores or {})},
      message=f'not finite: {", ".join(bad)}' if bad else '',
      num_samples=num_samples[0], **fields)


def score_brought(problem: Any,
                  brought: brought_predictions.BroughtPredictions) -> Result:
  """Scores of predictions from outside.

  Args:
    problem: an NNGP problem.
    brought: of `brought_predictions.read_predictions`.

  Raises:
    ValueError: a score is not finite, which finite predictions do not give.
  """
  if not brought.has_dyadic:
    problem = dataclasses.replace(problem, x_dyadic=None)
  result = scored(problem, brought)
  if result.status != 'ok':
    raise ValueError(f'predictions for {problem.problem_id}: {result.message}.')
  return result


def failure(error: Exception) -> Result:
  """The result of a problem whose training raised an error."""
  return Result('failed', checks.error_text(error),
                details=''.join(traceback.format_exception(error)))
