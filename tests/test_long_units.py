"""Units that take long are spoken of, at growing intervals."""

import types

from enn_ensembles import sweeps
from enn_ensembles.machine import progress
from enn_ensembles.sweeps import claimed_units
from enn_ensembles.sweeps import cost_model
from enn_ensembles.sweeps import long_units


def make_units():
  """The hypermodel's, and one of an agent of which nothing is known."""
  config = sweeps.SweepConfig(
      'test', (0,), ({'agent': 'hypermodel'}, {'agent': 'prior_only'}),
      {'input_dim': (10,), 'data_ratio': (10.,), 'noise_std': (0.1,)})
  return [claimed_units.Running(unit) for unit in sweeps.expand(config)]


class Clock:
  """Time that only waits move on; at some moments something happens."""

  def __init__(self, seconds, events=()):
    self.now = 0.
    self._seconds = seconds
    self._events = list(events)

  def monotonic(self):
    return self.now

  def wait(self, timeout):
    self.now += timeout
    while self._events and self._events[0][0] <= self.now:
      self._events.pop(0)[1]()
    return self.now > self._seconds

  def set(self):
    pass


def lines_of(monkeypatch, units, seconds, events=lambda watch: (),
             tell=lambda entries: None):
  """What is said of units within so many seconds."""
  lines = []
  watch = long_units.LongUnits(lines.append, tell)
  clock = Clock(seconds, events(watch))
  monkeypatch.setattr(long_units, 'time', types.SimpleNamespace(
      monotonic=clock.monotonic))
  watch._ended = clock
  watch.announce(units)
  with watch:
    pass
  return lines


def test_only_what_runs_long_is_spoken_of(monkeypatch):
  slow, quick = make_units()
  estimate = cost_model.estimate_seconds(slow.unit)
  assert estimate > 5
  lines = lines_of(
      monkeypatch, [slow, quick], 100,
      # The other is done before its time.
      lambda watch: [(14., lambda: watch.announce([slow]))])
  assert [line.split(',')[0].split(';')[0] for line in lines] == [
      f'hypermodel on D10_l10_bayes: running for {text}'
      for text in ('15 s', '30 s', '60 s')]
  assert all(line.endswith(' left' if estimate > after else 'an idle core')
             for line, after in zip(lines, (15, 30, 60), strict=True))


def test_nothing_is_promised_where_nothing_is_known(monkeypatch):
  quick = make_units()[1]
  assert lines_of(monkeypatch, [quick], 16) == [
      'prior_only on D10_l10_bayes: running for 15 s']


def test_a_unit_that_is_done_is_not_spoken_of():
  lines = []
  with long_units.LongUnits(lines.append, lambda entries: None,
                            seconds=3600.) as watch:
    watch.announce(make_units())
    watch.announce([])
  assert not lines


def test_the_stage_of_a_unit_is_told(monkeypatch):
  unit = make_units()[0]
  later = unit._replace(
      stage=progress.Stage('seed 2 of 3, step 400 of 1000', 18000.))
  told = []
  lines = lines_of(monkeypatch, [unit], 31,
                   lambda watch: [(20., lambda: watch.announce([later]))],
                   told.append)
  # Its own pace, not the estimate of seconds: 10 s of it have passed.
  assert lines[1] == ('hypermodel on D10_l10_bayes: seed 2 of 3, step 400 of '
                      '1000, running for 30 s, about 5.0 h left')
  (entry,) = told[-1]
  assert entry['run_id'] == unit.unit.run_id
  assert entry['row_ids'] == unit.unit.row_ids()
  assert entry['stage'].startswith('hypermodel on D10_l10_bayes: seed 2 of 3')
  assert 17980 < entry['seconds_left'] < 18000


def test_estimates_that_were_wrong_are_no_promise():
  slow, _ = make_units()
  slow = slow._replace(stage=progress.Stage('compiling', None))
  estimate = cost_model.estimate_seconds(slow.unit)
  assert long_units.seconds_left(slow, 0., 0.) == estimate
  assert long_units.seconds_left(slow, 2 * estimate, 0.) is None
  assert 'compiling, running' in long_units.stage_text(slow, 2 * estimate, 0.)
