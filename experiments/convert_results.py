"""Turns a results folder of the schema before into one of today.

python -m experiments.convert_results --results_dir=OLD --output_dir=NEW

The old folder is read, every checksum verified, and left as it is. Reports read
old folders as they are; only a sweep that is to go on needs a new one.
"""

from absl import flags

from enn_ensembles import results
from experiments import cli

_RESULTS_DIR = flags.DEFINE_string(
    'results_dir', None, 'A folder that an earlier version has written.',
    required=True)
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'The new folder; made if missing.', required=True)


def main(_) -> None:
  old = results.open_store(_RESULTS_DIR.value)
  if old.schema_version == results.SCHEMA_VERSION:
    raise ValueError(f'results_dir {_RESULTS_DIR.value!r} already has '
                     f'schema_version {results.SCHEMA_VERSION}.')
  new = results.open_store(_OUTPUT_DIR.value, create=True)
  if entries := old.read_entries():
    new.write_manifest(entries)
  num_units = num_rows = 0
  for unit in old.iter_units():
    new.write_unit(unit.run_id, unit.rows)
    num_units, num_rows = num_units + 1, num_rows + len(unit.rows)
  print(f'{num_rows} rows of {num_units} units are in {new.results_dir}')


if __name__ == '__main__':
  cli.run_main(main)
