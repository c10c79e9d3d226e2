"""The training loop: one `lax.scan` over steps, mapped over problems.

A batch of problems shares T, D_x and the agent's setting; it is S seeds by E
noise levels. The inputs x belong to a seed, so they are stored once for its E
noise levels, and so are the initial parameters, the prior function, the
minibatches and all other draws: a comparison across noise levels is paired.
Every draw comes from the seed's own key, so a problem trains to the same
parameters alone, in a batch, in chunks or on several devices.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import time
from typing import Any
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from enn_ensembles import base
from enn_ensembles.machine import checkpoints
from enn_ensembles.training import losses
from enn_ensembles.training import network_sampler

# fold_in constants: each names the one use of a key derived from the agent's.
_INDEX_KEY, _INIT_KEY, _PREPARE_KEY, _MINIBATCH_KEY, _STEP_KEY = range(5)

# The seeds trained at once when nobody says otherwise: on a CPU one, whose
# noise levels nearly fit the core's cache; more make it slower, not faster.
# An accelerator takes as many as this share of its memory holds.
_ACCELERATOR_MEMORY_SHARE = 0.5

_CPU_COMPILER_OPTIONS = {
    'xla_cpu_experimental_ynn_fusion_type':
        'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'}


@dataclasses.dataclass(frozen=True)
class NetworkAgent:
  """An agent that trains an epistemic network by minibatch SGD.

  Attributes:
    make_network: PriorKnowledge -> EpistemicNetwork.
    make_loss: PriorKnowledge -> Loss.
    learning_rate: of Adam.
    num_batches: SGD steps.
    batch_size: data points per step, drawn with replacement.
    final_learning_rate: where half a cosine over num_batches takes the learning
      rate (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts); None
      keeps it constant.
  """
  make_network: Callable[[base.PriorKnowledge], base.EpistemicNetwork]
  make_loss: Callable[[base.PriorKnowledge], losses.Loss]
  learning_rate: float = 1e-3
  num_batches: int = 1000
  batch_size: int = 100
  final_learning_rate: float | None = None

  def __call__(self, data: base.Data, prior: base.PriorKnowledge,
               key: chex.PRNGKey) -> base.EpistemicSampler:
    """Trains on one problem: the plain `base.Agent` contract."""
    trained = train(
        self, np.asarray(data.x)[None], np.asarray(data.y)[None, None],
        np.asarray([prior.noise_std]), key[None])
    params, state = jax.tree.map(lambda a: a[0, 0],
                                 (trained.params, trained.state))
    return network_sampler.NetworkSampler(self.make_network(prior), params,
                                          state, trained.dtype)


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
  """
  params: base.Params
  state: base.State
  final_loss: np.ndarray
  num_params: int
  dtype: Any
  train_seconds: float
  compile_seconds: float


class _Progress(NamedTuple):
  """All that changes from step to step."""
  params: base.Params
  state: base.State
  opt_state: Any
  values: base.Array  # The loss of every step, zero where it is to come.


def train_problem(agent: NetworkAgent, x: base.Array, y: base.Array,
                  noise_std: base.Array, key: chex.PRNGKey
                  ) -> tuple[base.Params, base.State, base.Array]:
  """Trains on one problem; pure, to be mapped and compiled.

  Args:
    agent: the agent.
    x: training inputs [T, D].
    y: training targets [T, 1].
    noise_std: scalar.
    key: the agent's key for this problem.

  Returns:
    params, state and the mean loss of the last steps.
  """
  start, inputs, step = _prepare(agent, x, y, noise_std, key)
  (params, state, _), values = jax.lax.scan(step, start, inputs)
  return params, state, jnp.mean(values[-100:])


def _prepare(agent: NetworkAgent, x: base.Array, y: base.Array,
             noise_std: base.Array, key: chex.PRNGKey
             ) -> tuple[tuple, tuple, Callable]:
  """What `lax.scan` needs to train on one problem: carry, inputs and step."""
  num_train, input_dim = x.shape
  prior = base.PriorKnowledge((input_dim,), num_train,
                              base.Gaussian(noise_std))
  network, loss = agent.make_network(prior), agent.make_loss(prior)
  fold_in = functools.partial(jax.random.fold_in, key)

  index = network.indexer(fold_in(_INDEX_KEY))
  params, state = network.init(fold_in(_INIT_KEY), x[:1], index)
  context = loss.prepare(network, params, state, base.Data(x, y),
                         fold_in(_PREPARE_KEY))
  learning_rate = agent.learning_rate
  if agent.final_learning_rate is not None:
    learning_rate = optax.cosine_decay_schedule(
        agent.learning_rate, agent.num_batches,
        alpha=agent.final_learning_rate / agent.learning_rate)
  optimizer = optax.adam(learning_rate)
  # Rows by remainder: the bias, T / 2^32, is far below any effect.
  rows = jax.random.bits(
      fold_in(_MINIBATCH_KEY), [agent.num_batches, agent.batch_size],
      jnp.uint32) % jnp.uint32(num_train)
  step_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
      fold_in(_STEP_KEY), jnp.arange(agent.num_batches))

  def step(carry, inputs):
    params, state, opt_state = carry
    step_key, rows = inputs
    rows = rows.astype(jnp.int32)
    batch = base.Batch(x[rows], y[rows], rows)

    def loss_fn(params):
      return loss.evaluate(network, params, state, context, batch, step_key)

    (value, (state, _)), grads = jax.value_and_grad(
        loss_fn, has_aux=True)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return (optax.apply_updates(params, updates), state, opt_state), value

  return (params, state, optimizer.init(params)), (step_keys, rows), step


