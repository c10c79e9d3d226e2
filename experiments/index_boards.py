"""Writes index.html, which links every published board and study.

python -m experiments.index_boards [--boards_dir=leaderboards]
"""

from absl import flags

from enn_ensembles.report import board_index
from experiments import cli

_BOARDS_DIR = flags.DEFINE_string(
    'boards_dir', 'leaderboards', 'The folder whose folders hold results.')


def main(_) -> None:
  print(board_index.write(_BOARDS_DIR.value))


if __name__ == '__main__':
  cli.run_main(main)
