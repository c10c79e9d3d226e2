"""Being told to stop: handlers, the grace period, and workers that end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import types

import commands
import pytest
import tiny_sweeps

from enn_ensembles import results
from enn_ensembles.machine import preemption
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import workers

pytestmark = pytest.mark.usefixtures('forget_requests')


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


def test_handlers_are_given_back():
  before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1)]
  with preemption.SignalHandlers(grace_seconds=60):
    assert not preemption.stop_requested()
    preemption.stop_if_requested()
    os.kill(os.getpid(), signal.SIGUSR1)
    commands.wait_for(preemption.stop_requested)
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
  done = subprocess.run([sys.executable, '-c', code], cwd=commands.ROOT,
                        check=False, capture_output=True, text=True,
                        timeout=commands.HANG)
  assert done.returncode == 75 and done.stdout == 'ending\n', done.stderr


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
