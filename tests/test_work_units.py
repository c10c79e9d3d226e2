"""Work units: what a config expands to, and what its parts are called."""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
import tarfile

import pytest
import tiny_sweeps

from enn_ensembles import agents as agents_lib
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.machine import canonical
from enn_ensembles.nngp import kernels
from enn_ensembles.sweeps import sweep_config
from enn_ensembles.sweeps import work_units

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_expands_products_of_lists_agents_first(tmp_path):
  units = sweeps.expand(tiny_sweeps.make_config(tmp_path))
  assert [u.agent_label for u in units[::4]] == [
      'ensemble,num_ensemble=1,prior_scale=0',
      'ensemble,num_ensemble=1,prior_scale=1',
      'ensemble,num_ensemble=3,prior_scale=0',
      'ensemble,num_ensemble=3,prior_scale=1', 'mc_dropout,hidden_sizes=5']
  assert [(u.family.input_dim, u.family.data_ratio) for u in units] == list(
      itertools.product([10, 100], [1., 10.])) * 5
  assert all(u.family.noise_stds == (0.1, 1.) and u.seeds == (0, 1)
             for u in units)
  assert sum(u.num_problems for u in units) == 5 * 4 * 2 * 2
  # Every field is there, given or not, but later ones at their defaults.
  assert units[0].agent_config['batch_size'] == 100
  config_class = agents_lib.load_agent('ensemble').config_class
  assert set(units[0].agent_config) == set(
      canonical.named_fields(config_class()))


def test_a_setting_named_twice_is_one_unit(tmp_path):
  config = tiny_sweeps.make_config(tmp_path, AGENTS=[
      {'agent': 'ensemble', 'num_ensemble': [3, 10]},
      {'agent': 'ensemble', 'prior_scale': [0, 1]}])  # 10 and 1 are defaults.
  units = sweeps.expand(config)[::4]
  assert [(u.agent_config['num_ensemble'], u.agent_config['prior_scale'])
          for u in units] == [(3, 1.), (10, 1.), (10, 0)]
  assert len({u.agent_id for u in units}) == 3


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
    sweeps.expand(tiny_sweeps.make_config(tmp_path, AGENTS=[entry]))


def test_another_kernel_is_another_computation(tmp_path):
  one = {'input_dim': [10], 'data_ratio': [1.]}
  plain, = sweeps.expand(sweeps.override(
      tiny_sweeps.make_config(tmp_path), agents=['map'], problem=one))
  deep, = sweeps.expand(sweeps.override(
      tiny_sweeps.make_config(tmp_path, KERNEL='erf3'), agents=['map'],
      problem=one))
  assert plain.family.config(0.1, 0).kernel == kernels.KernelConfig()
  assert deep.family.config(0.1, 0).kernel == kernels.KernelConfig(
      num_hidden_layers=3, activation='erf')
  assert not set(plain.row_ids()) & set(deep.row_ids())
  assert plain.run_id != deep.run_id
  entry = deep.manifest_entries()[0]
  assert entry['problem']['ranking']['kernel'] == 'erf3'


def test_a_user_defined_agent(tmp_path):
  path = tmp_path / 'my_agent.py'
  path.write_text('def make_agent():\n  return None\n')
  modules = (str(path),)
  config = sweeps.override(tiny_sweeps.make_config(tmp_path),
                           agent_modules=modules)
  before = sweeps.expand(config, modules)
  assert {u.agent for u in before} == {'my_agent'}
  both = sweeps.override(config, agents=['my_agent', 'map'],
                         agent_modules=modules)
  assert {u.agent for u in sweeps.expand(both, modules)} == {
      'my_agent', 'map'}
  # A changed file is another agent: what it did before is not done.
  path.write_text('def make_agent():\n  return 1\n')
  after = sweeps.expand(config, modules)
  assert not {u.run_id for u in before} & {u.run_id for u in after}
  assert not {u.agent_id for u in before} & {u.agent_id for u in after}
  with pytest.raises(ValueError, match='must be a Python file, got .my_agent'):
    sweeps.expand(config, ('my_agent',))


