"""Runs of work units: rows, failures, workers."""

import dataclasses
import os
import pathlib
import time

import jax
import numpy as np
import pytest

from enn_ensembles import problems
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.machine import devices
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import workers

# A constant, drawn from the key; a setting says what goes wrong.
MY_AGENT = '''
import dataclasses
import os
import time
import numpy as np

@dataclasses.dataclass(frozen=True)
class MyConfig:
  what: str = 'zero'
  where: str = ''

def make_agent(config: MyConfig):
  if config.what == 'make_raises':
    raise OSError('no such thing')
  def agent(data, prior, key):
    if config.what == 'killed':
      os.kill(os.getpid(), 9)
    if config.what == 'exits':
      os._exit(3)
    if config.what == 'interrupted':
      raise KeyboardInterrupt
    if config.what == 'raises' and prior.noise_std > 0.5:
      raise ArithmeticError('too\\nnoisy')
    if config.what == 'tells':
      with open(f'{config.where}/{prior.noise_std}-{np.sum(data.x)}', 'x') as f:
        time.sleep(0.3)  # So that no worker does it all.
        f.write(f'{sorted(os.sched_getaffinity(0))} '
                f'{os.environ["OPENBLAS_NUM_THREADS"]}')
    def sampler(x, key):
      value = np.nan if config.what == 'nan' else np.asarray(key)[-1] % 7.
      return np.full([len(x), 1], value)
    return sampler
  return agent
'''

TINY = {'num_batches': 3, 'hidden_sizes': (4,), 'num_ensemble': 2}


@pytest.fixture(name='folder')
def make_folder(tmp_path):
  (tmp_path / 'my_agent.py').write_text(MY_AGENT)
  return tmp_path


def make_units(folder, agent='my_agent', seed=(0,), noise_std=(0.1, 1.),
               data_ratio=(1.,), num_enn_samples=5, **settings):
  config = sweeps.SweepConfig(
      'test', (3,), data_ratio, noise_std, seed,
      ({'agent': agent, **settings},), num_enn_samples=num_enn_samples)
  return sweeps.expand(config, str(folder / 'my_agent.py'))


def make_options(folder, **fields):
  results.open_store(folder / 'store', create=True)
  return one_unit.RunOptions(str(folder / 'store'),
                           agent_module=str(folder / 'my_agent.py'), **fields)


def read_rows(folder):
  return results.ResultsStore(folder / 'store').read_rows()


def scores_of(rows):
  return {row['row_id']: [row[name] for name in results.SCORE_FIELDS]
          for row in rows}


def test_rows_of_a_network(folder):
  unit, = make_units(folder, 'ensemble', seed=(1, 0), **TINY)
  rows, details = one_unit.run_unit(unit, make_options(folder))
  assert details == ''
  assert [(row['seed'], row['noise_std']) for row in rows] == [
      (0, 0.1), (0, 1.), (1, 0.1), (1, 1.)]
  for row in rows:
    results.check_row(row)
    assert row['status'] == 'ok' and row['message'] == ''
    # Enumerated: the draws that were asked for made no difference.
    assert row['num_enn_samples'] is None and row['num_samples_used'] == 2
    # Two networks of 3 x 4 + 4 and 4 + 1 weights.
    assert row['num_params'] == 2 * (3 * 4 + 4 + 4 + 1)
    assert row['agent_config'] == unit.agent_config
    assert row['agent_config']['batch_size'] == 100
    assert row['row_id'] == sweeps.row_id(unit, row['noise_std'], row['seed'])
    assert row['problem_id'] == problems.ProblemConfig(
        3, 1., row['noise_std'], row['seed']).problem_id
    assert row['num_train'] == 3 and row['dtype'] == 'float32'
    for name in ('train_seconds', 'evaluate_seconds', 'compile_seconds',
                 'problem_seconds'):
      assert row[name] > 0
    assert row['versions']['jax'] == jax.__version__
  # The 2021 protocol: draws with replacement for all.
  sampled = dataclasses.replace(unit, enumerate_indices=False)
  rows, _ = one_unit.run_unit(sampled, make_options(folder))
  assert {row['num_enn_samples'] for row in rows} == {5}
  assert {row['num_samples_used'] for row in rows} == {5}


