"""Builds the leaderboard of one or several results folders.

python -m experiments.build_leaderboard --results_dir=DIR --output_dir=OUT \
    [--score=kl_reverse] [--by=input_dim] [--all_versions]

Writes leaderboard.html, a page that needs nothing else, leaderboard.png, and
leaderboard.csv, cells.csv and scores.csv, which hold all its numbers, and
costs.csv: the seconds of every agent setting on every cell, as rows carry them.
--forget=LABEL removes an agent's rows from the folders, after saying what it
removes; no sweep may be at work there.
"""

from collections.abc import Mapping
from typing import Any

from absl import flags

from enn_ensembles import results
from enn_ensembles.machine import files
from enn_ensembles.report import html_page
from enn_ensembles.report import tables as tables_lib
from enn_ensembles.report import text
from enn_ensembles.results import forgetting
from enn_ensembles.scoring import table
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
_ALL_VERSIONS = flags.DEFINE_bool(
    'all_versions', False, 'Show older versions of the files of user-defined '
    'agents too, not only the newest.')
_FORGET = flags.DEFINE_string(
    'forget', None, 'Remove all rows of the agent with this label first.')


def _forget(label: str, options: Mapping[str, Any]) -> None:
  """Removes an agent from all folders.

  Nothing is removed where a folder does not have it or takes no files, or where
  no board can be made of what stays.
  """
  stores = [results.open_store(folder) for folder in _RESULTS_DIR.value]
  found = [forgetting.find(store, label) for store in stores]
  for store in stores:
    store.check_writable()
    for name in ('units', 'manifests'):
      files.check_folder(store.results_dir / name, 'results_dir')
  html_page.read_tables(_RESULTS_DIR.value, without=label, **options)
  for store, part in zip(stores, found):
    print(f'removing {part} from {store.results_dir}', flush=True)
    forgetting.forget(store, part)


def main(_) -> None:
  files.check_folder(_OUTPUT_DIR.value, 'output_dir')
  if _SCORE.value is not None:
    table.check_score(_SCORE.value)
  options = {'score': _SCORE.value, 'by': _BY.value,
             'all_versions': _ALL_VERSIONS.value, 'baseline': _BASELINE.value}
  if _FORGET.value is not None:
    _forget(_FORGET.value, options)
  tables, paths = html_page.build(_RESULTS_DIR.value, _OUTPUT_DIR.value,
                                  **options)
  print(text.format_table(
      tables, 'markdown' if _MARKDOWN.value else 'text'))
  print()
  for path in paths.values():
    print(path)


if __name__ == '__main__':
  cli.run_main(main)