_TELLING_APART = [
    {}, {'num_options': 2}, {'num_options': (2, 2, 2)},
    {'num_options': (2,), 'hidden_sizes': ()},
    {'num_options': 2, 'hidden_sizes': ()},
    {'num_options': 22, 'hidden_sizes': ()}, {'learning_rate': 1e-4},
    {'hidden_sizes': (50,), 'num_options': 2}, {'hidden_sizes': (50,)},
    {'hidden_sizes': (5, 0 + 1)}, {'hidden_sizes': (51,)},
    {'num_index_samples': 5}, {'noise_by': 'first_option'},
    {'hidden_sizes': tuple(range(1, 60)), 'num_options': 1},
    {'hidden_sizes': (*range(1, 59), 60), 'num_options': 1}]


def test_agent_ids_tell_all_settings_apart(tmp_path):
  units = sweeps.expand(tiny_sweeps.make_config(tmp_path, AGENTS=[
      {'agent': 'layer_ensemble', **s} for s in _TELLING_APART]))
  assert len({u.agent_id for u in units}) == len(_TELLING_APART)
  assert len({u.run_id for u in units}) == 4 * len(_TELLING_APART)
  for unit in units:  # Names are those of files that the store takes.
    assert re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._,=+-]{0,199}', unit.run_id)
  assert units[0].agent_label == 'layer_ensemble'
  assert units[4].agent_label == 'layer_ensemble,num_options=2'
  # Strange texts are not lost on the way to a name.
  strange = [results.make_agent_id('map', {'text': text})
             for text in ('a b', 'a_b', 'a/b', 'none', None, '', 'true', True)]
  assert len(set(strange)) == len(strange)


_PLAIN_AGENT = '''
import dataclasses

@dataclasses.dataclass(frozen=True)
class Config:
  note: str = ''

def make_agent(config: Config):
  return None
'''


@pytest.mark.parametrize('name', [
    '\u00fcn', '\u4e2d\u6587', '\u05e2\u05d1', '_under', '.hidden', '-dash',
    '$x^{$', '<b>', '\U0001f600', 'a' * 250, ' '])
def test_agents_of_any_name_have_names_of_files(tmp_path, name):
  path = tmp_path / f'{name}.py'
  path.write_text(_PLAIN_AGENT)
  notes = ['x' * 300, 'two\nlines\t', '\x1b[31m\0', '\u202e', '', '"\'']
  config = tiny_sweeps.make_config(tmp_path, AGENTS=[
      {'agent': name, 'note': notes}])
  units = sweeps.expand(config, [str(path)])
  assert len({unit.run_id for unit in units}) == len(units) == 4 * len(notes)
  for unit in units:
    assert re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._,=+-]{0,199}', unit.run_id)
  # A label is a line that terminals and pages can show.
  labels = list(dict.fromkeys(unit.agent_label for unit in units))
  assert [label.removeprefix(f'{name},note=') if name.strip() else
          label.removeprefix(',note=') for label in labels] == [
              'x' * 300, 'two lines', r'\x1b[31m\x00', r'\u202e', '', '"\'']


@pytest.mark.parametrize('name, note', [('ours', '\ud800'), ('\udcff', '')])
def test_text_that_no_file_can_hold_is_refused(tmp_path, name, note):
  """Rows had U+FFFD in its place, and no board took them with the manifest."""
  path = tmp_path / f'{name}.py'
  path.write_text(_PLAIN_AGENT)
  config = dataclasses.replace(
      tiny_sweeps.make_config(tmp_path, AGENTS=[{'agent': 'map'}]),
      agents=({'agent': name, 'note': note},))
  with pytest.raises(ValueError, match='that UTF-8 can encode, got') as error:
    sweeps.expand(config, [str(path)])
  str(error.value).encode()


def test_agent_ids_do_not_depend_on_defaults(tmp_path, monkeypatch):
  """A default that changes renames no setting, and hides none."""
  def ids(default):
    config_class = dataclasses.make_dataclass(
        'Config', [('size', int, default)], frozen=True)
    monkeypatch.setattr(work_units, 'load_agent', lambda name, modules:
                        agents_lib.AgentModule(name, config_class, None))
    units = sweeps.expand(tiny_sweeps.make_config(tmp_path, AGENTS=[
        {'agent': 'ours', 'size': [3, 4]}, {'agent': 'ours'}]))
    return {unit.agent_config['size']: unit.agent_id for unit in units}

  three, four, five = ids(3), ids(4), ids(5)
  # The default is a setting like any other.
  assert set(three) == set(four) == {3, 4} and set(five) == {3, 4, 5}
  assert three == four and five == {**three, 5: five[5]}
  assert len(set(five.values())) == 3
  monkeypatch.undo()
  # Given or left out is the same setting.
  given, left_out = (sweeps.expand(tiny_sweeps.make_config(
      tmp_path, AGENTS=[{'agent': 'ensemble', **settings}]))[0]
                     for settings in ({'num_ensemble': 10}, {}))
  assert given.agent_config['num_ensemble'] == 10
  assert given.agent_id == left_out.agent_id
  assert given.row_ids() == left_out.row_ids()


