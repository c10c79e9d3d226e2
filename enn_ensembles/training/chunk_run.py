"""The training of one chunk of seeds, in as many calls as are asked for.

A call trains from one step to another. Between calls stand what needs the host:
checkpoints, snapshots, and the look whether all problems have stopped early.
"""

from collections.abc import Callable
from collections.abc import Sequence
import time
from typing import Any

import jax
import numpy as np

from enn_ensembles import base
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import progress as progress_lib
from enn_ensembles.training import network_training
from enn_ensembles.training import program

# Where training is cut into several calls, so that checkpoints and reports of
# progress come between them, a call takes about _SECONDS_PER_CALL, and at least
# _STARTS_PER_CALL times the time of the start that every call repeats.
_SECONDS_PER_CALL = 10.
_STARTS_PER_CALL = 30.
# From one call to the next the number of steps is multiplied by no less and no
# more than this. The first call's number is a guess that may be far off, and
# the time of a call is an unsure measure: a short one is little more than its
# start, and any may have been slowed by other work.
_LEAST_FACTOR, _LARGEST_FACTOR = 0.1, 8.
# Seconds that a call counts at least, so that none is divided by 0.
_SHORTEST_CALL = 1e-3

# Steps whose mean loss is the final one.
_NUM_FINAL_LOSSES = 100


class ChunkRun:
  """The training of one chunk of seeds, in as many calls as are asked for.

  Args:
    agent: the agent.
    traced: its traced training.
    call: (progress, first, last) -> (progress, constants).
    progress: arrays in the shapes of the progress; they are not read.

  Attributes:
    seconds: spent in calls, those before a restart included.
  """

  def __init__(self, agent: network_training.NetworkTraining,
               traced: program.TracedProblem, call: Callable[..., Any],
               progress: program.Progress):
    self._agent = agent
    self._traced = traced
    self._call = call
    self._progress = progress
    self._constants: Sequence[base.Array] | None = None
    self._step = 0
    self._snapshots: dict[int, base.Params] = {}
    self.seconds = 0.

  def restore(self, kept: checkpoints.Part | None) -> None:
    """Goes on from what was kept, if anything was."""
    if kept is None:
      return
    self._step = kept.info['num_steps']
    self.seconds = kept.info['train_seconds']
    shapes = (self._progress,
              dict.fromkeys(kept.info['snapshots'], self._progress.params))
    self._progress, self._snapshots = jax.device_put(
        jax.tree.unflatten(jax.tree.structure(shapes), kept.arrays),
        jax.tree.map(lambda a: a.sharding, shapes))

  def train(self, checkpoint: checkpoints.Checkpoint | None, key: Any,
            num_steps: int | None) -> None:
    """Runs all steps that are left.

    Args:
      checkpoint: as in `loop.train`.
      key: what the chunk is called there.
      num_steps: of the first call; further ones take `_SECONDS_PER_CALL`.
        None does not cut.
    """
    in_parts = num_steps is not None
    num_steps = num_steps if in_parts else self._agent.num_batches
    most = np.inf if checkpoint is None else checkpoint.seconds_between
    calls: list[tuple[int, float]] = []  # Steps and seconds of whole calls.
    first = self._step
    while not self._is_done():
      progress_lib.report('step', self._step - first,
                          self._agent.num_batches - first, first)
      last = min(self._step + num_steps, self._next_stop())
      was_whole = last == self._step + num_steps
      elapsed = self._advance(last)
      if checkpoint is not None and (in_parts or self._is_done()):
        checkpoint.offer(key, self._make_part())
      if in_parts and was_whole:
        calls.append((num_steps, max(elapsed, _SHORTEST_CALL)))
        seconds = min(most, max(_SECONDS_PER_CALL,
                                _STARTS_PER_CALL * _start_seconds(calls)))
        num_steps = max(1, int(num_steps * np.clip(
            seconds / calls[-1][1], _LEAST_FACTOR, _LARGEST_FACTOR)))

  def result(self) -> dict[str, Any]:
    """The fields of `loop.Trained` that belong to a chunk, by name."""
    if self._constants is None:  # All of it was restored.
      self._advance(self._step)
    progress = self._progress
    losses = np.asarray(progress.losses, np.float64)
    if progress.best is None:
      params, changing = progress.params, progress.state
      num_steps = np.full(losses.shape[:2], self._step)
    else:
      params, changing = progress.best.params, progress.best.state
      num_steps = np.asarray(progress.best.step)
    ages = num_steps[..., None] - np.arange(losses.shape[-1])
    last = (ages > 0) & (ages <= _NUM_FINAL_LOSSES)
    final_loss = np.full(num_steps.shape, np.nan)  # Where nothing was trained.
    np.divide(np.sum(losses, axis=-1, where=last), np.sum(last, axis=-1),
              out=final_loss, where=num_steps > 0)
    return {'params': params, 'final_loss': final_loss, 'num_steps': num_steps,
            'state': self._traced.merge_state(changing, self._constants),
            'snapshots': self._snapshots}

  def _advance(self, last: int) -> float:
    """Trains up to a step; returns the seconds."""
    start = time.perf_counter()
    self._progress, self._constants = jax.block_until_ready(
        self._call(self._progress, *step_range(self._step, last)))
    elapsed = time.perf_counter() - start
    self.seconds += elapsed
    self._step = last
    if last in self._agent.snapshots:
      self._snapshots[last] = self._progress.params
    return elapsed

  def _is_done(self) -> bool:
    if self._progress.best is not None and self._step > 0 and np.all(
        self._progress.best.stopped):
      return True
    return self._step == self._agent.num_batches and (
        len(self._snapshots) == len(self._agent.snapshots))

  def _next_stop(self) -> int:
    """The next step after which something is to be done here."""
    settings = self._agent.early_stopping
    stops = [self._agent.num_batches, *(
        step for step in self._agent.snapshots if step not in self._snapshots)]
    if settings is not None:
      # A look whether all problems have stopped, twice per patience.
      period = settings.every * max(1, settings.patience // 2)
      stops.append((self._step // period + 1) * period)
    return min(stops)

  def _make_part(self) -> Callable[[], checkpoints.Part]:
    """Makes what is kept of the chunk as it is now."""
    info = {'num_steps': self._step, 'train_seconds': self.seconds,
            'snapshots': list(self._snapshots)}
    arrays = jax.tree.leaves((self._progress, self._snapshots))
    return lambda: checkpoints.Part(info, [np.asarray(a) for a in arrays])


def _start_seconds(calls: Sequence[tuple[int, float]]) -> float:
  """What a call takes beside its steps, from the last two; 0 if not known."""
  if len(calls) < 2:
    return 0.
  (steps, seconds), (more_steps, more_seconds) = sorted(calls[-2:])
  if more_steps == steps:
    return 0.
  per_step = (more_seconds - seconds) / (more_steps - steps)
  return float(np.clip(seconds - per_step * steps, 0., seconds))


def step_range(first: int, last: int) -> tuple[np.int32, np.int32]:
  """First and last step as arguments of the compiled program."""
  return np.int32(first), np.int32(last)
