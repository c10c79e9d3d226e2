"""The benchmark: what it counts, that both ways train alike, a tiny run."""

import csv
import functools
import pathlib

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
from enn_ensembles.studies.speed import case
from enn_ensembles.studies.speed import ceiling
from enn_ensembles.studies.speed import lengths
from enn_ensembles.studies.speed import plain_training
from enn_ensembles.studies.speed import rows
from enn_ensembles.studies.speed import timed_training
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
    ('bbb', {'num_index_samples': 22, 'initial_std': 0.3, 'kl_weight': 0.2}),
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
  step = jax.jit(plain_training.make_step(
      plain_training.make_loss(network, unit, noise_std), optimizer))
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
  loss = plain_training.make_loss(zero, unit, noise_std=0.1)
  y, noise = np.array([[1.], [2.]]), np.array([[1., 2., 3.], [4., 5., 6.]])
  # Member k's target of point t is y_t + 2 * 0.1 * noise[t, k].
  expected = np.mean((y + 0.2 * noise)**2)
  found = loss({}, {}, np.zeros((2, 2)), y, noise, problems.agent_key(0))
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_timed_training_is_that_of_sweeps():
  unit = make_unit('ensemble', **SMALL, num_ensemble=2, noise_scale=1.)
  agent, made = make_agent(unit), case.make_problems(unit)
  timed = timed_training.TimedTraining(agent, unit, made.groups)
  timed.run(4)
  timed.run(2)  # A shorter run begins anew.
  half = timed.trained().params
  timed.run(4)
  found = timed.trained()
  expected = loop.train(
      agent, np.stack([group[0].x_train for group in made.groups]),
      np.stack([[problem.y_train for problem in group]
                for group in made.groups]),
      base.Gaussian(np.array([0.1, 1.])),
      jax.numpy.stack([problems.agent_key(seed) for seed in unit.seeds]))
  assert found.num_params == expected.num_params == timed.num_params
  for ours, theirs, early in zip(*map(
      jax.tree.leaves, (found.params, expected.params, half)), strict=True):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert np.abs(ours - early).max() > 1e-4


def test_compiled_programs_come_back_from_the_cache(tmp_path):
  before = jax.config.jax_compilation_cache_dir
  files = []

  def compile_once():
    jax.jit(lambda x: jnp.sin(x) @ x).lower(jnp.ones((7, 7))).compile()
    files.append(len(list(tmp_path.iterdir())))
    return float(len(files))

  assert timed_training.twice(compile_once, str(tmp_path)) == (1., 2.)
  # The second time nothing new is compiled.
  assert files[0] > 0 and files[1] == files[0]
  assert jax.config.jax_compilation_cache_dir == before


def make_ceiling(unit):
  """Every rate is 100; of products of the case 50."""
  todo = ceiling.tasks([('float32', shape) for shape in
                        case.used_products(unit)], [unit.family.num_train])
  return ceiling.Ceiling([
      ceiling.Figure(task, ceiling.ONE_CORE, 1,
                     50. if task.stacked > 1 else 100., 1.) for task in todo])


@pytest.mark.slow
def test_a_case_is_measured():
  unit = make_unit('ensemble', **SMALL, num_ensemble=2)
  made = case.make_problems(unit, repeats=2)
  assert len(made.seconds) == 2 and len(made.groups) == 2
  meetings = []
  found = case.measure(unit, made, case.CaseOptions(2, True, 1.),
                       wait=lambda: meetings.append(1))
  # Compiling; and twice ours (short and long), scoring, plain (the same).
  assert len(meetings) == 1 + 2 * 5
  network = found.network
  assert found.num_problems == 4  # Two seeds by two noise levels.
  assert network.num_params == 2 * (4 * 3 + 3 * 5 + 4)
  assert network.timing.lengths == network.plain.timing.lengths == (1, 4)
  assert list(found.train_seconds) == list(network.timing.long)
  # The plain way computes the prior in every step; and a picked member's
  # products are as many.
  assert network.plain.flops > network.step_flops
  # Every member's two hidden layers and its output at 1000 points and more.
  layers = 2 * 4 + 4 * 3 + 3
  assert network.predict_flops >= 2 * 2 * layers * 1000
  assert network.program_bytes > 0
  assert network.compile_first_seconds > 0 < network.compile_cached_seconds
  for score, predict in zip(found.score_seconds, network.predict_seconds):
    assert 0 < predict < score


def measurement(once, step, plain_step=None, **fields):
  """What a worker with an artificial timer measures, in binary fractions."""
  def timing(once, step):
    return lengths.Timing(lengths.Lengths(64, 512), [once + 64 * step] * 3,
                          [once + 512 * step] * 3)

  plain = plain_step and case.Plain(timing(0., plain_step), 2., 4e8)
  network = case.Network(
      timing(once, step), num_steps=1024, num_params=1000, step_flops=2e8,
      predict_seconds=[0.5] * 3, predict_flops=1e9, compile_first_seconds=8.,
      compile_cached_seconds=0.5, program_bytes=10**6, plain=plain)
  return case.Measurement(
      num_problems=3, problem_seconds=[0.25], peak_rss_mb=2.,
      train_seconds=network.timing.seconds_at(1024), score_seconds=[1.] * 3,
      device='cpu', network=network, **fields)


