"""KL of random features by width and by number of networks.

The members are those of the agent `random_features`; noise levels share their
hidden layers, as the agent draws them from the same key, and an ensemble of K
is the first K of a larger one. So one draw of the largest serves all.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from enn_ensembles import problems
from enn_ensembles.agents import random_features
from enn_ensembles.problems import draws
from enn_ensembles.scoring import gaussian

Row = dict[str, Any]


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
          'last_layer': 'solved',
          **{name: float(scores[name]) for name in ('kl_estimate', 'kl_reverse',
                                                    'kl_floor')}})
  return rows


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
