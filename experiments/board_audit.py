"""Audits what a board's statistics can tell apart, from second trainings.

python -m experiments.run_sweep --config=testbed_configs/board_audit.py \
    --results_dir=DIR
python -m experiments.board_audit --results_dir=DIR --output_dir=OUTPUT

Writes audit.csv, a line per agent setting, and prints the A/A test, the power
against a second training that is worse by a known share, and how much of the
variance over seeds is the problem's. `enn_ensembles/studies/board_audit` says
how.

Exit codes: 0 the level of the tests holds; 1 it does not; 2 bad input.
"""

import time

from absl import flags
import numpy as np
import pandas as pd

from enn_ensembles.machine import files
from enn_ensembles.report import columns
from enn_ensembles.report import csv_files
from enn_ensembles.scoring import table
from enn_ensembles.studies.board_audit import replicas
from experiments import cli

_RESULTS_DIR = flags.DEFINE_list(
    'results_dir', None, 'Folders that sweeps have written to.', required=True)
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where audit.csv goes; made if missing.', required=True)
_SCORE = flags.DEFINE_string('score', 'kl_estimate', 'Which score is audited.')


def main(_) -> int:
  table.check_score(_SCORE.value)
  rows, _ = columns.read_results(_RESULTS_DIR.value)
  trainings = replicas.collect(rows, _SCORE.value)
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')
  start = time.perf_counter()
  alike = replicas.count(trainings.first, trainings.second)
  boards = replicas.family_errors(trainings)
  shares = replicas.variance_shares(trainings)
  lines = pd.DataFrame({
      'agent_label': trainings.labels,
      'problem_share_of_variance': [shares[label]
                                    for label in trainings.labels],
      'p_value_same': replicas.p_values(trainings.first, trainings.second)})
  seen = None
  if trainings.degraded is not None:
    seen = replicas.p_values(trainings.first, trainings.degraded)
    lines['p_value_degraded'] = seen
  files.write_atomically(folder / 'audit.csv',
                         csv_files.table_text(lines).encode())
  num_agents, num_cells, num_seeds = trainings.first.shape
  print(f'{num_agents} agent settings, {num_cells} cells, {num_seeds} seeds, '
        f'{_SCORE.value}.')
  print(
      f'The same agent twice: {alike.num_rejected} of {alike.num_tests} tests '
      f'per agent and cell reject at 5 % (99 % band of the binomial: '
      f'{alike.low} to {alike.high}); {boards.num_rejected} of '
      f'{boards.num_tests} resampled boards tell an agent from itself (at '
      f'most {boards.high}).')
  if seen is not None:
    per_cell = replicas.count(trainings.first, trainings.degraded)
    print(f'A second training that is worse by {trainings.share:.0%}: seen in '
          f'{np.mean(seen <= replicas.LEVEL):.0%} of the agent settings over '
          f'all cells, and in {per_cell.share:.0%} of single cells.')
  print("Share of the variance over seeds that is the problem's: median "
        f'{np.nanmedian(list(shares.values())):.2f}, from '
        f'{np.nanmin(list(shares.values())):.2f} to '
        f'{np.nanmax(list(shares.values())):.2f}.')
  print(f'{folder / "audit.csv"}; {time.perf_counter() - start:.1f} s')
  return 0 if alike.in_band and boards.num_rejected <= boards.high else 1


if __name__ == '__main__':
  cli.run_main(main)
