"""The Layer Ensembles paper's claims, put to the test on rows.

Each claim of Oleksiienko & Iosifidis 2022 (arXiv 2210.04882) is a function from
measured numbers to lines with a verdict; its docstring states the thresholds.
Nothing is typed in but the paper's own numbers and those thresholds.

Verdicts use one of three rules:
  * `judge_factor`: something is f times better. Reproduced: at least 0.9 f (the
    paper's factors are round), and the interval is above 1. Partly: the
    interval is above 1 but the factor is not reached, or it is reached and the
    interval is not above 1. Otherwise not reproduced.
  * `judge_at_most`: a number is at most a bound. Reproduced: it is. Partly: it
    is not, but its interval reaches the bound. Otherwise not.
  * `judge_better`: something is better, without a number. Reproduced: the
    interval of the ratio is above 1. Partly: it holds 1. Otherwise not.
A line without an interval (one seed) is at best partly reproduced; timings and
compiled sizes, which have no seeds, are judged by their value. What rows,
figure3.csv or similarity.csv do not tell is 'not measured'.

No jax here.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import comparison
from enn_ensembles.report import leaderboard

REPRODUCED, PARTLY, NOT_REPRODUCED, NOT_MEASURED = VERDICTS = (
    'reproduced', 'partly', 'not reproduced', 'not measured')

# A factor counts as reached from this share of it on.
FACTOR_SHARE = 0.9

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


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of the table of claims.

  Attributes:
    claim: its number, e.g. '3b'.
    statement: what is claimed.
    paper: the paper's value, as text.
    verdict: one of VERDICTS.
    why: one sentence, made from the numbers.
    reference: reference of the scores; '' where scores are not involved.
    score: 'kl_estimate' or 'kl_reverse'; '' as above.
    measure: what `ours` is.
    ours: our value; None if not measured.
    low: lower end of its 95 % interval; None if it has none.
    high: upper end.
    geometric: the same from geometric means; None where that is not defined.
    num_cells: cells behind it; None where there are none.
    num_seeds: seeds.
  """
  claim: str
  statement: str
  paper: str
  verdict: str
  why: str
  reference: str = ''
  score: str = ''
  measure: str = ''
  ours: float | None = None
  low: float | None = None
  high: float | None = None
  geometric: float | None = None
  num_cells: int | None = None
  num_seeds: int | None = None


def judge_factor(found: comparison.Interval, factor: float) -> str:
  """The verdict on 'f times better'; see the module's docstring."""
  reached = found.value >= FACTOR_SHARE * factor
  if found.is_known and found.low > 1.:
    return REPRODUCED if reached else PARTLY
  return PARTLY if reached else NOT_REPRODUCED


def judge_better(found: comparison.Interval) -> str:
  """The verdict on 'better'; see the module's docstring."""
  if not found.is_known:
    return PARTLY if found.value > 1. else NOT_REPRODUCED
  if found.low > 1.:
    return REPRODUCED
  return PARTLY if found.high >= 1. else NOT_REPRODUCED


def judge_at_most(found: comparison.Interval, bound: float) -> str:
  """The verdict on 'at most this'; see the module's docstring."""
  if not math.isfinite(found.value):
    return NOT_REPRODUCED
  if found.value <= bound:
    return REPRODUCED if found.is_known else PARTLY
  return PARTLY if found.is_known and found.low <= bound else NOT_REPRODUCED


def layer_ensemble(num_options: int, prior_scale: float = 1.,
                   selection: str = 'none', **fields: Any
                   ) -> comparison.Setting:
  """A layer ensemble of K options per layer."""
  label = f'layer ensemble of {num_options}'
  if prior_scale == 0:
    label += ' without prior'
  return comparison.make_setting(
      'layer_ensemble', selection, label, num_options=num_options,
      prior_scale=prior_scale, **fields)


def deep_ensemble(num_ensemble: int, prior_scale: float = 1.,
                  selection: str = 'none') -> comparison.Setting:
  """A deep ensemble of K members."""
  label = f'ensemble of {num_ensemble}'
  if prior_scale == 0:
    label += ' without prior'
  return comparison.make_setting('ensemble', selection, label,
                                 num_ensemble=num_ensemble,
                                 prior_scale=prior_scale)


# The other agents of claim 5, at the settings that their papers selected.
COMPETITORS = (
    comparison.make_setting('mc_dropout', label='dropout', dropout_rate=0.05),
    comparison.make_setting('bbb', label='BBB', sigma_0=100.),
    comparison.make_setting('vnn', label='VNN'),
    comparison.make_setting('hypermodel', label='hypermodel', index_dim=20),
    deep_ensemble(10),
    deep_ensemble(30),
)


