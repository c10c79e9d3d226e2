"""Imports neural-tangents 0.6.5, the oracle of kernel tests, on today's jax.

It is unmaintained and asks for names that jax has moved since: five of
jax.core's are in jax.extend.core, jax.util and the primitive ad.zeros_like_p
are gone. Its `experimental` part needs TensorFlow and is left out. All of it is
given for the duration of the import only. Install it without what it asks for:

  pip install --no-deps neural-tangents==0.6.5 frozendict
"""

import contextlib
import importlib
import sys
import types
from unittest import mock

import jax
import jax.core
import jax.extend.core
import jax.extend.core.primitives
import jax.interpreters.ad
import pytest

_MOVED = ('Jaxpr', 'JaxprEqn', 'Literal', 'Primitive', 'Var')


def safe_map(function, *lists):
  """map() to a list; all lists must have one length."""
  return [function(*items) for items in zip(*lists, strict=True)]


def safe_zip(*lists):
  """zip() to a list; all lists must have one length."""
  return list(zip(*lists, strict=True))


def import_neural_tangents() -> types.ModuleType:
  """The module neural_tangents; skips the calling test if it is missing."""
  if 'neural_tangents' in sys.modules:
    return sys.modules['neural_tangents']
  util = types.ModuleType('jax.util')
  util.safe_map, util.safe_zip = safe_map, safe_zip
  experimental = types.ModuleType('neural_tangents.experimental')
  with contextlib.ExitStack() as stack:
    for name in _MOVED:
      stack.enter_context(mock.patch.object(
          jax.core, name, getattr(jax.extend.core, name), create=True))
    stack.enter_context(mock.patch.object(
        jax.interpreters.ad, 'zeros_like_p', object(), create=True))
    stack.enter_context(mock.patch.object(jax, 'util', util, create=True))
    stack.enter_context(mock.patch.dict(sys.modules, {
        'jax.util': util, 'neural_tangents.experimental': experimental}))
    try:
      module = importlib.import_module('neural_tangents')
    except ModuleNotFoundError as error:
      if error.name not in ('neural_tangents', 'frozendict'):
        raise
      pytest.skip(f'{error.name} is missing: pip install --no-deps '
                  'neural-tangents==0.6.5 frozendict')
    loaded = {name: value for name, value in sys.modules.items()
              if name.partition('.')[0] == 'neural_tangents'}
  # mock.patch.dict puts back sys.modules as it was, without what was loaded.
  sys.modules.update(loaded)
  return module
