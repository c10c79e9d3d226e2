"""Results of earlier schemas, turned into rows of today.

Schema 3 knew one kind of problem (NNGP regression) and had a field per score;
its scores.csv is the flattened form that reports still write. Everything here
is pure: an old row goes in, a row of `schema.ROW_SCHEMA` comes out, unchecked.
`store` reads old folders through these functions, so old results need no
conversion to be looked at; writers refuse them and name the command that
makes a folder of today from an old one.

What an old row does not hold is not invented: `numerics` is empty. An old row
of enumerated members does not say how many draws its sweep had asked for; the
number comes from the manifests of its folder (`asked_draws`).
"""

from collections.abc import Iterable
from collections.abc import Mapping
import csv
import io
import json
import math
import pathlib
from typing import Any

from enn_ensembles import checks
from enn_ensembles.machine import files
from enn_ensembles.results import row_ids
from enn_ensembles.results import schema

OLD_VERSION = 3
COMMAND = 'python -m experiments.convert_results'
DEFAULT_DRAWS = 1000

_CELL = ('input_dim', 'data_ratio', 'noise_std')
_RANKING = ('reference', 'kernel')
_SCORES = ('kl_estimate', 'kl_reverse', 'mean_error', 'std_error', 'mean_rmse',
           'std_ratio', 'kl_floor')
_MOVED = (*_CELL, *_RANKING, *_SCORES, 'seed', 'num_train', 'path')
_OLD_FIELDS = frozenset(
    {*schema.ROW_SCHEMA, *_MOVED}
    - {'problem', 'scores', 'curve', 'score_set', 'numerics', 'agent_label',
       'by_set', 'counts', 'cost'})
# The kinds of the fields that a CSV holds as text.
_INTS = ('schema_version', 'input_dim', 'seed', 'num_train', 'num_enn_samples',
         'num_samples_used', 'num_params')
_FLOATS = ('data_ratio', 'noise_std', *_SCORES, 'train_seconds',
           'evaluate_seconds', 'rank_seconds', 'problem_seconds',
           'compile_seconds')
# What the names of problems add where the matrix-free solver drew them.
_MATRIX_FREE = '_matrix_free'


def convert_row(row: Mapping[str, Any],
                asked_draws: int = DEFAULT_DRAWS) -> schema.Row:
  """A row of schema 3 as a row of today.

  Args:
    row: the old row, its non-finite numbers decoded.
    asked_draws: draws that its sweep had asked for, where the row, of
      enumerated members, does not hold the number.

  Raises:
    FileError: fields are missing or unknown.
  """
  missing = sorted(_OLD_FIELDS - set(row))
  unknown = sorted(set(row) - _OLD_FIELDS)
  if missing or unknown:
    raise files.FileError(f'a row of schema {OLD_VERSION} has missing fields '
                          f'{missing} and unknown fields {unknown}.')
  new = {key: row[key] for key in row if key not in _MOVED}
  facts = {'num_train': row['num_train']}
  if row['problem_id'].endswith(_MATRIX_FREE):
    facts['solver'] = _MATRIX_FREE[1:]
  new.update(
      schema_version=schema.SCHEMA_VERSION,
      agent_id=row_ids.make_agent_id(row['agent'], row['agent_config']),
      agent_label=row['agent_id'],
      problem={'kind': 'nngp', 'seed': row['seed'],
               'cell': {key: row[key] for key in _CELL},
               'ranking': {key: row[key] for key in _RANKING},
               'facts': facts},
      score_set='nngp', curve=row['path'], by_set=None, counts=None,
      cost=None, numerics={},
      scores=None if row['status'] == 'failed' else {
          key: row[key] for key in _SCORES})
  draws = row['num_enn_samples']
  new['row_id'] = row_ids.make_row_id(
      new, asked_draws if draws is None else draws)
  return {key: new[key] for key in schema.ROW_SCHEMA}


