"""Times ways of computing in turns, and says on which machine.

The ways take turns, A B C A B C, so that a busy moment of the machine meets
them all.
"""

from collections.abc import Callable
from collections.abc import Mapping
import functools
import os
import time
from typing import Any

import jax

from enn_ensembles.machine import devices


def seconds_per_call(run: Callable[[], Any], seconds: float) -> float:
  """Seconds of a call: the mean over as many as fill `seconds`."""
  calls, start = 0, time.perf_counter()
  while True:
    jax.block_until_ready(run())
    calls += 1
    passed = time.perf_counter() - start
    if passed >= seconds:
      return passed / calls


def time_in_turns(ways: Mapping[str, Callable[[int], Any]], repeats: int,
                  seconds: float) -> dict[str, list[float]]:
  """Seconds of a call of each way, a number per turn.

  Args:
    ways: (turn) -> outputs; compiled and called before.
    repeats: turns.
    seconds: what each way is run for, at least, in a turn.
  """
  found: dict[str, list[float]] = {name: [] for name in ways}
  for turn in range(repeats):
    for name, way in ways.items():
      found[name].append(seconds_per_call(functools.partial(way, turn),
                                          seconds))
  return found


def analyse_memory(compiled: jax.stages.Compiled) -> Any:
  """XLA's analysis of a program's memory."""
  analysis = compiled.memory_analysis()
  assert analysis is not None  # CPU, GPU and TPU have it.
  return analysis


def machine_fields(load_before: float) -> dict[str, Any]:
  """What a row says of the machine after it was measured.

  Args:
    load_before: the load of the last minute, before it was.
  """
  return {'device': devices.device_name(),
          'num_cores': len(devices.available_cores()),
          'load_before': load_before, 'load_after': os.getloadavg()[0],
          'jax': jax.__version__}
