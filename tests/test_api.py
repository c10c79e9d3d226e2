"""The public names: five lines from a problem to a sweep's own scores."""

import doctest
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import enn_ensembles as ee
from enn_ensembles import sweeps
from enn_ensembles.machine import devices
from enn_ensembles.problems import kinds
from enn_ensembles.problems.kinds import heteroscedastic
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results

ROOT = pathlib.Path(__file__).parents[1]
AGENTS = (
    {'agent': 'ensemble', 'num_ensemble': 3, 'num_batches': 5},
    {'agent': 'mc_dropout', 'num_batches': 5},
    {'agent': 'exact_posterior', 'analytic': False},
    {'agent': 'prior_only'},
    {'agent': 'map', 'num_batches': 5},
)


@pytest.fixture(name='problem', scope='module')
def make_problem():
  return ee.load_problem('D2_l3_e0.1_s4')


@pytest.fixture(name='rows', scope='module')
def make_rows():
  """Rows of a sweep of two noise levels, for the same problem."""
  config = ee.SweepConfig(
      'test', (4,), AGENTS,
      {'input_dim': (2,), 'data_ratio': (3.,), 'noise_std': (.1, 1.)},
      num_enn_samples=150)
  rows = [row for unit in sweeps.expand(config)
          for row in one_unit.run_unit(unit, unit_results.RunOptions(''))[0]]
  return {row['agent']: row for row in rows
          if row['problem_id'] == 'D2_l3_e0.1_s4_bayes'}


@pytest.mark.parametrize('entry', AGENTS, ids=lambda entry: entry['agent'])
@pytest.mark.parametrize('way', ['agent', 'sampler', 'plain call'])
def test_scores_are_the_sweeps(problem, rows, entry, way):
  settings = dict(entry)
  agent = ee.make_agent(settings.pop('agent'), **settings)
  scored = agent
  if way == 'sampler':
    scored = ee.train(agent, problem)
  elif way == 'plain call':
    scored = agent(problem.data, problem.prior, ee.agent_key(4))
  with devices.x64_mode(False):  # As in a notebook.
    scores = ee.score(scored, problem, num_enn_samples=150)
    assert not jax.config.jax_enable_x64
  assert rows[entry['agent']]['scores'].keys() == scores.keys()
  for name, value in rows[entry['agent']]['scores'].items():
    np.testing.assert_allclose(scores[name], value, rtol=1e-6, atol=1e-6)


def test_a_finite_set_is_drawn_from_where_that_is_asked(problem):
  sampler = ee.train(ee.make_agent('ensemble', num_ensemble=3, num_batches=2),
                     problem)
  assert ee.score(sampler, problem)['kl_floor'] == np.inf  # Of three members.
  drawn = ee.score(sampler, problem, 50, enumerate_indices=False)
  assert np.isfinite(drawn['kl_floor'])
  members = sampler.members(problem.x_test[:5])
  assert members.shape == (3, 5, 1)
  with devices.x64_mode(False):  # As in a notebook.
    np.testing.assert_array_equal(sampler.members(problem.x_test[:5]), members)
  draw = sampler(problem.x_test[:5], ee.evaluation_key(7))
  assert any(np.allclose(member, draw, rtol=1e-5) for member in members)
  assert not hasattr(
      ee.train(ee.make_agent('mc_dropout', num_batches=1), problem), 'members')


def test_ground_truth_is_float64_whatever_the_caller_has_set():
  with devices.x64_mode(False):
    problem = ee.load_problem('D2_l3_e0.1_s4_enn2021')
    brought = ee.problem_from_data(
        problem.x_train, problem.y_train, problem.x_test, problem.x_val, 0.1,
        reference='enn2021')
    sampler = ee.train(ee.make_agent('exact_posterior'), problem)
    mean, std = sampler.moments(problem.x_test)
    assert not jax.config.jax_enable_x64
  np.testing.assert_allclose(brought.test_mean, problem.test_mean, rtol=1e-12)
  assert mean.dtype == std.dtype == np.float64


@pytest.mark.parametrize('problem_id', [
    'D2_l3_e0.1_s4', 'D2_l3_e0.1_s4_bayes', 'D10_l0.5_e0.01_s123_enn2021'])
def test_a_problem_is_found_by_its_id(problem_id):
  family, seed = kinds.find_problem(problem_id)
  cell, = family.cells
  assert family.problem_id(cell, seed).startswith(problem_id)


