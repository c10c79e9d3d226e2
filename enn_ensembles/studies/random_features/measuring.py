"""KL of random features by width and by number of networks.

The members are those of the agent `random_features`; noise levels share their
hidden layers, as the agent draws them from the same key, and an ensemble of K
is the first K of a larger one. So one draw of the largest serves all.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import csv
import functools
import io
import math
import pathlib
from typing import Any

import numpy as np

from enn_ensembles import problems
from enn_ensembles.agents import random_features
from enn_ensembles.machine import files
from enn_ensembles.problems import draws
from enn_ensembles.scoring import gaussian

Row = dict[str, Any]

# What a row has, with the type of each.
COLUMNS: Mapping[str, type] = {
    'input_dim': int, 'data_ratio': float, 'noise_std': float,
    'num_train': int, 'seed': int, 'width': int, 'num_ensemble': int,
    'last_layer': str, 'kl_estimate': float, 'kl_reverse': float,
    'kl_floor': float}
_MAY_BE_INFINITE = ('kl_reverse', 'kl_floor')
SOLVED = 'solved'  # The last layer of what `measure` measures.


def predict_members(group: Sequence[problems.Problem], width: int,
                    num_ensemble: int) -> np.ndarray:
  """Predictions at x_test, [noise levels, K, N] float64.

  Args:
    group: problems that differ in their noise level only.
    width: units of every hidden layer.
    num_ensemble: K.
  """
  first = group[0]
  assert first.config is not None  # They were drawn, not brought.
  key = draws.agent_key(first.config.seed)
  found = np.empty((len(group), num_ensemble, len(first.x_test)))
  for k in range(num_ensemble):
    network, start, noise = random_features.draw_member(
        key, k, first.kernel, width, len(first.x_train))
    phi, phi_test = (np.concatenate(list(network.features(x)))
                     for x in (first.x_train, first.x_test))
    for e, problem in enumerate(group):
      targets = problem.y_train[:, 0] + problem.noise_std * noise
      found[e, k] = phi_test @ random_features.solve_last_layer(
          phi, targets, problem.noise_std, start)
  return found


def measure(group: Sequence[problems.Problem], width: int,
            nums_ensemble: Sequence[int]) -> list[Row]:
  """A row per noise level and number of networks."""
  members = predict_members(group, width, max(nums_ensemble))
  rows = []
  for problem, own in zip(group, members):
    config = problem.config
    assert config is not None  # As above.
    for num in nums_ensemble:
      mean, std = gaussian.sample_moments(own[:num], axis=0)
      scores = gaussian.posterior_scores(
          mean, std, problem.test_mean, problem.test_std, num_samples=num)
      rows.append({
          'input_dim': config.input_dim,
          'data_ratio': config.data_ratio,
          'noise_std': problem.noise_std, 'num_train': len(problem.x_train),
          'seed': config.seed, 'width': width, 'num_ensemble': num,
          'last_layer': SOLVED,
          **{name: float(scores[name]) for name in ('kl_estimate', 'kl_reverse',
                                                    'kl_floor')}})
  return rows


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """What a row is of, in the order of the table: solved last layers first."""
  return (row['last_layer'] != SOLVED, row['last_layer'], *(
      row[name] for name in ('width', 'input_dim', 'data_ratio', 'seed',
                             'noise_std', 'num_ensemble')))


def add_missing(rows: dict[tuple[Any, ...], Row],
                groups: Sequence[Sequence[problems.ProblemConfig]], width: int,
                nums_ensemble: Sequence[int]) -> Iterator[None]:
  """Measures what there is no row of, a group of problems at a time.

  Args:
    rows: rows by `key_of`, to which those of this width are added.
    groups: problems, those of a group as in `predict_members`.
    width: units of every hidden layer.
    nums_ensemble: numbers of networks.

  Yields:
    Nothing, whenever the rows of a group were added.
  """
  for group in groups:
    missing: dict[tuple[int, ...], list[int]] = {}
    for i, config in enumerate(group):
      nums = tuple(num for num in nums_ensemble if key_of({
          'input_dim': config.input_dim, 'data_ratio': config.data_ratio,
          'noise_std': config.noise_std, 'seed': config.seed, 'width': width,
          'num_ensemble': num, 'last_layer': SOLVED}) not in rows)
      if nums:
        missing.setdefault(nums, []).append(i)
    # Noise levels that lack the same numbers share their hidden layers.
    for nums, places in missing.items():
      made = _make_problems(tuple(group))
      found = measure([made[i] for i in places], width, nums)
      rows.update((key_of(row), row) for row in found)
    if missing:
      yield


# Every width needs them.
@functools.cache
def _make_problems(configs: tuple[problems.ProblemConfig, ...]
                   ) -> Sequence[problems.Problem]:
  return problems.make_problems(configs)


def read_rows(path: pathlib.Path) -> list[Row]:
  """The rows of a table that a run before has written; none if there is none.

  Numbers come back with every bit.

  Raises:
    FileError: the file cannot be read, has other columns or is damaged.
  """
  try:
    content = files.read_bytes(path)
  except FileNotFoundError:
    return []
  except OSError as error:
    raise files.FileError(f'{path} cannot be read: {error.strerror}.'
                          ) from error
  try:
    lines = list(csv.reader(io.StringIO(content.decode(), newline=''),
                            strict=True))
    if not lines or lines[0] != list(COLUMNS):
      raise ValueError(f'its columns are not {", ".join(COLUMNS)}')
    if not content.endswith(b'\n'):
      raise ValueError('its last line is cut short')
    rows = [_parse(line, i + 2) for i, line in enumerate(lines[1:])]
    if len({key_of(row) for row in rows}) != len(rows):
      raise ValueError('two lines are of the same problem, width, number of '
                       'networks and last layer')
  except (ValueError, csv.Error) as error:
    raise files.FileError(
        f'{path} is damaged ({error}): move it away, or name another '
        'output_dir; what it holds would be kept.') from error
  return rows


def _parse(line: Sequence[str], number: int) -> Row:
  """A row; ValueError where a value is not as `measure` makes it."""
  if len(line) != len(COLUMNS):
    raise ValueError(f'line {number} has {len(line)} fields instead of '
                     f'{len(COLUMNS)}')
  row = {}
  for text, (name, kind) in zip(line, COLUMNS.items()):
    try:
      row[name] = kind(text)
    except ValueError:
      raise ValueError(f'line {number} has {name} {text!r}') from None
    if kind is not str and not (
        0 <= row[name] < math.inf
        or (name in _MAY_BE_INFINITE and row[name] == math.inf)):
      raise ValueError(f'line {number} has {name} {text}')
  return row


def trained_rows(rows: Sequence[Any]) -> list[Row]:
  """Rows of a sweep of `trained_last_layer`, in the same columns."""
  found = []
  for row in rows:
    if row['agent'] != 'trained_last_layer' or row['status'] != 'ok':
      continue
    problem, config = row['problem'], row['agent_config']
    found.append({
        **{name: problem['cell'][name]
           for name in ('input_dim', 'data_ratio', 'noise_std')},
        'num_train': problem['facts']['num_train'], 'seed': problem['seed'],
        'width': config['width'], 'num_ensemble': config['num_ensemble'],
        'last_layer': f'Adam, {config["num_batches"]} steps',
        **{name: row['scores'][name]
           for name in ('kl_estimate', 'kl_reverse', 'kl_floor')}})
  return found
