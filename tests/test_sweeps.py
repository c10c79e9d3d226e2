"""Sweeps: configs, names, and the division of work."""

import dataclasses
import hashlib
import itertools
import pathlib
import re

import pytest

from enn_ensembles import agents as agents_lib
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.machine import job_arrays
from enn_ensembles.nngp import kernels
from enn_ensembles.sweeps import cost_model

CONFIGS = pathlib.Path(__file__).parents[1] / 'testbed_configs'

GOOD = {
    'INPUT_DIM': [10, 100], 'DATA_RATIO': [1, 10], 'NOISE_STD': [1., 0.1],
    'SEED': [1, 0],
    'AGENTS': [{'agent': 'ensemble', 'num_ensemble': [1, 3],
                'prior_scale': [0., 1.]},
               {'agent': 'mc_dropout', 'hidden_sizes': (5,)}]}


def write_config(folder, **changes):
  """A config file; a change to None leaves the name out."""
  path = folder / 'config.py'
  path.write_text(''.join(f'{name} = {value!r}\n'
                          for name, value in {**GOOD, **changes}.items()
                          if value is not None))
  return path


def make_config(folder, **changes):
  return sweeps.load_config(write_config(folder, **changes))


def test_expands_products_of_lists_agents_first(tmp_path):
  units = sweeps.expand(make_config(tmp_path))
  assert [u.agent_id for u in units[::4]] == [
      'ensemble,num_ensemble=1,prior_scale=0', 'ensemble,num_ensemble=1',
      'ensemble,num_ensemble=3,prior_scale=0', 'ensemble,num_ensemble=3',
      'mc_dropout,hidden_sizes=5x']
  assert [(u.input_dim, u.data_ratio) for u in units] == list(
      itertools.product([10, 100], [1., 10.])) * 5
  assert all(u.noise_stds == (0.1, 1.) and u.seeds == (0, 1) for u in units)
  assert sum(u.num_problems for u in units) == 5 * 4 * 2 * 2
  # Every field is there, given or not.
  assert units[0].agent_config['batch_size'] == 100
  assert set(units[0].agent_config) == {
      f.name for f in dataclasses.fields(
          agents_lib.load_agent('ensemble').config_class)}


def test_a_setting_named_twice_is_one_unit(tmp_path):
  config = make_config(tmp_path, AGENTS=[
      {'agent': 'ensemble', 'num_ensemble': [3, 10]},
      {'agent': 'ensemble', 'prior_scale': [0, 1]}])  # 10 and 1 are defaults.
  assert [u.agent_id for u in sweeps.expand(config)[::4]] == [
      'ensemble,num_ensemble=3', 'ensemble', 'ensemble,prior_scale=0']


@pytest.mark.parametrize('changes, message', [
    ({'SEED': None}, 'must define .* SEED is missing'),
    ({'AGENTS': None}, 'AGENTS is missing'),
    ({'NOISE_STDS': [1.]}, 'unknown name NOISE_STDS; allowed are .*NOISE_STD'),
    ({'INPUT_DIM': []}, r'INPUT_DIM must be a list of at least one .*\(\)'),
    ({'INPUT_DIM': 10}, 'INPUT_DIM must be a list .* got 10'),
    ({'INPUT_DIM': [-1]}, 'INPUT_DIM must be an integer >= 1, got -1'),
    ({'INPUT_DIM': [10.]}, 'INPUT_DIM must be an integer >= 1, got 10.0'),
    ({'DATA_RATIO': [0]}, 'DATA_RATIO must be a finite number > 0, got 0'),
    ({'NOISE_STD': [0.1, 0.]}, 'NOISE_STD must be a finite number > 0, got 0'),
    ({'NOISE_STD': [True]}, 'NOISE_STD must be a finite number > 0, got True'),
    ({'SEED': [-1]}, 'SEED must be an integer >= 0, got -1'),
    ({'SEED': [1, 1]}, 'SEED must name every value once, got 1 twice'),
    ({'AGENTS': ['map']}, "must be a dict with the key 'agent', got 'map'"),
    ({'AGENTS': [{'agent': 'map', 'batch_size': []}]}, 'batch_size of agent'),
    ({'AGENTS': [{'agent': 'map', 'batch_size': [5, 5]}]}, 'got 5 twice'),
    ({'REFERENCE': 'exact'}, "REFERENCE must be one of 'bayes', 'enn2021'"),
    *(({'KERNEL': kernel}, f'kernel must be an activation .* got {kernel!r}')
      for kernel in ('relu', 'tanh2', 'relu0', 'erf-1', '2relu', 2)),
    ({'NUM_ENN_SAMPLES': 0}, 'NUM_ENN_SAMPLES must be an integer >= 1, got 0'),
    ({'ENUMERATE_INDICES': 1}, 'ENUMERATE_INDICES must be True or False'),
    ({'DTYPE': 'float16'}, "DTYPE must be one of 'float32', 'float64'"),
])
def test_a_bad_config_is_named(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message) as caught:
    make_config(tmp_path, **changes)
  assert str(tmp_path / 'config.py') in str(caught.value)
  assert '\n' not in str(caught.value)


