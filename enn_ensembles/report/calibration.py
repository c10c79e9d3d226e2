"""Calibration of agents: histograms of the probability integral transform of f.

A row keeps how many of its test points have a transform, the agent's predicted
probability of less than f, in each bin of [0, 1] (`scoring.prediction_counts`).
A calibrated agent has as many in each. Points of one function are correlated,
and the noise levels of a seed share their draws, so the seed is what is
independent: a histogram is the mean over cells per seed, then over seeds, with
the standard error over seeds. Only seeds that have every cell take part.

The test of uniformity is Neyman's smooth one with two components, the first
two polynomials that are orthonormal over the bins:
  slope      above 0 where f lies above what is predicted on most problems
  curvature  above 0 for a valley (stds too small for how far means are off),
             below 0 for a hump
Both are 0 on average for a calibrated agent. Each has a t test over seeds; the
p value is twice the smaller one, at most 1 (Bonferroni), and `p_holm` corrects
it for the number of agent settings (Holm).
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.report import cells as cells_lib
from enn_ensembles.report import columns as columns_lib
from enn_ensembles.report import rankings as rankings_lib
from enn_ensembles.report import ranks
from enn_ensembles.report import tables
from enn_ensembles.scoring import distribution_scores

ALL_CELLS = 'all'

_COMPONENTS = ('slope', 'curvature')
_IDENTITY = ('ranking', 'label', 'agent_id', 'agent')
_BIN_COLUMNS = (*_IDENTITY, 'cells', 'num_seeds', 'from', 'to', 'share',
                'standard_error', 'share_of_exact_draws')
_TEST_COLUMNS = (
    *_IDENTITY, 'cells', 'num_cells', 'num_seeds', 'num_rows_without',
    *(name + what for name in _COMPONENTS for what in ('', '_standard_error')),
    'curvature_of_exact_draws', 'p_value', 'p_holm')


class Calibration(NamedTuple):
  """Two tables of the first ranking that has counts, columns of dtype object.

  Attributes:
    histograms: a row per agent setting with counts, part of the cells and bin:
      share of points, its standard error over seeds (None for one seed), and
      the share that as many independent exact draws have on average.
    tests: a row per agent setting and part of the cells: what it is based on,
      slope, curvature, p values. An agent setting without counts has one row,
      with num_seeds 0 and None for the rest.
  """
  histograms: pd.DataFrame
  tests: pd.DataFrame


class _Rows(NamedTuple):
  """Rows of an agent setting that have counts.

  Attributes:
    cells: number of each row's cell, [R].
    seeds: [R].
    shares: of points in each bin, [R, B].
    exact: the same as many exact draws expect, [R, B].
    num_without: rows without counts.
  """
  cells: np.ndarray
  seeds: np.ndarray
  shares: np.ndarray
  exact: np.ndarray
  num_without: int


def read_counts(results_dirs: Iterable[files.PathLike]
                ) -> dict[str, Sequence[int]]:
  """row_id -> counts of the transform, of all rows that have them.

  Units are read whole, one at a time, which takes longer than columns do.

  Raises:
    FileError: a folder or a file in it is not as it must be.
  """
  found = {}
  for folder in results_dirs:
    for unit in results.open_store(folder).iter_units():
      for row in unit.rows:
        counts = ((row['counts'] or {}).get('test') or {}).get('pit_count')
        if counts:
          found[row['row_id']] = counts
  return found


def measure(rows: columns_lib.Columns, expected: Sequence[Any],
            counts: Mapping[str, Sequence[int]]) -> Calibration:
  """Histograms and tests of the agent settings of one ranking, best first.

  Args:
    rows: of the board.
    expected: what its sweeps said they would compute.
    counts: of `read_counts`.

  Raises:
    ValueError: no row has counts.
  """
  found = rankings_lib.first_with(
      rows, np.array([row_id in counts for row_id in rows.row_ids], bool))
  if found is None:
    raise ValueError(
        'results_dir has no row with counts of the probability integral '
        'transform: rows of regression on drawn functions have them, but for '
        'those of older programs.')
  ranking, inside = found
  board = tables.make_tables(rows, expected).leaderboard
  board = board[board['ranking'] == ranking.label]
  cells = [rows.values('cell')[code] for code in np.unique(
      rows.codes('cell')[inside])]
  grid, number = cells_lib.make_grid(cells, ())
  parts = {ALL_CELLS: np.ones(len(grid.cells), bool)}
  field = grid.usual_field()
  if field is not None:
    parts.update({f'{field}={cells_lib.level_text(level)}':
                  grid.at_level(field, level) for level in grid.levels(field)})
  histograms, tests = [], []
  for _, line in board.iterrows():
    named = {name: line[name] for name in _IDENTITY}
    own = _rows_of(rows, line, inside, counts, number)
    if not len(own.shares):
      tests.append({**named, 'cells': ALL_CELLS, 'num_cells': 0, 'num_seeds': 0,
                    'num_rows_without': own.num_without})
      continue
    for name, members in parts.items():
      found = _measure_part(own, members)
      if found is not None:
        tests.append({**named, 'cells': name, **found[0]})
        histograms += [{**named, 'cells': name, **bin_} for bin_ in found[1]]
  _add_holm(tests)
  return Calibration(tables.make_frame(histograms, _BIN_COLUMNS),
                     tables.make_frame(tests, _TEST_COLUMNS))


def _rows_of(rows: columns_lib.Columns, line: Mapping[str, Any],
             inside: np.ndarray, counts: Mapping[str, Sequence[int]],
             number: Mapping[str, int]) -> _Rows:
  """The rows of an agent setting, a line of the board."""
  own = inside.copy()
  for name in ('agent_id', 'dtype', 'num_enn_samples'):
    same = np.array([value == line[name] for value in rows.values(name)], bool)
    own &= same[rows.codes(name)]
  places = np.flatnonzero(own).tolist()
  having = [i for i in places if rows.row_ids[i] in counts]

  def value(name: str, row: int) -> Any:
    return rows.values(name)[rows.codes(name)[row]]

  shares = [np.asarray(counts[rows.row_ids[i]], float) for i in having]
  return _Rows(
      np.array([number[cells_lib.identity(value('cell', i))] for i in having],
               int),
      np.array([value('seed', i) for i in having], int),
      np.array([one / one.sum() for one in shares]),
      np.array([distribution_scores.pit_of_exact_draws(
          value('num_samples_used', i), len(one))
                for i, one in zip(having, shares)]),
      len(places) - len(having))


def _measure_part(own: _Rows, members: np.ndarray
                  ) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
  """Test and bins of some of the cells; None where they have no whole seed."""
  inside = members[own.cells]
  cells = np.unique(own.cells[inside])
  seeds = [seed for seed in np.unique(own.seeds[inside]) if set(cells) == set(
      own.cells[inside & (own.seeds == seed)])]
  if not seeds:
    return None
  inside &= np.isin(own.seeds, seeds)
  per_seed = np.array([own.shares[inside & (own.seeds == seed)].mean(axis=0)
                       for seed in seeds])
  exact = own.exact[inside].mean(axis=0)
  mean, error = _mean_and_error(per_seed)
  edges = np.linspace(0., 1., len(mean) + 1)
  bins = [{'num_seeds': len(seeds), 'from': float(edges[i]),
           'to': float(edges[i + 1]), 'share': float(mean[i]),
           'standard_error': None if error is None else float(error[i]),
           'share_of_exact_draws': float(exact[i])} for i in range(len(mean))]
  test: dict[str, Any] = {
      'num_cells': len(cells), 'num_seeds': len(seeds),
      'num_rows_without': own.num_without}
  values, errors = _mean_and_error(per_seed @ components(len(mean)).T)
  for i, name in enumerate(_COMPONENTS):
    test[name] = float(values[i])
    test[f'{name}_standard_error'] = (None if errors is None
                                      else float(errors[i]))
  # Exactly 0 for exact moments, but for rounding.
  test['curvature_of_exact_draws'] = float(np.round(
      components(len(mean))[1] @ exact, 12))
  test['p_value'] = uniformity_p_value(per_seed)
  return test, bins


def components(num_bins: int) -> np.ndarray:
  """Slope and curvature as weights of shares, [2, B].

  Of the first and second degree in the bin, 0 on uniform shares, with mean
  square 1 over the bins and mean product 0; both grow at the last bin.
  """
  x = np.arange(num_bins) - (num_bins - 1) / 2.
  found = np.array([x, x**2 - np.mean(x**2)])
  return found / np.sqrt(np.mean(found**2, axis=1, keepdims=True))


def uniformity_p_value(per_seed: np.ndarray) -> float | None:
  """The p value of uniform shares, [S, B]; None for one seed.

  See the module's docstring.
  """
  values, errors = _mean_and_error(per_seed @ components(
      per_seed.shape[1]).T)
  if errors is None:
    return None
  # Components are of order 1: what is smaller is rounding.
  values, errors = (np.where(np.abs(part) < 1e-12, 0., part)
                    for part in (values, errors))
  with np.errstate(divide='ignore', invalid='ignore'):
    p_values = 2 * stats.t.sf(np.abs(values / errors), len(per_seed) - 1)
  p_values = np.where(np.isnan(p_values), 1., p_values)  # Never differs: 0 / 0.
  return float(min(1., 2 * p_values.min()))


def _mean_and_error(per_seed: np.ndarray
                    ) -> tuple[np.ndarray, np.ndarray | None]:
  """Mean over seeds and its standard error, [S, n] -> [n]."""
  mean = per_seed.mean(axis=0)
  if len(per_seed) < 2:
    return mean, None
  return mean, per_seed.std(axis=0, ddof=1) / np.sqrt(len(per_seed))


def _add_holm(tests: Sequence[dict[str, Any]]) -> None:
  """Adds `p_holm` to the tests over all cells."""
  tested = [test for test in tests if test['cells'] == ALL_CELLS
            and test.get('p_value') is not None]
  for test, value in zip(tested, ranks.holm(
      np.array([test['p_value'] for test in tested]))):
    test['p_holm'] = float(value)
