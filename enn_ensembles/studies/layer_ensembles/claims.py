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
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd

from enn_ensembles.report import comparison
from enn_ensembles.report import statistics
from enn_ensembles.report import text
from enn_ensembles.studies.layer_ensembles import settings
from enn_ensembles.studies.layer_ensembles import table_claims
from enn_ensembles.studies.layer_ensembles import verdicts

_text = text.short_number


@dataclasses.dataclass(frozen=True)
class _Scope:
  """What a line is about: rows, a reference and a score."""
  rows: Sequence[comparison.Row]
  reference: str
  score: str

  def compare(self, wanted: Sequence[comparison.Setting],
              with_curve: Sequence[comparison.Setting] = ()
              ) -> comparison.Comparison:
    return comparison.compare(
        self.rows, wanted, ranking=settings.ranking(self.reference),
        score=self.score, with_curve=with_curve)

  def measured(self, compared: comparison.Comparison,
               found: statistics.Interval, verdict: str, why: str,
               geometric: float | None = None, **fields: Any) -> verdicts.Line:
    def number(value):
      return None if value is None else float(value)
    return verdicts.Line(
        verdict=verdict, why=f'{why}, over {len(compared.cells)} cells and '
        f'{len(compared.seeds)} seeds.', reference=self.reference,
        score=self.score, ours=number(found.value), low=number(found.low),
        high=number(found.high), geometric=number(geometric),
        num_cells=len(compared.cells), num_seeds=len(compared.seeds), **fields)

  def not_measured(self, error: Exception, **fields: Any) -> verdicts.Line:
    return verdicts.Line(
        verdict=verdicts.NOT_MEASURED, why=str(error),
        reference=self.reference, score=self.score, **fields)


def _ratio_line(scope: _Scope, worse: comparison.Setting,
                better: comparison.Setting,
                judge: Callable[[statistics.Interval], str],
                **fields: Any) -> verdicts.Line:
  """A line on mean KL of `worse` over mean KL of `better`."""
  try:
    compared = scope.compare([worse, better])
  except comparison.SettingsError as error:
    return scope.not_measured(error, **fields)
  above = compared.values(worse, scope.score)
  below = compared.values(better, scope.score)
  found = statistics.ratio_interval(above, below)
  return scope.measured(
      compared, found, judge(found),
      f'mean {scope.score} is {_text(np.mean(above))} for {worse} and '
      f'{_text(np.mean(below))} for {better}, a ratio of '
      f'{verdicts.interval_text(found)}',
      statistics.geometric_ratio(above, below).value, **fields)


def claim_1a(scope: _Scope) -> verdicts.Line:
  """Layer ensembles reach good quality from K = 3.

  Good is the quality of a deep ensemble of 10, the testbed's usual agent, with
  3.3 times the parameters. Measure: its mean KL over that of the layer ensemble
  of 3. Reproduced: the interval reaches 1 (the layer ensemble is not worse, as
  far as can be told). Partly: the ratio is at least 1/2. Otherwise not.
  """
  def judge(found):
    if found.is_known and found.high >= 1.:
      return verdicts.REPRODUCED
    return verdicts.PARTLY if found.value >= 0.5 else verdicts.NOT_REPRODUCED
  return _ratio_line(
      scope, settings.deep_ensemble(10), settings.layer_ensemble(3), judge,
      claim='1a', statement='layer ensembles reach good quality from K = 3: '
      'that of a deep ensemble of 10', paper='good from K = 3',
      measure='KL, ensemble of 10 / layer ensemble of 3')


def claim_1b(scope: _Scope) -> Iterator[verdicts.Line]:
  """Layer ensembles beat deep ensembles of the same K, at K = 2, 3 and 5.

  Measure: mean KL of the deep ensemble of K over that of the layer ensemble of
  K, all members of both. Verdict by `judge_better`.
  """
  for k in (2, 3, 5):
    yield _ratio_line(
        scope, settings.deep_ensemble(k), settings.layer_ensemble(k),
        verdicts.judge_better,
        claim=f'1b, K = {k}', statement='layer ensembles beat deep ensembles '
        'of the same K', paper='better',
        measure='KL, deep ensemble / layer ensemble')


