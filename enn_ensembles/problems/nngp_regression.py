"""NNGP regression: what names a problem, and what a problem holds.

A problem is regression on data from a function f drawn from the NNGP, y = f +
noise_std n, with the exact posterior of f at 1000 test and 1000 validation
points (Osband et al. 2021, arXiv 2107.08924), and labels at both: at the former
for scores that need no posterior, at the latter for methods that select
something. At dyadic points, which lie close together, it has the joint
posterior.
"""

import dataclasses
import functools
from typing import Any
from typing import NamedTuple

import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.machine import canonical
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import draws
from enn_ensembles.scoring import curves
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import nngp_scores
from enn_ensembles.scoring import prediction_counts

# Points whose joint covariance is kept: of neighbouring test points, which are
# nearly independent, and of the points of a dyadic block.
JOINT_TAU = 10

# Dyadic blocks, of JOINT_TAU points each.
NUM_DYADIC_BLOCKS = 30
# About the cosine between a point and its anchor. Values of f around one anchor
# then have a mean posterior correlation of 0.50 (at input_dim 10, data_ratio
# 100, noise_std 0.01) to 0.89 (at 10, 1, 1), neighbouring test points of 0.00
# to 0.34 (seed 0 of five cells, three noise levels each).
DYADIC_COSINE = 0.95

_SMALLEST_NOISE_STD, _LARGEST_NOISE_STD = 1e-6, 1e6


def check_noise_std(name: str, value: Any) -> None:
  """`value` is a noise level at which the posterior can be computed.

  Below 1e-6 rounding moves its mean: D_x = 10, T = 1000 and 1e-10 by 0.14 stds,
  1e-6 by 1.4e-5.
  """
  checks.check_positive(name, value, _LARGEST_NOISE_STD)
  if value < _SMALLEST_NOISE_STD:
    raise ValueError(f'{name} must be at least {_SMALLEST_NOISE_STD:g}, got '
                     f'{value!r}.')


@dataclasses.dataclass(frozen=True)
class ProblemConfig:
  """Names one problem.

  Attributes:
    input_dim: D_x.
    data_ratio: lambda; there are T = D_x lambda training points.
    noise_std: epsilon, the std of the noise in y.
    seed: which draw of the problem.
    reference: the noise variance of the ground truth: 'bayes', the true one, or
      'enn2021', that of published numbers (`posterior.noise_variance`).
    kernel: the prior that f is drawn from.
    num_test: test points.
    num_val: validation points.
  """
  input_dim: int
  data_ratio: float
  noise_std: float
  seed: int
  reference: str = 'bayes'
  kernel: kernels.KernelConfig = kernels.KernelConfig()
  num_test: int = 1000
  num_val: int = 1000

  def __post_init__(self):
    checks.check_count('input_dim', self.input_dim)
    checks.check_positive('data_ratio', self.data_ratio)
    check_noise_std('noise_std', self.noise_std)
    draws.check_seed('seed', self.seed)
    checks.check_choice('reference', self.reference, posterior.REFERENCES)
    if not isinstance(self.kernel, kernels.KernelConfig):
      raise ValueError(f'kernel must be a KernelConfig, got {self.kernel!r}.')
    checks.check_count('num_test', self.num_test)
    checks.check_count('num_val', self.num_val)
    # A float of input_dim * data_ratio may be infinite.
    checks.check_positive('input_dim * data_ratio',
                          self.input_dim * float(self.data_ratio))
    if self.num_train < 1:
      raise ValueError(
          'input_dim * data_ratio must be at least one training point, got '
          f'{self.input_dim} * {self.data_ratio:g}.')

  @property
  def num_train(self) -> int:
    """T, the whole part of input_dim * data_ratio."""
    # Rounded first: 100 * 0.29 is 28.999999999999996.
    return int(round(self.input_dim * self.data_ratio, 9))

  @property
  def problem_id(self) -> str:
    """Readable and unique, e.g. 'D10_l1_e0.01_s0_bayes'.

    A kernel or sizes other than the default add a hash of them.
    """
    name = (f'D{self.input_dim}_l{number(self.data_ratio)}'
            f'_e{number(self.noise_std)}_s{self.seed}_{self.reference}')
    return name + self.settings_suffix

  @property
  def settings_suffix(self) -> str:
    """Empty for the default kernel and sizes, else a hash of them."""
    rest = {key: getattr(self, key)
            for key in ('kernel', 'num_test', 'num_val')}
    if rest == {key: getattr(ProblemConfig, key) for key in rest}:
      return ''
    return f'_{canonical.config_hash(rest)}'


