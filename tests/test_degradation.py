"""Predictions that are worse by a known amount, and second trainings."""

import json

import numpy as np
import pytest

from enn_ensembles import base
from enn_ensembles import problems
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.problems import kinds
from enn_ensembles.scoring import degradation
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results


@pytest.fixture(name='problem', scope='module')
def _problem():
  return problems.make_problems([problems.ProblemConfig(
        3, 2., 0.1, 0, num_test=40, num_val=10)])[0]


@pytest.mark.parametrize('share', [0.1, 2.])
@pytest.mark.parametrize('std', [0.01, 1., 5.])
def test_kl_grows_by_the_share_whatever_the_spread(problem, share, std):
  rng = np.random.default_rng(0)
  samples = std * rng.standard_normal((20, 400, 1))
  predict = lambda x: base.Predictions(samples[:, :len(x)])
  key = problems.evaluation_key(0)
  worse = degradation.degrade(predict, problem, share, key)
  before = problem.score(predict)['kl_estimate']
  assert problem.score(worse)['kl_estimate'] == pytest.approx(
      (1 + share) * before, rel=1e-9)
  # The draws move together: their spread is what it was.
  moved = worse(problem.x_test).samples - samples[:, :40]
  assert np.ptp(moved, axis=0).max() < 1e-9 and np.abs(moved).max() > 0


def test_replicas_are_other_trainings_on_the_same_problems(tmp_path):
  config = sweeps.SweepConfig(
      'test', seed=(0,), problem={
          'input_dim': (3,), 'data_ratio': (2.,), 'noise_std': (0.1,)},
      agents=({'agent': 'ensemble', 'num_ensemble': 4, 'num_batches': 3,
               'hidden_sizes': (4,), 'replica': [0, 1], 'degrade': [0., 0.5]},))
  units = sweeps.expand(config)
  assert [unit.agent_config.get('replica') for unit in units] == [
      None, None, 1, 1]
  store = results.open_store(tmp_path / 'store', create=True)
  options = unit_results.RunOptions(str(store.results_dir),
                                problem_settings=kinds.ProblemSettings())
  rows = [one_unit.run_unit(unit, options)[0][0] for unit in units]
  assert [row['message'] for row in rows] == [''] * 4
  kl = [row['scores']['kl_estimate'] for row in rows]
  assert kl[1] == pytest.approx(1.5 * kl[0], rel=1e-6)
  assert kl[3] == pytest.approx(1.5 * kl[2], rel=1e-6)
  assert kl[0] != kl[2]
  assert len({row['row_id'] for row in rows}) == 4
  assert len({json.dumps(row['problem']) for row in rows}) == 1


def test_classification_has_no_posterior_to_be_worse_than():
  class Problem:
    score_set, problem_id = 'classification', 'digits'

  with pytest.raises(ValueError, match='exact posterior, got digits'):
    degradation.degrade(None, Problem(), 0.1, None)
