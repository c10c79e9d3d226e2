"""What a row is: the one definition that written and read rows are checked with."""

from collections.abc import Mapping
import hashlib
import json
import math
import numbers
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles.machine import files

PROJECT = 'enn_ensembles'
SCHEMA_VERSION = 3
Row = dict[str, Any]


class Field(NamedTuple):
  """One field of a row.

  Attributes:
    kind: 'int', 'float', 'str', 'bool' or 'dict'.
    meaning: what it says, with its unit.
    nullable: whether None is allowed.
    choices: the allowed values; empty where all of the kind are.
  """
  kind: str
  meaning: str
  nullable: bool = False
  choices: tuple[str, ...] = ()


# The only definition of a row: written rows and read rows are checked with it.
ROW_SCHEMA: Mapping[str, Field] = {
    'schema_version':
        Field('int', 'SCHEMA_VERSION of the writer'),
    'run_id':
        Field('str', 'the work unit, and the name of its file'),
    'row_id':
        Field(
            'str', 'hash of agent, problem, evaluation and training '
            'settings: equal ids are the same computation'),
    'agent':
        Field('str', 'name of the agent'),
    'agent_id':
        Field('str', 'readable name of the agent setting'),
    'agent_config':
        Field('dict', 'every field of the agent config'),
    'problem_id':
        Field('str', 'readable name of the problem'),
    'input_dim':
        Field('int', 'D_x'),
    'data_ratio':
        Field('float', 'lambda = T / D_x'),
    'noise_std':
        Field('float', 'epsilon, std of the noise in y'),
    'seed':
        Field('int', 'seed of the problem'),
    'reference':
        Field('str', 'noise variance of the exact posterior',
              choices=('bayes', 'enn2021')),
    'kernel':
        Field(
            'str', 'prior that the problem is drawn from: activation '
            'and number of hidden layers, e.g. relu2'),
    'num_train':
        Field('int', 'T, number of training points'),
    'num_enn_samples':
        Field(
            'int', 'draws of the agent that were asked for; '
            'None = all members were enumerated', nullable=True),
    'enumerate_indices':
        Field('bool', 'whether finite index sets are '
              'enumerated instead of sampled'),
    'num_samples_used':
        Field(
            'int', 'functions that the moments come from; '
            'None = analytic moments', nullable=True),
    'selection':
        Field(
            'str', 'how members were ranked and selected; scores are '
            'of the best beginning of the ranking by val_score',
            choices=('none', 'oracle', 'val_nll')),
    'dtype':
        Field('str', 'precision of training, e.g. float32'),
    'status':
        Field(
            'str', 'ok: every score is finite; diverged: scored, but '
            'training or a score is not finite; failed: no scores',
            choices=('ok', 'diverged', 'failed')),
    'message':
        Field('str', 'why the status is not ok; empty if it is'),
    'kl_estimate':
        Field('float', 'mean over x_test of KL(NNGP || agent), nats',
              nullable=True),
    'kl_reverse':
        Field('float', 'mean over x_test of KL(agent || NNGP), nats',
              nullable=True),
    'mean_error':
        Field('float', 'relative error of the mean', nullable=True),
    'std_error':
        Field('float', 'relative error of the std', nullable=True),
    'mean_rmse':
        Field('float', 'root mean squared error of the mean', nullable=True),
    'std_ratio':
        Field('float', 'mean ratio of the stds, agent / NNGP', nullable=True),
    'kl_floor':
        Field(
            'float', 'expected kl_estimate of as many draws of the '
            'exact posterior; may be inf', nullable=True),
    'path':
        Field(
            'dict', 'scores at x_test of the first 1, 2, ... members of '
            'an order: order, kl_estimate, kl_reverse, and for a ranked '
            'order val_score at x_val. The order is random where '
            'selection is none. None where members are not enumerated or '
            'not finite', nullable=True),
    'num_params':
        Field('int', 'trained parameters', nullable=True),
    'train_seconds':
        Field('float', 'training, s per problem', nullable=True),
    'evaluate_seconds':
        Field('float', 'evaluation, s per problem', nullable=True),
    'rank_seconds':
        Field('float', 'ranking, s per problem', nullable=True),
    'problem_seconds':
        Field('float', 'problem and its posterior, s per '
              'problem', nullable=True),
    'compile_seconds':
        Field('float', 'compilation, s, shared by the unit', nullable=True),
    'versions':
        Field('dict', 'versions of the packages used'),
    'device':
        Field('str', 'the device it ran on'),
    'created':
        Field('str', 'when, UTC, ISO 8601'),
}

# None in a failed row and only there; all finite in a row that is ok.
SCORE_FIELDS = ('kl_estimate', 'kl_reverse', 'mean_error', 'std_error',
                'mean_rmse', 'std_ratio')

# What may differ when the same row is computed again.
TIMING_FIELDS = ('train_seconds', 'evaluate_seconds', 'rank_seconds',
                 'problem_seconds', 'compile_seconds', 'versions', 'device',
                 'created')

# The prior of the testbed: two hidden ReLU layers.
DEFAULT_KERNEL = 'relu2'
PROBLEM_FIELDS = ('input_dim', 'data_ratio', 'noise_std', 'seed')
PROTOCOL_FIELDS = ('reference', 'kernel', 'selection', 'enumerate_indices',
                   'num_enn_samples')

# JSON has no such numbers. A float field, and no other, may hold these
# strings; the schema says which fields those are, so reading is unambiguous.
_NON_FINITE = {'NaN': math.nan, 'Infinity': math.inf, '-Infinity': -math.inf}
_PATH_FIELDS = {'order', 'kl_estimate', 'kl_reverse'}
MANIFEST_FIELDS = ('agent', 'agent_id', 'agent_config', 'input_dim',
                    'data_ratio', 'noise_stds', 'seeds', *PROTOCOL_FIELDS)


