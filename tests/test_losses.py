"""Losses, their targets and their expectations, against the definitions."""

import dataclasses
import itertools

from compiled import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.agents import bbb
from enn_ensembles.agents import layer_ensemble
from enn_ensembles.agents import mc_dropout
from enn_ensembles.training import losses
from enn_ensembles.training import penalties
from enn_ensembles.training import regression

KEY = jax.random.PRNGKey(0)
RNG = np.random.default_rng(0)


def run_loss(loss, network, params, state, data, batch, key=KEY):
  """The value, and its gradient by the parameters, as one program."""
  def run(params, state):
    context = loss.prepare(network, params, state, data, KEY)
    return jax.value_and_grad(lambda params: loss.evaluate(
        network, params, state, context, batch, key)[0])(params)

  return jax.tree.map(np.asarray, jax.jit(run)(params, state))


def make_batch(data, rows):
  rows = np.asarray(rows)
  return base.Batch(data.x[rows], data.y[rows], rows)


def zero_network(indexer):
  """f(x, z) = theta, [J, B, 1], whatever x and z are: a probe of targets."""
  def apply_indices(params, state, x, indices):
    num = len(base.get_support(indexer) if indices is None else indices)
    return jnp.zeros((num, len(x), 1)) + params[:, None], state

  return base.EpistemicNetwork(None, None, indexer, apply_indices)


@dataclasses.dataclass(frozen=True)
class FixedIndexer:
  """Always the index z, which is its own embedding."""
  z: tuple[float, ...]

  def __call__(self, key):
    return jnp.asarray(self.z)

  @property
  def noise_dim(self):
    return len(self.z)

  def noise_embedding(self, indices):
    return indices


def probe_targets(indexer, noise_std, data, key=KEY):
  """The target of every data point under a FixedIndexer, [T].

  The gradient of mean_t (theta_t - target_t)^2 at theta = 0 says it.
  """
  network = zero_network(indexer)
  loss = regression.make_loss(noise_std, num_index_samples=2)
  theta = jnp.zeros(len(data.y))

  @jax.jit
  def run(theta):
    context = loss.prepare(network, theta, (), data, key)
    return jax.grad(lambda theta: loss.evaluate(
        network, theta, (), context, make_batch(data, range(len(data.y))),
        KEY)[0])(theta)

  return -0.5 * len(data.y) * np.asarray(run(theta))


def zero_data(num):
  return base.Data(np.zeros((num, 1)), np.zeros((num, 1)))


def ensemble_targets(indexer, num=20_000, noise_std=0.3, key=KEY):
  network = zero_network(indexer)
  loss = regression.make_loss(noise_std)
  offsets = jax.jit(lambda: loss.prepare(
      network, jnp.zeros(num), (), zero_data(num), key).offsets)()
  return -np.asarray(offsets)[..., 0]  # Taken off the prediction.


def test_target_noise_is_normal_and_independent_across_members():
  noise = ensemble_targets(networks.EnsembleIndexer(3)) / 0.3
  assert noise.shape == (20_000, 3)
  for member in range(3):
    assert scipy.stats.kstest(noise[:, member], 'norm').pvalue > 1e-3
  correlations = np.corrcoef(noise.T)[np.triu_indices(3, 1)]
  assert np.max(np.abs(correlations)) < 4. / np.sqrt(20_000)
  # Independent across data points as well.
  assert abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < (
      4. / np.sqrt(20_000))
  other = ensemble_targets(networks.EnsembleIndexer(3),
                           key=jax.random.PRNGKey(1))
  assert not np.any(noise[:50] == other[:50] / 0.3)


def test_target_noise_of_layer_ensembles_by_combination_or_first_option():
  options = (2, 2, 3)
  noise = ensemble_targets(
      layer_ensemble.LayerEnsembleIndexer(options, 'combination'), num=5000)
  correlations = np.corrcoef(noise.T)[np.triu_indices(12, 1)]
  assert np.max(np.abs(correlations)) < 5. / np.sqrt(5000)
  shared = ensemble_targets(
      layer_ensemble.LayerEnsembleIndexer(options, 'first_option'), num=5000)
  combinations = list(itertools.product(range(2), range(2), range(3)))
  for i, j in itertools.combinations(range(12), 2):
    same = combinations[i][0] == combinations[j][0]
    assert np.array_equal(shared[:, i], shared[:, j]) == same
  for column in (*noise.T, *shared.T):
    assert scipy.stats.kstest(column / 0.3, 'norm').pvalue > 1e-4


