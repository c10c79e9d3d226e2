"""The command that compares members: its weights, measures and table."""

import functools
import pathlib

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from enn_ensembles import agents
from enn_ensembles import base
from enn_ensembles import problems
from enn_ensembles import sweeps
from enn_ensembles.scoring import gaussian
from enn_ensembles.studies.layer_ensembles import similarity
from enn_ensembles.studies.layer_ensembles import similarity_claims

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIM = 4


def forward(layers, x):
  """A plain MLP with the weights of one member."""
  h = x
  for i, layer in enumerate(layers):
    h = h @ layer[:, :-1].T + layer[:, -1]
    h = np.maximum(h, 0.) if i < len(layers) - 1 else h
  return h[:, 0]


@pytest.mark.parametrize('agent, settings, members', [
    ('batch_ensemble', {'num_ensemble': 3, 'prior_scale': 0.}, 3),
    ('batch_ensemble', {'num_ensemble': 3, 'fast_init': 'normal'}, 3),
    ('ensemble', {'num_ensemble': 3, 'prior_scale': 0.}, 3),
    ('ensemble', {'num_ensemble': 3}, 3),
    ('map', {}, 1)])
def test_weights_of_members_give_their_trained_part(agent, settings, members):
  module = agents.load_agent(agent)
  network = agents.make_agent(module, agents.make_config(
      module, {**settings, 'hidden_sizes': (5, 7)})).make_network(
          base.PriorKnowledge((DIM,), 8, base.Gaussian(0.1)))
  x = np.random.default_rng(0).normal(size=(6, DIM))
  key = jax.random.PRNGKey(0)
  params, state = network.init(key, jnp.asarray(x), network.indexer(key))
  out, _ = base.apply_indices(network, params, state, jnp.asarray(x), None)
  expected, _ = base.split_output(out)
  layers = similarity.member_layers(agent, params)
  assert [layer.shape[0] for layer in layers] == [members] * 3
  for k in range(members):
    np.testing.assert_allclose(
        forward([layer[k] for layer in layers], x), expected[k, :, 0],
        rtol=1e-8)


def make_problem():
  problem, = problems.make_problems([problems.ProblemConfig(
      DIM, 2., 0.1, seed=0, num_test=50, num_val=10)])
  return problem


def test_identical_members_are_identical():
  problem = make_problem()
  predictions = np.tile(np.sin(np.arange(50.)), (3, 1))
  layers = [np.tile(np.arange(1., 13.).reshape(1, 3, 4), (3, 1, 1))]
  found = similarity.measure(predictions, layers, problem)
  assert found['disagreement'] == found['jensen_shannon'] == 0.
  np.testing.assert_allclose(
      [found[name] for name in ('correlation', 'cosine', 'cosine_layer_0')], 1.)
  assert found['std_ratio'] == pytest.approx(0., abs=1e-12)
  assert found['kl_estimate'] == pytest.approx(np.mean(gaussian.gaussian_kl(
      problem.test_mean, problem.test_std + 1e-3, predictions[0], 1e-3)))


def test_opposite_members_are_opposite():
  problem = make_problem()
  values = 100. * (np.arange(50.) - 24.5)
  weights = np.arange(1., 4.)[None, None]  # The last one is the bias.
  found = similarity.measure(
      np.stack([values, -values]),
      [np.concatenate([weights, -weights * [1., 1., -5.]])], problem)
  assert found['disagreement'] == 1.
  assert found['correlation'] == pytest.approx(-1.)
  assert found['cosine'] == pytest.approx(-1.)
  assert found['jensen_shannon'] == pytest.approx(np.log(2.))
  assert found['std_ratio'] == pytest.approx(
      np.mean(np.abs(values) / problem.test_std))
  # One member has no pairs, only a KL.
  assert set(similarity.measure(values[None], [weights], problem)) == {
      'kl_estimate', 'kl_reverse'}