def _train_problem_further(agent: NetworkAgent, x: base.Array, y: base.Array,
                           noise_std: base.Array, key: chex.PRNGKey,
                           progress: _Progress | None, first: base.Array,
                           last: base.Array) -> _Progress:
  """The steps from `first` up to `last` of `train_problem`.

  Args:
    agent: as in `train_problem`, like all that follow.
    x: [T, D].
    y: [T, 1].
    noise_std: scalar.
    key: the agent's key.
    progress: that of the steps before `first`; not read where that is 0, None
      where it never is read.
    first: traced, so that one program serves whatever steps there are.
    last: traced.
  """
  start, inputs, step = _prepare(agent, x, y, noise_std, key)
  start = _Progress(*start, jnp.zeros(agent.num_batches, x.dtype))
  if progress is not None:
    start = jax.tree.map(lambda new, old: jnp.where(first == 0, new, old),
                         start, progress)

  def advance(i, progress):
    carry, value = step(tuple(progress[:3]),
                        jax.tree.map(lambda a: a[i], inputs))
    return _Progress(
        *carry, progress.values.at[i].set(value.astype(x.dtype)))

  return jax.lax.fori_loop(first, last, advance, start)


def compile_program(lowered: jax.stages.Lowered,
                    platform: str) -> jax.stages.Compiled:
  """Compiles a lowered program with the options that suit its platform.

  XLA's CPU compiler of jaxlib 0.10 hands sums to a library that is five times
  slower at them than its own loops; only matrix products should go there. The
  option changes no result beyond the order of sums. A jaxlib that does not know
  it compiles without.
  """
  if platform == 'cpu':
    try:
      return lowered.compile(compiler_options=_CPU_COMPILER_OPTIONS)
    except jax.errors.JaxRuntimeError as error:
      if 'No such compile option' not in str(error):
        raise
  return lowered.compile()


@functools.partial(jax.jit, static_argnums=0)
def train_seeds(agent, x, y, noise_std, keys):
  """`train_problem` over x [S, T, D], y [S, E, T, 1], noise_std [E], keys [S].

  x and the key are not mapped over the noise levels: what depends on them alone
  is computed once per seed.
  """
  over_noise = jax.vmap(functools.partial(train_problem, agent),
                        in_axes=(None, 0, 0, None))
  return jax.vmap(over_noise, in_axes=(0, 0, None, 0))(x, y, noise_std, keys)


@functools.partial(jax.jit, static_argnums=0)
def train_seeds_further(agent, x, y, noise_std, keys, progress, first, last):
  """`_train_problem_further` over seeds and noise levels, as `train_seeds`."""
  over_noise = jax.vmap(functools.partial(_train_problem_further, agent),
                        in_axes=(None, 0, 0, None, 0, None, None))
  return jax.vmap(over_noise, in_axes=(0, 0, None, 0, 0, None, None))(
      x, y, noise_std, keys, progress, first, last)


def default_devices() -> Sequence[jax.Device]:
  """The devices of this process that the seeds are spread over."""
  return jax.local_devices()


def _take(array: np.ndarray, seeds: np.ndarray, dtype) -> np.ndarray:
  """array[seeds] in another dtype, at the cost of one copy: x may be 800 MB."""
  taken = np.empty((len(seeds), *array.shape[1:]), dtype)
  for i, seed in enumerate(seeds):
    taken[i] = array[seed]
  return taken


