"""The command `enn-ensembles`: one door to the main commands.

  enn-ensembles quickstart
  enn-ensembles run --config=paper --results_dir=DIR
  enn-ensembles status --config=paper --results_dir=DIR
  enn-ensembles board --results_dir=DIR --output_dir=OUT

The commands are the modules of the folder `experiments`. In a clone it stands
beside the package, installed from a wheel inside it, so that nothing but
`enn_ensembles` comes to lie in site-packages.
"""

import ast
from collections.abc import Sequence
import importlib
import importlib.util
import os
import pathlib
import sys

import enn_ensembles

# Command -> module of `experiments`.
COMMANDS = {
    'quickstart': 'quickstart',
    'run': 'run_sweep',
    'status': 'status',
    'board': 'build_leaderboard',
    'make_problems': 'make_problems',
    'score_predictions': 'score_predictions',
    'convert_results': 'convert_results',
    'verify_claims': 'verify_claims',
    'benchmark': 'benchmark',
    'figure2': 'figure2',
    'figure3': 'figure3',
    'figure4': 'figure4',
    'figure5': 'figure5',
}

_PACKAGE = pathlib.Path(__file__).resolve().parent


def _experiments_folder() -> pathlib.Path:
  """Where the commands are: in the package, or beside it in a clone."""
  for parent in (_PACKAGE, _PACKAGE.parent):
    folder = parent / 'experiments'
    if (folder / 'run_sweep.py').is_file():
      return folder
  raise FileNotFoundError(
      f'the commands of enn_ensembles are neither in {_PACKAGE} nor beside it: '
      'install it again.')


def available() -> dict[str, pathlib.Path]:
  """Commands of this version, each with its file."""
  folder = _experiments_folder()
  files = {name: folder / f'{module}.py' for name, module in COMMANDS.items()}
  return {name: path for name, path in files.items() if path.is_file()}


def usage() -> str:
  """What the command says when it is asked nothing else."""
  lines = [f'enn-ensembles {enn_ensembles.__version__}', '',
           'usage: enn-ensembles COMMAND [--flag=value ...]', '']
  for name, path in available().items():
    doc = ast.get_docstring(ast.parse(path.read_text())) or ''
    lines.append(f'  {name:18s} {doc.splitlines()[0]}')
  return '\n'.join([*lines, '', 'enn-ensembles COMMAND --help lists the flags '
                    'of a command.'])


def _import_experiments() -> None:
  """Makes `experiments` importable by that name, from where it really is.

  Somebody's own folder of that name must not be taken for it.
  """
  folder = _experiments_folder()
  spec = importlib.util.spec_from_file_location(
      'experiments', folder / '__init__.py',
      submodule_search_locations=[str(folder)])
  assert spec is not None and spec.loader is not None  # It is a file.
  module = importlib.util.module_from_spec(spec)
  sys.modules['experiments'] = module
  spec.loader.exec_module(module)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; exits as it does.

  Args:
    argv: the command and its flags; None for those of this process.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  if not argv or argv[0] in ('help', '--help', '-h'):
    print(usage())
    return 0
  if argv[0] == '--version':
    print(enn_ensembles.__version__)
    return 0
  name, *rest = argv
  if name not in available():
    print(f'error: command must be one of {", ".join(available())}; got '
          f'{name!r}.', file=sys.stderr)
    return 2
  _import_experiments()
  importlib.import_module('experiments.early_signals').install()
  importlib.import_module('experiments.early_variables').check(os.environ)
  module_name = f'experiments.{COMMANDS[name]}'
  # absl lists the flags of the module that has the name of the program, with
  # the docstring of the main module above.
  sys.argv = [module_name, *rest]
  module = importlib.import_module(module_name)
  sys.modules['__main__'].__doc__ = module.__doc__
  importlib.import_module('experiments.cli').run_main(module.main)
  return 0
