"""Which members of a finite ensemble are kept: one entry per rule.

A rule orders the members on validation points. The first P are kept, for the P
of the best validation score, and the scores of the first 1, 2, ... are a curve
(`base.Problem.score_curve`). Other rules keep all members and say how they are
made one prediction: by their votes, or weighted by their likelihoods
(`aggregation`, `weighting`). A new rule is one entry of `RULES`.
"""

from collections.abc import Callable
from collections.abc import Mapping
import time
from typing import Any
from typing import NamedTuple

import chex
import jax
import numpy as np

from enn_ensembles import base
from enn_ensembles.scoring import aggregation
from enn_ensembles.scoring import array_checks
from enn_ensembles.scoring import budget
from enn_ensembles.scoring import gaussian
from enn_ensembles.scoring import ranking
from enn_ensembles.scoring import weighting
from enn_ensembles.training import likelihoods

# fold_in constant of the evaluation key. Where indices are drawn, which fold
# the same key, there is no order.
_ORDER_KEY = 0


class Order(NamedTuple):
  """An order of members.

  Attributes:
    order: [J] positions of members.
    val_score: validation score of the first 1, 2, ..., J, lower is better; None
      where the order is random.
  """
  order: np.ndarray
  val_score: np.ndarray | None


Aggregate = Callable[[Any, base.Predict], aggregation.Aggregation]


class Rule(NamedTuple):
  """A selection rule.

  Attributes:
    meaning: a sentence.
    order_members: (problem, predict, num_members, key) -> Order.
    label_share: share of the training set that the rule takes for its labels;
      0 where it reads `problem.validation`, which costs no training data.
    is_fair: whether the rule reads only what every agent is given; if not, its
      line in `table.PRIVILEGED_SELECTIONS` says what.
    aggregate: (problem, predict) -> how all members are made one prediction,
      in place of a choice of members; None: those that are kept are averaged.
    likelihood: of problems that the rule is for; None for all.
    reads_noise_std: whether the rule needs the noise level of numbers.
    needs: attributes that the rule reads of a problem and that are not in
      `base.Problem`: not every kind has them.
  """
  meaning: str
  order_members: Callable[[Any, base.Predict, int, chex.PRNGKey], Order]
  label_share: float = 0.
  is_fair: bool = True
  aggregate: Aggregate | None = None
  likelihood: type | None = None
  reads_noise_std: bool = False
  needs: tuple[str, ...] = ()


def _random_order(problem: Any, predict: base.Predict, num_members: int,
                  key: chex.PRNGKey) -> Order:
  del problem, predict
  order = jax.random.permutation(jax.random.fold_in(key, _ORDER_KEY),
                                 num_members)
  return Order(np.asarray(order), None)


def _rank_by_posterior(problem: Any, predict: base.Predict, num_members: int,
                       key: chex.PRNGKey) -> Order:
  del num_members, key
  samples = predict(problem.x_val).samples
  assert samples is not None  # Exact moments have no members.
  found = ranking.rank_samples(
      samples[..., 0], problem.val_mean,
      problem.val_std, selection='oracle', std_ridge=gaussian.STD_RIDGE)
  return Order(*found)


def _rank_by_labels(problem: Any, predict: base.Predict, num_members: int,
                    key: chex.PRNGKey) -> Order:
  del num_members, key
  data = problem.validation
  if data is None:
    raise ValueError(f'selection by labels needs validation data, which '
                     f'problem {problem.problem_id} has not.')
  samples = predict(data.x).samples
  assert samples is not None  # Exact moments have no members.
  if isinstance(problem.prior.likelihood, base.Categorical):
    return Order(*ranking.rank_classifiers(samples, data.y))
  return Order(*ranking.rank_samples(
      samples[..., 0], selection='val_nll', labels=np.asarray(data.y)[:, 0],
      noise_std=problem.prior.noise_std, std_ridge=gaussian.STD_RIDGE))


def _aggregated(rule: str) -> Rule:
  """All members, made one prediction by a rule of `aggregation.RULES`."""
  found = aggregation.RULES[rule]
  likelihood = (base.Categorical if found.of_values is None else
                base.Gaussian if found.of_classes is None else None)
  return Rule(f'{found.meaning}; all members are kept', _random_order,
              aggregate=lambda problem, predict: aggregation.Aggregation(rule),
              likelihood=likelihood)


def _weighted(rule: str, label_share: float = 0.) -> Rule:
  """All members, weighted by a rule of `weighting.RULES`."""
  found = weighting.RULES[rule]

  def aggregate(problem, predict):
    return aggregation.Aggregation('mean', aggregation.weigh_members(
        problem, predict, rule))

  meaning = f'members are weighted: {found.meaning}'
  if label_share:
    meaning += f'; those are {label_share:.0%} of the training set'
  return Rule(meaning, _random_order, label_share,
              not found.reads_held_out or label_share > 0, aggregate)


