"""The mixture of experts: the slow formula, its limits, and what it is not."""

import jax
import numpy as np
import pytest
from scipy import special

from enn_ensembles import base
from enn_ensembles.agents import mixture_of_experts
from enn_ensembles.scoring import gaussian
from enn_ensembles.training import sampler_predictions

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 2))
KEY = jax.random.PRNGKey(0)
PRIORS = [base.PriorKnowledge((2,), 6, likelihood)
          for likelihood in (base.Gaussian(0.1), base.Categorical(3))]


def make_config(**settings):
  return mixture_of_experts.MixtureOfExpertsConfig(**{
      **dict(num_experts=4, hidden_sizes=(5,)), **settings})


def parts_and_whole(config, prior):
  """Outputs of experts [K, B, out], of the gate [B, K], and of the whole."""
  network = mixture_of_experts.make_network(config, prior)
  params, state = network.init(KEY, X, 0)
  experts, gate = mixture_of_experts.make_parts(config, prior)
  outputs, _ = base.apply_indices(experts, params['experts'], state, X, None)
  of_gate, _ = base.apply_indices(gate, params['gate'], {}, X, None)
  whole, _ = base.apply_indices(network, params, state, X, None)
  return np.asarray(outputs), np.asarray(of_gate[0]), np.asarray(whole)


@pytest.mark.parametrize('num_active', [None, 1, 2])
@pytest.mark.parametrize('prior', PRIORS)
def test_experts_are_mixed_by_the_gate(prior, num_active):
  outputs, of_gate, whole = parts_and_whole(
      make_config(num_active=num_active, gate_sizes=(3,)), prior)
  assert whole.shape == (1, 6, prior.num_outputs)
  for b in range(6):
    kept = np.argsort(of_gate[b])[-(num_active or 4):]
    weights = special.softmax(of_gate[b, kept])
    if isinstance(prior.likelihood, base.Categorical):
      expected = np.log(weights @ special.softmax(outputs[kept, b], axis=-1))
    else:
      expected = weights @ outputs[kept, b]
    np.testing.assert_allclose(whole[0, b], expected, rtol=1e-5, atol=1e-6)


def test_of_equal_experts_the_first_are_active():
  np.testing.assert_allclose(
      np.exp(mixture_of_experts.log_gate(np.zeros([2, 4]), 2)),
      [[0.5, 0.5, 0., 0.]] * 2, rtol=1e-6)


def test_one_expert_is_one_network():
  outputs, _, whole = parts_and_whole(make_config(num_experts=1), PRIORS[0])
  np.testing.assert_allclose(whole, outputs, rtol=1e-6)


def test_its_spread_is_no_posterior():
  agent = mixture_of_experts.make_agent(make_config(num_batches=3))
  sampler = agent(base.Data(X, X[:, :1]), PRIORS[0], KEY)
  found = sampler_predictions.predict(sampler, X, KEY, 10)
  assert found.num_samples == 1
  _, std = gaussian.prediction_moments(found)
  assert not std.any()


def test_more_active_experts_than_there_are_is_refused():
  with pytest.raises(ValueError, match='num_active must be at most num_experts '
                                       '4, got 5'):
    make_config(num_active=5)
