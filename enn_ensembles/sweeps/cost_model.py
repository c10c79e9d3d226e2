"""What a work unit costs, estimated: to order units and to balance shares.

The numbers are those of one core of a 2024 server, and a factor of 2 does no
harm.
"""

from collections.abc import Callable
from collections.abc import Mapping
import math
from typing import Any

from enn_ensembles import problems
from enn_ensembles.sweeps import work_units

# Seconds that a unit takes on one core.
Estimate = Callable[[work_units.WorkUnit], float]

# The cost model. It only has to rank units and to balance shares: the numbers
# are those of one core of a 2024 server, and a factor of 2 does no harm.
_FLOPS = 6e10  # Floating-point operations per second of training.
START_SECONDS = 3.  # Tracing, compiling, reading the cache: per unit.
_NUM_POINTS = 1000  # Test points; as many validation points.
_DRAWS_PER_SECOND = 2e7  # Normals drawn: x of every seed, in every unit.
_SOLVER_FLOPS = 8e10  # Dense linear algebra in float64.
_TILE_FLOPS = 1e11  # The matrix-free solver's products.

# Passes of that solver over the kernel besides the first, at T = 100,000: with as
# many vectors as there are points (block steps), and with few (Lanczos' method
# and conjugate gradients).
_NUM_BLOCK_PASSES, _NUM_THIN_PASSES = 3, 7


def estimate_seconds(unit: work_units.WorkUnit) -> float:
  """Estimated seconds of a unit on one core, its ground truth apart.

  Training: 6 operations per weight, copy of it, data point and step;
  evaluation 2. An agent without the usual settings (hidden_sizes, num_batches,
  batch_size) counts as reading its problems. Ground truth is made once for all
  agents, by `make_problems` or by whoever comes first: it is no unit's own.
  """
  seconds = START_SECONDS + (len(unit.seeds) * unit.num_train * unit.input_dim
                              / _DRAWS_PER_SECOND)
  weights = _layer_weights(unit)
  if weights is not None:
    seconds += unit.num_problems * (
        estimate_training_seconds(unit)
        + 2. * sum(weights) * _NUM_POINTS * unit.num_enn_samples / _FLOPS)
  return seconds


def estimate_ground_truth_seconds(
    unit: work_units.WorkUnit,
    solver_memory_mb: float = problems.SOLVER_MEMORY_MB) -> float:
  """Estimated seconds on one core of a unit's ground truth.

  Dense: per seed a kernel matrix and a Cholesky factor for the draw, and per
  noise level a factor and the solves of 2000 points, T^3 / 3 and 2000 T^2
  operations. Matrix-free: per seed and pass all cosines of half the kernel, and
  each of its elements twice per vector.
  """
  t, num_noise = unit.num_train, len(unit.noise_stds)
  config = unit.problem_config(unit.noise_stds[0], unit.seeds[0])
  solver = problems.choose_solver(config, unit.solver, solver_memory_mb)
  if solver == 'dense':
    flops = (2. * t**2 * unit.input_dim + (1 + num_noise) * t**3 / 3.
             + num_noise * 2 * _NUM_POINTS * t**2) / _SOLVER_FLOPS
  else:
    cosines = (1 + _NUM_BLOCK_PASSES + _NUM_THIN_PASSES) * unit.input_dim
    vectors = unit.input_dim + 2 * _NUM_POINTS * _NUM_BLOCK_PASSES
    flops = t**2 * (cosines + 2. * vectors) / _TILE_FLOPS
  return len(unit.seeds) * (START_SECONDS + flops)


def estimate_training_seconds(unit: work_units.WorkUnit) -> float:
  """Estimated seconds of training on one problem; 0 where nothing is known."""
  weights, settings = _layer_weights(unit), unit.agent_config
  if weights is None:
    return 0.
  trained = sum(w * c for w, c in
                zip(weights, _num_copies(settings, len(weights))))
  data_points = settings['num_batches'] * settings['batch_size']
  return 6. * trained * data_points / _FLOPS


def _layer_weights(unit: work_units.WorkUnit) -> list[int] | None:
  """Weights of each layer; None for an agent without the usual settings."""
  if not all(name in unit.agent_config
             for name in ('hidden_sizes', 'num_batches', 'batch_size')):
    return None
  sizes = (unit.input_dim, *unit.agent_config['hidden_sizes'], 1)
  return [m * n for m, n in zip(sizes[:-1], sizes[1:])]


def _num_copies(settings: Mapping[str, Any], num_layers: int) -> list[int]:
  """How often each layer is computed in one training step."""
  if 'num_options' in settings:  # Shared prefixes: K, K^2, ... evaluations.
    options = settings['num_options']
    options = (options if isinstance(options, tuple)
               else (options,) * num_layers)
    return [math.prod(options[:i + 1]) for i in range(num_layers)]
  if 'index_dim' in settings:  # A hypermodel.
    copies = settings['index_dim'] * settings.get('samples_per_dim', 1)
    # Its first layer is linear in the index: that many images of the data.
    return [settings['index_dim'], *[copies] * (num_layers - 1)]
  copies = (settings.get('num_ensemble') or settings.get('num_index_samples')
            or 1)
  if settings.get('activation_mode') == 'none':  # VNN, affine in its inputs:
    # an index costs a row of each layer's weights, and no data point does.
    copies = -(-copies // settings['batch_size'])
  return [copies] * num_layers
