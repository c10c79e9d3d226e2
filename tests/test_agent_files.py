"""A file is an agent, or it is said why not."""

import pytest

from enn_ensembles import agents as agents_lib
from enn_ensembles import sweeps
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results

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
    ('def make_agent(config: "Confg"): pass', "with a dataclass, got config: 'C"
     "onfg': NameError: name 'Confg' is not defined"),
    ('def make_agent(config, depth): pass',
     'must take its config alone, got another argument, depth'),
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


@pytest.mark.parametrize('text, settings, message', [
    ('  width: int', {}, "agent 'my_agent' must be given width, which has no"),
    ('  width: int = 3\n  def __post_init__(self): assert not self, "odd"',
     {}, "the config of agent 'my_agent' raised AssertionError: odd")])
def test_what_a_config_of_its_own_raises_is_named(
    tmp_path, text, settings, message):
  path = tmp_path / 'my_agent.py'
  path.write_text('import dataclasses\n@dataclasses.dataclass\nclass C:\n'
                  f'{text}\ndef make_agent(config: C):\n  pass')
  module = agents_lib.load_agent(str(path))
  with pytest.raises(ValueError, match=message):
    agents_lib.make_config(module, settings)


@pytest.mark.parametrize('name', ['map', 'brought'])
def test_a_file_cannot_take_the_name_of_an_agent(tmp_path, name):
  """Boards would take rows of the other name for predictions from files."""
  (tmp_path / f'{name}.py').write_text(MY_AGENT)
  with pytest.raises(ValueError, match='has the name of an agent'):
    agents_lib.load_agent(str(tmp_path / f'{name}.py'))


def test_a_file_that_changes_during_a_sweep_ends_it(tmp_path):
  # Its rows would stand under the hash of the old file for ever.
  path = tmp_path / 'my_agent.py'
  text = ('import numpy as np\n'
          'def make_agent():\n'
          '  def agent(data, prior, key):\n'
          '    {}\n'
          '    return lambda x, key: np.full((len(x), 1), int(key[-1]) % 7.)\n'
          '  return agent\n')
  path.write_text(text.format('pass'))
  config = sweeps.SweepConfig(
      'test', (0,), ({'agent': 'my_agent'},),
      {'input_dim': (2,), 'data_ratio': (1.,), 'noise_std': (1.,)})
  options = unit_results.RunOptions(str(tmp_path), (str(path),))
  unit, = sweeps.expand(config, (str(path),))
  rows, _ = one_unit.run_unit(unit, options)
  assert rows[0]['status'] == 'ok', rows[0]['message']
  path.write_text(text.format('x = 1'))
  with pytest.raises(ValueError, match='must not change during a sweep'):
    one_unit.run_unit(unit, options)
  # And while it computes.
  path.write_text(text.format(f'open({str(path)!r}, "a").write("#")'))
  unit, = sweeps.expand(config, (str(path),))
  with pytest.raises(ValueError, match='my_agent.py.* must not change'):
    one_unit.run_unit(unit, options)
