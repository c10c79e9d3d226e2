"""How alike the members of an ensemble are: pure formulas, numpy only.

Pairs are the K (K - 1) / 2 unordered pairs of different members; of more than a
few dozen members only some pairs need be taken. All is float64.
"""

from collections.abc import Sequence
import itertools

import numpy as np

Pairs = Sequence[tuple[int, int]]

# Beyond 12 standard deviations a Gaussian has less than 1e-32 of its mass.
_TAIL = 12.
_NODES_PER_STD = 12

# More pairs of members say no more of a mean over pairs.
MAX_PAIRS = 500


def member_pairs(num_members: int,
                 max_pairs: int | None = None) -> list[tuple[int, int]]:
  """All pairs i < j, or max_pairs of them evenly spread over their list.

  Raises:
    ValueError: there are fewer than two members, or max_pairs < 1.
  """
  if num_members < 2:
    raise ValueError(f'num_members must be >= 2, got {num_members}.')
  if max_pairs is not None and max_pairs < 1:
    raise ValueError(f'max_pairs must be >= 1, got {max_pairs}.')
  pairs = list(itertools.combinations(range(num_members), 2))
  if max_pairs is None or len(pairs) <= max_pairs:
    return pairs
  rows = np.linspace(0, len(pairs) - 1, max_pairs).round().astype(int)
  return [pairs[row] for row in rows]


def sign_disagreement(predictions: np.ndarray, pairs: Pairs) -> np.ndarray:
  """Share of points where two members' predictions differ in sign.

  Args:
    predictions: [K, N]; 0 counts as positive.
    pairs: the pairs of members.

  Returns:
    [pairs], from 0 (always the same sign) to 1.

  Raises:
    ValueError: predictions is not [members, at least one].
  """
  is_negative = _as_matrix('predictions', predictions) < 0
  return np.array([np.mean(is_negative[i] != is_negative[j])
                   for i, j in pairs])


def class_disagreement(classes: np.ndarray, num_classes: int) -> np.ndarray:
  """Share of pairs of members that predict different classes, per point.

  1 - sum_c C(n_c, 2) / C(K, 2), n_c members of K predicting class c.

  Args:
    classes: predicted class of each member, integers [K, N], K >= 2.
    num_classes: they are below it.

  Returns:
    [N], from 0 (all agree) to 1.

  Raises:
    ValueError: there are fewer than two members.
  """
  num_members, num_points = classes.shape
  if num_members < 2:
    raise ValueError(f'num_members must be >= 2, got {num_members}.')
  cells = np.arange(num_points) * num_classes + classes
  counts = np.bincount(cells.reshape(-1), minlength=num_points * num_classes)
  agreeing = (counts * (counts - 1)).reshape(num_points, num_classes)
  return 1. - agreeing.sum(axis=1) / (num_members * (num_members - 1))


def mean_member_kl(log_probs: np.ndarray) -> np.ndarray:
  """Mean over all ordered pairs of members of KL(p_i || p_j), per point.

  sum_i sum_c p_ic (log p_ic - mean_j log p_jc) / (K - 1), which is the same
  without forming the pairs.

  Args:
    log_probs: logarithms of class probabilities, [K, N, C], K >= 2.

  Returns:
    [N], nats.

  Raises:
    ValueError: there are fewer than two members.
  """
  if len(log_probs) < 2:
    raise ValueError(f'num_members must be >= 2, got {len(log_probs)}.')
  terms = np.exp(log_probs) * (log_probs - log_probs.mean(axis=0))
  # Only rounding makes it negative.
  return np.maximum(terms.sum(axis=(0, 2)) / (len(log_probs) - 1), 0.)


def logit_correlation(logits: np.ndarray, pairs: Pairs) -> np.ndarray:
  """Pearson's correlation of two members' logits over points and classes.

  A number added to all logits of a point changes no probability, so each
  point's mean is taken off first.

  Args:
    logits: [K, N, C].
    pairs: the pairs of members.

  Returns:
    [pairs], from -1 to 1.
  """
  logits = np.asarray(logits, np.float64)
  centred = logits - logits.mean(axis=-1, keepdims=True)
  return correlation(centred.reshape(len(logits), -1), pairs)