def claim_2(scope: _Scope) -> Iterator[verdicts.Line]:
  """Priors improve layer ensembles' KL by a factor of 2 at every K.

  Measure: mean KL with prior_scale 0 over mean KL with prior_scale 1. Verdict
  by `judge_factor` with 2, for each K in 2, 3, 5 and 6.
  """
  for k in (2, 3, 5, 6):
    yield _ratio_line(
        scope, settings.layer_ensemble(k, prior_scale=0.),
        settings.layer_ensemble(k),
        lambda found: verdicts.judge_factor(found, 2.), claim=f'2, K = {k}',
        statement="priors improve layer ensembles' KL by a factor of 2",
        paper='2', measure='KL, without prior / with prior')


def claim_3a(scope: _Scope, selection: str) -> verdicts.Line:
  """With ranking, K = 5 is best near P = 36 of 125.

  Measure: the P with the lowest mean KL at x_test of the first P in ranked
  order; its interval is around the mean of each seed's own best P. Reproduced:
  P lies within a factor of 2 of 36 (18 to 72). Partly: P is not, but is below
  125 and the mean KL there is better than that of all 125, the interval of the
  ratio above 1. Otherwise not.
  """
  ranked = settings.layer_ensemble(5, selection=selection)
  fields = dict(claim=f'3a, {selection}', paper='36', measure='best P',
                statement='with ranking, K = 5 is best near P = 36 of 125')
  try:
    compared = scope.compare([ranked], [ranked])
  except comparison.SettingsError as error:
    return scope.not_measured(error, **fields)
  curve = compared.curve(ranked, scope.score)
  found = statistics.best_num_samples_interval(curve)
  best, total = found.value, curve.shape[-1]
  gain = statistics.ratio_interval(curve[..., -1], curve[..., best - 1])
  if 18 <= best <= 72:
    verdict = verdicts.REPRODUCED if found.is_known else verdicts.PARTLY
  else:
    verdict = verdicts.PARTLY if best < total and gain.is_known and (
        gain.low > 1.) else verdicts.NOT_REPRODUCED
  means = np.mean(curve, axis=(0, 1))
  at_36 = f', {_text(means[35])} at P = 36' if total >= 36 else ''
  return scope.measured(
      compared, found, verdict,
      f'mean {scope.score} is lowest at P = {best}: {_text(means[best - 1])}'
      f'{at_36} and {_text(means[-1])} for all {total} '
      f'(all / best {verdicts.interval_text(gain)})', **fields)


def claim_3b(scope: _Scope, selection: str) -> verdicts.Line:
  """P = 20 is 6 % worse than the best P.

  Measure: mean KL of the first 20 in ranked order over that at the best P of
  `claim_3a`, minus 1. The best P is found on the same scores, which makes it
  look a little better than it is. Verdict by `judge_at_most` with 0.06.
  """
  ranked = settings.layer_ensemble(5, selection=selection)
  fields = dict(claim=f'3b, {selection}', paper='0.06', statement='with '
                'ranking, P = 20 is at most 6 % worse than the best P',
                measure='KL at P = 20 / at the best P, minus 1')
  try:
    compared = scope.compare([ranked], [ranked])
  except comparison.SettingsError as error:
    return scope.not_measured(error, **fields)
  curve = compared.curve(ranked, scope.score)
  if curve.shape[-1] < 20:
    return scope.not_measured(ValueError(
        f'the curve of {ranked} has {curve.shape[-1]} samples.'), **fields)
  best = statistics.best_num_samples(curve)
  ratio = statistics.ratio_interval(curve[..., 19], curve[..., best - 1])
  found = statistics.Interval(*(None if part is None else part - 1.
                                for part in ratio))
  means = np.mean(curve, axis=(0, 1))
  geometric = statistics.geometric_ratio(curve[..., 19], curve[..., best - 1])
  return scope.measured(
      compared, found, verdicts.judge_at_most(found, 0.06),
      f'mean {scope.score} is {_text(means[19])} at P = 20 and '
      f'{_text(means[best - 1])} at P = {best}, the best', geometric.value - 1.,
      **fields)


