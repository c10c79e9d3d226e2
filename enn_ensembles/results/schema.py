"""What a row is: the one definition, for rows that are written and rows read.

A row is about a problem and its scores. `problem` says what was solved, in
words that its kind chose:

  {'kind': 'nngp', 'seed': 0,
   'cell': {'input_dim': 10, 'data_ratio': 1.0, 'noise_std': 0.1},
   'ranking': {'reference': 'bayes', 'kernel': 'relu2'},
   'facts': {'num_train': 10}}

Seeds of one cell are repetitions, cells are averaged over, and what differs in
`ranking` is never compared; `facts` follow from the rest. `scores` holds scores
by name, as `scoring.table` lists them for the row's score set. So nothing that
reads rows knows a kind of problem or a score.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import json
import math
import numbers
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles.machine import files
from enn_ensembles.results import costs
from enn_ensembles.results import counts
from enn_ensembles.scoring import table

PROJECT = 'enn_ensembles'
SCHEMA_VERSION = 4

Row = dict[str, Any]
Cell = tuple[Any, ...]  # Values of a cell, see `cell_of`.
ProblemKey = tuple[Cell, int]  # A cell and a seed.


class Field(NamedTuple):
  """One field of a row.

  Attributes:
    kind: 'int', 'float', 'str', 'bool' or 'dict'.
    meaning: what it says, with its unit.
    nullable: whether None is allowed.
    choices: the allowed values; empty where all of the kind are.
    optional: whether rows of older programs lack it, which is read as None.
  """
  kind: str
  meaning: str
  nullable: bool = False
  choices: tuple[str, ...] = ()
  optional: bool = False


ROW_SCHEMA: Mapping[str, Field] = {
    'schema_version': Field('int', 'SCHEMA_VERSION of the writer'),
    'run_id': Field('str', 'the work unit, and the name of its file'),
    'row_id': Field('str', 'hash of agent, problem, evaluation and training '
                    'settings: equal ids are the same computation'),
    'agent': Field('str', 'name of the agent'),
    'agent_id': Field('str', 'the agent setting: its name and a hash of '
                      'agent_config, whatever the defaults are'),
    'agent_label': Field('str', 'readable name of the agent setting: what its '
                         'config wrote out'),
    'agent_config': Field('dict', 'every field of the agent config, but later '
                          'fields that have their default'),
    'problem_id': Field('str', 'readable name of the problem'),
    'problem': Field('dict', 'kind, seed, cell, ranking and facts'),
    'score_set': Field('str', 'which scores the problem gives',
                       choices=tuple(table.SCORE_SETS)),
    'num_enn_samples': Field('int', 'draws of the agent that were asked for; '
                             'None = all members were enumerated',
                             nullable=True),
    'enumerate_indices': Field('bool', 'whether finite index sets are '
                               'enumerated instead of sampled'),
    'num_samples_used': Field('int', 'functions that the scores come from; '
                              'None = analytic moments', nullable=True),
    'selection': Field('str', 'how members were selected; scores are of the '
                       'number of members with the best val_score'),
    'dtype': Field('str', 'precision of training, e.g. float32'),
    'status': Field('str', 'ok: every score is finite; diverged: scored, but '
                    'training or a score is not finite; failed: no scores',
                    choices=('ok', 'diverged', 'failed')),
    'message': Field('str', 'why the status is not ok; empty if it is'),
    'scores': Field('dict', 'score -> value; None where status is failed',
                    nullable=True),
    'curve': Field('dict', 'scores of the first 1, 2, ... members of an order: '
                   'order, scores by name, and for a ranked order val_score. '
                   'The order is random where selection is none. None where '
                   'members are not enumerated or not finite', nullable=True),
    'by_set': Field('dict', 'scores of each shifted test set and of each other '
                    'set by its name: those whose means are in `scores`. None '
                    'where a problem has no such sets or a score is not finite',
                    nullable=True, optional=True),
    'counts': Field('dict', 'counts of predictions of each set by its name, '
                    'see `scoring.prediction_counts`: what pictures are made '
                    'of. None where a problem gives none or a score is not '
                    'finite', nullable=True, optional=True),
    'cost': Field('dict', 'what it costs beside parameters and seconds, see '
                  '`results.costs`. Without what is not known; None where '
                  'nothing is', nullable=True, optional=True),
    'num_params': Field('int', 'trained parameters', nullable=True),
    'train_seconds': Field('float', 'training, s per problem', nullable=True),
    'evaluate_seconds': Field('float', 'evaluation, s per problem',
                              nullable=True),
    'rank_seconds': Field('float', 'ranking, s per problem', nullable=True),
    'problem_seconds': Field('float', 'making or reading the problem, s per '
                             'problem', nullable=True),
    'compile_seconds': Field('float', 'compilation, s, shared by the unit',
                             nullable=True),
    'versions': Field('dict', 'versions of the packages used'),
    'device': Field('str', 'the device it ran on'),
    'numerics': Field('dict', 'what else decides the last digits: instruction '
                      'set, XLA flags, threads, problems trained together'),
    'created': Field('str', 'when, UTC, ISO 8601'),
}

# What may differ when the same row is computed again.
TIMING_FIELDS = ('train_seconds', 'evaluate_seconds', 'rank_seconds',
                 'problem_seconds', 'compile_seconds', 'cost', 'versions',
                 'device', 'numerics', 'created')
# How rows were evaluated; what differs there has a ranking of its own.
PROTOCOL_FIELDS = ('selection', 'enumerate_indices', 'num_enn_samples')
# The prior of the NNGP testbed: two hidden ReLU layers.
DEFAULT_KERNEL = 'relu2'

# Values of exactly these types need no second look; rows are many. Dicts do.
_PLAIN_TYPES = {'int': int, 'float': float, 'str': str, 'bool': bool,
                'dict': None}

PROBLEM_FIELDS = ('kind', 'seed', 'cell', 'ranking', 'facts')

# JSON has no such numbers. Float fields and scores, and nothing else, may hold
# these strings, so that reading is unambiguous.
_NON_FINITE = {'NaN': math.nan, 'Infinity': math.inf, '-Infinity': -math.inf}


def check_row(row: Mapping[str, Any], name: str = 'row',
              is_json: bool = False) -> Row:
  """Checks a row against the schema and gives it back in plain Python types.

  Args:
    row: field -> value. Numpy scalars are taken as the numbers they are.
    name: what to call the row in an error.
    is_json: the row was parsed from JSON: its dicts are taken as they are.

  Returns:
    A new dict, fields in the order of the schema, safe to store: what is
    read back is equal to it (NaN apart, which is not equal to itself).

  Raises:
    FileError: a field is missing, unknown, of another type or not one of
      its choices, or the scores contradict the status.
  """
  row = {**{key: None for key, field in ROW_SCHEMA.items()
            if field.optional}, **row}
  unknown = sorted(set(row) - set(ROW_SCHEMA))
  missing = [field for field in ROW_SCHEMA if field not in row]
  if unknown or missing:
    raise files.FileError(
        f'{name}: missing fields {missing}, unknown fields {unknown}; a row '
        f'has exactly the {len(ROW_SCHEMA)} fields of ROW_SCHEMA.')
  if row['schema_version'] != SCHEMA_VERSION:
    raise files.FileError(
        f'{name}: schema_version must be {SCHEMA_VERSION}, got '
        f'{row["schema_version"]!r}.')
  checked = {}
  for key, field in ROW_SCHEMA.items():
    value = row[key]
    if key != 'scores':
      as_it_is = (is_json and field.kind == 'dict' and isinstance(value, dict)
                  ) or (type(value) is _PLAIN_TYPES[field.kind]
                        and not field.choices)
      checked[key] = value if as_it_is else check_value(
          value, field, f'{name}: {key}')
  checked['problem'] = check_problem(checked['problem'], f'{name}: problem')
  checked['scores'] = _check_scores(row['scores'], checked['score_set'],
                                    checked['status'], f'{name}: scores')
  if checked['curve'] is not None:
    _check_curve(checked['curve'], checked['score_set'],
                 checked['selection'], f'{name}: curve')
  if checked['cost'] is not None:
    costs.check_cost(checked['cost'], f'{name}: cost')
  if checked['counts'] is not None:
    counts.check_counts(checked['counts'], f'{name}: counts')
  if checked['by_set'] is not None:
    _check_by_set(checked['by_set'], checked['score_set'], f'{name}: by_set')
  return {key: checked[key] for key in ROW_SCHEMA}


def _check_by_set(by_set: Mapping[str, Any], score_set: str,
                  name: str) -> None:
  """FileError unless every set has finite scores of the score set."""
  known = table.scores_of(score_set)
  for set_name, scores in by_set.items():
    if not isinstance(scores, Mapping) or not scores or set(scores) - set(
        known) or not all(isinstance(value, float) and math.isfinite(value)
                          for value in scores.values()):
      raise files.FileError(f'{name}: {set_name!r} must have finite scores of '
                            f'{score_set} by name, got {scores!r}.')


def check_problem(problem: Mapping[str, Any], name: str) -> dict[str, Any]:
  """The problem of a row or of a manifest entry."""
  if set(problem) != set(PROBLEM_FIELDS):
    raise files.FileError(f'{name} must have the fields {PROBLEM_FIELDS}, got '
                          f'{sorted(problem)}.')
  checked: dict[str, Any] = {
      'kind': check_value(problem['kind'], Field('str', ''), f'{name}: kind'),
      'seed': check_value(problem['seed'], Field('int', ''), f'{name}: seed')}
  for part in PROBLEM_FIELDS[2:]:
    values = problem[part]
    if not isinstance(values, Mapping) or not all(
        isinstance(value, (str, int, float)) for value in values.values()):
      raise files.FileError(f'{name}: {part} must hold numbers and texts by '
                            f'name, got {values!r}.')
    checked[part] = dict(values)
  return checked


def _check_scores(scores: Any, score_set: str, status: str,
                  name: str) -> dict[str, float] | None:
  """Scores by name, floats; FileError unless they agree with the status."""
  if (scores is None) != (status == 'failed'):
    raise files.FileError(f'{name} must be None if and only if status is '
                          f'failed, got {scores!r} with status {status}.')
  if scores is None:
    return None
  if not isinstance(scores, Mapping):
    raise files.FileError(f'{name} must be scores by name, got {scores!r}.')
  known = table.scores_of(score_set)
  unknown = [key for key in scores if key not in known]
  missing = [key for key, score in known.items()
             if score.required and key not in scores]
  if unknown or missing:
    raise files.FileError(f'{name} must be those of {score_set}; unknown '
                          f'{unknown}, missing {missing}.')
  checked = {}
  for key in known:
    if key in scores:
      value = scores[key]
      if type(value) is not float:
        value = check_value(value, Field('float', ''), f'{name}: {key}')
      if status == 'ok' and not math.isfinite(value) and not (
          known[key].may_be_infinite and value == math.inf):
        raise files.FileError(
            f'{name}: {key} must be finite where status is ok, got {value}; '
            'such a row is diverged.')
      checked[key] = value
  return checked


def _check_curve(curve: Mapping[str, Any], score_set: str, selection: str,
                 name: str) -> None:
  """FileError unless a curve has its lists, all as long as its order."""
  needed = {'order'} | (set() if selection == 'none' else {'val_score'})
  unknown = set(curve) - needed - set(table.scores_of(score_set))
  if unknown or not needed < set(curve):
    raise files.FileError(
        f'{name} must have {sorted(needed)} and scores of {score_set} where '
        f'selection is {selection}, got {sorted(curve)}.')
  lengths = {key: len(value) if isinstance(value, list) else None
             for key, value in curve.items()}
  if None in lengths.values() or len(set(lengths.values())) != 1:
    raise files.FileError(f'{name} must hold lists of one length, got lengths '
                          f'{lengths}.')


def check_value(value: Any, field: Field, name: str) -> Any:
  """The value as a plain Python object; FileError if it is not of its kind."""
  if value is None:
    if field.nullable:
      return None
    raise files.FileError(f'{name} must be of type {field.kind}, got None.')
  is_bool = isinstance(value, (bool, np.bool_))
  if field.kind == 'bool' and is_bool:
    return bool(value)
  if field.kind == 'int' and isinstance(value, numbers.Integral) and (
      not is_bool):
    return int(value)
  if field.kind == 'float' and isinstance(value, numbers.Real) and not is_bool:
    return float(value)
  if field.kind == 'str' and isinstance(value, str):
    if field.choices and value not in field.choices:
      raise files.FileError(
          f'{name} must be one of {list(field.choices)}, got {value!r}.')
    return str(value)
  if field.kind == 'dict' and isinstance(value, Mapping):
    try:
      return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
      raise files.FileError(
          f'{name} cannot be stored as JSON: {error}.') from error
  raise files.FileError(
      f'{name} must be of type {field.kind}, got {value!r} '
      f'({type(value).__name__}).')


def cell_names(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
  """Names of the cell fields of rows, in the order in which rows have them."""
  return tuple(dict.fromkeys(name for row in rows
                             for name in row['problem']['cell']))


def cell_of(row: Mapping[str, Any],
            names: Sequence[str] | None = None) -> Cell:
  """The values of a row's cell, the same in whatever order a row holds them.

  Args:
    row: a row.
    names: of the values, in this order, None for what the cell lacks; without
      them all values come in the alphabetical order of their names.
  """
  cell = row['problem']['cell']
  return tuple(map(cell.get, sorted(cell) if names is None else names))


def problem_of(row: Mapping[str, Any],
               names: Sequence[str] | None = None) -> ProblemKey:
  """(cell, seed) of a row; `names` as in `cell_of`."""
  return cell_of(row, names), row['problem']['seed']


def score_of(row: Mapping[str, Any], score: str) -> float | None:
  """A score of a row; None where it has none."""
  return None if row['scores'] is None else row['scores'].get(score)


def canonical_text(value: Any) -> str:
  """One text for one JSON value: what checksums and hashes are made of."""
  return json.dumps(value, sort_keys=True, separators=(',', ':'),
                    allow_nan=False)


def sha256(value: Any) -> str:
  """SHA-256 of a JSON value, hexadecimal."""
  return hashlib.sha256(canonical_text(value).encode()).hexdigest()


def encode_float(value: Any) -> Any:
  """The inverse of `decode_float`."""
  if isinstance(value, float) and not math.isfinite(value):
    return 'NaN' if math.isnan(value) else (
        'Infinity' if value > 0 else '-Infinity')
  return value


def decode_float(value: Any) -> Any:
  """A number from one of the texts that stand for numbers JSON has not."""
  return _NON_FINITE.get(value, value) if isinstance(value, str) else value


def encode(row: Row) -> Row:
  """The row with its non-finite floats as the strings of _NON_FINITE."""
  encoded = {key: encode_float(value) for key, value in row.items()}
  if row['scores'] is not None:
    encoded['scores'] = {key: encode_float(value)
                         for key, value in row['scores'].items()}
  return encoded


def decode(row: Mapping[str, Any]) -> Row:
  """Inverse of `encode`: only float fields and scores are looked at."""
  decoded = {
      key: decode_float(value)
      if key in ROW_SCHEMA and ROW_SCHEMA[key].kind == 'float' else value
      for key, value in row.items()}
  if isinstance(row.get('scores'), Mapping):
    decoded['scores'] = {key: decode_float(value)
                         for key, value in row['scores'].items()}
  return decoded


def same_value(a: Any, b: Any) -> bool:
  """Equality in which NaN is equal to itself, also inside of dicts."""
  if isinstance(a, Mapping) and isinstance(b, Mapping):
    return set(a) == set(b) and all(same_value(a[key], b[key]) for key in a)
  return a == b or (a != a and b != b)


def value_key(value: Any) -> tuple[Any, ...]:
  """Sorts numbers before texts, each in its own order."""
  if isinstance(value, (int, float)):
    return (0, value, '')
  return (1, 0, str(value))


def reading_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """Sorts rows the same way on every machine, whatever the files' order."""
  problem = row['problem']
  return (row['agent_id'], problem['kind'], canonical_text(problem['ranking']),
          tuple(map(value_key, problem['cell'].values())),
          problem['seed'], *(str(row[key]) for key in PROTOCOL_FIELDS),
          row.get('dtype', ''), row.get('row_id', ''))
