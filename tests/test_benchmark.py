"""The benchmark: what it counts, that both ways train alike, a tiny run."""

import csv
import functools
import pathlib
import subprocess
import sys

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enn_ensembles import agents
from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles import problems
from enn_ensembles import sweeps
from enn_ensembles.studies.speed import benchmarking
from enn_ensembles.training import loop
from enn_ensembles.training import program

ROOT = pathlib.Path(__file__).parents[1]

SMALL = {'hidden_sizes': (4, 3), 'num_batches': 4, 'batch_size': 5}


def make_unit(agent, data_ratio=4., **settings):
  unit, = sweeps.expand(sweeps.SweepConfig(
      name='test', agents=({'agent': agent, **settings},),
      problem={'input_dim': (2,), 'data_ratio': (data_ratio,),
               'noise_std': (0.1, 1.)}, seed=(0, 1), num_enn_samples=10))
  return unit


def make_agent(unit):
  module = agents.load_agent(unit.agent)
  return agents.make_agent(
      module, agents.make_config(module, unit.agent_config))


@pytest.mark.parametrize('agent, settings', [
    ('layer_ensemble', {'num_options': 2, 'noise_scale': 0.}),
    ('bbb', {'num_index_samples': 22, 'sigma_0': 3.}),
    ('mc_dropout', {'dropout_rate': 0.3, 'weight_decay_scale': 2.}),
])
def test_both_ways_train_the_same_agent(agent, settings):
  unit = make_unit(agent, 0.5, **SMALL, **settings)
  # Every minibatch is the same, whoever draws it.
  assert unit.family.num_train == 1
  made, key, noise_std = make_agent(unit), problems.agent_key(3), 0.5
  x, y = np.array([[0.3, -1.2]]), np.array([[0.7]])
  trained = loop.train(made, x[None], y[None, None],
                       base.Gaussian(np.array([noise_std])), key[None],
                       dtype=jnp.float64)

  network = made.make_network(
      base.PriorKnowledge((2,), 1, base.Gaussian(noise_std)))
  fold_in = functools.partial(jax.random.fold_in, key)
  params, state = network.init(
      fold_in(program.INIT_KEY), x, network.indexer(fold_in(99)))
  optimizer = made.optimizer
  step = jax.jit(benchmarking.make_plain_step(
      benchmarking.make_plain_loss(network, unit, noise_std), optimizer))
  start, opt_state = params, optimizer.init(params)
  for i in range(made.num_batches):
    step_key = jax.random.fold_in(fold_in(program.STEP_KEY), i)
    params, opt_state = step(params, opt_state, state, np.repeat(x, 5, 0),
                             np.repeat(y, 5, 0), np.zeros((5, 0)), step_key)
  moved = 0.
  for first, ours, plain in zip(*map(
      jax.tree.leaves, (start, trained.params, params)), strict=True):
    np.testing.assert_allclose(ours[0, 0], plain, rtol=1e-7, atol=1e-9)
    moved = max(moved, np.abs(plain - first).max())
  assert moved > 1e-3  # Four steps of Adam.


def test_target_noise_of_the_plain_way_is_fixed_per_point_and_member():
  unit = make_unit('ensemble', **SMALL, num_ensemble=3, noise_scale=2.)
  zero = base.EpistemicNetwork(
      apply=lambda params, state, x, z: (jnp.zeros((len(x), 1)), state),
      init=None, indexer=networks.EnsembleIndexer(3))
  loss = benchmarking.make_plain_loss(zero, unit, noise_std=0.1)
  y, noise = np.array([[1.], [2.]]), np.array([[1., 2., 3.], [4., 5., 6.]])
  # Member k's target of point t is y_t + 2 * 0.1 * noise[t, k].
  expected = np.mean((y + 0.2 * noise)**2)
  found = loss({}, {}, np.zeros((2, 2)), y, noise, problems.agent_key(0))
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_case_is_measured():
  unit = make_unit('ensemble', **SMALL, num_ensemble=2)
  made = benchmarking.make_problems(unit)
  options = benchmarking.BenchmarkOptions(repeats=2, seconds_per_case=1.,
                                          plain_steps=3)
  meetings = []
  found = benchmarking.measure(unit, made, options,
                               wait=lambda: meetings.append(1))
  assert len(meetings) == 4  # Ours, plain, ours, plain.
  assert found.num_problems == 4  # Two seeds by two noise levels.
  assert found.num_params == 2 * (4 * 3 + 3 * 5 + 4)
  assert found.train_steps_timed == 4 and found.plain_steps_timed == 3
  # The plain way computes the prior in every step; and a picked member's
  # products are as many.
  assert found.plain_flops > found.flops
  assert found.program_bytes > 0 and found.compile_seconds > 0
  row = benchmarking.make_row(unit, [found, found], {'load_before': 1.})
  assert row['num_workers'] == 2 and row['num_problems'] == 8
  # Two workers at the same speed halve the machine's seconds per problem.
  assert row['train_seconds_min'] == pytest.approx(
      min(found.train_seconds) / 2)
  assert row['ratio_min'] == pytest.approx(
      min(found.plain_seconds) / min(found.train_seconds))
  assert row['problems_per_second'] == pytest.approx(1. / row['total_seconds'])


