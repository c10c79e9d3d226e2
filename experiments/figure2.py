"""Figure 2 of the Layer Ensembles paper: KL by options, members and samples.

python -m experiments.run_sweep --config=testbed_configs/figure2.py \
    --results_dir=DIR --max_num_train=1000
python -m experiments.figure2 --results_dir=DIR[,DIR] [--seed=0,1] \
    --output_dir=OUT

Writes figure2.png and figure2.csv; prints what is missing or left out.
"""

from absl import flags

from enn_ensembles.studies.layer_ensembles import figure2
from experiments import cli
from experiments import figure_command

flags.adopt_module_key_flags(figure_command)


def main(_) -> None:
  figure_command.run('figure2', figure2.make_figure)


if __name__ == '__main__':
  cli.run_main(main)
