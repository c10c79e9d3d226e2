"""Which combinations of a layer ensemble to keep, and in which order.

A layer ensemble with K options in each of L layers holds J = K^L members, and
some of them hurt. Ranking (Oleksiienko & Iosifidis 2022, arXiv 2210.04882,
eqs. 3-4) orders them on validation inputs: it starts from the single best
member, then adds, again and again, the one that most improves the score of
all chosen so far. The first P of the order are then an ensemble of P samples,
for every P: inference with a dial for the budget.

The score of a set is that of the Gaussian with the mean and the std (ddof=0)
of its members at each validation input, lower is better:

* `oracle`: KL(N_nngp || N_agent), `std_ridge` added to both stds. The paper's
  way, and out of reach on real data: it needs the exact posterior.
* `val_nll`: negative log-likelihood of held-out labels under
  N(mean, (std + std_ridge)^2 + noise_std^2).

Both are one formula. The expected NLL of N(m, V) for a target with mean t and
variance v is

  1/2 [log(2 pi V) + (v + (t - m)^2) / V].

A label is a target with v = 0; the posterior one with v = (std + std_ridge)^2,
and subtracting its entropy gives the KL.

This works for the members of any ensemble; it only reads their predictions.
"""

import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles.scoring import array_checks
from enn_ensembles.scoring import categorical

Array = Any


SELECTIONS = ('oracle', 'val_nll')


class RankedOrder(NamedTuple):
  """A greedy order and how good the first 1, 2, ..., P of it are.

  Attributes:
    order: [P] int32, the members in the order of their addition.
    score: [P], the score of the first 1, 2, ..., P of them, in nats. What
      overflows the dtype is inf or nan, and was chosen after all the others.
  """
  order: np.ndarray
  score: np.ndarray


def rank_samples(predictions: Array,
                 mean: Array | None = None,
                 std: Array | None = None,
                 *,
                 selection: str = 'oracle',
                 labels: Array | None = None,
                 noise_std: float | None = None,
                 std_ridge: float = 1e-3,
                 num_ranked: int | None = None,
                 dtype: Any = None) -> RankedOrder:
  """Orders the members of an ensemble greedily, by the score of their set.

  Equal scores go to the lowest index; the same input gives the same order.
  Costs num_ranked * J * num_x evaluations of one sqrt, one log and one
  division; the largest array is [J, num_x].

  Args:
    predictions: what each of the J members predicts at x_val, [J, num_x].
    mean: posterior mean at x_val, [num_x]. Read by `oracle` only.
    std: posterior std at x_val without ridge, [num_x]. Read by `oracle` only.
    selection: `oracle` or `val_nll`.
    labels: noisy labels at x_val, [num_x]. Read by `val_nll` only.
    noise_std: std of the noise in the labels. Read by `val_nll` only.
    std_ridge: added to the ensemble's std, and to the posterior's; > 0.
    num_ranked: P, how many members to order; None for all J.
    dtype: of the computation; None for float64 if jax has it on (x64), else
      float32, which may order members of nearly equal score differently.

  Returns:
    The order and the score after each addition.

  Raises:
    ValueError: a shape, a value or a name is not as above, something that the
      selection reads is missing, or num_ranked is not in 1..J.
  """
  task, num_ranked = _make_task(
      predictions, mean, std, selection, labels, noise_std, std_ridge,
      num_ranked, dtype)
  return RankedOrder(*map(np.asarray, _greedy_order(task, num_ranked)))


def rank_classifiers(logits: Array, labels: Array) -> RankedOrder:
  """Orders classifiers greedily by the NLL of their mean probabilities.

  Args:
    logits: of J members at N validation points, [J, N, C].
    labels: [N] integers in 0..C-1.

  Returns:
    The order of all members, and the NLL after each addition, in nats.

  Raises:
    ValueError: logits are not finite or shapes do not fit.
  """
  logits = array_checks.as_finite('logits', logits, ndim=3)
  labels = np.asarray(labels)
  if labels.shape != logits.shape[1:2]:
    raise ValueError(f'labels must have shape {logits.shape[1:2]}, got '
                     f'{labels.shape}.')
  # Logarithms, [J, N]: the probability of a label may be below the smallest
  # number.
  right = categorical.label_log_probs(categorical.log_softmax(logits), labels)
  total, left = np.full(right.shape[1], -np.inf), list(range(len(right)))
  order, score = [], []
  while left:
    nll = np.log(len(order) + 1) - np.logaddexp(total, right[left]).mean(axis=1)
    best = int(np.argmin(nll))
    score.append(float(nll[best]))
    order.append(left.pop(best))
    total = np.logaddexp(total, right[order[-1]])
  return RankedOrder(np.array(order, np.int32), np.array(score))


