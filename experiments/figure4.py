"""Figure 4 of the Layer Ensembles paper: KL by number of samples P.

python -m experiments.run_sweep --config=testbed_configs/figure4.py \
    --results_dir=DIR --max_num_train=1000
python -m experiments.figure4 --results_dir=DIR[,DIR] [--seed=0,1] \
    --output_dir=OUT

Writes figure4.png and figure4.csv; prints what is missing or left out.
"""

from absl import flags

from enn_ensembles.studies.layer_ensembles import figure4
from experiments import cli
from experiments import figure_command

flags.adopt_module_key_flags(figure_command)


def main(_) -> None:
  figure_command.run('figure4', figure4.make_figure)


if __name__ == '__main__':
  cli.run_main(main)
