"""What a sweep is said to cost before its first unit."""

import dataclasses

import commands
import pytest
import tiny_sweeps

from enn_ensembles import sweeps
from enn_ensembles.sweeps import agent_checks
from enn_ensembles.sweeps import forecast
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import sweep_status
from enn_ensembles.sweeps import unit_results

OWN = '''
import jax
from enn_ensembles import agents

def make_agent():
{body}
'''
PLAIN = '''  def agent(data, prior, key):
    return lambda x, key: jax.random.normal(key, (len(x), 1))
  return agent'''
NETWORK = '''  return agents.from_settings(
      'ensemble', {'num_ensemble': 3, 'hidden_sizes': (4, 3)})'''


def make_units(folder, body=None, agent='own_agent', input_dim=(2, 3),
               data_ratio=(2.,), seed=(0, 1, 2), **settings):
  """Units on two noise levels, and the options that they run with."""
  modules = ()
  if body is not None:
    path = folder / f'{agent}.py'
    path.write_text(OWN.format(body=body))
    modules = (str(path),)
  config = sweeps.override(tiny_sweeps.make_config(
      folder, AGENTS=[{'agent': agent, **settings}], INPUT_DIM=list(input_dim),
      DATA_RATIO=list(data_ratio), SEED=list(seed)), agent_modules=modules)
  return (sweeps.expand(config, modules),
          unit_results.RunOptions('', agent_modules=modules))


def test_the_cost_of_a_first_run_is_its_end_and_its_start():
  assert forecast.cost_of_run([5., 2., 3., 3.]) == sweep_status.Cost(3., 1.)
  assert forecast.cost_of_run([4.]) == sweep_status.Cost(4., 0.)
  assert forecast.cost_of_run([1., 2.]) == sweep_status.Cost(2., 0.)
  assert forecast.cost_of_run([1., None]) is None
  assert forecast.cost_of_run([]) is None


LOGS = '''  import pathlib
  def agent(data, prior, key):
    with open(pathlib.Path(__file__).with_name('seen'), 'a') as file:
      print(*data.x.shape, file=file)
    return lambda x, key: jax.random.normal(key, (len(x), 1))
  return agent'''


def test_a_plain_agent_is_timed_on_small_problems_only(tmp_path):
  """On two seeds of each, the smallest first; it writes nothing."""
  units, options = make_units(tmp_path, LOGS, input_dim=(3, 2),
                              data_ratio=(2., 400.))
  agents = {units[0].agent_id: one_unit.make_agent(units[0], options)}
  before = sorted(tmp_path.iterdir())
  # No time, no family.
  assert not list(forecast.time_agents(units, agents, options, -1.))
  assert sorted(tmp_path.iterdir()) == before
  found = list(forecast.time_agents(units, agents, options,
                                    commands.HANG))
  # T = 1200 is not made; two noise levels and two seeds.
  assert [timing.family for timing in found] == [
      'D2_l2_bayes', 'D3_l2_bayes', 'D2_l400_bayes']
  assert (tmp_path / 'seen').read_text().splitlines() == [
      shape for shape in ('4 2', '6 3', '800 2') for _ in range(4)]
  assert all(timing.source == 'timed' and timing.cost.problem > 0
             for timing in found)
  assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / 'seen'])


def test_an_agent_that_fails_has_no_cost(tmp_path):
  units, options = make_units(
      tmp_path, '  return lambda data, prior, key: 1 / 0', input_dim=(2,))
  agents = {units[0].agent_id: one_unit.make_agent(units[0], options)}
  assert not list(forecast.time_agents(units, agents, options,
                                       commands.HANG))


def test_a_network_of_ones_own_costs_what_the_same_of_the_package_does(
    tmp_path):
  own, options = make_units(tmp_path, NETWORK)
  agents = {own[0].agent_id: one_unit.make_agent(own[0], options)}
  found = list(forecast.time_agents(own, agents, options, 60.))
  assert [timing.source for timing in found] == ['operations'] * 2
  package, _ = make_units(tmp_path, agent='ensemble', num_ensemble=3,
                          hidden_sizes=(4, 3))
  parts = forecast.make_forecast(own, {}, found)
  for part, unit in zip(parts, package, strict=True):
    assert part.seconds == pytest.approx(sweeps.estimate_seconds(unit))


