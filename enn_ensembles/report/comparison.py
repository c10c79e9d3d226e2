"""Agent settings compared on the problems that all of them have.

A figure or a claim asks for some agent settings. It gets their scores as arrays
over the same cells (input_dim, data_ratio, noise_std) and the same seeds, so
that every comparison is paired, and a note on whatever that leaves out.

Means are taken over the cells of each seed, then over seeds. The cells of a
seed share their draws, so the seed is what is independent: intervals are
Student's t, 95 %, over seeds. What is no mean over seeds (a ratio of means, a
spread) has the interval of the jackknife, which for a mean is the same one.
No jax here.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NamedTuple

import numpy as np
from scipy import stats

from enn_ensembles import results
from enn_ensembles.report import leaderboard

Cell = leaderboard.Cell
Problem = leaderboard.Problem
Row = leaderboard.Row

SCORES = ('kl_estimate', 'kl_reverse')

# More problems in a note would not be read.
_LONGEST_LIST = 6


@dataclasses.dataclass(frozen=True)
class Setting:
  """One agent setting and how its members are selected.

  Attributes:
    agent: name of the agent.
    fields: (name, value) of the settings that matter; every other one is at the
      agent's default.
    selection: 'none', 'oracle' or 'val_nll'.
    label: what figures and messages call it.
  """
  agent: str
  fields: tuple[tuple[str, Any], ...] = ()
  selection: str = 'none'
  label: str = ''

  def get(self, name: str) -> Any:
    """The value of a field; None if it is none of them."""
    return dict(self.fields).get(name)

  def holds(self, row: Row) -> bool:
    """Whether a row is of this setting.

    The values are read from the row's config; that all else is a default is
    read from the agent_id, which names what is not.
    """
    if row['agent'] != self.agent or row['selection'] != self.selection:
      return False
    config, fields = row['agent_config'], dict(self.fields)
    named = {part.split('=')[0] for part in row['agent_id'].split(',')[1:]}
    return named <= set(fields) and all(
        name in config and config[name] == value
        for name, value in fields.items())

  def __str__(self) -> str:
    text = self.label or ' '.join(
        [self.agent, *(f'{name}={value}' for name, value in self.fields)])
    return text if self.selection == 'none' else (
        f'{text}, selection {self.selection}')


def make_setting(agent: str, selection: str = 'none', label: str = '',
                 **fields: Any) -> Setting:
  """A `Setting` from keywords."""
  return Setting(agent, tuple(fields.items()), selection, label)


class MissingSettingsError(ValueError):
  """Agent settings have no rows, or no problem is common to all of them."""


class Interval(NamedTuple):
  """A number and its 95 % interval; numbers, or arrays of one shape.

  Attributes:
    value: the number.
    low: lower end; None where there is one seed.
    high: upper end; None as above.
  """
  value: Any
  low: Any = None
  high: Any = None

  @property
  def is_known(self) -> bool:
    """Whether it has an interval, and a finite one."""
    return self.low is not None and bool(
        np.all(np.isfinite([self.value, self.low, self.high])))


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
  """Scores of agent settings on common problems.

  Attributes:
    settings: those that are here.
    reference: reference of the scores.
    cells: the C cells, sorted.
    seeds: the S seeds, sorted; every setting has every seed in every cell.
    notes: what is missing or left out, a sentence each.
    rows: setting -> problem -> row.
  """
  settings: tuple[Setting, ...]
  reference: str
  cells: tuple[Cell, ...]
  seeds: tuple[int, ...]
  notes: tuple[str, ...]
  rows: Mapping[Setting, Mapping[Problem, Row]]

  def values(self, setting: Setting, field: str) -> np.ndarray:
    """A numeric field of the rows, float64 [C, S]."""
    rows = self.rows[setting]
    return np.array([[rows[(*cell, seed)][field] for seed in self.seeds]
                     for cell in self.cells], np.float64)

  def path(self, setting: Setting, field: str) -> np.ndarray:
    """A score of the first 1, 2, ..., J members of the order, [C, S, J].

    Raises:
      ValueError: paths have several lengths.
    """
    rows = self.rows[setting]
    paths = [[rows[(*cell, seed)]['path'][field] for seed in self.seeds]
             for cell in self.cells]
    lengths = sorted({len(path) for of_cell in paths for path in of_cell})
    if len(lengths) > 1:
      raise ValueError(f'the paths of {setting} must have one length, got '
                       f'{lengths}.')
    return np.array(paths, np.float64)

  def scope(self) -> str:
    """On what everything here is compared, for titles and messages."""
    return (f'reference {self.reference}, {len(self.cells)} cells, '
            f'{len(self.seeds)} seeds')


def compare(rows: Sequence[Row], settings: Sequence[Setting], *,
            reference: str, with_path: Iterable[Setting] = (),
            config: str = '', allow_missing: bool = False) -> Comparison:
  """The scores of agent settings on the problems that all of them have.

  Failed rows have no scores and count as missing; scores that are not finite
  count as scores. Only rows that enumerate finite index sets are used, and only
  those of the testbed's kernel.

  Args:
    rows: as `leaderboard.read_results` gives them.
    settings: what to compare, at least one.
    reference: reference of the scores.
    with_path: settings of which the path is needed too.
    config: the config that makes the rows, for the message.
    allow_missing: leave out settings without any row and note it, instead of
      raising.

  Raises:
    MissingSettingsError: a setting has no rows (and not `allow_missing`), or
      the settings have no problem in common.
    ValueError: two rows say different things about the same.
  """
  with_path = set(with_path)
  found = {setting: _rows_of(rows, setting, reference, setting in with_path)
           for setting in settings}
  missing = [setting for setting in settings if not found[setting]]
  hint = (f' Run python -m experiments.run_sweep --config={config} '
          f'--reference={reference} --results_dir=DIR first.' if config else '')
  if missing and (not allow_missing or len(missing) == len(settings)):
    paths = ' (with a path)' if with_path & set(missing) else ''
    raise MissingSettingsError(
        f'results_dir holds no scores{paths} against reference {reference} of '
        + '; '.join(map(str, missing)) + f'.{hint}')
  present = tuple(s for s in settings if found[s])
  every = set().union(*(found[s] for s in present))
  shared = set(every).intersection(*(found[s] for s in present))
  if not shared:
    raise MissingSettingsError(
        'no problem is common to ' + '; '.join(map(str, present)) +
        f' against reference {reference}.{hint}')
  cells, seeds = _largest_grid(shared)

  notes = [f'{setting} is not here: no rows.' for setting in missing]
  num_used = len(cells) * len(seeds)
  if num_used < len(every):
    used = {(*cell, seed) for cell in cells for seed in seeds}
    notes.append(
        f'compared on {num_used} of {len(every)} problems ({len(cells)} cells, '
        f'seeds {_list_text(seeds)}): those that every setting has. Left out: '
        f'{_problems_text(every - used)}.')
    alike: dict[frozenset[Problem], list[Setting]] = {}
    for setting in present:
      alike.setdefault(frozenset(every - set(found[setting])), []).append(
          setting)
    for lacking, incomplete in alike.items():
      if lacking:
        notes.append(
            f'incomplete, {len(every) - len(lacking)} of {len(every)} '
            f'problems: {"; ".join(map(str, incomplete))}; without '
            f'{_problems_text(lacking)}.')
  for setting in present:
    bad = sum(not np.isfinite(found[setting][(*cell, seed)]['kl_estimate'])
              for cell in cells for seed in seeds)
    if bad:
      notes.append(f'{setting} has {bad} scores that are not finite.')
  return Comparison(present, reference, cells, seeds, tuple(notes), found)


def _rows_of(rows: Sequence[Row], setting: Setting, reference: str,
             with_path: bool) -> dict[Problem, Row]:
  """problem -> row of one setting."""
  found: dict[Problem, Row] = {}
  for row in rows:
    if (row['reference'] != reference
        or row['kernel'] != results.DEFAULT_KERNEL
        or not row['enumerate_indices']
        or row['status'] == 'failed' or not setting.holds(row)
        or (with_path and row['path'] is None)):
      continue
    problem = tuple(row[key] for key in results.PROBLEM_FIELDS)
    known = found.setdefault(problem, row)
    for field in ('agent_id', 'dtype', 'num_enn_samples', *SCORES):
      if not results.same_value(known[field], row[field]):
        raise ValueError(
            f'two rows of {setting} on {row["problem_id"]} have {field} '
            f'{known[field]!r} and {row[field]!r}: keep them in different '
            'results folders.')
  return found


def _largest_grid(problems: Iterable[Problem]
                  ) -> tuple[tuple[Cell, ...], tuple[int, ...]]:
  """Cells and seeds whose every combination is there, as many as can be.

  Cells are taken in the order of how many seeds they have; of the grids that
  grow so, the one with most problems (of equal ones, with most cells).
  """
  seeds_of: dict[Cell, set[int]] = {}
  for problem in problems:
    seeds_of.setdefault(problem[:3], set()).add(problem[3])
  order = sorted(seeds_of, key=lambda cell: (-len(seeds_of[cell]), cell))
  best: tuple[list[Cell], set[int]] = ([], set())
  common = set(seeds_of[order[0]])
  for i, cell in enumerate(order):
    common = common & seeds_of[cell]
    if (i + 1) * len(common) >= len(best[0]) * len(best[1]):
      best = (order[:i + 1], common)
  return tuple(sorted(best[0])), tuple(sorted(best[1]))


def _list_text(values: Iterable[Any]) -> str:
  values = sorted(values)
  if (len(values) > 2 and all(isinstance(v, int) for v in values)
      and values == list(range(values[0], values[-1] + 1))):
    return f'{values[0]} to {values[-1]}'
  return ', '.join(map(str, values))


def _problems_text(problems: Iterable[Problem]) -> str:
  """Cells (D, lambda, epsilon) with their seeds, few of them."""
  seeds_of: dict[Cell, list[int]] = {}
  for problem in problems:
    seeds_of.setdefault(problem[:3], []).append(problem[3])
  texts = [f'({cell[0]}, {cell[1]:g}, {cell[2]:g}) seeds {_list_text(seeds)}'
           for cell, seeds in sorted(seeds_of.items())]
  if len(texts) > _LONGEST_LIST:
    texts[_LONGEST_LIST:] = [f'{len(texts) - _LONGEST_LIST} more cells']
  return '; '.join(texts)


def seed_interval(per_seed: np.ndarray) -> Interval:
  """Mean over seeds and its interval; [S, ...] -> arrays [...]."""
  per_seed = np.asarray(per_seed, np.float64)
  with np.errstate(invalid='ignore', over='ignore'):
    mean = per_seed.mean(axis=0)
    if len(per_seed) < 2:
      return Interval(mean)
    half = stats.t.ppf(0.975, len(per_seed) - 1) * (
        per_seed.std(axis=0, ddof=1) / np.sqrt(len(per_seed)))
  return Interval(mean, mean - half, mean + half)


def mean_interval(values: np.ndarray) -> Interval:
  """Mean over cells, then over seeds, [C, S, ...] -> [...]."""
  with np.errstate(invalid='ignore', over='ignore'):
    return seed_interval(np.mean(values, axis=0))


def geometric_interval(values: np.ndarray) -> Interval:
  """exp of the mean of logs, and of its interval, [C, S, ...] -> [...]."""
  with np.errstate(divide='ignore', invalid='ignore'):
    return Interval(*(None if part is None else np.exp(part)
                      for part in mean_interval(np.log(values))))


def jackknife_interval(statistic: Callable[[np.ndarray], float],
                       num_seeds: int, log: bool = False) -> Interval:
  """A statistic of the seeds, and its interval by leaving out one at a time.

  With v on all n seeds and v_i without seed i, the pseudo-values
  p_i = n v - (n - 1) v_i have the standard error std(p, ddof=1) / sqrt(n), and
  the interval is v +- t_{n-1} times that (Tukey 1958). For a mean over seeds
  p_i is the value of seed i, and the interval that of `seed_interval`.

  Args:
    statistic: positions of seeds [n] -> a number.
    num_seeds: n.
    log: take the interval of log(statistic), as for a ratio.
  """
  forward = np.log if log else (lambda v: v)
  back = np.exp if log else (lambda v: v)
  seeds = np.arange(num_seeds)
  with np.errstate(all='ignore'):
    value = float(statistic(seeds))
    if num_seeds < 2:
      return Interval(value)
    left_out = forward(np.array(
        [statistic(np.delete(seeds, seed)) for seed in seeds], np.float64))
    pseudo = num_seeds * forward(value) - (num_seeds - 1) * left_out
    half = stats.t.ppf(0.975, num_seeds - 1) * (
        np.std(pseudo, ddof=1) / np.sqrt(num_seeds))
    return Interval(value, float(back(forward(value) - half)),
                    float(back(forward(value) + half)))


def ratio_interval(numerator: np.ndarray,
                   denominator: np.ndarray) -> Interval:
  """Ratio of two means over the same problems [C, S], paired by seed."""
  shapes = (np.shape(numerator), np.shape(denominator))
  if shapes[0] != shapes[1]:
    raise ValueError('numerator and denominator must be on the same problems, '
                     f'got shapes {shapes[0]} and {shapes[1]}.')
  return jackknife_interval(
      lambda seeds: numerator[:, seeds].mean() / denominator[:, seeds].mean(),
      np.shape(numerator)[1], log=True)


def geometric_ratio(numerator: np.ndarray, denominator: np.ndarray) -> Interval:
  """Ratio of two geometric means over the same problems [C, S]."""
  with np.errstate(all='ignore'):
    return geometric_interval(np.asarray(numerator) / np.asarray(denominator))


def best_num_samples(path: np.ndarray) -> int:
  """The P with the lowest mean over cells and seeds, path [C, S, J]."""
  means = np.mean(path, axis=(0, 1))
  return 1 + int(np.argmin(np.where(np.isnan(means), np.inf, means)))


def best_num_samples_interval(path: np.ndarray) -> Interval:
  """`best_num_samples`, with the interval of the seeds' own best P.

  An argmin is not smooth enough for the jackknife: the interval is around the
  mean of the P that is best for each seed alone, and need not hold the P that
  is best on their mean.
  """
  own = [best_num_samples(path[:, [seed]]) for seed in range(path.shape[1])]
  interval = seed_interval(np.array(own, np.float64))
  low, high = (None if end is None else float(end) for end in interval[1:])
  return Interval(best_num_samples(path), low, high)
