"""Ground truth is float64: jax must be told before anything is computed."""

import jax

jax.config.update('jax_enable_x64', True)