def test_unit_has_a_dict_per_problem():
  (unit,) = sweeps.expand(sweeps.SweepConfig(
      name='test', problem={'input_dim': (DIM,), 'data_ratio': (2.,),
                            'noise_std': (0.1, 1.)},
      seed=(0, 1), agents=({'agent': 'batch_ensemble', 'num_ensemble': 3,
                            'num_batches': 2},)))
  found = similarity.measure_unit(unit)
  assert [(f['seed'], f['noise_std']) for f in found] == [
      (0, 0.1), (0, 1.), (1, 0.1), (1, 1.)]
  for one in found:
    assert one['num_members'] == 3
    assert 0. < one['disagreement'] < 1.
    assert 0. < one['jensen_shannon'] < np.log(2.)
    # Random signs: after two steps the weights are still nearly orthogonal.
    assert abs(one['cosine']) < 0.2
  # Noise levels share the initial weights; data differ, so predictions do.
  assert found[0]['disagreement'] != found[2]['disagreement']


def test_table_has_cells_and_their_mean():
  rng = np.random.default_rng(0)
  values = rng.normal(size=(2, 3))  # Cells by seeds.
  found = [{'setting': setting, 'num_members': 2, 'reference': 'bayes',
            'input_dim': 10, 'data_ratio': 1., 'noise_std': noise,
            'seed': seed, 'kl_estimate': 2. * values[c, seed],
            **({} if setting == 'map' else {'cosine': values[c, seed]})}
           for setting in ('ensemble', 'map')
           for c, noise in enumerate((0.1, 1.)) for seed in range(3)]
  table = similarity.summarize(found)
  own = table[table['setting'] == 'ensemble']
  assert len(own) == 3 and list(own['num_cells']) == [1, 1, 2]
  per_seed = values.mean(axis=0)
  overall = own[own['noise_std'].isna()].iloc[0]
  np.testing.assert_allclose(
      [overall[f'cosine{end}'] for end in ('', '_low', '_high')],
      [per_seed.mean(), *stats.t.interval(0.95, 2, per_seed.mean(),
                                          stats.sem(per_seed))])
  cell = own[own['noise_std'] == 1.].iloc[0]
  assert cell['cosine'] == pytest.approx(values[1].mean())
  assert cell['map_kl_estimate'] == pytest.approx(2. * values[1].mean())
  single = table[table['setting'] == 'map']
  assert single['cosine'].isna().all()


def test_share_of_the_way_to_one_network_is_of_each_problem():
  rng = np.random.default_rng(0)
  kls = {'ensemble,num_ensemble=4': rng.uniform(0.1, 0.2, (2, 3)),
         'batch_ensemble,num_ensemble=4': rng.uniform(0.2, 0.4, (2, 3)),
         'map': rng.uniform(1e3, 2e3, (2, 3))}
  table = similarity.summarize([
      {'setting': setting, 'num_members': 2, 'reference': 'bayes',
       'input_dim': 10, 'data_ratio': 1., 'noise_std': noise, 'seed': seed,
       'kl_estimate': kl[c, seed]} for setting, kl in kls.items()
      for c, noise in enumerate((0.1, 1.)) for seed in range(3)])
  overall = table[table['input_dim'].isna()].set_index('setting')
  deep, own, single = (np.log(kl) for kl in kls.values())
  per_seed = ((own - deep) / (single - deep)).mean(axis=0)
  found = overall.loc['batch_ensemble,num_ensemble=4']
  np.testing.assert_allclose(
      [found[f'one_network_share{end}'] for end in ('', '_low', '_high')],
      [per_seed.mean(), *stats.t.interval(0.95, 2, per_seed.mean(),
                                          stats.sem(per_seed))])
  assert overall.loc['ensemble,num_ensemble=4', 'one_network_share'] == 0.
  assert overall.loc['map', 'one_network_share'] == 1.


run = functools.partial(commands.run_module, 'experiments.member_similarity')


def test_command(tmp_path):
  out = f'--output_dir={tmp_path}'
  done = run(out, '--agents=ensemble', f'--input_dim={DIM}', '--data_ratio=2',
             '--noise_std=0.1', '--seed=0,1', '--num_batches=2')
  assert done.returncode == 0, done.stderr
  table = pd.read_csv(tmp_path / 'similarity.csv')
  assert set(similarity_claims.COLUMNS[:4]) <= set(table)
  assert len(table) == 2  # A cell and the mean of all.
  for arguments, text in (((out, '--agents=bbb'), "'bbb'"),
                          ((out, '--input_dim=ten'), "'ten'")):
    done = run(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert text in line
