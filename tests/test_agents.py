"""What every agent keeps to, and the limiting cases that tie them together."""

import dataclasses
import functools
import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.agents import batch_ensemble
from enn_ensembles.agents import bbb
from enn_ensembles.agents import deep_sub_ensemble
from enn_ensembles.agents import ensemble
from enn_ensembles.agents import hypermodel
from enn_ensembles.agents import layer_ensemble
from enn_ensembles.agents import map as map_agent
from enn_ensembles.agents import mc_dropout
from enn_ensembles.nngp import kernels
from enn_ensembles.training import loop
from enn_ensembles.training import program

RNG = np.random.default_rng(0)
KEY = jax.random.PRNGKey(0)
HIDDEN = (4, 3)
X = jnp.asarray(RNG.standard_normal((5, 2)))

NAMES = agents_lib.agent_names()
AUDITS = ('exact_posterior', 'prior_only')
UNTRAINED = (*AUDITS, 'random_features')
NETWORKS = [name for name in NAMES if name not in UNTRAINED]
# One hidden layer: compiling is nearly all of the time.
TINY = {'hidden_sizes': (4,), 'num_batches': 6, 'batch_size': 4}
FEW = {
    'bbb': {'num_index_samples': 3},
    'hypermodel': {'index_dim': 4, 'samples_per_dim': 2},
    'layer_ensemble': {'num_options': 2},
    'random_features': {'num_ensemble': 3, 'width': 8},
    'vnn': {'num_index_samples': 3},
    'mixture_of_experts': {'num_experts': 3},
    **dict.fromkeys(('batch_ensemble', 'deep_sub_ensemble', 'ensemble',
                     'mean_variance_ensemble'), {'num_ensemble': 3})}


def make_config(name, **settings):
  tiny = {**({} if name in UNTRAINED else TINY), **FEW.get(name, {})}
  return agents_lib.make_config(agents_lib.load_agent(name),
                                {**tiny, **settings})


def make_agent(name, **settings):
  module = agents_lib.load_agent(name)
  return agents_lib.make_agent(module, make_config(name, **settings))


@functools.lru_cache(None)
def make_network(name, **settings):
  """The agent's network, float64 parameters, and five of its indices."""
  network = make_agent(name, **settings).make_network(
      base.PriorKnowledge((2,), 8, base.Gaussian(0.1)))

  @jax.jit
  def start():
    params, state = network.init(KEY, X[:1], network.indexer(KEY))
    return params, state, jax.vmap(network.indexer)(jax.random.split(KEY, 5))

  return network, *jax.tree.map(np.asarray, start())


def predict(network, params, state, indices, x=X):
  """[J, 5, 1] by one program, in which the indices are what they are here."""
  return np.asarray(jax.jit(lambda params, state: base.get_predictions(
      base.apply_indices(network, params, state, x, indices)[0]))(
          params, state))


# Two seeds by two noise levels, for the batched path; [1, 1] is one problem.
DATA_X = RNG.standard_normal((2, 8, 2))
DATA_Y = RNG.standard_normal((2, 2, 8, 1))
NOISE_STDS = np.array([0.1, 1.])
KEYS = jnp.stack([jax.random.PRNGKey(seed) for seed in (1, 2)])
PRIOR = base.PriorKnowledge((2,), 8, base.Gaussian(1.), kernels.KernelConfig())
DATA = base.Data(DATA_X[1], DATA_Y[1, 1])


@functools.lru_cache(None)
def make_sampler(name):
  """The plain path: one problem in, a sampler out."""
  return make_agent(name)(DATA, PRIOR, KEYS[1])


# Every agent. ------------------------------------------------------------


def test_all_agents_are_found():
  assert NAMES == ['batch_ensemble', 'bbb', 'deep_sub_ensemble', 'ensemble',
                   'exact_posterior', 'hypermodel', 'layer_ensemble', 'map',
                   'mc_dropout', 'mean_variance_ensemble', 'mixture_of_experts',
                   'prior_only', 'random_features', 'vnn']