RULES: Mapping[str, Rule] = {
    'none': Rule('all members are kept', _random_order),
    'oracle': Rule('members are ranked by KL to the exact posterior on '
                   'validation points, which nobody has on real data',
                   _rank_by_posterior, is_fair=False, likelihood=base.Gaussian,
                   needs=('x_val', 'val_mean', 'val_std')),
    'val_nll': Rule('members are ranked by the negative log-likelihood of '
                    'validation labels that no other agent learns from',
                    _rank_by_labels, is_fair=False, reads_noise_std=True),
    'val_nll_budget': Rule(
        'members are trained on 80 % of the training set and ranked by the '
        'negative log-likelihood of the rest', _rank_by_labels,
        label_share=0.2, reads_noise_std=True),
    **{name: _aggregated(name) for name in aggregation.RULES
       if name != 'mean'},
    **{f'weights_{name}': _weighted(name) for name in weighting.RULES
       if name != 'uniform'},
    'weights_stacking_budget': _weighted('stacking', 0.2),
}


def check_rule(rule: str, prior: base.PriorKnowledge) -> None:
  """ValueError where a rule is for problems of which something else is known.
  """
  likelihood, expected = prior.likelihood, RULES[rule].likelihood
  if RULES[rule].reads_noise_std and isinstance(likelihood, base.Gaussian):
    likelihoods.known_noise_std(prior, f'selection {rule!r}')
  if expected is not None and not isinstance(likelihood, expected):
    raise ValueError(
        f'selection {rule!r} needs a {expected.__name__} likelihood, got '
        f'{type(likelihood).__name__}.')


class Selected(NamedTuple):
  """What is left of an ensemble's members after selection, or aggregation.

  Attributes:
    predict: predictions of the members that are kept.
    num_samples: how many are kept, P.
    curve: scores of the first 1, 2, ..., as `results.schema` says; None
      where predictions are not finite or the problem gives no curve.
    rank_seconds: wall time of the ranking; None without one.
  """
  predict: base.Predict
  num_samples: int
  curve: dict[str, Any] | None
  rank_seconds: float | None


def select_members(rule: str, problem: Any, predict: base.Predict,
                   num_members: int, key: chex.PRNGKey) -> Selected:
  """Selects members of a finite ensemble on one problem.

  Args:
    rule: a name in RULES.
    problem: the problem; its labels are those that the rule reads.
    predict: predictions of all J members.
    num_members: J.
    key: the evaluation key of the problem's seed, for the random order.

  Raises:
    ValueError: as `ranking.rank_samples`; or the rule reads what the problem
      does not have.
  """
  start = time.perf_counter()
  if RULES[rule].aggregate is not None:
    return _aggregate(rule, problem, predict, num_members)
  missing = [name for name in RULES[rule].needs if not hasattr(problem, name)]
  if missing:
    raise ValueError(f'selection {rule!r} needs what {problem.score_set} '
                     f'problems do not have: {", ".join(missing)}.')
  try:
    found = RULES[rule].order_members(problem, predict, num_members, key)
  except array_checks.NotFiniteError:
    return Selected(predict, num_members, None, None)
  seconds = None if found.val_score is None else time.perf_counter() - start
  kept = num_members
  if found.val_score is not None:
    kept = budget.choose_num_samples(
        num_members, budget_samples=num_members, score=found.val_score)
  curve = _make_curve(problem, predict, found)
  if kept == num_members:
    return Selected(predict, kept, curve, seconds)
  # In the order of the indexer: all members give what they give unselected.
  members = np.sort(found.order[:kept])

  def predict_kept(x: base.Array) -> base.Predictions:
    predictions = predict(x)
    samples, variances = (
        None if part is None else part[members] for part in (
            predictions.samples, predictions.observation_variances))
    return base.Predictions(samples, variances)

  return Selected(predict_kept, kept, curve, seconds)


def _aggregate(rule: str, problem: Any, predict: base.Predict,
               num_members: int) -> Selected:
  """All members, made one prediction by a rule; there is no curve."""
  check_rule(rule, problem.prior)
  aggregate = RULES[rule].aggregate
  assert aggregate is not None  # It is one of those rules.
  start = time.perf_counter()
  how = aggregate(problem, predict)
  seconds = time.perf_counter() - start
  if how.weights is not None and not np.isfinite(how.weights).all():
    return Selected(predict, num_members, None, None)  # Members diverged.

  def predict_together(x: base.Array) -> base.Predictions:
    return predict(x)._replace(weights=how.weights, aggregation=how.rule)

  return Selected(predict_together, num_members, None, seconds)


def _make_curve(problem: Any, predict: base.Predict,
                found: Order) -> dict[str, Any] | None:
  """An order and the scores of its first 1, 2, ...; None if not finite."""
  score_curve = getattr(problem, 'score_curve', None)
  if score_curve is None:
    return None
  try:
    curve = {'order': found.order, **score_curve(predict, found.order)}
  except array_checks.NotFiniteError:
    return None
  if found.val_score is not None:
    curve['val_score'] = found.val_score
  if not all(np.isfinite(values).all() for values in curve.values()):
    return None
  return {name: np.asarray(values).tolist() for name, values in curve.items()}


def reserve_labels(problem: Any, share: float) -> tuple[base.Data, base.Data]:
  """The training set without the share that a rule takes, and that share.

  Rows of a problem are independent draws, so the last ones are as good as any.

  Raises:
    ValueError: either part would be empty.
  """
  num = len(problem.data.y)
  num_labels = round(share * num)
  if not 0 < num_labels < num:
    raise ValueError(f'num_train must be enough to reserve {share:g} of it, '
                     f'got {num}.')
  cut = num - num_labels
  return (base.Data(problem.data.x[:cut], problem.data.y[:cut]),
          base.Data(problem.data.x[cut:], problem.data.y[cut:]))
