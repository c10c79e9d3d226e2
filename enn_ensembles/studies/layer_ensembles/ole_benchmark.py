"""What optimised layer ensembles save on a small CNN: seconds and memory.

Figure 3 of the paper (arXiv 2210.04882) compares, on a CNN of four layers, an
evaluation of every combination on its own with the optimised layer ensemble
(OLE). Here all ways are compiled, compilation is not timed, and all compute the
same outputs, which is checked. The ways take turns, A B C A B C, so that a busy
moment of the machine meets them all; a speed-up is a ratio within one turn.

The CNN reads 28 x 28 x 1 images: convolution 5 x 5, 32 channels; max pooling
2 x 2; convolution 5 x 5, 64 channels; max pooling 2 x 2; dense, 128 units;
dense, 10 outputs; ReLU; zeros around the images. All four layers have K
options. Of the arithmetic of one combination the second convolution has 90 %,
so that one product per shared prefix, K + K^2 + K^3 + K^4 instead of 4 K^4,
leaves about 1/K^2 of it: for K = 5 a 23rd. What is gained beyond is larger
products and fewer calls.

  one_by_one   a compiled forward of one network, called for each combination;
               the weights are picked out beforehand, which is not timed
  mapped       all combinations in one program, one after the other, nothing
               shared
  one_program  all combinations at once, nothing shared: the plain layer
               ensemble. It is timed where its temporaries fit into
               `one_program_mib`, and its memory analysed
  ole          all combinations, every shared prefix computed once
  half         the same for a random half of the combinations, another in every
               turn: planned on the host, within the time, for one program
  moments      exact mean and std of all combinations (`moments.py`)
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import os
import platform
import statistics
import time
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.networks import images
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import layers
from enn_ensembles.networks import moments
from enn_ensembles.networks import prefix_plans
from enn_ensembles.networks import stack_network
from enn_ensembles.studies.layer_ensembles import timed_turns

Row = dict[str, Any]

DTYPES = ('float32', 'float64')

TIMED = ('one_by_one', 'mapped', 'ole', 'half', 'moments')
ANALYSED = (*TIMED, 'one_program')

_NUM_CLASSES = 10
_SEED = 0

_LONGEST_SECONDS = 3600.
_MOST_OPTIONS = 30  # Of each of four layers: 810,000 networks.

# Between outputs of different ways; float32 leaves about 1e-6.
_LARGEST_DIFFERENCE = 1e-3


@dataclasses.dataclass(frozen=True)
class OleBenchmarkOptions:
  """What is measured, and how often.

  Attributes:
    batch_size: images per call.
    repeats: turns of every way.
    dtype: of weights and images, a name in `DTYPES`.
    channels: of the two convolutions.
    hidden: units of the first dense layer.
    image_size: height and width of the images, at least 4.
    seconds: what each way is run for, at least, in a turn.
    one_program_mib: temporaries, in MiB, up to which one_program is run.
  """
  batch_size: int = 32
  repeats: int = 5
  dtype: str = 'float32'
  channels: tuple[int, int] = (32, 64)
  hidden: int = 128
  image_size: int = 28
  seconds: float = 0.2
  one_program_mib: float = 1024.

  def __post_init__(self):
    checks.check_count('batch_size', self.batch_size)
    checks.check_count('repeats', self.repeats)
    checks.check_choice('dtype', self.dtype, DTYPES)
    checks.check_sizes('channels', self.channels)
    if len(self.channels) != 2:
      raise ValueError('channels must have 2 entries, one per convolution, got '
                       f'{self.channels!r}.')
    checks.check_count('hidden', self.hidden)
    checks.check_count('image_size', self.image_size, minimum=4)
    checks.check_positive('seconds', self.seconds, _LONGEST_SECONDS)
    checks.check_positive('one_program_mib', self.one_program_mib)

  @property
  def input_shape(self) -> layers.Shape:
    """Of one image."""
    return (self.image_size, self.image_size, 1)


def make_cnn(
  num_options: int, options: OleBenchmarkOptions
) -> layer_stack.LayerStack:
  """The CNN of four layers, each with num_options options."""
  first, second = options.channels
  return layer_stack.LayerStack(
      (images.Conv2D(first, window=5, bias_std=1.), images.MaxPool(),
       images.Conv2D(second, window=5), images.MaxPool(), images.Flatten(),
       layers.Dense(options.hidden), layers.Dense(_NUM_CLASSES, 'none')),
      (num_options,) * 4)


def layer_flops(
  stack: layer_stack.LayerStack, input_shape: layers.Shape
) -> list[int]:
  """Floating-point operations of one option of each layer on one example.

  Those of its products, two per multiplication, the zeros around an image
  included.
  """
  shapes = stack.shapes(input_shape)
  weights, flops = iter(stack.parameter_shapes(input_shape)), []
  for layer, after in zip(stack.layers, shapes[1:]):
    if layer.has_options:
      num_options = stack.num_options[len(flops)]
      # Weights of one option, at each place in an image.
      flops.append(2 * math.prod(next(weights)) // num_options
                   * math.prod(after[:-1]))
  return flops


class _Way(NamedTuple):
  """One way of computing, compiled.

  Attributes:
    run: (turn) -> outputs; not blocked.
    compiled: for the analysis of its memory.
    compile_seconds: of tracing and compiling.
  """
  run: Callable[[int], Any]
  compiled: jax.stages.Compiled
  compile_seconds: float


def _compile(function: Callable[..., Any], *args: Any
             ) -> tuple[jax.stages.Compiled, float]:
  start = time.perf_counter()
  compiled = jax.jit(function).lower(*args).compile()
  return compiled, time.perf_counter() - start


def compile_ways(stack: layer_stack.LayerStack, weights: layer_stack.Weights,
                 x: base.Array) -> dict[str, _Way]:
  """Compiles all ways for these weights and images.

  Returns:
    The ways of `ANALYSED`. `one_program` may need more memory than there is.
  """
  combinations = np.stack(np.unravel_index(
      np.arange(stack.num_samples), stack.num_options), 1).astype(np.int32)
  num_half = -(-len(combinations) // 2)

  single = layer_stack.LayerStack(stack.layers, (1,) * len(stack.num_options))
  # Arrays of their own: to pick one costs nothing.
  separate = [[jnp.array(w[:, [k]]) for k in range(w.shape[1])]
              for w in weights]
  one, one_seconds = _compile(
      lambda weights, x: layer_stack.forward_all(single, weights, x)[0],
      [options[0] for options in separate], x)

  def one_by_one(_):
    return [one([options[k] for options, k in zip(separate, z)], x)
            for z in combinations]

  mapped, mapped_seconds = _compile(
      lambda weights, x, combinations: jax.lax.map(
          lambda z: layer_stack.forward_one(stack, weights, x, z),
          combinations),
      weights, x, combinations)
  together, together_seconds = _compile(
      lambda weights, x: layer_stack.forward_all(stack, weights, x), weights, x)
  all_moments, moments_seconds = _compile(
      lambda weights, x: moments.forward_moments([(stack, weights, 1.)], x),
      weights, x)
  at_once, at_once_seconds = _compile(
      lambda weights, x, combinations: jax.vmap(
          lambda z: layer_stack.forward_one(stack, weights, x, z))(
              combinations),
      weights, x, combinations)

  def choose_half(turn: int) -> np.ndarray:
    rng = np.random.default_rng([_SEED, turn])
    return combinations[rng.choice(len(combinations), num_half, replace=False)]

  half, half_seconds = _compile(
    lambda weights, x, plan: prefix_plans.forward_set(stack, weights, x, plan),
    weights,
    x,
    prefix_plans.plan_combinations(choose_half(0), stack.num_options),
  )
  return {
      'one_by_one': _Way(one_by_one, one, one_seconds),
      'mapped': _Way(lambda _: mapped(weights, x, combinations), mapped,
                     mapped_seconds),
      'ole': _Way(lambda _: together(weights, x), together, together_seconds),
      'half': _Way(
          lambda turn: half(weights, x, prefix_plans.plan_combinations(
              choose_half(turn), stack.num_options)), half, half_seconds),
      'moments': _Way(
          lambda _: all_moments(weights, x), all_moments, moments_seconds),
      'one_program': _Way(lambda _: at_once(weights, x, combinations), at_once,
                          at_once_seconds)}


def _difference(ways: dict[str, _Way], choose: np.ndarray) -> float:
  """The largest difference between outputs, relative to the largest output."""
  outputs = {name: ways[name].run(0) for name in TIMED}
  expected = np.asarray(outputs['one_by_one'])
  mean, std = outputs['moments']
  pairs = [(outputs['mapped'], expected), (outputs['ole'], expected),
           (outputs['half'], expected[choose]), (mean, expected.mean(0)),
           (std, expected.std(0))]
  return float(max(np.max(np.abs(np.asarray(found) - wanted))
                   for found, wanted in pairs) / np.max(np.abs(expected)))


def measure(num_options: int, options: OleBenchmarkOptions) -> Row:
  """Measures all ways for one number of options K.

  Returns:
    A row of the CSV. Seconds are of one batch and all K^4 samples, of half of
    them for `half`: median, lowest and highest of the turns. A speed-up is
    one_by_one over the way, for `half` over half of one_by_one's samples: its
    median, lowest and highest over the turns;
    speedup_ole_over_one_program is one_program over ole, None where
    one_program was not run. memory_*_bytes are XLA's: the
    peak of temporaries and the output; for one_by_one of one call. flops_* are
    those of the products.
  """
  checks.check_count('num_options', num_options)
  load_before = os.getloadavg()[0]
  stack = make_cnn(num_options, options)
  rng = np.random.default_rng(_SEED)
  x = jnp.asarray(rng.normal(size=(options.batch_size, *options.input_shape)),
                  options.dtype)
  params, _ = stack_network.make_network(stack, None).init(
      jax.random.PRNGKey(_SEED), x, None)
  weights = stack_network.get_weights(params)
  ways = compile_ways(stack, weights, x)

  num, num_half = stack.num_samples, -(-stack.num_samples // 2)
  chosen = np.random.default_rng([_SEED, 0]).choice(num, num_half,
                                                    replace=False)
  difference = _difference(ways, chosen)  # It is their warm-up too.
  if not difference < _LARGEST_DIFFERENCE:
    raise RuntimeError(
        f'the ways differ by {difference} of the largest output.')
  timed = list(TIMED)
  if timed_turns.analyse_memory(
      ways['one_program'].compiled).temp_size_in_bytes <= (
          options.one_program_mib * 2**20):
    timed.append('one_program')
    jax.block_until_ready(ways['one_program'].run(0))
  seconds = timed_turns.time_in_turns(
      {name: ways[name].run for name in timed}, options.repeats,
      options.seconds)
  return {
      'num_options': num_options, 'num_samples': num, 'num_half': num_half,
      'batch_size': options.batch_size, 'dtype': options.dtype,
      'image_size': options.image_size,
      'channels': '-'.join(map(str, options.channels)),
      'hidden': options.hidden,
      'num_params': sum(int(np.prod(w.shape)) for w in weights),
      'repeats': options.repeats, 'max_difference': difference,
      **_count_flops(stack, num_options, options),
      **_compare_seconds(seconds, num_half / num), **_analyse(ways),
      **timed_turns.machine_fields(load_before),
      'jaxlib': jax.lib.__version__, 'python': platform.python_version()}


def _count_flops(stack: layer_stack.LayerStack, num_options: int,
                 options: OleBenchmarkOptions) -> Row:
  """Operations of all samples of one batch, apart and with shared prefixes."""
  flops = [options.batch_size * f for f in layer_flops(
      stack, options.input_shape)]
  one_by_one = stack.num_samples * sum(flops)
  shared = sum(f * num_options ** (depth + 1) for depth, f in enumerate(flops))
  return {'flops_one_by_one': one_by_one, 'flops_ole': shared,
          'speedup_by_flops': one_by_one / shared}


def _compare_seconds(seconds: Mapping[str, Sequence[float]],
                     half_share: float) -> Row:
  """Seconds of all ways and speed-ups, of each the median and the extremes.

  Args:
    seconds: by way and turn.
    half_share: of the samples that the way `half` computes.
  """
  row = {}
  for name in TIMED:
    row |= _spread(f'seconds_{name}', seconds[name])
  for name in TIMED[1:]:
    share = half_share if name == 'half' else 1.
    row |= _spread(f'speedup_{name}', [
        share * a / b for a, b in zip(seconds['one_by_one'], seconds[name])])
  return row | _spread('speedup_ole_over_one_program', [
      a / b for a, b in zip(seconds.get('one_program', ()), seconds['ole'])])


def _spread(name: str, values: Sequence[float]) -> Row:
  """Median, lowest and highest of the turns; None where there are none."""
  return {f'{name}{end}': pick(values) if values else None
          for end, pick in (('', statistics.median), ('_low', min),
                            ('_high', max))}


def _analyse(ways: dict[str, _Way]) -> Row:
  """What programs hold, and what compiling them took."""
  row = {}
  for name in ANALYSED:
    analysis = timed_turns.analyse_memory(ways[name].compiled)
    row[f'temp_{name}_bytes'] = analysis.temp_size_in_bytes
    row[f'memory_{name}_bytes'] = (
        analysis.temp_size_in_bytes + analysis.output_size_in_bytes)
  return row | {f'compile_seconds_{name}': ways[name].compile_seconds
                for name in ANALYSED}


def run(num_options: Sequence[int],
        options: OleBenchmarkOptions) -> Iterator[Row]:
  """A row per number of options.

  Raises:
    ValueError: num_options is empty, or not of integers >= 1.
  """
  if not num_options:
    raise ValueError('num_options must name at least one number, got none.')
  for number in num_options:
    checks.check_count('every num_options', number)
    if number > _MOST_OPTIONS:
      raise ValueError(f'every num_options must be at most {_MOST_OPTIONS}, '
                       f'got {number}.')
  return (measure(number, options) for number in num_options)
