"""The training loop: many problems, one compiled program, wherever it is cut.

A batch of problems shares T, the shape of x and the agent's setting; it is S
seeds by E noise levels. The inputs x belong to a seed, so they are stored once
for its E noise levels, and so are the initial parameters, the prior function,
the minibatches and all other draws: a comparison across noise levels is paired.

What is promised of the trained parameters, every draw being the seed's own:

- Bit for bit the same on one machine, jax version and set of XLA flags, for
  batches of the same shape (E and `seeds_per_chunk`), wherever the training is
  cut, checkpointed and resumed, and whatever else is in the batch.
- The same but for rounding otherwise: in a batch of another shape, on several
  devices, on another CPU. XLA computes a matrix product of another shape by
  another routine, which adds up in another order (a batch of one is no batch
  any more), and training multiplies what that changes. `devices.numerics` says
  what of the machine decides it.

Measured for batches of another shape, float32, 1000 steps, D_x = T = 10, two
seeds, each agent's default settings: three noise levels together against one
alone, against two, and against two seeds at once. Most trainings stay bit for
bit the same; the largest relative difference of `kl_estimate` was 4.5e-4 (MC
dropout; the other agents 8.4e-6 or less). BBB was trained for 100 steps only
(9.3e-8); hypermodels were not part of it.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import functools
import time
from typing import Any
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles.machine import allocation
from enn_ensembles.machine import checkpoints
from enn_ensembles.machine import progress as progress_lib
from enn_ensembles.training import chunk_run
from enn_ensembles.training import network_training
from enn_ensembles.training import program

# The seeds trained at once when nobody says otherwise: on a CPU one, whose
# noise levels nearly fit the core's cache; more make it slower, not faster.
# An accelerator takes as many as this share of its memory holds, of 8 GB where
# it does not say how much it has.
_ACCELERATOR_MEMORY_SHARE = 0.5
_ACCELERATOR_BYTES = 8e9

_CPU_COMPILER_OPTIONS = {
    'xla_cpu_experimental_ynn_fusion_type':
        'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'}


class Trained(NamedTuple):
  """Networks trained on S seeds by E noise levels.

  Attributes:
    params: parameters, every leaf [S, E, ...].
    state: network state, every leaf [S, E, ...].
    final_loss: mean loss of the last steps (at most 100), [S, E] float64.
    num_params: trained parameters of one problem's network.
    dtype: of the parameters.
    train_seconds: wall time of all of them, compilation apart.
    compile_seconds: wall time of tracing and compiling.
    num_steps: steps that led to the parameters, int [S, E]; fewer than
      num_batches only with early stopping.
    snapshots: the parameters after each of the agent's `snapshots` steps that
      were trained, every leaf [S, E, ...].
  """
  params: base.Params
  state: base.State
  final_loss: np.ndarray
  num_params: int
  dtype: Any
  train_seconds: float
  compile_seconds: float
  num_steps: np.ndarray | None = None
  snapshots: Mapping[int, base.Params] = {}


def compile_program(lowered: jax.stages.Lowered,
                    platform: str) -> jax.stages.Compiled:
  """Compiles a lowered program with the options that suit its platform.

  XLA's CPU compiler of jaxlib 0.10 hands sums to a library that is five times
  slower at them than its own loops; only matrix products should go there. The
  option changes no result beyond the order of sums. A jaxlib that does not know
  it compiles without.
  """
  compiled = _compile(lowered, platform)
  allocation.return_freed()  # What the compiler took: 200 MB are usual.
  return compiled


def _compile(lowered: jax.stages.Lowered,
             platform: str) -> jax.stages.Compiled:
  if platform == 'cpu':
    try:
      return lowered.compile(compiler_options=_CPU_COMPILER_OPTIONS)
    except jax.errors.JaxRuntimeError as error:
      if 'No such compile option' not in str(error):
        raise
  return lowered.compile()


def default_devices() -> Sequence[jax.Device]:
  """The devices of this process that the seeds are spread over."""
  return jax.local_devices()


def _take(array: np.ndarray, seeds: np.ndarray, dtype) -> np.ndarray:
  """array[seeds] in another dtype, at the cost of one copy: x may be 800 MB.
  """
  taken = np.empty((len(seeds), *array.shape[1:]), dtype)
  for i, seed in enumerate(seeds):
    taken[i] = array[seed]
  return taken


def train(agent: network_training.NetworkTraining, x: np.ndarray,
          y: np.ndarray, likelihood: base.Likelihood, keys: chex.PRNGKey, *,
          validation: base.Data | None = None,
          dtype: Any = jnp.float32,
          seeds_per_chunk: int | None = None,
          memory_budget_mb: float | None = None,
          devices: Sequence[jax.Device] | None = None,
          checkpoint: checkpoints.Checkpoint | None = None,
          steps_between_checkpoints: int | None = None) -> Trained:
  """Trains one network per problem, all problems by one compiled program.

  Args:
    agent: the agent; its setting is compiled in.
    x: training inputs [S, T, ...].
    y: training targets [S, E, T, out], or int class labels [S, E, T].
    likelihood: of all problems, its leaves [E]: base.Gaussian(noise_std=[E]),
      or base.Categorical(num_classes).
    keys: the agent's key of each seed, [S].
    validation: held-out data for early stopping, shaped like x and y.
    dtype: of training.
    seeds_per_chunk: seeds trained at once on a device; None chooses it.
    memory_budget_mb: memory that training may take per device; a chunk is made
      as large as fits, at least one seed. None: one seed at once on a CPU,
      half the memory of an accelerator.
    devices: the devices to spread the seeds over; None: all of this process.
    checkpoint: where chunks of seeds are kept and taken from; None keeps
      nothing. Trainings that share it differ in their keys or in T.
    steps_between_checkpoints: the steps of the first call of the program;
      later calls take some ten seconds, at most the checkpoint's interval.
      Between two calls a chunk is offered to the checkpoint, and its steps are
      reported (`machine.progress`). None trains a chunk in one call. It makes
      no difference to the result.

  Returns:
    The trained networks, in the order of the seeds and noise levels.

  Raises:
    ValueError: an option is not positive, shapes do not fit together, or
      validation data and early stopping do not go together.
    preemption.Preempted: the process was told to stop; only with `checkpoint`.
  """
  _check_options(seeds_per_chunk, steps_between_checkpoints, memory_budget_mb)
  _check_shapes(x, y, likelihood)
  num_seeds = len(y)
  devices = default_devices() if devices is None else devices
  # No more devices than seeds: a device without one would only repeat work.
  devices = list(devices)[:num_seeds]
  per_device = -(-num_seeds // len(devices))

  start = time.perf_counter()
  progress_lib.report('compiling')
  traced = _trace(agent, x, y, likelihood, keys, validation, dtype)
  if seeds_per_chunk is None:
    seeds_per_chunk = choose_seeds_per_chunk(
        traced, y.shape[1], memory_budget_mb, devices[0])
  # Equal chunks: 10 seeds in chunks of at most 4 are 4 + 3 + 3, padded by 2.
  seeds_per_chunk = min(seeds_per_chunk, per_device)
  num_chunks = -(-per_device // seeds_per_chunk)
  chunk_size = -(-per_device // num_chunks) * len(devices)

  sharding, replicated = _placements(devices)
  label_dtype = _label_dtype(likelihood, dtype)
  levels = jax.device_put(
      jax.tree.map(lambda leaf: np.asarray(leaf, dtype), likelihood),
      replicated)

  def load(first: int) -> program.Inputs:
    """The chunk that starts at a seed, the last seed repeated to fill it."""
    seeds = np.minimum(np.arange(first, first + chunk_size), num_seeds - 1)

    def take(data: base.Data) -> base.Data:
      return base.Data(_take(data.x, seeds, dtype),
                       _take(data.y, seeds, label_dtype))

    data, held_out = jax.device_put(
        (take(base.Data(x, y)),
         None if validation is None else take(validation)), sharding)
    return program.Inputs(data.x, data.y, levels,
                          jax.device_put(keys[seeds], sharding), held_out)

  inputs = load(0)
  zeros = jax.device_put(jax.tree.map(
      lambda leaf: np.zeros((chunk_size, y.shape[1], *leaf.shape), leaf.dtype),
      traced.progress), sharding)
  compiled = compile_program(
      jax.jit(program.make_train_seeds(traced)).lower(
          inputs, zeros, *chunk_run.step_range(0, 0)), devices[0].platform)
  compile_seconds = time.perf_counter() - start

  chunks, train_seconds = [], 0.
  for first in range(0, num_seeds, chunk_size):
    if first > 0:
      inputs = load(first)
    # A unit trains the same seeds once more on fewer points, where a selection
    # takes its labels out of the training set.
    key = {'keys': np.asarray(inputs.key).tolist(), 'num_train': x.shape[1],
           'num_devices': len(devices)}
    run = chunk_run.ChunkRun(agent, traced,
                             functools.partial(compiled, inputs), zeros)
    if checkpoint is not None:
      run.restore(checkpoint.restore(key))
    with progress_lib.part('seed' if chunk_size == 1 else 'chunk of seeds',
                           first // chunk_size, -(-num_seeds // chunk_size)):
      run.train(checkpoint, key, steps_between_checkpoints)
    chunks.append(run.result())
    train_seconds += run.seconds

  together = jax.tree.map(lambda *parts: _concatenate(*parts)[:num_seeds],
                          *chunks)
  num_params = sum(int(np.prod(p.shape[2:]))
                   for p in jax.tree.leaves(together['params']))
  return Trained(**together, num_params=num_params, dtype=jnp.dtype(dtype),
                 train_seconds=train_seconds, compile_seconds=compile_seconds)


def _check_options(seeds_per_chunk: int | None,
                   steps_between_checkpoints: int | None,
                   memory_budget_mb: float | None) -> None:
  """Raises ValueError unless each is None or positive."""
  for name, value in (('seeds_per_chunk', seeds_per_chunk),
                      ('steps_between_checkpoints', steps_between_checkpoints)):
    if value is not None and value < 1:
      raise ValueError(f'{name} must be >= 1, got {value}.')
  if memory_budget_mb is not None and not memory_budget_mb > 0:
    raise ValueError(f'memory_budget_mb must be > 0, got {memory_budget_mb}.')


def _placements(devices: Sequence[jax.Device]) -> tuple[Any, Any]:
  """Where arrays go whose first axis is the seed, and where all others do."""
  if len(devices) == 1:
    return devices[0], devices[0]
  mesh = jax.sharding.Mesh(np.array(devices), ('seed',))
  return (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('seed')),
          jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def _check_shapes(x: np.ndarray, y: np.ndarray,
                  likelihood: base.Likelihood) -> None:
  """ValueError unless data and likelihood are of the same problems."""
  if not isinstance(likelihood, base.Likelihood):
    raise ValueError('likelihood must be base.Gaussian or base.Categorical, '
                     f'got {likelihood!r}.')
  ending = (() if isinstance(likelihood, base.Categorical)
            else (likelihood.num_outputs,))
  num_levels = y.shape[1] if y.ndim > 1 else 0
  expected = (x.shape[0], num_levels, x.shape[1], *ending)
  if y.shape != expected:
    raise ValueError(f'y must have shape {expected}, seeds by noise levels by '
                     f'points, for x of shape {x.shape}, got {y.shape}.')
  if isinstance(likelihood, base.Categorical) and not np.issubdtype(
      y.dtype, np.integer):
    raise ValueError(f'y must be int class labels, got {y.dtype}.')
  for leaf in jax.tree.leaves(likelihood):
    if np.shape(leaf) != (num_levels,) or np.asarray(leaf).dtype == object:
      raise ValueError(f'noise_std must be {num_levels} numbers, one per noise '
                       f'level, got {leaf!r}.')


def _label_dtype(likelihood: base.Likelihood, dtype: Any) -> Any:
  """Classes are int32; numbers have the dtype of training, whatever they had.
  """
  return np.int32 if isinstance(likelihood, base.Categorical) else dtype


def _trace(agent: network_training.NetworkTraining, x: np.ndarray,
           y: np.ndarray, likelihood: base.Likelihood, keys: chex.PRNGKey,
           validation: base.Data | None, dtype: Any) -> program.TracedProblem:
  """Traces the training of one of the problems."""
  def shapes(data: base.Data) -> base.Data:
    return base.Data(
        jax.ShapeDtypeStruct(data.x.shape[1:], dtype),
        jax.ShapeDtypeStruct(data.y.shape[2:],
                             _label_dtype(likelihood, dtype)))

  held_out = None if validation is None else shapes(validation)
  return program.trace_problem(agent, program.Inputs(
      *shapes(base.Data(x, y)),
      jax.tree.map(lambda _: jax.ShapeDtypeStruct((), dtype), likelihood),
      jax.eval_shape(lambda: keys[0]), held_out))


def _concatenate(*parts: Any) -> Any:
  """Along seeds, on the host where the parts are there."""
  module = np if isinstance(parts[0], np.ndarray) else jnp
  return module.concatenate(parts)


def choose_seeds_per_chunk(traced: program.TracedProblem, num_levels: int,
                           memory_budget_mb: float | None,
                           device: jax.Device) -> int:
  """How many seeds to train at once on one device; at least one."""
  if memory_budget_mb is not None:
    budget = memory_budget_mb * 1e6
  elif device.platform == 'cpu':
    return 1
  else:
    stats = device.memory_stats() or {}
    budget = _ACCELERATOR_MEMORY_SHARE * stats.get('bytes_limit',
                                                   _ACCELERATOR_BYTES)
  seed_bytes = num_levels * program.traced_bytes(traced)
  return max(1, int(budget // seed_bytes))