def test_rows_do_not_depend_on_their_unit(folder):
  unit, = make_units(folder, 'ensemble', seed=(0, 1, 2), **TINY)
  rows, _ = one_unit.run_unit(unit, make_options(folder))
  together = scores_of(rows)
  for seed, noise_std in ((0, 1.), (2, 0.1)):
    part = dataclasses.replace(unit, seeds=(seed,), noise_stds=(noise_std,))
    row, = one_unit.run_unit(part, make_options(folder))[0]
    assert row['run_id'] != unit.run_id
    np.testing.assert_allclose(scores_of([row])[row['row_id']],
                               together[row['row_id']], rtol=1e-4)


def test_the_audits_score_what_they_must(folder):
  options = make_options(folder, cache_dir=str(folder / 'cache'))
  unit, = make_units(folder, 'exact_posterior', seed=(0, 1))
  rows, _ = one_unit.run_unit(unit, options)
  for row in rows:
    assert abs(row['kl_estimate']) < 1e-9 and row['kl_floor'] == 0
    assert row['num_samples_used'] is None and row['num_enn_samples'] is None
  assert list((folder / 'cache').iterdir())
  unit, = make_units(folder, 'exact_posterior', seed=(0, 1), analytic=False,
                     num_enn_samples=400)
  rows, _ = one_unit.run_unit(unit, options)
  for row in rows:
    # Draws are shared by test points: the spread around the floor is wide.
    assert row['kl_floor'] == pytest.approx(0.00252, rel=0.01)
    assert row['kl_floor'] / 5 < row['kl_estimate'] < 5 * row['kl_floor']
    assert row['num_enn_samples'] == row['num_samples_used'] == 400


def test_a_plain_agent_fails_problem_by_problem(folder):
  unit, = make_units(folder, what='raises')
  rows, details = one_unit.run_unit(unit, make_options(folder))
  assert [row['status'] for row in rows] == ['ok', 'failed']
  assert rows[1]['message'] == 'ArithmeticError: too noisy'
  assert 'my_agent.py' in details and 'Traceback' in details
  for row in rows:
    results.check_row(row)
  # Mean and std of its draws, from scratch.
  problem = problems.make_problem(problems.ProblemConfig(3, 1., 0.1, 0))
  key = jax.numpy.asarray(problems.evaluation_key(0))
  draws = [int(jax.random.fold_in(key, i)[-1]) % 7 for i in range(5)]
  error = np.sqrt(np.mean((np.mean(draws) - problem.test_mean)**2))
  assert rows[0]['mean_rmse'] == pytest.approx(error)
  assert rows[0]['std_ratio'] == pytest.approx(np.mean(
      (np.std(draws) + 1e-3) / (problem.test_std + 1e-3)))


def test_an_agent_that_cannot_be_made_fails(folder):
  unit, = make_units(folder, what='make_raises')
  rows, _ = one_unit.run_unit(unit, make_options(folder))
  assert [row['message'] for row in rows] == ['OSError: no such thing'] * 2
  assert {row['status'] for row in rows} == {'failed'}


def test_what_diverges_is_told_and_scored_as_it_is(folder):
  unit, = make_units(folder, what='nan')
  rows, _ = one_unit.run_unit(unit, make_options(folder))
  for row in rows:
    results.check_row(row)
    assert row['status'] == 'diverged' and np.isnan(row['kl_estimate'])
    assert row['message'].startswith('not finite: predictions, kl_estimate')
  # A step of 1e38 leaves the range of float32 at once.
  unit, = make_units(folder, 'ensemble', **TINY, learning_rate=1e38)
  rows, details = one_unit.run_unit(unit, make_options(folder))
  assert details == ''
  for row in rows:
    assert row['status'] == 'diverged'
    assert row['message'].startswith('not finite: parameters, predictions')


def test_an_interrupt_is_no_failure_of_the_agent(folder):
  unit, = make_units(folder, what='interrupted')
  with pytest.raises(KeyboardInterrupt):
    one_unit.run_unit(unit, make_options(folder))


def test_check_units(folder):
  units = make_units(folder, data_ratio=(1., 10_000.))
  one_unit.check_units(units)
  # 30,000 points: two matrices of 7.2 GB for a dense solver.
  with pytest.raises(ValueError, match=(
      r'solver_memory_mb must be enough for .* = 30000 points .* got 14000: '
      r'dense needs .*MB\. --max_num_train=29999 leaves such cells out')):
    one_unit.check_units([dataclasses.replace(unit, solver='dense')
                        for unit in units])
  with pytest.raises(ValueError, match='solver_memory_mb .* got 1: dense needs '
                                       '.*, matrix_free needs'):
    one_unit.check_units(units, solver_memory_mb=1.)
  with pytest.raises(ValueError, match='seed must be at most'):
    one_unit.check_units(make_units(folder, seed=(2**32,)))
  with pytest.raises(ValueError, match='num_workers must be >= 1, got 0'):
    next(workers.run(units, make_options(folder), 0))


