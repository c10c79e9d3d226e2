"""Scores agents on the published code's own problems, beside its own scores.

The problems are .npz files, the scores a CSV, both as
`enn_ensembles.studies.published_code` says. Our agents are trained on those
data and scored in the protocol of 2021.
"""

import pathlib

from absl import flags
import jax

from enn_ensembles.studies import published_code
from experiments import cli

_PROBLEMS_DIR = flags.DEFINE_string(
    'problems_dir', None, 'Folder of the .npz files.', required=True)
_PUBLISHED_CSV = flags.DEFINE_string(
    'published_csv', None, 'CSV of the published scores.', required=True)
_AGENTS = flags.DEFINE_list(
    'agents', [], 'Names in the CSV to compare. Default: all that are known '
    'here.')
_SEEDS = flags.DEFINE_integer(
    'num_agent_seeds', 3, 'Trainings per problem; their KLs are averaged '
    'geometrically.', lower_bound=1)


def main(_) -> None:
  jax.config.update('jax_enable_x64', True)
  table = published_code.read_published(
      pathlib.Path(_PUBLISHED_CSV.value)).merge(
          published_code.read_problems(pathlib.Path(_PROBLEMS_DIR.value)),
          on=published_code.CELL)
  names = published_code.choose_agents(table, _AGENTS.value)
  for path in set(table['path']):
    published_code.read_problem(path)  # Before anything is trained.
  for name in names:
    print(published_code.compare(table, name, _SEEDS.value), flush=True)


if __name__ == '__main__':
  cli.run_main(main)