def test_config_files_that_cannot_be_read(tmp_path):
  with pytest.raises(ValueError, match='nowhere.py.* does not exist'):
    sweeps.load_config(tmp_path / 'nowhere.py')
  broken = tmp_path / 'broken.py'
  broken.write_text('SEED = [0')
  with pytest.raises(ValueError, match='broken.py cannot be read: SyntaxError'):
    sweeps.load_config(broken)


@pytest.mark.parametrize('entry, message', [
    ({'agent': 'esemble'}, 'agent must be one of .*ensemble.*got .esemble'),
    ({'agent': 'ensemble', 'num_ensembles': 3}, 'no setting .num_ensembles'),
    ({'agent': 'ensemble', 'num_ensemble': [3, 0]},
     "'ensemble': num_ensemble must be an integer >= 1, got 0"),
    ({'agent': 'ensemble', 'hidden_sizes': [[50, 50]]}, 'must be a tuple'),
    ({'agent': 'some/where.py'}, 'agent must be one of'),
])
def test_bad_agents_are_named(tmp_path, entry, message):
  with pytest.raises(ValueError, match=message):
    sweeps.expand(make_config(tmp_path, AGENTS=[entry]))


def test_override(tmp_path):
  config = make_config(tmp_path)
  changed = sweeps.override(config, seed=[7], reference='enn2021',
                            agents=['map', 'mc_dropout'])
  assert changed.seed == (7,) and changed.reference == 'enn2021'
  assert changed.input_dim == config.input_dim
  # An agent of the config keeps its settings, another has its defaults.
  assert changed.agents == ({'agent': 'map'}, GOOD['AGENTS'][1])
  assert sweeps.override(config, seed=None) == config
  with pytest.raises(ValueError, match='SEED must name every value once'):
    sweeps.override(config, seed=[7, 7])
  with pytest.raises(ValueError, match="agents must name .* got 'map' twice"):
    sweeps.override(config, agents=['map', 'map'])


def test_another_kernel_is_another_computation(tmp_path):
  plain, = sweeps.expand(sweeps.override(
      make_config(tmp_path), agents=['map'], input_dim=[10], data_ratio=[1.]))
  deep, = sweeps.expand(sweeps.override(
      make_config(tmp_path, KERNEL='erf3'), agents=['map'], input_dim=[10],
      data_ratio=[1.]))
  assert plain.problem_config(0.1, 0).kernel == kernels.KernelConfig()
  assert deep.problem_config(0.1, 0).kernel == kernels.KernelConfig(
      num_hidden_layers=3, activation='erf')
  assert not set(plain.row_ids()) & set(deep.row_ids())
  assert plain.run_id != deep.run_id
  assert deep.manifest_entries()[0]['kernel'] == 'erf3'


