"""The rules that every agent has to keep, checked on a small problem.

An agent may be any method in any framework, and what breaks the contract of
`base.Agent` need not raise: a sampler that ignores its key is scored as if it
were certain, an agent that changes its data spoils the next agent's. Each rule
that is broken is a ValueError of one line that names the agent's file, the rule
and what happened instead.
"""

from collections.abc import Callable
import dataclasses
import functools
import inspect
import pathlib
from typing import Any

import chex
import jax
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.machine import devices
from enn_ensembles.machine import float64
from enn_ensembles.nngp import kernels
from enn_ensembles.training import network_agent
from enn_ensembles.training import sampler_predictions

_MOST_TRAINING_POINTS = 20
_NUM_POINTS = 7  # Points that samplers are asked at.
# Keys whose draws are compared with a first one. Where a sampler has two
# members, all draws are of the same one with probability 2^-16.
_NUM_KEYS = 16
_ROUNDING = 1e-3  # Share by which float32 may differ, computed in two ways.
_NUM_STEPS = 2  # Steps that an agent with a network makes here.


def check_agent(agent: base.Agent, prior: base.PriorKnowledge | None = None,
                name: str | None = None) -> None:
  """Checks that an agent keeps the contract; it takes seconds.

  The agent learns from up to 20 random points. An agent that trains a network
  with the loop of this package makes two steps.

  Args:
    agent: what is called with (data, prior, key).
    prior: what it is told of the problem; None for a regression in three
      dimensions.
    name: what messages call it; None for the file it is defined in.

  Raises:
    ValueError: it breaks a rule; one line says which.
  """
  held = float64.unwrap(agent)
  rules = _Rules(name or _where(held))
  if prior is None:
    prior = base.PriorKnowledge((3,), 12, base.Gaussian(0.1),
                                kernels.KernelConfig())
  if not isinstance(prior, base.PriorKnowledge):
    raise ValueError('prior must be a PriorKnowledge, such as problem.prior, '
                     f'got {_describe(prior)}.')
  if not isinstance(prior.likelihood, base.Likelihood):
    raise ValueError('prior.likelihood must be base.Gaussian or '
                     f'base.Categorical, got {checks.shown(prior.likelihood)}.')
  most = _MOST_TRAINING_POINTS
  if isinstance(prior.likelihood, base.Categorical):
    most = max(most, prior.num_outputs)
  prior = dataclasses.replace(prior, num_train=min(prior.num_train, most))
  data, x = _make_data(prior)
  rules.callable_with(agent, 3, 'an agent is called with (data, prior, key)')
  if isinstance(held, network_agent.NetworkAgent):
    _check_network(held, prior, x, rules)
    # Two steps, whatever its own are fit for: so few points are no epoch of
    # large batches, and there is nothing to stop early by.
    agent = dataclasses.replace(
        held, num_batches=_NUM_STEPS, early_stopping=None, snapshots=(),
        batch_size=min(held.batch_size, prior.num_train))
  with devices.x64_mode(True):  # As sweeps, `train` and `score` call it.
    sampler = _train(agent, data, prior, rules)
    _check_draws(sampler, x, prior, rules)


def takes(function: Any, num_arguments: int) -> bool:
  """Whether a function can be called with so many positional arguments.

  Those written in C that do not say what they take can; what cannot be called
  cannot.
  """
  if not callable(function):
    return False
  try:
    signature = inspect.signature(float64.unwrap(function))
  except (TypeError, ValueError):
    return True
  try:
    signature.bind(*range(num_arguments))
  except TypeError:
    return False
  return True


class _Rules:
  """Raises in one line what is broken, and whose agent it is."""

  def __init__(self, name: str):
    self._name = name

  def broken(self, message: str) -> ValueError:
    """The error of a broken rule."""
    return ValueError(f'agent {self._name}: {" ".join(message.split())}')

  def callable_with(self, function: Any, num_arguments: int,
                    rule: str) -> None:
    """`function` can be called with so many positional arguments."""
    if not callable(function):
      raise self.broken(f'{rule}, got {_describe(function)}, which is no '
                        'function.')
    if not takes(function, num_arguments):
      signature = inspect.signature(float64.unwrap(function))
      raise self.broken(f'{rule}, got a function of {signature}.')

  def run(self, what: str, function: Callable[..., Any],
          *arguments: Any) -> Any:
    """function(*arguments), whatever it raises named as this agent's."""
    try:
      return function(*arguments)
    except Exception as error:  # Whatever somebody's agent may raise.
      raise self.broken(
          f'{what} raised {checks.error_text(error)}') from error