@dataclasses.dataclass(frozen=True)
class _Scope:
  """What a line is about: rows, a reference and a score."""
  rows: Sequence[comparison.Row]
  reference: str
  score: str

  def compare(self, settings: Sequence[comparison.Setting],
              with_path: Sequence[comparison.Setting] = ()
              ) -> comparison.Comparison:
    return comparison.compare(self.rows, settings, reference=self.reference,
                              with_path=with_path)

  def measured(self, compared: comparison.Comparison,
               found: comparison.Interval, verdict: str, why: str,
               geometric: float | None = None, **fields: Any) -> Line:
    def number(value):
      return None if value is None else float(value)
    return Line(
        verdict=verdict, why=f'{why}, over {len(compared.cells)} cells and '
        f'{len(compared.seeds)} seeds.', reference=self.reference,
        score=self.score, ours=number(found.value), low=number(found.low),
        high=number(found.high), geometric=number(geometric),
        num_cells=len(compared.cells), num_seeds=len(compared.seeds), **fields)

  def not_measured(self, error: Exception, **fields: Any) -> Line:
    return Line(verdict=NOT_MEASURED, why=str(error), reference=self.reference,
                score=self.score, **fields)


def _text(value: float) -> str:
  return leaderboard.short_number(float(value))


def _interval_text(found: comparison.Interval) -> str:
  if found.low is None:
    return f'{_text(found.value)} (one seed, no interval)'
  return f'{_text(found.value)} [{_text(found.low)}, {_text(found.high)}]'


def _ratio_line(scope: _Scope, worse: comparison.Setting,
                better: comparison.Setting,
                judge: Callable[[comparison.Interval], str],
                **fields: Any) -> Line:
  """A line on mean KL of `worse` over mean KL of `better`."""
  try:
    compared = scope.compare([worse, better])
  except comparison.MissingSettingsError as error:
    return scope.not_measured(error, **fields)
  above = compared.values(worse, scope.score)
  below = compared.values(better, scope.score)
  found = comparison.ratio_interval(above, below)
  return scope.measured(
      compared, found, judge(found),
      f'mean {scope.score} is {_text(np.mean(above))} for {worse} and '
      f'{_text(np.mean(below))} for {better}, a ratio of '
      f'{_interval_text(found)}',
      comparison.geometric_ratio(above, below).value, **fields)


def claim_1a(scope: _Scope) -> Line:
  """Layer ensembles reach good quality from K = 3.

  Good is the quality of a deep ensemble of 10, the testbed's usual agent, with
  3.3 times the parameters. Measure: its mean KL over that of the layer ensemble
  of 3. Reproduced: the interval reaches 1 (the layer ensemble is not worse, as
  far as can be told). Partly: the ratio is at least 1/2. Otherwise not.
  """
  def judge(found):
    if found.is_known and found.high >= 1.:
      return REPRODUCED
    return PARTLY if found.value >= 0.5 else NOT_REPRODUCED
  return _ratio_line(
      scope, deep_ensemble(10), layer_ensemble(3), judge, claim='1a',
      statement='layer ensembles reach good quality from K = 3: that of a deep '
      'ensemble of 10', paper='good from K = 3',
      measure='KL, ensemble of 10 / layer ensemble of 3')


def claim_1b(scope: _Scope) -> Iterator[Line]:
  """Layer ensembles beat deep ensembles of the same K, at K = 2, 3 and 5.

  Measure: mean KL of the deep ensemble of K over that of the layer ensemble of
  K, all members of both. Verdict by `judge_better`.
  """
  for k in (2, 3, 5):
    yield _ratio_line(
        scope, deep_ensemble(k), layer_ensemble(k), judge_better,
        claim=f'1b, K = {k}', statement='layer ensembles beat deep ensembles '
        'of the same K', paper='better',
        measure='KL, deep ensemble / layer ensemble')


def claim_2(scope: _Scope) -> Iterator[Line]:
  """Priors improve layer ensembles' KL by a factor of 2 at every K.

  Measure: mean KL with prior_scale 0 over mean KL with prior_scale 1. Verdict
  by `judge_factor` with 2, for each K in 2, 3, 5 and 6.
  """
  for k in (2, 3, 5, 6):
    yield _ratio_line(
        scope, layer_ensemble(k, prior_scale=0.), layer_ensemble(k),
        lambda found: judge_factor(found, 2.), claim=f'2, K = {k}',
        statement="priors improve layer ensembles' KL by a factor of 2",
        paper='2', measure='KL, without prior / with prior')