def test_a_later_field_renames_nothing_until_it_is_set(tmp_path):
  """From a config to a row and back, with an agent file before and after."""
  path = tmp_path / 'my_agent.py'

  def units(fields, *entries):
    path.write_text(
        'import dataclasses\n'
        'from enn_ensembles.machine import canonical\n'
        '@dataclasses.dataclass(frozen=True)\n'
        f'class Config:\n  size: int = 3\n{fields}'
        'def make_agent(config: Config):\n  return config\n')
    modules = (str(path),)
    config = sweeps.override(
        tiny_sweeps.make_config(tmp_path, AGENTS=[
            {'agent': 'my_agent', **entry} for entry in entries]),
        agent_modules=modules)
    return sweeps.expand(config, modules)[::4]

  before, = units('', {})
  # Given or left out, the default is one setting: of three entries two remain.
  default, other = units('  weight: float = canonical.later_field(1.)\n',
                         {}, {'weight': 1}, {'weight': 0.5})
  assert default.agent_id != other.agent_id
  assert other.agent_label == 'my_agent,weight=0.5'
  shown = [dict(unit.agent_config) for unit in (before, default, other)]
  for config in shown:  # A hash of the file, which has changed.
    del config[work_units.SOURCE_FILE]
  assert shown == [{'size': 3}, {'size': 3}, {'size': 3, 'weight': 0.5}]
  module = agents_lib.load_agent(str(path))
  for config, weight in zip(shown, (1., 1., 0.5)):
    # What a row says is read as its config, which says the same again.
    made = agents_lib.make_config(module, config)
    assert made.weight == weight
    assert sweeps.all_settings(module, config) == config
  assert (results.make_agent_id('my_agent', shown[0])
          == results.make_agent_id('my_agent', shown[1]))


def published_rows():
  """(archive, first row of each file) of all published archives of rows."""
  for path in sorted((ROOT / 'leaderboards').glob('*/*rows.tar.xz')):
    with tarfile.open(path) as archive:
      for member in archive:
        if pathlib.PurePath(member.name).parent.name == 'units':
          yield path, json.load(archive.extractfile(member))['rows'][0]


def test_names_of_published_rows_are_those_of_the_code():
  """A new field of a config renames no published row, or this fails."""
  known, kinds = {}, set()
  for path, row in published_rows():
    if row['agent'] not in agents_lib.agent_names():
      continue
    key = row['agent_id'], row['agent_config'].get('replica')
    if key not in known:
      config = {name: tuple(value) if isinstance(value, list) else value
                for name, value in row['agent_config'].items()
                if name not in sweep_config.TREATMENTS}
      known[key] = sweeps.all_settings(
          agents_lib.load_agent(row['agent']), config)
      assert canonical.canonical_json(known[key]) == canonical.canonical_json(
          config), path
    if row['agent'] == 'bbb':  # Its rows say how many draws were asked for.
      kinds.add(row['agent_id'])
      row_id = results.make_row_id(
          {**row, 'agent_config': known[key]}, row['num_enn_samples'])
      assert row_id == row['row_id'], path
  assert len(known) > 30 and len(kinds) == 13


