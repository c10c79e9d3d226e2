"""One case measured in one process: an agent setting on one family of problems.

The agent is trained and scored by the same functions as in a sweep. The same
agent trained the plain way takes turns with it, A B A B, so that a busy moment
of the machine meets both.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import math
import tempfile
import time
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import problems as problems_lib
from enn_ensembles import sweeps
from enn_ensembles.machine import devices
from enn_ensembles.machine import peak_memory
from enn_ensembles.problems import kinds
from enn_ensembles.studies.speed import lengths
from enn_ensembles.studies.speed import plain_training
from enn_ensembles.studies.speed import timed_training
from enn_ensembles.training import flops
from enn_ensembles.training import network_agent
from enn_ensembles.training import network_sampler
from enn_ensembles.training import prediction
from enn_ensembles.training import sampler_predictions

_OURS_SHARE, _PLAIN_SHARE = 0.75, 0.25  # Of a case's seconds.

# With more training points problems take seconds each: they are made once.
_FEW_TRAIN = 2000


@dataclasses.dataclass(frozen=True)
class CaseOptions:
  """How much to measure.

  Attributes:
    repeats: how often each measurement is taken.
    plain: whether the plain way is measured too.
    seconds_per_case: about how long the timed trainings of a case may take, all
      repeats and both ways together. Whole trainings are run where they fit,
      else as many steps as do. Making problems, scoring and compiling add to
      it.
  """
  repeats: int = 5
  plain: bool = True
  seconds_per_case: float = 20.

  def __post_init__(self):
    checks.check_count('repeats', self.repeats)
    checks.check_flag('plain', self.plain)
    checks.check_positive('seconds_per_case', self.seconds_per_case,
                          maximum=86400.)


class Plain(NamedTuple):
  """The plain way of training.

  Attributes:
    timing: of one problem.
    compile_seconds: of its step.
    flops: of the products of a step.
  """
  timing: lengths.Timing
  compile_seconds: float
  flops: float


class Network(NamedTuple):
  """What only agents with a network have.

  Attributes:
    timing: of training, seconds per problem.
    num_steps: of a whole training.
    num_params: trained parameters of one network.
    step_flops: of the products of a step of one problem.
    predict_seconds: of the forward within scoring, per problem, by repeat.
    predict_flops: of its products, per problem.
    compile_first_seconds: of training and forward, without a persistent cache.
    compile_cached_seconds: of the same from the persistent cache.
    program_bytes: temporaries and arguments of the training program.
    plain: None where it was not asked for.
  """
  timing: lengths.Timing
  num_steps: int
  num_params: int
  step_flops: float
  predict_seconds: Sequence[float]
  predict_flops: float
  compile_first_seconds: float
  compile_cached_seconds: float
  program_bytes: int
  plain: Plain | None = None


class Measurement(NamedTuple):
  """What one worker measured; seconds per problem, by repeat.

  Attributes:
    num_problems: trained at once.
    problem_seconds: of making a problem and its ground truth.
    train_seconds: of whole trainings, compilation apart.
    score_seconds: of predictions and scores.
    peak_rss_mb: the most memory that the process held during this case, MB;
      None where the system does not say.
    device: what it ran on.
    network: what only agents with a network have; else None.
  """
  num_problems: int
  problem_seconds: Sequence[float]
  train_seconds: Sequence[float]
  score_seconds: Sequence[float]
  peak_rss_mb: float | None
  device: str
  network: Network | None = None


class Problems(NamedTuple):
  """Problems of a unit.

  Attributes:
    groups: per seed, the problems of its noise levels.
    seconds: of making one problem, by repeat; a single one where they are
      large.
  """
  groups: Sequence[Sequence[problems_lib.Problem]]
  seconds: Sequence[float]


def make_problems(unit: sweeps.WorkUnit, repeats: int = 1,
                  wait: Callable[[], Any] = lambda: None) -> Problems:
  """The problems of a unit, made again and again, or once where they are large.

  Args:
    unit: the unit.
    repeats: how often.
    wait: called before every repeat; workers meet there.
  """
  # Compiles the keys' derivation, which no problem should pay for.
  problems_lib.make_problems([problems_lib.ProblemConfig(1, 1., 1., 0)])
  groups: list[Sequence[problems_lib.Problem]] = []
  seconds = []
  for _ in range(repeats if unit.family.num_train <= _FEW_TRAIN else 1):
    wait()
    start = time.perf_counter()
    groups = [unit.family.make(seed, kinds.ProblemSettings())
              for seed in unit.seeds]
    seconds.append((time.perf_counter() - start) / unit.num_problems)
  return Problems(groups, seconds)


def measure(unit: sweeps.WorkUnit, problems: Problems, options: CaseOptions,
            wait: Callable[[], Any] = lambda: None) -> Measurement:
  """Measures one case in this process.

  Args:
    unit: the case.
    problems: its problems.
    options: how much to measure.
    wait: called before everything that is timed; workers meet there.
  """
  peak_memory.reset()  # Else the peak is that since the process started.
  agent = agents_lib.from_settings(unit.agent, unit.agent_settings())
  if isinstance(agent, network_agent.NetworkAgent):
    return _measure_network(agent, unit, problems, options, wait)
  return _measure_sampler(agent, unit, problems, options, wait)


class _Scorer:
  """Predicts and scores the problems of a training, anew at every call."""

  def __init__(self, agent: network_agent.NetworkAgent, unit: sweeps.WorkUnit,
               groups: Sequence[Sequence[problems_lib.Problem]],
               training: timed_training.TimedTraining):
    prior = groups[0][0].prior
    self._groups, self._network = groups, agent.make_network(prior)
    self._trained = training.trained()
    self._num_problems = training.num_problems
    self._num_draws = prediction.num_index_draws(
        self._network, unit.num_enn_samples, unit.enumerate_indices)
    self._key = problems_lib.evaluation_key(unit.seeds[0])
    self._predictor = prediction.Predictor(
        agent, self._trained, prior, jnp.stack([
            problems_lib.evaluation_key(seed) for seed in unit.seeds]),
        self._num_draws)
    self._points: list[np.ndarray] = []  # Of the last call, first seed.

  def compile_seconds(self) -> float:
    """Compiles the forward; seconds of that."""
    self._predictor.for_problem(0, 0)(self._groups[0][0].x_test)
    return self._predictor.compile_seconds

  def run(self) -> tuple[float, float]:
    """Seconds per problem of scoring, and of the forward within it."""
    predicted = self._predictor.evaluate_seconds
    compiled = self._predictor.compile_seconds
    start = time.perf_counter()
    for s, group in enumerate(self._groups):
      # The predictor knows points by their identity, and forwards them once for
      # all noise levels: a copy in every call makes it do so again.
      copies: dict[int, np.ndarray] = {}
      for e, problem in enumerate(group):
        predict = self._predictor.for_problem(s, e)
        problem.score(
            lambda x, predict=predict, copies=copies: predict(
                copies.setdefault(id(x), np.array(x))))
      if s == 0:
        self._points = list(copies.values())
    elapsed = (time.perf_counter() - start
               - (self._predictor.compile_seconds - compiled))
    predicted = self._predictor.evaluate_seconds - predicted
    return elapsed / self._num_problems, predicted / self._num_problems

  def flops(self) -> float:
    """Operations of the forward's products, per problem."""
    params, state = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape[2:], a.dtype),
        (self._trained.params, self._trained.state))

    def forward(params, state, x):
      if self._num_draws is None:
        return network_sampler.forward_support(self._network, params, state, x)
      keys = jax.random.split(self._key, self._num_draws)
      return network_sampler.forward_draws(self._network, params, state, x,
                                           keys)

    return sum(flops.count_flops(jax.make_jaxpr(forward)(
        params, state, jax.ShapeDtypeStruct(x.shape, self._trained.dtype)
    ).jaxpr) for x in self._points)


