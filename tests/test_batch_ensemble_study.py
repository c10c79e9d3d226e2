"""The BatchEnsemble study: tables from rows, and what members' weights are."""

import io
import itertools

from commands import run_commands
from example_rows import make_image_row
import jax
from matplotlib import image
import numpy as np
import pandas as pd
import pytest

from enn_ensembles import base
from enn_ensembles import results
from enn_ensembles.agents import batch_ensemble
from enn_ensembles.agents import deep_sub_ensemble
from enn_ensembles.agents import layer_ensemble
from enn_ensembles.agents import map as map_agent
from enn_ensembles.scoring import prediction_counts
from enn_ensembles.scoring import table
from enn_ensembles.studies.batch_ensemble import counted
from enn_ensembles.studies.batch_ensemble import drawing
from enn_ensembles.studies.batch_ensemble import equivalence
from enn_ensembles.studies.batch_ensemble import measures
from enn_ensembles.sweeps import agent_scores

SHAPE = (2, 2, 1)
TINY = {'hidden_sizes': (3,), 'prior_scale': 2.}


def make_params(network):
  params, _ = network.init(jax.random.PRNGKey(0), np.ones((1, *SHAPE)),
                           jax.tree.map(lambda leaf: leaf[0],
                                        base.get_support(network.indexer)))
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)


def mean_cosine(vectors):
  return np.mean([a @ b / np.sqrt((a @ a) * (b @ b))
                  for a, b in itertools.combinations(vectors, 2)])


def check_cosines(network, params, weights, biases):
  found = agent_scores.score_members(network, params, SHAPE)
  np.testing.assert_allclose(found['weight_cosine'], mean_cosine(weights),
                             rtol=1e-5)
  np.testing.assert_allclose(
      found['weight_cosine_biases'],
      mean_cosine(np.concatenate([weights, biases], 1)), rtol=1e-5)


def test_cosine_of_a_batch_ensemble_is_of_its_effective_weights():
  network = batch_ensemble.make_network(batch_ensemble.BatchEnsembleConfig(
      num_ensemble=3, **TINY), SHAPE, 2)
  params = make_params(network)
  (named,) = params.values()
  weights, biases = [], []
  for k in range(3):
    weights.append(np.concatenate([
        (named[f'w_{i}'] * np.outer(named[f'r_{i}'][k], named[f's_{i}'][k])
         ).reshape(-1) for i in range(2)]))
    biases.append(np.concatenate([named[f'b_{i}'][k].reshape(-1)
                                  for i in range(2)]))
  check_cosines(network, params, np.array(weights), np.array(biases))


def test_cosine_of_a_sub_ensemble_counts_its_trunk():
  network = deep_sub_ensemble.make_network(
      deep_sub_ensemble.DeepSubEnsembleConfig(
          num_ensemble=3, num_shared_layers=1, **TINY), SHAPE, 2)
  params = make_params(network)
  (named,) = params.values()
  def flat(array):
    return array.reshape(len(array), -1)
  weights = np.concatenate([
      np.repeat(flat(named['w_0'][..., :-1]), 3, 0),
      flat(named['w_1'][..., :-1])], 1)
  biases = np.concatenate([np.repeat(flat(named['w_0'][..., -1]), 3, 0),
                           flat(named['w_1'][..., -1])], 1)
  check_cosines(network, params, weights, biases)


def test_cosine_of_a_layer_ensemble_is_of_its_combinations():
  network = layer_ensemble.make_network(layer_ensemble.LayerEnsembleConfig(
      num_options=(2, 3), **TINY), SHAPE, 2)
  params = make_params(network)
  (named,) = params.values()
  weights, biases = [], []
  for i, j in itertools.product(range(2), range(3)):
    arrays = named['w_0'][:, i], named['w_1'][:, j]
    weights.append(np.concatenate([a[:, :-1].reshape(-1) for a in arrays]))
    biases.append(np.concatenate([a[:, -1] for a in arrays]))
  check_cosines(network, params, np.array(weights), np.array(biases))


def test_one_network_has_no_cosine():
  network = map_agent.make_network(map_agent.MapConfig(hidden_sizes=(3,)),
                                   SHAPE, 2)
  assert agent_scores.score_members(network, make_params(network), SHAPE) == {}