def test_max_num_train_leaves_cells_out_and_says_which(tmp_path):
  config = sweeps.override(make_config(tmp_path), max_num_train=100)
  assert config.cells() == [(10, 1), (10, 10), (100, 1)]
  assert config.left_out() == [(100, 10)]
  assert len(sweeps.expand(config)) == 5 * 3
  with pytest.raises(ValueError, match='no cell has at most max_num_train = 9'):
    sweeps.expand(sweeps.override(config, max_num_train=9))


def test_an_agent_of_ones_own(tmp_path):
  path = tmp_path / 'my_agent.py'
  path.write_text('def make_agent():\n  return None\n')
  config = sweeps.override(make_config(tmp_path), agent_module=str(path))
  before = sweeps.expand(config, str(path))
  assert {u.agent for u in before} == {'my_agent'}
  both = sweeps.override(config, agents=['my_agent', 'map'],
                         agent_module=str(path))
  assert {u.agent for u in sweeps.expand(both, str(path))} == {
      'my_agent', 'map'}
  # A changed file is another agent: what it did before is not done.
  path.write_text('def make_agent():\n  return 1\n')
  after = sweeps.expand(config, str(path))
  assert not {u.run_id for u in before} & {u.run_id for u in after}
  assert not {u.agent_id for u in before} & {u.agent_id for u in after}
  with pytest.raises(ValueError, match='must be a Python file, got .my_agent'):
    sweeps.expand(config, 'my_agent')


def test_agent_ids_tell_all_settings_apart(tmp_path):
  settings = [
      {}, {'num_options': 2}, {'num_options': (2, 2, 2)},
      {'num_options': (2,), 'hidden_sizes': ()},
      {'num_options': 2, 'hidden_sizes': ()},
      {'num_options': 22, 'hidden_sizes': ()}, {'learning_rate': 1e-4},
      {'hidden_sizes': (50,), 'num_options': 2}, {'hidden_sizes': (50,)},
      {'hidden_sizes': (5, 0 + 1)}, {'hidden_sizes': (51,)},
      {'num_index_samples': 5}, {'noise_by': 'first_option'},
      {'hidden_sizes': tuple(range(1, 60)), 'num_options': 1},
      {'hidden_sizes': (*range(1, 59), 60), 'num_options': 1}]
  units = sweeps.expand(make_config(tmp_path, AGENTS=[
      {'agent': 'layer_ensemble', **s} for s in settings]))
  assert len({u.agent_id for u in units}) == len(settings)
  assert len({u.run_id for u in units}) == 4 * len(settings)
  for unit in units:  # Names are those of files that the store takes.
    assert re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._,=+-]{0,199}', unit.run_id)
  assert units[0].agent_id == 'layer_ensemble'
  assert units[4].agent_id == 'layer_ensemble,num_options=2'
  # Strange texts are not lost on the way to a name.
  strange = [sweeps._agent_id(agents_lib.load_agent('map'), {'text': text})
             for text in ('a b', 'a_b', 'a/b', 'none', None, '', 'true', True)]
  assert len(set(strange)) == len(strange)


