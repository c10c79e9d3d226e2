"""Joint scores: how well an agent knows several function values at once.

Marginal scores do not see whether an agent's functions are smooth: two agents
with the same mean and std at every point may disagree about what the value at
one point says of the value at the next. Joint scores compare Gaussian blocks
over tau points (Osband et al. 2022, "Evaluating high-order predictive
distributions in deep learning", arXiv 2202.13509).

`p` is the exact posterior and `q` the agent. Blocks are stacked on the first
axes: means [..., tau], covariances [..., tau, tau], float64 numpy.
"""

import functools

import numpy as np
from scipy import special

# Blocks that `label_floor` draws in all.
_NUM_SIMULATED = 6000


def kl(mean_p: np.ndarray, covariance_p: np.ndarray, mean_q: np.ndarray,
       covariance_q: np.ndarray) -> np.ndarray:
  """KL(N(mean_p, covariance_p) || N(mean_q, covariance_q)) in nats, [...].

  With Cholesky factors covariance_p = A A^T and covariance_q = B B^T and the
  lower triangular M = B^-1 A it is
  1/2 [sum_i (M_ii^2 - 1 - 2 log M_ii) + sum_{i>j} M_ij^2
       + |B^-1 (mean_p - mean_q)|^2], of which no term is negative.

  Args:
    mean_p: [..., tau].
    covariance_p: [..., tau, tau], positive definite.
    mean_q: [..., tau], of the same shape.
    covariance_q: [..., tau, tau].

  Returns:
    The divergences. They are infinite where covariance_q is not positive
    definite, and nan where the agent's mean or covariance is not finite.

  Raises:
    numpy.linalg.LinAlgError: covariance_p is not positive definite.
  """
  finite = (np.isfinite(mean_q).all(-1)
            & np.isfinite(covariance_q).all((-2, -1)))
  tau = np.shape(mean_q)[-1]
  factor_q = _cholesky_or_nan(
      np.where(finite[..., None, None], covariance_q, np.eye(tau)))
  singular = np.isnan(factor_q).any((-2, -1))
  factor_q = np.where(singular[..., None, None], np.eye(tau), factor_q)
  with np.errstate(over='ignore', invalid='ignore', divide='ignore'):
    shift = np.where(finite[..., None], mean_p - mean_q, 0.)
    right = np.concatenate(
        [np.linalg.cholesky(covariance_p), shift[..., None]], -1)
    solved = np.linalg.solve(factor_q, right)
    diagonal = np.abs(np.einsum('...ii->...i', solved[..., :tau]))
    own = (diagonal - 1.) * (diagonal + 1.) - 2. * np.log(diagonal)
    others = np.sum(np.tril(solved[..., :tau], -1)**2, (-2, -1))
    divergence = 0.5 * (np.sum(own, -1) + others
                        + np.sum(solved[..., tau]**2, -1))
  return np.where(finite, np.where(singular, np.inf, divergence), np.nan)


def _cholesky_or_nan(matrices: np.ndarray) -> np.ndarray:
  """Lower factors of [..., tau, tau]; nan where there is none."""
  try:
    return np.linalg.cholesky(matrices)
  except np.linalg.LinAlgError:  # numpy does not say which has none.
    factors = np.full_like(matrices, np.nan)
    for position in np.ndindex(matrices.shape[:-2]):
      try:
        factors[position] = np.linalg.cholesky(matrices[position])
      except np.linalg.LinAlgError:
        pass
    return factors


def add_std_ridge(covariances: np.ndarray, ridge: float) -> np.ndarray:
  """Adds a ridge to every std and keeps every correlation.

  The marginal score adds the ridge to stds. Its joint counterpart is D C D with
  the diagonal matrix of d_i = (std_i + ridge) / std_i. A point of std 0 has no
  correlations: it gets the variance ridge^2 and covariances 0.

  Args:
    covariances: C, [..., tau, tau].
    ridge: added to all stds.
  """
  stds = np.sqrt(np.einsum('...ii->...i', covariances))
  scale = (stds + ridge) / np.where(stds > 0, stds, 1.)
  scaled = covariances * scale[..., :, None] * scale[..., None, :]
  diagonal = np.einsum('...ii->...i', scaled)
  diagonal[...] = (stds + ridge)**2
  return scaled


def sample_blocks(samples: np.ndarray, tau: int,
                  weights: np.ndarray | None = None
                  ) -> tuple[np.ndarray, np.ndarray]:
  """Means and covariances of samples, per block of tau neighbouring points.

  Args:
    samples: [J, N]; points beyond the last whole block are left out.
    tau: points of a block.
    weights: how much each sample counts, [J], of sum 1; None for all alike.

  Returns:
    Means [N // tau, tau] and covariances (divided by J) [N // tau, tau, tau].
  """
  num_blocks = samples.shape[1] // tau
  samples = np.asarray(samples[:, :num_blocks * tau], np.float64)
  mean = np.average(samples, axis=0, weights=weights)
  with np.errstate(invalid='ignore', over='ignore'):  # Diverged agents.
    centred = samples - mean
    if weights is not None:
      centred *= np.sqrt(len(samples) * np.asarray(weights))[:, None]
    centred = centred.T.reshape(num_blocks, tau, -1)
    covariances = centred @ np.swapaxes(centred, 1, 2) / len(samples)
  return mean.reshape(num_blocks, tau), covariances


