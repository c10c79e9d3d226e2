"""Every network agent on every body: a contract, and limiting cases."""

import functools
import itertools

from compiled import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.agents import batch_ensemble
from enn_ensembles.agents import deep_sub_ensemble
from enn_ensembles.agents import ensemble
from enn_ensembles.agents import layer_ensemble
from enn_ensembles.agents import map as map_agent
from enn_ensembles.agents import mc_dropout

KEY = jax.random.PRNGKey(0)
RNG = np.random.default_rng(0)
SHAPE, CLASSES = (8, 8, 1), 3
X = RNG.normal(size=(5, *SHAPE)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0], np.int32)
PRIOR = base.PriorKnowledge(SHAPE, 5, base.Categorical(CLASSES))


def tiny_resnet(norm):
  return networks.make_resnet((1, 1), (4, 6), CLASSES, norm)


BODIES = {
    'mlp': {'body': 'mlp', 'hidden_sizes': (4,)},
    'small_cnn': {'body': 'small_cnn'},
    'resnet': {'body': tiny_resnet('group')},
    'resnet_batch': {'body': tiny_resnet('batch')},
}
# Norms by groups where the method cannot have batch norms: it is one or other.
SKIPPED = [(name, 'resnet') for name in (
    'batch_ensemble', 'deep_sub_ensemble', 'ensemble', 'map', 'mc_dropout',
    'mixture_of_experts')]
FEW = {
    'bbb': {'num_index_samples': 3},
    'hypermodel': {'index_dim': 4, 'samples_per_dim': 1},
    'vnn': {'num_index_samples': 3, 'activation_mode': 'end'},
    'layer_ensemble': {'num_options': 2, 'num_index_samples': 2},
    'mixture_of_experts': {'num_experts': 2},
    **dict.fromkeys(('batch_ensemble', 'deep_sub_ensemble', 'ensemble'),
                    {'num_ensemble': 2})}
# Those that train no network of layers have no body.
NAMES = [name for name in agents_lib.agent_names()
         if name not in ('exact_posterior', 'prior_only', 'random_features')]
# What a method cannot serve, by the line that says so.
REFUSED = {
    **{(name, 'resnet_batch'): f"{name} cannot serve body 'resnet' with norm "
                               "'batch'"
       for name in ('bbb', 'hypermodel', 'layer_ensemble')},
    **{('mean_variance_ensemble', body): 'needs a Gaussian likelihood'
       for body in BODIES},
    ('vnn', 'resnet'): "vnn cannot serve body 'resnet'",
    ('vnn', 'resnet_batch'): "vnn cannot serve body 'resnet'",
}


@functools.lru_cache(None)
def make_agent(name, body, **settings):
  return agents_lib.from_settings(
      name, {**FEW.get(name, {}), **BODIES[body], 'num_batches': 2,
             'batch_size': 4, **settings})


def with_marks(pair):
  # Images take longer to compile than vectors, and residual networks much
  # longer: the quick tests have one agent on images.
  quick = pair[1] == 'mlp' or pair in REFUSED or pair == ('ensemble',
                                                          'small_cnn')
  return pytest.param(*pair, marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize('name, body', [
    with_marks(pair) for pair in itertools.product(NAMES, BODIES)
    if pair not in SKIPPED])
def test_every_agent_learns_on_every_body_or_says_why_not(name, body):
  agent = make_agent(name, body)
  if (name, body) in REFUSED:
    with pytest.raises(ValueError, match=REFUSED[name, body]) as refusal:
      agent.make_network(PRIOR)
    assert '\n' not in str(refusal.value)
    return
  network, loss = agent.make_network(PRIOR), agent.make_loss(PRIOR)
  batch = base.Batch(jnp.asarray(X), jnp.asarray(LABELS), jnp.arange(5))

  @jax.jit
  def start():
    params, state = network.init(KEY, batch.x[:1], network.indexer(KEY))
    context = loss.prepare(network, params, state, base.Data(X, LABELS), KEY)
    indices = jax.vmap(network.indexer)(jax.random.split(KEY, 3))
    return params, state, context, indices

  @jax.jit
  def evaluate(params, state, context):
    return jax.value_and_grad(lambda params: loss.evaluate(
        network, params, state, context, batch, KEY), has_aux=True)(params)

  @jax.jit
  def predict(params, state, indices):
    out, _ = base.apply_indices(network, params, state, batch.x, indices)
    one, _ = network.apply(params, state, batch.x,
                           jax.tree.map(lambda z: z[1], indices))
    return base.get_predictions(out), base.get_predictions(one)

  params, state, context, indices = jax.tree.map(np.asarray, start())
  out, one = predict(params, state, indices)
  # A gradient step, of a thousandth of the loss where that is linear.
  (before, (after_state, _)), gradients = evaluate(params, state, context)
  squared = sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradients))
  moved = jax.tree.map(lambda p, g: p - 1e-3 * before / squared * g, params,
                       gradients)
  (after, _), _ = evaluate(moved, state, context)
  assert out.shape == (3, 5, CLASSES) and one.shape == (5, CLASSES)
  np.testing.assert_allclose(out[1], one, rtol=1e-3, atol=1e-4)
  for leaf in jax.tree.leaves((out, gradients, after_state)):
    assert np.all(np.isfinite(leaf))
  assert after < before  # The same draws: the gradient leads down.
  changed = [bool(np.any(a != b)) for a, b in zip(
      jax.tree.leaves(state), jax.tree.leaves(after_state), strict=True)]
  assert any(changed) == (body == 'resnet_batch')


