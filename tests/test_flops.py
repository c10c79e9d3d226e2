"""Floating-point operations counted in traced programs."""

import dataclasses

import jax
import numpy as np

from enn_ensembles import base
from enn_ensembles.agents import ensemble
from enn_ensembles.agents import mc_dropout
from enn_ensembles.training import flops


def test_flops_are_counted_as_xla_counts_them():
  def product(a, b):
    return a @ b

  a, b = np.zeros((3, 5)), np.zeros((5, 7))
  found = flops.count_flops(jax.make_jaxpr(product)(a, b).jaxpr)
  theirs = jax.jit(product).lower(a, b).compile().cost_analysis()['flops']
  assert found == theirs == 2 * 3 * 5 * 7

  def loop(a, b):
    unused = a @ b @ b.T  # Reaches no output: not counted.
    del unused
    return jax.lax.scan(lambda c, _: (c @ (b @ b.T), None), a, length=4)[0]

  # Once, since it is always the same: [5, 7] by [7, 5]. Then 4 times [3, 5] by
  # [5, 5].
  found = flops.count_flops(jax.make_jaxpr(loop)(a, b).jaxpr)
  assert found == 2 * 5 * 7 * 5 + 4 * 2 * 3 * 5 * 5


def test_flops_of_a_training_step():
  agent = ensemble.make_agent(ensemble.EnsembleConfig(
      num_ensemble=3, hidden_sizes=(4, 3), batch_size=5))
  prior = base.PriorKnowledge((2,), 8, base.Gaussian(0.1))
  # 2 inputs, 4 and 3 hidden units: forward, where the first layer adds its
  # biases and the others multiply them with ones, gradients of the weights with
  # biases, and from the second layer on of the input, which has no ones.
  forward = 4 * 2 + 3 * 5 + 1 * 4
  weights = 4 * 3 + 3 * 5 + 1 * 4
  inputs = 3 * 4 + 1 * 3
  expected = 2 * 3 * 5 * (forward + weights + inputs)
  assert flops.step_flops(agent, prior) == expected
  # An epoch of eight points is one batch of eight, where draws are a hundred.
  for sampling, size in (('epochs', 8), ('replacement', 100)):
    large = dataclasses.replace(agent, batch_size=100, sampling=sampling)
    assert flops.step_flops(large, prior) == expected * size / 5


def test_flops_of_a_draw_are_those_of_its_forward_pass():
  network = mc_dropout.make_network(mc_dropout.McDropoutConfig(
      hidden_sizes=(4, 3)), (2,))
  prior = base.PriorKnowledge((2,), 8, base.Gaussian(0.1))
  # As above, but that every layer adds its biases.
  assert flops.draw_flops(network, prior, 7) == 2 * 7 * (4 * 2 + 3 * 4 + 1 * 3)