def test_target_noise_of_an_infinite_index_is_linear_in_it():
  data = zero_data(5000)
  targets = {z: probe_targets(FixedIndexer(z), 0.3, data)
             for z in ((1., 0.), (0., 1.), (0.6, -0.8))}
  for noise in targets.values():  # |z| = 1: unit variance.
    assert scipy.stats.kstest(noise / 0.3, 'norm').pvalue > 1e-3
  np.testing.assert_allclose(
      targets[0.6, -0.8], 0.6 * targets[1., 0.] - 0.8 * targets[0., 1.],
      atol=1e-12)


def test_target_noise_is_fixed_by_its_key_and_zero_without_a_scale():
  data = base.Data(np.zeros((5, 1)), np.arange(5.)[:, None])
  one, same, other = (
      probe_targets(FixedIndexer((1.,)), 0.3, data, jax.random.PRNGKey(seed))
      for seed in (0, 0, 1))
  np.testing.assert_array_equal(one, same)
  assert not np.any(one == other)
  plain = probe_targets(FixedIndexer((1.,)), 0., data)
  np.testing.assert_allclose(plain, np.arange(5.), atol=1e-12)


@pytest.fixture(name='problem', scope='module')
def make_problem():
  """A small ensemble with a prior, its data, and a batch with repeats."""
  members = lambda: networks.make_member_network((4, 1), 3)
  network = compiled(networks.with_additive_prior(members(), members(), 2.))
  data = base.Data(RNG.standard_normal((9, 2)), RNG.standard_normal((9, 1)))
  params, state = network.init(KEY, data.x[:1], 0)
  return network, params, state, data, make_batch(data, [4, 0, 4, 8])


def test_squared_error_over_members_data_and_fixed_noise(problem):
  network, params, state, data, batch = problem
  loss = regression.make_loss(0.5)
  # The very draws: prepare's only key, one per (data point, member).
  noise = np.asarray(jax.random.normal(KEY, (9, 3), jnp.float64))
  errors = []
  for member in range(3):
    for row in batch.data_index:
      out, _ = network.apply(params, state, data.x[row][None], member)
      errors.append(out.preds[0, 0] - data.y[row, 0]
                    - 0.5 * noise[row, member])
  expected = sum(e ** 2 for e in errors) / 12
  value, _ = run_loss(loss, network, params, state, data, batch)
  np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_drawn_members_are_unbiased(problem):
  network, params, state, data, batch = problem
  full = regression.make_loss(0.5)
  drawn = regression.make_loss(0.5, num_index_samples=2)
  expected, _ = run_loss(full, network, params, state, data, batch)

  @jax.jit
  def run(params, state):
    context, same = (loss.prepare(network, params, state, data, KEY)
                     for loss in (full, drawn))
    values = jax.vmap(lambda key: drawn.evaluate(
        network, params, state, context, batch, key)[0])(
            jax.random.split(KEY, 2000))
    return context.offsets, same.offsets, values

  offsets, same, values = run(params, state)
  np.testing.assert_array_equal(offsets, same)
  assert abs(np.mean(values) - expected) < 4 * np.std(values) / 2000 ** 0.5
  assert len(np.unique(np.round(values, 12))) == 6  # Pairs out of three.