def test_an_ensemble_of_cnns_learns_from_its_call():
  agent = make_agent('ensemble', 'small_cnn', num_batches=3)
  sampler = agent(base.Data(X, LABELS), PRIOR, KEY)
  out = sampler(X, KEY)
  assert out.shape == (5, CLASSES) and np.all(np.isfinite(out))


# Limiting cases. ---------------------------------------------------------


CNN = {'body': 'small_cnn', 'prior_scale': 0.}


def outputs(network, weights, state=None):
  params, _ = jax.eval_shape(
      lambda x: network.init(KEY, x, network.indexer(KEY)), X[:1])
  (module,) = params
  named = weights if isinstance(weights, dict) else {
      f'w_{i}': w for i, w in enumerate(weights)}
  assert {k: v.shape for k, v in named.items()} == {
      k: v.shape for k, v in params[module].items()}
  out, _ = compiled(network).apply_indices({module: named}, state or {}, X,
                                           None)
  return base.get_predictions(out)


def make_weights(num):
  """Weights of `num` small CNNs, [num, out, columns] each."""
  rng = np.random.default_rng(num)
  body = networks.make_body('small_cnn', SHAPE, CLASSES)
  return [rng.normal(size=(num, shape.out, shape.columns))
          / shape.columns ** 0.5 for shape in body.weight_shapes(SHAPE)]


@functools.lru_cache(None)
def one_by_one():
  """Three small CNNs, each as the single network of `map`."""
  network = map_agent.make_network(
      map_agent.MapConfig(body='small_cnn'), SHAPE, CLASSES)
  return np.concatenate([
      outputs(network, [w[k:k + 1] for w in make_weights(3)])
      for k in range(3)])


check = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def test_deep_ensemble_is_its_networks():
  network = ensemble.make_network(
      ensemble.EnsembleConfig(num_ensemble=3, **CNN), PRIOR)
  check(outputs(network, make_weights(3)), one_by_one())


def test_sub_ensemble_without_trunk_is_a_deep_ensemble():
  network = deep_sub_ensemble.make_network(
      deep_sub_ensemble.DeepSubEnsembleConfig(
          num_ensemble=3, num_shared_layers=0, **CNN), SHAPE, CLASSES)
  check(outputs(network, make_weights(3)), one_by_one())


def test_sub_ensemble_shares_its_trunk():
  network = deep_sub_ensemble.make_network(
      deep_sub_ensemble.DeepSubEnsembleConfig(
          num_ensemble=3, num_shared_layers=2, **CNN), SHAPE, CLASSES)
  weights = make_weights(3)
  trunk = [w[:1] for w in weights[:2]]
  single = map_agent.make_network(
      map_agent.MapConfig(body='small_cnn'), SHAPE, CLASSES)
  expected = [outputs(single, [*trunk, *(w[k:k + 1] for w in weights[2:])])[0]
              for k in range(3)]
  check(outputs(network, [*trunk, *weights[2:]]), expected)


def test_diagonal_of_a_layer_ensemble_is_a_deep_ensemble():
  network = layer_ensemble.make_network(layer_ensemble.LayerEnsembleConfig(
      num_options=3, **CNN), SHAPE, CLASSES)
  params = {'layer_stack': {f'w_{i}': np.swapaxes(w, 0, 1)
                            for i, w in enumerate(make_weights(3))}}
  diagonal = np.arange(3)[:, None].repeat(5, 1)
  check(compiled(network).apply_indices(params, {}, X, diagonal)[0],
        one_by_one())


