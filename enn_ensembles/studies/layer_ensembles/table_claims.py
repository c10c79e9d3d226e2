"""The claims that are judged on figure3.csv and similarity.csv."""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import text
from enn_ensembles.studies.layer_ensembles import verdicts

# The columns of figure3.csv that claim 4 reads: one row per number of options
# and of samples; speed-ups over evaluating one combination after the other,
# temporary memory in bytes.
FIGURE3_COLUMNS = ('num_options', 'num_samples', 'speedup_ole',
                   'memory_ole_bytes', 'memory_one_program_bytes')
FIGURE3_MOMENTS_COLUMN = 'speedup_moments'

# The columns of similarity.csv that claim 6 reads, one row per agent setting
# and cell; every measure is a mean over seeds and pairs of members.
SIMILARITY_MEASURES = ('disagreement', 'jensen_shannon', 'cosine',
                       'correlation', 'std_ratio', 'kl_estimate')
SIMILARITY_COLUMNS = ('setting', 'reference', 'input_dim', 'data_ratio',
                      'noise_std', 'num_seeds', *SIMILARITY_MEASURES)

_text = text.short_number


def _not_measured(why: str, **fields: Any) -> verdicts.Line:
  return verdicts.Line(verdict=verdicts.NOT_MEASURED, why=why, **fields)


def claim_4(table: pd.DataFrame | None) -> Iterator[verdicts.Line]:
  """OLE is up to 19 times faster, memory down quadratically, on a 4-layer CNN.

  4a: the largest speed-up, over K, of the full set by OLE over evaluating every
  combination on its own. Reproduced from 0.9 * 19 on; partly above half of 19;
  otherwise not.
  4b: memory of all combinations in one program without sharing over that of
  OLE, as c K^p: p by least squares of the logarithms over at least two K.
  Reproduced from p = 1.5 on (it rounds to 2); partly where p is above 0.5;
  otherwise not.

  Args:
    table: figure3.csv; None if there is none. Several values in a column
      `device` give lines of their own.
  """
  speed = dict(claim='4a', statement='OLE is up to 19 times faster than '
               'evaluating every combination on its own', paper='19',
               measure='largest speed-up over K')
  memory = dict(claim='4b', statement='OLE needs quadratically less memory',
                paper='2', measure='p in memory ratio = c K^p')
  if table is None:
    why = 'no figure3_csv was given.'
    yield verdicts.Line(verdict=verdicts.NOT_MEASURED, why=why, **speed)
    yield verdicts.Line(verdict=verdicts.NOT_MEASURED, why=why, **memory)
    return
  devices = table.groupby('device', sort=True) if 'device' in table else (
      [('', table)])
  several = len(devices) > 1
  for device, own in devices:
    end = f', {device}' if several else ''
    yield from _claim_4_on_device(
        own, {**speed, 'claim': f'4a{end}'}, {**memory, 'claim': f'4b{end}'})


