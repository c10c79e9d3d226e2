"""Agents on the published code's own problems, beside its own scores.

The problems are .npz files with x_train, y_train, x_test, x_val, test_mean and
test_std, named D{D_x}_l{lambda}_e{epsilon}_s{seed}.npz; the scores a CSV with
the columns agent, input_dim, data_ratio, noise_std, seed and kl_estimate. Our
agents are trained on those data and scored in the protocol of 2021: against
that code's posterior, on 100 draws of the index with replacement.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import re
from typing import Any
from typing import NamedTuple

import numpy as np
import pandas as pd

from enn_ensembles import agents
from enn_ensembles import base
from enn_ensembles.machine import foreign_files
from enn_ensembles.report import csv_files
from enn_ensembles.scoring import gaussian
from enn_ensembles.studies import problem_grids

# Names in the published CSV -> our agent and its settings.
PUBLISHED_AGENTS = {
    'ensemble_1': ('ensemble', {'num_ensemble': 1}),
    'ensemble_3': ('ensemble', {'num_ensemble': 3}),
    'ensemble_10': ('ensemble', {'num_ensemble': 10}),
    'ensemble_30': ('ensemble', {'num_ensemble': 30}),
    'ensemble_10_prior0': ('ensemble', {'num_ensemble': 10,
                                        'prior_scale': 0.}),
    'mc_dropout': ('mc_dropout', {}),
    'bbb': ('bbb', {'sigma_0': 100., 'index_scale': 'enn2021'}),
    # That code ties the target noise to the first layer's option.
    'layer_ensemble_2': ('layer_ensemble', {'num_options': 2,
                                            'noise_by': 'first_option'}),
    'layer_ensemble_3': ('layer_ensemble', {'num_options': 3,
                                            'noise_by': 'first_option'}),
    'layer_ensemble_5': ('layer_ensemble', {'num_options': 5,
                                            'noise_by': 'first_option'}),
    'hypermodel': ('hypermodel', {}),
    'vnn': ('vnn', {}),
    'vnn_sweep2': ('vnn', {'hidden_sizes': (100, 100)}),
}

CELL = ['input_dim', 'data_ratio', 'noise_std', 'seed']
NUM_DRAWS = 100
_ARRAYS = ('x_train', 'y_train', 'x_test', 'test_mean', 'test_std')


def read_published(path: pathlib.Path) -> pd.DataFrame:
  """The published scores: `CELL`, agent and kl_estimate.

  Raises:
    ValueError: there is no such file, or it lacks a column.
  """
  table = csv_files.read_table(path, 'published_csv')
  missing = [name for name in [*CELL, 'agent', 'kl_estimate']
             if name not in table]
  if missing:
    raise ValueError(
        f'published_csv {str(path)!r} has no column {missing[0]!r}.')
  return table


def read_problems(folder: pathlib.Path) -> pd.DataFrame:
  """One row per .npz file: its cell and path.

  Raises:
    ValueError: there is no such file.
  """
  rows = []
  for path in sorted(folder.glob('*.npz')):
    match = re.fullmatch(r'D(\d+)_l([\d.]+)_e([\d.]+)_s(\d+)', path.stem)
    if match:
      rows.append({'input_dim': int(match[1]), 'data_ratio': float(match[2]),
                   'noise_std': float(match[3]), 'seed': int(match[4]),
                   'path': path})
  if not rows:
    raise ValueError(f'problems_dir must hold D*_l*_e*_s*.npz files, got '
                     f'{str(folder)!r}, which holds none.')
  return pd.DataFrame(rows)


def read_problem(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of one stored problem.

  Raises:
    ValueError: the file cannot be read, or lacks an array.
  """
  with foreign_files.open_npz(path) as loaded:
    missing = [name for name in _ARRAYS if name not in loaded]
    if missing:
      raise ValueError(f'it must hold the arrays {", ".join(_ARRAYS)}, and '
                       f'lacks {missing[0]}')
    return {name: loaded[name] for name in _ARRAYS}


class _Learnt(NamedTuple):
  """What an agent learns from on a stored problem, as problems have it."""
  data: base.Data
  prior: base.PriorKnowledge


def score_agent(name: str, settings: Mapping[str, Any], path: pathlib.Path,
                noise_std: float, num_agent_seeds: int) -> np.ndarray:
  """kl_estimate of several trainings of an agent on one stored problem.

  Args:
    name: of the agent.
    settings: of its config.
    path: the stored problem.
    noise_std: its epsilon.
    num_agent_seeds: S.

  Returns:
    [S] float64.
  """
  agent = agents.from_settings(name, settings)
  stored = read_problem(path)
  x_test = stored['x_test']
  learnt = _Learnt(
      base.Data(stored['x_train'], stored['y_train'].reshape(-1, 1)),
      base.PriorKnowledge(x_test.shape[1:], len(stored['x_train']),
                          base.Gaussian(noise_std)))
  seeds = range(num_agent_seeds)
  grid = [[learnt]] * num_agent_seeds
  predictor = problem_grids.make_predictor(
      agent, problem_grids.train(agent, seeds, grid), seeds, grid, NUM_DRAWS)
  moments = [gaussian.prediction_moments(
      predictor.for_problem(seed, 0)(x_test)) for seed in seeds]
  return np.array([
      gaussian.posterior_scores(
          mean, std, stored['test_mean'].ravel(), stored['test_std'].ravel(),
          num_samples=NUM_DRAWS)['kl_estimate'] for mean, std in moments])


def choose_agents(table: pd.DataFrame, named: Sequence[str]) -> list[str]:
  """The names in the CSV that are compared.

  Args:
    table: published scores on the stored problems.
    named: what is asked for; empty for all that are known here.

  Raises:
    ValueError: there are no scores, or none of an agent that is named.
  """
  if not len(table):
    raise ValueError('published_csv must have scores on the problems of '
                     'problems_dir, got none.')
  for name in named:
    if name not in PUBLISHED_AGENTS:
      raise ValueError(f'agents must be among {", ".join(PUBLISHED_AGENTS)}; '
                       f'got {name!r}.')
    if name not in set(table['agent']):
      raise ValueError(f'agents must have published scores on these problems, '
                       f'{name!r} has none.')
  return list(named) or [name for name in PUBLISHED_AGENTS
                         if name in set(table['agent'])]


def compare(table: pd.DataFrame, name: str, num_agent_seeds: int) -> str:
  """A line on one agent: our KL over the published one, on every problem.

  Args:
    table: published scores on the stored problems, with their paths.
    name: of the agent in the CSV.
    num_agent_seeds: trainings per problem, whose KLs are averaged
      geometrically.
  """
  agent_name, settings = PUBLISHED_AGENTS[name]
  log_ratios, text = [], []
  rows: Iterable[Any] = table[table['agent'] == name].itertuples()
  for row in rows:
    ours = score_agent(agent_name, settings, row.path, row.noise_std,
                       num_agent_seeds)
    kl = np.exp(np.mean(np.log(ours)))
    log_ratios.append(np.log(kl / row.kl_estimate))
    text.append(f'{kl:.3g}/{row.kl_estimate:.3g}')
  ratio = np.exp(np.mean(log_ratios))
  return (f'{name:20s} ours/published {ratio:6.3f} over {len(log_ratios)} '
          f'problems: {"  ".join(text)}')
