"""How alike the members of ensembles are: is BatchEnsemble one network?

python -m experiments.member_similarity --output_dir=OUT \
    [--input_dim=10,100 --data_ratio=1,10 --noise_std=0.01,0.1,1 --seed=0,1,2]

Trains BatchEnsembles of 4 with several fast weights, and a deep ensemble of 4,
without prior and target noise on the testbed's problems and compares their
members in pairs at x_test, by `diversity`: disagreement of signs,
Jensen-Shannon divergence of N(f_k(x), noise_std^2), correlation of predictions,
cosine of the members' effective weights (without biases and prior; W o (r s^T)
for a BatchEnsemble); and their std over the exact posterior's, and their KL,
beside that of one network. `one_network_share` is where the logarithm of the KL
stands on the way from the deep ensemble (0) to the one network (1).

Writes similarity.csv: a row per agent setting and cell, means over pairs and
seeds with Student's t 95 % intervals over seeds, and per agent setting a row
without a cell, the mean over all of them.
"""

import time

from absl import flags
import jax

from enn_ensembles import sweeps
from enn_ensembles.machine import files
from enn_ensembles.problems import draws
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.report import csv_files
from enn_ensembles.studies.layer_ensembles import similarity
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from experiments import cli

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where similarity.csv goes; made if missing.',
    required=True)
_INPUT_DIM = flags.DEFINE_list('input_dim', ['10', '100'], 'Values of D_x.')
_DATA_RATIO = flags.DEFINE_list('data_ratio', ['1', '10'], 'Values of lambda.')
_NOISE_STD = flags.DEFINE_list('noise_std', ['0.01', '0.1', '1'],
                               'Values of epsilon.')
_SEED = flags.DEFINE_list('seed', ['0', '1', '2'], 'Seeds of the problems.')
_REFERENCE = flags.DEFINE_enum(
    'reference', 'bayes', ['bayes', 'enn2021'], 'Reference of the posterior.')
_AGENTS = flags.DEFINE_list(
    'agents', None, 'Only these agents. Default: every one of AGENTS.')
_NUM_BATCHES = flags.DEFINE_integer(
    'num_batches', None, 'SGD steps, for a trial. Default: those of the '
    'agents.', lower_bound=1)


def _make_units() -> list[sweeps.WorkUnit]:
  entries = similarity.AGENTS
  if _AGENTS.value is not None:
    named = cli.names(_AGENTS, sorted({entry['agent'] for entry in entries}))
    entries = tuple(entry for entry in entries if entry['agent'] in named)
  if _NUM_BATCHES.value is not None:
    entries = tuple({**entry, 'num_batches': _NUM_BATCHES.value}
                    for entry in entries)
  units = sweeps.expand(sweeps.SweepConfig(
      name='of member_similarity', agents=entries,
      seed=tuple(cli.numbers(_SEED, int, draws.check_seed)),
      problem={**{flag.name: tuple(cli.numbers(
          flag, kind, nngp.CONFIG_NAMES[flag.name.upper()].check))
                  for flag, kind in ((_INPUT_DIM, int), (_DATA_RATIO, float),
                                     (_NOISE_STD, float))},
               'reference': _REFERENCE.value}))
  one_unit.check_units(units, unit_results.RunOptions(results_dir=''))
  return list(units)


def main(_) -> None:
  jax.config.update('jax_enable_x64', True)
  units = _make_units()
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')
  start, found = time.perf_counter(), []
  for i, unit in enumerate(units):
    found += similarity.measure_unit(unit)
    print(f'[{time.perf_counter() - start:6.1f} s] {i + 1}/{len(units)} '
          f'{unit.agent_label}, {unit.family.name}', flush=True)
  table = similarity.summarize(found)
  path = folder / 'similarity.csv'
  files.write_atomically(path, csv_files.table_text(table).encode())
  print(similarity.plain_text(table))
  print(path)


if __name__ == '__main__':
  cli.run_main(main)
