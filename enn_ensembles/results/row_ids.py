"""Names of agent settings and of rows: hashes of what makes a computation."""

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import itertools
from typing import Any

from enn_ensembles.machine import canonical


def make_agent_id(agent: str, agent_config: Mapping[str, Any]) -> str:
  """The name of an agent setting: the same whatever the defaults are today."""
  return f'{agent}-{canonical.config_hash(agent_config)}'


class RowIds:
  """Names of the rows of one agent setting on problems of one ranking.

  A name is a hash of the agent, its settings, the problem, the evaluation that
  is asked for and the precision: equal in whatever unit or sweep a row is
  computed. 64 bits: a clash would pass for finished work. What all rows share
  is written and hashed once.

  Args:
    setting: agent, agent_config, enumerate_indices and dtype, as in rows; other
      fields do not matter.
    kind: of the problems.
    ranking: of the problems.
    num_enn_samples: the draws that were asked for; a row of enumerated members
      does not hold them.
  """

  def __init__(self, setting: Mapping[str, Any], kind: str,
               ranking: Mapping[str, Any], num_enn_samples: int):
    # Together with what `_row_id` adds, the canonical text of one dict: fields
    # are sorted, and `problem` and `selection` come last.
    shared = canonical.canonical_json({
        'num_enn_samples': num_enn_samples, **{
            name: setting[name] for name in (
                'agent', 'agent_config', 'enumerate_indices', 'dtype')}})
    self._head = hashlib.sha256(f'{shared[:-1]},"problem":'.encode())
    self._problem = (f'"kind":{canonical.canonical_json(kind)},'
                     f'"ranking":{canonical.canonical_json(ranking)}')

  def row_ids(self, cells: Sequence[Mapping[str, Any]], seeds: Sequence[int],
              selections: Sequence[str]) -> list[str]:
    """Names of the rows of a grid, by seed, cell and selection."""
    cell_texts, seed_texts, selection_texts = (
        list(map(canonical.canonical_json, values))
        for values in (cells, seeds, selections))
    return [self._row_id(*texts) for texts in itertools.product(
        seed_texts, cell_texts, selection_texts)]

  def _row_id(self, seed: str, cell: str, selection: str) -> str:
    found = self._head.copy()
    found.update(f'{{"cell":{cell},{self._problem},"seed":{seed}}},'
                 f'"selection":{selection}}}'.encode())
    return found.hexdigest()[:16]


def make_row_id(row: Mapping[str, Any], num_enn_samples: int) -> str:
  """The name of one computation; see `RowIds`.

  Args:
    row: a row, or as many of its fields as are read here.
    num_enn_samples: the draws that were asked for; a row of enumerated members
      does not hold them.
  """
  problem = row['problem']
  row_ids = RowIds(row, problem['kind'], problem['ranking'], num_enn_samples)
  found, = row_ids.row_ids([problem['cell']], [problem['seed']],
                           [row['selection']])
  return found
