"""Claims of the Layer Ensembles paper that its figures do not stand for.

As in `claims`, each is a function from rows to lines whose docstring states the
rule and the thresholds; those on speed and memory are in `table_claims`.
"""

from collections.abc import Iterator

from enn_ensembles.report import comparison
from enn_ensembles.studies.layer_ensembles import scopes
from enn_ensembles.studies.layer_ensembles import settings
from enn_ensembles.studies.layer_ensembles import verdicts


def claim_7a(scope: scopes.Scope, selection: str) -> Iterator[scopes.Found]:
  """There is an interior optimum in P for every K > 2.

  Measure: mean KL of all members over that of the first P in ranked order, P
  chosen by validation. Verdict by `judge_better`, for K = 3, 5 and 6; not
  reproduced where validation chooses all members.
  """
  for k in (3, 5, 6):
    ranked = settings.layer_ensemble(k, selection=selection)
    fields = dict(claim=f'7a, {selection}, K = {k}', paper='better',
                  statement='with ranking, fewer than all samples are best',
                  measure='KL, all / first P by validation')
    try:
      curve = scope.curve(ranked)
      best = curve.chosen_num_samples()
    except comparison.SettingsError as error:
      yield scope.not_measured(error, **fields)
      continue
    total = curve.num_samples
    judge = (verdicts.judge_better if best < total else
             lambda _: verdicts.NOT_REPRODUCED)
    yield scope.measured_ratio(
        curve.compared, judge, curve.first(total), curve.first(best),
        (f'all {total} members', f'the first {best}'), **fields)


def claim_7b(scope: scopes.Scope) -> Iterator[scopes.Found]:
  """Priors improve deep ensembles, at K = 3, 10 and 30.

  Measure: mean KL with prior_scale 0 over mean KL with prior_scale 1. Verdict
  by `judge_better`.
  """
  for k in (3, 10, 30):
    yield scopes.ratio_line(
        scope, settings.deep_ensemble(k, prior_scale=0.),
        settings.deep_ensemble(k), verdicts.judge_better,
        claim=f'7b, K = {k}', statement='priors improve deep ensembles',
        paper='better', measure='KL, without prior / with prior')


def claim_7c(scope: scopes.Scope) -> Iterator[scopes.Found]:
  """Deep ensembles beat dropout, BBB, VNN and hypermodel.

  Measure: mean KL of the other over that of the deep ensemble of 30. Verdict by
  `judge_better`.
  """
  for other in settings.COMPETITORS[:4]:
    yield scopes.ratio_line(
        scope, other, settings.deep_ensemble(30), verdicts.judge_better,
        claim=f'7c, {other}', statement='deep ensembles beat all earlier '
        f'methods: {other}', paper='better',
        measure=f'KL, {other} / ensemble of 30')


def claim_7d(scope: scopes.Scope) -> Iterator[scopes.Found]:
  """A few samples per training step suffice.

  Measure: mean KL of the layer ensemble trained on a random subset of its
  combinations per step over that of the one trained on all. They suffice where
  it is at most 10 % worse: `judge_at_most` with 1.1.
  """
  for k, num in ((3, 5), (5, 11)):
    yield scopes.ratio_line(
        scope, settings.layer_ensemble(k, num_index_samples=num),
        settings.layer_ensemble(k), verdicts.judge_at_most(1.1),
        claim=f'7d, K = {k}, {num} per step', statement='a few samples per '
        'training step suffice', paper='suffice', measure='KL, trained on a '
        'subset per step / on all')


def claim_7e(scope: scopes.Scope) -> Iterator[scopes.Found]:
  """Random subsets of the samples are only slightly worse than all of them.

  Measure: mean KL of the first P combinations in random order over that of all,
  P = 9 of 27 and 20 of 125. Slightly worse is at most 10 %: `judge_at_most`
  with 1.1. Of exact draws 20 would be 8 times as far away as 125, by their
  finite-sample floors.
  """
  for k, num in ((3, 9), (5, 20)):
    setting = settings.layer_ensemble(k)
    fields = dict(claim=f'7e, K = {k}, P = {num}', paper='slightly worse',
                  statement='random subsets of the samples are only slightly '
                  'worse', measure='KL, a random subset / all')
    try:
      curve = scope.curve(setting)
      some = curve.first(num)
    except comparison.SettingsError as error:
      yield scope.not_measured(error, **fields)
      continue
    total = curve.num_samples
    yield scope.measured_ratio(
        curve.compared, verdicts.judge_at_most(1.1), some, curve.first(total),
        (f'{num} members in random order', f'all {total}'), **fields)