def convert_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
  """A manifest entry of schema 3 as one of today.

  Raises:
    FileError: a field is missing.
  """
  try:
    cells = [{'input_dim': entry['input_dim'],
              'data_ratio': entry['data_ratio'], 'noise_std': noise_std}
             for noise_std in entry['noise_stds']]
    return {
        'agent': entry['agent'], 'agent_label': entry['agent_id'],
        'agent_id': row_ids.make_agent_id(entry['agent'],
                                          entry['agent_config']),
        'agent_config': entry['agent_config'], 'score_set': 'nngp',
        'problem': {'kind': 'nngp', 'cells': cells, 'seeds': entry['seeds'],
                    'ranking': {key: entry[key] for key in _RANKING}},
        **{key: entry[key] for key in schema.PROTOCOL_FIELDS}}
  except KeyError as error:
    raise files.FileError(f'a manifest entry of schema {OLD_VERSION} lacks '
                          f'{error}.') from error


def asked_draws(entries: Iterable[Mapping[str, Any]]) -> int:
  """The draws that the manifests of one folder asked for.

  The default where they name none, or several: the number only decides the
  names of converted rows, that is, which of them a sweep that goes on in the
  converted folder need not compute again.
  """
  found = {entry['num_enn_samples'] for entry in entries} - {None}
  return found.pop() if len(found) == 1 else DEFAULT_DRAWS


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
  """An old row as it was before it was stored: its non-finite numbers back."""
  return {key: schema.decode_float(value) if key in _FLOATS else value
          for key, value in row.items()}


def rows_from_scores_csv(path: files.PathLike) -> list[schema.Row]:
  """The rows behind a scores.csv that a report of schema 1, 2 or 3 wrote.

  The CSV holds every field but the curve. It writes None as an empty field
  and so does not tell a setting that is None from one that its agent does not
  have: such settings are not in the `agent_config` of these rows.

  Raises:
    FileError: there is no such file, or it is no scores.csv.
  """
  path = pathlib.Path(path)
  try:
    text = files.read_bytes(path).decode()
    lines = list(csv.DictReader(io.StringIO(text, newline='')))
    if not text.endswith('\n'):
      raise csv.Error('it ends within a line: it is truncated')
  except OSError as error:
    raise files.FileError(f'cannot read {path}: {error.strerror}.') from error
  except (UnicodeDecodeError, csv.Error) as error:
    raise files.FileError(f'cannot read {path}: {error}.') from error
  rows = []
  for i, line in enumerate(lines):
    try:
      if None in line or None in line.values():
        raise ValueError('it has more or fewer fields than the header')
      row = schema.check_row(convert_row(_row_of_csv(line)),
                             f'line {i + 2}')
    except (KeyError, ValueError, TypeError, RecursionError) as error:
      raise files.FileError(
          f'{path} is no scores.csv of an earlier report, line {i + 2}: '
          f'{checks.error_text(error)}') from error
    rows.append(row)
  if not rows:
    raise files.FileError(f'{path} holds no rows.')
  return rows


def _row_of_csv(line: Mapping[str, str]) -> dict[str, Any]:
  """A line of scores.csv as a row of schema 3."""
  row: dict[str, Any] = {
      'kernel': schema.DEFAULT_KERNEL, 'rank_seconds': None, 'path': None,
      'agent_config': {}, 'versions': {}}
  for key, text in line.items():
    if key.startswith('agent.'):
      if text:
        row['agent_config'][key.removeprefix('agent.')] = _setting(text)
    elif key.startswith('versions.'):
      if text:
        row['versions'][key.removeprefix('versions.')] = text
    elif key in _INTS:
      row[key] = int(text) if text else None
    elif key in _FLOATS:
      row[key] = float(text) if text else None
    elif key == 'enumerate_indices':
      row[key] = {'True': True, 'False': False}[text]
    else:
      row[key] = text
  return row


def _setting(text: str) -> Any:
  """A setting of an agent from its text in a CSV."""
  if text in ('True', 'False'):
    return text == 'True'
  try:
    value = json.loads(text)
  except ValueError:
    return text
  finite = not isinstance(value, float) or math.isfinite(value)
  return value if finite else text
