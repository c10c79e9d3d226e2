"""A layer ensemble of 5 at P = 20 beside a deep ensemble of 30: cost.

python -m experiments.against_ensemble --output_dir=OUT [--network=mlp,cnn]

Writes against_ensemble.csv: speed, weights, temporary memory, and how far the
layer ensemble's special cases are from the ensembles that they contain;
enn_ensembles/studies/layer_ensembles/against_ensemble.py says how.
"""

from absl import flags
import jax

from enn_ensembles.machine import files
from enn_ensembles.report import csv_files
from enn_ensembles.studies.layer_ensembles import against_ensemble
from experiments import cli

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Folder for against_ensemble.csv; made if missing.',
    required=True)
_NETWORK = flags.DEFINE_list('network', ['mlp', 'cnn'], 'Which networks.')
_REPEATS = flags.DEFINE_integer('repeats', 10, 'Turns of every way.')
_SECONDS = flags.DEFINE_float(
    'seconds', 0.1, 'What each way is run for, at least, in a turn.')


def main(_) -> None:
  jax.config.update('jax_enable_x64', True)
  networks = cli.names(_NETWORK, against_ensemble.NETWORKS)
  options = against_ensemble.AgainstEnsembleOptions(
      repeats=_REPEATS.value, seconds=_SECONDS.value)
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')
  rows = against_ensemble.run(networks, options)
  path = folder / 'against_ensemble.csv'
  files.write_atomically(path, csv_files.dicts_text(rows).encode())
  for row in rows:
    print(f'{row["network"]}: {row["num_kept"]} of {row["num_samples"]} in '
          f'{1e3 * row["seconds_exact"]:.3g} ms (exact) or '
          f'{1e3 * row["seconds_padded"]:.3g} ms (padded), an ensemble of '
          f'{row["num_ensemble"]} in {1e3 * row["seconds_batched"]:.3g} ms '
          f'(batched) or {1e3 * row["seconds_mapped"]:.3g} ms (one after the '
          f'other): {row["speedup"]:.3g} times '
          f'[{row["speedup_low"]:.3g}, {row["speedup_high"]:.3g}]')
  print(path)


if __name__ == '__main__':
  cli.run_main(main)
