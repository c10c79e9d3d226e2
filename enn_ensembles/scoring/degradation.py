"""Predictions that are worse by a known amount: what a board should notice.

The power of a board's statistics is how often they see a difference that is
there. So an agent's second training is made worse on purpose: all its draws are
moved by the same noise at each point, with the scale that makes its KL larger
by the share that is asked for, on every problem.
"""

from typing import Any

import jax
import numpy as np
from scipy import optimize

from enn_ensembles import base
from enn_ensembles.scoring import gaussian

# fold_in constant of the evaluation key; draws of indices count up from 0.
_NOISE_KEY = 2**31 + 7


def degrade(predict: base.Predict, problem: Any, share: float,
            key: Any) -> base.Predict:
  """Predictions whose KL at the test points is larger by a share.

  Args:
    predict: predictions of an agent.
    problem: an NNGP problem.
    share: by how much, 0.1 for 10 %.
    key: the evaluation key of the problem's seed.

  Returns:
    Predictions moved by s posterior stds times a standard normal per point,
    the same for all draws; s makes the KL exactly so much larger. At points
    other than x_test the mean of the stds at x_test stands for each.

  Raises:
    ValueError: the problem has no exact posterior.
  """
  if problem.score_set != 'nngp':
    raise ValueError('degrade needs a problem with an exact posterior, got '
                     f'{problem.problem_id}.')
  mean, std = gaussian.prediction_moments(predict(problem.x_test))
  noise = _normals(key, len(mean)) * problem.test_std

  def kl(scale: float) -> float:
    return float(np.mean(gaussian.gaussian_kl(
        problem.test_mean, problem.test_std + gaussian.STD_RIDGE,
        mean + scale * noise, std + gaussian.STD_RIDGE)))

  target = (1. + share) * kl(0.)
  excess = lambda scale: kl(scale) - target
  upper = 1.
  while excess(upper) < 0:
    upper *= 2.
  scale = optimize.brentq(excess, 0., upper)
  typical = float(np.mean(problem.test_std))

  def predict_worse(x: base.Array) -> base.Predictions:
    found = predict(x)
    shift = noise if x is problem.x_test else (
        _normals(key, len(x)) * typical)
    shift = scale * shift[:, None]
    if found.samples is None:
      return found._replace(mean=found.mean + shift)
    return found._replace(samples=np.asarray(found.samples, np.float64) + shift)

  return predict_worse


def _normals(key: Any, num: int) -> np.ndarray:
  seed = np.asarray(jax.random.fold_in(key, _NOISE_KEY)).tolist()
  return np.random.default_rng(seed).standard_normal(num)
