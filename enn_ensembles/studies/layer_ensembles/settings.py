"""The agent settings that the figures and claims of the paper are about.

What tells rows of one agent apart in the sweeps of these figures is given in
full, so that a results folder may hold them all.
"""

from typing import Any

from enn_ensembles import results
from enn_ensembles.report import comparison

# The two directions of the KL: the testbed's, and eq. 2 of the paper.
SCORES = ('kl_estimate', 'kl_reverse')


def layer_ensemble(num_options: int, prior_scale: float = 1.,
                   selection: str = 'none', **fields: Any
                   ) -> comparison.Setting:
  """A layer ensemble of K options per layer."""
  label = f'layer ensemble of {num_options}'
  if prior_scale == 0:
    label += ' without prior'
  fields = {'noise_by': 'combination', 'num_index_samples': None, **fields}
  return comparison.make_setting(
      'layer_ensemble', selection, label, num_options=num_options,
      prior_scale=prior_scale, **fields)


def deep_ensemble(num_ensemble: int, prior_scale: float = 1.,
                  selection: str = 'none') -> comparison.Setting:
  """A deep ensemble of K members."""
  label = f'ensemble of {num_ensemble}'
  if prior_scale == 0:
    label += ' without prior'
  return comparison.make_setting('ensemble', selection, label,
                                 num_ensemble=num_ensemble,
                                 prior_scale=prior_scale)


# The other agents of claim 5, at the settings that their papers selected.
COMPETITORS = (
    comparison.make_setting('mc_dropout', label='dropout', dropout_rate=0.05),
    comparison.make_setting('bbb', label='BBB', sigma_0=100.,
                            index_scale='enn2021'),
    comparison.make_setting('vnn', label='VNN'),
    comparison.make_setting('hypermodel', label='hypermodel', index_dim=20),
    deep_ensemble(10),
    deep_ensemble(30),
)


def ranking(reference: str) -> dict[str, str]:
  """What problems have in common: their reference and the testbed's kernel."""
  return {'reference': reference, 'kernel': results.DEFAULT_KERNEL}