def _measure_network(agent: network_agent.NetworkAgent, unit: sweeps.WorkUnit,
                     problems: Problems, options: CaseOptions,
                     wait: Callable[[], Any]) -> Measurement:
  """A network is compiled, trained and scored, and trained the plain way."""
  made: dict[str, Any] = {}

  def compile_all() -> float:
    made.clear()  # Or two programs' arrays would count as memory.
    training = timed_training.TimedTraining(agent, unit, problems.groups)
    training.run(1)
    scorer = _Scorer(agent, unit, problems.groups, training)
    made.update(training=training, scorer=scorer)
    return training.compile_seconds + scorer.compile_seconds()

  wait()
  with tempfile.TemporaryDirectory() as cache_dir:
    compile_seconds = timed_training.twice(compile_all, cache_dir)
  training, scorer = made['training'], made['scorer']
  per_problem = 1. / training.num_problems
  run_seconds = options.seconds_per_case / options.repeats
  chosen = lengths.choose(training.run, agent.num_batches,
                          _OURS_SHARE * run_seconds)
  plain, plain_chosen = None, lengths.Lengths(0, 0)
  if options.plain:
    middle = len(unit.family.cells) // 2
    plain = plain_training.PlainTrainer(agent, unit, problems.groups[0][middle])
    plain_chosen = lengths.choose(plain.run, agent.num_batches,
                                  _PLAIN_SHARE * run_seconds)
  scorer.run()

  def timed(run: Callable[[], Any]) -> Any:
    wait()
    return run()

  ours, plains, scores = [], [], []
  for _ in range(options.repeats):
    ours.append([timed(lambda n=n: training.run(n)) for n in chosen])
    scores.append(timed(scorer.run))
    if plain is not None:
      plains.append([timed(functools.partial(plain.run, n))
                     for n in plain_chosen])
  timing = lengths.Timing(chosen, *zip(*ours)).scaled(per_problem)
  score_seconds, predict_seconds = zip(*scores)
  return Measurement(
      num_problems=training.num_problems, problem_seconds=problems.seconds,
      train_seconds=timing.seconds_at(agent.num_batches),
      score_seconds=score_seconds, peak_rss_mb=peak_memory.read_mb(),
      device=devices.device_name(),
      network=Network(
          timing=timing, num_steps=agent.num_batches,
          num_params=training.num_params,
          step_flops=flops.step_flops(agent, problems.groups[0][0].prior,
                                      jnp.dtype(unit.dtype)),
          predict_seconds=predict_seconds, predict_flops=scorer.flops(),
          compile_first_seconds=compile_seconds[0],
          compile_cached_seconds=compile_seconds[1],
          program_bytes=training.program_bytes,
          plain=None if plain is None else Plain(
              lengths.Timing(plain_chosen, *zip(*plains)),
              plain.compile_seconds, plain.flops)))


