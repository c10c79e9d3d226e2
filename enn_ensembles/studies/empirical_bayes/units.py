"""Trains ensembles on a problem, and measures them along their training.

A unit is one problem family (a testbed cell with its noise levels, or a data
set of images), one kind of members and one seed. K members are trained once:
the first few of them are smaller ensembles, since members do not see each
other.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.agents import ensemble
from enn_ensembles.nngp import kernels
from enn_ensembles.nngp import marginal_likelihood
from enn_ensembles.problems import ground_truth
from enn_ensembles.problems import image_classification
from enn_ensembles.problems import image_files
from enn_ensembles.problems import nngp_regression
from enn_ensembles.problems import solvers
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import distribution_scores
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import weighting
from enn_ensembles.studies import problem_grids
from enn_ensembles.studies.empirical_bayes import measuring
from enn_ensembles.training import network_agent
from enn_ensembles.training import network_sampler

DIGITS = 'digits'
NOISE_STDS = (0.01, 0.1, 1.)

# What members maximise: the likelihood alone; the same with a prior function
# added; the likelihood times the kernel's prior; that of noisy targets on
# minibatches with replacement, the testbed's defaults; and the likelihood alone
# again, from initial weights that differ by a thousandth of what they do
# otherwise.
KINDS: Mapping[str, Mapping[str, Any]] = {
    'plain': {'prior_scale': 0.},
    'prior_function': {'prior_scale': 1.},
    'map': {'prior_scale': 0., 'weight_decay': 1.},
    'target_noise': {'noise_scale': 1., 'sampling': 'replacement'},
    'near_equal': {'prior_scale': 0.},
}
_INIT_SPREADS = {'near_equal': 1e-3}

# Points at which all members are forwarded at once.
_POINT_BLOCK = 5000

# Steps at which all weighting rules are tried; elsewhere the first few.
USUAL_STEPS = 1000
_CURVE_RULES = ('uniform', 'posterior')


@dataclasses.dataclass(frozen=True)
class Unit:
  """What is trained and measured.

  Attributes:
    problem: a testbed cell as 'D10_l1', 'digits', or another data set that
      `image_files.read_images` knows, with all its training images.
    kind: of members, a key of KINDS.
    seed: of problem and training.
    num_members: sizes of ensembles, increasing.
    num_batches: steps; the learning rate is divided by 10 after half of them
      and again after three quarters, so that members settle.
    snapshots: steps at which they are measured, the last one included.
    batch_size: data points per step: without replacement, all of a training set
      that has no more.
    hidden_sizes: of each member.
  """
  problem: str
  kind: str
  seed: int
  num_members: tuple[int, ...] = (10, 30)
  num_batches: int = 4000
  snapshots: tuple[int, ...] = (0, 10, 30, 100, 300, 1000, 4000)
  batch_size: int = 100
  hidden_sizes: tuple[int, ...] = (50, 50)

  def __post_init__(self):
    if not is_images(self.problem):
      solvers.choose_solver(_testbed_problems(self.problem, self.seed)[0])
    checks.check_choice('kind', self.kind, tuple(KINDS))
    if not self.snapshots or self.snapshots[-1] != self.num_batches:
      raise ValueError('snapshots must end with num_batches '
                       f'{self.num_batches}, got {self.snapshots!r}.')

  @property
  def config(self) -> ensemble.EnsembleConfig:
    """The agent's; target noise moves the maximum and is the exception."""
    settings = {'noise_scale': 0., 'sampling': 'epochs', **KINDS[self.kind]}
    return ensemble.EnsembleConfig(
        num_ensemble=self.num_members[-1], hidden_sizes=self.hidden_sizes,
        num_batches=self.num_batches, batch_size=self.batch_size,
        decay_at=(0.5, 0.75), **settings)

  @property
  def init_spread(self) -> float:
    """By what differences of members' initial weights are multiplied."""
    return _INIT_SPREADS.get(self.kind, 1.)


def is_images(problem: str) -> bool:
  """Whether the name is that of a data set of images."""
  try:
    image_files.check_name('problem', problem)
  except ValueError:
    return False
  return True


def _cell(problem: str) -> tuple[int, float]:
  """(input_dim, data_ratio) of 'D10_l1'; ValueError for other texts."""
  parts = problem.removeprefix('D').split('_l')
  try:
    if not problem.startswith('D') or len(parts) != 2:
      raise ValueError
    return int(parts[0]), float(parts[1])
  except ValueError:
    raise ValueError(f"problem must be a cell as 'D10_l1', {DIGITS!r} or "
                     f'another data set of images, got {problem!r}.') from None


@functools.lru_cache(maxsize=1)
def make_problems(problem: str, seed: int,
                  data_dir: str | None = None) -> Sequence[Any]:
  """The problems of a family and a seed, one per noise level."""
  if is_images(problem):
    return [image_classification.make_image_problem(
        image_classification.ImageProblemConfig(problem, seed=seed), data_dir)]
  return ground_truth.make_problems(_testbed_problems(problem, seed))


def _testbed_problems(problem: str,
                      seed: int) -> list[nngp_regression.ProblemConfig]:
  return [nngp_regression.ProblemConfig(*_cell(problem), noise_std, seed)
          for noise_std in NOISE_STDS]


