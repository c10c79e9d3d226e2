"""Told to stop or killed: nothing is lost, nothing torn, nobody left behind."""

import collections
import copy
import dataclasses
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_sweeps

from enn_ensembles import base
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.agents import ensemble
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import file_locks
from enn_ensembles.machine import preemption
from enn_ensembles.machine import progress
from enn_ensembles.studies.interrupted_sweeps import kill_test
from enn_ensembles.sweeps import claimed_units
from enn_ensembles.sweeps import network_units
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import workers
from enn_ensembles.training import loop

ROOT = pathlib.Path(__file__).parents[1]

CONFIG = '''
INPUT_DIM = [2]
DATA_RATIO = [1, 2]
NOISE_STD = [0.1, 1.0]
SEED = [0, 1]
AGENTS = [{'agent': 'my_agent', 'level': [0., 1.]}]
'''

# Says what it computes; after as many computations as a file next to it says,
# each waits for another file.
MY_AGENT = r'''
import dataclasses
import pathlib
import time
import numpy as np

@dataclasses.dataclass(frozen=True)
class MyConfig:
  level: float = 0.

def make_agent(config: MyConfig):
  def agent(data, prior, key):
    folder = pathlib.Path(__file__).parent
    if data.x.flags.writeable:  # Not a problem: the check before a sweep.
      return lambda x, key: np.full([len(x), 1], np.asarray(key)[-1] % 7)
    with open(folder / 'computed', 'ab+') as file:
      file.write(
          f'{config.level} {prior.noise_std} {np.sum(data.y)}\n'.encode())
      file.flush()
      end = file.tell()  # Of this line: other processes write theirs.
      file.seek(0)
      number = file.read(end).count(b'\n')
    time.sleep(0.05)
    while (number > int((folder / 'num_free').read_text())
           and not (folder / 'released').exists()):
      time.sleep(0.01)
    return lambda x, key: np.full(
        [len(x), 1], config.level + np.asarray(key)[-1] % 7)
  return agent
'''


@pytest.fixture(name='folder')
def make_folder(tmp_path):
  (tmp_path / 'config.py').write_text(CONFIG)
  (tmp_path / 'my_agent.py').write_text(MY_AGENT)
  (tmp_path / 'computed').touch()
  return tmp_path


@pytest.fixture(autouse=True)
def forget_requests():
  yield
  preemption._requested.clear()


def start_sweep(folder, num_workers, num_free, grace_seconds=commands.HANG):
  """Starts one; after num_free computations each waits until `release`."""
  (folder / 'num_free').write_text(str(num_free))
  return commands.start_module(
      'experiments.run_sweep', f'--config={folder / "config.py"}',
      f'--results_dir={folder / "results"}',
      f'--agent_module={folder / "my_agent.py"}', '--timing_seconds=0',
      f'--num_workers={num_workers}', '--num_enn_samples=2',
      f'--cache_dir={commands.shared_problems()}', '--compilation_cache_dir=',
      f'--grace_seconds={grace_seconds}', new_session=True)


def computed(folder):
  return (folder / 'computed').read_text().splitlines()


def release(folder):
  (folder / 'released').touch()


def wait_for(condition):
  deadline = time.monotonic() + commands.HANG
  while not condition():
    assert time.monotonic() < deadline, 'it never happened'
    time.sleep(0.02)