@pytest.mark.parametrize('module, config', [
    (ensemble, ensemble.EnsembleConfig(num_ensemble=1, **CNN)),
    (deep_sub_ensemble, deep_sub_ensemble.DeepSubEnsembleConfig(
        num_ensemble=1, num_shared_layers=2, **CNN)),
    (layer_ensemble, layer_ensemble.LayerEnsembleConfig(num_options=1, **CNN))])
def test_one_member_is_one_network(module, config):
  single = map_agent.make_network(
      map_agent.MapConfig(body='small_cnn'), SHAPE, CLASSES)
  expected = outputs(single, make_weights(1))
  place = (PRIOR,) if module is ensemble else (SHAPE, CLASSES)
  weights = make_weights(1)
  if module is layer_ensemble:  # [out, options, columns]
    weights = [np.swapaxes(w, 0, 1) for w in weights]
  check(outputs(module.make_network(config, *place), weights), expected)


def make_fast(num, ones):
  """W, r, s, b of a small CNN's layers by name; r and s are 1, or random."""
  rng = np.random.default_rng(7)
  named = {}
  for i, (w, channels) in enumerate(zip(make_weights(1), (1, 16, 32, 32, 32))):
    out = w.shape[1]
    named[f'w_{i}'] = w[0, :, :-1]
    named[f'b_{i}'] = w[:, :, -1:].repeat(num, 0)
    for part, size in (('r', out), ('s', channels)):
      named[f'{part}_{i}'] = (np.ones((num, size)) if ones else
                              rng.normal(size=(num, size)))
  return named


def make_batch_network(num, **settings):
  return batch_ensemble.make_network(batch_ensemble.BatchEnsembleConfig(
      num_ensemble=num, **CNN, **settings), SHAPE, CLASSES)


def test_batch_ensemble_of_ones_is_one_network():
  single = map_agent.make_network(
      map_agent.MapConfig(body='small_cnn'), SHAPE, CLASSES)
  expected = outputs(single, make_weights(1))
  for num in (1, 3):
    check(outputs(make_batch_network(num), make_fast(num, ones=True)),
          np.repeat(expected, num, 0))


def effective_weights(named, member):
  """W o (r s^T) with s repeated at every position of the window, by loops."""
  found = []
  for i in range(5):
    w = named[f'w_{i}'].copy()
    channels = named[f's_{i}'].shape[1]
    for out, column in np.ndindex(w.shape):
      w[out, column] *= (named[f'r_{i}'][member, out]
                         * named[f's_{i}'][member, column % channels])
    found.append(np.concatenate([w, named[f'b_{i}'][member]], -1)[None])
  return found


def test_batch_ensemble_multiplies_weights_by_their_channels():
  named = make_fast(2, ones=False)
  single = map_agent.make_network(
      map_agent.MapConfig(body='small_cnn'), SHAPE, CLASSES)
  check(outputs(make_batch_network(2), named),
        [outputs(single, effective_weights(named, k))[0] for k in range(2)])


def with_plain_member(named):
  """The same, the fast weights of member 0 being 1."""
  return {name: (np.concatenate([np.ones((1, value.shape[1])), value[1:]])
                 if name[0] in 'rs' else value)
          for name, value in named.items()}


@pytest.mark.parametrize('plain_member', [False, True])
def test_batch_ensemble_decays_the_weights_that_its_members_have(plain_member):
  named = make_fast(3, ones=False)
  found = batch_ensemble.mean_squares({'batch_ensemble_small_cnn': named},
                                      plain_member)
  if plain_member:
    named = with_plain_member(named)
  members = [effective_weights(named, k) for k in range(3)]
  for i, squares in enumerate(found):
    np.testing.assert_allclose(
        squares, np.mean([np.square(member[i][0]) for member in members], 0),
        rtol=1e-5)


