"""Two trainings of the same agents on the same problems, compared.

Both trainings of an agent setting differ in its random numbers only, so whoever
tells them apart is wrong. That must happen as often as the level of the test
says (the A/A test), and a second training that was made worse by a known share
must be seen as such (power). Both are asked of the very test that the board
uses: a paired t test on each seed's log ratio, `report.ranks`.

* Per agent setting and cell: the share of rejections at 5 %, beside the 99 %
  band of a binomial with as many tests.
* Of the whole board: which of the two trainings comes first is drawn anew for
  each agent setting and seed, 200 times; the share of boards with any false
  rejection after Holm's correction over all pairs must not exceed the level.

The same trainings say how much of the variance of a score over seeds is the
problem's, and how much the agent's own.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NamedTuple

import numpy as np
from scipy import stats

from enn_ensembles import results
from enn_ensembles.report import ranks
from enn_ensembles.report import statistics

LEVEL = 0.05
BAND = 0.99
NUM_RESAMPLINGS = 200
_RESAMPLING_SEED = 0

# Keys of agent_config that say which training a row is of.
_REPLICA, _DEGRADE = 'replica', 'degrade'


@dataclasses.dataclass(frozen=True, eq=False)
class Trainings:
  """Scores of two trainings per agent setting.

  Attributes:
    labels: the A agent settings.
    cells: the C cells.
    seeds: the S seeds.
    first: score of the first training, [A, C, S].
    second: of the second one.
    degraded: of the second one, made worse; None where there is none.
    share: by which it was made worse.
  """
  labels: tuple[str, ...]
  cells: tuple[Any, ...]
  seeds: tuple[int, ...]
  first: np.ndarray
  second: np.ndarray
  degraded: np.ndarray | None
  share: float


def collect(rows: Sequence[results.Row], score: str) -> Trainings:
  """Pairs of trainings of all agent settings that have both everywhere.

  Args:
    rows: rows of one sweep whose agents have 'replica': [0, 1], and perhaps
      'degrade': [0, share].
    score: which score.

  Raises:
    ValueError: no agent setting has two trainings on a common grid.
  """
  found: dict[str, dict[tuple[int, float], dict[Any, float]]] = {}
  names = results.cell_names(rows)
  for row in rows:
    if row['status'] != 'ok' or row['selection'] != 'none' or (
        score not in row['scores']):
      continue
    config = row['agent_config']
    training = (config.get(_REPLICA, 0), config.get(_DEGRADE, 0.))
    setting = results.make_agent_id(row['agent'], {
        name: value for name, value in config.items()
        if name not in (_REPLICA, _DEGRADE)})
    label = ','.join(part for part in row['agent_label'].split(',')
                     if part.split('=')[0] not in (_REPLICA, _DEGRADE))
    found.setdefault(f'{label} ({setting[-10:]})', {}).setdefault(
        training, {})[results.problem_of(row, names)] = row['scores'][score]
  paired = {label: of for label, of in found.items()
            if (0, 0.) in of and (1, 0.) in of}
  if not paired:
    raise ValueError("rows must hold trainings with 'replica' 0 and 1, got "
                     f'none of {len(found)} agent settings.')
  shares = sorted({share for of in paired.values() for _, share in of if share})
  share = shares[0] if shares else 0.
  wanted = [(0, 0.), (1, 0.)] + ([(1, share)] if share else [])
  common = set.intersection(*(
      set(of.get(training, {})) for of in paired.values()
      for training in wanted))
  seeds = sorted({seed for _, seed in common})
  cells = [cell for cell in sorted({cell for cell, _ in common})
           if all((cell, seed) in common for seed in seeds)]
  if not cells or len(seeds) < 2:
    raise ValueError('two trainings of all agent settings must share a grid of '
                     f'cells and at least two seeds, got {len(cells)} cells '
                     f'and {len(seeds)} seeds.')

  def values(training: tuple[int, float]) -> np.ndarray:
    return np.array([[[of[training][cell, seed] for seed in seeds]
                      for cell in cells] for of in paired.values()])

  return Trainings(
      tuple(paired), tuple(cells), tuple(seeds), values((0, 0.)),
      values((1, 0.)), values((1, share)) if share else None, share)


class Rejections(NamedTuple):
  """How often two trainings were told apart.

  Attributes:
    num_tests: tests.
    num_rejected: p values of at most 5 %.
    low: least number of rejections in the binomial 99 % band of 5 %.
    high: the most.
  """
  num_tests: int
  num_rejected: int
  low: int
  high: int

  @property
  def in_band(self) -> bool:
    """Whether the level holds."""
    return self.low <= self.num_rejected <= self.high

  @property
  def share(self) -> float:
    """Rejections per test."""
    return self.num_rejected / self.num_tests


def p_values(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """The board's paired test of each agent setting with its second training.

  Args:
    first: [A, C, S].
    second: [A, C, S].

  Returns:
    Two-sided p values, [A].
  """
  return np.array([ranks.pair_p_values(np.stack(pair))[0, 1]
                   for pair in zip(first, second, strict=True)])


def count(first: np.ndarray, second: np.ndarray) -> Rejections:
  """Rejections over all agent settings and cells, each a test by itself."""
  num_agents, num_cells, num_seeds = first.shape
  tests = p_values(first.reshape(-1, 1, num_seeds),
                   second.reshape(-1, 1, num_seeds))
  num = num_agents * num_cells
  low, high = stats.binom.interval(BAND, num, LEVEL)
  return Rejections(num, int(np.sum(tests <= LEVEL)), int(low), int(high))


def family_errors(trainings: Trainings,
                  num_resamplings: int = NUM_RESAMPLINGS) -> Rejections:
  """How many resampled boards tell any agent setting from itself.

  Each board holds both trainings of all agent settings, which of them is the
  first drawn anew per agent setting and seed. Holm's correction is over all
  pairs of the board.

  Args:
    trainings: the two trainings.
    num_resamplings: boards.
  """
  rng = np.random.default_rng(_RESAMPLING_SEED)
  num_agents, _, num_seeds = trainings.first.shape
  num_rejected = 0
  for _ in range(num_resamplings):
    swap = rng.random((num_agents, 1, num_seeds)) < 0.5
    values = np.concatenate([
        np.where(swap, trainings.second, trainings.first),
        np.where(swap, trainings.first, trainings.second)])
    apart = ranks.told_apart(values, level=LEVEL)
    assert apart is not None  # There are two seeds or more.
    own = np.arange(num_agents)
    num_rejected += bool(apart[own, own + num_agents].any())
  low, high = stats.binom.interval(BAND, num_resamplings, LEVEL)
  return Rejections(num_resamplings, num_rejected, int(low), int(high))


def variance_shares(trainings: Trainings) -> Mapping[str, float]:
  """The problem's share of the variance of the log score over seeds.

  Per cell: within a seed, half the mean squared difference of the two trainings
  is the agent's variance v; the variance of their means over seeds less v / 2
  is the problem's. Means over cells of both.

  Returns:
    Label -> share of the problem, from 0 to 1.
  """
  first, second = (statistics.log_of_means(values)
                   for values in (trainings.first, trainings.second))
  own = np.mean((first - second)**2, axis=2) / 2.
  between = np.var((first + second) / 2., axis=2, ddof=1)
  problem = np.maximum(between - own / 2., 0.).mean(axis=1)
  total = problem + own.mean(axis=1)
  with np.errstate(invalid='ignore'):
    shares = np.where(total > 0, problem / total, np.nan)
  return dict(zip(trainings.labels, shares.tolist()))
