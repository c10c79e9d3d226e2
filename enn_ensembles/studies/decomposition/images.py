"""The parts of the study on images: grid, aggregation, experts, robustness.

Each part gives lines of one table. Labels of the training and the validation
set are flipped with a known probability; test labels never are, but
`flipped_nll` is the NLL that they would have on average.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from enn_ensembles import base
from enn_ensembles.agents import mixture_of_experts
from enn_ensembles.problems import draws
from enn_ensembles.problems import image_classification
from enn_ensembles.problems import image_data
from enn_ensembles.scoring import aggregation
from enn_ensembles.scoring import categorical
from enn_ensembles.scoring import diversity
from enn_ensembles.scoring import selection
from enn_ensembles.studies.decomposition import attacks
from enn_ensembles.studies.decomposition import fits
from enn_ensembles.training import network_sampler

Line = dict[str, Any]

_PLAIN = {'prior_scale': 0., 'noise_scale': 0.}
# Agents by the names that tables have; `num_ensemble` is the study's.
AGENTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    'single': ('map', {}),
    'ensemble': ('ensemble', _PLAIN),
    'bagging': ('ensemble', {**_PLAIN, 'bootstrap': True}),
    'decayed ensemble': ('ensemble', {**_PLAIN, 'weight_decay': 1.}),
    'dropout': ('mc_dropout', {'dropout_rate': 0.2, 'dropout_input': False}),
}
SOFT, TOP = 'soft experts', 'top-2 experts'
EXPERTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    SOFT: ('mixture_of_experts', {}),
    TOP: ('mixture_of_experts', {'num_active': 2}),
    'ensemble': AGENTS['ensemble'],
    'single': AGENTS['single'],
}

# Rules by which members are made one prediction, of `selection.RULES`.
AGGREGATIONS = ('none', 'mean_logits', 'vote', 'weights_tempered_0.01',
                'weights_tempered_0.1', 'weights_posterior', 'weights_em',
                'weights_stacking')

_GRID_SCORES = ('accuracy', 'nll', 'ece', 'total_uncertainty',
                'aleatoric_uncertainty', 'epistemic_uncertainty',
                'variation_ratio')
_AGGREGATION_SCORES = ('accuracy', 'nll', 'ece')

# fold_in constants of the evaluation key.
_ATTACK_KEY, _MASK_KEY = 101, 102
_NUM_MASKS = 30  # Of dropout under attack, the same for all steps.


@dataclasses.dataclass(frozen=True)
class ImageSettings:
  """What is trained on one data set.

  Attributes:
    dataset: of `image_files`.
    sizes: of training sets, increasing.
    shares: of labels that are flipped, increasing from 0.
    seeds: each draws its training set, flips and initial weights.
    num_members: K.
    num_batches: steps.
    num_test: test images at most.
    agents: of the grid, keys of AGENTS.
    experts: which are compared, keys of EXPERTS.
    attacked: under attack, keys of AGENTS; 'single' first.
    epsilons: largest changes of a pixel whose values are 0 to 1.
    hidden_sizes: of every network.
  """
  dataset: str = 'digits'
  sizes: tuple[int, ...] = (100, 300, 1000)
  shares: tuple[float, ...] = (0., 0.2, 0.4)
  seeds: tuple[int, ...] = (0, 1, 2)
  num_members: int = 10
  num_batches: int = 1000
  num_test: int = 1000
  agents: tuple[str, ...] = ('ensemble', 'bagging', 'decayed ensemble',
                             'dropout')
  experts: tuple[str, ...] = tuple(EXPERTS)
  attacked: tuple[str, ...] = ('single', 'ensemble', 'bagging', 'dropout')
  epsilons: tuple[float, ...] = (0.05, 0.1, 0.2)
  hidden_sizes: tuple[int, ...] = (50, 50)

  def check(self, train: image_data.ImageData) -> None:
    """ValueError where these are too few training images for all sizes."""
    needed = max(size + _num_val(size) for size in self.sizes)
    if len(train) < needed:
      raise ValueError(f'{self.dataset} must have {needed} training images at '
                       f'least for sizes {self.sizes}, got {len(train)}.')

  def agent_settings(self, agent: str,
                     settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of an agent in this study."""
    sizes = {'ensemble': 'num_ensemble', 'mixture_of_experts': 'num_experts'}
    counts = {sizes[agent]: self.num_members} if agent in sizes else {}
    return {'num_batches': self.num_batches, 'sampling': 'epochs',
            'hidden_sizes': self.hidden_sizes, **counts, **settings}