def make_row(agent, seed, nll, num_ensemble=None, **config):
  config = {'num_ensemble': num_ensemble, **config} if num_ensemble else config
  name = '-'.join(map(str, [agent, *config.values()]))
  row = make_image_row(nll, name, seed)
  required = {key: 0.5 for key, entry in table.scores_of(
      'classification').items() if entry.required}
  scores = {**required, 'nll': nll, 'accuracy': 1. - nll,
            'epistemic_uncertainty': 0.01 if num_ensemble else 0.,
            'ood_auroc_msp': 1. - nll, 'disagreement': 0.1}
  if agent == measures.ONE:
    del scores['disagreement']
  curve = {'order': [0, 1], 'nll': [2. * nll, nll],
           'accuracy': [0.5, 1. - nll]} if num_ensemble else None
  bins = {'bin_count': [0] * 14 + [2 + seed], 'bin_confidence': [0.] * 14 + [
      1.9 + seed], 'bin_correct': [0] * 14 + [1 + seed]}
  information = [seed + 1] + [0] * (len(prediction_counts.MI_EDGES) - 1) + [1]
  counts = {'test': {**bins, 'mi_count': information},
            'permuted': {'mi_count': information}}
  if num_ensemble:
    counts['test']['weight_cosine'] = [[1., 0.1 * seed], [0.1 * seed, 1.]]
  return {**row, 'agent': agent, 'agent_config': config, 'scores': scores,
          'agent_id': name, 'curve': curve, 'counts': counts,
          'by_set': {'permuted': {'ood_auroc_msp': 1. - 2. * nll},
                     'held_out': {'ood_auroc_msp': 1.}},
          'problem': {**row['problem'], 'cell': {'dataset': 'digits',
                                                 'num_train': 9}}}


def make_rows():
  noise = np.random.default_rng(0).normal(0., 1e-3, (5, 4))
  return [row for seed in range(5) for row in (
      make_row('map', seed, 0.2 + noise[seed, 0]),
      make_row('ensemble', seed, 0.1 + noise[seed, 1], 4),
      make_row('batch_ensemble', seed, 0.2 + noise[seed, 2], 4,
               fast_init='sign', fast_std=0.5),
      make_row('batch_ensemble', seed, 0.1 + noise[seed, 3], 4,
               fast_init='normal', fast_std=0.1))]


def test_tables_of_the_study():
  rows = make_rows()
  data_sets = measures.read_data_sets(rows)
  (name, settings), = data_sets.items()
  assert name == 'digits_n9'
  assert [setting.label for setting in settings] == [
      'map', 'ensemble', 'batch_ensemble normal std=0.1', 'batch_ensemble sign']
  verdicts = measures.verdict_table(data_sets)
  nll = verdicts[(verdicts['score'] == 'nll')].set_index('setting')
  assert nll.loc['batch_ensemble sign', 'verdict'] == equivalence.REPRODUCED
  assert nll.loc['batch_ensemble normal std=0.1',
                 'verdict'] == equivalence.NOT_REPRODUCED
  # Each OOD set has a verdict of its own; 1 for all has no gain.
  sets = verdicts[verdicts['setting'] == 'batch_ensemble sign'].set_index('set')
  assert sets.loc['permuted', 'verdict'] == equivalence.REPRODUCED
  assert sets.loc['held_out', 'verdict'] == equivalence.INCONCLUSIVE

  values = [row['scores']['nll'] for row in rows if row['agent'] == 'ensemble']
  scores = measures.score_table(data_sets)
  line = scores[(scores['setting'] == 'ensemble') & (scores['score'] == 'nll')
                ].iloc[0]
  np.testing.assert_allclose(line['mean'], np.mean(values))
  half = 2.7764451 * np.std(values, ddof=1) / np.sqrt(5)  # t, 4 degrees.
  np.testing.assert_allclose(line['high'] - line['mean'], half, rtol=1e-6)
  best = measures.best_table(data_sets).set_index('score')
  assert best.loc['nll', 'best'] in ('ensemble',
                                     'batch_ensemble normal std=0.1')
  assert 'sign' not in best.loc['nll', 'not_told_apart']
  curves = measures.curve_table(data_sets)
  line = curves[(curves['setting'] == 'ensemble') & (curves['score'] == 'nll')
                & (curves['num_members'] == 1)].iloc[0]
  np.testing.assert_allclose(line['mean'], 2. * np.mean(values))
  diversity = measures.diversity_table(data_sets)
  np.testing.assert_allclose(
      diversity[diversity['setting'] == 'batch_ensemble sign'].set_index(
          'score').loc['epistemic_uncertainty', 'of_deep'], 1.)
  assert 'map' not in set(diversity['setting'])


def test_counts_of_seeds_add_up_and_matrices_are_averaged():
  data_sets = measures.read_data_sets(make_rows())
  tables = counted.make_tables(data_sets)
  line, = (line for _, line in tables['reliability'].iterrows()
           if line['setting'] == 'map')  # One bin has points.
  # Seeds 0 to 4: 2 + 3 + 4 + 5 + 6 points, 1 + 2 + 3 + 4 + 5 of them right.
  assert (line['bin'], line['num_points'], line['set']) == (14, 20, 'test')
  np.testing.assert_allclose([line['accuracy'], line['confidence']],
                             [15 / 20, (5 * 1.9 + 10.) / 20])
  information = tables['information']
  assert 'map' not in set(information['setting'])
  own = information[(information['setting'] == 'ensemble')
                    & (information['set'] == 'permuted')]
  np.testing.assert_allclose(list(own['share'])[::len(own) - 1],
                             [15 / 20, 5 / 20])
  assert list(own['from'])[0] == 0. and list(own['to'])[-1] == np.inf
  matrix = tables['similarity']
  own = matrix[matrix['setting'] == 'batch_ensemble sign']
  np.testing.assert_allclose(list(own['mean']), [1., 0.2, 0.2, 1.])
  # Rows of older programs have none.
  old = [{**row, 'counts': None} for row in make_rows()]
  assert not counted.make_tables(measures.read_data_sets(old))


