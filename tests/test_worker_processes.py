"""Workers: what they are given, that they act together, and how they end."""

import os

import pytest

from enn_ensembles.machine import devices
from enn_ensembles.machine import worker_processes


@pytest.mark.parametrize('num_cores, num_workers, expected', [
    (4, 2, [[0, 1], [2, 3]]), (3, 2, [[0], [1, 2]]), (5, 1, [[0, 1, 2, 3, 4]]),
    (2, 3, [[0], [0], [1]]), (1, 2, [[0], [0]])])
def test_cores_are_shared(num_cores, num_workers, expected):
  found = worker_processes.share_cores(range(num_cores), num_workers)
  assert found == expected
  assert set(sum(found, [])) == set(range(num_cores))


def answer_in_turns(wait, send, number):
  """Two rounds of answers with a meeting between them."""
  send((number, os.getpid(), devices.available_cores()))
  wait()
  send(os.environ.get('ENN_TEST_NUMBER'))


def end_or_wait(wait, send, number):
  if number == 1:
    os._exit(3)
  wait()
  send('never')


def fail_or_wait(wait, send, number):
  if number == 1:
    raise KeyError('a bug')
  wait()
  send('never')


def test_workers_answer_in_their_order_and_are_gone_in_the_end():
  cores = worker_processes.share_cores(devices.available_cores(), 2)
  with worker_processes.SideBySide(
      answer_in_turns, [(0,), (1,)], cores,
      [{'ENN_TEST_NUMBER': str(i)} for i in range(2)]) as workers:
    numbers, pids, found = zip(*workers.receive())
    assert numbers == (0, 1) and list(found) == cores
    assert len({os.getpid(), *pids}) == 3
    assert workers.receive() == ['0', '1']
  for pid in pids:
    with pytest.raises(ProcessLookupError):
      os.kill(pid, 0)


@pytest.mark.parametrize('main, message', [
    (end_or_wait, 'a worker died, as when memory runs out: try less.$'),
    (fail_or_wait, "(?s)a worker failed:.*fail_or_wait.*KeyError: 'a bug'")])
def test_a_worker_that_ends_does_not_keep_the_others_waiting(main, message):
  cores = worker_processes.share_cores(devices.available_cores(), 2)
  with worker_processes.SideBySide(main, [(0,), (1,)], cores,
                                   hint=': try less') as workers, \
      pytest.raises(RuntimeError, match=message):
    workers.receive()