def _claim_4_on_device(table: pd.DataFrame, speed: Mapping[str, str],
                       memory: Mapping[str, str]) -> Iterator[verdicts.Line]:
  """The two lines of `claim_4` from the rows of one device."""
  columns = [name for name in (*FIGURE3_COLUMNS, FIGURE3_MOMENTS_COLUMN)
             if name in table]
  full = pd.DataFrame(table[columns]).apply(pd.to_numeric, errors='coerce')
  # The full set is the largest number of samples of each K.
  if 'num_samples' in full:
    full = full[full['num_samples'] == full.groupby('num_options')[
        'num_samples'].transform('max')]
  full = pd.DataFrame(full)
  timed = full.dropna(subset=['speedup_ole']) if 'speedup_ole' in full else (
      full.iloc[:0])
  if timed.empty:
    yield _not_measured('figure3_csv has no speedup_ole.', **speed)
  else:
    best = timed.loc[timed['speedup_ole'].idxmax()]
    value = float(best['speedup_ole'])
    why = (f'OLE is fastest against one by one at K = '
           f'{best["num_options"]:.0f}, {_text(value)} times; over K = '
           f'{timed["num_options"].min():.0f} to '
           f'{timed["num_options"].max():.0f} it is at least '
           f'{_text(timed["speedup_ole"].min())} times')
    if FIGURE3_MOMENTS_COLUMN in timed:
      top = timed[FIGURE3_MOMENTS_COLUMN].max()
      if np.isfinite(top):
        why += f'; exact moments reach {_text(top)} times'
    yield verdicts.Line(
        verdict=(verdicts.REPRODUCED if value >= verdicts.FACTOR_SHARE * 19.
                 else verdicts.PARTLY if value >= 9.5 else
                 verdicts.NOT_REPRODUCED),
        ours=value, why=why + '.', **speed)
  needed = ['memory_ole_bytes', 'memory_one_program_bytes']
  sized = full.dropna(subset=needed) if set(needed) <= set(full) else (
      full.iloc[:0])
  if len(sized):
    sized = pd.DataFrame(sized[(sized[needed] > 0).all(axis=1)])
  if sized.empty or sized['num_options'].nunique() < 2:
    yield _not_measured('figure3_csv has no memory of two K or more.',
                        **memory)
    return
  ratio = sized['memory_one_program_bytes'] / sized['memory_ole_bytes']
  power = float(np.polyfit(np.log(sized['num_options']), np.log(ratio), 1)[0])
  options = np.asarray(sized['num_options'])
  smallest, largest = options.argmin(), options.argmax()
  yield verdicts.Line(
      verdict=(verdicts.REPRODUCED if power >= 1.5 else
               verdicts.PARTLY if power > 0.5 else
               verdicts.NOT_REPRODUCED), ours=power,
      why=f'the ratio of memory without and with sharing goes from '
      f'{_text(ratio.iloc[smallest])} at K = '
      f'{options[smallest]:.0f} '
      f'to {_text(ratio.iloc[largest])} at K = '
      f'{options[largest]:.0f}, about K to the power '
      f'{_text(power)}.', **memory)


def claim_6(table: pd.DataFrame | None) -> Iterator[verdicts.Line]:
  """A contrast in regression to a claim about classification.

  The claim is that BatchEnsemble's members are nearly identical, so that it
  behaves like one network (arXiv 2601.16936). It is about classification with
  k = 4, and is judged on images. What stands here is how the same measures come
  out in regression; there the initialisation of the fast weights decides them.

  For each BatchEnsemble in similarity.csv, means over its cells, beside the
  deep ensemble of 10 of the same prior:
  6a: sign disagreement. Reproduced up to 0.01; partly up to half of the deep
  ensemble's; otherwise not.
  6b: Jensen-Shannon divergence. Reproduced up to 0.01 nats (of log 2 = 0.69);
  partly up to half of the deep ensemble's; otherwise not.
  6c: cosine of the members' weights. Reproduced from 0.95 on; partly from 0.5
  on; otherwise not.
  6d: KL, as a share of the way from the deep ensemble (0) to the one network
  `map` (1) in the geometric mean. Reproduced from 0.75 on; partly from 0.25 on;
  otherwise not.
  Intervals are over seeds where similarity.csv has them for all cells together
  (its rows without a cell); the verdict is that of the mean.

  Args:
    table: similarity.csv; None if there is none.
  """
  claims = (
      ('6a', 'disagreement', 'regression, a contrast: members of '
       'BatchEnsemble never disagree', '0 (classification)'),
      ('6b', 'jensen_shannon', 'regression, a contrast: members of '
       'BatchEnsemble predict the same', '0 (classification)'),
      ('6c', 'cosine', "regression, a contrast: weights of BatchEnsemble's "
       'members are nearly parallel', '1 (classification)'),
      ('6d', 'kl_estimate', 'regression, a contrast: BatchEnsemble '
       'behaves like one network', 'one network (classification)'))
  if table is None or not (table['setting'].str.startswith('batch_ensemble')
                           ).any():
    why = ('no similarity_csv was given.' if table is None else
           'similarity_csv has no batch_ensemble.')
    for claim, _, statement, paper in claims:
      yield verdicts.Line(claim=claim, statement=statement, paper=paper,
                 verdict=verdicts.NOT_MEASURED, why=why)
    return
  for (setting, reference), own in table.groupby(['setting', 'reference'],
                                                 sort=False):
    if not setting.startswith('batch_ensemble'):
      continue
    here = table[table['reference'] == reference]
    deep_name = 'ensemble' + (
        ',prior_scale=0' if 'prior_scale=0' in setting else '')
    deep = here[here['setting'] == deep_name]
    single = here[here['setting'] == 'map']
    for claim, measure, statement, paper in claims:
      fields = dict(claim=f'{claim}, {setting}', statement=statement,
                    paper=paper, reference=reference)
      value, low, high, cells, seeds = _similarity_mean(own, measure)
      other = _similarity_mean(deep, measure)[0] if len(deep) else None
      if claim == '6d':
        if not len(single) or other is None:
          yield _not_measured(
              f'similarity_csv has no map or no {deep_name}.', **fields)
          continue
        yield _one_network_line(own, deep, single, fields)
        continue
      if measure == 'cosine':
        verdict = (verdicts.REPRODUCED if value >= 0.95 else
                   verdicts.PARTLY if value >= 0.5 else verdicts.NOT_REPRODUCED)
      else:
        verdict = (verdicts.REPRODUCED if value <= 0.01 else
                   verdicts.PARTLY if other is not None and value <= 0.5 * other
                   else verdicts.NOT_REPRODUCED)
      beside = '' if other is None else (
          f', beside {_text(other)} of {deep_name}')
      interval = '' if low is None else f' [{_text(low)}, {_text(high)}]'
      yield verdicts.Line(
          verdict=verdict, measure=f'mean {measure}', ours=value, low=low,
          high=high, num_cells=cells, num_seeds=seeds,
          why=f'mean {measure} of pairs is {_text(value)}{interval}{beside}, '
          f'over {cells} cells and {seeds} seeds.', **fields)


