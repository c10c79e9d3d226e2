"""The parts of the study on the testbed, where both parts have a truth.

`run_split`: agents that say what the noise is, on problems whose noise depends
on the input, each part of the variance against its truth. `run_response`: how
the epistemic std answers to the noise, beside the exact posterior's, which
rises with it; and ways to make members one prediction.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from enn_ensembles.problems import draws
from enn_ensembles.problems import ground_truth
from enn_ensembles.problems import heteroscedastic_regression
from enn_ensembles.problems import nngp_regression
from enn_ensembles.scoring import distribution_scores
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import noise_scores
from enn_ensembles.scoring import selection
from enn_ensembles.studies.decomposition import fits

Line = dict[str, Any]

# Agents that say what the noise is.
SPLIT_AGENTS: Mapping[str, dict[str, Any]] = {
    'β = 0': {'beta': 0.},
    'β = 0.5': {'beta': 0.5},
    'β = 1': {'beta': 1.},
    'β = 0.5, prior': {'beta': 0.5, 'prior_scale': 1.},
    'β = 0.5, bagging': {'beta': 0.5, 'bootstrap': True},
    'β = 0, decay': {'beta': 0., 'weight_decay': 1.},
    'β = 0, decay, prior': {'beta': 0., 'weight_decay': 1., 'prior_scale': 1.},
}
EXACT, KNOWN = 'exact posterior', 'exact mean, constant noise'

# Agents whose epistemic std is compared with the posterior's.
RESPONSE_AGENTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    'ensemble': ('ensemble', {}),
    'plain ensemble': ('ensemble', {'prior_scale': 0., 'noise_scale': 0.}),
    'bagging': ('ensemble', {'prior_scale': 0., 'noise_scale': 0.,
                             'bootstrap': True}),
    'dropout': ('mc_dropout', {}),
}
AGGREGATIONS = ('none', 'median', 'weights_tempered_0.01',
                'weights_tempered_0.1', 'weights_posterior',
                'weights_stacking')


@dataclasses.dataclass(frozen=True)
class TestbedSettings:
  """What is trained on one cell of the testbed.

  Attributes:
    input_dim: D_x.
    data_ratio: lambda.
    noise_stds: epsilon, increasing.
    seeds: each is a problem.
    noise_contrast: std of log epsilon(x), where the noise depends on x.
    num_members: K.
    num_batches: steps.
    split_agents: keys of SPLIT_AGENTS.
    response_agents: keys of RESPONSE_AGENTS.
  """
  input_dim: int = 10
  data_ratio: float = 10.
  noise_stds: tuple[float, ...] = (0.1, 1.)
  seeds: tuple[int, ...] = (0, 1, 2)
  noise_contrast: float = 1.
  num_members: int = 10
  num_batches: int = 1000
  split_agents: tuple[str, ...] = tuple(SPLIT_AGENTS)
  response_agents: tuple[str, ...] = tuple(RESPONSE_AGENTS)

  @property
  def num_train(self) -> int:
    """T."""
    return self.configs(0)[0].num_train

  def configs(self, seed: int) -> list[nngp_regression.ProblemConfig]:
    """The problems of a seed."""
    return [nngp_regression.ProblemConfig(self.input_dim, self.data_ratio,
                                          noise_std, seed)
            for noise_std in self.noise_stds]

  def cell(self, noise_std: float, seed: int) -> Line:
    """What names a problem in tables."""
    return {'num_train': self.num_train, 'noise_std': noise_std, 'seed': seed}


def run_split(settings: TestbedSettings) -> list[Line]:
  """A line per agent that says what the noise is, noise level and seed.

  Beside them EXACT, the exact posterior with the true noise, and KNOWN, the
  exact posterior with the mean noise variance everywhere.
  """
  problems = [heteroscedastic_regression.make_problems(
      settings.configs(seed), settings.noise_contrast)
              for seed in settings.seeds]
  lines = []
  for name in settings.split_agents:
    own = SPLIT_AGENTS[name]
    fitted = fits.fit('mean_variance_ensemble', {
        'num_ensemble': settings.num_members,
        'num_batches': settings.num_batches, **own}, settings.seeds, problems)
    for s, seed in enumerate(settings.seeds):
      for e, noise_std in enumerate(settings.noise_stds):
        problem = problems[s][e]
        predictions = fitted.predict(s, e)(problem.x_test)
        lines.append({
            **settings.cell(noise_std, seed), 'agent': name,
            **noise_scores.split_scores(
                predictions, problem.noise_std, problem.test_std,
                _labels(problem)),
            'kl_estimate': gaussian.posterior_scores(
                *gaussian.prediction_moments(predictions), problem.test_mean,
                problem.test_std, num_samples=None)['kl_estimate']})
  for s, seed in enumerate(settings.seeds):
    for e, noise_std in enumerate(settings.noise_stds):
      problem = problems[s][e]
      for name, std in ((EXACT, problem.noise_std), (KNOWN, noise_std)):
        nll = np.mean(distribution_scores.log_score(
            _labels(problem), problem.test_mean,
            np.hypot(problem.test_std, std)))
        lines.append({**settings.cell(noise_std, seed), 'agent': name,
                      'mixture_nll': float(nll)})
  return lines


def run_response(settings: TestbedSettings) -> list[Line]:
  """A line per agent, noise level, seed and aggregation.

  Of aggregation 'none' also the mean over test points of log epistemic std, and
  of the exact posterior's.
  """
  problems = [ground_truth.make_problems(settings.configs(seed))
              for seed in settings.seeds]
  lines = []
  for name in settings.response_agents:
    agent, own = RESPONSE_AGENTS[name]
    counts = ({'num_ensemble': settings.num_members}
              if agent == 'ensemble' else {})
    fitted = fits.fit(agent, {'num_batches': settings.num_batches, **counts,
                              **own}, settings.seeds, problems)
    for s, seed in enumerate(settings.seeds):
      for e, noise_std in enumerate(settings.noise_stds):
        lines += [{**settings.cell(noise_std, seed), 'agent': name, **scores}
                  for scores in _aggregated(
                      problems[s][e], fitted, s, e, seed)]
  return lines


def _aggregated(problem: Any, fitted: fits.Fitted, s: int, e: int,
                seed: int) -> list[Line]:
  predict, lines = fitted.predict(s, e), []
  for rule in AGGREGATIONS if fitted.num_members else ('none',):
    together = predict
    if rule != 'none':
      together = selection.select_members(
          rule, problem, predict, fitted.num_members,
          draws.evaluation_key(seed)).predict
    mean, std = gaussian.prediction_moments(together(problem.x_test))
    scores = gaussian.posterior_scores(mean, std, problem.test_mean,
                                       problem.test_std, num_samples=None)
    line = {'aggregation': rule, 'kl_estimate': scores['kl_estimate'],
            'mean_rmse': scores['mean_rmse']}
    if rule == 'none':
      line |= {'log_std': _mean_log(std),
               'log_std_exact': _mean_log(problem.test_std)}
    lines.append(line)
  return lines


def _labels(problem: nngp_regression.Problem) -> np.ndarray:
  """Labels at x_test, [N]; problems that were made here have them."""
  assert problem.y_test is not None
  return problem.y_test[:, 0]


def _mean_log(std: np.ndarray) -> float:
  return float(np.mean(np.log(std + gaussian.STD_RIDGE)))
