"""Turns a results folder of the schema before into one of today.

python -m experiments.convert_results --results_dir=OLD --output_dir=NEW
python -m experiments.convert_results --scores_csv=FILE --output_dir=NEW \
    [--agents=hypermodel]

The old folder is read, every checksum verified, and left as it is. Reports read
old folders as they are; only a sweep that is to go on needs a new one. The
second form makes a results folder of the scores.csv that an earlier report has
written, so that its board can be built again.
"""

from collections.abc import Iterator
from collections.abc import Sequence

from absl import flags

from enn_ensembles import checks
from enn_ensembles import results
from enn_ensembles.results import conversion
from experiments import cli

_RESULTS_DIR = flags.DEFINE_string(
    'results_dir', None, 'A folder that an earlier version has written.')
_SCORES_CSV = flags.DEFINE_string(
    'scores_csv', None, 'Or the scores.csv of an earlier report.')
_AGENTS = flags.DEFINE_list(
    'agents', None, 'Only rows of these agents. Default: all.')
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'The new folder; made if missing.', required=True)


def _units_of_folder() -> tuple[Iterator[tuple[str, list[results.Row]]],
                                list[results.Row]]:
  """(run_id, rows) of every unit of the old folder, and its manifest."""
  old = results.open_store(_RESULTS_DIR.value)
  if old.schema_version == results.SCHEMA_VERSION:
    raise ValueError(f'results_dir {_RESULTS_DIR.value!r} already has '
                     f'schema_version {results.SCHEMA_VERSION}.')
  return ((unit.run_id, unit.rows) for unit in old.iter_units()), (
      old.read_entries())


def _units_of_csv() -> Iterator[tuple[str, list[results.Row]]]:
  """(run_id, rows) of every unit whose rows are in the CSV."""
  units: dict[str, list[results.Row]] = {}
  for row in conversion.rows_from_scores_csv(_SCORES_CSV.value):
    units.setdefault(row['run_id'], []).append(row)
  return iter(units.items())


def _of_agents(
    agents: Sequence[str], units: list[tuple[str, list[results.Row]]],
    entries: list[results.Row]
) -> tuple[Iterator[tuple[str, list[results.Row]]], list[results.Row]]:
  """What is of some agents."""
  known = {rows[0]['agent'] for _, rows in units}
  for agent in agents:
    checks.check_choice('--agents', agent, sorted(known))
  chosen = ((run_id, rows) for run_id, rows in units
            if rows[0]['agent'] in agents)
  return chosen, [entry for entry in entries if entry['agent'] in agents]


def main(_) -> None:
  if (_RESULTS_DIR.value is None) == (_SCORES_CSV.value is None):
    raise ValueError('give either --results_dir or --scores_csv.')
  if _SCORES_CSV.value == '':
    raise ValueError('--scores_csv must be a file, got an empty text.')
  entries: list[results.Row] = []
  if _SCORES_CSV.value is None:
    units, entries = _units_of_folder()
  else:
    units = _units_of_csv()
  if _AGENTS.value is not None:
    units, entries = _of_agents(cli.names(_AGENTS), list(units), entries)
  new = results.open_store(_OUTPUT_DIR.value, create=True)
  if entries:
    new.write_manifest(entries)
  num_units = num_rows = 0
  for run_id, rows in units:
    new.write_unit(run_id, rows)
    num_units, num_rows = num_units + 1, num_rows + len(rows)
  print(f'{num_rows} rows of {num_units} units are in {new.results_dir}')


if __name__ == '__main__':
  cli.run_main(main)
