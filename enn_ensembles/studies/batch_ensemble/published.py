"""The study's own numbers, judged by the rule that ours are judged by.

Zamyatin et al. 2026 (arXiv 2601.16936). The numbers of MNIST are read off the
plots of the study's public code, so that only means are known: in place of
intervals over seeds stands what the reading leaves open. With d = BatchEnsemble
- one network and g = deep ensemble - one network, "like one network" is
reproduced where |d| < |g| / 3 however the three numbers are rounded, not
reproduced where |d| > |g| / 3 however they are, and inconclusive otherwise, as
where g may be 0. The seeds' own spread is not in that, so that even a decided
verdict says only what the means say.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from enn_ensembles.studies.batch_ensemble import equivalence


class Published(NamedTuple):
  """One score of the study.

  Attributes:
    data_set: where.
    score: name in the table of scores.
    one: mean of one network.
    batch: of BatchEnsemble.
    deep: of the deep ensemble.
    error: how far each of the three may be off by reading and rounding.
  """
  data_set: str
  score: str
  one: float
  batch: float
  deep: float
  error: float


MEANS = (
    Published('MNIST', 'accuracy', 0.969, 0.972, 0.976, 0.002),
    Published('MNIST', 'nll', 0.100, 0.092, 0.083, 0.0005),
)


def judge(means: Published) -> str:
  """The verdict on one score, see above."""
  sign = np.sign(means.deep - means.one)
  numbers = sign * np.array([means.one, means.batch, means.deep])

  def ends(*weights: float) -> tuple[float, float]:
    """What a sum of the three numbers may be, lowest and highest."""
    middle = float(np.dot(weights, numbers))
    half = means.error * float(np.sum(np.abs(weights)))
    return middle - half, middle + half

  third = equivalence.MARGIN
  if ends(-1., 0., 1.)[0] <= 0.:
    return equivalence.INCONCLUSIVE
  above = ends(third - 1., 1., -third)  # d - g / 3
  below = ends(-third - 1., 1., third)  # d + g / 3
  if above[1] < 0. < below[0]:
    return equivalence.REPRODUCED
  if above[0] > 0. or below[1] < 0.:
    return equivalence.NOT_REPRODUCED
  return equivalence.INCONCLUSIVE


def table() -> pd.DataFrame:
  """A line per score of `MEANS`, with its share and its verdict."""
  return pd.DataFrame([{
      **means._asdict(),
      'share': (means.batch - means.one) / (means.deep - means.one),
      'verdict': judge(means)} for means in MEANS], dtype=object)
