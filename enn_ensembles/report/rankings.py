"""Rankings: which rows are compared with which.

A ranking holds rows of one kind of problem, one value of everything that its
problems say must not be mixed (`problem['ranking']`), one selection and one
evaluation protocol. Rows of enumerated members and of exact moments do not
depend on the number of draws and stand in every ranking that enumerates finite
index sets.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import itertools
import json
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles import results
from enn_ensembles.report import columns as columns_lib

# What the label of a ranking leaves out, because it is the usual.
_USUAL = {'kernel': results.DEFAULT_KERNEL}
_FIELDS = ('kind', 'score_set', 'ranking', 'selection', 'enumerate_indices')


class Key(NamedTuple):
  """What rows of any number of draws must have in common to be compared.

  Attributes:
    kind: kind of the problems.
    score_set: which scores they give.
    same: what their problems must have in common, as sorted (name, value).
    selection: how members were selected.
    enumerate_indices: whether finite index sets are enumerated.
  """
  kind: str
  score_set: str
  same: tuple[tuple[str, Any], ...]
  selection: str
  enumerate_indices: bool


class Ranking(NamedTuple):
  """What rows must have in common to be compared.

  Attributes:
    key: what does not depend on the number of draws.
    num_enn_samples: draws of agents that are sampled; None if there are none.
  """
  key: Key
  num_enn_samples: int | None

  @property
  def label(self) -> str:
    """One readable line, different for different rankings."""
    key, draws = self.key, f'{self.num_enn_samples} draws'
    if key.enumerate_indices:
      draws = 'all members' + (
          '' if self.num_enn_samples is None else f', or {draws}')
    kind = [] if key.kind == 'nngp' else [f'problems {key.kind}']
    same = [f'{name} {value}' for name, value in key.same
            if _USUAL.get(name) != value]
    return '; '.join([*kind, *_reference_first(same),
                      f'selection {key.selection}', f'scored on {draws}'])


def _reference_first(texts: list[str]) -> list[str]:
  return sorted(texts, key=lambda text: not text.startswith('reference'))


def key_of(problem: Mapping[str, Any], fields: Mapping[str, Any]) -> Key:
  """The key of a row, of an expected row or of a manifest entry.

  Args:
    problem: its `problem`.
    fields: the row or entry itself.
  """
  return Key(problem['kind'], fields['score_set'],
             tuple(sorted(problem['ranking'].items())), fields['selection'],
             fields['enumerate_indices'])


def keys_of(columns: columns_lib.Columns) -> columns_lib.Repeated:
  """The keys of rows, as a column."""
  codes = [columns.codes(name) for name in _FIELDS]
  values = [columns.values(name) for name in _FIELDS]
  column, known = columns_lib.Repeated(), {}
  for row in zip(*(code.tolist() for code in codes)):
    if row not in known:
      kind, score_set, ranking, selection, enumerate_indices = (
          value[code] for value, code in zip(values, row))
      known[row] = Key(kind, score_set, tuple(sorted(ranking.items())),
                       selection, enumerate_indices)
    column.append(known[row])
  return column


def make_rankings(found: Iterable[tuple[Key, int | None]]) -> list[Ranking]:
  """The rankings of (expected) rows, in a fixed order.

  Those without selection and with enumerated members come first: they are the
  headline.

  Args:
    found: key and number of draws of each; repetitions do not matter.
  """
  draws: dict[Key, set[int]] = {}
  for key, num in found:
    draws.setdefault(key, set())
    if num is not None:
      draws[key].add(num)

  def order(key: Key) -> tuple[Any, ...]:
    unusual = [(name in _USUAL and _USUAL[name] != value)
               for name, value in key.same]
    return (key.kind != 'nngp', key.kind, key.score_set, any(unusual),
            json.dumps(key.same), key.selection != 'none', key.selection,
            not key.enumerate_indices)

  return list(itertools.chain.from_iterable(
      [Ranking(key, num) for num in sorted(draws[key]) or [None]]
      for key in sorted(draws, key=order)))


def first_with(columns: columns_lib.Columns, wanted: np.ndarray
               ) -> tuple[Ranking, np.ndarray] | None:
  """The first ranking that has some of the wanted rows, and all of its rows.

  Args:
    columns: of all rows.
    wanted: bool [R].

  Returns:
    The ranking and which rows are in it, bool [R]; None where no row is wanted.
  """
  keys = keys_of(columns)
  draws = np.array(columns.values('num_enn_samples'), object)[
      columns.codes('num_enn_samples')]
  found = {(keys.values[k], d) for k, d in zip(keys.codes.tolist(), draws)}
  for ranking in make_rankings(found):
    same = np.array([key == ranking.key for key in keys.values])[keys.codes]
    inside = same & np.array([d in (None, ranking.num_enn_samples)
                              for d in draws], bool)
    if (inside & wanted).any():
      return ranking, inside
  return None
