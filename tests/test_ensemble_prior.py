"""Prior networks of an ensemble can have the std of the kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_agents import KEY
from tiny_agents import make_agent

from enn_ensembles import base
from enn_ensembles.nngp import kernels


@pytest.mark.slow
@pytest.mark.parametrize('input_dim', [5, 100])
def test_prior_networks_of_an_ensemble_can_match_the_kernel(input_dim):
  """first_bias_std 'kernel': the std of the prior part is the kernel's."""
  x = np.random.default_rng(0).standard_normal((20, input_dim))
  x[0] = 0.  # Only the bias is seen here.
  std = np.sqrt(kernels.nngp_diag(kernels.KernelConfig(), x))
  ratios = {}
  for first_bias_std in (1., 'kernel'):
    network = make_agent(
        'ensemble', num_ensemble=2000, hidden_sizes=(50, 50),
        first_bias_std=first_bias_std).make_network(
            base.PriorKnowledge((input_dim,), 8, base.Gaussian(0.1)))
    x32 = jnp.asarray(x, jnp.float32)

    @jax.jit
    def start(network=network, x32=x32):
      params, state = network.init(KEY, x32[:1], 0)
      return base.split_output(base.apply_indices(
          network, params, state, x32, None)[0])[1]

    prior = np.asarray(start())[..., 0]
    ratios[first_bias_std] = np.sqrt(np.mean(prior**2, axis=0)) / std
  # The std of a std from 2000 members is 2 to 3 percent; one of a network of
  # finite width is right exactly, since squares of ReLUs have no bias.
  np.testing.assert_allclose(ratios['kernel'], 1., atol=0.1)
  assert abs(ratios['kernel'].mean() - 1.) < 0.03
  assert ratios[1.][0] > 1.5 and ratios[1.][1:].mean() < 1.2