def _num_val(size: int) -> int:
  """Validation images beside so many training images."""
  return min(size, 100)


def make_problems(settings: ImageSettings, size: int,
                  shares: Sequence[float],
                  data_dir: str | None) -> list[list[Any]]:
  """Problems of each seed and share of flipped labels, [S][E]."""
  found = []
  for seed in settings.seeds:
    plain = image_classification.make_image_problem(
        image_classification.ImageProblemConfig(
            settings.dataset, num_train=size, num_test=settings.num_test,
            num_val=_num_val(size), seed=seed), data_dir)
    found.append([fits.with_label_noise(plain, share) for share in shares])
  return found


def _fit(settings: ImageSettings, table: Mapping[str, Any], name: str,
         problems: Sequence[Sequence[Any]]) -> fits.Fitted:
  agent, own = table[name]
  return fits.fit(agent, settings.agent_settings(agent, own), settings.seeds,
                  problems)


def run_grid(settings: ImageSettings, data_dir: str | None) -> list[Line]:
  """Sizes and shares of flipped labels varied separately, and aggregations.

  Returns:
    A line per agent, size, share, seed and aggregation. Those of aggregation
    'none' have the uncertainties, and their rank correlation over test images.
  """
  lines = []
  for size in settings.sizes:
    problems = make_problems(settings, size, settings.shares, data_dir)
    for name in settings.agents:
      fitted = _fit(settings, AGENTS, name, problems)
      for s, seed in enumerate(settings.seeds):
        for e, share in enumerate(settings.shares):
          problem, predict = problems[s][e], fitted.predict(s, e)
          cell = {'dataset': settings.dataset, 'agent': name, 'size': size,
                  'share': share, 'seed': seed,
                  'noise_entropy': fits.noise_entropy(
                      share, problem.train.num_classes)}
          lines += [{**cell, **scores} for scores in _aggregated(
              problem, predict, fitted.num_members, seed, share)]
  return lines


def _aggregated(problem: Any, predict: base.Predict, num_members: int | None,
                seed: int, share: float) -> list[Line]:
  """Scores of each aggregation of one ensemble on one problem."""
  rules = ('none',) if num_members is None else AGGREGATIONS
  lines = []
  for rule in rules:
    together = predict
    if rule != 'none':
      assert num_members is not None
      together = selection.select_members(
          rule, problem, predict, num_members,
          draws.evaluation_key(seed)).predict
    scores = problem.score(together)
    kept = _GRID_SCORES if rule == 'none' else _AGGREGATION_SCORES
    line = {'aggregation': rule, **{name: scores[name] for name in kept},
            'flipped_nll': fits.flipped_nll(
                _log_probs(together(problem.x_test)), problem.test.labels,
                share)}
    if rule == 'none':
      line['member_accuracy'] = scores['member_accuracy']
      line['member_nll'] = scores['member_nll']
      line['part_correlation'] = _part_correlation(predict(problem.x_test))
    lines.append(line)
  return lines


def _log_probs(predictions: base.Predictions) -> np.ndarray:
  """What the members predict together, [N, C]."""
  assert predictions.samples is not None
  return aggregation.Aggregation.of(predictions).classes(
      categorical.log_softmax(predictions.samples))


def _part_correlation(predictions: base.Predictions) -> float | None:
  """Spearman's correlation of AU and EU over test images; None if constant."""
  assert predictions.samples is not None
  found = categorical.uncertainties(
      categorical.log_softmax(predictions.samples))
  if 0. in (np.ptp(found.aleatoric), np.ptp(found.epistemic)):
    return None
  return float(stats.spearmanr(found.aleatoric, found.epistemic)[0])


def run_experts(settings: ImageSettings, data_dir: str | None) -> list[Line]:
  """Mixtures of experts beside an ensemble of as many networks.

  Returns:
    A line per agent and seed: scores and parameters; of mixtures also how much
    experts disagree, which is no uncertainty, and how many the gate uses (exp
    of the entropy of its mean weights).
  """
  lines = []
  problems = make_problems(settings, settings.sizes[-1], (0.,), data_dir)
  for name in settings.experts:
    fitted = _fit(settings, EXPERTS, name, problems)
    for s, seed in enumerate(settings.seeds):
      problem = problems[s][0]
      scores = problem.score(fitted.predict(s, 0))
      line = {'dataset': settings.dataset, 'agent': name, 'seed': seed,
              'num_params': fitted.trained.num_params,
              **{score: scores[score] for score in (
                  'accuracy', 'nll', 'ece', 'epistemic_uncertainty')}}
      if name in (SOFT, TOP):
        line |= _describe_experts(settings, name, fitted, s, problem)
      lines.append(line)
  return lines


