"""The Layer Ensembles paper's claims, put to the test on rows.

Each claim of Oleksiienko & Iosifidis 2022 (arXiv 2210.04882) is a function from
measured numbers to lines; its docstring states the rule and the thresholds of
its verdict, as `verdicts` defines them. Nothing is typed in but the paper's own
numbers and those thresholds. Each line uses all problems that its own agent
settings have in common.

Where one number of samples P is chosen for all problems, it is the one with the
best mean validation score: never the best on the test scores it is judged by.

No jax here.
"""

from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
import pandas as pd

from enn_ensembles.report import comparison
from enn_ensembles.report import statistics
from enn_ensembles.report import text
from enn_ensembles.studies.layer_ensembles import further_claims
from enn_ensembles.studies.layer_ensembles import scopes
from enn_ensembles.studies.layer_ensembles import settings
from enn_ensembles.studies.layer_ensembles import similarity_claims
from enn_ensembles.studies.layer_ensembles import table_claims
from enn_ensembles.studies.layer_ensembles import verdicts

_text = text.short_number


def claim_1a(scope: scopes.Scope) -> scopes.Found:
  """Layer ensembles reach good quality from K = 3.

  Good is the quality of a deep ensemble of 10, the testbed's usual agent, with
  3.3 times the parameters. Measure: its mean KL over that of the layer ensemble
  of 3. Reproduced: the interval lies above 0.95 (the layer ensemble is at most
  5 % worse). Not reproduced: it lies below. Otherwise inconclusive.
  """
  return scopes.ratio_line(
      scope, settings.deep_ensemble(10), settings.layer_ensemble(3),
      verdicts.judge_at_least(0.95), claim='1a',
      statement='layer ensembles reach good quality from K = 3: that of a deep '
      'ensemble of 10', paper='good from K = 3',
      measure='KL, ensemble of 10 / layer ensemble of 3')


def claim_1b(scope: scopes.Scope) -> Iterator[scopes.Found]:
  """Layer ensembles beat deep ensembles of the same K, at K = 2, 3 and 5.

  Measure: mean KL of the deep ensemble of K over that of the layer ensemble of
  K, all members of both. Verdict by `judge_better`.
  """
  for k in (2, 3, 5):
    yield scopes.ratio_line(
        scope, settings.deep_ensemble(k), settings.layer_ensemble(k),
        verdicts.judge_better,
        claim=f'1b, K = {k}', statement='layer ensembles beat deep ensembles '
        'of the same K', paper='better',
        measure='KL, deep ensemble / layer ensemble')


def claim_2(scope: scopes.Scope) -> Iterator[scopes.Found]:
  """Priors improve layer ensembles' KL by a factor of 2 at every K.

  Measure: mean KL with prior_scale 0 over mean KL with prior_scale 1. Verdict
  by `judge_factor` with 2, for each K in 2, 3, 5 and 6.
  """
  for k in (2, 3, 5, 6):
    yield scopes.ratio_line(
        scope, settings.layer_ensemble(k, prior_scale=0.),
        settings.layer_ensemble(k),
        verdicts.judge_factor(2.), claim=f'2, K = {k}',
        statement="priors improve layer ensembles' KL by a factor of 2",
        paper='2', measure='KL, without prior / with prior')


def claim_3a(scope: scopes.Scope, selection: str) -> scopes.Found:
  """With ranking, K = 5 is best near P = 36 of 125.

  Measure: the P with the best mean validation score of the first P in ranked
  order; its interval is around the mean of each seed's own best P. Near is
  within a quarter, 27 to 45: `judge_within`.
  """
  ranked = settings.layer_ensemble(5, selection=selection)
  fields = dict(claim=f'3a, {selection}', paper='36',
                measure='P chosen by validation',
                statement='with ranking, K = 5 is best near P = 36 of 125')
  try:
    curve = scope.curve(ranked)
    found = statistics.best_num_samples_interval(
        curve.compared.curve(ranked, 'val_score'))
  except comparison.SettingsError as error:
    return scope.not_measured(error, **fields)
  best, total = found.value, curve.num_samples
  means = np.mean(curve.values, axis=(0, 1))
  at_36 = f', {_text(means[35])} at P = 36' if total >= 36 else ''
  return scope.measured(
      curve.compared, found, verdicts.judge_within(27, 45),
      f'validation chooses P = {best}; mean {scope.score} is '
      f'{_text(means[best - 1])} there{at_36} and {_text(means[-1])} for all '
      f'{total}; it is lowest at P = {1 + int(np.argmin(means))}', log=False,
      **fields)


def claim_3b(scope: scopes.Scope, selection: str) -> scopes.Found:
  """P = 20 is 6 % worse than the best P.

  Measure: mean KL of the first 20 in ranked order over that at the P that
  validation chooses, minus 1. Verdict by `judge_at_most` with 0.06.
  """
  ranked = settings.layer_ensemble(5, selection=selection)
  fields = dict(claim=f'3b, {selection}', paper='0.06', statement='with '
                'ranking, P = 20 is at most 6 % worse than the best P',
                measure='KL at P = 20 / at the chosen P, minus 1')
  try:
    curve = scope.curve(ranked)
    best = curve.chosen_num_samples()
    at_20, at_best = curve.first(20), curve.first(best)
  except comparison.SettingsError as error:
    return scope.not_measured(error, **fields)
  ratio = statistics.ratio_interval(at_20, at_best)
  found = statistics.Interval(*(None if part is None else part - 1.
                                for part in ratio))
  return scope.measured(
      curve.compared, found, verdicts.judge_at_most(0.06),
      f'mean {scope.score} is {_text(np.mean(at_20))} at P = 20 and '
      f'{_text(np.mean(at_best))} at P = {best}, which validation chooses',
      statistics.geometric_ratio(at_20, at_best).value - 1., log=False,
      **fields)


