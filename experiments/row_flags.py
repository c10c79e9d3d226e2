"""The flags of commands that read rows: of which folders and which seeds."""

import functools

from absl import flags

from enn_ensembles import checks
from enn_ensembles import results
from enn_ensembles.report import columns
from experiments import cli

_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Folders that sweeps have written to; of both '
    'references if you like.', required=True)
_SEED = flags.DEFINE_list(
    'seed', None, 'Only problems of these seeds: where cells have different '
    'numbers of seeds, what is compared on all cells is about the seeds that '
    'all of them have, or about fewer cells.')


def read_rows() -> list[results.Row]:
  """The rows that the flags name.

  Raises:
    ValueError: as `columns.read_results`, or no row has such a seed.
  """
  seeds = cli.numbers_if_given(
      _SEED, int, functools.partial(checks.check_count, minimum=0))
  rows, _ = columns.read_results(_RESULTS_DIR.value)
  if seeds is None:
    return rows
  chosen = [row for row in rows if row['problem']['seed'] in seeds]
  if not chosen:
    raise ValueError(f'--seed={",".join(map(str, seeds))}: no row of '
                     f'{",".join(_RESULTS_DIR.value)} has such a seed.')
  return chosen
