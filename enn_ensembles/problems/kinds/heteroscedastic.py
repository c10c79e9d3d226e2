"""The NNGP testbed with noise that depends on the input.

A family is one (D_x, lambda) with its noise levels, as of the kind 'nngp'; its
score set is the same, and agents that say what the noise is have scores of
their own. They are told nothing of the noise: target noise, for instance, needs
to know it.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import re
from typing import Any

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.problems import heteroscedastic_regression
from enn_ensembles.problems import kinds
from enn_ensembles.problems import nngp_regression
from enn_ensembles.problems import solvers
from enn_ensembles.problems.kinds import nngp

# Beyond it stds of the noise at some points are too small for a posterior.
_LARGEST_CONTRAST = 5.


def _check_contrast(name: str, value: Any) -> None:
  checks.check_scale(name, value)
  if value > _LARGEST_CONTRAST:
    raise ValueError(f'{name} must be at most {_LARGEST_CONTRAST:g}, got '
                     f'{value!r}.')


CONFIG_NAMES: Mapping[str, kinds.ConfigName] = {
    **{name: nngp.CONFIG_NAMES[name]
       for name in ('INPUT_DIM', 'DATA_RATIO', 'NOISE_STD', 'KERNEL')},
    'NOISE_CONTRAST': kinds.ConfigName(_check_contrast, False, 1.),
}


@dataclasses.dataclass(frozen=True)
class HeteroscedasticFamily:
  """One (input_dim, data_ratio) with its noise levels; see `kinds.Family`.

  Attributes:
    plain: the family with constant noise that x, f and normals are shared with.
    noise_contrast: std of log epsilon(x).
  """
  plain: nngp.NngpFamily
  noise_contrast: float

  kind = 'heteroscedastic'
  score_set = 'nngp'

  @property
  def name(self) -> str:
    """As 'D10_l1_c1_bayes'."""
    contrast = nngp_regression.number(self.noise_contrast)
    return f'{self.plain.name}_c{contrast}'

  @property
  def cells(self) -> tuple[dict[str, Any], ...]:
    """A cell per noise level."""
    return self.plain.cells

  @property
  def ranking(self) -> dict[str, Any]:
    """The kernel and the contrast of the noise."""
    return {'kernel': self.plain.kernel, 'noise_contrast': self.noise_contrast}

  @property
  def input_shape(self) -> tuple[int, ...]:
    """(D_x,)."""
    return self.plain.input_shape

  @property
  def num_train(self) -> int:
    """T."""
    return self.plain.num_train

  def prior(self) -> base.PriorKnowledge:
    """As of the kind 'nngp', but for the noise level, which nobody is told."""
    return dataclasses.replace(self.plain.prior(),
                               likelihood=base.Gaussian(None))

  def facts(self) -> dict[str, Any]:
    """T."""
    return self.plain.facts()

  def problem_id(self, cell: Mapping[str, Any], seed: int) -> str:
    """As 'D10_l1_e0.1_c1_s0'."""
    return heteroscedastic_regression.problem_id(
        self.plain.config(cell['noise_std'], seed), self.noise_contrast)

  def narrow(self, cells: Sequence[Mapping[str, Any]]
             ) -> 'HeteroscedasticFamily':
    """The family with some of its noise levels."""
    return dataclasses.replace(self, plain=self.plain.narrow(cells))

  def check(self, settings: kinds.ProblemSettings) -> None:
    """ValueError where the dense solver has too little memory."""
    solvers.choose_solver(self.plain.config(self.plain.noise_stds[0], 0),
                          'dense', nngp.memory_mb(settings))

  def make(self, seed: int, settings: kinds.ProblemSettings
           ) -> Sequence[heteroscedastic_regression.HeteroscedasticProblem]:
    """The problems of a seed, one per noise level; nothing is cached."""
    return heteroscedastic_regression.make_problems(
        self.plain.configs(seed), self.noise_contrast,
        nngp.memory_mb(settings))


def make_families(values: Mapping[str, Any]) -> list[HeteroscedasticFamily]:
  """A family per (input_dim, data_ratio), in the order of the grid."""
  noise_stds = tuple(sorted(map(float, values['noise_std'])))
  return [
      HeteroscedasticFamily(
          nngp.NngpFamily(input_dim, float(data_ratio), noise_stds,
                          kernel=values['kernel']),
          float(values['noise_contrast']))
      for input_dim, data_ratio in itertools.product(
          values['input_dim'], values['data_ratio'])]


def family_of(cells: Sequence[Mapping[str, Any]],
              ranking: Mapping[str, Any]) -> HeteroscedasticFamily:
  """The family of rows that were computed together."""
  plain = nngp.family_of(cells, {'reference': 'bayes',
                                 'kernel': ranking['kernel']})
  return HeteroscedasticFamily(plain, float(ranking['noise_contrast']))


# As `heteroscedastic_regression.problem_id` writes them.
_PROBLEM_ID = re.compile(
    r'(?P<head>D\d+_l[^_]+_e[^_]+)_c(?P<contrast>[^_]+)'
    r'(?P<tail>_s\d+(_[0-9a-f]{10})?)')


def parse_problem_id(problem_id: str, settings: kinds.ProblemSettings,
                     values: Mapping[str, Any]
                     ) -> tuple[HeteroscedasticFamily, int] | None:
  """The family of one problem and its seed, from its id; see `kinds`.

  Raises:
    ValueError: a value in the id is not allowed.
  """
  found = _PROBLEM_ID.fullmatch(problem_id)
  if found is None:
    return None
  try:
    contrast = float(found['contrast'])
  except ValueError:
    return None
  CONFIG_NAMES['NOISE_CONTRAST'].check('noise_contrast', contrast)
  plain = nngp.parse_problem_id(found['head'] + found['tail'], settings, values)
  return plain and (HeteroscedasticFamily(plain[0], contrast), plain[1])
