"""Sweeps that are stopped, killed or started at once: nothing is lost."""

import collections
import os
import pathlib
import re
import signal
import time

import commands
import pytest

from enn_ensembles import results
from enn_ensembles.machine import preemption

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


@commands.needs_proc
@pytest.mark.parametrize('num_workers, name', [
    (1, 'SIGTERM'), pytest.param(2, 'SIGUSR1', marks=pytest.mark.slow),
    pytest.param(1, 'SIGINT', marks=pytest.mark.slow)])
def test_stopped_and_started_again(folder, num_workers, name):
  sweep = start_sweep(folder, num_workers, num_free=3)
  commands.wait_for(lambda: len(computed(folder)) >= 3 + num_workers)
  assert len(list((folder / 'results' / 'running').glob('*.json'))) == 1
  for _ in range(2):  # Clusters say it twice.
    os.kill(sweep.pid, getattr(signal, name))
  release(folder)
  _, out, err = sweep.wait()
  assert sweep.returncode == preemption.EXIT_CODE == 75, (out, err)
  assert 'the same command goes on' in err and 'Traceback' not in err
  commands.wait_for(lambda: not processes_of(sweep.pid))
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


@commands.needs_proc
@pytest.mark.parametrize('num_workers', [
    1, pytest.param(2, marks=pytest.mark.slow)])
def test_who_does_not_come_to_an_end_is_ended(folder, num_workers):
  sweep = start_sweep(folder, num_workers, num_free=0, grace_seconds=1.5)
  commands.wait_for(lambda: len(computed(folder)) >= num_workers)
  start = time.monotonic()
  os.kill(sweep.pid, signal.SIGTERM)
  _, out, err = sweep.wait()  # What it computes has no end.
  assert sweep.returncode == 75, (out, err)
  # A worker has half of the grace period: it was given that.
  assert time.monotonic() - start > 0.5
  commands.wait_for(lambda: not processes_of(sweep.pid))
  assert not list((folder / 'results' / 'running').iterdir())


@pytest.mark.slow
@commands.needs_proc
def test_a_killed_parent_leaves_no_children(folder):
  sweep = start_sweep(folder, 2, num_free=0)
  commands.wait_for(lambda: len(computed(folder)) >= 2)
  assert len(processes_of(sweep.pid)) >= 3
  os.kill(sweep.pid, signal.SIGKILL)
  sweep.wait()
  commands.wait_for(lambda: not processes_of(sweep.pid))


@pytest.mark.parametrize('num_sweeps, num_workers', [
    (4, 1), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_identical_sweeps_share_the_work(folder, num_sweeps, num_workers):
  # Each waits in its first unit until all others have one.
  sweeps_ = [start_sweep(folder, num_workers, num_free=0)
             for _ in range(num_sweeps)]
  commands.wait_for(lambda: len(computed(folder)) == num_sweeps * num_workers)
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


@pytest.mark.parametrize('num_workers', [
    1, pytest.param(2, marks=pytest.mark.slow)])
def test_control_c_reaches_the_whole_group_and_is_one_line(folder, num_workers):
  sweep = start_sweep(folder, num_workers, num_free=0)
  commands.wait_for(lambda: len(computed(folder)) >= num_workers)
  os.killpg(sweep.pid, signal.SIGINT)
  release(folder)
  _, out, err = sweep.wait()
  assert sweep.returncode == 75, (out, err)
  line, = commands.said(err)
  assert 'told to stop' in line