def test_run_id_and_row_id_say_what_is_computed(tmp_path):
  unit = sweeps.expand(tiny_sweeps.make_config(tmp_path))[0]
  families = [dataclasses.replace(unit.family, **change) for change in (
      {'input_dim': 11}, {'data_ratio': 1.5}, {'reference': 'enn2021'},
      {'solver': 'matrix_free'})]
  others = [dataclasses.replace(unit, **change) for change in (
      *({'family': family} for family in families),
      {'num_enn_samples': 10}, {'enumerate_indices': False},
      {'dtype': 'float64'}, {'agent': 'map'},
      {'agent_config': {**unit.agent_config, 'batch_size': 1}})]
  assert len({u.run_id for u in (unit, *others)}) == 10
  row_id = tiny_sweeps.row_id
  assert len({row_id(u, 0.1, 0) for u in (unit, *others)}) == 10
  # A solver that draws the same f as 'auto' makes the same problems.
  dense = dataclasses.replace(
      unit, family=dataclasses.replace(unit.family, solver='dense'))
  assert row_id(dense, 0.1, 0) == row_id(unit, 0.1, 0)
  # A run is all of its rows, a row is the same in whatever run.
  fewer = dataclasses.replace(unit, seeds=(0,))
  assert fewer.run_id != unit.run_id
  assert row_id(fewer, 0.1, 0) == row_id(unit, 0.1, 0)
  assert len({row_id(unit, e, s, selection)
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


def test_names_of_rows_stay():
  # Finished work would otherwise be done again.
  text = ('{"agent":"a","agent_config":{"k":1},"dtype":"float32",'
          '"enumerate_indices":true,"num_enn_samples":1000,"problem":'
          '{"cell":{"data_ratio":1,"input_dim":10,"noise_std":0.1},'
          '"kind":"nngp","ranking":{"kernel":"relu2","reference":"bayes"},'
          '"seed":0},"selection":"none"}')
  known = tiny_sweeps.make_unit(agent_config={'k': 1})
  assert tiny_sweeps.row_id(known, 0.1, 0) == hashlib.sha256(
      text.encode()).hexdigest()[:16]


def test_narrow_leaves_exactly_what_is_missing():
  unit = tiny_sweeps.make_unit(noise_stds=(0.01, 0.1, 1.), seeds=(0, 1, 2, 3))
  rows = list(itertools.product(unit.family.noise_stds, unit.seeds))

  def missing(done):
    parts = sweeps.narrow(unit, {tiny_sweeps.row_id(unit, *row)
                                 for row in done})
    left = [row for part in parts
            for row in itertools.product(part.family.noise_stds, part.seeds)]
    assert sorted(left) == sorted(set(rows) - set(done))  # Each row once.
    return parts

  def part(noise_stds=unit.family.noise_stds, seeds=unit.seeds):
    return tiny_sweeps.make_unit(noise_stds=noise_stds, seeds=seeds)

  assert missing([]) == (unit,)
  assert missing(rows) == ()
  assert missing([r for r in rows if r[1] < 2]) == (part(seeds=(2, 3)),)
  assert missing([r for r in rows if r[0] == 0.1]) == (part((0.01, 1.)),)
  # Not a grid: seeds that lack the same noise levels stay together.
  assert missing([(0.1, 0), (0.1, 2), (1., 3)]) == (
      part((0.01, 1.), (0, 2)), part(seeds=(1,)), part((0.01, 0.1), (3,)))


def test_narrow_tells_selections_apart():
  unit = tiny_sweeps.make_unit(noise_stds=(0.1, 1.), seeds=(0, 1),
                               selections=('none', 'oracle', 'val_nll'))

  def missing(done):
    parts = sweeps.narrow(unit, {tiny_sweeps.row_id(unit, *row)
                                 for row in done})
    left = [(e, s, c) for part in parts for e in part.family.noise_stds
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


def test_selections_of_an_entry(tmp_path):
  entry = {'agent': 'ensemble', 'num_ensemble': [3, 10]}
  config = tiny_sweeps.make_config(tmp_path, AGENTS=[
      {**entry, 'selection': ['val_nll', 'none']},
      {**entry, 'num_ensemble': 3, 'selection': 'oracle'}])
  selections = {unit.agent_config['num_ensemble']: unit.selections
                for unit in sweeps.expand(config)}
  # Entries that name one setting share its training.
  assert selections == {3: ('none', 'oracle', 'val_nll'),
                        10: ('none', 'val_nll')}
  entries = sweeps.expand(config)[0].manifest_entries()
  assert [e['selection'] for e in entries] == ['none', 'oracle', 'val_nll']


def test_manifest_entries_are_those_of_the_store(tmp_path):
  store = results.open_store(tmp_path / 'store', create=True)
  units = sweeps.expand(tiny_sweeps.make_config(tmp_path))
  store.write_manifest([entry for unit in units
                        for entry in unit.manifest_entries()])
  assert len(store.read_manifests()) == sum(u.num_problems for u in units)
