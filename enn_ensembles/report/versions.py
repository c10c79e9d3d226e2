"""Versions of user-defined agents: which file's rows a board shows.

A user-defined agent has the name of its file, and the hash of its text is part
of its setting: a changed file is another agent. A board shows the newest.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles.report import columns as columns_lib

# As sweeps name it among the settings of a user-defined agent.
SOURCE_FILE = 'source-file'


class Newest(NamedTuple):
  """What is left, and what is not.

  Attributes:
    columns: the rows.
    entries: the manifest entries.
    num_left_out: agent -> rows of its older versions.
  """
  columns: columns_lib.Columns
  entries: list[Mapping[str, Any]]
  num_left_out: dict[str, int]


def keep_newest(columns: columns_lib.Columns,
                entries: Iterable[Mapping[str, Any]]) -> Newest:
  """Rows and entries, but those of older versions of user-defined agents.

  The columns that were given are used up. An entry of a version that has no
  rows yet stays where its agent has none.
  """
  def each(name, what=lambda value: value):
    values = [what(value) for value in columns.values(name)]
    return [values[code] for code in columns.codes(name)]

  agents = each('agent')
  versions = each('agent_config', lambda config: config.get(SOURCE_FILE))
  kept = _kept(agents, versions, each('created'))
  newest = {agent: version
            for agent, version, stays in zip(agents, versions, kept) if stays}
  entries = [entry for entry in entries
             if _version(entry) is None
             or newest.get(entry['agent'], _version(entry)) == _version(entry)]
  left_out: dict[str, int] = {}
  for agent, stays in zip(agents, kept):
    if not stays:
      left_out[agent] = left_out.get(agent, 0) + 1
  if not left_out:
    return Newest(columns, entries, left_out)
  for group in (columns.repeated, columns.costs, columns.scores):
    for column in group.values():
      column.keep(kept)
  row_ids = [row_id for row_id, stays in zip(columns.row_ids, kept) if stays]
  return Newest(columns_lib.Columns(columns.repeated, columns.costs,
                                    columns.scores, row_ids),
                entries, left_out)


def _version(row: Mapping[str, Any]) -> str | None:
  """The hash of a user-defined agent's file; None for other agents."""
  return row['agent_config'].get(SOURCE_FILE)


def _kept(agents: Sequence[str], versions: Sequence[str | None],
          created: Sequence[str]) -> np.ndarray:
  """Which rows are of the version that the last row of their agent has."""
  last: dict[str, tuple[str, str]] = {}
  for agent, version, when in zip(agents, versions, created):
    if version is not None:
      last[agent] = max(last.get(agent, ('', '')), (when, version))
  return np.array([version is None or last[agent][1] == version
                   for agent, version in zip(agents, versions)], bool)