def _where(agent: Any) -> str:
  """The file that an agent is defined in, else how Python writes it."""
  while isinstance(agent, functools.partial):
    agent = agent.func
  if not callable(agent):
    return checks.shown(agent)
  for part in (getattr(agent, 'make_network', None), agent, type(agent)):
    try:
      path = inspect.getsourcefile(inspect.unwrap(part))
    except (TypeError, ValueError):
      continue
    if path:
      return pathlib.Path(path).name
  return checks.shown(agent)


def _describe(value: Any) -> str:
  """What something is, in a message."""
  return 'None' if value is None else f'a {type(value).__name__}'


def _key(constant: int) -> chex.PRNGKey:
  """A key as sweeps give it, [2] uint32."""
  return jax.random.key_data(jax.random.fold_in(
      jax.random.key(0, impl='threefry2x32'), constant))


def _make_data(prior: base.PriorKnowledge) -> tuple[base.Data, np.ndarray]:
  """Random data, which the agent could write to, and other points."""
  random = np.random.default_rng(0)
  x = random.standard_normal((prior.num_train + _NUM_POINTS,
                              *prior.input_shape))
  if len(prior.input_shape) == 3:
    x = x.astype(np.float32)  # As images are.
  points, x = x[prior.num_train:], x[:prior.num_train]
  if isinstance(prior.likelihood, base.Categorical):
    # All classes, as far as there are so many points: classifiers of other
    # libraries predict no class that they have not seen.
    y = np.arange(len(x), dtype=np.int32) % np.int32(prior.num_outputs)
  else:
    y = random.standard_normal((len(x), prior.num_outputs))
  return base.Data(x, y), points


def _train(agent: base.Agent, data: base.Data, prior: base.PriorKnowledge,
           rules: _Rules) -> base.EpistemicSampler:
  """The agent's sampler, the data unchanged."""
  given = base.Data(data.x.copy(), data.y.copy())
  sampler = rules.run('the agent', agent, given, prior, _key(0))
  _check_unchanged(given, data, 'the agent', rules)
  if not callable(sampler):
    raise rules.broken('an agent returns a sampler, a function of (x, key), '
                       f'got {_describe(sampler)}.')
  return sampler


def _check_unchanged(given: base.Data, data: base.Data, who: str,
                     rules: _Rules) -> None:
  for name, now, before in zip('xy', given, data):
    if not np.array_equal(now, before):
      raise rules.broken(f'{who} changed data.{name}, which other agents learn '
                         f'from too: it must change a copy.')


def _check_draws(sampler: base.EpistemicSampler, x: np.ndarray,
                 prior: base.PriorKnowledge, rules: _Rules) -> None:
  """Shape, type and finiteness of draws, and what they owe to their keys."""
  shape = (len(x), prior.num_outputs)
  if getattr(sampler, 'analytic', False):
    if isinstance(prior.likelihood, base.Categorical) or prior.num_outputs > 1:
      raise rules.broken('analytic = True is for one real output, got a '
                         f'problem of likelihood {prior.likelihood}.')
    found = _predict(sampler, x, prior, True, rules)
    for name, moment in (('the mean of moments(x)', found.mean),
                         ('the std of moments(x)', found.std),
                         ('joint_covariance(x)', found.covariances)):
      if moment is not None:
        _check_finite(name, moment, rules)
    return
  rules.callable_with(sampler, 2, 'a sampler is called with (x, key)')
  given = x.copy()
  draws = [
      _check_values('a draw', rules.run('the sampler', sampler, given, key),
                    shape, rules)
      for key in (_key(1), _key(1))]
  _check_x_unchanged(given, x, rules)
  # Sums of several threads may differ in their last digits.
  if not np.allclose(*draws, rtol=1e-5, atol=1e-8):
    raise rules.broken('the same key gives the same function, got draws that '
                       f'differ by {np.max(np.abs(draws[1] - draws[0])):.3g}: '
                       'what is random must come from the key.')
  if getattr(sampler, 'members', None) is not None:
    found = _predict(sampler, x, prior, True, rules)
    _check_finite('members(x)', found.samples, rules)
    if found.observation_variances is not None:
      _check_finite('the variances of members_with_noise(x)',
                    found.observation_variances, rules)
    _check_is_among('a draw is one of members(x)', draws[0], found.samples,
                    rules)
    if len(found.samples) == 1:
      return  # One function, and it says so.
  others: Any = _predict(sampler, x, prior, False, rules).samples
  many = getattr(sampler, 'draws', None)
  what = 'a draw' if many is None else 'draws(x, keys)'
  _check_finite(what, others, rules)
  if all(np.array_equal(other, others[0]) for other in others):
    raise rules.broken(
        f'different keys give different functions, got the same for {_NUM_KEYS}'
        f' keys by {what}: a sampler that ignores its key passes for certain. A'
        ' single function says so by members(x), of shape [1, N, out].')
  if many is not None:
    again = rules.run('the sampler', many, x.copy(), _key(1)[None])
    _check_is_among('draws(x, keys) has the draw of each key', draws[0],
                    _check_values(what, again, (1, *shape), rules), rules)