@pytest.mark.parametrize('problem_id, message', [
    ('D10', "problem_id must be as 'D10_l1_e0.1_s0'"),
    ('D10_l1_ex_s0', 'problem_id must be as'),
    ('D0_l1_e0.1_s0', 'input_dim must be an integer >= 1, got 0'),
    ('D10_l1_e-1_s0', 'noise_std must be a finite number > 0, got -1'),
    ('D10_l1_e0.1_s99999999999', 'seed must be at most'),
])
def test_another_id_is_refused(problem_id, message):
  with pytest.raises(ValueError, match=message):
    ee.load_problem(problem_id)


def test_what_is_no_agent_is_refused(problem):
  with pytest.raises(ValueError, match='must be a function of .data, prior'):
    ee.train(lambda x, key: x, problem)
  with pytest.raises(ValueError, match='function of .data, prior, key. or of '
                     '.x, key., got 3'):
    ee.score(3, problem)
  with pytest.raises(ValueError, match="no setting 'num_members'"):
    ee.make_agent('ensemble', num_members=3)


@pytest.mark.parametrize('agent', [
    lambda data, prior, key=None: lambda x, key: x[:, :1],
    lambda *args: lambda x, key: x[:, :1]])
def test_an_agent_may_take_its_arguments_in_any_way(problem, agent):
  sampler = ee.train(agent, problem)
  assert ee.score(sampler, problem, 20)['std_ratio'] < 1.  # All draws alike.


class Moments:
  """A sampler of exact moments."""
  analytic = True

  def __init__(self, moments):
    self.moments = lambda x: moments(len(x))

  def __call__(self, x, key):
    return np.zeros((len(x), 1))


@pytest.mark.parametrize('moments, message', [
    (lambda n: None, 'moments must return a pair, mean and std, got NoneType'),
    (lambda n: np.zeros(n), 'moments must return a pair, mean and std, got nd'),
    (lambda n: (np.zeros(n), -np.ones(n)), 'must return std >= 0, got -1'),
    (lambda n: (np.zeros(n, complex), np.ones(n)), 'real numbers, got complex'),
    (lambda n: (np.zeros(n), ['a'] * n), 'moments must return real numbers')])
def test_moments_that_are_none(problem, moments, message):
  with pytest.raises(ValueError, match=message):
    ee.score(Moments(moments), problem)


@pytest.mark.parametrize('value', ['a', None, 1j, b'a'])
def test_a_draw_is_real_numbers(problem, value):
  def sampler(x, key):
    return np.full((len(x), 1), value)
  with pytest.raises(ValueError, match='a sampler must return real numbers'):
    ee.score(sampler, problem, 5)


def test_a_negative_std_breaks_a_rule():
  with pytest.raises(ValueError, match='moments must return std >= 0, got -1'):
    ee.check_agent(lambda data, prior, key: Moments(
        lambda n: (np.zeros(n), -np.ones(n))))


@pytest.mark.parametrize('value', [None, 3, {'a': 1}, object()])
def test_what_is_no_path_is_refused(value):
  for call in (ee.open_store, ee.make_board, ee.load_config,
               lambda value: ee.run_sweep(ee.SweepConfig(
                   't', (0,), ({'agent': 'prior_only'},),
                   {'input_dim': (2,), 'data_ratio': (1.,),
                    'noise_std': (1.,)}), value)):
    with pytest.raises(ValueError, match='a folder|a Python file') as caught:
      call(value)
    assert '\n' not in str(caught.value)


def test_no_agent_modules_are_none(tmp_path):
  config = ee.SweepConfig('test', (0,), ({'agent': 'prior_only'},), {
      'input_dim': (2,), 'data_ratio': (3.,), 'noise_std': (.1,)})
  row, = ee.run_sweep(config, tmp_path, agent_modules=None)
  assert row['status'] == 'ok'


@pytest.mark.parametrize('seed', [-1, 1.5, True, '3', [1], 2**32, 10**20])
def test_what_is_no_seed_is_refused(problem, seed):
  for call in (ee.agent_key, ee.evaluation_key, lambda seed: ee.train(
      ee.make_agent('prior_only'), problem, seed=seed)):
    with pytest.raises(ValueError, match='seed must be a'):
      call(seed)


