"""Configs of sweeps: what is read, what is refused, what replaces what."""

import contextlib
import pathlib
import re

import numpy as np
import pytest
import tiny_sweeps

from enn_ensembles import agents as agents_lib
from enn_ensembles import sweeps
from enn_ensembles.problems import kinds

CONFIGS = pathlib.Path(__file__).parents[1] / 'testbed_configs'


def test_a_config_has_the_defaults_of_what_it_leaves_out(tmp_path):
  config = tiny_sweeps.make_config(tmp_path)
  assert config.kind == 'nngp' and config.seed == (1, 0)
  assert config.problem == {
      'input_dim': (10, 100), 'data_ratio': (1, 10), 'noise_std': (1., 0.1),
      'reference': 'bayes', 'kernel': 'relu2', 'solver': 'auto'}
  assert (config.num_enn_samples, config.enumerate_indices, config.dtype) == (
      1000, True, 'float32')
  named = tiny_sweeps.make_config(tmp_path, PROBLEMS='nngp')
  assert named.problem == config.problem


@pytest.mark.parametrize('changes, message', [
    ({'SEED': None}, 'must define .* SEED is missing'),
    ({'AGENTS': None}, 'AGENTS is missing'),
    ({'NOISE_STDS': [1.]}, 'unknown name NOISE_STDS; allowed are .*NOISE_STD'),
    ({'PROBLEMS': 'nngps'}, "PROBLEMS must be one of .*nngp.* got 'nngps'"),
    ({'INPUT_DIM': []}, r'INPUT_DIM must be a list of at least one .*\(\)'),
    ({'INPUT_DIM': 10}, 'INPUT_DIM must be a list .* got 10'),
    ({'INPUT_DIM': [-1]}, 'INPUT_DIM must be an integer >= 1, got -1'),
    ({'INPUT_DIM': [10.]}, 'INPUT_DIM must be an integer >= 1, got 10.0'),
    ({'DATA_RATIO': [0]}, 'DATA_RATIO must be a finite number > 0, got 0'),
    ({'NOISE_STD': [0.1, 0.]}, 'NOISE_STD must be a finite number > 0, got 0'),
    ({'NOISE_STD': [True]}, 'NOISE_STD must be a finite number > 0, got True'),
    ({'SEED': [-1]}, 'SEED must be an integer >= 0, got -1'),
    ({'SEED': [2**32]}, 'SEED must be at most .*, got 4294967296'),
    ({'SEED': [1, 1]}, 'SEED must name every value once, got 1 twice'),
    ({'AGENTS': ['map']}, "must be a dict with the key 'agent', got 'map'"),
    ({'AGENTS': [{'agent': 'map', 'batch_size': []}]}, 'batch_size of agent'),
    ({'AGENTS': [{'agent': 'map', 'batch_size': [5, 5]}]}, 'got 5 twice'),
    ({'REFERENCE': 'exact'}, "REFERENCE must be one of 'bayes', 'enn2021'"),
    *(({'KERNEL': kernel}, f'kernel must be an activation .* got {kernel!r}')
      for kernel in ('relu', 'tanh2', 'relu0', 'erf-1', '2relu', 2)),
    ({'SOLVER': 'quick'}, "SOLVER must be one of .* got 'quick'"),
    ({'NUM_ENN_SAMPLES': 0}, 'NUM_ENN_SAMPLES must be an integer >= 1, got 0'),
    ({'ENUMERATE_INDICES': 1}, 'ENUMERATE_INDICES must be True or False'),
    ({'DTYPE': 'float16'}, "DTYPE must be one of 'float32', 'float64'"),
])
def test_a_bad_config_is_named(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message) as caught:
    tiny_sweeps.make_config(tmp_path, **changes)
  assert str(tmp_path / 'config.py') in str(caught.value)
  assert '\n' not in str(caught.value)


def test_config_files_that_cannot_be_read(tmp_path):
  with pytest.raises(ValueError, match='nowhere.py.* does not exist'):
    sweeps.load_config(tmp_path / 'nowhere.py')
  broken = tmp_path / 'broken.py'
  broken.write_text('SEED = [0')
  with pytest.raises(ValueError, match='broken.py cannot be read: SyntaxError'):
    sweeps.load_config(broken)


@pytest.mark.parametrize('text, message', [
    ('raise GeneratorExit', 'cannot be read: GeneratorExit: '),
    ('raise type("E", (Exception,), {"__str__": lambda _: 1 / 0})',
     'cannot be read: E: it cannot say what is wrong'),
    ('raise ValueError("a\\nb")', 'cannot be read: ValueError: a b$'),
    ('raise ValueError("x" * 10 ** 5)', r'cannot be read: .{500}\.\.\.$'),
    # Of constants alone it is known what they do when they are printed.
    ('SEED = [type("R", (), {"__repr__": lambda _: 1 / 0})()]',
     "SEED must be constants: .* got an object of type 'R'"),
    ('AGENTS = [type("D", (dict,), {"get": lambda *_: 1 / 0})(agent="map")]',
     "AGENTS must be constants: .* got an object of type 'D'"),
    ('SEED.append(SEED)', 'SEED must not hold lists in lists'),
    ('SEED = list(range(10 ** 7 + 1))',
     'at most 10,000,000 rows are allowed, got lists that make 10,000,001'),
    ('AGENTS[0]["l2"] = AGENTS[0]["momentum"] = list(range(10 ** 4))',
     'at most .* rows are allowed, got lists that make 100,000,000')])
