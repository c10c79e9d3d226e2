"""Regression on data of an infinitely wide network: the NNGP testbed.

The grid of Osband et al. 2021 (arXiv 2107.08924): input dimension D_x, data
ratio lambda, noise epsilon. A family is one (D_x, lambda) with its noise
levels, which share inputs, function and noise draw.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import re
from typing import Any

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import ground_truth
from enn_ensembles.problems import kinds
from enn_ensembles.problems import nngp_regression
from enn_ensembles.problems import solvers


def _check_kernel(name: str, value: Any) -> None:
  del name  # The message of the kernel says more.
  kernels.KernelConfig.from_name(value)


# A million training points per input are beyond every solver.
_LARGEST_DATA_RATIO = 1e6


def _check_data_ratio(name: str, value: Any) -> None:
  checks.check_positive(name, value, _LARGEST_DATA_RATIO)


CONFIG_NAMES: Mapping[str, kinds.ConfigName] = {
    'INPUT_DIM': kinds.ConfigName(checks.check_count),
    'DATA_RATIO': kinds.ConfigName(_check_data_ratio),
    'NOISE_STD': kinds.ConfigName(nngp_regression.check_noise_std),
    'REFERENCE': kinds.ConfigName(
        lambda name, value: checks.check_choice(name, value,
                                                posterior.REFERENCES),
        is_list=False, default='bayes'),
    'KERNEL': kinds.ConfigName(_check_kernel, is_list=False, default='relu2'),
    'SOLVER': kinds.ConfigName(
        lambda name, value: checks.check_choice(name, value, solvers.SOLVERS),
        is_list=False, default='auto'),
}


@dataclasses.dataclass(frozen=True)
class NngpFamily:
  """One (input_dim, data_ratio) with its noise levels; see `kinds.Family`.

  Attributes:
    input_dim: D_x.
    data_ratio: lambda.
    noise_stds: values of epsilon, ascending.
    reference: noise variance of the exact posterior.
    kernel: prior of the function, by its name.
    solver: how posteriors are computed, one of `solvers.SOLVERS`.
  """
  input_dim: int
  data_ratio: float
  noise_stds: tuple[float, ...]
  reference: str = 'bayes'
  kernel: str = 'relu2'
  solver: str = 'auto'

  kind = 'nngp'
  score_set = 'nngp'

  def config(self, noise_std: float,
             seed: int) -> nngp_regression.ProblemConfig:
    """The config of one of its problems."""
    return nngp_regression.ProblemConfig(
        self.input_dim, self.data_ratio, noise_std, seed, self.reference,
        kernels.KernelConfig.from_name(self.kernel))

  def configs(self, seed: int) -> tuple[nngp_regression.ProblemConfig, ...]:
    """The configs of a seed, one per noise level."""
    return tuple(self.config(noise_std, seed) for noise_std in self.noise_stds)

  @property
  def name(self) -> str:
    """As 'D10_l1_bayes'."""
    ratio = nngp_regression.number(self.data_ratio)
    parts = [f'D{self.input_dim}', f'l{ratio}', *self.ranking.values()]
    if self.kernel == CONFIG_NAMES['KERNEL'].default:
      parts.remove(self.kernel)
    return '_'.join(parts)

  @property
  def cells(self) -> tuple[dict[str, Any], ...]:
    """A cell per noise level."""
    return tuple({'input_dim': self.input_dim, 'data_ratio': self.data_ratio,
                  'noise_std': noise_std} for noise_std in self.noise_stds)

  @property
  def ranking(self) -> dict[str, str]:
    """Reference and kernel; a solver that draws another f than 'auto'."""
    found = {'reference': self.reference, 'kernel': self.kernel}
    if self.solver != 'auto' and self.solver != self._default_solver():
      found['solver'] = self.solver
    return found

  def _default_solver(self) -> str | None:
    try:
      return solvers.choose_solver(self.config(self.noise_stds[0], 0))
    except ValueError:  # 'auto' has none that is small enough.
      return None

  @property
  def input_shape(self) -> tuple[int, ...]:
    """(D_x,)."""
    return (self.input_dim,)

  @property
  def num_train(self) -> int:
    """T."""
    return self.config(self.noise_stds[0], 0).num_train

  def prior(self) -> base.PriorKnowledge:
    """What agents are told, with a noise level of 1."""
    return base.PriorKnowledge(
        self.input_shape, self.num_train, base.Gaussian(1.),
        kernels.KernelConfig.from_name(self.kernel))

  def facts(self) -> dict[str, Any]:
    """T."""
    return {'num_train': self.num_train}

  def problem_id(self, cell: Mapping[str, Any], seed: int) -> str:
    """As 'D10_l1_e0.1_s0_bayes'."""
    return self.config(cell['noise_std'], seed).problem_id

  def narrow(self, cells: Sequence[Mapping[str, Any]]) -> 'NngpFamily':
    """The family with some of its noise levels."""
    return dataclasses.replace(
        self, noise_stds=tuple(cell['noise_std'] for cell in cells))

  def check(self, settings: kinds.ProblemSettings) -> None:
    """ValueError where no solver has the memory, or a value is not allowed."""
    config = self.config(self.noise_stds[0], 0)
    try:
      solvers.choose_solver(config, self.solver, memory_mb(settings))
    except ValueError as error:
      raise ValueError(f'{error} --max_num_train={config.num_train - 1} leaves '
                       'such cells out.') from error

  def make(self, seed: int, settings: kinds.ProblemSettings
           ) -> Sequence[nngp_regression.Problem]:
    """The problems of a seed, one per noise level."""
    return ground_truth.make_problems(
        self.configs(seed), settings.cache_dir, self.solver,
        memory_mb(settings))


def family_of(cells: Sequence[Mapping[str, Any]],
              ranking: Mapping[str, Any]) -> NngpFamily:
  """The family of rows that were computed together."""
  return NngpFamily(
      cells[0]['input_dim'], float(cells[0]['data_ratio']),
      tuple(sorted(float(cell['noise_std']) for cell in cells)),
      ranking['reference'], ranking['kernel'], ranking.get('solver', 'auto'))


def memory_mb(settings: kinds.ProblemSettings) -> float:
  """What a solver may hold: the default where settings do not say it."""
  if settings.solver_memory_mb is None:
    return solvers.SOLVER_MEMORY_MB
  return settings.solver_memory_mb


def make_families(values: Mapping[str, Any]) -> list[NngpFamily]:
  """A family per (input_dim, data_ratio), in the order of the grid."""
  return [
      NngpFamily(input_dim, float(data_ratio),
                 tuple(sorted(map(float, values['noise_std']))),
                 values['reference'], values['kernel'], values['solver'])
      for input_dim, data_ratio in itertools.product(
          values['input_dim'], values['data_ratio'])]


# As `ProblemConfig.problem_id` writes them; the reference may be left out.
_PROBLEM_ID = re.compile(
    r'D(?P<input_dim>\d+)_l(?P<data_ratio>[^_]+)_e(?P<noise_std>[^_]+)'
    r'_s(?P<seed>\d+)(_(?P<reference>' + '|'.join(posterior.REFERENCES)
    + r'))?(?P<suffix>_[0-9a-f]{10})?(?P<matrix_free>_matrix_free)?')

# Hidden layers up to which a kernel is found by the hash in an id.
_MOST_LAYERS = 32


def parse_problem_id(problem_id: str, settings: kinds.ProblemSettings,
                     values: Mapping[str, Any]
                     ) -> tuple[NngpFamily, int] | None:
  """The family of one problem and its seed, from the problem's id.

  Args:
    problem_id: as 'D10_l1_e0.1_s0_bayes'; kernels other than the default are
      known by the hash in it.
    settings: not read.
    values: must be empty: the id says everything.

  Returns:
    A family of one cell and the seed; None where this kind has no such ids.

  Raises:
    ValueError: a value in the id is not allowed, or no kernel that sweeps can
      name has this hash.
  """
  del settings
  found = _PROBLEM_ID.fullmatch(problem_id)
  if found is None:
    return None
  try:
    data_ratio, noise_std = (float(found[name])
                             for name in ('data_ratio', 'noise_std'))
  except ValueError:
    return None
  if values:
    raise ValueError(f'problem {problem_id!r} has no settings but those in its '
                     f'id, got {", ".join(sorted(values))}.')
  seed = int(found['seed'])
  family = NngpFamily(
      int(found['input_dim']), data_ratio, (noise_std,),
      found['reference'] or CONFIG_NAMES['REFERENCE'].default,
      solver='matrix_free' if found['matrix_free'] else 'auto')
  suffix = found['suffix'] or ''
  for kernel in (family.kernel, *_kernel_names()):
    family = dataclasses.replace(family, kernel=kernel)
    # Which checks the values.
    if family.config(noise_std, seed).settings_suffix == suffix:
      return family, seed
  raise ValueError(f'problem {problem_id!r} has a kernel, or numbers of '
                   'points, that sweeps cannot name.')


def _kernel_names() -> list[str]:
  """As sweeps name them."""
  return [f'{activation}{layers}' for layers in range(1, _MOST_LAYERS + 1)
          for activation in kernels.ACTIVATIONS]