def train(agent: NetworkAgent, x: np.ndarray, y: np.ndarray,
          noise_std: np.ndarray, keys: chex.PRNGKey, *,
          dtype: Any = jnp.float32,
          seeds_per_chunk: int | None = None,
          memory_budget_mb: float | None = None,
          devices: Sequence[jax.Device] | None = None,
          checkpoint: checkpoints.Checkpoint | None = None,
          steps_between_checkpoints: int | None = None) -> Trained:
  """Trains one network per problem, all problems in one compiled program.

  Args:
    agent: the agent; its setting is compiled in.
    x: training inputs [S, T, D].
    y: training targets [S, E, T, 1].
    noise_std: the noise levels [E].
    keys: the agent's key of each seed, [S].
    dtype: of training.
    seeds_per_chunk: seeds trained at once on a device; None chooses it.
    memory_budget_mb: memory that training may take per device; a chunk is made
      as large as fits, at least one seed. None: one seed at once on a CPU,
      half the memory of an accelerator.
    devices: the devices to spread the seeds over; None: all of this process.
    checkpoint: where chunks of seeds that are trained are kept and taken from;
      None keeps nothing.
    steps_between_checkpoints: about as many steps, and what the checkpoint's
      interval has room for after that, may be lost of a chunk in training; None
      trains a chunk in one go. Other programs run, whose results may differ in
      their last digits; where they are cut makes no difference.

  Returns:
    The trained networks, in the order of the seeds and noise levels.

  Raises:
    ValueError: seeds_per_chunk or memory_budget_mb is not positive.
    preemption.Preempted: the process was told to stop; only with `checkpoint`.
  """
  if seeds_per_chunk is not None and seeds_per_chunk < 1:
    raise ValueError(f'seeds_per_chunk must be >= 1, got {seeds_per_chunk}.')
  if memory_budget_mb is not None and not memory_budget_mb > 0:
    raise ValueError(f'memory_budget_mb must be > 0, got {memory_budget_mb}.')
  num_seeds, num_noise = y.shape[:2]
  chex.assert_shape(y, (num_seeds, num_noise, x.shape[1], 1))
  chex.assert_shape(noise_std, (num_noise,))
  devices = default_devices() if devices is None else devices
  # No more devices than seeds: a device without one would only repeat work.
  devices = list(devices)[:num_seeds]
  per_device = -(-num_seeds // len(devices))
  if seeds_per_chunk is None:
    seeds_per_chunk = choose_seeds_per_chunk(
        agent, x.shape[1:], num_noise, dtype, memory_budget_mb, devices[0])
  # Equal chunks: 10 seeds in chunks of at most 4 are 4 + 3 + 3, padded by 2.
  seeds_per_chunk = min(seeds_per_chunk, per_device)
  num_chunks = -(-per_device // seeds_per_chunk)
  chunk_size = -(-per_device // num_chunks) * len(devices)

  if len(devices) > 1:
    sharding = jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.array(devices), ('seed',)),
        jax.sharding.PartitionSpec('seed'))
    replicated = jax.sharding.NamedSharding(
        sharding.mesh, jax.sharding.PartitionSpec())
  else:
    sharding = replicated = devices[0]

  def load(first: int):
    """The chunk that starts at a seed, the last seed repeated to fill it."""
    seeds = np.minimum(np.arange(first, first + chunk_size), num_seeds - 1)
    arrays = (_take(x, seeds, dtype), _take(y, seeds, dtype))
    arrays = jax.device_put((*arrays, keys[seeds]), sharding)
    levels = jax.device_put(np.asarray(noise_std, dtype), replicated)
    return arrays[0], arrays[1], levels, arrays[2]

  in_parts = steps_between_checkpoints is not None
  start = time.perf_counter()
  chunk = load(0)
  if in_parts:
    progress = _no_progress(agent, chunk, sharding)
    lowered = train_seeds_further.lower(agent, *chunk, progress, *_range(0, 0))
  else:
    lowered = train_seeds.lower(agent, *chunk)
  compiled = compile_program(lowered, devices[0].platform)
  compile_seconds = time.perf_counter() - start

  outputs, train_seconds = [], 0.
  for first in range(0, num_seeds, chunk_size):
    if first > 0:
      chunk = load(first)
    key = {'keys': np.asarray(chunk[3]).tolist(), 'in_parts': in_parts,
           'num_devices': len(devices)}
    kept = None if checkpoint is None else checkpoint.restore(key)
    if in_parts:
      trained, seconds = _train_in_parts(
          agent, compiled, chunk, progress, steps_between_checkpoints,
          checkpoint, key, kept)
    elif kept is not None:
      trained = jax.tree.unflatten(lowered.out_tree, kept.arrays)
      seconds = kept.info['train_seconds']
    else:
      start = time.perf_counter()
      trained = jax.block_until_ready(compiled(*chunk))
      seconds = time.perf_counter() - start
      if checkpoint is not None:
        checkpoint.offer(key, functools.partial(
            _part, trained, agent.num_batches, seconds))
    outputs.append(trained)
    train_seconds += seconds

  params, state, final_loss = jax.tree.map(
      lambda *parts: jnp.concatenate(parts)[:num_seeds], *outputs)
  num_params = sum(int(np.prod(p.shape[2:])) for p in jax.tree.leaves(params))
  return Trained(params, state, np.asarray(final_loss, np.float64), num_params,
                 jnp.dtype(dtype), train_seconds, compile_seconds)


def _train_in_parts(agent: NetworkAgent, compiled: jax.stages.Compiled,
                    chunk: tuple, progress: _Progress, num_steps: int,
                    checkpoint: checkpoints.Checkpoint | None, key: Any,
                    kept: checkpoints.Part | None
                    ) -> tuple[tuple[base.Params, base.State, base.Array],
                               float]:
  """Trains one chunk in as many calls of one program as its time asks for.

  Args:
    agent: the agent.
    compiled: `train_seeds_further`.
    chunk: its data arguments.
    progress: any; that before the first step is not read.
    num_steps: of the first call; further ones take as long as the checkpoint's
      interval.
    checkpoint: as in `train`.
    key: what the chunk is called there.
    kept: what was restored of it.

  Returns:
    params, state and final loss of the chunk; seconds, those before it was
    restored included.
  """
  step, seconds = 0, 0.
  if kept is not None:
    progress = jax.device_put(
        jax.tree.unflatten(jax.tree.structure(progress), kept.arrays),
        jax.tree.map(lambda a: a.sharding, progress))
    step, seconds = kept.info['num_steps'], kept.info['train_seconds']
  while step < agent.num_batches:
    start = time.perf_counter()
    last = min(step + num_steps, agent.num_batches)
    progress = jax.block_until_ready(
        compiled(*chunk, progress, *_range(step, last)))
    elapsed, step = time.perf_counter() - start, last
    seconds += elapsed
    if checkpoint is not None:
      checkpoint.offer(key, functools.partial(_part, progress, step, seconds))
      # What a call repeats (`Loss.prepare`) is small beside an interval.
      num_steps = max(1, int(num_steps * min(
          8., max(0.1, checkpoint.seconds_between / max(elapsed, 1e-3)))))
  final_loss = jnp.mean(progress.values[..., -100:], axis=-1)
  return (progress.params, progress.state, final_loss), seconds


def _part(arrays: Any, num_steps: int, seconds: float) -> checkpoints.Part:
  """What is kept of a chunk after some of its steps, or all."""
  return checkpoints.Part(
      {'num_steps': num_steps, 'train_seconds': seconds},
      [np.asarray(leaf) for leaf in jax.tree.leaves(arrays)])


def _range(first: int, last: int) -> tuple[np.int32, np.int32]:
  return np.int32(first), np.int32(last)


def _no_progress(agent: NetworkAgent, chunk: tuple, sharding: Any) -> _Progress:
  """Zeros in the shapes of a chunk's progress."""
  shapes = jax.eval_shape(functools.partial(train_seeds_further, agent), *chunk,
                          None, *_range(0, 0))
  return jax.device_put(
      jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes), sharding)


