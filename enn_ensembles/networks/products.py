"""Products of weights with activations, of members.

Layout. A layer of J members is one array [J, out, columns], the bias its last
column. Vectors are [J, features, N] and images [J, channels, height, width, N]:
features first, and the N examples last. What all members share has no axis J.
Then every layer is one row-major matrix product forward and two backward,
without a transposition and without a sum over the examples for the bias: on a
CPU those cost as much as the products.
"""

import jax
import jax.numpy as jnp

from enn_ensembles import base

# Up to so many inputs, a row of ones makes the product of the first layers of
# all members slower (three times with 10 inputs, by a tenth with 100) than what
# taking the last column off w costs.
_FEW_INPUTS = 128


@jax.custom_vjp
def affine(w: base.Array, h: base.Array) -> base.Array:
  """w [..., out, in + 1] applied to h [..., in, N]: [..., out, N].

  The last column of w is the bias. The gradient is written out: the derived one
  puts its products in an order that has to be transposed, and has a row for the
  gradient of the ones that the bias is multiplied by.
  """
  return _affine(w, h)


def _affine(w: base.Array, h: base.Array) -> base.Array:
  if w.ndim == 2 and w.shape[1] <= _FEW_INPUTS:
    return w[..., :-1] @ h + w[..., -1:]
  return w @ _with_ones(h)


def _with_ones(h: base.Array) -> base.Array:
  ones = jnp.ones((*h.shape[:-2], 1, h.shape[-1]), h.dtype)
  return jnp.concatenate([h, ones], axis=-2)


def _affine_forward(w, h):
  return _affine(w, h), (w, _with_ones(h))


def _affine_backward(residuals, d):
  w, columns = residuals
  batch = tuple(range(d.ndim - 2))
  dw = jax.lax.dot_general(
      d, columns, (((d.ndim - 1,), (d.ndim - 1,)), (batch, batch)))
  # The barrier keeps XLA from making one product of both: it has no fast
  # routine for a first factor that lies transposed.
  transposed = jax.lax.optimization_barrier(
      jnp.swapaxes(w[..., :-1], -1, -2))
  return dw, transposed @ d


affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_batching.custom_vmap
def _repeat_like(a: base.Array, other: base.Array) -> base.Array:
  """a, repeated along every axis that only the other is mapped over.

  Mapped over noise levels, a product whose second factor alone differs between
  them becomes one product with a level in every part of its columns, which have
  to be put in order afterwards. With both repeated it is one product per level.
  """
  del other
  return a


@_repeat_like.def_vmap
def _repeat_like_mapped(axis_size, are_mapped, a, other):
  if are_mapped[1] and not are_mapped[0]:
    a = jnp.broadcast_to(a, (axis_size, *a.shape))
  return a, any(are_mapped)


@jax.custom_vjp
def mix(z: base.Array, w: base.Array) -> base.Array:
  """z [J, d] times w [d, n]: [J, n]. Its gradient is written out as above."""
  return _repeat_like(z, w) @ w


def _mix_forward(z, w):
  z = _repeat_like(z, w)
  return z @ w, (z, w)


def _mix_backward(residuals, d):
  z, w = residuals
  transposed = jax.lax.optimization_barrier(z.T)
  return jax.lax.dot_general(d, w, (((1,), (1,)), ((), ()))), transposed @ d


mix.defvjp(_mix_forward, _mix_backward)


def join_first(h: base.Array) -> base.Array:
  """[J, ..., N] -> [..., J * N]: what is on the first axis goes beside N."""
  h = jnp.moveaxis(h, 0, -2)
  return h.reshape(*h.shape[:-2], -1)


def over_members(product, w: base.Array, h: base.Array,
                 rank: int) -> base.Array:
  """A product of members, one of whose factors the members may share.

  Args:
    product: (w [..., out, columns], h [..., *image, N]) -> [..., out, ..., N],
      linear in w, with the same leading axes in w and h.
    w: [out, columns], or [J, out, columns].
    h: [*image, N], or [J, *image, N].
    rank: axes of `*image`.

  Returns:
    [J, out, ..., N], or [out, ..., N] where all members share both.
  """
  with_members = h.ndim - rank - 1
  if w.ndim - 2 == with_members:
    return product(w, h)
  if with_members == 0:  # One product for all members: J times as many rows.
    num, out, columns = w.shape
    result = product(w.reshape(num * out, columns), h)
    return result.reshape(num, out, *result.shape[1:])
  # Shared weights: J times as many examples.
  num, size = len(h), h.shape[-1]
  result = product(w, join_first(h))
  return jnp.moveaxis(
      result.reshape(*result.shape[:-1], num, size), -2, 0)