def _predict(sampler: base.EpistemicSampler, x: np.ndarray,
             prior: base.PriorKnowledge, enumerate_indices: bool,
             rules: _Rules) -> base.Predictions:
  """What a sweep reads of the sampler, by whatever it offers."""
  given = x.copy()
  try:
    found = sampler_predictions.predict(
        sampler, given, _key(2), _NUM_KEYS, enumerate_indices,
        prior.num_outputs)
  except ValueError as error:
    raise rules.broken(str(error)) from error
  except Exception as error:  # Whatever somebody's sampler may raise.
    raise rules.broken('the sampler raised '
                       f'{checks.error_text(error)}') from error
  _check_x_unchanged(given, x, rules)
  return found


def _check_x_unchanged(given: np.ndarray, x: np.ndarray,
                       rules: _Rules) -> None:
  if not np.array_equal(given, x):
    raise rules.broken('the sampler changed x: it must change a copy.')


def _check_is_among(rule: str, draw: np.ndarray, functions: np.ndarray,
                    rules: _Rules) -> None:
  """`draw` [N, out] is one of the functions [K, N, out], up to rounding."""
  distances = np.abs(functions - draw).max(axis=(1, 2))
  if distances.min() > _ROUNDING * max(1e-30, np.abs(functions).max()):
    raise rules.broken(f'{rule}, got one that differs by '
                       f'{distances.min():.3g} from the nearest.')


def _check_values(what: str, values: Any, shape: tuple[int, ...],
                  rules: _Rules) -> np.ndarray:
  """Real, finite numbers of a shape, as a numpy array."""
  if values is None:
    raise rules.broken(f'{what} has shape {shape}, got None.')
  try:
    values = np.asarray(values)
  except Exception as error:  # Arrays of other frameworks.
    raise rules.broken(f'{what} is an array, got {_describe(values)}.'
                       ) from error
  if values.dtype.kind not in 'fiu' and values.dtype.name != 'bfloat16':
    raise rules.broken(f'{what} holds real numbers, got dtype {values.dtype}.')
  if values.shape != shape:
    raise rules.broken(f'{what} has shape {shape} at {_NUM_POINTS} points, got '
                       f'{values.shape}.')
  _check_finite(what, values, rules)
  return values


def _check_finite(what: str, values: np.ndarray, rules: _Rules) -> None:
  bad = values.size - np.count_nonzero(np.isfinite(values))
  if bad:
    raise rules.broken(f'{what} is finite, got {bad} NaN or infinite of '
                       f'{values.size} values.')


def _check_network(agent: network_agent.NetworkAgent,
                   prior: base.PriorKnowledge, x: np.ndarray,
                   rules: _Rules) -> None:
  """init and apply are those of `hk.transform_with_state`."""
  network = rules.run('make_network', agent.make_network, prior)
  for name in ('apply', 'init', 'indexer'):
    if not callable(getattr(network, name, None)):
      raise rules.broken('make_network(prior) returns an EpistemicNetwork(apply'
                         f', init, indexer), got {_describe(network)}.')
  x = np.asarray(x, np.float32)
  index = rules.run('indexer', network.indexer, _key(3))
  made = rules.run('init', network.init, _key(4), x, index)
  if not isinstance(made, tuple) or len(made) != 2:
    raise rules.broken(
        'init returns (params, state), as that of hk.transform_with_state, got '
        f'{_describe(made)}: that of hk.transform returns params alone.')
  rules.callable_with(network.apply, 4, 'apply is called with '
                      '(params, state, x, index), as that of '
                      'hk.transform_with_state without its rng')
  output = rules.run('apply', network.apply, *made, x, index)
  if not isinstance(output, tuple) or len(output) != 2:
    raise rules.broken('apply returns (output, state), as that of '
                       f'hk.transform_with_state, got {_describe(output)}.')
  shape = np.shape(base.get_predictions(output[0]))
  if shape != (len(x), prior.num_outputs):
    raise rules.broken(f'apply returns outputs of shape '
                       f'{(len(x), prior.num_outputs)} at {len(x)} points, got '
                       f'{shape}.')
