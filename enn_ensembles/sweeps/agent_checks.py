"""The rules of `conformance`, checked of a sweep's agents before its units run.
"""

from collections.abc import Callable
from collections.abc import Sequence
import math
import time
from typing import Any

import jax

from enn_ensembles import checks
from enn_ensembles import conformance
from enn_ensembles.machine import devices
from enn_ensembles.machine import worker_processes
from enn_ensembles.sweeps import forecast
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from enn_ensembles.sweeps import work_units

# What the process that checks says once all agents have passed, and at its end.
_PASSED, _DONE = ('', 'passed'), ('', 'done')


def check_units(units: Sequence[work_units.WorkUnit],
                options: unit_results.RunOptions,
                write: Callable[[str], None] = lambda _: None,
                seconds: float = 15., timing_seconds: float = 0.
                ) -> list[forecast.Timing]:
  """Checks every user-defined agent of a sweep, in a process of its own.

  Each setting is checked on its smallest inputs. The checks need a process of
  their own, because this one may not use jax before its workers do, and because
  an agent may end the process that it runs in. They use one core of the CPU.

  Args:
    units: what is to be run.
    options: names the files of user-defined agents.
    write: is told in a line that a check is still running.
    seconds: between two such lines.
    timing_seconds: how long agents that have passed are timed; 0 for not at
      all.

  Returns:
    What the agents take, as far as they were timed: see
    `forecast.time_agents`.

  Raises:
    ValueError: an agent breaks a rule.
  """
  own = work_units.modules_by_name(options.agent_modules)
  units = sorted((unit for unit in units if unit.agent in own),
                 key=lambda unit: math.prod(unit.family.input_shape))
  if not units:
    return []
  worker = worker_processes.start(
      _check_in_process, (units, options, timing_seconds),
      devices.available_cores()[:1])
  try:
    return _follow(worker, own[units[0].agent], write, seconds, timing_seconds)
  finally:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _follow(worker: worker_processes.Worker, running: str,
            write: Callable[[str], None], seconds: float,
            timing_seconds: float) -> list[forecast.Timing]:
  """Hears what `_check_in_process` sends until it is done or out of time.

  Args:
    worker: its process.
    running: the file that is checked first.
    write: as in `check_units`.
    seconds: as there.
    timing_seconds: as there.

  Raises:
    ValueError: an agent breaks a rule, or ended the process.
  """
  timings: list[forecast.Timing] = []
  deadline = None  # When timing ends; it begins when all checks have passed.
  start = time.monotonic()
  while True:
    if not worker.connection.poll(
        seconds if deadline is None else
        max(0., deadline - time.monotonic())):
      if deadline is not None:
        return timings  # What takes longer stays unknown.
      write(f'checking agent {running}: running for '
            f'{time.monotonic() - start:.0f} s')
      continue
    try:
      answer = worker.connection.recv()
    except EOFError:
      worker.process.join()
      if deadline is not None:
        return timings  # An agent may end the process that times it.
      raise ValueError(f'agent {running}: it ended its process with exit code '
                       f'{worker.process.exitcode}.') from None
    if isinstance(answer, forecast.Timing):
      timings.append(answer)
    elif answer == _PASSED:
      deadline = time.monotonic() + timing_seconds
    elif answer == _DONE:
      return timings
    else:
      running, message = answer
      if message is not None:
        raise ValueError(message)


def _check_in_process(connection: Any, units: Sequence[work_units.WorkUnit],
                      options: unit_results.RunOptions,
                      timing_seconds: float) -> None:
  """Sends (file, None) before each check, (file, message) of a broken rule.

  Then _PASSED, every timing, and _DONE.
  """
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_enable_x64', True)
  own = work_units.modules_by_name(options.agent_modules)
  agents: dict[str, Any] = {}
  for unit in units:
    if unit.agent_id in agents:
      continue
    path = own[unit.agent]
    connection.send((path, None))
    try:
      agent = one_unit.make_agent(unit, options)
      conformance.check_agent(agent, unit.family.prior(), path)
    except ValueError as error:
      connection.send((path, str(error)))
      return
    except Exception as error:  # Whatever somebody's make_agent may raise.
      connection.send((path, f'agent {path}: make_agent raised '
                             f'{checks.error_text(error)}'))
      return
    agents[unit.agent_id] = agent
  connection.send(_PASSED)
  if timing_seconds:
    for timing in forecast.time_agents(units, agents, options, timing_seconds):
      connection.send(timing)
  connection.send(_DONE)
