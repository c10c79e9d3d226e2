"""Networks pass between this library and DeepMind's enn without an adapter.

DeepMind's enn is on GitHub only (github.com/google-deepmind/enn). The package
called enn on PyPI is something else, the Extended Nearest Neighbor method.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from enn_ensembles.agents import layer_ensemble

try:
  # The unrelated enn has neither; theirs may lack what it imports itself.
  import enn.datasets as enn_datasets
  import enn.loggers as enn_loggers
  import enn.losses as enn_losses
  import enn.networks as enn_networks
  import enn.supervised as enn_supervised
except (ImportError, AttributeError) as error:
  pytest.skip("DeepMind's enn (github.com/google-deepmind/enn) cannot be "
              f'imported: {error}', allow_module_level=True)

from enn_ensembles import base
from enn_ensembles import problems
from enn_ensembles.training import loop
from enn_ensembles.training import network_agent
from enn_ensembles.training import prediction
from enn_ensembles.training import regression


@pytest.fixture(name='group', scope='module')
def make_group():
  """One seed, two noise levels."""
  return problems.make_problems([
      problems.ProblemConfig(3, 8., noise_std, 0, num_test=50, num_val=1)
      for noise_std in (0.1, 1.)])


def score(agent, trained, group, **options):
  """Scores of the first seed's problems."""
  prior = group[0].prior
  num_draws = prediction.num_index_draws(agent.make_network(prior), **options)
  predictor = prediction.Predictor(
      agent, trained, prior, problems.evaluation_key(0)[None], num_draws)
  return [problem.score(predictor.for_problem(0, e))
          for e, problem in enumerate(group)]


def make_theirs(num_steps):
  """Their ensembles of four, trained by our loop."""
  def make_network(prior):
    return enn_networks.MLPEnsembleMatchedPrior(
        output_sizes=[20, 1], dummy_input=jnp.ones((1, prior.input_dim)),
        num_ensemble=4, prior_scale=1.)
  return network_agent.NetworkAgent(
      make_network=make_network,
      make_loss=lambda prior: regression.make_loss(num_index_samples=4),
      optimizer=optax.adam(1e-2), num_batches=num_steps, batch_size=24)


def test_their_network_is_trained_and_scored_here(group):
  scores = {}
  for num_steps in (1, 300):
    agent = make_theirs(num_steps)
    trained = loop.train(
        agent, group[0].x_train[None],
        np.stack([problem.y_train for problem in group])[None],
        base.Gaussian(np.array([0.1, 1.])), problems.agent_key(0)[None])
    scores[num_steps] = score(agent, trained, group, num_enn_samples=40,
                              enumerate_indices=False)
  for e in range(2):
    assert np.isfinite(list(scores[300][e].values())).all()
  # At the low noise level it has learned something.
  assert scores[300][0]['mean_rmse'] < 0.5 * scores[1][0]['mean_rmse']


def test_their_einsum_network_forwards_here_as_there(group):
  network = enn_networks.make_ensemble_mlp_with_prior_enn(
      output_sizes=[5, 1], dummy_input=jnp.ones((1, 3)), num_ensemble=4,
      prior_scale=1., seed=0)
  x = jnp.asarray(group[0].x_test[:6])
  params, state = network.init(jax.random.PRNGKey(0), x, 0)
  out, _ = base.apply_indices(network, params, state, x, np.arange(4))
  for k in range(4):
    theirs, _ = network.apply(params, state, x, k)
    np.testing.assert_allclose(base.get_predictions(out)[k],
                               enn_networks.parse_net_output(theirs),
                               rtol=1e-6, atol=1e-6)


def test_our_network_is_trained_by_their_experiment(group):
  problem = group[0]
  config = layer_ensemble.LayerEnsembleConfig(num_options=2,
                                              hidden_sizes=(20,))
  network = layer_ensemble.make_network(config)
  batch = enn_datasets.ArrayBatch(
      x=jnp.asarray(problem.x_train), y=jnp.asarray(problem.y_train),
      data_index=jnp.arange(24)[:, None])

  def batches():
    while True:
      yield batch

  experiment = enn_supervised.Experiment(
      enn=network,
      loss_fn=enn_losses.average_single_index_loss(
          enn_losses.L2Loss(), num_index_samples=4),
      optimizer=optax.adam(1e-2), dataset=batches(), seed=0,
      logger=enn_loggers.TerminalLogger('experiment', time_delta=1e9))
  key = jax.random.PRNGKey(0)
  prior = jax.tree.map(np.asarray, experiment.state.network_state)
  before = float(experiment.loss(batch, key))
  experiment.train(300)
  assert float(experiment.loss(batch, key)) < 0.1 * before
  # The prior was part of the prediction, and was not trained.
  out, _ = network.apply(experiment.state.params,
                         experiment.state.network_state, batch.x,
                         network.indexer(key))
  assert isinstance(out, enn_networks.OutputWithPrior)
  assert np.std(out.prior) > 0.
  np.testing.assert_allclose(
      enn_networks.parse_net_output(experiment.predict(batch.x, key)),
      base.get_predictions(out), rtol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, prior,
               jax.tree.map(np.asarray, experiment.state.network_state))
  # What they trained is scored here.
  agent = layer_ensemble.make_agent(config)
  params, state = jax.tree.map(
      lambda a: jnp.asarray(a)[None, None],
      (experiment.state.params, experiment.state.network_state))
  trained = loop.Trained(params, state, np.zeros((1, 1)), 0,
                             jnp.dtype('float64'), 0., 0.)
  (scores,) = score(agent, trained, group[:1], num_enn_samples=40,
                    enumerate_indices=True)
  assert np.isfinite(scores['kl_estimate'])
  assert scores['mean_rmse'] < np.std(problem.test_mean)
