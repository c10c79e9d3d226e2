"""Figure 3: speed and memory of optimised layer ensembles on a 4-layer CNN.

python -m experiments.figure3 --output_dir=figures [--num_options=2,3,4,5]
    [--batch_size=32] [--repeats=5] [--dtype=float32]

Writes figure3.csv and figure3.png; the package's
`studies/layer_ensembles/ole_benchmark.py` says what the network is, what is
measured and how. The default takes about three minutes on one core.
"""

from typing import Any

from absl import flags
import jax

from enn_ensembles.machine import files
from enn_ensembles.report import csv_files
from enn_ensembles.studies.layer_ensembles import ole_benchmark
from enn_ensembles.studies.layer_ensembles import ole_picture
from experiments import cli

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Folder for figure3.csv and figure3.png.',
    required=True)
_NUM_OPTIONS = flags.DEFINE_list(
    'num_options', ['2', '3', '4', '5'], 'Options per layer, K.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 32, 'Images per call.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Measurements of each.')
_DTYPE = flags.DEFINE_string('dtype', 'float32', 'float32 or float64.')
_CHANNELS = flags.DEFINE_list('channels', ['32', '64'],
                              'Channels of the two convolutions.')
_HIDDEN = flags.DEFINE_integer('hidden', 128,
                               'Units of the first dense layer.')
_SECONDS = flags.DEFINE_float(
    'seconds', 0.2, 'What each way is run for, at least, per measurement.')


def format_line(row: dict[str, Any]) -> str:
  """What is printed of a row."""
  def speed(name: str) -> str:
    middle, low, high = (row[f'speedup_{name}{end}']
                         for end in ('', '_low', '_high'))
    return f'{middle:.1f} ({low:.1f} to {high:.1f})'

  def memory(name: str) -> str:
    return f'{row[f"memory_{name}_bytes"] / 2**20:.1f}'

  return (
      f'K = {row["num_options"]}, {row["num_samples"]} samples: one by one '
      f'{1e3 * row["seconds_one_by_one"]:.1f} ms, OLE '
      f'{1e3 * row["seconds_ole"]:.1f} ms, {speed("ole")} times faster '
      f'({row["speedup_by_flops"]:.1f} by arithmetic); a random half '
      f'{speed("half")}; exact moments {speed("moments")}; memory in MiB: all '
      f'at once {memory("one_program")}, OLE {memory("ole")}, moments '
      f'{memory("moments")}')


def main(_) -> int:
  jax.config.update('jax_enable_x64', True)
  # All that can be wrong is found before any work starts.
  options = ole_benchmark.OleBenchmarkOptions(
      batch_size=_BATCH_SIZE.value, repeats=_REPEATS.value, dtype=_DTYPE.value,
      channels=tuple(cli.numbers(_CHANNELS, int, are_different=False)),
      hidden=_HIDDEN.value,
      seconds=_SECONDS.value)
  measured = ole_benchmark.run(cli.numbers(_NUM_OPTIONS, int), options)
  folder = files.make_folder(_OUTPUT_DIR.value, 'output_dir')

  rows = []
  for row in measured:
    rows.append(row)
    # Every time, in one piece: a run that is stopped leaves what it has.
    files.write_atomically(folder / 'figure3.csv',
                           csv_files.dicts_text(rows).encode())
    print(format_line(row), flush=True)
  files.write_atomically(folder / 'figure3.png',
                         ole_picture.make_picture(rows))
  last = rows[-1]
  print(f'{last["device"]}, {last["num_cores"]} core(s), load average '
        f'{rows[0]["load_before"]:.2f} before and {last["load_after"]:.2f} '
        f'after; jax {last["jax"]}. {folder / "figure3.csv"}, '
        f'{folder / "figure3.png"}')
  return 0


if __name__ == '__main__':
  cli.run_main(main)
