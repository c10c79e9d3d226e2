"""The phases of the matrix-free solver: variances, a function, means.

`matrix_free` says what is computed, and why its bounds hold.
"""

from collections.abc import Sequence

import numpy as np

from enn_ensembles.nngp import calibration
from enn_ensembles.nngp import conjugate_gradients
from enn_ensembles.nngp import features as features_lib
from enn_ensembles.nngp import galerkin_draws
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import krylov as krylov_lib
from enn_ensembles.nngp import lanczos as lanczos_lib
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import solution as solution_lib
from enn_ensembles.nngp import solver_means
from enn_ensembles.nngp import solver_passes
from enn_ensembles.nngp import tall

# Rows of R that are recomputed in float64 to measure the error of the tiles.
_NUM_CHECKED_ROWS = 64
# Rows of the equations that tell how well the weights solve them.
_NUM_RESIDUAL_ROWS = 256
_MAX_CG_STEPS = 200
_MAX_LANCZOS_STEPS = 300
# Of what means may err, the share that residuals may take; what rounds them
# comes on top.
_RESIDUAL_SHARE = 0.5
# Bounds, as multiples of what is allowed, that calibration may bring down.
_MAX_CALIBRATED = 1000.


class _LargerCosineError(Exception):
  """A cosine between training points is beyond what tiles are made for."""

  def __init__(self, largest: float):
    super().__init__(largest)
    self.largest = largest


