"""Environment variables with which `import jax` would end in a traceback.

They are looked at before a command's own imports, and without jax: commands
that do without it start as fast as they do.
"""

from collections.abc import Mapping
import sys

_BAD_INPUT = 2  # As in `cli`, which is not imported yet.

# What jax takes for true or false, and some of what it asks it of.
_ALLOWED = ('1', 'true', 'yes', 'on', 't', 'y',
            '0', 'false', 'no', 'off', 'f', 'n')
_VARIABLES = ('JAX_ENABLE_X64', 'JAX_DEBUG_NANS', 'JAX_DEBUG_INFS',
              'JAX_DISABLE_JIT', 'JAX_ENABLE_CHECKS')


def check(environment: Mapping[str, str]) -> None:
  """Ends this process, with one line, where a variable is not true or false."""
  for name in _VARIABLES:
    value = environment.get(name)
    if value is not None and value.lower() not in _ALLOWED:
      print(f'error: the environment variable {name} must be one of '
            f'{", ".join(_ALLOWED)}; got {value!a}.', file=sys.stderr)
      sys.exit(_BAD_INPUT)
