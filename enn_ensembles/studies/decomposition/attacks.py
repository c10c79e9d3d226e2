"""Inputs that are changed to be misclassified: FGSM and PGD.

Goodfellow, Shlens & Szegedy 2015, "Explaining and harnessing adversarial
examples" (arXiv 1412.6572); Madry et al. 2018, "Towards deep learning models
resistant to adversarial attacks" (arXiv 1706.06083). Both move each number of
an input by at most epsilon, so as to raise the loss of the model that they are
given. Given an ensemble, that is the NLL of the mean probabilities of all its
members: the gradient passes through the whole ensemble. An attack on one member
alone is weaker, and says nothing of what an attacker can do who has them all.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import checks

# x [N, ...] -> gradient of each input's own loss, [N, ...].
Gradient = Callable[[base.Array], base.Array]


def loss_gradient(logits_of: Callable[[base.Array], base.Array],
                  labels: base.Array) -> Gradient:
  """The gradient by x of the NLL of the members' mean probabilities.

  Args:
    logits_of: x [N, ...] -> logits of members [J, N, C].
    labels: integers [N].
  """
  def loss(x):
    log_probs = jax.nn.log_softmax(logits_of(x), axis=-1)
    together = jax.nn.logsumexp(log_probs, axis=0)  # Less log J, a constant.
    return -jnp.sum(jnp.take_along_axis(together, labels[:, None], axis=1))

  return jax.grad(loss)


def fgsm(gradient: Gradient, x: base.Array, epsilon: base.Array,
         low: base.Array, high: base.Array) -> base.Array:
  """One step of size epsilon along the sign of the gradient.

  Args:
    gradient: of the loss.
    x: [N, ...].
    epsilon: largest change of each number, broadcast against x.
    low: least value that a number may have, broadcast against x.
    high: largest value.
  """
  return jnp.clip(x + epsilon * jnp.sign(gradient(x)), low, high)


def pgd(gradient: Gradient, x: base.Array, epsilon: base.Array,
        low: base.Array, high: base.Array, *, num_steps: int = 10,
        key: chex.PRNGKey | None = None) -> base.Array:
  """Steps along the sign of the gradient, each projected to the box around x.

  Steps have the size 2.5 epsilon / num_steps, as in the paper's code, so that
  any point of the box can be reached.

  Args:
    gradient: of the loss.
    x: [N, ...].
    epsilon: largest change of each number, broadcast against x.
    low: least value that a number may have, broadcast against x.
    high: largest value.
    num_steps: steps.
    key: starts at a random point of the box; None starts at x.
  """
  checks.check_count('num_steps', num_steps)
  epsilon = jnp.asarray(epsilon, x.dtype)
  lowest = jnp.maximum(x - epsilon, low)
  highest = jnp.minimum(x + epsilon, high)
  start = x
  if key is not None:
    start = jnp.clip(x + epsilon * jax.random.uniform(
        key, x.shape, x.dtype, -1., 1.), lowest, highest)

  def step(_, point):
    moved = point + 2.5 * epsilon / num_steps * jnp.sign(gradient(point))
    return jnp.clip(moved, lowest, highest)

  return jax.lax.fori_loop(0, num_steps, step, start)