def _measure_sampler(agent: base.Agent, unit: sweeps.WorkUnit,
                     problems: Problems, options: CaseOptions,
                     wait: Callable[[], Any]) -> Measurement:
  """An agent without a network learns and is scored problem by problem."""
  problem, seed = problems.groups[0][0], unit.seeds[0]
  train_seconds, score_seconds = [], []

  def predict_by(sampler: base.EpistemicSampler) -> base.Predict:
    return lambda x: sampler_predictions.predict(
        sampler, x, problems_lib.evaluation_key(seed), unit.num_enn_samples,
        unit.enumerate_indices)

  # Seconds each where there are many points, and little to gain.
  few = len(problem.x_train) <= _FEW_TRAIN
  for _ in range(options.repeats if few else 1):
    wait()
    start = time.perf_counter()
    sampler = agent(problem.data, problem.prior, problems_lib.agent_key(seed))
    trained = time.perf_counter()
    problem.score(predict_by(sampler))
    train_seconds.append(trained - start)
    score_seconds.append(time.perf_counter() - trained)
  return Measurement(
      num_problems=1, problem_seconds=problems.seconds,
      train_seconds=train_seconds, score_seconds=score_seconds,
      peak_rss_mb=peak_memory.read_mb(), device=devices.device_name())


def used_products(unit: sweeps.WorkUnit) -> list[tuple[int, int, int]]:
  """Sizes of the products of a training step, layer by layer, as (m, k, n).

  Those of the MLP that the agent's settings name, without its last layer; none
  where they name no MLP.
  """
  config: Mapping[str, Any] = unit.agent_config
  if not {'batch_size', 'hidden_sizes'} <= set(config):
    return []
  sizes = [math.prod(unit.family.input_shape), *config['hidden_sizes']]
  return [(config['batch_size'], k, n) for k, n in zip(sizes, sizes[1:])]
