"""A kept set beside a deep ensemble: what is counted, and special cases."""

import dataclasses

import numpy as np
import pytest

from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import layers
from enn_ensembles.studies.layer_ensembles import against_ensemble

OPTIONS = against_ensemble.AgainstEnsembleOptions(
    num_options=2, num_kept=3, num_ensemble=4, batch_sizes=(2, 2), repeats=3,
    seconds=1e-4, hidden_sizes=(4, 3))


def test_row_of_the_mlp():
  row = against_ensemble.measure('mlp', OPTIONS)
  # Inputs 10; weights and biases of 10-4-3-1 networks.
  one = 4 * 11 + 3 * 5 + 4
  assert row['num_params_kept'] == 2 * one
  assert row['num_params_ensemble'] == 4 * one
  assert row['params_ratio'] == 2.
  assert row['layer_evaluations_ensemble'] == 12
  assert 3 + 1 + 1 <= row['layer_evaluations_kept'] <= 9
  assert row['speedup_low'] <= row['speedup'] <= row['speedup_high']
  assert max(row['deep_difference'], row['sub_difference']) < 1e-12


def test_special_cases_of_a_network_with_a_convolution():
  options = dataclasses.replace(
      OPTIONS, cnn=dataclasses.replace(OPTIONS.cnn, channels=(2, 3), hidden=4,
                                       image_size=6))
  found = against_ensemble.largest_differences('cnn', options)
  assert max(found.values()) < 1e-12


def test_kept_combinations_are_ranked_by_labels():
  """The best single one comes first: recomputed with numpy."""
  stack = layer_stack.LayerStack((layers.Dense(1, 'none'),), (3,))
  weights = [np.array([[[0.1, 0.2, 0.], [3., 1., 1.], [0., 0., 0.3]]])]
  kept = against_ensemble.choose_combinations(stack, weights, (2,), 3)
  rng = np.random.default_rng([0, 1])
  x = rng.normal(size=(100, 2)).astype(np.float32)
  labels = rng.normal(size=100)
  errors = [np.mean((x @ w[:2] + w[2] - labels)**2) for w in weights[0][0]]
  assert kept[0, 0] == np.argmin(errors)
  assert sorted(kept[:, 0]) == [0, 1, 2]


@pytest.mark.parametrize('field', ['num_kept', 'repeats', 'seconds'])
def test_refuses_bad_options(field):
  with pytest.raises(ValueError, match=field):
    dataclasses.replace(OPTIONS, **{field: 0})