def test_an_agent_without_a_network_is_measured():
  unit = make_unit('prior_only')
  found = benchmarking.measure(unit, benchmarking.make_problems(unit),
                               benchmarking.BenchmarkOptions(repeats=2))
  row = benchmarking.make_row(unit, [found], {})
  assert len(found.train_seconds) == 2
  assert row['num_params'] is row['ratio_min'] is row['program_mb'] is None


def test_slow_cases_run_fewer_steps():
  options = benchmarking.BenchmarkOptions(repeats=3, seconds_per_case=10.)
  choose = functools.partial(benchmarking._choose_work, num_batches=1000,
                             num_noise=3, num_seeds=4, options=options)
  assert choose(1e-6) == (4, 1000)
  seeds, steps = choose(4e-4)
  assert 1 <= seeds < 4 and steps == 1000
  seeds, steps = choose(1e-2)
  assert seeds == 1 and 20 <= steps < 100
  assert choose(10.) == (1, 20)


def test_machine_seconds_add_up_speeds():
  # Workers of 1/2 and 1/3 problems per second make 5/6 of one.
  assert benchmarking.machine_seconds([[2.], [3.]]) == pytest.approx([6. / 5.])


def test_bad_input_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  output = f'--output_dir={tmp_path}'
  cases = [
      (['--agents=esemble', output], "got 'esemble'"),
      (['--agents=', output], 'agents must be a list of at least one value'),
      (['--input_dim=', output], 'INPUT_DIM must be a list of at least one'),
      (['--input_dim=1.5', output], '--input_dim must be integers'),
      (['--input_dim=0', output], 'must be an integer >= 1, got 0'),
      (['--data_ratio=ten', output], 'must be numbers with commas between'),
      (['--input_dim=1000', '--data_ratio=1000',
        output], 'solver_memory_mb must'),
      (['--num_workers=0', output], 'num_workers must be an integer >= 1'),
      (['--num_workers=9999', output], 'num_workers must be at most'),
      (['--num_seeds=0', output], 'num_seeds must be >= 1'),
      (['--repeats=0', output], 'repeats must be an integer >= 1'),
      (['--seconds_per_case=0', output], 'seconds_per_case must be'),
      ([f'--output_dir={tmp_path}/file'], 'not a folder that can be'),
  ]
  commands.check_refused('benchmark', cases)
  assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_command(tmp_path):
  done = subprocess.run(
      [sys.executable, '-m', 'experiments.benchmark', '--agents=prior_only',
       '--input_dim=3', '--repeats=1', f'--output_dir={tmp_path}',
       '--markdown'], cwd=ROOT, check=True, text=True, capture_output=True)
  assert '[' in done.stdout and '1/1 prior_only at D_x = 3' in done.stdout
  assert '| agent' in done.stdout and 'load average' in done.stdout
  with open(tmp_path / 'benchmark.csv', newline='') as file:
    row, = csv.DictReader(file)
  assert row['agent_label'] == 'prior_only' and row['num_train'] == '30'
  assert float(row['problem_seconds']) > 0 and row['ratio_min'] == ''
  assert row['jax'] == jax.__version__
