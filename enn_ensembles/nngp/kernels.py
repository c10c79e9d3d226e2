"""The kernel of an infinitely wide MLP (NNGP), in closed form and float64.

As its hidden layers grow, an MLP with random weights becomes a draw of a
Gaussian process (Lee et al. 2018, "Deep Neural Networks as Gaussian
Processes"). Its kernel starts at the first layer,

  k0(x, x') = weight_std^2 x.x' / D + first_bias^2 / D,

and each hidden layer maps it to E[phi(u) phi(v)], where (u, v) is Gaussian with
covariance [[k11, k12], [k12, k22]], times weight_std^2 of the next linear
layer. For ReLU that expectation is the arc-cosine kernel of order one (Cho &
Saul 2009, "Kernel Methods for Deep Learning"); for erf it is the arcsine kernel
(Williams 1997, "Computing with Infinite Networks").

Ground truth is what every score stands on, so both are written such that no
rounding error is amplified: neither arccos nor arcsin is ever followed by a
subtraction from a constant, and diagonals come from their own formula.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import concurrent.futures
import dataclasses
import re

import jax
import numpy as np

from enn_ensembles import checks
from enn_ensembles.machine import devices

# A change of a formula or of its constants raises it.
VERSION = 1

# Side of the square tiles in which the kernel is computed: their temporaries
# (128 KB) stay in a core's second-level cache, and are small enough for the
# allocator to reuse instead of asking the system for fresh pages.
_TILE = 128
# From so many entries on, threads share the tiles.
_MIN_THREADED = 2**22

_NAME = re.compile('([a-z]+)([1-9][0-9]?)')  # 'relu2'.


@dataclasses.dataclass(frozen=True)
class KernelConfig:
  """Which infinitely wide MLP is the prior of the functions.

  The default is the testbed's: two hidden ReLU layers.

  Attributes:
    num_hidden_layers: hidden layers, each followed by the activation.
    activation: 'relu' or 'erf'.
    weight_std: std of every layer's weights, times sqrt(fan-in).
    first_bias: std of the first layer's bias in units of 1 / sqrt(D_x); the
      other layers have none.
  """
  num_hidden_layers: int = 2
  activation: str = 'relu'
  weight_std: float = 1.0
  first_bias: float = 1.0

  def __post_init__(self):
    checks.check_count('num_hidden_layers', self.num_hidden_layers)
    checks.check_choice('activation', self.activation, tuple(ACTIVATIONS))
    checks.check_positive('weight_std', self.weight_std)
    checks.check_scale('first_bias', self.first_bias)

  @classmethod
  def from_name(cls, name: str) -> 'KernelConfig':
    """The kernel of a name as sweeps use them: 'relu2', 'erf1'.

    Raises:
      ValueError: it is not an activation and a number of hidden layers.
    """
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None or found[1] not in ACTIVATIONS:
      raise ValueError(
          'kernel must be an activation and a number of hidden layers, as '
          f'relu2 or erf1; activations are {", ".join(ACTIVATIONS)}; got '
          f'{name!r}.')
    return cls(num_hidden_layers=int(found[2]), activation=found[1])


def nngp(config: KernelConfig, x1: np.ndarray,
         x2: np.ndarray | None = None) -> np.ndarray:
  """The kernel between two sets of points.

  Args:
    config: which kernel.
    x1: points [n1, D].
    x2: points [n2, D]; None for x1 against itself.

  Returns:
    k(x1, x2), [n1, n2] float64. Against itself: exactly symmetric, with
    exactly `nngp_diag` on its diagonal.

  Raises:
    ValueError: jax runs without x64, or the shapes do not fit.
  """
  require_x64()
  x1 = _points('x1', x1)
  diag1 = _input_diag(config, x1)
  if x2 is None:
    kernel = x1 @ x1.T
    _map_tiles_symmetric(config, kernel, x1.shape[1], diag1)
    return kernel
  x2 = _points('x2', x2)
  if x1.shape[1] != x2.shape[1]:
    raise ValueError('x1 and x2 must have the same number of columns, got '
                     f'{x1.shape[1]} and {x2.shape[1]}.')
  kernel = x1 @ x2.T
  _map_tiles(config, kernel, x1.shape[1], diag1, _input_diag(config, x2))
  return kernel


def nngp_diag(config: KernelConfig, x: np.ndarray) -> np.ndarray:
  """The prior variance k(x, x) of every point, [n] float64 for x [n, D].

  Raises:
    ValueError: jax runs without x64, or x is not a matrix.
  """
  require_x64()
  diag = _input_diag(config, _points('x', x))
  for _ in range(config.num_hidden_layers):
    diag = _hidden_diag(config, diag)
  return diag


def require_x64() -> None:
  """Raises ValueError unless jax computes in float64.

  The kernel itself is numpy, but jax would round what it draws for the problem
  and what it is given of the posterior to float32 without a word.
  """
  if not jax.config.read('jax_enable_x64'):
    raise ValueError('jax_enable_x64 must be True for ground truth in float64, '
                     "got False: call jax.config.update('jax_enable_x64', "
                     'True) first.')


def _points(name: str, x: np.ndarray) -> np.ndarray:
  x = np.asarray(x, dtype=np.float64)
  if x.ndim != 2 or x.shape[1] == 0:
    raise ValueError(f'{name} must have shape [n, D] with D >= 1, got '
                     f'{list(x.shape)}.')
  return x


def _input_diag(config: KernelConfig, x: np.ndarray) -> np.ndarray:
  """k0(x, x), [n]."""
  input_dim = x.shape[1]
  return (config.weight_std ** 2 / input_dim * np.einsum('nd,nd->n', x, x)
          + config.first_bias ** 2 / input_dim)


def _hidden_diag(config: KernelConfig, diag: np.ndarray) -> np.ndarray:
  """One hidden layer on variances, [n] -> [n]."""
  return config.weight_std ** 2 * ACTIVATIONS[config.activation].diag(diag)


def _map_tile(config: KernelConfig, products: np.ndarray, input_dim: int,
              diag1: np.ndarray, diag2: np.ndarray) -> np.ndarray:
  """All layers on one tile of x x'^T: [a, b], k0 on diagonals [a], [b]."""
  cross = ACTIVATIONS[config.activation].cross
  k12 = products * (config.weight_std ** 2 / input_dim)
  k12 += config.first_bias ** 2 / input_dim
  for _ in range(config.num_hidden_layers):
    k12 = cross(k12, diag1[:, None], diag2[None, :])
    if config.weight_std != 1:
      k12 *= config.weight_std ** 2
    diag1 = _hidden_diag(config, diag1)
    diag2 = _hidden_diag(config, diag2)
  return k12


