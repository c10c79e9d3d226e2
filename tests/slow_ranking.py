"""Greedy rankings in slow loops over scipy densities, and cases to rank."""

import numpy as np
from scipy import stats

RIDGE = 1e-3


def cross_entropy(mean_p, std_p, mean_q, std_q):
  """E_p[-log q] by Gauss-Hermite quadrature, exact for a quadratic log q."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(4)
  points = mean_p + std_p * nodes[:, None]
  density = stats.norm.logpdf(points, mean_q, std_q)
  return -(weights @ density) / weights.sum()


def kl_of(mean_p, std_p, mean_q, std_q):
  return np.mean(cross_entropy(mean_p, std_p, mean_q, std_q)
                 - cross_entropy(mean_p, std_p, mean_p, std_p))


def oracle_score(mean, std):
  return lambda chosen: kl_of(
      mean, std + RIDGE, chosen.mean(0), chosen.std(0) + RIDGE)


def reverse_score(mean, std):
  return lambda chosen: kl_of(
      chosen.mean(0), chosen.std(0) + RIDGE, mean, std + RIDGE)


def nll_score(labels, noise_std):
  return lambda chosen: -np.mean(stats.norm.logpdf(
      labels, chosen.mean(0),
      np.sqrt((chosen.std(0) + RIDGE) ** 2 + noise_std ** 2)))


def slow_order(predictions, score_of):
  """Greedy by two loops; a later candidate wins only if strictly better."""
  order, scores = [], []
  while len(order) < len(predictions):
    best, best_score = None, np.inf
    for j in range(len(predictions)):
      if j not in order:
        score = score_of(predictions[order + [j]])
        if best is None or score < best_score:
          best, best_score = j, score
    order.append(best)
    scores.append(best_score)
  return np.array(order), np.array(scores)


def make_case(seed, num_samples=9, num_x=30):
  rng = np.random.RandomState(seed)
  mean = rng.randn(num_x)
  std = 0.3 * np.exp(0.5 * rng.randn(num_x))
  bias = 0.2 * rng.randn(num_x)
  predictions = mean + bias + 0.4 * rng.randn(num_samples, num_x)
  labels = mean + 0.1 * rng.randn(num_x)
  return predictions, mean, std, labels
