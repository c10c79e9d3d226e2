"""Sets of a layer ensemble's combinations: every shared prefix computed once.

A `Plan` lists the distinct prefixes of a set of combinations, depth by depth.
A set that is known when the program is compiled costs exactly its distinct
prefixes. For a set that is known only when the program runs, a plan of static
shapes is an argument, and one program serves all sets of one size
(`stack_network.make_predict_set`). Indices that are traced need no plan from
the host (`plan_traced`).

Oleksiienko & Iosifidis 2022, "Layer Ensembles" (arXiv 2210.04882).
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles.networks import layer_stack
from enn_ensembles.networks import products

# One product of all options with all parents is preferred to a product per
# combination as long as it is at most this many times the arithmetic. Not where
# the indices are traced: that is training, and picking is slow to
# differentiate.
_SURPLUS = 2
# Dense layers with more weights than this are not copied for every prefix, to
# be one batched product, but run prefix by prefix: copies take memory, and on a
# CPU time. The forward of 25 or 125 prefixes of 100 points, on a core of a busy
# machine, took 0.7 to 1.1 times as long with copies up to 26,000 weights, and
# 0.8 to 9 times from 50,000 weights on.
_MAX_COPIED_WEIGHTS = 30_000

# What a depth does. All options on all prefixes so far, all kept; the same and
# then those of the plan picked out; a product per prefix; a product per option.
_KEEP, _PICK, _EACH, _GROUP = 'keep', 'pick', 'each', 'group'


@functools.partial(jax.tree_util.register_dataclass,
                   data_fields=('parents', 'options', 'rows'),
                   meta_fields=('num_options', 'modes'))
@dataclasses.dataclass(frozen=True)
class Plan:
  """The distinct prefixes of a set of combinations, depth by depth.

  Arrays are numpy or traced; the other fields are static. Plans of as many
  combinations of the same stack have the same shapes, unless they are exact.

  Attributes:
    num_options: K_1, ..., K_L.
    modes: what each depth does, a constant of this module.
    parents: per depth the position of each prefix's parent among the prefixes
      one depth before, int32 [n]; None where they are the same in the same
      order, and where all are kept.
    options: per depth the option of each prefix, int32 [n]; None where all are
      kept.
    rows: the position of every sample among the prefixes at the end, int32
      [J], in the order that the caller gave; None where it is the same.
  """
  num_options: tuple[int, ...]
  modes: tuple[str, ...]
  parents: tuple[base.Array | None, ...]
  options: tuple[base.Array | None, ...]
  rows: base.Array | None

  @property
  def num_evaluations(self) -> tuple[int, ...]:
    """Evaluations of a layer on one prefix's batch, per depth."""
    found, prefixes = [], 1
    for num, mode, options in zip(self.num_options, self.modes, self.options):
      everything = prefixes * num
      prefixes = everything if mode == _KEEP else len(options)
      found.append(everything if mode == _PICK else prefixes)
    return tuple(found)


def check_indices(indices: np.ndarray, num_options: Sequence[int]) -> None:
  """Raises ValueError unless `indices` [J, L] are options of the layers."""
  if indices.ndim != 2 or indices.shape[1] != len(num_options):
    raise ValueError(f'indices must be [J, {len(num_options)}], one option per '
                     f'layer, got shape {indices.shape}.')
  if len(indices) == 0:
    raise ValueError('indices must name at least one sample, got none.')
  if not np.issubdtype(indices.dtype, np.integer):
    raise ValueError(f'indices must be integers, got {indices.dtype}.')
  bad = np.argwhere((indices < 0) | (indices >= np.asarray(num_options)))
  if len(bad):
    row, layer = bad[0]
    raise ValueError(
        f'index {indices[row].tolist()} asks for option {indices[row, layer]} '
        f'of layer {layer}, which has options 0 to {num_options[layer] - 1}.')


