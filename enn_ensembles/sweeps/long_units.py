"""Says of units that take long what they are at and how long they will take."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import threading
import time
from typing import Any
from typing import NamedTuple

from enn_ensembles.sweeps import claimed_units
from enn_ensembles.sweeps import cost_model
from enn_ensembles.sweeps import status_text


class _Unit(NamedTuple):
  """A unit that runs.

  Attributes:
    running: it, and what it has come to.
    start: when it began, s.
    heard: when it came to its stage.
    due: when it is to be spoken of next.
  """
  running: claimed_units.Running
  start: float
  heard: float
  due: float


class LongUnits:
  """A thread that speaks of what runs after 15 s, 30 s, 60 s and so on.

  Args:
    write: takes a line.
    tell: takes what a heartbeat says of all that runs, once a second.
    seconds: after which a unit is first spoken of.
  """

  def __init__(self, write: Callable[[str], None],
               tell: Callable[[Sequence[Mapping[str, Any]]], None],
               seconds: float = 15.):
    self._write = write
    self._tell = tell
    self._seconds = seconds
    self._lock = threading.Lock()
    self._running: dict[str, _Unit] = {}
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._watch, daemon=True)

  def __enter__(self) -> 'LongUnits':
    self._thread.start()
    return self

  def __exit__(self, *error) -> None:
    self._ended.set()
    self._thread.join()

  def announce(self, running: Sequence[claimed_units.Running]) -> None:
    """Says what runs now: all units that do."""
    now = time.monotonic()
    with self._lock:
      before = self._running
      self._running = {}
      for one in running:
        run_id = one.unit.run_id
        known = before.get(run_id)
        if known is None:
          known = _Unit(one, now, now, now + self._seconds)
        elif one.stage is not known.running.stage:
          known = known._replace(running=one, heard=now)
        self._running[run_id] = known

  def _entries(self, now: float) -> list[dict[str, Any]]:
    """What a heartbeat says of the units that run."""
    with self._lock:
      found = list(self._running.values())
    return [{'run_id': one.running.unit.run_id,
             'row_ids': one.running.unit.row_ids(),
             'stage': stage_text(one.running, now - one.start,
                                 now - one.heard),
             'seconds_left': seconds_left(one.running, now - one.start,
                                          now - one.heard)} for one in found]

  def _watch(self) -> None:
    """The main function of the thread; the pause of a unit doubles each time.
    """
    while not self._ended.wait(min(1., self._seconds / 2)):
      now = time.monotonic()
      with self._lock:
        due = [(run_id, one) for run_id, one in self._running.items()
               if one.due <= now]
        for run_id, one in due:
          self._running[run_id] = one._replace(due=now + (now - one.start))
      self._tell(self._entries(now))
      for _, one in due:
        self._write(stage_text(one.running, now - one.start, now - one.heard))


def seconds_left(running: claimed_units.Running, seconds: float,
                 since_stage: float) -> float | None:
  """How long a unit will still take; None where nobody knows.

  What it has measured of itself counts more than the cost model's estimate,
  which is left where less time has passed than it says.

  Args:
    running: the unit.
    seconds: since it began.
    since_stage: since it came to its stage.
  """
  stage = running.stage
  if stage is not None and stage.seconds_left is not None:
    return max(0., stage.seconds_left - since_stage)
  if not cost_model.is_counted(running.unit):
    return None
  estimate = cost_model.estimate_seconds(running.unit)
  return estimate - seconds if estimate > seconds else None


def stage_text(running: claimed_units.Running, seconds: float,
               since_stage: float) -> str:
  """As 'vnn on D10_l10_bayes: step 40 of 1000, for 30 s, about 9 min left'."""
  unit, stage = running
  duration = status_text.duration_text
  text = f'{unit.agent_label} on {unit.family.name}: '
  if stage is not None:
    text += f'{stage.text}, '
  text += f'running for {duration(seconds)}'
  left = seconds_left(running, seconds, since_stage)
  if left is not None:
    return f'{text}, about {duration(left)} left'
  if not cost_model.is_counted(unit):
    return text  # Nothing is known of what it takes.
  estimate = cost_model.estimate_seconds(unit)
  return f'{text}; {duration(estimate)} were estimated for an idle core'
