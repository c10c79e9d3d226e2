"""Puts the Layer Ensembles paper's claims to the test, on rows.

python -m experiments.verify_claims --results_dir=DIR[,DIR...] [--seed=0,1] \
    [--figure3_csv=FILE] [--similarity_csv=FILE] \
    [--against_ensemble_csv=FILE] --output_dir=OUT

The rows are those of sweeps of testbed_configs/claims.py and paper.py, or of
figure2.py, figure4.py and figure5.py. Writes claims.csv, every line with its
numbers, claims.md, a table with reasons, and claims_brief.md, the table of the
README. The folder enn_ensembles/studies/layer_ensembles states the rule of
every verdict.
"""

import collections

from absl import flags

from enn_ensembles.machine import files
from enn_ensembles.report import csv_files
from enn_ensembles.studies.layer_ensembles import claims
from enn_ensembles.studies.layer_ensembles import claims_text
from enn_ensembles.studies.layer_ensembles import verdicts
from experiments import cli
from experiments import row_flags

flags.adopt_module_key_flags(row_flags)

_FIGURE3_CSV = flags.DEFINE_string(
    'figure3_csv', None, 'figure3.csv, for claim 4.')
_SIMILARITY_CSV = flags.DEFINE_string(
    'similarity_csv', None, 'similarity.csv, for claim 6.')
_AGAINST_ENSEMBLE_CSV = flags.DEFINE_string(
    'against_ensemble_csv', None, 'against_ensemble.csv, for claim 7.')
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where the tables go; made if missing.', required=True)


def main(_) -> None:
  tables = [None if flag.value is None else
            csv_files.read_table(flag.value, flag.name) for flag in (
                _FIGURE3_CSV, _SIMILARITY_CSV, _AGAINST_ENSEMBLE_CSV)]
  lines = claims.evaluate(row_flags.read_rows(), *tables)
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')
  text = claims_text.format_markdown(lines)
  files.write_atomically(
      folder / 'claims.csv',
      csv_files.table_text(claims_text.make_table(lines)).encode())
  files.write_atomically(folder / 'claims.md', text.encode())
  brief = claims_text.format_markdown(lines, brief=True)
  files.write_atomically(folder / 'claims_brief.md', brief.encode())
  print(text)
  counts = collections.Counter(line.verdict for line in lines)
  print(', '.join(f'{counts[verdict]} {verdict}'
                  for verdict in verdicts.VERDICTS))
  print(folder / 'claims.csv')
  print(folder / 'claims.md')


if __name__ == '__main__':
  cli.run_main(main)
