"""Agents of a sweep are checked in a process of their own."""

import pytest

from enn_ensembles.sweeps import agent_checks
from enn_ensembles.sweeps import sweep_config
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units


def make_units(path):
  config = sweep_config.SweepConfig(
      'test', (0,), ({'agent': path.stem},),
      {'input_dim': (2,), 'data_ratio': (2.,), 'noise_std': (.1,)})
  return (work_units.expand(config, (str(path),)),
          unit_results.RunOptions('', agent_modules=(str(path),)))


@pytest.mark.parametrize('body, message', [
    ('return lambda x, key: 0. * x[:, :1]', 'different keys give different'),
    ('import os; os._exit(3)', 'it ended its process with exit code 3'),
])
def test_a_sweep_checks_agents_in_a_process_of_their_own(
    tmp_path, body, message):
  path = tmp_path / 'own_agent.py'
  path.write_text(f'def make_agent():\n  def agent(data, prior, key):\n'
                  f'    {body}\n  return agent\n')
  with pytest.raises(ValueError, match=message) as error:
    agent_checks.check_units(*make_units(path))
  assert str(path) in str(error.value)


def test_what_make_agent_raises_is_one_line(tmp_path):
  path = tmp_path / 'own_agent.py'
  path.write_text('def make_agent():\n  return {}["depth"]\n')
  with pytest.raises(ValueError, match="make_agent raised KeyError: 'depth'$"):
    agent_checks.check_units(*make_units(path))


def test_a_sweep_accepts_a_sound_agent(tmp_path):
  path = tmp_path / 'own_agent.py'
  path.write_text(
      'import jax\n\n\ndef make_agent():\n'
      '  def agent(data, prior, key):\n'
      '    std = prior.kernel.activation and prior.noise_std\n'
      '    return lambda x, key: std * jax.random.normal(key, (len(x), 1))\n'
      '  return agent\n')
  agent_checks.check_units(*make_units(path))