def test_run_id_and_row_id_say_what_is_computed(tmp_path):
  unit = sweeps.expand(make_config(tmp_path))[0]
  others = [dataclasses.replace(unit, **change) for change in (
      {'input_dim': 11}, {'data_ratio': 1.5}, {'reference': 'enn2021'},
      {'num_enn_samples': 10}, {'enumerate_indices': False},
      {'dtype': 'float64'}, {'solver': 'dense'}, {'agent': 'map'},
      {'agent_config': {**unit.agent_config, 'batch_size': 1}})]
  assert len({u.run_id for u in (unit, *others)}) == 10
  assert len({sweeps.row_id(u, 0.1, 0) for u in (unit, *others)}) == 10
  # A run is all of its rows, a row is the same in whatever run.
  fewer = dataclasses.replace(unit, seeds=(0,))
  assert fewer.run_id != unit.run_id
  assert sweeps.row_id(fewer, 0.1, 0) == sweeps.row_id(unit, 0.1, 0)
  assert len({sweeps.row_id(unit, e, s, selection)
              for e in (0.1, 1.) for s in (0, 1)
              for selection in ('none', 'oracle')}) == 8
  # A selection is another row of the same training.
  ranked = dataclasses.replace(unit, selections=('none', 'oracle'))
  assert ranked.run_id != unit.run_id
  assert ranked.num_rows == 2 * unit.num_rows
  assert set(unit.row_ids()) < set(ranked.row_ids())
  # Numbers are their values: 1 is 1.0.
  ints = dataclasses.replace(unit, agent_config={
      **unit.agent_config, 'noise_scale': 1, 'prior_scale': 0})
  assert ints.run_id == unit.run_id
  # Names stay: finished work would otherwise be done again.
  text = ('{"agent":"a","agent_config":{"k":1},"data_ratio":1,"dtype":"float32"'
          ',"enumerate_indices":true,"input_dim":10,"noise_std":0.1,'
          '"num_enn_samples":1000,"reference":"bayes","seed":0,'
          '"selection":"none"}')
  known = sweeps.WorkUnit('a', 'a', {'k': 1}, 10, 1., (0.1,), (0,))
  assert sweeps.row_id(known, 0.1, 0) == hashlib.sha256(
      text.encode()).hexdigest()[:16]


def test_narrow_leaves_exactly_what_is_missing():
  unit = sweeps.WorkUnit('a', 'a', {}, 10, 1., (0.01, 0.1, 1.), (0, 1, 2, 3))
  rows = list(itertools.product(unit.noise_stds, unit.seeds))

  def missing(done):
    parts = sweeps.narrow(unit, {sweeps.row_id(unit, *row) for row in done})
    left = [row for part in parts
            for row in itertools.product(part.noise_stds, part.seeds)]
    assert sorted(left) == sorted(set(rows) - set(done))  # Each row once.
    return parts

  assert missing([]) == (unit,)
  assert missing(rows) == ()
  assert missing([r for r in rows if r[1] < 2]) == (
      dataclasses.replace(unit, seeds=(2, 3)),)
  assert missing([r for r in rows if r[0] == 0.1]) == (
      dataclasses.replace(unit, noise_stds=(0.01, 1.)),)
  # Not a grid: seeds that lack the same noise levels stay together.
  assert missing([(0.1, 0), (0.1, 2), (1., 3)]) == (
      dataclasses.replace(unit, noise_stds=(0.01, 1.), seeds=(0, 2)),
      dataclasses.replace(unit, seeds=(1,)),
      dataclasses.replace(unit, noise_stds=(0.01, 0.1), seeds=(3,)))


@pytest.mark.parametrize('num_tasks', [1, 2, 7, 50])
def test_tasks_share_the_work_once_and_by_cost(num_tasks):
  units = sweeps.expand(sweeps.override(
      sweeps.load_config(CONFIGS / 'paper.py'), max_num_train=10_000))
  shares = [sweeps.select(units, i, num_tasks) for i in range(num_tasks)]
  # Every row once, with the name that it has in the whole sweep.
  assert sorted(r for share in shares for u in share
                for r in u.row_ids()) == sorted(
                    r for u in units for r in u.row_ids())
  loads = [sum(map(sweeps.estimate_seconds, share)) for share in shares]
  # A seed of the longest unit is 1.1 shares of 50.
  assert max(loads) <= 1.15 * sum(loads) / num_tasks
  if num_tasks == 1:
    assert shares[0] == units
  # The same whatever the order of the units.
  for task in (0, num_tasks - 1):
    assert {u.run_id for u in sweeps.select(units[::-1], task, num_tasks)} == {
        u.run_id for u in shares[task]}


