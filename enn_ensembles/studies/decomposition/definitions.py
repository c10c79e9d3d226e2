"""The definitions on cases that everybody can work out."""

from typing import NamedTuple

import numpy as np

from enn_ensembles.scoring import aggregation
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import noise_scores

# exp(-800) is 0: members that are sure.
_SURE = 800.
_NUM_CLASSES = 5


class Check(NamedTuple):
  """A number that is known, and what the formulas give.

  Attributes:
    case: in words.
    quantity: what is computed.
    expected: what it must be.
    found: what it is.
  """
  case: str
  quantity: str
  expected: float
  found: float

  @property
  def holds(self) -> bool:
    """Whether they agree but for rounding."""
    return bool(np.isclose(self.found, self.expected, rtol=1e-12, atol=1e-12))


def check_all() -> list[Check]:
  """All cases; nothing is trained."""
  logits = np.random.default_rng(0).standard_normal((1, 1, _NUM_CLASSES))
  same = categorical.uncertainties(
      categorical.log_softmax(np.repeat(logits, 4, axis=0)))
  sure = categorical.log_softmax(
      -_SURE * (1. - np.eye(_NUM_CLASSES))[:, None])
  differ = categorical.uncertainties(sure)
  values = np.array([10.2, 9.8, 10.5, 9.5, 10.0])[:, None]
  split = noise_scores.split_variance(values[..., None],
                                      np.full((5, 1, 1), 0.25))
  identical = 'four identical members'
  different = f'{_NUM_CLASSES} members, sure of different classes'
  numbers = '10.2, 9.8, 10.5, 9.5, 10.0'
  return [
      Check(identical, 'EU', 0., float(same.epistemic[0])),
      Check(identical, 'AU less total', 0.,
            float(same.aleatoric[0] - same.total[0])),
      Check(different, 'AU', 0., float(differ.aleatoric[0])),
      Check(different, f'EU (ln {_NUM_CLASSES})', float(np.log(_NUM_CLASSES)),
            float(differ.epistemic[0])),
      Check(different, 'variation ratio', 1. - 1. / _NUM_CLASSES,
            float(aggregation.variation_ratio(sure)[0])),
      Check(numbers, 'mean', 10.,
            float(aggregation.MEAN.values(values)[0])),
      Check(numbers, 'median', 10.,
            float(aggregation.Aggregation('median').values(values)[0])),
      Check(numbers, 'EU (variance)', 0.116, float(split.epistemic[0])),
      Check(f'{numbers}, each with a noise variance of 0.25', 'AU', 0.25,
            float(split.aleatoric[0])),
  ]
