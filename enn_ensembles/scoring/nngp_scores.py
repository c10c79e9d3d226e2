"""All scores of an NNGP problem: from what an agent predicts to a row's dict.

An agent is asked twice: at the test points, for the scores of marginals and of
blocks of neighbouring test points, and at the problem's dyadic points, for the
joint score of points that lie close together. Whatever the agent returns enters
as a Gaussian, with the mean and the (co)variance (ddof=0) of its samples, or
with its exact moments: its predictive distribution of a label is the Gaussian
plug-in, not the mixture over samples.
"""

from typing import Any
from typing import Protocol

import numpy as np

from enn_ensembles import base
from enn_ensembles.scoring import distribution_scores
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import joint
from enn_ensembles.scoring import noise_scores
from enn_ensembles.scoring import prediction_checks
from enn_ensembles.scoring import prediction_counts

# Points of a block of neighbouring test points, per joint score.
_TAUS = (2, 10)
# Central intervals of f whose coverage is scored, in percent.
_LEVELS = (50, 90, 99)


class ScoredProblem(Protocol):
  """What the scores need of a problem; see `problems.Problem`."""
  x_test: np.ndarray
  test_mean: np.ndarray
  test_std: np.ndarray
  test_covariances: np.ndarray
  noise_std: Any  # A number, or [N] where it depends on the input.
  y_test: np.ndarray | None
  f_test: np.ndarray | None
  x_dyadic: np.ndarray | None
  dyadic_mean: np.ndarray | None
  dyadic_covariances: np.ndarray | None


def score(problem: ScoredProblem, predict: base.Predict,
          counts: dict[str, prediction_counts.Counts] | None = None
          ) -> dict[str, float]:
  """Scores of one problem by name; what each is stands in `scoring.table`.

  Scores that a problem or an agent has no data for are left out: those of
  labels without labels, joint ones of an agent that gives exact moments without
  covariances. Scores may be infinite or nan; nothing is clipped or filled.

  Args:
    problem: with its exact posterior.
    predict: x [N, D] -> `base.Predictions` there.
    counts: takes what rows keep of the predictions at the test points, under
      'test': the probability integral transform, where f is known.

  Raises:
    ValueError: predictions have another shape than their points call for, or
      are no predictions.
  """
  predictions = predict(problem.x_test)
  mean, std = _moments(predictions, len(problem.x_test))
  num_samples = predictions.num_samples
  with np.errstate(all='ignore'):  # Diverged agents score inf or nan.
    scores = gaussian.posterior_scores(
        mean, std, problem.test_mean, problem.test_std,
        num_samples=num_samples)
    scores |= _distribution_scores(problem, predictions, mean, std)
    scores |= _neighbour_scores(problem, predictions, mean)
    if counts is not None and problem.f_test is not None:
      counts['test'] = prediction_counts.count_transform(
          problem.f_test[:, 0], mean, std)
    if predictions.observation_variances is not None:
      scores |= noise_scores.split_scores(
          predictions, problem.noise_std, problem.test_std,
          None if problem.y_test is None else problem.y_test[:, 0])
  if problem.x_dyadic is not None:
    predictions = predict(problem.x_dyadic)
    mean, _ = _moments(predictions, len(problem.x_dyadic))
    with np.errstate(all='ignore'):
      scores |= _dyadic_scores(problem, predictions, mean)
  return scores


def _moments(predictions: base.Predictions,
             num_points: int) -> tuple[np.ndarray, np.ndarray]:
  """Mean and std [N] of the predictions at N points, which are checked."""
  prediction_checks.check(predictions, num_points, num_outputs=1)
  return gaussian.prediction_moments(predictions)