@pytest.mark.parametrize('name', NAMES)
def test_samples_are_functions_of_their_key(name):
  sampler = make_sampler(name)
  x = np.asarray(X)
  draws = [np.asarray(sampler(x, key)) for key in jax.random.split(KEY, 6)]
  for draw in draws:
    assert draw.shape == (5, 1) and np.all(np.isfinite(draw))
  again = np.asarray(sampler(x, jax.random.split(KEY, 6)[3]))
  np.testing.assert_array_equal(again, draws[3])
  num_different = len({draw.tobytes() for draw in draws})
  has_one = name in ('map', 'mixture_of_experts')
  assert num_different == 1 if has_one else num_different > 1
  np.testing.assert_allclose(sampler(x[:3], KEY), sampler(x, KEY)[:3],
                             rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', NETWORKS)
def test_the_batched_path_trains_what_the_plain_path_trains(name):
  agent = make_agent(name)
  trained = loop.train(agent, DATA_X, DATA_Y, base.Gaussian(NOISE_STDS),
                       KEYS)
  network = agent.make_network(PRIOR)
  params, state = jax.tree.map(lambda a: a[1, 1],
                               (trained.params, trained.state))
  sampler, x = make_sampler(name), X.astype(jnp.float32)
  predict = jax.jit(lambda key: base.get_predictions(
      network.apply(params, state, x, network.indexer(key))[0]))
  for key in jax.random.split(KEY, 4):
    np.testing.assert_allclose(sampler(X, key), predict(key), rtol=1e-4,
                               atol=1e-4)
  assert trained.num_params == sum(p.size for p in jax.tree.leaves(params))
  for leaf in jax.tree.leaves((trained.params, trained.state)):
    assert leaf.dtype == jnp.float32 and np.all(np.isfinite(leaf))
  # Training changed something, and the seeds differ.
  initial, _ = jax.jit(lambda: network.init(
      jax.random.fold_in(KEYS[1], program.INIT_KEY), x[:1],
      network.indexer(KEY)))()
  changed = [np.any(np.asarray(a) != b) for a, b in zip(
      jax.tree.leaves(params), jax.tree.leaves(initial))]
  assert all(changed)
  assert all(not np.array_equal(p[0, 0], p[1, 0])
             for p in jax.tree.leaves(trained.params))


def walk_equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(list(equation.params.values()),
                                 is_leaf=lambda v: hasattr(v, 'eqns')):
      if hasattr(value, 'eqns'):
        yield from walk_equations(value)


@pytest.mark.parametrize('name', NETWORKS)
def test_steps_in_float32_compute_no_array_in_float64(name):
  shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  traced = program.trace_problem(make_agent(name), program.Inputs(
      shape((8, 2)), shape((8, 1)), base.Gaussian(shape(())),
      jax.eval_shape(lambda: KEY)))
  progress = traced.progress
  assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(
      (progress.params, progress.state, progress.losses, traced.constants)))
  double = [v.aval for equation in walk_equations(traced.step)
            for v in equation.outvars
            if getattr(v.aval, 'dtype', None) == jnp.float64 and v.aval.shape]
  assert not double


@pytest.mark.parametrize('name', NETWORKS)
def test_one_index_is_a_row_of_many(name):
  network, params, state, indices = make_network(name)
  many, _ = base.apply_indices(network, params, state, X, indices)
  compiled, _ = jax.jit(functools.partial(base.apply_indices, network))(
      params, state, X, indices)
  many, compiled = (np.asarray(base.get_predictions(out))
                    for out in (many, compiled))
  assert many.shape == (5, 5, 1)
  np.testing.assert_allclose(compiled, many, rtol=1e-10, atol=1e-12)
  apply = jax.jit(network.apply)
  for j in range(5):
    z = jax.tree.map(lambda a, j=j: a[j], indices)
    one, _ = apply(params, state, X, z)
    np.testing.assert_allclose(base.get_predictions(one), many[j], rtol=1e-9,
                               atol=1e-11)


@pytest.mark.parametrize('name', NETWORKS)
def test_all_indices_come_in_the_order_of_the_support(name):
  network, params, state, _ = make_network(name)
  support = base.get_support(network.indexer)
  if name in ('bbb', 'hypermodel', 'mc_dropout', 'vnn'):
    assert support is None
    return
  np.testing.assert_allclose(
      *(predict(network, params, state, indices)
        for indices in (None, support)), rtol=1e-10, atol=1e-12)


