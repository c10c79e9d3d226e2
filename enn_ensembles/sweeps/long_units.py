"""Says of units that take long that they are still being computed."""

from collections.abc import Callable
from collections.abc import Sequence
import threading
import time

from enn_ensembles.sweeps import cost_model
from enn_ensembles.sweeps import sweep_status
from enn_ensembles.sweeps import work_units


class LongUnits:
  """A thread that speaks of what runs after 15 s, 30 s, 60 s and so on.

  Args:
    write: takes a line.
    seconds: after which a unit is first spoken of.
  """

  def __init__(self, write: Callable[[str], None], seconds: float = 15.):
    self._write = write
    self._seconds = seconds
    self._lock = threading.Lock()
    self._running: dict[str, tuple[work_units.WorkUnit, float, float]] = {}
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._watch, daemon=True)

  def __enter__(self) -> 'LongUnits':
    self._thread.start()
    return self

  def __exit__(self, *error) -> None:
    self._ended.set()
    self._thread.join()

  def announce(self, units: Sequence[work_units.WorkUnit]) -> None:
    """Says what runs now: all units that do."""
    now = time.monotonic()
    with self._lock:
      before = self._running
      self._running = {}
      for unit in units:
        run_id = unit.run_id
        self._running[run_id] = before.get(run_id,
                                           (unit, now, now + self._seconds))

  def _watch(self) -> None:
    while not self._ended.wait(min(1., self._seconds / 2)):
      now = time.monotonic()
      with self._lock:
        due = [(run_id, *entry) for run_id, entry in self._running.items()
               if entry[2] <= now]
        for run_id, unit, start, _ in due:
          self._running[run_id] = (unit, start, now + (now - start))
      for _, unit, start, _ in due:
        self._write(_text(unit, now - start))


def _text(unit: work_units.WorkUnit, seconds: float) -> str:
  """As 'vnn on D10_l10_bayes: running for 30 s, about 10 min left'."""
  text = (f'{unit.agent_label} on {unit.family.name}: running for '
          f'{sweep_status.duration_text(seconds)}')
  estimate = cost_model.estimate_seconds(unit)
  if not cost_model.estimate_training_seconds(unit):
    return text  # Nothing is known of what it takes.
  if estimate > seconds:
    left = sweep_status.duration_text(estimate - seconds)
    return f'{text}, about {left} left'
  return (f'{text}; {sweep_status.duration_text(estimate)} were estimated for '
          'an idle core')
