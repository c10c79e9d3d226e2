"""Slow and obvious truth, in numpy and scipy, for tests to compare with.

Nothing here is imported from the package. Each function is the textbook's
definition written down, without a thought for speed.
"""

import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats


def relu_expectation(k11: float, k12: float, k22: float) -> float:
  """E[relu(u) relu(v)] for a Gaussian (u, v), by quadrature over u > 0.

  Given u, v is N(m, s^2), and E[relu(v)] = m cdf(m / s) + s pdf(m / s).
  """
  slope = k12 / k11
  s = np.sqrt(k22 - slope * k12)
  norm = scipy.stats.norm

  def integrand(u):
    m = slope * u
    return (u * norm.pdf(u, scale=np.sqrt(k11))
            * (m * norm.cdf(m / s) + s * norm.pdf(m / s)))

  value, _ = scipy.integrate.quad(integrand, 0., 12 * np.sqrt(k11),
                                  epsabs=1e-14, epsrel=1e-13, limit=200)
  return value


def erf_expectation(k11: float, k12: float, k22: float) -> float:
  """E[erf(u) erf(v)] for a Gaussian (u, v).

  Quadrature over u; given u, v is N(m, s^2), and E[erf(v)] is
  erf(m / sqrt(1 + 2 s^2)).
  """
  slope = k12 / k11
  s = np.sqrt(k22 - slope * k12)

  def integrand(u):
    return (scipy.stats.norm.pdf(u, scale=np.sqrt(k11)) * scipy.special.erf(u)
            * scipy.special.erf(slope * u / np.sqrt(1 + 2 * s**2)))

  # It is even in u.
  value, _ = scipy.integrate.quad(integrand, 0., 12 * np.sqrt(k11),
                                  epsabs=1e-14, epsrel=1e-13, limit=200)
  return 2 * value


def nngp_entry(x1: np.ndarray, x2: np.ndarray, num_hidden_layers: int,
               activation: str, weight_std: float,
               first_bias: float) -> float:
  """k(x1, x2) of two different points [D], layer by layer by quadrature."""
  input_dim = len(x1)

  def first(a, b):
    return (weight_std**2 * np.dot(a, b) + first_bias**2) / input_dim

  def square(k):
    # Of one variable: the same integrals with u = v.
    if activation == 'relu':
      return k / 2
    value, _ = scipy.integrate.quad(
        lambda u: scipy.stats.norm.pdf(u, scale=np.sqrt(k))
        * scipy.special.erf(u)**2, 0., 12 * np.sqrt(k),
        epsabs=1e-14, epsrel=1e-13, limit=200)
    return 2 * value

  expectation = {'relu': relu_expectation, 'erf': erf_expectation}[activation]
  k11, k12, k22 = first(x1, x1), first(x1, x2), first(x2, x2)
  for _ in range(num_hidden_layers):
    k12 = weight_std**2 * expectation(k11, k12, k22)
    k11, k22 = weight_std**2 * square(k11), weight_std**2 * square(k22)
  return k12


def random_mlp_outputs(x: np.ndarray, num_networks: int, width: int,
                       weight_std: float, first_bias: float,
                       rng: np.random.Generator) -> np.ndarray:
  """Outputs [num_networks, n] of random two-hidden-layer ReLU MLPs at x."""
  input_dim = x.shape[1]
  outputs = []
  for _ in range(num_networks):
    weights = [rng.standard_normal(shape) * weight_std / np.sqrt(shape[0])
               for shape in ((input_dim, width), (width, width), (width, 1))]
    bias = rng.standard_normal(width) * first_bias / np.sqrt(input_dim)
    hidden = np.maximum(x @ weights[0] + bias, 0)
    hidden = np.maximum(hidden @ weights[1], 0)
    outputs.append((hidden @ weights[2])[:, 0])
  return np.array(outputs)


def gp_posterior(kernel: np.ndarray, cross: np.ndarray, prior: np.ndarray,
                 y: np.ndarray, noise_variance: float
                 ) -> tuple[np.ndarray, np.ndarray]:
  """Posterior mean [n] and covariance [n, n], by explicit inverse.

  Args:
    kernel: k(x_train, x_train), [T, T].
    cross: k(x, x_train), [n, T].
    prior: k(x, x), [n, n].
    y: [T].
    noise_variance: of y.
  """
  inverse = np.linalg.inv(kernel + noise_variance * np.eye(len(kernel)))
  return cross @ inverse @ y, prior - cross @ inverse @ cross.T
