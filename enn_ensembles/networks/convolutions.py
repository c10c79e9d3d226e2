"""Convolutions of members, in the layout of `products.py`.

There are two implementations. On CPUs a convolution is a matrix product with
the image shifted to every position of the window (`convolve_by_product`):
inside a compiled loop XLA's own convolution is about forty times slower there,
and one mapped over members does not finish. On accelerators it is XLA's
convolution (`convolve_by_xla`), with a group per member where inputs differ.

The shifted images of a 3 x 3 window are nine times the image, and of a whole
minibatch far more than a core's cache: written to memory and read back they
cost as much as the product. So they are made for a few rows of the image at a
time, and each product reads them while they are in the cache.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from enn_ensembles import base
from enn_ensembles.networks import products

Pair = tuple[int, int]  # (height, width)

# Numbers of the shifted images that are made at once: half a megabyte of
# float32, within the second cache of a core. A quarter and the double of it
# were equally fast, all rows at once took up to twice as long.
_BLOCK_NUMBERS = 2**17


def _same_padding(size: int, window: int, stride: int) -> Pair:
  """Zeros before and after, so that ceil(size / stride) positions fit."""
  total = max((-(-size // stride) - 1) * stride + window - size, 0)
  return total // 2, total - total // 2


def _pad(h: base.Array, window: Pair, strides: Pair,
         padding: str) -> base.Array:
  """Images with the zeros around them that the padding asks for."""
  if padding != 'SAME':
    return h
  around = [_same_padding(size, w, step) for size, w, step in zip(
      h.shape[-3:-1], window, strides)]
  if not any(any(pair) for pair in around):
    return h
  return jnp.pad(h, [(0, 0)] * (h.ndim - 3) + [*around, (0, 0)])


class _Slide(NamedTuple):
  """A window that slides over padded images [channels, height, width, N].

  Attributes:
    window: (height, width).
    strides: (down, right).
    with_ones: whether every place also sees a one, for the bias.
  """
  window: Pair
  strides: Pair
  with_ones: bool

  def places(self, h: base.Array) -> Pair:
    """How many places the window has: (down, right)."""
    down, right = ((size - w) // step + 1 for size, w, step in zip(
        h.shape[-3:-1], self.window, self.strides))
    return down, right

  def num_seen(self, h: base.Array) -> int:
    """Numbers that the window sees at one place of one image."""
    return self.window[0] * self.window[1] * len(h) + self.with_ones

  def rows_per_block(self, h: base.Array) -> int:
    """Rows of places whose views are made at once; they divide all rows."""
    down, right = self.places(h)
    most = max(1, _BLOCK_NUMBERS // (self.num_seen(h) * right * h.shape[-1]))
    return next(num for num in range(min(most, down), 0, -1) if down % num == 0)

  def views(self, h: base.Array, first: int | base.Array,
            num: int) -> base.Array:
    """What the window sees in `num` rows of places from `first` on.

    Returns:
      [numbers seen, num * places to the right * N].
    """
    size = (num - 1) * self.strides[0] + self.window[0]
    slab = jax.lax.dynamic_slice_in_dim(h, first * self.strides[0], size, 1)
    right = self.places(h)[1]
    shifted = [
        slab[:, i:i + (num - 1) * self.strides[0] + 1:self.strides[0],
             j:j + (right - 1) * self.strides[1] + 1:self.strides[1]]
        for i in range(self.window[0]) for j in range(self.window[1])]
    if self.with_ones:
      shifted.append(jnp.ones((1, *shifted[0].shape[1:]), h.dtype))
    seen = shifted[0] if len(shifted) == 1 else jnp.concatenate(shifted)
    return seen.reshape(len(seen), -1)


def _multiply(w: base.Array, h: base.Array, slide: _Slide) -> base.Array:
  """Weights times what the window sees.

  Args:
    w: [..., out, numbers seen].
    h: padded images [..., channels, height, width, N], the same leading axes.
    slide: the window.

  Returns:
    [..., out, places down, places right, N].
  """
  if w.ndim > 2:  # Member by member: the views of one stay in the cache.
    return jax.lax.map(lambda pair: _multiply(pair[0], pair[1], slide), (w, h))
  (down, right), num = slide.places(h), slide.rows_per_block(h)

  def block(first):
    found = w @ slide.views(h, first, num)
    return found.reshape(len(w), num, right, h.shape[-1])

  if num == down:
    return block(0)
  return jax.lax.fori_loop(
      0, down // num,
      lambda i, out: jax.lax.dynamic_update_slice_in_dim(
          out, block(i * num), i * num, 1),
      jnp.zeros((len(w), down, right, h.shape[-1]),
                jnp.result_type(w, h)))


def _multiply_transposed(d: base.Array, h: base.Array,
                         slide: _Slide) -> base.Array:
  """Sum over places and images of d times what the window sees.

  Args:
    d: [..., out, places down, places right, N].
    h: as in `_multiply`.
    slide: the window.

  Returns:
    [..., out, numbers seen].
  """
  if d.ndim > 4:
    return jax.lax.map(
        lambda pair: _multiply_transposed(pair[0], pair[1], slide), (d, h))
  (down, _), num = slide.places(h), slide.rows_per_block(h)

  def block(first):
    part = jax.lax.dynamic_slice_in_dim(d, first, num, 1)
    return jax.lax.dot_general(
        part.reshape(len(d), -1), slide.views(h, first, num),
        (((1,), (1,)), ((), ())))

  if num == down:
    return block(0)
  return jax.lax.fori_loop(
      0, down // num, lambda i, found: found + block(i * num),
      jnp.zeros((len(d), slide.num_seen(h)), jnp.result_type(d, h)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def convolve_by_product(w: base.Array, h: base.Array, window: Pair,
                        strides: Pair, padding: str,
                        with_bias: bool) -> base.Array:
  """Convolution as matrix products with the shifted images.

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
  return _multiply(w, _pad(h, window, strides, padding),
                   _Slide(window, strides, with_bias))


def _convolve_forward(w, h, window, strides, padding, with_bias):
  return convolve_by_product(w, h, window, strides, padding, with_bias), (w, h)


def _convolve_backward(window, strides, padding, with_bias, residuals, d):
  w, h = residuals
  dw = _multiply_transposed(d, _pad(h, window, strides, padding),
                            _Slide(window, strides, with_bias))
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
  dh = _multiply(turned.reshape(*turned.shape[:-3], -1), spread_out,
                 _Slide(window, (1, 1), False))
  return dw, dh


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
  return products.over_members(
      lambda w, h: implementation(w, h, window, strides, padding, with_bias),
      w, h, rank=3)
