"""Random features: ensembles of networks that train their last layer only.

K networks have the shape of the prior's, with a finite width. Their hidden
layers stay at their own random draw. The last layer w, of features phi(x), is
solved in closed form by sample-then-optimise: ridge regression towards its own
random start w0, on targets with their own noise draw n,

  w = argmin |y + eps n - Phi w|^2 / eps^2 + |w - w0|^2
    = w0 + Phi^T (Phi Phi^T + eps^2 I)^-1 (y + eps n - Phi w0),

so f(x) = phi(x)^T w is an exact draw of the posterior of a Gaussian process
with kernel phi(x)^T phi(x'). As the width grows that kernel becomes the NNGP's,
and this ensemble becomes as many draws of the exact posterior: it shows what a
network can reach without learning a feature. It is told the kernel.

Matthews, Hron, Turner & Ghahramani 2017, "Sample-then-optimize posterior
sampling for Bayesian linear models" (NeurIPS workshop on advances in
approximate Bayesian inference); Lee et al. 2018, "Deep neural networks as
Gaussian processes" (arXiv 1711.00165).

Hidden layers depend on the key alone. Features at a set of points are therefore
computed once for all noise levels of a seed and all calls of a sampler, as far
as an agent may keep them: 600 MB in all, which are 30 networks of 2048 units at
2400 points.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
import hashlib

import chex
import jax
import numpy as np
import scipy.linalg
import scipy.special

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.machine import bounded_cache
from enn_ensembles.nngp import kernels
from enn_ensembles.training import data_checks
from enn_ensembles.training import flops
from enn_ensembles.training import likelihoods

# Rows of features that are held at once where there are more points than units.
_BLOCK = 4096

# Bytes of features that an agent keeps, in float32.
_MOST_BYTES = 600_000_000


@dataclasses.dataclass(frozen=True)
class RandomFeaturesConfig:
  """Settings of random features.

  Attributes:
    num_ensemble: K, networks.
    width: units of every hidden layer. Far above the number of training points
      an ensemble is close to the exact posterior; about as many make it worst.
  """
  num_ensemble: int = 30
  width: int = 2048

  def __post_init__(self):
    checks.check_size('num_ensemble', self.num_ensemble)
    checks.check_size('width', self.width)


@dataclasses.dataclass(frozen=True)
class Network:
  """One network: hidden layers of a key, drawn whenever they are needed.

  Attributes:
    kernel: the prior whose shape it has.
    width: units of every hidden layer.
    seed: two 32-bit words that its hidden layers are drawn from.
    kept: where its features are kept; nothing is by default.
  """
  kernel: kernels.KernelConfig
  width: int
  seed: tuple[int, ...]
  kept: bounded_cache.BoundedCache = dataclasses.field(
      default_factory=lambda: bounded_cache.BoundedCache(0), compare=False)

  def features(self, x: np.ndarray) -> Iterator[np.ndarray]:
    """phi at x [n, D], in blocks of rows, [at most _BLOCK, width] float64.

    phi(x)^T phi(x') approximates the kernel. Hidden layers are float32.
    """
    layers = functools.cache(lambda: self._draw_layers(x.shape[1]))
    for start in range(0, len(x), _BLOCK):
      block = np.ascontiguousarray(x[start:start + _BLOCK], np.float32)
      # What is asked for again may be another array with the same numbers.
      name = (self, block.shape, hashlib.sha256(block).digest())
      h = self.kept.get(
          name, lambda block=block: self._last_hidden(block, *layers()))
      yield np.multiply(h, self.kernel.weight_std / np.sqrt(self.width),
                        dtype=np.float64)

  def _last_hidden(self, x: np.ndarray, weights: Sequence[np.ndarray],
                   bias: np.ndarray) -> np.ndarray:
    """The last hidden layer at x [n, D], [n, width], all of it float32."""
    activate = {'relu': lambda u: np.maximum(u, 0, out=u),
                'erf': scipy.special.erf}[self.kernel.activation]
    h = x
    for layer, w in enumerate(weights):
      h = activate(h @ w + bias if layer == 0 else h @ w)
    return h

  def _draw_layers(self, input_dim: int
                   ) -> tuple[Sequence[np.ndarray], np.ndarray]:
    """Weights [inputs, width] of hidden layers, and the first one's bias."""
    kernel = self.kernel
    rng = np.random.Generator(np.random.Philox(
        np.random.SeedSequence(self.seed)))

    def normals(scale: np.float32, *shape: int) -> np.ndarray:
      drawn = rng.standard_normal(shape, dtype=np.float32)
      drawn *= scale
      return drawn

    scale = np.float32(kernel.weight_std)
    sizes = [input_dim] + [self.width] * (kernel.num_hidden_layers - 1)
    weights = [normals(scale / np.float32(np.sqrt(size)), size, self.width)
               for size in sizes]
    bias = normals(np.float32(kernel.first_bias / np.sqrt(input_dim)),
                   self.width)
    return weights, bias


def fit_last_layer(network: Network, data: base.Data, noise_std: float,
                   start: np.ndarray, noise: np.ndarray) -> np.ndarray:
  """The last layer w [width] of one network; see the module.

  Args:
    network: its hidden layers.
    data: x [T, D] and y [T, 1].
    noise_std: eps.
    start: w0, [width].
    noise: n, [T].
  """
  x = np.asarray(data.x)
  targets = np.asarray(data.y, np.float64)[:, 0] + noise_std * noise
  if len(x) <= network.width:
    return solve_last_layer(np.concatenate(list(network.features(x))), targets,
                            noise_std, start)
  # Block of rows by block of rows.
  gram, side, done = noise_std**2 * np.eye(network.width), 0., 0
  for phi in network.features(x):
    gram += phi.T @ phi
    side = side + phi.T @ (targets[done:done + len(phi)] - phi @ start)
    done += len(phi)
  return start + scipy.linalg.solve(gram, side, assume_a='pos')


def solve_last_layer(phi: np.ndarray, targets: np.ndarray, noise_std: float,
                     start: np.ndarray) -> np.ndarray:
  """The last layer w [width] from features phi [T, width]; see the module.

  By the smaller of the two systems of Phi^T (Phi Phi^T + c I)^-1 = (Phi^T Phi +
  c I)^-1 Phi^T.

  Args:
    phi: features of the training points, [T, width].
    targets: y + eps n, [T].
    noise_std: eps.
    start: w0, [width].
  """
  misfit = targets - phi @ start
  is_wide = len(phi) <= phi.shape[1]
  gram = phi @ phi.T if is_wide else phi.T @ phi
  gram[np.diag_indices_from(gram)] += noise_std**2
  if is_wide:
    return start + phi.T @ scipy.linalg.solve(gram, misfit, assume_a='pos')
  return start + scipy.linalg.solve(gram, phi.T @ misfit, assume_a='pos')


@dataclasses.dataclass(frozen=True, eq=False)
class RandomFeaturesSampler:
  """K functions, all of them equally likely.

  Attributes:
    networks: their hidden layers.
    last_layers: w of each, [K, width].
    input_dim: D.
  """
  networks: tuple[Network, ...]
  last_layers: np.ndarray
  input_dim: int

  def members(self, x: np.ndarray) -> np.ndarray:
    """All functions at x [n, D], [K, n, 1] float64."""
    return np.stack([self._member(k, x) for k in range(len(self.networks))])

  def __call__(self, x: np.ndarray, key: chex.PRNGKey) -> np.ndarray:
    """The function that the key picks at x [n, D], [n, 1]."""
    return self._member(
        int(jax.random.randint(key, (), 0, len(self.networks))), x)

  def _member(self, k: int, x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    checks.check_points(x.shape, (self.input_dim,))
    blocks = self.networks[k].features(x)
    values = np.concatenate([phi @ self.last_layers[k] for phi in blocks])
    return values[:, None]


def draw_member(key: chex.PRNGKey, k: int, kernel: kernels.KernelConfig,
                width: int, num_train: int,
                kept: bounded_cache.BoundedCache | None = None
                ) -> tuple[Network, np.ndarray, np.ndarray]:
  """What is random in member k: its network, w0 [width] and n [T].

  Args:
    key: of all members.
    k: which member.
    kernel: the prior whose shape the network has.
    width: units of every hidden layer.
    num_train: T.
    kept: where the network keeps its features; None keeps nothing.
  """
  words = [int(word) for word in
           jax.random.key_data(jax.random.fold_in(key, k))]
  rng = np.random.default_rng((*words, 1))
  network = Network(kernel, width, (*words, 0),
                    kept or bounded_cache.BoundedCache(0))
  return network, rng.standard_normal(width), rng.standard_normal(num_train)


# Operations in whose time one core draws a normal number of float32 by numpy,
# and takes a feature from float32 to a prediction.
_DRAW, _PREDICT = 500, 26


def count_operations(config: RandomFeaturesConfig,
                     workload: flops.Workload) -> float:
  """Operations on the problems of one seed; see `agents`."""
  prior, num_levels = workload.prior, workload.num_levels
  t, width, num = prior.num_train, config.width, config.num_ensemble
  inputs = prior.input_dim + (prior.kernel.num_hidden_layers - 1) * width
  num_points = sum(workload.num_points)
  # Features that are not kept are computed at every noise level.
  kept = min(1., _MOST_BYTES / (4. * num * (t + num_points) * width))
  times = kept + (1. - kept) * num_levels
  num_sets = 1 + len(workload.num_points)
  hidden = (t + num_points + _DRAW * num_sets) * inputs * width
  small, large = sorted((t, width))
  solve = small**2 * large + small**3 / 3.
  num_asked = num if workload.enumerate_indices else workload.num_draws
  predict = _PREDICT * num_points * width
  return (num * (times * hidden + num_levels * solve)
          + num_levels * num_asked * predict)


def check_prior(prior: base.PriorKnowledge) -> None:
  """ValueError where the kernel or the noise is unknown."""
  likelihoods.known_kernel(prior, 'random_features')
  likelihoods.known_noise_std(prior, 'random_features')


def make_agent(config: RandomFeaturesConfig) -> base.Agent:
  """Solves the last layers of all networks.

  Raises:
    ValueError: by the agent, where a problem's kernel is unknown, its noise_std
      is no known number, or data have other shapes than `prior` says.
  """
  kept = bounded_cache.BoundedCache(_MOST_BYTES)

  def agent(data: base.Data, prior: base.PriorKnowledge,
            key: chex.PRNGKey) -> base.EpistemicSampler:
    kernel = likelihoods.known_kernel(prior, 'random_features')
    noise_std = likelihoods.known_noise_std(prior, 'random_features')
    data_checks.check_data(data, prior)
    x = np.ascontiguousarray(data.x)
    kept.use_for((kernel, x.shape, hashlib.sha256(x).digest(),
                  *map(int, jax.random.key_data(key))))
    networks, last_layers = [], []
    for k in range(config.num_ensemble):
      network, start, noise = draw_member(key, k, kernel, config.width,
                                          len(data.x), kept)
      networks.append(network)
      last_layers.append(fit_last_layer(network, data, float(noise_std), start,
                                        noise))
    return RandomFeaturesSampler(tuple(networks), np.stack(last_layers),
                                 x.shape[1])

  return agent