def claim_3a(scope: _Scope, selection: str) -> Line:
  """With ranking, K = 5 is best near P = 36 of 125.

  Measure: the P with the lowest mean KL at x_test of the first P in ranked
  order; its interval is around the mean of each seed's own best P. Reproduced:
  P lies within a factor of 2 of 36 (18 to 72). Partly: P is not, but is below
  125 and the mean KL there is better than that of all 125, the interval of the
  ratio above 1. Otherwise not.
  """
  ranked = layer_ensemble(5, selection=selection)
  fields = dict(claim=f'3a, {selection}', paper='36', measure='best P',
                statement='with ranking, K = 5 is best near P = 36 of 125')
  try:
    compared = scope.compare([ranked], [ranked])
  except comparison.MissingSettingsError as error:
    return scope.not_measured(error, **fields)
  path = compared.path(ranked, scope.score)
  found = comparison.best_num_samples_interval(path)
  best, total = found.value, path.shape[-1]
  gain = comparison.ratio_interval(path[..., -1], path[..., best - 1])
  if 18 <= best <= 72:
    verdict = REPRODUCED if found.is_known else PARTLY
  else:
    verdict = PARTLY if best < total and gain.is_known and (
        gain.low > 1.) else NOT_REPRODUCED
  means = np.mean(path, axis=(0, 1))
  at_36 = f', {_text(means[35])} at P = 36' if total >= 36 else ''
  return scope.measured(
      compared, found, verdict,
      f'mean {scope.score} is lowest at P = {best}: {_text(means[best - 1])}'
      f'{at_36} and {_text(means[-1])} for all {total} '
      f'(all / best {_interval_text(gain)})', **fields)


def claim_3b(scope: _Scope, selection: str) -> Line:
  """P = 20 is 6 % worse than the best P.

  Measure: mean KL of the first 20 in ranked order over that at the best P of
  `claim_3a`, minus 1. The best P is found on the same scores, which makes it
  look a little better than it is. Verdict by `judge_at_most` with 0.06.
  """
  ranked = layer_ensemble(5, selection=selection)
  fields = dict(claim=f'3b, {selection}', paper='0.06', statement='with '
                'ranking, P = 20 is at most 6 % worse than the best P',
                measure='KL at P = 20 / at the best P, minus 1')
  try:
    compared = scope.compare([ranked], [ranked])
  except comparison.MissingSettingsError as error:
    return scope.not_measured(error, **fields)
  path = compared.path(ranked, scope.score)
  if path.shape[-1] < 20:
    return scope.not_measured(ValueError(
        f'the path of {ranked} has {path.shape[-1]} samples.'), **fields)
  best = comparison.best_num_samples(path)
  ratio = comparison.ratio_interval(path[..., 19], path[..., best - 1])
  found = comparison.Interval(*(None if part is None else part - 1.
                                for part in ratio))
  means = np.mean(path, axis=(0, 1))
  geometric = comparison.geometric_ratio(path[..., 19], path[..., best - 1])
  return scope.measured(
      compared, found, judge_at_most(found, 0.06),
      f'mean {scope.score} is {_text(means[19])} at P = 20 and '
      f'{_text(means[best - 1])} at P = {best}, the best', geometric.value - 1.,
      **fields)


def claim_3c(scope: _Scope, selection: str) -> Line:
  """P = 20 is still 2 times better than a deep ensemble of 30.

  Measure: mean KL of a deep ensemble of 30, all its members, over that of the
  first 20 of the ranked layer ensemble of 5. Verdict by `judge_factor` with 2.
  """
  ranked, deep = layer_ensemble(5, selection=selection), deep_ensemble(30)
  fields = dict(claim=f'3c, {selection}', paper='2', statement='with ranking, '
                'K = 5 at P = 20 is 2 times better than a deep ensemble of 30',
                measure='KL, ensemble of 30 / ranked at P = 20')
  try:
    compared = scope.compare([ranked, deep], [ranked])
  except comparison.MissingSettingsError as error:
    return scope.not_measured(error, **fields)
  path = compared.path(ranked, scope.score)
  if path.shape[-1] < 20:
    return scope.not_measured(ValueError(
        f'the path of {ranked} has {path.shape[-1]} samples.'), **fields)
  above, below = compared.values(deep, scope.score), path[..., 19]
  found = comparison.ratio_interval(above, below)
  return scope.measured(
      compared, found, judge_factor(found, 2.),
      f'mean {scope.score} is {_text(np.mean(above))} for {deep} and '
      f'{_text(np.mean(below))} for the first 20 of {ranked}, a ratio of '
      f'{_interval_text(found)}',
      comparison.geometric_ratio(above, below).value, **fields)


