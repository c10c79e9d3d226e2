"""What a machine can do: the arithmetic, the routines, and that it is right."""

import itertools
import os

import numpy as np
import pytest

from enn_ensembles.studies.speed import ceiling

PRODUCT = ceiling.Task('sgemm', (64, 32, 16))
STACK = ceiling.Task('sgemm', (8, 4, 2), ceiling.NUM_STACKED)


def figures():
  """One core 10, side by side 18, threads 15."""
  ways = {ceiling.ONE_CORE: 10., ceiling.SIDE_BY_SIDE: 18.,
          ceiling.THREADS: 15.}
  return [ceiling.Figure(PRODUCT, how, 2, rate, rate)
          for how, rate in ways.items()]


def test_operations_are_counted():
  for task, expected in (
      (PRODUCT, 2 * 64 * 32 * 16),
      (STACK, 2 * ceiling.NUM_STACKED * 8 * 4 * 2),
      (ceiling.Task('dpotrf', (30,)), 30**3 / 3),
      (ceiling.Task('copy'), 4096)):  # It is read, and written.
    call, amount = ceiling._prepare(task, copy_bytes=4096)
    call()
    assert amount == expected


def test_rates_of_an_artificial_clock():
  now, meetings = itertools.count(), []
  # Every look at the clock is a second after the last, whatever is done.
  rates = ceiling._rates(lambda: None, 5e9, 3, 4., lambda: meetings.append(1),
                         clock=lambda: float(next(now)))
  # One call took a second, so four fit into a trial of four.
  assert rates == [20.] * 3 and len(meetings) == 3


def test_all_cores_are_the_faster_of_two_ways():
  found = ceiling.Ceiling(figures())
  assert found.rate(PRODUCT) == 18. and found.rate(PRODUCT, False) == 10.
  assert found.rate(STACK) is None
  assert found.product_rate(np.float32) is None  # No large one was measured.


def test_products_of_several_sizes_take_their_time():
  slow, fast = ((1, 1, 1), (1, 1, 3))
  found = ceiling.Ceiling([
      ceiling.Figure(ceiling.Task('sgemm', shape, ceiling.NUM_STACKED),
                     ceiling.ONE_CORE, 1, rate, rate)
      for shape, rate in ((slow, 1.), (fast, 6.))])
  # 1 operation at 1 and 3 at 6: 4 in 1.5.
  assert found.product_rate('float32', [slow, fast]) == pytest.approx(4. / 1.5)
  assert found.product_rate('float64', [slow, fast]) is None


def test_tasks_are_large_and_used_ones_each_once():
  found = ceiling.tasks([('float32', (100, 10, 50))] * 2, [100, 10**6])
  texts = [f'{task.routine} {task.size}' for task in found]
  assert texts == [
      'sgemm 2048x2048x2048', 'dgemm 2048x2048x2048',
      'sgemm 30 x (100x10x50)', 'dpotrf 3072', 'dpotrf 100', 'copy ']
  with pytest.raises(ValueError, match='float32 or float64, got float16'):
    ceiling.tasks([('float16', (1, 1, 1))])


def test_this_machine():
  """Positive, ordered, and in every way that this machine has."""
  todo = [ceiling.Task('sgemm', (256, 256, 256)), STACK,
          ceiling.Task('dpotrf', (64,)), ceiling.Task('copy')]
  found = ceiling.measure(todo, num_trials=2, trial_seconds=0.02)
  for figure in found.figures:
    assert 0 < figure.median <= figure.best, figure
  ways = {figure.how for figure in found.figures if figure.task == todo[0]}
  several = len(os.sched_getaffinity(0)) > 1
  assert ways == ({ceiling.ONE_CORE, ceiling.SIDE_BY_SIDE, ceiling.THREADS}
                  if several else {ceiling.ONE_CORE})
  rows = ceiling.rows(found)
  assert rows[0]['unit'] == 'GFLOP/s' and rows[-1]['unit'] == 'GB/s'
  assert 'copy' in ceiling.format_text(found)
