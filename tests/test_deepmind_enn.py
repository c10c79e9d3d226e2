"""Networks pass between this library and DeepMind's enn without an adapter.

DeepMind's enn is on GitHub only (github.com/google-deepmind/enn). The package
called enn on PyPI is something else, the Extended Nearest Neighbor method.
"""

import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from enn_ensembles.agents import layer_ensemble

try:
  # The unrelated enn has neither; theirs may lack what it imports itself.
  import enn.data_noise as enn_noise
  import enn.datasets as enn_datasets
  import enn.loggers as enn_loggers
  import enn.losses as enn_losses
  import enn.networks as enn_networks
  import enn.networks.epinet as enn_epinet
  import enn.supervised as enn_supervised
except (ImportError, AttributeError) as error:
  pytest.skip("DeepMind's enn (github.com/google-deepmind/enn) cannot be "
              f'imported: {error}', allow_module_level=True)

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import networks
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


# Every agent there, every network of theirs here, with their and our noise.

AGENTS = {
    'batch_ensemble': {'num_ensemble': 2}, 'bbb': {},
    'deep_sub_ensemble': {'num_ensemble': 2}, 'ensemble': {'num_ensemble': 2},
    'hypermodel': {'index_dim': 2}, 'layer_ensemble': {'num_options': 2},
    'map': {}, 'mc_dropout': {}, 'mean_variance_ensemble': {'num_ensemble': 2},
    'mixture_of_experts': {}, 'vnn': {}}


def our_network(name, prior):
  module = agents_lib.load_agent(name)
  agent = agents_lib.make_agent(
      module, agents_lib.make_config(module, {**AGENTS[name],
                                              'num_batches': 2}))
  return agent.make_network(prior)


def test_all_agents_that_train_networks_are_here(group):
  def trains_network(name):
    module = agents_lib.load_agent(name)
    return hasattr(agents_lib.make_agent(
        module, agents_lib.make_config(module, {})), 'make_network')

  assert set(AGENTS) == set(filter(trains_network, agents_lib.agent_names()))


def make_noise(kind, network):
  if kind == 'gaussian':
    return enn_noise.GaussianTargetNoise(network, 0.3)
  return enn_noise.BootstrapNoise(network, 'bernoulli')


def train_there(network, problem, kind, num_steps=3):
  """The losses before and after some steps of their experiment."""
  loss = enn_losses.L2Loss()
  if kind is not None:
    loss = enn_losses.add_data_noise(loss, make_noise(kind, network))
  batch = enn_datasets.ArrayBatch(
      x=jnp.asarray(problem.x_train, jnp.float32),
      y=jnp.asarray(problem.y_train, jnp.float32),
      data_index=jnp.arange(len(problem.x_train))[:, None])
  experiment = enn_supervised.Experiment(
      enn=network, loss_fn=enn_losses.average_single_index_loss(loss, 4),
      optimizer=optax.adam(1e-3), dataset=itertools.repeat(batch), seed=0,
      logger=enn_loggers.TerminalLogger('experiment', time_delta=1e9))
  key = jax.random.PRNGKey(0)
  before = float(experiment.loss(batch, key))
  experiment.train(num_steps)
  return before, float(experiment.loss(batch, key))


@pytest.mark.parametrize('kind', [None, 'gaussian', 'bootstrap'])
@pytest.mark.parametrize('name', sorted(AGENTS))
def test_our_agents_are_trained_there(group, name, kind):
  network = our_network(name, group[0].prior)
  if name == 'layer_ensemble' and kind is not None:
    # Their noise is of indices that are one number, or Gaussian.
    with pytest.raises(ValueError, match='Unsupported ENN|not implemented'):
      train_there(network, group[0], kind)
    network = networks.number_indices(network)
  if name == 'mc_dropout' and kind == 'gaussian':
    # A key says nothing of the noise: they refuse their own dropout too.
    for refused in (network, enn_networks.MLPDropoutENN([5, 1])):
      with pytest.raises(ValueError, match='Unsupported ENN'):
        train_there(refused, group[0], kind)
    return
  before, after = train_there(network, group[0], kind)
  assert np.isfinite([before, after]).all() and before != after


def relu_mlp(x):
  return hk.nets.MLP([5, 1])(x)


def their_networks():
  """name -> a function of one example x [1, D]."""
  plain = hk.without_apply_rng(hk.transform(relu_mlp))
  n = enn_networks
  return {
      'ensemble': lambda x: n.EnsembleWithState(
          hk.without_apply_rng(hk.transform_with_state(relu_mlp)), 3),
      'matched_prior': lambda x: n.MLPEnsembleMatchedPrior([5, 1], x, 3),
      'einsum': lambda x: n.make_einsum_ensemble_mlp_enn([5, 1], 3),
      'einsum_prior': lambda x: n.make_ensemble_mlp_with_prior_enn(
          [5, 1], x, 3),
      'hypermodel': lambda x: n.MLPHypermodel(
          plain, x, n.ScaledGaussianIndexer(4)),
      'hypermodel_prior': lambda x: n.MLPHypermodelWithHypermodelPrior(
          [5, 1], 1., x, n.ScaledGaussianIndexer(4), [5, 1], []),
      'hypermodel_independent':
          lambda x: n.MLPHypermodelPriorIndependentLayers(
              [5, 1], 1., x, n.ScaledGaussianIndexer(4), [5, 1], []),
      'bbb': lambda x: n.make_bbb_enn([5, 1], x),
      'index_mlp': lambda x: n.IndexMLPEnn([5, 1], 4),
      'index_mlp_gp': lambda x: n.IndexMLPWithGpPrior([5, 1], x.shape[1], 3, 5),
      'epinet': lambda x: enn_epinet.make_mlp_epinet(
          [5, 1], epinet_hiddens=[5], index_dim=4),
      'dropout': lambda x: n.MLPDropoutENN([5, 1]),
      'gaussian': lambda x: n.GaussianNoiseMLP([5, 1]),
  }


@pytest.mark.parametrize('noise_scale', [0., 1.])
@pytest.mark.parametrize('name', sorted(their_networks()))
def test_their_networks_are_trained_and_scored_here(group, name, noise_scale):
  agent = network_agent.NetworkAgent(
      make_network=lambda prior: their_networks()[name](
          jnp.ones((1, prior.input_dim), jnp.float32)),
      make_loss=lambda prior: regression.make_loss(
          noise_scale * prior.noise_std if noise_scale else 0.,
          num_index_samples=2),
      optimizer=optax.adam(1e-3), num_batches=2, batch_size=8)

  def train():
    return loop.train(
        agent, group[0].x_train[None], group[0].y_train[None, None],
        base.Gaussian(np.array([0.1])), problems.agent_key(0)[None])

  if noise_scale and name in ('dropout', 'gaussian'):
    with pytest.raises(ValueError, match='needs an indexer with noise_embedd'):
      train()
    return
  trained = train()
  (scores,) = score(agent, trained, group[:1], num_enn_samples=20,
                    enumerate_indices=True)
  assert np.isfinite(scores['kl_estimate'])
  draws = prediction.num_index_draws(agent.make_network(group[0].prior), 20,
                                     True)
  finite = name in ('ensemble', 'matched_prior', 'einsum', 'einsum_prior')
  assert draws == (None if finite else 20)  # Ensembles are enumerated.