def test_batch_ensemble_with_a_plain_member_that_alone_trains_the_weights():
  named = make_fast(3, ones=False)
  network = make_batch_network(3, plain_member=True,
                               train_shared_by_plain=True)
  check(outputs(network, named),
        outputs(make_batch_network(3), with_plain_member(named)))

  def loss(named, member):
    out, _ = network.apply_indices(
        {'batch_ensemble_small_cnn': named}, {}, X, None)
    return jnp.sum(jnp.square(out[member]))

  named = jax.tree.map(jnp.asarray, named)
  gradient = jax.jit(jax.grad(loss), static_argnums=1)
  plain, other = (gradient(named, member) for member in (0, 1))
  for i in range(5):
    assert np.any(plain[f'w_{i}'] != 0.) and not np.any(other[f'w_{i}'])
    assert not np.any(plain[f'r_{i}']) and not np.any(plain[f's_{i}'])
    assert np.any(other[f'r_{i}'][1] != 0.)
  # Nor does weight decay move them for the others' sake.
  decay = lambda named: batch_ensemble.mean_squares(
      {'batch_ensemble_small_cnn': named}, plain_member=True,
      train_shared_by_plain=True)
  found = jax.grad(lambda named: sum(map(jnp.sum, decay(named))))(named)
  for i in range(5):
    np.testing.assert_allclose(found[f'w_{i}'], 2 * named[f'w_{i}'] / 3,
                               rtol=1e-5)


@pytest.mark.parametrize('body, dropout_input', [
    ('small_cnn', True), ('resnet', False)])
def test_dropout_at_rate_zero_is_one_network(body, dropout_input):
  settings = {'body': BODIES[body]['body']}
  network = compiled(mc_dropout.make_network(mc_dropout.McDropoutConfig(
      dropout_rate=0., dropout_input=dropout_input, **settings), SHAPE,
                                             CLASSES))
  single = compiled(map_agent.make_network(map_agent.MapConfig(**settings),
                                           SHAPE, CLASSES))
  params, state = single.init(KEY, X[:1], 0)
  expected, _ = single.apply(params, state, X, 0)
  keys = jax.random.split(KEY, 2)
  out, _ = network.apply_indices(params, state, X, keys)
  check(out, np.stack([expected] * 2))
  trained, _ = network.apply_train(params, state, X,
                                   jax.random.split(KEY, len(X)), KEY)
  check(trained, expected[None])


def test_dropout_masks_belong_to_indices_and_in_training_to_examples():
  network = compiled(mc_dropout.make_network(mc_dropout.McDropoutConfig(
      dropout_rate=0.5, body='small_cnn'), SHAPE, CLASSES))
  x = np.repeat(X[:1], 4, axis=0)  # One example four times.
  params, state = network.init(KEY, x[:1], KEY)
  out, _ = network.apply_indices(params, state, x, jax.random.split(KEY, 3))
  np.testing.assert_allclose(out, np.repeat(out[:, :1], 4, 1), rtol=1e-5)
  assert len(np.unique(np.asarray(out[:, 0, 0]))) == 3
  trained, _ = network.apply_train(params, state, x, jax.random.split(KEY, 4),
                                   KEY)
  assert len(np.unique(np.asarray(trained[0, :, 0]))) == 4


@pytest.mark.parametrize('make', [
    lambda: ensemble.make_network(ensemble.EnsembleConfig(
        num_ensemble=2, body='mlp_dropout', hidden_sizes=(400,),
        prior_scale=0.), PRIOR),
    lambda: layer_ensemble.make_network(layer_ensemble.LayerEnsembleConfig(
        num_options=(2, 1), body='mlp_dropout', hidden_sizes=(400,),
        prior_scale=0.), SHAPE, CLASSES)])
def test_dropout_of_a_body_is_of_training_alone(make):
  network = make()
  x = np.repeat(X[:1], 100, axis=0)
  params, state = network.init(KEY, x[:1], jax.tree.map(
      lambda leaf: leaf[0], base.get_support(network.indexer)))
  (named,) = params.values()
  # Hidden units are 1, and outputs their sum: what training keeps, scaled.
  named = {name: np.zeros_like(w) for name, w in named.items()}
  named['w_0'][..., -1], named['w_1'][..., :-1] = 1., 1.
  params = dict.fromkeys(params, named)
  out, _ = network.apply_indices(params, state, x, None)
  np.testing.assert_allclose(out, 400.)
  trained, _ = network.apply_train(params, state, x, None, KEY)
  kept = np.asarray(trained)[..., 0] * 0.95
  np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
  # 80,000 Bernoulli draws: a std of 0.0008 of the share.
  np.testing.assert_allclose(kept.mean() / 400., 0.95, atol=0.004)
  # Members and examples have draws of their own: a std of 4.4 units.
  assert 3. < kept.std(axis=1).min() and kept.std(axis=1).max() < 6.
  assert np.any(kept[0] != kept[1])
