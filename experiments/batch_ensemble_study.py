"""Is BatchEnsemble a single model? Tables, pictures and verdicts from rows.

python -m experiments.run_sweep --config=batch_ensemble_digits --results_dir=DIR
python -m experiments.batch_ensemble_study --results_dir=DIR --output_dir=OUTPUT

Writes verdicts.csv and verdicts.md, scores.csv (also by shifted and other set),
diversity.csv, curves.csv, cost.csv, best.csv, published.csv (the study's own
numbers by the same rule), and of what rows keep of their predictions
reliability.csv, information.csv and similarity.csv, with eight pictures for
each data set. `enn_ensembles/studies/batch_ensemble` says how
verdicts are made.
"""

from absl import flags
import pandas as pd

from enn_ensembles.machine import files
from enn_ensembles.report import columns
from enn_ensembles.report import csv_files
from enn_ensembles.studies.batch_ensemble import counted
from enn_ensembles.studies.batch_ensemble import counted_pictures
from enn_ensembles.studies.batch_ensemble import drawing
from enn_ensembles.studies.batch_ensemble import markdown
from enn_ensembles.studies.batch_ensemble import measures
from enn_ensembles.studies.batch_ensemble import published
from experiments import cli

_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Folders that sweeps have written to.', required=True)
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where tables and pictures go; made if missing.',
    required=True)


def _print_claims(verdicts: pd.DataFrame) -> None:
  """A line per data set and BatchEnsemble: which scores have which verdict."""
  if not len(verdicts):
    return
  own = verdicts[verdicts['is_claimed'] & (verdicts['set'] == '')]
  for (data_set, setting), lines in own.groupby(['data_set', 'setting'],
                                                sort=False):
    found = {}
    for _, line in lines.iterrows():
      found.setdefault(line['verdict'], []).append(line['score'])
    print(f'{data_set}, {setting}, like one network: ' + '; '.join(
        f'{verdict}: {", ".join(scores)}'
        for verdict, scores in found.items()))


def main(_) -> int:
  rows, _ = columns.read_results(_RESULTS_DIR.value)
  data_sets = measures.read_data_sets(rows)
  tables = {
      'verdicts': measures.verdict_table(data_sets),
      'scores': measures.score_table(data_sets),
      'diversity': measures.diversity_table(data_sets),
      'curves': measures.curve_table(data_sets),
      'cost': measures.cost_table(data_sets),
      'best': measures.best_table(data_sets),
      'published': published.table()}
  of_counts = counted.make_tables(data_sets)
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')
  for name, table in {**tables, **of_counts}.items():
    files.write_atomically(folder / f'{name}.csv',
                           csv_files.table_text(table).encode())
  files.write_atomically(folder / 'verdicts.md', markdown.format_page(
      tables['verdicts'], tables['diversity'], tables['best']).encode())
  for name, picture in drawing.draw_all(tables['scores'], tables['verdicts'],
                                        tables['curves'], tables['cost']):
    files.write_atomically(folder / name, picture)
  for name, picture in counted_pictures.draw_all(of_counts):
    files.write_atomically(folder / name, picture)
  for data_set, settings in data_sets.items():
    seeds = {len(setting.rows) for setting in settings}
    print(f'{data_set}: {len(settings)} settings, '
          f'{" or ".join(map(str, sorted(seeds)))} seeds.')
  _print_claims(tables['verdicts'])
  print(folder / 'verdicts.md')
  return 0


if __name__ == '__main__':
  cli.run_main(main)