def _map_tiles(config: KernelConfig, kernel: np.ndarray, input_dim: int,
               diag1: np.ndarray, diag2: np.ndarray) -> None:
  """All layers on x x'^T [n1, n2], in place."""

  def map_rows(start: int) -> None:
    rows = slice(start, start + _TILE)
    for j in range(0, kernel.shape[1], _TILE):
      columns = slice(j, j + _TILE)
      kernel[rows, columns] = _map_tile(config, kernel[rows, columns],
                                        input_dim, diag1[rows], diag2[columns])

  _for_each(map_rows, range(0, kernel.shape[0], _TILE), kernel.size)


def _map_tiles_symmetric(config: KernelConfig, kernel: np.ndarray,
                         input_dim: int, diag: np.ndarray) -> None:
  """The same for points against themselves: half the work, mirrored."""

  def map_rows(start: int) -> None:
    rows = slice(start, start + _TILE)
    for j in range(0, start, _TILE):
      columns = slice(j, j + _TILE)
      tile = _map_tile(config, kernel[rows, columns], input_dim, diag[rows],
                       diag[columns])
      kernel[rows, columns] = tile
      kernel[columns, rows] = tile.T
    tile = _map_tile(config, kernel[rows, rows], input_dim, diag[rows],
                     diag[rows])
    lower = np.tril(tile, -1)
    kernel[rows, rows] = lower + lower.T

  # The longest rows come first, so that threads end together.
  _for_each(map_rows, range(0, len(kernel), _TILE)[::-1], kernel.size)
  for _ in range(config.num_hidden_layers):
    diag = _hidden_diag(config, diag)
  np.fill_diagonal(kernel, diag)


