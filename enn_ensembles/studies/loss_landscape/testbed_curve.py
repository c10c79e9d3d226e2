"""Scores by ensemble size on the testbed, where the exact posterior is known.

The curves of `ensembles` in KL: inits, the last snapshots of one run, and one
network of averaged weights. The KL of f explodes where members agree, and is
infinite of a single network; that of labels, which have noise, does not.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pandas as pd

from enn_ensembles.agents import ensemble
from enn_ensembles.problems import ground_truth
from enn_ensembles.problems import nngp_regression
from enn_ensembles.report import plots
from enn_ensembles.scoring import gaussian
from enn_ensembles.studies import problem_grids
from enn_ensembles.training import network_sampler

INITS, SNAPSHOTS = 'inits', 'snapshots of one run'
AVERAGED_INITS, AVERAGED_SNAPSHOTS = ('averaged weights of inits',
                                      'averaged weights of snapshots')
FLOOR = 'draws of the exact posterior'
_NUM_SUBSETS = 50
_SUBSET_SEED = 1


@dataclasses.dataclass(frozen=True)
class CurveSettings:
  """What is trained.

  Attributes:
    input_dim: D_x.
    data_ratio: lambda.
    noise_stds: epsilon.
    seeds: each is a problem.
    num_members: K.
    num_batches: steps.
    snapshots: steps of one run that are members too; the last K of them count.
    sizes: of ensembles.
  """
  input_dim: int = 10
  data_ratio: float = 10.
  noise_stds: tuple[float, ...] = (0.01, 0.1, 1.)
  seeds: tuple[int, ...] = (0, 1, 2)
  num_members: int = 30
  num_batches: int = 1000
  snapshots: tuple[int, ...] = tuple(range(275, 1001, 25))
  sizes: tuple[int, ...] = (1, 2, 3, 5, 7, 10, 15, 20, 30)


def run(settings: CurveSettings) -> list[dict[str, Any]]:
  """A line per method, size, noise level and seed."""
  made = [ground_truth.make_problems([
      nngp_regression.ProblemConfig(settings.input_dim, settings.data_ratio,
                                    noise_std, seed)
      for noise_std in settings.noise_stds]) for seed in settings.seeds]
  # Only those that are asked for from the cache alone may be missing.
  problems = [[one for one in group if one is not None] for group in made]
  # Without prior functions, whose weights no average of trained ones contains.
  agent = dataclasses.replace(ensemble.make_agent(ensemble.EnsembleConfig(
      num_ensemble=settings.num_members, prior_scale=0., noise_scale=0.,
      num_batches=settings.num_batches)), snapshots=settings.snapshots)
  trained = problem_grids.train(agent, settings.seeds, problems)
  forward = jax.jit(functools.partial(
      network_sampler.forward_support,
      agent.make_network(problems[0][0].prior)))
  lines = []
  for s, seed in enumerate(settings.seeds):
    for e, noise_std in enumerate(settings.noise_stds):
      problem = problems[s][e]
      x = np.asarray(problem.x_test, np.float32)

      def samples(params, x=x):
        return np.asarray(forward(params, {}, x)[..., 0], np.float64)

      steps = [jax.tree.map(lambda a, s=s, e=e: a[s, e], params)
               for params in trained.snapshots.values()]
      last = steps[-1]
      along = jax.tree.map(
          lambda *a: np.stack([one[0] for one in a]),
          *steps[-settings.num_members:])
      averaged = [jax.tree.map(
          lambda a: np.broadcast_to(a.mean(axis=0), a.shape), weights)
                  for weights in (last, along)]
      cell = {'noise_std': noise_std, 'seed': seed}
      for name, members in ((INITS, samples(last)),
                            (SNAPSHOTS, samples(along))):
        lines += [{**cell, 'method': name, **line}
                  for line in by_size(members, problem, settings.sizes)]
      for name, weights in zip((AVERAGED_INITS, AVERAGED_SNAPSHOTS), averaged):
        lines += [{**cell, 'method': name, **line}
                  for line in by_size(samples(weights)[:1], problem, (1,))]
  return lines


def by_size(members: np.ndarray, problem: Any,
            sizes: tuple[int, ...]) -> list[dict[str, Any]]:
  """Mean scores of random subsets of members [K, N], a line per size."""
  rng = np.random.default_rng(_SUBSET_SEED)
  label_std = np.hypot(problem.test_std, problem.noise_std)
  lines = []
  for size in sizes:
    scores = []
    for _ in range(_NUM_SUBSETS if size < len(members) else 1):
      chosen = members[rng.permutation(len(members))[:size]]
      mean, std = chosen.mean(axis=0), chosen.std(axis=0)
      of_f = gaussian.posterior_scores(mean, std, problem.test_mean,
                                       problem.test_std, num_samples=size)
      of_labels = np.mean(gaussian.gaussian_kl(
          problem.test_mean, label_std, mean,
          np.hypot(std, problem.noise_std)))
      scores.append((of_f['kl_estimate'], float(of_labels)))
    kl, kl_labels = np.mean(scores, axis=0)
    lines.append({'size': size, 'kl_estimate': float(kl),
                  'kl_labels': float(kl_labels)})
  return lines


def picture(table: pd.DataFrame) -> bytes:
  """KL of f and of labels by size, a column per noise level."""
  levels = sorted(table['noise_std'].unique())
  figure = plots.make_canvas(3.6 * len(levels), 6.)
  axes = figure.subplots(2, len(levels), squeeze=False)
  for column, noise_std in enumerate(levels):
    of_level = table.loc[table['noise_std'] == noise_std]
    for row, (score, label) in enumerate((
        ('kl_estimate', 'KL of f, nats'), ('kl_labels', 'KL of labels, nats'))):
      one = axes[row, column]
      for name, colour in zip((INITS, SNAPSHOTS, AVERAGED_INITS,
                               AVERAGED_SNAPSHOTS), plots.WONG):
        mean = of_level.loc[of_level['method'] == name].groupby('size')[
            score].mean()
        if len(mean) > 1:
          one.plot(mean.index, mean.to_numpy(), 'o-', color=colour,
                   markersize=4, label=name)
        else:
          one.axhline(float(mean.iloc[0]), color=colour, linestyle='--',
                      label=name)
      if score == 'kl_estimate':
        sizes = [size for size in sorted(table['size'].unique()) if size > 3]
        one.plot(sizes, [gaussian.finite_sample_floor(size) for size in sizes],
                 'k:', label=FLOOR)
      one.set_yscale('log')
      plots.style_axes(one, f'ε = {noise_std:g}', 'members', label)
  handles, labels = axes[0, 0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', fontsize=8,
                ncols=3, frameon=False)
  return plots.to_png(figure)
