"""Figure 5 of the Layer Ensembles paper: all agents, mean KL and its spread.

python -m experiments.run_sweep --config=testbed_configs/figure5.py \
    --results_dir=DIR --max_num_train=1000
python -m experiments.figure5 --results_dir=DIR[,DIR] [--seed=0,1] \
    --output_dir=OUT

Writes figure5.png and figure5.csv; prints what is missing or left out.
"""

from absl import flags

from enn_ensembles.studies.layer_ensembles import figure5
from experiments import cli
from experiments import figure_command

flags.adopt_module_key_flags(figure_command)


def main(_) -> None:
  figure_command.run('figure5', figure5.make_figure)


if __name__ == '__main__':
  cli.run_main(main)
