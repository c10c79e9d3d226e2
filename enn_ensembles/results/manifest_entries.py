"""What a sweep expects: entries of manifests, each many rows to come."""

from collections.abc import Mapping
from typing import Any

from enn_ensembles.machine import files
from enn_ensembles.results import schema

_ENTRY_FIELDS = ('agent', 'agent_id', 'agent_label', 'agent_config', 'problem',
                 'score_set', *schema.PROTOCOL_FIELDS)


def check_entry(entry: Mapping[str, Any], name: str) -> schema.Row:
  """Checks a manifest entry: a row that is expected, on several problems.

  Its `problem` has a list `cells` and a list `seeds` in the places of a row's
  cell and seed: every cell is expected with every seed.

  Raises:
    FileError: it is not like that.
  """
  if set(entry) != set(_ENTRY_FIELDS):
    raise files.FileError(f'{name}: fields must be {sorted(_ENTRY_FIELDS)}, '
                          f'got {sorted(entry)}.')
  checked = {key: schema.check_value(entry[key], schema.ROW_SCHEMA[key],
                                     f'{name}: {key}')
             for key in _ENTRY_FIELDS}
  problem = checked['problem']
  fields = {'kind', 'cells', 'seeds', 'ranking'}
  if set(problem) != fields:
    raise files.FileError(f'{name}: problem must have the fields '
                          f'{sorted(fields)}, got {sorted(problem)}.')
  for key in ('cells', 'seeds'):
    if not isinstance(problem[key], list) or not problem[key]:
      raise files.FileError(f'{name}: problem: {key} must be a list of at '
                            f'least one, got {problem[key]!r}.')
  for expected in expected_problems(checked):
    schema.check_problem(expected, f'{name}: problem')
  # What is expected has no order: the same grid is the same manifest.
  problem['seeds'] = sorted(problem['seeds'])
  problem['cells'] = sorted(problem['cells'], key=schema.canonical_text)
  return checked


def expected_problems(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The problems of a manifest entry, as rows have them, without facts."""
  problem = entry['problem']
  return [{'kind': problem['kind'], 'seed': seed, 'cell': cell,
           'ranking': problem['ranking'], 'facts': {}}
          for cell in problem['cells'] for seed in problem['seeds']]