def test_workers_write_the_rows_of_one_process(folder):
  units = [*make_units(folder, data_ratio=(1., 2.)),
           *make_units(folder, 'exact_posterior', seed=(0, 1)),
           *make_units(folder, what='raises'),
           *make_units(folder, what='killed'),
           *make_units(folder, what='exits'), *make_units(folder, what='nan')]
  assert devices.available_cores()
  outcomes = {outcome.unit.agent_config.get('what', 'exact'): outcome
              for outcome in workers.run(units, make_options(folder), 2)}
  # Whoever is killed takes nobody along.
  assert {what: outcome[1:5] for what, outcome in outcomes.items()} == {
      'zero': (2, 0, 0, 0), 'exact': (4, 0, 0, 0), 'raises': (1, 0, 1, 0),
      'killed': (0, 0, 0, 2), 'exits': (0, 0, 0, 2), 'nan': (0, 2, 0, 0)}
  assert 'SIGKILL' in outcomes['killed'].message
  assert 'exit code 3' in outcomes['exits'].message
  assert {what for what, outcome in outcomes.items()
          if not outcome.succeeded} == {'raises', 'killed', 'exits'}
  assert 'ArithmeticError' in outcomes['raises'].details
  rows = read_rows(folder)
  assert len(rows) == 2 * 2 + 4 + 2 + 2

  alone = []
  for unit in units:
    if unit.agent_config.get('what') not in ('killed', 'exits'):
      alone += one_unit.run_unit(unit, make_options(folder))[0]
  ours, theirs = scores_of(alone), scores_of(rows)
  assert ours.keys() == theirs.keys()
  for row_id, scores in ours.items():
    assert [s is None for s in scores] == [s is None for s in theirs[row_id]]
    if scores[0] is not None:
      np.testing.assert_allclose(theirs[row_id], scores, rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(
    not hasattr(os, 'sched_getaffinity') or len(os.sched_getaffinity(0)) < 2,
    reason='this needs processor affinity and two cores')
def test_workers_have_their_own_cores(folder):
  told = folder / 'told'
  told.mkdir()
  units = make_units(folder, what='tells', where=str(told),
                     data_ratio=(1., 2., 3., 4.), noise_std=(0.1,))
  before = os.sched_getaffinity(0)
  environment = dict(os.environ)
  assert all(o.succeeded for o in workers.run(units, make_options(folder), 2))
  assert os.sched_getaffinity(0) == before and os.environ == environment
  cores, half = sorted(before), len(before) // 2
  said = [path.read_text() for path in told.iterdir()]
  assert len(said) == 4
  assert set(said) == {f'{share} {len(share)}'
                       for share in (cores[:half], cores[half:])}


def test_workers_have_their_own_gpus(monkeypatch):
  alone = devices.worker_environments(4, {}, ['0', '1', '2', '3'])
  assert [e['CUDA_VISIBLE_DEVICES'] for e in alone] == ['0', '1', '2', '3']
  assert all(len(e) == 1 for e in alone)
  # Five on two: memory is shared by three and by two.
  shared = devices.worker_environments(5, {}, ['4', '7'])
  assert [tuple(e.values()) for e in shared] == [
      ('4', '0.300'), ('7', '0.450'), ('4', '0.300'), ('7', '0.450'),
      ('4', '0.300')]
  told = {'XLA_PYTHON_CLIENT_MEM_FRACTION': '.2'}
  assert all(len(e) == 1 for e in devices.worker_environments(5, told, ['0']))
  assert devices.worker_environments(2, {}, []) == [{}, {}]

  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'GPU-a, GPU-b')
  assert devices.visible_gpus() == ['GPU-a', 'GPU-b']
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
  assert devices.visible_gpus() == []
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert devices.visible_gpus() == []


