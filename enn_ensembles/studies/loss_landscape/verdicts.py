"""The paper's claims, and the rules of their verdicts.

A claim is a set of differences that must all be above 0. It holds if every
difference's 95 % interval is above 0, fails if an interval is below 0, and is
undecided otherwise. A difference that nothing was measured of makes the claim
'not measured'.

  1  Independent inits lie nearest the upper limit of diversity: the share of
     the upper limit that other runs reach, less the share that a sampler's
     networks reach, per solution; a t interval over solutions. Networks count
     whose accuracy is at least the solution's less `plane_margin`: both limits
     meet where the accuracy is low.
  1b The same measured from the lower limit on, which a network reaches by being
     less accurate alone. This rule was added after the first run on digits.
  2  Subspace ensembles gain, but less: the ensemble around one solution less
     the solution alone, and the ensemble of all inits less that ensemble.
  3  Both together gain most: the ensemble of all inits with a subspace ensemble
     around each, less the ensemble of inits, and less the subspace ensemble.

Differences of claims 2 and 3 are of accuracy, and of the negative log
likelihood with its sign changed; they are paired by test image, and their t
interval is over test images: it says nothing of another set of runs. What is
made around one solution is averaged over all solutions first.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pandas as pd

from enn_ensembles.report import statistics
from enn_ensembles.report import text_tables
from enn_ensembles.studies.loss_landscape import ensembles
from enn_ensembles.studies.loss_landscape import samplers
from enn_ensembles.studies.loss_landscape import subspaces

HOLDS, FAILS, UNDECIDED, NOT_MEASURED = VERDICTS = (
    'holds', 'fails', 'undecided', 'not measured')

_LIMIT = 'independent inits lie nearest the upper limit'
_FROM_LOWER = 'the same, measured from the lower limit on'
_GAIN = 'subspace ensembles gain, but less than inits'
_BOTH = 'inits and subspace ensembles together gain most'


def judge(differences: Sequence[statistics.Interval]) -> str:
  """The verdict on differences that must all be above 0; see above."""
  if not all(np.isfinite(one.value) and one.is_known for one in differences):
    return NOT_MEASURED
  if all(one.low > 0 for one in differences):
    return HOLDS
  return FAILS if any(one.high < 0 for one in differences) else UNDECIDED


def _interval(differences: np.ndarray) -> statistics.Interval:
  """Mean and t interval of the finite differences."""
  finite = differences[np.isfinite(differences)]
  if len(finite) < 2:
    return statistics.Interval(float('nan'))
  return statistics.Interval(*map(float, statistics.seed_interval(finite)))


def _rows(claim: str, statement: str, method: str, score: str,
          differences: Mapping[str, np.ndarray]) -> list[dict[str, object]]:
  """A row per difference of one claim about one method."""
  found = {name: _interval(values) for name, values in differences.items()}
  verdict = judge(list(found.values()))
  return [{'claim': claim, 'statement': statement, 'method': method,
           'score': score, 'difference': name, 'value': one.value,
           'low': one.low, 'high': one.high, 'verdict': verdict}
          for name, one in found.items()]


def make_table(limit_shares: Mapping[str, np.ndarray],
               shares_from_lower: Mapping[str, np.ndarray],
               per_image: Mapping[str, Mapping[str, np.ndarray]]
               ) -> pd.DataFrame:
  """The verdicts, a row per difference.

  Args:
    limit_shares: of `subspaces.limit_shares`.
    shares_from_lower: the same from the lower limit on.
    per_image: of `ensembles.EnsembleScores`.
  """
  rows = []
  for claim, statement, score, shares in (
      ('1', _LIMIT, 'diversity / upper limit', limit_shares),
      ('1b', _FROM_LOWER, 'place between limits', shares_from_lower)):
    for name in samplers.SAMPLERS:
      rows += _rows(claim, statement, name, score, {
          f'inits - {name}': shares[subspaces.INITS] - shares[name]})
  signs = {'accuracy': 1., 'nll': -1.}

  def gain(better: str, worse: str, score: str) -> np.ndarray:
    return signs[score] * (per_image[better][score] - per_image[worse][score])

  single, deep = ensembles.SINGLE, ensembles.DEEP
  for score in signs:
    for name in samplers.SAMPLERS:
      rows += _rows('2', _GAIN, name, score, {
          f'{name} - single': gain(name, single, score),
          f'inits - {name}': gain(deep, name, score)})
  for score in signs:
    for name in samplers.SAMPLERS:
      both = ensembles.together(name)
      rows += _rows('3', _BOTH, name, score, {
          f'{both} - inits': gain(both, deep, score),
          f'{both} - {name}': gain(both, name, score)})
  return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
  """The verdicts as a table in Markdown, a line per method and score."""
  body = []
  for (claim, statement, method, score), rows in table.groupby(
      ['claim', 'statement', 'method', 'score'], sort=False):
    differences = '; '.join(
        f'{difference}: ' + (
            f'{value:.4f} [{low:.4f}, {high:.4f}]'
            if np.isfinite(value) else 'no network counts')
        for difference, value, low, high in rows[
            ['difference', 'value', 'low', 'high']].itertuples(index=False))
    body.append((f'{claim} {statement}', method, score, differences,
                 rows['verdict'].iloc[0]))
  return text_tables.markdown(
      ('claim', 'method', 'score', 'differences [95 % interval]', 'verdict'),
      body)
