"""What losses add for large weights: their squares, or the prior density."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles import networks
from enn_ensembles.training import losses


def add_penalty(loss: losses.Loss,
                penalty: Callable[[base.Params], base.Array]) -> losses.Loss:
  """Adds penalty(params), a scalar, to a loss."""

  def evaluate(network, params, state, context, batch, key):
    value, aux = loss.evaluate(network, params, state, context, batch, key)
    return value + penalty(params), aux

  return dataclasses.replace(loss, evaluate=evaluate)


def add_l2_weight_decay(loss: losses.Loss, scale: Any) -> losses.Loss:
  """Adds scale * sum of squares of all parameters, those of all members."""
  return add_penalty(loss, lambda params: scale * sum(
      jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params)))


# params -> for every weight array, from the input on, the mean over members of
# the squares of its weights, [..., columns].
MeanSquares = Callable[[base.Params], Sequence[base.Array]]


def add_gaussian_weight_decay(
    loss: losses.Loss, scale: Any, mean_squares: MeanSquares,
    shapes: Sequence[networks.LayerShape] | None = None,
    from_start: bool = False) -> losses.Loss:
  """Adds the negative log density of the kernel's Gaussian prior on weights.

    scale * mean over members of (sum over layers of fan_in |W|^2 + D |b_1|^2)

  Under the prior of the NNGP's network a weight of a layer with fan_in inputs
  has variance 1/fan_in and the first layer's bias has variance 1/D, D being
  that layer's fan_in. The prior fixes all other biases at 0; they are trained
  here nevertheless, and are not penalised. Nor are scales and offsets of norms.

  For the mean squared error the scale that makes the minimum a posterior mode
  is noise_std^2 / T; for the mean cross-entropy it is 1 / (2 T).

  Args:
    loss: a loss.
    scale: a scalar, which may be traced.
    mean_squares: see `MeanSquares`.
    shapes: of the weight arrays; None where all of them are layers whose last
      column is their bias.
    from_start: whether W and b_1 are distances from the initial weights, the
      anchored form of Pearce et al. 2020 (arXiv 1810.05546): with initial
      weights that are draws of the prior and noisy targets, the minimum of a
      linear model is a draw of its posterior.
  """
  def penalty(params: base.Params) -> base.Array:
    return scale * gaussian_penalty(mean_squares(params), shapes)

  if not from_start:
    return add_penalty(loss, penalty)

  def with_start(prepare: Callable[..., losses.Context]
                 ) -> Callable[..., losses.Context]:
    def prepare_both(network, params, state, data, key):
      return prepare(network, params, state, data, key), params
    return prepare_both

  def evaluate(network, params, state, context, batch, key):
    inner, start = context
    value, aux = loss.evaluate(network, params, state, inner, batch, key)
    return value + penalty(jax.tree.map(jnp.subtract, params, start)), aux

  augmented = loss.prepare_augmented
  return losses.Loss(with_start(loss.prepare), evaluate,
                     None if augmented is None else with_start(augmented))


def gaussian_penalty(squares: Sequence[base.Array],
                     shapes: Sequence[networks.LayerShape] | None = None
                     ) -> base.Array:
  """sum over layers of fan_in |W|^2, plus D |b_1|^2, from the squares.

  Args:
    squares: of each array's weights, [..., columns].
    shapes: as in `add_gaussian_weight_decay`.
  """
  total = 0.
  for i, square in enumerate(squares):
    if shapes is None:
      fan_in, has_bias = square.shape[-1] - 1, True
    elif shapes[i].is_norm:
      continue
    else:
      fan_in, has_bias = shapes[i].size, shapes[i].has_bias
    total += fan_in * jnp.sum(square[..., :fan_in])
    if i == 0 and has_bias:
      total += fan_in * jnp.sum(square[..., -1])
  return total
