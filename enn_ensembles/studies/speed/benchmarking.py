"""What an agent costs here, and what the same agent costs the plain way.

A case is a work unit of a sweep: an agent setting on one (input_dim,
data_ratio), three noise levels and a few seeds, trained and evaluated by the
same functions as in a sweep. Beside it the same agent is trained as one would
write it first: one problem at a time, one jitted step per Python iteration,
`vmap` of the network's `apply` over the indices, the prior function computed
again in every step. The two take turns, A B A B, so that a busy moment of the
machine meets both.

`num_workers` processes do this side by side, each pinned to its share of the
cores and with seeds of its own; they start each measurement together. Seconds
are those of the whole machine then: wall time per problem while all are at it.

What would take too long runs fewer steps, and its time is scaled to all of
them; the columns *_steps_timed say how many were run. What happens once per
training (the initial draw, the table of targets) is then scaled too: our times
are upper bounds. Floating-point operations are those of the matrix products,
counted in the traced program of one step (`training.flops`): XLA's own count
takes a loop's body once, however often it runs.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import multiprocessing
from multiprocessing import connection as connection_lib
import os
import platform
import signal
import statistics
import time
import traceback
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import problems as problems_lib
from enn_ensembles import sweeps
from enn_ensembles.agents import bbb
from enn_ensembles.machine import devices
from enn_ensembles.problems import kinds
from enn_ensembles.training import flops
from enn_ensembles.training import loop
from enn_ensembles.training import losses
from enn_ensembles.training import network_agent
from enn_ensembles.training import prediction

# Rough speed of one core, only to choose how much can be timed.
_FLOPS = 4e10  # Per second, ours.
_PLAIN_FLOPS = 1e10  # The plain way.
# A step costs that much however small it is.
_STEP_SECONDS, _PLAIN_STEP_SECONDS = 5e-5, 5e-4
_OURS_SHARE, _PLAIN_SHARE = 0.6, 0.4  # Of a case's seconds.
_PLAIN_WARM_UP_STEPS = 2
_SHORTEST_TRAINING = 20  # Steps.

# With more training points one seed is enough: its problems take seconds.
_FEW_TRAIN = 2000

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions:
  """How much to measure.

  Attributes:
    repeats: how often each measurement is taken.
    plain: whether the plain way is measured too.
    seconds_per_case: about how long the timed runs of a case may take; what
      is too slow for it runs fewer steps. Making problems and compiling add
      to it.
    plain_steps: the most steps of the plain way that are timed at once.
  """
  repeats: int = 3
  plain: bool = True
  seconds_per_case: float = 8.
  plain_steps: int = 500

  def __post_init__(self):
    checks.check_count('repeats', self.repeats)
    checks.check_flag('plain', self.plain)
    checks.check_positive('seconds_per_case', self.seconds_per_case)
    checks.check_count('plain_steps', self.plain_steps)


class Measurement(NamedTuple):
  """What one worker measured; seconds per problem, all steps of it.

  Attributes:
    num_problems: trained in each repeat.
    problem_seconds: of making a problem and its ground truth.
    train_seconds: of training, one value per repeat.
    evaluate_seconds: of evaluation, one value per repeat.
    compile_seconds: of compiling training and evaluation.
    train_steps_timed: steps that were run for train_seconds.
    num_params: trained parameters; None for agents without a network, as for
      all that follow.
    flops: of the matrix products of all training steps.
    program_bytes: temporaries and arguments of the training program.
    peak_rss_bytes: the most memory the process had during this case.
    plain_seconds: of training the plain way, one value per repeat.
    plain_compile_seconds: of compiling its step.
    plain_steps_timed: steps that were run for plain_seconds.
    plain_flops: as flops.
    device: what it ran on.
  """
  num_problems: int
  problem_seconds: float
  train_seconds: Sequence[float]
  evaluate_seconds: Sequence[float]
  compile_seconds: float
  peak_rss_bytes: int
  device: str
  train_steps_timed: int | None = None
  num_params: int | None = None
  flops: float | None = None
  program_bytes: int | None = None
  plain_seconds: Sequence[float] = ()
  plain_compile_seconds: float | None = None
  plain_steps_timed: int | None = None
  plain_flops: float | None = None


def check_num_workers(num_workers: int) -> None:
  """Raises ValueError unless every worker can have a core of its own."""
  checks.check_count('num_workers', num_workers)
  num_cores = len(devices.available_cores())
  if num_workers > num_cores:
    raise ValueError(f'num_workers must be at most {num_cores}, the cores of '
                     f'this process, got {num_workers}.')


def run(units: Sequence[sweeps.WorkUnit], options: BenchmarkOptions,
        num_workers: int) -> Iterator[Row]:
  """Measures units one after the other, each by all workers at once.

  Args:
    units: the cases; each worker takes its share of their seeds.
    options: how much.
    num_workers: processes; with one it has all cores of this process.

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
  context = multiprocessing.get_context('spawn')
  barrier = context.Barrier(num_workers)
  processes, connections = [], []
  try:
    for i in range(num_workers):
      ours, theirs = context.Pipe(duplex=False)
      shares = [dataclasses.replace(unit, seeds=unit.seeds[i::num_workers])
                for unit in units]
      # A daemon: it ends with its parent, whatever ends that.
      process = context.Process(
          target=_work, args=(theirs, barrier, shares, options), daemon=True)
      share = cores[i * len(cores) // num_workers:
                    (i + 1) * len(cores) // num_workers]
      with devices.inherited_settings(share):
        process.start()
      theirs.close()  # The worker alone holds it: its death closes the pipe.
      processes.append(process)
      connections.append(ours)
    for unit in units:
      load_before = os.getloadavg()[0]
      yield make_row(unit, _receive(connections),
                     {'load_before': load_before,
                      'load_after': os.getloadavg()[0],
                      'num_cores': len(cores), 'repeats': options.repeats})
  finally:
    for process in processes:
      process.terminate()


def _receive(connections: Sequence[connection_lib.Connection]
             ) -> list[Measurement]:
  """One measurement from every worker, in the order of the workers."""
  found: dict[Any, Measurement] = {}
  while len(found) < len(connections):
    for ready in connection_lib.wait(
        [c for c in connections if c not in found]):
      try:
        answer = ready.recv()
      except EOFError:
        raise RuntimeError(
            'a worker died, as when memory runs out: try fewer --num_workers '
            'or a smaller --input_dim.') from None
      if isinstance(answer, RuntimeError):
        raise answer
      found[ready] = answer
  return [found[c] for c in connections]


def _work(connection: connection_lib.Connection, barrier: Any,
          units: Sequence[sweeps.WorkUnit], options: BenchmarkOptions) -> None:
  """The main function of a worker."""
  # Ctrl-C reaches the whole process group; the parent ends its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  jax.config.update('jax_enable_x64', True)
  try:
    # Compiles the keys' derivation, which no problem should pay for.
    problems_lib.make_problems([problems_lib.ProblemConfig(1, 1., 1., 0)])
    groups, name = None, None
    for unit in units:
      if unit.family.name != name:
        name, groups = unit.family.name, None
        groups = make_problems(unit, wait=barrier.wait)
      connection.send(measure(unit, groups, options, wait=barrier.wait))
  except Exception:  # pylint: disable=broad-except
    # The parent raises it, with the traceback of where it happened.
    connection.send(RuntimeError(f'a worker failed:\n{traceback.format_exc()}'))


class Problems(NamedTuple):
  """Problems of a unit.

  Attributes:
    groups: per seed, the problems of its noise levels.
    seconds: of making one problem.
  """
  groups: Sequence[Sequence[problems_lib.Problem]]
  seconds: float


def make_problems(unit: sweeps.WorkUnit,
                  wait: Callable[[], Any] = lambda: None) -> Problems:
  """The problems of a unit; of its first seed alone where they are large."""
  few = unit.family.num_train <= _FEW_TRAIN
  seeds = unit.seeds if few else unit.seeds[:1]
  wait()
  start = time.perf_counter()
  groups = [unit.family.make(seed, kinds.ProblemSettings()) for seed in seeds]
  seconds = time.perf_counter() - start
  return Problems(groups, seconds / (len(seeds) * len(unit.family.cells)))


def measure(unit: sweeps.WorkUnit, problems: Problems,
            options: BenchmarkOptions,
            wait: Callable[[], Any] = lambda: None) -> Measurement:
  """Measures one case in this process.

  Args:
    unit: the case.
    problems: its problems.
    options: how much to measure.
    wait: called before everything that is timed; workers meet there.

  Returns:
    The measurement.
  """
  _reset_peak_rss()
  module = agents_lib.load_agent(unit.agent)
  agent = agents_lib.make_agent(
      module, agents_lib.make_config(module, unit.agent_config))
  if not isinstance(agent, network_agent.NetworkAgent):
    return _measure_sampler(agent, problems, options, unit, wait)

  num_noise, prior = len(unit.family.cells), problems.groups[0][0].prior
  step_flops = flops.step_flops(agent, prior, jnp.dtype(unit.dtype))
  num_seeds, num_steps = _choose_work(
      _STEP_SECONDS + step_flops / _FLOPS, agent.num_batches, num_noise,
      len(problems.groups), options)
  timed_agent = dataclasses.replace(agent, num_batches=num_steps)
  groups, seeds = problems.groups[:num_seeds], unit.seeds[:num_seeds]
  arguments = (
      np.stack([group[0].x_train for group in groups]),
      np.stack([[problem.y_train for problem in group] for group in groups]),
      base.Gaussian(np.asarray(unit.family.noise_stds)),
      jnp.stack([problems_lib.agent_key(seed) for seed in seeds]))
  evaluation_keys = jnp.stack(
      [problems_lib.evaluation_key(seed) for seed in seeds])
  num_draws = prediction.num_index_draws(
      agent.make_network(prior), unit.num_enn_samples, unit.enumerate_indices)

  def train_and_evaluate(last: int | None = None):
    x, y, likelihood, keys = arguments
    trained = loop.train(timed_agent, x[:last], y[:last], likelihood,
                         keys[:last], dtype=jnp.dtype(unit.dtype))
    predictor = prediction.Predictor(timed_agent, trained, prior,
                                     evaluation_keys, num_draws)
    for s, group in enumerate(groups[:last]):
      for e, problem in enumerate(group):
        predictor.for_problem(s, e)(problem.x_test)
    return trained, predictor

  trained, predictor = train_and_evaluate(1)  # Compiles, and warms up.
  compile_seconds = trained.compile_seconds + predictor.compile_seconds
  plain = None
  if options.plain:
    plain = PlainTrainer(agent, unit, problems.groups[0][num_noise // 2])
    plain_steps = _choose_plain_steps(plain.flops, options)
    plain.run(_PLAIN_WARM_UP_STEPS)

  scale = agent.num_batches / num_steps
  train_seconds, evaluate_seconds, plain_seconds = [], [], []
  for _ in range(options.repeats):
    wait()
    trained, predictor = train_and_evaluate()
    num_problems = num_seeds * num_noise
    train_seconds.append(scale * trained.train_seconds / num_problems)
    evaluate_seconds.append(predictor.evaluate_seconds / num_problems)
    if plain is not None:
      wait()
      plain_seconds.append(plain.run(plain_steps) * agent.num_batches
                           / plain_steps)
  return Measurement(
      num_problems=num_seeds * num_noise, problem_seconds=problems.seconds,
      train_seconds=train_seconds, evaluate_seconds=evaluate_seconds,
      compile_seconds=compile_seconds, train_steps_timed=num_steps,
      num_params=trained.num_params, flops=step_flops * agent.num_batches,
      program_bytes=loop.program_bytes(timed_agent, *arguments,
                                       dtype=jnp.dtype(unit.dtype)),
      peak_rss_bytes=_peak_rss(),
      device=devices.device_name(),
      **({} if plain is None else dict(
          plain_seconds=plain_seconds,
          plain_compile_seconds=plain.compile_seconds,
          plain_steps_timed=plain_steps,
          plain_flops=plain.flops * agent.num_batches)))


def _measure_sampler(agent: base.Agent, problems: Problems,
                     options: BenchmarkOptions, unit: sweeps.WorkUnit,
                     wait: Callable[[], Any]) -> Measurement:
  """An agent without a network learns and is evaluated problem by problem."""
  problem, seed = problems.groups[0][0], unit.seeds[0]
  train_seconds, evaluate_seconds = [], []
  # Seconds each where there are many points, and little to gain.
  few = len(problem.x_train) <= _FEW_TRAIN
  for _ in range(options.repeats if few else 1):
    wait()
    start = time.perf_counter()
    sampler = agent(problem.data, problem.prior, problems_lib.agent_key(seed))
    trained = time.perf_counter()
    prediction.sampler_predictions(
        sampler, problem.x_test, problems_lib.evaluation_key(seed),
        unit.num_enn_samples)
    train_seconds.append(trained - start)
    evaluate_seconds.append(time.perf_counter() - trained)
  return Measurement(
      num_problems=1, problem_seconds=problems.seconds,
      train_seconds=train_seconds, evaluate_seconds=evaluate_seconds,
      compile_seconds=0., peak_rss_bytes=_peak_rss(),
      device=devices.device_name())


def _choose_work(step_seconds: float, num_batches: int, num_noise: int,
                 num_seeds: int, options: BenchmarkOptions) -> tuple[int, int]:
  """(seeds, steps) whose repeats, and a warm-up seed, fit the time."""
  seconds = _OURS_SHARE * options.seconds_per_case
  seed_seconds = step_seconds * num_batches * num_noise
  for seeds in range(num_seeds, 0, -1):
    if (1 + seeds * options.repeats) * seed_seconds <= seconds:
      return seeds, num_batches
  share = seconds / ((1 + options.repeats) * seed_seconds)
  return 1, min(num_batches, max(_SHORTEST_TRAINING, int(num_batches * share)))


def _choose_plain_steps(flops: float, options: BenchmarkOptions) -> int:
  seconds = _PLAIN_SHARE * options.seconds_per_case / options.repeats
  step_seconds = _PLAIN_STEP_SECONDS + flops / _PLAIN_FLOPS
  return max(1, min(options.plain_steps, int(seconds / step_seconds)))


def make_plain_loss(network: base.EpistemicNetwork, unit: sweeps.WorkUnit,
                    noise_std: float) -> Callable[..., base.Array]:
  """The loss of an agent of this package as its paper writes it.

  Written again, from the agent's settings alone: no blocks of indices, no
  structured forward, no table of targets.

  Args:
    network: the agent's network.
    unit: its name and settings, and T.
    noise_std: the problem's noise level.

  Returns:
    (params, state, x [B, D], y [B, 1], noise [B, noise_dim], key) -> scalar,
    where noise holds the standard normals of these data points' target noise.
  """
  config = unit.agent_config
  noise_scale = config.get('noise_scale', 0.)
  num_samples = config.get('num_index_samples')
  if 'samples_per_dim' in config:
    num_samples = config['samples_per_dim'] * config['index_dim']
  support = base.get_support(network.indexer)

  def forward(params, state, x, z):
    return base.get_predictions(network.apply(params, state, x, z)[0])

  def squared_error(params, state, x, y, noise, key):
    if unit.agent == 'mc_dropout':  # A mask for each example.
      indices = losses.sample_indices(network, key, len(x))
      out = jax.vmap(lambda x, z: forward(params, state, x[None], z)[0])(
          x, indices)
      return jnp.mean((out - y)**2)
    if num_samples is None:
      indices = jnp.asarray(support)
    else:
      indices = losses.sample_indices(network, key, num_samples)
    out = jax.vmap(lambda z: forward(params, state, x, z))(indices)
    targets = y.T  # [1 or J, B]
    if noise_scale:
      embedding = network.indexer.noise_embedding(indices).astype(x.dtype)
      targets += noise_scale * noise_std * (embedding @ noise.T)
    return jnp.mean((out[..., 0] - targets)**2)

  def loss(params, state, x, y, noise, key):
    value = squared_error(params, state, x, y, noise, key)
    if unit.agent == 'bbb':
      divergence = bbb.weight_divergence(params, config['sigma_0'])
      return value / (2. * noise_std**2) + divergence / unit.family.num_train
    if unit.agent == 'mc_dropout':
      decay = (config['weight_decay_scale']**2 * (1. - config['dropout_rate'])
               / (2. * unit.family.num_train))
      return value + decay * sum(
          jnp.sum(p**2) for p in jax.tree.leaves(params))
    return value

  return loss


def make_plain_step(loss: Callable[..., base.Array],
                    optimizer: optax.GradientTransformation
                    ) -> Callable[..., tuple[base.Params, Any]]:
  """(params, opt_state, state, *batch) -> (params, opt_state), to be jitted."""
  def step(params, opt_state, state, *batch):
    grads = jax.grad(loss)(params, state, *batch)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state

  return step


class PlainTrainer:
  """Trains one problem step by step, the way one would write it first."""

  def __init__(self, agent: network_agent.NetworkAgent, unit: sweeps.WorkUnit,
               problem: problems_lib.Problem, seed: int = 0):
    """Initialises the network and compiles the step.

    Args:
      agent: the agent.
      unit: the settings that it was made from.
      problem: what to learn from.
      seed: of everything that is drawn.
    """
    dtype = jnp.dtype(unit.dtype)
    network = agent.make_network(problem.prior)
    self._x = problem.x_train.astype(dtype)
    self._y = problem.y_train.astype(dtype)
    self._batch_size = agent.batch_size
    self._rng = np.random.default_rng(seed)
    self._key, init_key, index_key = jax.random.split(
        problems_lib.agent_key(seed), 3)
    # BBB's index is as long as its weights; without noise none is drawn.
    noise_dim = (network.indexer.noise_dim
                 if unit.agent_config.get('noise_scale') else 0)
    self._noise = self._rng.standard_normal(
        (len(self._x), noise_dim)).astype(dtype)
    optimizer = agent.make_optimizer(problem.prior)
    step = make_plain_step(
        make_plain_loss(network, unit, problem.noise_std), optimizer)

    start = time.perf_counter()
    self._params, self._state = jax.jit(network.init)(
        init_key, self._x[:1], network.indexer(index_key))
    self._opt_state = optimizer.init(self._params)
    arguments = (self._params, self._opt_state, self._state, *self._batch())
    self.flops = flops.count_flops(jax.make_jaxpr(step)(*arguments).jaxpr)
    self._step = jax.jit(step)
    jax.block_until_ready(self._step(*arguments))
    self.compile_seconds = time.perf_counter() - start

  def _batch(self) -> tuple[base.Array, ...]:
    rows = self._rng.integers(len(self._x), size=self._batch_size)
    self._key, step_key = jax.random.split(self._key)
    return self._x[rows], self._y[rows], self._noise[rows], step_key

  def run(self, num_steps: int) -> float:
    """Takes some steps more; their wall time in seconds."""
    start = time.perf_counter()
    for _ in range(num_steps):
      self._params, self._opt_state = self._step(
          self._params, self._opt_state, self._state, *self._batch())
    jax.block_until_ready(self._params)
    return time.perf_counter() - start


def _reset_peak_rss() -> None:
  """Forgets the process's peak memory so far, where the system can (Linux)."""
  try:
    with open('/proc/self/clear_refs', 'w', encoding='ascii') as file:
      file.write('5')
  except OSError:
    pass  # The peak is then that since the process started.


def _peak_rss() -> int:
  """The process's peak memory in bytes since `_reset_peak_rss`; 0: unknown."""
  try:
    with open('/proc/self/status', encoding='ascii') as file:
      for line in file:
        if line.startswith('VmHWM:'):
          return 1024 * int(line.split()[1])
  except OSError:
    pass
  return 0


def machine_seconds(seconds: Sequence[Sequence[float]]) -> list[float]:
  """Seconds per problem of all workers together, per repeat.

  Args:
    seconds: per worker and repeat, seconds per problem of that worker.
  """
  return [1. / sum(1. / s for s in repeat)
          for repeat in zip(*seconds, strict=True)]


def make_row(unit: sweeps.WorkUnit, found: Sequence[Measurement],
             machine: Mapping[str, Any]) -> Row:
  """A row of the table: what the workers measured on one unit, together.

  Args:
    unit: the case.
    found: one measurement per worker.
    machine: columns on the state of the machine.

  Returns:
    Column -> value; None where there is none. Seconds are the machine's per
    problem. compile_seconds and memory are those of the worker with the most.
  """
  first = found[0]
  train = machine_seconds([m.train_seconds for m in found])
  evaluate = machine_seconds([m.evaluate_seconds for m in found])
  plain = machine_seconds([m.plain_seconds for m in found])
  problem, = machine_seconds([[m.problem_seconds] for m in found])
  total = (problem + statistics.median(train) + statistics.median(evaluate))

  def most(name: str) -> int | float | None:
    values = [getattr(m, name) for m in found]
    return None if None in values else max(values)

  def scaled(value: float | None, unit_size: float) -> float | None:
    return None if value is None else value / unit_size

  def speed(flops: float | None, seconds: Sequence[float]
            ) -> float | None:
    return flops / min(seconds) / 1e9 if flops and seconds else None

  lowest = functools.partial(min, default=None)
  return {
      'agent_label': unit.agent_label, 'input_dim': unit.family.input_dim,
      'data_ratio': unit.family.data_ratio, 'num_train': unit.family.num_train,
      'dtype': unit.dtype, 'num_workers': len(found),
      'num_problems': sum(m.num_problems for m in found),
      'num_params': first.num_params,
      'problem_seconds': problem,
      'train_seconds_min': min(train),
      'train_seconds_median': statistics.median(train),
      'train_steps_timed': first.train_steps_timed,
      'evaluate_seconds_min': min(evaluate),
      'evaluate_seconds_median': statistics.median(evaluate),
      'total_seconds': total, 'problems_per_second': 1. / total,
      'compile_seconds': most('compile_seconds'),
      'train_gflop': scaled(first.flops, 1e9),
      'train_gflop_per_second': speed(first.flops, train),
      'program_mb': scaled(most('program_bytes'), 1e6),
      'peak_rss_mb': scaled(most('peak_rss_bytes') or None, 1e6),
      'plain_seconds_min': lowest(plain),
      'plain_seconds_median': statistics.median(plain) if plain else None,
      'plain_steps_timed': first.plain_steps_timed,
      'plain_compile_seconds': most('plain_compile_seconds'),
      'plain_gflop': scaled(first.plain_flops, 1e9),
      'plain_gflop_per_second': speed(first.plain_flops, plain),
      'ratio_min': min(plain) / min(train) if plain else None,
      'ratio_median': (statistics.median(plain) / statistics.median(train)
                       if plain else None),
      **machine, 'device': first.device, 'jax': jax.__version__,
      'jaxlib': jax.lib.__version__, 'python': platform.python_version()}