BAD_VALUES = {
    'num_ensemble': [0, -1, 2.5, True, None, '3', 2**31],
    'num_options': [0, (2, 2), (2, 0, 2), 1.5, [2, 2, 2], 2**31],
    'num_shared_layers': [-1, 3, 'all'],
    'num_index_samples': [0, 1.5, 2**31],
    'samples_per_dim': [0, 2**31], 'index_dim': [0, None, 2**31],
    'width': [0, 2.5, '8', 2**31],
    'prior_scale': [-1., float('nan'), float('inf'), None, '1'],
    'noise_scale': [-1., float('nan'), '1'],
    'init_scale': [-0.1], 'initial_std': [0., -1., float('nan'), '1'],
    'kl_weight': [-0.1, float('inf'), None],
    'first_bias_std': [-1., None, 'nngp'],
    'fast_std': [-0.5], 'beta': [-0.1, 1.1, None],
    'num_experts': [0, 1.5, 2**31], 'num_active': [0, 11, 2.5, '1'],
    'gate_sizes': [50, [50], (0,), (5.,)],
    'fast_learning_rate': [0., -1e-3, float('nan'), '1e-3'],
    'fast_init': ['uniform', None], 'index_scale': ['c', None],
    'body': ['lenet', None, ('mlp',)], 'norm': ['layer', None],
    'plain_member': [1, None], 'train_shared_by_plain': [1, None],
    'noise_by': ['last_option'], 'sigma_0': [0., -1., float('nan')],
    'dropout_rate': [1., -0.1, float('nan'), None], 'dropout_input': [1, None],
    'weight_decay_scale': [-1.], 'analytic': [0, 'yes'],
    'reference': ['posterior'],
    'hidden_sizes': [50, [50], (0,), (5.,)],
    'learning_rate': [0., -1e-3, float('nan'), '1e-3'],
    'final_learning_rate': [-1e-6, 0.1, float('nan'), '1e-6'],
    'activation': ['gelu', None], 'activation_mode': ['end+mean', '', None],
    'global_std_mode': ['add', None],
    'global_std': [-1., float('nan'), float('inf'), None, '2'],
    'loss_function': ['elbo', None],
    'num_batches': [0, 1.5], 'batch_size': [0, None],
    'sampling': ['shuffle', None], 'optimizer': ['rmsprop', None],
    'momentum': [1., -0.1, None], 'nesterov': [1, None],
    'l2': [-1., float('nan'), None], 'decay_factor': [-0.1, float('inf')],
    'patience': [-1, 0.5], 'validate_every': [0, None],
    'min_delta': [-1., None], 'validate_by': ['luck'],
    'decay_at': [0.5, (0.5, 0.2), (0., 0.5), (0.5, 1.), ('0.5',)],
    'weight_decay': [-1., float('nan'), None], 'bootstrap': [1, None],
    'decay_from_start': [1, None, True],  # True beside a prior network.
}


@pytest.mark.parametrize('name', NAMES)
def test_bad_settings_are_named_with_their_agent(name):
  module = agents_lib.load_agent(name)
  fields = [f.name for f in dataclasses.fields(module.config_class)]
  assert set(fields) <= set(BAD_VALUES)  # A new setting is tested too.
  agents_lib.make_config(module, {})
  for field, value in ((f, v) for f in fields for v in BAD_VALUES[f]):
    with pytest.raises(ValueError, match=field) as info:
      agents_lib.make_config(module, {field: value})
    assert str(info.value).startswith(f"agent '{name}': ")
    assert 'got' in str(info.value) and '\n' not in str(info.value)


@pytest.mark.parametrize('name', NAMES)
def test_configs_are_frozen_and_hashable(name):
  config = make_config(name)
  assert hash(config) == hash(make_config(name)) and config == make_config(name)
  field = dataclasses.fields(config)[0].name
  with pytest.raises(dataclasses.FrozenInstanceError):
    setattr(config, field, 1)


# Loading. ----------------------------------------------------------------


@pytest.mark.parametrize('name, known, missing', [
    ('exact_posterior', {'kernel': None}, 'exact_posterior needs .* kernel'),
    ('prior_only', {'kernel': None}, 'prior_only needs .* kernel'),
    ('exact_posterior', {'likelihood': base.Gaussian(None)},
     'exact_posterior needs .* noise_std is a known number, got None'),
    ('exact_posterior', {'likelihood': base.Gaussian(np.ones_like)},
     'exact_posterior needs .* noise_std is a known number'),
    ('mean_variance_ensemble', {'likelihood': base.Gaussian(np.ones_like)},
     'noise_std must be 1 numbers')])
def test_what_an_agent_must_know_is_named(name, known, missing):
  prior = base.PriorKnowledge(**{
      'input_shape': (2,), 'num_train': 5, 'likelihood': base.Gaussian(0.1),
      'kernel': kernels.KernelConfig(), **known})
  with pytest.raises(ValueError, match=missing):
    make_agent(name)(base.Data(X, X[:, :1]), prior, KEY)


def test_unknown_settings_and_agents_are_named_with_what_is_allowed():
  with pytest.raises(ValueError, match="no setting 'dropout'.*hidden_sizes"):
    agents_lib.make_config(agents_lib.load_agent('map'), {'dropout': 0.1})
  with pytest.raises(ValueError, match="one of batch_ensemble,.*'vgg'"):
    agents_lib.load_agent('vgg')