def test_long_units_are_cut_by_seeds(monkeypatch):
  # As long as its number says, per seed, and 3 to start.
  monkeypatch.setattr(cost_model, 'estimate_seconds',
                      lambda unit: 3 + unit.data_ratio * len(unit.seeds))
  unit = lambda ratio, num_seeds: sweeps.WorkUnit(
      'a', 'a', {}, 10, ratio, (0.1, 1.), tuple(range(num_seeds)))
  long, short = unit(100., 4), unit(10., 2)  # 403 and 23 of 426 seconds.
  assert sweeps.split([long, short], 1) == (long, short)
  # Above a quarter of it: 403 / 106.5 is 4 parts. The short one is whole.
  assert sweeps.split([long, short], 2) == (
      *(dataclasses.replace(long, seeds=(s,)) for s in range(4)), short)
  # A part takes at least as long as its start, 3: 12 are 4 parts.
  brief = unit(2., 6)
  assert [p.seeds for p in sweeps.split([brief], 100)] == [
      (0,), (1, 2), (3,), (4, 5)]
  assert sweeps.split([unit(0.1, 6)], 100) == (unit(0.1, 6),)


def test_tasks_are_filled_from_the_longest_unit_on(monkeypatch):
  # By hand: 7 | 5, then 4 to the second, 3 to the first, 3 to the second (9 <
  # 10), 2 to the first: 12 and 12. In turns it would be 14 and 10.
  monkeypatch.setattr(cost_model, 'estimate_seconds',
                      lambda unit: unit.data_ratio)
  # Of one seed each: nothing to cut.
  units = [sweeps.WorkUnit('a', 'a', {}, 10, ratio, (0.1,), (seed,))
           for seed, ratio in enumerate((3., 7., 2., 4., 5., 3.))]
  shares = [sorted(u.data_ratio for u in sweeps.select(units, i, 2))
            for i in range(2)]
  assert shares == [[2., 3., 7.], [3., 4., 5.]]


def test_bad_tasks():
  unit = sweeps.WorkUnit('a', 'a', {}, 10, 1., (0.1,), (0,))
  assert sweeps.select([unit], 1, 2) == ()
  with pytest.raises(ValueError, match='below num_tasks = 2, got 2'):
    sweeps.select([unit], 2, 2)
  with pytest.raises(ValueError, match='task_index must be .* >= 0, got -1'):
    sweeps.select([unit], -1, 2)
  with pytest.raises(ValueError, match='num_tasks must be .* >= 1, got 0'):
    sweeps.select([unit], 0, 0)


SLURM = {'SLURM_ARRAY_TASK_ID': '7', 'SLURM_ARRAY_TASK_COUNT': '5',
         'SLURM_ARRAY_TASK_MIN': '3', 'SLURM_ARRAY_TASK_MAX': '11',
         'SLURM_ARRAY_TASK_STEP': '2'}
PBS = {'PBS_ARRAY_INDEX': '3'}
AWS = {'AWS_BATCH_JOB_ARRAY_INDEX': '3', 'AWS_BATCH_JOB_ARRAY_SIZE': '4'}
GOOGLE = {'BATCH_TASK_INDEX': '0', 'BATCH_TASK_COUNT': '4'}


@pytest.mark.parametrize('given, environment, task', [
    ((None, None), {}, (0, 1, '')),
    ((2, 5), {}, (2, 5, '')),
    ((None, 1), {}, (0, 1, '')),
    # What is given goes first.
    ((2, 5), {**SLURM, **AWS}, (2, 5, '')),
    # 3, 5, 7, 9, 11: 7 is the third.
    ((None, None), SLURM, (2, 5, 'SLURM_ARRAY_TASK_ID')),
    ((None, 12), SLURM, (7, 12, 'SLURM_ARRAY_TASK_ID')),
    ((None, 5), PBS, (3, 5, 'PBS_ARRAY_INDEX')),
    ((None, None), AWS, (3, 4, 'AWS_BATCH_JOB_ARRAY_INDEX')),
    ((None, None), GOOGLE, (0, 4, 'BATCH_TASK_INDEX')),
    # Empty is not set.
    ((None, None), {**GOOGLE, 'SLURM_ARRAY_TASK_ID': ''},
     (0, 4, 'BATCH_TASK_INDEX')),
])
def test_the_task_of_a_job_array(given, environment, task):
  assert job_arrays.choose_task(*given, environment) == task


