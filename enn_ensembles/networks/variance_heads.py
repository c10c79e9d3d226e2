"""Networks that say what the noise of a label is, beside what the label is.

The outputs of any network are cut in two: means, and logarithms of the noise
variance (Nix & Weigend 1994, "Estimating the mean and variance of the target
probability distribution"). The latter stand in `OutputWithPrior.extra`, so that
whoever asks for predictions gets f.
"""

from collections.abc import Callable
import dataclasses

import jax.numpy as jnp
import numpy as np

from enn_ensembles import base
from enn_ensembles import outputs

# Variances from 1e-6 to 1e6: a member that interpolates its data would say ever
# smaller ones, and its loss would have no minimum.
_LOG_BOUND = float(np.log(1e6))


def with_variance_head(network: base.EpistemicNetwork,
                       num_outputs: int) -> base.EpistemicNetwork:
  """The network with the second half of its outputs as log variances.

  A prior function is added to the means alone.

  Args:
    network: of 2 num_outputs outputs.
    num_outputs: components of f(x).
  """
  def split(output: base.Output) -> base.Output:
    train, prior = base.split_output(output)
    log_variance = jnp.clip(train[..., num_outputs:], -_LOG_BOUND, _LOG_BOUND)
    return outputs.make_output(
        train[..., :num_outputs], prior[..., :num_outputs],
        {base.LOG_VARIANCE: log_variance})

  def splitting(forward: Callable | None) -> Callable | None:
    if forward is None:
      return None

    def split_forward(*arguments):
      output, state = forward(*arguments)
      return split(output), state

    return split_forward

  return dataclasses.replace(network, **{
      name: splitting(getattr(network, name))
      for name in ('apply', 'apply_indices', 'apply_train')})