MY_AGENT = '''
import dataclasses
@dataclasses.dataclass(frozen=True)
class MyConfig:
  value: float = 3.
def make_agent(config: MyConfig):
  return lambda data, prior, key: lambda x, key: config.value
'''


def test_a_file_is_an_agent(tmp_path):
  path = tmp_path / 'my_agent.py'
  path.write_text(MY_AGENT)
  module = agents_lib.load_agent(str(path))
  assert module.name == 'my_agent'
  config = agents_lib.make_config(module, {'value': 5.})
  assert agents_lib.make_agent(module, config)(None, None, None)(0, 0) == 5.
  path.write_text('make_agent = lambda: 7')
  module = agents_lib.load_agent(str(path))
  assert module.config_class is None
  assert agents_lib.make_agent(module, agents_lib.make_config(module, {})) == 7
  with pytest.raises(ValueError, match="no setting 'value'; allowed are none"):
    agents_lib.make_config(module, {'value': 1})


@pytest.mark.parametrize('text, message', [
    (None, 'does not exist'),
    ('x = 1', 'must define make_agent'),
    ('make_agent = 1', 'must define make_agent'),
    ('def make_agent(config): pass', 'must annotate its argument'),
    ('def make_agent(config: int): pass', 'must annotate its argument'),
    ('raise KeyError("gone")', "cannot be imported: KeyError: 'gone'"),
    ('import no_such_module', 'cannot be imported: ModuleNotFoundError'),
    ('def make_agent(:', 'cannot be imported: SyntaxError')])
def test_a_file_that_is_no_agent_is_refused(tmp_path, text, message):
  path = tmp_path / 'my_agent.py'
  if text is not None:
    path.write_text(text)
  with pytest.raises(ValueError, match=message) as info:
    agents_lib.load_agent(str(path))
  assert 'my_agent' in str(info.value) and '\n' not in str(info.value)


@pytest.mark.parametrize('name', ['map', 'brought'])
def test_a_file_cannot_take_the_name_of_an_agent(tmp_path, name):
  """Boards would take rows of the other name for predictions from files."""
  (tmp_path / f'{name}.py').write_text(MY_AGENT)
  with pytest.raises(ValueError, match='has the name of an agent'):
    agents_lib.load_agent(str(tmp_path / f'{name}.py'))


# Limiting cases, with equal parameters. ----------------------------------


def random_mlp(num=1):
  """Layers [num, out, in + 1] of MLPs from 2 inputs over HIDDEN to 1."""
  sizes = (2, *HIDDEN, 1)
  return [RNG.standard_normal((num, out, size + 1))
          for size, out in zip(sizes, sizes[1:])]


def haiku_mlp(layers, member=0, x=X):
  """The same network as Haiku's own MLP: the truth of all limiting cases."""
  params = {f'mlp/~/linear_{i}': {'w': w[member, :, :-1].T,
                                  'b': w[member, :, -1]}
            for i, w in enumerate(layers)}
  return np.asarray(_MLP(params, x))


_MLP = jax.jit(hk.without_apply_rng(hk.transform(
    lambda x: hk.nets.MLP((*HIDDEN, 1))(x))).apply)


def name_layers(module, layers):
  return {module: {f'w_{i}': w for i, w in enumerate(layers)}}


def check_equal(network, params, state, indices, expected):
  np.testing.assert_allclose(predict(network, params, state, indices),
                             expected, rtol=1e-6, atol=1e-7)


def make_stack(num_options, prior_scale=0.):
  return layer_ensemble.make_network(layer_ensemble.LayerEnsembleConfig(
      num_options=num_options, hidden_sizes=HIDDEN, prior_scale=prior_scale))


def to_stack(layers):
  """[K, out, in + 1] of members to [out, K, in + 1] of options."""
  return name_layers('layer_stack', [np.swapaxes(w, 0, 1) for w in layers])


def test_map_is_an_mlp():
  layers = random_mlp()
  network = map_agent.make_network(map_agent.MapConfig(hidden_sizes=HIDDEN))
  check_equal(network, name_layers('stacked_mlp', layers), {}, None,
              [haiku_mlp(layers)])