def test_whatever_a_config_does_is_refused_by_its_name(tmp_path, text, message):
  path = tmp_path / 'mine.py'
  path.write_text('INPUT_DIM = [2]\nDATA_RATIO = [1]\nNOISE_STD = [0.1]\n'
                  f"SEED = [0]\nAGENTS = [{{'agent': 'map'}}]\n{text}\n")
  with pytest.raises(ValueError) as info:
    sweeps.load_config(path)
  assert re.match(f'config .*mine.py:? {message}', str(info.value))
  assert '\n' not in str(info.value)


def test_wrong_settings_name_the_config():
  for agents, message in [
      ({'agent': 'nope'}, "agent must be one of .* got 'nope'"),
      ({'agent': 'map', 'nope': 1}, "agent 'map' has no setting 'nope'"),
      ({'agent': 'map', 'hidden_sizes': (2**20 + 1,)},
       r"agent 'map': every entry of hidden_sizes must be at most 2\*\*20")]:
    config = sweeps.SweepConfig('mine.py', (0,), (agents,), {
        'input_dim': (1,), 'data_ratio': (1,), 'noise_std': (1.,)})
    with pytest.raises(ValueError, match=f'^config mine.py: {message}'):
      sweeps.expand(config)


def test_a_name_that_the_kind_does_not_have_is_refused():
  with pytest.raises(ValueError, match='nngp problems have no DATASET; allowed '
                                       'are INPUT_DIM, .*SOLVER'):
    sweeps.SweepConfig('test', (0,), ({'agent': 'map'},),
                       {'input_dim': (1,), 'data_ratio': (1,),
                        'noise_std': (1.,), 'dataset': ('digits',)})
  with pytest.raises(ValueError, match='nngp problems have no 1; allowed'):
    sweeps.SweepConfig('test', (0,), ({'agent': 'map'},), {1: 2})


@pytest.mark.parametrize('value, message', [
    (float('nan'), r"'level' of agent 'my_agent': .* hold nan \(float\)"),
    (max, "'level' of agent 'my_agent': a config cannot hold <built-in"),
    (np.True_, None)])
def test_a_setting_that_has_no_text_is_named(tmp_path, value, message):
  path = tmp_path / 'my_agent.py'
  path.write_text('import dataclasses\nfrom typing import Any\n'
                  '@dataclasses.dataclass\nclass C:\n  level: Any = 0.\n'
                  'def make_agent(config: C):\n  return None\n')
  config = sweeps.SweepConfig(
      'test', (0,), ({'agent': 'my_agent', 'level': value},),
      {'input_dim': (1,), 'data_ratio': (1.,), 'noise_std': (1.,)})
  with (pytest.raises(ValueError, match=message) if message
        else contextlib.nullcontext()):
    sweeps.expand(config, (str(path),))


def test_override(tmp_path):
  config = tiny_sweeps.make_config(tmp_path)
  changed = sweeps.override(config, seed=[7], problem={'reference': 'enn2021'},
                            agents=['map', 'mc_dropout'])
  assert changed.seed == (7,) and changed.problem['reference'] == 'enn2021'
  assert changed.problem['input_dim'] == config.problem['input_dim']
  # An agent of the config keeps its settings, another has its defaults.
  assert changed.agents == ({'agent': 'map'}, tiny_sweeps.GOOD['AGENTS'][1])
  assert sweeps.override(config, seed=None,
                         problem={'input_dim': None}) == config
  with pytest.raises(ValueError, match='SEED must name every value once'):
    sweeps.override(config, seed=[7, 7])
  with pytest.raises(ValueError, match="agents must name .* got 'map' twice"):
    sweeps.override(config, agents=['map', 'map'])


def test_max_num_train_leaves_families_out_and_says_which(tmp_path):
  config = sweeps.override(tiny_sweeps.make_config(tmp_path),
                           max_num_train=100)
  assert [family.name for family in config.families()] == [
      'D10_l1_bayes', 'D10_l10_bayes', 'D100_l1_bayes']
  assert [family.name for family in config.left_out()] == ['D100_l10_bayes']
  assert len(sweeps.expand(config)) == 5 * 3
  with pytest.raises(ValueError,
                     match='no problem has at most max_num_train = 9'):
    sweeps.expand(sweeps.override(config, max_num_train=9))


def write_agents(folder, *names):
  """Files of user-defined agents without settings."""
  paths = []
  for name in names:
    paths.append(folder / f'{name}.py')
    paths[-1].write_text('def make_agent():\n  return None\n')
  return tuple(map(str, paths))


