"""Once and per step, from two lengths: exact on artificial timers."""

import pytest

from enn_ensembles.studies.speed import lengths

# Binary fractions: sums and differences are exact.
ONCE, STEP = 0.75, 1. / 1024.


def timer(once=ONCE, step=STEP, record=None):
  def run(num_steps):
    if record is not None:
      record.append(num_steps)
    return once + num_steps * step
  return run


def timing(run, short, long, repeats=1):
  return lengths.Timing(lengths.Lengths(short, long),
                        [run(short) for _ in range(repeats)],
                        [run(long) for _ in range(repeats)])


def test_two_lengths_give_once_and_step_exactly():
  found = timing(timer(), 16, 256, repeats=2)
  assert found.lines() == [(ONCE, STEP)] * 2
  # A short run that is scaled would say 0.75 * 1000 / 256 more.
  assert found.seconds_at(1000) == [ONCE + 1000 * STEP] * 2
  assert found.seconds_at(256) == list(found.long)
  assert found.seconds_at(16) == list(found.short)
  assert found.scaled(0.5).lines() == [(ONCE / 2, STEP / 2)] * 2


def test_a_run_is_compared_with_a_shorter_one():
  with pytest.raises(ValueError, match='fewer steps .* got 5 and 5'):
    lengths.fit(lengths.Lengths(5, 5), 1., 2.)


def test_whole_trainings_where_they_fit():
  assert lengths.choose(timer(), 1000, 60.) == (100, 1000)
  # One step against none.
  assert lengths.choose(timer(), 1, 60.) == (0, 1)
  assert lengths.choose(timer(1e-6, 1e-6), 4, 60.) == (1, 4)


def test_as_many_steps_as_fit_otherwise():
  record = []
  run = timer(0.1, 1e-2, record)
  short, long = lengths.choose(run, 1000, 2.)
  assert 20 <= long < 200 and short == int(0.1 * long)
  assert run(short) + run(long) <= 2.
  assert record[0] == 2  # What is tried first costs little.
  # Not fewer than a few, however slow.
  assert lengths.choose(timer(0., 10.), 1000, 2.) == (2, 20)


def test_what_is_tried_first_grows_until_the_clock_can_tell():
  record = []
  lengths.choose(timer(0., 1e-4, record), 100_000, 1.)
  assert record == [2, 8, 32, 128, 512]
  # What happens once tells nothing of a step.
  record = []
  lengths.choose(timer(2., 1e-3, record), 100_000, 60.)
  assert record == [2, 8, 32, 128, 512]


def test_workers_side_by_side_add_up_speeds():
  # 1/2 and 1/3 problems per second make 5/6 of one.
  assert lengths.machine_seconds([[2.], [3.]]) == pytest.approx([6. / 5.])
  with pytest.raises(RuntimeError, match='too busy'):
    lengths.machine_seconds([[2.], [0.]])


def test_workers_with_other_lengths():
  one = timing(timer(), 16, 256)
  # Two equal ones halve the machine's seconds per problem.
  line, = lengths.together([one, one]).lines()
  assert line == pytest.approx((ONCE / 2, STEP / 2), rel=1e-12)
  other = timing(timer(), 32, 512)
  found = lengths.together([one, other])
  # All have run the shorter one's steps.
  assert found.lengths == (16, 256)
  line, = found.lines()
  assert line == pytest.approx((ONCE / 2, STEP / 2), rel=1e-12)


def test_a_disturbed_short_run_leaves_seconds_possible():
  disturbed = lengths.Timing(lengths.Lengths(10, 100), [3.], [2.])
  assert disturbed.lines()[0].step < 0  # It is told as it was measured.
  assert disturbed.seconds_at(1000) == [2.]
  hasty = lengths.Timing(lengths.Lengths(10, 100), [0.01], [2.])
  assert hasty.lines()[0].at(5) < 0 and hasty.seconds_at(5) == [0.1]


def test_interval_is_the_range_of_the_repeats():
  assert lengths.interval([3., 1., 2., 8.]) == (2.5, 1., 8.)
  assert lengths.interval([4.]) == (4., 4., 4.)


def test_share():
  assert lengths.share(30., 120.) == 0.25
  assert lengths.share(None, 120.) is lengths.share(1., None) is None