def _choose_modes(num_options: Sequence[int], num: int,
                  surplus: int) -> tuple[str, ...]:
  """What each depth does for any set of `num` combinations."""
  modes, prefixes = [], 1
  for depth, options in enumerate(num_options):
    everything = prefixes * options
    last = depth == len(num_options) - 1
    if everything <= (surplus * num if last else num):
      modes.append(_KEEP)  # At the end the rows pick.
    elif everything <= surplus * num:
      modes.append(_PICK)
    else:
      modes.append(_EACH)
    prefixes = everything if modes[-1] == _KEEP else num
  return tuple(modes)


def plan_combinations(indices: Any, num_options: Sequence[int], *,
                      exact: bool = False) -> Plan:
  """Plans on the host how a set of combinations is computed.

  Args:
    indices: int [J, L], J >= 1, in any order, repeats allowed.
    num_options: K_1, ..., K_L.
    exact: whether exactly the distinct prefixes are computed: for programs
      in which the plan is a constant. Otherwise shapes depend on J alone, depth
      l having min(J, K_1 ... K_l) prefixes or all options of its parents, and
      the plan may be a traced argument.

  Raises:
    ValueError: `indices` has another width, names no sample, or an option that
      its layer has not.
  """
  indices = np.asarray(indices)
  check_indices(indices, num_options)
  indices, num_options = indices.astype(np.int64), tuple(num_options)
  modes = list(_choose_modes(num_options, len(indices), _SURPLUS))
  prefixes, position = 1, np.zeros(len(indices), np.int64)
  distinct = rank = position
  all_parents, all_options = [], []
  for depth, num in enumerate(num_options):
    position = indices[:, depth] * prefixes + position
    if exact or modes[depth] != _KEEP:
      distinct, rank = np.unique(position, return_inverse=True)
    if exact:
      modes[depth] = _KEEP if len(distinct) == prefixes * num else _GROUP
    if modes[depth] == _KEEP:
      prefixes *= num
      all_parents.append(None)
      all_options.append(None)
      continue
    if not exact:  # Padded with the first prefix.
      distinct = np.append(distinct, np.repeat(
          distinct[0], len(indices) - len(distinct)))
    all_parents.append((distinct % prefixes).astype(np.int32))
    all_options.append((distinct // prefixes).astype(np.int32))
    prefixes, position = len(distinct), rank.reshape(-1)
  return Plan(num_options, tuple(modes), tuple(all_parents),
              tuple(all_options), position.astype(np.int32))


def plan_traced(indices: base.Array, num_options: Sequence[int]) -> Plan:
  """A plan inside a compiled program, for traced int [J, L].

  Depths of at most J prefixes are computed in full and so shared, deeper ones
  for every sample. The values cannot be checked: an option that its layer does
  not have gives the output of some other combination.

  Raises:
    ValueError: `indices` has another width or names no sample.
  """
  if indices.ndim != 2 or indices.shape[1] != len(num_options) or (
      not len(indices)):
    check_indices(np.zeros(indices.shape, int), num_options)
  num_options = tuple(num_options)
  modes = _choose_modes(num_options, len(indices), surplus=1)
  prefixes, position = 1, jnp.zeros(len(indices), jnp.int32)
  all_parents, all_options = [], []
  for depth, (num, mode) in enumerate(zip(num_options, modes)):
    option = indices[:, depth].astype(jnp.int32)
    if mode == _KEEP:
      all_parents.append(None)
      all_options.append(None)
      if position is None:
        position = jnp.arange(prefixes, dtype=jnp.int32)
      position = option * prefixes + position
      prefixes *= num
    else:
      all_parents.append(position)
      all_options.append(option)
      position, prefixes = None, len(indices)
  return Plan(num_options, modes, tuple(all_parents), tuple(all_options),
              position)


class _Prefixes:
  """Activations of several prefixes, in the layout that was last asked for."""

  def __init__(self, h: base.Array, num: int, num_x: int,
               stacked: bool = False):
    self.num = num
    self._h, self._num_x, self._stacked = h, num_x, stacked

  def joined(self) -> base.Array:
    """[*features first, num * B]."""
    return products.join_first(self._h) if self._stacked else self._h

  def _split(self) -> base.Array:
    """[*features first, num, B]."""
    return self._h.reshape(*self._h.shape[:-1], self.num, self._num_x)

  def stacked(self) -> base.Array:
    """[num, *features first, B]."""
    return self._h if self._stacked else jnp.moveaxis(self._split(), -2, 0)

  def pick(self, positions: base.Array | None) -> '_Prefixes':
    """The prefixes at these positions, in order; None: all as they are."""
    if positions is None:
      return self
    num = len(positions)
    if self._stacked:
      return _Prefixes(self._h[positions], num, self._num_x, stacked=True)
    h = self._split()[..., positions, :]
    return _Prefixes(h.reshape(*h.shape[:-2], -1), num, self._num_x)


def _apply_each(segment: layer_stack.Segment, weights: layer_stack.Weights,
                prefixes: _Prefixes, parents: base.Array | None,
                options: base.Array) -> base.Array:
  """An option on the activations of a parent, prefix by prefix: stacked."""
  num_weights = sum(w.size // w.shape[1] for w in weights)
  if len(segment.input_shape) == 1 and num_weights <= _MAX_COPIED_WEIGHTS:
    # A batched product. All prefixes have the same first parent.
    h = (prefixes.stacked()[0] if prefixes.num == 1 else
         prefixes.pick(parents).stacked())
    return segment.apply_each(options, weights, h)
  # Neither weights nor images are copied.
  h = prefixes.stacked()
  if parents is None:
    return jax.lax.map(
        lambda one: segment.apply_one(one[1], weights, one[0]), (h, options))
  return jax.lax.map(
      lambda one: segment.apply_one(one[1], weights, h[one[0]]),
      (parents, options))


def _apply_groups(segment: layer_stack.Segment, weights: layer_stack.Weights,
                  prefixes: _Prefixes, parents: base.Array,
                  options: base.Array) -> base.Array:
  """One product per option; options ascend, as in plans: joined."""
  if not isinstance(parents, np.ndarray):
    raise ValueError('an exact plan must be a constant of the program, got a '
                     'traced one: plan with exact=False.')
  outputs = [
      segment.apply_one(option, weights,
                        prefixes.pick(parents[options == option]).joined())
      for option in np.unique(options).tolist()]
  return jnp.concatenate(outputs, axis=-1)


def forward_set(stack: layer_stack.LayerStack, weights: layer_stack.Weights,
                x: base.Array, plan: Plan) -> base.Array:
  """The combinations of a plan, every shared prefix computed once.

  Args:
    stack: layers and numbers of options.
    weights: all weight arrays, [out, K_l, columns] each.
    x: inputs, [B, D] or [B, height, width, channels].
    plan: from `plan_combinations` or `plan_traced` for this stack's options.

  Returns:
    [J, B, out] in the order of the planned indices.

  Raises:
    ValueError: the plan is of other options, or exact and traced.
  """
  if plan.num_options != stack.num_options:
    raise ValueError(f'the plan is for the options {plan.num_options}, the '
                     f'layers have {stack.num_options}.')
  num_x = len(x)
  h, segments = stack.start(x)
  prefixes = _Prefixes(h, 1, num_x)
  for segment, w, num, mode, parents, options in zip(
      segments, layer_stack.group_weights(segments, weights),
      plan.num_options, plan.modes, plan.parents, plan.options, strict=True):
    if mode in (_KEEP, _PICK):
      here = prefixes.num
      prefixes = _Prefixes(segment.apply_all(w, prefixes.joined()),
                           here * num, num_x)
      if mode == _PICK:
        parents = jnp.arange(here) if parents is None else parents
        prefixes = prefixes.pick(options * here + parents)
    elif mode == _EACH:
      h = _apply_each(segment, w, prefixes, parents, options)
      prefixes = _Prefixes(h, len(options), num_x, stacked=True)
    else:
      h = _apply_groups(segment, w, prefixes, parents, options)
      prefixes = _Prefixes(h, len(options), num_x)
  out = jnp.swapaxes(prefixes.pick(plan.rows).stacked(), 1, 2)
  chex.assert_shape(out, (None, num_x, None))
  return out