def _for_each(work: Callable[[int], None], starts: Sequence[int],
              size: int) -> None:
  """Calls `work` on each start, in threads where there is much to do.

  numpy lets other threads run while it computes. What they write is apart.
  """
  num_threads = len(devices.available_cores()) if size >= _MIN_THREADED else 1
  if num_threads == 1:
    for start in starts:
      work(start)
    return
  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    for _ in pool.map(work, starts):
      pass


def _relu_cross(k12: np.ndarray, k11: np.ndarray,
                k22: np.ndarray) -> np.ndarray:
  """E[relu(u) relu(v)] = sqrt(k11 k22) (sin t + (pi - t) cos t) / (2 pi).

  cos t = k12 / sqrt(k11 k22). As a function of cos t the bracket is well
  conditioned everywhere, if both its parts come from the same cos t:
  pi - t = arccos(-cos t), and sin t = sqrt((1 - cos t) (1 + cos t)).
  """
  scale = np.sqrt(k11 * k22)
  # A zero variance (x = 0 without a bias) has k12 = 0 and must give 0.
  cos = k12 / np.maximum(scale, np.finfo(np.float64).tiny)
  np.clip(cos, -1., 1., out=cos)
  bracket = np.arccos(-cos)
  bracket *= cos
  bracket += np.sqrt((1. - cos) * (1. + cos))
  # At cos t = -1 both parts vanish and rounding may leave -1e-24.
  np.maximum(bracket, 0., out=bracket)
  bracket *= scale
  bracket *= 0.5 / np.pi
  return bracket


def _relu_diag(k11: np.ndarray) -> np.ndarray:
  """E[relu(u)^2] = k11 / 2."""
  return 0.5 * k11


def _erf_cross(k12: np.ndarray, k11: np.ndarray,
               k22: np.ndarray) -> np.ndarray:
  """E[erf(u) erf(v)] = 2/pi arcsin(2 k12 / sqrt((1 + 2 k11) (1 + 2 k22))).

  Written as an arctangent: arcsin loses half the digits near 1. The other leg
  of the triangle is sqrt((1 + 2 k11) (1 + 2 k22) - 4 k12^2), and
  k11 k22 >= k12^2 up to rounding.
  """
  determinant = np.maximum(k11 * k22 - k12 * k12, 0.)
  leg = np.sqrt(1. + 2. * (k11 + k22) + 4. * determinant)
  return 2. / np.pi * np.arctan2(2. * k12, leg)


def _erf_diag(k11: np.ndarray) -> np.ndarray:
  """E[erf(u)^2]: the same with k12 = k22 = k11, whose determinant is 0."""
  return 2. / np.pi * np.arctan2(2. * k11, np.sqrt(1. + 4. * k11))


@dataclasses.dataclass(frozen=True)
class _Activation:
  """E[phi(u) phi(v)] from (k12, k11, k22), and E[phi(u)^2] from k11."""
  cross: Callable[..., np.ndarray]
  diag: Callable[[np.ndarray], np.ndarray]


ACTIVATIONS: Mapping[str, _Activation] = {
    'relu': _Activation(cross=_relu_cross, diag=_relu_diag),
    'erf': _Activation(cross=_erf_cross, diag=_erf_diag),
}
