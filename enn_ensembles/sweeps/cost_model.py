"""What a work unit costs, estimated: to order units and to balance shares.

Operations are counted in the traced programs of a training step and of a draw
of predictions, or by the file of an agent of the package that trains otherwise
(`agents`); the speeds are those of one core of a 2024 server, and a factor of 2
does no harm.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any
from typing import NamedTuple

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles.machine import canonical
from enn_ensembles.nngp import matrix_free_posterior
from enn_ensembles.problems import nngp_regression
from enn_ensembles.problems import solvers
from enn_ensembles.problems.kinds import nngp
from enn_ensembles.sweeps import work_units
from enn_ensembles.training import flops
from enn_ensembles.training import network_agent
from enn_ensembles.training import prediction

# Seconds that a unit takes on one core.
Estimate = Callable[[work_units.WorkUnit], float]

_FLOPS = 6e10  # Floating-point operations per second of a network.
START_SECONDS = 3.  # Tracing, compiling, reading the cache: per unit.
_NUM_POINTS = 1000  # Test points; as many validation or dyadic points.
_NUMBERS_PER_SECOND = 2e7  # Inputs drawn or read, in every unit.
_SOLVER_FLOPS = 8e10  # Dense linear algebra in float64.
_TILE_FLOPS = 1e11  # The matrix-free solver's products.


class Counted(NamedTuple):
  """Operations on one problem of an agent that trains a network.

  Attributes:
    training: of the whole training; 0 of other agents.
    predictions: of all draws at all points. Members of a finite set are few,
      and count as none.
  """
  training: float = 0.
  predictions: float = 0.


def estimate_seconds(unit: work_units.WorkUnit) -> float:
  """Estimated seconds of a unit on one core, its ground truth apart.

  Ground truth is made once for all agents, by `make_problems` or by whoever
  comes first: it is no unit's own. Where no operations are counted, reading the
  problems counts alone.
  """
  return _estimate(unit, _counted(unit))


def is_counted(unit: work_units.WorkUnit) -> bool:
  """Whether the operations of a unit's agent are known before it runs."""
  return bool(_counted(unit).training or _count_solved(unit))


def _estimate(unit: work_units.WorkUnit, counted: Counted) -> float:
  """Seconds of a unit from the operations that were counted for its agent."""
  family = unit.family
  numbers = len(unit.seeds) * family.num_train * math.prod(family.input_shape)
  # Only files of agents that train no network count for themselves.
  solved = 0. if counted.training else _count_solved(unit)
  return (START_SECONDS + numbers / _NUMBERS_PER_SECOND
          + unit.num_problems * (counted.training + counted.predictions)
          / _FLOPS + len(unit.seeds) * solved / _FLOPS)


def estimate_made(unit: work_units.WorkUnit, made: Any) -> float | None:
  """`estimate_seconds` of a unit whose agent is made already.

  Args:
    unit: the unit; its agent may be user-defined.
    made: the agent.

  Returns:
    Seconds; None where the agent is no `NetworkAgent`.
  """
  counted = _count(made, unit)
  return _estimate(unit, counted) if counted.training else None


def estimate_training_seconds(unit: work_units.WorkUnit) -> float:
  """Estimated seconds of training a network on one problem; 0 for others."""
  return _counted(unit).training / _FLOPS


# What `_counted` has found: agent, kind of setting, problem -> operations.
_counts: dict[tuple[Any, ...], Counted] = {}


def _counted(unit: work_units.WorkUnit) -> Counted:
  """Operations of a unit's agent; none of one that is not the package's.

  Tracing takes tenths of a second, and settings that differ in their floats
  alone (learning rates, scales, rates) have the same operations, so that a grid
  of thousands of them is traced once.
  """
  key = (unit.agent, canonical.canonical_json(_kind(unit.agent_config)),
         _prior(unit, _fewest_points(unit)), unit.num_enn_samples,
         unit.enumerate_indices)
  if key not in _counts:
    _counts[key] = _count_by_name(unit)
  return _counts[key]