def claim_3c(scope: scopes.Scope, selection: str) -> scopes.Found:
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
    curve = scope.curve(ranked, deep)
    below = curve.first(20)
  except comparison.SettingsError as error:
    return scope.not_measured(error, **fields)
  return scope.measured_ratio(
      curve.compared, verdicts.judge_factor(2.),
      curve.compared.values(deep, scope.score), below,
      (str(deep), f'the first 20 of {ranked}'), **fields)


def claim_5(scope: scopes.Scope, selection: str, fixed: bool
            ) -> Iterator[scopes.Found]:
  """Ranked layer ensembles (K = 5) have the best mean KL and the lowest spread.

  Against dropout, BBB, VNN, hypermodel and deep ensembles of 10 and 30, each on
  all problems that both have. The ranked layer ensemble takes the P with the
  best validation score on each problem, or (`fixed`) one P for all, which
  validation chooses on their mean. 5a: mean KL of the other over its own. 5b:
  spread of the other over its own; the spread is the standard deviation of the
  KL over seeds and cells. Both by `judge_better`, intervals by the jackknife.
  The claim as a whole is reproduced where it is against every agent.
  """
  ranked = settings.layer_ensemble(5, selection=selection)
  how = 'one P for all' if fixed else 'P by validation'
  for part, statistic, what, paper, statement in (
      ('5a', np.mean, 'mean', 'best', 'the best mean KL of all agents'),
      ('5b', np.std, 'standard deviation of', 'lowest',
       'the lowest spread of all agents')):
    for other in settings.COMPETITORS:
      fields = dict(
          claim=f'{part}, {selection}, {how}, {other}', paper=paper,
          statement=f'ranked layer ensembles of 5 have {statement}: against '
          f'{other}', measure=f'{what} KL, {other} / ranked')
      try:
        if fixed:
          curve = scope.curve(ranked, other)
          compared, best = curve.compared, curve.chosen_num_samples()
          own, at = curve.first(best), f' (P = {best})'
        else:
          compared = scope.compare([ranked, other])
          own, at = compared.values(ranked, scope.score), ''
      except comparison.SettingsError as error:
        yield scope.not_measured(error, **fields)
        continue
      values = compared.values(other, scope.score)

      def ratio(seeds, own=own, values=values, statistic=statistic):
        return statistic(values[:, seeds]) / statistic(own[:, seeds])

      with np.errstate(invalid='ignore'):  # Scores that are not finite.
        found = statistics.jackknife_interval(ratio, len(compared.seeds),
                                              log=True)
        geometric = (statistics.geometric_ratio(values, own).value
                     if statistic is np.mean else None)
        yield scope.measured(
            compared, found, verdicts.judge_better,
            f'{what} {scope.score} is {_text(statistic(own))} for '
            f'{ranked}{at} and {_text(statistic(values))} for {other}, a ratio '
            f'of {verdicts.interval_text(found)}', geometric, **fields)


def evaluate(rows: Sequence[comparison.Row],
             figure3: pd.DataFrame | None = None,
             similarity: pd.DataFrame | None = None,
             against: pd.DataFrame | None = None) -> list[verdicts.Line]:
  """All lines, in the order of the claims.

  Args:
    rows: as `columns.read_results` gives them; each reference in them has
      lines of its own.
    figure3: figure3.csv, for claim 4.
    similarity: similarity.csv, for claim 6.
    against: against_ensemble.csv, for claim 7.

  Raises:
    ValueError: a table lacks a column, or rows contradict each other.
  """
  tables = [*table_claims.claim_4(figure3), *similarity_claims.claim_6(
      similarity), *table_claims.claim_7_cost(against)]
  found: list[scopes.Found] = []
  about = [scopes.Scope(rows, reference, score)
           for reference in sorted({
               row['problem']['ranking']['reference'] for row in rows})
           for score in settings.SCORES]
  for scope in about:
    found.append(claim_1a(scope))
    for claim in (claim_1b, claim_2, further_claims.claim_7b,
                  further_claims.claim_7c, further_claims.claim_7d,
                  further_claims.claim_7e):
      found += claim(scope)
    for selection in ('oracle', 'val_nll'):
      found += [claim(scope, selection)
                for claim in (claim_3a, claim_3b, claim_3c)]
      found += further_claims.claim_7a(scope, selection)
      for fixed in (False, True):
        found += claim_5(scope, selection, fixed)
  lines = _judge(found) + tables
  # Lines of one claim stand together; within it as they were made.
  order = {line.claim: i for i, line in enumerate(lines[::-1])}
  return sorted(lines, key=lambda line: (line.claim.split(',')[0],
                                         -order[line.claim]))


def _judge(found: Sequence[scopes.Found]) -> list[verdicts.Line]:
  """Lines with verdicts: each claim, reference and score is a family."""
  families: dict[tuple[str, str, str], list[int]] = {}
  lines: dict[int, verdicts.Line] = {}
  for i, one in enumerate(found):
    if isinstance(one, verdicts.Line):
      lines[i] = one
    else:
      key = (one.line.claim.split(',')[0], one.line.reference, one.line.score)
      families.setdefault(key, []).append(i)
  for members in families.values():
    lines.update(zip(members, verdicts.judge_family(
        [found[i] for i in members])))
  return [lines[i] for i in range(len(found))]
