"""What the training program must know of an agent: network, loss, optimizer."""

from collections.abc import Callable
import dataclasses

import chex
import optax

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.training import early_stopping as early_stopping_lib
from enn_ensembles.training import losses
from enn_ensembles.training import optimizers

Optimizer = optax.GradientTransformation


@dataclasses.dataclass(frozen=True)
class NetworkTraining:
  """What is trained, and how: the fields of an agent with a network.

  `network_agent.NetworkAgent`, which everybody makes, explains them. They stand
  here because that class calls the training program, which reads them.
  """
  make_network: Callable[[base.PriorKnowledge], base.EpistemicNetwork]
  make_loss: Callable[[base.PriorKnowledge], losses.Loss]
  optimizer: Optimizer | Callable[[base.PriorKnowledge], Optimizer] = (
      optax.adam(1e-3))
  num_batches: int = 1000
  batch_size: int = 100
  sampling: str = 'replacement'
  augment: Callable[[chex.PRNGKey, base.Array], base.Array] | None = None
  early_stopping: early_stopping_lib.EarlyStopping | None = None
  snapshots: tuple[int, ...] = ()

  def __post_init__(self):
    checks.check_count('num_batches', self.num_batches)
    checks.check_count('batch_size', self.batch_size)
    checks.check_choice('sampling', self.sampling, optimizers.SAMPLINGS)
    if not (isinstance(self.optimizer, optax.GradientTransformation)
            or callable(self.optimizer)):
      raise ValueError('optimizer must be an optax GradientTransformation or a '
                       f'function of PriorKnowledge, got {self.optimizer!r}.')
    if not isinstance(self.snapshots, (tuple, list)):
      raise ValueError('snapshots must be a tuple of steps, got '
                       f'{self.snapshots!r}.')
    if list(self.snapshots) != sorted(set(self.snapshots)) or any(
        not 0 <= step <= self.num_batches for step in self.snapshots):
      raise ValueError(
          'snapshots must be increasing steps from 0 to num_batches '
          f'{self.num_batches}, got {self.snapshots!r}.')
    if self.snapshots and self.early_stopping is not None:
      raise ValueError('snapshots must be () with early_stopping, which may '
                       f'end before them, got {self.snapshots!r}.')

  def make_optimizer(self, prior: base.PriorKnowledge) -> Optimizer:
    """The optimizer of one problem."""
    if isinstance(self.optimizer, optax.GradientTransformation):
      return self.optimizer
    return self.optimizer(prior)