@pytest.mark.parametrize('num_index_samples', [7, 23, 60])
def test_drawn_infinite_indices_are_a_plain_mean(num_index_samples):
  # 23 is one index per block, 60 three blocks of 20.
  indexer = networks.GaussianIndexer(2)
  network = base.EpistemicNetwork(
      apply=lambda params, state, x, z: (x @ (params @ z)[:, None], state),
      init=None, indexer=indexer)
  data = base.Data(RNG.standard_normal((6, 3)), RNG.standard_normal((6, 1)))
  params = RNG.standard_normal((3, 2))
  loss = regression.make_loss(
      0.5, num_index_samples=num_index_samples)
  batch = make_batch(data, [5, 5, 1])

  indices = np.asarray(losses.sample_indices(network, KEY, num_index_samples),
                       np.float64)
  noise = np.asarray(jax.random.normal(KEY, (6, 2), jnp.float64))
  value, gradient = 0., np.zeros((3, 2))
  for z in indices:
    for row in (5, 5, 1):
      target = data.y[row, 0] + 0.5 * noise[row] @ z / 2 ** 0.5
      error = data.x[row] @ np.asarray(params) @ z - target
      value += error ** 2 / (3 * num_index_samples)
      gradient += (2 * error * np.outer(data.x[row], z)
                   / (3 * num_index_samples))
  ours = run_loss(loss, network, params, (), data, batch)
  # Indices are float32.
  np.testing.assert_allclose(ours[0], value, rtol=1e-6)
  np.testing.assert_allclose(ours[1], gradient, rtol=1e-6, atol=1e-6)


def test_sampled_indices_are_different_draws():
  network = zero_network(networks.GaussianIndexer(1))
  one = losses.sample_indices(network, KEY, 5)
  assert len(np.unique(one)) == 5
  # The first ones are the same however many are drawn.
  np.testing.assert_array_equal(losses.sample_indices(network, KEY, 9)[:5],
                                one)


def test_indices_that_are_read_twice_are_drawn_once():
  """XLA draws numbers anew for every reader, unless a loop has made them."""
  network = zero_network(networks.GaussianIndexer(50))

  def read_twice(key):
    z = losses.sample_indices(network, key, 20)
    return jnp.sum(z @ z.T) + jnp.sum(jnp.cumsum(z, axis=1))

  equations = jax.make_jaxpr(read_twice)(KEY).jaxpr.eqns
  drawing = [equation.primitive.name for equation in equations
             if 'erf_inv' in str(equation)]
  assert drawing == ['scan']


@pytest.mark.parametrize('num_blocks', [1, 4])
def test_mean_over_blocks_is_the_mean(num_blocks):
  params = {'a': jnp.asarray(RNG.standard_normal(3)), 'b': jnp.asarray(2.)}
  blocks = (jnp.asarray(RNG.standard_normal((num_blocks, 3))),
            jnp.arange(num_blocks))
  shared = jnp.asarray(RNG.standard_normal(3))

  def block_loss(params, shared, block):
    return jnp.sum(jnp.tanh(params['a'] * block[0] + shared) ** 2
                   * params['b'] ** (block[1] + 1))

  def ours(params):
    return losses.mean_over_blocks(block_loss, params, shared, blocks) ** 2

  def plain(params):
    return (sum(block_loss(params, shared, (blocks[0][i], i))
                for i in range(num_blocks)) / num_blocks) ** 2

  np.testing.assert_allclose(ours(params), plain(params), rtol=1e-12)
  expected = jax.jit(jax.grad(plain))(params)
  for function in (jax.grad, lambda f: jax.jit(jax.grad(f))):
    for a, b in zip(*map(jax.tree.leaves, (function(ours)(params), expected)),
                    strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-11)


def test_gradients_of_blocks_have_the_dtype_of_the_parameters():
  # A network that computes in float64 inside may have float32 parameters.
  params, blocks = jnp.ones(3, jnp.float32), jnp.ones((2, 3), jnp.float64)
  gradient = jax.grad(lambda params: losses.mean_over_blocks(
      lambda params, shared, block: jnp.sum(params * block), params, (),
      blocks))(params)
  assert gradient.dtype == jnp.float32
  np.testing.assert_array_equal(gradient, np.ones(3))


def test_what_a_loss_cannot_do_is_said():
  data = zero_data(3)
  network = zero_network(networks.GaussianIndexer(2))
  with pytest.raises(ValueError, match='num_index_samples must be given'):
    regression.make_loss(0.1).prepare(
        network, jnp.zeros(3), (), data, KEY)
  network = zero_network(networks.PrngIndexer())
  with pytest.raises(ValueError, match='set noise_scale to 0'):
    regression.make_loss(0.1, num_index_samples=2).prepare(
        network, jnp.zeros(3), (), data, KEY)