def run(unit: Unit, data_dir: str | None = None
        ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """Lines of the tables of ensembles and of weights, of one unit.

  Args:
    unit: what is trained.
    data_dir: folder of the files of images, see `image_files.data_folder`.

  Raises:
    ValueError: the unit's problem cannot be made.
  """
  problems = make_problems(unit.problem, unit.seed, data_dir)
  if problems[0].validation is None:
    raise ValueError(f'problem {problems[0].problem_id} has no validation '
                     'data, which weights are learnt on.')
  usual = ensemble.make_agent(unit.config)
  assert isinstance(usual, network_agent.NetworkAgent)  # All ensembles are.
  agent = dataclasses.replace(
      usual, snapshots=unit.snapshots,
      make_network=lambda prior: _narrow(usual.make_network(prior),
                                         unit.init_spread))
  trained = problem_grids.train(agent, [unit.seed], [problems])

  network = agent.make_network(problems[0].prior)
  forward = jax.jit(jax.vmap(
      functools.partial(network_sampler.forward_support, network),
      in_axes=(0, 0, None)))
  xs = [np.asarray(x, np.float32)
        for x in (problems[0].data.x, problems[0].validation.x,
                  problems[0].x_test)]
  sizes = [len(x) for x in xs]
  everywhere = np.concatenate(xs)
  ensembles, weights = [], []
  for step, params in trained.snapshots.items():
    params, state = jax.tree.map(lambda a: a[0], (params, trained.state))
    outputs = np.concatenate(
        [np.asarray(forward(params, state, block), np.float64)
         for block in np.split(everywhere, range(
             _POINT_BLOCK, len(everywhere), _POINT_BLOCK))], axis=2)
    for problem, output in zip(problems, outputs, strict=True):
      parts = np.split(output, np.cumsum(sizes)[:-1], axis=1)
      members, known = _members(problem, *parts)
      line = {'problem': unit.problem, 'kind': unit.kind, 'seed': unit.seed,
              'noise_std': getattr(problem, 'noise_std', None),
              'num_train': len(problem.data.y), 'steps': step}
      if not members.is_finite:
        raise ValueError(f'training of {line} diverged.')
      rules = (tuple(weighting.RULES)
               if step in (USUAL_STEPS, unit.num_batches) else _CURVE_RULES)
      for num in unit.num_members:
        line = {**line, 'num_members': num}
        ensembles.append({**line, **measuring.describe(members, num), **known})
        weights += [{**line, **one}
                    for one in measuring.weigh(members, num, rules)]
  return ensembles, weights


def _narrow(network: base.EpistemicNetwork,
            spread: float) -> base.EpistemicNetwork:
  """The network with initial members drawn together around the first."""
  if spread == 1.:
    return network

  def init(key, x, z):
    params, state = network.init(key, x, z)
    return jax.tree.map(lambda a: a[:1] + spread * (a - a[:1]), params), state

  return dataclasses.replace(network, init=init)


def _members(problem: Any, train: np.ndarray, held_out: np.ndarray,
             test: np.ndarray) -> tuple[measuring.Members, dict[str, float]]:
  """Members of one problem, and what is known of the problem besides."""
  if isinstance(problem.prior.likelihood, base.Categorical):
    return _classifiers(problem, train, held_out, test), {}
  noise_std, num = problem.noise_std, len(problem.y_train)

  def densities(outputs, labels):
    return -distribution_scores.log_score(
        labels[:, 0], outputs[..., 0].astype(np.float64), noise_std)

  label_std = np.hypot(problem.test_std, noise_std)
  exact_nll = np.mean(distribution_scores.log_score(
      problem.y_test[:, 0], problem.test_mean, label_std))
  test_densities = densities(test, problem.y_test)

  def score(first):
    samples, of_labels = test[first, :, 0], test_densities[first]

    def scores(weights):
      mean, std = weighting.weighted_moments(samples, weights)
      nll = -np.mean(weighting.mixture_log_densities(of_labels, weights))
      of_f = gaussian.posterior_scores(mean, std, problem.test_mean,
                                       problem.test_std, num_samples=None)
      return {'kl_estimate': of_f['kl_estimate'],
              'kl_labels': float(np.mean(gaussian.gaussian_kl(
                  problem.test_mean, label_std, mean,
                  np.hypot(std, noise_std)))),
              'nll': float(nll), 'nll_excess': float(nll - exact_nll)}

    return scores

  kernel = kernels.nngp(problem.kernel, problem.x_train)
  exact = marginal_likelihood.log_marginal_likelihood(
      kernel, problem.y_train[:, 0], noise_std**2)
  # As many held-out labels as training labels: a fair size for stacking.
  members = measuring.Members(
      densities(train, problem.y_train),
      densities(held_out, problem.y_val)[:, :num],
      measuring.gaussian_bound(num, noise_std), score)
  return members, {'nngp_log_marginal_likelihood': exact}


def _classifiers(problem: Any, train: np.ndarray, held_out: np.ndarray,
                 test: np.ndarray) -> measuring.Members:
  labels = problem.test.labels
  test_log_probs = categorical.log_softmax(test)

  def densities(logits, labels):
    return categorical.label_log_probs(categorical.log_softmax(logits), labels)

  def score(first):
    def scores(weights):
      # The mean of probabilities, over all classes at once.
      kept = test_log_probs[first]
      mixture = weighting.mixture_log_densities(
          kept.reshape(len(kept), -1), weights).reshape(kept.shape[1:])
      return {'nll': categorical.nll(mixture, labels),
              'accuracy': categorical.accuracy(mixture, labels)}

    return scores

  return measuring.Members(
      densities(train, problem.data.y), densities(held_out,
                                                  problem.validation.y),
      0., score)