def processes_of(folder):
  """Pids of the sweep in this folder, by their command line or environment."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      session = int((path / 'stat').read_text().rpartition(')')[2].split()[3])
      state = (path / 'stat').read_text().rpartition(')')[2].split()[0]
    except (OSError, IndexError):
      continue
    if session == folder and state != 'Z':
      found.append(path.name)
  return found


needs_proc = pytest.mark.skipif(not pathlib.Path('/proc/self/stat').exists(),
                                reason='this needs /proc')


@needs_proc
@pytest.mark.parametrize('num_workers, name', [
    (1, 'SIGTERM'), pytest.param(2, 'SIGUSR1', marks=pytest.mark.slow),
    pytest.param(1, 'SIGINT', marks=pytest.mark.slow)])
def test_stopped_and_started_again(folder, num_workers, name):
  sweep = start_sweep(folder, num_workers, num_free=3)
  wait_for(lambda: len(computed(folder)) >= 3 + num_workers)
  assert len(list((folder / 'results' / 'running').glob('*.json'))) == 1
  for _ in range(2):  # Clusters say it twice.
    os.kill(sweep.pid, getattr(signal, name))
  release(folder)
  _, out, err = sweep.wait()
  assert sweep.returncode == preemption.EXIT_CODE == 75, (out, err)
  assert 'the same command goes on' in err and 'Traceback' not in err
  wait_for(lambda: not processes_of(sweep.pid))
  # Complete files only.
  left = [p for p in (folder / 'results').rglob('*') if p.is_file()]
  assert not [p for p in left if p.suffix == '.tmp' or 'running' in p.parts]
  before = len(results.ResultsStore(folder / 'results').read_rows())
  assert before < 16

  sweep = start_sweep(folder, num_workers, num_free=16)
  _, out, err = sweep.wait()
  assert sweep.returncode == 0, (out, err)
  assert f'{16 - before} rows in ' in out
  # What was running was kept: every problem was computed once.
  assert set(collections.Counter(computed(folder)).values()) == {1}
  assert len(computed(folder)) == 16
  rows = results.ResultsStore(folder / 'results').read_rows()
  assert len(rows) == 16 and {row['status'] for row in rows} == {'ok'}
  assert not list((folder / 'results' / 'checkpoints').iterdir())
  assert not list((folder / 'results' / 'running').iterdir())


@needs_proc
@pytest.mark.parametrize('num_workers', [
    1, pytest.param(2, marks=pytest.mark.slow)])
def test_who_does_not_come_to_an_end_is_ended(folder, num_workers):
  sweep = start_sweep(folder, num_workers, num_free=0, grace_seconds=1.5)
  wait_for(lambda: len(computed(folder)) >= num_workers)
  start = time.monotonic()
  os.kill(sweep.pid, signal.SIGTERM)
  _, out, err = sweep.wait()  # What it computes has no end.
  assert sweep.returncode == 75, (out, err)
  # A worker has half of the grace period: it was given that.
  assert time.monotonic() - start > 0.5
  wait_for(lambda: not processes_of(sweep.pid))
  assert not list((folder / 'results' / 'running').iterdir())


@pytest.mark.slow
@needs_proc
def test_a_killed_parent_leaves_no_children(folder):
  sweep = start_sweep(folder, 2, num_free=0)
  wait_for(lambda: len(computed(folder)) >= 2)
  assert len(processes_of(sweep.pid)) >= 3
  os.kill(sweep.pid, signal.SIGKILL)
  sweep.wait()
  wait_for(lambda: not processes_of(sweep.pid))


@pytest.mark.parametrize('num_sweeps, num_workers', [
    (4, 1), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_identical_sweeps_share_the_work(folder, num_sweeps, num_workers):
  # Each waits in its first unit until all others have one.
  sweeps_ = [start_sweep(folder, num_workers, num_free=0)
             for _ in range(num_sweeps)]
  wait_for(lambda: len(computed(folder)) == num_sweeps * num_workers)
  release(folder)
  for sweep in sweeps_:
    _, out, err = sweep.wait()
    assert sweep.returncode == 0 and not commands.said(err), (out, err)
    # Each tells of all rows, whoever has computed them.
    assert 'rows in 0 work units' in out or re.search(r'] (\d+)/\1 rows', out)
  assert collections.Counter(computed(folder)).most_common(1)[0][1] == 1
  assert len(computed(folder)) == 16
  rows = results.ResultsStore(folder / 'results').read_rows()
  assert len(rows) == 16 and {row['status'] for row in rows} == {'ok'}
  assert not list((folder / 'results' / 'claims').iterdir())


def test_a_unit_that_is_claimed_is_put_off_and_not_computed_again(
    tmp_path, monkeypatch):
  results.open_store(tmp_path, create=True)
  options = unit_results.RunOptions(str(tmp_path))
  unit = make_unit(num_batches=3)
  job, = claimed_units.make_jobs([unit], options)
  (tmp_path / 'claims').mkdir()
  with file_locks.claim(tmp_path / 'claims' / f'{unit.run_id}.lock'):
    assert claimed_units.run_claimed(job, options) is None
  first = claimed_units.run_claimed(job, options)
  assert first.num_ok == unit.num_rows == 6
  monkeypatch.setattr(claimed_units, '_run_and_write',
                      lambda *_: 'computed again')
  # The other process wrote it after this one had looked.
  second = claimed_units.run_claimed(job._replace(wait=True), options)
  assert second.num_ok == 6 and second.unit == unit
  # One that was there from the start is computed, since somebody asked for it.
  job, = claimed_units.make_jobs([unit], options)
  assert claimed_units.run_claimed(job, options) == 'computed again'


@pytest.mark.parametrize('grace_seconds, end', [(3., 2.7), (60., 59.)])
def test_the_grace_period_is_kept(monkeypatch, grace_seconds, end):
  """By a clock that waits move on: the end comes before that of the period."""
  now, ended = [0.], []

  def wait(readers, writers, others, timeout):
    if preemption.stop_requested():
      now[0] += timeout
    preemption.request_stop()
    return [], [], []

  def exit_process(code):
    ended.append((now[0], code))
    raise SystemExit

  monkeypatch.setattr(preemption, 'time', types.SimpleNamespace(
      monotonic=lambda: now[0]))
  monkeypatch.setattr(preemption, 'select', types.SimpleNamespace(select=wait))
  monkeypatch.setattr(preemption.os, '_exit', exit_process)
  handlers = preemption.SignalHandlers(
      grace_seconds, before_exit=lambda: ended.append('before'))
  handlers._reader, handlers._numbers = -1, set()
  with pytest.raises(SystemExit):
    handlers._watch()
  assert ended == ['before', (pytest.approx(end), 75)]
  # The parent ends within its period too.
  assert workers._worker_grace_seconds(grace_seconds) < end


@pytest.mark.parametrize('num_workers', [
    1, pytest.param(2, marks=pytest.mark.slow)])
def test_control_c_reaches_the_whole_group_and_is_one_line(folder, num_workers):
  sweep = start_sweep(folder, num_workers, num_free=0)
  wait_for(lambda: len(computed(folder)) >= num_workers)
  os.killpg(sweep.pid, signal.SIGINT)
  release(folder)
  _, out, err = sweep.wait()
  assert sweep.returncode == 75, (out, err)
  line, = commands.said(err)
  assert 'told to stop' in line


def test_handlers_are_given_back():
  before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1)]
  with preemption.SignalHandlers(grace_seconds=60):
    assert not preemption.stop_requested()
    preemption.stop_if_requested()
    os.kill(os.getpid(), signal.SIGUSR1)
    wait_for(preemption.stop_requested)
    with pytest.raises(preemption.Preempted):
      preemption.stop_if_requested()
    assert not isinstance(preemption.Preempted(), Exception)
  assert before == [signal.getsignal(s)
                    for s in (signal.SIGTERM, signal.SIGUSR1)]
  assert not preemption.stop_requested()


def test_a_signal_is_heard_inside_a_long_call():
  # The main thread is in C and answers no signal; another thread ends it.
  code = '''
import ctypes, os, signal, sys, threading
from enn_ensembles.machine import preemption
with preemption.SignalHandlers(0.2, before_exit=lambda: print('ending',
                                                              flush=True)):
  threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
  libc = ctypes.CDLL(None)
  for _ in range(60):
    libc.poll(None, 0, 60_000)
'''
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False,
                        capture_output=True, text=True, timeout=commands.HANG)
  assert done.returncode == 75 and done.stdout == 'ending\n', done.stderr


@pytest.mark.slow
@needs_proc
def test_the_kill_test(tmp_path, monkeypatch):
  # A short one. What it compares with, and how, is in the command.
  # It starts ten sweeps, each as long as a command may be.
  done = commands.start_module(
      'tests.kill_test_command', '--quick', '--num_kills=2', '--num_workers=1',
      '--num_processes=3', f'--output_dir={tmp_path / "out"}').wait(
          10 * commands.HANG)
  log = tmp_path / 'out' / 'log'
  assert done.returncode == 0, (done.stderr, log.exists() and log.read_text())
  assert 'SIGKILL: 2 kills' in done.stdout and 'SIGTERM: 2 kills' in done.stdout
  assert '3 processes on one folder and one cache: equal' in done.stdout

  # It finds what it looks for: a plain run that differs in one digit. The
  # command has compared this sweep with the plain one; it is read once here.
  tables = kill_test.read_tables(tmp_path / 'out' / 'SIGTERM0',
                                 tmp_path / 'out' / 'SIGTERM0.board')
  monkeypatch.setattr(kill_test, 'read_tables', lambda *_: tables)
  test = kill_test.KillTest.__new__(kill_test.KillTest)
  test._folder = tmp_path / 'out'
  test._problems = test._folder / 'problems'
  plain = copy.deepcopy(tables)
  test._plain = {'1': plain}
  test._compare('SIGTERM0', '1')
  assert 'kl_estimate' in plain['scores.csv'][0]
  assert 'train_seconds' not in plain['scores.csv'][0]
  plain['scores.csv'][0]['kl_estimate'] += '1'
  with pytest.raises(kill_test.FailureError, match='scores.csv is not that of'):
    test._compare('SIGTERM0', '1')
  plain['scores.csv'][0]['kl_estimate'] = (
      plain['scores.csv'][0]['kl_estimate'][:-1])
  (test._problems / 'D2_l1_s0_function.lock').touch()
  with pytest.raises(kill_test.FailureError, match='function.lock.* are left'):
    test._compare('SIGTERM0', '1')


@pytest.mark.parametrize('arguments, message', [
    (['--signals=SIGHUP'], "signals must be one of 'SIGKILL', .* got 'SIGHUP'"),
    (['--num_kills=0'], '--num_kills must be an integer >= 1, got 0'),
    (['--num_workers=0'], '--num_workers must be an integer >= 1, got 0'),
    ([], 'is not empty and was not made by a kill test')])
def test_bad_kill_tests(tmp_path, arguments, message):
  (tmp_path / 'thesis.txt').write_text('mine')
  done = commands.run_module('experiments.kill_test', *arguments,
                             f'--output_dir={tmp_path}')
  assert done.returncode == 2 and re.search(message, done.stderr), done.stderr
  assert done.stderr.count('\n') == 1
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']


# Training that is cut.

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((3, 8, 2)), RNG.standard_normal((3, 2, 8, 1))
KEYS = jnp.stack([jax.random.PRNGKey(seed) for seed in (11, 12, 13)])
AGENT = ensemble.make_agent(ensemble.EnsembleConfig(
    num_ensemble=2, hidden_sizes=(4,), num_batches=150, batch_size=5))


def train(checkpoint=None, **options):
  return loop.train(AGENT, X, Y, base.Gaussian(np.array([0.1, 1.])), KEYS,
                        checkpoint=checkpoint, **options)


def check_equal(ours, theirs):
  ours, theirs = ((t.params, t.state, t.final_loss) for t in (ours, theirs))
  for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
    np.testing.assert_array_equal(a, b)  # Bit for bit.


class StopAt(checkpoints.Checkpoint):
  """The process is told to stop at one of the offers."""

  def __init__(self, folder, offer):
    super().__init__(folder, 'test', {'test': 1}, seconds_between=1e-6)
    self.countdown = offer
    self.num_restored = 0

  def restore(self, key):
    part = super().restore(key)
    self.num_restored += part is not None
    return part

  def offer(self, key, make):
    self.countdown -= 1
    if self.countdown == 0:
      preemption.request_stop()
    super().offer(key, make)


@pytest.mark.parametrize('steps, offers', [(None, (1, 1)), (40, (1, 4, 9))])
def test_training_goes_on_where_it_stopped(tmp_path, steps, offers):
  options = {'steps_between_checkpoints': steps}
  whole = train(**options)
  for offer in offers:
    with pytest.raises(preemption.Preempted):
      train(StopAt(tmp_path, offer), **options)
    preemption._requested.clear()
    last = StopAt(tmp_path, 10**9)
    files = len(list((tmp_path / 'checkpoints').iterdir()))
    assert files >= 1
  again = train(last, **options)
  assert last.num_restored == files
  check_equal(again, whole)
  # What was restored counts as trained.
  assert again.train_seconds > 0
  last.clear()
  assert not list((tmp_path / 'checkpoints').iterdir())


def test_cut_training_is_the_same_training():
  heard = []
  with progress.listen(heard.append):
    cut = train(steps_between_checkpoints=7)
  check_equal(train(), cut)
  texts = [stage.text for stage in heard]
  # A counter that is too fast is not heard again, but every loop begins.
  assert texts[:2] == ['compiling', 'seed 1 of 3, step 0 of 150']
  assert 'seed 3 of 3, step 0 of 150' in texts


def make_unit(**settings):
  config = sweeps.SweepConfig(
      'test', (0, 1, 2),
      ({'agent': 'ensemble', 'num_ensemble': 2, 'hidden_sizes': (4,),
        **settings},),
      {'input_dim': (2,), 'data_ratio': (2.,), 'noise_std': (0.1, 1.)})
  return sweeps.expand(config)[0]


def test_only_long_training_is_cut():
  options = unit_results.RunOptions('nowhere')
  steps_of = network_units._steps_between_checkpoints
  assert steps_of(make_unit(), 10, options) is None
  # Products of 2 x 4 and 5 x 1 weights forward (the first layer adds its
  # biases), of 3 x 4 and 5 x 1 for their gradients, of 4 for the gradient of
  # what goes into the last; 2 operations each, 2 members, 2 noise levels, 100
  # points, 6e10 per second: 4.5e-7 s a step.
  long = make_unit(num_batches=10**9)
  # The first call takes five seconds.
  assert steps_of(long, 10**9, options) == pytest.approx(
      5 / (2 * (8 + 5 + 12 + 5 + 4) * 2 * 2 * 100 / 6e10), rel=0.01)
  # Of a user-defined agent nothing is known: a twentieth comes first.
  own = dataclasses.replace(long, agent='own')
  assert steps_of(own, 1000, options) == 50


def test_a_unit_goes_on_where_it_stopped(tmp_path, monkeypatch):
  unit = make_unit(num_batches=50)
  results.open_store(tmp_path / 'store', create=True)
  options = unit_results.RunOptions(str(tmp_path / 'store'))
  whole, _ = one_unit.run_unit(unit, options)
  offer, count = checkpoints.Checkpoint.offer, []

  def stop_at_the_second(self, key, make):
    count.append(key)
    if len(count) == 2:
      preemption.request_stop()
    offer(self, key, make)

  monkeypatch.setattr(checkpoints.Checkpoint, 'offer', stop_at_the_second)
  with pytest.raises(preemption.Preempted):
    list(workers.run([unit], options, 1))
  preemption._requested.clear()
  store = results.ResultsStore(tmp_path / 'store')
  assert not store.read_rows()
  assert len(list((tmp_path / 'store' / 'checkpoints').iterdir())) == 2
  outcome, = workers.run([unit], options, 1)
  assert outcome.num_ok == 6 and len(count) == 3  # One seed was left.
  assert not list((tmp_path / 'store' / 'checkpoints').iterdir())
  scores = lambda rows: {row['row_id']: (row['scores'], row['curve'])
                         for row in rows}
  assert scores(store.read_rows()) == scores(whole)  # Bit for bit.


# Checkpoint files.


def test_what_is_restored_is_what_was_offered(tmp_path):
  arrays = [np.arange(6, dtype=np.float32).reshape(2, 3),
            np.array([np.nan, np.inf, -0.]), np.zeros((0, 2), np.uint32)]
  part = checkpoints.Part({'a': [1, float('inf')], 'b': 'text'}, arrays)
  make = lambda folder=tmp_path, **identity: checkpoints.Checkpoint(
      folder, 'an agent/of some name', {'seed': 0, **identity}, 0.)
  assert make().restore('k') is None
  make().offer('k', lambda: part)
  path, = (tmp_path / 'checkpoints').iterdir()
  assert path.name.startswith('an_agent_of_some_name-')
  kept = make().restore('k')
  assert kept.info == part.info
  for a, b in zip(kept.arrays, arrays, strict=True):
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    assert a.shape == b.shape
  # Another part, another unit, another time of the same.
  assert make().restore('l') is None and make(seed=1).restore('k') is None
  make().offer('k', lambda: checkpoints.Part({'a': 2}))
  assert make().restore('k') == ({'a': 2}, [])


def test_nothing_is_made_between_the_intervals(tmp_path):
  checkpoint = checkpoints.Checkpoint(tmp_path, 'a', {}, seconds_between=3600.)
  made = []
  checkpoint.offer('k', lambda: made.append(1))
  assert not made and not list(tmp_path.iterdir())
  # A part that is offered twice is written once, as it was last.
  checkpoint.offer('k', lambda: checkpoints.Part({'n': 2}))
  checkpoint.offer('l', lambda: checkpoints.Part({'n': 3}))
  checkpoint.write()
  assert checkpoint.restore('k').info == {'n': 2}
  assert checkpoint.restore('l').info == {'n': 3}
  checkpoint.clear()
  assert not list((tmp_path / 'checkpoints').iterdir())


@pytest.mark.parametrize('damage', [
    lambda content: content[:-10], lambda content: b'',
    lambda content: content[:40], lambda content: content + b'x',
    lambda content: content.replace(b'"n": 1', b'"n": 2'),
    lambda content: content.replace(b'unit-a', b'unit-b')])
def test_a_damaged_checkpoint_is_not_used(tmp_path, damage):
  make = lambda: checkpoints.Checkpoint(tmp_path, 'a', {'unit': 'unit-a'}, 0.)
  make().offer('k', lambda: checkpoints.Part({'n': 1}, [np.arange(50)]))
  path, = (tmp_path / 'checkpoints').iterdir()
  path.write_bytes(damage(path.read_bytes()))
  again = make()
  assert again.restore('k') is None
  again.clear()  # It goes with the unit.
  assert not path.exists()


def test_a_full_disk_costs_the_checkpoint_only(tmp_path, monkeypatch):
  def full(_):
    raise OSError(28, 'No space left on device')
  monkeypatch.setattr(os, 'fsync', full)
  checkpoint = checkpoints.Checkpoint(tmp_path, 'a', {}, 0.)
  checkpoint.offer('k', lambda: checkpoints.Part({'n': 1}))
  assert checkpoint.restore('k') is None
  assert not list((tmp_path / 'checkpoints').iterdir())


def test_checkpoints_of_other_code_are_not_used(tmp_path, monkeypatch):
  make = lambda: checkpoints.Checkpoint(tmp_path, 'a', {}, 0.)
  make().offer('k', lambda: checkpoints.Part({'n': 1}))
  assert make().restore('k') is not None
  monkeypatch.setattr(checkpoints, '_source_digest', lambda: 'edited')
  assert make().restore('k') is None


def test_checkpoints_know_the_code_of_the_whole_package(monkeypatch):
  read = []
  plain = pathlib.Path.read_bytes
  monkeypatch.setattr(pathlib.Path, 'read_bytes',
                      lambda path: read.append(path) or plain(path))
  checkpoints._source_digest.__wrapped__()
  names = {path.name for path in read}
  assert {'base.py', 'checkpoints.py', 'program.py', 'ensemble.py'} <= names


def test_a_worker_that_the_same_signal_ended_is_not_called_dead(
    tmp_path, monkeypatch):
  """As when a cluster sends SIGTERM to all processes while workers start."""
  ours, theirs = multiprocessing.Pipe()
  theirs.close()

  class Process:
    exitcode = -signal.SIGTERM

    def join(self):
      pass

  def wait(connections, timeout):
    del timeout
    preemption.request_stop()  # After this process looked, before the answer.
    return list(connections)

  monkeypatch.setattr(workers, '_start_worker', lambda *_, **__: (
      workers._Worker(Process(), ours, (0,), {}, True)))
  monkeypatch.setattr(workers.connection_lib, 'wait', wait)
  results.open_store(tmp_path / 'results', create=True)
  units = [tiny_sweeps.make_unit(agent='prior_only')]
  found = []
  with pytest.raises(preemption.Preempted):
    for outcome in workers.run(
        units, unit_results.RunOptions(str(tmp_path / 'results')), 1,
        in_this_process=False):
      found.append(outcome)
  assert not found