def _describe_experts(settings: ImageSettings, name: str,
                      fitted: fits.Fitted, s: int, problem: Any) -> Line:
  agent, own = EXPERTS[name]
  config = mixture_of_experts.MixtureOfExpertsConfig(
      **settings.agent_settings(agent, own))
  params, state = fitted.weights(s, 0)
  experts, gate = mixture_of_experts.make_parts(config, problem.prior)
  x = jnp.asarray(problem.x_test, jnp.float32)
  outputs, _ = base.apply_indices(experts, params['experts'], state, x, None)
  of_gate, _ = base.apply_indices(gate, params['gate'], {}, x, None)
  labels = np.asarray(outputs).argmax(axis=-1)
  usage = np.exp(mixture_of_experts.log_gate(
      of_gate[0], config.num_active)).mean(axis=0)
  usage = usage[usage > 0]
  return {
      'expert_disagreement': float(diversity.class_disagreement(
          labels, problem.train.num_classes).mean()),
      'expert_accuracy': float(np.mean(labels == problem.test.labels)),
      'experts_used': float(np.exp(-np.sum(usage * np.log(usage))))}


def run_robustness(settings: ImageSettings,
                   data_dir: str | None) -> list[Line]:
  """Accuracy under FGSM and PGD.

  Returns:
    A line per agent, attack, epsilon and seed. Attacks 'fgsm' and 'pgd' know
    the whole agent; 'pgd on single' was made for the single network of the same
    seed.
  """
  problems = make_problems(settings, settings.sizes[-1], (0.,), data_dir)
  lines, made = [], {}
  for name in settings.attacked:
    fitted = _fit(settings, AGENTS, name, problems)
    network = fitted.agent.make_network(fitted.prior)
    attack = jax.jit(_make_attack(network))
    for s, seed in enumerate(settings.seeds):
      problem = problems[s][0]
      x, labels = problem.x_test, problem.test.labels
      norm = problem.normalisation
      low, high = (jnp.asarray(bound, jnp.float32)
                   for bound in (norm.black, norm.white))
      key = draws.evaluation_key(seed)
      line = {'dataset': settings.dataset, 'agent': name, 'seed': seed}

      def accuracy(inputs, s=s, labels=labels, fitted=fitted):
        samples = fitted.predict(s, 0)(np.asarray(inputs)).samples
        return categorical.accuracy(categorical.mean_log_probs(
            categorical.log_softmax(samples)), labels)

      lines.append({**line, 'attack': 'none', 'epsilon': 0.,
                    'accuracy': accuracy(x)})
      for epsilon in settings.epsilons:
        moved = attack(*fitted.weights(s, 0), x, labels,
                       jnp.asarray(epsilon / norm.std, jnp.float32), low, high,
                       key)
        if name == 'single':
          made[seed, epsilon] = np.asarray(moved['pgd'])
        else:
          moved['pgd on single'] = made[seed, epsilon]
        lines += [{**line, 'attack': kind, 'epsilon': epsilon,
                   'accuracy': accuracy(inputs)}
                  for kind, inputs in moved.items()]
  return lines


def _make_attack(network: base.EpistemicNetwork) -> Any:
  """(params, state, x, labels, epsilon, low, high, key) -> inputs by attack."""
  is_finite = base.get_support(network.indexer) is not None

  def attack(params, state, x, labels, epsilon, low, high, key):
    def logits_of(inputs):
      if is_finite:
        return network_sampler.forward_support(network, params, state, inputs)
      keys = jax.random.split(jax.random.fold_in(key, _MASK_KEY), _NUM_MASKS)
      out, _ = base.apply_indices(network, params, state, inputs,
                                  jax.vmap(network.indexer)(keys))
      return base.get_predictions(out)

    gradient = attacks.loss_gradient(logits_of, labels)
    return {
        'fgsm': attacks.fgsm(gradient, x, epsilon, low, high),
        'pgd': attacks.pgd(gradient, x, epsilon, low, high,
                           key=jax.random.fold_in(key, _ATTACK_KEY))}

  return attack
