"""What a ranked layer ensemble costs beside a deep ensemble of 30.

The paper (arXiv 2210.04882) keeps P = 20 of the combinations of K = 5 options
and says that they take a sixth of the memory of a deep ensemble of 30 and are
at least 1.5 times faster. Here both are compiled programs that predict one
batch, without prior networks, on an MLP of two hidden layers of 50 and on the
CNN of `ole_benchmark`. The kept combinations are those that the greedy ranking
by held-out labels puts first; what they cost depends on how many prefixes they
share. The weights are those of initialisation and the labels random, so that
the row says nothing about quality.

The deep ensemble runs in the faster of two ways: all members in one batched
product per layer (`batched`), or one member after the other in one program
(`mapped`). So does the layer ensemble: each distinct prefix once (`exact`), or
in products of the shapes that serve any set of this size (`padded`), which are
fewer and larger. The ways take turns, and a speed-up is a ratio within a turn.

That a layer ensemble contains other ensembles is checked on the same networks,
in float64: its diagonal combinations are a deep ensemble, and with one option
in the first layers they are a deep sub-ensemble.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import checks
from enn_ensembles.networks import bodies
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import layers
from enn_ensembles.networks import prefix_plans
from enn_ensembles.report import statistics
from enn_ensembles.scoring import ranking
from enn_ensembles.studies.layer_ensembles import ole_benchmark
from enn_ensembles.studies.layer_ensembles import timed_turns

Row = dict[str, Any]

NETWORKS = ('mlp', 'cnn')
_INPUT_DIM = 10
_NUM_VALIDATION = 100
_SEED = 0


@dataclasses.dataclass(frozen=True)
class AgainstEnsembleOptions:
  """What is measured, and how often.

  Attributes:
    num_options: K of the layer ensemble.
    num_kept: P, combinations of it that are kept.
    num_ensemble: members of the deep ensemble.
    batch_sizes: examples of a call, of the MLP (as many as a problem has test
      points) and of the CNN.
    repeats: turns of every way.
    seconds: what each way is run for, at least, in a turn.
    hidden_sizes: of the MLP.
    cnn: sizes of the CNN.
  """
  num_options: int = 5
  num_kept: int = 20
  num_ensemble: int = 30
  batch_sizes: tuple[int, int] = (1000, 32)
  repeats: int = 10
  seconds: float = 0.1
  hidden_sizes: tuple[int, ...] = (50, 50)
  cnn: ole_benchmark.OleBenchmarkOptions = (
      ole_benchmark.OleBenchmarkOptions())

  def __post_init__(self):
    for name in ('num_options', 'num_kept', 'num_ensemble'):
      checks.check_count(name, getattr(self, name))
    checks.check_sizes('batch_sizes', self.batch_sizes)
    checks.check_count('repeats', self.repeats, minimum=2)
    checks.check_positive('seconds', self.seconds, maximum=3600.)
    checks.check_sizes('hidden_sizes', self.hidden_sizes)


def _make_layers(network: str, options: AgainstEnsembleOptions
                 ) -> tuple[tuple[layers.Layer, ...], layers.Shape]:
  """The layers of one network and the shape of its input."""
  if network == 'mlp':
    return bodies.make_mlp(options.hidden_sizes, 1).layers, (_INPUT_DIM,)
  return (ole_benchmark.make_cnn(1, options.cnn).layers,
          options.cnn.input_shape)


def choose_combinations(stack: layer_stack.LayerStack,
                        weights: layer_stack.Weights,
                        input_shape: layers.Shape, num_kept: int) -> np.ndarray:
  """The combinations that the greedy ranking puts first, int [P, N]."""
  rng = np.random.default_rng([_SEED, 1])
  x = rng.normal(size=(_NUM_VALIDATION, *input_shape)).astype(np.float32)
  # [J, x], the first output only.
  outputs = np.asarray(jax.jit(
      lambda w, x: layer_stack.forward_all(stack, w, x))(weights, x))[..., 0]
  order = ranking.rank_samples(
      outputs, selection='val_nll', labels=rng.normal(size=_NUM_VALIDATION),
      noise_std=0.1, num_ranked=num_kept).order
  return np.stack(np.unravel_index(order, stack.num_options), 1)


def largest_differences(network: str, options: AgainstEnsembleOptions
                        ) -> dict[str, float]:
  """How far special cases are from the ensembles that they should be.

  Returns:
    'deep_difference' and 'sub_difference', the largest difference of outputs
    relative to the largest output; of K members with the same weights.
  """
  parts, input_shape = _make_layers(network, options)
  body = bodies.Body(network, parts)
  num, depth = options.num_options, body.num_weight_layers
  rng = np.random.default_rng(_SEED)
  x = rng.normal(size=(4, *input_shape))
  members = [rng.normal(size=(num, shape.out, shape.columns))
             / np.sqrt(shape.columns)
             for shape in body.weight_shapes(input_shape)]
  found = {}
  for name, num_shared in (('deep', 0), ('sub', max(1, depth // 2))):
    shared = [w[:1] if i < num_shared else w for i, w in enumerate(members)]
    ensemble = [np.broadcast_to(w, (num, *w.shape[1:])) for w in shared]
    expected = bodies.forward(body, ensemble, x)
    stack = layer_stack.LayerStack(parts, tuple(len(w) for w in shared))
    combinations = np.minimum(np.arange(num)[:, None],
                              np.array(stack.num_options) - 1)
    outputs = prefix_plans.forward_set(
        stack, [np.swapaxes(w, 0, 1) for w in shared], x,
        prefix_plans.plan_combinations(combinations, stack.num_options,
                                       exact=True))
    found[f'{name}_difference'] = float(
        np.max(np.abs(outputs - expected)) / np.max(np.abs(expected)))
  return found


class _Compared(NamedTuple):
  """Both ensembles of one network.

  Attributes:
    body: the network.
    stack: the same, with K options per layer.
    members: weights of the deep ensemble.
    weights: of the layer ensemble: those of its first K members.
    plans: how the kept combinations are evaluated, by way.
    x: one batch.
  """
  body: bodies.Body
  stack: layer_stack.LayerStack
  members: list[jax.Array]
  weights: list[jax.Array]
  plans: dict[str, prefix_plans.Plan]
  x: jax.Array


def _make_compared(network: str, options: AgainstEnsembleOptions) -> _Compared:
  """The ensembles with weights as at initialisation, and random inputs."""
  parts, input_shape = _make_layers(network, options)
  body = bodies.Body(network, parts)
  num = options.num_options
  stack = layer_stack.LayerStack(parts, (num,) * body.num_weight_layers)
  rng = np.random.default_rng(_SEED)
  batch_size = options.batch_sizes[NETWORKS.index(network)]
  x = jnp.asarray(rng.normal(size=(batch_size, *input_shape)), jnp.float32)
  members = [jnp.asarray(
      rng.normal(size=(options.num_ensemble, shape.out, shape.columns))
      / np.sqrt(shape.columns), jnp.float32)
             for shape in body.weight_shapes(input_shape)]
  weights = [jnp.swapaxes(w[:num], 0, 1) for w in members]
  combinations = choose_combinations(stack, weights, input_shape,
                                     options.num_kept)
  plans = {name: prefix_plans.plan_combinations(
      combinations, stack.num_options, exact=name == 'exact')
           for name in ('exact', 'padded')}
  return _Compared(body, stack, members, weights, plans, x)


def _compile_ways(compared: _Compared) -> dict[str, tuple[
    jax.stages.Compiled, Callable[[int], Any]]]:
  """(program, turn -> its outputs) of every way, each run once."""
  body, stack, members, weights, plans, x = compared
  ways = {
      **{name: (lambda w, x, plan=plan: prefix_plans.forward_set(
          stack, w, x, plan), weights) for name, plan in plans.items()},
      'batched': (lambda w, x: bodies.forward(body, w, x), members),
      'mapped': (lambda w, x: jax.lax.map(
          lambda one: bodies.forward(body, one, x)[0], w), members)}
  found = {}
  for name, (run_way, w) in ways.items():
    program = jax.jit(run_way).lower(w, x).compile()
    found[name] = program, lambda _, program=program, w=w: program(w, x)
  for _, call in found.values():
    jax.block_until_ready(call(0))
  return found


def measure(network: str, options: AgainstEnsembleOptions) -> Row:
  """Measures one network.

  Returns:
    A row of the CSV. `speedup` is the ensemble's seconds over the layer
    ensemble's: the geometric mean over turns with its 95 % interval;
    `params_ratio` the ensemble's weights over the layer ensemble's; temp_*
    bytes are XLA's peak of temporaries.
  """
  checks.check_choice('network', network, NETWORKS)
  load_before = os.getloadavg()[0]
  compared = _make_compared(network, options)
  ways = _compile_ways(compared)
  seconds = timed_turns.time_in_turns(
      {name: call for name, (_, call) in ways.items()}, options.repeats,
      options.seconds)
  row = {
      'network': network, 'num_options': options.num_options,
      'num_samples': compared.stack.num_samples, 'num_kept': options.num_kept,
      'num_ensemble': options.num_ensemble, 'batch_size': len(compared.x),
      'repeats': options.repeats,
      'layer_evaluations_kept': sum(compared.plans['exact'].num_evaluations),
      'layer_evaluations_ensemble': (
          options.num_ensemble * compared.body.num_weight_layers),
      **_speedup(seconds),
      'num_params_kept': sum(w.size for w in compared.weights),
      'num_params_ensemble': sum(w.size for w in compared.members)}
  row['params_ratio'] = row['num_params_ensemble'] / row['num_params_kept']
  for name, (program, _) in ways.items():
    row[f'seconds_{name}'] = float(np.median(seconds[name]))
    row[f'temp_{name}_bytes'] = timed_turns.analyse_memory(
        program).temp_size_in_bytes
  return {**row, **largest_differences(network, options),
          **timed_turns.machine_fields(load_before)}


def _speedup(seconds: Mapping[str, Sequence[float]]) -> Row:
  """The faster way of each ensemble, and how much faster the kept one is."""
  def fastest(names: tuple[str, str]) -> str:
    # One way for all turns, so that chance does not choose.
    return min(names, key=lambda name: np.median(seconds[name]))

  kept, ensemble = fastest(('exact', 'padded')), fastest(('batched', 'mapped'))
  speedup = statistics.geometric_interval(
      (np.array(seconds[ensemble]) / np.array(seconds[kept]))[None])
  return {'kept_way': kept, 'ensemble_way': ensemble,
          'speedup': float(speedup.value), 'speedup_low': float(speedup.low),
          'speedup_high': float(speedup.high)}


def run(networks: Sequence[str], options: AgainstEnsembleOptions) -> list[Row]:
  """A row per network."""
  return [measure(network, options) for network in networks]