def test_layer_ensemble_of_one_option_is_an_mlp():
  layers = random_mlp()
  network = make_stack(1)
  assert network.indexer.support().tolist() == [[0, 0, 0]]
  check_equal(network, to_stack(layers), {}, None, [haiku_mlp(layers)])
  prior = random_mlp()
  check_equal(make_stack(1, prior_scale=2.), to_stack(layers),
              {'network': {}, 'prior_params': to_stack(prior),
               'prior_state': {}}, None,
              [haiku_mlp(layers) + 2. * haiku_mlp(prior)])


def make_members(num, num_shared_layers=None, prior_scale=0.):
  if num_shared_layers is None:
    return ensemble.make_network(ensemble.EnsembleConfig(
        num_ensemble=num, hidden_sizes=HIDDEN, prior_scale=prior_scale), PRIOR)
  return deep_sub_ensemble.make_network(
      deep_sub_ensemble.DeepSubEnsembleConfig(
          num_ensemble=num, num_shared_layers=num_shared_layers,
          hidden_sizes=HIDDEN, prior_scale=prior_scale))


def test_ensemble_is_its_mlps_and_a_sub_ensemble_without_trunk_is_one():
  layers, prior = random_mlp(3), random_mlp(3)
  state = {'network': {}, 'prior_params': name_layers('stacked_mlp', prior),
           'prior_state': {}}
  expected = [haiku_mlp(layers, k) + 1.5 * haiku_mlp(prior, k)
              for k in range(3)]
  for network in (make_members(3, prior_scale=1.5),
                  make_members(3, 0, prior_scale=1.5)):
    check_equal(network, name_layers('stacked_mlp', layers), state, None,
                expected)


def test_layer_ensemble_on_the_diagonal_is_a_deep_ensemble():
  layers = random_mlp(3)
  members = [haiku_mlp(layers, k) for k in range(3)]
  diagonal = np.arange(3)[:, None].repeat(3, 1)
  check_equal(make_stack(3), to_stack(layers), {}, diagonal, members)
  check_equal(make_members(3), name_layers('stacked_mlp', layers), {}, None,
              members)


@pytest.mark.parametrize('num_shared_layers', [1, 2])
def test_sub_ensemble_is_a_layer_ensemble_with_one_option_in_its_trunk(
    num_shared_layers):
  layers = [w[:1] if i < num_shared_layers else w
            for i, w in enumerate(random_mlp(3))]
  options = tuple(len(w) for w in layers)
  tails = np.minimum(np.arange(3)[:, None], np.array(options) - 1)
  stack = predict(make_stack(options), to_stack(layers), {}, tails)
  check_equal(make_members(3, num_shared_layers),
              name_layers('stacked_mlp', layers), {}, None, stack)
  whole = [np.broadcast_to(w, (3, *w.shape[1:])) for w in layers]
  check_equal(make_members(3), name_layers('stacked_mlp', whole), {}, None,
              stack)


def test_batch_ensemble_with_unit_fast_weights_is_an_mlp():
  layers = random_mlp()
  config = batch_ensemble.BatchEnsembleConfig(
      num_ensemble=2, hidden_sizes=HIDDEN, prior_scale=0.)
  network = batch_ensemble.make_network(config)
  params, _ = jax.jit(lambda: network.init(KEY, X[:1], 0))()
  (module, parts), = params.items()
  for i, w in enumerate(layers):
    parts.update({
        f'w_{i}': w[0, :, :-1], f'r_{i}': np.ones(parts[f'r_{i}'].shape),
        f's_{i}': np.ones(parts[f's_{i}'].shape),
        f'b_{i}': np.stack([w[0, :, -1:]] * 2)})
  check_equal(network, {module: parts}, {}, None, [haiku_mlp(layers)] * 2)
  # With a member's own fast weights, that is W o (r s^T).
  parts['r_1'] = RNG.standard_normal(parts['r_1'].shape)
  parts['s_1'] = RNG.standard_normal(parts['s_1'].shape)
  members = []
  for k in range(2):
    mask = np.outer(parts['r_1'][k], parts['s_1'][k])
    own = layers[1].copy()
    own[0, :, :-1] *= mask
    members.append(haiku_mlp([layers[0], own, layers[2]]))
  check_equal(network, {module: parts}, {}, None, members)


def test_fast_weights_start_as_signs_or_around_one():
  for settings, values in (({'fast_init': 'sign'}, {-1., 1.}),
                           ({'fast_init': 'normal', 'fast_std': 0.}, {1.})):
    network = batch_ensemble.make_network(batch_ensemble.BatchEnsembleConfig(
        hidden_sizes=HIDDEN, **settings))
    params, _ = jax.jit(lambda: network.init(KEY, X[:1], 0))()
    (parts,) = params.values()
    fast = np.concatenate([np.ravel(v) for k, v in parts.items()
                           if k[0] in 'rs'])
    assert set(np.unique(fast)) == values


