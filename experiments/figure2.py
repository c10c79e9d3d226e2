"""Figure 2 of the Layer Ensembles paper: KL by options, members and samples.

python -m experiments.run_sweep --config=testbed_configs/figure2.py \
    --results_dir=DIR --max_num_train=1000
python -m experiments.figure2 --results_dir=DIR[,DIR] --output_dir=OUT

Writes figure2.png and figure2.csv; prints what is missing or left out.
"""

from absl import flags

from enn_ensembles import figures
from enn_ensembles import leaderboard
from experiments import cli

_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Folders that sweeps have written to.', required=True)
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where the figure goes; made if missing.',
    required=True)
_REFERENCE = flags.DEFINE_enum(
    'reference', 'bayes', ['bayes', 'enn2021'], 'Reference of the scores.')
_ALLOW_MISSING = flags.DEFINE_bool(
    'allow_missing', False, 'Draw what is there where agent settings have no '
    'rows, and list them.')


def main(_) -> None:
  rows, _ = leaderboard.read_results(_RESULTS_DIR.value)
  drawn = figures.make_figure2(rows, _REFERENCE.value, _ALLOW_MISSING.value)
  paths = figures.write(drawn, 'figure2', _OUTPUT_DIR.value)
  for line in (*drawn.notes, *paths.values()):
    print(line)


if __name__ == '__main__':
  cli.run_main(main)
