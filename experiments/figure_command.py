"""What the commands of figures 2, 4 and 5 share: rows in, picture, CSV out."""

from collections.abc import Callable
from typing import Any

from absl import flags

from enn_ensembles.studies.layer_ensembles import drawing
from experiments import row_flags

flags.adopt_module_key_flags(row_flags)

_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', None, 'Where the figure goes; made if missing.',
    required=True)
_REFERENCE = flags.DEFINE_enum(
    'reference', 'bayes', ['bayes', 'enn2021'], 'Reference of the scores.')
_ALLOW_MISSING = flags.DEFINE_bool(
    'allow_missing', False, 'Draw what is there where agent settings have no '
    'rows, and list them.')
_SCORE = flags.DEFINE_string(
    'score', None, "What to draw; the testbed's headline if not given.")


def run(name: str, make_figure: Callable[..., Any]) -> None:
  """Draws a figure, writes it and says what it leaves out.

  Args:
    name: of the files.
    make_figure: (rows, reference, allow_missing, score) -> figure.
  """
  drawn = make_figure(row_flags.read_rows(), _REFERENCE.value,
                      _ALLOW_MISSING.value, _SCORE.value)
  paths = drawing.write(drawn, name, _OUTPUT_DIR.value)
  for line in (*drawn.notes, *paths.values()):
    print(line)