def cut_blocks(covariances: np.ndarray, tau: int) -> np.ndarray:
  """Covariances of smaller blocks, cut from those of larger ones.

  Args:
    covariances: [B, n, n].
    tau: points of a smaller block; it divides n.

  Returns:
    [B * n / tau, tau, tau], in the order of the points.

  Raises:
    ValueError: tau does not divide n.
  """
  num, size = covariances.shape[:2]
  if tau < 1 or size % tau:
    raise ValueError(f'tau must divide the {size} points of a block, got {tau}.'
                     )
  parts = covariances.reshape(num, size // tau, tau, size // tau, tau)
  return np.einsum('biuiv->biuv', parts).reshape(-1, tau, tau)


def finite_sample_floor(num_samples: int, tau: int) -> float:
  """E[KL(p || q)] per block where q is made of S exact draws of p.

  The KL does not change under a linear map of the space, so let p be N(0, I) of
  dimension tau. q has the mean m ~ N(0, I / S) and, independent of it, the
  covariance W / S of a Wishart matrix W with k = S - 1 degrees of freedom. Then

    2 KL = log det(W / S) + S tr(W^-1) + S m^T W^-1 m - tau,

  and by Bartlett's decomposition log det W is a sum of logarithms of
  chi-squares with k, k - 1, ..., k - tau + 1 degrees of freedom, whose means
  are log 2 + digamma((S - i) / 2), i = 1..tau. The mean of W^-1 is
  I / (k - tau - 1) = I / (S - tau - 2), so the trace gives
  S tau / (S - tau - 2), and m, of variance 1/S, adds tau / (S - tau - 2).
  Together

    1/2 [tau log(2/S) + sum_i digamma((S - i)/2) + (S + 1) tau / (S - tau - 2)
         - tau],

  at tau = 1 that of `gaussian.finite_sample_floor`. It neglects the std ridge.

  Args:
    num_samples: S.
    tau: points of a block.

  Returns:
    Nats; inf for S <= tau + 2, where W^-1 has no mean.
  """
  if num_samples <= tau + 2:
    return float('inf')
  s = float(num_samples)
  logs = np.sum(special.digamma((s - np.arange(1, tau + 1)) / 2.))
  return float(0.5 * (tau * np.log(2. / s) + logs
                      + (s + 1.) * tau / (s - tau - 2.) - tau))


def label_floor(covariances: np.ndarray, noise_std: float,
                num_samples: int) -> float:
  """The joint KL on labels that exact draws of f score, by simulation.

  Labels have noise_std^2 I added to both covariances, which no closed form
  survives. The mean of S draws is N(mean, C / S) and S times their covariance a
  Wishart matrix with S - 1 degrees of freedom, both drawn directly: the cost
  does not depend on S. The random numbers are the same at every call and with
  every version of numpy, and a floor is computed once per process.

  Args:
    covariances: of f, C [B, tau, tau].
    noise_std: epsilon.
    num_samples: S.

  Returns:
    The mean over blocks, in nats, with a relative standard error of about one
    percent.
  """
  return _label_floor(
      np.ascontiguousarray(covariances, np.float64).tobytes(),
      np.shape(covariances)[1], float(noise_std), num_samples)


@functools.lru_cache(maxsize=4096)
def _label_floor(covariances_bytes: bytes, tau: int, noise_std: float,
                 num_samples: int) -> float:
  """`label_floor`, made once for each problem and number of samples."""
  covariances = np.frombuffer(covariances_bytes).reshape(-1, tau, tau)
  num_blocks = len(covariances)
  repeats = -(-_NUM_SIMULATED // num_blocks)
  shifts, spreads = _simulated_moments(num_samples, repeats * num_blocks, tau)
  factors = np.tile(np.linalg.cholesky(covariances), (repeats, 1, 1))
  noise = noise_std**2 * np.eye(tau)
  found = factors @ spreads @ np.swapaxes(factors, 1, 2)
  return float(np.mean(kl(
      np.zeros([len(factors), tau]), np.tile(covariances, (repeats, 1, 1))
      + noise, np.einsum('bij,bj->bi', factors, shifts), found + noise)))


@functools.lru_cache(maxsize=8)
def _simulated_moments(num_samples: int, num: int, tau: int
                       ) -> tuple[np.ndarray, np.ndarray]:
  """Means [num, tau] and covariances [num, tau, tau] of S draws of N(0, I)."""
  # The stream of RandomState is frozen, unlike that of newer generators.
  rng = np.random.RandomState(0)
  shifts = rng.standard_normal([num, tau]) / np.sqrt(num_samples)
  degrees = num_samples - 1
  if degrees < tau:
    root = rng.standard_normal([num, tau, degrees])
  else:  # Bartlett's lower triangular factor of a Wishart matrix.
    root = np.tril(rng.standard_normal([num, tau, tau]), -1)
    diagonal = np.einsum('bii->bi', root)
    diagonal[...] = np.sqrt(rng.chisquare(degrees - np.arange(tau), [num, tau]))
  return shifts, root @ np.swapaxes(root, 1, 2) / num_samples
