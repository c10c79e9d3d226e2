"""Agents' ranks by each score side by side, and what scores tell beyond KL.

python -m experiments.compare_scores --results_dir=DIR[,DIR...] \
    --output_dir=OUT [--calibration]

Writes ranks_by_score.csv and score_relations.csv, and prints both as tables for
a page. `enn_ensembles/report/score_comparison.py` says what the numbers are.
With --calibration also calibration.csv, the histograms of the probability
integral transform of f, calibration_tests.csv and calibration.png, as
`enn_ensembles/report/calibration.py` says.
"""

from absl import flags
import pandas as pd

from enn_ensembles.machine import files
from enn_ensembles.report import calibration
from enn_ensembles.report import calibration_picture
from enn_ensembles.report import columns
from enn_ensembles.report import csv_files
from enn_ensembles.report import score_comparison
from enn_ensembles.report import text
from enn_ensembles.report import text_tables
from enn_ensembles.report import versions
from enn_ensembles.scoring import table
from experiments import cli

_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Folders that sweeps have written to.', required=True)
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where the tables go; made if missing.', required=True)
_SCORES = flags.DEFINE_list(
    'scores', ['kl_estimate', 'kl_reverse', 'joint_kl_dyadic_tau10',
               'joint_kl_tau2', 'joint_kl_tau10', 'wasserstein',
               'crps_excess_expected', 'log_score_excess_expected',
               'crps_excess', 'log_score_excess'],
    'Which scores; all others are compared with the first.')

_CALIBRATION = flags.DEFINE_bool(
    'calibration', False, 'Also the histograms of the probability integral '
    'transform of f of every agent setting, and whether they are uniform.')


def format_ranks(found: pd.DataFrame, scores: list[str]) -> str:
  """A row per agent setting, its rank by each score."""
  header = ['agent', *(table.SCORES[score].label for score in scores)]
  return text_tables.markdown(header, [
      [line['label'], *('-' if line[f'{score}_rank'] is None else
                        line[f'{score}_rank'] for score in scores)]
      for line in found.to_dict('records')], range(1, len(header)))


def format_relations(found: pd.DataFrame) -> str:
  """A row per score."""
  names = {'num_agents': 'agents', 'num_pairs_told_apart_by_both':
           'pairs told apart by both', 'num_pairs_in_opposite_order':
           'of them in opposite order', 'share_of_variance_not_explained':
           'variance not explained'}
  header = ['score', *names.values()]
  return text_tables.markdown(header, [
      [table.SCORES[line['score']].label, *(
          text.short_number(line.get(name)) if 'share' in name
          else line.get(name, '-') for name in names)]
      for line in found.to_dict('records')], range(1, len(header)))


def format_calibration(tests: pd.DataFrame) -> str:
  """A row per agent setting, over all cells; '-' for those without counts."""
  names = {'num_seeds': 'seeds', 'slope': 'slope', 'slope_standard_error':
           '± s.e.', 'curvature': 'curvature', 'curvature_standard_error':
           '± s.e.', 'curvature_of_exact_draws': 'of as many exact draws',
           'p_holm': 'p (Holm)', 'num_rows_without': 'rows without counts'}
  header = ['agent', *names.values()]
  return text_tables.markdown(header, [
      [line['label'], *(line[name] if name.startswith('num_') else
                        text.short_number(line.get(name)) for name in names)]
      for line in tests.to_dict('records')
      if line['cells'] == calibration.ALL_CELLS], range(1, len(header)))


def main(_) -> None:
  files.check_folder(_OUTPUT_DIR.value, 'output_dir')
  for score in cli.names(_SCORES):
    if table.check_score(score).direction == 'none':
      raise ValueError(f'scores must be lower or higher the better they are; '
                       f'{score!r} is neither.')
  rows, expected, _ = versions.keep_newest(
      *columns.read_columns(_RESULTS_DIR.value))
  calibrated = None if not _CALIBRATION.value else calibration.measure(
      rows, expected, calibration.read_counts(_RESULTS_DIR.value))
  found = score_comparison.compare_scores(rows, expected, _SCORES.value)
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')
  tables = {'ranks_by_score': found.ranks, 'score_relations': found.relations}
  if calibrated is not None:
    tables |= {'calibration': calibrated.histograms,
               'calibration_tests': calibrated.tests}
    files.write_atomically(folder / 'calibration.png',
                           calibration_picture.draw(calibrated))
  for name, part in tables.items():
    files.write_atomically(folder / f'{name}.csv',
                           csv_files.table_text(part).encode())
  # A closed pipe ends what is printed, and must cost no file.
  print(format_ranks(found.ranks, _SCORES.value))
  print(format_relations(found.relations))
  if calibrated is not None:
    print(format_calibration(calibrated.tests))
    print(folder / 'calibration.png')
  print(*(folder / f'{name}.csv' for name in tables))


if __name__ == '__main__':
  cli.run_main(main)
