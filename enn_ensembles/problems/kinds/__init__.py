"""Kinds of problems that sweeps know: one file each, found by its name.

A kind says which names a sweep config may define for it, and turns their values
into families. A family is what one agent setting trains on together, per seed:
problems of equal shapes that differ in their cell only (noise levels). A file
defines

  CONFIG_NAMES: Mapping[str, ConfigName]
  make_families(values) -> list of families

where `values` has a value for each of CONFIG_NAMES, in lower case, and a family
is a frozen dataclass as `Family` describes it. It may also define

  family_of(cells, ranking) -> the family of rows with these cells

so that rows say all that is needed to compute them again, and

  parse_problem_id(problem_id, settings, values)
      -> (family of that one cell, seed) or None

so that a problem is found by its id (`find_problem`).
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import importlib
import pkgutil
from typing import Any
from typing import NamedTuple
from typing import Protocol

from enn_ensembles import base

DEFAULT_KIND = 'nngp'


class ConfigName(NamedTuple):
  """A name that configs of a kind may define.

  Attributes:
    check: (name, value) -> None; ValueError for what is not allowed. Of a list
      it checks every value.
    is_list: whether it holds a list that is swept.
    default: its value where a config does not define it; for a list, a tuple.
      None: it must be defined.
  """
  check: Callable[[str, Any], None]
  is_list: bool = True
  default: Any = None


class ProblemSettings(NamedTuple):
  """What making problems takes besides their names; it changes no result.

  Attributes:
    cache_dir: folder of the ground-truth cache; None for none.
    solver_memory_mb: memory that a solver may take.
    data_dir: folder with files of real data; None for none.
  """
  cache_dir: str | None = None
  solver_memory_mb: float | None = None
  data_dir: str | None = None


class Family(Protocol):
  """Problems that differ in their cell only; each seed is a draw of all.

  Attributes:
    kind: name of the kind.
    score_set: which scores its problems give.
    name: readable and safe for files; families of other name are others.
    cells: what names each problem of a seed, in the order that `make` gives.
    ranking: what keeps its rows apart from others.
    input_shape: shape of one input.
    num_train: T.
  """
  kind: str
  score_set: str
  name: str
  cells: Sequence[Mapping[str, Any]]
  ranking: Mapping[str, Any]
  input_shape: tuple[int, ...]
  num_train: int

  def prior(self) -> base.PriorKnowledge:
    """What is known of its problems before they are made.

    A noise level that agents are told stands as 1: the cells have others, on
    which neither shapes nor operations depend.
    """

  def check(self, settings: ProblemSettings) -> None:
    """ValueError where its problems cannot be made, before any work."""

  def make(self, seed: int, settings: ProblemSettings
           ) -> Sequence[base.Problem]:
    """The problems of a seed, one per cell; they share `data.x`."""

  def facts(self) -> Mapping[str, Any]:
    """What follows from the rest and is worth a column."""

  def problem_id(self, cell: Mapping[str, Any], seed: int) -> str:
    """Name of a problem that may not be made yet."""

  def narrow(self, cells: Sequence[Mapping[str, Any]]) -> 'Family':
    """The family with some of its cells."""


def kind_names() -> list[str]:
  """The names of all kinds, sorted."""
  return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_kind(name: str) -> Any:
  """The module of a kind.

  Raises:
    ValueError: there is none.
  """
  if name not in kind_names():
    raise ValueError(f'PROBLEMS must be one of {", ".join(kind_names())}; got '
                     f'{name!r}.')
  return importlib.import_module(f'{__name__}.{name}')


def find_problem(problem_id: str,
                 settings: ProblemSettings | None = None,
                 values: Mapping[str, Any] | None = None
                 ) -> tuple[Family, int]:
  """The family of one cell, and the seed, of the problem with an id.

  Args:
    problem_id: the id.
    settings: where its data are; None where the environment says.
    values: settings of the problem that its id only has a hash of, by name.

  Raises:
    ValueError: no kind has such ids, or a value in it is not allowed.
  """
  for name in kind_names() if isinstance(problem_id, str) else ():
    parse = getattr(load_kind(name), 'parse_problem_id', None)
    found = None if parse is None else parse(
        problem_id, settings or ProblemSettings(), values or {})
    if found is not None:
      return found
  raise ValueError(
      "problem_id must be as 'D10_l1_e0.1_s0' (input_dim 10, data_ratio 1, "
      "noise_std 0.1, seed 0), with its reference, 'D10_l1_e0.1_s0_bayes', or "
      f"of a data set, 'digits_s0', got {problem_id!r}.")