def test_files_of_user_defined_agents(tmp_path):
  modules = write_agents(tmp_path, 'mine', 'yours')
  names = lambda config: [u.agent for u in sweeps.expand(
      config, modules)][::4]
  config = tiny_sweeps.make_config(tmp_path)
  # Where the config names none of them, they are the only agents.
  assert names(sweeps.override(config, agent_modules=modules)) == [
      'mine', 'yours']
  # `agents` may name them beside others.
  assert names(sweeps.override(
      config, agents=['yours', 'map', 'mine'], agent_modules=modules)) == [
          'yours', 'map', 'mine']


def test_a_config_may_name_files_of_user_defined_agents(tmp_path):
  modules = write_agents(tmp_path, 'mine', 'yours')
  config = sweeps.override(
      tiny_sweeps.make_config(tmp_path, AGENTS=[
          {'agent': 'map'}, {'agent': 'mine'}, {'agent': 'yours'}]),
      agent_modules=modules)
  assert [u.agent for u in sweeps.expand(config, modules)][::4] == [
      'map', 'mine', 'yours']
  # One that it does not name is added.
  config = sweeps.override(
      tiny_sweeps.make_config(tmp_path, AGENTS=[
          {'agent': 'mine'}, {'agent': 'map'}]), agent_modules=modules)
  assert [u.agent for u in sweeps.expand(config, modules)][::4] == [
      'mine', 'map', 'yours']


def test_an_agent_file_that_is_not_used_is_refused(tmp_path):
  modules = write_agents(tmp_path, 'mine', 'yours')
  config = tiny_sweeps.make_config(tmp_path)
  with pytest.raises(ValueError, match=(
      'agent_module .*yours.py. is not used: agents must name yours, got '
      'mine,map')):
    sweeps.override(config, agents=['mine', 'map'], agent_modules=modules)
  (tmp_path / 'more').mkdir()
  same, = write_agents(tmp_path / 'more', 'mine')
  with pytest.raises(ValueError, match="agent_modules must .* got 'mine' twic"):
    sweeps.override(config, agents=['mine'], agent_modules=[modules[0], same])


# Configs of the paper's whole grid, and the first one that anybody runs.
WHOLE_GRID = ('figure2', 'figure4', 'figure5', 'paper', 'sweeps', 'quickstart')


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')),
                         ids=lambda path: path.stem)
def test_the_configs_of_the_repository(path):
  config = sweeps.load_config(path)
  assert config.kind in kinds.kind_names()
  if config.kind != 'nngp' and 'digits' not in config.problem['dataset']:
    return  # Its problems are in files that are not here.
  units = sweeps.expand(config)
  by_id = {}
  for unit in units:
    assert by_id.setdefault(unit.agent_id,
                            unit.agent_config) == unit.agent_config
  if path.stem not in WHOLE_GRID:
    return
  if path.stem not in ('figure2', 'figure4'):
    missing = set(agents_lib.agent_names()) - {u.agent for u in units}
    # One study has these.
    missing -= {'mean_variance_ensemble', 'mixture_of_experts'}
    # The paper's figure 5 compares trained networks.
    assert missing == ({'random_features'} if path.stem == 'figure5' else set())
  assert {u.family.reference for u in units} == {'bayes'}
  num_cells = sum(len(family.cells) for family in config.families())
  if path.stem == 'quickstart':
    assert num_cells * len(config.seed) == 6
  else:
    # All 27 cells of the paper, 10 seeds each.
    assert num_cells == 27
    assert config.seed == tuple(range(10))


def test_bad_selections_are_named(tmp_path):
  entry = {'agent': 'ensemble', 'num_ensemble': [3, 10]}
  with pytest.raises(ValueError, match="selection of agent 'ensemble' must be "
                                       "one of .* got 'best'"):
    tiny_sweeps.make_config(tmp_path,
                            AGENTS=[{**entry, 'selection': 'best'}])
  with pytest.raises(ValueError, match='ENUMERATE_INDICES must be True where '
                                       'members are selected, got False'):
    tiny_sweeps.make_config(tmp_path,
                            AGENTS=[{**entry, 'selection': ['oracle']}],
                            ENUMERATE_INDICES=False)


def test_numbers_of_numpy_become_those_of_python():
  # Rows and manifests are JSON, and small types would wrap around.
  config = sweeps.SweepConfig(
      'test', tuple(np.arange(2)), (
          {'agent': 'map', 'batch_size': np.int64(5),
           'hidden_sizes': (np.int64(4),), 'learning_rate': np.float64(1e-3)},),
      {'input_dim': (np.uint8(100),), 'data_ratio': (2.,), 'noise_std': (1.,)})
  assert [type(seed) for seed in config.seed] == [int, int]
  assert type(config.problem['input_dim'][0]) is int
  entry, = config.agents
  assert entry == {'agent': 'map', 'batch_size': 5, 'hidden_sizes': (4,),
                   'learning_rate': 1e-3}
  assert {type(entry['batch_size']), type(entry['hidden_sizes'][0])} == {int}
  assert type(entry['learning_rate']) is float
