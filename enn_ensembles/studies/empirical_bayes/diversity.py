"""Where the diversity of an ensemble comes from, and what it is worth.

Members of one ensemble on digits differ in nothing, in part, or in all of what
chance decides: initial weights, and the order of the data. Initial weights are
also drawn together around one further draw, and made smaller or larger. All
members are trained to the maximum of the likelihood, and measured
along the way.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from enn_ensembles import base
from enn_ensembles.agents import ensemble
from enn_ensembles.problems import draws
from enn_ensembles.report import plots
from enn_ensembles.scoring import classification_scores
from enn_ensembles.studies.empirical_bayes import units
from enn_ensembles.training import loop
from enn_ensembles.training import network_agent
from enn_ensembles.training import network_sampler

Line = dict[str, Any]

# fold_in constant of the agent's key, from which members' own come.
_MEMBER_KEY = 211


class Variant(NamedTuple):
  """How members of an ensemble differ.

  Attributes:
    init_spread: by what differences of initial weights to one further draw of
      them are multiplied; 0 is the same weights. Members' own std of 1 becomes
      sqrt((1 - init_spread)^2 + init_spread^2).
    init_scale: by what all initial weights are multiplied.
    own_order: whether each member has minibatches of its own.
  """
  init_spread: float = 1.
  init_scale: float = 1.
  own_order: bool = False


VARIANTS: Mapping[str, Variant] = {
    'initial weights': Variant(),
    'order of data': Variant(init_spread=0., own_order=True),
    'both': Variant(own_order=True),
    'initial weights, half as large': Variant(init_scale=0.5),
    'initial weights, twice as large': Variant(init_scale=2.),
    'initial weights, a tenth as different': Variant(init_spread=0.1),
    'initial weights, a thousandth as different': Variant(init_spread=1e-3),
}


@dataclasses.dataclass(frozen=True)
class DiversitySettings:
  """What is trained.

  Attributes:
    num_members: K.
    snapshots: steps at which members are measured; the last is their number.
    batch_size: images per step; with fewer than there are, order matters.
    hidden_sizes: of each member.
    seed: of the problem and of all that is drawn.
  """
  num_members: int = 10
  snapshots: tuple[int, ...] = (0, 10, 30, 100, 300, 1000)
  batch_size: int = 100
  hidden_sizes: tuple[int, ...] = (50, 50)
  seed: int = 0


def run(settings: DiversitySettings) -> list[Line]:
  """A line per variant and snapshot: diversity, and scores of test images."""
  problem, = units.make_problems(units.DIGITS, settings.seed)
  x_test = np.asarray(problem.x_test, np.float32)
  lines = []
  for name, variant in VARIANTS.items():
    for step, logits in _logits(settings, variant, problem, x_test).items():
      scores = classification_scores.score_test(logits, problem.test.labels)
      lines.append({'variant': name, 'seed': settings.seed, 'steps': step, **{
          score: scores[score] for score in (
              'disagreement', 'epistemic_uncertainty', 'accuracy',
              'member_accuracy', 'nll', 'member_nll')}})
  return lines


def _logits(settings: DiversitySettings, variant: Variant, problem: Any,
            x: np.ndarray) -> dict[int, np.ndarray]:
  """Logits of all members at x, [K, N, C], after each snapshot.

  Members of one network share minibatches; those with an order of their own are
  networks of one member, each with a key of its own.
  """
  num_networks = settings.num_members if variant.own_order else 1
  usual = ensemble.make_agent(ensemble.EnsembleConfig(
      num_ensemble=settings.num_members // num_networks, prior_scale=0.,
      noise_scale=0., hidden_sizes=settings.hidden_sizes,
      num_batches=settings.snapshots[-1], batch_size=settings.batch_size,
      sampling='epochs'))
  assert isinstance(usual, network_agent.NetworkAgent)
  key = draws.agent_key(settings.seed)
  agent = dataclasses.replace(
      usual, snapshots=settings.snapshots,
      make_network=lambda prior: _change_init(usual.make_network(prior),
                                              variant, key))
  keys = key[None]
  if variant.own_order:
    keys = jax.vmap(functools.partial(
        jax.random.fold_in, jax.random.fold_in(key, _MEMBER_KEY)))(
            np.arange(num_networks))
  repeats = (num_networks, *(1,) * np.ndim(problem.data.x))
  trained = loop.train(
      agent, np.tile(problem.data.x[None], repeats),
      np.tile(problem.data.y[None, None], (num_networks, 1, 1)),
      problem.prior.likelihood, keys)
  network = agent.make_network(problem.prior)
  forward = jax.jit(jax.vmap(
      functools.partial(network_sampler.forward_support, network),
      in_axes=(0, 0, None)))
  state = jax.tree.map(lambda a: a[:, 0], trained.state)
  found = {}
  for step, params in trained.snapshots.items():
    logits = np.asarray(forward(jax.tree.map(lambda a: a[:, 0], params), state,
                                x))
    found[step] = logits.reshape(settings.num_members, *logits.shape[2:])
  return found


def _change_init(network: base.EpistemicNetwork, variant: Variant,
                 key: Any) -> base.EpistemicNetwork:
  """The network with other initial weights, see `Variant`."""
  def change(init: Callable[..., Any]) -> Callable[..., Any]:
    def changed(own_key, x, z):
      params, state = init(own_key, x, z)
      first = jax.tree.map(lambda a: a[:1], init(key, x, z)[0])
      params = jax.tree.map(
          lambda a, b: variant.init_scale * (b + variant.init_spread * (a - b)),
          params, first)
      return params, state

    return changed

  return dataclasses.replace(network, init=change(network.init))


def picture(table: Any) -> bytes:
  """Disagreement by steps, and what averaging gains against it, per variant."""
  figure = plots.make_canvas(11., 4.)
  axes = figure.subplots(1, 2)
  for (name, colour) in zip(VARIANTS, plots.WONG):
    mean = table[table['variant'] == name].groupby('steps').mean(
        numeric_only=True)
    axes[0].plot(mean.index, mean['disagreement'], 'o-', color=colour,
                 markersize=4, label=name)
    axes[1].plot(mean['disagreement'], mean['member_nll'] - mean['nll'], 'o-',
                 color=colour, markersize=4)
  axes[0].set_xscale('symlog', linthresh=10)
  for one in axes:
    one.set_yscale('symlog', linthresh=1e-3)
    one.set_ylim(bottom=0)
  plots.style_axes(axes[0], 'members along training', 'steps', 'disagreement')
  plots.style_axes(axes[1], 'what averaging gains', 'disagreement',
                   'NLL of mean member less ensemble, nats')
  handles, labels = axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', fontsize=8,
                ncols=3, frameon=False)
  return plots.to_png(figure)
