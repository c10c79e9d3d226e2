"""Dropout switches units and inputs off as often as its rate says."""

import itertools

from haiku_mlps import check_equal
from haiku_mlps import haiku_mlp
from haiku_mlps import HIDDEN
from haiku_mlps import name_layers
from haiku_mlps import random_mlp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_agents import KEY
from tiny_agents import predict

from enn_ensembles import networks
from enn_ensembles.agents import mc_dropout


@pytest.mark.parametrize('dropout_input', [True, False])
def test_dropout_at_rate_zero_is_an_mlp(dropout_input):
  layers = random_mlp()
  params = name_layers('stacked_mlp', layers)
  network = mc_dropout.make_network(mc_dropout.McDropoutConfig(
      dropout_rate=0., dropout_input=dropout_input, hidden_sizes=HIDDEN))
  indices = jax.random.split(KEY, 3)
  check_equal(network, params, {}, indices, [haiku_mlp(layers)] * 3)


def test_dropout_switches_units_and_inputs_off():
  # Positive weights into one output: a unit that is off is seen.
  rate = 0.25
  for dropout_input, num_units in ((False, 3), (True, 5)):
    config = mc_dropout.McDropoutConfig(
        dropout_rate=rate, dropout_input=dropout_input, hidden_sizes=(3,))
    network = mc_dropout.make_network(config)
    params = name_layers('stacked_mlp', [
        jnp.asarray([[[1., 10., 0.], [0., 0., 1.], [0., 0., 2.]]]),
        jnp.asarray([[[1., 100., 1000., 0.]]])])
    out = predict(network, params, {}, jax.random.split(KEY, 4000),
                  jnp.ones((2, 2)))
    # One mask for all data points of an index.
    np.testing.assert_array_equal(out[:, 0], out[:, 1])
    keep = 1 / (1 - rate)
    expected = {}
    for kept in itertools.product((0, 1), repeat=5):
      *inputs, a, b, c = kept
      if not dropout_input:
        first = 11.
      else:
        first = keep * (inputs[0] + 10. * inputs[1])
      value = keep * (a * first + 100. * b + 2000. * c)
      if dropout_input or inputs == [1, 1]:
        used = kept if dropout_input else kept[2:]
        probability = (1 - rate) ** sum(used) * rate ** (
            num_units - sum(used))
        value = round(1e6 * value)
        expected[value] = expected.get(value, 0.) + probability
    values, counts = np.unique(np.rint(1e6 * out[:, 0, 0]).astype(int),
                               return_counts=True)
    assert set(values) <= set(expected)
    for value, count in zip(values, counts):
      p = expected[value]
      assert abs(count - 4000 * p) < 5 * np.sqrt(4000 * p * (1 - p)) + 1


def test_a_body_of_ones_own_is_without_input_dropout_too():
  body = networks.Body('own', (
      networks.Dropout(of_input=True, rate=0.1), networks.Dense(4),
      networks.Dropout(), networks.Dense(1)))
  assert networks.without_input_dropout(body).layers == body.layers[1:]
