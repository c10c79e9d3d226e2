"""Removes the rows of one agent from a results folder."""

from typing import NamedTuple

from enn_ensembles.machine import files
from enn_ensembles.results import store as store_lib
from enn_ensembles.results import summaries
from enn_ensembles.results import unit_files


class Found(NamedTuple):
  """What a folder holds of an agent.

  Attributes:
    label: the agent's label.
    units: the units that hold its rows, and no others.
    num_rows: how many rows those are.
    num_entries: manifest entries that expect rows of it.
  """
  label: str
  units: tuple[unit_files.Unit, ...]
  num_rows: int
  num_entries: int

  def __str__(self) -> str:
    kinds = sorted({row['problem_id'] for unit in self.units
                    for row in unit.rows})
    shown = ', '.join(kinds[:3]) + (', ...' if len(kinds) > 3 else '')
    return (f'{self.num_rows} rows of {self.label} in {len(self.units)} files '
            f'(problems {shown or "none"}), and {self.num_entries} manifest '
            'entries')


def find(store: store_lib.ResultsStore, label: str) -> Found:
  """What there is of an agent setting, by the label that rows give it.

  Raises:
    ValueError: nothing is called so.
  """
  units, known = [], set()
  for unit in store.iter_units():
    labels = {row['agent_label'] for row in unit.rows}
    known |= labels
    if labels == {label}:
      units.append(unit)
  entries = store.read_entries()
  known |= {entry['agent_label'] for entry in entries}
  if label not in known:
    raise ValueError(
        f'{store.results_dir} holds no agent {label!r}; it has '
        f'{", ".join(sorted(known)) or "none"}.')
  return Found(label, tuple(units), sum(len(unit.rows) for unit in units),
               sum(entry['agent_label'] == label for entry in entries))


def forget(store: store_lib.ResultsStore, found: Found) -> None:
  """Removes it; no process may be at work in the folder.

  Raises:
    FileError: a file cannot be removed, or the folder is of an old schema.
  """
  store.check_writable()
  for unit in found.units:
    unit.path.unlink(missing_ok=True)
    summaries.path_of(unit.path).unlink(missing_ok=True)
  rest = [entry for entry in store.read_entries()
          if entry['agent_label'] != found.label]
  # One manifest in the place of all: entries are read together anyway.
  kept = store.write_manifest(rest) if rest else None
  for path in files.list_files(store.results_dir / 'manifests', '.json'):
    if path != kept:
      path.unlink()