def _similarity_mean(rows: pd.DataFrame, measure: str) -> tuple[
    float, float | None, float | None, int, int]:
  """(mean over cells, low, high, cells, seeds) of a measure of one setting.

  Rows without a cell are means over all cells, with an interval over seeds.
  """
  cells = rows.dropna(subset=['input_dim'])
  overall = rows[rows['input_dim'].isna()]
  low = high = None
  if len(overall):
    line = overall.iloc[0]
    value = float(line[measure])
    if f'{measure}_low' in line and np.isfinite(line[f'{measure}_low']):
      low, high = float(line[f'{measure}_low']), float(line[f'{measure}_high'])
  else:
    value = float(cells[measure].mean())
  return (value, low, high, len(cells) if len(cells) else len(rows),
          int(rows['num_seeds'].min()))


def _one_network_line(own: pd.DataFrame, deep: pd.DataFrame,
                      single: pd.DataFrame, fields: Mapping[str, Any]
                      ) -> verdicts.Line:
  """The line of claim 6d: whether the KL is rather that of one network."""
  logs = []
  keys = ['input_dim', 'data_ratio', 'noise_std']
  for rows in (own, deep, single):
    cells = rows.dropna(subset=['input_dim']).set_index(keys)['kl_estimate']
    logs.append(np.log(cells))
  logs = pd.concat(logs, axis=1, join='inner', keys=['own', 'deep', 'single'])
  if logs.empty:
    return _not_measured('similarity_csv has no cell common to it, the deep '
                         'ensemble and map.', **fields)
  own_log, deep_log, single_log = logs.mean()
  share = float((own_log - deep_log) / (single_log - deep_log))
  return verdicts.Line(
      verdict=(verdicts.REPRODUCED if share >= 0.75 else
               verdicts.PARTLY if share >= 0.25 else verdicts.NOT_REPRODUCED),
      measure='share of the way to one network', ours=share,
      num_cells=len(logs), num_seeds=int(own['num_seeds'].min()),
      why=f'the geometric mean KL is {_text(np.exp(own_log))}, beside '
      f'{_text(np.exp(deep_log))} of the deep ensemble and '
      f'{_text(np.exp(single_log))} of one network, over {len(logs)} cells.',
      **fields)
