"""Training of image classifiers here and in PyTorch, side by side.

scripts/pytorch_speed.sh [--repeats=5] [--output_dir=DIR]

Nothing else may run meanwhile. Prints a table and writes pytorch_speed.csv; the
package's `studies/speed/rivals.py` says what is measured.
"""

from collections.abc import Mapping
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from absl import flags

from enn_ensembles import checks
from enn_ensembles.machine import files
from enn_ensembles.report import csv_files
from enn_ensembles.report import text
from enn_ensembles.studies.speed import rivals
from experiments import cli

_TORCH_PYTHON = flags.DEFINE_string(
    'torch_python', None, 'An interpreter that has torch, and '
    'torch-uncertainty where that is to be measured.', required=True)
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Measurements of each.')
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', '.', 'Where pytorch_speed.csv goes; made if missing.')


_IMPORT_SECONDS = 300.


def _check_interpreter(python: str) -> None:
  """ValueError unless it imports torch."""
  try:
    done = subprocess.run([python, '-c', 'import torch; print(torch.ones(1))'],
                          capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=_IMPORT_SECONDS)
    answer, said = done.stdout, done.stderr.strip().splitlines()[-1:]
  except (OSError, subprocess.TimeoutExpired) as error:
    answer, said = '', [str(error)]
  if 'tensor' not in answer:
    raise ValueError('--torch_python must be a Python interpreter that has '
                     f'torch, got {python!r}: {"".join(said) or "no answer"}.')


def main(_) -> None:
  checks.check_count('--repeats', _REPEATS.value)
  if shutil.which(_TORCH_PYTHON.value) is None:
    raise ValueError('--torch_python must be a Python interpreter, got '
                     f'{_TORCH_PYTHON.value!r}.')
  if shutil.which('taskset') is None:
    raise ValueError('the comparison needs the command taskset (util-linux).')
  _check_interpreter(_TORCH_PYTHON.value)
  folder = files.make_folder(_OUTPUT_DIR.value, '--output_dir')
  program = pathlib.Path(__file__).parents[1] / 'scripts' / 'pytorch_cases.py'
  lines = []
  with tempfile.TemporaryDirectory() as cache:
    for found in rivals.compare(
        [sys.executable, '-m', 'enn_ensembles.studies.speed.own_cases'],
        [_TORCH_PYTHON.value, str(program)], _REPEATS.value, cache):
      # What is measured is kept, whatever becomes of the next case.
      lines += found
      files.write_atomically(folder / 'pytorch_speed.csv',
                             csv_files.dicts_text(lines).encode())
      for line in found:
        _print(line)


def _print(line: Mapping[str, Any]) -> None:
  goal = '' if line['goal'] is None else f'  (goal {line["goal"]:g})'
  print(f'{line["case"]:26s} {line["runner"]:17s} '
        f'{text.short_number(line["seconds"]):>7s} s  '
        f'{line["member_images_per_second"]:10,.0f} member-images/s  '
        f'{line["ratio_to_ours"]:6.2f} x ours  '
        f'{line["ratio_to_our_sweep"]:6.2f} x our sweep{goal}', flush=True)


if __name__ == '__main__':
  cli.run_main(main)