@pytest.mark.parametrize('name', [None, 3, b'map', ['map']])
def test_what_is_no_name_is_refused(name):
  with pytest.raises(ValueError, match='agent must be the name of an agent'):
    ee.make_agent(name)
  with pytest.raises(ValueError, match='problem_id must be as'):
    ee.load_problem(name)


def test_a_cache_that_is_no_path_is_refused(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match='cache_dir must name a folder, got 3'):
    ee.load_problem('D2_l3_e0.1_s4', cache_dir=3)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('num_points', [1, 2, 9])
def test_fewer_points_than_a_block_have_no_joint_score(num_points):
  x = np.linspace(-1, 1, 2 * num_points).reshape(num_points, 2)
  problem = ee.problem_from_data(x, x[:, 0], x + 1., x + 2., 0.1)
  scores = ee.score(
      lambda x, key: jax.random.normal(key, (len(x), 1)), problem, 5)
  assert np.isfinite(scores['kl_estimate'])
  assert not [name for name in scores if name.startswith('joint')]
  with pytest.raises(ValueError, match='kernel must be a KernelConfig, got 3'):
    ee.problem_from_data(x, x[:, 0], x, x, 0.1, kernel=3)


@pytest.mark.parametrize('value', [None, 3, 'D2_l3_e0.1_s4'])
def test_what_is_no_problem_is_refused(value):
  agent = ee.make_agent('prior_only')
  for call in (ee.train, ee.score):
    with pytest.raises(ValueError, match='problem must be a problem, as load_'):
      call(agent, value)
  with pytest.raises(ValueError, match='problem must be a dict of values'):
    ee.SweepConfig('t', (0,), ({'agent': 'prior_only'},), value)


def test_a_small_sweep(tmp_path):
  (tmp_path / 'own.py').write_text(
      'import jax\n\n\ndef make_agent():\n'
      '  return lambda data, prior, key: (\n'
      '      lambda x, key: jax.random.normal(key, (len(x), 1)))\n')
  config = ee.SweepConfig(
      'test', (0,), ({'agent': 'own'}, {'agent': 'prior_only'}),
      {'input_dim': (2,), 'data_ratio': (3.,), 'noise_std': (.1,)},
      num_enn_samples=20)
  lines = []
  rows = ee.run_sweep(config, tmp_path / 'results', [tmp_path / 'own.py'],
                      report=lines.append)
  assert {row['agent'] for row in rows} == {'own', 'prior_only'}
  assert len(lines) == 2
  again = ee.run_sweep(config, tmp_path / 'results', tmp_path / 'own.py',
                       report=lines.append)
  assert again == rows and len(lines) == 2
  with pytest.raises(ValueError, match='report must be a function of a text'):
    ee.run_sweep(config, tmp_path / 'results', report=None)
  for wrong in (3, [None], b'own.py', {'own.py': 1}):
    with pytest.raises(ValueError, match='agent_modules must be the path of a'):
      ee.run_sweep(config, tmp_path / 'results', wrong)
  with pytest.raises(ValueError, match='prior must be a PriorKnowledge, such'):
    ee.check_agent(ee.make_agent('prior_only'), prior='D2_l3_e0.1_s4')


SCRIPT = '''
import enn_ensembles as ee
print('top')
config = ee.SweepConfig(
    'own', (0,), ({'agent': 'prior_only'},),
    {'input_dim': (2,), 'data_ratio': (2.,), 'noise_std': (0.1,)})
print(len(ee.run_sweep(config, 'rows', 'own.py')))
'''


def test_a_script_needs_no_guard(tmp_path):
  """Agents are checked in a process that does not run the script again."""
  (tmp_path / 'own.py').write_text(
      'import jax\n'
      'def make_agent():\n'
      '  return lambda data, prior, key: (\n'
      '      lambda x, key: jax.random.normal(key, (len(x), 1)))\n')
  (tmp_path / 'script.py').write_text(SCRIPT)
  for how in (['script.py'], ['-']):
    done = subprocess.run(
        [sys.executable, *how], cwd=tmp_path, input=SCRIPT, text=True,
        capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.count('top') == 1 and lines[-1] == '1'


def test_every_name_exists():
  assert all(getattr(ee, name) is not None for name in ee.__all__)
  assert 25 <= len(ee.__all__) <= 40
  with pytest.raises(AttributeError, match="no attribute 'nothing'"):
    getattr(ee, 'nothing')  # noqa: B009


def test_importing_loads_nothing():
  code = ('import sys, enn_ensembles as ee; ee.__version__; dir(ee); '
          'ee.SCORES; ee.open_store; '
          "print({'jax', 'pandas', 'haiku'} & set(sys.modules))")
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                        capture_output=True, text=True)
  assert done.stdout.strip() == 'set()'


