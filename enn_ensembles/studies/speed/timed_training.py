"""The training program of a sweep, compiled once and run as far as asked.

`training.program` takes the first and the last step as arguments, so one
program measures trainings of any length, what happens once included in each.
"""

from collections.abc import Callable
from collections.abc import Sequence
import time
from typing import Any
from typing import NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import problems as problems_lib
from enn_ensembles import sweeps
from enn_ensembles.training import loop
from enn_ensembles.training import network_agent
from enn_ensembles.training import program


class _Compiled(NamedTuple):
  """A compiled training."""
  traced: program.TracedProblem
  call: Any
  zeros: program.Progress
  seconds: float


class TimedTraining:
  """Trains seeds and their noise levels together, as sweeps do.

  Attributes:
    num_problems: that are trained together.
    compile_seconds: of tracing and compiling.
    program_bytes: temporaries and arguments of the program.
    num_params: trained parameters of one problem's network.
  """

  def __init__(self, agent: network_agent.NetworkAgent, unit: sweeps.WorkUnit,
               groups: Sequence[Sequence[problems_lib.Problem]]):
    """Compiles.

    Args:
      agent: the agent; it does not stop early.
      unit: its case.
      groups: the problems of each of the unit's seeds, one per noise level.
    """
    self._agent, self._dtype = agent, jnp.dtype(unit.dtype)
    stds = [problem.noise_std for problem in groups[0]]
    self._inputs = jax.device_put(program.Inputs(
        np.stack([group[0].x_train for group in groups]).astype(self._dtype),
        np.stack([[problem.y_train for problem in group] for group in groups
                  ]).astype(self._dtype),
        base.Gaussian(np.asarray(stds, self._dtype)),
        jnp.stack([problems_lib.agent_key(seed) for seed in unit.seeds])))
    self._shape = (len(groups), len(stds))
    self.num_problems = len(groups) * len(stds)
    compiled = self._compile()
    self._traced, self._call, self._zeros, self.compile_seconds = compiled
    memory = self._call.memory_analysis()
    self.program_bytes = (memory.temp_size_in_bytes
                          + memory.argument_size_in_bytes)
    self.num_params = sum(
        int(np.prod(leaf.shape))
        for leaf in jax.tree.leaves(self._traced.progress.params))
    self._last: Any = None

  def _compile(self) -> _Compiled:
    start = time.perf_counter()
    x, y, likelihood, key, _ = self._inputs
    one = jax.tree.map(
        lambda leaf, axes: jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype),
        (x, y, likelihood.noise_std), (1, 2, 1))
    traced = program.trace_problem(self._agent, program.Inputs(
        one[0], one[1], base.Gaussian(one[2]),
        jax.eval_shape(lambda: key[0])))
    zeros = jax.device_put(jax.tree.map(
        lambda leaf: np.zeros((*self._shape, *leaf.shape), leaf.dtype),
        traced.progress))
    call = loop.compile_program(
        jax.jit(program.make_train_seeds(traced)).lower(
            self._inputs, zeros, np.int32(0), np.int32(0)),
        jax.default_backend())
    return _Compiled(traced, call, zeros, time.perf_counter() - start)

  def run(self, num_steps: int) -> float:
    """Trains so many steps from the beginning; wall time, s."""
    start = time.perf_counter()
    self._last = jax.block_until_ready(self._call(
        self._inputs, self._zeros, np.int32(0), np.int32(num_steps)))
    return time.perf_counter() - start

  def trained(self) -> loop.Trained:
    """The networks of the last run."""
    progress, constants = self._last
    losses = np.asarray(progress.losses, np.float64)
    return loop.Trained(
        progress.params, self._traced.merge_state(progress.state, constants),
        losses[..., -1], self.num_params, self._dtype, train_seconds=0.,
        compile_seconds=self.compile_seconds)


def twice(compile_once: Callable[[], float], cache_dir: str
          ) -> tuple[float, float]:
  """Seconds of compiling without a persistent cache, and from one.

  Args:
    compile_once: compiles, and returns the seconds.
    cache_dir: an empty folder; the compiled program stays there.

  Returns:
    (first, again).
  """
  names = ('jax_compilation_cache_dir',
           'jax_persistent_cache_min_compile_time_secs',
           'jax_persistent_cache_min_entry_size_bytes')
  before = {name: getattr(jax.config, name) for name in names}
  try:
    for name, value in zip(names, (cache_dir, 0, -1), strict=True):
      jax.config.update(name, value)
    _forget_programs()
    first = compile_once()
    _forget_programs()
    return first, compile_once()
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
    _forget_programs()


def _forget_programs() -> None:
  """What this process has traced, compiled, and knows of the cache's folder."""
  jax.clear_caches()
  compilation_cache.reset_cache()
