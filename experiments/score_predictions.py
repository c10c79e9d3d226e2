"""Scores predictions that were made anywhere, by any method, from files.

python -m experiments.make_problems --config=CONFIG --export_dir=PROBLEMS
  ... train on PROBLEMS, write PREDICTIONS/<problem_id>.npz ...
python -m experiments.score_predictions --predictions=PREDICTIONS \
    --label=my_method --results_dir=DIR

`enn_ensembles/problems/brought_predictions.py` says what the files hold. The
rows stand on the board beside those of agents, marked as brought. All files are
checked before anything is written.
"""

from collections.abc import Sequence
import datetime
import hashlib
import os
import pathlib
import re

from absl import flags
import jax

from enn_ensembles import agents as agents_lib
from enn_ensembles import checks
from enn_ensembles import problems
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.machine import devices
from enn_ensembles.machine import files
from enn_ensembles.problems import brought_predictions
from enn_ensembles.problems import kinds
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from experiments import cli
from experiments import problem_flags

_PREDICTIONS = flags.DEFINE_string(
    'predictions', None, 'Folder with a file <problem_id>.npz per problem.',
    required=True)
_LABEL = flags.DEFINE_string(
    'label', None, 'What the board calls the method.', required=True)
_RESULTS_DIR = flags.DEFINE_string(
    'results_dir', None, 'Where rows go; made if missing.', required=True)
_NUM_PARAMS = flags.DEFINE_integer(
    'num_params', None, 'Trained parameters, for the board.')

_LABEL_PATTERN = re.compile(r'[A-Za-z][A-Za-z0-9._ ,=+-]{0,79}')


def _row_fields(family: nngp.NngpFamily, seed: int) -> results.Row:
  """What the row of one problem is of, its name included."""
  unit = sweeps.WorkUnit(
      agents_lib.BROUGHT, _LABEL.value, {'label': _LABEL.value}, family,
      (seed,), num_enn_samples=0, dtype='float64')
  return unit.row_fields(family.cells[0], seed, 'none')


def _row(path: pathlib.Path, fields: results.Row,
         problem: problems.Problem) -> results.Row:
  """The row of one file."""
  result = unit_results.score_brought(
      problem, brought_predictions.read_predictions(path, problem))
  digest = hashlib.sha256(files.read_bytes(path)).hexdigest()[:16]
  return {
      **fields, 'schema_version': results.SCHEMA_VERSION,
      'run_id': f'brought-{fields["row_id"]}',
      'problem_id': problem.problem_id, 'num_enn_samples': None,
      'num_samples_used': result.num_samples, 'status': 'ok', 'message': '',
      'scores': result.scores, 'curve': None, 'by_set': None,
      'counts': result.counts, 'cost': None,
      'num_params': _NUM_PARAMS.value,
      'train_seconds': None, 'evaluate_seconds': None, 'rank_seconds': None,
      'problem_seconds': None, 'compile_seconds': None,
      'versions': one_unit.versions(), 'device': 'brought',
      'numerics': {**devices.numerics(), 'file': digest},
      'created': datetime.datetime.now(datetime.UTC).isoformat(
          timespec='seconds')}


def _find_problem(path: pathlib.Path) -> tuple[nngp.NngpFamily, int]:
  """The family of one cell and the seed that a file is named by."""
  try:
    family, seed = kinds.find_problem(path.stem)
  except ValueError as error:
    raise ValueError(f'{path} must be named by its problem: '
                     f'{error}') from error
  if not isinstance(family, nngp.NngpFamily):
    raise ValueError(f'{path} must be named by an NNGP problem, got one of '
                     f'kind {family.kind!r}.')
  return family, seed


def _check_different(paths: Sequence[pathlib.Path],
                     row_ids: Sequence[str]) -> None:
  """ValueError if two files are of one problem, whose id has several forms."""
  first: dict[str, pathlib.Path] = {}
  for path, row_id in zip(paths, row_ids):
    other = first.setdefault(row_id, path)
    if other != path:
      raise ValueError(f'{other} and {path} are of one problem: there must be '
                       'one file per problem.')


def main(_) -> int:
  jax.config.update('jax_enable_x64', True)
  folder = pathlib.Path(_PREDICTIONS.value)
  if not _PREDICTIONS.value or not os.path.isdir(folder):
    raise ValueError('predictions must be a folder, got '
                     f'{_PREDICTIONS.value!r}, which is none.')
  if not _LABEL_PATTERN.fullmatch(_LABEL.value):
    raise ValueError('label must be 1 to 80 letters, digits or ._ ,=+- and '
                     f'begin with a letter, got {_LABEL.value!r}.')
  if _NUM_PARAMS.value is not None:
    checks.check_count('--num_params', _NUM_PARAMS.value, minimum=0)
  problem_flags.refuse_agent_modules(
      'predictions come from files, whatever made them')
  problem_flags.use_data_dir()
  settings = problem_flags.problem_settings()
  results.find_store(_RESULTS_DIR.value)
  paths = files.list_files(folder, '.npz')
  if not paths:
    raise ValueError(f'predictions {str(folder)!r} holds no .npz file.')
  named = [_find_problem(path) for path in paths]
  fields = [_row_fields(family, seed) for family, seed in named]
  _check_different(paths, [row['row_id'] for row in fields])
  rows = [_row(path, row, family.make(seed, settings)[0])
          for path, row, (family, seed) in zip(paths, fields, named)]
  store = results.open_store(_RESULTS_DIR.value, create=True)
  for row in rows:
    store.write_unit(row['run_id'], [row])
  print(f'{len(rows)} rows of {_LABEL.value!r} in {_RESULTS_DIR.value}; '
        'experiments.build_leaderboard puts them on the board.')
  return 0


if __name__ == '__main__':
  cli.run_main(main)