def _prior(unit: work_units.WorkUnit, num_train: int = 0
           ) -> base.PriorKnowledge:
  """What a unit's agent is told, but for the number of training points.

  The operations of a step and of predictions do not depend on it, but for
  `_fewest_points`, nor on a noise level, which is 1 also where nobody is told
  one.
  """
  prior = dataclasses.replace(unit.family.prior(), num_train=num_train)
  if isinstance(prior.likelihood, base.Gaussian):
    prior = dataclasses.replace(
        prior, likelihood=base.Gaussian(1., prior.num_outputs))
  return prior


def _fewest_points(unit: work_units.WorkUnit) -> int:
  """T where it limits the batches of an agent that goes through epochs, or 0.
  """
  num_train = unit.family.prior().num_train
  config = unit.agent_config
  if (config.get('sampling') != 'epochs'
      or num_train >= config.get('batch_size', math.inf)):
    return 0
  return num_train


def _kind(value: Any) -> Any:
  """A setting's fields; of a float only whether it switches something off."""
  if isinstance(value, float):
    return f'float, {value == 0}'
  if isinstance(value, Mapping):
    return {name: _kind(of) for name, of in value.items()}
  if isinstance(value, list | tuple):
    return [_kind(of) for of in value]
  return value


def _count_by_name(unit: work_units.WorkUnit) -> Counted:
  """`_count` of an agent of the package; none of others."""
  if unit.agent not in agents_lib.agent_names():
    return Counted()
  return _count(
      agents_lib.from_settings(unit.agent, unit.agent_settings()), unit)


def _count_solved(unit: work_units.WorkUnit) -> float:
  """Operations on one seed by an agent that trains no network; 0 if unknown."""
  prior = unit.family.prior()
  # What files count themselves is work with the kernel.
  if unit.agent not in agents_lib.agent_names() or prior.kernel is None:
    return 0.
  module = agents_lib.load_agent(unit.agent)
  if module.count_operations is None:
    return 0.
  return _count_workload(
      module.count_operations,
      agents_lib.make_config(module, unit.agent_settings()), flops.Workload(
          prior, (_NUM_POINTS, nngp_regression.NUM_DYADIC_BLOCKS
                  * nngp_regression.JOINT_TAU),
          len(unit.family.cells), unit.num_enn_samples,
          unit.enumerate_indices))


@functools.cache
def _count_workload(count: Callable[..., float], config: Any,
                    workload: flops.Workload) -> float:
  """What an agent's file counts itself."""
  return count(config, workload)


def _count(made: Any, unit: work_units.WorkUnit) -> Counted:
  """Operations of an agent on one problem; none of other agents."""
  if not isinstance(made, network_agent.NetworkAgent):
    return Counted()
  prior = _prior(unit, _fewest_points(unit) or 2 * made.batch_size)
  network = made.make_network(prior)
  num_draws = prediction.num_index_draws(network, unit.num_enn_samples,
                                         unit.enumerate_indices)
  return Counted(
      made.num_batches * flops.step_flops(made, prior),
      2 * num_draws * flops.draw_flops(network, prior, _NUM_POINTS)
      if num_draws else 0.)


def estimate_ground_truth_seconds(
    unit: work_units.WorkUnit,
    solver_memory_mb: float = solvers.SOLVER_MEMORY_MB) -> float:
  """Estimated seconds on one core of a unit's ground truth.

  Dense: per seed a kernel matrix and a Cholesky factor for the draw, and per
  noise level a factor and the solves of 2000 points, T^3 / 3 and 2000 T^2
  operations. Matrix-free: one run of the solver per seed.
  """
  family = unit.family
  assert isinstance(family, nngp.NngpFamily)
  t, num_noise = family.num_train, len(family.cells)
  config = family.config(family.noise_stds[0], unit.seeds[0])
  solver = solvers.choose_solver(config, family.solver, solver_memory_mb)
  if solver == 'dense':
    counted = (2. * t**2 * family.input_dim + (1 + num_noise) * t**3 / 3.
               + num_noise * 2 * _NUM_POINTS * t**2) / _SOLVER_FLOPS
  else:
    counted = matrix_free_posterior.count_operations(
        t, family.input_dim, 2 * _NUM_POINTS) / _TILE_FLOPS
  return len(unit.seeds) * (START_SECONDS + counted)
