"""The phases of the matrix-free solver: variances, a function, means.

`matrix_free` says what is computed, and why its bounds hold.
"""

from collections.abc import Callable
import time
from typing import Any

import numpy as np

from enn_ensembles.nngp import conjugate_gradients
from enn_ensembles.nngp import galerkin_draws
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import krylov as krylov_lib
from enn_ensembles.nngp import lanczos as lanczos_lib
from enn_ensembles.nngp import posterior
from enn_ensembles.nngp import remainder
from enn_ensembles.nngp import solution as solution_lib
from enn_ensembles.nngp import solver_arguments
from enn_ensembles.nngp import solver_memory
from enn_ensembles.nngp import step_files
from enn_ensembles.nngp import tall

# Rows of R that are recomputed in float64 to measure the error of the tiles.
_NUM_CHECKED_ROWS = 32
# Rows of the equations that tell how well the weights solve them.
_NUM_RESIDUAL_ROWS = 256
_MAX_CG_STEPS = 200
_MAX_LANCZOS_STEPS = 300


class _LargerCosineError(Exception):
  """A cosine between training points is beyond what tiles are made for."""

  def __init__(self, largest: float):
    super().__init__(largest)
    self.largest = largest


class Solver:
  """One call of `solve`: its arguments, checked, and its phases in order."""

  def __init__(self, arguments: solver_arguments.Arguments,
               block_priors: np.ndarray | None,
               steps_path: step_files.PathLike | None,
               progress: Callable[[solution_lib.Progress], None] | None):
    self._arguments = arguments
    self._kernel, self._config = arguments.kernel, arguments.config
    self._x_train, self._x_eval = arguments.x_train, arguments.x_eval
    self._noise_stds = arguments.noise_stds
    self._noise_variances = arguments.noise_variances
    self._drawn, self._targets = arguments.drawn, arguments.targets
    self._noise, self._normals = arguments.noise, arguments.normals
    self._progress = progress
    self._block_priors = block_priors
    self._steps = step_files.StepFiles(steps_path, arguments.identity())
    self._num_passes = 0
    self._started = time.monotonic()

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
    self._split = remainder.Split(self._kernel, self._x_train, largest_cosine)
    self._check_memory(self._split.dtype.itemsize)
    self._remainder = remainder.Remainder(self._split, self._x_train)
    self._features = self._split.features(self._x_train)
    self._krylov = krylov_lib.Krylov(
        kernels.nngp_diag(self._kernel, self._x_eval))
    self._lanczos = None
    if self._drawn:
      self._lanczos = lanczos_lib.Lanczos(self._normals[:len(self._x_train)])
    history, stds = self._run_variances()
    function_error = 0.
    if self._drawn:
      function_error = self._run_function()
    return self._run_means(history, stds, function_error)

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

  def _check_memory(self, itemsize: int) -> None:
    need = self._memory_mb(1, itemsize)
    if need > self._config.memory_budget_mb:
      raise ValueError(
          f'memory_budget_mb must be at least {need:.0f} at T = '
          f'{len(self._x_train)}, D = {self._x_train.shape[1]} and '
          f'{len(self._x_eval)} evaluation points, got '
          f'{self._config.memory_budget_mb:g}.')

  def _memory_mb(self, num_block_steps: int,
                 itemsize: int | None = None) -> float:
    num_train, input_dim = self._x_train.shape
    return solver_memory.estimate_memory_mb(
        num_train, input_dim, len(self._x_eval), num_block_steps,
        itemsize or self._split.dtype.itemsize)

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
                   self._cross(slice(None)), extra.T, self._split.dtype)
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
        history.append(saved['bounds'])
        stds.append(saved['stds'])
        krylov.restore(saved)
        if self._lanczos is not None:
          self._lanczos.restore(saved)
      else:
        product, tile_error, survey = self._block_product(survey=step == 1)
        outside = krylov.take(product, tile_error)
        del product
        found = [
            self._stds(krylov.variances(krylov.factor(variance)), variance)
            for variance in self._noise_variances]
        stds.append(np.stack([std for std, _ in found]))
        history.append(np.array([bound for _, bound in found]))
      error = float(np.max(history[-1])) / self._config.std_tolerance
      full = (step == self._config.max_block_steps
              or self._memory_mb(step + 1) > self._config.memory_budget_mb)
      if saved is None:
        if error > 1 and not full:
          krylov.expand(outside,
                        self._noise_variances[np.argmax(history[-1])])
        del outside
        lanczos = {} if self._lanczos is None else self._lanczos.state()
        surveyed = {} if survey is None else survey.arrays()
        self._save(f'step_{step}', bounds=history[-1], stds=stds[-1],
                   **krylov.state(), **lanczos, **surveyed)
        self._tell('variances', step, error)
      if len(krylov.blocks) == step:
        return np.array(history), np.array(stds)

  def _block_product(self, survey: bool) -> tuple[
      np.ndarray, float, remainder.Survey | None]:
    """R Q_j [T, b_j] of the last block, an estimate of its error, a survey.

    The error is that of some rows, against rows of R made in float64. The
    survey is None unless it is asked for and needed.
    """
    block = self._krylov.blocks[-1]
    wanted = [block]
    if self._lanczos is not None:
      wanted.append(self._lanczos.wanted())
    found = None
    if survey:
      self._num_passes += 1
      product, found = self._remainder.apply_and_survey(*wanted)
      self._take_survey(found)
    else:
      product = self._apply(*wanted)
    if self._lanczos is not None:
      self._lanczos.take(product[:, block.shape[1]:])
      product = product[:, :block.shape[1]]
    def difference(rows: np.ndarray) -> np.ndarray:
      exact = kernels.nngp(self._kernel, self._x_train[rows], self._x_train)
      exact -= self._features[rows] @ self._features.T
      return tall.inner(exact.T, block) - product[rows]

    error = np.linalg.norm(self._norm_from_rows(_NUM_CHECKED_ROWS, difference))
    return product, float(error), found

  def _stds(self, solved: krylov_lib.Galerkin, noise_variance: float
            ) -> tuple[np.ndarray, float]:
    """Stds [n], ridge included, and a bound of their largest relative error."""
    excess = solved.residual_norms**2 * self._metric_factor(noise_variance)
    # What tiles round, and by what Q is not orthonormal.
    rounding = solved.rounding + self._krylov.error * np.einsum(
        'mn,mn->n', solved.solutions, solved.solutions)
    lowest = np.maximum(solved.variances - excess - rounding, 0.)
    highest = np.maximum(solved.variances + rounding, 0.)
    lowest, middle, highest = (
        np.sqrt(values + posterior.KERNEL_RIDGE)
        for values in (lowest, 0.5 * (lowest + highest), highest))
    return middle, float(np.max(
        np.maximum(middle / lowest - 1, 1 - middle / highest)))

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
      lanczos.take(self._apply(lanczos.wanted()))
      self._save('function', **lanczos.state())
      self._tell('function', lanczos.num_steps,
                 lanczos.error() / self._config.function_tolerance)
    self._function = lanczos.value() + (
        self._features @ self._normals[len(self._x_train):])
    self._targets = (self._function
                     + self._noise_stds[:, None] * self._noise[None, :])
    return lanczos.error()

  def _run_means(self, history: np.ndarray, std_history: np.ndarray,
                 function_error: float) -> solution_lib.Solution:
    """Conjugate gradients until the means are exact enough."""
    krylov = self._krylov
    assert self._targets is not None  # Given, or made by `_run_function`.
    targets, variances = self._targets.T, self._noise_variances
    if self._arguments.normals_eval is not None:
      # f at x_eval is drawn given f at x_train: one more posterior.
      targets = np.concatenate([targets, self._function[:, None]], 1)
      variances = np.append(variances, posterior.SAMPLE_JITTER)
    sides = krylov.project(targets)
    guess, stds, allowed, solutions, lengths = [], [], [], [], []
    covariances, factor = [], None
    for e, variance in enumerate(variances):
      factor = krylov.factor(variance)
      guess.append(krylov.solve(factor, sides[:, e:e + 1]))
      solved = krylov.variances(factor)
      solution, norms = solved.solutions, solved.residual_norms
      stds.append(self._stds(solved, variance)[0])
      # Of the residual's norm, such that its product with that of k is small.
      allowed.append(self._config.mean_tolerance / self._metric_factor(variance)
                     / np.max(norms / stds[-1]))
      lengths.append(np.max(np.linalg.norm(solution, axis=0) / stds[-1]))
      solutions.append(solution)
      covariances.append(
          None if self._block_priors is None else krylov.block_covariances(
              self._block_priors, solution, stds[-1]))
    del factor
    gradients = conjugate_gradients.ConjugateGradients(
        self._features, variances, float(np.mean(self._remainder.diagonal)),
        krylov.scales)
    gradients.start(targets, krylov.lift(np.concatenate(guess, 1)))
    saved = self._load('means')
    step = 0
    if saved is not None:
      step = int(saved.pop('step'))
      gradients.restore(saved)
    while not step or (np.any(gradients.norms() > allowed)
                       and step < _MAX_CG_STEPS):
      gradients.take(self._apply(gradients.wanted()))
      step += 1
      self._save('means', step=step, **gradients.state())
      self._tell('means', step,
                 float(np.max(gradients.norms() / allowed)))
    # Galerkin's correction: means of these weights are b^T c + a^T q.
    residuals = gradients.residuals
    assert residuals is not None  # There was a step.
    sides = krylov.project(residuals)
    weights = gradients.weights + krylov.lift(np.concatenate(
        [krylov.solve(krylov.factor(variance), sides[:, e:e + 1])
         for e, variance in enumerate(variances)], 1))
    means = self._cross_times(weights)
    num = len(self._noise_stds)
    # Residuals are known up to what tiles and recursions have rounded.
    rounding = self._norm_from_rows(_NUM_CHECKED_ROWS, lambda rows: (
        self._residuals(rows, targets, variances, gradients.weights)
        - residuals[rows]))
    norms = gradients.norms() + rounding * np.max(krylov.scales)
    mean_errors = (self._config.mean_tolerance * norms / allowed
                   + lengths * rounding)
    if self._split.dtype == np.float64:
      # Of float32, tiles round far more than this last product.
      sizes = self._cross_times(weights, np.abs)
      mean_errors += np.finfo(np.float64).eps * np.max(
          sizes / np.stack(stds, axis=1), axis=0)
    eval_function = rest_function = None
    if self._arguments.normals_eval is not None:
      eval_function, rest_function = galerkin_draws.draw_elsewhere(
          krylov, self._arguments, means[:, -1], solutions[-1])
    return solution_lib.Solution(
        noise_stds=self._noise_stds, noise_variances=self._noise_variances,
        targets=self._targets,
        weights=np.ascontiguousarray(weights[:, :num].T),
        moments=[posterior.Moments(mean=means[:, e].copy(), std=stds[e],
                                   covariances=covariances[e])
                 for e in range(num)],
        std_error_bounds=history[-1], mean_error_bounds=mean_errors[:num],
        residual_norms=self._norm_from_rows(
            _NUM_RESIDUAL_ROWS, lambda rows: self._residuals(
                rows, targets, variances, weights))[:num],
        converged=bool(np.all(history[-1] <= self._config.std_tolerance)
                       and np.all(mean_errors <= self._config.mean_tolerance)
                       and function_error <= self._config.function_tolerance),
        function=self._function if self._drawn else None,
        eval_function=eval_function, rest_function=rest_function,
        function_error=function_error if self._drawn else None,
        eigenvalue_bound=self._eigenvalue_bound,
        std_error_history=history, std_history=std_history,
        tile_error=krylov.error,
        tile_dtype=self._split.dtype.name, num_passes=self._num_passes,
        memory_mb=self._memory_mb(len(history)), seconds=self._seconds())

  def _residuals(self, rows: np.ndarray, targets: np.ndarray,
                 variances: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """targets - (K + s_e^2 I) weights at some rows, [rows, E], in float64."""
    return targets[rows] - variances * weights[rows] - kernels.nngp(
        self._kernel, self._x_train[rows], self._x_train) @ weights

  def _norm_from_rows(self, num_rows: int,
                      of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Estimated norms of the columns of a [T, m] of which rows are known."""
    rows = self._some_rows(num_rows)
    return np.linalg.norm(of(rows), axis=0) * np.sqrt(
        len(self._x_train) / len(rows))

  def _some_rows(self, num_rows: int) -> np.ndarray:
    num_train = len(self._x_train)
    return np.random.default_rng(0).choice(
        num_train, min(num_rows, num_train), replace=False)

  def _cross(self, rows: slice) -> np.ndarray:
    """k(x_train[rows], x_eval)."""
    return kernels.nngp(self._kernel, self._x_train[rows], self._x_eval)

  def _cross_times(self, weights: np.ndarray,
                   of: Callable[[np.ndarray], np.ndarray] = np.asarray
                   ) -> np.ndarray:
    """k(x_eval, x_train) weights, [n, m]; `of` is applied to both first."""
    return sum(of(self._cross(panel)).T @ of(weights[panel])
               for panel in remainder.panels(len(weights), tall.PANEL))

  def _apply(self, *blocks: np.ndarray) -> np.ndarray:
    self._num_passes += 1
    return self._remainder.apply(*blocks)

  def _save(self, name: str, **arrays: Any) -> None:
    self._steps.save(name, dict(arrays, seconds=self._seconds(),
                                     num_passes=self._num_passes))

  def _load(self, name: str) -> dict[str, np.ndarray] | None:
    saved = self._steps.load(name)
    if saved is not None:
      # The clock goes on from where the last saved step left it.
      self._started = min(self._started,
                          time.monotonic() - float(saved.pop('seconds')))
      self._num_passes = int(saved.pop('num_passes'))
    return saved

  def _tell(self, phase: str, step: int, error: float) -> None:
    if self._progress is not None:
      self._progress(solution_lib.Progress(phase, step, self._seconds(), error))

  def _seconds(self) -> float:
    return time.monotonic() - self._started
