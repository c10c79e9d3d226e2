"""Products of weights with activations: dense and convolutional, of members.

Layout. A layer of J members is one array [J, out, columns], the bias its last
column. Vectors are [J, features, N] and images [J, channels, height, width, N]:
features first, and the N examples last. What all members share has no axis J.
Then every layer is one row-major matrix product forward and two backward,
without a transposition and without a sum over the examples for the bias: on a
CPU those cost as much as the products.

A convolution has two implementations. On CPUs it is a matrix product with the
image shifted to every position of the window (`convolve_by_product`): inside a
compiled loop XLA's own convolution is about forty times slower there, and one
mapped over members does not finish. On accelerators it is XLA's convolution
(`convolve_by_xla`), with a group per member where inputs differ.
"""

import functools

import jax
import jax.numpy as jnp

from enn_ensembles import base

Pair = tuple[int, int]  # (height, width)


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
  joined = jnp.moveaxis(h, 0, -2).reshape(*h.shape[1:-1], num * size)
  result = product(w, joined)
  return jnp.moveaxis(
      result.reshape(*result.shape[:-1], num, size), -2, 0)


def _same_padding(size: int, window: int, stride: int) -> Pair:
  """Zeros before and after, so that ceil(size / stride) positions fit."""
  total = max((-(-size // stride) - 1) * stride + window - size, 0)
  return total // 2, total - total // 2


def window_rows(h: base.Array, window: Pair, strides: Pair, padding: str,
                with_ones: bool) -> base.Array:
  """What a window sees at each of its places, one row per position and channel.

  Args:
    h: images [..., channels, height, width, N].
    window: of the convolution.
    strides: its steps.
    padding: 'SAME' or 'VALID'.
    with_ones: whether a row of ones follows, for the bias.

  Returns:
    [..., positions * channels (+ 1), height', width', N].
  """
  if padding == 'SAME':
    around = [_same_padding(size, w, step) for size, w, step in zip(
        h.shape[-3:-1], window, strides)]
    if any(any(pair) for pair in around):
      h = jnp.pad(h, [(0, 0)] * (h.ndim - 3) + [*around, (0, 0)])
  height, width = ((size - w) // step + 1 for size, w, step in zip(
      h.shape[-3:-1], window, strides))
  rows = [
      h[..., i:i + (height - 1) * strides[0] + 1:strides[0],
        j:j + (width - 1) * strides[1] + 1:strides[1], :]
      for i in range(window[0]) for j in range(window[1])]
  if with_ones:
    rows.append(jnp.ones((*h.shape[:-4], 1, height, width, h.shape[-1]),
                         h.dtype))
  return rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=-4)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def convolve_by_product(w: base.Array, h: base.Array, window: Pair,
                        strides: Pair, padding: str,
                        with_bias: bool) -> base.Array:
  """Convolution as one matrix product with the shifted images.

  Its gradient is written out: backward it is two products too, one with the
  same shifted images, which are made anew rather than kept, and one with the
  shifted gradients. The derived one would add up a padded image for every
  position of the window.

  Args:
    w: [..., out, positions * channels (+ 1)]; the bias is the last column.
    h: [..., channels, height, width, N], the same leading axes.
    window: (height, width).
    strides: (down, right).
    padding: 'SAME' or 'VALID'.
    with_bias: whether w has a bias column.

  Returns:
    [..., out, height', width', N].
  """
  rows = window_rows(h, window, strides, padding, with_bias)
  places = rows.shape[-3:]
  out = w @ rows.reshape(*rows.shape[:-3], -1)
  return out.reshape(*out.shape[:-1], *places)


def _convolve_forward(w, h, window, strides, padding, with_bias):
  return convolve_by_product(w, h, window, strides, padding, with_bias), (w, h)


def _convolve_backward(window, strides, padding, with_bias, residuals, d):
  w, h = residuals
  rows = window_rows(h, window, strides, padding, with_bias)
  batch = tuple(range(w.ndim - 2))
  last = w.ndim - 1
  dw = jax.lax.dot_general(
      d.reshape(*d.shape[:-3], -1), rows.reshape(*rows.shape[:-3], -1),
      (((last,), (last,)), (batch, batch)))
  # The gradient of the image is a convolution of d, spread out by the strides,
  # with the window turned round.
  channels = h.shape[-4]
  turned = (w[..., :-1] if with_bias else w).reshape(
      *w.shape[:-1], *window, channels)[..., ::-1, ::-1, :]
  turned = jnp.moveaxis(turned, (-1, -4), (-4, -1))  # [.., ch, i, j, out]
  around = [(0, 0, 0)] * (d.ndim - 3)
  for size, places, w_size, step in zip(h.shape[-3:-1], d.shape[-3:-1], window,
                                        strides):
    before = _same_padding(size, w_size, step)[0] if padding == 'SAME' else 0
    low = w_size - 1 - before
    spread = (places - 1) * step + 1
    around.append((low, size + w_size - 1 - low - spread, step - 1))
  spread_out = jax.lax.pad(d, jnp.zeros((), d.dtype), [*around, (0, 0, 0)])
  rows = window_rows(spread_out, window, (1, 1), 'VALID', False)
  dh = turned.reshape(*turned.shape[:-3], -1) @ rows.reshape(
      *rows.shape[:-3], -1)
  return dw, dh.reshape(h.shape)


convolve_by_product.defvjp(_convolve_forward, _convolve_backward)


def convolve_by_xla(w: base.Array, h: base.Array, window: Pair, strides: Pair,
                    padding: str, with_bias: bool) -> base.Array:
  """The same as `convolve_by_product`, by XLA's convolution."""
  if w.ndim > 2:
    return jax.vmap(lambda w, h: convolve_by_xla(
        w, h, window, strides, padding, with_bias))(w, h)
  weights = w[:, :-1] if with_bias else w
  out = jax.lax.conv_general_dilated(
      h, weights.reshape(len(w), *window, len(h)), strides, padding,
      dimension_numbers=('CHWN', 'OHWI', 'CHWN'))
  return out + w[:, -1:, None, None] if with_bias else out


def convolve(w: base.Array, h: base.Array, window: Pair, strides: Pair,
             padding: str, with_bias: bool) -> base.Array:
  """Convolution by what is faster on this process's backend.

  Arguments and result as `convolve_by_product`; either of w and h may be
  without the members' axis.
  """
  implementation = (convolve_by_product if jax.default_backend() == 'cpu'
                    else convolve_by_xla)
  return over_members(
      lambda w, h: implementation(w, h, window, strides, padding, with_bias),
      w, h, rank=3)
