"""Builds the leaderboard of one or several results folders.

python -m experiments.build_leaderboard --results_dir=DIR --output_dir=OUT
"""

from absl import flags

from enn_ensembles.report import html_page
from enn_ensembles.report import leaderboard
from experiments import cli

_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Folders that sweeps have written to.', required=True)
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where the report goes; made if missing.',
    required=True)
_MARKDOWN = flags.DEFINE_bool(
    'markdown', False, 'Print the table as markdown, for a README.')


def main(_) -> None:
  tables, paths = html_page.build(_RESULTS_DIR.value, _OUTPUT_DIR.value)
  print(leaderboard.format_table(
      tables, 'markdown' if _MARKDOWN.value else 'text'))
  print()
  for path in paths.values():
    print(path)


if __name__ == '__main__':
  cli.run_main(main)
