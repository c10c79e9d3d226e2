"""jax in 64-bit or 32-bit mode within a `with` block, in every version."""

import jax


def mode(enabled):
  """A context manager: `jax.enable_x64`, or where older versions have it."""
  if hasattr(jax, 'enable_x64'):
    return jax.enable_x64(enabled)
  from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]
  return enable_x64(enabled)
