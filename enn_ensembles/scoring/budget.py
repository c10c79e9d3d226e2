"""How many members of an order a budget of samples or of time pays for."""

from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from enn_ensembles import base
from enn_ensembles.scoring import array_checks


def choose_num_samples(
    num_available: int,
    *,
    budget_samples: float | None = None,
    budget_ms: float | None = None,
    ms_per_input: Callable[[int], float] | Sequence[float] | None = None,
    score: base.Array | None = None) -> int:
  """The number of samples P that a budget pays for.

  Args:
    num_available: the length of the order, the most that P can be.
    budget_samples: how many samples may be evaluated per input; or
    budget_ms: how many milliseconds may be spent per input.
    ms_per_input: the measured cost of P samples in milliseconds per input, as
      a function of P or as a list for P = 1..num_available. Needed with
      budget_ms. It need not grow with P: the full set may well be cheaper
      than most of it, as it shares more.
    score: validation score after each addition, [num_available]. More samples
      are not always better; with it, P is the best of those that fit.

  Returns:
    The largest P within the budget, or with `score` the best one (of equal
    scores the smallest P).

  Raises:
    ValueError: not exactly one budget is given, the budget is below the
      cheapest choice (one sample, as a rule), or an argument does not match
      num_available.
  """
  if num_available < 1:
    raise ValueError(f'num_available must be >= 1, got {num_available}.')
  if (budget_samples is None) == (budget_ms is None):
    raise ValueError('give one of budget_samples and budget_ms, got '
                     f'{budget_samples} and {budget_ms}.')
  candidates = np.arange(1, num_available + 1)
  if budget_samples is not None:
    if ms_per_input is not None:
      raise ValueError('ms_per_input goes with budget_ms, got budget_samples='
                       f'{budget_samples}.')
    if not budget_samples >= 1:
      raise ValueError(f'budget_samples must be >= 1, got {budget_samples}.')
    fits = candidates <= budget_samples
  else:
    if ms_per_input is None:
      raise ValueError(f'budget_ms={budget_ms} needs ms_per_input, got None.')
    if callable(ms_per_input):
      ms_per_input = [ms_per_input(int(p)) for p in candidates]
    cost = array_checks.as_finite('ms_per_input', ms_per_input,
                                  shape=(num_available,))
    if cost.min() <= 0:
      raise ValueError(f'ms_per_input must be > 0, got {cost.min()}.')
    fits = cost <= budget_ms
    if not fits.any():
      raise ValueError(f'budget_ms must be >= {cost.min()}, the least that '
                       f'ms_per_input asks, got {budget_ms}.')
  if score is None:
    return int(candidates[fits].max())
  score = np.asarray(score, np.float64)
  if score.shape != (num_available,):
    raise ValueError(f'score must have shape ({num_available},), got '
                     f'{score.shape}.')
  best = np.argmin(np.where(np.isnan(score), np.inf, score)[fits])
  return int(candidates[fits][best])
