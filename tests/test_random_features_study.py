"""The study of random features: the same members as the agent's."""

import commands
import jax
import numpy as np
import pandas as pd

from enn_ensembles import problems
from enn_ensembles.agents import random_features
from enn_ensembles.problems import draws
from enn_ensembles.studies.random_features import measuring

_SMALL = dict(num_test=20, num_val=2)


def test_members_are_those_of_the_agent():
  """More units than points, and fewer; noise levels share a draw."""
  group = problems.make_problems([problems.ProblemConfig(3, 4, noise_std, 1,
                                                         **_SMALL)
                                  for noise_std in (0.1, 1.)])
  for width in (5, 30):
    found = measuring.predict_members(group, width, 3)
    for problem, own in zip(group, found):
      agent = random_features.make_agent(
          random_features.RandomFeaturesConfig(3, width))
      sampler = agent(problem.data, problem.prior, draws.agent_key(1))
      np.testing.assert_allclose(sampler.members(problem.x_test)[..., 0], own,
                                 rtol=1e-6, atol=1e-6)
  row = measuring.measure(group, 30, [2, 3])[1]
  assert (row['width'], row['num_ensemble'], row['num_train']) == (30, 3, 12)
  assert row['kl_floor'] == np.inf and row['kl_estimate'] > 0


def test_command(tmp_path):
  assert jax.config.jax_enable_x64
  flags = [f'--output_dir={tmp_path}', '--input_dim=2', '--data_ratio=2',
           '--noise_std=0.1,1', '--seed=0', '--width=4,8',
           '--num_ensemble=4,6']
  bad = [*flags[:1], '--width=wide']
  (code, _, error), (bad_code, _, bad_error) = commands.run_commands(
      'random_features_study', flags, bad)
  assert code == 0, error
  table = pd.read_csv(tmp_path / 'random_features.csv')
  assert len(table) == 2 * 2 * 2 and set(table['last_layer']) == {'solved'}
  assert (tmp_path / 'random_features.png').read_bytes()[:4] == b'\x89PNG'
  assert bad_code == 2 and "'wide'" in bad_error