def test_hypermodel_without_columns_is_an_mlp():
  layers = random_mlp()
  config = hypermodel.HypermodelConfig(index_dim=3, hidden_sizes=HIDDEN,
                                       prior_scale=0.)
  network = hypermodel.make_network(config)
  # [d + 1, out, in + 1]: A = 0, and c last.
  params = name_layers('hyper_mlp', [
      np.concatenate([np.zeros((3, *w.shape[1:])), w]) for w in layers])
  indices = jax.vmap(network.indexer)(jax.random.split(KEY, 4))
  check_equal(network, params, {}, indices, [haiku_mlp(layers)] * 4)
  # init_scale = 0 starts there: all indices alike.
  network = hypermodel.make_network(dataclasses.replace(config, init_scale=0.))
  params, state = jax.jit(lambda: network.init(KEY, X[:1], indices[0]))()
  out = predict(network, params, state, indices)
  np.testing.assert_array_equal(out, np.broadcast_to(out[:1], out.shape))


@pytest.mark.parametrize('num_points', [2, 40])
def test_hypermodel_is_linear_in_its_index(num_points):
  # Few and many points: both ways of forwarding the first layer.
  x = jnp.asarray(RNG.standard_normal((num_points, 2)))
  network = hypermodel.make_network(hypermodel.HypermodelConfig(
      index_dim=3, hidden_sizes=HIDDEN, prior_scale=0.))
  columns = [random_mlp() for _ in range(4)]  # Three of A, then c.
  params = name_layers('hyper_mlp', [np.concatenate(w)
                                     for w in zip(*columns)])
  indices = np.asarray(jax.vmap(network.indexer)(jax.random.split(KEY, 5)),
                       np.float64)
  out = predict(network, params, {}, indices, x)
  for z, row in zip(indices, out):
    layers = [sum(z[k] * columns[k][i] for k in range(3)) + columns[3][i]
              for i in range(3)]
    np.testing.assert_allclose(row, haiku_mlp(layers, x=x), rtol=1e-9,
                               atol=1e-10)


def test_hypermodel_prior_reads_a_part_of_the_index_per_layer():
  config = hypermodel.HypermodelConfig(index_dim=7, hidden_sizes=HIDDEN,
                                       prior_scale=2.)
  network = hypermodel.make_network(config)
  z = np.asarray(network.indexer(KEY), np.float64)
  params, state = jax.jit(lambda: network.init(KEY, X[:1], z))()
  layers, parts = [], (z[:3], z[3:5], z[5:])
  for w, part in zip(state['prior_params']['independent_layers_prior']
                     .values(), parts):
    assert len(w) == len(part)
    layer = np.zeros((1, *w.shape[1:]))
    for out, column in np.ndindex(w.shape[1:]):
      row = np.asarray(w[:, out, column])
      row = row / np.sqrt(np.sum(row ** 2))
      if column < w.shape[2] - 1:
        row = row / np.sqrt(w.shape[2] - 1)
      layer[0, out, column] = row @ part
    layers.append(layer)
  out, _ = jax.jit(network.apply)(params, state, X, z)
  np.testing.assert_allclose(out.prior, 2. * haiku_mlp(layers), rtol=1e-6,
                             atol=1e-7)
  assert [list(p) for p in hypermodel.index_parts(2, 3)] == [[0, 1]] * 3


def to_bbb(layers, rho):
  """mu such that the weights are those of the layers."""
  scaled = [w[0] * ([(w.shape[2] - 1) ** 0.5] * (w.shape[2] - 1) + [1.])
            for w in layers]
  flat = np.concatenate([np.ravel(w) for w in scaled])
  return {'gaussian_weights': {'mu': flat, 'rho': np.full_like(flat, rho)}}


@pytest.mark.parametrize('index_scale', ['unit', 'enn2021'])
def test_bbb_is_a_gaussian_around_an_mlp(index_scale):
  layers = random_mlp()
  network = bbb.make_network(bbb.BbbConfig(
      sigma_0=3., index_scale=index_scale, hidden_sizes=HIDDEN), (2,))
  num_weights = sum(w.size for w in layers)
  indices = jax.vmap(network.indexer)(jax.random.split(KEY, 4))
  assert indices.shape == (4, num_weights)
  # softplus(-200) is 0 to all purposes: a plain MLP, biases included.
  check_equal(network, to_bbb(layers, -200.), {}, indices,
              [haiku_mlp(layers)] * 4)
  # One weight after another, by its own entry of the index.
  std = 3. * np.log1p(np.exp(0.7))
  if index_scale == 'enn2021':
    std /= num_weights ** 0.5
  z, start, moved = np.asarray(indices[0], np.float64), 0, []
  for w in layers:
    noise = z[start:start + w.size].reshape(w.shape) * std
    noise[..., :-1] /= (w.shape[2] - 1) ** 0.5
    moved.append(w + noise)
    start += w.size
  check_equal(network, to_bbb(layers, 0.7), {}, indices[:1],
              [haiku_mlp(moved)])