def choose_seeds_per_chunk(agent: NetworkAgent, data_shape: tuple[int, int],
                           num_noise: int, dtype: Any,
                           memory_budget_mb: float | None,
                           device: jax.Device) -> int:
  """How many seeds to train at once on one device; at least one."""
  if memory_budget_mb is not None:
    budget = memory_budget_mb * 1e6
  elif device.platform == 'cpu':
    return 1
  else:
    stats = device.memory_stats() or {}
    budget = _ACCELERATOR_MEMORY_SHARE * stats.get('bytes_limit', 8e9)
  return max(1, int(budget // seed_bytes(agent, data_shape, num_noise, dtype)))


def seed_bytes(agent: NetworkAgent, data_shape: tuple[int, int],
               num_noise: int, dtype: Any) -> float:
  """An upper estimate of the memory that training one seed takes, in bytes.

  The sum of every intermediate array of `train_problem`, as if none were freed
  within a step: traced, not run.
  """
  num_train, input_dim = data_shape
  shape = functools.partial(jax.ShapeDtypeStruct, dtype=dtype)
  jaxpr = jax.make_jaxpr(functools.partial(train_problem, agent))(
      shape((num_train, input_dim)), shape((num_train, 1)), shape(()),
      jax.eval_shape(lambda: jax.random.key(0)))
  return num_noise * _sum_bytes(jaxpr.jaxpr)


def _sum_bytes(jaxpr) -> float:
  """Bytes of all arrays made in a jaxpr, those of inner jaxprs once."""
  total = 0.
  for equation in jaxpr.eqns:
    for variable in equation.outvars:
      aval = variable.aval
      # Keys have no itemsize in every version of jax; they are small.
      total += np.prod(aval.shape) * getattr(aval.dtype, 'itemsize', 8)
    for value in jax.tree.leaves(
        equation.params, is_leaf=lambda v: hasattr(v, 'eqns')):
      inner = getattr(value, 'jaxpr', value)  # A closed jaxpr holds one.
      if hasattr(inner, 'eqns'):
        total += _sum_bytes(inner)
  return total
