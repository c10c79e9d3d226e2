"""Builds the leaderboard of one or several results folders.

python -m experiments.build_leaderboard --results_dir=DIR --output_dir=OUT \
    [--score=kl_reverse] [--by=input_dim]

Writes leaderboard.html, a page that needs nothing else, leaderboard.png, and
leaderboard.csv, cells.csv and scores.csv, which hold all its numbers.
"""

from absl import flags

from enn_ensembles.report import html_page
from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text
from experiments import cli

_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Folders that sweeps have written to.', required=True)
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where the report goes; made if missing.',
    required=True)
_MARKDOWN = flags.DEFINE_bool(
    'markdown', False, 'Print the table as markdown, for a README.')
_SCORE = flags.DEFINE_string(
    'score', None, 'What to rank by; the headline of the problems if not '
    'given.')
_BY = flags.DEFINE_string(
    'by', None, 'The field of cells whose every value has a column and a panel '
    'of its own, e.g. noise_std; the last that has few values if not given.')
_BASELINE = flags.DEFINE_string(
    'baseline', tables_lib.BASELINE, 'The agent whose score counts as 1.')


def main(_) -> None:
  tables, paths = html_page.build(
      _RESULTS_DIR.value, _OUTPUT_DIR.value, score=_SCORE.value, by=_BY.value,
      baseline=_BASELINE.value)
  print(text.format_table(
      tables, 'markdown' if _MARKDOWN.value else 'text'))
  print()
  for path in paths.values():
    print(path)


if __name__ == '__main__':
  cli.run_main(main)