def test_rows_of_an_artificial_timer():
  unit = make_unit('ensemble', **SMALL, num_ensemble=2)
  worker = measurement(0.5, 1. / 128., plain_step=1. / 32.)
  row = rows.make_row(unit, [worker, worker], make_ceiling(unit),
                      {'load_before': 1.})
  # Two workers at the same speed halve the machine's seconds per problem.
  assert row['train_once_seconds'] == 0.25
  assert row['train_step_seconds'] == row['train_step_seconds_low'] == 1. / 256.
  assert row['train_seconds'] == 0.25 + 1024 / 256.
  assert not row['train_whole'] and row['train_steps_long'] == 512
  assert row['start_to_score_seconds'] == 0.125 + 4.25 + 0.5
  assert row['train_gflop_per_second'] == pytest.approx(0.2 * 256)
  assert row['train_share_of_large'] == pytest.approx(0.512)
  assert row['train_share_of_used'] == pytest.approx(1.024)
  # Six times 4 bytes of 1000 parameters in every step.
  assert row['train_share_of_copy'] == pytest.approx(24e-6 * 256 / 100)
  assert row['predict_share_of_large'] == pytest.approx(4. / 100.)
  # T = 8: three factorisations for two noise levels.
  assert row['problem_share_of_dpotrf'] == pytest.approx(
      1e-9 * 8**3 / 3 * 1.5 / 0.125 / 100.)
  assert row['plain_seconds'] == 1024 / 64. and row['ratio'] == 16. / 4.25
  assert row['plain_share_of_large'] == pytest.approx(0.4 * 64 / 100)
  assert row['num_workers'] == 2 and row['num_problems'] == 6

  slower = measurement(0.5, 1. / 128.)
  row = rows.make_row(unit, [slower], None, {})
  assert row['ratio'] is row['train_share_of_large'] is row['plain_gflop'] is (
      row['ceiling_large']) is None
  gpu = worker._replace(device='gpu')
  row = rows.make_row(unit, [gpu], make_ceiling(unit), {})
  assert row['train_share_of_used'] is None and row['ratio'] > 0


def test_an_agent_without_a_network_is_measured():
  unit = make_unit('prior_only')
  found = case.measure(unit, case.make_problems(unit, 2),
                       case.CaseOptions(repeats=2))
  row = rows.make_row(unit, [found], make_ceiling(unit), {})
  assert len(found.train_seconds) == len(found.score_seconds) == 2
  assert row['num_params'] is row['ratio'] is row['program_mb'] is None
  assert row['start_to_score_seconds'] == pytest.approx(
      row['problem_seconds'] + row['train_seconds'] + row['score_seconds'])
  with_network = rows.make_row(
      make_unit('ensemble', **SMALL), [measurement(0.5, 0.25)], None, {})
  assert list(row) == list(with_network)  # One header for all.


def test_bad_input_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  output = f'--output_dir={tmp_path}'
  cases = [
      (['--agents=esemble', output], "got 'esemble'"),
      (['--agents=', output], '--agents must be a list of at least one value'),
      (['--input_dim=', output], '--input_dim must be a list of at least one'),
      (['--input_dim=1.5', output], '--input_dim must be integers'),
      (['--input_dim=0', output], '--input_dim must be an integer >= 1, got 0'),
      (['--data_ratio=ten', output], 'must be numbers with commas between'),
      (['--input_dim=1000', '--data_ratio=1000',
        output], 'solver_memory_mb must'),
      (['--num_workers=0', output], 'num_workers must be an integer >= 1'),
      (['--num_workers=9999', output], 'num_workers must be at most'),
      (['--num_seeds=0', output], '--num_seeds must be an integer >= 1'),
      (['--repeats=0', output], 'repeats must be an integer >= 1'),
      (['--seconds_per_case=0', output], 'seconds_per_case must be'),
      ([f'--output_dir={tmp_path}/file'], 'not a folder that can be'),
  ]
  commands.check_refused('benchmark', cases)
  assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_command(tmp_path):
  done = commands.run_module(
      'experiments.benchmark', '--agents=prior_only', '--input_dim=3',
      '--repeats=1', '--noceiling', f'--output_dir={tmp_path}', '--markdown')
  assert not done.returncode, done.stderr
  assert '[' in done.stdout and '1/1 prior_only at D_x = 3' in done.stdout
  assert '| agent' in done.stdout and 'load average' in done.stdout
  with open(tmp_path / 'benchmark.csv', newline='') as file:
    row, = csv.DictReader(file)
  assert row['agent_label'] == 'prior_only' and row['num_train'] == '30'
  assert float(row['start_to_score_seconds']) > 0 and row['ratio'] == ''
  assert row['jax'] == jax.__version__