def correlation(predictions: np.ndarray, pairs: Pairs) -> np.ndarray:
  """Pearson's correlation of two members' predictions over the points.

  Args:
    predictions: [K, N]. A member that is constant has no correlation: nan.
    pairs: the pairs of members.

  Returns:
    [pairs], from -1 to 1.

  Raises:
    ValueError: predictions is not [members, at least one].
  """
  predictions = _as_matrix('predictions', predictions)
  centred = predictions - predictions.mean(axis=1, keepdims=True)
  return cosine(centred, pairs)


def cosine(vectors: np.ndarray, pairs: Pairs) -> np.ndarray:
  """Cosine of the angle between two members' vectors.

  Args:
    vectors: [K, M], such as all weights of each member; 0 gives nan.
    pairs: the pairs of members.

  Returns:
    [pairs], from -1 to 1.

  Raises:
    ValueError: vectors is not [members, at least one].
  """
  unit = _unit_vectors(vectors)
  return np.array([np.dot(unit[i], unit[j]) for i, j in pairs])


def cosine_matrix(vectors: np.ndarray) -> np.ndarray:
  """`cosine` of all pairs, [K, K]; nan beside a vector that is 0.

  Args:
    vectors: [K, M].

  Raises:
    ValueError: vectors is not [members, at least one].
  """
  unit = _unit_vectors(vectors)
  return unit @ unit.T


def _unit_vectors(vectors: np.ndarray) -> np.ndarray:
  vectors = _as_matrix('vectors', vectors)
  norms = np.linalg.norm(vectors, axis=1, keepdims=True)
  with np.errstate(invalid='ignore', divide='ignore'):
    return vectors / norms


def jensen_shannon(mean_p: np.ndarray, mean_q: np.ndarray,
                   std: float) -> np.ndarray:
  """JSD of N(mean_p, std^2) and N(mean_q, std^2), elementwise, in nats.

  JSD = 1/2 KL(p || m) + 1/2 KL(q || m), m = (p + q) / 2. With one std it
  depends only on a = |mean_p - mean_q| / (2 std), and by symmetry

    JSD(a) = log 2 - E[log(1 + exp(-2 a (u + a)))],  u ~ N(0, 1),

  which is 0 for a = 0, a^2 / 2 for a near 0 and log 2 for a large. The
  expectation is a trapezoidal sum over u, exact to rounding for an integrand
  this smooth; near 0, where the difference loses its digits, it is the series.

  Args:
    mean_p: means, any shape.
    mean_q: means, the same shape.
    std: > 0, of both.

  Returns:
    From 0 to log 2.

  Raises:
    ValueError: std is not > 0.
  """
  if not 0 < std < np.inf:
    raise ValueError(f'std must be finite and > 0, got {std}.')
  shift = np.abs(np.asarray(mean_p, np.float64)
                 - np.asarray(mean_q, np.float64)) / (2. * std)
  nodes, step = np.linspace(-_TAIL, _TAIL, 2 * int(_TAIL) * _NODES_PER_STD + 1,
                            retstep=True)
  weights = step * np.exp(-nodes ** 2 / 2.) / np.sqrt(2. * np.pi)
  flat = shift.reshape(-1)
  expected = np.empty_like(flat)
  for first in range(0, flat.size, 4096):  # Bounds the memory.
    a = np.minimum(flat[first:first + 4096], _TAIL)[:, None]
    # log(1 + e^x) without overflow.
    expected[first:first + 4096] = (
        np.logaddexp(0., -2. * a * (nodes + a)) @ weights)
  exact = np.maximum(np.log(2.) - expected, 0.)
  series = flat ** 2 / 2. - flat ** 4 / 4.
  return np.where(flat < 1e-3, series, exact).reshape(shift.shape)


def mean_jensen_shannon(predictions: np.ndarray, std: float,
                        pairs: Pairs) -> np.ndarray:
  """Mean over points of the JSD of two members' predictive Gaussians.

  Args:
    predictions: means [K, N].
    std: their common std, that of the noise.
    pairs: the pairs of members.

  Returns:
    [pairs], nats, from 0 to log 2.

  Raises:
    ValueError: predictions is not [members, at least one].
  """
  predictions = _as_matrix('predictions', predictions)
  return np.array([np.mean(jensen_shannon(predictions[i], predictions[j], std))
                   for i, j in pairs])


def _as_matrix(name: str, value: np.ndarray) -> np.ndarray:
  array = np.asarray(value, np.float64)
  if array.ndim != 2 or 0 in array.shape:
    raise ValueError(f'{name} must be [members, at least one], got shape '
                     f'{array.shape}.')
  return array
