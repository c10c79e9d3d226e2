"""Where rows come from: computed, computed again and verified, or brought.

Rows of the package's own sweeps say nothing by themselves. What
`verify_results` has computed again is counted beside an agent setting, with how
many of those rows were within the promised tolerance; so are rows of
predictions that somebody brought as files, which cannot be computed again.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from enn_ensembles import agents as agents_lib
from enn_ensembles.report import columns as columns_lib
from enn_ensembles.report import tables as tables_lib

_SAME = ('agent_id', 'selection', 'enumerate_indices')


def add_provenance(tables: tables_lib.Tables,
                   verified: Mapping[str, bool]) -> tables_lib.Tables:
  """The tables with num_brought, num_recomputed and num_verified on the board.

  Args:
    tables: of a report.
    verified: row_id -> whether it passed, of rows that were computed again.
  """
  counts = _count(tables.rows, verified)
  board = tables.leaderboard.copy()
  keys = list(zip(*(board[name] for name in _SAME)))
  for i, name in enumerate(('num_brought', 'num_recomputed', 'num_verified')):
    board[name] = np.array([counts.get(key, (0, 0, 0))[i] for key in keys],
                           dtype=object)
  return tables._replace(leaderboard=board)


def _count(rows: columns_lib.Columns, verified: Mapping[str, bool]
           ) -> dict[tuple[Any, ...], tuple[int, int, int]]:
  """agent setting -> rows brought, computed again, and verified."""
  agents = rows.values('agent')
  values = [rows.values(name) for name in _SAME]
  codes = zip(rows.row_ids, rows.codes('agent').tolist(),
              *(rows.codes(name).tolist() for name in _SAME))
  found: dict[tuple[Any, ...], tuple[int, int, int]] = {}
  for row_id, agent, *key_codes in codes:
    brought = agents[agent] == agents_lib.BROUGHT
    if not brought and row_id not in verified:
      continue
    key = tuple(value[code] for value, code in zip(values, key_codes))
    old = found.get(key, (0, 0, 0))
    found[key] = (old[0] + brought, old[1] + (row_id in verified),
                  old[2] + verified.get(row_id, False))
  return found


def words(line: Mapping[str, Any]) -> str:
  """Where an agent setting's rows come from; '' where nothing is known.

  Args:
    line: of a leaderboard, perhaps without these columns.
  """
  found = []
  if line.get('num_brought'):
    found.append('brought predictions')
  if line.get('num_recomputed'):
    found.append(f'{line["num_recomputed"]} rows recomputed, '
                 f'{line["num_verified"]} verified')
  return '; '.join(found)
