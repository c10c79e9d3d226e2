"""What a network with a prior function returns, here and in DeepMind's `enn`.

Each library knows outputs, and finite indexers, by its own classes. Those of
`enn` are used where it is loaded, and only there: it is never imported from
here.
"""

from collections.abc import Mapping
import sys
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray


class OutputWithPrior(NamedTuple):
  """The output of a network that has an additive prior function.

  Attributes:
    train: the part that training changes, [B, out] (or [J, B, out]), in the
      dtype of the inputs.
    prior: the part that it does not, same shape and dtype; no gradient reaches
      it.
    extra: anything else a loss may want, by name.
  """
  train: Array
  prior: Array = np.zeros(1)
  extra: Mapping[str, Array] = {}

  @property
  def preds(self) -> Array:
    """The prediction: train + prior."""
    return self.train + jax.lax.stop_gradient(self.prior)


def make_output(train: Array, prior: Array,
                extra: Mapping[str, Array] | None = None) -> OutputWithPrior:
  """An `OutputWithPrior` that the library of the caller recognises.

  DeepMind's `enn` tells outputs with a prior from plain arrays by its own
  class. When it is loaded its class is used, so that its losses and experiments
  take our networks as they are. Here outputs are recognised by their `preds`,
  whatever their class.

  Args:
    train: what is trained, [B, out].
    prior: what is not, [B, out].
    extra: further arrays by name.
  """
  output_class = deepmind_class('base', 'OutputWithPrior') or OutputWithPrior
  if extra is None:
    return output_class(train=train, prior=prior)
  return output_class(train=train, prior=prior, extra=extra)


def deepmind_class(module: str, name: str) -> Any:
  """A class of DeepMind's `enn.networks`, None where that is not loaded."""
  return getattr(sys.modules.get(f'enn.networks.{module}'), name, None)