class _Task(NamedTuple):
  """A ranking problem, whatever its selection: targets at 0, in their unit.

  The unit is the posterior's std for `oracle` and the noise's for `val_nll`,
  which leaves numbers near 1 and the same compiled code for both.

  Attributes:
    errors: predictions minus targets, [J, num_x].
    ridge: added to the std, [num_x].
    target_var: variance of the targets, a scalar.
    noise_var: variance added to that of the members, a scalar.
    offset: what the score has besides 1/2 E[log V + (v + m^2) / V], a scalar.
  """
  errors: Array
  ridge: Array
  target_var: Array
  noise_var: Array
  offset: Array


def _make_task(predictions: Array, mean: Array | None,
               std: Array | None, selection: str, labels: Array | None,
               noise_std: float | None, std_ridge: float,
               num_ranked: int | None, dtype: Any) -> tuple[_Task, int]:
  """Checks what the user gave and brings it to one form (and P)."""
  if selection not in SELECTIONS:
    raise ValueError(
        f'selection must be one of {SELECTIONS}, got {selection!r}.')
  predictions = array_checks.as_finite('predictions', predictions, ndim=2)
  num_samples, num_x = predictions.shape
  if 0 in predictions.shape:
    raise ValueError('predictions must hold at least one member and one '
                     f'input, got shape {predictions.shape}.')
  if num_ranked is None:
    num_ranked = num_samples
  if not 1 <= num_ranked <= num_samples or num_ranked != int(num_ranked):
    raise ValueError(f'num_ranked must be an integer in 1..{num_samples}, got '
                     f'{num_ranked}.')
  array_checks.check_std_ridge(std_ridge)

  if selection == 'oracle':
    target = array_checks.as_finite('mean', mean, shape=(num_x,))
    unit = array_checks.as_std(std, shape=(num_x,)) + std_ridge
    target_var, noise_var = 1., 0.
    offset = -0.5  # -(entropy), the logs of 2 pi cancel.
  else:
    target = array_checks.as_finite('labels', labels, shape=(num_x,))
    noise = array_checks.as_finite('noise_std', noise_std)
    if noise.ndim:
      raise ValueError('noise_std must be a scalar, got an array of shape '
                       f'{noise.shape}.')
    if noise <= 0:
      raise ValueError(f'noise_std must be > 0, got {noise}.')
    unit = np.broadcast_to(noise, target.shape)
    target_var, noise_var = 0., 1.
    offset = np.log(noise) + 0.5 * np.log(2. * np.pi)

  # In float64 even when the ranking runs in float32: predictions are often
  # large beside their distance to the target.
  errors = (predictions - target) / unit
  task = _Task(errors, std_ridge / unit, target_var, noise_var, offset)
  dtype = array_checks.get_dtype(dtype)
  return _Task(*(np.asarray(leaf, dtype) for leaf in task)), int(num_ranked)


@functools.partial(jax.jit, static_argnums=1)
def _greedy_order(task: _Task, num_ranked: int) -> tuple[Array, Array]:
  """The whole order in one scan, all candidates at once in each step.

  Mean and variance grow by Welford's update, a sum of non-negative terms, so
  that nothing cancels: with d the distance of a new member to the mean of the
  p - 1 before, the mean moves by d/p and the sum of squared deviations grows
  by d^2 (p - 1)/p.
  """
  num_samples, num_x = task.errors.shape
  dtype = task.errors.dtype
  largest = jnp.finfo(dtype).max

  def step(carry, count):
    mean, square_sum, is_chosen = carry
    share = (count - 1) / count
    delta = task.errors - mean
    std = jnp.sqrt(square_sum / count + delta ** 2 * (share / count))
    var = (std + task.ridge) ** 2 + task.noise_var
    square_error = (mean + delta / count) ** 2
    score = task.offset + 0.5 * jnp.mean(
        jnp.log(var) + (task.target_var + square_error) / var, axis=-1)

    # An overflow ranks behind every number and before what is chosen already.
    rankable = jnp.where(jnp.isnan(score), largest, score)
    rankable = jnp.where(
        is_chosen, jnp.inf, jnp.minimum(rankable, largest))
    best = jnp.argmin(rankable)  # The first of equal ones.
    delta = task.errors[best] - mean
    carry = (mean + delta / count, square_sum + delta ** 2 * share,
             is_chosen.at[best].set(True))
    return carry, (best.astype(jnp.int32), score[best])

  start = (jnp.zeros(num_x, dtype), jnp.zeros(num_x, dtype),
           jnp.zeros(num_samples, bool))
  counts = jnp.arange(1, num_ranked + 1, dtype=dtype)
  return jax.lax.scan(step, start, counts)[1]
