"""The log marginal likelihood of a Gaussian process, dense and in float64.

With K = k(x_train, x_train), noise variance s^2 and K + s^2 I = L L^T
(Rasmussen & Williams 2006, equation 2.30 and algorithm 2.1),

  log p(y) = -1/2 |L^-1 y|^2 - sum log diag L - T/2 log 2 pi.

It is what the exact Bayesian knows of how well its prior fits the data: the
functions of the process are integrated out, no parameter is fitted.
"""

import numpy as np
import scipy.linalg

from enn_ensembles import checks
from enn_ensembles.nngp import posterior


def log_marginal_likelihood(kernel: np.ndarray, targets: np.ndarray,
                            noise_variance: float) -> float:
  """log N(y; 0, K + s^2 I) in nats.

  Args:
    kernel: K, symmetric [T, T] float64; not changed.
    targets: y, [T].
    noise_variance: s^2, > 0.

  Raises:
    ValueError: shapes do not fit together, s^2 is not positive, or K + s^2 I is
      not positive definite.
  """
  checks.check_positive('noise_variance', noise_variance)
  targets = np.asarray(targets, np.float64)
  if targets.ndim != 1 or np.shape(kernel) != (len(targets), len(targets)):
    raise ValueError('kernel must have shape [T, T] for targets of shape [T], '
                     f'got {np.shape(kernel)} and {targets.shape}.')
  factor = posterior.cholesky(kernel, noise_variance)
  whitened = scipy.linalg.solve_triangular(factor, targets, lower=True)
  return float(-0.5 * whitened @ whitened
               - np.sum(np.log(np.diagonal(factor)))
               - 0.5 * len(targets) * np.log(2. * np.pi))
