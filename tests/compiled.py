"""Networks as a few compiled programs: compiling is most of what tests take.

Called as it is, a network compiles a program for every operation and shape; so
does every index into an array of jax.
"""

import dataclasses
import os

import jax
import numpy as np

# What XLA does where conftest.py does not ask for less.
USUAL_COMPILER = {'xla_backend_optimization_level': '3',
                  'xla_llvm_disable_expensive_passes': False}
if 'xla_cpu_use_fusion_emitters' in os.environ.get('XLA_FLAGS', ''):
  USUAL_COMPILER['xla_cpu_use_fusion_emitters'] = True


def compiled(network):
  """The network, with functions that are one program each and give numpy.

  Indices that many are asked for at once are constants of that program, as they
  are where it is called as it is: how they share work may depend on them.
  """
  changes = {'apply': _program(network.apply), 'init': _program(network.init)}
  for name in ('apply_indices', 'apply_train'):
    if getattr(network, name) is not None:
      changes[name] = _program_of_indices(getattr(network, name))
  if network.shared is not None:
    changes['shared'] = _program(network.shared)
  return dataclasses.replace(network, **changes)


def _program(function):
  run = jax.jit(function)
  return lambda *arguments: _to_numpy(run(*arguments))


def _program_of_indices(function):
  """function(params, state, x, indices, *more), a program per indices."""
  programs = {}

  def call(params, state, x, indices, *more):
    leaves, tree = jax.tree.flatten(indices)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
      return function(params, state, x, indices, *more)
    key = (tree, *((leaf.shape, str(leaf.dtype), leaf.tobytes())
                   for leaf in map(np.asarray, leaves)))
    if key not in programs:
      programs[key] = jax.jit(
          lambda params, state, x, *more: function(params, state, x, indices,
                                                   *more))
    return _to_numpy(programs[key](params, state, x, *more))

  return call


def _to_numpy(values):
  """Within a program they are left as they are."""
  return jax.tree.map(lambda a: a if isinstance(a, jax.core.Tracer)
                      else np.asarray(a), values)