def check_row(row: Mapping[str, Any], name: str = 'row') -> Row:
  """Checks a row against the schema and gives it back in plain Python types.

  Args:
    row: field -> value. Numpy scalars are taken as the numbers they are.
    name: what to call the row in an error.

  Returns:
    A new dict, fields in the order of the schema, safe to store: what is
    read back is equal to it (NaN apart, which is not equal to itself).

  Raises:
    StoreError: a field is missing, unknown, of another type or not one of
      its choices, or the scores contradict the status.
  """
  unknown = sorted(set(row) - set(ROW_SCHEMA))
  missing = [field for field in ROW_SCHEMA if field not in row]
  if unknown or missing:
    raise files.StoreError(
        f'{name}: missing fields {missing}, unknown fields {unknown}; a row '
        f'has exactly the {len(ROW_SCHEMA)} fields of ROW_SCHEMA.')
  checked = {key: _check_value(row[key], field, f'{name}: {key}')
             for key, field in ROW_SCHEMA.items()}
  if checked['schema_version'] != SCHEMA_VERSION:
    raise files.StoreError(
        f'{name}: schema_version must be {SCHEMA_VERSION}, got '
        f'{checked["schema_version"]}.')
  status = checked['status']
  for key in SCORE_FIELDS:
    value = checked[key]
    if (value is None) != (status == 'failed'):
      raise files.StoreError(
          f'{name}: {key} must be None if and only if status is '
          f'failed, got {value} with status {status}.')
    if status == 'ok' and not math.isfinite(value):
      raise files.StoreError(
          f'{name}: {key} must be finite where status is ok, got '
          f'{value}; such a row is diverged.')
  if status != 'failed' and checked['kl_floor'] is None:
    raise files.StoreError(f'{name}: kl_floor must not be None where status is '
                     f'{status}.')
  if checked['path'] is not None:
    _check_path(checked['path'], checked['selection'], f'{name}: path')
  return checked


def _check_path(path: Mapping[str, Any], selection: str, name: str) -> None:
  """StoreError unless a path has its lists, all as long as its order."""
  fields = _PATH_FIELDS | (set() if selection == 'none' else {'val_score'})
  if set(path) != fields:
    raise files.StoreError(
        f'{name} must have the fields {sorted(fields)} where '
        f'selection is {selection}, got {sorted(path)}.')
  lengths = {key: len(value) if isinstance(value, list) else None
             for key, value in path.items()}
  if None in lengths.values() or len(set(lengths.values())) != 1:
    raise files.StoreError(f'{name} must hold lists of one length, got lengths '
                     f'{lengths}.')


def _check_value(value: Any, field: Field, name: str) -> Any:
  """The value as a plain Python object; StoreError if it is not of its kind."""
  if value is None:
    if field.nullable:
      return None
    raise files.StoreError(f'{name} must be of type {field.kind}, got None.')
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
      raise files.StoreError(
          f'{name} must be one of {list(field.choices)}, got {value!r}.')
    return str(value)
  if field.kind == 'dict' and isinstance(value, Mapping):
    try:
      return json.loads(canonical_text(dict(value)))
    except (TypeError, ValueError) as error:
      raise files.StoreError(
          f'{name} cannot be stored as JSON: {error}.') from error
  raise files.StoreError(
      f'{name} must be of type {field.kind}, got {value!r} '
      f'({type(value).__name__}).')


def canonical_text(value: Any) -> str:
  """One text for one JSON value: what checksums and hashes are made of."""
  return json.dumps(value, sort_keys=True, separators=(',', ':'),
                    allow_nan=False)


def sha256(value: Any) -> str:
  return hashlib.sha256(canonical_text(value).encode()).hexdigest()


def encode(row: Row) -> Row:
  """The row with its non-finite floats as the strings of _NON_FINITE."""
  def text(value):
    if isinstance(value, float) and not math.isfinite(value):
      return 'NaN' if math.isnan(value) else (
          'Infinity' if value > 0 else '-Infinity')
    return value
  return {key: text(value) for key, value in row.items()}


def decode(row: Mapping[str, Any]) -> Row:
  """Inverse of `encode`: only float fields are looked at."""
  return {
      key: _NON_FINITE[value]
      if (key in ROW_SCHEMA and ROW_SCHEMA[key].kind == 'float'
          and isinstance(value, str) and value in _NON_FINITE) else value
      for key, value in row.items()}


def same_value(a: Any, b: Any) -> bool:
  """Equality in which NaN is equal to itself."""
  return a == b or (a != a and b != b)


def check_entry(entry: Mapping[str, Any], name: str) -> Row:
  """Checks a manifest entry with the fields of the row schema."""
  if set(entry) != set(MANIFEST_FIELDS):
    raise files.StoreError(
        f'{name}: fields must be {sorted(MANIFEST_FIELDS)}, got '
        f'{sorted(entry)}.')
  checked = {}
  for key in MANIFEST_FIELDS:
    if key in ('noise_stds', 'seeds'):
      values = entry[key]
      if not isinstance(values, (list, tuple)) or not values:
        raise files.StoreError(
            f'{name}: {key} must be a list of at least one, got '
            f'{values!r}.')
      checked[key] = sorted(
          _check_value(value, ROW_SCHEMA[key[:-1]], f'{name}: {key}')
          for value in values)
    else:
      checked[key] = _check_value(entry[key], ROW_SCHEMA[key],
                                  f'{name}: {key}')
  return checked