def claim_4(table: pd.DataFrame | None) -> Iterator[Line]:
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
    yield Line(verdict=NOT_MEASURED, why=why, **speed)
    yield Line(verdict=NOT_MEASURED, why=why, **memory)
    return
  devices = table.groupby('device', sort=True) if 'device' in table else (
      [('', table)])
  several = len(devices) > 1
  for device, own in devices:
    end = f', {device}' if several else ''
    yield from _claim_4_on_device(
        own, {**speed, 'claim': f'4a{end}'}, {**memory, 'claim': f'4b{end}'})


def _claim_4_on_device(table: pd.DataFrame, speed: Mapping[str, str],
                       memory: Mapping[str, str]) -> Iterator[Line]:
  """The two lines of `claim_4` from the rows of one device."""
  columns = [name for name in (*FIGURE3_COLUMNS, FIGURE3_MOMENTS_COLUMN)
             if name in table]
  full = table[columns].apply(pd.to_numeric, errors='coerce')
  # The full set is the largest number of samples of each K.
  if 'num_samples' in full:
    full = full[full['num_samples'] == full.groupby('num_options')[
        'num_samples'].transform('max')]
  timed = full.dropna(subset=['speedup_ole']) if 'speedup_ole' in full else (
      full.iloc[:0])
  if timed.empty:
    yield Line(verdict=NOT_MEASURED, why='figure3_csv has no speedup_ole.',
               **speed)
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
    yield Line(verdict=(REPRODUCED if value >= FACTOR_SHARE * 19. else
                        PARTLY if value >= 9.5 else NOT_REPRODUCED),
               ours=value, why=why + '.', **speed)
  needed = ['memory_ole_bytes', 'memory_one_program_bytes']
  sized = full.dropna(subset=needed) if set(needed) <= set(full) else (
      full.iloc[:0])
  sized = sized[(sized[needed] > 0).all(axis=1)] if len(sized) else sized
  if sized.empty or sized['num_options'].nunique() < 2:
    yield Line(verdict=NOT_MEASURED, why='figure3_csv has no memory of two K '
               'or more.', **memory)
    return
  ratio = sized['memory_one_program_bytes'] / sized['memory_ole_bytes']
  power = float(np.polyfit(np.log(sized['num_options']), np.log(ratio), 1)[0])
  smallest, largest = sized['num_options'].idxmin(), (
      sized['num_options'].idxmax())
  yield Line(
      verdict=(REPRODUCED if power >= 1.5 else
               PARTLY if power > 0.5 else NOT_REPRODUCED), ours=power,
      why=f'the ratio of memory without and with sharing goes from '
      f'{_text(ratio[smallest])} at K = {sized["num_options"][smallest]:.0f} '
      f'to {_text(ratio[largest])} at K = '
      f'{sized["num_options"][largest]:.0f}, about K to the power '
      f'{_text(power)}.', **memory)


