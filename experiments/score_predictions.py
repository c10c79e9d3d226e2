"""Scores predictions that were made anywhere, by any method, from files.

python -m experiments.make_problems --config=CONFIG --export_dir=PROBLEMS
  ... train on PROBLEMS, write PREDICTIONS/<problem_id>.npz ...
python -m experiments.score_predictions --predictions=PREDICTIONS \
    --label=my_method --results_dir=DIR

`enn_ensembles/problems/brought_predictions.py` says what the files hold. The
rows stand on the board beside those of agents, marked as brought. All files are
checked before anything is written.
"""

import datetime
import hashlib
import pathlib
import re

from absl import flags
import jax

from enn_ensembles import problems
from enn_ensembles import results
from enn_ensembles.machine import devices
from enn_ensembles.problems import brought_predictions
from enn_ensembles.problems import problem_ids
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


def _row(path: pathlib.Path, problem: problems.Problem) -> results.Row:
  """The row of one file."""
  scores, num_samples = unit_results.score_brought(
      problem, brought_predictions.read_predictions(path, problem))
  config = problem.config
  assert config is not None  # What is published has one.
  family = nngp.NngpFamily(config.input_dim, float(config.data_ratio),
                           (config.noise_std,), config.reference)
  agent_config = {
      'label': _LABEL.value,
      'predictions': hashlib.sha256(path.read_bytes()).hexdigest()[:16]}
  row = {
      'schema_version': results.SCHEMA_VERSION, 'agent': 'brought',
      'agent_id': results.make_agent_id('brought', {'label': _LABEL.value}),
      'agent_label': _LABEL.value, 'agent_config': {'label': _LABEL.value},
      'problem_id': problem.problem_id,
      'problem': {'kind': family.kind, 'seed': config.seed,
                  'cell': family.cells[0], 'ranking': family.ranking,
                  'facts': family.facts()},
      'score_set': problem.score_set, 'num_enn_samples': None,
      'enumerate_indices': True, 'num_samples_used': num_samples,
      'selection': 'none', 'dtype': 'float64', 'status': 'ok', 'message': '',
      'scores': scores, 'curve': None, 'by_set': None,
      'num_params': _NUM_PARAMS.value,
      'train_seconds': None, 'evaluate_seconds': None, 'rank_seconds': None,
      'problem_seconds': None, 'compile_seconds': None,
      'versions': one_unit.versions(), 'device': 'brought',
      'numerics': {**devices.numerics(), 'file': agent_config['predictions']},
      'created': datetime.datetime.now(datetime.UTC).isoformat(
          timespec='seconds')}
  row['row_id'] = results.make_row_id(row, 0)
  row['run_id'] = f'brought-{row["row_id"]}'
  return row


def main(_) -> int:
  jax.config.update('jax_enable_x64', True)
  folder = pathlib.Path(_PREDICTIONS.value)
  if not folder.is_dir():
    raise ValueError(
        f'predictions must be a folder, got {str(folder)!r}, which '
        'is none.')
  if not _LABEL_PATTERN.fullmatch(_LABEL.value):
    raise ValueError('label must be 1 to 80 letters, digits or ._ ,=+- and '
                     f'begin with a letter, got {_LABEL.value!r}.')
  paths = sorted(folder.glob('*.npz'))
  if not paths:
    raise ValueError(f'predictions {str(folder)!r} holds no .npz file.')
  configs = []
  for path in paths:
    try:
      configs.append(problem_ids.parse_problem_id(path.stem))
    except ValueError as error:
      raise ValueError(f'{path} must be named by its problem: '
                       f'{error}') from error
  settings = problem_flags.problem_settings()
  found = problems.make_problems(configs, settings.cache_dir)
  rows = [_row(path, problem) for path, problem in zip(paths, found)]
  store = results.open_store(_RESULTS_DIR.value, create=True)
  for row in rows:
    store.write_unit(row['run_id'], [row])
  print(f'{len(rows)} rows of {_LABEL.value!r} in {_RESULTS_DIR.value}; '
        'experiments.build_leaderboard puts them on the board.')
  return 0


if __name__ == '__main__':
  cli.run_main(main)