@dataclasses.dataclass(frozen=True)
class GroundTruth:
  """How a posterior was computed, and how exact it is.

  Attributes:
    solver: 'dense' or 'matrix_free'.
    residual: |y_train - (K + s^2 I) weights| / |y_train|.
    mean_error: bound of |mean - exact mean| / std over all points.
    std_error: the same of |std - exact std| / exact std; of 'dense' the
      rounding error at a few points.
    seconds: wall time of its computation, shared evenly by the noise levels
      that were computed together; the draw of f apart.
  """
  solver: str
  residual: float
  mean_error: float
  std_error: float
  seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
  """Data, and the exact posterior to compare an agent with.

  All arrays are float64 numpy, and read-only: problems that differ in their
  noise level only share x_train, x_test and x_val.

  Attributes:
    config: None for data that somebody brought.
    x_train: [T, D].
    y_train: [T, 1].
    x_test: [num_test, D].
    x_val: [num_val, D].
    test_mean: posterior mean of the noise-free function at x_test, [num_test].
    test_std: its std, sqrt(variance + 1e-6), [num_test].
    val_mean: the same at x_val, [num_val].
    val_std: [num_val].
    y_val: labels at x_val, made like y_train, [num_val, 1]; None where brought
      data have none. Agents do not see them.
    test_covariances: joint posterior covariances, ridge included, of
      neighbouring test points, [num_test // tau, tau, tau] with tau =
      JOINT_TAU.
    weights: (K + s^2 I)^-1 y_train, [T]: what any posterior mean is made from.
    ground_truth: how the posterior was computed.
    noise_std: epsilon.
    reference: whose noise variance the posterior assumes.
    kernel: the prior of the posterior.
    y_test: labels at x_test, made like y_train, [num_test, 1]; None for brought
      data. Agents do not see them, nor what follows.
    f_test: the function there, without noise, [num_test, 1]; None likewise.
    x_dyadic: dyadic points, see `dyadic_points`, [num_blocks * tau, D]; None
      for brought data, as the next two.
    dyadic_mean: posterior means there, [num_blocks, tau].
    dyadic_covariances: joint posterior covariances, ridge included,
      [num_blocks, tau, tau].
  """
  config: ProblemConfig | None
  x_train: np.ndarray
  y_train: np.ndarray
  x_test: np.ndarray
  x_val: np.ndarray
  test_mean: np.ndarray
  test_std: np.ndarray
  val_mean: np.ndarray
  val_std: np.ndarray
  y_val: np.ndarray | None
  test_covariances: np.ndarray
  weights: np.ndarray
  ground_truth: GroundTruth
  noise_std: float
  reference: str
  kernel: kernels.KernelConfig
  y_test: np.ndarray | None = None
  f_test: np.ndarray | None = None
  x_dyadic: np.ndarray | None = None
  dyadic_mean: np.ndarray | None = None
  dyadic_covariances: np.ndarray | None = None

  score_set = 'nngp'

  @property
  def data(self) -> base.Data:
    """What an agent learns from."""
    return base.Data(x=self.x_train, y=self.y_train)

  @property
  def prior(self) -> base.PriorKnowledge:
    """What an agent is told besides."""
    return base.PriorKnowledge(
        input_shape=self.x_train.shape[1:], num_train=len(self.x_train),
        likelihood=base.Gaussian(self.noise_std), kernel=self.kernel)

  @property
  def validation(self) -> base.Data | None:
    """Labels at x_val; None where brought data have none."""
    return None if self.y_val is None else base.Data(self.x_val, self.y_val)

  def score(self, predict: base.Predict) -> dict[str, float]:
    """Scores against the exact posterior; see `base.Problem`."""
    return self.score_and_count(predict, {})

  def score_and_count(self, predict: base.Predict,
                      counts: dict[str, prediction_counts.Counts]
                      ) -> dict[str, float]:
    """As `score`; `counts` takes what rows keep of the predictions."""
    return nngp_scores.score(self, predict, counts)

  def score_curve(self, predict: base.Predict,
                  order: np.ndarray) -> dict[str, np.ndarray]:
    """KL both ways of the first 1, 2, ..., P members of an order, [P] each.

    Raises:
      array_checks.NotFiniteError: predictions are not finite.
    """
    samples = predict(self.x_test).samples
    assert samples is not None  # Exact moments have no curve.
    return curves.evaluate_curve(
        samples[..., 0], order, self.test_mean,
        self.test_std, std_ridge=gaussian.STD_RIDGE)._asdict()

  @functools.cached_property
  def problem_id(self) -> str:
    """That of the config; for brought data 'data_' and a hash of it.

    The matrix-free solver draws another f: its problems have another name.
    """
    if self.config is not None:
      return self.config.problem_id + SOLVER_SUFFIX[self.ground_truth.solver]
    digest = draws.digest(self.x_train, self.y_train, self.x_test, self.x_val)
    return 'data_' + canonical.config_hash(
        [digest, self.noise_std, self.reference, self.kernel])