def claim_5(scope: _Scope, selection: str, fixed: bool) -> Iterator[Line]:
  """Ranked layer ensembles (K = 5) have the best mean KL and the lowest spread.

  Among dropout, BBB, VNN, hypermodel and deep ensembles of 10 and 30. The
  ranked layer ensemble takes the P with the best validation score on each
  problem, or (`fixed`) one P for all, the best of `claim_3a`.
  5a: the lowest mean KL of the others over its own. 5b: the lowest spread of
  the others over its own; the spread is the standard deviation of the KL over
  seeds and cells. Both by `judge_better`, intervals by the jackknife.
  """
  ranked = layer_ensemble(5, selection=selection)
  how = 'one P for all' if fixed else 'P by validation'
  name = f'{selection}, {how}'
  mean_fields = dict(
      claim=f'5a, {name}', paper='best', statement='ranked layer ensembles of '
      '5 have the best mean KL of all agents',
      measure='mean KL, best other agent / ranked')
  spread_fields = dict(
      claim=f'5b, {name}', paper='lowest', statement='ranked layer ensembles '
      'of 5 have the lowest spread of all agents',
      measure='std of KL, lowest other agent / ranked')
  try:
    compared = scope.compare([ranked, *COMPETITORS], [ranked] * fixed)
  except comparison.MissingSettingsError as error:
    yield scope.not_measured(error, **mean_fields)
    yield scope.not_measured(error, **spread_fields)
    return
  own = compared.values(ranked, scope.score)
  at = ''
  if fixed:
    path = compared.path(ranked, scope.score)
    best = comparison.best_num_samples(path)
    own, at = path[..., best - 1], f' (P = {best})'
  others = {s: compared.values(s, scope.score) for s in COMPETITORS}
  geometric_means = {
      s: float(comparison.geometric_interval(values).value)
      for s, values in [(ranked, own), *others.items()]}
  own_geometric = geometric_means.pop(ranked)
  for fields, statistic, what, geometric in (
      (mean_fields, np.mean, 'mean', min(geometric_means.values())
       / own_geometric),
      (spread_fields, np.std, 'standard deviation of', None)):
    def lowest(seeds, statistic=statistic):
      return min(statistic(values[:, seeds]) for values in others.values()
                 ) / statistic(own[:, seeds])
    with np.errstate(invalid='ignore'):  # Scores that are not finite.
      best_other = min(others, key=lambda s: _last_if_nan(
          statistic(others[s])))
      found = comparison.jackknife_interval(lowest, len(compared.seeds),
                                            log=True)
      yield scope.measured(
          compared, found, judge_better(found),
          f'{what} {scope.score} is {_text(statistic(own))} for {ranked}{at}, '
          f'and the lowest of the others {_text(statistic(others[best_other]))}'
          f' for {best_other}, a ratio of {_interval_text(found)}', geometric,
          **fields)


def _last_if_nan(value: float) -> float:
  return math.inf if math.isnan(value) else float(value)