class Solver(solver_passes.Passes):
  """One call of `solve`: its phases in order."""

  def run(self) -> solution_lib.Solution:
    """All phases, each from its checkpoint where there is one."""
    self._check_memory(4)
    saved = self._load('cosines')
    largest = None if saved is None else float(saved['largest'])
    try:
      return self._run(largest)
    except _LargerCosineError as error:
      # Tiles did not reach that far. Rare: points that are nearly the same.
      self._save('cosines', largest=error.largest)
      return self._run(error.largest)

  def _run(self, largest_cosine: float | None) -> solution_lib.Solution:
    """The same, with tiles for a largest cosine; None guesses it."""
    self._set_remainder(largest_cosine)
    self._features = features_lib.TrainFeatures(self._split, self._x_train)
    self._krylov = krylov_lib.Krylov(
        kernels.nngp_diag(self._kernel, self._x_eval),
        min(_NUM_CHECKED_ROWS, len(self._x_train)))
    # Per noise level, and where f is drawn elsewhere for its jitter.
    self._levels = np.append(
        self._noise_variances,
        [] if self._arguments.normals_eval is None else posterior.SAMPLE_JITTER)
    self._calibration: calibration.Calibration | None = None
    self._lanczos = None
    if self._drawn:
      self._lanczos = lanczos_lib.Lanczos(self._normals[:len(self._x_train)])
    history, stds = self._run_variances()
    function_error = 0.
    if self._drawn:
      function_error = self._run_function()
    return self._make_solution(history, stds, function_error,
                               self._run_means())

  def _take_survey(self, survey: remainder.Survey | None) -> None:
    """What bounds need to know of R; None where it needs no survey."""
    if survey is not None and not self._split.accept(survey):
      raise _LargerCosineError(survey.largest)
    # Residuals are measured such that their squares bound r^T A^-1 r at the
    # smallest noise; other levels divide by a factor.
    self._metric = self._split.eigenvalue_bounds + np.min(self._noise_variances)
    self._krylov.scales = 1 / np.sqrt(self._metric)
    if self._lanczos is not None:
      self._lanczos.eigenvalue_bound = self._eigenvalue_bound

  def _run_variances(self) -> tuple[np.ndarray, np.ndarray]:
    """Block steps until the stds are exact enough.

    Lanczos' method for f takes a step in every pass.

    Returns:
      Bounds [steps, E] and stds [steps, E, n].
    """
    krylov = self._krylov
    saved = self._load('step_0')
    if saved is None or saved['block'].dtype != self._split.dtype:
      extra = (self._targets if self._targets is not None else
               np.stack([self._normals[:len(self._x_train)], self._noise]))
      krylov.start(self._features, self._split.features(self._x_eval),
                   self._cross, extra.T, self._split.dtype)
      self._save('step_0', block=krylov.blocks[0], features=krylov.features,
                 sides=krylov.sides, rest=krylov.rest)
    else:
      krylov.set_start(**saved)
    history, stds = [], []
    while True:
      step, survey, outside = len(krylov.blocks), None, np.zeros(0)
      saved = self._load(f'step_{step}')
      if saved is not None:
        if step == 1:
          self._take_survey(remainder.Survey.from_arrays(saved))
        self._calibration = calibration.from_arrays(saved)
        history.append(saved['bounds'])
        stds.append(saved['stds'])
        krylov.restore(saved)
        if self._lanczos is not None:
          self._lanczos.restore(saved)
      else:
        product, row_errors, survey = self._block_product(survey=step == 1)
        outside = krylov.take(product, row_errors)
        del product
        self._calibration = None
        found = self._all_stds()
        if (self._remainder.rounds and 1 < np.max(found[0])
            / self._config.std_tolerance < _MAX_CALIBRATED):
          self._calibrate(outside)
          found = self._all_stds()
        history.append(found[0])
        stds.append(found[1])
      error = float(np.max(history[-1])) / self._config.std_tolerance
      full = (step == self._config.max_block_steps
              or self._memory_mb(step + 1) > self._config.memory_budget_mb)
      if saved is None:
        if error > 1 and not full:
          self._keep_tiles(step + 1)
          krylov.expand(outside,
                        self._noise_variances[np.argmax(history[-1])])
        del outside
        lanczos = {} if self._lanczos is None else self._lanczos.state()
        surveyed = {} if survey is None else survey.arrays()
        self._save(f'step_{step}', bounds=history[-1], stds=stds[-1],
                   **calibration.arrays(self._calibration), **krylov.state(),
                   **lanczos, **surveyed)
        self._tell('variances', step, error)
      if len(krylov.blocks) == step:
        return np.array(history), np.array(stds)

  def _block_product(self, survey: bool) -> tuple[
      np.ndarray, np.ndarray, remainder.Survey | None]:
    """R Q_j [T, b_j] of the last block, its errors at some rows, a survey.

    The errors are those of `krylov.row_errors`, against rows of R made in
    float64. The survey is None unless it is asked for and needed.
    """
    wanted = [self._krylov.blocks[-1]]
    if self._lanczos is not None:
      wanted.append(self._lanczos.wanted())
    found = None
    if survey:
      self._num_passes += 1
      products, found = self._remainder.apply_and_survey(*wanted)
      self._take_survey(found)
    else:
      products = self._apply(*wanted)
    rows = self._some_rows(_NUM_CHECKED_ROWS)
    exact = kernels.nngp(self._kernel, self._x_train[rows], self._x_train)
    exact -= self._features.times(self._features.rows(rows).T).T
    scale = np.sqrt(len(self._x_train) / len(rows))
    errors = [scale * (product[rows] - tall.inner(exact.T, vectors))
              for product, vectors in zip(products, wanted, strict=True)]
    if self._lanczos is not None:
      self._lanczos.product_error = np.maximum(
          self._lanczos.product_error, np.linalg.norm(errors[1]))
      self._lanczos.take(products[1])
    return products[0], errors[0], found

  def _calibrate(self, outside: np.ndarray) -> None:
    """Narrows the intervals of variances down; see `calibration`."""
    self._calibration = calibration.calibrate(
        self._krylov, outside, self._levels, self._make_gradients,
        self._apply_beside_lanczos)

  def _apply_beside_lanczos(self, vectors: np.ndarray) -> np.ndarray:
    """R vectors; where f is still to be drawn, its method takes a step too."""
    lanczos = self._lanczos
    if lanczos is None or lanczos.error() <= self._config.function_tolerance:
      return self._apply(vectors)[0]
    product, own = self._apply(vectors, lanczos.wanted())
    lanczos.take(own)
    return product

  def _make_gradients(self, variances: np.ndarray
                      ) -> conjugate_gradients.ConjugateGradients:
    return conjugate_gradients.ConjugateGradients(
        self._features, variances, float(np.mean(self._remainder.diagonal)),
        self._krylov.scales)

  def _all_stds(self) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [E] and stds [E, n] of all noise levels."""
    found = [self._stds(self._krylov.variances(self._krylov.factor(variance)),
                        level)
             for level, variance in enumerate(self._noise_variances)]
    return (np.array([bound for _, bound in found]),
            np.stack([std for std, _ in found]))

  def _stds(self, solved: krylov_lib.Galerkin, level: int
            ) -> tuple[np.ndarray, float]:
    """Stds [n], ridge included, and a bound of their largest relative error."""
    factor = self._metric_factor(self._levels[level])
    low, high = 0., factor
    if self._calibration is not None:
      center, radius = (values[level] for values in self._calibration)
      low, high = max(center - radius, 0.), min(center + radius, factor)
    squares = solved.residual_squares
    # Residuals may be longer than they are computed to be.
    rounding = solved.rounding + factor * (solved.residual_norms**2 - squares)
    lowest = np.maximum(solved.variances - high * squares - rounding, 0.)
    highest = np.maximum(solved.variances - low * squares + rounding, 0.)
    lowest, middle, highest = (
        np.sqrt(values + posterior.KERNEL_RIDGE)
        for values in (lowest, 0.5 * (lowest + highest), highest))
    return middle, float(np.max(
        np.maximum(middle / lowest - 1, 1 - middle / highest)))

  def _center(self, level: int) -> float:
    """What `Krylov.explained` adds: nothing where nothing is known of it."""
    return (0. if self._calibration is None
            else float(self._calibration.centers[level]))

  def _metric_factor(self, noise_variance: float) -> float:
    """At most this times a squared norm in our metric bounds r^T A^-1 r."""
    bounds = self._split.eigenvalue_bounds + noise_variance
    return float(np.max(self._metric / bounds))

  @property
  def _eigenvalue_bound(self) -> float:
    return float(np.min(self._split.eigenvalue_bounds))

  def _run_function(self) -> float:
    """Lanczos steps until f is exact enough, its error; makes the targets."""
    lanczos = self._lanczos
    assert lanczos is not None  # What is drawn has one.
    saved = self._load('function')
    if saved is not None:
      lanczos.restore(saved)
    while lanczos.error() > self._config.function_tolerance and (
        lanczos.num_steps < min(_MAX_LANCZOS_STEPS, len(self._x_train))):
      lanczos.take(*self._apply(lanczos.wanted()))
      self._save('function', **lanczos.state())
      self._tell('function', lanczos.num_steps,
                 lanczos.error() / self._config.function_tolerance)
    self._function = lanczos.value() + self._features.times(
        self._normals[len(self._x_train):, None])[:, 0]
    self._targets = (self._function
                     + self._noise_stds[:, None] * self._noise[None, :])
    return lanczos.error()

  def _run_means(self) -> solver_means.Means:
    """Conjugate gradients until the means are exact enough."""
    krylov = self._krylov
    assert self._targets is not None  # Given, or made by `_run_function`.
    targets = self._targets.T
    if self._arguments.normals_eval is not None:
      # f at x_eval is drawn given f at x_train: one more posterior.
      targets = np.concatenate([targets, self._function[:, None]], 1)
    sides = krylov.project(targets)
    starts, solved = [], None
    for level in range(len(self._levels)):
      start, solved = self._start_means(level, sides[:, level:level + 1])
      starts.append(start)
    assert solved is not None  # There is a noise level.
    gradients = self._make_gradients(self._levels)
    gradients.start(targets, krylov.lift(np.concatenate(
        [start.guess for start in starts], 1)))
    self._run_gradients(gradients, np.array(
        [start.allowed for start in starts]))
    # Galerkin's correction: means of these weights are b^T c + a^T q.
    residuals = gradients.residuals
    assert residuals is not None  # There was a step.
    sides = krylov.project(residuals)
    weights = gradients.weights + krylov.lift(np.concatenate(
        [krylov.solve(krylov.factor(variance), sides[:, e:e + 1])
         for e, variance in enumerate(self._levels)], 1))
    return solver_means.Means(
        targets, weights, self._cross_times(weights),
        self._bound_mean_errors(gradients, targets, weights, starts), starts,
        solved)

  def _start_means(self, level: int, side: np.ndarray
                   ) -> tuple[solver_means.Start, krylov_lib.Galerkin]:
    """Where the means of a noise level start, and what its variances are.

    Args:
      level: of the noise levels.
      side: its targets in the Krylov space, [m, 1].
    """
    krylov, variance = self._krylov, self._levels[level]
    factor = krylov.factor(variance)
    guess = krylov.solve(factor, side)
    solved = krylov.variances(factor)
    del factor
    stds, _ = self._stds(solved, level)
    return solver_means.Start(
        guess, stds,
        self._config.mean_tolerance / self._metric_factor(variance)
        / np.max(solved.residual_norms / stds),
        np.max(np.linalg.norm(solved.solutions, axis=0) / stds),
        None if self._block_priors is None else krylov.block_covariances(
            self._block_priors, solved, stds, self._center(level))), solved

  def _bound_mean_errors(
      self, gradients: conjugate_gradients.ConjugateGradients,
      targets: np.ndarray, weights: np.ndarray,
      starts: Sequence[solver_means.Start]) -> np.ndarray:
    """Bounds of the means' errors as shares of their stds, [E]."""
    residuals = gradients.residuals
    assert residuals is not None  # There was a step.
    # Residuals are known up to what tiles and recursions have rounded.
    rounding = self._norm_from_rows(_NUM_CHECKED_ROWS, lambda rows: (
        self._residuals(rows, targets, self._levels, gradients.weights)
        - residuals[rows]))
    norms = gradients.norms() + rounding * np.max(self._krylov.scales)
    bounds = (self._config.mean_tolerance * norms
              / np.array([start.allowed for start in starts])
              + np.array([start.length for start in starts]) * rounding)
    if self._split.dtype == np.float64:
      # Of float32, tiles round far more than this last product.
      sizes = self._cross_times(weights, np.abs)
      bounds += np.finfo(np.float64).eps * np.max(
          sizes / np.stack([start.stds for start in starts], axis=1), axis=0)
    return bounds

  def _make_solution(self, history: np.ndarray, std_history: np.ndarray,
                     function_error: float,
                     found: solver_means.Means) -> solution_lib.Solution:
    """All that is known of the posterior, at the noise levels asked for."""
    num = len(self._noise_stds)
    eval_function = rest_function = None
    if self._arguments.normals_eval is not None:
      eval_function, rest_function = galerkin_draws.draw_elsewhere(
          self._krylov, self._arguments, found.means[:, -1], found.solved,
          self._center(-1))
    return solution_lib.Solution(
        noise_stds=self._noise_stds, noise_variances=self._noise_variances,
        targets=self._targets,
        weights=np.ascontiguousarray(found.weights[:, :num].T),
        moments=[posterior.Moments(
            mean=found.means[:, e].copy(), std=found.starts[e].stds,
            covariances=found.starts[e].covariances) for e in range(num)],
        std_error_bounds=history[-1], mean_error_bounds=found.errors[:num],
        residual_norms=self._norm_from_rows(
            _NUM_RESIDUAL_ROWS, lambda rows: self._residuals(
                rows, found.targets, self._levels, found.weights))[:num],
        converged=bool(np.all(history[-1] <= self._config.std_tolerance)
                       and np.all(found.errors <= self._config.mean_tolerance)
                       and function_error <= self._config.function_tolerance),
        function=self._function if self._drawn else None,
        eval_function=eval_function, rest_function=rest_function,
        function_error=function_error if self._drawn else None,
        eigenvalue_bound=self._eigenvalue_bound,
        std_error_history=history, std_history=std_history,
        tile_error=self._krylov.error,
        tile_dtype=self._split.dtype.name, num_passes=self._num_passes,
        memory_mb=self._memory_mb(len(history)) + self._remainder.kept_mb,
        seconds=self._seconds())

  def _run_gradients(self, gradients: conjugate_gradients.ConjugateGradients,
                     allowed: np.ndarray) -> None:
    """Steps until residuals are a share of what is allowed, [E].

    Where tiles are rounded, residuals are made once from tiles that are not;
    what follows is small, and so is what rounding does to it.
    """
    step, exact = 0, not self._remainder.rounds
    saved = self._load('means')
    if saved is not None:
      step, exact = int(saved.pop('step')), bool(saved.pop('exact'))
      gradients.restore(saved)
    while True:
      far = not step or np.any(
          gradients.norms() > _RESIDUAL_SHARE * allowed)
      if far and step < _MAX_CG_STEPS:
        gradients.take(*self._apply(gradients.wanted()))
      elif not exact:
        self._num_passes += 1
        gradients.restart(*self._remainder.apply_exactly(gradients.weights))
        exact = True
      else:
        return
      step += 1
      self._save('means', step=step, exact=exact, **gradients.state())
      self._tell('means', step, float(np.max(gradients.norms() / allowed)))
