"""Makes problems: draws, exact posteriors, and the cache of what is expensive.

x, f and the noise draw are shared by all noise levels of one (input_dim,
data_ratio, seed): comparisons across noise levels are paired, and one kernel
serves them all. Everything else is drawn independently. f and the posteriors of
large problems may be published (`published`), and all can be kept in a cache
folder (`cache_entries`); what does not fit the problem is made again.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import pathlib

import numpy as np

from enn_ensembles.machine import file_locks
from enn_ensembles.machine import files
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import posterior
from enn_ensembles.problems import audit
from enn_ensembles.problems import cache_entries
from enn_ensembles.problems import draws
from enn_ensembles.problems import nngp_regression
from enn_ensembles.problems import published
from enn_ensembles.problems import regression_draws
from enn_ensembles.problems import solvers

# Rows of the kernel by which published posteriors are checked before use.
_NUM_PUBLISHED_ROWS = 16


def make_problems(configs: Sequence[nngp_regression.ProblemConfig],
                  cache_dir: files.PathLike | None = None, solver: str = 'auto',
                  memory_budget_mb: float = solvers.SOLVER_MEMORY_MB,
                  progress: Callable[[str], None] | None = None,
                  only_cached: bool = False,
                  publish_dir: files.PathLike | None = None,
                  ) -> list[nngp_regression.Problem | None]:
  """Problems in the order of their configs, each exactly as if made alone.

  What configs share that differ in noise_std only is computed once: x, f, the
  kernel. Processes that want the same at the same time wait for the first.

  Args:
    configs: which.
    cache_dir: a folder for what is expensive, made if missing; None computes
      everything.
    solver: one of SOLVERS. They agree on posteriors to their tolerances, but
      draw another f from the same seed.
    memory_budget_mb: what the solver may hold.
    progress: told by the matrix-free solver how far it is, and what was written
      to be published, a line at a time.
    only_cached: compute no posterior: what the cache does not hold, and nobody
      has published, is None.
    publish_dir: a folder, made if missing, where the ground truth of large
      problems is written to be published; needs a cache_dir.

  Raises:
    ValueError: a problem does not fit into the budget (before any work starts),
      cache_dir cannot be written to, a tolerance is not met, jax runs without
      x64, or there is no cache_dir for only_cached or publish_dir.
  """
  kernels.require_x64()
  for name, value in (('only_cached', only_cached),
                      ('publish_dir', publish_dir)):
    if value and cache_dir is None:
      raise ValueError(f'cache_dir must be given where {name} is {value}, got '
                       'None.')
  if publish_dir is not None:
    publish_dir = files.make_folder(publish_dir, 'publish_dir')
  made: dict[nngp_regression.ProblemConfig,
             nngp_regression.Problem | None] = {}
  groups = _group(configs, cache_dir, solver, memory_budget_mb, progress)
  for group, members in groups:
    made.update(group.read(members) if only_cached
                else zip(members, group.make(members), strict=True))
    if publish_dir is not None:
      group.publish(members, publish_dir)
  return [made[config] for config in configs]


def _group(
    configs: Sequence[nngp_regression.ProblemConfig],
    cache_dir: files.PathLike | None, solver: str, memory_budget_mb: float,
    progress: Callable[[str], None] | None = None
) -> list[tuple['_Group', list[nngp_regression.ProblemConfig]]]:
  """Configs that differ in noise_std only, together; each of them once."""
  chosen = {config: solvers.choose_solver(config, solver, memory_budget_mb)
            for config in configs}
  if cache_dir is not None:
    cache_dir = files.make_folder(cache_dir, 'cache_dir')
  groups: dict[nngp_regression.ProblemConfig,
               list[nngp_regression.ProblemConfig]] = {}
  for config in dict.fromkeys(configs):
    groups.setdefault(dataclasses.replace(config, noise_std=1.), []).append(
        config)
  return [(_Group(members[0], cache_dir, chosen[members[0]], memory_budget_mb,
                  progress), members) for members in groups.values()]


class _Group:
  """Problems that differ in noise_std only: draws, cache and solver."""

  def __init__(self, config: nngp_regression.ProblemConfig,
               cache_dir: pathlib.Path | None, solver: str,
               memory_budget_mb: float, progress: Callable[[str], None] | None):
    self._config = config
    self._cache_dir = cache_dir
    self._solver_name = solver
    self._memory_mb = solvers.held_mb(
        solver, config.num_train, config.input_dim,
        config.num_test + config.num_val, memory_budget_mb)
    self._progress = progress
    self._stale: set[pathlib.Path] = set()  # Files that were complained of.

    self._points = points = regression_draws.draw_points(config)
    self._noise = regression_draws.draw_noise(config)
    if solver == 'dense':
      self._solver = solvers.DenseSolver(points)
    else:
      self._solver = solvers.MatrixFreeSolver(
          points, memory_budget_mb,
          cache_dir and cache_dir / self._function_name(), progress)
    self._normals = regression_draws.draw_function_normals(
        config, self._solver.num_extra_normals)

  def make(
      self, configs: Sequence[nngp_regression.ProblemConfig]
  ) -> list[nngp_regression.Problem]:
    """The problems of configs that differ in noise_std only."""
    found = self.read(configs)
    lock = self._cache_dir and self._cache_dir / f'{self._function_name()}.lock'
    if all(found.values()):
      if lock is not None:
        file_locks.remove_abandoned(lock)
      return list(found.values())
    with (contextlib.nullcontext(False) if lock is None
          else file_locks.claim(lock)) as claimed:
      found = self.read(configs)
      if all(found.values()):  # Made by whoever had the claim before.
        return list(found.values())
      with file_locks.claim_memory(self._memory_mb):
        return self._compute(configs, claimed)

  def read(
      self, configs: Sequence[nngp_regression.ProblemConfig]
  ) -> dict[nngp_regression.ProblemConfig, nngp_regression.Problem | None]:
    """What the cache holds of them, None for what it does not."""
    arrays = self._read_function()
    if arrays is None:
      return dict.fromkeys(configs)
    targets = self._targets(configs, arrays['function'])
    found = {}
    for config in configs:
      solved = self._read_solved(config, targets[config])
      found[config] = solved and self._problem(config, arrays, targets[config],
                                               solved)
    return found

  def publish(self, configs: Sequence[nngp_regression.ProblemConfig],
              folder: pathlib.Path) -> None:
    """Writes what the cache holds of large problems, to be published."""
    if self._config.num_train < published.MIN_NUM_TRAIN:
      return
    function = self._read_function()
    if function is None:
      return
    targets = self._targets(configs, function['function'])
    solved = {config.noise_std: self._read_solved(config, targets[config])
              for config in configs}
    written = published.write(
        folder, self._config, self._solver_name, self._inputs,
        published.Published(function, {
            noise_std: found for noise_std, found in solved.items()
            if found is not None}))
    if self._progress is not None:
      self._progress(str(written))

  def _compute(
      self, configs: Sequence[nngp_regression.ProblemConfig], claimed: bool
  ) -> list[nngp_regression.Problem]:
    """The problems; what is in the cache by now is not computed.

    Args:
      configs: which.
      claimed: whether no other process may be at the same work.
    """
    arrays = self._read_function()
    if arrays is None:
      arrays = dict(zip(
          ('function', 'val_function', 'test_function'),
          self._solver.draw_function(
              *self._normals, self._noise.train,
              [config.noise_std for config in configs],
              self._config.reference), strict=True))
      if self._cache_dir is not None:
        self._function_entry.write(arrays)
    targets = self._targets(configs, arrays['function'])
    found = {config: self._read_solved(config, targets[config])
             for config in configs}
    missing = [config for config in configs if found[config] is None]
    if missing:
      computed = self._solver.solve(
          [targets[config] for config in missing],
          [config.noise_std for config in missing], self._config.reference)
      for config, solved in zip(missing, computed, strict=True):
        found[config] = solved
        if self._cache_dir is not None:
          self._solved_entry(config, targets[config]).write(_pack(solved))
    if isinstance(self._solver, solvers.MatrixFreeSolver):
      self._solver.clear(claimed)
    return [self._problem(config, arrays, targets[config], found[config])
            for config in configs]

  def _targets(
      self, configs: Sequence[nngp_regression.ProblemConfig],
      function: np.ndarray) -> dict[nngp_regression.ProblemConfig, np.ndarray]:
    return {config: function + config.noise_std * self._noise.train
            for config in configs}

  def _problem(self, config: nngp_regression.ProblemConfig,
               arrays: Mapping[str, np.ndarray], target: np.ndarray,
               solved: nngp_regression.Solved) -> nngp_regression.Problem:
    y_val = arrays['val_function'] + config.noise_std * self._noise.val
    f_test = arrays['test_function']
    y_test = f_test + config.noise_std * self._noise.test
    points = self._points
    return nngp_regression.make_problem(
        config, points.x_train, target[:, None], points.x_test, points.x_val,
        y_val[:, None], solved, float(config.noise_std), config.reference,
        config.kernel, y_test=y_test[:, None], f_test=f_test[:, None],
        x_dyadic=points.x_dyadic)

  def _function_name(self) -> str:
    """The readable part of the names of files that noise levels share."""
    config = self._config
    return (
        f'D{config.input_dim}_l{nngp_regression.number(config.data_ratio)}_s{config.seed}'
        f'{config.settings_suffix}{nngp_regression.SOLVER_SUFFIX[self._solver_name]}'
        f'{cache_entries.FUNCTION}')

  @functools.cached_property
  def _inputs(self) -> str:
    """A checksum of x, and of the normals that f is drawn from."""
    points = self._points
    normals = self._normals
    return draws.digest(points.x_train, normals.train, points.x_val,
                        normals.val, points.x_test, normals.test)

  @functools.cached_property
  def _published(self) -> published.Published | None:
    """What is published of these problems."""
    folder = published.folder()
    if folder is None or self._config.num_train < published.MIN_NUM_TRAIN:
      return None
    found = published.read(folder, self._config, self._solver_name,
                           self._inputs)
    return found and self._checked(found, folder)

  @functools.cached_property
  def _function_entry(self) -> cache_entries.CacheEntry:
    config = self._config
    identity = {
        'kind': 'function', 'input_dim': config.input_dim,
        'data_ratio': config.data_ratio, 'seed': config.seed,
        'kernel': config.kernel, 'jitter': posterior.SAMPLE_JITTER,
        'num_val': config.num_val, 'num_test': config.num_test,
        'solver': self._solver_name}
    return cache_entries.CacheEntry(
        self._cache_dir, self._function_name(), identity, self._inputs)

  def _solved_entry(self, config: nngp_regression.ProblemConfig,
                    target: np.ndarray) -> cache_entries.CacheEntry:
    identity = {
        'kind': 'posterior',
        'config': config,
        'kernel_ridge': posterior.KERNEL_RIDGE,
        'joint_tau': nngp_regression.JOINT_TAU,
        'solver': self._solver_name
    }
    return cache_entries.CacheEntry(
        self._cache_dir,
        config.problem_id + nngp_regression.SOLVER_SUFFIX[self._solver_name],
        identity, self._x_digest + draws.digest(target))

  @functools.cached_property
  def _x_digest(self) -> str:
    points = self._points
    return draws.digest(points.x_train, points.x_test, points.x_val,
                        *([] if points.x_dyadic is None else [points.x_dyadic]))

  def _checked(self, found: published.Published, folder: pathlib.Path
               ) -> published.Published | None:
    """What is published, if its equations hold at a sample of their rows."""
    for noise_std, solved in found.solved.items():
      config = dataclasses.replace(self._config, noise_std=noise_std)
      target = self._targets([config], found.function['function'])[config]
      check = audit.check_equations(
          self._problem(config, found.function, target, solved),
          _NUM_PUBLISHED_ROWS)
      if not check.passed:
        published.complain(
            folder / published.file_name(config, self._solver_name),
            f'at noise_std {noise_std:g} the equations of its weights are off '
            f'by {check.error:.1e} of the labels, allowed is '
            f'{check.allowed:.1e}')
        return None
    return found

  def _read_function(self) -> Mapping[str, np.ndarray] | None:
    if self._published is not None:
      return self._published.function
    if self._cache_dir is None:
      return None
    return self._function_entry.read(self._stale)

  def _read_solved(self, config: nngp_regression.ProblemConfig,
                   target: np.ndarray) -> nngp_regression.Solved | None:
    if self._published is not None and config.noise_std in (
        self._published.solved):
      return self._published.solved[config.noise_std]
    if self._cache_dir is None:
      return None
    arrays = self._solved_entry(config, target).read(self._stale)
    return None if arrays is None else _unpack(arrays)


_MOMENT_ARRAYS = ('mean', 'std', 'covariances', 'weights')


def _pack(solved: nngp_regression.Solved) -> dict[str, np.ndarray]:
  """What a cache file holds of a posterior."""
  joint = solved.moments.joint
  return {**{name: getattr(solved.moments, name) for name in _MOMENT_ARRAYS},
          **({} if joint is None else {
              f'joint.{name}': value for name, value in
              joint._asdict().items()}),
          **{f'ground_truth.{name}': np.asarray(value) for name, value
             in dataclasses.asdict(solved.ground_truth).items()}}


def _unpack(arrays: Mapping[str, np.ndarray]) -> nngp_regression.Solved:
  """Inverse of `_pack`."""
  ground_truth = nngp_regression.GroundTruth(**{
      field.name: arrays[f'ground_truth.{field.name}'].item()
      for field in dataclasses.fields(nngp_regression.GroundTruth)})
  joint = None
  if 'joint.mean' in arrays:
    joint = posterior.JointMoments(**{
        name: arrays[f'joint.{name}'] for name in posterior.JointMoments._fields
    })
  moments = posterior.Moments(**{name: arrays[name] for name in _MOMENT_ARRAYS},
                              joint=joint, residual=ground_truth.residual,
                              mean_error=ground_truth.mean_error,
                              std_error=ground_truth.std_error)
  return nngp_regression.Solved(moments, ground_truth)