def claim_3c(scope: _Scope, selection: str) -> verdicts.Line:
  """P = 20 is still 2 times better than a deep ensemble of 30.

  Measure: mean KL of a deep ensemble of 30, all its members, over that of the
  first 20 of the ranked layer ensemble of 5. Verdict by `judge_factor` with 2.
  """
  ranked = settings.layer_ensemble(5, selection=selection)
  deep = settings.deep_ensemble(30)
  fields = dict(claim=f'3c, {selection}', paper='2', statement='with ranking, '
                'K = 5 at P = 20 is 2 times better than a deep ensemble of 30',
                measure='KL, ensemble of 30 / ranked at P = 20')
  try:
    compared = scope.compare([ranked, deep], [ranked])
  except comparison.SettingsError as error:
    return scope.not_measured(error, **fields)
  curve = compared.curve(ranked, scope.score)
  if curve.shape[-1] < 20:
    return scope.not_measured(ValueError(
        f'the curve of {ranked} has {curve.shape[-1]} samples.'), **fields)
  above, below = compared.values(deep, scope.score), curve[..., 19]
  found = statistics.ratio_interval(above, below)
  return scope.measured(
      compared, found, verdicts.judge_factor(found, 2.),
      f'mean {scope.score} is {_text(np.mean(above))} for {deep} and '
      f'{_text(np.mean(below))} for the first 20 of {ranked}, a ratio of '
      f'{verdicts.interval_text(found)}',
      statistics.geometric_ratio(above, below).value, **fields)


def claim_5(scope: _Scope, selection: str, fixed: bool
            ) -> Iterator[verdicts.Line]:
  """Ranked layer ensembles (K = 5) have the best mean KL and the lowest spread.

  Among dropout, BBB, VNN, hypermodel and deep ensembles of 10 and 30. The
  ranked layer ensemble takes the P with the best validation score on each
  problem, or (`fixed`) one P for all, the best of `claim_3a`.
  5a: the lowest mean KL of the others over its own. 5b: the lowest spread of
  the others over its own; the spread is the standard deviation of the KL over
  seeds and cells. Both by `judge_better`, intervals by the jackknife.
  """
  ranked = settings.layer_ensemble(5, selection=selection)
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
    compared = scope.compare([ranked, *settings.COMPETITORS], [ranked] * fixed)
  except comparison.SettingsError as error:
    yield scope.not_measured(error, **mean_fields)
    yield scope.not_measured(error, **spread_fields)
    return
  own = compared.values(ranked, scope.score)
  at = ''
  if fixed:
    curve = compared.curve(ranked, scope.score)
    best = statistics.best_num_samples(curve)
    own, at = curve[..., best - 1], f' (P = {best})'
  others = {s: compared.values(s, scope.score) for s in settings.COMPETITORS}
  geometric_means = {
      s: float(statistics.geometric_interval(values).value)
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
      found = statistics.jackknife_interval(lowest, len(compared.seeds),
                                            log=True)
      yield scope.measured(
          compared, found, verdicts.judge_better(found),
          f'{what} {scope.score} is {_text(statistic(own))} for {ranked}{at}, '
          f'and the lowest of the others {_text(statistic(others[best_other]))}'
          f' for {best_other}, a ratio of {verdicts.interval_text(found)}',
          geometric, **fields)


def _last_if_nan(value: float) -> float:
  return math.inf if math.isnan(value) else float(value)


def evaluate(rows: Sequence[comparison.Row],
             figure3: pd.DataFrame | None = None,
             similarity: pd.DataFrame | None = None) -> list[verdicts.Line]:
  """All lines, in the order of the claims.

  Args:
    rows: as `columns.read_results` gives them; each reference in them has
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
    lacking = [name for name in table_claims.SIMILARITY_COLUMNS
               if name not in similarity]
    if lacking:
      raise ValueError(f'similarity_csv has no column {lacking[0]!r}.')
  scopes = [_Scope(rows, reference, score)
            for reference in sorted({
                row['problem']['ranking']['reference'] for row in rows})
            for score in settings.SCORES]
  lines: list[verdicts.Line] = []
  for scope in scopes:
    lines.append(claim_1a(scope))
    lines += claim_1b(scope)
    lines += claim_2(scope)
    for selection in ('oracle', 'val_nll'):
      lines += [claim(scope, selection)
                for claim in (claim_3a, claim_3b, claim_3c)]
      for fixed in (False, True):
        lines += claim_5(scope, selection, fixed)
  lines += table_claims.claim_4(figure3)
  lines += table_claims.claim_6(similarity)
  # Lines of one claim stand together; within it as they were made.
  order = {line.claim: i for i, line in enumerate(lines[::-1])}
  return sorted(lines, key=lambda line: (line.claim.split(',')[0],
                                         -order[line.claim]))