def claim_6(table: pd.DataFrame | None) -> Iterator[Line]:
  """BatchEnsemble's members are nearly identical: it behaves like one network.

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
      ('6a', 'disagreement', 'members of BatchEnsemble never disagree', '0'),
      ('6b', 'jensen_shannon', 'members of BatchEnsemble predict the same',
       '0'),
      ('6c', 'cosine', "weights of BatchEnsemble's members are nearly parallel",
       '1'),
      ('6d', 'kl_estimate', 'BatchEnsemble behaves like one network',
       'one network'))
  if table is None or not (table['setting'].str.startswith('batch_ensemble')
                           ).any():
    why = ('no similarity_csv was given.' if table is None else
           'similarity_csv has no batch_ensemble.')
    for claim, _, statement, paper in claims:
      yield Line(claim=claim, statement=statement, paper=paper,
                 verdict=NOT_MEASURED, why=why)
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
          yield Line(verdict=NOT_MEASURED, why=f'similarity_csv has no map or '
                     f'no {deep_name}.', **fields)
          continue
        yield _one_network_line(own, deep, single, fields)
        continue
      if measure == 'cosine':
        verdict = (REPRODUCED if value >= 0.95 else
                   PARTLY if value >= 0.5 else NOT_REPRODUCED)
      else:
        verdict = (REPRODUCED if value <= 0.01 else
                   PARTLY if other is not None and value <= 0.5 * other
                   else NOT_REPRODUCED)
      beside = '' if other is None else (
          f', beside {_text(other)} of {deep_name}')
      interval = '' if low is None else f' [{_text(low)}, {_text(high)}]'
      yield Line(
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
                      single: pd.DataFrame, fields: Mapping[str, Any]) -> Line:
  """The line of claim 6d: whether the KL is rather that of one network."""
  logs = []
  keys = ['input_dim', 'data_ratio', 'noise_std']
  for rows in (own, deep, single):
    cells = rows.dropna(subset=['input_dim']).set_index(keys)['kl_estimate']
    logs.append(np.log(cells))
  logs = pd.concat(logs, axis=1, join='inner', keys=['own', 'deep', 'single'])
  if logs.empty:
    return Line(verdict=NOT_MEASURED, why='similarity_csv has no cell common '
                'to it, the deep ensemble and map.', **fields)
  own_log, deep_log, single_log = logs.mean()
  share = float((own_log - deep_log) / (single_log - deep_log))
  return Line(
      verdict=(REPRODUCED if share >= 0.75 else
               PARTLY if share >= 0.25 else NOT_REPRODUCED),
      measure='share of the way to one network', ours=share,
      num_cells=len(logs), num_seeds=int(own['num_seeds'].min()),
      why=f'the geometric mean KL is {_text(np.exp(own_log))}, beside '
      f'{_text(np.exp(deep_log))} of the deep ensemble and '
      f'{_text(np.exp(single_log))} of one network, over {len(logs)} cells.',
      **fields)


def evaluate(rows: Sequence[comparison.Row],
             figure3: pd.DataFrame | None = None,
             similarity: pd.DataFrame | None = None) -> list[Line]:
  """All lines, in the order of the claims.

  Args:
    rows: as `leaderboard.read_results` gives them; each reference in them has
      lines of its own.
    figure3: figure3.csv, see FIGURE3_COLUMNS.
    similarity: similarity.csv, see SIMILARITY_COLUMNS.

  Raises:
    ValueError: a table lacks a column, or rows contradict each other.
  """
  if figure3 is not None and 'num_options' not in figure3:
    raise ValueError('figure3_csv must have the column num_options, got '
                     f'{", ".join(figure3.columns)}.')
  if similarity is not None:
    lacking = [name for name in SIMILARITY_COLUMNS if name not in similarity]
    if lacking:
      raise ValueError(f'similarity_csv has no column {lacking[0]!r}.')
  scopes = [_Scope(rows, reference, score)
            for reference in sorted({row['reference'] for row in rows})
            for score in comparison.SCORES]
  lines: list[Line] = []
  for scope in scopes:
    lines.append(claim_1a(scope))
    lines += claim_1b(scope)
    lines += claim_2(scope)
    for selection in ('oracle', 'val_nll'):
      lines += [claim(scope, selection)
                for claim in (claim_3a, claim_3b, claim_3c)]
      for fixed in (False, True):
        lines += claim_5(scope, selection, fixed)
  lines += claim_4(figure3)
  lines += claim_6(similarity)
  # Lines of one claim stand together; within it as they were made.
  order = {line.claim: i for i, line in enumerate(lines[::-1])}
  return sorted(lines, key=lambda line: (line.claim.split(',')[0],
                                         -order[line.claim]))


def make_table(lines: Sequence[Line]) -> pd.DataFrame:
  """Every line as a row of claims.csv."""
  return pd.DataFrame([dataclasses.asdict(line) for line in lines],
                      columns=[f.name for f in dataclasses.fields(Line)],
                      dtype=object)


def format_markdown(lines: Sequence[Line], brief: bool = False) -> str:
  """The table as markdown; brief for a README, which leaves the reasons out.

  The lines of a claim that share a verdict are one line, with the numbers of
  the first (reference bayes and kl_estimate, if it is there); where references
  or directions of the KL differ in their verdict, each verdict has a line. Where
  it is brief, what is not measured has a line only where nothing of its claim
  is.
  """
  header = ['claim', 'what is claimed', 'paper', 'ours', 'verdict', 'of', 'why']
  body = []
  claims = list(dict.fromkeys(line.claim for line in lines))
  for claim in claims:
    group = [line for line in lines if line.claim == claim]
    for verdict in dict.fromkeys(line.verdict for line in group):
      if brief and verdict == NOT_MEASURED and any(
          line.verdict != NOT_MEASURED for line in group):
        continue
      same = [line for line in group if line.verdict == verdict]
      first = same[0]
      ours = '-' if first.ours is None else _interval_text(
          comparison.Interval(first.ours, first.low, first.high)
      ).replace(' (one seed, no interval)', '')
      if first.ours is not None:
        ours += f' ({first.measure})'
      body.append([claim, first.statement, first.paper, ours,
                   f'**{verdict}**', _scope_text(same, group), first.why])
  def cell_text(text):
    return ' '.join(text.replace('|', '\\|').split())
  columns = slice(-1 if brief else None)
  return ''.join('| ' + ' | '.join(map(cell_text, cells[columns])) + ' |\n'
                 for cells in [header, [':--'] * len(header), *body])


def _scope_text(same: Sequence[Line], group: Sequence[Line]) -> str:
  """Which references and scores a verdict is of."""
  if not any(line.score for line in group):
    return ', '.join(dict.fromkeys(line.reference for line in same)) or '-'
  parts = {}
  for line in same:
    parts.setdefault(line.reference, []).append(
        {'kl_estimate': 'KL', 'kl_reverse': 'reverse KL'}[line.score])
  return '; '.join(f'{reference}: {" and ".join(scores)}'
                   for reference, scores in parts.items())
