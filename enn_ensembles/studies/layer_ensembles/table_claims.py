"""The claims on speed, memory and special cases, judged on tables.

figure3.csv (`ole_benchmark`) has layer ensembles beside their own combinations
evaluated in other ways; against_ensemble.csv (`against_ensemble`) has a kept
set of them beside a deep ensemble.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import statistics
from enn_ensembles.report import text
from enn_ensembles.studies.layer_ensembles import verdicts

# The columns of figure3.csv that claim 4 reads: one row per number of options
# and of samples; speed-ups over evaluating one combination after the other,
# median, lowest and highest of the turns; temporary memory in bytes.
FIGURE3_COLUMNS = (
    'num_options', 'num_samples', 'repeats', 'speedup_ole', 'speedup_ole_low',
    'speedup_ole_high', 'memory_ole_bytes', 'memory_one_by_one_bytes',
    'memory_one_program_bytes')
# The same over all combinations at once, where memory let that run.
ONE_PROGRAM_COLUMNS = (
    'speedup_ole_over_one_program', 'speedup_ole_over_one_program_low',
    'speedup_ole_over_one_program_high')
AGAINST_COLUMNS = (
    'network', 'num_kept', 'num_ensemble', 'repeats', 'speedup', 'speedup_low',
    'speedup_high', 'params_ratio', 'temp_exact_bytes', 'temp_padded_bytes',
    'temp_batched_bytes', 'temp_mapped_bytes', 'kept_way', 'ensemble_way',
    'deep_difference', 'sub_difference')

# Between outputs that should be equal, relative, in float64.
LARGEST_DIFFERENCE = 1e-10

_BASELINES = {
    'one_by_one': 'one combination after the other',
    'one_program': 'all combinations at once'}
_text = text.short_number


def _not_measured(why: str, **fields: Any) -> verdicts.Line:
  return verdicts.Line(verdict=verdicts.NOT_MEASURED, why=why, **fields)


def check_columns(table: pd.DataFrame, name: str,
                  columns: tuple[str, ...]) -> None:
  """Raises ValueError where a table lacks a column."""
  for column in columns:
    if column not in table:
      raise ValueError(f'{name} must have the column {column}, got '
                       f'{", ".join(table.columns)}.')


def claim_4(table: pd.DataFrame | None) -> Iterator[verdicts.Line]:
  """OLE is up to 19 times faster, memory down quadratically, on a 4-layer CNN.

  Speed and memory are judged against the same baseline, once against one
  combination after the other and once against all combinations at once.

  4a: the largest speed-up, over K, of the full set by OLE. Its interval is from
  the lowest to the highest turn, which holds the median with probability
  1 - 2^(1 - turns), 94 % for five. `judge_factor` with 19.
  4b: memory of the baseline over that of OLE, as c K^p: p by least squares of
  the logarithms over at least two K. Reproduced from p = 1.5 on (it rounds to
  2); partly where p is above 0.5; otherwise not. Sizes of compiled programs are
  exact: no interval.
  4c: both against this baseline: reproduced where both are, not reproduced
  where either is not, partly where both are at least partly.

  Args:
    table: figure3.csv; None if there is none. Several values in a column
      `device` give lines of their own.

  Raises:
    ValueError: the table lacks a column.
  """
  if table is None:
    devices = [('', None)]
  else:
    check_columns(table, 'figure3_csv', FIGURE3_COLUMNS)
    devices = list(table.groupby('device', sort=True)
                   if 'device' in table else [('', table)])
  for device, own in devices:
    end = f', {device}' if len(devices) > 1 else ''
    for baseline, words in _BASELINES.items():
      speed = _speed_line(own, baseline, dict(
          claim=f'4a, against {words}{end}', paper='19',
          statement='OLE is up to 19 times faster', measure='largest '
          'speed-up over K'))
      memory = _memory_line(own, baseline, dict(
          claim=f'4b, against {words}{end}', paper='2',
          statement='OLE needs quadratically less memory',
          measure='p in memory ratio = c K^p'))
      yield from (speed, memory)
      yield _both_line(speed, memory, dict(
          claim=f'4c, against {words}{end}', paper='both', statement='OLE is '
          'faster and needs less memory than the same baseline'))


def _speed_line(table: pd.DataFrame | None, baseline: str,
                fields: dict[str, str]) -> verdicts.Line:
  """The line of claim 4a against one baseline."""
  if table is None:
    return _not_measured('no figure3_csv was given.', **fields)
  columns = ('speedup_ole', 'speedup_ole_low', 'speedup_ole_high')
  full = _full_sets(table)
  if baseline == 'one_program':
    if not set(ONE_PROGRAM_COLUMNS) <= set(table):
      return _not_measured('figure3_csv has no speed of all combinations at '
                           'once.', **fields)
    columns = ONE_PROGRAM_COLUMNS
  value, low, high = (pd.Series(full[name]) for name in columns)
  timed = pd.DataFrame(full[value.notna()])
  if timed.empty:
    return _not_measured('figure3_csv has no speed-up over '
                         f'{_BASELINES[baseline]}.', **fields)
  best = value.idxmax()
  found = statistics.Interval(*(float(of[best]) for of in (value, low, high)))
  options = timed['num_options']
  return verdicts.Line(
      verdict=verdicts.judge_factor(19.)(found), ours=found.value,
      low=found.low, high=found.high,
      why=f'OLE is fastest at K = {full["num_options"][best]:.0f}, '
      f'{verdicts.interval_text(found)} times over '
      f'{full["repeats"][best]:.0f} turns; over K = {options.min():.0f} to '
      f'{options.max():.0f} it is at least {_text(value.min())} times.',
      **fields)


def _memory_line(table: pd.DataFrame | None, baseline: str,
                 fields: dict[str, str]) -> verdicts.Line:
  """The line of claim 4b against one baseline."""
  if table is None:
    return _not_measured('no figure3_csv was given.', **fields)
  needed = ['memory_ole_bytes', f'memory_{baseline}_bytes']
  sized = _full_sets(table).dropna(subset=needed)
  sized = pd.DataFrame(sized[(sized[needed] > 0).all(axis=1)])
  if len(set(sized['num_options'])) < 2:
    return _not_measured('figure3_csv has no memory of two K or more.',
                         **fields)
  ratio = np.asarray(sized[needed[1]]) / np.asarray(sized[needed[0]])
  options = np.asarray(sized['num_options'])
  power = float(np.polyfit(np.log(options), np.log(ratio), 1)[0])
  smallest, largest = options.argmin(), options.argmax()
  return verdicts.Line(
      verdict=(verdicts.REPRODUCED if power >= 1.5 else
               verdicts.PARTLY if power > 0.5 else
               verdicts.NOT_REPRODUCED), ours=power,
      why=f'memory of {_BASELINES[baseline]} over that of OLE goes from '
      f'{_text(ratio[smallest])} at K = {options[smallest]:.0f} to '
      f'{_text(ratio[largest])} at K = {options[largest]:.0f}, about K to '
      f'the power {_text(power)}.', **fields)


def _both_line(speed: verdicts.Line, memory: verdicts.Line,
               fields: dict[str, str]) -> verdicts.Line:
  """The line of claim 4c: the worse of two verdicts."""
  order = (verdicts.NOT_REPRODUCED, verdicts.NOT_MEASURED,
           verdicts.INCONCLUSIVE, verdicts.PARTLY, verdicts.REPRODUCED)
  worse = min((speed.verdict, memory.verdict), key=order.index)
  return verdicts.Line(
      verdict=worse, why=f'speed: {speed.verdict}; memory: {memory.verdict}.',
      **fields)


def _full_sets(table: pd.DataFrame) -> pd.DataFrame:
  """The rows of all combinations: the most samples of each K, numbers only."""
  columns = [name for name in (*FIGURE3_COLUMNS, *ONE_PROGRAM_COLUMNS)
             if name in table]
  full = pd.DataFrame(table[columns]).apply(pd.to_numeric, errors='coerce')
  return pd.DataFrame(full[full['num_samples'] == full.groupby('num_options')[
      'num_samples'].transform('max')])


def claim_7_cost(table: pd.DataFrame | None) -> Iterator[verdicts.Line]:
  """A kept set of 20 beside a deep ensemble of 30, and special cases.

  7f: a sixth of the memory: weights of the ensemble over those of the layer
  ensemble. An exact number: reproduced from 0.9 * 6 on, partly from 3.5 on,
  otherwise not. Temporary memory stands in the reason.
  7g: at least 1.5 times faster: the geometric mean ratio of seconds over turns
  with its 95 % interval. `judge_at_least` with 1.5.
  7h: deep ensembles and deep sub-ensembles are special cases: the largest
  difference between their outputs and those of the layer ensemble's
  combinations with the same weights, relative. Reproduced up to 1e-10.
  One line per network.

  Args:
    table: against_ensemble.csv; None if there is none.

  Raises:
    ValueError: the table lacks a column.
  """
  claims = {
      '7f': dict(statement='K = 5 needs a sixth of the memory of a deep '
                 'ensemble of 30', paper='6', measure='weights of the ensemble '
                 'over those of K = 5'),
      '7g': dict(statement='K = 5 at P = 20 is at least 1.5 times faster than '
                 'a deep ensemble of 30', paper='1.5',
                 measure='seconds of the ensemble over those of P = 20'),
      '7h': dict(statement='deep ensembles and deep sub-ensembles are special '
                 'cases', paper='equal', measure='largest relative '
                 'difference of outputs')}
  if table is None:
    for claim, fields in claims.items():
      yield _not_measured('no against_ensemble_csv was given.', claim=claim,
                          **fields)
    return
  check_columns(table, 'against_ensemble_csv', AGAINST_COLUMNS)
  for row in table.to_dict('records'):
    fields = {claim: {'claim': f'{claim}, {row["network"]}', **of}
              for claim, of in claims.items()}
    ratio = float(row['params_ratio'])
    kept, way = row['kept_way'], row['ensemble_way']
    yield verdicts.Line(
        verdict=(verdicts.REPRODUCED if ratio >= 6. * verdicts.FACTOR_SHARE
                 else verdicts.PARTLY if ratio >= 3.5
                 else verdicts.NOT_REPRODUCED), ours=ratio,
        why=f'an ensemble of {row["num_ensemble"]} has {_text(ratio)} times '
        'the weights; its temporary memory for a batch is '
        f'{_text(row[f"temp_{way}_bytes"] / row[f"temp_{kept}_bytes"])} times '
        f'that of the {row["num_kept"]} kept ones.', **fields['7f'])
    found = statistics.Interval(
        float(row['speedup']), float(row['speedup_low']),
        float(row['speedup_high']))
    yield verdicts.Line(
        verdict=verdicts.judge_at_least(1.5)(found), ours=found.value,
        low=found.low, high=found.high,
        why=f'the ensemble ({way}; the kept ones {kept}) takes '
        f'{verdicts.interval_text(found)} times as long over {row["repeats"]} '
        'turns.', **fields['7g'])
    worst = float(np.max([row['deep_difference'], row['sub_difference']]))
    yield verdicts.Line(
        verdict=(verdicts.REPRODUCED if worst <= LARGEST_DIFFERENCE
                 else verdicts.NOT_REPRODUCED), ours=worst,
        why='outputs differ by at most '
        f'{float(row["deep_difference"]):.1e} from a deep ensemble and '
        f'{float(row["sub_difference"]):.1e} from a deep sub-ensemble of the '
        'same weights.', **fields['7h'])