def test_settings_are_inherited_and_given_back(monkeypatch):
  monkeypatch.setenv('OMP_NUM_THREADS', '7')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
  before = dict(os.environ)
  with devices.inherited_settings(devices.available_cores()[:1],
                                 {'CUDA_VISIBLE_DEVICES': '1', 'NEW': 'x'}):
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '1'
    assert os.environ['NEW'] == 'x'
    assert os.environ['OMP_NUM_THREADS'] == '7'  # What is set stays.
    assert os.environ['OPENBLAS_NUM_THREADS'] == '1'
  assert os.environ == before


@pytest.mark.parametrize('num_workers', [1, 2])
def test_what_is_in_hand_is_announced(folder, num_workers):
  units = make_units(folder, data_ratio=(1., 2., 3.), noise_std=(0.1,))
  told = []
  list(workers.run(units, make_options(folder), num_workers, told.append))
  assert max(map(len, told)) == num_workers and told[-1] == []
  assert {unit.run_id for units in told for unit in units} == {
      unit.run_id for unit in units}


def test_a_worker_s_mistakes_reach_the_parent(folder):
  options = make_options(folder, cache_dir=str(folder / 'my_agent.py'))
  units = make_units(folder, data_ratio=(1., 2.))
  with pytest.raises(ValueError, match='cache_dir .* is not a folder'):
    list(workers.run(units, options, 2))


def test_default_num_workers(monkeypatch):
  cores = len(devices.available_cores())
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert devices.default_num_workers() == cores
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda,cpu')
  assert devices.default_num_workers() == 1


def test_compiled_programs_are_kept(folder, monkeypatch):
  told = {}
  monkeypatch.setattr(jax.config, 'update', told.__setitem__)
  one_unit.configure_jax(make_options(folder))
  assert told == {'jax_enable_x64': True}
  one_unit.configure_jax(make_options(folder, compilation_cache_dir='/some'))
  assert pathlib.Path(told['jax_compilation_cache_dir']).parent == (
      pathlib.Path('/some'))
  assert told['jax_persistent_cache_min_compile_time_secs'] == 0
  assert told['jax_persistent_cache_min_entry_size_bytes'] == -1


def test_rows_of_selections(folder):
  unit, = make_units(folder, 'ensemble', seed=(0, 1), num_ensemble=5,
                     num_batches=30, hidden_sizes=(8,),
                     selection=['none', 'oracle', 'val_nll'])
  rows, _ = one_unit.run_unit(unit, make_options(folder))
  assert [row['row_id'] for row in rows] == unit.row_ids()
  for row in rows:
    results.check_row(row)
    path, kept = row['path'], row['num_samples_used']
    assert sorted(path['order']) == list(range(5))
    # The row is the point of its path that it says.
    assert row['kl_estimate'] == pytest.approx(path['kl_estimate'][kept - 1])
    assert row['kl_reverse'] == pytest.approx(path['kl_reverse'][kept - 1])
    if row['selection'] == 'none':
      assert kept == 5 and row['rank_seconds'] is None
    else:
      assert kept == 1 + np.argmin(path['val_score'])
      assert row['rank_seconds'] > 0
  plain, = make_units(folder, 'ensemble', seed=(0, 1), num_ensemble=5,
                      num_batches=30, hidden_sizes=(8,))
  alone, _ = one_unit.run_unit(plain, make_options(folder))
  together = scores_of(rows)
  for row_id, scores in scores_of(alone).items():
    np.testing.assert_allclose(scores, together[row_id], rtol=1e-6)


def test_a_trivial_unit_costs_little(folder):
  # In the time of this process: others may be at work, and the disk is.
  units = make_units(folder, noise_std=(0.1,),
                     where=[f'unit{i}' for i in range(60)])
  options = make_options(folder, cache_dir=str(folder / 'cache'))
  list(workers.run(units[:10], options, 1))
  start = time.process_time()
  assert all(o.succeeded for o in workers.run(units[10:], options, 1))
  assert (time.process_time() - start) / 50 < 0.02


def test_selection_needs_members(folder):
  unit, = make_units(folder, 'mc_dropout', selection='oracle')
  with pytest.raises(
      ValueError, match="selection 'oracle' needs an agent with a"
      " finite index set .*'mc_dropout' has"):
    one_unit.check_units([unit])
  unit, = make_units(folder, selection='val_nll')
  with pytest.raises(ValueError, match="'val_nll' needs .*'my_agent"):
    one_unit.check_units([unit], str(folder / 'my_agent.py'))