@pytest.mark.parametrize('given, environment, message', [
    ((1, None), {}, 'task_index 1 was given without num_tasks'),
    ((None, 2), {}, 'num_tasks 2 was given without task_index, and no job arr'),
    ((None, 0), {}, 'num_tasks must be an integer >= 1, got 0'),
    ((2, 2), {}, 'task_index must be below num_tasks = 2, got 2'),
    ((-1, 2), {}, 'task_index must be an integer >= 0, got -1'),
    ((None, None), PBS, 'PBS_ARRAY_INDEX is 3, but such arrays do not say how'),
    ((None, 3), PBS,
     r'task_index \(from PBS_ARRAY_INDEX\) must be below num_tasks = 3, got 3'),
    ((None, None), {'SLURM_ARRAY_TASK_ID': '1'},
     'but SLURM_ARRAY_TASK_COUNT is not set: give num_tasks'),
    ((None, None), {**SLURM, 'SLURM_ARRAY_TASK_ID': 'x'},
     "SLURM_ARRAY_TASK_ID must be a whole number, got 'x'"),
    # --array=3,7,11 and the like: 2 divides no such range of 5.
    ((None, None), {**SLURM, 'SLURM_ARRAY_TASK_COUNT': '4'},
     'has 4 tasks between 3 and 11, which is no regular division'),
    ((None, None), {**SLURM, **AWS}, 'both SLURM_ARRAY_TASK_ID and AWS_BATCH'),
])
def test_bad_job_arrays(given, environment, message):
  with pytest.raises(ValueError, match=message):
    job_arrays.choose_task(*given, environment)


def test_estimated_costs_are_in_the_right_order(tmp_path):
  def cost(input_dim=10, data_ratio=10., agent='ensemble', **settings):
    config = sweeps.override(
        make_config(tmp_path, AGENTS=[{'agent': agent, **settings}]),
        input_dim=[input_dim], data_ratio=[data_ratio])
    return sweeps.estimate_seconds(sweeps.expand(config)[0])

  assert cost(1000, 10.) > 5 * cost(10, 10.)
  assert cost(num_ensemble=30) > cost(num_ensemble=3) > cost(agent='map')
  assert cost(agent='layer_ensemble', num_options=10) > cost(
      agent='layer_ensemble', num_options=3)
  assert cost(agent='hypermodel') > cost()
  assert cost(agent='exact_posterior') < cost()
  # Measured: 0.36 and 1.57 s per problem on two cores, four problems here.
  vnn = cost(1000, agent='vnn') - cost(1000, agent='exact_posterior')
  assert 4 < vnn < 30
  # Its samples pass through activations one by one.
  assert cost(1000, agent='vnn', activation_mode='end') > 10 * cost(
      1000, agent='vnn')


@pytest.mark.parametrize('data_ratio,measured', [(10., 42.), (100., 3000.)])
def test_estimated_cost_of_ground_truth(tmp_path, data_ratio, measured):
  # Measured at D_x = 1000 on two cores: CPU seconds of one seed with three
  # noise levels, dense and matrix-free.
  config = sweeps.override(
      make_config(tmp_path, AGENTS=[{'agent': 'map'}]), input_dim=[1000],
      data_ratio=[data_ratio], noise_std=[0.01, 0.1, 1.], seed=[0])
  unit, = sweeps.expand(config)
  assert measured / 2 < sweeps.estimate_ground_truth_seconds(unit) < (
      2 * measured)
  # The training of a unit does not pay for what all agents share.
  assert sweeps.estimate_seconds(unit) < measured


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')),
                         ids=lambda path: path.stem)