def _distribution_scores(problem: ScoredProblem, predictions: base.Predictions,
                         mean: np.ndarray, std: np.ndarray
                         ) -> dict[str, float]:
  """Scores that one network has too, and calibration."""
  true_mean, true_std = problem.test_mean, problem.test_std
  noise_variance = problem.noise_std**2
  if predictions.observation_variances is not None:
    noise_variance = np.average(
        np.asarray(predictions.observation_variances, np.float64), axis=0,
        weights=predictions.weights)[:, 0]
  label_std = np.sqrt(std**2 + noise_variance)
  true_label_std = np.sqrt(true_std**2 + problem.noise_std**2)
  scores = {
      'wasserstein': np.mean(distribution_scores.wasserstein(
          true_mean, true_std, mean, std)),
      'wasserstein_floor': (
          0. if predictions.num_samples is None else
          distribution_scores.wasserstein_floor(predictions.num_samples)),
      'crps_excess_expected': np.mean(
          distribution_scores.expected_crps(true_mean, true_label_std, mean,
                                            label_std)
          - distribution_scores.expected_crps(true_mean, true_label_std,
                                              true_mean, true_label_std)),
      'log_score_excess_expected': np.mean(gaussian.gaussian_kl(
          true_mean, true_label_std, mean, label_std)),
  }
  if problem.y_test is not None:
    labels = problem.y_test[:, 0]
    for name, of in (('crps', distribution_scores.crps),
                     ('log_score', distribution_scores.log_score)):
      scores[f'{name}_excess'] = np.mean(
          of(labels, mean, label_std)
          - of(labels, true_mean, true_label_std))
  if problem.f_test is not None:
    for level in _LEVELS:
      scores[f'coverage_{level}'] = distribution_scores.interval_coverage(
          problem.f_test[:, 0], mean, std, level / 100.)
  return {name: float(value) for name, value in scores.items()}


def _neighbour_scores(problem: ScoredProblem, predictions: base.Predictions,
                      mean: np.ndarray) -> dict[str, float]:
  """Joint KL of f at blocks of neighbouring test points, and its floor."""
  largest = problem.test_covariances.shape[1]
  if not len(problem.test_covariances):  # There are fewer points than a block.
    return {}
  covariances = _block_covariances(predictions, largest)
  if covariances is None:
    return {}
  num = len(covariances) * largest
  scores = {}
  for tau in _TAUS:
    true, found = (
        joint.add_std_ridge(joint.cut_blocks(blocks, tau), gaussian.STD_RIDGE)
        for blocks in (problem.test_covariances, covariances))
    kl = joint.kl(problem.test_mean[:num].reshape(-1, tau), true,
                  mean[:num].reshape(-1, tau), found)
    name = f'joint_kl_tau{tau}'
    num_samples = predictions.num_samples
    scores[name] = float(np.mean(kl))
    scores[f'{name}_floor'] = 0.
    if num_samples is not None:
      scores[f'{name}_floor'] = joint.finite_sample_floor(num_samples, tau)
      if num_samples <= tau and not np.isnan(kl).any():
        # The covariance is singular, which rounding may hide.
        scores[name] = float('inf')
  return scores


def _dyadic_scores(problem: ScoredProblem, predictions: base.Predictions,
                   mean: np.ndarray) -> dict[str, float]:
  """Joint KL of labels at dyadic blocks, and its floor.

  noise_std^2 I is added to both covariances, whatever the agent says of noise.
  """
  true = problem.dyadic_covariances
  assert true is not None and problem.dyadic_mean is not None
  tau = true.shape[1]
  covariances = _block_covariances(predictions, tau)
  if covariances is None:
    return {}
  noise = problem.noise_std**2 * np.eye(tau)
  kl = joint.kl(problem.dyadic_mean, true + noise, mean.reshape(-1, tau),
                covariances + noise)
  num_samples = predictions.num_samples
  return {
      f'joint_kl_dyadic_tau{tau}': float(np.mean(kl)),
      f'joint_kl_dyadic_tau{tau}_floor': (
          0. if num_samples is None
          else joint.label_floor(true, problem.noise_std, num_samples))}


def _block_covariances(predictions: base.Predictions, tau: int
                       ) -> np.ndarray | None:
  """Covariances [N // tau, tau, tau]; None where nobody knows them."""
  if predictions.samples is not None:
    return joint.sample_blocks(np.asarray(predictions.samples)[..., 0], tau,
                               predictions.weights)[1]
  if predictions.covariances is None:
    return None
  covariances = np.asarray(predictions.covariances, np.float64)
  num_points = len(predictions.mean)
  if covariances.shape == (1, num_points, num_points):
    whole = num_points // tau * tau
    covariances = covariances[:, :whole, :whole]
  num_blocks, size = covariances.shape[:2]
  if (covariances.shape != (num_blocks, size, size) or size % tau
      or num_blocks * size != num_points // tau * tau):
    raise ValueError(
        f'covariances at {num_points} points must have shape [1, {num_points}, '
        f'{num_points}], or [B, n, n] with n a multiple of {tau}, got '
        f'{list(predictions.covariances.shape)}.')
  return joint.cut_blocks(covariances, tau)