def dyadic_points(normals: np.ndarray) -> np.ndarray:
  """Blocks of points around two anchors each, where f is strongly correlated.

  Test points are independent draws: what f is at one says little of f at the
  next, and a joint score over them adds little to the marginal one. Osband et
  al. 2022 ("Evaluating high-order predictive distributions in deep learning",
  arXiv 2202.13509) draw the tau points of a block from two anchors. Here they
  lie around them, so that the score also sees how smooth functions are: the
  first half of a block around one anchor a ~ N(0, I), the others around a
  second one, at c a + sqrt(1 - c^2) n with c = DYADIC_COSINE and n ~ N(0, I).
  Every point is N(0, I), like a test point.

  Args:
    normals: [NUM_DYADIC_BLOCKS, 2 + JOINT_TAU, D] standard normals, two anchors
      first.

  Returns:
    [NUM_DYADIC_BLOCKS * JOINT_TAU, D].
  """
  anchors = np.repeat(normals[:, :2], JOINT_TAU // 2, axis=1)
  points = (DYADIC_COSINE * anchors
            + np.sqrt(1. - DYADIC_COSINE**2) * normals[:, 2:])
  return points.reshape(-1, normals.shape[-1])


def number(value: float) -> str:
  """A number in a name: 1.0 as '1', others as Python writes them."""
  return canonical.canonical_json(value)


class Solved(NamedTuple):
  """Moments at x_test and x_val, one after the other, and their origin."""
  moments: posterior.Moments
  ground_truth: GroundTruth


def make_problem(config: ProblemConfig | None, x_train: np.ndarray,
                 y_train: np.ndarray, x_test: np.ndarray, x_val: np.ndarray,
                 y_val: np.ndarray | None, solved: Solved,
                 noise_std: float, reference: str,
                 kernel: kernels.KernelConfig,
                 y_test: np.ndarray | None = None,
                 f_test: np.ndarray | None = None,
                 x_dyadic: np.ndarray | None = None) -> Problem:
  """A problem from its draws and its posterior; makes the arrays read-only.

  Args:
    config: what was drawn; None for data that somebody brought.
    x_train: [T, D] float64.
    y_train: [T, 1] float64.
    x_test: [N, D] float64.
    x_val: [M, D] float64.
    y_val: [M, 1] float64, or None.
    solved: the posterior at x_test and then x_val, [N + M].
    noise_std: std of the labels' noise.
    reference: 'bayes' or 'enn2021'.
    kernel: the prior.
    y_test: labels at x_test, [N, 1] float64, or None.
    f_test: f at x_test, [N, 1] float64, or None.
    x_dyadic: points of the joint score, [B, D] float64, or None.
  """
  num_test, moments = len(x_test), solved.moments
  arrays = dict(
      x_train=x_train, y_train=y_train, x_test=x_test, x_val=x_val, y_val=y_val,
      test_mean=moments.mean[:num_test], test_std=moments.std[:num_test],
      val_mean=moments.mean[num_test:], val_std=moments.std[num_test:],
      test_covariances=moments.covariances, weights=moments.weights,
      y_test=y_test, f_test=f_test, x_dyadic=x_dyadic)
  if moments.joint is not None:
    arrays.update(dyadic_mean=moments.joint.mean,
                  dyadic_covariances=moments.joint.covariances)
  for array in arrays.values():
    if array is not None:
      array.flags.writeable = False
  return Problem(config=config, noise_std=noise_std, reference=reference,
                 kernel=kernel, ground_truth=solved.ground_truth, **arrays)


# What names of problems add for a solver that draws another f.
SOLVER_SUFFIX = {'dense': '', 'matrix_free': '_matrix_free'}
