"""What joint covariances must be beside the stds of the same points."""

import numpy as np

# Of covariances, as shares of the largest variance of a block: computed in
# float32, or by a solver that stops at a tolerance.
_ASYMMETRY, _NEGATIVE, _SMALL_VARIANCE = 1e-4, 1e-4, 1e-4
_OF_VARIANCE = 1e-2  # A share of the variance itself.


def check_covariances(covariances: np.ndarray, std: np.ndarray) -> None:
  """Joint covariances fit the stds, and could be covariances.

  Args:
    covariances: of B blocks of neighbouring points, [B, n, n].
    std: of each point, [N] with N >= B n.

  Raises:
    ValueError: they are not symmetric, have other variances, or are not
      positive semidefinite; where they are finite.
  """
  num_blocks, size = covariances.shape[:2]
  variances = np.square(std[:num_blocks * size], dtype=np.float64)
  if not (np.isfinite(covariances).all() and np.isfinite(variances).all()):
    return  # A score that is not finite says so.
  covariances = np.asarray(covariances, np.float64)
  variances = variances.reshape(num_blocks, size)
  scale = np.maximum(variances.max(axis=1), np.finfo(np.float64).tiny)
  difference = np.abs(covariances - covariances.swapaxes(1, 2)).max(axis=(1, 2))
  if (difference > _ASYMMETRY * scale).any():
    raise ValueError('covariances must be symmetric, got entries that differ '
                     f'from their mirror images by {difference.max():.3g}.')
  own = np.diagonal(covariances, axis1=1, axis2=2)
  far = np.abs(own - variances) > (_OF_VARIANCE * variances
                                   + _SMALL_VARIANCE * scale[:, None])
  if far.any():
    raise ValueError(
        'covariances must have std^2 on their diagonals, got '
        f'{own[far][0]:.3g} where std^2 is {variances[far][0]:.3g}.')
  ridge = _NEGATIVE * scale[:, None, None] * np.eye(size)
  try:
    np.linalg.cholesky(covariances + ridge)
  except np.linalg.LinAlgError:
    raise ValueError('covariances must be positive semidefinite, got a '
                     'negative eigenvalue.') from None
