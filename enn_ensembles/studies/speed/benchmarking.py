"""What an agent costs here, and what the same agent costs the plain way.

A case is a work unit of a sweep: an agent setting on one (input_dim,
data_ratio), three noise levels and a few seeds, trained and scored as in a
sweep. Beside it the same agent is trained the plain way (`plain_training`).

`num_workers` processes do this side by side, each pinned to its share of the
cores and with seeds of its own; they start each measurement together. Seconds
are those of the whole machine then: wall time per problem while all are at it.

What happens once per training (the initial draw, tables of targets) and what
happens per step are measured apart, by runs of two lengths (`lengths`), so that
no short run is scaled to a long one with what happens once in it. The longer
one is the whole training where that fits into the case's time. Floating-point
operations are those of the matrix products, counted in the traced program of
one step (`training.flops`): XLA's own count takes a loop's body once, however
often it runs.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import os
from typing import Any

import jax

from enn_ensembles import checks
from enn_ensembles import sweeps
from enn_ensembles.machine import devices
from enn_ensembles.machine import worker_processes
from enn_ensembles.studies.speed import case
from enn_ensembles.studies.speed import ceiling as ceiling_lib
from enn_ensembles.studies.speed import rows


def check_num_workers(num_workers: int) -> None:
  """Raises ValueError unless every worker can have a core of its own."""
  checks.check_count('num_workers', num_workers)
  num_cores = len(devices.available_cores())
  if num_workers > num_cores:
    raise ValueError(f'num_workers must be at most {num_cores}, the cores of '
                     f'this process, got {num_workers}.')


def run(units: Sequence[sweeps.WorkUnit], options: case.CaseOptions,
        num_workers: int, ceiling: ceiling_lib.Ceiling | None = None
        ) -> Iterator[rows.Row]:
  """Measures units one after the other, each by all workers at once.

  Args:
    units: the cases; each worker takes its share of their seeds.
    options: how much.
    num_workers: processes; with one it has all cores of this process.
    ceiling: what the machine can do, for the shares.

  Yields:
    A row per unit, in their order.

  Raises:
    ValueError: there are fewer cores, or seeds of a unit, than workers.
    RuntimeError: a worker died or met a bug; the message says which.
  """
  check_num_workers(num_workers)
  cores = devices.available_cores()
  for unit in units:
    if len(unit.seeds) < num_workers:
      raise ValueError(
          f'a unit needs a seed for each of {num_workers} workers, '
          f'got {len(unit.seeds)}.')
  shares = [([dataclasses.replace(unit, seeds=unit.seeds[i::num_workers])
              for unit in units], options) for i in range(num_workers)]
  with worker_processes.SideBySide(
      _measure, shares, worker_processes.share_cores(cores, num_workers),
      hint=': try fewer --num_workers or a smaller --input_dim') as workers:
    for unit in units:
      load_before = os.getloadavg()[0]
      yield rows.make_row(
          unit, workers.receive(), ceiling, {
              'load_before': load_before, 'load_after': os.getloadavg()[0],
              'num_cores': len(cores), 'repeats': options.repeats})


def _measure(wait: Callable[[], Any], send: Callable[[Any], None],
             units: Sequence[sweeps.WorkUnit],
             options: case.CaseOptions) -> None:
  """What a worker does."""
  jax.config.update('jax_enable_x64', True)
  problems, name = None, None
  for unit in units:
    if problems is None or unit.family.name != name:
      name, problems = unit.family.name, None  # Frees the old ones first.
      problems = case.make_problems(unit, options.repeats, wait)
    send(case.measure(unit, problems, options, wait))