def test_seeds_with_other_numbers_of_members_have_no_mean_matrix():
  """A selection may keep three for one seed and two for the others."""
  rows = make_rows()
  row = next(row for row in rows if row['agent_config'].get('fast_init')
             == 'sign')
  test = row['counts']['test']
  row['counts'] = {**row['counts'], 'test': {**test, **{
      name: np.eye(3).tolist() for name in prediction_counts.MATRICES
      if name in test}}}
  matrix = counted.make_tables(measures.read_data_sets(rows))['similarity']
  assert 'batch_ensemble sign' not in set(matrix['setting'])
  assert 'ensemble' in set(matrix['setting'])


def test_two_single_networks_are_refused():
  rows = make_rows() + [make_row('map', 0, 0.3, learning_rate=1.)]
  with pytest.raises(ValueError, match='must have one setting of map, got'):
    measures.verdict_table(measures.read_data_sets(rows))


def test_rows_without_the_methods_are_refused():
  with pytest.raises(ValueError, match='rows of map, ensemble and '
                     'batch_ensemble on one data set, got none'):
    measures.read_data_sets(make_rows()[:2])


@pytest.mark.parametrize('by_set', [
    {'x': {'no_score': 1.}}, {'x': {}}, {'x': {'shift_nll': float('nan')}},
    {'x': {'kl_estimate': 1.}}, {'x': 1.}])
def test_scores_by_set_are_checked(by_set):
  row = make_row('map', 0, 0.2)
  assert results.check_row(row)['by_set']['held_out'] == {'ood_auroc_msp': 1.}
  with pytest.raises(ValueError, match='by_set'):
    results.check_row({**row, 'by_set': by_set})


def test_costs_are_columns_and_panels_where_rows_know_them():
  rows = make_rows()
  old = measures.cost_table(measures.read_data_sets(rows))
  assert old['peak_memory_mb'].isna().all()
  for row in rows:
    row['cost'] = {'peak_memory_mb': 100. + row['problem']['seed'],
                   'predict_seconds_per_1000': 0.5}
  new = measures.cost_table(measures.read_data_sets(rows))
  assert new['peak_memory_mb'].tolist() == [102.] * len(new)
  assert new['predict_seconds_per_1000'].tolist() == [0.5] * len(new)
  best = new['nll_mean'] == min(new['nll_mean'])
  for name in ('is_efficient_by_memory', 'is_efficient_by_predictions'):
    assert new[name].tolist() == best.tolist() and not old[name].any()
  drop = ['peak_memory_mb', 'predict_seconds_per_1000',
          'is_efficient_by_memory', 'is_efficient_by_predictions']
  pd.testing.assert_frame_equal(new[old.columns].drop(columns=drop),
                                old.drop(columns=drop))
  widths = [image.imread(io.BytesIO(drawing.draw_cost(costs))).shape[1]
            for costs in (old, new)]
  assert widths[1] > 1.5 * widths[0]


def test_a_study_of_rows_without_costs_has_no_picture_of_them():
  rows = [{**row, 'num_params': None, 'train_seconds': None, 'cost': {
      'peak_memory_mb': 0.}} for row in make_rows()]
  data_sets = measures.read_data_sets(rows)
  frames = measures.score_table(data_sets), measures.cost_table(data_sets)
  names = [name for name, _ in drawing.draw_all(
      frames[0], pd.DataFrame(), pd.DataFrame(), frames[1])]
  assert names and not any('cost' in name for name in names)


def test_rows_of_older_programs_have_no_scores_by_set():
  row = make_row('map', 0, 0.2)
  del row['by_set']
  assert results.check_row(row)['by_set'] is None


def test_command_writes_tables_and_pictures(tmp_path):
  store = results.open_store(tmp_path / 'results', create=True)
  for row in make_rows():
    run_id = f'{row["agent_id"]}-s{row["problem"]["seed"]}'
    store.write_unit(run_id, [{**row, 'run_id': run_id}])
  folder = tmp_path / 'out'
  (code, printed, errors), = run_commands(
      'batch_ensemble_study',
      [f'--results_dir={tmp_path / "results"}', f'--output_dir={folder}'])
  assert code == 0, errors
  line, = [line for line in printed.splitlines() if 'ensemble sign' in line]
  assert line.startswith('digits_n9, batch_ensemble sign, like one network: '
                         'reproduced: accuracy, nll')
  names = {path.name for path in folder.iterdir()}
  assert names == {f'{name}.csv' for name in (
      'verdicts', 'scores', 'diversity', 'curves', 'cost', 'best', 'published',
      'reliability', 'information', 'similarity')} | {'verdicts.md'} | {
          f'digits_n9_{name}.png' for name in (
              'scores', 'diversity', 'verdicts', 'curves', 'cost',
              'reliability', 'information', 'similarity')}
  page = (folder / 'verdicts.md').read_text()
  assert '| digits_n9 | batch_ensemble sign | NLL | ' in page