def test_the_configs_of_the_repository(path):
  config = sweeps.load_config(path)
  units = sweeps.expand(config)
  if path.stem not in ('figure2', 'figure4'):
    assert set(agents_lib.agent_names()) <= {u.agent for u in units}
  assert {u.reference for u in units} == {'bayes'}
  by_id = {}
  for unit in units:
    assert by_id.setdefault(unit.agent_id,
                            unit.agent_config) == unit.agent_config
  if path.stem == 'quickstart':
    assert len(config.cells()) * 3 * 3 == 18
  else:
    # All 27 cells of the paper, 10 seeds each.
    assert len(config.cells()) * len(config.noise_std) == 27
    assert config.seed == tuple(range(10))


def test_selections_of_an_entry(tmp_path):
  entry = {'agent': 'ensemble', 'num_ensemble': [3, 10]}
  config = make_config(tmp_path, AGENTS=[
      {**entry, 'selection': ['val_nll', 'none']},
      {**entry, 'num_ensemble': 3, 'selection': 'oracle'}])
  selections = {unit.agent_config['num_ensemble']: unit.selections
                for unit in sweeps.expand(config)}
  # Entries that name one setting share its training.
  assert selections == {3: ('none', 'oracle', 'val_nll'),
                        10: ('none', 'val_nll')}
  entries = sweeps.expand(config)[0].manifest_entries()
  assert [e['selection'] for e in entries] == ['none', 'oracle', 'val_nll']
  with pytest.raises(ValueError, match="selection of agent 'ensemble' must be "
                                       "one of .* got 'best'"):
    make_config(tmp_path, AGENTS=[{**entry, 'selection': 'best'}])
  with pytest.raises(ValueError, match='ENUMERATE_INDICES must be True where '
                                       'members are selected, got False'):
    make_config(tmp_path, AGENTS=[{**entry, 'selection': ['oracle']}],
                ENUMERATE_INDICES=False)


def test_narrow_tells_selections_apart():
  unit = sweeps.WorkUnit('a', 'a', {}, 10, 1., (0.1, 1.), (0, 1),
                         selections=('none', 'oracle', 'val_nll'))

  def missing(done):
    parts = sweeps.narrow(unit, {sweeps.row_id(unit, *row) for row in done})
    left = [(e, s, c) for part in parts for e in part.noise_stds
            for s in part.seeds for c in part.selections]
    assert len(set(left)) == len(left)
    everything = set(itertools.product((0.1, 1.), (0, 1), unit.selections))
    assert set(left) == everything - set(done)
    return parts

  assert missing([]) == (unit,)
  every = list(itertools.product((0.1, 1.), (0, 1)))
  part, = missing([(*row, 'none') for row in every])
  assert part.selections == ('oracle', 'val_nll')
  assert len(missing([(0.1, 0, 'none')])) == 3
  assert missing([(*row, c) for row in every for c in unit.selections]) == ()


def test_large_inputs_are_not_held_for_all_seeds_at_once():
  large = sweeps.WorkUnit('a', 'a', {}, 1000, 100., (0.1, 1.), tuple(range(5)))
  small = dataclasses.replace(large, data_ratio=1.)
  parts = sweeps.limit_inputs([large, small])
  assert [part.seeds for part in parts] == [(0, 1), (2, 3), (4,),
                                            (0, 1, 2, 3, 4)]
  assert sorted(row for part in parts[:3] for row in part.row_ids()) == sorted(
      large.row_ids())


def test_manifest_entries_are_those_of_the_store(tmp_path):
  store = results.open_store(tmp_path / 'store', create=True)
  units = sweeps.expand(make_config(tmp_path))
  store.write_manifest([entry for unit in units
                        for entry in unit.manifest_entries()])
  assert len(store.read_manifests()) == sum(u.num_problems for u in units)