def test_the_example_of_the_docstring_runs():
  found = doctest.testmod(ee)
  assert found.attempted > 8 and found.failed == 0


@pytest.mark.parametrize('kernel, reference', [
    ('relu2', 'bayes'), ('erf3', 'bayes'), ('relu1', 'enn2021')])
def test_problems_of_every_kernel_are_found_by_their_id(kernel, reference):
  family = nngp.NngpFamily(2, 3., (0.1,), reference, kernel)
  problem_id = family.problem_id(family.cells[0], 4)
  assert kinds.find_problem(problem_id) == (family, 4)
  problem = ee.load_problem(problem_id)
  assert problem.problem_id == problem_id
  with pytest.raises(ValueError, match='sweeps cannot name'):
    ee.load_problem('D2_l3_e0.1_s4_bayes_0123456789')
  with pytest.raises(ValueError, match='no settings but those in its id'):
    ee.load_problem(problem_id, num_train=3)


def test_problems_with_noise_that_depends_on_x_are_found_by_their_id():
  family = heteroscedastic.HeteroscedasticFamily(
      nngp.NngpFamily(2, 3., (0.1,), kernel='erf1'), 0.5)
  problem_id = family.problem_id(family.cells[0], 4)
  assert kinds.find_problem(problem_id) == (family, 4)
  problem = ee.load_problem(problem_id)
  assert problem.problem_id == problem_id

  def agent(data, prior, key):
    keys.append(np.asarray(key))
    return lambda x, key: jax.random.normal(key, (len(x), 1))
  keys = []
  ee.train(agent, problem)  # With the seed of the problem, as in sweeps.
  np.testing.assert_array_equal(keys[0], ee.agent_key(4))


def test_problems_of_images_are_found_by_their_id():
  plain = ee.load_problem('digits_s3')
  assert (plain.config.dataset, plain.config.seed) == ('digits', 3)
  assert plain.problem_id.startswith('digits_s3_')
  again = ee.load_problem(plain.problem_id)
  np.testing.assert_array_equal(again.data.x, plain.data.x)
  small = ee.load_problem('digits_s3', num_train=50, held_out=[9],
                          ood=['held_out'])
  assert len(small.data.y) == 50 and small.problem_id != plain.problem_id
  assert ee.load_problem(small.problem_id, num_train=50, held_out=(9,),
                         ood=('held_out',)).problem_id == small.problem_id
  # A hash does not say what it is of.
  with pytest.raises(ValueError, match='give those settings'):
    ee.load_problem(small.problem_id)
  with pytest.raises(ValueError, match='settings of image problems are'):
    ee.load_problem('digits_s3', colour='red')
  with pytest.raises(ValueError, match="or of a data set, 'digits_s0'"):
    ee.load_problem('no_such_s3')


def test_scores_of_images_are_the_sweeps(tmp_path):
  """With augmented inputs and early stopping, which need the problem."""
  settings = {'hidden_sizes': (8,), 'batch_size': 50, 'num_batches': 40,
              'validate_every': 5, 'patience': 1, 'learning_rate': 0.03}
  config = ee.SweepConfig(
      'test', (1,), ({'agent': 'map', **settings},),
      {'dataset': ('digits',), 'num_train': (200,), 'pad': 1},
      kind='images', num_enn_samples=20)
  row, = ee.run_sweep(config, tmp_path, report=lambda line: None)
  problem = ee.load_problem('digits_s1', num_train=200, pad=1)
  agent = ee.make_agent('map', **settings)
  scores = ee.score(agent, problem, num_enn_samples=20)
  for name, value in row['scores'].items():
    np.testing.assert_allclose(scores[name], value, rtol=1e-6, atol=1e-6,
                               err_msg=name)
  ee.check_agent(agent)
  with pytest.raises(ValueError, match='early stopping .* needs validation'):
    agent(problem.data, problem.prior, ee.agent_key(1))
