"""Whether training data have the shapes that an agent is promised."""

import numpy as np

from enn_ensembles import base


def check_data(data: base.Data, prior: base.PriorKnowledge,
               name: str = '') -> None:
  """Checks x [T, ...] and y [T] of classes, [T, num_outputs] of numbers.

  Args:
    data: of one problem.
    prior: what its agent is told.
    name: what data they are, as 'validation ', in the error.

  Raises:
    ValueError: a shape is another one.
  """
  x_shape, y_shape = np.shape(data.x), np.shape(data.y)
  if x_shape[1:] != tuple(prior.input_shape):
    sizes = ', '.join(map(str, prior.input_shape))
    raise ValueError(f'{name}x must have shape [T, {sizes}] as prior has it, '
                     f'got {list(x_shape)}.')
  expected = x_shape[:1]
  if not isinstance(prior.likelihood, base.Categorical):
    expected += (prior.num_outputs,)
  if y_shape != expected:
    raise ValueError(f'{name}y must have shape {expected} for x of shape '
                     f'{x_shape}, got {y_shape}.')