def test_dropout_loss_is_the_expectation_over_all_masks():
  # Two inputs and two units at rate 0.3: sixteen masks.
  rate = 0.3
  config = mc_dropout.McDropoutConfig(dropout_rate=rate, hidden_sizes=(2,),
                                      first_bias_std=1.)
  network = compiled(mc_dropout.make_network(config))
  x, y = np.array([0.7, -1.2]), 0.4
  params, state = network.init(KEY, jnp.asarray(x)[None], KEY)
  w0, w1 = (np.asarray(w)[0] for w in params['stacked_mlp'].values())
  expected, square = 0., 0.
  for kept in itertools.product((0, 1), repeat=4):
    probability = np.prod([1 - rate if k else rate for k in kept])
    mask = np.array(kept) / (1 - rate)
    hidden = np.maximum(w0[:, :-1] @ (x * mask[:2]) + w0[:, -1], 0) * mask[2:]
    error = (w1[0, :-1] @ hidden + w1[0, -1] - y) ** 2
    expected += probability * error
    square += probability * error ** 2
  num = 20_000
  batch = base.Batch(np.tile(x, (num, 1)), np.full((num, 1), y),
                     np.zeros(num, np.int32))
  loss = regression.make_per_example_loss()
  value, _ = run_loss(loss, network, params, state, None, batch)
  standard_error = np.sqrt((square - expected ** 2) / num)
  assert standard_error < 0.05 * expected
  assert abs(value - expected) < 4 * standard_error


def test_weight_decay_adds_the_sum_of_squares(problem):
  network, params, state, data, batch = problem
  plain = regression.make_loss()
  decayed = penalties.add_l2_weight_decay(plain, 0.7)
  value, gradient = (run_loss(loss, network, params, state, data, batch)
                     for loss in (decayed, plain))
  squares = sum(float(np.sum(np.square(p))) for p in jax.tree.leaves(params))
  np.testing.assert_allclose(value[0] - gradient[0], 0.7 * squares, rtol=1e-10)
  for a, b, p in zip(*map(jax.tree.leaves, (value[1], gradient[1], params))):
    np.testing.assert_allclose(a - b, 1.4 * p, atol=1e-12)


def test_elbo_is_the_gaussian_likelihood_and_the_divergence():
  network = zero_network(networks.GaussianIndexer(1))
  data = base.Data(np.zeros((4, 1)), RNG.standard_normal((4, 1)))
  batch = make_batch(data, range(4))
  noise_std, num_train = 0.3, 25
  loss = regression.make_elbo_loss(noise_std, num_train,
                               lambda params: jnp.sum(params ** 4), 2)

  @jax.jit
  def negative_elbo(theta):
    context = loss.prepare(network, theta, (), data, KEY)
    return loss.evaluate(network, theta, (), context, batch, KEY)[0]

  theta = jnp.asarray(RNG.standard_normal(4))
  likelihood = scipy.stats.norm(theta, noise_std).logpdf(data.y[:, 0])
  constant = np.log(noise_std * np.sqrt(2 * np.pi))  # Left out of the loss.
  np.testing.assert_allclose(
      negative_elbo(theta),
      -np.mean(likelihood) - constant + np.sum(theta ** 4) / num_train,
      rtol=1e-10)


def test_bbb_divergence_is_that_of_its_gaussians():
  sigma_0, mu, rho = 3., np.array([0.5, -4., 0.]), np.array([-2., 1., 0.3])
  divergence = bbb.weight_divergence(
      {'gaussian_weights': {'mu': jnp.asarray(mu), 'rho': jnp.asarray(rho)}},
      sigma_0)
  prior = scipy.stats.norm(0., sigma_0)
  expected = 0.
  for m, r in zip(mu, rho):
    # The posterior of a weight: mean mu, std sigma_0 softplus(rho).
    q = scipy.stats.norm(m, sigma_0 * np.log1p(np.exp(r)))
    expected += q.expect(lambda w, q=q: q.logpdf(w) - prior.logpdf(w),
                         lb=m - 12 * q.std(), ub=m + 12 * q.std())
  np.testing.assert_allclose(divergence, expected, rtol=1e-6)