def test_what_is_measured_comes_before_what_is_estimated(tmp_path):
  units, _ = make_units(tmp_path, PLAIN, input_dim=(2, 3, 4))
  label, agent_id = units[0].agent_label, units[0].agent_id
  timings = [forecast.Timing(agent_id, name, sweep_status.Cost(10., 100.),
                             'timed')
             for name in ('D2_l2_bayes', 'D3_l2_bayes')]
  measured = {(label, 'D2_l2_bayes'): sweep_status.Cost(2., 5.)}
  # Of the second family one of three seeds is done.
  todo = [units[0], dataclasses.replace(units[1], seeds=(1, 2)), units[2]]
  parts = forecast.make_forecast(todo, measured, timings)
  assert parts == [
      forecast.Part(label, 'D2_l2_bayes', 6, 5. + 6 * 2., 'rows'),
      forecast.Part(label, 'D3_l2_bayes', 4, 100. + 4 * 10., 'timed'),
      forecast.Part(label, 'D4_l2_bayes', 6, None, 'unknown')]
  lines = forecast.format_text(parts, 2, [label]).splitlines()
  assert lines[:5] == [
      'cost: at least 2.6 min (unknown in 1 of 3 cases) of one core, without '
      'making problems; at least 78 s on 2 workers, shared evenly',
      '  own_agent: at least 2.6 min (unknown in 1 of 3 cases) for 16 problems '
      '(rows, timed, unknown)',
      '    D2_l2_bayes: 2.8 s per problem, 17 s for 6',
      '    D3_l2_bayes: 35 s per problem, 2.3 min for 4',
      '    D4_l2_bayes: unknown']
  assert {line.split(':')[0].strip() for line in lines[5:]} == {
      'rows', 'timed', 'unknown'}
  only = forecast.format_text(parts[2:], 2)
  assert 'cost: an unknown time of one core' in only
  assert 'nobody knows yet how long it takes here' in only


def test_long_lists_are_cut():
  parts = [forecast.Part(f'a{i}', f'D{j}', 1, 1., 'rows')
           for i in range(23) for j in range(22)]
  lines = forecast.format_text(parts, 1, ['a0']).splitlines()
  assert lines[1].startswith('  a0: about 22 s for 22 problems')
  assert lines[21:23] == ['    D19: 1 s per problem, 1 s for 1',
                          '    and 2 others']
  assert lines[-2:] == ['  and 3 other agent settings',
                        '  rows: rows in the results folder']
  assert len(lines) == 1 + 20 + 21 + 2


def test_agents_of_the_package_have_sources_too(tmp_path):
  trained, _ = make_units(tmp_path, agent='map')
  plain, _ = make_units(tmp_path, agent='prior_only')
  solved, _ = make_units(tmp_path, agent='exact_posterior')
  parts = forecast.make_forecast([*trained, *plain, *solved], {})
  assert [part.source for part in parts] == (
      ['operations'] * 2 + ['reading'] * 2 + ['operations'] * 2)
  assert [part.seconds for part in parts[:4]] == [
      *(pytest.approx(sweeps.estimate_seconds(unit)) for unit in trained),
      # Three seeds of T x D numbers, 2e7 per second.
      pytest.approx(3 * 4 * 2 / 2e7), pytest.approx(3 * 6 * 3 / 2e7)]
  # Nothing is compiled that a start would pay for.
  assert [part.seconds for part in parts[4:]] == [
      pytest.approx(sweeps.estimate_seconds(unit) - 3.) for unit in solved]
  assert 'training and predictions, counted' in forecast.format_text(
      parts[4:], 1)


def test_a_sweep_times_its_agents_where_it_checks_them(tmp_path):
  units, options = make_units(tmp_path, PLAIN)
  found = agent_checks.check_units(units, options, timing_seconds=commands.HANG)
  assert [(timing.agent_id, timing.family) for timing in found] == [
      (unit.agent_id, unit.family.name) for unit in units]
  assert not agent_checks.check_units(units, options)


@pytest.mark.parametrize('body', ['time.sleep(600.)', 'os._exit(3)'])
def test_what_takes_too_long_or_ends_its_process_stays_unknown(tmp_path, body):
  """The check is passed; what real problems do to it is the sweep's to say."""
  units, options = make_units(
      tmp_path, '  import os, time\n  def agent(data, prior, key):\n'
      f'    if len(data.x) == 80:\n      {body}\n'
      '    return lambda x, key: jax.random.normal(key, (len(x), 1))\n'
      '  return agent', input_dim=(2,), data_ratio=(40.,), seed=(0,))
  assert agent_checks.check_units(units, options, timing_seconds=0.5) == []