def start_bbb(input_shape, num_outputs=1, **settings):
  """Means and stds of the flat u at the start, and the weight arrays."""
  config = bbb.BbbConfig(**settings)
  network = bbb.make_network(config, input_shape, num_outputs)
  params, _ = jax.jit(lambda: network.init(
      KEY, jnp.zeros((1, *input_shape)), network.indexer(KEY)))()
  mu, rho = (np.asarray(params['gaussian_weights'][name], np.float64)
             for name in ('mu', 'rho'))
  stds = config.sigma_0 * np.log1p(np.exp(rho))
  if config.index_scale == 'enn2021':
    stds /= len(mu) ** 0.5
  shapes = networks.choose_body(config, input_shape, num_outputs).weight_shapes(
      input_shape)
  ends = np.cumsum([shape.out * shape.columns for shape in shapes])
  assert ends[-1] == len(mu)
  return [part.reshape(shape.out, -1) for shape, part in zip(
      shapes, np.split(mu, ends[:-1]))], stds, shapes


@pytest.mark.parametrize('sigma_0, index_scale', [(1., 'unit'), (30., 'unit'),
                                                  (3., 'enn2021')])
def test_bbb_may_start_at_a_random_network(sigma_0, index_scale):
  settings = {'sigma_0': sigma_0, 'index_scale': index_scale,
              'hidden_sizes': (90, 80)}
  means, stds, _ = start_bbb((40,), initial_std=0.05, **settings)
  np.testing.assert_allclose(stds, 0.05, rtol=1e-5)
  # The mean of u is sqrt(inputs) times a weight as Haiku draws it.
  drawn = scipy.stats.truncnorm(-2., 2.)
  for layer in means[:2]:
    np.testing.assert_array_equal(layer[:, -1], 0.)  # Biases.
    assert np.abs(layer).max() <= 2.
    assert scipy.stats.kstest(layer[:, :-1].ravel(), drawn.cdf).pvalue > 1e-3
  assert len(np.unique(means[0][:, :-1])) > 3500
  # Without it all means are 0, and stds are softplus(0) sigma_0 or nearly so.
  means, stds, _ = start_bbb((40,), **settings)
  assert not any(layer.any() for layer in means)
  scale = sigma_0 * (1. if index_scale == 'unit' else len(stds) ** -0.5)
  np.testing.assert_allclose(stds, np.log(2.) * scale, rtol=0.03)


def test_bbb_starts_norms_at_scale_one():
  means, stds, shapes = start_bbb((8, 8, 1), 3, body='resnet20', norm='group',
                                  initial_std=0.1)
  assert sum(shape.is_norm for shape in shapes) == 21
  for layer, shape in zip(means, shapes):
    if shape.is_norm:  # 1 + u and u.
      np.testing.assert_array_equal(layer, 0.)
    elif shape.has_bias:
      np.testing.assert_array_equal(layer[:, -1], 0.)
    if not shape.is_norm and layer.size > 1000:
      # u is multiplied by the std of the body's initial weights.
      ratio = np.std(layer) / scipy.stats.truncnorm(-2., 2.).std()
      assert ratio == pytest.approx(1., rel=0.05)
  np.testing.assert_allclose(stds, 0.1, rtol=1e-5)


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


# Layer ensembles: shared prefixes. ---------------------------------------

OPTIONS = (2, 3, 2)


@pytest.fixture(name='stack', scope='module')
def make_random_stack():
  """A stack with unequal options, and each combination's output by itself."""
  layers = [w[:options] for w, options in zip(random_mlp(3), OPTIONS)]
  outputs = {z: np.asarray(haiku_mlp(
      [w[k:k + 1] for w, k in zip(layers, z)]))
             for z in itertools.product(*map(range, OPTIONS))}
  return make_stack(OPTIONS), to_stack(layers), outputs


def test_all_combinations_are_each_by_itself(stack):
  network, params, outputs = stack
  np.testing.assert_array_equal(network.indexer.support(), list(outputs))
  check_equal(network, params, {}, None, list(outputs.values()))


