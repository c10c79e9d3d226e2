"""What is reported of long work, and what follows for the time left."""

import numpy as np
import pytest

from enn_ensembles.machine import progress


class Clock:
  """Seconds that pass when they are told to."""

  def __init__(self):
    self.now = 0.

  def __call__(self):
    return self.now


def test_nobody_listens():
  with progress.part('seed', 0, 2):
    progress.report('step', 1, 2)


def test_steps_of_seeds():
  clock, heard = Clock(), []
  with progress.listen(heard.append, clock):
    progress.report('compiling')
    for seed in range(3):
      with progress.part('seed', seed, 3):
        for step in range(0, 100, 20):
          progress.report('step', step, 100)
          clock.now += 4.
  assert heard[0] == progress.Stage('compiling', None)
  assert len(heard) == 1 + 3 * 5
  assert heard[1] == progress.Stage('seed 1 of 3, step 0 of 100', None)
  # 20 s a seed: what is said is right at every point but the first.
  for i, stage in enumerate(heard[2:], 1):
    assert stage.seconds_left == pytest.approx(60. - 4. * i)
  assert heard[8].text == 'seed 2 of 3, step 40 of 100'


def test_steps_that_were_done_before_do_not_count_as_pace():
  clock, heard = Clock(), []
  with progress.listen(heard.append, clock):
    progress.report('step', 0, 400, 600)
    clock.now = 10.
    progress.report('step', 100, 400, 600)
  assert heard[0] == progress.Stage('step 600 of 1000', None)
  assert heard[1] == progress.Stage('step 700 of 1000', 30.)


def test_of_fast_counters_one_report_a_second_is_passed_on():
  clock, heard = Clock(), []
  with progress.listen(heard.append, clock):
    for draw in range(1000):
      progress.report('draw', draw, 1000)
      clock.now += 0.01
    progress.report('ranking')  # What is new is passed on at once.
  assert 10 <= len(heard) <= 12 and heard[-1].text == 'ranking'
  lefts = [stage.seconds_left for stage in heard[1:-1]]
  np.testing.assert_allclose(np.diff(lefts), -1., atol=0.03)
