"""What `import enn_ensembles` offers besides the parts: problems by their ids,
agents by their names, training and scoring of one agent on one problem.

Scores are a sweep's: the same keys, the same number of draws, finite sets of
members enumerated, float64 where a sweep has it. jax computes in 64-bit mode
inside these functions alone; what the caller has set is not changed.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
from typing import Any

import pandas as pd

from enn_ensembles import agents as agents_lib
from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles import conformance
from enn_ensembles import problems as problems_lib
from enn_ensembles import results
from enn_ensembles import sweeps
from enn_ensembles.machine import devices
from enn_ensembles.machine import files
from enn_ensembles.machine import float64
from enn_ensembles.problems import kinds
from enn_ensembles.report import columns
from enn_ensembles.report import tables
from enn_ensembles.report import versions
from enn_ensembles.sweeps import agent_checks
from enn_ensembles.sweeps import agent_scores
from enn_ensembles.sweeps import one_unit
from enn_ensembles.sweeps import unit_results
from enn_ensembles.training import network_agent
from enn_ensembles.training import network_sampler
from enn_ensembles.training import sampler_predictions


def float64_mode() -> contextlib.AbstractContextManager[None]:
  """jax in 64-bit mode within a `with` block, of this thread alone."""
  return devices.x64_mode(True)


def load_problem(problem_id: str,
                 cache_dir: files.PathLike | None = None,
                 data_dir: files.PathLike | None = None,
                 **settings: Any) -> base.Problem:
  """A problem by its id, as rows and leaderboards name it.

  Args:
    problem_id: 'D10_l1_e0.1_s0' is the NNGP testbed's problem with input_dim
      10, data_ratio 1, noise_std 0.1, seed 0. It may end in its reference,
      '_bayes' (the default) or '_enn2021', and then in a hash of another kernel
      than 'relu2', as rows write it. 'digits_s0' is the data set of handwritten
      digits; ids of images end in a hash of settings and data.
    cache_dir: folder where expensive ground truth is kept; None makes it anew:
      milliseconds up to 1000 training points, half a minute at 10,000.
    data_dir: folder with files of real data, for kinds that read some.
    **settings: of an image problem, where they are not the default: fields of
      `problems.image_classification.ImageProblemConfig`, as num_train=1000.

  Returns:
    The problem, whose arrays are read-only numpy. One of the NNGP testbed is a
    `problems.nngp_regression.Problem`: besides the fields of `Problem` it has
    x_test [1000, D_x] with the exact posterior there, test_mean and test_std
    [1000], all float64.

  Raises:
    ValueError: there is no such problem, with these settings its id is another,
      or files are missing or not as they must be.
  """
  how = kinds.ProblemSettings(
      cache_dir=cache_dir and str(files.as_folder(cache_dir, 'cache_dir')),
      data_dir=data_dir and str(files.as_folder(data_dir, 'data_dir')))
  family, seed = kinds.find_problem(problem_id, how, settings)
  family.check(how)
  with float64_mode():
    return family.make(seed, how)[0]


@functools.wraps(problems_lib.problem_from_data)
def problem_from_data(*args: Any, **kwargs: Any) -> base.Problem:
  """As `problems.problem_from_data`, in 64-bit mode."""
  with float64_mode():
    return problems_lib.problem_from_data(*args, **kwargs)


class _Agent(float64.InFloat64Mode):
  """An agent in 64-bit mode, and so are its samplers."""

  def __call__(self, data: base.Data, prior: base.PriorKnowledge,
               key: Any) -> base.EpistemicSampler:
    """Learns from one problem; see `base.Agent`."""
    return float64.InFloat64Mode(super().__call__(data, prior, key))


def make_agent(name: str, **settings: Any) -> base.Agent:
  """An agent by its name.

  Args:
    name: one of `agent_names()`, or the path of a Python file that defines
      make_agent, as README.md shows.
    **settings: fields of the agent's config; those left out have their
      defaults. `help('enn_ensembles.agents.ensemble.EnsembleConfig')` lists an
      ensemble's.

  Returns:
    The agent: called with (data, prior, key), it learns and returns a sampler.
    Both compute in 64-bit mode whatever the caller has set; to compile a
    sampler of float64 draws into a program of one's own (`jax.jit`) takes
    `float64_mode`.

  Raises:
    ValueError: there is no such agent or setting, or a value is not allowed.
  """
  return _Agent(agents_lib.from_settings(name, settings))


def _seed_of(problem: base.Problem) -> int:
  """The seed that a problem was drawn with; 0 for data somebody brought."""
  return getattr(getattr(problem, 'config', problem), 'seed', 0)


def train(agent: base.Agent, problem: base.Problem,
          seed: int | None = None) -> base.EpistemicSampler:
  """What an agent learns from a problem, with the key that a sweep gives it.

  As in sweeps, agents that train networks see the problem's augmented inputs,
  and its validation data if they stop early.

  Args:
    agent: the agent.
    problem: the problem.
    seed: what the agent's key is made from, from 0 to 2**32 - 1; None for the
      problem's own seed, as in sweeps. Another seed repeats the training with
      other random numbers.

  Returns:
    The agent's sampler: (x [N, ...], key [2] uint32) -> a draw of f, [N, out].

  Raises:
    ValueError: agent cannot be called with (data, prior, key), returns no
      function, cannot serve the problem, or stops early on one without
      validation data; or the seed is not allowed.
  """
  _check_problem(problem)
  if not conformance.takes(agent, 3):
    raise ValueError('agent must be a function of (data, prior, key), got '
                     f'{checks.shown(agent)}.')
  seed = _seed_of(problem) if seed is None else seed
  held = float64.unwrap(agent)
  with float64_mode():
    key = problems_lib.agent_key(seed)
    if isinstance(held, network_agent.NetworkAgent):
      return float64.InFloat64Mode(held.for_problem(problem)(
          problem.data, problem.prior, key, problem.validation))
    sampler = agent(problem.data, problem.prior, key)
  if not callable(sampler):
    raise ValueError('agent must return a sampler, a function of (x, key), got '
                     f'{checks.shown(sampler)}.')
  return sampler


def score(agent_or_sampler: base.Agent | base.EpistemicSampler,
          problem: base.Problem, num_enn_samples: int = 1000,
          enumerate_indices: bool = True) -> Mapping[str, float]:
  """The scores that a sweep gives.

  Exact moments are used where a sampler offers them, all members of a finite
  set where indices are enumerated, else draws.

  Args:
    agent_or_sampler: an agent, which is trained first, or what training gave.
      What can be called with two arguments is taken for a sampler: an agent
      whose third has a default is given to `train` first.
    problem: the problem.
    num_enn_samples: how many draws of what is not enumerated.
    enumerate_indices: whether finite sets of members are enumerated.

  Returns:
    Score name -> float, which may be infinite or nan: nothing is clipped or
    filled. `SCORES[name]` has the meaning, the unit (nats of 'kl_estimate', for
    instance) and whether lower or higher is better. A problem gives the scores
    of its score_set, as far as they are defined; networks of members add how
    alike their weights are.

  Raises:
    ValueError: it is neither an agent nor a sampler, or a sampler that returns
      another shape than [N, out].
  """
  _check_problem(problem)
  checks.check_count('num_enn_samples', num_enn_samples)
  checks.check_flag('enumerate_indices', enumerate_indices)
  sampler = agent_or_sampler
  if not conformance.takes(sampler, 2):
    if not conformance.takes(agent_or_sampler, 3):
      raise ValueError(
          'agent_or_sampler must be a function of (data, prior, key) or of '
          f'(x, key), got {checks.shown(agent_or_sampler)}.')
    sampler = train(agent_or_sampler, problem)
  key = problems_lib.evaluation_key(_seed_of(problem))
  with float64_mode():
    scores = dict(problem.score(functools.partial(
        _predict, sampler, key, num_enn_samples, enumerate_indices,
        problem.prior.num_outputs)))
    trained = float64.unwrap(sampler)
    if isinstance(trained, network_sampler.NetworkSampler):
      scores.update(agent_scores.score_members(
          trained.network, trained.params, problem.prior.input_shape))
    return scores


def _check_problem(problem: Any) -> None:
  if not all(hasattr(problem, name) for name in ('data', 'prior', 'score')):
    raise ValueError('problem must be a problem, as load_problem gives it, got '
                     f'{type(problem).__name__}.')


def _predict(sampler: base.EpistemicSampler, key: Any, num_enn_samples: int,
             enumerate_indices: bool, num_outputs: int,
             x: base.Array) -> base.Predictions:
  return sampler_predictions.predict(sampler, x, key, num_enn_samples,
                                     enumerate_indices, num_outputs)


def run_sweep(config: sweeps.SweepConfig | files.PathLike,
              results_dir: files.PathLike,
              agent_modules: (files.PathLike | Sequence[files.PathLike] | None
                              ) = None,
              report: Callable[[str], None] = print) -> list[results.Row]:
  """Runs a small sweep in this process; what is done is not done again.

  `enn-ensembles run` does the same with all cores, and may be killed.

  Args:
    config: what to compute, or the file that says so.
    results_dir: where rows go; made if missing.
    agent_modules: file or files of user-defined agents: beside the agents of
      the config where it names one of them, else alone.
    report: told of each unit that is done, a line at a time.

  Returns:
    All rows of the folder, dicts as `results.ROW_SCHEMA` explains them. A
    failed or diverged run is a row, too, whose status says so.

  Raises:
    ValueError: something in the config or the folder is not as it must be, or a
      user-defined agent breaks a rule of `check_agent`.
  """
  if not isinstance(config, sweeps.SweepConfig):
    config = sweeps.load_config(config)
  if not callable(report):
    raise ValueError(f'report must be a function of a text, got {report!r}.')
  modules = _file_names('agent_modules', agent_modules)
  units = sweeps.expand(sweeps.override(config, agent_modules=modules), modules)
  options = unit_results.RunOptions(str(results_dir), modules)
  one_unit.check_units(units, options)
  store = results.open_store(results_dir, create=True)
  store.write_manifest([entry for unit in units
                        for entry in unit.manifest_entries()])
  done = results.done_row_ids(store)
  todo = [part for unit in units for part in sweeps.narrow(unit, done)]
  agent_checks.check_units(todo, options)
  for i, unit in enumerate(reversed(sweeps.longest_first(todo)), 1):
    with float64_mode():
      rows, _ = one_unit.run_unit(unit, options)
    store.write_unit(unit.run_id, rows)
    bad = [row['message'] for row in rows if row['message']][:1]
    report(f'{i} of {len(todo)}: {unit.agent_label} on {unit.family.name}, '
           f'{len(rows)} rows' + ''.join(f'; {text}' for text in bad))
  return store.read_rows()


def _file_names(name: str,
                paths: files.PathLike | Sequence[files.PathLike] | None
                ) -> tuple[str, ...]:
  """One path, several or none as texts; ValueError for anything else."""
  if isinstance(paths, files.PathLike):
    paths = [paths]
  found = () if paths is None else paths
  if not (isinstance(found, (tuple, list))
          and all(isinstance(path, files.PathLike) for path in found)):
    raise ValueError(f'{name} must be the path of a file or a list of such, '
                     f'got {paths!r}.')
  return tuple(map(str, found))


def make_board(results_dirs: files.PathLike | Sequence[files.PathLike]
               ) -> pd.DataFrame:
  """The leaderboard of one results folder or several.

  Of user-defined agents it shows the newest version of each file.

  Args:
    results_dirs: one folder that a sweep has written to, or several, whose rows
      are put together.

  Returns:
    A table with a line per agent setting, the best of each ranking first, as
    the file leaderboard.csv of `enn-ensembles board` has it. Among its columns
    are ranking, rank, label, score and, of each score, NAME_mean, in its unit;
    docs/scores_and_statistics.md explains ranks and intervals.

  Raises:
    ValueError: a folder or a file in it is not as it must be, or there are no
      rows.
  """
  found = versions.keep_newest(*columns.read_columns(results_dirs))
  return tables.make_tables(found.columns, found.entries).leaderboard