@pytest.mark.parametrize('combinations', [
    [(1, 2, 0)], [(0, 0, 0), (0, 0, 1)], [(1, 0, 0), (0, 0, 0), (1, 0, 0)],
    [(0, 2, 1), (0, 1, 1), (1, 1, 0), (0, 2, 0), (1, 1, 0)],
    list(itertools.product(*map(range, OPTIONS)))[::-1]])
def test_chosen_combinations_come_in_their_order(stack, combinations):
  network, params, outputs = stack
  expected = [outputs[z] for z in combinations]
  check_equal(network, params, {}, np.array(combinations), expected)
  check_equal(network, params, {}, jnp.array(combinations, jnp.int32), expected)


def test_random_subsets_are_each_by_itself(stack):
  network, params, outputs = stack
  rng = np.random.default_rng(0)
  for num in (3, 6, 11):
    indices = rng.integers(0, OPTIONS, (num, 3))
    check_equal(network, params, {}, indices,
                [outputs[tuple(z)] for z in indices.tolist()])


def test_gradients_through_shared_prefixes(stack):
  network, params, _ = stack
  indices = np.array([(0, 2, 1), (0, 1, 1), (1, 1, 0), (0, 2, 1)])
  weights = jnp.asarray(RNG.standard_normal((4, 5, 1)))

  def shared(params):
    return jnp.sum(weights * network.apply_indices(params, {}, X, indices)[0])

  def one_by_one(params):
    return sum(jnp.sum(w * network.apply(params, {}, X, z)[0])
               for w, z in zip(weights, indices))

  for a, b in zip(*map(jax.tree.leaves, (
      jax.jit(jax.grad(shared))(params),
      jax.jit(jax.grad(one_by_one))(params)))):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('indices, message', [
    ([[0, 0]], r'must be \[J, 3\]'), ([0, 0, 0], r'must be \[J, 3\]'),
    (np.zeros((0, 3), int), 'at least one'),
    ([[0, 0, 0], [0, 3, 0]], 'asks for option 3 of layer 1'),
    ([[-1, 0, 0]], 'asks for option -1 of layer 0')])
def test_indices_that_do_not_exist_are_refused(stack, indices, message):
  network, params, _ = stack
  with pytest.raises(ValueError, match=message):
    network.apply_indices(params, {}, X, np.array(indices))


def test_layer_ensemble_draws_every_option_of_every_layer():
  draws = jax.vmap(layer_ensemble.LayerEnsembleIndexer(OPTIONS))(
      jax.random.split(KEY, 3000))
  counts = np.zeros(OPTIONS)
  np.add.at(counts, tuple(np.asarray(draws).T), 1)
  assert np.max(np.abs(counts - 250.)) < 5 * np.sqrt(250.)


# Limiting cases that hold through training. ------------------------------


@functools.lru_cache(None)
def train_limit(name, **settings):
  """Trained float64 parameters of one problem, layers as [K, out, in + 1]."""
  agent = make_agent(name, num_batches=20, **settings)
  trained = loop.train(agent, DATA_X[:1], DATA_Y[:1, :1],
                       base.Gaussian(NOISE_STDS[:1]), KEYS[:1],
                       dtype=jnp.float64)
  (layers,) = jax.tree.map(lambda a: a[0, 0], trained.params).values()
  return [np.swapaxes(w, 0, 1) if name == 'layer_ensemble' else np.asarray(w)
          for w in layers.values()]


@pytest.mark.parametrize('name, settings', [
    ('ensemble', (('num_ensemble', 1), ('prior_scale', 0.),
                  ('noise_scale', 0.))),
    ('layer_ensemble', (('num_options', 1), ('prior_scale', 0.),
                        ('noise_scale', 0.))),
    ('mc_dropout', (('dropout_rate', 0.), ('weight_decay_scale', 0.),
                    ('first_bias_std', 1.)))])
def test_one_member_without_prior_or_noise_trains_to_map(name, settings):
  for a, b in zip(train_limit(name, **dict(settings)), train_limit('map')):
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_sub_ensemble_without_trunk_trains_to_the_deep_ensemble():
  for a, b in zip(train_limit('deep_sub_ensemble', num_shared_layers=0),
                  train_limit('ensemble')):
    assert len(a) == 3
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_layer_ensemble_of_one_option_trains_to_the_deep_ensemble_of_one():
  # With prior and target noise, from the same draws.
  for a, b in zip(train_limit('layer_ensemble', num_options=1),
                  train_limit('ensemble', num_ensemble=1)):
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


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
