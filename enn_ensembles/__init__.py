"""Epistemic neural networks, scored against exact posteriors.

An agent learns from a problem's data and gives back draws of functions; the
problem knows the exact posterior of its function, and scores the agent by KL.

  >>> import enn_ensembles as ee
  >>> problem = ee.load_problem('D10_l1_e0.1_s0')  # D_x, lambda, epsilon, seed.
  >>> problem.data.x.shape, problem.prior.noise_std
  ((10, 10), 0.1)
  >>> agent = ee.make_agent('ensemble', num_ensemble=10, num_batches=300)
  >>> sampler = ee.train(agent, problem)
  >>> sampler(problem.x_test, ee.evaluation_key(0)).shape  # One draw of f.
  (1000, 1)
  >>> ensemble = ee.score(sampler, problem)  # Or ee.score(agent, problem).
  >>> prior = ee.score(ee.make_agent('prior_only'), problem)
  >>> ensemble['kl_estimate'] < prior['kl_estimate']  # It has learnt.
  True
  >>> round(ensemble['kl_floor'], 4)  # What ten exact posterior draws score.
  0.1754
  >>> ee.check_agent(agent)  # Silent: it keeps the rules that all agents keep.

Names are loaded when they are first used: `import enn_ensembles` takes
milliseconds, and what only reads results needs no jax.
"""

import importlib
from typing import Any

__version__ = '0.2.0'

# Where each public name comes from.
_HOME = {
    # Problems.
    'load_problem': 'api',
    'problem_from_data': 'api',
    'Problem': 'base',
    # Agents.
    'agent_names': 'agents',
    'make_agent': 'api',
    'check_agent': 'conformance',
    'NetworkAgent': 'training.network_agent',
    'make_loss_for': 'training.likelihoods',
    # One run.
    'train': 'api',
    'score': 'api',
    'agent_key': 'problems',
    'evaluation_key': 'problems',
    'float64_mode': 'api',
    # The contracts.
    'Agent': 'base',
    'Batch': 'base',
    'Categorical': 'base',
    'Data': 'base',
    'EpistemicIndexer': 'base',
    'EpistemicNetwork': 'base',
    'EpistemicSampler': 'base',
    'Gaussian': 'base',
    'OutputWithPrior': 'outputs',
    'Predictions': 'base',
    'PriorKnowledge': 'base',
    # Sweeps and their results.
    'SweepConfig': 'sweeps',
    'load_config': 'sweeps',
    'run_sweep': 'api',
    'open_store': 'results',
    'make_board': 'api',
    'SCORES': 'scoring.table',
}

__all__ = list(_HOME)  # pyright: ignore


def __getattr__(name: str) -> Any:
  if name not in _HOME:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.{_HOME[name]}')
  found = globals()[name] = getattr(module, name)
  return found


def __dir__() -> list[str]:
  return sorted({*globals(), *_HOME})
